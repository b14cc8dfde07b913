//! What a run does: who publishes how much to which subject, and who gets it.

use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::flags::Parsed;
use crate::cli::input;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Publishers and subscribers at full speed.
    Publish,
    /// Publishers at a fixed rate: the latency of each delivery is measured.
    Paced {
        /// Messages a second, of all publishers together.
        rate: u64,
    },
    /// Clients that ask, wait for the reply, and ask again.
    Request,
}

/// A run, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What is measured.
    pub mode: Mode,
    /// Connections that publish, or that ask.
    pub source_count: usize,
    /// Connections that subscribe, or that reply.
    pub sink_count: usize,
    /// Messages published, or requests, of all sources together.
    pub message_count: u64,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Number of subjects.
    pub subject_count: usize,
    /// First tokens of the subjects.
    pub subject_prefix: String,
    /// Queue group of the sinks.
    pub queue: Option<String>,
    /// Whether messages have a header block.
    pub has_headers: bool,
    /// Threads for the sources and for the sinks; 0 leaves it to the driver.
    pub thread_count: usize,
    /// How long nothing may arrive before the run is given up.
    pub timeout: Duration,
}

/// Bytes of the time stamp at the front of a paced payload.
pub const STAMP_BYTES: usize = 8;

/// Memory that encoded messages may take.
const ENCODED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

impl Plan {
    /// Reads the flags.
    pub fn from_flags(flags: &Parsed) -> Result<Self, Failure> {
        let is_request = flags.switch("request")?;
        let rate = flags.number("rate", 1..=100_000_000u64)?;
        let mode = match (is_request, rate) {
            (true, Some(_)) => {
                return Err(Failure::usage(
                    "bench: --request has no --rate: each client asks when it has its reply",
                ));
            }
            (true, None) => Mode::Request,
            (false, Some(rate)) => Mode::Paced { rate },
            (false, None) => Mode::Publish,
        };
        for (own, other) in [("pub", "clients"), ("sub", "repliers")] {
            let (wrong, right) = if is_request {
                (own, other)
            } else {
                (other, own)
            };
            if flags.number(wrong, 0..=u64::MAX)?.is_some() {
                let state = if is_request { "with" } else { "without" };
                return Err(Failure::usage(format!(
                    "bench: --{wrong} means nothing {state} --request; use --{right}"
                )));
            }
        }
        let (source, sink) = if is_request {
            ("clients", "repliers")
        } else {
            ("pub", "sub")
        };
        let message_count = match (flags.number("msgs", 1..=1_000_000_000_000u64)?, mode) {
            (Some(count), _) => count,
            (None, Mode::Publish) => 1_000_000,
            (None, Mode::Paced { rate }) => rate * 10,
            (None, Mode::Request) => 100_000,
        };
        let prefix = flags.text("subject")?.unwrap_or("bench".to_owned());
        input::literal(&prefix.clone().into())?;
        let queue = match flags.text("queue")? {
            Some(queue) => String::from_utf8(input::word("queue", queue)?).ok(),
            None if is_request => Some("bench".to_owned()),
            None => None,
        };
        let plan = Plan {
            mode,
            source_count: flags.number(source, 0..=65_000)?.unwrap_or(1),
            sink_count: flags.number(sink, 0..=65_000)?.unwrap_or(1),
            message_count,
            payload_bytes: flags.number("size", 0..=64 * 1024 * 1024)?.unwrap_or(128),
            subject_count: flags.number("subjects", 1..=1_000_000)?.unwrap_or(1),
            subject_prefix: prefix,
            queue,
            has_headers: flags.switch("headers")?,
            thread_count: flags.number("threads", 0..=1024)?.unwrap_or(0),
            timeout: flags
                .duration("timeout")?
                .unwrap_or(Duration::from_secs(10)),
        };
        plan.check().map(|()| plan)
    }

    fn check(&self) -> Result<(), Failure> {
        match (self.mode, self.source_count, self.sink_count) {
            (Mode::Request, 0, _) => Err(Failure::usage(
                "bench: --request needs at least one of --clients",
            )),
            (Mode::Paced { .. }, 0, _) => {
                Err(Failure::usage("bench: --rate needs publishers: --pub is 0"))
            }
            (_, 0, 0) => Err(Failure::usage(
                "bench: --pub and --sub are both 0: nothing to do",
            )),
            _ => self.check_memory(),
        }
    }

    /// Each source holds an encoded message for each of its subjects.
    fn check_memory(&self) -> Result<(), Failure> {
        let message_count = match self.mode {
            _ if self.source_count == 0 => 0,
            Mode::Request => self.source_count,
            Mode::Publish | Mode::Paced { .. } => self.source_count.max(self.subject_count),
        };
        let message_bytes = self.payload_bytes + self.subject_prefix.len();
        match message_count as u64 * message_bytes as u64 {
            0..=ENCODED_BYTES_MAX => Ok(()),
            _ => Err(Failure::usage(format!(
                "bench: {message_count} messages of {} bytes, one for each subject or connection, \
                 are held in memory, and take more than 1 GiB; choose fewer or smaller ones",
                self.payload_bytes
            ))),
        }
    }

    /// The name of a subject.
    pub fn subject(&self, index: usize) -> String {
        format!("{}.{index}", self.subject_prefix)
    }

