//! Connections to the server, many of them on one thread.
//!
//! A connection is dialled, greeted and subscribed blockingly, then served by one mio poll. All
//! share one read buffer. What a load writes is either small and queued (`queue`, `flush`), or bulk
//! whose bytes the load owns (`write_bulk`), never both at a time.

use crate::args::Args;
use crate::frames::{Frames, Head};
use crate::server_proc::Proc;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"load\",\
    \"version\":\"1.0.0\",\"protocol\":1,\"headers\":true,\"echo\":true}\r\n";

/// One read takes at most this; it also bounds how long one connection may keep the others waiting.
const READ_BYTES: usize = 256 * 1024;

/// One connection.
pub struct Conn {
    stream: TcpStream,
    /// What came in.
    pub frames: Frames,
    out: Vec<u8>,
    out_at: usize,
    writable: bool,
    readable: bool,
    pongs_sent: u64,
    /// A bulk message is half written, so nothing else may go out now.
    mid_message: bool,
}

/// All connections of a load, and the server they go to.
pub struct Net {
    /// The server's process.
    pub proc: Proc,
    /// By index, in the order they were opened.
    pub conns: Vec<Conn>,
    addr: SocketAddr,
    poll: Poll,
    events: Events,
    ready: Vec<usize>,
    taken: Vec<usize>,
    buf: Vec<u8>,
    deadline: Instant,
    timeout: Duration,
    spin: bool,
}

impl Net {
    /// Reads `--server`, `--pid`, `--timeout` and `--spin`; opens no connection yet.
    pub fn new(args: &Args) -> Result<Net, String> {
        let timeout = Duration::from_secs_f64(args.get("timeout", 120.0)?);
        Ok(Net {
            proc: Proc::new(args.find("pid")?),
            conns: Vec::new(),
            addr: args.get("server", SocketAddr::from(([127, 0, 0, 1], 4222)))?,
            poll: Poll::new().map_err(text)?,
            events: Events::with_capacity(1024),
            ready: Vec::new(),
            taken: Vec::new(),
            buf: vec![0; READ_BYTES],
            deadline: Instant::now() + timeout,
            timeout,
            spin: args.has("spin"),
        })
    }

