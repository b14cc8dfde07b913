//! Reads a transcript file into dialogues of steps.

use std::path::Path;

use super::info::InfoPattern;

/// One file: dialogues that share a server.
#[derive(Clone)]
pub struct File {
    pub name: String,
    pub options: Options,
    pub dialogues: Vec<Dialogue>,
}

/// Options of the server in the reference's names.
pub type Options = Vec<(String, String)>;

/// One dialogue, with connections of its own.
#[derive(Clone)]
pub struct Dialogue {
    pub title: String,
    pub line: usize,
    /// If there are any, the dialogue gets a server of its own.
    pub options: Options,
    pub only: Only,
    /// The reference answers otherwise when the bytes are cut, which is no example to follow.
    pub is_whole_on_reference: bool,
    pub steps: Vec<Step>,
}

/// Which servers a dialogue is meant for.
#[derive(Clone, Copy, PartialEq)]
pub enum Only {
    Any,
    Midge,
    Reference,
}

#[derive(Clone)]
pub struct Step {
    pub line: usize,
    /// Name of the connection.
    pub conn: String,
    pub what: What,
}

#[derive(Clone)]
pub enum What {
    /// Connect and read INFO, nothing else.
    Open,
    /// Write these bytes.
    Send(Vec<u8>),
    /// Stop writing; what the server still says can be read.
    End,
    /// Stop writing, and wait until the server has closed too.
    Close,
    /// These bytes come next.
    Expect(Vec<u8>),
    /// These come next, in any order.
    ExpectAnyOrder(Vec<Vec<u8>>),
    /// An INFO line with these fields comes next.
    ExpectInfo(InfoPattern),
    /// A PING is answered by PONG with nothing before it.
    ExpectNothing,
    /// The server closes without another byte.
    ExpectClosed,
}

impl File {
    pub fn read(path: &Path) -> Result<File, String> {
        let name = path.file_name().expect("a file").to_string_lossy();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        File::parse(&format!("tests/wire/{name}"), &text)
    }

    pub fn parse(name: &str, text: &str) -> Result<File, String> {
        let mut file = File {
            name: name.to_owned(),
            options: Vec::new(),
            dialogues: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let result = file.parse_line(number, line.trim_end());
            result.map_err(|error| format!("{name}:{number}: {error}"))?;
        }
        match file
            .dialogues
            .iter()
            .find(|dialogue| dialogue.steps.is_empty())
        {
            Some(empty) => Err(format!("{name}:{}: a dialogue without a step", empty.line)),
            None => Ok(file),
        }
    }

    fn parse_line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(title) = line.strip_prefix("== ") {
            self.dialogues.push(Dialogue {
                title: title.to_owned(),
                line: number,
                options: Vec::new(),
                only: Only::Any,
                is_whole_on_reference: false,
                steps: Vec::new(),
            });
            return Ok(());
        }
        if let Some(comment) = line.strip_prefix('#') {
            return self.parse_comment(comment.trim());
        }
        let dialogue = self
            .dialogues
            .last_mut()
            .ok_or("a step before the first \"== title\"")?;
        dialogue.steps.push(parse_step(number, line)?);
        Ok(())
    }

    /// Most comments are for people; some beginnings are for the runner.
    fn parse_comment(&mut self, comment: &str) -> Result<(), String> {
        if let Some(option) = comment.strip_prefix("option:") {
            let (name, value) = option.split_once('=').ok_or("an option is NAME = VALUE")?;
            let option = (name.trim().to_owned(), value.trim().to_owned());
            match self.dialogues.last_mut() {
                None => self.options.push(option),
                Some(dialogue) if dialogue.steps.is_empty() => dialogue.options.push(option),
                Some(_) => return Err("an option after the first step".into()),
            }
        } else if let Some(server) = comment.strip_prefix("only:") {
            let dialogue = self
                .dialogues
                .last_mut()
                .ok_or("\"only\" outside a dialogue")?;
            dialogue.only = match server.trim() {
                "midge" => Only::Midge,
                "reference" => Only::Reference,
                other => return Err(format!("unknown server {other:?}")),
            };
        } else if comment.starts_with("reference: whole writes only") {
            let dialogue = self.dialogues.last_mut().ok_or("outside a dialogue")?;
            dialogue.is_whole_on_reference = true;
        }
        Ok(())
    }
}

