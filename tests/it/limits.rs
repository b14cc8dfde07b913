//! Limits that need load or many connections: connections, pending bytes, write deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::{Conn, Op, PATIENCE, Server, eventually, is_reference, rss_kib};

/// Beyond the limit everybody gets INFO, the text and the end, also when they all come at once; a
/// place that becomes free is given away again.
#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Server::builder().option("max_connections", 10).start();
    let mut inside: Vec<Conn> = (0..10).map(|_| server.client()).collect();
    let refused: Vec<Conn> = (0..30).map(|_| Conn::open_raw(server.addr())).collect();
    for mut conn in refused {
        assert!(matches!(conn.next_op(), Op::Info(_)));
        conn.expect(b"-ERR 'maximum connections exceeded'\r\n");
        conn.expect_closed();
    }
    for conn in &mut inside {
        conn.barrier();
    }
    let mut leaving = inside.pop().expect("ten of them");
    leaving.shut_down_write();
    leaving.expect_closed();
    let is_let_in = eventually(PATIENCE, || {
        let mut conn = Conn::open(server.addr());
        conn.try_send(b"PING\r\n");
        // With verbose on, nothing but PONG or the refusal can come.
        conn.try_expect(b"PONG\r\n").is_ok()
    });
    assert!(is_let_in, "a free place stays empty");
}