    /// Dials, greets, sends `setup` (subscriptions) and returns when the server has taken it in.
    pub fn open(&mut self, setup: &[u8]) -> Result<usize, String> {
        let (stream, frames) = dial(self.addr, setup, &mut self.buf)?;
        stream.set_nonblocking(true).map_err(text)?;
        let mut stream = TcpStream::from_std(stream);
        let index = self.conns.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(index), interest)
            .map_err(text)?;
        self.conns.push(Conn {
            stream,
            frames,
            out: Vec::new(),
            out_at: 0,
            writable: true,
            readable: false,
            pongs_sent: 0,
            mid_message: false,
        });
        Ok(index)
    }

    /// Opens, subscribes and closes one connection the blocking way.
    pub fn open_and_close(&mut self, setup: &[u8]) -> Result<(), String> {
        dial(self.addr, setup, &mut self.buf).map(drop)
    }

    /// Stops reading from a connection for good.
    pub fn stop_reading(&mut self, index: usize) -> Result<(), String> {
        let stream = &mut self.conns[index].stream;
        self.poll.registry().deregister(stream).map_err(text)
    }

    /// Looks for events: waits for one if `wait`, up to `max`; then passes what can be read to
    /// `on_msg` with the connection's index. Fails at the deadline.
    pub fn turn(
        &mut self,
        wait: Option<Duration>,
        mut on_msg: impl FnMut(usize, Head),
    ) -> Result<(), String> {
        let wait = wait
            .filter(|_| !self.spin && self.ready.is_empty())
            .unwrap_or_default();
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(text(e)),
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            let conn = &mut self.conns[index];
            conn.writable |= event.is_writable();
            if event.is_readable() && !conn.readable {
                conn.readable = true;
                self.ready.push(index);
            }
        }
        std::mem::swap(&mut self.ready, &mut self.taken);
        for at in 0..self.taken.len() {
            let index = self.taken[at];
            if self.read(index, &mut on_msg)? {
                self.ready.push(index);
            }
        }
        self.taken.clear();
        if Instant::now() > self.deadline {
            let seconds = self.timeout.as_secs_f64();
            return Err(format!("not done after {seconds} s"));
        }
        Ok(())
    }

    /// Reads once; returns whether there may be more. A short read means that there is not: the
    /// next byte brings a new event.
    fn read(&mut self, index: usize, on_msg: &mut impl FnMut(usize, Head)) -> Result<bool, String> {
        let conn = &mut self.conns[index];
        let got = match conn.stream.read(&mut self.buf) {
            Ok(0) => return Err(format!("the server closed connection {index}")),
            Ok(got) => got,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(format!("connection {index}: {e}")),
        };
        conn.readable = got == self.buf.len();
        conn.frames
            .feed(&self.buf[..got], |head| on_msg(index, head))?;
        if conn.frames.pings > conn.pongs_sent && !conn.mid_message {
            conn.answer_pings();
            conn.flush()?;
        }
        Ok(conn.readable)
    }

    /// Appends to what `flush` will write.
    pub fn queue(&mut self, index: usize, bytes: &[u8]) {
        self.conns[index].out.extend_from_slice(bytes);
    }

    /// Queued bytes that are not written yet.
    pub fn queued(&self, index: usize) -> usize {
        let conn = &self.conns[index];
        conn.out.len() - conn.out_at
    }

    /// Writes what is queued as far as the socket takes it.
    pub fn flush(&mut self, index: usize) -> Result<(), String> {
        self.conns[index].flush()
    }

    /// Writes part of `bytes`, which begin `to_boundary` bytes before the end of a message, and
    /// returns how many went out. PONGs that are due slip in between two messages.
    pub fn write_bulk(
        &mut self,
        index: usize,
        bytes: &[u8],
        to_boundary: usize,
        message: usize,
    ) -> Result<usize, String> {
        let conn = &mut self.conns[index];
        let mut bytes = bytes;
        if conn.frames.pings > conn.pongs_sent {
            if conn.mid_message {
                bytes = &bytes[..to_boundary.min(bytes.len())];
            } else {
                conn.answer_pings();
            }
        }
        conn.flush()?;
        if !conn.out.is_empty() || !conn.writable || bytes.is_empty() {
            return Ok(0);
        }
        let sent = conn.write(bytes)?;
        let past = sent as i64 - to_boundary as i64;
        if sent > 0 {
            conn.mid_message = past.rem_euclid(message as i64) != 0;
        }
        Ok(sent)
    }

    /// Sends PING on the connections and waits for the answers: all that was sent has been handled.
    pub fn sync(
        &mut self,
        indexes: &[usize],
        mut on_msg: impl FnMut(usize, Head),
    ) -> Result<(), String> {
        let mut goals = Vec::with_capacity(indexes.len());
        for index in indexes {
            goals.push(self.conns[*index].frames.pongs + 1);
            self.queue(*index, b"PING\r\n");
            self.flush(*index)?;
        }
        let mut at = 0;
        while at < indexes.len() {
            self.turn(Some(Duration::from_millis(100)), &mut on_msg)?;
            while at < indexes.len() && self.conns[indexes[at]].frames.pongs >= goals[at] {
                at += 1;
            }
            for index in &indexes[at..indexes.len().min(at + 8)] {
                self.flush(*index)?;
            }
        }
        Ok(())
    }
}

impl Conn {
    fn answer_pings(&mut self) {
        while self.pongs_sent < self.frames.pings {
            self.out.extend_from_slice(b"PONG\r\n");
            self.pongs_sent += 1;
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.out_at < self.out.len() && self.writable {
            let out = std::mem::take(&mut self.out);
            let sent = self.write(&out[self.out_at..]);
            self.out = out;
            self.out_at += sent?;
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        match self.stream.write(bytes) {
            Ok(sent) => {
                // A short write means a full socket buffer; room in it brings an event.
                self.writable = sent == bytes.len();
                Ok(sent)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(0)
            }
            Err(e) => Err(format!("writing: {e}")),
        }
    }
}

/// A blocking connection that has sent CONNECT, `setup` and PING, and has read up to the PONG.
fn dial(
    addr: SocketAddr,
    setup: &[u8],
    buf: &mut [u8],
) -> Result<(std::net::TcpStream, Frames), String> {
    let context = |e| format!("connecting to {addr}: {e}");
    let mut stream = std::net::TcpStream::connect(addr).map_err(context)?;
    stream.set_nodelay(true).map_err(context)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(context)?;
    stream
        .write_all(&[CONNECT, setup, b"PING\r\n"].concat())
        .map_err(context)?;
    let mut frames = Frames::default();
    while frames.pongs == 0 {
        let got = stream.read(buf).map_err(context)?;
        if got == 0 {
            return Err(format!(
                "connecting to {addr}: the server closed the connection"
            ));
        }
        frames.feed(&buf[..got], |_| {})?;
    }
    Ok((stream, frames))
}

/// An I/O error as text.
pub fn text(e: std::io::Error) -> String {
    e.to_string()
}
