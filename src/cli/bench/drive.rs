//! Moves bytes between sockets and roles: a blocking thread for each of a few connections, or a
//! few threads with mio for many.
//!
//! A thread of its own spares a connection the calls that find out who is ready. With dozens of
//! connections on a few cores the switching between threads costs more than those calls.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use super::histogram::Histogram;
use super::role::{Clock, Meter, Role, Turn};

/// Up to this many connections of one kind get a thread each.
const THREAD_EACH_MAX: usize = 16;
/// Bytes asked for in one read.
const READ_BYTES: usize = 256 * 1024;
/// Room in front of a read for the beginning of a cut frame; grows when that is longer.
const HEADROOM_BYTES: usize = 16 * 1024;
/// How often a blocking talker looks for what the server has to say.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);
/// Writes that one connection may do before the next one has its turn.
const WRITES_PER_TURN: usize = 4;

/// One connection and what it does.
pub struct Endpoint {
    /// The socket, greeted and subscribed.
    pub stream: TcpStream,
    /// Bytes that were read with the greeting.
    pub early: Vec<u8>,
    /// What it does.
    pub role: Box<dyn Role>,
    /// Where it reports.
    pub meter: Arc<Meter>,
}

/// Threads at work, and how to end them.
pub struct Crew {
    threads: Vec<JoinHandle<Histogram>>,
    stop: Arc<AtomicBool>,
    /// Sockets of blocking threads.
    streams: Vec<TcpStream>,
    wakers: Vec<Waker>,
}

/// What the threads of a run share.
#[derive(Clone)]
pub struct Stage {
    /// The time of the run.
    pub clock: Clock,
    /// Set when the run is over: errors of sockets mean nothing from then on.
    pub stop: Arc<AtomicBool>,
}

