//! One worker: a poll, listeners, the connections of a shard, and what it tells other workers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::linger::Lingering;
use super::listen::{AcceptAgain, Loads};
use super::mailbox::{Letter, Mailbox};
use super::memory::MemoryReturn;
use super::socket::Socket;
use super::start::Report;
use crate::clock::{Clock, Millis};
use crate::error::CloseReason;
use crate::id::WorkerId;
use crate::session::shard::{Shard, Shared};

/// Bytes read at a time: what the kernel has ready under load, and less than half of a common
/// second-level cache.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Readiness events taken from the kernel at a time.
const EVENTS_MAX: usize = 1_024;
/// Connections accepted before others are served again.
const ACCEPTS_MAX: usize = 128;

/// The waker's token; listeners count down from it.
pub(super) const WAKER: Token = Token(usize::MAX);
/// Tokens at and above this are connections being seen off; below it are slots of connections,
/// which on a machine of 32 bits run out of memory long before.
pub(super) const LINGERING: usize = 1 << (usize::BITS - 2);

/// What all workers of a server know of each other.
pub(super) struct Staff {
    pub mailboxes: Vec<Mailbox>,
    pub loads: Loads,
}

/// How far a worker is on its way to the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Serving.
    Open,
    /// Serving those who are there.
    LameDuck,
    /// Reading no more.
    Quiet,
    /// Sending what is left.
    Finishing,
}

pub(super) struct Worker {
    pub index: usize,
    pub shard: Shard<Socket>,
    pub shared: Arc<Shared>,
    pub staff: Arc<Staff>,
    pub reports: Sender<Report>,
    pub poll: Poll,
    pub events: Events,
    pub listeners: Vec<TcpListener>,
    pub accept_again: AcceptAgain,
    pub clock: Clock,
    pub now: Millis,
    pub buffer: Vec<u8>,
    /// Connections that may have something to read.
    pub readable: VecDeque<u32>,
    pub letters: VecDeque<Letter>,
    pub lingering: Lingering,
    pub memory: MemoryReturn,
    pub phase: Phase,
}

/// Makes the poll of a worker and the waker that interrupts it.
pub(super) fn poll_with_waker() -> io::Result<(Poll, Waker)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, waker))
}

impl Worker {
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        staff: Arc<Staff>,
        reports: Sender<Report>,
        poll: Poll,
        listeners: Vec<TcpListener>,
        clock: Clock,
    ) -> io::Result<Worker> {
        let seed = crate::crypto::random_array::<8>().map(u64::from_le_bytes)?;
        let workers = staff.mailboxes.len() as u16;
        let shard = Shard::new(WorkerId(index as u16), workers, Arc::clone(&shared), seed)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut worker = Worker {
            index,
            shard,
            shared,
            staff,
            reports,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            listeners,
            accept_again: AcceptAgain::default(),
            clock,
            now: clock.now(),
            buffer: vec![0; READ_BUFFER_BYTES],
            readable: VecDeque::new(),
            letters: VecDeque::new(),
            lingering: Lingering::default(),
            memory: MemoryReturn::default(),
            phase: Phase::Open,
        };
        for (number, listener) in worker.listeners.iter_mut().enumerate() {
            let token = Token(WAKER.0 - 1 - number);
            worker
                .poll
                .registry()
                .register(listener, token, Interest::READABLE)?;
        }
        Ok(worker)
    }

    /// Accepts what waits at a listener.
    pub fn accept(&mut self, number: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(number) else {
                return;
            };
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.accept_again.after_success();
                    self.place(stream, peer);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    // The peer gave up, or the network did: that connection only.
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::EPERM) => {}
                    _ => {
                        if self.accept_again.after_failure(self.now) {
                            self.shared.log.error(format_args!(
                                "Cannot accept connections now, trying again: {error}"
                            ));
                        }
                        return;
                    }
                },
            }
        }
        self.accept_again.soon(self.now);
    }

    /// Looks at all listeners again when it is time to.
    pub fn accept_left_over(&mut self) {
        if self.accept_again.take_due(self.now) {
            for number in 0..self.listeners.len() {
                self.accept(number);
            }
        }
    }

    /// Finds the worker for an accepted connection.
    fn place(&mut self, stream: TcpStream, peer: SocketAddr) {
        // A listener of both families shows IPv4 peers as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let max = self.shared.options.connections_max;
        match self.staff.loads.place(self.index, max) {
            Some(index) if index == self.index => self.take_in(stream, peer, true),
            Some(index) => self.staff.mailboxes[index].post(Letter::Adopt(stream, peer)),
            None => self.take_in(stream, peer, false),
        }
    }

    /// Makes an accepted connection this worker's own; one that is not counted is refused.
    pub fn take_in(&mut self, stream: TcpStream, peer: SocketAddr, is_counted: bool) {
        // Output is collected here; the kernel need not wait for more. Failing costs only latency.
        let _ = stream.set_nodelay(true);
        let interests = Interest::READABLE | Interest::WRITABLE;
        let slot = match is_counted {
            true => self
                .shard
                .open(Socket::new(stream, true), Some(peer), self.now),
            false => self
                .shard
                .open_refused(Socket::new(stream, false), Some(peer), self.now),
        };
        let Some(conn) = self.shard.conn_mut(slot) else {
            return;
        };
        let registry = self.poll.registry();
        if registry
            .register(&mut conn.io.stream, Token(slot as usize), interests)
            .is_err()
        {
            self.shard.close(slot, CloseReason::ReadError);
        }
    }
}
