//! A raw client connection: bytes out, bytes in, every wait with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// One client socket with what was read from it and not looked at yet.
pub struct Conn {
    stream: TcpStream,
    unread: Vec<u8>,
    start: usize,
    opened: Instant,
}

/// A delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg {
    pub subject: String,
    pub sid: String,
    pub reply: Option<String>,
    pub header: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

/// One operation from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Msg(Msg),
    Ok,
    Err(String),
    Ping,
    Pong,
    Info(serde_json::Value),
}

enum Fill {
    Data,
    Closed,
    Late,
}

impl Conn {
    /// Connects and reads the INFO line.
    pub fn open(addr: SocketAddr) -> Conn {
        Conn::open_with_info(addr).0
    }

    /// Connects and hands out the fields of the INFO line.
    pub fn open_with_info(addr: SocketAddr) -> (Conn, serde_json::Value) {
        let mut conn = Conn::open_raw(addr);
        match conn.next_op() {
            Op::Info(info) => (conn, info),
            other => panic!("the first line is {other:?} instead of INFO"),
        }
    }

    /// Connects and reads nothing.
    pub fn open_raw(addr: SocketAddr) -> Conn {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)
            .unwrap_or_else(|error| panic!("connect to {addr}: {error}"));
        Conn::from_stream(stream)
    }

    /// Connects with a receive buffer of `bytes`, for a reader that is to get stuck early.
    pub fn open_with_receive_buffer(addr: SocketAddr, bytes: usize) -> Conn {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::STREAM,
            None,
        )
        .expect("a socket");
        socket
            .set_recv_buffer_size(bytes)
            .expect("a small receive buffer");
        socket.connect(&addr.into()).expect("the server accepts");
        Conn::from_stream(socket.into())
    }

    fn from_stream(stream: TcpStream) -> Conn {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        // A server that reads nothing for this long has stalled; the test then says so.
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("write timeout");
        Conn {
            stream,
            unread: Vec::new(),
            start: 0,
            opened: Instant::now(),
        }
    }

    /// CONNECT with `options` (JSON) and a PING, answered by PONG and, with `protocol` 1, INFO.
    pub fn handshake(&mut self, options: &str) {
        self.send(format!("CONNECT {options}\r\nPING\r\n").as_bytes());
        self.expect(b"PONG\r\n");
    }

    /// A quiet client: verbose and pedantic off, everything else as it comes.
    pub fn quiet(mut self) -> Conn {
        self.handshake(r#"{"verbose":false,"pedantic":false}"#);
        self
    }

    /// Writes all bytes in as few writes as the system allows.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("the server does not take {} bytes: {error}", bytes.len());
        }
    }

    /// Writes all bytes; false if the server has closed the connection meanwhile.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the server has read nothing for {PATIENCE:?}")
            }
            Err(_) => false,
        }
    }

    /// PING, then exactly PONG: nothing else was on its way to this connection.
    pub fn barrier(&mut self) {
        self.send(b"PING\r\n");
        self.expect(b"PONG\r\n");
    }

    /// Subscribes and makes sure that the server knows.
    pub fn subscribe(&mut self, arguments: &str) {
        self.send(format!("SUB {arguments}\r\n").as_bytes());
        self.barrier();
    }

    /// As [`Conn::expect`], on a connection whose INFO may not have been read yet.
    pub fn expect_after_info(&mut self, wanted: &[u8]) {
        let mut line = self.try_line().unwrap_or_else(|text| panic!("{text}"));
        while line.starts_with(b"INFO ") || line == b"PING\r\n" {
            line = self.try_line().unwrap_or_else(|text| panic!("{text}"));
        }
        assert_eq!(escape(&line), escape(wanted));
    }

    /// Subscribes in the middle of a stream: messages may come before the PONG; how many did.
    pub fn subscribe_and_read_on(&mut self, arguments: &str) -> usize {
        self.send(format!("SUB {arguments}\r\nPING\r\n").as_bytes());
        let mut count = 0;
        loop {
            match self.next_answer() {
                Op::Msg(_) => count += 1,
                Op::Pong => return count,
                other => panic!("expected messages and PONG, got {other:?}"),
            }
        }
    }

    /// The bytes that come next must be these.
    pub fn expect(&mut self, wanted: &[u8]) {
        if let Err(text) = self.try_expect(wanted) {
            panic!("{text}");
        }
    }

    /// The bytes that come next must be these; else a text that says what came.
    pub fn try_expect(&mut self, wanted: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let have = &self.unread[self.start..];
            let common = have.len().min(wanted.len());
            if have[..common] != wanted[..common] {
                if self.skip_late_ping(wanted) {
                    continue;
                }
                let have = &self.unread[self.start..];
                let same = have.iter().zip(wanted).take_while(|(a, b)| a == b).count();
                return Err(format!(
                    "expected {}\n     got {}\n  differing at byte {same}",
                    escape(wanted),
                    escape(&have[..have.len().min(wanted.len() + 200)]),
                ));
            }
            if common == wanted.len() {
                self.start += common;
                return Ok(());
            }
            let problem = match self.fill(deadline) {
                Fill::Data => continue,
                Fill::Closed => "the connection was closed",
                Fill::Late => "nothing more came in time",
            };
            return Err(format!(
                "expected {}\n     got {}\n  then {problem}",
                escape(wanted),
                escape(&self.unread[self.start..]),
            ));
        }
    }

    /// The server asks every client for a PONG two seconds after CONNECT. A test that is slower than
    /// that, on a machine that is loaded, must not stumble over it; an earlier PING is never skipped.
    fn skip_late_ping(&mut self, wanted: &[u8]) -> bool {
        const PING: &[u8] = b"PING\r\n";
        let have = &self.unread[self.start..];
        let same = have.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        // Where the line or payload that differs begins.
        let line = memchr::memrchr(b'\n', &wanted[..same]).map_or(0, |at| at + 1);
        let is_late = self.opened.elapsed() >= Duration::from_secs(2);
        let is_ping = have[line..].starts_with(PING) && !wanted[line..].starts_with(PING);
        if is_late && is_ping {
            let at = self.start + line;
            self.unread.drain(at..at + PING.len());
        }
        is_late && is_ping
    }

    /// The server must close without another byte.
    pub fn expect_closed(&mut self) {
        if let Err(text) = self.try_expect_closed() {
            panic!("{text}");
        }
    }

    /// The server must close without another byte; else a text that says what came.
    pub fn try_expect_closed(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.start < self.unread.len() {
                let got = escape(&self.unread[self.start..]);
                return Err(format!(
                    "expected the end of the connection\n     got {got}"
                ));
            }
            match self.fill(deadline) {
                Fill::Data => {}
                Fill::Closed => return Ok(()),
                Fill::Late => {
                    return Err("expected the end of the connection; it stays open".into());
                }
            }
        }
    }

    /// Reads and forgets until the server closes; the number of bytes that came.
    pub fn drain_until_closed(&mut self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let mut total = 0;
        loop {
            total += (self.unread.len() - self.start) as u64;
            self.start = self.unread.len();
            match self.fill(deadline) {
                Fill::Data => {}
                Fill::Closed => return total,
                Fill::Late => panic!("the server does not close the connection"),
            }
        }
    }

    /// One line, with its CR LF.
    pub fn try_line(&mut self) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut searched = 0;
        loop {
            let have = &self.unread[self.start..];
            if let Some(end) = memchr::memchr(b'\n', &have[searched..]) {
                let line = have[..searched + end + 1].to_vec();
                self.start += line.len();
                return Ok(line);
            }
            searched = have.len();
            let problem = match self.fill(deadline) {
                Fill::Data => continue,
                Fill::Closed => "the connection was closed",
                Fill::Late => "nothing more came in time",
            };
            return Err(format!(
                "in the middle of a line, after {}: {problem}",
                escape(&self.unread[self.start..])
            ));
        }
    }

    /// Exactly `count` bytes.
    pub fn try_take(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + PATIENCE;
        while self.unread.len() - self.start < count {
            let problem = match self.fill(deadline) {
                Fill::Data => continue,
                Fill::Closed => "the connection was closed",
                Fill::Late => "nothing more came in time",
            };
            return Err(format!(
                "expected {count} bytes, got {}, then {problem}",
                escape(&self.unread[self.start..])
            ));
        }
        let bytes = self.unread[self.start..self.start + count].to_vec();
        self.start += count;
        Ok(bytes)
    }

    /// The next operation, whole.
    pub fn next_op(&mut self) -> Op {
        self.try_next_op().unwrap_or_else(|text| panic!("{text}"))
    }

    /// The next operation, whole; an error if the connection ends before it.
    pub fn try_next_op(&mut self) -> Result<Op, String> {
        let line = self.try_line()?;
        let text = String::from_utf8_lossy(&line);
        let text = text
            .strip_suffix("\r\n")
            .ok_or_else(|| format!("a line without CR: {}", escape(&line)))?;
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "PING" => Ok(Op::Ping),
            "PONG" => Ok(Op::Pong),
            "+OK" => Ok(Op::Ok),
            "-ERR" => Ok(Op::Err(rest.trim_matches('\'').to_owned())),
            "INFO" => {
                let info = serde_json::from_str(rest);
                info.map(Op::Info)
                    .map_err(|error| format!("INFO is not JSON: {error}: {text}"))
            }
            "MSG" | "HMSG" => self.message(verb, rest).map(Op::Msg),
            _ => Err(format!("not an operation: {}", escape(&line))),
        }
    }

    /// The next operation that answers something: the server's own PINGs are answered and skipped.
    pub fn next_answer(&mut self) -> Op {
        loop {
            match self.next_op() {
                Op::Ping => drop(self.try_send(b"PONG\r\n")),
                op => return op,
            }
        }
    }

    fn message(&mut self, verb: &str, arguments: &str) -> Result<Msg, String> {
        let wrong = || format!("bad arguments: {verb} {arguments}");
        let mut fields: Vec<&str> = arguments.split(' ').collect();
        let mut number = || {
            fields
                .pop()
                .and_then(|field| field.parse::<usize>().ok())
                .ok_or_else(wrong)
        };
        let total = number()?;
        let header_bytes = if verb == "HMSG" { number()? } else { 0 };
        let (subject, sid, reply) = match fields[..] {
            [subject, sid] => (subject, sid, None),
            [subject, sid, reply] => (subject, sid, Some(reply.to_owned())),
            _ => return Err(wrong()),
        };
        let mut body = self.try_take(total + 2)?;
        if !body.ends_with(b"\r\n") {
            return Err(format!("no CR LF after the payload of {verb} {arguments}"));
        }
        body.truncate(total);
        let payload = body.split_off(header_bytes);
        Ok(Msg {
            subject: subject.to_owned(),
            sid: sid.to_owned(),
            reply,
            header: (verb == "HMSG").then_some(body),
            payload,
        })
    }

    /// The next message; the server's PINGs on the way are answered.
    pub fn next_msg(&mut self) -> Msg {
        self.try_next_msg().unwrap_or_else(|text| panic!("{text}"))
    }

    /// The next message; an error if something else comes.
    pub fn try_next_msg(&mut self) -> Result<Msg, String> {
        loop {
            match self.try_next_op()? {
                Op::Msg(msg) => return Ok(msg),
                Op::Ping => drop(self.try_send(b"PONG\r\n")),
                other => return Err(format!("expected a message, got {other:?}")),
            }
        }
    }

    /// Says that nothing more will be written, and reads on.
    pub fn shut_down_write(&mut self) {
        // The server may have closed already, which is what the caller wants anyway.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// A second handle on the socket, to write from another thread while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a second handle")
    }

    /// Whether anything arrives, or has arrived, before `wait` is over.
    pub fn has_data_within(&mut self, wait: Duration) -> bool {
        self.start < self.unread.len() || matches!(self.fill(Instant::now() + wait), Fill::Data)
    }

    fn fill(&mut self, deadline: Instant) -> Fill {
        if self.start == self.unread.len() {
            self.unread.clear();
            self.start = 0;
        } else if self.start > 1 << 20 {
            self.unread.drain(..self.start);
            self.start = 0;
        }
        let mut chunk = [0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Fill::Late;
            }
            self.stream
                .set_read_timeout(Some(left))
                .expect("read timeout");
            match self.stream.read(&mut chunk) {
                Ok(0) => return Fill::Closed,
                Ok(count) => {
                    self.unread.extend_from_slice(&chunk[..count]);
                    return Fill::Data;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    // A close with unread input arrives as a reset.
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Fill::Closed,
                    _ => panic!("read: {error}"),
                },
            }
        }
    }
}

/// Bytes as a transcript writes them; long runs are cut.
pub fn escape(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 400;
    let mut text = String::from("\"");
    for &byte in bytes.iter().take(SHOWN_BYTES_MAX) {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            0x20..0x7f => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    if bytes.len() > SHOWN_BYTES_MAX {
        text.push_str(&format!(
            " and {} more bytes",
            bytes.len() - SHOWN_BYTES_MAX
        ));
    }
    text
}
