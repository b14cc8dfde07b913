//! Full-speed loads: publishers that write one message over and over, subscribers that count.
//!
//! Publishers and subscribers form groups. In each group the messages published but not yet delivered
//! to everybody are bounded (`--window`), so that publishers never run away from subscribers, no slow
//! consumer policy sets in, and every server gets the same load. A run ends when each delivery has
//! arrived; a PING after it shows that none came twice.

use crate::net::Net;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One write takes at most this, as client libraries flush their buffers at about this size.
const WRITE_BYTES: usize = 64 * 1024;

/// How many of one publisher's bytes are encoded ahead; a run walks them round and round.
const BATCH_BYTES: usize = 256 * 1024;

/// One message, encoded as often as fits into a batch.
#[derive(Clone)]
pub struct Batch {
    bytes: Rc<[u8]>,
    message: usize,
}

impl Batch {
    /// `PUB`, or `HPUB` with one header line, of `size` payload bytes.
    pub fn new(subject: &str, size: usize, headers: bool) -> Batch {
        let mut message = Vec::new();
        if headers {
            let block = "NATS/1.0\r\nX-Trace: 0123456789abcdef\r\n\r\n";
            let total = block.len() + size;
            let line = format!("HPUB {subject} {} {total}\r\n{block}", block.len());
            message.extend_from_slice(line.as_bytes());
        } else {
            message.extend_from_slice(format!("PUB {subject} {size}\r\n").as_bytes());
        }
        message.resize(message.len() + size, b'x');
        message.extend_from_slice(b"\r\n");
        let times = (BATCH_BYTES / message.len()).max(4);
        Batch {
            bytes: message.repeat(times).into(),
            message: message.len(),
        }
    }
}

struct Publisher {
    conn: usize,
    group: usize,
    batch: Batch,
    sent_bytes: u64,
    goal_bytes: u64,
    /// Messages of which at least one byte is written.
    begun: u64,
}

struct Group {
    /// Deliveries of one message.
    fan: u64,
    /// Messages that may be under way.
    window: u64,
    begun: u64,
    received: u64,
    expected: u64,
}

/// A whole load: see the module's documentation.
pub struct Flow {
    publishers: Vec<Publisher>,
    groups: Vec<Group>,
    group_of: Vec<usize>,
    window_bytes: u64,
}

/// What a run cost.
pub struct Outcome {
    /// The server's CPU time.
    pub cpu_ns: u64,
    /// From the first publish to the last delivery.
    pub seconds: f64,
    /// Deliveries, or messages published where nobody listens.
    pub units: u64,
}

impl Flow {
    /// No publisher yet. `window_bytes` bounds what is under way in each group.
    pub fn new(window_bytes: u64) -> Flow {
        Flow {
            publishers: Vec::new(),
            groups: Vec::new(),
            group_of: Vec::new(),
            window_bytes,
        }
    }

    /// Adds publishers of the same message and the subscribers it reaches, `fan` at a time.
    pub fn group(&mut self, publishers: &[usize], subscribers: &[usize], fan: u64, batch: &Batch) {
        let group = self.groups.len();
        let unit = batch.message as u64 * fan.max(1);
        let window = (self.window_bytes / unit).max(2 * publishers.len() as u64);
        self.groups.push(Group {
            fan,
            window,
            begun: 0,
            received: 0,
            expected: 0,
        });
        for conn in publishers {
            let batch = batch.clone();
            let publisher = Publisher {
                conn: *conn,
                group,
                batch,
                sent_bytes: 0,
                goal_bytes: 0,
                begun: 0,
            };
            self.publishers.push(publisher);
        }
        for conn in subscribers {
            self.group_of
                .resize(self.group_of.len().max(*conn + 1), usize::MAX);
            self.group_of[*conn] = group;
        }
    }