impl Stage {
    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Crew {
    /// A crew without threads.
    pub fn new(stage: &Stage) -> Self {
        Crew {
            threads: Vec::new(),
            stop: stage.stop.clone(),
            streams: Vec::new(),
            wakers: Vec::new(),
        }
    }

    /// Adds a thread that sees to its own end when the run is over.
    pub fn add_thread(&mut self, thread: JoinHandle<Histogram>) {
        self.threads.push(thread);
    }

    /// Starts threads for connections of one kind. Nothing is sent before the gate opens.
    pub fn add(
        &mut self,
        endpoints: Vec<Endpoint>,
        thread_count: usize,
        stage: &Stage,
        gates: &mut Vec<Arc<Barrier>>,
    ) -> io::Result<()> {
        let thread_count = match thread_count {
            0 if endpoints.len() <= THREAD_EACH_MAX => endpoints.len(),
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count.min(endpoints.len()),
        };
        let is_thread_each = thread_count == endpoints.len();
        let mut shares: Vec<Vec<Endpoint>> = (0..thread_count).map(|_| Vec::new()).collect();
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            shares[index % thread_count].push(endpoint);
        }
        for mut share in shares {
            let stage = stage.clone();
            let gate = Arc::new(Barrier::new(2));
            gates.push(gate.clone());
            let thread = match (is_thread_each, share.pop()) {
                (true, Some(endpoint)) => {
                    self.streams.push(endpoint.stream.try_clone()?);
                    std::thread::spawn(move || {
                        gate.wait();
                        run_blocking(endpoint, &stage)
                    })
                }
                (_, last) => {
                    share.extend(last);
                    let mut polled = Polled::new(share)?;
                    self.wakers.push(Waker::new(polled.poll.registry(), WAKE)?);
                    std::thread::spawn(move || {
                        gate.wait();
                        polled.run(&stage)
                    })
                }
            };
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Ends all threads and gathers what they have measured.
    pub fn finish(self) -> Histogram {
        self.stop.store(true, Ordering::SeqCst);
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for waker in &self.wakers {
            let _ = waker.wake();
        }
        let mut latency = Histogram::default();
        for thread in self.threads {
            match thread.join() {
                Ok(measured) => latency.merge(&measured),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        latency
    }
}

/// A read buffer with room in front, where the rest of the last read is put so that frames are in
/// one piece.
struct Buffer {
    bytes: Vec<u8>,
    headroom: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer {
            bytes: vec![0; HEADROOM_BYTES + READ_BYTES],
            headroom: HEADROOM_BYTES,
        }
    }

    /// Where to read to.
    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.headroom..]
    }

    /// The `count` bytes just read, behind what was left over from the last read.
    fn joined(&mut self, rest: &[u8], count: usize) -> &[u8] {
        if rest.len() > self.headroom {
            // Twice what is needed: a rest that grows read by read must not copy each time.
            let more = rest.len() * 2 - self.headroom;
            self.bytes.splice(0..0, std::iter::repeat_n(0, more));
            self.headroom += more;
        }
        let start = self.headroom - rest.len();
        self.bytes[start..self.headroom].copy_from_slice(rest);
        &self.bytes[start..self.headroom + count]
    }
}

/// Hands the bytes of one read to the role; a rest is kept for the next one.
fn take_in(
    role: &mut dyn Role,
    rest: &mut Vec<u8>,
    buffer: &mut Buffer,
    count: usize,
    stage: &Stage,
    latency: &mut Histogram,
) -> Result<(), String> {
    let mut turn = Turn {
        now_ns: stage.clock.now_ns(),
        latency,
    };
    let bytes = buffer.joined(rest, count);
    let used = role
        .on_bytes(bytes, &mut turn)
        .map_err(|fault| fault.to_string())?;
    let left = &bytes[used..];
    rest.clear();
    rest.extend_from_slice(left);
    Ok(())
}

fn lost(error: &io::Error) -> String {
    format!("lost a connection: {error}")
}

const CLOSED: &str = "the server closed a connection";

fn run_blocking(mut endpoint: Endpoint, stage: &Stage) -> Histogram {
    let mut latency = Histogram::default();
    let mut buffer = Buffer::new();
    let result = blocking_loop(&mut endpoint, &mut buffer, stage, &mut latency);
    if let (Err(fault), false) = (result, stage.is_over()) {
        endpoint.meter.fail(fault);
    }
    latency
}

fn blocking_loop(
    endpoint: &mut Endpoint,
    buffer: &mut Buffer,
    stage: &Stage,
    latency: &mut Histogram,
) -> Result<(), String> {
    let Endpoint {
        stream,
        early,
        role,
        ..
    } = endpoint;
    let mut rest = Vec::new();
    std::mem::swap(&mut rest, early);
    take_in(role.as_mut(), &mut rest, buffer, 0, stage, latency)?;
    let mut listened_at = Instant::now();
    loop {
        while !role.output().is_empty() {
            let began_ns = stage.clock.now_ns();
            match stream.write(role.output()) {
                Ok(count) => role.on_sent(count, began_ns),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Why the server closed may still be there to read.
                    while let Ok(count @ 1..) = stream.read(buffer.space()) {
                        take_in(role.as_mut(), &mut rest, buffer, count, stage, latency)?;
                    }
                    return Err(lost(&error));
                }
            }
            if role.is_talker() && listened_at.elapsed() > LISTEN_INTERVAL {
                listened_at = Instant::now();
                stream.set_nonblocking(true).map_err(|error| lost(&error))?;
                let result = stream.read(buffer.space());
                stream
                    .set_nonblocking(false)
                    .map_err(|error| lost(&error))?;
                match result {
                    Ok(0) => return Err(CLOSED.into()),
                    Ok(count) => take_in(role.as_mut(), &mut rest, buffer, count, stage, latency)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(lost(&error)),
                }
            }
        }
        if role.is_done() {
            return Ok(());
        }
        match stream.read(buffer.space()) {
            Ok(0) => return Err(CLOSED.into()),
            Ok(count) => take_in(role.as_mut(), &mut rest, buffer, count, stage, latency)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(lost(&error)),
        }
    }
}

const WAKE: Token = Token(usize::MAX);

/// A connection among many.
struct Member {
    stream: mio::net::TcpStream,
    role: Box<dyn Role>,
    meter: Arc<Meter>,
    rest: Vec<u8>,
    /// The last poll said so, and no call has found otherwise since.
    is_readable: bool,
    is_writable: bool,
    /// The server has closed: what is left can be read without waiting, up to the end.
    is_closing: bool,
    /// Already in the line of those with work to do.
    is_queued: bool,
    is_over: bool,
}

