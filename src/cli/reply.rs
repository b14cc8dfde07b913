//! `midge reply`: answers requests, with a fixed payload or with what was asked.

use std::io::{self, Write};
use std::process::{self, Stdio};
use std::time::Duration;

use super::connection::{Connection, Event, Message};
use super::failure::{Failure, say};
use super::flags::{Command, Flag, Parsed};
use super::follow::{Ended, follow};
use super::interrupt::Interrupt;
use super::print::{self, Form, escape};
use super::settings::Settings;
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
            "command",
            &[],
            "COMMAND",
            "answer with the output of a shell command, which reads the payload",
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
        "midge reply upper --command 'tr a-z A-Z'",
    ],
};

/// The group that the `nats` tool joins, so that both share the requests.
const QUEUE_DEFAULT: &str = "NATS-RPLY-22";

/// How long the server may take to confirm the last answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the payload of an answer comes from.
enum Answer {
    Fixed(Vec<u8>),
    Echo,
    /// The output of a shell command that reads the request.
    Command(String),
}

impl Answer {
    fn from_flags(flags: &Parsed) -> Result<Self, Failure> {
        flags.exclude("echo", "command")?;
        let is_echo = flags.switch("echo")?;
        let payload = flags.positionals.get(1);
        match (is_echo, flags.text("command")?) {
            (false, None) => Ok(Answer::Fixed(input::payload(payload)?)),
            _ if payload.is_some() => Err(Failure::usage(
                "reply: --echo and --command take no payload: they make their own",
            )),
            (_, Some(command)) => Ok(Answer::Command(command)),
            (true, None) => Ok(Answer::Echo),
        }
    }
}

struct Job {
    subject: Vec<u8>,
    queue: Vec<u8>,
    answer: Answer,
    headers: Vec<u8>,
    count_max: u64,
    answered_count: u64,
    is_quiet: bool,
    is_announced: bool,
}

/// Answers.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let queue = flags.text("queue")?.unwrap_or(QUEUE_DEFAULT.to_owned());
    let mut job = Job {
        subject: input::pattern(&flags.positionals[0])?,
        queue: input::word("queue", queue)?,
        answer: Answer::from_flags(flags)?,
        headers: headers::build(&flags.texts("header")?)?,
        count_max: flags.number("count", 1..=u64::MAX)?.unwrap_or(u64::MAX),
        answered_count: 0,
        is_quiet: flags.switch("quiet")?,
        is_announced: false,
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
        connection.write(b"PING\r\n");
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
                Some(Event::Pong) => self.announce(&connection.address),
                None => {}
            }
        }
        // The last answer has to be with the server before we leave.
        Ok(connection.flush_and_confirm(CONFIRM_TIMEOUT)?)
    }

    /// Says once that requests from now on will be answered.
    fn announce(&mut self, address: &str) {
        if !std::mem::replace(&mut self.is_announced, true) {
            let subject = escape(&self.subject);
            say(format_args!("answering requests on {subject} at {address}"));
        }
    }

    fn answer(&self, connection: &mut Connection, request: &Message) -> Result<(), Ended> {
        let Some(reply) = &request.reply else {
            return Ok(());
        };
        let output;
        let (headers, payload) = match &self.answer {
            Answer::Fixed(payload) => (&self.headers, payload),
            Answer::Echo if self.headers.is_empty() => (&request.headers, &request.payload),
            Answer::Echo => (&self.headers, &request.payload),
            Answer::Command(command) => {
                output = run_command(command, request)?;
                (&self.headers, &output)
            }
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

/// Runs a shell command with the request on its standard input and returns what it prints.
fn run_command(command: &str, request: &Message) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::run(format!("cannot run \"{command}\": {error}"));
    let mut child = process::Command::new("sh")
        .args(["-c", command])
        .env(
            "NATS_REQUEST_SUBJECT",
            &*String::from_utf8_lossy(&request.subject),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // From a thread of its own: a command may print much before it has read all.
        scope.spawn(move || {
            // A command that does not care for its input is as good as any.
            let _ = stdin.map(|mut stdin| stdin.write_all(&request.payload));
        });
        child.wait_with_output()
    });
    let output = output.map_err(failed)?;
    if !output.status.success() {
        say(format_args!(
            "\"{command}\" failed: {}; answered with what it printed",
            output.status
        ));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_the_request_and_its_output_is_the_answer() {
        let request = Message {
            subject: b"greet.joe".to_vec(),
            payload: vec![b'x'; 1024 * 1024],
            ..Message::default()
        };
        let run = |command| run_command(command, &request).unwrap();
        assert_eq!(run("cat"), request.payload);
        assert_eq!(run("echo $NATS_REQUEST_SUBJECT"), b"greet.joe\n");
        assert_eq!(run("printf partly; exit 3"), b"partly");
    }
}
