//! `midge sub`: prints what is published, until it is told to stop or has seen enough.
//!
//! A server that goes away does not end it: it reconnects and subscribes again.

use std::io::{self, BufWriter, Write};
use std::net::TcpStream;

use super::backoff::Backoff;
use super::connection::{Connection, ConnectionError, Event, Message, Settings};
use super::duration;
use super::failure::{Failure, say};
use super::flags::{Command, Flag, Parsed};
use super::input;
use super::interrupt::Interrupt;
use super::print::{self, Form, escape};

/// The table of `midge sub`.
pub static COMMAND: Command = Command {
    name: "sub",
    arguments: "SUBJECT...",
    argument_counts: 1..=1024,
    about: "print the messages of subjects",
    details: "A subject may have wildcards: * is one token, > is all the rest (quote them for the shell).\n\
        Control characters in a message are shown as escapes, binary payloads as a hex dump.",
    flags: &[
        Flag::value(
            "queue",
            &[],
            "NAME",
            "join a queue group, which shares the messages out",
        ),
        Flag::value("count", &[], "N", "exit after N messages"),
        Flag::switch("raw", &["r"], "print payloads only, byte for byte"),
        Flag::switch("headers-only", &[], "leave the payloads out"),
        Flag::switch("json", &[], "print one JSON object a line"),
    ],
    examples: &[
        "midge sub '>'",
        "midge sub 'sensors.*.temperature' --json | jq .payload",
        "midge sub jobs --queue workers --count 10",
    ],
};

/// What to subscribe to and how to print it.
struct Job {
    subjects: Vec<Vec<u8>>,
    queue: Option<Vec<u8>>,
    form: Form,
    count_max: u64,
    printed_count: u64,
    payload_bytes: u64,
    out: BufWriter<io::Stdout>,
    /// Whether we have said that messages will be seen from now on.
    is_announced: bool,
}

/// Subscribes and prints.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let settings = Settings::from_flags(flags, "sub")?;
    let queue = match flags.text("queue")? {
        Some(queue) => Some(input::word("queue", queue)?),
        None => None,
    };
    let subjects: Result<_, _> = flags.positionals.iter().map(input::pattern).collect();
    let mut job = Job {
        subjects: subjects?,
        queue,
        form: form(flags)?,
        count_max: flags.number("count", 1..=u64::MAX)?.unwrap_or(u64::MAX),
        printed_count: 0,
        payload_bytes: 0,
        out: BufWriter::with_capacity(64 * 1024, io::stdout()),
        is_announced: false,
    };
    let interrupt = Interrupt::install()?;
    let result = follow(&mut job, settings, &interrupt);
    job.out.flush().map_err(Failure::stdout)?;
    result?;
    if interrupt.is_stopping() {
        say(format_args!(
            "received {} messages with {} bytes of payload",
            job.printed_count, job.payload_bytes
        ));
    }
    Ok(())
}

fn form(flags: &Parsed) -> Result<Form, Failure> {
    flags.exclude("raw", "json")?;
    flags.exclude("raw", "headers-only")?;
    flags.exclude("json", "headers-only")?;
    Ok(match () {
        () if flags.switch("raw")? => Form::Raw,
        () if flags.switch("json")? => Form::Json,
        () if flags.switch("headers-only")? => Form::HeadersOnly,
        () => Form::Readable,
    })
}

/// Prints from one connection after the other. The first one must succeed.
fn follow(job: &mut Job, mut settings: Settings, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut connection = Connection::open(&settings)?;
    loop {
        settings.learn(&connection.info);
        watch(interrupt, connection.stream_handle())?;
        let Err(ended) = job.print_all(&mut connection) else {
            return Ok(());
        };
        if interrupt.is_stopping() {
            return Ok(());
        }
        match ended {
            Ended::Failure(failure) => return Err(failure),
            Ended::Connection(error) if error.is_temporary => say(format_args!("{error}")),
            Ended::Connection(error) => return Err(error.into()),
        }
        match reconnect(&settings, interrupt)? {
            Some(next) => connection = next,
            None => return Ok(()),
        }
    }
}

fn watch(interrupt: &Interrupt, stream: io::Result<TcpStream>) -> Result<(), Failure> {
    let stream =
        stream.map_err(|error| Failure::run(format!("cannot watch the socket: {error}")))?;
    interrupt.watch(Some(stream));
    Ok(())
}

/// Tries until a server answers; `None` if a signal came first.
pub fn reconnect(
    settings: &Settings,
    interrupt: &Interrupt,
) -> Result<Option<Connection>, Failure> {
    interrupt.watch(None);
    let mut backoff = Backoff::default();
    let mut last_text = String::new();
    loop {
        let wait = backoff.next_wait();
        if last_text.is_empty() {
            say(format_args!("reconnecting in {}", duration::format(wait)));
        }
        if interrupt.sleep(wait) {
            return Ok(None);
        }
        match Connection::open(settings) {
            Ok(connection) => {
                say(format_args!("connected to {} again", connection.address));
                return Ok(Some(connection));
            }
            Err(error) if !error.is_temporary => return Err(error.into()),
            // Once is enough: the same news every few seconds helps nobody.
            Err(error) if error.text != last_text => {
                say(format_args!("{error}; trying on"));
                last_text = error.text;
            }
            Err(_) => {}
        }
    }
}

/// Why printing from a connection stopped early.
enum Ended {
    Connection(ConnectionError),
    Failure(Failure),
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        Ended::Connection(error)
    }
}

impl Job {
    /// Subscribes, and prints until enough is seen.
    fn print_all(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        for (index, subject) in self.subjects.iter().enumerate() {
            connection.subscribe(subject, self.queue.as_deref(), index + 1);
        }
        connection.write(b"PING\r\n");
        connection.flush()?;
        while self.printed_count < self.count_max {
            let event = match connection.buffered()? {
                Some(event) => event,
                None => {
                    // Nothing left to read without waiting: let people see what there is.
                    self.out
                        .flush()
                        .map_err(|error| Ended::Failure(Failure::stdout(error)))?;
                    match connection.receive(None)? {
                        Some(event) => event,
                        None => continue,
                    }
                }
            };
            match event {
                Event::Message(message) => self
                    .print(&message)
                    .map_err(|error| Ended::Failure(Failure::stdout(error)))?,
                Event::ServerError(text) => return Err(connection.server_error(&text).into()),
                Event::Pong => self.announce(&connection.address),
            }
        }
        Ok(())
    }

    /// Says once that the server has carried out the subscriptions: whoever publishes after this
    /// line will be seen.
    fn announce(&mut self, address: &str) {
        if std::mem::replace(&mut self.is_announced, true) {
            return;
        }
        let subjects: Vec<String> = self
            .subjects
            .iter()
            .map(|subject| escape(subject))
            .collect();
        say(format_args!(
            "subscribed to {} at {address}",
            subjects.join(", ")
        ));
    }

    fn print(&mut self, message: &Message) -> io::Result<()> {
        self.printed_count += 1;
        self.payload_bytes += message.payload.len() as u64;
        let headline = match self.form {
            Form::Raw | Form::Json => String::new(),
            Form::Readable | Form::HeadersOnly => headline(self.printed_count, message),
        };
        print::message(&mut self.out, message, self.form, &headline)
    }
}

fn headline(number: u64, message: &Message) -> String {
    let subject = escape(&message.subject);
    match &message.reply {
        None => format!("[#{number}] Received on \"{subject}\""),
        Some(reply) => {
            let reply = escape(reply);
            format!("[#{number}] Received on \"{subject}\" with reply \"{reply}\"")
        }
    }
}
