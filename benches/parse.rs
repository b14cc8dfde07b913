//! What reading costs: the client parser over one frame of each kind, and over 64 KiB of mixed
//! ones, counted in operations.
//!
//! `cargo bench --bench parse`. Short by default; `-- --measurement-time 5` for steadier numbers.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use midge::wire::parse::{Next, ParseLimits, next};

const LIMITS: ParseLimits = ParseLimits {
    args_bytes_max: 4096,
    payload_bytes_max: 1024 * 1024,
    has_headers: true,
};

fn publish(subject: &str, bytes: usize) -> Vec<u8> {
    format!("PUB {subject} {bytes}\r\n{}\r\n", "x".repeat(bytes)).into_bytes()
}

/// Walks over all frames and returns how many there are.
fn walk(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while !bytes.is_empty() {
        match next(black_box(bytes), &LIMITS) {
            Ok(Next::Op(op, used)) => {
                black_box(&op);
                bytes = &bytes[used..];
                count += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    count
}

fn one_frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let hpub = b"HPUB plant.line7.temperature 28 33\r\nNATS/1.0\r\nTrace: 0123456\r\n\r\nhello\r\n";
    let frames: [(&str, Vec<u8>); 9] = [
        ("PUB 16 B", publish("plant.line7.temperature", 16)),
        ("PUB 128 B", publish("plant.line7.temperature", 128)),
        ("PUB 1 KB", publish("plant.line7.temperature", 1024)),
        (
            "PUB with reply",
            b"PUB svc.sum _INBOX.a1b2c3d4e5f6g7h8i9j0k1.42 5\r\nhello\r\n".to_vec(),
        ),
        ("HPUB", hpub.to_vec()),
        ("SUB", b"SUB plant.*.temperature 17\r\n".to_vec()),
        (
            "SUB with queue",
            b"SUB plant.*.temperature workers 17\r\n".to_vec(),
        ),
        ("PING", b"PING\r\n".to_vec()),
        (
            "PUB, unusual blanks",
            b"PUB  plant.line7.temperature\t5\nhello\r\n".to_vec(),
        ),
    ];
    for (name, frame) in &frames {
        group.throughput(Throughput::Elements(1));
        group.bench_function(*name, |b| b.iter(|| walk(frame)));
    }
    group.finish();
}

fn mixed_chunk(c: &mut Criterion) {
    let mut bytes = Vec::new();
    let frames = [
        publish("plant.line7.temperature", 16),
        publish("plant.line12.pressure", 128),
        b"PUB svc.sum _INBOX.a1b2c3d4e5f6g7h8i9j0k1.42 5\r\nhello\r\n".to_vec(),
        b"HPUB orders.new 12 17\r\nNATS/1.0\r\n\r\nhello\r\n".to_vec(),
        b"SUB _INBOX.a1b2c3d4e5f6g7h8i9j0k1.* 3\r\n".to_vec(),
        b"PING\r\n".to_vec(),
        publish("logs.web.7", 512),
    ];
    for frame in frames.iter().cycle() {
        if bytes.len() + frame.len() > 64 * 1024 {
            break;
        }
        bytes.extend_from_slice(frame);
    }
    let mut group = c.benchmark_group("parse 64 KiB");
    group.throughput(Throughput::Elements(walk(&bytes)));
    group.bench_function("mixed", |b| b.iter(|| walk(&bytes)));
    let mut small = Vec::new();
    while small.len() < 64 * 1024 {
        small.extend_from_slice(&frames[0]);
    }
    group.throughput(Throughput::Elements(walk(&small)));
    group.bench_function("PUB 16 B", |b| b.iter(|| walk(&small)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    targets = one_frame, mixed_chunk
}
criterion_main!(benches);
