//! Simulation: the real shards and the real router of several workers on one thread, under a clock
//! and a network that belong to the test.
//!
//! Every run follows from a seed: what random clients ask for and write, where their bytes are cut,
//! who does not read, when mail between workers arrives, when sockets take less than is offered,
//! when somebody goes. `model` says plainly what each connection must get; every frame is compared.
//!
//! `MIDGE_SIM_SEEDS=n` runs so many seeds, `MIDGE_SIM_SEED=n` repeats one of them with a log;
//! `MIDGE_SIM_START=n` begins elsewhere than at 1.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod client;
mod expect;
mod model;
mod pressure;
mod queue;
mod receive;
mod rng;
mod shell;
mod stage;
mod timers;
mod world;

use world::{Outcome, World};

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// Says how to repeat a run that fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: repeat it with MIDGE_SIM_SEED={0}", self.0);
        }
    }
}

fn run(has_noise: bool) -> Outcome {
    if let Some(seed) = from_env("MIDGE_SIM_SEED") {
        let _announce = Announce(seed);
        return World::new(seed, has_noise, true).run(steps_of(seed));
    }
    let count = from_env("MIDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let start = from_env("MIDGE_SIM_START").unwrap_or(1);
    let mut all = Outcome::default();
    for seed in start..start + count {
        let _announce = Announce(seed);
        let one = World::new(seed, has_noise, false).run(steps_of(seed));
        all.messages += one.messages;
        all.frames += one.frames;
        all.slow_consumers += one.slow_consumers;
        all.pauses += one.pauses;
        all.queue_drops += one.queue_drops;
        all.queue_reorders += one.queue_reorders;
        all.no_responders += one.no_responders;
        all.mail_letters += one.mail_letters;
    }
    println!("{count} seeds from {start}: {all:?}");
    all
}

/// Runs of each kind by default: a few seconds each in a debug build.
const SEEDS: u64 = 40;

fn steps_of(seed: u64) -> usize {
    match seed % 10 {
        0 => 10_000,
        1..5 => 300,
        _ => 2_000,
    }
}

#[test]
fn every_connection_gets_exactly_what_it_should() {
    let all = run(false);
    // A run that meets nothing proves nothing.
    if all.messages > 50_000 {
        for (what, count) in [
            ("frames", all.frames),
            ("slow consumers", all.slow_consumers),
            ("pauses", all.pauses),
            ("answers that nobody listens", all.no_responders),
            ("letters", all.mail_letters),
        ] {
            assert!(count > 10, "only {count} {what}");
        }
    }
}

#[test]
fn nonsense_disturbs_nobody() {
    run(true);
}
