//! In-process subscriptions: callbacks, queues with each policy, ports, and callbacks that publish
//! and unsubscribe themselves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::router::local::NESTED_CALLS_MAX;
use crate::router::publisher::{NESTED_ROUNDS_MAX, OUTBOX_BYTES_MAX};
use crate::router::{
    Batch, LocalHandle, LocalOptions, Message, Outbox, Overflow, Port, Publisher, QueueLimits,
};

type Log = Arc<Mutex<Vec<String>>>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn message<'a>(subject: &'a str, payload: &'a str) -> Message<'a> {
    Message {
        subject: subject.as_bytes(),
        payload: payload.as_bytes(),
        ..Message::default()
    }
}

/// Subscribes a callback that writes down "name subject payload".
fn logged(router: &Arc<Router>, subject: &str, queue: Option<&[u8]>, log: &Log) -> LocalHandle {
    let (log, name) = (log.clone(), subject.to_owned());
    let callback = LocalOptions::callback(move |message, _| {
        let line = format!("{name} {} {}", text(message.subject), text(message.payload));
        log.lock().unwrap().push(line);
    });
    router
        .subscribe_local(subject.as_bytes(), queue, callback)
        .unwrap()
}

fn taken(log: &Log) -> Vec<String> {
    let mut lines = std::mem::take(&mut *log.lock().unwrap());
    lines.sort();
    lines
}

#[test]
fn callbacks_get_what_they_subscribed_to_until_they_unsubscribe() {
    let router = Arc::new(Router::new());
    let log = Log::default();
    let literal = logged(&router, "a.b", None, &log);
    let wildcard = logged(&router, "a.*", None, &log);
    let mut publisher = Publisher::new(&router);
    for _ in 0..4 {
        assert_eq!(publisher.publish(&message("a.b", "1")), 2);
        assert_eq!(taken(&log), ["a.* a.b 1", "a.b a.b 1"]);
    }
    assert_eq!(publisher.publish(&message("a..b", "1")), 0);
    assert!(literal.unsubscribe());
    assert!(!literal.unsubscribe(), "twice");
    assert_eq!(publisher.publish(&message("a.b", "2")), 1);
    drop(wildcard);
    assert_eq!(publisher.publish(&message("a.b", "3")), 0);
    assert_eq!(taken(&log), ["a.* a.b 2"]);
    logged(&router, "kept", None, &log).detach();
    assert_eq!(publisher.publish(&message("kept", "4")), 1);
    drop(literal);
    assert_eq!(router.stats().locals, 1);
}

#[test]
fn one_member_of_a_group_gets_each_message_and_ports_take_part() {
    struct Counter(Mutex<Vec<Target>>);
    impl Port for Counter {
        fn post(&self, targets: &[Target], _: Option<&[u8]>, message: &Message<'_>) -> usize {
            assert_eq!(message.payload, b"x");
            self.0.lock().unwrap().extend_from_slice(targets);
            targets.len()
        }
    }
    let router = Arc::new(Router::new());
    let log = Log::default();
    let _members = [
        logged(&router, "w", Some(b"q"), &log),
        logged(&router, "*", Some(b"q"), &log),
    ];
    let plain = logged(&router, "w", None, &log);
    router.subscribe(b"w", Some(b"q"), target(1)).unwrap();
    router.subscribe(b"w", None, target(2)).unwrap();
    router.subscribe(b"w", None, target(3)).unwrap();
    let port = Arc::new(Counter(Mutex::default()));
    let mut publisher = Publisher::new(&router);
    // No port yet: the plain callback and one callback of the group.
    assert_eq!(publisher.publish(&message("w", "x")), 2);
    assert_eq!(taken(&log).len(), 2);
    router.set_port(Owner::port(0).unwrap(), Some(port.clone()));
    for _ in 0..3000 {
        assert_eq!(publisher.publish(&message("w", "x")), 4);
    }
    let posted = std::mem::take(&mut *port.0.lock().unwrap());
    let to = |key| posted.iter().filter(|posted| posted.key() == key).count();
    assert_eq!((to(2), to(3)), (3000, 3000));
    assert!((800..1200).contains(&to(1)), "{} of about 1000", to(1));
    assert_eq!(taken(&log).len(), 3000 + 3000 - to(1));
    drop(plain);
    router.set_port(Owner::port(0).unwrap(), None);
    assert_eq!(
        publisher.publish(&message("w", "x")),
        1,
        "the group, in spite of a dead port"
    );
}

