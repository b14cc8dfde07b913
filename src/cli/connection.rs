//! A blocking connection to a NATS server, as small as the client tools allow.
//!
//! It greets, answers PINGs, keeps the latest INFO and hands out messages one at a time. It does
//! not reconnect: `sub` and `reply` do that, since only they know what to subscribe again.
//! `bench` opens its connections here and then takes the socket over.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use midge::wire::from_server::{Frame, Parser};
use serde_json::json;

use super::encode;
use super::failure::{Failure, say};
use super::server_info::ServerInfo;
use super::server_url::{Credentials, ServerUrl};
use super::settings::Settings;

/// How long a server may take to accept us and to greet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of output that are collected before a write.
const WRITE_BYTES: usize = 64 * 1024;

/// Why there is no connection, or no longer one.
#[derive(PartialEq, Eq, Debug)]
pub struct ConnectionError {
    /// What is wrong, and where.
    pub text: String,
    /// What to do about it; may be empty.
    pub hint: &'static str,
    /// Trying again later may help: nobody answers, or the server went away.
    pub is_temporary: bool,
}

impl ConnectionError {
    fn temporary(text: String) -> Self {
        ConnectionError {
            text,
            hint: "",
            is_temporary: true,
        }
    }

    fn lasting(text: String) -> Self {
        ConnectionError {
            text,
            hint: "",
            is_temporary: false,
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Failure::Run(match error.hint {
            "" => error.text,
            hint => format!("{}; {hint}", error.text),
        })
    }
}

/// A message of its own, free of the read buffer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Message {
    /// Where it was published.
    pub subject: Vec<u8>,
    /// The subscription it came for.
    pub sid: Vec<u8>,
    /// Where the answer is wanted.
    pub reply: Option<Vec<u8>>,
    /// The header block; empty when there is none.
    pub headers: Vec<u8>,
    /// The body.
    pub payload: Vec<u8>,
}

/// What a server had to say.
#[derive(Debug)]
pub enum Event {
    /// A message was delivered.
    Message(Message),
    /// Everything before our PING is done.
    Pong,
    /// The text of an -ERR. If it ends the connection, an error follows.
    ServerError(String),
}

/// An open connection that has been greeted.
pub struct Connection {
    stream: TcpStream,
    /// `host:port`, for people.
    pub address: String,
    /// The latest INFO.
    pub info: ServerInfo,
    parser: Parser,
    input: Vec<u8>,
    /// Where the bytes in `input` begin that are not parsed yet.
    start: usize,
    output: Vec<u8>,
    read_timeout: Option<Duration>,
}

impl Connection {
    /// Connects to the first of the servers that answers.
    pub fn open(settings: &Settings) -> Result<Self, ConnectionError> {
        let mut errors = Vec::new();
        for server in settings.candidates() {
            match Self::open_one(server, settings) {
                Ok(connection) => return Ok(connection),
                Err(error) => errors.push(error),
            }
        }
        let texts: Vec<&str> = errors.iter().map(|error| error.text.as_str()).collect();
        Err(ConnectionError {
            text: texts.join("; "),
            hint: errors.last().map_or("", |error| error.hint),
            is_temporary: errors.iter().any(|error| error.is_temporary),
        })
    }

    fn open_one(server: &ServerUrl, settings: &Settings) -> Result<Self, ConnectionError> {
        let stream = dial(server)?;
        let mut connection = Connection {
            stream,
            address: server.to_string(),
            info: ServerInfo::default(),
            parser: Parser::new(),
            input: Vec::new(),
            start: 0,
            output: Vec::new(),
            read_timeout: None,
        };
        connection.greet(settings, &server.credentials)?;
        Ok(connection)
    }

