//! What the hot path asks of the allocator, and what a client can make the server keep.
//!
//! Counted is every `alloc`, `alloc_zeroed` and `realloc` of this thread while a shard takes bytes
//! in, routes, delivers, and its output is drained through `flush_with` into a sink, after warm-up;
//! frames that were cut at the end of a read included. For all traffic below that is zero.
//!
//! Not zero, by design: a message of 8 KiB and more for several subscribers (one shared copy), a
//! header block that is taken off for a subscriber without headers, a publish in an unusual
//! spelling, a frame above 32 KiB that was cut, a subject that misses the match cache.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use midge::clock::Millis;
use midge::config::Options;
use midge::id::WorkerId;
use midge::log::Logger;
use midge::router::Router;
use midge::session::shard::{Shard, Shared};
use midge::wire::info::ServerInfo;

/// Hands everything to the system's allocator and counts, each thread for itself.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    // At the end of a thread there is nothing to count with any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = LIVE_BYTES.try_with(|count| count.set(count.get() + bytes));
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(1, bytes as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn live_bytes() -> i64 {
    LIVE_BYTES.with(Cell::get)
}

/// A shard whose sockets take everything and count it.
struct Stage {
    shard: Shard<u64>,
    now: Millis,
}

impl Stage {
    fn new(workers: u16) -> Stage {
        let options = Options::default();
        let shared = Arc::new(Shared {
            router: Arc::new(Router::new()),
            log: Logger::callback(Box::new(|_, _| {})),
            info: ServerInfo {
                server_id: "NTEST".into(),
                server_name: "test".into(),
                nats_version: "2.2.0",
                midge_version: "0",
                revision: "",
                host: "127.0.0.1".into(),
                port: 4222,
                auth_required: false,
                max_payload: 1024 * 1024,
            },
            last_conn: AtomicU64::new(0),
            is_lame_duck: AtomicBool::new(false),
            options,
        });
        Stage {
            shard: Shard::new(WorkerId(0), workers, shared, 1).unwrap(),
            now: Millis(1),
        }
    }

    /// A connection that has sent `setup`.
    fn client(&mut self, setup: &str) -> u32 {
        let slot = self.shard.open(0, None, self.now);
        self.feed(slot, b"CONNECT {\"verbose\":false,\"headers\":true}\r\n");
        self.feed(slot, setup.as_bytes());
        slot
    }

    /// Hands bytes in and drains all output, as a turn does.
    fn feed(&mut self, slot: u32, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.shard.on_bytes(slot, &bytes[at..], self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(slot) = self.shard.next_dirty() {
            let drained: Result<(), Infallible> =
                self.shard.flush_with(slot, self.now, |taken, slices| {
                    let bytes = slices.iter().map(|slice| slice.len()).sum();
                    *taken += bytes as u64;
                    Ok(Some(bytes))
                });
            let Ok(()) = drained;
        }
        while let Some(slot) = self.shard.next_closing() {
            self.shard.remove(slot);
        }
        self.shard.flushed();
    }
}

/// Feeds `stream` again and again in reads of `read_bytes`, and returns what that allocated after
/// warm-up and how many messages were delivered.
fn measure(stage: &mut Stage, slot: u32, stream: &[u8], read_bytes: usize) -> (u64, u64) {
    let round = |stage: &mut Stage| {
        for read in stream.chunks(read_bytes) {
            stage.feed(slot, read);
        }
    };
    for _ in 0..20 {
        round(stage);
    }
    let delivered = |stage: &Stage| stage.shard.counters().traffic.out_msgs;
    let before = delivered(stage);
    let start = allocations();
    for _ in 0..100 {
        round(stage);
    }
    let spent = allocations() - start;
    (spent, delivered(stage) - before)
}

fn publishes(count: usize, frame: &str) -> Vec<u8> {
    frame.repeat(count).into_bytes()
}

/// The sizes in which a socket may hand bytes over: whole, and cut within frames.
const READS: [usize; 4] = [64 * 1024, 4096, 1000, 61];

fn assert_none(name: &str, setups: &[&str], frame: &str, deliveries: u64) {
    for read_bytes in READS {
        let mut stage = Stage::new(1);
        for setup in setups {
            stage.client(setup);
        }
        let publisher = stage.client("");
        let stream = publishes(200, frame);
        let (spent, delivered) = measure(&mut stage, publisher, &stream, read_bytes);
        assert_eq!(delivered, 100 * 200 * deliveries, "{name}: delivered");
        assert_eq!(spent, 0, "{name}: allocations, reads of {read_bytes}");
    }
}

#[test]
fn one_to_one() {
    assert_none("128 B", &["SUB foo 1\r\n"], &pub_of("foo", 128), 1);
    assert_none("0 B", &["SUB foo 1\r\n"], &pub_of("foo", 0), 1);
    assert_none("4 KB", &["SUB foo 1\r\n"], &pub_of("foo", 4096), 1);
    let frame = "PUB foo _INBOX.abc.1 5\r\nhello\r\n";
    assert_none("with reply", &["SUB foo 1\r\n"], frame, 1);
}

#[test]
fn one_to_sixteen() {
    assert_none("fan-out", &["SUB foo 1\r\n"; 16], &pub_of("foo", 128), 16);
}

#[test]
fn a_queue_group() {
    assert_none("queue", &["SUB foo q 1\r\n"; 5], &pub_of("foo", 128), 1);
}

#[test]
fn wildcards_in_the_cache() {
    let setups = ["SUB plant.*.temperature 1\r\nSUB plant.> 2\r\n"; 2];
    let frame = pub_of("plant.line-seven.temperature", 64);
    assert_none("wildcard", &setups, &frame, 4);
    let long = pub_of(
        "plant.line-seven.with-a-name-that-does-not-fit-in-place.temperature",
        64,
    );
    assert_none("long subject", &setups, &long, 2);
}

#[test]
fn headers_to_subscribers_that_want_them() {
    let frame = "HPUB foo 12 17\r\nNATS/1.0\r\n\r\nhello\r\n";
    assert_none("headers", &["SUB foo 1\r\n"; 2], frame, 2);
}

#[test]
fn nobody_listens() {
    assert_none("nobody", &["SUB bar 1\r\n"], &pub_of("foo", 128), 0);
}

#[test]
fn requests_and_pings() {
    let mut stage = Stage::new(1);
    let publisher = stage.client("SUB _INBOX.me.* 1\r\n");
    let stream = publishes(100, "PUB _INBOX.me.1 2\r\nhi\r\nPING\r\nPONG\r\n");
    let (spent, delivered) = measure(&mut stage, publisher, &stream, 1000);
    assert_eq!((spent, delivered), (0, 10_000));
}

/// The counter works: what is known to allocate is seen.
#[test]
fn the_counter_counts() {
    let start = allocations();
    drop(std::hint::black_box(Vec::<u8>::with_capacity(10)));
    assert_eq!(allocations() - start, 1);
    let mut stage = Stage::new(1);
    stage.client("SUB foo 1\r\n");
    let publisher = stage.client("");
    let (spent, _) = measure(&mut stage, publisher, b"PUB  foo 2\r\nhi\r\n", 1000);
    assert_eq!(spent, 100, "one for each publish in an unusual spelling");
}

fn pub_of(subject: &str, bytes: usize) -> String {
    format!("PUB {subject} {bytes}\r\n{}\r\n", "x".repeat(bytes))
}

/// What one connection may make a worker keep that has nothing queued for it.
const KEPT_BYTES_MAX: i64 = 1024 * 1024;

/// Feeds `stream` many times and looks at what is kept at the end.
fn assert_bounded(name: &str, stream: &[u8], read_bytes: usize, rounds: usize) {
    let mut stage = Stage::new(2);
    let slot = stage.client("");
    let before = live_bytes();
    let mut most = 0;
    for _ in 0..rounds {
        for read in stream.chunks(read_bytes) {
            stage.feed(slot, read);
            most = most.max(live_bytes() - before);
        }
    }
    assert!(most < KEPT_BYTES_MAX, "{name}: {most} bytes were kept");
}

#[test]
fn floods_leave_nothing_behind() {
    let connects = "CONNECT {\"verbose\":true,\"name\":\"flood\"}\r\n".repeat(1000);
    assert_bounded("CONNECT", connects.as_bytes(), 64 * 1024, 100);
    let churn = "SUB a.b.c 1\r\nUNSUB 1\r\nSUB a.* q 2\r\nUNSUB 2\r\n".repeat(1000);
    assert_bounded("SUB and UNSUB", churn.as_bytes(), 64 * 1024, 20);
    assert_bounded(
        "blanks",
        &b"PUB"
            .iter()
            .chain(&[b' '; 5000])
            .copied()
            .collect::<Vec<u8>>(),
        7,
        1,
    );
    assert_bounded(
        "PING with an endless tail",
        &[b"PING", &[b'x'; 60_000][..]].concat(),
        1000,
        1,
    );
    assert_bounded("blanks without end", &[b' '; 60_000], 1000, 10);
    let announced = format!("PUB foo 1000000\r\n{}", "x".repeat(1000));
    assert_bounded(
        "a large message that does not come",
        announced.as_bytes(),
        100,
        1,
    );
    let subjects: String = (0..40_000)
        .map(|n| format!("PUB some.{n} 0\r\n\r\n"))
        .collect();
    let mut stage = Stage::new(1);
    let slot = stage.client("");
    let before = live_bytes();
    for _ in 0..3 {
        stage.feed(slot, subjects.as_bytes());
    }
    let kept = live_bytes() - before;
    assert!(kept < 20 * 1024 * 1024, "the match cache has {kept} bytes");
}

/// A consumer that is blocked and free again all the time, as every busy one is, costs the same
/// after a million times as after ten.
#[test]
fn a_consumer_that_is_blocked_now_and_then_costs_no_memory() {
    let mut stage = Stage::new(1);
    let reader = stage.client("SUB foo 1\r\n");
    let publisher = stage.client("");
    let frame = pub_of("foo", 100);
    let mut before = 0;
    for round in 0..50_000 {
        if round == 100 {
            before = live_bytes();
        }
        stage.shard.on_bytes(publisher, frame.as_bytes(), stage.now);
        while stage.shard.next_dirty().is_some() {}
        for is_free in [false, true] {
            let drained: Result<(), Infallible> =
                stage.shard.flush_with(reader, stage.now, |_, slices| {
                    let bytes = slices.iter().map(|slice| slice.len()).sum();
                    Ok(is_free.then_some(bytes))
                });
            let Ok(()) = drained;
        }
        stage.shard.flushed();
    }
    let kept = live_bytes() - before;
    assert!(kept < 64 * 1024, "{kept} bytes more");
}
