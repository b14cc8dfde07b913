//! Counts messages in what a server sends, faster than any server can send it.
//!
//! The full parser takes a frame apart; here it is enough to know where the next one starts. Most
//! frames on one connection have the very same head (`MSG bench.0 1 128`), so the last head is
//! kept, and a frame that starts with it is skipped over with one comparison. Payloads are never
//! looked at, save the first bytes, where a time stamp may be.

use memchr::memchr;
use midge::wire::from_server::{LINE_BYTES_MAX, ParseError};

/// Longest head that is remembered.
const HEAD_BYTES_MAX: usize = 256;

/// What a scan comes across.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A message, with the first bytes of its payload: as many as were asked for, or all there are.
    Message(&'a [u8]),
    /// The server's answer that nobody listens where a request went.
    NoResponders,
    /// The server wants a PONG.
    Ping,
    /// The server has carried out what came before our PING.
    Pong,
    /// The text of an -ERR.
    Error(&'a [u8]),
}

/// The place in the stream.
pub struct FrameCounter {
    /// Bytes of the current frame that are still to come and of no interest.
    skip_bytes: usize,
    /// How much of a payload is shown.
    peek_bytes: usize,
    head: [u8; HEAD_BYTES_MAX],
    /// Length of `head` in use; 0 before the first message.
    head_bytes: usize,
    sizes: Sizes,
}

/// What a head says of its message.
#[derive(Clone, Copy, Default)]
struct Sizes {
    header_bytes: usize,
    total_bytes: usize,
}

impl FrameCounter {
    /// A counter at the start of a stream, which shows `peek_bytes` of each payload.
    pub fn new(peek_bytes: usize) -> Self {
        FrameCounter {
            skip_bytes: 0,
            peek_bytes,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            sizes: Sizes::default(),
        }
    }

    /// Tells `on_seen` of every frame and returns how many bytes are dealt with. The rest is the
    /// beginning of a frame: it has to come again, in front of what is read next.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        mut on_seen: impl FnMut(Seen<'_>),
    ) -> Result<usize, ParseError> {
        let mut at = self.skip_bytes.min(bytes.len());
        self.skip_bytes -= at;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (head_bytes, sizes) = match self.same_head(rest) {
                true => (self.head_bytes, self.sizes),
                false => match self.new_head(rest, &mut on_seen)? {
                    Head::Partial => return Ok(at),
                    Head::Line { line_bytes } => {
                        at += line_bytes;
                        continue;
                    }
                    Head::Message { head_bytes, sizes } => (head_bytes, sizes),
                },
            };
            let payload = head_bytes + sizes.header_bytes;
            let shown = self.peek_bytes.min(sizes.total_bytes - sizes.header_bytes);
            let Some(start) = rest.get(payload..payload + shown) else {
                return Ok(at);
            };
            // The status of a header block says whether this is a message at all.
            match rest[head_bytes..payload].starts_with(b"NATS/1.0 503") {
                true => on_seen(Seen::NoResponders),
                false => on_seen(Seen::Message(start)),
            }
            at += head_bytes + sizes.total_bytes + 2;
        }
        self.skip_bytes += at - bytes.len();
        Ok(bytes.len())
    }

    fn same_head(&self, rest: &[u8]) -> bool {
        self.head_bytes > 0 && rest.starts_with(&self.head[..self.head_bytes])
    }

    fn new_head(
        &mut self,
        rest: &[u8],
        on_seen: &mut impl FnMut(Seen<'_>),
    ) -> Result<Head, ParseError> {
        let Some(line_feed) = memchr(b'\n', rest) else {
            return match rest.len() > LINE_BYTES_MAX {
                true => Err(ParseError::LineTooLong),
                false => Ok(Head::Partial),
            };
        };
        let line = rest[..line_feed].trim_ascii_end();
        let line_bytes = line_feed + 1;
        let sizes = match line {
            [b'M', ..] => parse_sizes(line, false)?,
            [b'H', ..] => parse_sizes(line, true)?,
            b"PING" => {
                on_seen(Seen::Ping);
                return Ok(Head::Line { line_bytes });
            }
            b"PONG" => {
                on_seen(Seen::Pong);
                return Ok(Head::Line { line_bytes });
            }
            [b'-', ..] => {
                on_seen(Seen::Error(line));
                return Ok(Head::Line { line_bytes });
            }
            [b'+' | b'I', ..] => return Ok(Head::Line { line_bytes }),
            _ => return Err(ParseError::UnknownOperation),
        };
        if line_bytes <= HEAD_BYTES_MAX {
            self.head[..line_bytes].copy_from_slice(&rest[..line_bytes]);
            self.head_bytes = line_bytes;
            self.sizes = sizes;
        }
        Ok(Head::Message {
            head_bytes: line_bytes,
            sizes,
        })
    }
}

