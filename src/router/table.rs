//! A hash table of 32-bit handles whose keys live elsewhere: linear hashing in cache-line buckets.
//!
//! A probe touches one cache line (rarely two) before it looks at a key, which is what counts with a
//! million keys. The table grows and shrinks by one bucket at a time, so that no insert ever waits
//! for a whole table to be rehashed under the write lock, memory has no peak at a doubling, and what
//! unsubscribing frees goes back chunk by chunk. A table that doubles (`hashbrown`) does none of this.
//!
//! With `count` buckets, those from `count - base` to `base` (`base` the largest power of two not
//! above `count`) have not been split in this round yet, the others have.

/// Handles in a bucket: 12 tags + 12 handles + the link fill 64 bytes.
const BUCKET_HANDLES: usize = 12;
/// Buckets allocated at once.
const CHUNK_BUCKETS: usize = 64;
/// Mean handles per bucket above which the table grows, and below which it shrinks.
const GROW_ABOVE: usize = 9;
const SHRINK_BELOW: usize = 4;
const NO_BUCKET: u32 = u32::MAX;

#[derive(Clone)]
#[repr(align(64))]
struct Bucket {
    /// One byte of each handle's hash, 0 where the place is free.
    tags: [u8; BUCKET_HANDLES],
    /// Overflow bucket, or `NO_BUCKET`.
    next: u32,
    handles: [u32; BUCKET_HANDLES],
}

const EMPTY: Bucket = Bucket {
    tags: [0; BUCKET_HANDLES],
    next: NO_BUCKET,
    handles: [0; BUCKET_HANDLES],
};

const ONES: u64 = 0x0101_0101_0101_0101;
const LOWS: u64 = 0x7F7F_7F7F_7F7F_7F7F;

/// Bit 7 set in exactly those bytes of `word` that equal `tag`. (The shorter trick with a borrow also
/// reports neighbours, and a free place must never be looked at.)
#[inline]
const fn equal_bytes(word: u64, tag: u8) -> u64 {
    let difference = word ^ (ONES * tag as u64);
    !(((difference & LOWS) + LOWS) | difference | LOWS)
}

impl Bucket {
    #[inline]
    fn find(&self, tag: u8, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.tags;
        let mut low = equal_bytes(u64::from_le_bytes([a, b, c, d, e, f, g, h]), tag);
        while low != 0 {
            let at = low.trailing_zeros() as usize / 8;
            if is_it(self.handles[at]) {
                return Some(at);
            }
            low &= low - 1;
        }
        let mut high = equal_bytes(u64::from(u32::from_le_bytes([i, j, k, l])), tag) as u32;
        while high != 0 {
            let at = 8 + high.trailing_zeros() as usize / 8;
            if is_it(self.handles[at]) {
                return Some(at);
            }
            high &= high - 1;
        }
        None
    }

    /// Stores the handle if there is a free place.
    fn put(&mut self, tag: u8, handle: u32) -> bool {
        let free = self.tags.iter().position(|&tag| tag == 0);
        if let Some(at) = free {
            self.tags[at] = tag;
            self.handles[at] = handle;
        }
        free.is_some()
    }
}

/// What a bucket with its overflow holds, nearly always.
type Moved<T> = smallvec::SmallVec<[T; 2 * BUCKET_HANDLES]>;

/// A run of buckets in chunks, so that growing never moves one.
#[derive(Default)]
struct Buckets {
    chunks: Vec<Box<[Bucket]>>,
    count: usize,
}

impl Buckets {
    fn push(&mut self) {
        if self.count == self.chunks.len() * CHUNK_BUCKETS {
            self.chunks
                .push(vec![EMPTY; CHUNK_BUCKETS].into_boxed_slice());
        }
        self.count += 1;
    }

    /// Removes the last bucket, which must be empty.
    fn pop(&mut self) {
        self.count -= 1;
        // One spare chunk stays, so that a table at the border does not allocate in turns.
        if self.count + CHUNK_BUCKETS < self.chunks.len() * CHUNK_BUCKETS || self.count == 0 {
            self.chunks.pop();
            if self.chunks.capacity() > 4 * self.chunks.len() + 16 {
                self.chunks.shrink_to(2 * self.chunks.len());
            }
        }
    }

    #[inline]
    fn get(&self, index: usize) -> &Bucket {
        &self.chunks[index / CHUNK_BUCKETS][index % CHUNK_BUCKETS]
    }

    fn get_mut(&mut self, index: usize) -> &mut Bucket {
        &mut self.chunks[index / CHUNK_BUCKETS][index % CHUNK_BUCKETS]
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BUCKETS * size_of::<Bucket>()
            + self.chunks.capacity() * size_of::<Box<[Bucket]>>()
    }
}

