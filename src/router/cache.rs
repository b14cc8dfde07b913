//! The match cache of one worker or publishing thread: subject → [`Matches`], bounded.
//!
//! Four-way set-associative, found by the router's own hash of the subject. A hit hashes, compares
//! and checks one stamp; it takes no lock and allocates nothing. A miss asks the router, and what it
//! says is kept only if the subject was missed before not long ago: the doorkeeper, a table of small
//! fingerprints, keeps reply subjects that are used once from pushing out the rest. A set whose four
//! entries were all used since the last attempt refuses a newcomer once, so that neither a scan over
//! many subjects clears the cache.
//!
//! An entry that is out of date stays until its subject comes round or it is pushed out, which for
//! numbers does no harm. In-process subscriptions are more than numbers: when one has ended, the
//! next look-ups go through the cache, a few sets each, and let go of it.

use smallvec::SmallVec;

use super::matches::Matches;
use super::router::{Router, Stamp};

const WAYS: usize = 4;
/// Entries at most.
const ENTRIES_MAX: usize = 16_384;
/// Bytes at most, in all entries together.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the largest match that is kept; a larger one is computed every time.
const ENTRY_BYTES_MAX: usize = BYTES_MAX / 8;
/// Of so many attempts to replace an entry, one does.
const REPLACED_ONCE_IN: u64 = 8;
const SETS_MIN: usize = 8;
/// Sets that one look-up searches for in-process subscriptions that have ended: one kilobyte, and
/// the largest cache is through after 256 look-ups.
const SETS_SWEPT_AT_ONCE: usize = 16;
const DOORKEEPER_MIN: usize = 1024;

struct Entry {
    hash: u64,
    stamp: Stamp,
    subject: SmallVec<[u8; 32]>,
    matches: Matches,
    bytes: u32,
}

impl Entry {
    fn has_locals(&self) -> bool {
        !self.matches.locals().is_empty()
    }
}

#[derive(Default)]
struct Set {
    tags: [u32; WAYS],
    ways: [Option<Box<Entry>>; WAYS],
    /// Those used since the set was last searched for a victim. Here, and not in the entries, so
    /// that the search touches one cache line.
    is_used: [bool; WAYS],
    /// Whether an entry has in-process subscriptions; perhaps one that is gone.
    has_locals: bool,
}

/// A cache of matches for one thread. A new one owns no memory.
#[derive(Default)]
pub struct MatchCache {
    sets: Vec<Set>,
    router_id: usize,
    doorkeeper: Vec<u16>,
    scratch: Matches,
    entries: usize,
    bytes: usize,
    /// Set from which the next entry is taken when there are too many bytes.
    hand: usize,
    /// The router's count of ended in-process subscriptions, all of which have been let go.
    locals_ended: usize,
    /// That count when the present sweep began, and the set with which it goes on.
    sweep_goal: usize,
    sweep_at: usize,
    hits: u64,
    misses: u64,
}

/// How a cache is doing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups answered from an entry.
    pub hits: u64,
    /// Look-ups that asked the router.
    pub misses: u64,
    /// Matches held.
    pub entries: usize,
    /// Bytes they take.
    pub bytes: usize,
}

