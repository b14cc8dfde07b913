//! Makes inputs that are mostly right, and wrong in one place or another.

use midge::id::{ConnId, WorkerId};
use midge::router::{Owner, Target};
use midge::session::mail::{Outbox, Producer};
use midge::wire::parse::Publish;

use crate::rng::Rng;

/// One of the choices.
fn pick<'a>(rng: &mut Rng, choices: &[&'a [u8]]) -> &'a [u8] {
    choices[rng.below(choices.len())]
}

/// Pieces that are joined at random, with what makes trouble among them.
fn joined(rng: &mut Rng, words: &[&[u8]], most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.below(most) + 1 {
        bytes.extend_from_slice(pick(rng, words));
    }
    bytes
}

/// Changes, adds, takes away or doubles something.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(6) {
        0 => bytes[at] = rng.next() as u8,
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes.insert(at, *rng.pick(b" \t\r\n.*>0'\"\\\xff\0")),
        3 => {
            bytes.remove(at);
        }
        4 => bytes.truncate(at),
        _ => {
            let end = (at + rng.below(20)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

fn maybe_damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    while rng.chance(1, 3) {
        damage(rng, bytes);
    }
}

fn token(rng: &mut Rng) -> &'static [u8] {
    const TOKENS: [&[u8]; 10] = [
        b"a",
        b"b",
        b"*",
        b">",
        b"",
        b"a>",
        b"\xff",
        b"foo",
        b"_INBOX",
        b"a-token-of-many-bytes",
    ];
    if rng.chance(2, 3) {
        TOKENS[rng.below(2)]
    } else {
        pick(rng, &TOKENS)
    }
}

fn subject(rng: &mut Rng) -> Vec<u8> {
    let tokens: Vec<&[u8]> = (0..rng.sized(1, 6)).map(|_| token(rng)).collect();
    tokens.join(&b'.')
}

fn blank(rng: &mut Rng) -> &'static [u8] {
    const BLANKS: [&[u8]; 4] = [b"  ", b"\t", b" \t ", b""];
    if rng.chance(9, 10) {
        b" "
    } else {
        pick(rng, &BLANKS)
    }
}

fn line_end(rng: &mut Rng) -> &'static [u8] {
    const ENDS: [&[u8]; 4] = [b"\n", b" \r\n", b"\r", b"\r\r\n"];
    if rng.chance(9, 10) {
        b"\r\n"
    } else {
        pick(rng, &ENDS)
    }
}

fn line(rng: &mut Rng, words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            bytes.extend_from_slice(blank(rng));
        }
        bytes.extend_from_slice(word);
    }
    bytes.extend_from_slice(line_end(rng));
    bytes
}

fn number(rng: &mut Rng, right: usize) -> Vec<u8> {
    const WRONG: [&[u8]; 8] = [
        b"-1",
        b"",
        b"x",
        b"1x",
        b"999999999",
        b"9999999999",
        b"18446744073709551617",
        b"3001",
    ];
    match rng.below(30) {
        0 => pick(rng, &WRONG).to_vec(),
        1 => format!("{right:0>5}").into_bytes(),
        2 => (right + 1).to_string().into_bytes(),
        _ => right.to_string().into_bytes(),
    }
}

fn body(rng: &mut Rng) -> Vec<u8> {
    let size = match rng.below(10) {
        0 => rng.below(3002),
        _ => rng.below(40),
    };
    (0..size).map(|_| *rng.pick(b"ab\r\n 0PU")).collect()
}

fn publish(rng: &mut Rng) -> Vec<u8> {
    let mut body = body(rng);
    let subject = subject(rng);
    let reply = subject_or_none(rng);
    let with_headers = rng.chance(1, 3);
    let mut header_bytes = 0;
    if with_headers && rng.chance(4, 5) {
        let mut headers = b"NATS/1.0\r\nA: b\r\n\r\n".to_vec();
        header_bytes = headers.len();
        headers.append(&mut body);
        body = headers;
    }
    let header_size = number(rng, header_bytes);
    let size = number(rng, body.len());
    let mut words: Vec<&[u8]> = Vec::new();
    words.push(if with_headers {
        pick(rng, &[b"HPUB", b"hPub"])
    } else {
        pick(rng, &[b"PUB", b"pub", b"Pub"])
    });
    words.push(&subject);
    words.extend(reply.as_deref());
    if with_headers {
        words.push(&header_size);
    }
    words.push(&size);
    let mut bytes = line(rng, &words);
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(if rng.chance(30, 31) { b"\r\n" } else { b"\n" });
    bytes
}

