//! Yields one operation at a time from the bytes of a client, borrowed from them.
//!
//! `next` looks at the beginning of a frame. It never allocates, never looks at payload bytes and
//! refuses a wrong beginning as soon as it can be told, so that nothing is waited for that could
//! not become valid. What it needs more bytes for comes back as `Partial`, the resume point.
//! Source: core-protocol section 2.

use super::err_text::{self, Fatal};
use super::line::{self, Args, LineError};

/// What the parser must know of the connection.
#[derive(Clone, Copy, Debug)]
pub struct ParseLimits {
    /// Bytes of arguments on one line.
    pub args_bytes_max: usize,
    /// Header and payload bytes of one message.
    pub payload_bytes_max: usize,
    /// Whether HPUB is allowed.
    pub has_headers: bool,
}

/// A message a client publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Where it goes.
    pub subject: &'a [u8],
    /// Where an answer is wanted.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block at the beginning of `body`; 0 without headers.
    pub header_bytes: usize,
    /// Header block and payload.
    pub body: &'a [u8],
    /// What a delivery says behind the sid, from `[reply ]size` through the last CR LF, when the
    /// client wrote it in the very form in which it is delivered; else empty.
    pub tail: &'a [u8],
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// PUB or HPUB.
    Publish(Publish<'a>),
    /// SUB.
    Sub {
        /// Subject, unchecked.
        subject: &'a [u8],
        /// Queue group to join.
        queue: Option<&'a [u8]>,
        /// The name the client gives the subscription.
        sid: &'a [u8],
    },
    /// UNSUB.
    Unsub {
        /// The subscription.
        sid: &'a [u8],
        /// Deliveries, counted since SUB, after which it ends; `None` ends it now.
        max: Option<u64>,
    },
    /// CONNECT with its JSON.
    Connect(&'a [u8]),
    /// INFO with its JSON, which a server ignores if it is JSON at all.
    Info(&'a [u8]),
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// +OK, which a server ignores.
    Ok,
}

/// A control line that announces a payload, its arguments checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    args: Args,
    // Sizes have nine digits at most.
    header_bytes: u32,
    body_bytes: u32,
    has_reply: bool,
    is_canonical: bool,
}

impl Head {
    /// Bytes of the whole frame: line, body and the CR LF behind it.
    pub fn frame_bytes(&self) -> usize {
        self.args.line_bytes() + self.body_bytes as usize + 2
    }

    /// Refuses a frame that is not complete if its end is wrong already.
    ///
    /// # Errors
    /// The byte behind the body is there and no CR.
    pub fn check_partial(&self, frame: &[u8]) -> Result<(), Fatal> {
        match frame.get(self.args.line_bytes() + self.body_bytes as usize) {
            Some(&byte) if byte != b'\r' => Err(err_text::UNKNOWN_OPERATION),
            _ => Ok(()),
        }
    }

    /// The message, once `frame` has all its bytes.
    ///
    /// # Errors
    /// The body is not followed by CR LF.
    #[inline(always)]
    pub fn finish<'a>(&self, frame: &'a [u8]) -> Result<Publish<'a>, Fatal> {
        let body_end = self.args.line_bytes() + self.body_bytes as usize;
        if frame[body_end..body_end + 2] != *b"\r\n" {
            return Err(err_text::UNKNOWN_OPERATION);
        }
        let tail = match self.is_canonical {
            true => &frame[self.args.range(1).0..body_end + 2],
            false => &[],
        };
        Ok(Publish {
            subject: self.args.get(frame, 0),
            reply: if self.has_reply {
                Some(self.args.get(frame, 1))
            } else {
                None
            },
            header_bytes: self.header_bytes as usize,
            body: &frame[self.args.line_bytes()..body_end],
            tail,
        })
    }
}

/// An operation whose line may hold anything behind the verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loose {
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// +OK.
    Ok,
}

impl Loose {
    /// The operation itself.
    pub fn op(self) -> Op<'static> {
        match self {
            Loose::Ping => Op::Ping,
            Loose::Pong => Op::Pong,
            Loose::Ok => Op::Ok,
        }
    }
}

/// What is missing before there is an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// The line has no LF yet; its arguments, if they have begun, begin at this offset.
    Line {
        /// Offset of the first argument byte.
        args_from: Option<usize>,
    },
    /// The line has no LF yet, and nothing up to it matters.
    Skip(Loose),
    /// The line is there, the body is not.
    Body(Head),
}

/// What the beginning of a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// An operation, and how many bytes it took.
    Op(Op<'a>, usize),
    /// Not yet an operation.
    Partial(Partial),
}

