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

use super::buffer::Buffer;
use super::histogram::Histogram;
use super::role::{Clock, Meter, Role, Turn};

/// Up to this many connections of one kind get a thread each.
const THREAD_EACH_MAX: usize = 16;
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
    use std::net::TcpListener;

    use super::super::plan::STAMP_BYTES;
    use super::super::publisher::{Batch, Publisher};
    use super::super::subscriber::Subscriber;
    use super::*;

    const MESSAGE_COUNT: u64 = 2000;

    /// Connections to a listener whose other ends are handed to `peer`, one thread each.
    fn connected(count: usize, peer: fn(TcpStream)) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| {
            let stream = TcpStream::connect(address).unwrap();
            let (other, _) = listener.accept().unwrap();
            std::thread::spawn(move || peer(other));
            stream
        };
        (0..count).map(connect).collect()
    }

    fn run_crew(
        roles: Vec<(TcpStream, Box<dyn Role>, Arc<Meter>)>,
        threads: usize,
    ) -> (Crew, Stage) {
        let stage = Stage {
            clock: Clock::start(),
            stop: Arc::default(),
        };
        let endpoints = roles.into_iter().map(|(stream, role, meter)| Endpoint {
            stream,
            early: b"INFO {}\r\nMSG a 1 2".to_vec(),
            role,
            meter,
        });
        let mut crew = Crew::new(&stage);
        let mut gates = Vec::new();
        crew.add(endpoints.collect(), threads, &stage, &mut gates)
            .unwrap();
        for gate in gates {
            gate.wait();
        }
        (crew, stage)
    }

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends the rest of the first head, and stamped messages in pieces of an odd size.
    fn send_messages(mut peer: TcpStream) {
        let payload = [0; STAMP_BYTES + 12];
        let mut stream = b"0\r\n".to_vec();
        for number in 0..MESSAGE_COUNT {
            if number > 0 {
                stream.extend_from_slice(b"MSG a 1 20\r\n");
            }
            stream.extend_from_slice(&payload);
            stream.extend_from_slice(b"\r\n");
        }
        for piece in stream.chunks(997) {
            peer.write_all(piece).unwrap();
        }
        // Until the other side hangs up.
        let _ = peer.read(&mut [0; 16]);
    }

    #[test]
    fn every_message_is_counted_on_threads_each_and_on_a_shared_one() {
        for threads in [0, 1, 2] {
            let meters: Vec<Arc<Meter>> = (0..4).map(|_| Arc::default()).collect();
            let streams = connected(meters.len(), send_messages)
                .into_iter()
                .zip(&meters);
            let roles = streams.map(|(stream, meter)| {
                let role: Box<dyn Role> = Box::new(Subscriber::new(true, meter.clone()));
                (stream, role, meter.clone())
            });
            let (crew, _) = run_crew(roles.collect(), threads);
            wait_until("all messages arrive", || {
                meters.iter().all(|meter| meter.count() == MESSAGE_COUNT)
            });
            let latency = crew.finish();
            assert_eq!(latency.count(), MESSAGE_COUNT * 4, "{threads} threads");
            assert!(meters.iter().all(|meter| meter.fault().is_none()));
        }
    }

    /// Takes messages until a PING comes, as slowly as small reads are; then answers.
    fn take_messages(mut peer: TcpStream) {
        let mut taken = Vec::new();
        let mut piece = [0; 4099];
        while !taken.ends_with(b"PING\r\n") {
            let count = peer.read(&mut piece).unwrap();
            taken.extend_from_slice(&piece[..count]);
        }
        let line_count = taken.iter().filter(|&&byte| byte == b'\n').count() as u64;
        // The tail of the head that stands in `early` first: it is no message of ours.
        let answer = match line_count == MESSAGE_COUNT * 2 + 1 {
            true => "0\r\n01234567890123456789\r\nPONG\r\n",
            false => "0\r\n01234567890123456789\r\n-ERR 'Wrong Count'\r\n",
        };
        peer.write_all(answer.as_bytes()).unwrap();
        let _ = peer.read(&mut piece);
    }

    #[test]
    fn publishers_write_all_and_are_confirmed() {
        for threads in [0, 1, 2] {
            let meters: Vec<Arc<Meter>> = (0..4).map(|_| Arc::default()).collect();
            let streams = connected(meters.len(), take_messages)
                .into_iter()
                .zip(&meters);
            let roles = streams.map(|(stream, meter)| {
                let batch = Batch::encode(&["a".to_owned()], b"", &[b'x'; 1000], 1);
                let role = Publisher::new(batch, MESSAGE_COUNT, meter.clone());
                let role: Box<dyn Role> = Box::new(role);
                (stream, role, meter.clone())
            });
            let (crew, _) = run_crew(roles.collect(), threads);
            wait_until("the server confirms", || {
                meters
                    .iter()
                    .all(|meter| meter.is_confirmed() || meter.fault().is_some())
            });
            crew.finish();
            for meter in &meters {
                assert_eq!((meter.count(), meter.fault()), (MESSAGE_COUNT, None));
            }
        }
    }

    #[test]
    fn a_server_that_goes_away_is_a_fault_unless_the_run_is_over() {
        for threads in [0, 1] {
            let meter: Arc<Meter> = Arc::default();
            let other: Arc<Meter> = Arc::default();
            let roles = connected(2, drop).into_iter().zip([&meter, &other]);
            let roles = roles.map(|(stream, meter)| {
                let role: Box<dyn Role> = Box::new(Subscriber::new(false, meter.clone()));
                (stream, role, meter.clone())
            });
            let (crew, stage) = run_crew(roles.collect(), threads);
            wait_until("the end is noticed", || {
                meter.fault().is_some() && other.fault().is_some()
            });
            assert_eq!(meter.fault().as_deref(), Some(CLOSED));
            assert!(!stage.is_over());
            crew.finish();
            assert!(stage.is_over());
        }
    }
}