/// How many connections this process may open: 400, which fits the usual limit of 1024 files, and
/// with `MIDGE_TEST_LONG` set as many as the limit has room for.
fn connection_count() -> usize {
    if std::env::var_os("MIDGE_TEST_LONG").is_none() {
        return 400;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or(1024_usize).saturating_sub(400).min(20_000)
}

/// Hundreds of connections, or thousands, are served at the same time, and all end without a trace.
#[test]
fn many_connections_come_and_go() {
    let connections = connection_count();
    let mut server = Server::builder().workers(2).start();
    for _ in 0..2 {
        let mut conns: Vec<Conn> = (0..connections).map(|_| server.client()).collect();
        for (i, conn) in conns.iter_mut().enumerate() {
            conn.send(format!("SUB all {i}\r\n").as_bytes());
            conn.barrier();
        }
        let mut publisher = server.client();
        publisher.send(b"PUB all 2\r\nhi\r\n");
        for (i, conn) in conns.iter_mut().enumerate() {
            conn.expect(format!("MSG all {i} 2\r\nhi\r\n").as_bytes());
        }
    }
    server.assert_healthy();
}

const PAYLOAD_BYTES: usize = 4096;
const BATCH: usize = 50;

/// Publishes until the server has dropped the reader that is stuck, in steps that everybody else
/// has read; returns how many messages that took. Each of the others must get every message.
fn publish_until_dropped(server: &Server, batches_max: usize, others: usize) -> usize {
    let message = [
        b"PUB flood 4096\r\n".as_slice(),
        &[b'x'; PAYLOAD_BYTES],
        b"\r\n",
    ]
    .concat();
    let received = AtomicUsize::new(0);
    let published = AtomicUsize::new(0);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let readers: Vec<Conn> = (0..others).map(|_| server.subscriber("flood 1")).collect();
    let mut publisher = server.client();
    thread::scope(|scope| {
        for mut reader in readers {
            let (received, is_over, published) = (&received, &is_over, &published);
            scope.spawn(move || {
                let mut own = 0;
                loop {
                    let msg = reader.next_msg();
                    if msg.payload.len() != PAYLOAD_BYTES {
                        assert!(is_over.load(Ordering::Acquire), "a payload is too short");
                        assert_eq!(own, published.load(Ordering::Acquire), "messages got lost");
                        return;
                    }
                    own += 1;
                    received.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let mut is_dropped = false;
        for _ in 0..batches_max {
            publisher.send(&message.repeat(BATCH));
            publisher.barrier();
            let total = published.fetch_add(BATCH, Ordering::AcqRel) + BATCH;
            let all_read = eventually(PATIENCE, || {
                received.load(Ordering::Acquire) == total * others
            });
            assert!(all_read, "the others do not get what was published");
            if is_dropped {
                break;
            }
            // One more batch follows, which must reach the others as well.
            is_dropped = server.log().contains("Slow Consumer");
        }
        is_over.store(true, Ordering::Release);
        publisher.send(b"PUB flood 3\r\nend\r\n");
    });
    published.into_inner()
}

/// A reader that is stuck is dropped once more than max_pending bytes wait for it; 20 others get
/// everything meanwhile, and the server never holds much more than the limit.
#[test]
fn a_stuck_reader_is_dropped_and_the_others_get_everything() {
    let server = Server::builder()
        .workers(2)
        .option("max_pending", 1024 * 1024 + 64 * 1024)
        .start();
    let mut stuck = Conn::open_with_receive_buffer(server.addr(), 8 * 1024);
    stuck.next_op();
    stuck.handshake(r#"{"verbose":false}"#);
    stuck.subscribe("flood 1");
    let rss_before = rss_kib(server.pid());
    let published = publish_until_dropped(&server, 100, 20);
    server.wait_log("Slow Consumer");
    let received = stuck.drain_until_closed();
    assert!(
        received < (published * PAYLOAD_BYTES) as u64,
        "nothing was held back from it"
    );
    let grown = rss_kib(server.pid()).saturating_sub(rss_before);
    assert!(grown < 64 * 1024, "the server grew by {grown} KiB");
}

/// With room to spare in max_pending, a reader that takes nothing at all is dropped at the write
/// deadline.
#[test]
fn a_reader_that_takes_nothing_meets_the_write_deadline() {
    let server = Server::builder()
        .workers(2)
        .option("write_deadline", "300ms")
        .start();
    let mut stuck = Conn::open_with_receive_buffer(server.addr(), 8 * 1024);
    stuck.next_op();
    stuck.handshake(r#"{"verbose":false}"#);
    stuck.subscribe("flood 1");
    let mut publisher = server.client();
    let message = [
        b"PUB flood 4096\r\n".as_slice(),
        &[b'x'; PAYLOAD_BYTES],
        b"\r\n",
    ]
    .concat();
    // 16 MiB: more than the system holds for a socket, less than max_pending.
    for _ in 0..40 {
        publisher.send(&message.repeat(100));
        publisher.barrier();
    }
    server.wait_log("Slow Consumer");
    let received = stuck.drain_until_closed();
    assert!(
        received < 4000 * PAYLOAD_BYTES as u64,
        "nothing was held back from it"
    );
    publisher.barrier();
}

/// A stuck reader takes no other consumer's time: a second publisher and its subscriber go on while
/// the first publisher is slowed or its consumer waits to be dropped.
#[test]
fn a_stuck_reader_does_not_stop_other_conversations() {
    let server = Server::builder()
        .workers(1)
        .option("max_pending", 8 * 1024 * 1024)
        .start();
    let mut stuck = Conn::open_with_receive_buffer(server.addr(), 8 * 1024);
    stuck.next_op();
    stuck.handshake(r#"{"verbose":false}"#);
    stuck.subscribe("flood 1");
    let mut flooder = server.client();
    let mut other = server.subscriber("calm 1");
    let mut publisher = server.client();
    let message = [
        b"PUB flood 4096\r\n".as_slice(),
        &[b'x'; PAYLOAD_BYTES],
        b"\r\n",
    ]
    .concat();
    thread::scope(|scope| {
        // 20 MiB run past 75 % of max_pending, and past it.
        scope.spawn(move || {
            flooder.send(&message.repeat(5_000));
            flooder.barrier();
        });
        for i in 0..200 {
            publisher.send(format!("PUB calm 6\r\n{i:06}\r\n").as_bytes());
            other.expect(format!("MSG calm 1 6\r\n{i:06}\r\n").as_bytes());
        }
    });
    drop(stuck);
}

/// A reader that begins late gets everything that fits into max_pending, in order, and then the
/// server gives the memory back.
#[test]
fn a_late_reader_gets_everything_that_fits() {
    const MESSAGES: usize = 30_000;
    for workers in [1, 2] {
        let mut server = Server::with_workers(workers);
        let mut late = server.subscriber("late 1");
        let mut publisher = server.client();
        let rss_before = rss_kib(server.pid());
        // 30 MiB, about half of the default limit.
        for i in 0..MESSAGES {
            publisher.send(format!("PUB late 1024\r\n{i:01024}\r\n").as_bytes());
        }
        publisher.barrier();
        for i in 0..MESSAGES {
            let result = late.try_expect(format!("MSG late 1 1024\r\n{i:01024}\r\n").as_bytes());
            result.unwrap_or_else(|text| panic!("message {i}: {text}"));
        }
        late.barrier();
        let mut left = 0;
        let is_returned = is_reference()
            || eventually(PATIENCE, || {
                left = rss_kib(server.pid()).saturating_sub(rss_before);
                left < 12 * 1024
            });
        assert!(is_returned, "{left} KiB stay after 30 MiB were queued");
        server.assert_healthy();
    }
}
