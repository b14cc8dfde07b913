//! The server inside this process: callbacks and queues of the process and TCP clients share one
//! subject space, in both directions.

use std::sync::mpsc;
use std::time::Duration;

use midge::config::Options;
use midge::config::options::LogOptions;
use midge::log::Logger;
use midge::router::{LocalOptions, Message, Overflow, Publisher, QueueLimits};
use midge::server::Server;

use crate::support::{Conn, PATIENCE};

fn start(workers: u16, change: impl FnOnce(&mut Options)) -> Server {
    let mut options = Options {
        port: 0,
        workers: Some(workers),
        ..Options::default()
    };
    change(&mut options);
    let log = Logger::to_output(Box::new(std::io::sink()), &LogOptions::default());
    Server::start(options, log, || panic!("a worker failed")).expect("any port will do")
}

fn client(server: &Server) -> Conn {
    let mut conn = Conn::open(server.addresses()[0]);
    conn.handshake(r#"{"verbose":false,"headers":true,"no_responders":true}"#);
    conn
}

fn message<'a>(subject: &'a [u8], reply: Option<&'a [u8]>, payload: &'a [u8]) -> Message<'a> {
    Message {
        subject,
        reply,
        headers: b"",
        payload,
    }
}

#[test]
fn a_publisher_in_the_process_reaches_clients_on_every_worker() {
    let server = start(2, |_| {});
    let mut clients: Vec<Conn> = (0..4).map(|_| client(&server)).collect();
    for conn in &mut clients {
        conn.send(b"SUB in.* 1\r\n");
        conn.barrier();
    }
    let mut publisher = Publisher::new(server.router());
    for number in 0..100 {
        let payload = number.to_string();
        assert_eq!(
            publisher.publish(&message(b"in.process", None, payload.as_bytes())),
            4
        );
    }
    for conn in &mut clients {
        for number in 0..100 {
            assert_eq!(conn.next_msg().payload, number.to_string().as_bytes());
        }
    }
}

#[test]
fn a_callback_answers_requests_of_clients() {
    let server = start(2, |_| {});
    let answer = |request: &Message<'_>, outbox: &mut midge::router::Outbox| {
        if let Some(reply) = request.reply {
            outbox.publish(&message(reply, None, request.payload));
        }
    };
    let handle = server
        .router()
        .subscribe_local(b"echo", None, LocalOptions::callback(answer))
        .expect("a valid subject");
    let mut conn = client(&server);
    conn.send(b"SUB inbox.* 7\r\nPUB echo inbox.1 5\r\nhello\r\n");
    conn.expect(b"MSG inbox.1 7 5\r\nhello\r\n");
    handle.unsubscribe();
    conn.send(b"PUB echo inbox.2 2\r\nhi\r\n");
    conn.expect(b"HMSG inbox.2 7 36 36\r\nNATS/1.0 503\r\nNats-Subject: echo\r\n\r\n\r\n");
}

#[test]
fn a_queue_group_spans_the_process_and_the_network() {
    let server = start(2, |_| {});
    let limits = QueueLimits::default();
    let handle = server
        .router()
        .subscribe_local(
            b"work",
            Some(b"q"),
            LocalOptions::queue(limits, Overflow::DropNewest),
        )
        .expect("a valid subject");
    let mut member = client(&server);
    member.send(b"SUB work q 1\r\n");
    member.barrier();
    let mut publisher = client(&server);
    publisher.send(&b"PUB work 1\r\nx\r\n".repeat(1000));
    publisher.barrier();
    let queue = handle.queue().expect("a queue");
    let inside = std::iter::from_fn(|| queue.try_pop()).count();
    for _ in inside..1000 {
        assert_eq!(member.next_msg().payload, b"x");
    }
    member.barrier();
    assert!(
        (400..=600).contains(&inside),
        "{inside} of 1000 went to the process"
    );
}

#[test]
fn a_lame_duck_says_so_and_closes_one_after_the_other() {
    let server = start(2, |options| {
        options.lame_duck_duration_ms = 400;
        options.lame_duck_grace_ms = 100;
    });
    let mut conn = Conn::open(server.addresses()[0]);
    conn.send(b"CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    conn.expect_after_info(b"PONG\r\n");
    let (sender, waits) = mpsc::channel();
    server.ease_away(|pause| {
        sender.send(pause).expect("the test listens");
        std::thread::park_timeout(pause);
        pause < PATIENCE
    });
    let waits: Vec<Duration> = waits.try_iter().collect();
    assert_eq!(
        waits[0],
        Duration::from_millis(100),
        "the grace period comes first"
    );
    while !matches!(conn.next_op(), crate::support::Op::Info(info) if info["ldm"] == true) {}
    conn.expect_closed();
    assert_eq!(server.connection_count(), 0);
}
