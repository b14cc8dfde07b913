//! Time: pings and authentication, with short intervals. The order of lines is in
//! `tests/wire/timers.txt`; here is what needs a client that does something meanwhile.

use std::time::{Duration, Instant};

use crate::support::{Op, Server};

/// A client that answers is never called stale, however often it is asked.
#[test]
fn a_client_that_answers_pings_stays() {
    let server = Server::builder()
        .option("ping_interval", "100ms")
        .option("ping_max", 1)
        .start();
    let mut conn = server.client();
    for _ in 0..10 {
        assert_eq!(conn.next_op(), Op::Ping);
        conn.send(b"PONG\r\n");
    }
    conn.barrier();
}

/// A client that answered the first PING, which measures the round trip, and then keeps publishing
/// is not asked again, and so cannot become stale by not answering.
#[test]
fn a_busy_client_is_not_stale() {
    let server = Server::builder()
        .option("ping_interval", "400ms")
        .option("ping_max", 1)
        .start();
    let mut conn = server.client();
    assert_eq!(conn.next_op(), Op::Ping);
    conn.send(b"PONG\r\n");
    // Five intervals: two without an answer would be enough to be called stale.
    let end = Instant::now() + Duration::from_millis(2_000);
    while Instant::now() < end {
        conn.send(b"PUB busy 2\r\nhi\r\n");
        assert!(
            !conn.has_data_within(Duration::from_millis(20)),
            "{:?}",
            conn.next_op()
        );
    }
    conn.barrier();
}

/// With the default interval of two minutes the first PING still comes soon after CONNECT.
#[test]
fn the_first_ping_comes_soon_after_connect() {
    let server = Server::builder().start();
    let mut conn = server.client();
    assert_eq!(conn.next_op(), Op::Ping);
    conn.send(b"PONG\r\n");
    conn.barrier();
}

/// Stale clients are dropped one by one; those beside them stay.
#[test]
fn only_the_silent_ones_are_stale() {
    let server = Server::builder()
        .option("ping_interval", "150ms")
        .option("ping_max", 2)
        .start();
    let mut silent: Vec<_> = (0..5).map(|_| server.client()).collect();
    let mut answering = server.client();
    for _ in 0..8 {
        assert_eq!(answering.next_op(), Op::Ping);
        answering.send(b"PONG\r\n");
    }
    for conn in &mut silent {
        assert_eq!(conn.next_op(), Op::Ping);
        assert_eq!(conn.next_op(), Op::Ping);
        assert_eq!(conn.next_op(), Op::Err("Stale Connection".into()));
        conn.expect_closed();
    }
}

/// Each connection has its own time for credentials; one that logged in is left alone.
#[test]
fn the_authentication_timeout_hits_the_silent_ones_only() {
    let server = Server::builder()
        .option("auth", "t0p")
        .option("auth_timeout", 1)
        .start();
    let mut inside = server.open();
    inside.handshake(r#"{"verbose":false,"auth_token":"t0p"}"#);
    for mut conn in (0..5).map(|_| server.open()).collect::<Vec<_>>() {
        conn.expect(b"-ERR 'Authentication Timeout'\r\n");
        conn.expect_closed();
    }
    inside.barrier();
}
