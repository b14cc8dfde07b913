//! Splits a control line into its arguments.
//!
//! Two ways that must agree: `split_plain` takes any legal line (tabs, runs of blanks, bare LF);
//! `split_fast` takes the form every client library sends (single blanks, CR LF), finds the end of
//! the line while it finds the arguments, eight bytes at a step, and gives up on anything else.

/// Most arguments any operation has, and one more, so that too many can be told from enough.
pub const ARGS_MAX: usize = 5;

/// Where the arguments of a line lie, as offsets into the bytes that begin at the verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args {
    ranges: [(u32, u32); ARGS_MAX],
    line_bytes: u32,
    count: u8,
    /// Whether arguments are separated by one blank and the line ends in CR LF, so that a stretch
    /// of it can be passed on as it is.
    pub is_canonical: bool,
}

impl Args {
    /// How many there are; `ARGS_MAX` stands for that many or more.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Bytes of the whole line with its LF.
    pub fn line_bytes(&self) -> usize {
        self.line_bytes as usize
    }

    /// Offsets of an argument.
    pub fn range(&self, index: usize) -> (usize, usize) {
        let (start, end) = self.ranges[index];
        (start as usize, end as usize)
    }

    /// The bytes of an argument.
    pub fn get<'a>(&self, frame: &'a [u8], index: usize) -> &'a [u8] {
        let (start, end) = self.ranges[index];
        &frame[start as usize..end as usize]
    }
}

/// Why a line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// More argument bytes than allowed.
    TooLong,
    /// A CR that is not followed by LF. Differs: the reference drops the byte before the LF, which
    /// no client wants; such a line is refused.
    StrayCr,
}

/// Offset of the first byte at or after `from` that is a blank or a control byte, or the length.
#[inline(always)]
fn find_blank(bytes: &[u8], from: usize) -> usize {
    // A byte is below 0x21 when subtracting 0x21 borrows and its high bit was clear. Borrows only
    // run upwards, so the lowest hit is exact.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(window) = bytes.get(at..at + 8) {
        let mut word = [0u8; 8];
        word.copy_from_slice(window);
        let word = u64::from_le_bytes(word);
        let hits = word.wrapping_sub(ONES * 0x21) & !word & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && bytes[at] > b' ' {
        at += 1;
    }
    at
}

/// Splits a complete line in its usual form; `None` when it is not in that form or not complete,
/// which is for `split_plain` to find out. `from` is where the first argument begins.
#[inline(always)]
pub fn split_fast(frame: &[u8], from: usize, args_bytes_max: usize) -> Option<Args> {
    let mut ranges = [(0, 0); ARGS_MAX];
    let mut at = from;
    let mut count = 0;
    while count < ARGS_MAX {
        let end = find_blank(frame, at);
        if end == at {
            return None;
        }
        ranges[count] = (at as u32, end as u32);
        count += 1;
        match frame.get(end) {
            Some(b' ') => at = end + 1,
            Some(b'\r') => {
                if frame.get(end + 1) != Some(&b'\n') || end - from > args_bytes_max {
                    return None;
                }
                return Some(Args {
                    ranges,
                    line_bytes: end as u32 + 2,
                    count: count as u8,
                    is_canonical: true,
                });
            }
            _ => return None,
        }
    }
    None
}

/// Splits any line. `frame` begins at the verb and ends with the LF at the latest; `from` is the
/// offset behind the verb.
pub fn split_plain(
    frame: &[u8],
    from: usize,
    line_bytes: usize,
    args_bytes_max: usize,
) -> Result<Args, LineError> {
    let text = trim_end(&frame[..line_bytes]);
    let start = skip_blanks(text, from);
    if text.len() - start > args_bytes_max {
        return Err(LineError::TooLong);
    }
    if memchr::memchr(b'\r', &text[start..]).is_some() {
        return Err(LineError::StrayCr);
    }
    let mut args = Args {
        ranges: [(0, 0); ARGS_MAX],
        line_bytes: line_bytes as u32,
        count: 0,
        is_canonical: false,
    };
    let mut at = start;
    while at < text.len() && args.count() < ARGS_MAX {
        let end = text[at..]
            .iter()
            .position(|&byte| is_blank(byte))
            .map_or(text.len(), |length| at + length);
        args.ranges[args.count()] = (at as u32, end as u32);
        args.count += 1;
        at = skip_blanks(text, end);
    }
    Ok(args)
}

/// A line without its LF and the CR directly before that.
pub fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a byte separates arguments.
pub fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Offset of the first byte at or after `from` that is no blank.
pub fn skip_blanks(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|&byte| !is_blank(byte))
        .map_or(bytes.len(), |count| from + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &[u8]) -> Result<Args, LineError> {
        let end = memchr::memchr(b'\n', line).expect("a whole line") + 1;
        split_plain(line, 4, end, 64)
    }

    #[test]
    fn usual_and_unusual_forms_split_alike() {
        for (line, expected) in [
            (&b"PUB foo 5\r\nhello\r\n"[..], vec!["foo", "5"]),
            (b"PUB foo bar 5\r\n", vec!["foo", "bar", "5"]),
            (b"PUB  foo\t 5 \r\n", vec!["foo", "5"]),
            (b"PUB foo 5\n", vec!["foo", "5"]),
            (b"PUB a b c d e f\r\n", vec!["a", "b", "c", "d", "e"]),
            (b"PUB \r\n", vec![]),
            (b"PUB a\x01b 5\r\n", vec!["a\u{1}b", "5"]),
            (
                b"PUB a-subject.longer.than.eight 5\r\n",
                vec!["a-subject.longer.than.eight", "5"],
            ),
        ] {
            let args = plain(line).expect("legal");
            let got: Vec<_> = (0..args.count())
                .map(|index| String::from_utf8_lossy(args.get(line, index)).into_owned())
                .collect();
            assert_eq!(got, expected);
            if let Some(fast) = split_fast(line, 4, 64) {
                assert_eq!(
                    fast,
                    Args {
                        is_canonical: true,
                        ..args
                    }
                );
            }
        }
    }

    #[test]
    fn a_line_is_as_long_as_its_arguments() {
        let exactly = [b"PUB ", &[b'a'; 64][..], b"\r\n"].concat();
        assert!(plain(&exactly).is_ok() && split_fast(&exactly, 4, 64).is_some());
        let longer = [b"PUB ", &[b'a'; 65][..], b"\r\n"].concat();
        assert_eq!(plain(&longer), Err(LineError::TooLong));
        assert_eq!(split_fast(&longer, 4, 64), None);
    }

    #[test]
    fn a_cr_inside_a_line_is_refused() {
        assert_eq!(plain(b"SUB foo\rbar 1\r\n"), Err(LineError::StrayCr));
        assert_eq!(split_fast(b"SUB foo\rbar 1\r\n", 4, 64), None);
    }
}