/// The table. Callers pass 64-bit hashes of good quality in all bits.
#[derive(Default)]
pub struct Table {
    main: Buckets,
    overflow: Buckets,
    /// First free overflow bucket, linked by `next`, as index + 1; 0 for none.
    overflow_free: u32,
    overflow_live: usize,
    len: usize,
}

const fn tag_of(hash: u64) -> u8 {
    let tag = (hash >> 56) as u8;
    if tag == 0 { 1 } else { tag }
}

impl Table {
    /// Handles stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.main.bytes() + self.overflow.bytes()
    }

    /// Reads the place of a hash, so that the processor has it when it is needed a little later.
    #[inline]
    pub fn warm_up(&self, hash: u64) {
        if self.len > 0 {
            std::hint::black_box(self.main.get(self.home(hash)).next);
        }
    }

    /// The handle with this hash that `is_it` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let mut bucket = self.main.get(self.home(hash));
        loop {
            if let Some(at) = bucket.find(tag, &mut is_it) {
                return Some(bucket.handles[at]);
            }
            if bucket.next == NO_BUCKET {
                return None;
            }
            bucket = self.overflow.get(bucket.next as usize);
        }
    }

    /// Adds a handle that is not there yet; `hash_of` gives the hashes of those that must move.
    pub fn insert(&mut self, hash: u64, handle: u32, mut hash_of: impl FnMut(u32) -> u64) {
        if self.len >= self.main.count * GROW_ABOVE {
            self.grow(&mut hash_of);
        }
        let home = self.home(hash);
        self.put(home, tag_of(hash), handle);
        self.len += 1;
    }

    /// Removes a handle; `hash_of` as for [`Table::insert`].
    pub fn remove(&mut self, hash: u64, handle: u32, mut hash_of: impl FnMut(u32) -> u64) {
        if self.len == 0 || !self.take(self.home(hash), tag_of(hash), handle) {
            return;
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Table::default();
        } else if self.main.count > 1 && self.len < self.main.count * SHRINK_BELOW {
            self.shrink(&mut hash_of);
            self.compact_overflow();
        }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        let base = 1usize << self.main.count.ilog2();
        let wide = hash as usize & (2 * base - 1);
        if wide < self.main.count {
            wide
        } else {
            wide & (base - 1)
        }
    }

    /// Adds one bucket and moves into it what belongs there from the bucket it is split from.
    fn grow(&mut self, hash_of: &mut impl FnMut(u32) -> u64) {
        self.main.push();
        let added = self.main.count - 1;
        if added == 0 {
            return;
        }
        let from = added - (1 << added.ilog2());
        let moved = self.empty_out(from);
        self.put_all(&moved, hash_of);
    }

    /// Takes the last bucket away; its handles return to the bucket it was split from.
    fn shrink(&mut self, hash_of: &mut impl FnMut(u32) -> u64) {
        let moved = self.empty_out(self.main.count - 1);
        self.main.pop();
        self.put_all(&moved, hash_of);
    }

    fn put_all(&mut self, handles: &[u32], hash_of: &mut impl FnMut(u32) -> u64) {
        // All hashes first: each is a cache miss, and without a decision in between they overlap.
        let hashes: Moved<u64> = handles.iter().map(|&handle| hash_of(handle)).collect();
        for (&handle, hash) in handles.iter().zip(hashes) {
            self.put(self.home(hash), tag_of(hash), handle);
        }
    }

    /// Empties a bucket and its overflow.
    fn empty_out(&mut self, index: usize) -> Moved<u32> {
        let mut handles = Moved::new();
        let mut bucket = std::mem::replace(self.main.get_mut(index), EMPTY);
        loop {
            let pairs = bucket.tags.iter().zip(bucket.handles);
            handles.extend(
                pairs
                    .filter(|&(&tag, _)| tag != 0)
                    .map(|(_, handle)| handle),
            );
            if bucket.next == NO_BUCKET {
                return handles;
            }
            let next = bucket.next;
            bucket = self.overflow.get(next as usize).clone();
            self.free_overflow(next);
        }
    }

    fn put(&mut self, index: usize, tag: u8, handle: u32) {
        let main = self.main.get_mut(index);
        let first = main.next;
        if main.put(tag, handle) {
            return;
        }
        // The first place in the chain that is free: chains stay dense after removals.
        let mut next = first;
        while next != NO_BUCKET {
            let bucket = self.overflow.get_mut(next as usize);
            if bucket.put(tag, handle) {
                return;
            }
            next = bucket.next;
        }
        let added = self.new_overflow();
        let bucket = self.overflow.get_mut(added as usize);
        bucket.next = first;
        bucket.put(tag, handle);
        self.main.get_mut(index).next = added;
    }

    fn take(&mut self, index: usize, tag: u8, handle: u32) -> bool {
        let bucket = self.main.get_mut(index);
        if let Some(at) = bucket.find(tag, |found| found == handle) {
            bucket.tags[at] = 0;
            return true;
        }
        let (mut before, mut current) = (NO_BUCKET, bucket.next);
        while current != NO_BUCKET {
            let bucket = self.overflow.get_mut(current as usize);
            let next = bucket.next;
            if let Some(at) = bucket.find(tag, |found| found == handle) {
                bucket.tags[at] = 0;
                if bucket.tags == [0; BUCKET_HANDLES] {
                    match before {
                        NO_BUCKET => self.main.get_mut(index).next = next,
                        before => self.overflow.get_mut(before as usize).next = next,
                    }
                    self.free_overflow(current);
                }
                return true;
            }
            (before, current) = (current, next);
        }
        false
    }

    fn new_overflow(&mut self) -> u32 {
        self.overflow_live += 1;
        if self.overflow_free == 0 {
            self.overflow.push();
            return (self.overflow.count - 1) as u32;
        }
        let index = self.overflow_free - 1;
        let bucket = self.overflow.get_mut(index as usize);
        self.overflow_free = bucket.next;
        *bucket = EMPTY;
        index
    }

    fn free_overflow(&mut self, index: u32) {
        let bucket = self.overflow.get_mut(index as usize);
        *bucket = EMPTY;
        bucket.next = self.overflow_free;
        self.overflow_free = index + 1;
        self.overflow_live -= 1;
    }

    /// Gives overflow memory back when three quarters of it lie idle.
    fn compact_overflow(&mut self) {
        if 4 * self.overflow_live >= self.overflow.count || self.overflow.count <= CHUNK_BUCKETS {
            return;
        }
        let old = std::mem::take(&mut self.overflow);
        self.overflow_free = 0;
        for index in 0..self.main.count {
            let mut next = std::mem::replace(&mut self.main.get_mut(index).next, NO_BUCKET);
            while next != NO_BUCKET {
                let mut bucket = old.get(next as usize).clone();
                next = bucket.next;
                let main = self.main.get_mut(index);
                bucket.next = std::mem::replace(&mut main.next, self.overflow.count as u32);
                self.overflow.push();
                *self.overflow.get_mut(self.overflow.count - 1) = bucket;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Rng;

    fn hash_of(handle: u32) -> u64 {
        let hash = u64::from(handle).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^ (hash >> 29)
    }

    /// Grows and shrinks through several rounds; every handle is found exactly while it is in.
    #[test]
    fn what_goes_in_is_found_until_it_goes_out() {
        let mut table = Table::default();
        let mut model = std::collections::HashSet::new();
        let mut rng = Rng::new(3);
        for round in 0..6 {
            for _ in 0..20_000 {
                let handle = rng.below(30_000);
                let adding = rng.below(4) != u32::from(round % 2 == 0) * 3;
                if adding == (round % 2 == 0) && model.insert(handle) {
                    table.insert(hash_of(handle), handle, hash_of);
                } else if adding != (round % 2 == 0) && model.remove(&handle) {
                    table.remove(hash_of(handle), handle, hash_of);
                }
            }
            assert_eq!(table.len(), model.len());
            for handle in 0..30_000 {
                let found = table.find(hash_of(handle), |candidate| candidate == handle);
                assert_eq!(
                    found.is_some(),
                    model.contains(&handle),
                    "{handle} in round {round}"
                );
            }
        }
        for handle in model {
            table.remove(hash_of(handle), handle, hash_of);
        }
        assert_eq!(table.len(), 0);
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn memory_stays_near_eight_bytes_a_handle() {
        let mut table = Table::default();
        for handle in 0..100_000 {
            table.insert(hash_of(handle), handle, hash_of);
            if handle > 10_000 {
                let bytes = table.bytes() / (handle as usize + 1);
                assert!(bytes <= 10, "{bytes} bytes each with {handle}");
            }
        }
        for handle in 0..99_000 {
            table.remove(hash_of(handle), handle, hash_of);
        }
        assert!(table.bytes() < 40_000, "{} bytes for 1000", table.bytes());
    }

    /// Adversarial: every hash the same, so that all live in one chain.
    #[test]
    fn equal_hashes_are_slow_but_right() {
        let mut table = Table::default();
        for handle in 0..500 {
            table.insert(42, handle, |_| 42);
        }
        for handle in (0..500).step_by(2) {
            table.remove(42, handle, |_| 42);
        }
        for handle in 0..500 {
            let found = table.find(42, |candidate| candidate == handle);
            assert_eq!(found.is_some(), handle % 2 == 1);
        }
    }
}
