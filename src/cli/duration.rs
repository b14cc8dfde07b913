//! Durations as Go writes them (`500ms`, `1m30s`), which is what users of `nats` type.

use std::time::Duration;

/// Nanoseconds of each unit, the longer names first where one begins like another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses one or more decimal numbers, each with a unit; `0` needs none.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ns = 0u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&digits| digits > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        let part_ns = number * *unit_ns as f64;
        if part_ns >= u64::MAX as f64 {
            return None;
        }
        total_ns = total_ns.checked_add(part_ns.round() as u64)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then(|| Duration::from_nanos(total_ns))
}

/// Three or four significant digits and the unit that suits: `840ns`, `12.3µs`, `1.52ms`, `2.04s`.
pub fn format(duration: Duration) -> String {
    let ns = duration.as_nanos() as f64;
    let (value, unit) = match duration.as_nanos() {
        0..1_000 => return format!("{}ns", duration.as_nanos()),
        1_000..1_000_000 => (ns / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, expected_ns) in [
            ("0", 0),
            ("500ms", 500_000_000),
            ("2s", 2_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("7ns", 7),
        ] {
            assert_eq!(
                parse(text),
                Some(Duration::from_nanos(expected_ns)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "1x",
            "-1s",
            "1.2.3s",
            "2 s",
            "1s2",
            ".s",
            "99999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_shown_with_a_fitting_unit() {
        for (ns, expected) in [
            (0, "0ns"),
            (840, "840ns"),
            (12_345, "12.3µs"),
            (1_520_000, "1.52ms"),
            (250_000_000, "250ms"),
            (2_040_000_000, "2.04s"),
        ] {
            assert_eq!(format(Duration::from_nanos(ns)), expected);
        }
    }
}
