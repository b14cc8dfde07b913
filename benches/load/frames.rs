//! Reads what a server sends and counts it, without keeping anything.
//!
//! A load client must be much cheaper than the server it drives: the usual frame has the very header
//! line of the frame before it, which one comparison recognises; any other line is looked up with
//! memchr and parsed. Payloads are skipped, but the CRLF behind each is checked where it is at hand.

use memchr::{memchr, memrchr};

/// Longest line kept while waiting for its end. INFO is the longest one that servers send.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where one connection's inbound stream stands.
#[derive(Default)]
pub struct Frames {
    /// Messages whose header line was seen.
    pub msgs: u64,
    /// PONGs seen.
    pub pongs: u64,
    /// PINGs seen.
    pub pings: u64,
    /// Payload bytes and CRLF still to come for the current message.
    skip: usize,
    /// A line that had not ended at the end of the last read.
    partial: Vec<u8>,
    /// The last message's header line, and what its payload takes with CRLF.
    last: Vec<u8>,
    last_body: usize,
}

/// The header line of a message, without CRLF: `MSG subject sid [reply] size`.
pub struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// The reply subject, if there is one.
    pub fn reply(&self) -> Option<&'a [u8]> {
        let sizes = if self.0[0] == b'H' { 2 } else { 1 };
        let fields = self.0.split(|b| *b == b' ').count();
        (fields == 4 + sizes)
            .then(|| self.0.split(|b| *b == b' ').nth(3))
            .flatten()
    }
}

impl Frames {
    /// Takes the next bytes of the stream; `on_msg` hears of each message at its header line.
    pub fn feed(&mut self, buf: &[u8], mut on_msg: impl FnMut(Head)) -> Result<(), String> {
        let mut at = 0;
        if !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', buf) else {
                return self.keep(buf);
            };
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&buf[..=end]);
            at = end + 1;
            self.line(&line, &mut on_msg)?;
        }
        loop {
            if self.skip > 0 {
                let step = self.skip.min(buf.len() - at);
                at += step;
                self.skip -= step;
                if self.skip == 0 && step > 0 && buf[at - 1] != b'\n' {
                    return Err("a payload does not end where its size says".into());
                }
            }
            if at == buf.len() {
                return Ok(());
            }
            let rest = &buf[at..];
            if !self.last.is_empty() && rest.starts_with(&self.last) {
                at += self.last.len();
                self.skip = self.last_body;
                self.msgs += 1;
                on_msg(Head(&self.last[..self.last.len() - 2]));
                continue;
            }
            let Some(end) = memchr(b'\n', rest) else {
                return self.keep(rest);
            };
            self.line(&rest[..=end], &mut on_msg)?;
            at += end + 1;
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err("the server sends an endless line".into());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8], on_msg: &mut impl FnMut(Head)) -> Result<(), String> {
        let text = line.strip_suffix(b"\r\n").ok_or_else(|| strange(line))?;
        match text {
            [b'M', b'S', b'G', b' ', ..] | [b'H', b'M', b'S', b'G', b' ', ..] => {
                let size = memrchr(b' ', text).map(|blank| &text[blank + 1..]);
                let size = size.and_then(number).ok_or_else(|| strange(line))?;
                self.last.clear();
                self.last.extend_from_slice(line);
                self.last_body = size + 2;
                self.skip = size + 2;
                self.msgs += 1;
                on_msg(Head(text));
            }
            b"PING" => self.pings += 1,
            b"PONG" => self.pongs += 1,
            [b'I', b'N', b'F', b'O', ..] | b"+OK" => {}
            _ => return Err(strange(line)),
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn strange(line: &[u8]) -> String {
    let shown = &line[..line.len().min(200)];
    format!(
        "the server says: {}",
        String::from_utf8_lossy(shown).trim_end()
    )
}
