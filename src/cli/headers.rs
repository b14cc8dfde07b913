//! Header blocks: built from `-H 'Name: value'`, and taken apart to be shown.

use super::failure::Failure;

/// Builds a header block from `Name: value` texts; empty if there are none.
pub fn build(lines: &[String]) -> Result<Vec<u8>, Failure> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let mut block = b"NATS/1.0\r\n".to_vec();
    for line in lines {
        let bad = |fault: &str| {
            Failure::usage(format!(
                "bad header \"{line}\": {fault}; it looks like \"Name: value\""
            ))
        };
        let (name, value) = line.split_once(':').ok_or_else(|| bad("no colon"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad("the name is empty or holds a blank"));
        }
        if value.contains(['\r', '\n']) {
            return Err(bad("the value has more than one line"));
        }
        block.extend_from_slice(format!("{name}: {}\r\n", value.trim()).as_bytes());
    }
    block.extend_from_slice(b"\r\n");
    Ok(block)
}

/// A header block taken apart.
#[derive(Clone, Copy)]
pub struct HeaderBlock<'a> {
    bytes: &'a [u8],
}

impl<'a> HeaderBlock<'a> {
    /// Any bytes will do: a server forwards what it was given.
    pub fn new(bytes: &'a [u8]) -> Self {
        HeaderBlock { bytes }
    }

    fn lines(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes
            .split(|&byte| byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.is_empty())
    }

    /// What follows `NATS/1.0` on the first line: a status such as `503`, mostly nothing.
    pub fn status(self) -> &'a [u8] {
        let first = self.lines().next().unwrap_or_default();
        first
            .strip_prefix(b"NATS/1.0")
            .unwrap_or_default()
            .trim_ascii()
    }

    /// Whether this is the server's answer that nobody listens where a request went.
    pub fn is_no_responders(self) -> bool {
        self.status().starts_with(b"503")
    }

    /// Names and values, in the order they were written.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines().skip(1).map(|line| {
            let colon = line.iter().position(|&byte| byte == b':');
            match colon {
                Some(colon) => (&line[..colon], line[colon + 1..].trim_ascii()),
                None => (line, &b""[..]),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_built_and_taken_apart() {
        let lines = ["A: 1".to_owned(), "b:x: y ".to_owned(), "A:2".to_owned()];
        let block = build(&lines).unwrap();
        assert_eq!(block, b"NATS/1.0\r\nA: 1\r\nb: x: y\r\nA: 2\r\n\r\n");
        let fields: Vec<_> = HeaderBlock::new(&block).fields().collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"A", b"1"), (b"b", b"x: y"), (b"A", b"2")];
        assert_eq!(fields, expected);
        assert_eq!(HeaderBlock::new(&block).status(), b"");
        assert!(build(&[]).unwrap().is_empty());
    }

    #[test]
    fn bad_headers_are_refused() {
        for line in ["novalue", ": x", "a b: c", "a: b\r\nc: d"] {
            assert!(build(&[line.to_owned()]).is_err(), "{line}");
        }
    }

    #[test]
    fn a_status_is_told_from_a_plain_block() {
        let block = HeaderBlock::new(b"NATS/1.0 503\r\nNats-Subject: foo\r\n\r\n");
        assert!(block.is_no_responders());
        let block = HeaderBlock::new(b"NATS/1.0 404 No Messages\r\n\r\n");
        assert_eq!(block.status(), b"404 No Messages");
        assert!(!HeaderBlock::new(b"garbage").is_no_responders());
    }

    /// What a server forwards was written by strangers: whatever the bytes, reading them ends, no
    /// field crosses a line, and what was built reads back. `MIDGE_FUZZ_SEED` repeats a run.
    #[test]
    fn any_bytes_are_read_and_built_blocks_read_back() {
        let seed = std::env::var("MIDGE_FUZZ_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            u64::from_le_bytes(midge::crypto::random_array().expect("random bytes"))
        });
        println!("MIDGE_FUZZ_SEED={seed}");
        let mut state = seed | 1;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % bound
        };
        const PIECES: [&[u8]; 12] = [
            b"NATS/1.0",
            b" 503",
            b"\r\n",
            b"\n",
            b"\r",
            b":",
            b" ",
            b"Name",
            b"v",
            b"\0",
            b"\xff",
            b"\x1b[2J",
        ];
        for _ in 0..20_000 {
            let count = below(24);
            let bytes: Vec<u8> = (0..count)
                .flat_map(|_| PIECES[below(12)].to_vec())
                .collect();
            let block = HeaderBlock::new(&bytes);
            assert!(!block.status().contains(&b'\n'));
            let mut read_bytes = 0;
            for (name, value) in block.fields() {
                assert!(
                    !name.contains(&b'\n') && !value.contains(&b'\n'),
                    "{bytes:?}"
                );
                read_bytes += name.len() + value.len();
            }
            assert!(read_bytes <= bytes.len());

            let names = ["A", "nats-x", "\u{e9}", "A"];
            let lines: Vec<String> = (0..below(4))
                .map(|index| format!("{}: {}", names[index], "v w:".repeat(below(3)).trim()))
                .collect();
            let built = build(&lines).expect("names and values that are allowed");
            let read: Vec<String> = HeaderBlock::new(&built)
                .fields()
                .map(|(name, value)| {
                    let text = String::from_utf8_lossy;
                    format!("{}: {}", text(name), text(value))
                })
                .collect();
            assert_eq!(read, lines);
        }
    }
}
