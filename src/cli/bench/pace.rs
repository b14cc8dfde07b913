//! Publishing at a fixed rate: one thread that sends each message when it is due.
//!
//! The messages of all publishers lie evenly in time, in turn over the connections, as the load of
//! many independent devices does. Each payload begins with the time it was sent. When a socket
//! refuses a message the server is to blame for the delay, and the time that counts is when the
//! message was due; when the thread merely woke up late, it is when it was written.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::count::FrameCounter;
use super::count::Seen;
use super::drive::Stage;
use super::plan::{Plan, STAMP_BYTES};
use super::publisher::{self, server_fault};
use super::role::Meter;
use crate::cli::encode;

/// How often connections are asked what the server has to say.
const LISTEN_INTERVAL_NS: u64 = 100_000_000;
/// How soon a socket that took no more is tried again.
const RETRY_NS: u64 = 200_000;
/// Bytes that may wait for one socket. With more, nothing is sent until it has taken some.
const PENDING_BYTES_MAX: usize = 1024 * 1024;
/// Longest sleep, so that the end of the run is noticed.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// An encoded message and where its stamp goes.
struct Template {
    frame: Vec<u8>,
    stamp_at: usize,
}

/// One connection that publishes.
pub struct PacedPublisher {
    stream: TcpStream,
    templates: Vec<Template>,
    next_template: usize,
    /// Encoded messages; the socket has taken the first `written` bytes.
    pending: Vec<u8>,
    written: usize,
    /// Messages that were due before this were held up by the server.
    blocked_until_ns: u64,
    sent_count: u64,
    counter: FrameCounter,
    rest: Vec<u8>,
    is_confirmed: bool,
    is_pinged: bool,
    meter: Arc<Meter>,
}

impl PacedPublisher {
    /// Takes over a connection that sends to `subjects` in turn.
    pub fn new(
        stream: TcpStream,
        early: Vec<u8>,
        subjects: &[String],
        plan: &Plan,
        meter: Arc<Meter>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let payload = publisher::payload(plan.payload_bytes);
        let headers = publisher::headers(plan);
        let templates = subjects.iter().map(|subject| {
            let mut frame = Vec::new();
            encode::publish(&mut frame, subject.as_bytes(), None, headers, &payload);
            let stamp_at = frame.len() - 2 - payload.len();
            Template { frame, stamp_at }
        });
        Ok(PacedPublisher {
            stream,
            templates: templates.collect(),
            next_template: 0,
            pending: Vec::new(),
            written: 0,
            blocked_until_ns: 0,
            sent_count: 0,
            counter: FrameCounter::new(0),
            rest: early,
            is_confirmed: false,
            is_pinged: false,
            meter,
        })
    }

    /// Queues a message that was due at `due_ns`. What was due before `held_until_ns` is late
    /// because the server held us up.
    fn push(&mut self, due_ns: u64, now_ns: u64, held_until_ns: u64, is_stamped: bool) {
        let template = &self.templates[self.next_template];
        self.next_template = (self.next_template + 1) % self.templates.len();
        let start = self.pending.len();
        self.pending.extend_from_slice(&template.frame);
        if is_stamped {
            let is_held_up = due_ns < self.blocked_until_ns.max(held_until_ns);
            let stamp_ns = if is_held_up { due_ns } else { now_ns };
            let at = start + template.stamp_at;
            self.pending[at..at + STAMP_BYTES].copy_from_slice(&stamp_ns.to_le_bytes());
        }
        self.sent_count += 1;
    }

