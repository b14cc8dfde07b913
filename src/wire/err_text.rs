//! Every `-ERR` text a client can get: the exact words of the reference, since clients compare them.
//!
//! Source: core-protocol section 2.6.

use crate::error::CloseReason;

/// An error that ends the connection: what the client is told, and why it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fatal {
    /// Text between the quotes of the `-ERR` line; `None` closes without a word.
    pub text: Option<&'static str>,
    /// Reason shown in logs and monitoring.
    pub reason: CloseReason,
}

const fn told(text: &'static str, reason: CloseReason) -> Fatal {
    Fatal {
        text: Some(text),
        reason,
    }
}

const fn silent(reason: CloseReason) -> Fatal {
    Fatal { text: None, reason }
}

/// Bytes that are no operation, or a payload that does not end in CR LF.
pub const UNKNOWN_OPERATION: Fatal =
    told("Unknown Protocol Operation", CloseReason::ProtocolViolation);
/// A known operation with the wrong number of arguments, or a number that is none.
pub const BAD_ARGUMENTS: Fatal = silent(CloseReason::ParseError);
/// Too many argument bytes on one line.
pub const CONTROL_LINE: Fatal = told(
    "maximum control line exceeded",
    CloseReason::ControlLineExceeded,
);
/// More header and payload bytes than the server takes.
pub const PAYLOAD: Fatal = told("Maximum Payload Violation", CloseReason::PayloadExceeded);
/// HPUB from a client that did not ask for headers, or with sizes that contradict each other.
pub const HEADER: Fatal = silent(CloseReason::HeaderViolation);
/// CONNECT that is not a JSON object of the expected types.
pub const BAD_CONNECT: Fatal = silent(CloseReason::ParseError);
/// CONNECT with a protocol number other than 0 and 1.
pub const CLIENT_PROTOCOL: Fatal = told(
    "invalid client protocol",
    CloseReason::BadClientProtocolVersion,
);
/// `no_responders` asked for without headers.
pub const NO_RESPONDERS: Fatal = told(
    "no responders requires headers support",
    CloseReason::NoRespondersRequiresHeaders,
);
/// Credentials are missing or wrong.
pub const AUTHORIZATION: Fatal = told(
    "Authorization Violation",
    CloseReason::AuthenticationFailure,
);
/// No credentials in time.
pub const AUTH_TIMEOUT: Fatal = told("Authentication Timeout", CloseReason::AuthenticationTimeout);
/// PINGs went unanswered.
pub const STALE: Fatal = told("Stale Connection", CloseReason::StaleConnection);
/// More connections than allowed.
pub const CONNECTIONS: Fatal = told(
    "maximum connections exceeded",
    CloseReason::ConnectionsExceeded,
);
/// The peer sent `-ERR`, which only servers send.
pub const PEER_ERROR: Fatal = silent(CloseReason::ParseError);

/// SUB beyond the limit of the connection; the connection stays.
pub const SUBSCRIPTIONS: &str = "maximum subscriptions exceeded";
/// SUB to a subject with an empty token or a misplaced `>`; the connection stays.
pub const INVALID_SUBJECT: &str = "Invalid Subject";
/// PUB of a pedantic client to a subject that is not literal; the message is delivered.
pub const INVALID_PUBLISH_SUBJECT: &str = "Invalid Publish Subject";

/// Appends a whole `-ERR` line.
pub fn append_line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

/// Appends bytes that a peer chose in double quotes, escaped so that they cannot forge a protocol
/// line: the form of Go's `%q`, which clients parse. Source: core-protocol section 2.6.
pub fn append_quoted(out: &mut String, bytes: &[u8]) {
    use std::fmt::Write;
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{b}' => out.push_str("\\v"),
                c if c.is_control() && (c as u32) < 0x80 => {
                    let _ = write!(out, "\\x{:02x}", c as u32);
                }
                c if is_printable(c) => out.push(c),
                c if (c as u32) < 0x1_0000 => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c => {
                    let _ = write!(out, "\\U{:08x}", c as u32);
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
}

/// Whether a character shows as itself: what `Debug` of a string leaves alone behind a letter, so
/// that combining marks count as shown.
fn is_printable(c: char) -> bool {
    let mut text = String::from("a");
    text.push(c);
    format!("{text:?}").len() == text.len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_cannot_break_the_line() {
        let mut out = String::new();
        append_quoted(
            &mut out,
            b"a\"b\\c\r\n\x01\xff\xc3\xa9\xc2\xa0\xf3\xa0\x80\x81",
        );
        assert_eq!(out, "\"a\\\"b\\\\c\\r\\n\\x01\\xffé\\u00a0\\U000e0001\"");
    }
}
