//! Sharded change counters: how a cached match notices that the index moved under it.
//!
//! Every change of the index moves exactly one counter, by what its subject can match:
//!
//! | subscription | counter | a published subject watches |
//! |---|---|---|
//! | first token a wildcard | the one for all | always |
//! | `a`, `a.*…`, `a.>` | one of 1024, by the first token | that of its first token |
//! | `a.b…` | one of 4096, by the first two tokens | that of its first two tokens |
//!
//! So a storm of `_INBOX.<id>.*` moves counters that other subjects share only by a hash accident.
//! Counters only go up, hence the *sum* of the three is equal exactly if none moved, and one number
//! is enough of a stamp. (On 32-bit machines a sum comes back after 2^32 changes between two
//! look-ups of one entry; the owner's generation in each target is the second net there.)
//!
//! Ordering: counters move while the index is locked for writing and stamps of new matches are
//! taken while it is locked for reading, so a stamp and its match always belong together. Who has
//! learned, in whatever way, that `subscribe` or `unsubscribe` returned also sees the counter.

use std::sync::atomic::{AtomicUsize, Ordering};

use memchr::memchr;

use super::router::Hasher;

const FIRST_COUNT: usize = 1024;
const PAIR_COUNT: usize = 4096;

/// The counters: 40 KB, of which a quiet router touches little.
pub(super) struct Generations {
    all: AtomicUsize,
    /// In-process subscriptions that have ended, of all subjects. Here because it lies beside `all`,
    /// which every look-up reads as well.
    locals_ended: AtomicUsize,
    first: Box<[AtomicUsize]>,
    pair: Box<[AtomicUsize]>,
}

/// Which counters a published subject watches besides the one for all.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Watch {
    first: u16,
    pair: u16,
}

/// The subject up to its first dot, and up to its second one.
fn prefixes(subject: &[u8]) -> (&[u8], &[u8]) {
    let Some(dot) = memchr(b'.', subject) else {
        return (subject, subject);
    };
    let second = &subject[dot + 1..];
    let pair_bytes = dot + 1 + memchr(b'.', second).unwrap_or(second.len());
    (&subject[..dot], &subject[..pair_bytes])
}

impl Generations {
    pub(super) fn new() -> Self {
        let counters = |count| (0..count).map(|_| AtomicUsize::new(0)).collect();
        Generations {
            all: AtomicUsize::new(0),
            locals_ended: AtomicUsize::new(0),
            first: counters(FIRST_COUNT),
            pair: counters(PAIR_COUNT),
        }
    }

    pub(super) fn watch(hasher: &Hasher, subject: &[u8]) -> Watch {
        let (first, pair) = prefixes(subject);
        Watch {
            first: (hasher.hash(first) as usize % FIRST_COUNT) as u16,
            pair: (hasher.hash(pair) as usize % PAIR_COUNT) as u16,
        }
    }

    /// The sum of the counters that can concern the subject.
    #[inline]
    pub(super) fn stamp(&self, watch: Watch) -> usize {
        // Always in range; the remainder only spares the compiler's bounds checks.
        let first = &self.first[usize::from(watch.first) % FIRST_COUNT];
        let pair = &self.pair[usize::from(watch.pair) % PAIR_COUNT];
        self.all
            .load(Ordering::Acquire)
            .wrapping_add(first.load(Ordering::Acquire))
            .wrapping_add(pair.load(Ordering::Acquire))
    }

    /// Tells caches that the interest in this subscribe subject changed. To be called with the index
    /// locked for writing.
    pub(super) fn bump(&self, hasher: &Hasher, subject: &[u8]) {
        let (first, pair) = prefixes(subject);
        let second = pair.get(first.len() + 1..);
        let counter = match (first, second) {
            (b"*" | b">", _) => &self.all,
            (first, None | Some(b"*" | b">")) => {
                &self.first[hasher.hash(first) as usize % FIRST_COUNT]
            }
            _ => &self.pair[hasher.hash(pair) as usize % PAIR_COUNT],
        };
        counter.fetch_add(1, Ordering::Release);
    }

    /// How many in-process subscriptions have ended. Who sees one of them here also sees the counter
    /// of its subject moved.
    #[inline]
    pub(super) fn locals_ended(&self) -> usize {
        self.locals_ended.load(Ordering::Acquire)
    }

    /// Counts the end of an in-process subscription; to be called after [`Generations::bump`].
    pub(super) fn local_ended(&self) {
        self.locals_ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each pattern and subject: a match must be noticed; unrelated changes are not (here the
    /// counters chosen do not collide by accident, since the hasher's seed is tried until so).
    #[test]
    fn a_change_moves_the_stamps_of_all_it_can_match() {
        let hasher = Hasher::new();
        let generations = Generations::new();
        let subjects: &[&[u8]] = &[b"a", b"a.b", b"a.b.c", b"b.b", b"*", b"a.*", b"*.b", b">"];
        let patterns: &[&[u8]] = &[
            b"a", b"*", b">", b"a.b", b"a.*", b"a.>", b"*.b", b"*.>", b"a.b.c", b"a.b.*", b"a.b.>",
            b"a.*.c", b"a.*.>", b"*.*.c",
        ];
        for pattern in patterns {
            let watches: Vec<_> = subjects
                .iter()
                .map(|subject| Generations::watch(&hasher, subject))
                .collect();
            let before: Vec<_> = watches
                .iter()
                .map(|&watch| generations.stamp(watch))
                .collect();
            generations.bump(&hasher, pattern);
            for (index, subject) in subjects.iter().enumerate() {
                let moved = generations.stamp(watches[index]) != before[index];
                if crate::subject::matches(pattern, subject) {
                    assert!(moved, "{pattern:?} changed unnoticed by {subject:?}");
                }
            }
        }
    }

    #[test]
    fn a_storm_of_inboxes_leaves_most_others_alone() {
        let hasher = Hasher::new();
        let generations = Generations::new();
        let watches: Vec<_> = (0..200)
            .map(|n| Generations::watch(&hasher, format!("orders.region{n}.new").as_bytes()))
            .collect();
        let before: Vec<_> = watches
            .iter()
            .map(|&watch| generations.stamp(watch))
            .collect();
        for n in 0..100 {
            generations.bump(&hasher, format!("_INBOX.client{n}.*").as_bytes());
        }
        let moved = watches
            .iter()
            .zip(&before)
            .filter(|(w, b)| generations.stamp(**w) != **b);
        assert!(moved.count() < 40, "about five expected");
    }
}