    /// INFO, CONNECT, PING, PONG.
    fn greet(&mut self, settings: &Settings, secret: &Credentials) -> Result<(), ConnectionError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while self.info.version.is_empty() {
            // Anything but INFO at this point is an -ERR: the loop below would tell the same.
            if let Some(Event::ServerError(text)) = self.step(Some(deadline))? {
                return Err(self.refused(&text, secret));
            }
        }
        if self.info.is_tls_required {
            return Err(ConnectionError::lasting(format!(
                "{} requires TLS, which these tools do not speak",
                self.address
            )));
        }
        let connect = self.connect_line(settings, secret);
        self.write(&connect);
        self.write(b"PING\r\n");
        self.flush()?;
        loop {
            match self.step(Some(deadline))? {
                Some(Event::Pong) => return Ok(()),
                Some(Event::ServerError(text)) => return Err(self.refused(&text, secret)),
                _ => {}
            }
        }
    }

    fn connect_line(&self, settings: &Settings, secret: &Credentials) -> Vec<u8> {
        let mut fields = json!({
            "verbose": false,
            "pedantic": false,
            "lang": "rust",
            "version": env!("CARGO_PKG_VERSION"),
            "name": settings.name,
            "protocol": 1,
            "echo": true,
            "headers": self.info.has_headers,
            "no_responders": self.info.has_headers,
        });
        match secret {
            Credentials::None => {}
            Credentials::Token(token) => fields["auth_token"] = json!(token),
            Credentials::User(user, password) => {
                fields["user"] = json!(user);
                fields["pass"] = json!(password);
            }
        }
        format!("CONNECT {fields}\r\n").into_bytes()
    }

    fn refused(&self, text: &str, secret: &Credentials) -> ConnectionError {
        let lower = text.to_ascii_lowercase();
        let hint = match (lower.starts_with("authorization"), secret) {
            (false, _) => "",
            (true, Credentials::None) => "say who you are with --user and --password, or --token",
            (true, Credentials::Token(_)) => "check the token",
            (true, Credentials::User(..)) => "check the user name and the password",
        };
        ConnectionError {
            text: format!("{} refused the connection: {text}", self.address),
            hint,
            is_temporary: lower.starts_with("maximum connections"),
        }
    }

    /// Waits for the next event; `None` once the deadline has passed.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, ConnectionError> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(Some(event));
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// As `receive`, but reading past the deadline of a greeting is an error.
    fn step(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, ConnectionError> {
        if let Some(event) = self.buffered()? {
            return Ok(Some(event));
        }
        match self.fill(deadline)? {
            true => self.buffered(),
            false => Err(ConnectionError::temporary(format!(
                "{} did not answer within {}s; is it a NATS server?",
                self.address,
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    /// The next event among the bytes that have been read already.
    pub fn buffered(&mut self) -> Result<Option<Event>, ConnectionError> {
        loop {
            let parsed = self.parser.parse(&self.input[self.start..]);
            let (frame, used) = match parsed {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(fault) => {
                    return Err(ConnectionError::lasting(format!(
                        "{} does not speak the NATS protocol: it sent {fault}",
                        self.address
                    )));
                }
            };
            self.start += used;
            match frame {
                Frame::Message(message) => {
                    return Ok(Some(Event::Message(Message {
                        subject: message.subject.to_vec(),
                        sid: message.sid.to_vec(),
                        reply: message.reply.map(<[u8]>::to_vec),
                        headers: message.headers.to_vec(),
                        payload: message.payload.to_vec(),
                    })));
                }
                Frame::Info(json) => {
                    let info = ServerInfo::parse(json);
                    self.on_info(info)?;
                }
                Frame::Ping => {
                    self.write(b"PONG\r\n");
                    self.flush()?;
                }
                Frame::Pong => return Ok(Some(Event::Pong)),
                Frame::Ok => {}
                Frame::Err(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Ok(Some(Event::ServerError(text)));
                }
            }
        }
    }

    fn on_info(&mut self, info: Option<ServerInfo>) -> Result<(), ConnectionError> {
        let info = info.ok_or_else(|| {
            ConnectionError::lasting(format!("{} sent an INFO without a version", self.address))
        })?;
        if info.is_lame_duck && !self.info.is_lame_duck {
            say(format_args!("{} is about to shut down", self.address));
        }
        self.info = info;
        Ok(())
    }

    /// Reads once; false if the deadline passed first.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, ConnectionError> {
        let timeout = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Ok(false),
            },
        };
        if timeout != self.read_timeout {
            let result = self.stream.set_read_timeout(timeout);
            result.map_err(|error| self.broken(&error))?;
            self.read_timeout = timeout;
        }
        self.input.drain(..self.start);
        self.start = 0;
        let held = self.input.len();
        let wanted = self.parser.missing_bytes(held).max(READ_BYTES);
        self.input.resize(held + wanted, 0);
        let result = self.stream.read(&mut self.input[held..]);
        self.input.truncate(held + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(ConnectionError::temporary(format!(
                "{} closed the connection",
                self.address
            ))),
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(true),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    Ok(deadline.is_some_and(|deadline| Instant::now() < deadline))
                }
                _ => Err(self.broken(&error)),
            },
        }
    }

    fn broken(&self, error: &io::Error) -> ConnectionError {
        ConnectionError::temporary(format!("lost the connection to {}: {error}", self.address))
    }

    /// Queues bytes to be sent with the next `flush`.
    pub fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Queues a subscription.
    pub fn subscribe(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: usize) {
        encode::subscribe(&mut self.output, subject, queue, sid);
    }

    /// Queues a subscription that ends after `message_count` messages, if that can be said.
    pub fn subscribe_for(
        &mut self,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: usize,
        message_count: u64,
    ) {
        self.subscribe(subject, queue, sid);
        encode::unsubscribe_after(&mut self.output, sid, message_count);
    }

    /// Queues a message; sends what is queued once it is much.
    pub fn publish(
        &mut self,
        subject: &[u8],
        reply: Option<&[u8]>,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        encode::publish(&mut self.output, subject, reply, headers, payload);
        match self.output.len() {
            0..WRITE_BYTES => Ok(()),
            _ => self.flush(),
        }
    }

    /// Refuses what the server would end the connection for.
    pub fn check_message(&self, headers: &[u8], payload: &[u8]) -> Result<(), Failure> {
        if !headers.is_empty() && !self.info.has_headers {
            return Err(Failure::run(format!(
                "{} does not support headers",
                self.address
            )));
        }
        let bytes = headers.len() + payload.len();
        match self.info.payload_bytes_max {
            Some(bytes_max) if bytes > bytes_max => Err(Failure::run(format!(
                "the message has {bytes} bytes, but {} accepts {bytes_max} (max_payload)",
                self.address
            ))),
            _ => Ok(()),
        }
    }

    /// Does nothing for a while but answer PINGs, without which the server would take us for gone.
    pub fn idle(&mut self, duration: Duration) -> Result<(), ConnectionError> {
        let deadline = Instant::now() + duration;
        loop {
            match self.receive(Some(deadline))? {
                None => return Ok(()),
                Some(Event::ServerError(text)) => return Err(self.server_error(&text)),
                Some(Event::Message(_) | Event::Pong) => {}
            }
        }
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        let result = self.stream.write_all(&self.output);
        self.output.clear();
        result.map_err(|error| {
            // The server may have said why before it closed: that is the better message.
            self.last_words().unwrap_or_else(|| self.broken(&error))
        })
    }

    /// The -ERR that a closing server left behind, if any.
    fn last_words(&mut self) -> Option<ConnectionError> {
        let deadline = Instant::now() + Duration::from_millis(100);
        loop {
            match self.receive(Some(deadline)) {
                Ok(Some(Event::ServerError(text))) => return Some(self.server_error(&text)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Sends what is queued and waits until the server has carried it out. Messages that arrive
    /// meanwhile are dropped; an -ERR is the error.
    pub fn flush_and_confirm(&mut self, timeout: Duration) -> Result<(), ConnectionError> {
        self.write(b"PING\r\n");
        self.flush()?;
        let deadline = Instant::now() + timeout;
        let mut refusal = None;
        loop {
            match self.receive(Some(deadline)) {
                Ok(Some(Event::Pong)) => break,
                Ok(Some(Event::ServerError(text))) => refusal = refusal.or(Some(text)),
                Ok(Some(Event::Message(_))) => {}
                Ok(None) => {
                    return Err(ConnectionError::temporary(format!(
                        "{} did not confirm within {}s",
                        self.address,
                        timeout.as_secs()
                    )));
                }
                Err(error) if refusal.is_none() => return Err(error),
                Err(_) => break,
            }
        }
        match refusal {
            None => Ok(()),
            Some(text) => Err(self.server_error(&text)),
        }
    }

    /// An -ERR as an error.
    pub fn server_error(&self, text: &str) -> ConnectionError {
        ConnectionError {
            text: format!("{} says: {text}", self.address),
            hint: "",
            is_temporary: text.eq_ignore_ascii_case("stale connection"),
        }
    }

    /// A second handle to the socket, to shut it down from another thread.
    pub fn stream_handle(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Gives the socket away, with the bytes that were read but not parsed. Reads wait for ever.
    pub fn into_parts(mut self) -> io::Result<(TcpStream, Vec<u8>)> {
        self.stream.set_read_timeout(None)?;
        self.input.drain(..self.start);
        Ok((self.stream, self.input))
    }
}

fn dial(server: &ServerUrl) -> Result<TcpStream, ConnectionError> {
    let addresses = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|error| {
            let host = &server.host;
            ConnectionError::temporary(format!("cannot find the address of \"{host}\": {error}"))
        })?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                // Latency matters here, and every write is a whole batch already.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let (cause, hint) = match last {
        None => ("the name has no address".to_owned(), ""),
        Some(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                "connection refused".to_owned(),
                "is a server running there? Start one with `midge`",
            ),
            io::ErrorKind::TimedOut => (
                format!("no answer within {}s", CONNECT_TIMEOUT.as_secs()),
                "",
            ),
            _ => (error.to_string(), ""),
        },
    };
    Err(ConnectionError {
        hint,
        ..ConnectionError::temporary(format!("cannot connect to {server}: {cause}"))
    })
}

#[cfg(test)]
mod tests;
