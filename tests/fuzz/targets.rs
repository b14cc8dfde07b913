//! What is done with arbitrary bytes: one function a target, which panics when something is wrong.
//! Both the stable test and the cargo-fuzz targets call these.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use midge::clock::Millis;
use midge::config::{Options, parse};
use midge::id::WorkerId;
use midge::log::Logger;
use midge::router::{Matches, Owner, Router, Target};
use midge::session::mail;
use midge::session::shard::{Shard, Shared};
use midge::subject;
use midge::wire::connect::Connect;
use midge::wire::from_server::{Frame, MESSAGE_BYTES_MAX, Message, ParseError, Parser};
use midge::wire::info::ServerInfo;
use midge::wire::line;

/// The first bytes of an input choose how it is cut; the rest is the input.
fn split_off_seed(data: &[u8]) -> (u64, &[u8]) {
    let (seed, rest) = data.split_at(data.len().min(2));
    let seed = seed
        .iter()
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    (seed, rest)
}

/// Cuts `bytes` into pieces of lengths that follow from `seed`, often of one byte.
fn pieces(seed: u64, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = seed | 1;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        let most = [1, 1, 3, 10, 60, 1000][(state >> 40) as usize % 6];
        let count = ((state >> 20) as usize % most + 1).min(rest.len());
        let (piece, left) = rest.split_at(count);
        rest = left;
        Some(piece)
    })
}

/// What a server answers to the bytes of one client, handed over in pieces, and how it ends.
fn answers<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<&'static str>) {
    let options = Options {
        control_line_bytes_max: 200,
        payload_bytes_max: Some(3000),
        ..Options::default()
    };
    let shared = Arc::new(Shared {
        router: Arc::new(Router::new()),
        log: Logger::callback(Box::new(|_, _| {})),
        info: ServerInfo {
            server_id: "NFUZZ".into(),
            server_name: "fuzz".into(),
            nats_version: "2.2.0",
            midge_version: "0",
            revision: "",
            host: "127.0.0.1".into(),
            port: 4222,
            auth_required: false,
            max_payload: 3000,
        },
        last_conn: AtomicU64::new(0),
        is_lame_duck: AtomicBool::new(false),
        options,
    });
    let now = Millis(1);
    let mut shard: Shard<Vec<u8>> = Shard::new(WorkerId(0), 1, shared, 7).expect("a worker");
    let slot = shard.open(Vec::new(), None, now);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let used = shard.on_bytes(slot, &piece[at..], now);
            assert!(
                used > 0 || shard.wants_flush(),
                "bytes that are never taken"
            );
            at += used;
            flush(&mut shard, slot, now);
        }
    }
    let conn = shard.conn(slot).expect("nobody removed it");
    let reason = conn.close_reason().map(|reason| reason.text());
    let (answer, _) = shard.remove(slot).expect("still there");
    assert_eq!(shard.sub_count(), 0);
    (answer, reason)
}

fn flush(shard: &mut Shard<Vec<u8>>, slot: u32, now: Millis) {
    while shard.next_dirty().is_some() {}
    let written: Result<(), Infallible> = shard.flush_with(slot, now, |io, slices| {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        slices.iter().for_each(|slice| io.extend_from_slice(slice));
        Ok(Some(bytes))
    });
    let Ok(()) = written;
    shard.flushed();
}

/// A client's bytes have the same effect however they are cut, what comes back is what servers
/// send, and both ways of splitting a line agree.
pub fn parser(data: &[u8]) {
    let (seed, bytes) = split_off_seed(data);
    let whole = answers(std::iter::once(bytes));
    let cut = answers(pieces(seed, bytes));
    assert_eq!(
        whole.1,
        cut.1,
        "how it ends depends on where it is cut: {}",
        bytes.escape_ascii()
    );
    // Frames, not bytes: a size written `005` behind unusual blanks may come out as `5`.
    let mut whole = frames(std::iter::once(&whole.0[..]));
    let mut cut = frames(std::iter::once(&cut.0[..]));
    // Which member of a queue group is picked, and which group comes first, is chance.
    for frame in whole.frames.iter_mut().chain(&mut cut.frames) {
        if let Some(at) = frame.find("; sid ") {
            frame.truncate(at);
        }
    }
    assert_eq!(whole, cut, "{}", bytes.escape_ascii());
    assert_eq!(
        (whole.error, whole.left),
        (None, 0),
        "whole frames of a server"
    );
    split_both_ways(bytes);
}

