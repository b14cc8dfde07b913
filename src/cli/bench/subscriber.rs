//! A subscriber: counts what it gets and, of stamped messages, how long they were under way.

use std::sync::Arc;

use super::count::{FrameCounter, Seen};
use super::plan::STAMP_BYTES;
use super::publisher::server_fault;
use super::role::{Fault, Meter, Outbox, Role, Turn};

/// The state of one subscriber. It never ends by itself: the run knows when all have enough.
pub struct Subscriber {
    counter: FrameCounter,
    is_stamped: bool,
    received_count: u64,
    outbox: Outbox,
    meter: Arc<Meter>,
}

impl Subscriber {
    /// A subscriber; `is_stamped` says that payloads begin with the time they were sent.
    pub fn new(is_stamped: bool, meter: Arc<Meter>) -> Self {
        Subscriber {
            counter: FrameCounter::new(if is_stamped { STAMP_BYTES } else { 0 }),
            is_stamped,
            received_count: 0,
            outbox: Outbox::default(),
            meter,
        }
    }
}

impl Role for Subscriber {
    fn on_bytes(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Fault> {
        let mut fault = None;
        let before_count = self.received_count;
        let used = self.counter.scan(bytes, |seen| match seen {
            Seen::Message(start) => {
                self.received_count += 1;
                if let (true, Ok(stamp)) = (self.is_stamped, start.try_into()) {
                    let sent_ns = u64::from_le_bytes(stamp);
                    turn.latency.record(turn.now_ns.saturating_sub(sent_ns));
                }
            }
            Seen::Ping => self.outbox.bytes().extend_from_slice(b"PONG\r\n"),
            Seen::Error(line) => fault = Some(server_fault(line)),
            Seen::Pong | Seen::NoResponders => {}
        })?;
        if self.received_count > before_count {
            self.meter.reach(self.received_count, turn.now_ns);
        }
        fault.map_or(Ok(used), Err)
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
    fn stamps_become_latencies_and_pings_are_answered() {
        let mut stream = Vec::new();
        for sent_ns in [100u64, 400] {
            stream.extend_from_slice(b"MSG bench.0 1 10\r\n");
            stream.extend_from_slice(&sent_ns.to_le_bytes());
            stream.extend_from_slice(b"ab\r\nPING\r\n");
        }
        let meter = Arc::new(Meter::default());
        let mut subscriber = Subscriber::new(true, meter.clone());
        let mut latency = Histogram::default();
        let mut turn = Turn {
            now_ns: 1000,
            latency: &mut latency,
        };
        assert_eq!(subscriber.on_bytes(&stream, &mut turn), Ok(stream.len()));
        assert_eq!(
            (latency.count(), latency.min_ns(), latency.max_ns()),
            (2, 600, 900)
        );
        assert_eq!((meter.count(), meter.first_ns()), (2, 1000));
        assert_eq!(subscriber.output(), b"PONG\r\nPONG\r\n");
        subscriber.on_sent(12, 0);
        assert!(subscriber.output().is_empty());
    }
}
