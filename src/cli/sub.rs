//! `midge sub`: prints what is published, until it is told to stop or has seen enough.
//!
//! A server that goes away does not end it: it reconnects and subscribes again.

use std::io::{self, BufWriter, Write};

use super::connection::{Connection, Event, Message};
use super::failure::{Failure, say};
use super::flags::{Command, Flag, Parsed};
use super::follow::{Ended, Ending, follow};
use super::input;
use super::print::{self, Form, escape};
use super::settings::Settings;

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
        Flag::switch(
            "raw",
            &["r"],
            "print payloads only, unchanged, each followed by a line feed",
        ),
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
    let result = follow(settings, |connection| job.print_all(connection));
    job.out.flush().map_err(Failure::stdout)?;
    if result? == Ending::Stopped {
        say(format_args!(
            "received {} message{} with {} bytes of payload",
            job.printed_count,
            if job.printed_count == 1 { "" } else { "s" },
            job.payload_bytes
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

impl Job {
    /// Subscribes, and prints until enough is seen.
    fn print_all(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        let queue = self.queue.as_deref();
        match &self.subjects[..] {
            // The server shall not hand us more than we print: in a queue group it would be lost.
            [subject] => {
                let left_count = self.count_max - self.printed_count;
                connection.subscribe_for(subject, queue, 1, left_count);
            }
            // With several nobody knows which of them the messages will come from.
            subjects => {
                for (index, subject) in subjects.iter().enumerate() {
                    connection.subscribe(subject, queue, index + 1);
                }
            }
        }
        connection.write(b"PING\r\n");
        connection.flush()?;
        while self.printed_count < self.count_max {
            let event = match connection.buffered()? {
                Some(event) => event,
                None => {
                    // Nothing left to read without waiting: let people see what there is.
                    self.out.flush().map_err(Failure::stdout)?;
                    match connection.receive(None)? {
                        Some(event) => event,
                        None => continue,
                    }
                }
            };
            match event {
                Event::Message(message) => self.print(&message).map_err(Failure::stdout)?,
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
            Form::Raw | Form::Exact | Form::Json => String::new(),
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