#[test]
fn what_a_callback_publishes_follows_in_order_for_everybody() {
    let router = Arc::new(Router::new());
    let log = Log::default();
    let asker = LocalOptions::callback(|message: &Message<'_>, outbox| {
        let Some(subject) = message.reply else { return };
        for payload in [b"one", b"two"] {
            assert!(outbox.publish(&Message {
                subject,
                payload,
                ..Message::default()
            }));
        }
    });
    let _asker = router.subscribe_local(b"ask", None, asker).unwrap();
    let order = log.clone();
    let all = LocalOptions::callback(move |message, _| {
        order.lock().unwrap().push(format!(
            "{} {}",
            text(message.subject),
            text(message.payload)
        ));
    });
    let _all = router.subscribe_local(b">", None, all).unwrap();
    let mut publisher = Publisher::new(&router);
    let request = Message {
        reply: Some(b"inbox"),
        ..message("ask", "?")
    };
    assert_eq!(publisher.publish(&request), 2);
    assert_eq!(*log.lock().unwrap(), ["ask ?", "inbox one", "inbox two"]);
}

#[test]
fn callbacks_that_answer_each_other_for_ever_come_to_an_end() {
    let router = Arc::new(Router::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let echo = LocalOptions::callback(move |message, outbox| {
        counter.fetch_add(1, Ordering::Relaxed);
        outbox.publish(message);
    });
    let _echo = router.subscribe_local(b"echo", None, echo).unwrap();
    let mut publisher = Publisher::new(&router);
    publisher.publish(&message("echo", "x"));
    assert_eq!(calls.load(Ordering::Relaxed), NESTED_ROUNDS_MAX + 1);
    assert_eq!(router.stats().nested_dropped, 1);
    publisher.publish(&message("echo", "x"));
    assert_eq!(router.stats().nested_dropped, 2, "the outbox starts afresh");
}

/// Headers weigh as much as payload.
#[test]
fn an_outbox_is_bounded_by_all_bytes_of_its_messages() {
    let headers = vec![b'h'; OUTBOX_BYTES_MAX / 2];
    let message = Message {
        subject: b"a",
        headers: &headers,
        ..Message::default()
    };
    let mut outbox = Outbox::new();
    assert!(outbox.publish(&message));
    assert!(
        !outbox.publish(&message),
        "with subject and lengths too much"
    );
}

#[test]
fn callbacks_with_publishers_of_their_own_nest_up_to_a_bound() {
    let router = Arc::new(Router::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, weak) = (calls.clone(), Arc::downgrade(&router));
    let nested = LocalOptions::callback(move |message, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(router) = weak.upgrade() {
            Publisher::new(&router).publish(message);
        }
    });
    let _nested = router.subscribe_local(b"deep", None, nested).unwrap();
    Publisher::new(&router).publish(&message("deep", "x"));
    assert_eq!(calls.load(Ordering::Relaxed), NESTED_CALLS_MAX as usize);
    assert_eq!(router.stats().nested_dropped, 1);
}

/// A callback ends its own subscription and makes another one, from inside.
#[test]
fn a_callback_may_subscribe_and_unsubscribe() {
    let router = Arc::new(Router::new());
    let log = Log::default();
    let slot: Arc<Mutex<Option<LocalHandle>>> = Arc::default();
    let (weak, own, inner) = (Arc::downgrade(&router), slot.clone(), log.clone());
    let once = LocalOptions::callback(move |_, _| {
        let handle = own.lock().unwrap().take();
        assert!(handle.unwrap().unsubscribe());
        logged(&weak.upgrade().unwrap(), "a", None, &inner).detach();
    });
    *slot.lock().unwrap() = Some(router.subscribe_local(b"a", None, once).unwrap());
    let mut publisher = Publisher::new(&router);
    assert_eq!(publisher.publish(&message("a", "1")), 1);
    assert_eq!(publisher.publish(&message("a", "2")), 1);
    assert_eq!(taken(&log), ["a a 2"]);
}