fn subject_or_none(rng: &mut Rng) -> Option<Vec<u8>> {
    rng.chance(1, 4).then(|| subject(rng))
}

fn client_frame(rng: &mut Rng) -> Vec<u8> {
    const LOOSE: [&[u8]; 10] = [
        b"PING",
        b"PONG",
        b"+OK",
        b"pingpong",
        b"PONG  x",
        b"+ok then",
        b"-ERR 'x'",
        b"INFO {}",
        b"INFO x",
        b"X",
    ];
    let sid = pick(rng, &[b"1", b"2", b"3", b"a-sid-that-is-rather-long"]);
    match rng.below(14) {
        0..6 => publish(rng),
        6..9 => {
            let subject = subject(rng);
            let queue: &[&[u8]] = if rng.chance(1, 3) { &[b"q"] } else { &[] };
            let words = [&[&b"SUB"[..], &subject], queue, &[sid]].concat();
            line(rng, &words)
        }
        9 => {
            let max = number(rng, 3);
            let max: &[&[u8]] = if rng.chance(1, 2) { &[&max] } else { &[] };
            let words = [&[&b"UNSUB"[..], sid], max].concat();
            line(rng, &words)
        }
        10..12 => {
            let loose = if rng.chance(3, 4) {
                LOOSE[rng.below(3)]
            } else {
                pick(rng, &LOOSE)
            };
            line(rng, &[loose])
        }
        12 => {
            let json = connect_json(rng);
            line(rng, &[b"CONNECT", &json])
        }
        _ => {
            let long = vec![*rng.pick(b"a. \t"); rng.below(450)];
            let verb = pick(rng, &[b"SUB", b"PUB", b"PING", b"CONNECT"]);
            line(rng, &[verb, &long, b"1"])
        }
    }
}

/// A client's stream, behind two bytes that say how it is cut.
pub fn client_stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![rng.next() as u8, rng.next() as u8];
    if rng.chance(3, 4) {
        let verbose = rng.chance(1, 2);
        let connect = format!("CONNECT {{\"verbose\":{verbose},\"headers\":true}}\r\nSUB > 9\r\n");
        bytes.extend_from_slice(connect.as_bytes());
    }
    for _ in 0..rng.sized(1, 30) {
        let mut frame = client_frame(rng);
        if rng.chance(1, 20) {
            maybe_damage(rng, &mut frame);
        }
        bytes.extend_from_slice(&frame);
    }
    bytes
}

/// The JSON of CONNECT.
pub fn connect_json(rng: &mut Rng) -> Vec<u8> {
    const KEYS: [&str; 16] = [
        "verbose",
        "Pedantic",
        "ECHO",
        "headers",
        "no_responders",
        "protocol",
        "lang",
        "version",
        "name",
        "user",
        "pass",
        "auth_token",
        "account",
        "new_account",
        "jwt",
        "tls_required",
    ];
    const VALUES: [&str; 16] = [
        "true",
        "false",
        "null",
        "0",
        "1",
        "2",
        "1.0",
        "-1",
        "\"\"",
        "\"x\"",
        "\"\\u00e9\\n\"",
        "\"\\ud800\"",
        "[1,[2]]",
        "{\"a\":{}}",
        "99999999999999999999",
        "1e3",
    ];
    let mut fields = Vec::new();
    for _ in 0..rng.below(6) {
        let key = rng.below(KEYS.len());
        let value = match key {
            0..=4 if rng.chance(4, 5) => *rng.pick(&VALUES[..3]),
            6..=11 if rng.chance(4, 5) => *rng.pick(&["\"x\"", "\"\"", "null"]),
            _ => *rng.pick(&VALUES),
        };
        fields.push(format!("\"{}\":{value}", KEYS[key]));
    }
    let mut json = format!("{{{}}}", fields.join(",")).into_bytes();
    if rng.chance(1, 4) {
        maybe_damage(rng, &mut json);
    }
    json
}

