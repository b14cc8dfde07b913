//! Fuzzing on stable Rust: random inputs that know the grammar, from seeds that a failure prints.
//!
//! `MIDGE_FUZZ_SECONDS=n` spends that long in all (default 5); `MIDGE_FUZZ_SEED=n` repeats one
//! input of the failing test. The corpus is read as well. The same targets for coverage-guided
//! fuzzing are the package beside this file: `cargo +nightly fuzz run --fuzz-dir tests/fuzz parser`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod inputs;
#[path = "../sim/rng.rs"]
mod rng;
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use rng::Rng;

/// The test functions below, which share the time.
const TESTS: u32 = 6;

/// Says how to repeat an input that fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat it with MIDGE_FUZZ_SEED={}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

fn fuzz(name: &str, make: impl Fn(&mut Rng) -> Vec<u8>, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    if let Ok(entries) = folder.read_dir() {
        for path in entries.map(|entry| entry.unwrap().path()) {
            let data = std::fs::read(&path).unwrap();
            let announce = format!("{}", path.display());
            println!("{announce}");
            target(&data);
        }
    }
    let one = |seed: u64| {
        let _announce = Announce(seed);
        target(&make(&mut Rng::new(seed)));
    };
    if let Some(seed) = number("MIDGE_FUZZ_SEED") {
        return one(seed);
    }
    let all = Duration::from_secs(number("MIDGE_FUZZ_SECONDS").unwrap_or(5));
    let until = Instant::now() + all / TESTS;
    // Other inputs each day, the same for everybody on that day.
    let days = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
    let first = days << 32;
    let mut seed = first;
    // At least some, however slow the machine.
    while seed < first + 50 || Instant::now() < until {
        one(seed);
        seed += 1;
    }
    println!("{name}: {} inputs from seed {first}", seed - first);
}

#[test]
fn parser() {
    fuzz("parser", inputs::client_stream, targets::parser);
}

#[test]
fn connect() {
    fuzz("connect", inputs::connect_json, targets::connect);
}

#[test]
fn from_server() {
    fuzz("from_server", inputs::server_stream, targets::from_server);
}

#[test]
fn subjects() {
    fuzz("subjects", inputs::subjects, targets::subjects);
}

#[test]
fn mail() {
    fuzz("mail", inputs::mail, targets::mail);
}

#[test]
fn args() {
    fuzz("args", inputs::args, targets::args);
}
