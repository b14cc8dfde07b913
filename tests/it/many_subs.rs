//! A great many subscriptions from a few connections. 50,000 by default; with `MIDGE_TEST_LONG` set,
//! a million.

use std::io::Write;

use crate::support::{Conn, Op, PATIENCE, Server, eventually, is_reference, rss_kib};

const CONNECTIONS: usize = 4;

fn sub_count() -> usize {
    if std::env::var_os("MIDGE_TEST_LONG").is_some() {
        1_000_000
    } else {
        50_000
    }
}

/// Sends `count` lines made by `line` on each connection, and waits for all to be carried out.
fn on_each(conns: &mut [Conn], count: usize, line: impl Fn(usize, usize) -> String) {
    for (conn_index, conn) in conns.iter_mut().enumerate() {
        let mut bytes = Vec::new();
        for i in 0..count {
            write!(bytes, "{}\r\n", line(conn_index, i)).expect("memory takes it");
        }
        conn.send(&bytes);
    }
    for conn in conns {
        conn.barrier();
    }
}

/// Subscriptions load, match, and go; their memory comes back, and a second load needs no more than
/// the first.
#[test]
fn a_great_many_subscriptions_load_and_unload() {
    let mut server = Server::with_workers(2);
    let mut conns: Vec<Conn> = (0..CONNECTIONS).map(|_| server.client()).collect();
    let each = sub_count() / CONNECTIONS;
    let base = rss_kib(server.pid());
    let mut peaks = Vec::new();
    for round in 0..2 {
        // Nine in ten are literal, as in a fleet of devices, and the rest end in a wildcard.
        on_each(&mut conns, each, |conn, i| match i % 10 {
            0 => format!("SUB site.{}.dev{conn}x{i}.* {i}", i % 100),
            _ => format!("SUB site.{}.dev{conn}x{i}.temp {i}", i % 100),
        });
        peaks.push(rss_kib(server.pid()).saturating_sub(base));
        let mut publisher = server.client();
        for i in (0..each).step_by(each / 50) {
            for (conn_index, conn) in conns.iter_mut().enumerate() {
                let subject = format!("site.{}.dev{conn_index}x{i}.temp", i % 100);
                publisher.send(format!("PUB {subject} 2\r\n21\r\n").as_bytes());
                conn.expect(format!("MSG {subject} {i} 2\r\n21\r\n").as_bytes());
            }
        }
        on_each(&mut conns, each, |_, i| format!("UNSUB {i}"));
        // The reference's collector gives memory back when it likes.
        let mut left = 0;
        let is_returned = is_reference()
            || eventually(PATIENCE, || {
                left = rss_kib(server.pid()).saturating_sub(base);
                left <= peaks[0] / 2 + 4096
            });
        assert!(
            is_returned,
            "round {round}: {left} of {} KiB stay",
            peaks[0]
        );
    }
    eprintln!(
        "KiB over an idle server at {} subscriptions: {peaks:?}",
        sub_count()
    );
    assert!(
        peaks[1] <= peaks[0] * 3 / 2 + 4096 || is_reference(),
        "it grows: {peaks:?}"
    );
    server.assert_healthy();
}

/// Closing the connections unloads as well.
#[test]
fn closing_the_connections_unloads_too() {
    let mut server = Server::with_workers(2);
    let base = rss_kib(server.pid());
    let mut conns: Vec<Conn> = (0..CONNECTIONS).map(|_| server.client()).collect();
    on_each(&mut conns, sub_count() / CONNECTIONS, |conn, i| {
        format!("SUB c{conn}.i{i}.> {i}")
    });
    let peak = rss_kib(server.pid()).saturating_sub(base);
    drop(conns);
    let is_returned = is_reference()
        || eventually(PATIENCE, || {
            rss_kib(server.pid()).saturating_sub(base) <= peak / 2 + 4096
        });
    assert!(is_returned, "most of {peak} KiB stay");
    // And nobody is left to get anything.
    let mut conn = server.open();
    conn.handshake(r#"{"verbose":false,"headers":true,"no_responders":true}"#);
    conn.send(b"SUB r 1\r\n");
    let is_unknown = eventually(PATIENCE, || {
        conn.send(b"PUB c1.i7.x r 0\r\n\r\nPING\r\n");
        let Op::Msg(msg) = conn.next_answer() else {
            return false;
        };
        assert!(
            msg.header
                .is_some_and(|header| header.starts_with(b"NATS/1.0 503\r\n"))
        );
        conn.next_answer() == Op::Pong
    });
    assert!(
        is_unknown,
        "subscriptions of closed connections are still there"
    );
    server.assert_healthy();
}
