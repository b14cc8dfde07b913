//! What a run has found, for people and for machines.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use super::histogram::Histogram;
use super::plan::{Mode, Plan};
use super::role::Meter;
use crate::cli::duration;
use crate::cli::failure::Failure;

/// Messages through all connections of one kind.
pub struct Flow {
    /// How many.
    pub count: u64,
    /// From the start to the last of them.
    pub seconds: f64,
}

impl Flow {
    /// What the meters show of a run that began at `start_ns`.
    pub fn of(meters: &[Arc<Meter>], start_ns: u64) -> Self {
        let last_ns = meters.iter().map(|meter| meter.last_ns()).max();
        let elapsed_ns = last_ns.unwrap_or(0).saturating_sub(start_ns);
        Flow {
            count: meters.iter().map(|meter| meter.count()).sum(),
            seconds: elapsed_ns as f64 / 1e9,
        }
    }

    /// The same, from the first message on: when somebody else decides when that is.
    pub fn since_first(meters: &[Arc<Meter>]) -> Self {
        let first_ns = meters.iter().map(|meter| meter.first_ns());
        Flow::of(meters, first_ns.filter(|&ns| ns > 0).min().unwrap_or(0))
    }

    fn rate(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.count as f64 / self.seconds,
            false => 0.0,
        }
    }
}

/// A finished run.
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// Of whom.
    pub server: Server,
    /// Messages published, or requests answered.
    pub published: Flow,
    /// Messages that arrived, or requests answered.
    pub delivered: Flow,
    /// Latencies or round trips; empty where none were measured.
    pub latency: Histogram,
    /// Whether the run was ended before everything had arrived.
    pub is_given_up: bool,
}

impl Report {
    fn lost_count(&self) -> u64 {
        self.plan
            .expected_count()
            .saturating_sub(self.delivered.count)
    }

    /// Success, or what is missing.
    pub fn verdict(&self) -> Result<(), Failure> {
        let expected_count = self.plan.expected_count();
        let timeout = duration::format(self.plan.timeout);
        match self.lost_count() {
            0 if self.is_given_up => Err(Failure::run(format!(
                "bench: the server did not confirm all messages: nothing moved for {timeout}"
            ))),
            0 => Ok(()),
            lost_count => Err(Failure::run(format!(
                "bench: {} of {} messages are missing: nothing arrived for {timeout}",
                thousands(lost_count),
                thousands(expected_count)
            ))),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let megabytes = |flow: &Flow| flow.rate() * self.plan.payload_bytes as f64 / 1e6;
        let mut row = |name: &str, flow: &Flow| {
            let _ = writeln!(
                text,
                "{name:<10} {:>13} messages  {:>8.3} s  {:>12} msg/s  {:>9.1} MB/s",
                thousands(flow.count),
                flow.seconds,
                thousands(flow.rate() as u64),
                megabytes(flow)
            );
        };
        match self.plan.mode {
            Mode::Request => row("replies", &self.delivered),
            Mode::Publish | Mode::Paced { .. } => {
                if self.plan.source_count > 0 {
                    row("published", &self.published);
                }
                if self.plan.sink_count > 0 {
                    row("delivered", &self.delivered);
                }
            }
        }
        if self.latency.count() > 0 {
            text += &self.latency_line();
        } else if matches!(self.plan.mode, Mode::Paced { .. }) && !self.plan.is_stamped() {
            text += "latency     not measured: the time stamp needs a --size of 8 or more\n";
        }
        text
    }

    fn latency_line(&self) -> String {
        let name = if self.plan.mode == Mode::Request {
            "round trip"
        } else {
            "latency"
        };
        let show = |ns| duration::format(Duration::from_nanos(ns));
        let mut line = format!("{name:<10}  ");
        for (label, fraction) in QUANTILES {
            let label = label.replace("999", "99.9");
            line += &format!(" {label} {} ", show(self.latency.quantile_ns(fraction)));
        }
        line + &format!(" max {}\n", show(self.latency.max_ns()))
    }

    fn headline(&self) -> String {
        let plan = &self.plan;
        let count = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{} {one}s", thousands(count as u64)),
        };
        let (source, sink, message) = match plan.mode {
            Mode::Request => ("client", "replier", "request"),
            _ => ("publisher", "subscriber", "message"),
        };
        let subjects = match plan.subject_count {
            1 => plan.subject(0),
            subject_count => format!("{} subjects", thousands(subject_count as u64)),
        };
        let mut text = format!(
            "{}, {}, {} of {} on {subjects}",
            count(plan.source_count, source),
            count(plan.sink_count, sink),
            count(plan.message_count as usize, message),
            count(plan.payload_bytes, "byte"),
        );
        if plan.has_headers {
            text += " with headers";
        }
        if let (Some(queue), Mode::Publish | Mode::Paced { .. }) = (&plan.queue, plan.mode) {
            text += &format!(", queue group {queue}");
        }
        if let Mode::Paced { rate } = plan.mode {
            text += &format!(", {} a second", thousands(rate));
        }
        format!(
            "{text}; server {} at {}",
            self.server.version, self.server.address
        )
    }

    /// For machines: one line.
    pub fn json(&self) -> String {
        let plan = &self.plan;
        let is_request = plan.mode == Mode::Request;
        let latency = match self.latency.count() {
            0 => Value::Null,
            _ => self.latency_json(),
        };
        let value = json!({
            "mode": match plan.mode {
                Mode::Publish => "publish",
                Mode::Paced { .. } => "paced",
                Mode::Request => "request",
            },
            "server": self.server.address,
            "server_version": self.server.version,
            "pub": if is_request { 0 } else { plan.source_count },
            "sub": if is_request { 0 } else { plan.sink_count },
            "clients": if is_request { plan.source_count } else { 0 },
            "repliers": if is_request { plan.sink_count } else { 0 },
            "msgs": plan.message_count,
            "size": plan.payload_bytes,
            "subjects": plan.subject_count,
            "subject": plan.subject_prefix,
            "threads": plan.thread_count,
            "timeout_ns": plan.timeout.as_nanos() as u64,
            "queue": plan.queue,
            "headers": plan.has_headers,
            "rate": match plan.mode {
                Mode::Paced { rate } => json!(rate),
                _ => Value::Null,
            },
            "published": self.published.count,
            "pub_seconds": self.published.seconds,
            "pub_rate": self.published.rate(),
            "delivered": self.delivered.count,
            "expected": plan.expected_count(),
            "lost": self.lost_count(),
            "bytes": self.delivered.count * plan.payload_bytes as u64,
            "seconds": self.published.seconds.max(self.delivered.seconds),
            "delivered_seconds": self.delivered.seconds,
            "delivered_rate": self.delivered.rate(),
            "latency_ns": latency,
        });
        format!("{value}\n")
    }

    fn latency_json(&self) -> Value {
        let mut fields = json!({
            "count": self.latency.count(),
            "min": self.latency.min_ns(),
            "mean": self.latency.mean_ns(),
            "max": self.latency.max_ns(),
        });
        for (label, fraction) in QUANTILES {
            fields[label] = json!(self.latency.quantile_ns(fraction));
        }
        fields
    }
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), expected);
        }
    }
}
