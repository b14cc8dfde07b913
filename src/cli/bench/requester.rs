//! Closed loop: a requester that asks again when it has its reply, and the replier that it asks.

use std::sync::Arc;

use midge::wire::from_server::{Frame, Parser};

use super::count::{FrameCounter, Seen};
use super::publisher::server_fault;
use super::role::{Fault, Meter, Outbox, Role, Turn};
use crate::cli::encode;

/// The state of one requester: at any time one request is under way.
pub struct Requester {
    /// The request, encoded with the inbox of this connection.
    request: Vec<u8>,
    /// Bytes of it that are written.
    offset: usize,
    asked_at_ns: u64,
    left_count: u64,
    done_count: u64,
    counter: FrameCounter,
    outbox: Outbox,
    meter: Arc<Meter>,
}

impl Requester {
    /// A requester that sends the encoded `request` as often as `request_count` says.
    pub fn new(request: Vec<u8>, request_count: u64, meter: Arc<Meter>) -> Self {
        Requester {
            request,
            offset: 0,
            asked_at_ns: 0,
            left_count: request_count,
            done_count: 0,
            counter: FrameCounter::new(0),
            outbox: Outbox::default(),
            meter,
        }
    }
}

impl Role for Requester {
    fn on_bytes(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Fault> {
        let mut fault = None;
        let used = self.counter.scan(bytes, |seen| match seen {
            Seen::Message(_) if self.offset == self.request.len() => {
                turn.latency
                    .record(turn.now_ns.saturating_sub(self.asked_at_ns));
                self.done_count += 1;
                self.left_count -= 1;
                self.offset = 0;
            }
            Seen::NoResponders => fault = Some(Fault::NoResponders),
            Seen::Ping => self.outbox.bytes().extend_from_slice(b"PONG\r\n"),
            Seen::Error(line) => fault = Some(server_fault(line)),
            // A reply that nobody waits for is a second one to the same request.
            Seen::Message(_) | Seen::Pong => {}
        })?;
        if self.done_count > self.meter.count() {
            self.meter.reach(self.done_count, turn.now_ns);
        }
        fault.map_or(Ok(used), Err)
    }

    fn output(&self) -> &[u8] {
        // A PONG goes in front of a request, never into it.
        if self.offset == 0 || self.offset == self.request.len() {
            let pongs = self.outbox.output();
            if !pongs.is_empty() {
                return pongs;
            }
        }
        match self.left_count {
            0 => &[],
            _ => &self.request[self.offset..],
        }
    }

    fn on_sent(&mut self, count: usize, began_ns: u64) {
        let is_between = self.offset == 0 || self.offset == self.request.len();
        if is_between && !self.outbox.output().is_empty() {
            self.outbox.on_sent(count);
            return;
        }
        if self.offset == 0 {
            self.asked_at_ns = began_ns;
        }
        self.offset += count;
    }

    fn is_done(&self) -> bool {
        self.left_count == 0
    }
}

/// The state of one replier: sends every payload back.
pub struct Replier {
    parser: Parser,
    outbox: Outbox,
    answered_count: u64,
    meter: Arc<Meter>,
}

impl Replier {
    /// A replier.
    pub fn new(meter: Arc<Meter>) -> Self {
        Replier {
            parser: Parser::new(),
            outbox: Outbox::default(),
            answered_count: 0,
            meter,
        }
    }
}

impl Role for Replier {
    fn on_bytes(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Fault> {
        let mut used = 0;
        while let Some((frame, frame_bytes)) = self.parser.parse(&bytes[used..])? {
            used += frame_bytes;
            match frame {
                Frame::Message(request) => {
                    if let Some(reply) = request.reply {
                        let out = self.outbox.bytes();
                        encode::publish(out, reply, None, request.headers, request.payload);
                    }
                    self.answered_count += 1;
                }
                Frame::Ping => self.outbox.bytes().extend_from_slice(b"PONG\r\n"),
                Frame::Err(text) => return Err(server_fault(text)),
                Frame::Info(_) | Frame::Pong | Frame::Ok => {}
            }
        }
        self.meter.reach(self.answered_count, turn.now_ns);
        Ok(used)
    }

    fn output(&self) -> &[u8] {
        self.outbox.output()
    }

    fn on_sent(&mut self, count: usize, _began_ns: u64) {
        self.outbox.on_sent(count);
    }

    fn is_done(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    #[test]
    fn the_next_request_leaves_only_when_the_reply_is_there() {
        let meter = Arc::new(Meter::default());
        let mut requester = Requester::new(b"PUB a r 1\r\nx\r\n".to_vec(), 2, meter.clone());
        let mut latency = Histogram::default();
        for round in 1..=2u64 {
            let request_bytes = requester.output().len();
            assert_eq!(request_bytes, 14);
            requester.on_sent(4, round * 1000);
            requester.on_sent(request_bytes - 4, round * 1000 + 50);
            assert!(requester.output().is_empty() && !requester.is_done());
            let mut turn = Turn {
                now_ns: round * 1000 + 300,
                latency: &mut latency,
            };
            // The second reply of a greedy pair of repliers counts for nothing.
            let replies = b"PING\r\nMSG r 1 1\r\nx\r\nMSG r 1 1\r\nx\r\n";
            assert_eq!(requester.on_bytes(replies, &mut turn), Ok(replies.len()));
            assert_eq!(requester.output(), b"PONG\r\n");
            requester.on_sent(6, 0);
        }
        assert!(requester.is_done() && requester.output().is_empty());
        assert_eq!(
            (meter.count(), latency.min_ns(), latency.max_ns()),
            (2, 300, 300)
        );
    }

    #[test]
    fn nobody_to_ask_is_a_fault() {
        let mut requester = Requester::new(b"PUB a r 0\r\n\r\n".to_vec(), 1, Arc::default());
        requester.on_sent(13, 1);
        let mut latency = Histogram::default();
        let mut turn = Turn {
            now_ns: 2,
            latency: &mut latency,
        };
        let answer = b"HMSG r 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        assert_eq!(
            requester.on_bytes(answer, &mut turn),
            Err(Fault::NoResponders)
        );
    }

    #[test]
    fn a_replier_echoes_whole_requests_and_keeps_the_rest() {
        let mut replier = Replier::new(Arc::default());
        let mut latency = Histogram::default();
        let mut turn = Turn {
            now_ns: 2,
            latency: &mut latency,
        };
        let bytes = b"MSG a 1 r 2\r\nhi\r\nMSG a 1 2\r\nno\r\nMSG a 1 s 3\r\nab";
        assert_eq!(replier.on_bytes(bytes, &mut turn), Ok(17 + 15));
        assert_eq!(replier.output(), b"PUB r 2\r\nhi\r\n");
        assert_eq!(
            replier.on_bytes(b"MSG a 1 s 3\r\nabc\r\n", &mut turn),
            Ok(18)
        );
        assert_eq!(replier.output(), b"PUB r 2\r\nhi\r\nPUB s 3\r\nabc\r\n");
    }
}
