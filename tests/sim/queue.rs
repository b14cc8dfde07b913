//! Queue groups whose members leave while a message is under way to them, led step by step.

use midge::config::Options;

use crate::stage::{Stage, with_seeds};

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"echo\":false}\r\n";

/// A message of worker 0 that is under way to the only member, on worker 1, which leaves then.
fn stage(seed: u64) -> (Stage, usize, usize) {
    let mut stage = Stage::with_workers(seed, Options::default(), 2);
    let member = stage.open_at(1, 10_000);
    stage.send(member, CONNECT);
    stage.send(member, b"SUB foo q 1\r\nPING\r\n");
    let writer = stage.open_at(0, 10_000);
    stage.send(writer, CONNECT);
    stage.publish(writer, 3);
    stage.send(member, b"UNSUB 1\r\n");
    (stage, writer, member)
}

fn drops(stage: &Stage) -> u64 {
    let workers = stage.staff.workers.iter();
    workers
        .map(|worker| worker.shard.counters().queue_drops)
        .sum()
}

fn read_after_mail(stage: &mut Stage, client: usize) -> String {
    stage.read(client);
    for _ in 0..4 {
        stage.deliver_mail();
    }
    stage.read(client)
}

#[test]
fn another_member_gets_it_wherever_it_is() {
    with_seeds(|seed| {
        for worker in [0, 1] {
            let (mut stage, _, _) = stage(seed);
            let other = stage.open_at(worker, 10_000);
            stage.send(other, CONNECT);
            stage.send(other, b"SUB foo q 7\r\n");
            assert_eq!(read_after_mail(&mut stage, other), "MSG foo 7 3\r\nxxx\r\n");
            assert_eq!(drops(&stage), 0);
        }
    });
}

#[test]
fn without_any_it_is_dropped_and_counted() {
    with_seeds(|seed| {
        let (mut stage, _, member) = stage(seed);
        assert_eq!(read_after_mail(&mut stage, member), "");
        assert_eq!(drops(&stage), 1);
    });
}

#[test]
fn the_publisher_does_not_get_it_back_unless_it_wants_an_echo() {
    with_seeds(|seed| {
        let (mut stage, writer, _) = stage(seed);
        stage.send(writer, b"SUB foo q 7\r\n");
        assert_eq!(read_after_mail(&mut stage, writer), "");
        assert_eq!(drops(&stage), 1);
    });
}

/// Who has the publisher's slot by then is not the publisher.
#[test]
fn the_successor_of_the_publisher_gets_it() {
    with_seeds(|seed| {
        let (mut stage, writer, _) = stage(seed);
        stage.io(writer).expect("still there").is_at_end = true;
        stage.turns();
        let next = stage.open_at(0, 10_000);
        assert_eq!(
            stage.places[next], stage.places[writer],
            "the slot is used again"
        );
        stage.send(next, CONNECT);
        stage.send(next, b"SUB foo q 7\r\n");
        assert_eq!(read_after_mail(&mut stage, next), "MSG foo 7 3\r\nxxx\r\n");
        assert_eq!(drops(&stage), 0);
    });
}
