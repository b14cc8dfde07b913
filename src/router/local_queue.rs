//! Messages by value: a batch of them in one block of memory, and the bounded queue made of it.
//!
//! A record is four lengths and the bytes, so taking a message into a queue is one copy and no
//! allocation, and a reader that takes all that is there swaps two blocks under the lock.
//!
//! ```text
//! record = subject bytes (4) | reply bytes (4, u32::MAX: none) | header bytes (4) | payload bytes (4)
//!          | subject | reply | headers | payload
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::local::Message;

const HEAD_BYTES: usize = 16;
const NO_REPLY: u32 = u32::MAX;
/// Bytes of an emptied block that are kept for the next messages.
const KEPT_BYTES: usize = 256 * 1024;

/// Messages in the order in which they were put in.
#[derive(Default, Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the first record starts.
    head: usize,
    count: usize,
}

impl Batch {
    /// Messages in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all messages with their lengths.
    pub fn bytes(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Copies a message to the end. `false`, and nothing done, if a part has 4 GiB or more.
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        let reply = message.reply.unwrap_or_default();
        let parts = [message.subject, reply, message.headers, message.payload];
        let mut head = [0; HEAD_BYTES];
        for (at, part) in parts.iter().enumerate() {
            match u32::try_from(part.len()) {
                Ok(len) if len < NO_REPLY => {
                    head[4 * at..4 * at + 4].copy_from_slice(&len.to_ne_bytes());
                }
                _ => return false,
            }
        }
        if message.reply.is_none() {
            head[4..8].copy_from_slice(&NO_REPLY.to_ne_bytes());
        }
        self.bytes.reserve(record_bytes(message));
        self.bytes.extend_from_slice(&head);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.count += 1;
        true
    }

    /// The first message.
    pub fn front(&self) -> Option<Message<'_>> {
        if self.count == 0 {
            None
        } else {
            Some(parse(&self.bytes[self.head..])?.0)
        }
    }

    /// Drops the first message.
    pub fn advance(&mut self) {
        let Some((_, used)) = parse(&self.bytes[self.head..]).filter(|_| self.count > 0) else {
            return;
        };
        self.head += used;
        self.count -= 1;
        if self.count == 0 {
            self.clear();
        } else if self.head > KEPT_BYTES && self.head > self.bytes.len() / 2 {
            // At most as many bytes move as were read since the last time.
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// Drops all messages.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.head = 0;
        self.count = 0;
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        let mut rest = &self.bytes[self.head..];
        std::iter::from_fn(move || {
            let (message, used) = parse(rest)?;
            rest = &rest[used..];
            Some(message)
        })
    }

    fn pop(&mut self) -> Option<OwnedMessage> {
        let (_, used) = parse(&self.bytes[self.head..])?;
        let record = self.bytes[self.head..self.head + used].into();
        self.advance();
        Some(OwnedMessage { record })
    }
}

/// Bytes that a message takes in a batch.
pub(super) fn record_bytes(message: &Message<'_>) -> usize {
    HEAD_BYTES
        + message.subject.len()
        + message.reply.map_or(0, <[u8]>::len)
        + message.headers.len()
        + message.payload.len()
}

/// The first record of `bytes`, and its size.
fn parse(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let len = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let reply_bytes = len(4);
    let (subject, rest) = rest.split_at_checked(len(0) as usize)?;
    let (reply, rest) = match reply_bytes {
        NO_REPLY => (None, rest),
        bytes => rest
            .split_at_checked(bytes as usize)
            .map(|(reply, rest)| (Some(reply), rest))?,
    };
    let (headers, rest) = rest.split_at_checked(len(8) as usize)?;
    let (payload, rest) = rest.split_at_checked(len(12) as usize)?;
    Some((
        Message {
            subject,
            reply,
            headers,
            payload,
        },
        bytes.len() - rest.len(),
    ))
}

/// A message that owns its bytes.
#[derive(Clone, Debug)]
pub struct OwnedMessage {
    record: Box<[u8]>,
}

impl OwnedMessage {
    /// The message, borrowed.
    pub fn message(&self) -> Message<'_> {
        // A record is made by `Batch::push` only, so it always parses.
        parse(&self.record)
            .map(|(message, _)| message)
            .unwrap_or_default()
    }
}

/// How much a queue holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of subject, reply, headers and payload, and 16 for each message.
    pub bytes: usize,
}

