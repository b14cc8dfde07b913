//! Booleans, sizes and durations as nats-server and Go write them, and back to text.

/// `true` or `false` in the spellings that Go's flags take.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number with an optional suffix: `k m g t p e` are powers of 1000; followed by `b`, `i` or
/// `ib` they are powers of 1024. Any case. Source: core-protocol section 8.1.
pub(super) fn parse_size(text: &str) -> Option<i64> {
    let digits_end = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let number: i64 = digits.parse().ok()?;
    let suffix = suffix.to_ascii_lowercase();
    let Some(letter) = suffix.chars().next() else {
        return Some(number);
    };
    let power = 1 + "kmgtpe".find(letter)? as u32;
    let base: i64 = match &suffix[1..] {
        "" => 1000,
        "b" | "i" | "ib" => 1024,
        _ => return None,
    };
    number.checked_mul(base.checked_pow(power)?)
}

/// A size as it would be typed: the largest suffix that divides it.
pub(super) fn format_size(bytes: i64) -> String {
    for (shift, suffix) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Nanoseconds of each unit of a duration.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, the micro sign
    ("μs", 1_000), // U+03BC, the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration in Go's form (`1h30m`, `250ms`, `1.5s`) or, as a bare number, in seconds; in
/// milliseconds, rounded up so that the least of times does not become none. Not negative, and at
/// most what Go can count, some 292 years.
pub(super) fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let mut nanos: u128 = 0;
    let mut rest = text;
    loop {
        let (number, after) = split_number(rest)?;
        let unit_end = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let is_whole_text = rest.len() == text.len() && next.is_empty();
        let unit_nanos = match unit {
            "" if is_whole_text => 1_000_000_000,
            _ => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        nanos = nanos.checked_add(number.nanos(unit_nanos)?)?;
        if nanos > i64::MAX as u128 {
            return None;
        }
        if next.is_empty() {
            return u64::try_from(nanos.div_ceil(1_000_000)).ok();
        }
        rest = next;
    }
}

/// A decimal number as its digits, so that no fraction is lost to floating point.
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl Decimal<'_> {
    /// This many units of `unit_nanos` each, in nanoseconds.
    fn nanos(&self, unit_nanos: u128) -> Option<u128> {
        let whole: u128 = match self.whole {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        // Digits past the eighteenth are below a nanosecond even for hours.
        let fraction = &self.fraction[..self.fraction.len().min(18)];
        let fraction_value: u128 = match fraction {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        let scale = 10_u128.pow(fraction.len() as u32);
        whole
            .checked_mul(unit_nanos)?
            .checked_add(fraction_value * unit_nanos / scale)
    }
}

/// The decimal number at the start of `text`, and what follows it. `1`, `1.5`, `1.` and `.5` are
/// numbers, `.` is none.
fn split_number(text: &str) -> Option<(Decimal<'_>, &str)> {
    let digits = |text: &str| {
        text.find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let (whole, after_whole) = text.split_at(digits(text));
    let (fraction, rest) = match after_whole.strip_prefix('.') {
        Some(after_dot) => after_dot.split_at(digits(after_dot)),
        None => ("", after_whole),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    Some((Decimal { whole, fraction }, rest))
}

/// A duration as it would be typed: `2m`, `1h30m`, `250ms`.
pub(super) fn format_duration_ms(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let parts = [
        (ms / 3_600_000, "h"),
        (ms / 60_000 % 60, "m"),
        (ms / 1000 % 60, "s"),
        (ms % 1000, "ms"),
    ];
    parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("4096", Some(4096)),
            ("1k", Some(1000)),
            ("1K", Some(1000)),
            ("1kb", Some(1024)),
            ("1KiB", Some(1024)),
            ("1ki", Some(1024)),
            ("1M", Some(1_000_000)),
            ("1MB", Some(1_048_576)),
            ("64mib", Some(67_108_864)),
            ("2g", Some(2_000_000_000)),
            ("2gb", Some(2_147_483_648)),
            ("2GiB", Some(2_147_483_648)),
            ("7e", Some(7_000_000_000_000_000_000)),
            ("8eb", None),
            ("9223372036854775808", None),
            ("", None),
            ("k", None),
            ("1 MB", None),
            ("1.5MB", None),
            ("1x", None),
            ("1kbb", None),
            ("1b", None),
            ("ü", None),
            ("1ü", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("2", Some(2000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.", Some(1000)),
            ("0.001", Some(1)),
            ("250ms", Some(250)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("1m0.5s", Some(60_500)),
            ("+2s", Some(2000)),
            ("2h45m30.25s", Some(9_930_250)),
            ("1us", Some(1)),
            ("1500µs", Some(2)),
            ("1500μs", Some(2)),
            ("1000000ns", Some(1)),
            ("1.00000000000000000000001s", Some(1000)),
            ("2562047h", Some(9_223_369_200_000)),
            ("2562048h", None),
            ("99999999999999999999999999999999999999999h", None),
            ("-1s", None),
            ("", None),
            ("+", None),
            (".", None),
            (".s", None),
            ("s", None),
            ("1d", None),
            ("1h30", None),
            ("1 s", None),
            ("1S", None),
        ] {
            assert_eq!(parse_duration_ms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn texts_read_back() {
        for (bytes, text) in [(0, "0"), (1, "1"), (4096, "4KiB"), (67_108_864, "64MiB")] {
            assert_eq!(format_size(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (120_000, "2m"),
            (5_400_000, "1h30m"),
            (90_061_001, "25h1m1s1ms"),
        ] {
            assert_eq!(format_duration_ms(ms), text);
            assert_eq!(parse_duration_ms(text), Some(ms));
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(parse_bool("true"), Some(true));
        assert_eq!(parse_bool("F"), Some(false));
        assert_eq!(parse_bool("yes"), None);
        assert_eq!(parse_bool(""), None);
    }
}
