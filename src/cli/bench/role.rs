//! What a connection of the load generator does, apart from how its socket is driven.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use midge::wire::from_server::ParseError;

use super::histogram::Histogram;

/// Time since the run was prepared. All connections share it, so time stamps can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// Starts at 0 now.
    pub fn start() -> Self {
        Clock {
            epoch: Instant::now(),
        }
    }

    /// Nanoseconds since the start: 584 years fit.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// What a connection tells the rest of the process while it runs. Written once a batch, and on
/// cache lines of its own, so that watching costs the watched nothing.
#[repr(align(128))]
#[derive(Default, Debug)]
pub struct Meter {
    /// Messages sent or received.
    count: AtomicU64,
    /// When the first one was.
    first_ns: AtomicU64,
    /// When the last one was, or when the server confirmed it.
    last_ns: AtomicU64,
    /// The server has taken everything.
    is_confirmed: AtomicBool,
    /// Spares those who watch thousands of connections the lock below.
    has_fault: AtomicBool,
    /// Why the connection stopped early.
    fault: Mutex<Option<String>>,
}

impl Meter {
    /// Notes that `count` messages are through by now.
    pub fn reach(&self, count: u64, now_ns: u64) {
        if self.first_ns.load(Ordering::Relaxed) == 0 {
            self.first_ns.store(now_ns, Ordering::Relaxed);
        }
        self.last_ns.store(now_ns, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }

    /// Messages so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Time of the first message, 0 without one.
    pub fn first_ns(&self) -> u64 {
        self.first_ns.load(Ordering::Relaxed)
    }

    /// Time of the last message, 0 without one.
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// Notes that the server has taken everything that was sent.
    pub fn confirm(&self, count: u64, now_ns: u64) {
        self.reach(count, now_ns);
        self.is_confirmed.store(true, Ordering::Relaxed);
    }

    /// Whether the server has taken everything that was to be sent.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Ordering::Relaxed)
    }

    /// Notes why the connection stopped early.
    pub fn fail(&self, text: String) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(text);
        self.has_fault.store(true, Ordering::Release);
    }

    /// Why the connection stopped early, if it did.
    pub fn fault(&self) -> Option<String> {
        if !self.has_fault.load(Ordering::Acquire) {
            return None;
        }
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }
}

/// What a role is given with the bytes of one read.
pub struct Turn<'a> {
    /// When the read returned.
    pub now_ns: u64,
    /// Durations that this thread has measured.
    pub latency: &'a mut Histogram,
}

/// Why a connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// An -ERR of the server.
    Server(String),
    /// Bytes that are no NATS.
    Protocol(ParseError),
    /// A request went where nobody listens.
    NoResponders,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Server(text) => write!(f, "the server says: {text}"),
            Fault::Protocol(error) => write!(f, "the server sent {error}"),
            Fault::NoResponders => f.write_str("no responders are available for the requests"),
        }
    }
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        Fault::Protocol(error)
    }
}

/// One side of the load: a state machine between what the socket brings and what it takes.
pub trait Role: Send {
    /// Takes bytes that arrived and says how many are dealt with; the others come again, in front
    /// of the next ones.
    fn on_bytes(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Fault>;

    /// What is to be written next; empty if there is nothing.
    fn output(&self) -> &[u8];

    /// The first `count` bytes of the output were written, by a call that began at `began_ns`.
    fn on_sent(&mut self, count: usize, began_ns: u64);

    /// Whether everything is done and the connection may go.
    fn is_done(&self) -> bool;

    /// Whether there is output for a long time, so that reading has to be squeezed in.
    fn is_talker(&self) -> bool {
        false
    }
}

/// Answers that wait to be sent, as PONGs do.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// What is to be written next.
    pub fn output(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes what was written; the room is used again.
    pub fn on_sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Where to append.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}
