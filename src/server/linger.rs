//! Sees closed connections off.
//!
//! What was queued for a peer when its connection was closed, such as the error line that tells it
//! why, still has to reach it. And closing a socket with unread input makes the kernel send a
//! reset, which throws away what is under way. So the rest is sent, our side is shut, and input is
//! thrown away until the peer closes its side: for a bounded time, in bounded steps, and for a
//! bounded number of connections.

use std::net::Shutdown;

use mio::{Interest, Registry, Token};
use slab::Slab;

use super::socket::Socket;
use crate::buffer::BlockPool;
use crate::clock::Millis;
use crate::session::outbound::Outbound;

/// Milliseconds a peer has to take the last words and to close its side.
const LINGER_MS_MAX: u64 = 2_000;
/// Connections seen off at a time while serving others; beyond that they are closed at once.
const LINGERING_MAX: usize = 1_024;
/// Bytes thrown away at a time.
const DISCARD_BYTES: usize = 16 * 1024;
/// Bytes thrown away in all: what a client may well have under way when it learns that it did wrong.
/// Who sends more than that is not listening.
const DISCARDED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Reads in one step, so that a peer that floods does not hold the loop.
const DISCARD_READS_MAX: usize = 16;
/// Pieces handed to the kernel at a time.
const SLICES_MAX: usize = 64;

/// How much time there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    /// The peer may still be sending: its input is awaited.
    Patient,
    /// The process is about to end: nobody is waited for who has taken everything and says nothing.
    Brief,
}

struct Leaving {
    socket: Socket,
    out: Outbound,
    until: Millis,
    farewell: Farewell,
    is_shut: bool,
    discarded_bytes: usize,
}

/// What came of a step.
#[derive(PartialEq, Eq)]
enum Step {
    /// Nothing more to do.
    Gone,
    /// The poll will tell when it goes on.
    Waits,
    /// There is more to do, after others have had their turn.
    HasMore,
}

/// Connections that are being seen off.
#[derive(Default)]
pub struct Lingering {
    leaving: Slab<Leaving>,
    /// Those with more to do at once.
    more: Vec<usize>,
    /// No deadline is before this.
    next_at: Option<Millis>,
    pool: BlockPool,
}

impl Lingering {
    /// Begins to see a connection off, with what is still to be sent to it.
    pub fn add(
        &mut self,
        mut socket: Socket,
        out: Outbound,
        now: Millis,
        farewell: Farewell,
        registry: &Registry,
        token: impl FnOnce(usize) -> Token,
    ) {
        if farewell == Farewell::Patient && self.leaving.len() >= LINGERING_MAX {
            return;
        }
        let interests = Interest::READABLE | Interest::WRITABLE;
        let entry = self.leaving.vacant_entry();
        let key = entry.key();
        if registry
            .reregister(&mut socket.stream, token(key), interests)
            .is_err()
        {
            return;
        }
        let until = now.plus(LINGER_MS_MAX);
        self.next_at = Some(self.next_at.map_or(until, |at| at.min(until)));
        entry.insert(Leaving {
            socket,
            out,
            until,
            farewell,
            is_shut: false,
            discarded_bytes: 0,
        });
        self.step(key);
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Goes on with a connection.
    pub fn step(&mut self, key: usize) {
        let Some(leaving) = self.leaving.get_mut(key) else {
            return;
        };
        match leaving.step(&mut self.pool) {
            Step::Waits => {}
            Step::HasMore => self.more.push(key),
            Step::Gone => {
                self.leaving.try_remove(key);
            }
        }
    }

    /// Goes on with those that have more to do, and lets those go whose time is over.
    pub fn on_turn(&mut self, now: Millis) {
        for key in std::mem::take(&mut self.more) {
            self.step(key);
        }
        if self.next_at.is_some_and(|at| at <= now) {
            self.leaving.retain(|_, leaving| leaving.until > now);
            self.next_at = self.leaving.iter().map(|(_, leaving)| leaving.until).min();
            if self.leaving.is_empty() {
                self.leaving = Slab::new();
                self.pool.shrink();
            }
        }
    }

    /// When there is something to be done.
    pub fn next_at(&self) -> Option<Millis> {
        match self.more.is_empty() {
            true => self.next_at,
            false => Some(Millis(0)),
        }
    }

    /// Bytes given back to the allocator since this was last asked.
    pub fn take_freed_bytes(&mut self) -> usize {
        self.pool.take_freed_bytes()
    }
}

impl Leaving {
    fn step(&mut self, pool: &mut BlockPool) -> Step {
        while self.out.pending_bytes() > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); SLICES_MAX];
            let count = self.out.slices(&mut slices);
            match self.socket.write(&slices[..count]) {
                Ok(Some(bytes)) => self.out.advance(bytes, pool),
                Ok(None) => return Step::Waits,
                Err(_) => return Step::Gone,
            }
        }
        if !self.is_shut {
            self.is_shut = true;
            if self.socket.stream.shutdown(Shutdown::Write).is_err() {
                return Step::Gone;
            }
        }
        self.discard()
    }

    /// Throws away what has come.
    fn discard(&mut self) -> Step {
        let mut buffer = [0; DISCARD_BYTES];
        for read in 0..DISCARD_READS_MAX {
            match self.socket.read(&mut buffer) {
                Ok(Some(0)) | Err(_) => return Step::Gone,
                Ok(Some(bytes)) => self.discarded_bytes += bytes,
                Ok(None) if read == 0 && self.farewell == Farewell::Brief => return Step::Gone,
                Ok(None) => return Step::Waits,
            }
        }
        match self.discarded_bytes < DISCARDED_BYTES_MAX {
            true => Step::HasMore,
            false => Step::Gone,
        }
    }
}
