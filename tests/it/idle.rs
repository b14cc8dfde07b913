//! Nothing to do, nothing done: an idle server does not wake.

use std::time::Duration;

use crate::support::{Conn, Op, PATIENCE, Server, context_switches, eventually, is_midge_missing};

/// Waits until the server has settled, then counts how often it was woken in `span`.
fn wake_ups(server: &Server, span: Duration) -> u64 {
    let mut before = context_switches(server.pid());
    eventually(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = context_switches(server.pid());
        std::mem::replace(&mut before, now) == now
    });
    std::thread::sleep(span);
    context_switches(server.pid()) - before
}

/// Without a client no thread of the server runs, not even once.
#[test]
fn a_server_without_clients_sleeps() {
    if is_midge_missing("idle without wake-ups") {
        return;
    }
    let server = Server::with_workers(2);
    assert_eq!(wake_ups(&server, Duration::from_secs(2)), 0);
}

/// With clients that say nothing it sleeps as well, once the first PING is answered: the next one
/// is due in two minutes.
#[test]
fn a_server_with_idle_clients_sleeps() {
    if is_midge_missing("idle without wake-ups") {
        return;
    }
    let server = Server::with_workers(2);
    let mut conns: Vec<Conn> = (0..10).map(|_| server.subscriber("idle 1")).collect();
    for conn in &mut conns {
        assert_eq!(conn.next_op(), Op::Ping);
        conn.send(b"PONG\r\n");
    }
    for conn in &mut conns {
        conn.barrier();
    }
    assert_eq!(wake_ups(&server, Duration::from_secs(1)), 0);
}
