//! Tests of the room as a whole: the match table of the specification, the router against a plain
//! matcher, staleness and memory.

mod churn;
mod local;
mod local_end;
mod table;
mod threads;

use std::sync::atomic::{AtomicBool, Ordering};

use super::{MatchCache, Matches, Owner, Router, Target};

/// A target of port 0.
fn target(key: u32) -> Target {
    Target::new(Owner::port(0).unwrap(), 1, key)
}

/// Keys of the plain targets, sorted.
fn keys(matches: &Matches) -> Vec<u32> {
    let mut keys: Vec<u32> = matches.plain.iter().map(|target| target.key()).collect();
    keys.sort_unstable();
    keys
}

/// What a cache says, asked often enough that it must have stored the answer.
fn cached_keys(cache: &mut MatchCache, router: &Router, subject: &[u8]) -> Vec<u32> {
    for _ in 0..3 {
        cache.lookup(router, subject);
    }
    keys(cache.lookup(router, subject))
}

/// Sets the flag when dropped, so that a failed assertion ends the other threads too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