pub(super) fn queue_of(router: &Arc<Router>, messages: usize, overflow: Overflow) -> LocalHandle {
    let limits = QueueLimits {
        messages,
        bytes: 1000,
    };
    router
        .subscribe_local(b"q", None, LocalOptions::queue(limits, overflow))
        .unwrap()
}

pub(super) fn payloads(handle: &LocalHandle) -> Vec<String> {
    let pop = || handle.queue().unwrap().try_pop();
    std::iter::from_fn(pop)
        .map(|owned| text(owned.message().payload))
        .collect()
}

#[test]
fn a_full_queue_does_what_its_policy_says() {
    let router = Arc::new(Router::new());
    let mut publisher = Publisher::new(&router);
    let soon = Duration::from_millis(1);
    for (overflow, expected, copies, dropped) in [
        (Overflow::DropOldest, ["2", "3"], 4, 2),
        (Overflow::DropNewest, ["0", "1"], 4, 2),
        (Overflow::Block(soon), ["0", "1"], 4, 2),
        (Overflow::Refuse, ["0", "1"], 2, 2),
    ] {
        let handle = queue_of(&router, 2, overflow);
        let payloads_in = ["0", "1", "2", "3"];
        let sum: usize = payloads_in
            .iter()
            .map(|p| publisher.publish(&message("q", p)))
            .sum();
        assert_eq!(sum, copies, "{overflow:?}");
        assert_eq!(handle.queue().unwrap().dropped(), dropped, "{overflow:?}");
        assert_eq!(payloads(&handle), expected, "{overflow:?}");
        // Bytes bound it as well, and a message beyond them all is never taken.
        let big = "x".repeat(400);
        for _ in 0..3 {
            publisher.publish(&message("q", &big));
        }
        assert_eq!(handle.queue().unwrap().len(), 2, "{overflow:?}");
        publisher.publish(&message("q", &"x".repeat(2000)));
        assert_eq!(handle.queue().unwrap().len(), 2, "{overflow:?}");
    }
}

/// A queue of one, one that refuses: the group's other member gets the rest.
#[test]
fn a_group_goes_on_to_the_next_member_when_a_queue_refuses() {
    let router = Arc::new(Router::new());
    let log = Log::default();
    let limits = QueueLimits {
        messages: 1,
        bytes: 1000,
    };
    let options = LocalOptions::queue(limits, Overflow::Refuse);
    let queue = router.subscribe_local(b"w", Some(b"g"), options).unwrap();
    let _other = logged(&router, "w", Some(b"g"), &log);
    let mut publisher = Publisher::new(&router);
    for _ in 0..200 {
        assert_eq!(publisher.publish(&message("w", "x")), 1);
    }
    assert_eq!(queue.queue().unwrap().len(), 1);
    assert_eq!(taken(&log).len(), 199);
}

#[test]
fn a_blocked_publisher_goes_on_when_a_reader_makes_room() {
    const COUNT: usize = 10_000;
    let router = Arc::new(Router::new());
    let handle = queue_of(&router, 7, Overflow::Block(Duration::from_secs(60)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Publisher::new(&router);
            for n in 0..COUNT {
                assert_eq!(publisher.publish(&message("q", &n.to_string())), 1);
            }
        });
        let queue = handle.queue().unwrap();
        let (mut batch, mut next) = (Batch::default(), 0);
        while next < COUNT {
            if next % 3 == 0 {
                let owned = queue.pop(Duration::from_secs(60)).unwrap();
                assert_eq!(text(owned.message().payload), next.to_string());
                next += 1;
            } else {
                assert!(queue.take(&mut batch, Duration::from_secs(60)) > 0);
                for message in batch.iter() {
                    assert_eq!(text(message.payload), next.to_string());
                    next += 1;
                }
            }
        }
        assert_eq!(queue.dropped(), 0);
    });
}

