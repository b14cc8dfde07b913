//! What routing costs: cached and not, literal and wildcard, beside up to a million subscriptions;
//! publishing to a callback and to a queue; and, printed first, bytes per subscription.
//!
//! `cargo bench --bench route`. Subject order is random but the same in every run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use midge::router::{
    Batch, LocalOptions, MatchCache, Matches, Message, Overflow, Owner, Publisher, QueueLimits,
    Rng, Router, Target,
};

/// Counts live bytes, with what the allocator is asked for rounded as glibc does.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn rounded(layout: &Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(rounded(&layout), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(rounded(&layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn target(key: u32) -> Target {
    Target::new(Owner::port(0).expect("0 is a port"), 1, key)
}

/// A literal subject of about 25 bytes.
fn literal(key: u32) -> String {
    format!("plant.line{:04}.cell{key:07}", key % 1000)
}

/// 87 % literal, 9 % `*`, 4 % `>`.
fn mixed(key: u32) -> String {
    match key % 100 {
        0..87 => literal(key),
        87..96 => format!("plant.*.cell{key:07}"),
        _ => format!("site.{key:07}.>"),
    }
}

fn filled(count: u32, subject: fn(u32) -> String) -> Router {
    let router = Router::new();
    for key in 0..count {
        router
            .subscribe(subject(key).as_bytes(), None, target(key))
            .expect("valid");
    }
    router
}

fn report_memory(_: &mut Criterion) {
    for (name, subject) in [("literal", literal as fn(u32) -> String), ("mixed", mixed)] {
        let before = LIVE_BYTES.load(Ordering::Relaxed);
        let router = Router::new();
        let mut places = Vec::with_capacity(1_000_000);
        let mut spent = Duration::ZERO;
        let mut longest = Duration::ZERO;
        for key in 0..1_000_000 {
            let subject = subject(key);
            let start = Instant::now();
            let place = router
                .subscribe(subject.as_bytes(), None, target(key))
                .expect("valid");
            let took = start.elapsed();
            spent += took;
            longest = longest.max(took);
            places.push((place, target(key)));
        }
        let own = places.capacity() * size_of_val(&places[0]);
        let full = LIVE_BYTES.load(Ordering::Relaxed) - before - own;
        println!(
            "memory/{name}: {:.1} B a subscription at 1,000,000; subscribe {} ns, longest {} us",
            full as f64 / 1e6,
            spent.as_nanos() / 1_000_000,
            longest.as_micros()
        );
        let start = Instant::now();
        router.unsubscribe_all(places.iter().copied());
        let took = start.elapsed();
        drop(places);
        let left = LIVE_BYTES.load(Ordering::Relaxed) - before;
        println!(
            "memory/{name}: {left} B left; unsubscribe {} ns",
            took.as_nanos() / 1_000_000
        );
    }
}