const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl MatchCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `subject` leads to at this moment: any (un)subscribe call that returned before is seen.
    #[inline]
    pub fn lookup<'a>(&'a mut self, router: &Router, subject: &[u8]) -> &'a Matches {
        if router.locals_ended() != self.locals_ended {
            self.sweep(router);
        }
        let hash = router.hasher.hash(subject);
        let mut known = None;
        // Both conditions fail only before the first entry, or when the cache changes routers.
        if let Some(mask) = self.sets.len().checked_sub(1)
            && self.router_id == router.id()
        {
            let set_index = hash as usize & mask;
            let set = &self.sets[set_index];
            let tag = tag_of(hash);
            for way in 0..WAYS {
                if set.tags[way] == tag
                    && let Some(entry) = &set.ways[way]
                    && entry.subject[..] == *subject
                {
                    known = Some((set_index, way, router.is_current(entry.stamp)));
                    break;
                }
            }
        }
        if let Some((set_index, way, true)) = known {
            self.hits += 1;
            let set = &mut self.sets[set_index];
            set.is_used[way] = true;
            return set.ways[way]
                .as_ref()
                .map_or(&self.scratch, |entry| &entry.matches);
        }
        self.miss(router, subject, hash, known.map(|(set, way, _)| (set, way)))
    }

    /// Hits, misses and size.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits,
            misses: self.misses,
            entries: self.entries,
            bytes: self.bytes,
        }
    }

    #[cold]
    #[inline(never)]
    fn miss(
        &mut self,
        router: &Router,
        subject: &[u8],
        hash: u64,
        stale: Option<(usize, usize)>,
    ) -> &Matches {
        self.misses += 1;
        if self.router_id != router.id() {
            *self = MatchCache {
                hits: self.hits,
                misses: self.misses,
                ..MatchCache::new()
            };
            self.router_id = router.id();
        }
        if stale.is_none() && !self.was_missed_before(hash) {
            router.matches_hashed(subject, hash, &mut self.scratch);
            return &self.scratch;
        }
        let stamp = router.matches_stamped(subject, hash, &mut self.scratch);
        if let Some((set, way)) = stale {
            self.evict(set, way);
        }
        self.store(subject, hash, stamp);
        &self.scratch
    }

    /// Lets go of in-process subscriptions that have ended, a few sets at a time. What a callback
    /// owns and what is queued should not wait for one of its subjects to be published again.
    #[cold]
    #[inline(never)]
    fn sweep(&mut self, router: &Router) {
        if self.sweep_at == 0 {
            self.sweep_goal = router.locals_ended();
            self.scratch.clear();
        }
        let end = (self.sweep_at + SETS_SWEPT_AT_ONCE).min(self.sets.len());
        for set in self.sweep_at..end {
            if !self.sets[set].has_locals {
                continue;
            }
            let mut has_locals = false;
            for way in 0..WAYS {
                match &self.sets[set].ways[way] {
                    Some(entry) if entry.has_locals() && router.is_current(entry.stamp) => {
                        has_locals = true;
                    }
                    Some(entry) if entry.has_locals() => self.evict(set, way),
                    _ => {}
                }
            }
            self.sets[set].has_locals = has_locals;
        }
        self.sweep_at = end;
        // Growing meanwhile is no harm: what comes after `sweep_at` stays after it.
        if end == self.sets.len() {
            self.sweep_at = 0;
            self.locals_ended = self.sweep_goal;
        }
    }

    /// Asks the doorkeeper, and tells it.
    fn was_missed_before(&mut self, hash: u64) -> bool {
        if self.doorkeeper.is_empty() {
            self.doorkeeper = vec![0; DOORKEEPER_MIN];
        }
        let places = self.doorkeeper.as_chunks_mut::<4>().0;
        let at = (hash >> 16) as usize & (places.len() - 1);
        let place = &mut places[at];
        // The bits above those that choose the place; never 0, which means nobody.
        let fingerprint = (hash >> 48) as u16 | 1;
        if place.contains(&fingerprint) {
            return true;
        }
        // The last four of each place are known, so that no two push each other out for ever.
        place.rotate_right(1);
        place[0] = fingerprint;
        false
    }

    /// Keeps what `scratch` holds, if there is a place for it.
    fn store(&mut self, subject: &[u8], hash: u64, stamp: Stamp) {
        // At half full few sets have more than four candidates.
        if self.entries >= WAYS / 2 * self.sets.len() {
            self.grow();
        }
        let set_index = hash as usize & (self.sets.len() - 1);
        let Some(way) = self.sets[set_index].victim(self.misses) else {
            return;
        };
        let bytes = size_of::<Entry>() + subject.len() + self.scratch.compact_bytes();
        if bytes > ENTRY_BYTES_MAX {
            return;
        }
        self.evict(set_index, way);
        while self.bytes + bytes > BYTES_MAX {
            self.evict_next();
        }
        let matches = self.scratch.compact();
        let subject = SmallVec::from_slice(subject);
        let set = &mut self.sets[set_index];
        set.tags[way] = tag_of(hash);
        set.is_used[way] = false;
        set.has_locals |= !matches.locals().is_empty();
        set.ways[way] = Some(Box::new(Entry {
            hash,
            stamp,
            subject,
            matches,
            bytes: bytes as u32,
        }));
        self.entries += 1;
        self.bytes += bytes;
    }

    fn evict(&mut self, set: usize, way: usize) {
        if let Some(entry) = self.sets[set].ways[way].take() {
            self.entries -= 1;
            self.bytes -= entry.bytes as usize;
        }
    }

    fn evict_next(&mut self) {
        self.hand = (self.hand + 1) % self.sets.len();
        for way in 0..WAYS {
            self.evict(self.hand, way);
        }
    }

    /// Doubles the number of sets, up to the bound.
    fn grow(&mut self) {
        let set_count = (2 * self.sets.len()).clamp(SETS_MIN, ENTRIES_MAX / WAYS);
        if set_count == self.sets.len() {
            return;
        }
        let old = std::mem::take(&mut self.sets);
        self.sets.resize_with(set_count, Set::default);
        for entry in old.into_iter().flat_map(|set| set.ways).flatten() {
            let set = &mut self.sets[entry.hash as usize & (set_count - 1)];
            // Entries of one old set spread over two, so there is always room.
            if let Some(way) = set.ways.iter().position(Option::is_none) {
                set.tags[way] = tag_of(entry.hash);
                set.has_locals |= entry.has_locals();
                set.ways[way] = Some(entry);
            }
        }
        // One more bit of the hash chooses the place: what is known is known at both.
        while self.doorkeeper.len() < 2 * WAYS * set_count {
            self.doorkeeper.extend_from_within(..);
        }
    }
}

impl Set {
    /// A way to put an entry into. `None`, once, if all were used lately; and seven times in eight
    /// (by `attempt`, which goes up) if another entry must go: where more subjects come round than
    /// fit, replacing them faster costs time and wins no hits.
    fn victim(&mut self, attempt: u64) -> Option<usize> {
        if let Some(free) = self.ways.iter().position(Option::is_none) {
            return Some(free);
        }
        if !attempt.is_multiple_of(REPLACED_ONCE_IN) {
            return None;
        }
        let idle = self.is_used.iter().position(|is_used| !is_used);
        if idle.is_none() {
            self.is_used = [false; WAYS];
        }
        idle
    }
}
