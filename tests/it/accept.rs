//! Out of files: the server can accept nobody for a while.

use std::time::Duration;

use crate::support::{Conn, PATIENCE, Server, cpu_ticks, eventually};

/// Under a limit of 40 open files, 60 clients come. Those inside keep working, the server does not
/// spin over those outside, and as some leave the next ones are let in.
#[test]
fn out_of_files_neither_spins_nor_kills() {
    let mut server = Server::builder().workers(2).open_files_max(40).start();
    // The system completes a connection before the server accepts it, so all 60 succeed here.
    let mut waiting: Vec<Conn> = (0..60).map(|_| Conn::open_raw(server.addr())).collect();
    let mut inside = Vec::new();
    let has_some = eventually(PATIENCE, || {
        let (with_info, without): (Vec<_>, Vec<_>) = waiting
            .drain(..)
            .map(has_info_soon)
            .partition(|(_, has_info)| *has_info);
        inside.extend(with_info.into_iter().map(|(conn, _)| conn));
        waiting = without.into_iter().map(|(conn, _)| conn).collect();
        inside.len() >= 10
    });
    assert!(has_some, "only {} clients were let in", inside.len());
    assert!(
        waiting.len() >= 15,
        "the limit was not reached: {} wait",
        waiting.len()
    );

    let ticks_before = cpu_ticks(server.pid());
    for _ in 0..10 {
        for conn in &mut inside {
            conn.send(b"PING\r\n");
            conn.expect_after_info(b"PONG\r\n");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // One second of spinning would be 100 ticks.
    let ticks = cpu_ticks(server.pid()) - ticks_before;
    assert!(
        ticks < 40,
        "{ticks} ticks of processor time with nothing to do"
    );

    drop(inside);
    let mut count = 0;
    for mut conn in waiting.drain(..15) {
        conn.send(b"PING\r\n");
        conn.expect_after_info(b"PONG\r\n");
        count += 1;
    }
    assert_eq!(count, 15);
    drop(waiting);
    server.assert_healthy();
}

fn has_info_soon(mut conn: Conn) -> (Conn, bool) {
    let has_info = conn.has_data_within(Duration::from_millis(20));
    (conn, has_info)
}

/// More connections wait than are accepted in one go, and the kernel says so once only: all of them
/// are let in without anybody else knocking.
#[test]
fn a_burst_of_connections_is_accepted_to_the_last() {
    let server = Server::builder().workers(1).start();
    server.signal(libc::SIGSTOP);
    let waiting: Vec<Conn> = (0..600).map(|_| Conn::open_raw(server.addr())).collect();
    server.signal(libc::SIGCONT);
    for mut conn in waiting {
        conn.send(b"PING\r\n");
        conn.expect_after_info(b"PONG\r\n");
    }
}