fn parse_step(line: usize, text: &str) -> Result<Step, String> {
    let mark = text
        .find([':', '>', '<'])
        .ok_or("a step is \"C: ...\", \"S: ...\", \"A> ...\" or \"A< ...\"")?;
    let (name, rest) = text.split_at(mark);
    let (mark, rest) = rest.split_at(1);
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let is_from_client = match (name, mark) {
        ("C", ":") => true,
        ("S", ":") => false,
        (_, ":") => return Err(format!("only C: and S: have a colon, not {name:?}")),
        _ => mark == ">",
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("{name:?} names no connection"));
    }
    // C and S are the two ends of one connection.
    let conn = if mark == ":" { "C" } else { name }.to_owned();
    let what = if is_from_client {
        parse_sent(rest)?
    } else {
        parse_expected(rest)?
    };
    Ok(Step { line, conn, what })
}

fn parse_sent(text: &str) -> Result<What, String> {
    match text {
        "(open)" => Ok(What::Open),
        "(end)" => Ok(What::End),
        "(close)" => Ok(What::Close),
        _ if text.starts_with('(') => Err(format!("unknown: {text}")),
        _ => Ok(What::Send(unescape(text)?)),
    }
}

fn parse_expected(text: &str) -> Result<What, String> {
    if let Some(pattern) = text.strip_prefix("INFO ") {
        return Ok(What::ExpectInfo(InfoPattern::parse(pattern)?));
    }
    if let Some(list) = text.strip_prefix("(any order) ") {
        let parts: Result<Vec<_>, _> = list.split(" (and) ").map(unescape).collect();
        return Ok(What::ExpectAnyOrder(parts?));
    }
    match text {
        "(closed)" => Ok(What::ExpectClosed),
        "(nothing)" => Ok(What::ExpectNothing),
        _ if text.starts_with('(') => Err(format!("unknown: {text}")),
        _ => Ok(What::Expect(unescape(text)?)),
    }
}

/// Turns `\r \n \t \s \\ \xHH` and `{COUNT x "text"}` into bytes; everything else stands for itself.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{']) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('\\') {
            let (byte, used) = parse_escape(after)?;
            bytes.push(byte);
            rest = &after[used..];
        } else if let Some((count, repeated, after)) = split_repetition(rest) {
            bytes.extend(unescape(repeated)?.repeat(count));
            rest = after;
        } else {
            bytes.push(b'{');
            rest = &rest[1..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte of an escape, without its backslash, and how many characters it takes.
fn parse_escape(text: &str) -> Result<(u8, usize), String> {
    match text.bytes().next() {
        Some(b'r') => Ok((b'\r', 1)),
        Some(b'n') => Ok((b'\n', 1)),
        Some(b't') => Ok((b'\t', 1)),
        Some(b's') => Ok((b' ', 1)),
        Some(b'\\') => Ok((b'\\', 1)),
        Some(b'x') => {
            let byte = text
                .get(1..3)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok());
            byte.map(|byte| (byte, 3))
                .ok_or_else(|| "\\x takes two hexadecimal digits".into())
        }
        _ => Err("unknown escape".into()),
    }
}

/// Splits `{3 x "ab"}tail` into 3, `ab` and `tail`.
fn split_repetition(text: &str) -> Option<(usize, &str, &str)> {
    let (count, rest) = text.strip_prefix('{')?.split_once(" x \"")?;
    let (repeated, after) = rest.split_once("\"}")?;
    Some((count.parse().ok()?, repeated, after))
}
