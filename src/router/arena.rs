//! An arena of byte slots of many sizes, addressed by 30-bit handles.
//!
//! Entries and trie nodes of the index are a fixed head and a text of any length. Giving each its
//! own allocation would cost a pointer, a length and the allocator's overhead every time; here they
//! lie side by side in chunks of one slot size each, rounded to eight bytes. A chunk whose last slot
//! is freed goes back to the allocator, so memory follows the number of subscriptions both ways.
//!
//! ```text
//! handle  = chunk (20 bits) | slot in the chunk (10 bits)
//! slot    = head (given by the user) | text | unused (0-7) | count of unused (1)
//! free    = next free slot of the chunk (2 bytes) | rubbish
//! ```

/// Slots in a chunk: what ten bits address.
const CHUNK_SLOTS_MAX: usize = 1024;
/// Bytes of a chunk, unless a single slot needs more.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Slots of the first chunk of a size, so that a small router stays small.
const CHUNK_SLOTS_MIN: usize = 16;
/// Largest slot that shares a chunk, in bytes; longer ones get a chunk of their own.
const SLOT_BYTES_MAX: usize = 512;
const CLASS_COUNT: usize = SLOT_BYTES_MAX / 8 + 1;
const CHUNKS_MAX: usize = 1 << 20;
const NO_SLOT: u16 = u16::MAX;
const NO_CHUNK: u32 = u32::MAX;

struct Chunk {
    bytes: Box<[u8]>,
    slot_bytes: u32,
    live: u16,
    /// Slots from here on were never used.
    fresh: u16,
    free: u16,
    /// Neighbours in the list of chunks of this size that have room.
    prev: u32,
    next: u32,
}

impl Chunk {
    fn slot_count(&self) -> usize {
        self.bytes.len() / self.slot_bytes as usize
    }

    fn is_full(&self) -> bool {
        usize::from(self.live) == self.slot_count()
    }
}

/// The arena.
pub struct Arena {
    chunks: Vec<Chunk>,
    /// Numbers of chunks that were given back.
    vacant: Vec<u32>,
    /// By slot size: the first chunk with room.
    open: Box<[u32; CLASS_COUNT]>,
    /// By slot size: slots in use.
    live: Box<[u32; CLASS_COUNT]>,
    bytes: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Arena {
            chunks: Vec::new(),
            vacant: Vec::new(),
            open: Box::new([NO_CHUNK; CLASS_COUNT]),
            live: Box::new([0; CLASS_COUNT]),
            bytes: 0,
        }
    }
}

const fn split(handle: u32) -> (usize, usize) {
    (
        handle as usize >> 10,
        handle as usize & (CHUNK_SLOTS_MAX - 1),
    )
}

fn class_of(slot_bytes: usize) -> usize {
    if slot_bytes > SLOT_BYTES_MAX {
        0
    } else {
        slot_bytes / 8
    }
}

impl Arena {
    /// Stores `head_bytes` zeroes followed by `text`. `None` when all handles are in use.
    pub fn insert(&mut self, head_bytes: usize, text: &[u8]) -> Option<u32> {
        let needed = head_bytes + text.len() + 1;
        let slot_bytes = needed.next_multiple_of(8);
        let class = class_of(slot_bytes);
        let mut chunk_index = self.open[class];
        if chunk_index == NO_CHUNK {
            chunk_index = self.add_chunk(class, slot_bytes)?;
        }
        let chunk = &mut self.chunks[chunk_index as usize];
        let slot = if chunk.free == NO_SLOT {
            chunk.fresh += 1;
            chunk.fresh - 1
        } else {
            chunk.free
        };
        let start = usize::from(slot) * slot_bytes;
        let bytes = &mut chunk.bytes[start..start + slot_bytes];
        if slot == chunk.free {
            chunk.free = u16::from_ne_bytes([bytes[0], bytes[1]]);
        }
        bytes[..head_bytes].fill(0);
        bytes[head_bytes..head_bytes + text.len()].copy_from_slice(text);
        bytes[slot_bytes - 1] = (slot_bytes - needed) as u8;
        chunk.live += 1;
        if chunk.is_full() {
            self.close(class, chunk_index);
        }
        self.live[class] += 1;
        Some((chunk_index << 10) | u32::from(slot))
    }

    /// Frees a slot; its handle may be given out again.
    pub fn remove(&mut self, handle: u32) {
        let (chunk_index, slot) = split(handle);
        let chunk = &mut self.chunks[chunk_index];
        let class = class_of(chunk.slot_bytes as usize);
        let was_full = chunk.is_full();
        let start = slot * chunk.slot_bytes as usize;
        chunk.bytes[start..start + 2].copy_from_slice(&chunk.free.to_ne_bytes());
        chunk.free = slot as u16;
        chunk.live -= 1;
        let is_empty = chunk.live == 0;
        self.live[class] -= 1;
        if was_full && !is_empty {
            self.reopen(class, chunk_index as u32);
        }
        if is_empty {
            if !was_full {
                self.close(class, chunk_index as u32);
            }
            self.drop_chunk(chunk_index);
        }
    }

    /// The whole slot: head, text, padding.
    #[inline]
    pub fn get(&self, handle: u32) -> &[u8] {
        let (chunk, slot) = split(handle);
        let chunk = &self.chunks[chunk];
        let slot_bytes = chunk.slot_bytes as usize;
        &chunk.bytes[slot * slot_bytes..][..slot_bytes]
    }

