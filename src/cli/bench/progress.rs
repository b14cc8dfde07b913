//! How far a run is, once a second on standard error: a line that is rewritten on a terminal,
//! line under line elsewhere.

use std::io::{self, IsTerminal, Write};

use super::plan::{Mode, Plan};
use super::report::thousands;

const INTERVAL_NS: u64 = 1_000_000_000;

/// What was shown last.
pub struct Progress {
    is_on: bool,
    is_terminal: bool,
    is_request: bool,
    message_count: u64,
    /// The messages that this process publishes.
    publish_count: u64,
    shown_at_ns: u64,
    shown: (u64, u64),
    shown_columns: usize,
}

impl Progress {
    /// The progress of a run that begins now.
    pub fn new(is_on: bool, plan: &Plan, start_ns: u64) -> Self {
        Progress {
            is_on,
            is_terminal: io::stderr().is_terminal(),
            is_request: plan.mode == Mode::Request,
            message_count: plan.message_count,
            publish_count: if plan.source_count > 0 {
                plan.message_count
            } else {
                0
            },
            shown_at_ns: start_ns,
            shown: (0, 0),
            shown_columns: 0,
        }
    }

    /// Shows the counts when it is time to.
    pub fn show(&mut self, now_ns: u64, sent: u64, received: u64, expected: u64) {
        let elapsed_ns = now_ns - self.shown_at_ns;
        if !self.is_on || elapsed_ns < INTERVAL_NS {
            return;
        }
        let rate = |now: u64, before: u64| {
            let per_second = (now - before) as f64 * 1e9 / elapsed_ns as f64;
            thousands(per_second as u64)
        };
        let (sent_before, received_before) = self.shown;
        let part = |name: &str, count: u64, total: u64, before: u64| {
            // Short enough for a narrow terminal: a line that wraps cannot be rewritten.
            let percent = u128::from(count) * 100 / u128::from(total.max(1));
            (total > 0).then(|| format!("{name} {percent}% at {}/s", rate(count, before)))
        };
        let parts = match self.is_request {
            true => [part("replied", sent, self.message_count, sent_before), None],
            false => [
                part("published", sent, self.publish_count, sent_before),
                part("delivered", received, expected, received_before),
            ],
        };
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        self.shown_at_ns = now_ns;
        self.shown = (sent, received);
        self.write(&text);
    }

    /// Leaves a terminal as it was.
    pub fn clear(&mut self) {
        if self.is_terminal && self.shown_columns > 0 {
            self.write("");
            let _ = io::stderr().write_all(b"\r");
        }
    }

    /// Progress that nobody can see is no reason to stop a measurement.
    fn write(&mut self, text: &str) {
        let _ = match self.is_terminal {
            true => write!(
                io::stderr(),
                "\r{text:<columns$}",
                columns = self.shown_columns
            ),
            false => writeln!(io::stderr(), "{text}"),
        };
        self.shown_columns = text.chars().count();
    }
}