fn split_both_ways(bytes: &[u8]) {
    const ARGS_BYTES_MAX: usize = 40;
    for from in 0..bytes.len().min(8) {
        let Some(fast) = line::split_fast(bytes, from, ARGS_BYTES_MAX) else {
            continue;
        };
        let lf = bytes[from..].iter().position(|&byte| byte == b'\n');
        let line_bytes = from + lf.expect("a whole line") + 1;
        let plain = line::split_plain(bytes, from, line_bytes, ARGS_BYTES_MAX);
        let plain = plain.expect("what is fast is legal");
        assert_eq!(fast.line_bytes(), plain.line_bytes());
        assert_eq!(fast.count(), plain.count(), "{}", bytes.escape_ascii());
        for index in 0..fast.count() {
            assert_eq!(
                fast.range(index),
                plain.range(index),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}

/// CONNECT: what is accepted is a JSON object, and reads the same again.
pub fn connect(data: &[u8]) {
    let Some(connect) = Connect::parse(data, Connect::default()) else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    let json = serde_json::from_str::<serde::de::IgnoredAny>(&text);
    assert!(json.is_ok(), "only JSON is accepted: {text}");
    // Half a surrogate pair is no string, but may stand where nobody looks.
    let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else {
        return;
    };
    let object = value.as_object().expect("only objects are accepted");
    // serde_json keeps the last of equal keys only, which is the one that counts; keys that differ
    // in case are another matter.
    let mut names: Vec<String> = object.keys().map(|key| key.to_ascii_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) || has_twice(&text, object.len()) {
        return;
    }
    let again = Connect::parse(value.to_string().as_bytes(), Connect::default());
    assert_eq!(again, Some(connect), "{text}");
}

/// Whether the text may have a key twice: more colons than keys.
fn has_twice(text: &str, keys: usize) -> bool {
    text.matches(':').count() > keys
}

/// A server's bytes give the same frames however they arrive, and announce no more than allowed.
pub fn from_server(data: &[u8]) {
    let (seed, bytes) = split_off_seed(data);
    let whole = frames(std::iter::once(bytes));
    let cut = frames(pieces(seed, bytes));
    assert_eq!(whole, cut, "{}", bytes.escape_ascii());
}

/// What a client made of a server's bytes.
#[derive(PartialEq, Eq, Debug)]
struct Read {
    frames: Vec<String>,
    error: Option<ParseError>,
    /// Bytes of a frame that is not complete; 0 after an error.
    left: usize,
}

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut frames = Vec::new();
    let mut parser = Parser::new();
    let mut held: Vec<u8> = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match parser.parse(&held[at..]) {
                Ok(Some((frame, used))) => {
                    assert!(used > 0 && used <= held.len() - at);
                    frames.push(match frame {
                        Frame::Message(message) => {
                            let sid = message.sid.escape_ascii();
                            let rest = Message {
                                sid: b"",
                                ..message
                            };
                            format!("{rest:?}; sid {sid}")
                        }
                        other => format!("{other:?}"),
                    });
                    at += used;
                }
                Ok(None) => {
                    let missing = parser.missing_bytes(held.len() - at);
                    assert!((1..=MESSAGE_BYTES_MAX + 2).contains(&missing));
                    break;
                }
                Err(error) => {
                    return Read {
                        frames,
                        error: Some(error),
                        left: 0,
                    };
                }
            }
        }
        held.drain(..at);
    }
    Read {
        frames,
        error: None,
        left: held.len(),
    }
}

/// Subjects: the checks agree with what they say, and the router agrees with the plain matcher.
pub fn subjects(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let pattern = parts.next().unwrap_or_default();
    let published = parts.next().unwrap_or_default();
    let other = parts.next().unwrap_or_default();
    let tokens: Vec<&[u8]> = pattern.split(|&byte| byte == b'.').collect();
    assert!(subject::tokens(pattern).eq(tokens.iter().copied()));
    let is_valid = tokens.iter().all(|token| !token.is_empty())
        && tokens[..tokens.len() - 1]
            .iter()
            .all(|&token| token != b">");
    assert_eq!(subject::is_valid_subscribe(pattern), is_valid);
    let is_wild = tokens.iter().any(|&token| token == b"*" || token == b">");
    assert_eq!(subject::has_wildcard(pattern), is_wild);
    assert_eq!(
        subject::is_valid_literal(pattern),
        tokens.iter().all(|token| !token.is_empty()) && !is_wild
    );
    let router = Router::new();
    let owner = Owner::port(0).expect("a port");
    let mut places = Vec::new();
    for (key, pattern) in [pattern, other].into_iter().enumerate() {
        let target = Target::new(owner, 1, key as u32);
        let added = router.subscribe(pattern, (key == 1).then_some(b"q"), target);
        assert_eq!(added.is_ok(), subject::is_valid_subscribe(pattern));
        places.extend(added.ok().map(|place| (place, target)));
    }
    for published in [published, pattern, other] {
        let mut matches = Matches::default();
        router.matches(published, &mut matches);
        let does = |wanted: &[u8]| {
            subject::is_valid_subscribe(wanted) && subject::matches(wanted, published)
        };
        assert_eq!(
            !matches.plain.is_empty(),
            does(pattern),
            "{}",
            published.escape_ascii()
        );
        assert_eq!(
            !matches.groups.is_empty(),
            does(other),
            "{}",
            published.escape_ascii()
        );
    }
    let count = places.len();
    assert_eq!(router.unsubscribe_all(places), count);
    let stats = router.stats();
    assert_eq!(
        (stats.subscriptions, stats.literals, stats.nodes),
        (0, 0, 0)
    );
}

/// Mail between workers: damaged records end the reading and nothing else.
pub fn mail(data: &[u8]) {
    let mut rest = data;
    while let Some((record, used)) = mail::read(rest) {
        assert!(used > 0 && used <= rest.len());
        assert!(!format!("{record:?}").is_empty());
        rest = &rest[used..];
    }
}

/// The command line: any words get an answer.
pub fn args(data: &[u8]) {
    let words = data.split(|&byte| byte == b'\n' || byte == 0);
    let words: Vec<OsString> = words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    if let Err(error) = parse("midge", &words) {
        assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'));
    }
}
