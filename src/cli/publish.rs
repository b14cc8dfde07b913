//! `midge pub`: publishes a message, or the same one many times.

use std::time::Duration;

use super::connection::Connection;
use super::failure::Failure;
use super::flags::{Command, Flag, Parsed};
use super::print::escape;
use super::settings::Settings;
use super::{headers, input, write_stdout};

/// The table of `midge pub`.
pub static COMMAND: Command = Command {
    name: "pub",
    arguments: "SUBJECT [PAYLOAD]",
    argument_counts: 1..=2,
    about: "publish a message",
    details: "With - as PAYLOAD it is read from standard input; so it is without PAYLOAD, unless\n\
        standard input is a terminal: then the message is empty.\n\
        The exit code is 0 only when the server has accepted everything.",
    flags: &[
        Flag::value(
            "header",
            &["H"],
            "'NAME: VALUE'",
            "add a header (may be repeated)",
        ),
        Flag::value("reply", &[], "SUBJECT", "where answers shall go"),
        Flag::value("count", &[], "N", "publish N times (default 1)"),
        Flag::value(
            "interval",
            &["sleep"],
            "DURATION",
            "pause between messages, such as 100ms",
        ),
        Flag::switch("quiet", &["q"], "say nothing on success"),
    ],
    examples: &[
        "midge pub greet.joe 'hello'",
        "midge pub sensors.cpu -H 'Unit: percent' 12.5 --count 10 --interval 1s",
        "gzip -c log.txt | midge pub logs.upload",
    ],
};

/// How long the server may take to confirm what was published.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let subject = input::literal(&flags.positionals[0])?;
    let reply = match flags.text("reply")? {
        Some(reply) => Some(input::literal(&reply.into())?),
        None => None,
    };
    let headers = headers::build(&flags.texts("header")?)?;
    let count = flags.number("count", 1..=u64::MAX)?.unwrap_or(1);
    let interval = flags.duration("interval")?.unwrap_or_default();
    let is_quiet = flags.switch("quiet")?;
    let settings = Settings::from_flags(flags, "pub")?;
    let payload = input::payload(flags.positionals.get(1))?;

    let mut connection = Connection::open(&settings)?;
    connection.check_message(&headers, &payload)?;
    for sent_count in 1..=count {
        connection.publish(&subject, reply.as_deref(), &headers, &payload)?;
        if !interval.is_zero() && sent_count < count {
            connection.flush_and_confirm(CONFIRM_TIMEOUT)?;
            connection.idle(interval)?;
        }
    }
    connection.flush_and_confirm(CONFIRM_TIMEOUT)?;
    if is_quiet {
        return Ok(());
    }
    let subject = escape(&subject);
    let bytes = match payload.len() {
        1 => "1 byte".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    write_stdout(&match count {
        1 => format!("Published {bytes} to {subject}\n"),
        count => format!("Published {count} messages of {bytes} to {subject}\n"),
    })
}