    /// Whether payloads carry the time they were sent.
    pub fn is_stamped(&self) -> bool {
        matches!(self.mode, Mode::Paced { .. }) && self.payload_bytes >= STAMP_BYTES
    }

    /// How many of the messages a source sends: all do the same, the first ones one more.
    pub fn message_count_of(&self, source: usize) -> u64 {
        share(self.message_count, self.publisher_count(), source)
    }

    /// The subjects that a source sends to, in turn.
    pub fn subjects_of_source(&self, source: usize) -> Vec<usize> {
        spread(self.subject_count, self.publisher_count(), source)
    }

    /// The subjects that a sink subscribes to.
    pub fn subjects_of_sink(&self, sink: usize) -> Vec<usize> {
        spread(self.subject_count, self.sink_count, sink)
    }

    /// Without publishers of our own, one elsewhere is assumed, which goes through all subjects.
    fn publisher_count(&self) -> usize {
        self.source_count.max(1)
    }

    /// How many messages the sinks get in all.
    pub fn expected_count(&self) -> u64 {
        if self.mode == Mode::Request {
            return self.message_count;
        }
        let mut receivers = vec![0u64; self.subject_count];
        for sink in 0..self.sink_count {
            for subject in self.subjects_of_sink(sink) {
                receivers[subject] += 1;
            }
        }
        if self.queue.is_some() {
            // A group gets one copy, however many members it has.
            receivers
                .iter_mut()
                .for_each(|count| *count = (*count).min(1));
        }
        let mut total = 0;
        for source in 0..self.publisher_count() {
            let count = self.message_count_of(source);
            let subjects = self.subjects_of_source(source);
            for (turn, &subject) in subjects.iter().enumerate() {
                total += share(count, subjects.len(), turn) * receivers[subject];
            }
        }
        total
    }
}

/// The part of `total` that the one at `index` of `count` gets when they take turns.
fn share(total: u64, count: usize, index: usize) -> u64 {
    let (count, index) = (count as u64, index as u64);
    total / count + u64::from(index < total % count)
}

/// The subjects of one connection among `connection_count`: every n-th, or, with fewer subjects
/// than connections, one of them.
fn spread(subject_count: usize, connection_count: usize, connection: usize) -> Vec<usize> {
    match subject_count <= connection_count {
        true => vec![connection % subject_count],
        false => (connection..subject_count)
            .step_by(connection_count)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pubs: usize, subs: usize, subjects: usize, messages: u64, queue: bool) -> Plan {
        Plan {
            mode: Mode::Publish,
            source_count: pubs,
            sink_count: subs,
            message_count: messages,
            payload_bytes: 16,
            subject_count: subjects,
            subject_prefix: "bench".into(),
            queue: queue.then(|| "q".into()),
            has_headers: false,
            thread_count: 0,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn expected_deliveries_follow_the_shape() {
        for (plan, expected, why) in [
            (plan(1, 1, 1, 100, false), 100, "one to one"),
            (plan(1, 16, 1, 100, false), 1600, "fan-out"),
            (plan(16, 1, 1, 100, false), 100, "fan-in"),
            (plan(64, 64, 64, 6400, false), 6400, "pairs"),
            (plan(3, 3, 3, 100, false), 100, "pairs with a remainder"),
            (plan(1, 8, 1, 100, true), 100, "queue group"),
            (plan(1, 0, 1, 100, false), 0, "nobody listens"),
            (
                plan(1, 1, 1000, 2500, false),
                2500,
                "one connection, many subjects",
            ),
            (plan(2, 4, 2, 101, false), 202, "two groups of two"),
            (plan(4, 1, 2, 100, false), 100, "one subscriber to all"),
            (plan(0, 2, 1, 100, false), 200, "published elsewhere"),
        ] {
            assert_eq!(plan.expected_count(), expected, "{why}");
        }
    }

    #[test]
    fn a_plan_that_needs_too_much_memory_is_refused() {
        let mib = 1024 * 1024;
        for (sources, subjects, payload_bytes, mode, is_fine) in [
            (1, 1024, mib - 5, Mode::Publish, true),
            (1, 1024, mib, Mode::Publish, false),
            (1, 10_000, mib, Mode::Paced { rate: 10 }, false),
            (1025, 1, mib, Mode::Publish, false),
            (1025, 1, mib, Mode::Request, false),
            (1, 10_000, mib, Mode::Request, true),
            (0, 10_000, mib, Mode::Publish, true),
            (1, 1_000_000, 128, Mode::Publish, true),
        ] {
            let plan = Plan {
                mode,
                payload_bytes,
                ..plan(sources, 1, subjects, 1, false)
            };
            let result = plan.check();
            assert_eq!(result.is_ok(), is_fine, "{plan:?}: {result:?}");
        }
    }

    #[test]
    fn sources_share_messages_and_subjects_without_a_gap() {
        let plan = plan(3, 1, 7, 100, false);
        let total: u64 = (0..3).map(|source| plan.message_count_of(source)).sum();
        assert_eq!(total, 100);
        let mut subjects: Vec<usize> = (0..3)
            .flat_map(|source| plan.subjects_of_source(source))
            .collect();
        subjects.sort_unstable();
        assert_eq!(subjects, (0..7).collect::<Vec<_>>());
        assert_eq!(plan.subject(3), "bench.3");
    }
}
