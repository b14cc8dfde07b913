//! What a peer can make the server hold is bounded, whatever it sends.

use crate::support::{Conn, Server, is_reference, rss_kib};

/// KiB the server may grow by in these tests. The reference's garbage collector takes its time.
fn growth_kib_max() -> u64 {
    if is_reference() {
        256 * 1024
    } else {
        16 * 1024
    }
}

fn assert_bounded(server: &mut Server, rss_before: u64, what: &str) {
    server.assert_healthy();
    let grown = rss_kib(server.pid()).saturating_sub(rss_before);
    assert!(
        grown < growth_kib_max(),
        "{what}: the server grew by {grown} KiB"
    );
}

/// Lines without an end are cut off at the limit, on every operation that has arguments.
#[test]
fn an_endless_line_is_cut_off() {
    let mut server = Server::with_workers(2);
    let rss_before = rss_kib(server.pid());
    for verb in [
        "CONNECT {\"name\":\"",
        "PUB ",
        "SUB ",
        "UNSUB ",
        "INFO {\"x\":\"",
        "HPUB ",
    ] {
        let mut conn = server.open();
        if verb == "HPUB " {
            conn.handshake(r#"{"verbose":false,"headers":true}"#);
        }
        conn.send(verb.as_bytes());
        let is_cut_off = (0..1024).any(|_| !conn.try_send(&[b'x'; 16 * 1024]));
        assert!(is_cut_off, "{verb} may be 16 MiB long");
    }
    assert_bounded(&mut server, rss_before, "endless lines");
}

/// Operations whose rest of the line is skipped may be endless; nothing of it is kept.
#[test]
fn an_endless_ping_is_skipped_without_keeping_it() {
    let mut server = Server::with_workers(2);
    let rss_before = rss_kib(server.pid());
    let mut conn = server.client();
    conn.send(b"PING ");
    for _ in 0..1024 {
        conn.send(&[b'x'; 16 * 1024]);
    }
    conn.send(b"\r\n");
    conn.expect(b"PONG\r\n");
    assert_bounded(&mut server, rss_before, "an endless PING");
}

/// 200 connections announce a megabyte each and send a few bytes of it.
#[test]
fn payloads_that_never_come_cost_little() {
    let mut server = Server::with_workers(2);
    let mut conns: Vec<Conn> = (0..200).map(|_| server.client()).collect();
    let rss_before = rss_kib(server.pid());
    for conn in &mut conns {
        conn.send(b"PUB never 1048576\r\nonly this");
    }
    assert_bounded(&mut server, rss_before, "payloads that never come");
    drop(conns);
    server.assert_healthy();
}

/// Sizes up to and beyond every integer.
#[test]
fn huge_sizes_allocate_nothing() {
    let mut server = Server::with_workers(2);
    let rss_before = rss_kib(server.pid());
    let sizes = [
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "999999999",
    ];
    for size in sizes {
        for line in [
            format!("PUB a {size}\r\n"),
            format!("HPUB a {size} {size}\r\n"),
        ] {
            let mut conn = server.open();
            conn.handshake(r#"{"verbose":false,"headers":true}"#);
            conn.send(line.as_bytes());
            conn.drain_until_closed();
        }
    }
    assert_bounded(&mut server, rss_before, "huge sizes");
}

/// A megabyte in packets of one byte, on 20 connections at the same time.
#[test]
fn one_byte_a_packet_costs_little() {
    let mut server = Server::with_workers(2);
    let mut conns: Vec<Conn> = (0..20).map(|_| server.client()).collect();
    let rss_before = rss_kib(server.pid());
    let frames = b"SUB one.byte 1\r\nPUB one.byte 5\r\nhello\r\nUNSUB 1\r\nPING\r\n".repeat(5);
    for byte in frames.chunks(1) {
        for conn in &mut conns {
            conn.send(byte);
        }
    }
    for conn in &mut conns {
        for _ in 0..5 {
            // Everybody's message goes to whoever is subscribed at that moment.
            while matches!(conn.next_answer(), crate::support::Op::Msg(_)) {}
        }
    }
    assert_bounded(&mut server, rss_before, "one byte a packet");
}

/// A client that asks and never reads the answers does not make the server hold them without end.
#[test]
fn answers_nobody_reads_are_bounded() {
    let mut server = Server::builder()
        .workers(2)
        .option("max_pending", 2 * 1024 * 1024)
        .start();
    let rss_before = rss_kib(server.pid());
    let mut conn = Conn::open_with_receive_buffer(server.addr(), 8 * 1024);
    conn.next_op();
    conn.handshake(r#"{"verbose":false}"#);
    let pings = b"PING\r\n".repeat(10_000);
    // 120 MB of PONG: sooner or later the server reads no further, or drops the client.
    let mut writer = conn.writer();
    writer
        .set_write_timeout(Some(std::time::Duration::from_secs(1)))
        .unwrap();
    for _ in 0..2_000 {
        if std::io::Write::write_all(&mut writer, &pings).is_err() {
            break;
        }
    }
    assert_bounded(&mut server, rss_before, "answers that nobody reads");
}