    /// As [`Arena::get`], for a handle that may be out of date.
    pub fn get_checked(&self, handle: u32) -> Option<&[u8]> {
        let (chunk, slot) = split(handle);
        let chunk = self.chunks.get(chunk)?;
        let slot_bytes = chunk.slot_bytes as usize;
        chunk.bytes.get(slot * slot_bytes..(slot + 1) * slot_bytes)
    }

    /// As [`Arena::get`], to change the head.
    pub fn get_mut(&mut self, handle: u32) -> &mut [u8] {
        let (chunk, slot) = split(handle);
        let chunk = &mut self.chunks[chunk];
        let slot_bytes = chunk.slot_bytes as usize;
        &mut chunk.bytes[slot * slot_bytes..][..slot_bytes]
    }

    /// The text of a slot that [`Arena::get`] returned.
    #[inline]
    pub fn text(slot: &[u8], head_bytes: usize) -> &[u8] {
        match slot.split_last() {
            Some((&unused, rest)) => &rest[head_bytes..rest.len() - usize::from(unused)],
            None => &[],
        }
    }

    /// Bytes held in chunks.
    pub fn bytes(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<Chunk>() + self.vacant.capacity() * 4
    }

    fn add_chunk(&mut self, class: usize, slot_bytes: usize) -> Option<u32> {
        let slot_count = if class == 0 {
            1
        } else {
            // A quarter of what is there already: at most a fifth of the slots can be idle.
            let most = (CHUNK_BYTES_MAX / slot_bytes).min(CHUNK_SLOTS_MAX);
            (self.live[class] as usize / 4).clamp(CHUNK_SLOTS_MIN, most)
        };
        let chunk = Chunk {
            bytes: vec![0; slot_count * slot_bytes].into_boxed_slice(),
            slot_bytes: u32::try_from(slot_bytes).ok()?,
            live: 0,
            fresh: 0,
            free: NO_SLOT,
            prev: NO_CHUNK,
            next: NO_CHUNK,
        };
        let chunk_bytes = chunk.bytes.len();
        let index = match self.vacant.pop() {
            Some(index) => {
                self.chunks[index as usize] = chunk;
                index
            }
            None if self.chunks.len() == CHUNKS_MAX => return None,
            None => {
                self.chunks.push(chunk);
                (self.chunks.len() - 1) as u32
            }
        };
        self.bytes += chunk_bytes;
        self.reopen(class, index);
        Some(index)
    }

    /// Gives the bytes of an empty chunk back and keeps its number for another.
    fn drop_chunk(&mut self, index: usize) {
        self.bytes -= self.chunks[index].bytes.len();
        self.chunks[index].bytes = Box::default();
        self.vacant.push(index as u32);
        if self.vacant.len() == self.chunks.len() {
            self.chunks = Vec::new();
            self.vacant = Vec::new();
        }
    }

    /// Takes a chunk off the list of those with room.
    fn close(&mut self, class: usize, index: u32) {
        let (prev, next) = (
            self.chunks[index as usize].prev,
            self.chunks[index as usize].next,
        );
        match self.chunks.get_mut(prev as usize) {
            Some(chunk) => chunk.next = next,
            None => self.open[class] = next,
        }
        if let Some(chunk) = self.chunks.get_mut(next as usize) {
            chunk.prev = prev;
        }
    }

    fn reopen(&mut self, class: usize, index: u32) {
        let first = std::mem::replace(&mut self.open[class], index);
        self.chunks[index as usize].prev = NO_CHUNK;
        self.chunks[index as usize].next = first;
        if let Some(chunk) = self.chunks.get_mut(first as usize) {
            chunk.prev = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Rng;

    /// Random inserts and removals against a plain map; at the end every chunk is gone.
    #[test]
    fn slots_keep_their_text_and_give_their_memory_back() {
        let mut rng = Rng::new(7);
        let mut arena = Arena::default();
        let mut model: Vec<(u32, Vec<u8>)> = Vec::new();
        for step in 0..20_000 {
            let growing = step / 4_000 % 2 == 0;
            if model.is_empty() || rng.below(3) == u32::from(!growing) || growing {
                let text_bytes = match rng.below(50) {
                    0 => 400 + rng.below(4000),
                    _ => rng.below(60),
                };
                let text: Vec<u8> = (0..text_bytes).map(|_| rng.below(256) as u8).collect();
                let handle = arena.insert(8, &text).unwrap();
                assert_eq!(arena.get(handle)[..8], [0; 8]);
                arena.get_mut(handle)[..8].copy_from_slice(&u64::from(handle).to_ne_bytes());
                model.push((handle, text));
            } else {
                let (handle, text) = model.swap_remove(rng.below(model.len() as u32) as usize);
                assert_eq!(Arena::text(arena.get(handle), 8), text);
                arena.remove(handle);
            }
        }
        for (handle, text) in model.drain(..) {
            assert_eq!(arena.get(handle)[..8], u64::from(handle).to_ne_bytes());
            assert_eq!(Arena::text(arena.get(handle), 8), text);
            arena.remove(handle);
        }
        assert_eq!(arena.bytes(), 0);
    }
}
