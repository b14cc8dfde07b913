//! A publisher at full speed: writes the same large batch of messages over and over.

use std::sync::Arc;

use super::count::{FrameCounter, Seen};
use super::plan::Plan;
use super::role::{Fault, Meter, Role, Turn};
use crate::cli::encode;

/// Bytes of a batch: about as much as a socket takes in one go...
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// ... but the batches of all publishers together shall stay in the processor's cache.
const ALL_BATCHES_BYTES: usize = 1024 * 1024;
const BATCH_BYTES_MIN: usize = 16 * 1024;
/// The header block of a run with headers.
pub const HEADERS: &[u8] = b"NATS/1.0\r\nBench: midge\r\nTrace: 0123456789abcdef\r\n\r\n";

/// Encoded messages, to all subjects in turn.
#[derive(Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
}

impl Batch {
    /// Encodes as many rounds over `subjects` as make a batch for one of `publisher_count`.
    pub fn encode(
        subjects: &[String],
        headers: &[u8],
        payload: &[u8],
        publisher_count: usize,
    ) -> Self {
        let batch_bytes = ALL_BATCHES_BYTES / publisher_count.max(1);
        let batch_bytes = batch_bytes.clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        let mut batch = Batch {
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        while batch.bytes.len() < batch_bytes {
            for subject in subjects {
                encode::publish(&mut batch.bytes, subject.as_bytes(), None, headers, payload);
                batch.ends.push(batch.bytes.len());
            }
        }
        batch
    }
}

/// Text that compresses neither too well nor not at all; a network does not care, but may.
pub fn payload(payload_bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(payload_bytes).collect()
}

/// The header block of the run, empty if it has none.
pub fn headers(plan: &Plan) -> &'static [u8] {
    if plan.has_headers { HEADERS } else { b"" }
}

/// The state of one publisher.
pub struct Publisher {
    batch: Batch,
    /// Bytes of the current batch that are written.
    offset: usize,
    left_count: u64,
    sent_count: u64,
    /// What is written after the last message, or between two batches.
    tail: &'static [u8],
    is_confirmed: bool,
    /// A PONG is owed, but not in the middle of a message.
    owes_pong: bool,
    counter: FrameCounter,
    meter: Arc<Meter>,
}

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"PONG\r\n";

impl Publisher {
    /// A publisher of `message_count` messages.
    pub fn new(batch: Batch, message_count: u64, meter: Arc<Meter>) -> Self {
        Publisher {
            batch,
            offset: 0,
            left_count: message_count,
            sent_count: 0,
            tail: if message_count == 0 { PING } else { b"" },
            is_confirmed: false,
            owes_pong: false,
            counter: FrameCounter::new(0),
            meter,
        }
    }

    /// Messages of the current batch that belong to the run.
    fn batch_count(&self) -> usize {
        let whole = self.batch.ends.len();
        usize::try_from(self.left_count).map_or(whole, |left| left.min(whole))
    }
}

