//! `midge request`: asks, and prints the answers and how long they took.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::connection::{Connection, Event, Message};
use super::encode::new_inbox;
use super::failure::Failure;
use super::flags::{Command, Flag, Parsed};
use super::headers::{self, HeaderBlock};
use super::print::{self, Form, escape};
use super::settings::Settings;
use super::{duration, input};

/// The table of `midge request`.
pub static COMMAND: Command = Command {
    name: "request",
    arguments: "SUBJECT [PAYLOAD]",
    argument_counts: 1..=2,
    about: "send a request and print the reply",
    details: "With - as PAYLOAD it is read from standard input; so it is without PAYLOAD, unless\n\
        standard input is a terminal: then the request is empty.",
    flags: &[
        Flag::value(
            "header",
            &["H"],
            "'NAME: VALUE'",
            "add a header (may be repeated)",
        ),
        Flag::value(
            "timeout",
            &[],
            "DURATION",
            "how long to wait for each reply (default 2s)",
        ),
        Flag::value("replies", &["count"], "N", "wait for N replies (default 1)"),
        Flag::switch(
            "raw",
            &["r"],
            "print payloads only, each with a line feed, but one into a pipe or file as it is",
        ),
        Flag::switch("json", &[], "print one JSON object a line"),
    ],
    examples: &[
        "midge request time.now ''",
        "midge request users.get '{\"id\": 7}' --timeout 500ms --raw",
    ],
};

/// Asks.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let subject = input::literal(&flags.positionals[0])?;
    let headers = headers::build(&flags.texts("header")?)?;
    let timeout = flags.duration("timeout")?.unwrap_or(Duration::from_secs(2));
    let reply_count = flags.number("replies", 1..=u64::MAX)?.unwrap_or(1);
    flags.exclude("raw", "json")?;
    let form = match () {
        () if flags.switch("raw")? => raw_form(reply_count, io::stdout().is_terminal()),
        () if flags.switch("json")? => Form::Json,
        () => Form::Readable,
    };
    let settings = Settings::from_flags(flags, "request")?;
    let payload = input::payload(flags.positionals.get(1))?;
    let mut connection = Connection::open(&settings)?;
    connection.check_message(&headers, &payload)?;

    let inbox = new_inbox()?;
    connection.subscribe(inbox.as_bytes(), None, 1);
    connection.publish(&subject, Some(inbox.as_bytes()), &headers, &payload)?;
    connection.flush()?;
    let asked_at = Instant::now();
    for number in 1..=reply_count {
        let reply = wait_for_reply(&mut connection, timeout)?.ok_or_else(|| {
            let timeout = duration::format(timeout);
            let subject = escape(&subject);
            Failure::run(match number - 1 {
                0 => format!("no reply to \"{subject}\" within {timeout}"),
                seen => format!("only {seen} of {reply_count} replies: none came for {timeout}"),
            })
        })?;
        if reply.payload.is_empty() && HeaderBlock::new(&reply.headers).is_no_responders() {
            let subject = escape(&subject);
            return Err(Failure::run(format!(
                "no responders are available for \"{subject}\""
            )));
        }
        let round_trip = duration::format(asked_at.elapsed());
        let headline = format!("[#{number}] Reply after {round_trip}");
        let mut out = io::stdout().lock();
        print::message(&mut out, &reply, form, &headline)
            .and_then(|()| out.flush())
            .map_err(Failure::stdout)?;
    }
    Ok(())
}

/// One reply that goes to a file or to another program is not to be changed by a byte. Several
/// have to be told apart, and a prompt shall stand on a line of its own.
fn raw_form(reply_count: u64, is_terminal: bool) -> Form {
    match reply_count == 1 && !is_terminal {
        true => Form::Exact,
        false => Form::Raw,
    }
}

fn wait_for_reply(
    connection: &mut Connection,
    timeout: Duration,
) -> Result<Option<Message>, Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        match connection.receive(Some(deadline))? {
            None => return Ok(None),
            Some(Event::Message(message)) => return Ok(Some(message)),
            Some(Event::ServerError(text)) => return Err(connection.server_error(&text).into()),
            Some(Event::Pong) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_raw_reply_is_exact_unless_people_read_it() {
        assert_eq!(raw_form(1, false), Form::Exact);
        assert_eq!(raw_form(1, true), Form::Raw);
        assert_eq!(raw_form(2, false), Form::Raw);
    }
}