/// Reads the operation at the beginning of `frame`, which must not be empty.
///
/// # Errors
/// What the client is told, if anything, before the connection ends.
#[inline]
pub fn next<'a>(frame: &'a [u8], limits: &ParseLimits) -> Result<Next<'a>, Fatal> {
    if let [a, b, c, b' ', ..] = *frame
        && [a | 0x20, b | 0x20, c | 0x20] == *b"pub"
        && let Some(args) = line::split_fast(frame, 4, limits.args_bytes_max)
    {
        return publish(frame, publish_head(frame, args, limits)?);
    }
    next_any(frame, limits)
}

#[inline(always)]
fn publish(frame: &[u8], head: Head) -> Result<Next<'_>, Fatal> {
    if frame.len() < head.frame_bytes() {
        head.check_partial(frame)?;
        return Ok(Next::Partial(Partial::Body(head)));
    }
    Ok(Next::Op(
        Op::Publish(head.finish(frame)?),
        head.frame_bytes(),
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Info,
    Err,
    Loose(Loose),
}

/// Verb, its name in lower case, and whether a blank must follow it.
const VERBS: [(Verb, &[u8], bool); 10] = [
    (Verb::Hpub, b"hpub", true),
    (Verb::Pub, b"pub", true),
    (Verb::Sub, b"sub", true),
    (Verb::Unsub, b"unsub", true),
    (Verb::Loose(Loose::Ping), b"ping", false),
    (Verb::Loose(Loose::Pong), b"pong", false),
    (Verb::Connect, b"connect", false),
    (Verb::Info, b"info", false),
    (Verb::Loose(Loose::Ok), b"+ok", false),
    (Verb::Err, b"-err", true),
];

/// The verb at the beginning of `frame` and its length, or `None` while it may still become one.
fn verb(frame: &[u8]) -> Result<Option<(Verb, usize)>, Fatal> {
    for (verb, name, wants_blank) in VERBS {
        let seen = frame.len().min(name.len());
        if !frame[..seen].eq_ignore_ascii_case(&name[..seen]) {
            continue;
        }
        return match frame.get(name.len()) {
            _ if seen < name.len() => Ok(None),
            None if wants_blank => Ok(None),
            Some(&byte) if wants_blank && !line::is_blank(byte) => Err(err_text::UNKNOWN_OPERATION),
            _ => Ok(Some((verb, name.len()))),
        };
    }
    Err(err_text::UNKNOWN_OPERATION)
}

fn next_any<'a>(frame: &'a [u8], limits: &ParseLimits) -> Result<Next<'a>, Fatal> {
    let Some((verb, verb_bytes)) = verb(frame)? else {
        return Ok(Next::Partial(Partial::Line { args_from: None }));
    };
    if verb == Verb::Hpub && !limits.has_headers {
        return Err(err_text::HEADER);
    }
    if matches!(verb, Verb::Pub | Verb::Hpub | Verb::Sub | Verb::Unsub)
        && let Some(args) = line::split_fast(frame, verb_bytes + 1, limits.args_bytes_max)
    {
        return operation(verb, frame, args, limits);
    }
    let Some(lf) = memchr::memchr(b'\n', &frame[verb_bytes..]) else {
        return partial_line(verb, frame, verb_bytes, limits).map(Next::Partial);
    };
    let line_bytes = verb_bytes + lf + 1;
    match verb {
        Verb::Loose(loose) => Ok(Next::Op(loose.op(), line_bytes)),
        Verb::Connect | Verb::Info | Verb::Err => {
            let text = line::trim_end(&frame[..line_bytes]);
            let body = &text[line::skip_blanks(text, verb_bytes)..];
            if body.len() > limits.args_bytes_max {
                return Err(err_text::CONTROL_LINE);
            }
            match verb {
                Verb::Connect => Ok(Next::Op(Op::Connect(body), line_bytes)),
                Verb::Info => Ok(Next::Op(Op::Info(body), line_bytes)),
                _ => Err(err_text::PEER_ERROR),
            }
        }
        _ => {
            let args = line::split_plain(frame, verb_bytes, line_bytes, limits.args_bytes_max)
                .map_err(|error| match error {
                    LineError::TooLong => err_text::CONTROL_LINE,
                    LineError::StrayCr => err_text::BAD_ARGUMENTS,
                })?;
            operation(verb, frame, args, limits)
        }
    }
}