#[test]
fn the_end_of_a_subscription_wakes_its_reader_and_leaves_it_the_rest() {
    let router = Arc::new(Router::new());
    let handle = queue_of(&router, 10, Overflow::DropNewest);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let queue = handle.queue().unwrap();
            std::iter::from_fn(|| queue.pop(Duration::from_secs(60))).count()
        });
        Publisher::new(&router).publish(&message("q", "x"));
        handle.unsubscribe();
        assert_eq!(reader.join().unwrap(), 1);
    });
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "woken, not timed out"
    );
}

#[test]
fn a_message_comes_out_of_a_queue_as_it_went_in() {
    let router = Arc::new(Router::new());
    let signals = Arc::new(AtomicUsize::new(0));
    let counter = signals.clone();
    let options =
        LocalOptions::queue_with_signal(QueueLimits::default(), Overflow::Refuse, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
    let handle = router.subscribe_local(b">", None, options).unwrap();
    let mut publisher = Publisher::new(&router);
    let sent = [
        Message {
            subject: b"a",
            reply: None,
            headers: b"",
            payload: b"",
        },
        Message {
            subject: b"a.b",
            reply: Some(b""),
            headers: b"NATS/1.0\r\n\r\n",
            payload: b"p",
        },
        Message {
            subject: b"c",
            reply: Some(b"r"),
            headers: b"",
            payload: &[0, 255, 13],
        },
    ];
    for message in &sent {
        assert_eq!(publisher.publish(message), 1);
    }
    let mut batch = Batch::default();
    assert_eq!(handle.queue().unwrap().take(&mut batch, Duration::ZERO), 3);
    assert_eq!(batch.iter().collect::<Vec<_>>(), sent);
    assert_eq!(signals.load(Ordering::Relaxed), 1);
    publisher.publish(&sent[0]);
    assert_eq!(signals.load(Ordering::Relaxed), 2, "empty in between");
    while let Some(front) = batch.front() {
        assert_eq!(front, sent[3 - batch.len()]);
        batch.advance();
    }
}

/// Publishers on several threads while callbacks come and go: after `unsubscribe` returned and the
/// publishers went on to another message, the callback is not called again.
#[test]
fn an_ended_callback_is_not_called_by_later_publishes_on_any_thread() {
    let router = Arc::new(Router::new());
    let stop = AtomicBool::new(false);
    let copies = AtomicUsize::new(0);
    let steady = Arc::new(AtomicUsize::new(0));
    let counter = steady.clone();
    let count = LocalOptions::callback(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let _steady = router.subscribe_local(b"s.*", None, count).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _stop = StopOnDrop(&stop);
                let mut publisher = Publisher::new(&router);
                while !stop.load(Ordering::Acquire) {
                    assert!(publisher.publish(&message("s.t", "x")) >= 1);
                    copies.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        let mut own = Publisher::new(&router);
        for _ in 0..3000 {
            let calls = Arc::new(AtomicUsize::new(0));
            let counter = calls.clone();
            let callback = LocalOptions::callback(move |_, _| {
                counter.fetch_add(1, Ordering::Relaxed);
            });
            let handle = router.subscribe_local(b"s.t", None, callback).unwrap();
            assert_eq!(own.publish(&message("s.t", "x")), 2);
            assert!(calls.load(Ordering::Relaxed) >= 1);
            assert!(handle.unsubscribe());
            assert_eq!(own.publish(&message("s.t", "x")), 1);
        }
    });
    assert_eq!(
        steady.load(Ordering::Relaxed),
        copies.load(Ordering::Relaxed) + 6000
    );
    assert_eq!(router.stats().locals, 1);
}
