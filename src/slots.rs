//! A table of numbered slots that gives memory back.
//!
//! Like a slab, but in chunks of a fixed size: growing never moves what is there, and a chunk in
//! which nothing is left is freed. A million subscriptions come and go; their memory goes as well.

/// Slots in one chunk: enough that the pointer to it is no burden, few enough that one survivor
/// does not hold much.
const CHUNK_SLOTS: usize = 256;

enum Slot<T> {
    /// Free; the next free slot of the chunk, or `CHUNK_SLOTS`.
    Free(u16),
    Used(T),
}

struct Chunk<T> {
    slots: Box<[Slot<T>]>,
    used: u16,
    free: u16,
}

/// A table from `u32` keys, which it chooses, to values.
pub struct Slots<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// Chunks with a free slot, and places where a chunk was freed.
    open: Vec<u32>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            chunks: Vec::new(),
            open: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slots<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key the next `insert` will choose.
    pub fn next_key(&mut self) -> u32 {
        let (chunk_index, chunk) = self.open_chunk();
        chunk_index * CHUNK_SLOTS as u32 + u32::from(chunk.free)
    }

    fn open_chunk(&mut self) -> (u32, &mut Chunk<T>) {
        let chunk_index = match self.open.last() {
            Some(&index) => index,
            None => {
                self.chunks.push(None);
                let index = (self.chunks.len() - 1) as u32;
                self.open.push(index);
                index
            }
        };
        (
            chunk_index,
            self.chunks[chunk_index as usize].get_or_insert_with(Chunk::new),
        )
    }

    /// Puts a value in a free slot and returns its key.
    pub fn insert(&mut self, value: T) -> u32 {
        let (chunk_index, chunk) = self.open_chunk();
        let slot_index = chunk.free;
        let slot = &mut chunk.slots[slot_index as usize];
        if let Slot::Free(next) = *slot {
            chunk.free = next;
        }
        *slot = Slot::Used(value);
        chunk.used += 1;
        if chunk.used as usize == CHUNK_SLOTS {
            self.open.pop();
        }
        self.len += 1;
        chunk_index * CHUNK_SLOTS as u32 + slot_index as u32
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: u32) -> Option<&T> {
        let chunk = self.chunks.get(key as usize / CHUNK_SLOTS)?.as_ref()?;
        match &chunk.slots[key as usize % CHUNK_SLOTS] {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// The value of a key, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(key as usize / CHUNK_SLOTS)?.as_mut()?;
        match &mut chunk.slots[key as usize % CHUNK_SLOTS] {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let chunk_index = key as usize / CHUNK_SLOTS;
        let place = self.chunks.get_mut(chunk_index)?;
        let chunk = place.as_mut()?;
        let slot = &mut chunk.slots[key as usize % CHUNK_SLOTS];
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(chunk.free)) else {
            return None;
        };
        chunk.free = (key as usize % CHUNK_SLOTS) as u16;
        if chunk.used as usize == CHUNK_SLOTS {
            self.open.push(chunk_index as u32);
        }
        chunk.used -= 1;
        if chunk.used == 0 {
            *place = None;
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Slots::default();
        }
        Some(value)
    }
}

impl<T> Chunk<T> {
    fn new() -> Chunk<T> {
        let slots = (0..CHUNK_SLOTS)
            .map(|index| Slot::Free(index as u16 + 1))
            .collect();
        Chunk {
            slots,
            used: 0,
            free: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn behaves_like_a_map_under_churn_and_gives_chunks_back() {
        let mut slots = Slots::default();
        let mut model = HashMap::new();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for round in 0..40_000u64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state % 5 < 3 || model.is_empty() {
                let expected = slots.next_key();
                let key = slots.insert(round);
                assert_eq!(key, expected);
                assert_eq!(model.insert(key, round), None, "a used slot was given out");
            } else {
                let key = *model
                    .keys()
                    .nth(state as usize % model.len().min(8))
                    .expect("some");
                assert_eq!(slots.remove(key), model.remove(&key));
                assert_eq!(slots.remove(key), None);
            }
        }
        assert_eq!(slots.len(), model.len());
        for (key, value) in &model {
            assert_eq!(slots.get(*key), Some(value));
        }
        for key in model.keys() {
            slots.remove(*key);
        }
        assert!(slots.is_empty() && slots.chunks.capacity() == 0);
    }
}