impl Default for QueueLimits {
    /// 65,536 messages, 64 MiB.
    fn default() -> Self {
        QueueLimits {
            messages: 65_536,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// What happens to a message for which a queue has no room.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ones make room.
    DropOldest,
    /// It is dropped.
    DropNewest,
    /// The publisher waits, and the message is dropped when that took too long.
    Block(Duration),
    /// The publisher is told, and another member of the queue group gets it. Else it is dropped.
    Refuse,
}

/// What became of a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the queue.
    Taken,
    /// It is in the queue, which is closed now: it was the last of those it was to take.
    Last,
    /// It was dropped, and counted.
    Dropped,
    /// It was not taken, and counted as dropped; somebody else may have it.
    Refused,
}

struct State {
    batch: Batch,
    is_closed: bool,
    /// Messages it takes before it closes by itself; `usize::MAX` for any number.
    left: usize,
    /// Threads asleep, so that nobody makes a system call to wake nobody.
    readers_waiting: usize,
    writers_waiting: usize,
}

/// A bounded queue of messages between publishers and any number of readers.
pub struct LocalQueue {
    state: Mutex<State>,
    ready: Condvar,
    room: Condvar,
    limits: QueueLimits,
    overflow: Overflow,
    dropped: AtomicUsize,
    /// Called when the queue stops being empty, to signal a descriptor for example.
    on_ready: Option<Box<dyn Fn() + Send + Sync>>,
}

impl LocalQueue {
    pub(super) fn new(
        limits: QueueLimits,
        overflow: Overflow,
        on_ready: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Self {
        let state = State {
            batch: Batch::default(),
            is_closed: false,
            left: usize::MAX,
            readers_waiting: 0,
            writers_waiting: 0,
        };
        LocalQueue {
            state: Mutex::new(state),
            ready: Condvar::new(),
            room: Condvar::new(),
            limits,
            overflow,
            dropped: AtomicUsize::new(0),
            on_ready,
        }
    }

    /// Closes by itself with the last of so many messages, at least one. Only what is put in counts.
    pub(super) fn close_after(&mut self, messages: usize) {
        let state = self.state.get_mut();
        state.unwrap_or_else(PoisonError::into_inner).left = messages;
    }

    /// Copies a message in, or does what the overflow policy says.
    pub(super) fn push(&self, message: &Message<'_>) -> Pushed {
        let needed = record_bytes(message);
        let mut state = self.lock();
        if !state.is_closed && !self.has_room(&state, needed) {
            state = match self.make_room(state, needed) {
                Ok(state) => state,
                Err(pushed) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return pushed;
                }
            };
        }
        if state.is_closed {
            return Pushed::Refused;
        }
        if !state.batch.push(message) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Pushed::Dropped;
        }
        if state.left != usize::MAX {
            state.left -= 1;
            state.is_closed = state.left == 0;
        }
        let (was_empty, is_awaited) = (state.batch.len() == 1, state.readers_waiting > 0);
        let is_last = state.is_closed;
        drop(state);
        if is_last {
            self.wake_all();
        } else if is_awaited {
            self.ready.notify_one();
        }
        if was_empty && let Some(on_ready) = &self.on_ready {
            on_ready();
        }
        if is_last { Pushed::Last } else { Pushed::Taken }
    }

    /// The oldest message, if there is one.
    pub fn try_pop(&self) -> Option<OwnedMessage> {
        self.pop(Duration::ZERO)
    }

    /// The oldest message; waits for one. `None` after `timeout`, or at once when the subscription
    /// has ended and all its messages were taken.
    pub fn pop(&self, timeout: Duration) -> Option<OwnedMessage> {
        let mut state = self.wait(timeout);
        let message = state.batch.pop()?;
        self.after_pop(state);
        Some(message)
    }

    /// Takes all messages into `batch`, whose earlier ones are dropped; waits for the first one. The
    /// number of messages, 0 after `timeout` or the end of the subscription. The cheapest way to
    /// read.
    pub fn take(&self, batch: &mut Batch, timeout: Duration) -> usize {
        batch.clear();
        let mut state = self.wait(timeout);
        if !state.batch.is_empty() {
            std::mem::swap(&mut state.batch, batch);
            self.after_pop(state);
        }
        batch.len()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.lock().batch.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages that were dropped because the queue was full.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Takes no more messages; wakes all who wait. What is queued can still be read.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wake_all();
    }

    /// Drops what is queued, and the memory.
    pub(super) fn discard(&self) {
        let queued = std::mem::take(&mut self.lock().batch);
        drop(queued);
    }

    fn wake_all(&self) {
        self.ready.notify_all();
        self.room.notify_all();
    }

    fn has_room(&self, state: &State, needed: usize) -> bool {
        state.batch.len() < self.limits.messages
            && state.batch.bytes().saturating_add(needed) <= self.limits.bytes
    }

    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        needed: usize,
    ) -> Result<MutexGuard<'a, State>, Pushed> {
        let never_fits = needed > self.limits.bytes || self.limits.messages == 0;
        match self.overflow {
            Overflow::Refuse => Err(Pushed::Refused),
            Overflow::DropNewest => Err(Pushed::Dropped),
            _ if never_fits => Err(Pushed::Dropped),
            Overflow::DropOldest => {
                while !self.has_room(&state, needed) {
                    state.batch.advance();
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Ok(state)
            }
            Overflow::Block(timeout) => {
                state.writers_waiting += 1;
                let is_full = |state: &mut State| !state.is_closed && !self.has_room(state, needed);
                let waited = self.room.wait_timeout_while(state, timeout, is_full);
                let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
                state.writers_waiting -= 1;
                if result.timed_out() {
                    Err(Pushed::Dropped)
                } else {
                    Ok(state)
                }
            }
        }
    }

    fn wait(&self, timeout: Duration) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if timeout.is_zero() || !state.batch.is_empty() || state.is_closed {
            return state;
        }
        // Far enough for a condition variable, and never overflows its clock.
        let timeout = timeout.min(Duration::from_secs(10 * 365 * 86_400));
        let started = Instant::now();
        state.readers_waiting += 1;
        while state.batch.is_empty() && !state.is_closed {
            let Some(left) = timeout
                .checked_sub(started.elapsed())
                .filter(|d| !d.is_zero())
            else {
                break;
            };
            let waited = self.ready.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.readers_waiting -= 1;
        state
    }

    fn after_pop(&self, state: MutexGuard<'_, State>) {
        // All of them: each may need a different number of bytes.
        let is_awaited = state.writers_waiting > 0;
        let more_to_read = state.readers_waiting > 0 && !state.batch.is_empty();
        drop(state);
        if is_awaited {
            self.room.notify_all();
        }
        if more_to_read {
            self.ready.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
