//! Random bytes and damaged frames over a socket: the server survives and serves everybody else.
//!
//! The parser has a fuzz target of its own; this is about what stands around it.

use crate::support::{Conn, Rng, Server};

const FRAMES: &[&[u8]] = &[
    b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n",
    b"CONNECT {\"verbose\":true,\"pedantic\":true,\"echo\":false}\r\n",
    b"PUB foo.bar 5\r\nhello\r\n",
    b"PUB foo.bar reply.to 11\r\nhello world\r\n",
    b"HPUB foo 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n",
    b"HPUB foo reply 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    b"SUB foo.* 1\r\n",
    b"SUB foo.> group 22\r\n",
    b"SUB reply.* 3\r\n",
    b"UNSUB 1\r\n",
    b"UNSUB 22 5\r\n",
    b"PING\r\n",
    b"PONG\r\n",
    b"+OK\r\n",
    b"INFO {}\r\n",
];

/// A few frames in a row, some of them damaged.
fn damaged_frames(rng: &mut Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..1 + rng.below(12) {
        bytes.extend_from_slice(FRAMES[rng.below(FRAMES.len())]);
    }
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, *rng.pick(b"\r\n\t 0919{}\"*>.\0\xff")),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b'P');
        }
    }
    bytes
}

/// Writes `bytes` in random pieces, says goodbye and reads what comes until the end.
fn say(conn: &mut Conn, bytes: &[u8], rng: &mut Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + rng.below(40)).min(rest.len()));
        if !conn.try_send(piece) {
            break;
        }
        rest = after;
    }
    conn.shut_down_write();
    conn.drain_until_closed();
}

/// Damaged frames, random pieces: after each the connection ends and the server is well.
#[test]
fn damaged_frames_harm_nobody() {
    let seed = Rng::seed_from_env();
    eprintln!("MIDGE_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let mut server = Server::with_workers(2);
    let mut witness = server.subscriber("witness 1");
    for round in 0..400 {
        let bytes = damaged_frames(&mut rng);
        say(&mut server.open(), &bytes, &mut rng);
        if round % 20 == 0 {
            server.assert_healthy();
            witness.send(b"PUB witness 2\r\nok\r\n");
            witness.expect(b"MSG witness 1 2\r\nok\r\n");
        }
    }
    server.assert_healthy();
}

/// Bytes without any sense.
#[test]
fn random_bytes_harm_nobody() {
    let seed = Rng::seed_from_env();
    eprintln!("MIDGE_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let mut server = Server::with_workers(2);
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..rng.below(2_000)).map(|_| rng.next() as u8).collect();
        say(&mut server.open(), &bytes, &mut rng);
    }
    server.assert_healthy();
}

/// Many at the same time, closing without a word at any point.
#[test]
fn clients_that_vanish_anywhere_harm_nobody() {
    let seed = Rng::seed_from_env();
    eprintln!("MIDGE_TEST_SEED={seed}");
    let mut server = Server::with_workers(2);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut rng = Rng::new(seed.wrapping_add(thread));
                for _ in 0..100 {
                    let mut conn = Conn::open_raw(server.addr());
                    let bytes = damaged_frames(&mut rng);
                    conn.try_send(&bytes[..rng.below(bytes.len() + 1)]);
                }
            });
        }
    });
    server.assert_healthy();
}
