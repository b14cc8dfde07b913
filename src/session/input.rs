//! The beginning of a frame whose end has not come yet.
//!
//! A connection keeps nothing between reads unless a frame was cut. What is kept is bounded by the
//! limits of the protocol before it is stored, and no byte of it is searched twice for the line end.

use crate::buffer::{Block, BlockPool, LARGE_BLOCK_BYTES, SMALL_BLOCK_BYTES};
use crate::wire::err_text::Fatal;
use crate::wire::line;
use crate::wire::parse::{self, Head, Loose, Next, Op, ParseLimits, Partial};

/// Bytes fed at a time while it is not even known which operation it is.
const BEGINNING_BYTES: usize = 16;

/// What a connection keeps of a cut frame.
#[derive(Default)]
pub struct Input {
    stash: Block,
    waiting: Option<Partial>,
}

/// What came of more bytes.
pub enum Fed {
    /// The frame is complete and lies in the block, which is to be given to `Input::done`.
    Frame(Block, Complete),
    /// Everything was taken and the frame is still not complete.
    More,
}

/// How to read the complete frame.
pub enum Complete {
    /// From the beginning.
    Line,
    /// As the message whose line is split already.
    Body(Head),
    /// As this operation.
    Loose(Loose),
}

impl Input {
    /// Whether the beginning of a frame is kept.
    #[inline]
    pub fn is_partial(&self) -> bool {
        self.waiting.is_some()
    }

    /// Bytes kept.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.stash.len()
    }

    /// Keeps the beginning of a frame.
    pub fn keep(&mut self, partial: Partial, bytes: &[u8], pool: &mut BlockPool) {
        self.waiting = Some(partial);
        if matches!(partial, Partial::Skip(_)) {
            return;
        }
        let bytes = without_trailing_blanks(partial, bytes);
        let frame_bytes = match partial {
            Partial::Body(head) => head.frame_bytes(),
            _ => bytes.len(),
        };
        self.stash = if frame_bytes <= SMALL_BLOCK_BYTES {
            pool.take_small()
        } else if frame_bytes <= LARGE_BLOCK_BYTES {
            pool.take_large()
        } else {
            // Memory for a large message grows with what has really come.
            Block::new()
        };
        self.stash.extend_from_slice(bytes);
    }

    /// Takes more bytes up to the end of the frame, and says how many.
    ///
    /// # Errors
    /// The frame cannot become a legal one.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        limits: &ParseLimits,
        pool: &mut BlockPool,
    ) -> Result<(usize, Fed), Fatal> {
        match self.waiting {
            None => Ok((0, Fed::More)),
            Some(Partial::Skip(loose)) => Ok(self.feed_skip(loose, bytes)),
            Some(Partial::Body(head)) => self.feed_body(head, bytes),
            Some(Partial::Line {
                args_from: Some(from),
            }) => self.feed_args(from, bytes, limits, pool),
            Some(Partial::Line { args_from: None }) => self.feed_beginning(bytes, limits, pool),
        }
    }

    /// Gives the block of a complete frame back.
    pub fn done(block: Block, pool: &mut BlockPool) {
        pool.give(block);
    }

    fn complete(&mut self, how: Complete) -> Fed {
        self.waiting = None;
        Fed::Frame(std::mem::take(&mut self.stash), how)
    }

    fn feed_skip(&mut self, loose: Loose, bytes: &[u8]) -> (usize, Fed) {
        match memchr::memchr(b'\n', bytes) {
            Some(lf) => (lf + 1, self.complete(Complete::Loose(loose))),
            None => (bytes.len(), Fed::More),
        }
    }

    fn feed_body(&mut self, head: Head, bytes: &[u8]) -> Result<(usize, Fed), Fatal> {
        let missing = head.frame_bytes() - self.stash.len();
        let taken = missing.min(bytes.len());
        self.stash.extend_from_slice(&bytes[..taken]);
        if taken < missing {
            head.check_partial(&self.stash)?;
            return Ok((taken, Fed::More));
        }
        Ok((taken, self.complete(Complete::Body(head))))
    }

    fn feed_args(
        &mut self,
        from: usize,
        bytes: &[u8],
        limits: &ParseLimits,
        pool: &mut BlockPool,
    ) -> Result<(usize, Fed), Fatal> {
        let lf = memchr::memchr(b'\n', bytes);
        let taken = lf.map_or(bytes.len(), |lf| lf + 1);
        // One byte beyond the limit is enough to refuse; the rest need not be stored.
        let room = (from + limits.args_bytes_max + 3).saturating_sub(self.stash.len());
        self.stash.extend_from_slice(&bytes[..taken.min(room)]);
        if lf.is_none() || taken > room {
            parse::check_partial_args(&self.stash[from..], limits)?;
            return Ok((taken, Fed::More));
        }
        self.after_line(taken, limits, pool)
    }

    /// The stash now ends with a line end: an operation, or one that waits for its body.
    fn after_line(
        &mut self,
        taken: usize,
        limits: &ParseLimits,
        pool: &mut BlockPool,
    ) -> Result<(usize, Fed), Fatal> {
        match parse::next(&self.stash, limits)? {
            Next::Op(..) => Ok((taken, self.complete(Complete::Line))),
            Next::Partial(partial) => {
                self.waiting = Some(partial);
                if let Partial::Body(head) = partial
                    && (self.stash.capacity() + 1..=LARGE_BLOCK_BYTES).contains(&head.frame_bytes())
                {
                    // The line began in a small block; the body comes into one that can go back
                    // to the pool.
                    let mut block = pool.take_large();
                    block.extend_from_slice(&self.stash);
                    pool.give(std::mem::replace(&mut self.stash, block));
                }
                Ok((taken, Fed::More))
            }
        }
    }

    fn feed_beginning(
        &mut self,
        bytes: &[u8],
        limits: &ParseLimits,
        pool: &mut BlockPool,
    ) -> Result<(usize, Fed), Fatal> {
        // Blanks between verb and arguments are not worth keeping, however many there are.
        if self.stash.last().is_some_and(|&byte| line::is_blank(byte)) {
            let blanks = line::skip_blanks(bytes, 0);
            if blanks > 0 {
                return Ok((blanks, Fed::More));
            }
        }
        let some = &bytes[..bytes.len().min(BEGINNING_BYTES)];
        let taken = memchr::memchr(b'\n', some).map_or(some.len(), |lf| lf + 1);
        self.stash.extend_from_slice(&some[..taken]);
        let fed = self.after_line(taken, limits, pool)?;
        if matches!(self.waiting, Some(Partial::Skip(_))) {
            self.stash = Block::new();
        }
        Ok(fed)
    }
}

