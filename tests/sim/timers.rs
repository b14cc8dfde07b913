//! The life of timers, one connection at a time, under simulated time: pings, stale connections,
//! credentials that do not come, bytes that are not taken.

use std::sync::Arc;

use midge::config::Options;
use midge::config::options::Credentials;
use midge::error::CloseReason;
use midge::limits::FIRST_PING_MS;

use crate::stage::{Stage, with_seeds};

fn options() -> Options {
    Options {
        ping_interval_ms: 20_000,
        ..Options::default()
    }
}

/// Times are rounded up to a grid of at most a sixteenth.
fn assert_about(at: u64, wanted: u64, what: &str) {
    let latest = wanted + wanted / 16 + 1000;
    assert!(
        (wanted..=latest).contains(&at),
        "{what} at {at} ms, wanted {wanted}"
    );
}

#[test]
fn a_silent_client_is_pinged_and_then_stale() {
    with_seeds(|seed| {
        let mut stage = Stage::new(seed, options());
        let client = stage.open(10_000);
        stage.send(client, b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        assert!(stage.read(client).ends_with("PONG\r\n"));
        stage.wait(FIRST_PING_MS - 1);
        assert_eq!(stage.read(client), "", "not before its time");
        stage.wait(FIRST_PING_MS / 2);
        assert_eq!(
            stage.read(client),
            "PING\r\n",
            "the first one measures the round trip"
        );
        stage.wait(24_000);
        assert_eq!(stage.read(client), "PING\r\n");
        assert_eq!(stage.end_of(client), None);
        stage.wait(24_000);
        let (reason, at) = stage.end_of(client).expect("closed");
        assert_eq!(reason, CloseReason::StaleConnection);
        assert_about(at, 42_000, "stale");
        assert!(
            stage
                .seen
                .last_bytes
                .ends_with(b"-ERR 'Stale Connection'\r\n")
        );
        assert_eq!(stage.staff.workers[0].shard.counters().stale_connections, 1);
    });
}

#[test]
fn a_client_that_answers_stays_and_one_that_is_active_is_left_alone() {
    with_seeds(|seed| {
        let mut stage = Stage::new(seed, options());
        let (idle, active) = (stage.open(100_000), stage.open(100_000));
        for client in [idle, active] {
            stage.send(client, b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        }
        let (mut idle_pings, mut active_pings) = (0, 0);
        stage.read(idle);
        stage.read(active);
        for _ in 0..600 {
            stage.wait(1000);
            stage.send(active, b"PUB foo 0\r\n\r\n");
            if stage.read(idle).contains("PING") {
                idle_pings += 1;
                stage.send(idle, b"PONG\r\n");
            }
            if stage.read(active).contains("PING") {
                active_pings += 1;
                stage.send(active, b"PONG\r\n");
            }
        }
        assert!(
            (25..=31).contains(&idle_pings),
            "{idle_pings} pings in ten minutes"
        );
        assert_eq!(active_pings, 1, "only the round trip is measured");
        assert!(stage.end_of(idle).is_none() && stage.end_of(active).is_none());
    });
}

#[test]
fn credentials_have_to_come_in_time() {
    with_seeds(|seed| {
        let options = Options {
            credentials: Credentials::Token("sesame".into()),
            ..options()
        };
        let limit = options.auth_timeout_ms;
        let mut stage = Stage::new(seed, options);
        let (silent, partial, known) = (stage.open(10_000), stage.open(10_000), stage.open(10_000));
        stage.send(partial, b"CONNECT {\"auth_tok");
        stage.send(
            known,
            b"CONNECT {\"auth_token\":\"sesame\",\"verbose\":false}\r\n",
        );
        stage.wait(limit - 2);
        assert!(stage.seen.ends.is_empty());
        stage.wait(limit / 8);
        for client in [silent, partial] {
            let (reason, at) = stage.end_of(client).expect("closed");
            assert_eq!(reason, CloseReason::AuthenticationTimeout);
            assert_about(at, limit, "the end");
        }
        assert!(
            stage
                .seen
                .last_bytes
                .ends_with(b"-ERR 'Authentication Timeout'\r\n")
        );
        stage.wait(limit);
        assert!(stage.end_of(known).is_none());
    });
}

/// Queues some bytes for a client that does not read: more than its kernel buffer takes.
fn stage_with_reader(seed: u64, deadline_ms: u64) -> (Stage, usize, usize) {
    let options = Options {
        write_deadline_ms: deadline_ms,
        ..Options::default()
    };
    let mut stage = Stage::new(seed, options);
    let (reader, writer) = (stage.open(1000), stage.open(100_000));
    stage.send(
        reader,
        b"CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPING\r\n",
    );
    stage.read(reader);
    stage.send(writer, b"CONNECT {\"verbose\":false}\r\n");
    stage.publish(writer, 50_000);
    (stage, reader, writer)
}

#[test]
fn bytes_that_are_not_taken_in_time_end_the_connection() {
    with_seeds(|seed| {
        let (mut stage, reader, writer) = stage_with_reader(seed, 10_000);
        let start = stage.staff.now.0;
        stage.wait(9_999);
        assert_eq!(stage.end_of(reader), None);
        stage.wait(1_000);
        let (reason, at) = stage.end_of(reader).expect("closed");
        assert_eq!(reason, CloseReason::SlowConsumerWriteDeadline);
        assert_about(at - start, 10_000, "the end");
        assert_eq!(stage.staff.workers[0].shard.counters().slow_consumers, 1);
        assert_eq!(stage.staff.workers[0].shard.sub_count(), 0);
        assert!(stage.end_of(writer).is_none());
    });
}

/// What is queued behind a batch has its own time, counted from when the batch was taken, also when
/// the worker has been asleep until that moment.
#[test]
fn whoever_takes_a_batch_in_time_has_the_whole_time_for_the_next() {
    with_seeds(|seed| {
        let (mut stage, reader, writer) = stage_with_reader(seed, 10_000);
        stage.publish(writer, 150_000);
        let almost = stage.staff.now.0 + 9_900;
        stage.set_time(almost);
        stage.io(reader).expect("still there").capacity = 60_000;
        stage.read(reader);
        stage.turns();
        let conn = stage.conn(reader);
        let pending = conn.out.pending_bytes();
        assert!(pending > 0, "some is still to be taken");
        stage.wait(9_000);
        assert_eq!(stage.end_of(reader), None, "seed {}", stage.seed);
    });
}

#[test]
fn timers_of_a_connection_do_not_touch_its_successor() {
    with_seeds(|seed| {
        let (mut stage, reader, _) = stage_with_reader(seed, 10_000);
        stage.io(reader).expect("still there").is_broken = true;
        stage.turns();
        let (reason, _) = stage.end_of(reader).expect("closed");
        assert!(matches!(
            reason,
            CloseReason::ReadError | CloseReason::WriteError
        ));
        let next = stage.open(10_000);
        assert_eq!(
            stage.places[next], stage.places[reader],
            "the slot is used again"
        );
        stage.send(next, b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        stage.wait(15_000);
        assert_eq!(stage.end_of(next), None);
    });
}

#[test]
fn an_idle_worker_with_nothing_due_sleeps_without_a_limit() {
    let mut stage = Stage::new(1, options());
    assert_eq!(stage.staff.workers[0].shard.next_timer(), None);
    let client = stage.open(10_000);
    assert!(stage.staff.workers[0].shard.next_timer().is_some());
    stage.io(client).expect("still there").is_at_end = true;
    stage.turns();
    stage.wait(200_000);
    assert_eq!(
        stage.staff.workers[0].shard.next_timer(),
        None,
        "nothing is left behind"
    );
    assert_eq!(Arc::strong_count(&stage.staff.shared.router), 1);
}