/// A line without its end: is what has come so far still within the limit?
fn partial_line(
    verb: Verb,
    frame: &[u8],
    verb_bytes: usize,
    limits: &ParseLimits,
) -> Result<Partial, Fatal> {
    if let Verb::Loose(loose) = verb {
        return Ok(Partial::Skip(loose));
    }
    let args_from = line::skip_blanks(frame, verb_bytes);
    if args_from == frame.len() {
        return Ok(Partial::Line { args_from: None });
    }
    check_partial_args(&frame[args_from..], limits)?;
    Ok(Partial::Line {
        args_from: Some(args_from),
    })
}

/// Refuses arguments that are too long already, whatever follows.
///
/// # Errors
/// The control line limit is passed.
pub fn check_partial_args(args: &[u8], limits: &ParseLimits) -> Result<(), Fatal> {
    // The CR of a line end that is still under way does not count.
    let args = args.strip_suffix(b"\r").unwrap_or(args);
    match args.len() > limits.args_bytes_max {
        true => Err(err_text::CONTROL_LINE),
        false => Ok(()),
    }
}

/// The operation of a split line.
fn operation<'a>(
    verb: Verb,
    frame: &'a [u8],
    args: Args,
    limits: &ParseLimits,
) -> Result<Next<'a>, Fatal> {
    let op = match (verb, args.count()) {
        (Verb::Pub, _) => return publish(frame, publish_head(frame, args, limits)?),
        (Verb::Hpub, _) => return publish(frame, header_publish_head(frame, args, limits)?),
        (Verb::Sub, 2) => Op::Sub {
            subject: args.get(frame, 0),
            queue: None,
            sid: args.get(frame, 1),
        },
        (Verb::Sub, 3) => Op::Sub {
            subject: args.get(frame, 0),
            queue: Some(args.get(frame, 1)),
            sid: args.get(frame, 2),
        },
        (Verb::Unsub, 1) => Op::Unsub {
            sid: args.get(frame, 0),
            max: None,
        },
        (Verb::Unsub, 2) => Op::Unsub {
            sid: args.get(frame, 0),
            // A limit of 0, or one that is no number, ends the subscription now.
            max: size(args.get(frame, 1))
                .filter(|&max| max > 0)
                .map(|max| max as u64),
        },
        _ => return Err(err_text::BAD_ARGUMENTS),
    };
    Ok(Next::Op(op, args.line_bytes()))
}

/// A number of 1 to 9 digits.
#[inline(always)]
fn size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let mut value = 0usize;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + digit as usize;
    }
    Some(value)
}

#[inline(always)]
fn publish_head(frame: &[u8], args: Args, limits: &ParseLimits) -> Result<Head, Fatal> {
    let (has_reply, size_index) = match args.count() {
        2 => (false, 1),
        3 => (true, 2),
        _ => return Err(err_text::BAD_ARGUMENTS),
    };
    let body_bytes = size(args.get(frame, size_index)).ok_or(err_text::BAD_ARGUMENTS)?;
    if body_bytes > limits.payload_bytes_max {
        return Err(err_text::PAYLOAD);
    }
    Ok(Head {
        args,
        header_bytes: 0,
        body_bytes: body_bytes as u32,
        has_reply,
        is_canonical: args.is_canonical,
    })
}