/// The beginning of a frame without the run of blanks it ends with, but for one, when nothing but
/// blanks has come behind the verb.
fn without_trailing_blanks(partial: Partial, bytes: &[u8]) -> &[u8] {
    if !matches!(partial, Partial::Line { args_from: None }) {
        return bytes;
    }
    let text = bytes.iter().rposition(|&byte| !line::is_blank(byte));
    &bytes[..text.map_or(0, |last| (last + 2).min(bytes.len()))]
}

impl Complete {
    /// The operation in the frame.
    ///
    /// # Errors
    /// The frame is not a legal one after all.
    pub fn op<'a>(&self, frame: &'a [u8], limits: &ParseLimits) -> Result<Option<Op<'a>>, Fatal> {
        match self {
            Complete::Loose(loose) => Ok(Some(loose.op())),
            Complete::Body(head) => Ok(Some(Op::Publish(head.finish(frame)?))),
            Complete::Line => match parse::next(frame, limits)? {
                Next::Op(op, _) => Ok(Some(op)),
                Next::Partial(_) => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ParseLimits = ParseLimits {
        args_bytes_max: 64,
        payload_bytes_max: 5000,
        has_headers: true,
    };

    /// Reads a stream given in pieces, as a connection does, and renders what it finds.
    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut input = Input::default();
        let mut pool = BlockPool::default();
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let step = if input.is_partial() {
                    input
                        .feed(rest, &LIMITS, &mut pool)
                        .and_then(|(taken, fed)| {
                            rest = &rest[taken..];
                            if let Fed::Frame(block, how) = fed {
                                found.push(format!("{:?}", how.op(&block, &LIMITS)?));
                                Input::done(block, &mut pool);
                            }
                            Ok(())
                        })
                } else {
                    parse::next(rest, &LIMITS).map(|next| match next {
                        Next::Op(op, taken) => {
                            found.push(format!("{:?}", Some(op)));
                            rest = &rest[taken..];
                        }
                        Next::Partial(partial) => {
                            input.keep(partial, rest, &mut pool);
                            rest = &[];
                        }
                    })
                };
                if let Err(fatal) = step {
                    found.push(format!("{fatal:?}"));
                    return found;
                }
                assert!(input.bytes() <= 64 + 5000 + 16);
            }
        }
        found
    }

    /// Takes what canonical form adds out of a rendering: it depends on nothing a client sees.
    fn check_all_cuts(stream: &[u8]) {
        let whole = read(&[stream]);
        for cut in 1..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(read(&[a, b]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes), whole, "byte by byte");
    }

    #[test]
    fn every_cut_gives_the_same_operations() {
        check_all_cuts(
            b"CONNECT {\"verbose\":false}\r\nPING\r\nsub  foo.*\t q 1\r\nPUB foo 5\r\nhello\r\n\
              pOnG junk \nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 1 5\nPUB a 0\r\n\r\n+OK\r\n",
        );
        let large = [&b"PUB big 4000\r\n"[..], &[b'\n'; 4000], b"\r\nPING\r\n"].concat();
        check_all_cuts(&large);
    }

    #[test]
    fn every_cut_gives_the_same_error() {
        for stream in [
            &b"PING\r\nSUBX foo 1\r\n"[..],
            b"PUB foo 2\r\nhelp\r\n",
            b"PUB foo 5001\r\n",
            b"SUB a b c d\r\nPING\r\n",
            b"SUB                      \r\n",
        ] {
            check_all_cuts(stream);
        }
        let long = [&b"SUB "[..], &[b'a'; 65], b"\r\n"].concat();
        check_all_cuts(&long);
        let just_right = [&b"SUB "[..], &[b'a'; 62], b" 1\r\n"].concat();
        check_all_cuts(&just_right);
    }

    #[test]
    fn endless_input_costs_nothing() {
        for beginning in [&b"PING "[..], b"SUB ", b"+OK"] {
            let blanks = vec![b' '; 1 << 16];
            let mut pieces: Vec<&[u8]> = vec![beginning];
            pieces.extend(std::iter::repeat_n(&blanks[..], 50));
            assert_eq!(read(&pieces), Vec::<String>::new());
            let at_once = [beginning, &blanks].concat();
            assert_eq!(read(&[&at_once, &blanks]), Vec::<String>::new());
        }
    }
}
