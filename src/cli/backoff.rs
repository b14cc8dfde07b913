//! How long to wait before the next attempt to reconnect.

use std::time::Duration;

const FIRST_MS: u64 = 250;
const LAST_MS: u64 = 10_000;

/// Waits that double from 250 ms to 10 s. Each is shortened at random by up to a half, so that
/// the clients of a server that restarts do not come back all at once.
#[derive(Default)]
pub struct Backoff {
    attempt_count: u32,
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        // Without random numbers the wait is merely less polite.
        let random = midge::crypto::random_array::<8>().unwrap_or_default();
        self.next_wait_with(u64::from_le_bytes(random))
    }

    fn next_wait_with(&mut self, random: u64) -> Duration {
        let doubled = FIRST_MS.saturating_mul(1u64 << self.attempt_count.min(16));
        self.attempt_count = self.attempt_count.saturating_add(1);
        let longest_ms = doubled.min(LAST_MS);
        Duration::from_millis(longest_ms - random % (longest_ms / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_shortened_by_less_than_half() {
        let mut longest = Backoff::default();
        let mut shortest = Backoff::default();
        for expected_ms in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            let (long, short) = (
                longest.next_wait_with(0),
                shortest.next_wait_with(expected_ms / 2 - 1),
            );
            assert_eq!(long.as_millis() as u64, expected_ms);
            assert_eq!(short.as_millis() as u64, expected_ms / 2 + 1);
        }
    }
}