fn header_publish_head(frame: &[u8], args: Args, limits: &ParseLimits) -> Result<Head, Fatal> {
    let (has_reply, size_index) = match args.count() {
        3 => (false, 1),
        4 => (true, 2),
        _ => return Err(err_text::HEADER),
    };
    let header_bytes = size(args.get(frame, size_index)).ok_or(err_text::HEADER)?;
    let body_bytes = size(args.get(frame, size_index + 1)).ok_or(err_text::HEADER)?;
    if header_bytes > body_bytes {
        return Err(err_text::HEADER);
    }
    if body_bytes > limits.payload_bytes_max {
        return Err(err_text::PAYLOAD);
    }
    // Without a header block it is delivered as MSG, which has one size and not two.
    let is_canonical = args.is_canonical && header_bytes > 0;
    Ok(Head {
        args,
        header_bytes: header_bytes as u32,
        body_bytes: body_bytes as u32,
        has_reply,
        is_canonical,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ParseLimits = ParseLimits {
        args_bytes_max: 64,
        payload_bytes_max: 100,
        has_headers: true,
    };

    fn op(frame: &[u8]) -> (Op<'_>, usize) {
        match next(frame, &LIMITS) {
            Ok(Next::Op(op, bytes)) => (op, bytes),
            other => panic!("{other:?} from {:?}", String::from_utf8_lossy(frame)),
        }
    }

    fn publish_of(frame: &[u8]) -> Publish<'_> {
        match op(frame) {
            (Op::Publish(publish), bytes) => {
                assert_eq!(bytes, frame.len());
                publish
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn publishes_with_and_without_reply_and_headers() {
        let plain = publish_of(b"PUB foo 5\r\nhello\r\n");
        assert_eq!(
            (plain.subject, plain.reply, plain.body),
            (&b"foo"[..], None, &b"hello"[..])
        );
        assert_eq!(plain.tail, b"5\r\nhello\r\n");
        let reply = publish_of(b"pub foo bar 0\r\n\r\n");
        assert_eq!((reply.reply, reply.body), (Some(&b"bar"[..]), &b""[..]));
        assert_eq!(reply.tail, b"bar 0\r\n\r\n");
        let headers = publish_of(b"HPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        assert_eq!((headers.header_bytes, headers.body.len()), (12, 14));
        let no_block = publish_of(b"HPUB a 0 2\r\nhi\r\n");
        assert_eq!((no_block.header_bytes, no_block.tail), (0, &b""[..]));
    }

    #[test]
    fn unusual_blanks_give_the_same_message_without_a_tail() {
        let plain = publish_of(b"PuB\t foo \t 5 \nhello\r\n");
        assert_eq!(
            (plain.subject, plain.body, plain.tail),
            (&b"foo"[..], &b"hello"[..], &b""[..])
        );
    }

    #[test]
    fn errors_are_the_reference_s() {
        for (frame, expected) in [
            (&b"X"[..], err_text::UNKNOWN_OPERATION),
            (b"PIX", err_text::UNKNOWN_OPERATION),
            (b"\r\n", err_text::UNKNOWN_OPERATION),
            (b"SUB\r\n", err_text::UNKNOWN_OPERATION),
            (b"-ERR\r\n", err_text::UNKNOWN_OPERATION),
            (b"-ERR x\r\n", err_text::PEER_ERROR),
            (b"SUB \r\n", err_text::BAD_ARGUMENTS),
            (b"SUB a b c d\r\n", err_text::BAD_ARGUMENTS),
            (b"UNSUB 1 2 3\r\n", err_text::BAD_ARGUMENTS),
            (b"PUB a\r\n", err_text::BAD_ARGUMENTS),
            (b"PUB a -1\r\n", err_text::BAD_ARGUMENTS),
            (b"PUB a 1234567890\r\n", err_text::BAD_ARGUMENTS),
            (b"PUB a 101\r\n", err_text::PAYLOAD),
            (b"PUB a 2\r\nhixx", err_text::UNKNOWN_OPERATION),
            (b"PUB a 2\r\nhix", err_text::UNKNOWN_OPERATION),
            (b"HPUB a 13 12\r\n", err_text::HEADER),
            (b"HPUB a 12\r\n", err_text::HEADER),
        ] {
            assert_eq!(
                next(frame, &LIMITS),
                Err(expected),
                "{}",
                String::from_utf8_lossy(frame)
            );
        }
    }

    #[test]
    fn loose_operations_skip_to_the_line_end() {
        assert_eq!(op(b"PINGxyz\r\n"), (Op::Ping, 9));
        assert_eq!(op(b"+ok then\n"), (Op::Ok, 9));
        assert_eq!(
            next(b"PONG....", &LIMITS),
            Ok(Next::Partial(Partial::Skip(Loose::Pong)))
        );
    }

    #[test]
    fn an_endless_line_is_refused_before_it_ends() {
        let line = [&b"SUB "[..], &[b'a'; 65]].concat();
        assert_eq!(next(&line, &LIMITS), Err(err_text::CONTROL_LINE));
        assert!(next(&line[..68], &LIMITS).is_ok());
    }

    #[test]
    fn unsub_takes_a_count_or_ends_now() {
        assert_eq!(
            op(b"UNSUB 1 5\r\n").0,
            Op::Unsub {
                sid: b"1",
                max: Some(5)
            }
        );
        assert_eq!(
            op(b"UNSUB 1 0\r\n").0,
            Op::Unsub {
                sid: b"1",
                max: None
            }
        );
        assert_eq!(
            op(b"UNSUB 1 x\r\n").0,
            Op::Unsub {
                sid: b"1",
                max: None
            }
        );
    }

    #[test]
    fn connect_needs_no_blank() {
        assert_eq!(op(b"CONNECT{}\r\n").0, Op::Connect(b"{}"));
        assert_eq!(op(b"connect \t {} \r\n").0, Op::Connect(b"{} "));
    }
}
