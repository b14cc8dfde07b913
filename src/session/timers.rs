//! When something of a connection is due.
//!
//! A heap of (time, connection, kind). Nothing is removed from it early: what fires is checked
//! against the connection, which knows whether it is still due, and put back for later if not. So
//! activity costs nothing here. Times are rounded up to a grid by kind, so that ten thousand idle
//! connections wake the process once a grid step and not once each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Millis;
use crate::id::ConnId;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// Credentials should have come.
    Auth,
    /// A PING may be due.
    Ping,
    /// Queued bytes should have been taken.
    Write,
    /// A paused connection may be read again.
    Resume,
}

/// Something due at a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Timer {
    pub at: Millis,
    pub due: Due,
    pub slot: u32,
    pub conn: ConnId,
}

/// Everything due, soonest first.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    pub fn add(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse(timer)| timer.at)
    }

    /// Takes the next one out if it is due.
    pub fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        let Reverse(timer) = self.heap.peek()?;
        if timer.at > now {
            return None;
        }
        let timer = *timer;
        self.heap.pop();
        if self.heap.is_empty() {
            self.heap = BinaryHeap::new();
        }
        Some(timer)
    }
}

/// Rounds a time far away up to a coarser grid: at most a sixteenth later than asked for.
pub(super) fn on_grid(now: Millis, at: Millis) -> Millis {
    let grid = match at.since(now) {
        16_000.. => 1000,
        1600.. => 100,
        _ => return at,
    };
    Millis(at.0.div_ceil(grid).saturating_mul(grid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_out_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        for at in [30u64, 10, 20] {
            timers.add(Timer {
                at: Millis(at),
                due: Due::Ping,
                slot: 0,
                conn: ConnId(at),
            });
        }
        assert_eq!(timers.next_at(), Some(Millis(10)));
        let mut due = Vec::new();
        while let Some(timer) = timers.pop_due(Millis(20)) {
            due.push(timer.at.0);
        }
        assert_eq!(due, [10, 20]);
        assert_eq!(timers.next_at(), Some(Millis(30)));
    }

    #[test]
    fn far_times_share_a_grid_and_near_ones_are_exact() {
        assert_eq!(on_grid(Millis(5), Millis(1_000)), Millis(1_000));
        assert_eq!(on_grid(Millis(0), Millis(2_001)), Millis(2_100));
        assert_eq!(on_grid(Millis(0), Millis(120_001)), Millis(121_000));
        assert_eq!(on_grid(Millis(0), Millis(u64::MAX)), Millis(u64::MAX));
    }
}
