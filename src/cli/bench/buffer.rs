//! The read buffer of a thread, shared by all its connections.

/// Bytes asked for in one read.
const READ_BYTES: usize = 256 * 1024;
/// Room in front of a read for the beginning of a cut frame; grows when that is longer.
const HEADROOM_BYTES: usize = 16 * 1024;

/// A read buffer with room in front, where the rest of the last read is put so that frames are in
/// one piece.
pub struct Buffer {
    bytes: Vec<u8>,
    headroom: usize,
}

impl Buffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Buffer {
            bytes: vec![0; HEADROOM_BYTES + READ_BYTES],
            headroom: HEADROOM_BYTES,
        }
    }

    /// Where to read to.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.headroom..]
    }

    /// The `count` bytes just read, behind what was left over from the last read.
    pub fn joined(&mut self, rest: &[u8], count: usize) -> &[u8] {
        if rest.len() > self.headroom {
            // Twice what is needed: a rest that grows read by read must not copy each time.
            let more = rest.len() * 2 - self.headroom;
            self.bytes.splice(0..0, std::iter::repeat_n(0, more));
            self.headroom += more;
        }
        let start = self.headroom - rest.len();
        self.bytes[start..self.headroom].copy_from_slice(rest);
        &self.bytes[start..self.headroom + count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_over_stands_in_front_of_what_was_read() {
        let mut buffer = Buffer::new();
        buffer.space()[..3].copy_from_slice(b"def");
        assert_eq!(buffer.joined(b"abc", 3), b"abcdef");
        let long = vec![b'x'; HEADROOM_BYTES * 3];
        buffer.space()[..3].copy_from_slice(b"end");
        let joined = buffer.joined(&long, 3);
        assert_eq!(joined.len(), long.len() + 3);
        assert!(joined.ends_with(b"xend"));
        assert_eq!(buffer.space().len(), READ_BYTES);
    }
}
