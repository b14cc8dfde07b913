//! `midge reply`: answers requests, with a fixed payload or with what was asked.

use std::io::{self, Write};
use std::time::Duration;

use super::connection::{Connection, Event, Message, Settings};
use super::failure::{Failure, say};
use super::flags::{Command, Flag, Parsed};
use super::follow::{Ended, follow};
use super::interrupt::Interrupt;
use super::print::{self, Form, escape};
use super::{headers, input};

/// The table of `midge reply`.
pub static COMMAND: Command = Command {
    name: "reply",
    arguments: "SUBJECT [PAYLOAD]",
    argument_counts: 1..=2,
    about: "answer requests",
    details: "Several of them on one subject share the requests out.",
    flags: &[
        Flag::value(
            "queue",
            &[],
            "NAME",
            "queue group to join (default NATS-RPLY-22)",
        ),
        Flag::switch(
            "echo",
            &[],
            "answer with the payload and headers of the request",
        ),
        Flag::value(
            "header",
            &["H"],
            "'NAME: VALUE'",
            "add a header (may be repeated)",
        ),
        Flag::value("count", &[], "N", "exit after N requests"),
        Flag::switch("quiet", &["q"], "do not print the requests"),
    ],
    examples: &[
        "midge reply greet 'hello yourself'",
        "midge reply 'echo.>' --echo",
    ],
};

/// The group that the `nats` tool joins, so that both share the requests.
const QUEUE_DEFAULT: &str = "NATS-RPLY-22";

/// How long the server may take to confirm the last answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

struct Job {
    subject: Vec<u8>,
    queue: Vec<u8>,
    /// The fixed answer; `None` echoes.
    payload: Option<Vec<u8>>,
    headers: Vec<u8>,
    count_max: u64,
    answered_count: u64,
    is_quiet: bool,
}

/// Answers.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let is_echo = flags.switch("echo")?;
    let payload = match (is_echo, flags.positionals.get(1)) {
        (true, Some(_)) => return Err(Failure::usage("reply: --echo takes no payload")),
        (true, None) => None,
        (false, arg) => Some(input::payload(arg)?),
    };
    let queue = flags.text("queue")?.unwrap_or(QUEUE_DEFAULT.to_owned());
    let mut job = Job {
        subject: input::pattern(&flags.positionals[0])?,
        queue: input::word("queue", queue)?,
        payload,
        headers: headers::build(&flags.texts("header")?)?,
        count_max: flags.number("count", 1..=u64::MAX)?.unwrap_or(u64::MAX),
        answered_count: 0,
        is_quiet: flags.switch("quiet")?,
    };
    let settings = Settings::from_flags(flags, "reply")?;
    let interrupt = Interrupt::install()?;
    follow(settings, &interrupt, |connection| {
        job.answer_all(connection)
    })?;
    if interrupt.is_stopping() {
        say(format_args!("answered {} requests", job.answered_count));
    }
    Ok(())
}

impl Job {
    /// Subscribes and answers until enough are answered.
    fn answer_all(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        connection.subscribe(&self.subject, Some(&self.queue), 1);
        connection.flush()?;
        while self.answered_count < self.count_max {
            match connection.receive(None)? {
                Some(Event::Message(request)) => {
                    self.answered_count += 1;
                    self.print(&request).map_err(Failure::stdout)?;
                    self.answer(connection, &request)?;
                }
                Some(Event::ServerError(text)) => {
                    return Err(connection.server_error(&text).into());
                }
                Some(Event::Pong) | None => {}
            }
        }
        // The last answer has to be with the server before we leave.
        Ok(connection.flush_and_confirm(CONFIRM_TIMEOUT)?)
    }

    fn answer(&self, connection: &mut Connection, request: &Message) -> Result<(), Ended> {
        let Some(reply) = &request.reply else {
            return Ok(());
        };
        let (headers, payload) = match &self.payload {
            Some(payload) => (&self.headers, payload),
            None if self.headers.is_empty() => (&request.headers, &request.payload),
            None => (&self.headers, &request.payload),
        };
        connection.check_message(headers, payload)?;
        connection.publish(reply, None, headers, payload)?;
        Ok(connection.flush()?)
    }

    fn print(&self, request: &Message) -> io::Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        let subject = escape(&request.subject);
        let note = match request.reply {
            Some(_) => "",
            None => ", which wants no reply",
        };
        let headline = format!("[#{}] Request on \"{subject}\"{note}", self.answered_count);
        let mut out = io::stdout().lock();
        print::message(&mut out, request, Form::Readable, &headline)?;
        out.flush()
    }
}