impl Role for Publisher {
    fn on_bytes(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Fault> {
        let mut fault = None;
        let mut pong_count = 0;
        let used = self.counter.scan(bytes, |seen| match seen {
            Seen::Ping => self.owes_pong = true,
            Seen::Pong => pong_count += 1,
            Seen::Error(line) => fault = Some(server_fault(line)),
            Seen::Message(_) | Seen::NoResponders => {}
        })?;
        if pong_count > 0 {
            // Our only PING stands behind the last message.
            self.is_confirmed = true;
            self.meter.confirm(self.sent_count, turn.now_ns);
        }
        fault.map_or(Ok(used), Err)
    }

    fn output(&self) -> &[u8] {
        if !self.tail.is_empty() {
            return self.tail;
        }
        match self.batch_count() {
            0 => &[],
            count => &self.batch.bytes[self.offset..self.batch.ends[count - 1]],
        }
    }

    fn on_sent(&mut self, count: usize, began_ns: u64) {
        if !self.tail.is_empty() {
            self.tail = &self.tail[count..];
            return;
        }
        self.offset += count;
        let batch_count = self.batch_count();
        if self.offset < self.batch.ends[batch_count - 1] {
            return;
        }
        self.offset = 0;
        self.left_count -= batch_count as u64;
        self.sent_count += batch_count as u64;
        self.meter.reach(self.sent_count, began_ns);
        self.tail = match self.left_count {
            0 => PING,
            _ if std::mem::take(&mut self.owes_pong) => PONG,
            _ => b"",
        };
    }

    fn is_done(&self) -> bool {
        self.is_confirmed
    }

    fn is_talker(&self) -> bool {
        true
    }
}

/// An -ERR line as a fault.
pub fn server_fault(line: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_start_matches("-ERR").trim().trim_matches('\'');
    Fault::Server(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    /// Writes in steps of `step` bytes until nothing is left, and returns what was written.
    fn drained(publisher: &mut Publisher, step: usize) -> Vec<u8> {
        let mut written = Vec::new();
        while !publisher.output().is_empty() {
            let count = publisher.output().len().min(step);
            written.extend_from_slice(&publisher.output()[..count]);
            publisher.on_sent(count, 1);
        }
        written
    }

    #[test]
    fn exactly_the_ordered_messages_are_written_whatever_the_socket_takes() {
        let subjects = ["bench.9".to_owned(), "bench.10".to_owned()];
        let batch = Batch::encode(&subjects, b"", b"abc", 1);
        let per_batch = batch.ends.len() as u64;
        for message_count in [0, 1, 3, per_batch, per_batch * 2 + 1] {
            let mut expected = Vec::new();
            for index in 0..message_count as usize {
                encode::publish(
                    &mut expected,
                    subjects[index % 2].as_bytes(),
                    None,
                    b"",
                    b"abc",
                );
            }
            expected.extend_from_slice(PING);
            for step in [1009, usize::MAX] {
                let meter = Arc::new(Meter::default());
                let mut publisher = Publisher::new(batch.clone(), message_count, meter.clone());
                assert!(
                    drained(&mut publisher, step) == expected,
                    "{message_count} by {step}"
                );
                assert!(!publisher.is_done());
                let mut latency = Histogram::default();
                let mut turn = Turn {
                    now_ns: 7,
                    latency: &mut latency,
                };
                assert_eq!(publisher.on_bytes(b"PONG\r\n", &mut turn), Ok(6));
                assert!(publisher.is_done());
                assert_eq!((meter.count(), meter.last_ns()), (message_count, 7));
            }
        }
    }

    #[test]
    fn a_ping_is_answered_between_two_messages() {
        let batch = Batch::encode(&["a".to_owned()], b"", b"x", 1);
        let per_batch = batch.ends.len() as u64;
        let mut publisher = Publisher::new(batch, per_batch * 2, Arc::default());
        publisher.on_sent(5, 1);
        let mut latency = Histogram::default();
        let mut turn = Turn {
            now_ns: 7,
            latency: &mut latency,
        };
        assert_eq!(publisher.on_bytes(b"PING\r\n", &mut turn), Ok(6));
        let written = drained(&mut publisher, usize::MAX);
        let text = String::from_utf8(written).unwrap();
        assert_eq!(
            text.matches("PUB a 1\r\nx\r\nPONG\r\nPUB a 1\r\nx\r\n")
                .count(),
            1
        );
    }

    #[test]
    fn an_error_of_the_server_ends_it() {
        let batch = Batch::encode(&["a".to_owned()], b"", b"x", 1);
        let mut publisher = Publisher::new(batch, 1, Arc::default());
        let mut latency = Histogram::default();
        let mut turn = Turn {
            now_ns: 7,
            latency: &mut latency,
        };
        let result = publisher.on_bytes(b"-ERR 'Permissions Violation'\r\n", &mut turn);
        assert_eq!(result, Err(Fault::Server("Permissions Violation".into())));
    }
}