    /// Writes what the socket takes.
    fn flush(&mut self, now_ns: u64) -> Result<(), String> {
        let mut is_refused = false;
        while self.written < self.pending.len() && !is_refused {
            match self.stream.write(&self.pending[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => is_refused = true,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.listen(now_ns)?;
                        return Err(format!("lost a connection: {error}"));
                    }
                },
            }
        }
        if !is_refused {
            self.pending.clear();
            self.written = 0;
        }
        self.blocked_until_ns = match is_refused {
            true => u64::MAX,
            // What becomes due from now on is late only by our own doing.
            false => self.blocked_until_ns.min(now_ns),
        };
        if !is_refused && !self.is_pinged {
            self.meter.reach(self.sent_count, now_ns);
        }
        Ok(())
    }

    /// Reads what the server has to say, if anything.
    fn listen(&mut self, now_ns: u64) -> Result<(), String> {
        let mut buffer = [0; 4096];
        let held = self.rest.len();
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => self.rest.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => return Err(format!("lost a connection: {error}")),
            },
        }
        if self.rest.len() == held {
            return Ok(());
        }
        let mut fault = None;
        let (mut ping_count, mut pong_count) = (0, 0);
        let scanned = self.counter.scan(&self.rest, |seen| match seen {
            Seen::Ping => ping_count += 1,
            Seen::Pong => pong_count += 1,
            Seen::Error(line) => fault = Some(server_fault(line).to_string()),
            Seen::Message(_) | Seen::NoResponders => {}
        });
        let used = scanned.map_err(|error| format!("the server sent {error}"))?;
        self.rest.drain(..used);
        for _ in 0..ping_count {
            self.pending.extend_from_slice(b"PONG\r\n");
        }
        if pong_count > 0 && self.is_pinged {
            self.is_confirmed = true;
            self.meter.confirm(self.sent_count, now_ns);
        }
        fault.map_or(Ok(()), Err)
    }
}

/// Sends `message_count` messages at `rate` a second over all publishers, and waits until the
/// server has confirmed them.
pub fn run(
    publishers: &mut [PacedPublisher],
    rate: u64,
    message_count: u64,
    is_stamped: bool,
    stage: &Stage,
) {
    let start_ns = stage.clock.now_ns();
    let due_ns = |number: u64| {
        let offset = u128::from(number) * 1_000_000_000 / u128::from(rate);
        start_ns + offset as u64
    };
    let mut number = 0;
    let mut held_until_ns = 0;
    let mut listened_ns = start_ns;
    let mut busy: Vec<usize> = Vec::new();
    while !stage.is_over() {
        let now_ns = stage.clock.now_ns();
        while number < message_count && due_ns(number) <= now_ns {
            let index = (number % publishers.len() as u64) as usize;
            let publisher = &mut publishers[index];
            if publisher.pending.len() >= PENDING_BYTES_MAX {
                break;
            }
            if publisher.pending.is_empty() {
                busy.push(index);
            }
            publisher.push(due_ns(number), now_ns, held_until_ns, is_stamped);
            number += 1;
        }
        let is_held_up = number < message_count && due_ns(number) <= now_ns;
        held_until_ns = if is_held_up {
            u64::MAX
        } else {
            held_until_ns.min(now_ns)
        };
        let is_listening = number == message_count || now_ns - listened_ns > LISTEN_INTERVAL_NS;
        if is_listening {
            listened_ns = now_ns;
            for publisher in publishers.iter_mut() {
                if number == message_count && !publisher.is_pinged && publisher.pending.is_empty() {
                    publisher.pending.extend_from_slice(b"PING\r\n");
                    publisher.is_pinged = true;
                }
                if let Err(fault) = publisher.listen(now_ns) {
                    return publisher.meter.fail(fault);
                }
            }
            let pending = |index: &usize| !publishers[*index].pending.is_empty();
            busy = (0..publishers.len()).filter(pending).collect();
        }
        for &index in &busy {
            let publisher = &mut publishers[index];
            if let Err(fault) = publisher.flush(stage.clock.now_ns()) {
                return publisher.meter.fail(fault);
            }
        }
        busy.retain(|&index| !publishers[index].pending.is_empty());
        if number == message_count && publishers.iter().all(|one| one.is_confirmed) {
            return;
        }
        let now_ns = stage.clock.now_ns();
        let wake_ns = match number < message_count {
            true if is_held_up => now_ns + RETRY_NS,
            true if busy.is_empty() => due_ns(number).min(now_ns + SLEEP_NS_MAX),
            true => due_ns(number).min(now_ns + RETRY_NS),
            false => now_ns + RETRY_NS,
        };
        if wake_ns > now_ns {
            std::thread::sleep(Duration::from_nanos(wake_ns - now_ns));
        }
    }
}

/// Turns connections into paced publishers.
pub fn publishers(
    endpoints: Vec<(TcpStream, Vec<u8>)>,
    plan: &Plan,
    meters: &[Arc<Meter>],
) -> io::Result<Vec<PacedPublisher>> {
    endpoints
        .into_iter()
        .zip(meters)
        .enumerate()
        .map(|(index, ((stream, early), meter))| {
            let subjects = plan.subjects_of_source(index);
            let subjects: Vec<String> = subjects.iter().map(|&one| plan.subject(one)).collect();
            PacedPublisher::new(stream, early, &subjects, plan, meter.clone())
        })
        .collect()
}
