//! Parses what a server sends to a client: INFO, MSG, HMSG, PING, PONG, +OK and -ERR.
//!
//! The caller keeps the bytes, so a frame borrows from them and nothing is allocated. After
//! `Ok(None)` the caller reads more and calls again with the same bytes in front; the parser
//! remembers how far it has looked, so a frame that arrives in many pieces is not scanned twice.
//! What a server may make the caller hold is bounded by [`LINE_BYTES_MAX`] and
//! [`MESSAGE_BYTES_MAX`]; both are checked before the bytes have arrived.
//!
//! Used by the client tools; the server's own parser reads the other direction.
//!
//! Source: core-protocol sections 2.1 and 2.2.

#![forbid(unsafe_code)]

use memchr::memchr;

/// Bytes of one control line. INFO is the longest: it lists every server of a cluster.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of header block and payload of one message: the most that nats-server can be set to.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One frame, borrowed from the bytes it was parsed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// The JSON object that describes the server.
    Info(&'a [u8]),
    /// MSG or HMSG.
    Message(Message<'a>),
    /// The server wants a PONG.
    Ping,
    /// The server has carried out everything before our PING.
    Pong,
    /// A verbose acknowledgement.
    Ok,
    /// The text of an error, without its quotes.
    Err(&'a [u8]),
}

/// A delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Where it was published.
    pub subject: &'a [u8],
    /// The subscription that it is delivered for.
    pub sid: &'a [u8],
    /// Where the publisher wants the answer.
    pub reply: Option<&'a [u8]>,
    /// The header block with its version line and final blank line; empty for MSG.
    pub headers: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

/// Why the bytes are not what a server sends. The stream cannot be resumed after any of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// The line starts with no known verb.
    UnknownOperation,
    /// MSG or HMSG with a wrong number of arguments or a bad size.
    BadArguments,
    /// A control line passed [`LINE_BYTES_MAX`].
    LineTooLong,
    /// A message announced more than [`MESSAGE_BYTES_MAX`].
    MessageTooLarge,
    /// The payload is not followed by CR LF.
    MissingLineEnd,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ParseError::UnknownOperation => "a line that starts with no known operation",
            ParseError::BadArguments => "a message with bad arguments",
            ParseError::LineTooLong => "a control line longer than 1 MiB",
            ParseError::MessageTooLarge => "a message larger than 64 MiB",
            ParseError::MissingLineEnd => "a payload without CR LF behind it",
        })
    }
}

impl std::error::Error for ParseError {}

/// The resume point within a frame that has arrived in part.
#[derive(Clone, Copy, Default, Debug)]
pub struct Parser {
    /// Bytes at the front that hold no LF; once the line is complete, where its LF is.
    scanned: usize,
    /// Bytes of the whole frame as far as they are known: no use in looking before they are there.
    frame_bytes: usize,
}

impl Parser {
    /// A parser at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the frame at the start of `bytes` and returns it with the number of bytes it took,
    /// or `None` if it is not complete yet.
    ///
    /// # Errors
    /// The bytes are not what a server sends; nothing after them can be trusted.
    pub fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, ParseError> {
        if bytes.len() < self.frame_bytes {
            return Ok(None);
        }
        let Some(offset) = memchr(b'\n', &bytes[self.scanned..]) else {
            self.scanned = bytes.len();
            return self.check_partial_line(bytes).map(|()| None);
        };
        let line_feed = self.scanned + offset;
        if line_feed > LINE_BYTES_MAX {
            return Err(ParseError::LineTooLong);
        }
        self.scanned = line_feed;
        let line = bytes[..line_feed]
            .strip_suffix(b"\r")
            .unwrap_or(&bytes[..line_feed]);
        let body = line_feed + 1;
        let (frame, frame_bytes) = match Verb::of(line)? {
            (verb @ (Verb::Msg | Verb::Hmsg), arguments) => {
                let head = MessageHead::parse(arguments, verb)?;
                match self.message(bytes, body, &head)? {
                    Some(found) => found,
                    None => return Ok(None),
                }
            }
            (Verb::Info, arguments) => (Frame::Info(arguments), body),
            (Verb::Err, arguments) => (Frame::Err(unquoted(arguments)), body),
            (Verb::Ping, _) => (Frame::Ping, body),
            (Verb::Pong, _) => (Frame::Pong, body),
            (Verb::Ok, _) => (Frame::Ok, body),
        };
        *self = Self::new();
        Ok(Some((frame, frame_bytes)))
    }

    /// How many more bytes the frame needs at least, beyond the `held` ones.
    pub fn missing_bytes(&self, held: usize) -> usize {
        self.frame_bytes.saturating_sub(held).max(1)
    }

