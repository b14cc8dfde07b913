//! Publish and subscribe over many connections and workers: everything arrives, once, in order.

use std::thread;

use crate::support::{Conn, Rng, Server, worker_counts};

/// Messages `PUB subject` with a running number of six digits as payload.
fn numbered(subject: &str, count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|i| format!("PUB {subject} 6\r\n{i:06}\r\n").into_bytes())
        .collect()
}

/// Four publishers and four subscribers on connections of their own: each subscriber sees the
/// messages of each publisher in the order in which that publisher sent them, none missing.
#[test]
fn order_is_kept_from_each_publisher_to_each_subscriber() {
    const MESSAGES: usize = 3_000;
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let subscribers: Vec<Conn> = (0..4).map(|_| server.subscriber("order.* 1")).collect();
        thread::scope(|scope| {
            for mut subscriber in subscribers {
                scope.spawn(move || {
                    let mut next = [0; 4];
                    for _ in 0..4 * MESSAGES {
                        let msg = subscriber.next_msg();
                        let publisher: usize = msg.subject["order.".len()..].parse().unwrap();
                        let expected = format!("{:06}", next[publisher]);
                        assert_eq!(msg.payload, expected.as_bytes(), "{workers} workers");
                        next[publisher] += 1;
                    }
                });
            }
            for publisher in 0..4 {
                let mut conn = server.client();
                scope.spawn(move || {
                    conn.send(&numbered(&format!("order.{publisher}"), MESSAGES));
                    conn.barrier();
                });
            }
        });
    }
}

/// 100,000 publishes in one write reach a subscriber elsewhere and the publisher itself, in order.
#[test]
fn a_hundred_thousand_pipelined_publishes_keep_their_order() {
    const MESSAGES: usize = 100_000;
    for &workers in &worker_counts()[..worker_counts().len().min(2)] {
        let server = Server::with_workers(workers);
        let mut elsewhere = server.subscriber("pipe 1");
        let mut publisher = server.subscriber("pipe 2");
        let mut writer = publisher.writer();
        thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Write;
                writer
                    .write_all(&numbered("pipe", MESSAGES))
                    .expect("the server reads on");
            });
            let check = |conn: &mut Conn| {
                for i in 0..MESSAGES {
                    assert_eq!(conn.next_msg().payload, format!("{i:06}").as_bytes());
                }
                conn.barrier();
            };
            scope.spawn(move || check(&mut elsewhere));
            check(&mut publisher);
        });
    }
}

/// One message to 100 subscribers on as many connections: one copy each, no more.
#[test]
fn every_subscriber_gets_its_copy() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut subscribers: Vec<Conn> = (0..100)
            .map(|i| server.subscriber(&format!("fan.out {i}")))
            .collect();
        let mut publisher = server.client();
        publisher.send(&numbered("fan.out", 20));
        publisher.barrier();
        for (sid, subscriber) in subscribers.iter_mut().enumerate() {
            for i in 0..20 {
                subscriber.expect(format!("MSG fan.out {sid} 6\r\n{i:06}\r\n").as_bytes());
            }
            subscriber.barrier();
        }
    }
}

/// Payloads of all sizes, also of the largest, arrive unchanged at subscribers of every worker.
#[test]
fn payloads_of_all_sizes_arrive_unchanged() {
    let seed = Rng::seed_from_env();
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let subscribers: Vec<Conn> = (0..4).map(|_| server.subscriber("size 1")).collect();
        let mut rng = Rng::new(seed);
        let mut sizes = vec![
            0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537,
        ];
        sizes.extend((0..40).map(|_| rng.below(20_000)));
        sizes.extend([1_048_576, 1_048_575, 0, 1]);
        let payloads: Vec<Vec<u8>> = sizes
            .iter()
            .map(|&size| {
                (0..size)
                    .map(|i| (i as u8).wrapping_mul(31) ^ (size as u8))
                    .collect()
            })
            .collect();
        let payloads = &payloads;
        thread::scope(|scope| {
            for mut subscriber in subscribers {
                scope.spawn(move || {
                    for payload in payloads {
                        let got = subscriber.next_msg().payload;
                        assert!(&got == payload, "{} bytes, seed {seed}", payload.len());
                    }
                });
            }
            let mut publisher = server.client();
            for payload in payloads {
                let head = format!("PUB size {}\r\n", payload.len());
                publisher.send(&[head.as_bytes(), payload, b"\r\n"].concat());
            }
            publisher.barrier();
        });
    }
}

/// Requests from eight connections to one that answers, each with an inbox of its own.
#[test]
fn requests_find_their_answers() {
    const REQUESTS: usize = 300;
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut responder = server.subscriber("svc.echo 1");
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..8 * REQUESTS {
                    let msg = responder.next_msg();
                    let reply = msg.reply.expect("a request names its inbox");
                    let head = format!("PUB {reply} {}\r\n", msg.payload.len());
                    responder.send(&[head.as_bytes(), &msg.payload, b"\r\n"].concat());
                }
            });
            for requester in 0..8 {
                let mut conn = server.client();
                scope.spawn(move || {
                    conn.send(format!("SUB _INBOX.{requester}.* 1\r\n").as_bytes());
                    for i in 0..REQUESTS {
                        let inbox = format!("_INBOX.{requester}.{i}");
                        conn.send(format!("PUB svc.echo {inbox} 6\r\n{i:06}\r\n").as_bytes());
                        let msg = conn.next_msg();
                        assert_eq!(msg.subject, inbox);
                        assert_eq!(msg.payload, format!("{i:06}").as_bytes());
                    }
                });
            }
        });
    }
}