impl Member {
    fn has_work(&self) -> bool {
        !self.is_over && (self.is_readable || (self.is_writable && !self.role.output().is_empty()))
    }
}

/// Many connections on one thread.
struct Polled {
    poll: Poll,
    members: Vec<Member>,
}

impl Polled {
    fn new(endpoints: Vec<Endpoint>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut members = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            endpoint.stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(endpoint.stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(index), interest)?;
            members.push(Member {
                stream,
                role: endpoint.role,
                meter: endpoint.meter,
                rest: endpoint.early,
                is_readable: false,
                is_writable: false,
                is_closing: false,
                is_queued: false,
                is_over: false,
            });
        }
        Ok(Polled { poll, members })
    }

    fn run(&mut self, stage: &Stage) -> Histogram {
        let mut latency = Histogram::default();
        let mut buffer = Buffer::new();
        let mut events = Events::with_capacity(1024);
        let mut line = std::collections::VecDeque::new();
        let mut active_count = self.members.len();
        while active_count > 0 && !stage.is_over() {
            // With work left over, only look for news.
            let timeout = (!line.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    self.members[0].meter.fail(format!("cannot poll: {error}"));
                    return latency;
                }
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let index = event.token().0;
                let member = &mut self.members[index];
                member.is_closing |= event.is_read_closed() || event.is_error();
                member.is_readable |= event.is_readable() || member.is_closing;
                member.is_writable |= event.is_writable();
                if member.has_work() && !std::mem::replace(&mut member.is_queued, true) {
                    line.push_back(index);
                }
            }
            for _ in 0..line.len() {
                let Some(index) = line.pop_front() else { break };
                let member = &mut self.members[index];
                member.is_queued = false;
                let result = member.turn(&mut buffer, stage, &mut latency);
                if let (Err(fault), false) = (result, stage.is_over()) {
                    member.is_over = true;
                    member.meter.fail(fault);
                }
                if member.is_over {
                    active_count -= 1;
                } else if member.has_work() {
                    member.is_queued = true;
                    line.push_back(index);
                }
            }
        }
        latency
    }
}

impl Member {
    /// One read and a few writes.
    fn turn(
        &mut self,
        buffer: &mut Buffer,
        stage: &Stage,
        latency: &mut Histogram,
    ) -> Result<(), String> {
        if self.is_readable {
            self.read(buffer, stage, latency)?;
        }
        for _ in 0..WRITES_PER_TURN {
            if !self.is_writable || self.role.output().is_empty() {
                break;
            }
            let began_ns = stage.clock.now_ns();
            let wanted = self.role.output().len();
            match self.stream.write(self.role.output()) {
                Ok(count) => {
                    self.role.on_sent(count, began_ns);
                    self.is_writable = count == wanted;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.is_writable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        // Why the server closed may still be there to read.
                        self.read(buffer, stage, latency)?;
                        return Err(lost(&error));
                    }
                },
            }
        }
        self.is_over = self.role.is_done() && self.role.output().is_empty();
        Ok(())
    }

    fn read(
        &mut self,
        buffer: &mut Buffer,
        stage: &Stage,
        latency: &mut Histogram,
    ) -> Result<(), String> {
        let space_bytes = buffer.space().len();
        match self.stream.read(buffer.space()) {
            Ok(0) => Err(CLOSED.into()),
            Ok(count) => {
                // A short read has emptied the socket: the next event will tell of more.
                self.is_readable = count == space_bytes || self.is_closing;
                let (role, rest) = (self.role.as_mut(), &mut self.rest);
                take_in(role, rest, buffer, count, stage, latency)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    Ok(())
                }
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(lost(&error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_over_stands_in_front_of_what_was_read() {
        let mut buffer = Buffer::new();
        buffer.space()[..3].copy_from_slice(b"def");
        assert_eq!(buffer.joined(b"abc", 3), b"abcdef");
        let long = vec![b'x'; HEADROOM_BYTES * 3];
        buffer.space()[..3].copy_from_slice(b"end");
        let joined = buffer.joined(&long, 3);
        assert_eq!(joined.len(), long.len() + 3);
        assert!(joined.ends_with(b"xend"));
        assert_eq!(buffer.space().len(), READ_BYTES);
    }
}
