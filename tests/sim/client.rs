//! Random clients: what they ask for, what they write and in which of the legal spellings, how they
//! read.

use std::collections::VecDeque;
use std::fmt::Write as _;

use midge::wire::from_server::Parser;

use crate::model::{Message, Op, Wishes};
use crate::rng::Rng;

/// How a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Whatever is there.
    Prompt,
    /// A little now and then.
    Slow,
    /// Not at all.
    Never,
}

/// How a connection ended, seen from the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Open,
    /// It closes when everything is written.
    Leaving,
    Left,
    ByServer,
}

/// A simulated client.
pub struct Client {
    pub worker: usize,
    pub slot: u32,
    pub reading: Reading,
    /// Sends what is not the protocol; what it gets is not checked.
    pub is_noise: bool,
    pub end: End,
    /// Written, but not yet taken by the kernel.
    pub to_send: VecDeque<u8>,
    /// Operations not known to be carried out, with the offset behind them in the stream.
    pub ops: VecDeque<(u64, Op)>,
    /// Bytes ever written and bytes the server has worked off.
    pub written_bytes: u64,
    pub consumed_bytes: u64,
    /// Messages known to be published.
    pub published: u64,
    /// Read, but no whole frame yet.
    pub inbox: Vec<u8>,
    pub parser: Parser,
    /// What it will have asked for when everything is carried out.
    wishes: Wishes,
    next_sid: u32,
    plain_sids: Vec<String>,
    queue_sids: Vec<String>,
}

/// Bounds of one run.
pub struct Sizes {
    pub payload_bytes_max: usize,
    pub zero_length: bool,
    /// Whether subscriptions may begin with a wildcard, and so match whatever others send.
    pub wide_wildcards: bool,
}