/// After the PONG a subscription holds for publishers everywhere, though their workers have cached
/// that nobody listens; after the PONG that follows UNSUB it holds for nobody.
#[test]
fn a_subscription_is_effective_everywhere_after_pong() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut subscriber = server.client();
        let mut publishers: Vec<Conn> = (0..4).map(|_| server.client()).collect();
        for round in 0..50 {
            for publisher in &mut publishers {
                publisher.send(b"PUB news.today 3\r\nold\r\n");
                publisher.barrier();
            }
            let subject = if round % 2 == 0 {
                "news.today"
            } else {
                "news.*"
            };
            subscriber.send(format!("SUB {subject} {round}\r\n").as_bytes());
            subscriber.barrier();
            for publisher in &mut publishers {
                publisher.send(b"PUB news.today 3\r\nnew\r\n");
                publisher.barrier();
                let wanted = format!("MSG news.today {round} 3\r\nnew\r\n");
                subscriber.expect(wanted.as_bytes());
            }
            subscriber.send(format!("UNSUB {round}\r\n").as_bytes());
            subscriber.barrier();
        }
    }
}

/// Subscribers that come and go in the middle of a stream disturb nobody: one that stays gets
/// everything in order.
#[test]
fn subscribers_that_come_and_go_disturb_nobody() {
    const MESSAGES: usize = 5_000;
    for &workers in worker_counts() {
        let mut server = Server::with_workers(workers);
        let mut steady = server.subscriber("stream.a 1");
        let mut publisher = server.client();
        thread::scope(|scope| {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..10 {
                    publisher.send(&numbered("stream.a", MESSAGES / 10));
                    publisher.barrier();
                }
            });
            for _ in 0..2 {
                scope.spawn(move || {
                    for i in 0..40 {
                        let mut passing = server.client();
                        passing.subscribe_and_read_on(
                            ["stream.> 1", "stream.* 1", "stream.a 1"][i % 3],
                        );
                        // The socket closes with messages on their way to it.
                    }
                });
            }
            for round in 0..10 {
                for i in 0..MESSAGES / 10 {
                    let wanted = format!("MSG stream.a 1 6\r\n{i:06}\r\n");
                    let result = steady.try_expect(wanted.as_bytes());
                    result.unwrap_or_else(|text| panic!("{workers} workers, {round}, {i}: {text}"));
                }
            }
        });
        server.assert_healthy();
    }
}

/// A subscription is delivered to across workers while other subscriptions of the same connection
/// reach their maximum: each gets exactly its number.
#[test]
fn unsub_max_is_exact_with_several_publishers() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut subscriber = server.client();
        for sid in 1..=50 {
            subscriber.send(format!("SUB max.x {sid}\r\nUNSUB {sid} {}\r\n", sid * 10).as_bytes());
        }
        subscriber.barrier();
        let publishers: Vec<Conn> = (0..4).map(|_| server.client()).collect();
        thread::scope(|scope| {
            for mut publisher in publishers {
                scope.spawn(move || {
                    publisher.send(&numbered("max.x", 250));
                    publisher.barrier();
                });
            }
            let mut counts = [0; 51];
            // 10 + 20 + ... + 500
            for _ in 0..12_750 {
                counts[subscriber.next_msg().sid.parse::<usize>().unwrap()] += 1;
            }
            for (sid, &count) in counts.iter().enumerate() {
                assert_eq!(count, sid * 10, "sid {sid}, {workers} workers");
            }
        });
        subscriber.barrier();
    }
}

/// Four clients on several workers all publish to all of them at full speed. Bounded queues between
/// workers that wait for each other would lock up here.
#[test]
fn workers_that_flood_each_other_do_not_lock_up() {
    const MESSAGES: usize = 10_000;
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let clients: Vec<Conn> = (0..4).map(|_| server.subscriber("mutual.* 1")).collect();
        thread::scope(|scope| {
            for (index, mut client) in clients.into_iter().enumerate() {
                let mut writer = client.writer();
                scope.spawn(move || {
                    use std::io::Write;
                    let bytes = numbered(&format!("mutual.{index}"), MESSAGES);
                    writer.write_all(&bytes).expect("the server reads on");
                });
                scope.spawn(move || {
                    let mut next = [0; 4];
                    for _ in 0..4 * MESSAGES {
                        let msg = client.next_msg();
                        let from: usize = msg.subject["mutual.".len()..].parse().unwrap();
                        assert_eq!(msg.payload, format!("{:06}", next[from]).as_bytes());
                        next[from] += 1;
                    }
                });
            }
        });
    }
}

/// Headers reach those who negotiated them, and only the payload reaches the others, on whichever
/// worker they are.
#[test]
fn headers_go_to_those_who_want_them() {
    for &workers in worker_counts() {
        let server = Server::with_workers(workers);
        let mut subscribers: Vec<Conn> = (0..8).map(|_| server.open()).collect();
        for (i, conn) in subscribers.iter_mut().enumerate() {
            conn.handshake(&format!("{{\"verbose\":false,\"headers\":{}}}", i % 2 == 0));
            conn.subscribe("head 1");
        }
        let mut publisher = server.open();
        publisher.handshake(r#"{"verbose":false,"headers":true}"#);
        publisher.send(b"HPUB head r 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n");
        publisher.send(b"PUB head 2\r\nhi\r\n");
        for (i, conn) in subscribers.iter_mut().enumerate() {
            conn.expect(match i % 2 {
                0 => b"HMSG head 1 r 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n",
                _ => b"MSG head 1 r 5\r\nhello\r\n",
            });
            conn.expect(b"MSG head 1 2\r\nhi\r\n");
        }
    }
}