enum Head {
    /// The line is not complete.
    Partial,
    /// A line without a message.
    Line { line_bytes: usize },
    /// A message follows.
    Message { head_bytes: usize, sizes: Sizes },
}

/// Reads the last number of a MSG line, or the last two of an HMSG line.
fn parse_sizes(line: &[u8], has_headers: bool) -> Result<Sizes, ParseError> {
    let mut words = line.rsplit(|&byte| byte == b' ');
    let mut next = || {
        let digits = words.next().unwrap_or_default();
        let text = std::str::from_utf8(digits).ok();
        let size = text.and_then(|text| text.parse::<u32>().ok());
        size.map(|size| size as usize)
            .ok_or(ParseError::BadArguments)
    };
    let total_bytes = next()?;
    let header_bytes = if has_headers { next()? } else { 0 };
    match header_bytes > total_bytes {
        true => Err(ParseError::BadArguments),
        false => Ok(Sizes {
            header_bytes,
            total_bytes,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"INFO {}\r\nMSG bench.0 1 3\r\nabc\r\nMSG bench.0 1 3\r\nd\r\n\r\n\
        PING\r\nMSG bench.1 1 0\r\n\r\nHMSG bench.0 1 12 15\r\nNATS/1.0\r\n\r\nxyz\r\n\
        HMSG r 1 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n+OK\r\nMSG bench.0 1 r 3\r\nabc\r\nPONG\r\n\
        -ERR 'Stale Connection'\r\n";

    fn scan_in_pieces(stream: &[u8], piece_ends: &[usize], peek_bytes: usize) -> Vec<String> {
        let mut counter = FrameCounter::new(peek_bytes);
        let mut seen = Vec::new();
        let mut start = 0;
        for &end in piece_ends {
            let on_seen = |one: Seen<'_>| seen.push(format!("{one:?}"));
            start += counter.scan(&stream[start..end], on_seen).unwrap();
        }
        assert_eq!((start, counter.skip_bytes), (stream.len(), 0));
        seen
    }

    #[test]
    fn every_frame_is_seen_once_however_the_stream_is_cut() {
        let expected = [
            Seen::Message(b"ab"),
            Seen::Message(b"d\r"),
            Seen::Ping,
            Seen::Message(b""),
            Seen::Message(b"xy"),
            Seen::NoResponders,
            Seen::Message(b"ab"),
            Seen::Pong,
            Seen::Error(b"-ERR 'Stale Connection'"),
        ]
        .map(|one| format!("{one:?}"));
        assert_eq!(scan_in_pieces(STREAM, &[STREAM.len()], 2), expected);
        for cut in 0..STREAM.len() {
            assert_eq!(
                scan_in_pieces(STREAM, &[cut, STREAM.len()], 2),
                expected,
                "cut at {cut}"
            );
        }
        let each_byte: Vec<usize> = (1..=STREAM.len()).collect();
        assert_eq!(scan_in_pieces(STREAM, &each_byte, 2), expected);
    }

    #[test]
    fn payloads_that_are_not_looked_at_are_not_kept() {
        let mut counter = FrameCounter::new(0);
        let head = b"MSG foo 1 1000000\r\n";
        let mut count = 0;
        assert_eq!(counter.scan(head, |_| count += 1), Ok(head.len()));
        assert_eq!(
            counter.scan(&[b'x'; 1_000_000], |_| count += 1),
            Ok(1_000_000)
        );
        assert_eq!(counter.scan(b"\r\nMSG", |_| count += 1), Ok(2));
        assert_eq!(count, 1);
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 400 Bad\r\n"[..],
            b"MSG foo 1 x\r\n",
            b"HMSG foo 1 9 3\r\n",
            b"\r\n",
            b"EHLO\r\n",
        ] {
            assert!(FrameCounter::new(0).scan(bytes, |_| ()).is_err());
        }
    }
}