    /// A peer that is no NATS server is found out by its first bytes, not by its first line.
    fn check_partial_line(&self, bytes: &[u8]) -> Result<(), ParseError> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(ParseError::LineTooLong);
        }
        match bytes.first() {
            Some(byte) if !b"IMHP+-imhp".contains(byte) => Err(ParseError::UnknownOperation),
            _ => Ok(()),
        }
    }

    fn message<'a>(
        &mut self,
        bytes: &'a [u8],
        body: usize,
        head: &MessageHead<'a>,
    ) -> Result<Option<(Frame<'a>, usize)>, ParseError> {
        let end = body + head.total_bytes;
        self.frame_bytes = end + 2;
        let Some(line_end) = bytes.get(end..end + 2) else {
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err(ParseError::MissingLineEnd);
        }
        let (headers, payload) = bytes[body..end].split_at(head.header_bytes);
        let message = Message {
            subject: head.subject,
            sid: head.sid,
            reply: head.reply,
            headers,
            payload,
        };
        Ok(Some((Frame::Message(message), end + 2)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Info,
    Msg,
    Hmsg,
    Ping,
    Pong,
    Ok,
    Err,
}

impl Verb {
    /// Splits a line into its verb and the arguments behind the blanks.
    fn of(line: &[u8]) -> Result<(Verb, &[u8]), ParseError> {
        let end = line
            .iter()
            .position(|&byte| is_blank(byte))
            .unwrap_or(line.len());
        let (word, arguments) = line.split_at(end);
        const WORDS: [(&[u8], Verb); 7] = [
            (b"MSG", Verb::Msg),
            (b"HMSG", Verb::Hmsg),
            (b"PING", Verb::Ping),
            (b"PONG", Verb::Pong),
            (b"INFO", Verb::Info),
            (b"+OK", Verb::Ok),
            (b"-ERR", Verb::Err),
        ];
        WORDS
            .iter()
            .find(|(known, _)| word.eq_ignore_ascii_case(known))
            .map(|&(_, verb)| (verb, arguments.trim_ascii()))
            .ok_or(ParseError::UnknownOperation)
    }
}

/// The arguments of MSG and HMSG.
struct MessageHead<'a> {
    subject: &'a [u8],
    sid: &'a [u8],
    reply: Option<&'a [u8]>,
    header_bytes: usize,
    total_bytes: usize,
}

impl<'a> MessageHead<'a> {
    fn parse(arguments: &'a [u8], verb: Verb) -> Result<Self, ParseError> {
        let mut found: [&[u8]; 5] = [&[]; 5];
        let mut count = 0;
        // Runs of blanks count as one: nats-server writes two where it left out a reply.
        let words = arguments.split(|&byte| is_blank(byte));
        for word in words.filter(|word| !word.is_empty()) {
            *found.get_mut(count).ok_or(ParseError::BadArguments)? = word;
            count += 1;
        }
        let size_count = if verb == Verb::Hmsg { 2 } else { 1 };
        let reply = match count.checked_sub(size_count) {
            Some(2) => None,
            Some(3) => Some(found[2]),
            _ => return Err(ParseError::BadArguments),
        };
        let total_bytes = parse_size(found[count - 1])?;
        let header_bytes = match verb {
            Verb::Hmsg => parse_size(found[count - 2])?,
            _ => 0,
        };
        if header_bytes > total_bytes {
            return Err(ParseError::BadArguments);
        }
        Ok(MessageHead {
            subject: found[0],
            sid: found[1],
            reply,
            header_bytes,
            total_bytes,
        })
    }
}

fn parse_size(digits: &[u8]) -> Result<usize, ParseError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ParseError::BadArguments);
    }
    let mut size = 0usize;
    for &digit in digits {
        size = size * 10 + usize::from(digit - b'0');
        if size > MESSAGE_BYTES_MAX {
            return Err(ParseError::MessageTooLarge);
        }
    }
    Ok(size)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'")
        .and_then(|inner| inner.strip_suffix(b"'"))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in two pieces, cut at `cut`, and describes every frame.
    fn frames_of(stream: &[u8], cut: usize) -> Result<Vec<String>, ParseError> {
        let mut parser = Parser::new();
        let mut described = Vec::new();
        let mut start = 0;
        for end in [cut, stream.len()] {
            while let Some((frame, used)) = parser.parse(&stream[start..end])? {
                described.push(format!("{frame:?}"));
                start += used;
            }
        }
        assert_eq!(start, stream.len(), "nothing is left over");
        Ok(described)
    }

    fn message<'a>(subject: &'a str, reply: Option<&'a str>, payload: &'a str) -> Message<'a> {
        Message {
            subject: subject.as_bytes(),
            sid: b"9",
            reply: reply.map(str::as_bytes),
            headers: b"",
            payload: payload.as_bytes(),
        }
    }

    #[test]
    fn every_frame_survives_a_split_at_every_byte() {
        let stream =
            b"INFO {\"a\":1} \r\n+OK\r\nPING\r\nMSG foo 9 3\r\nabc\r\nMSG foo 9  0\r\n\r\n\
            MSG foo 9 _INBOX.x 5\r\na\r\nbc\r\nHMSG foo 9 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\n\
            -ERR 'Invalid Subject'\r\nmsg\tfoo \t9 1\r\n\n\r\n";
        let whole = frames_of(stream, stream.len()).unwrap();
        let expected = [
            Frame::Info(b"{\"a\":1}"),
            Frame::Ok,
            Frame::Ping,
            Frame::Message(message("foo", None, "abc")),
            Frame::Message(message("foo", None, "")),
            Frame::Message(message("foo", Some("_INBOX.x"), "a\r\nbc")),
            Frame::Message(Message {
                headers: b"NATS/1.0\r\n\r\n",
                ..message("foo", Some("r"), "hi")
            }),
            Frame::Pong,
            Frame::Err(b"Invalid Subject"),
            Frame::Message(message("foo", None, "\n")),
        ];
        assert_eq!(whole, expected.map(|frame| format!("{frame:?}")));
        for cut in 0..stream.len() {
            assert_eq!(frames_of(stream, cut).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same_frames() {
        let stream = b"MSG foo 9 3\r\nabc\r\nPING\r\n";
        let mut parser = Parser::new();
        let (mut start, mut count) = (0, 0);
        for end in 1..=stream.len() {
            if let Some((_, used)) = parser.parse(&stream[start..end]).unwrap() {
                (start, count) = (start + used, count + 1);
            }
        }
        assert_eq!((start, count), (stream.len(), 2));
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        for (bytes, expected) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                ParseError::UnknownOperation,
            ),
            (b"\r\n", ParseError::UnknownOperation),
            (b"SSH-2.0-x", ParseError::UnknownOperation),
            (b"MSG foo 9\r\n", ParseError::BadArguments),
            (b"MSG foo 9 a b 3\r\n", ParseError::BadArguments),
            (b"MSG a b c d e f 3\r\n", ParseError::BadArguments),
            (b"MSG foo 9 -1\r\n", ParseError::BadArguments),
            (b"HMSG foo 9 3\r\n", ParseError::BadArguments),
            (b"HMSG foo 9 4 3\r\n", ParseError::BadArguments),
            (b"MSG foo 9 67108865\r\n", ParseError::MessageTooLarge),
            (
                b"MSG foo 9 99999999999999999999\r\n",
                ParseError::MessageTooLarge,
            ),
            (b"MSG foo 9 1\r\nabc", ParseError::MissingLineEnd),
            (b"MSG foo 9 1\r\na\n\n", ParseError::MissingLineEnd),
        ] {
            let result = Parser::new().parse(bytes);
            assert_eq!(result, Err(expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_endless_line_is_refused_at_the_bound() {
        let mut line = b"INFO ".to_vec();
        line.resize(LINE_BYTES_MAX, b'x');
        let mut parser = Parser::new();
        assert_eq!(parser.parse(&line), Ok(None));
        line.push(b'x');
        assert_eq!(parser.parse(&line), Err(ParseError::LineTooLong));
    }

    #[test]
    fn the_missing_bytes_of_a_known_size_are_told() {
        let mut parser = Parser::new();
        let bytes = b"MSG foo 9 1000\r\nabc";
        assert_eq!(parser.parse(bytes), Ok(None));
        assert_eq!(parser.missing_bytes(bytes.len()), 1000 + 2 - 3);
        assert_eq!(Parser::new().missing_bytes(7), 1, "of an unknown size, one");
    }

    proptest::proptest! {
        /// Bytes that look like frames, and bytes that do not, in two pieces: the same frames or
        /// the same error as in one, and no panic.
        #[test]
        fn any_bytes_parse_the_same_in_pieces(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "MSG a 1 2\r\n", "HMSG a 1 1 2\r\n", "MSG", " ", "a 1 0", "99", "\r\n", "\n",
                    "\r\n\r\n", "hi", "PING\r\n", "+OK\r\n", "-ERR 'x'\r\n", "INFO {}\r\n", "\0",
                ]),
                0..24,
            ),
            cut in 0usize..200,
        ) {
            let stream = words.concat().into_bytes();
            let drain = |ends: &[usize]| {
                let mut parser = Parser::new();
                let (mut start, mut seen) = (0, Vec::new());
                for &end in ends {
                    loop {
                        match parser.parse(&stream[start..end]) {
                            Ok(Some((frame, used))) => {
                                seen.push(format!("{frame:?}"));
                                start += used;
                            }
                            Ok(None) => break,
                            Err(error) => return (seen, Some(error)),
                        }
                    }
                }
                (seen, None)
            };
            let cut = cut.min(stream.len());
            let (whole, in_pieces) = (drain(&[stream.len()]), drain(&[cut, stream.len()]));
            proptest::prop_assert_eq!(whole, in_pieces);
        }
    }
}
