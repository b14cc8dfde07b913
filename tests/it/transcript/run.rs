//! Runs the dialogues of one file against a server.

use std::collections::HashMap;

use super::Cut;
use super::info::Saved;
use super::parse::{Dialogue, File, Only, Options, Step, What};
use crate::support::{Conn, Rng, Server, escape, is_reference};

/// Runs all dialogues; a text for each that failed, beginning with file and line.
pub fn run_file(file: &File, cut: Cut) -> Vec<String> {
    let mut server = start(&file.options, cut);
    let mut failures = Vec::new();
    for dialogue in &file.dialogues {
        let is_cut = !matches!(cut, Cut::Whole);
        if !is_meant_for_this_server(dialogue.only)
            || (is_cut && dialogue.is_whole_on_reference && is_reference())
        {
            continue;
        }
        let own = (!dialogue.options.is_empty()).then(|| {
            let options = [file.options.clone(), dialogue.options.clone()].concat();
            start(&options, cut)
        });
        let result = run_dialogue(dialogue, own.as_ref().unwrap_or(&server), cut);
        if let Err((line, text)) = result {
            let Dialogue { title, .. } = dialogue;
            failures.push(format!("{}:{line}: {title} ({cut})\n  {text}", file.name));
        }
        if !server.is_running() {
            failures.push(format!("{}:{}: the server died", file.name, dialogue.line));
            server = start(&file.options, cut);
        }
    }
    failures
}

fn start(options: &Options, cut: Cut) -> Server {
    let builder = Server::builder().workers(cut.workers());
    let builder = options.iter().fold(builder, |builder, (name, value)| {
        builder.option(name, value)
    });
    builder.start()
}

fn is_meant_for_this_server(only: Only) -> bool {
    match only {
        Only::Any => true,
        Only::Midge => !is_reference(),
        Only::Reference => is_reference(),
    }
}

/// The connections of a dialogue under way.
struct Run<'a> {
    server: &'a Server,
    conns: HashMap<String, Conn>,
    saved: Saved,
    cut: Cut,
    rng: Rng,
}

type Failure = (usize, String);

fn run_dialogue(dialogue: &Dialogue, server: &Server, cut: Cut) -> Result<(), Failure> {
    let seed = if let Cut::Random(seed) = cut { seed } else { 0 };
    let rng = Rng::new(seed.wrapping_add(dialogue.line as u64));
    let mut run = Run {
        server,
        conns: HashMap::new(),
        saved: Saved::new(),
        cut,
        rng,
    };
    let mut steps = dialogue.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let with_line = |text| (step.line, text);
        let What::Send(first) = &step.what else {
            run.take_step(step).map_err(with_line)?;
            continue;
        };
        // What one side says in a row may well arrive in one read.
        let mut bytes = first.clone();
        while let Some(next) = steps.next_if(|next| next.conn == step.conn) {
            match &next.what {
                What::Send(more) => bytes.extend_from_slice(more),
                _ => {
                    run.send(&step.conn, &bytes).map_err(with_line)?;
                    bytes.clear();
                    run.take_step(next).map_err(|text| (next.line, text))?;
                    break;
                }
            }
        }
        if !bytes.is_empty() {
            run.send(&step.conn, &bytes).map_err(with_line)?;
        }
    }
    let line = dialogue
        .steps
        .last()
        .map_or(dialogue.line, |step| step.line);
    run.finish().map_err(|text| (line, text))
}

impl Run<'_> {
    fn take_step(&mut self, step: &Step) -> Result<(), String> {
        let name = &step.conn;
        match &step.what {
            What::Open => self.talking(name).map(drop),
            What::Send(bytes) => self.send(name, bytes),
            What::End => {
                self.talking(name)?.shut_down_write();
                Ok(())
            }
            What::Close => {
                let mut conn = self.conns.remove(name).ok_or("it is not open")?;
                conn.shut_down_write();
                conn.try_expect_closed()
            }
            What::Expect(bytes) => self.listening(name).try_expect(bytes),
            What::ExpectAnyOrder(parts) => expect_any_order(self.listening(name), parts),
            What::ExpectInfo(pattern) => {
                let line = self.listening(name).try_line()?;
                pattern.check(&line, &mut self.saved)
            }
            What::ExpectNothing => {
                let conn = self.talking(name)?;
                conn.try_send(b"PING\r\n");
                conn.try_expect(b"PONG\r\n")
            }
            What::ExpectClosed => self.listening(name).try_expect_closed(),
        }
    }

    /// The connection as a client that speaks has it: INFO is read.
    fn talking(&mut self, name: &str) -> Result<&mut Conn, String> {
        if !self.conns.contains_key(name) {
            let mut conn = Conn::open_raw(self.server.addr());
            let line = conn.try_line()?;
            if !line.starts_with(b"INFO {") {
                return Err(format!("the first line is {}", escape(&line)));
            }
            self.conns.insert(name.to_owned(), conn);
        }
        Ok(self.conns.get_mut(name).expect("just opened"))
    }

    /// The connection as it is; a new one has everything unread, INFO too.
    fn listening(&mut self, name: &str) -> &mut Conn {
        let addr = self.server.addr();
        self.conns
            .entry(name.to_owned())
            .or_insert_with(|| Conn::open_raw(addr))
    }

    /// Writes in the pieces that the run asks for. A server that has closed meanwhile is no
    /// failure here: what it said before is checked by the next step.
    fn send(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let pieces = pieces(bytes, self.cut, &mut self.rng);
        let conn = self.talking(name)?;
        let _ = pieces.into_iter().all(|piece| conn.try_send(piece));
        Ok(())
    }

    /// Closes what is open and waits for the server to do so too, so that the next dialogue finds
    /// no subscription of this one.
    fn finish(self) -> Result<(), String> {
        for (name, mut conn) in self.conns {
            conn.shut_down_write();
            let closed = conn.try_expect_closed();
            closed.map_err(|text| format!("after the last step, on {name}: {text}"))?;
        }
        Ok(())
    }
}

/// The pieces to write. A long payload is cut byte by byte at its two ends only: what may go wrong
/// goes wrong there, and a million writes take their time.
fn pieces<'a>(bytes: &'a [u8], cut: Cut, rng: &mut Rng) -> Vec<&'a [u8]> {
    const SLOW_BYTES_MAX: usize = 6000;
    match cut {
        Cut::Whole => vec![bytes],
        Cut::Bytes if bytes.len() <= 2 * SLOW_BYTES_MAX => bytes.chunks(1).collect(),
        Cut::Bytes => {
            let (head, rest) = bytes.split_at(SLOW_BYTES_MAX);
            let (middle, tail) = rest.split_at(rest.len() - SLOW_BYTES_MAX);
            head.chunks(1)
                .chain([middle])
                .chain(tail.chunks(1))
                .collect()
        }
        Cut::Random(_) => {
            let mut pieces = Vec::new();
            let mut rest = bytes;
            while !rest.is_empty() {
                // Short pieces mostly, and now and then a long one.
                let longest = *rng.pick(&[2, 5, 16, 64, 4096]);
                let (piece, after) = rest.split_at((1 + rng.below(longest)).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces
        }
    }
}

fn expect_any_order(conn: &mut Conn, parts: &[Vec<u8>]) -> Result<(), String> {
    let got = conn.try_take(parts.iter().map(Vec::len).sum())?;
    let mut left: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut rest = &got[..];
    while !rest.is_empty() {
        match left.iter().position(|part| rest.starts_with(part)) {
            Some(index) => rest = &rest[left.swap_remove(index).len()..],
            None => return Err(format!("not in the list: {}", escape(rest))),
        }
    }
    Ok(())
}
