//! Consumers that are slower than their producers: who waits for whom, and for how long.

use midge::config::Options;
use midge::error::CloseReason;
use midge::limits::STALL_MS_MAX;

use crate::stage::{Stage, with_seeds};

const HIGH_WATER_BYTES: usize = 200_000;

/// A reader whose kernel buffer is full and whose queue is at the high-water mark, and a writer
/// that is made to wait for it, on worker `reader_at` and worker 0 of two.
fn stage(seed: u64, reader_at: usize) -> (Stage, usize, usize) {
    let options = Options {
        pending_bytes_max: 2 * HIGH_WATER_BYTES,
        ..Options::default()
    };
    let mut stage = Stage::with_workers(seed, options, 2);
    let reader = stage.open_at(reader_at, 1000);
    stage.send(
        reader,
        b"CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPING\r\n",
    );
    stage.read(reader);
    let writer = stage.open_at(0, 100_000);
    stage.send(writer, b"CONNECT {\"verbose\":false}\r\n");
    for _ in 0..5 {
        assert!(!is_paused(&stage, writer), "not before the high-water mark");
        stage.publish(writer, 50_000);
        if reader_at != 0 {
            stage.deliver_mail();
            stage.deliver_mail();
        }
    }
    assert!(stage.conn(reader).out.pending_bytes() > HIGH_WATER_BYTES);
    assert!(is_paused(&stage, writer), "seed {seed}: nobody waits");
    (stage, reader, writer)
}

fn is_paused(stage: &Stage, client: usize) -> bool {
    stage.conn(client).is_paused()
}

#[test]
fn a_producer_waits_until_its_consumer_has_caught_up() {
    with_seeds(|seed| {
        for reader_at in [0, 1] {
            let (mut stage, reader, writer) = stage(seed, reader_at);
            stage.read_all(reader);
            stage.deliver_mail();
            assert!(!is_paused(&stage, writer), "it need not wait any longer");
            stage.publish(writer, 50_000);
            stage.deliver_mail();
            assert!(stage.conn(reader).out.pending_bytes() > 0);
            assert!(!is_paused(&stage, writer), "below the mark nobody waits");
        }
    });
}

#[test]
fn a_producer_does_not_wait_for_one_that_has_gone() {
    with_seeds(|seed| {
        for reader_at in [0, 1] {
            let (mut stage, reader, writer) = stage(seed, reader_at);
            stage.io(reader).expect("still there").is_broken = true;
            stage.turns();
            assert!(stage.end_of(reader).is_some());
            stage.deliver_mail();
            assert!(!is_paused(&stage, writer));
        }
    });
}

#[test]
fn nobody_waits_long_and_a_consumer_that_lags_is_waited_for_once() {
    with_seeds(|seed| {
        let (mut stage, reader, writer) = stage(seed, 0);
        stage.wait(STALL_MS_MAX);
        assert!(!is_paused(&stage, writer), "the wait is bounded");
        stage.publish(writer, 10_000);
        assert!(!is_paused(&stage, writer), "seed {seed}: and not repeated");
        stage.wait(200);
        // In the last quarter one that takes nothing at all is not waited for either.
        for _ in 0..20 {
            stage.publish(writer, 10_000);
            assert!(!is_paused(&stage, writer));
        }
        let (reason, _) = stage.end_of(reader).expect("closed");
        assert_eq!(reason, CloseReason::SlowConsumerPendingBytes);
        assert_eq!(stage.staff.workers[0].shard.counters().slow_consumers, 1);
        assert!(stage.end_of(writer).is_none());
    });
}

/// A request to wait that comes too late must not hit whoever has the slot by then.
#[test]
fn the_successor_of_a_producer_does_not_wait_for_its_consumers() {
    with_seeds(|seed| {
        let (mut stage, _, _) = stage(seed, 1);
        let writer = stage.open_at(0, 10_000);
        stage.send(writer, b"CONNECT {\"verbose\":false}\r\n");
        // The consumer's worker asks this one to wait as well, but the request is under way when
        // it has gone.
        stage.publish(writer, 10);
        while stage.staff.deliver_mail(0, 1) {}
        stage.turns();
        stage.io(writer).expect("still there").is_at_end = true;
        stage.turns();
        let next = stage.open_at(0, 10_000);
        assert_eq!(
            stage.places[next], stage.places[writer],
            "the slot is used again"
        );
        assert!(stage.staff.deliver_mail(1, 0), "the request");
        stage.turns();
        assert!(!is_paused(&stage, next));
    });
}

/// However many publish to a worker that does not get to its mail, and however long that lasts.
#[test]
fn a_mailbox_that_nobody_reads_stays_bounded() {
    const MAIL_BYTES_MAX: usize = 100_000;
    const WRITERS: usize = 50;
    with_seeds(|seed| {
        let mut stage = Stage::with_workers(seed, Options::default(), 2);
        let reader = stage.open_at(1, 1_000_000);
        stage.send(
            reader,
            b"CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPING\r\n",
        );
        stage.staff.mail_bytes_max = MAIL_BYTES_MAX;
        let mut stream = b"CONNECT {\"verbose\":false}\r\n".to_vec();
        for _ in 0..100 {
            stream.extend_from_slice(b"PUB foo 1000\r\n");
            stream.resize(stream.len() + 1000, b'x');
            stream.extend_from_slice(b"\r\n");
        }
        for _ in 0..WRITERS {
            let writer = stage.open_at(0, 10_000);
            stage
                .io(writer)
                .expect("still there")
                .incoming
                .extend(&stream);
        }
        for _ in 0..300 {
            stage.tick(0);
        }
        // What one pass may post before the mailbox is looked at, and a message of each.
        let bound = MAIL_BYTES_MAX + 256 * 1024 + WRITERS * 2000;
        let posted = stage.staff.mail_bytes[1];
        assert!(posted > MAIL_BYTES_MAX, "{posted} bytes are no test");
        assert!(posted < bound, "seed {seed}: {posted} bytes of mail wait");
        // When it is read at last, everything comes.
        let mut got = String::new();
        for _ in 0..3000 {
            stage.tick(0);
            while stage.staff.deliver_mail(0, 1) {}
            stage.tick(1);
            got.push_str(&stage.read(reader));
        }
        assert_eq!(got.matches("MSG foo").count(), WRITERS * 100);
    });
}