/// A server's stream, behind two bytes that say how it is cut.
pub fn server_stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![rng.next() as u8, rng.next() as u8];
    for _ in 0..rng.sized(1, 30) {
        let mut frame = server_frame(rng);
        if rng.chance(1, 15) {
            maybe_damage(rng, &mut frame);
        }
        bytes.extend_from_slice(&frame);
    }
    bytes
}

fn server_frame(rng: &mut Rng) -> Vec<u8> {
    const LINES: [&[u8]; 6] = [
        b"PING",
        b"PONG",
        b"+OK",
        b"-ERR 'Slow Consumer'",
        b"INFO {\"a\":1} ",
        b"-ERR ",
    ];
    if rng.chance(1, 3) {
        let words = [pick(rng, &LINES)];
        return line(rng, &words);
    }
    let headers: &[u8] = b"NATS/1.0 503\r\n\r\n";
    let with_headers = rng.chance(1, 3);
    let mut payload = body(rng);
    if with_headers {
        payload.splice(0..0, headers.iter().copied());
    }
    let (subject, reply) = (subject(rng), subject_or_none(rng));
    let (header_size, size) = (number(rng, headers.len()), number(rng, payload.len()));
    let mut words: Vec<&[u8]> = vec![if with_headers { b"HMSG" } else { b"MSG" }, &subject, b"7"];
    words.extend(reply.as_deref());
    if with_headers {
        words.push(&header_size);
    }
    words.push(&size);
    let mut bytes = line(rng, &words);
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Pattern, published subject and another pattern, one a line.
pub fn subjects(rng: &mut Rng) -> Vec<u8> {
    let mut lines = Vec::new();
    for _ in 0..3 {
        let mut line = subject(rng);
        if rng.chance(1, 10) {
            maybe_damage(rng, &mut line);
        }
        if rng.chance(1, 100) {
            line.resize(rng.below(70_000), b'x');
        }
        lines.push(line);
    }
    lines.join(&b'\n')
}

/// Records of an outbox, damaged now and then.
pub fn mail(rng: &mut Rng) -> Vec<u8> {
    let mut outbox = Outbox::default();
    for _ in 0..rng.sized(1, 8) {
        let producer = Producer {
            worker: WorkerId(rng.below(3) as u16),
            slot: rng.next() as u32,
            conn: ConnId(rng.next()),
        };
        let (subject, body) = (subject(rng), body(rng));
        let reply = subject_or_none(rng);
        let publish = Publish {
            subject: &subject,
            reply: reply.as_deref(),
            header_bytes: rng.below(body.len() + 1),
            body: &body,
            tail: b"",
        };
        let target = Target::new(Owner::port(1).unwrap(), 1, rng.next() as u32);
        let member = rng.chance(1, 3).then_some((target, &b"q"[..]));
        match rng.below(6) {
            0 => outbox.push_stall(producer),
            1 => outbox.push_resume(producer),
            _ => outbox.push_message(rng.chance(4, 5).then_some(producer), &publish, member, 1),
        }
    }
    let mut bytes = outbox.take();
    maybe_damage(rng, &mut bytes);
    bytes
}

/// Words of a command line, one a line.
pub fn args(rng: &mut Rng) -> Vec<u8> {
    const WORDS: [&[u8]; 40] = [
        b"serve",
        b"-p",
        b"--port",
        b"-a",
        b"--addr",
        b"-n",
        b"-D",
        b"-V",
        b"-DV",
        b"-l",
        b"-P",
        b"--max_payload",
        b"-m",
        b"-c",
        b"--config",
        b"--user",
        b"--pass",
        b"--auth",
        b"-T=false",
        b"--workers",
        b"--workers=2",
        b"--log-format",
        b"json",
        b"-1",
        b"0",
        b"4222",
        b"65536",
        b"127.0.0.1",
        b"[::1]",
        b"true",
        b"1m",
        b"2h30m",
        b"-",
        b"--",
        b"=",
        b"--port=",
        b"--signal",
        b"stop=1",
        b"-h",
        b"-v",
    ];
    let mut words = Vec::new();
    for _ in 0..rng.sized(1, 8) {
        let mut word = match rng.chance(1, 10) {
            true => joined(rng, &WORDS, 3),
            false => pick(rng, &WORDS).to_vec(),
        };
        if rng.chance(1, 8) {
            maybe_damage(rng, &mut word);
        }
        words.push(word);
    }
    words.join(&b'\n')
}
