//! What a message costs from the publisher's bytes to the subscribers' queues: parse, cached match,
//! delivery, and draining into a socket that takes everything. Counted in deliveries.
//!
//! `cargo bench --bench encode`. Sockets are simulated, so no system call is in these numbers.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use midge::clock::Millis;
use midge::config::Options;
use midge::id::WorkerId;
use midge::log::Logger;
use midge::router::Router;
use midge::session::shard::{Shard, Shared};
use midge::wire::info::ServerInfo;

/// Publishes handed in at a time: what one read may bring.
const BATCH: usize = 100;
const NOW: Millis = Millis(1);

/// A shard with `count` subscribers and a publisher, whose slot is returned.
fn stage(count: usize, subscribe: &str) -> (Shard<u64>, u32) {
    let shared = Arc::new(Shared {
        router: Arc::new(Router::new()),
        log: Logger::callback(Box::new(|_, _| {})),
        info: ServerInfo {
            server_id: "NBENCH".into(),
            server_name: "bench".into(),
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
        options: Options::default(),
    });
    let mut shard = Shard::new(WorkerId(0), 1, shared, 1).expect("worker 0");
    let mut open = |setup: &str| {
        let slot = shard.open(0, None, NOW);
        feed(
            &mut shard,
            slot,
            b"CONNECT {\"verbose\":false,\"headers\":true}\r\n",
        );
        feed(&mut shard, slot, setup.as_bytes());
        slot
    };
    for _ in 0..count {
        open(subscribe);
    }
    let publisher = open("");
    (shard, publisher)
}

fn feed(shard: &mut Shard<u64>, slot: u32, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        at += shard.on_bytes(slot, &bytes[at..], NOW);
        while let Some(slot) = shard.next_dirty() {
            let drained: Result<(), Infallible> = shard.flush_with(slot, NOW, |taken, slices| {
                let bytes = slices.iter().map(|slice| slice.len()).sum();
                *taken += bytes as u64;
                Ok(Some(bytes))
            });
            let Ok(()) = drained;
        }
        shard.flushed();
    }
}

fn deliver(c: &mut Criterion) {
    let mut group = c.benchmark_group("deliver");
    for receivers in [0, 1, 16, 256] {
        for bytes in [16, 1024] {
            let (mut shard, publisher) = stage(receivers, "SUB plant.line7.temperature 1\r\n");
            let frame = format!(
                "PUB plant.line7.temperature {bytes}\r\n{}\r\n",
                "x".repeat(bytes)
            );
            let chunk = frame.repeat(BATCH).into_bytes();
            group.throughput(Throughput::Elements((BATCH * receivers.max(1)) as u64));
            group.bench_function(BenchmarkId::new(format!("1:{receivers}"), bytes), |b| {
                b.iter(|| feed(&mut shard, publisher, black_box(&chunk)));
            });
        }
    }
    let cases = [
        (
            "queue group of 4",
            4,
            "SUB plant.*.temperature q 1\r\n",
            "PUB plant.line7.temperature 5\r\nhello\r\n",
        ),
        (
            "wildcards",
            4,
            "SUB plant.> 1\r\n",
            "PUB plant.line7.temperature 5\r\nhello\r\n",
        ),
        (
            "headers",
            4,
            "SUB plant.> 1\r\n",
            "HPUB plant.t 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
        ),
    ];
    for (name, receivers, subscribe, frame) in cases {
        let (mut shard, publisher) = stage(receivers, subscribe);
        let chunk = frame.repeat(BATCH).into_bytes();
        let copies = if name.starts_with("queue") {
            1
        } else {
            receivers
        };
        group.throughput(Throughput::Elements((BATCH * copies) as u64));
        group.bench_function(name, |b| {
            b.iter(|| feed(&mut shard, publisher, black_box(&chunk)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20);
    targets = deliver
}
criterion_main!(benches);
