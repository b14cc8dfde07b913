//! How in-process subscriptions end: by a limit, by their handle, and what is let go then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::local::{message, payloads, queue_of};
use super::*;
use crate::router::local::NESTED_CALLS_MAX;
use crate::router::{LocalOptions, Overflow, Publisher, QueueLimits};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_subscription_ends_by_itself_after_its_last_message() {
    let router = Arc::new(Router::new());
    let queue = LocalOptions::queue(QueueLimits::default(), Overflow::Refuse).messages_max(3);
    let handle = router.subscribe_local(b"a", None, queue).unwrap();
    let mut publisher = Publisher::new(&router);
    let copies: usize = (0..10).map(|_| publisher.publish(&message("a", "x"))).sum();
    assert_eq!(copies, 3);
    assert_eq!(handle.queue().unwrap().len(), 3);
    assert_eq!(router.stats().subscriptions, 0);
    assert_eq!(router.stats().locals, 0);
}

/// The reader of a queue with a limit learns of the end: it does not wait for a message more.
#[test]
fn a_queue_closes_with_its_last_message() {
    let router = Arc::new(Router::new());
    let queue = LocalOptions::queue(QueueLimits::default(), Overflow::Refuse).messages_max(3);
    let handle = router.subscribe_local(b"a", None, queue).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let queue = handle.queue().unwrap();
            std::iter::from_fn(|| queue.pop(PATIENCE)).count()
        });
        let mut publisher = Publisher::new(&router);
        for _ in 0..3 {
            assert_eq!(publisher.publish(&message("a", "x")), 1);
        }
        assert_eq!(reader.join().unwrap(), 3);
    });
    assert!(started.elapsed() < PATIENCE, "closed, not timed out");
}

/// Several publishers at a time: neither a message too many nor one too few.
#[test]
fn a_limit_holds_for_all_threads_together() {
    const COUNT: usize = 1000;
    let router = Arc::new(Router::new());
    let limits = QueueLimits {
        messages: 7,
        bytes: 1000,
    };
    let options = LocalOptions::queue(limits, Overflow::Block(PATIENCE)).messages_max(COUNT);
    let handle = router.subscribe_local(b"a", None, options).unwrap();
    let (copies, calls) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counter = calls.clone();
    let options = LocalOptions::callback(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let _called = router.subscribe_local(b"a", None, options.messages_max(COUNT));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut publisher = Publisher::new(&router);
                for _ in 0..COUNT {
                    let taken = publisher.publish(&message("a", "x"));
                    copies.fetch_add(taken, Ordering::Relaxed);
                }
            });
        }
        let queue = handle.queue().unwrap();
        assert_eq!(std::iter::from_fn(|| queue.pop(PATIENCE)).count(), COUNT);
    });
    assert_eq!(calls.load(Ordering::Relaxed), COUNT);
    assert_eq!(copies.load(Ordering::Relaxed), 2 * COUNT);
    assert_eq!(router.stats().subscriptions, 0);
}

#[test]
fn a_message_that_is_not_taken_does_not_count_for_the_limit() {
    let router = Arc::new(Router::new());
    let mut publisher = Publisher::new(&router);
    let limits = QueueLimits {
        messages: 1,
        bytes: 1000,
    };
    let soon = Duration::from_millis(1);
    for overflow in [
        Overflow::Refuse,
        Overflow::DropNewest,
        Overflow::Block(soon),
    ] {
        let options = LocalOptions::queue(limits, overflow).messages_max(2);
        let handle = router.subscribe_local(b"a", None, options).unwrap();
        for payload in ["0", "1", "2"] {
            publisher.publish(&message("a", payload));
        }
        assert_eq!(payloads(&handle), ["0"], "{overflow:?}");
        assert_eq!(router.stats().locals, 1, "{overflow:?}");
        assert_eq!(publisher.publish(&message("a", "3")), 1, "{overflow:?}");
        assert_eq!(publisher.publish(&message("a", "4")), 0, "{overflow:?}");
        assert_eq!(payloads(&handle), ["3"], "{overflow:?}");
        assert_eq!(router.stats().locals, 0, "{overflow:?}");
    }
}

/// A callback that is nested too deep is not called, which does not use up its limit.
#[test]
fn a_call_that_is_nested_too_deep_does_not_count_for_the_limit() {
    let router = Arc::new(Router::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, weak) = (calls.clone(), Arc::downgrade(&router));
    let nested = LocalOptions::callback(move |message, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(router) = weak.upgrade() {
            Publisher::new(&router).publish(message);
        }
    });
    let calls_max = NESTED_CALLS_MAX as usize + 1;
    let nested = nested.messages_max(calls_max);
    let _nested = router.subscribe_local(b"deep", None, nested).unwrap();
    Publisher::new(&router).publish(&message("deep", "x"));
    assert_eq!(calls.load(Ordering::Relaxed), calls_max - 1);
    Publisher::new(&router).publish(&message("deep", "x"));
    assert_eq!(calls.load(Ordering::Relaxed), calls_max);
    assert_eq!(router.stats().locals, 0);
}

/// What a callback owns is dropped although publishers know it from earlier matches, both kept ones
/// and the last one.
#[test]
fn publishers_that_go_on_let_go_of_what_has_ended() {
    const SUBJECTS: usize = 2000;
    let router = Arc::new(Router::new());
    let owned = Arc::new(());
    let subscribe = |subject: &str| {
        let captured = owned.clone();
        let callback = LocalOptions::callback(move |_, _| {
            let _captured = &captured;
        });
        router
            .subscribe_local(subject.as_bytes(), None, callback)
            .unwrap()
    };
    let mut publisher = Publisher::new(&router);
    let literal = subscribe("a");
    for _ in 0..4 {
        assert_eq!(publisher.publish(&message("a", "x")), 1);
    }
    drop(literal);
    publisher.publish(&message("other", "x"));
    assert_eq!(Arc::strong_count(&owned), 1, "in an entry");

    let wildcard = subscribe("once.>");
    assert_eq!(publisher.publish(&message("once.a", "x")), 1);
    drop(wildcard);
    publisher.publish(&message("other", "x"));
    assert_eq!(Arc::strong_count(&owned), 1, "in the last match");

    let (ended, stays) = (subscribe("many.>"), subscribe("many.*"));
    for _ in 0..3 {
        for n in 0..SUBJECTS {
            assert_eq!(publisher.publish(&message(&format!("many.{n}"), "x")), 2);
        }
    }
    let entries = publisher.cache_stats().entries;
    drop(ended);
    for _ in 0..SUBJECTS {
        publisher.publish(&message("other", "x"));
    }
    assert_eq!(Arc::strong_count(&owned), 2, "in {entries} entries");
    let misses = publisher.cache_stats().misses;
    for _ in 0..SUBJECTS {
        assert_eq!(publisher.publish(&message("other", "x")), 0);
    }
    assert_eq!(publisher.cache_stats().misses, misses, "what holds is kept");
    drop(stays);
}

#[test]
fn a_dropped_handle_takes_what_is_queued_along() {
    let router = Arc::new(Router::new());
    let handle = queue_of(&router, 10, Overflow::Refuse);
    let mut publisher = Publisher::new(&router);
    assert_eq!(publisher.publish(&message("q", "x")), 1);
    let sub = handle.sub().clone();
    assert!(handle.unsubscribe());
    assert_eq!(sub.queue().unwrap().len(), 1, "can still be read");
    drop(handle);
    assert!(sub.queue().unwrap().is_empty());
}
