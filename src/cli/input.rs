//! What tools take from their arguments and from standard input: subjects and payloads.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};

use midge::subject;

use super::failure::Failure;
use super::print::escape;

/// The largest `max_payload` that servers can be set to. Which one ours has is known only after
/// connecting, and that has to wait until standard input is read: a slow pipe would leave the
/// server's PINGs unanswered.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A subject to publish to: complete, without wildcards.
pub fn literal(arg: &OsString) -> Result<Vec<u8>, Failure> {
    let bytes = checked(arg.as_encoded_bytes())?;
    match subject::is_valid_literal(bytes) {
        true => Ok(bytes.to_vec()),
        false => Err(bad(bytes, "wildcards and empty tokens are for no message")),
    }
}

/// A subject to subscribe to, with or without wildcards.
pub fn pattern(arg: &OsString) -> Result<Vec<u8>, Failure> {
    let bytes = checked(arg.as_encoded_bytes())?;
    match subject::is_valid_subscribe(bytes) {
        true => Ok(bytes.to_vec()),
        false => Err(bad(bytes, "no token may be empty, and > stands last")),
    }
}

/// A name that travels in a control line: a queue group.
pub fn word(name: &str, text: String) -> Result<Vec<u8>, Failure> {
    match checked(text.as_bytes()) {
        Ok(_) => Ok(text.into_bytes()),
        Err(_) => Err(Failure::usage(format!(
            "bad {name} \"{}\": it is empty or holds a blank",
            escape(text.as_bytes())
        ))),
    }
}

fn checked(bytes: &[u8]) -> Result<&[u8], Failure> {
    let breaks_line = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    match bytes.is_empty() || bytes.iter().any(breaks_line) {
        true => Err(bad(bytes, "it is empty or holds a blank")),
        false => Ok(bytes),
    }
}

fn bad(bytes: &[u8], fault: &str) -> Failure {
    Failure::usage(format!("bad subject \"{}\": {fault}", escape(bytes)))
}

/// The payload: the argument, or standard input when it is `-`, or when it is left out and
/// something is piped in. From a terminal an absent payload is empty.
pub fn payload(arg: Option<&OsString>) -> Result<Vec<u8>, Failure> {
    match arg {
        Some(arg) => payload_argument(arg),
        None if io::stdin().is_terminal() => Ok(Vec::new()),
        None => read_payload(io::stdin().lock()),
    }
}

/// The payload: the argument, or standard input when it is `-`.
pub fn payload_argument(arg: &OsString) -> Result<Vec<u8>, Failure> {
    match arg == "-" {
        true => read_payload(io::stdin().lock()),
        false => Ok(arg.as_encoded_bytes().to_vec()),
    }
}

/// Reads to the end, but never more than could be sent: `/dev/zero` has no end.
fn read_payload(from: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(PAYLOAD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::run(format!("cannot read standard input: {error}")))?;
    match bytes.len() {
        0..=PAYLOAD_BYTES_MAX => Ok(bytes),
        _ => Err(Failure::run(
            "standard input has more than 64 MiB, which no server takes as one message",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_without_an_end_is_refused_and_the_largest_is_not() {
        let zeros = |count| read_payload(io::repeat(0).take(count)).map(|bytes| bytes.len());
        assert_eq!(zeros(0), Ok(0));
        assert_eq!(zeros(PAYLOAD_BYTES_MAX as u64), Ok(PAYLOAD_BYTES_MAX));
        let error = read_payload(io::repeat(0)).unwrap_err();
        assert!(matches!(error, Failure::Run(text) if text.contains("more than 64 MiB")));
    }

    #[test]
    fn subjects_are_checked_before_they_reach_the_wire() {
        for good in ["foo", "foo.bar", "a>b", "$SYS.x"] {
            assert_eq!(literal(&good.into()), Ok(good.as_bytes().to_vec()));
        }
        for bad in [
            "",
            "foo bar",
            "foo\r\nPUB x 0",
            "foo.*",
            ">",
            "foo..bar",
            "foo.",
        ] {
            assert!(literal(&bad.into()).is_err(), "{bad}");
        }
        for bad in ["", "a b", "foo..bar", ">.foo"] {
            assert!(pattern(&bad.into()).is_err(), "{bad}");
        }
        assert_eq!(pattern(&"foo.*.>".into()), Ok(b"foo.*.>".to_vec()));
        assert!(word("queue", "a b".into()).is_err() && word("queue", "q".into()).is_ok());
    }
}