impl Client {
    pub fn new(worker: usize, slot: u32, reading: Reading, is_noise: bool) -> Client {
        Client {
            worker,
            slot,
            reading,
            is_noise,
            end: End::Open,
            to_send: VecDeque::new(),
            ops: VecDeque::new(),
            written_bytes: 0,
            consumed_bytes: 0,
            published: 0,
            inbox: Vec::new(),
            parser: Parser::new(),
            wishes: Wishes::DEFAULT,
            next_sid: 0,
            plain_sids: Vec::new(),
            queue_sids: Vec::new(),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.written_bytes += bytes.len() as u64;
        self.to_send.extend(bytes);
    }

    fn op(&mut self, bytes: &[u8], op: Op) {
        self.write(bytes);
        self.ops.push_back((self.written_bytes, op));
    }

    pub fn ping(&mut self) {
        self.op(b"PING\r\n", Op::Ping);
    }

    pub fn pong(&mut self) {
        self.op(b"PONG\r\n", Op::Pong);
    }

    /// CONNECT with random wishes.
    pub fn connect(&mut self, rng: &mut Rng) {
        let headers = rng.chance(2, 3);
        let wishes = Wishes {
            verbose: rng.chance(1, 5),
            pedantic: rng.chance(1, 5),
            echo: rng.chance(4, 5),
            headers,
            no_responders: headers && rng.chance(2, 3),
            protocol: u8::from(rng.chance(2, 3)),
        };
        self.wishes = wishes;
        let mut text = format!(
            "{{\"verbose\":{},\"pedantic\":{},\"echo\":{},\"headers\":{},\"no_responders\":{},\"protocol\":{}",
            wishes.verbose,
            wishes.pedantic,
            wishes.echo,
            wishes.headers,
            wishes.no_responders,
            wishes.protocol
        );
        if rng.chance(1, 2) {
            text.push_str(",\"name\":\"sim\",\"lang\":\"rust\",\"version\":\"1\"");
        }
        text.push('}');
        self.op(&line(rng, "CONNECT", &[&text]), Op::Connect(wishes));
    }

    /// Something random. `messages` gets what is published.
    pub fn act(&mut self, me: usize, rng: &mut Rng, sizes: &Sizes, messages: &mut Vec<Message>) {
        match rng.below(100) {
            0..58 => self.publish(me, rng, sizes, messages),
            58..70 => self.subscribe(me, rng, sizes),
            70..76 => self.unsubscribe(rng),
            76..88 => self.ping(),
            88..97 => self.request(me, rng, messages),
            97 => self.pong(),
            _ => self.reconnect(rng),
        }
    }

    /// A second CONNECT, which ends all subscriptions.
    fn reconnect(&mut self, rng: &mut Rng) {
        if rng.chance(1, 4) {
            self.plain_sids.clear();
            self.queue_sids.clear();
            self.connect(rng);
        }
    }

    fn new_sid(&mut self, rng: &mut Rng) -> String {
        self.next_sid += 1;
        match rng.chance(1, 10) {
            true => format!("{:0>20}", self.next_sid),
            false => self.next_sid.to_string(),
        }
    }

    pub fn subscribe(&mut self, me: usize, rng: &mut Rng, sizes: &Sizes) {
        let is_queue = rng.chance(1, 3);
        let sid = match self.plain_sids.is_empty() || is_queue || rng.chance(9, 10) {
            true => self.new_sid(rng),
            // In use already, or ended.
            false => rng.pick(&self.plain_sids).clone(),
        };
        let subject = match rng.below(12) {
            0 if !is_queue => format!("_INBOX.{me}.*"),
            1 => "a..b".to_owned(),
            _ => pattern(rng, is_queue || !sizes.wide_wildcards),
        };
        let queue = is_queue.then(|| rng.pick(&["q", "w"]).to_owned());
        let mut args = vec![subject.as_str()];
        args.extend(queue);
        args.push(&sid);
        let known = if is_queue {
            &mut self.queue_sids
        } else {
            &mut self.plain_sids
        };
        known.push(sid.clone());
        let op = Op::Sub {
            subject: subject.as_bytes().to_vec(),
            queue: queue.map(|queue| queue.as_bytes().to_vec()),
            sid: sid.clone(),
        };
        self.op(&line(rng, "SUB", &args), op);
    }

    fn unsubscribe(&mut self, rng: &mut Rng) {
        let known = match rng.chance(1, 3) {
            true => &mut self.queue_sids,
            false => &mut self.plain_sids,
        };
        if known.is_empty() {
            return;
        }
        let sid = known.swap_remove(rng.below(known.len()));
        let max = rng.chance(1, 2).then(|| rng.sized(1, 40) as u64);
        let max_text = max.map(|max| max.to_string());
        let mut args = vec![sid.as_str()];
        args.extend(max_text.as_deref());
        let bytes = line(rng, "UNSUB", &args);
        self.op(&bytes, Op::Unsub { sid, max });
    }

    fn publish(&mut self, me: usize, rng: &mut Rng, sizes: &Sizes, messages: &mut Vec<Message>) {
        for _ in 0..rng.sized(1, 12) {
            let is_empty = sizes.zero_length && rng.chance(1, 20);
            let subject = match (is_empty, rng.below(40)) {
                (true, _) => format!("z.{}", rng.below(3)),
                (_, 0) => pattern(rng, true),
                (_, 1) => "a..b".to_owned(),
                _ => subject(rng),
            };
            let filler = match rng.below(40) {
                0 => rng.sized(1, sizes.payload_bytes_max - 200),
                1..4 => rng.sized(1, 9000.min(sizes.payload_bytes_max - 200)),
                _ => rng.below(100),
            };
            let reply = rng
                .chance(1, 8)
                .then(|| format!("_INBOX.{me}.{}", rng.below(5)));
            let filler = if is_empty { None } else { Some(filler) };
            self.message(me, rng, messages, &subject, reply, filler);
        }
    }

    /// A request that somebody or nobody listens for.
    fn request(&mut self, me: usize, rng: &mut Rng, messages: &mut Vec<Message>) {
        let subject = match rng.chance(1, 2) {
            true => "nobody.home".to_owned(),
            false => subject(rng),
        };
        let reply = Some(format!("_INBOX.{me}.{}", rng.below(5)));
        self.message(me, rng, messages, &subject, reply, Some(5));
    }

    fn message(
        &mut self,
        me: usize,
        rng: &mut Rng,
        messages: &mut Vec<Message>,
        subject: &str,
        reply: Option<String>,
        filler: Option<usize>,
    ) {
        let id = messages.len();
        let payload = match filler {
            Some(bytes) => {
                let mut payload = format!("{id};").into_bytes();
                payload.extend((0..bytes).map(|at| (at * 7 + id) as u8));
                payload
            }
            None => Vec::new(),
        };
        let headers = match self.wishes.headers && rng.chance(1, 4) {
            true => format!("NATS/1.0\r\nX: {}\r\n\r\n", "y".repeat(rng.below(30))).into_bytes(),
            false => Vec::new(),
        };
        let size = (headers.len() + payload.len()).to_string();
        let header_size = headers.len().to_string();
        let mut args = vec![subject];
        args.extend(reply.as_deref());
        let with_headers = !headers.is_empty() || (self.wishes.headers && rng.chance(1, 20));
        if with_headers {
            args.push(&header_size);
        }
        args.push(&size);
        let mut bytes = line(rng, if with_headers { "HPUB" } else { "PUB" }, &args);
        bytes.extend_from_slice(&headers);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
        messages.push(Message {
            publisher: me,
            subject: subject.as_bytes().to_vec(),
            reply: reply.map(String::into_bytes),
            headers,
            payload,
        });
        self.op(&bytes, Op::Publish(id));
    }

    /// Bytes of a client that does not know the protocol, or knows it too well.
    pub fn make_noise(&mut self, rng: &mut Rng) {
        const FRAMES: [&[u8]; 12] = [
            b"PUB noise.x 5\r\nhello\r\n",
            b"SUB noise.* 1\r\n",
            b"SUB noise.x nq 2\r\n",
            b"UNSUB 1\r\n",
            b"UNSUB 2 3\r\n",
            b"PING\r\n",
            b"PONG\r\n",
            b"+OK\r\n",
            b"CONNECT {\"headers\":true,\"verbose\":false}\r\n",
            b"HPUB noise.x 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            b"INFO {}\r\n",
            b"PUB noise.y _INBOX.n 70000\r\n",
        ];
        let mut bytes = rng.pick(&FRAMES).to_vec();
        match rng.below(8) {
            0 => bytes = (0..rng.sized(1, 5000)).map(|_| rng.next() as u8).collect(),
            1 => {
                let at = rng.below(bytes.len());
                bytes[at] = rng.next() as u8;
            }
            2 => {
                let at = rng.below(bytes.len());
                bytes.insert(at, *rng.pick(b" \t\r\n0"));
            }
            3 => bytes.truncate(rng.below(bytes.len())),
            _ => {}
        }
        self.write(&bytes);
    }
}

/// A control line in one of its legal spellings.
fn line(rng: &mut Rng, verb: &str, args: &[&str]) -> Vec<u8> {
    if rng.chance(3, 4) {
        return format!("{verb} {}\r\n", args.join(" ")).into_bytes();
    }
    let mut text = String::new();
    for letter in verb.chars() {
        text.push(if rng.chance(1, 2) {
            letter.to_ascii_lowercase()
        } else {
            letter
        });
    }
    for arg in args {
        let blank = *rng.pick(&[" ", "  ", "\t", " \t "]);
        let _ = write!(text, "{blank}{arg}");
    }
    if verb != "CONNECT" {
        text.push_str(rng.pick::<&str>(&["", " ", "\t"]));
    }
    text.push_str(rng.pick::<&str>(&["\n", "\r\n"]));
    text.into_bytes()
}

const TOKENS: [&str; 3] = ["a", "b", "long-token-number-three"];

fn subject(rng: &mut Rng) -> String {
    let tokens: Vec<&str> = (0..rng.below(3) + 1).map(|_| *rng.pick(&TOKENS)).collect();
    tokens.join(".")
}

/// A subscribe subject; `is_literal_first` keeps its first token from being a wildcard.
fn pattern(rng: &mut Rng, is_literal_first: bool) -> String {
    if !is_literal_first && rng.chance(1, 20) {
        return rng
            .pick(&[">", "*", "*.*", "z.*", "z.1", "*.>"])
            .to_string();
    }
    let mut tokens: Vec<&str> = (0..rng.below(3) + 1).map(|_| *rng.pick(&TOKENS)).collect();
    for token in &mut tokens[1..] {
        if rng.chance(1, 4) {
            *token = "*";
        }
    }
    if rng.chance(1, 5) {
        tokens.push(">");
    }
    tokens.join(".")
}
