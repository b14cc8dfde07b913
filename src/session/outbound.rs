//! The bytes queued for one connection.
//!
//! Frames are appended to blocks and may cross from one into the next. A large body that goes to
//! several connections is queued by reference. The caller hands `slices` to the kernel, says with
//! `advance` how many bytes it took, and blocks go back to the pool as they empty. Who is told
//! when the queue is too long is the business of `pressure`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::buffer::{Block, BlockPool, LARGE_BLOCK_BYTES, SMALL_BLOCK_BYTES};

enum Segment {
    Block(Block),
    Shared(Arc<[u8]>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Block(block) => block,
            Segment::Shared(shared) => shared,
        }
    }
}

/// Output queue of a connection.
#[derive(Default)]
pub struct Outbound {
    /// Segments before the one being written.
    full: VecDeque<Segment>,
    /// The block being written; without capacity while nothing is queued.
    tail: Block,
    /// Bytes of the first segment that are sent already.
    sent: usize,
    pending_bytes: usize,
    /// Bytes ever taken by the kernel.
    taken_bytes: u64,
    /// Whether the last time around more than a small block was needed.
    is_busy: bool,
}

impl Outbound {
    /// Bytes queued and not yet taken by the kernel.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Bytes the kernel took since the connection began.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Queues a frame given in parts.
    #[inline(always)]
    pub fn push<const N: usize>(&mut self, pool: &mut BlockPool, parts: [&[u8]; N]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.pending_bytes += bytes;
        if self.tail.capacity() - self.tail.len() < bytes {
            return self.push_across(pool, bytes, &parts);
        }
        for part in parts {
            self.tail.extend_from_slice(part);
        }
    }

    /// Queues a frame whose last part is shared with other connections.
    pub fn push_shared<const N: usize>(
        &mut self,
        pool: &mut BlockPool,
        parts: [&[u8]; N],
        shared: &Arc<[u8]>,
    ) {
        // The next piece is not of this block, so a small one will do, however busy it is here.
        if self.tail.capacity() == 0
            && parts.iter().map(|part| part.len()).sum::<usize>() <= SMALL_BLOCK_BYTES
        {
            self.tail = pool.take_small();
        }
        self.push(pool, parts);
        self.pending_bytes += shared.len();
        self.close_tail();
        self.full.push_back(Segment::Shared(Arc::clone(shared)));
    }

    #[cold]
    #[inline(never)]
    fn push_across(&mut self, pool: &mut BlockPool, bytes: usize, parts: &[&[u8]]) {
        if self.tail.capacity() == 0 {
            self.tail = match bytes <= SMALL_BLOCK_BYTES && !self.is_busy {
                true => pool.take_small(),
                false => pool.take_large(),
            };
        }
        for part in parts {
            let mut rest = *part;
            loop {
                let room = self.tail.capacity() - self.tail.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                self.tail.extend_from_slice(now);
                if later.is_empty() {
                    break;
                }
                rest = later;
                self.close_tail();
                self.tail = pool.take_large();
            }
        }
    }

    /// Moves the block being written behind the full ones.
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.full
                .push_back(Segment::Block(std::mem::take(&mut self.tail)));
        }
    }

    /// Fills `slices` with what is to be sent, in order, and returns how many of them it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let segments = self
            .full
            .iter()
            .map(Segment::bytes)
            .chain(std::iter::once(&self.tail[..]));
        let mut count = 0;
        for (segment, slice) in segments.zip(slices.iter_mut()) {
            let bytes = if count == 0 {
                &segment[self.sent..]
            } else {
                segment
            };
            if bytes.is_empty() {
                break;
            }
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Takes note that the kernel took `bytes`.
    pub fn advance(&mut self, bytes: usize, pool: &mut BlockPool) {
        self.pending_bytes -= bytes;
        self.taken_bytes += bytes as u64;
        let mut left = bytes + self.sent;
        while let Some(first) = self.full.front() {
            let length = first.bytes().len();
            if left < length {
                self.sent = left;
                return;
            }
            left -= length;
            if let Some(Segment::Block(block)) = self.full.pop_front() {
                pool.give(block);
            }
        }
        self.sent = left;
        if self.pending_bytes == 0 {
            self.is_busy = bytes > SMALL_BLOCK_BYTES;
            self.sent = 0;
            if self.tail.capacity() > 0 {
                pool.give(std::mem::take(&mut self.tail));
            }
            if self.full.capacity() > LARGE_BLOCK_BYTES / 1024 {
                self.full = VecDeque::new();
            }
        }
    }

    /// Forgets everything queued.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        for segment in self.full.drain(..) {
            if let Segment::Block(block) = segment {
                pool.give(block);
            }
        }
        pool.give(std::mem::take(&mut self.tail));
        self.sent = 0;
        self.pending_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `limit` bytes out as a kernel would.
    fn take(out: &mut Outbound, pool: &mut BlockPool, limit: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = out.slices(&mut slices);
        let mut bytes = Vec::new();
        for slice in &slices[..count] {
            let room = limit - bytes.len();
            bytes.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        out.advance(bytes.len(), pool);
        bytes
    }

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_kernel_takes() {
        let mut pool = BlockPool::default();
        for step in [1usize, 7, 1000, 40_000, 1_000_000] {
            let mut out = Outbound::default();
            let mut expected = Vec::new();
            for index in 0..600usize {
                let body = vec![index as u8; index * 7 % 500];
                out.push(&mut pool, [b"head ", &body]);
                expected.extend_from_slice(b"head ");
                expected.extend_from_slice(&body);
                if index % 50 == 0 {
                    let shared: Arc<[u8]> = vec![b'S'; 10_000].into();
                    out.push_shared(&mut pool, [b"shared "], &shared);
                    expected.extend_from_slice(b"shared ");
                    expected.extend_from_slice(&shared);
                }
            }
            assert_eq!(out.pending_bytes(), expected.len());
            let mut got = Vec::new();
            while out.pending_bytes() > 0 {
                let bytes = take(&mut out, &mut pool, step);
                assert!(!bytes.is_empty());
                got.extend(bytes);
            }
            assert_eq!(got, expected);
            assert_eq!(out.taken_bytes(), expected.len() as u64);
            assert_eq!(out.tail.capacity(), 0, "a quiet connection holds no block");
        }
    }

    #[test]
    fn a_frame_larger_than_a_block_crosses_blocks() {
        let mut pool = BlockPool::default();
        let mut out = Outbound::default();
        let body = vec![7u8; 3 * LARGE_BLOCK_BYTES + 5];
        out.push(&mut pool, [&body]);
        assert_eq!(take(&mut out, &mut pool, usize::MAX), body);
    }
}