    /// Has every publisher send `msgs` messages and waits for all deliveries.
    pub fn run(&mut self, net: &mut Net, msgs: u64) -> Result<Outcome, String> {
        self.aim(msgs);
        let before: u64 = self.groups.iter().map(|g| g.received).sum();
        let cpu = net.proc.cpu_ns()?;
        let start = Instant::now();
        while !self.is_done() {
            self.turn(net)?;
        }
        let mut units = self.groups.iter().map(|g| g.received).sum::<u64>() - before;
        if self.groups.iter().any(|g| g.fan == 0) {
            units += msgs * self.publishers.len() as u64;
            let conns: Vec<usize> = self.publishers.iter().map(|p| p.conn).collect();
            net.sync(&conns, |_, _| {})?;
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Outcome {
            cpu_ns: net.proc.cpu_ns()? - cpu,
            seconds,
            units,
        })
    }

    /// Publishes without end for `seconds`, then waits for what is under way; returns the deliveries
    /// within each of those seconds.
    pub fn run_for(&mut self, net: &mut Net, seconds: u32) -> Result<Vec<f64>, String> {
        self.aim(u32::MAX.into());
        let mut rates = Vec::new();
        for _ in 0..seconds {
            let before: u64 = self.groups.iter().map(|g| g.received).sum();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) {
                self.turn(net)?;
            }
            let after: u64 = self.groups.iter().map(|g| g.received).sum();
            rates.push((after - before) as f64 / start.elapsed().as_secs_f64());
        }
        self.stop_here();
        while !self.is_done() {
            self.turn(net)?;
        }
        Ok(rates)
    }

    /// Fails if more arrived than was asked for.
    pub fn check_excess(&mut self, net: &mut Net, subscribers: &[usize]) -> Result<(), String> {
        let (groups, group_of) = (&mut self.groups, &self.group_of);
        net.sync(subscribers, |conn, _| groups[group_of[conn]].received += 1)?;
        match groups.iter().find(|g| g.received > g.expected) {
            Some(g) => Err(format!("{} deliveries too many", g.received - g.expected)),
            None => Ok(()),
        }
    }

    fn aim(&mut self, msgs: u64) {
        for p in &mut self.publishers {
            p.goal_bytes += msgs * p.batch.message as u64;
            self.groups[p.group].expected += msgs * self.groups[p.group].fan;
        }
    }

    /// Takes back the goals down to the messages begun.
    fn stop_here(&mut self) {
        for g in &mut self.groups {
            g.expected = 0;
        }
        for p in &mut self.publishers {
            p.goal_bytes = p.begun * p.batch.message as u64;
            self.groups[p.group].expected += p.begun * self.groups[p.group].fan;
        }
    }

    fn is_done(&self) -> bool {
        self.groups.iter().all(|g| g.received >= g.expected)
            && self.publishers.iter().all(|p| p.sent_bytes == p.goal_bytes)
    }

    fn turn(&mut self, net: &mut Net) -> Result<(), String> {
        let mut wrote = false;
        for p in &mut self.publishers {
            wrote |= p.step(net, &mut self.groups[p.group])?;
        }
        let wait = (!wrote).then_some(Duration::from_millis(100));
        let (groups, group_of) = (&mut self.groups, &self.group_of);
        net.turn(wait, |conn, _| groups[group_of[conn]].received += 1)
            .map_err(|e| {
                let missing: u64 = groups
                    .iter()
                    .map(|g| g.expected.saturating_sub(g.received))
                    .sum();
                format!("{e}; {missing} deliveries are missing")
            })
    }
}

impl Publisher {
    /// Writes once if the window and the socket allow it.
    fn step(&mut self, net: &mut Net, group: &mut Group) -> Result<bool, String> {
        let message = self.batch.message as u64;
        let room = match group.fan {
            0 => self.goal_bytes,
            fan => (group.window + group.received / fan).saturating_sub(group.begun),
        };
        let allowed = self.goal_bytes.min((self.begun + room) * message) - self.sent_bytes;
        let at = (self.sent_bytes % self.batch.bytes.len() as u64) as usize;
        let end = self
            .batch
            .bytes
            .len()
            .min(at + WRITE_BYTES.min(allowed as usize));
        let to_boundary = message - self.sent_bytes % message;
        let bytes = &self.batch.bytes[at..end];
        let sent =
            net.write_bulk(self.conn, bytes, to_boundary as usize, self.batch.message)? as u64;
        self.sent_bytes += sent;
        let begun = self.sent_bytes.div_ceil(message);
        group.begun += begun - self.begun;
        self.begun = begun;
        Ok(sent > 0)
    }
}
