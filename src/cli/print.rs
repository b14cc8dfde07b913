//! How messages are shown: readable on a terminal, and harmless to it.
//!
//! A message is written by strangers. Control characters in it are shown as escapes, and bytes
//! that are no text as a hex dump, so that no message can move the cursor or retitle the window.
//! Only `--raw` passes bytes through.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::Formatter;

use super::connection::Message;
use super::headers::HeaderBlock;

/// Bytes of a binary payload that are dumped; the rest is counted.
const DUMP_BYTES_MAX: usize = 1024;

/// The forms a message can be printed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Headline, headers, payload.
    Readable,
    /// Headline and headers.
    HeadersOnly,
    /// The bytes of the payload and a line feed.
    Raw,
    /// The bytes of the payload and nothing else.
    Exact,
    /// One JSON object a line.
    Json,
}

/// Prints the body of a message in the given form. `headline` stands above the readable ones.
pub fn message(
    out: &mut impl Write,
    message: &Message,
    form: Form,
    headline: &str,
) -> io::Result<()> {
    match form {
        Form::Raw => {
            out.write_all(&message.payload)?;
            out.write_all(b"\n")
        }
        Form::Exact => out.write_all(&message.payload),
        Form::Json => json(out, &JsonMessage(message)),
        Form::Readable | Form::HeadersOnly => {
            writeln!(out, "{headline}")?;
            if !message.headers.is_empty() {
                headers(out, HeaderBlock::new(&message.headers))?;
            }
            if form == Form::Readable {
                payload(out, &message.payload)?;
            }
            writeln!(out)
        }
    }
}

/// Writes a value as one line of JSON that no terminal takes for commands.
pub fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut *out, Harmless,
    ))?;
    out.write_all(b"\n")
}

/// Compact JSON in which DEL and C1 are escaped too: JSON itself asks that of C0 only, but to a
/// terminal U+009B is as good as ESC [.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let mut rest = fragment;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(control))?;
            rest = &rest[at + control.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

fn headers(out: &mut impl Write, block: HeaderBlock<'_>) -> io::Result<()> {
    if !block.status().is_empty() {
        writeln!(out, "Status: {}", escape(block.status()))?;
    }
    for (name, value) in block.fields() {
        writeln!(out, "{}: {}", escape(name), escape(value))?;
    }
    writeln!(out)
}

fn payload(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        _ if bytes.is_empty() => Ok(()),
        Ok(text) if !text.contains('\0') => {
            out.write_all(escape_text(text).as_bytes())?;
            out.write_all(b"\n")
        }
        _ => hex_dump(out, bytes),
    }
}

/// Sixteen bytes a line: offset, hex, and the printable ASCII among them.
fn hex_dump(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let shown = &bytes[..bytes.len().min(DUMP_BYTES_MAX)];
    for (index, row) in shown.chunks(16).enumerate() {
        let mut hex = String::with_capacity(50);
        for (column, byte) in row.iter().enumerate() {
            hex += match column {
                8 => "  ",
                0 => "",
                _ => " ",
            };
            hex += &format!("{byte:02x}");
        }
        let text: String = row
            .iter()
            .map(|&byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '.',
            })
            .collect();
        writeln!(out, "{:08x}  {hex:<48}  |{text}|", index * 16)?;
    }
    match bytes.len() - shown.len() {
        0 => Ok(()),
        rest => writeln!(out, "... and {rest} more bytes (--raw writes them all)"),
    }
}

/// Text of many lines: tabs and line ends stay, other control characters become escapes.
fn escape_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => shown.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            c if c.is_control() => shown.extend(escape_control(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Bytes on one line: control characters and what is no UTF-8 become escapes.
pub fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => shown.extend(escape_control(c)),
                false => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            shown += &format!("\\x{byte:02x}");
        }
    }
    shown
}

fn escape_control(c: char) -> impl Iterator<Item = char> {
    let text = match u32::from(c) {
        code @ ..0x80 => format!("\\x{code:02x}"),
        code => format!("\\u{{{code:x}}}"),
    };
    text.chars().collect::<Vec<_>>().into_iter()
}

/// Subject, reply, headers and payload as one JSON object, in this order. What is no UTF-8 in a
/// payload goes in base64 under another name, so that a reader never has to guess.
struct JsonMessage<'a>(&'a Message);

impl Serialize for JsonMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let JsonMessage(message) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("subject", &String::from_utf8_lossy(&message.subject))?;
        if let Some(reply) = &message.reply {
            map.serialize_entry("reply", &String::from_utf8_lossy(reply))?;
        }
        if !message.headers.is_empty() {
            let block = HeaderBlock::new(&message.headers);
            if !block.status().is_empty() {
                map.serialize_entry("status", &String::from_utf8_lossy(block.status()))?;
            }
            map.serialize_entry("headers", &JsonHeaders(block))?;
        }
        match std::str::from_utf8(&message.payload) {
            Ok(text) => map.serialize_entry("payload", text)?,
            Err(_) => map.serialize_entry("payload_base64", &base64(&message.payload))?,
        }
        map.end()
    }
}

