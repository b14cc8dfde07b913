//! What tools take from their arguments and from standard input: subjects and payloads.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};

use midge::subject;

use super::failure::Failure;
use super::print::escape;

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
    let is_stdin = match arg {
        Some(arg) => arg == "-",
        None => !io::stdin().is_terminal(),
    };
    if !is_stdin {
        return Ok(arg.map_or(Vec::new(), |arg| arg.as_encoded_bytes().to_vec()));
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::run(format!("cannot read standard input: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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
