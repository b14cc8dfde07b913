//! Gives memory back to the system after a peak.
//!
//! What midge frees stays with the C allocator, which keeps most of it for later. A device with
//! little memory has other uses for it, so once much has been freed and things have calmed down,
//! the allocator is asked to let go.

use crate::clock::Millis;

/// Freed bytes from which it is worth the effort.
const FREED_BYTES_MIN: usize = 1024 * 1024;
/// Freed bytes in one turn that show that things have not calmed down.
const TURN_BYTES_MIN: usize = 64 * 1024;
/// Milliseconds of calm after which it happens.
const CALM_MS: u64 = 200;
/// Milliseconds after which it happens, calm or not.
const PATIENCE_MS: u64 = 5_000;

/// How much one worker has freed, and when to give it back.
#[derive(Default)]
pub struct MemoryReturn {
    freed_bytes: usize,
    due: Option<Millis>,
    /// When it is due at the latest.
    latest: Millis,
}

impl MemoryReturn {
    /// Takes note of freed bytes, and gives memory back when it is time.
    pub fn on_turn(&mut self, freed_bytes: usize, now: Millis) {
        self.freed_bytes += freed_bytes;
        match self.due {
            Some(due) if due <= now => {
                *self = MemoryReturn::default();
                give_back();
            }
            Some(_) if freed_bytes >= TURN_BYTES_MIN => {
                self.due = Some(now.plus(CALM_MS).min(self.latest));
            }
            None if self.freed_bytes >= FREED_BYTES_MIN => {
                self.due = Some(now.plus(CALM_MS));
                self.latest = now.plus(PATIENCE_MS);
            }
            _ => {}
        }
    }

    /// When there is something to be done.
    pub fn next_at(&self) -> Option<Millis> {
        self.due
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: malloc_trim takes a number, may be called from any thread at any time, and changes
    // nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give back on their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_kept_and_much_goes_back_once() {
        let mut memory = MemoryReturn::default();
        memory.on_turn(1000, Millis(5));
        assert_eq!(memory.next_at(), None);
        memory.on_turn(FREED_BYTES_MIN, Millis(10));
        memory.on_turn(FREED_BYTES_MIN, Millis(20));
        assert_eq!(memory.next_at(), Some(Millis(20 + CALM_MS)), "not calm yet");
        memory.on_turn(0, Millis(20 + CALM_MS));
        assert_eq!(memory.next_at(), None);
        for now in (1_000..=1_000 + PATIENCE_MS).step_by(100) {
            assert!(
                memory
                    .next_at()
                    .is_none_or(|at| at.0 <= 1_000 + PATIENCE_MS)
            );
            memory.on_turn(FREED_BYTES_MIN, Millis(now));
        }
        assert_eq!(memory.next_at(), None, "calm or not, it has happened")
    }
}
