//! Output blocks: lent to a connection while it has something to send, then taken back.
//!
//! Two sizes, so that a broadcast to ten thousand quiet connections does not take ten thousand
//! large blocks, and a busy connection does not go through hundreds of small ones.

/// A block of output bytes; its capacity says which size it is.
pub type Block = Vec<u8>;

/// Bytes of a small block: a few messages.
pub const SMALL_BLOCK_BYTES: usize = 1024;
/// Bytes of a large block.
pub const LARGE_BLOCK_BYTES: usize = 32 * 1024;
/// Small blocks kept for later use: 512 KiB.
const SMALL_BLOCKS_KEPT: usize = 512;
/// Large blocks kept for later use: 4 MiB, what is queued at most between two flushes.
const LARGE_BLOCKS_KEPT: usize = 128;

/// The blocks of one worker that are not in use.
#[derive(Default)]
pub struct BlockPool {
    small: Vec<Block>,
    large: Vec<Block>,
    freed_bytes: usize,
}

impl BlockPool {
    /// A small block.
    pub fn take_small(&mut self) -> Block {
        self.small
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(SMALL_BLOCK_BYTES))
    }

    /// A large block.
    pub fn take_large(&mut self) -> Block {
        self.large
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(LARGE_BLOCK_BYTES))
    }

    /// Takes a block back.
    pub fn give(&mut self, mut block: Block) {
        block.clear();
        let (kept, kept_max) = match block.capacity() {
            LARGE_BLOCK_BYTES => (&mut self.large, LARGE_BLOCKS_KEPT),
            SMALL_BLOCK_BYTES => (&mut self.small, SMALL_BLOCKS_KEPT),
            other => {
                self.freed_bytes += other;
                return;
            }
        };
        if kept.len() < kept_max {
            kept.push(block);
        } else {
            self.freed_bytes += block.capacity();
        }
    }

    /// Gives the memory of all unused blocks back, when traffic has ended.
    pub fn shrink(&mut self) {
        let kept_bytes =
            self.small.len() * SMALL_BLOCK_BYTES + self.large.len() * LARGE_BLOCK_BYTES;
        *self = BlockPool {
            freed_bytes: self.freed_bytes + kept_bytes,
            ..BlockPool::default()
        };
    }

    /// Bytes given back to the allocator since this was last asked.
    pub fn take_freed_bytes(&mut self) -> usize {
        std::mem::take(&mut self.freed_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_empty_and_in_bounded_number() {
        let mut pool = BlockPool::default();
        let mut block = pool.take_small();
        block.push(1);
        pool.give(block);
        assert!(pool.take_small().is_empty());
        for _ in 0..2 * LARGE_BLOCKS_KEPT {
            pool.give(Vec::with_capacity(LARGE_BLOCK_BYTES));
        }
        assert_eq!(pool.large.len(), LARGE_BLOCKS_KEPT);
    }
}