/// Each name once, with all its values.
struct JsonHeaders<'a>(HeaderBlock<'a>);

impl Serialize for JsonHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut grouped: Vec<(&[u8], Vec<String>)> = Vec::new();
        for (name, value) in self.0.fields() {
            let value = String::from_utf8_lossy(value).into_owned();
            match grouped.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => grouped.push((name, vec![value])),
            }
        }
        serializer.collect_map(
            grouped
                .iter()
                .map(|(name, values)| (String::from_utf8_lossy(name), values)),
        )
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for index in 0..3 {
            bits = bits << 8 | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            match index <= group.len() {
                true => {
                    let six = bits >> (18 - 6 * index) & 63;
                    text.push(char::from(ALPHABET[six as usize]));
                }
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(payload: &[u8], headers: &[u8], form: Form) -> String {
        let shown = Message {
            subject: b"foo".to_vec(),
            reply: Some(b"r".to_vec()),
            headers: headers.to_vec(),
            payload: payload.to_vec(),
            ..Message::default()
        };
        let mut out = Vec::new();
        message(&mut out, &shown, form, "[#1]").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_stays_text_and_control_bytes_become_escapes() {
        for (payload, expected) in [
            (&b"hello"[..], "[#1]\nhello\n\n"),
            (b"", "[#1]\n\n"),
            (
                "gr\u{fc}\u{df}e\r\ntwo\tlines".as_bytes(),
                "[#1]\ngr\u{fc}\u{df}e\ntwo\tlines\n\n",
            ),
            (b"\x1b[2Jgone\r\x07", "[#1]\n\\x1b[2Jgone\\x0d\\x07\n\n"),
            ("c1 \u{9b}2J".as_bytes(), "[#1]\nc1 \\u{9b}2J\n\n"),
        ] {
            assert_eq!(printed(payload, b"", Form::Readable), expected);
        }
    }

    #[test]
    fn binary_is_dumped_and_a_long_dump_cut() {
        let bytes: Vec<u8> = (0..=17).chain([0xff, b'a']).collect();
        assert_eq!(
            printed(&bytes, b"", Form::Readable),
            "[#1]\n\
             00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|\n\
             00000010  10 11 ff 61                                       |...a|\n\n"
        );
        let long = printed(&[0xff; 5000], b"", Form::Readable);
        assert_eq!(long.lines().count(), 1 + 64 + 1 + 1);
        assert!(long.contains("... and 3976 more bytes (--raw writes them all)"));
    }

    #[test]
    fn headers_are_shown_with_status_and_escapes() {
        let block = b"NATS/1.0 404 Gone\r\nA: 1\r\nA: \x1b2\r\n\r\n";
        let expected = "[#1]\nStatus: 404 Gone\nA: 1\nA: \\x1b2\n\nhi\n\n";
        assert_eq!(printed(b"hi", block, Form::Readable), expected);
        let expected = "[#1]\nStatus: 404 Gone\nA: 1\nA: \\x1b2\n\n\n";
        assert_eq!(printed(b"hi", block, Form::HeadersOnly), expected);
    }

    #[test]
    fn raw_passes_every_byte_and_json_every_message() {
        let mut raw = Vec::new();
        let shown = Message {
            payload: vec![0x1b, 0xff, 0],
            ..Message::default()
        };
        message(&mut raw, &shown, Form::Raw, "").unwrap();
        assert_eq!(raw, [0x1b, 0xff, 0, b'\n']);
        raw.clear();
        message(&mut raw, &shown, Form::Exact, "").unwrap();
        assert_eq!(raw, [0x1b, 0xff, 0]);
        assert_eq!(
            printed(
                b"a\"b",
                b"NATS/1.0\r\nB: 1\r\nA: 1\r\nB: 2\r\n\r\n",
                Form::Json
            ),
            "{\"subject\":\"foo\",\"reply\":\"r\",\"headers\":{\"B\":[\"1\",\"2\"],\"A\":[\"1\"]},\
             \"payload\":\"a\\\"b\"}\n"
        );
        assert_eq!(
            printed(b"\xff\xfe", b"", Form::Json),
            "{\"subject\":\"foo\",\"reply\":\"r\",\"payload_base64\":\"//4=\"}\n"
        );
    }

    #[test]
    fn json_brings_no_control_character_to_a_terminal() {
        let text = "\u{1b}[2J \u{7f}\u{80}\u{9b}2J\u{9f} \u{a0}\u{fc} \\ \"";
        let header = format!("NATS/1.0\r\n{text}: {text}\r\n\r\n");
        let line = printed(text.as_bytes(), header.as_bytes(), Form::Json);
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        assert!(line.contains("\\u007f\\u0080\\u009b2J\\u009f \u{a0}\u{fc}"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["payload"], text);
        assert_eq!(value["headers"][text][0], text);
    }

    #[test]
    fn base64_pads_as_it_should() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn names_are_escaped_on_one_line() {
        assert_eq!(escape(b"a\nb\xff\x7f"), "a\\x0ab\\xff\\x7f");
    }
}
