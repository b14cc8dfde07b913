//! Queue groups under load and across workers: each message to exactly one member, none lost.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{Conn, Msg, Op, PATIENCE, Server, eventually, worker_counts};

/// Reads from all members in turn until `on_msg`, given the member's index and the message, says
/// that it has seen enough. What goes round by another worker may come after the publisher's PONG.
fn read_until(members: &mut [Conn], mut on_msg: impl FnMut(usize, Msg) -> bool) {
    let mut is_enough = false;
    let is_in_time = eventually(PATIENCE, || {
        for (index, member) in members.iter_mut().enumerate() {
            member.send(b"PING\r\n");
            while let Op::Msg(msg) = member.next_answer() {
                is_enough |= on_msg(index, msg);
            }
        }
        is_enough
    });
    assert!(is_in_time, "messages are missing");
}

/// Four members, and a plain subscriber besides: each message goes to one member and to the plain
/// one, and no member is more than a fifth away from its fair share.
#[test]
fn messages_spread_evenly_over_the_members() {
    const MESSAGES: usize = 4_000;
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut members: Vec<Conn> = (0..4).map(|_| server.subscriber("jobs.* g 1")).collect();
        let mut plain = server.subscriber("jobs.> 1");
        let mut publisher = server.client();
        for i in 0..MESSAGES {
            publisher.send(format!("PUB jobs.x 6\r\n{i:06}\r\n").as_bytes());
        }
        publisher.barrier();
        for i in 0..MESSAGES {
            plain.expect(format!("MSG jobs.x 1 6\r\n{i:06}\r\n").as_bytes());
        }
        let mut seen = HashSet::new();
        let mut counts = vec![0_usize; members.len()];
        read_until(&mut members, |member, msg| {
            if msg.subject == "jobs.x" {
                assert!(seen.insert(msg.payload), "a message came twice");
                counts[member] += 1;
            }
            seen.len() == MESSAGES
        });
        let share = MESSAGES / members.len();
        for count in &counts {
            assert!(
                count.abs_diff(share) <= share / 5,
                "{counts:?} with {workers} workers"
            );
        }
    }
}

/// Members join and leave (UNSUB, then reading on until PONG, as clients drain) while messages
/// flow: every message arrives at exactly one of them.
#[test]
fn a_member_that_drains_under_load_costs_no_message() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let steady = server.subscriber("drain g 1");
        let mut publisher = server.client();
        let received = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        let (received, is_over) = (&received, &is_over);
        let published = thread::scope(|scope| {
            scope.spawn(move || count_until(steady, received, is_over));
            let passing = scope.spawn(|| {
                for _ in 0..30 {
                    received.fetch_add(join_and_drain(&server), Ordering::AcqRel);
                }
            });
            let mut published = 0;
            while !passing.is_finished() {
                publisher.send(&b"PUB drain 1\r\nx\r\n".repeat(20));
                publisher.barrier();
                published += 20;
            }
            // A message whose member left may go another way, and so come after later ones.
            eventually(PATIENCE, || received.load(Ordering::Acquire) >= published);
            is_over.store(true, Ordering::Release);
            published
        });
        assert_eq!(
            received.load(Ordering::Acquire),
            published,
            "{workers} workers"
        );
    }
}

/// Becomes a member, takes 50 messages or more and drains; how many messages came.
fn join_and_drain(server: &Server) -> usize {
    let mut member = server.client();
    let mut count = member.subscribe_and_read_on("drain g 1");
    while count < 50 {
        count += usize::from(matches!(member.next_answer(), Op::Msg(_)));
    }
    member.send(b"UNSUB 1\r\nPING\r\n");
    while let Op::Msg(_) = member.next_answer() {
        count += 1;
    }
    count
}

/// Counts messages until it is over and a PING finds no more of them.
fn count_until(mut conn: Conn, received: &AtomicUsize, is_over: &AtomicBool) {
    loop {
        let is_last_time = is_over.load(Ordering::Acquire);
        conn.send(b"PING\r\n");
        while let Op::Msg(_) = conn.next_answer() {
            received.fetch_add(1, Ordering::AcqRel);
        }
        if is_last_time {
            return;
        }
    }
}

/// A member's connection just closes: everything published after the server has noticed arrives at
/// the member that stays.
#[test]
fn a_member_that_closes_costs_nothing_published_later() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut steady = server.subscriber("gone g 1");
        let mut publisher = server.client();
        for round in 0..20 {
            let mut passing = server.subscriber("gone g 1");
            passing.shut_down_write();
            passing.drain_until_closed();
            let message = format!("PUB gone 6\r\n{round:06}\r\n");
            publisher.send(&message.as_bytes().repeat(10));
            publisher.barrier();
            let wanted = format!("MSG gone 1 6\r\n{round:06}\r\n");
            steady.expect(&wanted.as_bytes().repeat(10));
        }
    }
}

/// Members with a maximum, publishers on several connections: each member gets exactly its number
/// and the one without a maximum all the rest.
#[test]
fn a_member_that_reaches_its_maximum_costs_no_message() {
    const MESSAGES: usize = 1_000;
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut limited: Vec<Conn> = (0..4)
            .map(|_| {
                let mut conn = server.client();
                conn.send(b"SUB some g 1\r\nUNSUB 1 50\r\n");
                conn.barrier();
                conn
            })
            .collect();
        let mut steady = server.subscriber("some g 1");
        let publishers: Vec<Conn> = (0..4).map(|_| server.client()).collect();
        thread::scope(|scope| {
            for mut publisher in publishers {
                scope.spawn(move || {
                    publisher.send(&b"PUB some 1\r\nx\r\n".repeat(MESSAGES / 4));
                    publisher.barrier();
                });
            }
            for member in &mut limited {
                member.expect(&b"MSG some 1 1\r\nx\r\n".repeat(50));
            }
            steady.expect(&b"MSG some 1 1\r\nx\r\n".repeat(MESSAGES - 4 * 50));
        });
        for conn in limited.iter_mut().chain([&mut steady]) {
            conn.barrier();
        }
    }
}

/// With echo off, the publisher's own membership is passed over wherever the other member sits.
#[test]
fn a_member_without_echo_is_passed_over() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut other = server.subscriber("own g 1");
        let mut publisher = server.open();
        publisher.handshake(r#"{"verbose":false,"echo":false}"#);
        publisher.subscribe("own g 1");
        publisher.send(&b"PUB own 1\r\nx\r\n".repeat(500));
        publisher.barrier();
        other.expect(&b"MSG own 1 1\r\nx\r\n".repeat(500));
    }
}

/// One group name over a literal and two wildcards, members on connections of their own: one copy.
#[test]
fn one_group_over_different_subjects_gets_one_copy() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let subjects = ["mix.a", "mix.*", "mix.>", "*.a", ">"];
        let mut members: Vec<Conn> = subjects
            .iter()
            .map(|subject| server.subscriber(&format!("{subject} g 1")))
            .collect();
        let mut publisher = server.client();
        publisher.send(&b"PUB mix.a 1\r\nx\r\n".repeat(200));
        publisher.barrier();
        let mut count = 0;
        read_until(&mut members, |_, _| {
            count += 1;
            count >= 200
        });
        assert_eq!(count, 200, "{workers} workers");
        // A second copy would have been counted, or would stand before one of these.
        publisher.send(b"PUB mix.a 3\r\nend\r\n");
        publisher.barrier();
        let mut ends = 0;
        read_until(&mut members, |_, msg| {
            assert_eq!(msg.payload, b"end", "{workers} workers");
            ends += 1;
            true
        });
        assert_eq!(ends, 1, "{workers} workers");
    }
}
