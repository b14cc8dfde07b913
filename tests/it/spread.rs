//! Few connections, several workers: none of them sits idle while another has all the work.

use crate::support::{Conn, PATIENCE, Server, eventually, is_midge_missing};

/// How many of the connections named in the log each worker got.
fn connections_by_worker(log: &str, workers: usize) -> Vec<usize> {
    let mut counts = vec![0; workers];
    for line in log
        .lines()
        .filter(|line| line.contains("Client connection created"))
    {
        let worker = line
            .split("worker ")
            .nth(1)
            .expect("the line names the worker");
        let digits: String = worker.chars().take_while(char::is_ascii_digit).collect();
        counts[digits.parse::<usize>().expect("a number")] += 1;
    }
    counts
}

/// 2, 4 and 8 connections on two workers are shared evenly, wherever the kernel put them.
#[test]
fn few_connections_spread_evenly_over_the_workers() {
    if is_midge_missing("workers") {
        return;
    }
    for connections in [2, 4, 8] {
        let server = Server::builder().workers(2).arg("-D").start();
        let _conns: Vec<Conn> = (0..connections).map(|_| server.client()).collect();
        let mut counts = Vec::new();
        let is_even = eventually(PATIENCE, || {
            counts = connections_by_worker(&server.log(), 2);
            counts == [connections / 2, connections / 2]
        });
        assert!(is_even, "{connections} connections: {counts:?}");
    }
}

/// When they all come at once, the workers' counts of each other are a little old: nobody gets less
/// than half of its share, or half as much again.
#[test]
fn a_burst_of_connections_spreads_evenly() {
    if is_midge_missing("workers") {
        return;
    }
    let server = Server::builder().workers(4).arg("-D").start();
    let conns: Vec<Conn> = (0..40).map(|_| Conn::open_raw(server.addr())).collect();
    for mut conn in conns {
        conn.next_op();
    }
    let mut counts = Vec::new();
    let is_even = eventually(PATIENCE, || {
        counts = connections_by_worker(&server.log(), 4);
        counts.iter().sum::<usize>() == 40 && counts.iter().all(|count| (5..=15).contains(count))
    });
    assert!(is_even, "{counts:?}");
}