fn cached(c: &mut Criterion) {
    let mut group = c.benchmark_group("cached");
    for (name, published) in [
        ("literal", literal(77)),
        ("wildcard", "site.0000099.a".to_owned()),
        ("none", "no.no".to_owned()),
    ] {
        let router = filled(1000, mixed);
        let mut cache = MatchCache::new();
        for _ in 0..3 {
            cache.lookup(&router, published.as_bytes());
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..1000 {
            black_box(
                cache
                    .lookup(&router, black_box(published.as_bytes()))
                    .plain
                    .len(),
            );
        }
        assert_eq!(
            ALLOCATIONS.load(Ordering::Relaxed),
            allocations,
            "a hit allocates nothing"
        );
        group.bench_function(name, |b| {
            b.iter(|| {
                cache
                    .lookup(&router, black_box(published.as_bytes()))
                    .plain
                    .len()
            });
        });
    }
    // In random order, all of them in the cache.
    let router = filled(4000, literal);
    let subjects: Vec<String> = (0..4000).map(literal).collect();
    let mut cache = MatchCache::new();
    let mut rng = Rng::new(1);
    for _ in 0..1_000_000 {
        cache.lookup(&router, subjects[rng.below(4000) as usize].as_bytes());
    }
    group.bench_function("4000 literals in random order", |b| {
        b.iter(|| {
            let subject = &subjects[rng.below(4000) as usize];
            cache.lookup(&router, subject.as_bytes()).plain.len()
        });
    });
}

fn uncached(c: &mut Criterion) {
    let mut group = c.benchmark_group("uncached");
    for (name, subject) in [("literal", literal as fn(u32) -> String), ("mixed", mixed)] {
        for count in [1000, 100_000, 1_000_000] {
            let router = filled(count, subject);
            let mut rng = Rng::new(2);
            let published: Vec<String> = (0..1 << 16).map(|_| literal(rng.below(count))).collect();
            let mut matches = Matches::default();
            let mut next = 0;
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    next = (next + 1) % published.len();
                    router.matches(published[next].as_bytes(), &mut matches);
                    matches.plain.len()
                });
            });
            let mut cache = MatchCache::new();
            group.bench_function(
                BenchmarkId::new(format!("{name} through a cache"), count),
                |b| {
                    b.iter(|| {
                        next = (next + 1) % published.len();
                        cache
                            .lookup(&router, published[next].as_bytes())
                            .plain
                            .len()
                    });
                },
            );
        }
    }
}

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish");
    let message = |subject| Message {
        subject,
        payload: &[7; 64],
        ..Message::default()
    };
    let router = Arc::new(Router::new());
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let callback = LocalOptions::callback(move |message, _| {
        counter.store(message.payload.len(), Ordering::Relaxed);
    });
    let _callback = router
        .subscribe_local(b"sensors.kiln1.t", None, callback)
        .expect("valid");
    let mut publisher = Publisher::new(&router);
    let subject = black_box(&b"sensors.kiln1.t"[..]);
    group.bench_function("one callback", |b| {
        b.iter(|| publisher.publish(&message(subject)))
    });
    let nowhere = black_box(&b"sensors.kiln2.t"[..]);
    group.bench_function("no match", |b| {
        b.iter(|| publisher.publish(&message(nowhere)))
    });

    let limits = QueueLimits {
        messages: 1000,
        bytes: 1 << 20,
    };
    let queue = router
        .subscribe_local(
            b"queue",
            None,
            LocalOptions::queue(limits, Overflow::Refuse),
        )
        .expect("valid");
    let mut batch = Batch::default();
    group.bench_function("queue, taken by 64", |b| {
        let mut pushed = 0;
        b.iter(|| {
            publisher.publish(&message(black_box(b"queue")));
            pushed += 1;
            if pushed % 64 == 0 {
                queue
                    .queue()
                    .map(|queue| queue.take(&mut batch, Duration::ZERO));
                black_box(
                    batch
                        .iter()
                        .map(|message| message.payload.len())
                        .sum::<usize>(),
                );
            }
        });
    });

    let answer = LocalOptions::callback(move |request: &Message<'_>, outbox| {
        let subject = request.reply.unwrap_or_default();
        outbox.publish(&Message {
            subject,
            payload: request.payload,
            ..Message::default()
        });
    });
    let _responder = router.subscribe_local(b"ask", None, answer).expect("valid");
    let counter = seen.clone();
    let inbox = LocalOptions::callback(move |message, _| {
        counter.store(message.payload.len(), Ordering::Relaxed);
    });
    let _inbox = router
        .subscribe_local(b"_INBOX.me.*", None, inbox)
        .expect("valid");
    group.bench_function("request and reply, inline", |b| {
        let mut request = 0u32;
        b.iter(|| {
            request += 1;
            let mut reply = *b"_INBOX.me.00000000";
            for (at, byte) in reply[10..].iter_mut().enumerate() {
                *byte = b'a' + (request >> (4 * at) & 15) as u8;
            }
            publisher.publish(&Message {
                reply: Some(&reply),
                ..message(black_box(b"ask"))
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = report_memory, cached, uncached, publish
}
criterion_main!(benches);
