//! The client tools: `midge pub`, `sub`, `request`, `reply` and `bench`. They work against any
//! NATS server, and share nothing with ours but the grammar of the wire.
//!
//! | file | job |
//! |---|---|
//! | `flags` | one table a command, for parser and help page |
//! | `settings`, `server_url`, `server_info`, `connection`, `encode`, `headers` | where, as whom, and how to talk |
//! | `follow`, `backoff`, `interrupt` | going on after a restart, stopping at a signal |
//! | `publish`, `sub`, `request`, `reply`, `bench` | the tools |
//! | `input`, `print`, `duration` | what people type and see |
//! | `failure` | how a tool ends when it does not end well |
//!
//! Blocking sockets and a thread where one is needed: a tool talks to one server.

#![forbid(unsafe_code)]

mod backoff;
mod bench;
mod connection;
mod duration;
mod encode;
mod failure;
mod flags;
mod follow;
mod headers;
mod input;
mod interrupt;
mod print;
mod publish;
mod reply;
mod request;
mod server_info;
mod server_url;
mod settings;
mod sub;

use std::ffi::OsString;
use std::process::ExitCode;

use failure::Failure;
use flags::{Command, Parsed};

/// A tool: its table and what it does with what was typed.
type Tool = (&'static Command, fn(&Parsed) -> Result<(), Failure>);

const TOOLS: [Tool; 5] = [
    (&publish::COMMAND, publish::run),
    (&sub::COMMAND, sub::run),
    (&request::COMMAND, request::run),
    (&reply::COMMAND, reply::run),
    (&bench::COMMAND, bench::run),
];

/// Runs the tool that the first argument names; `None` if it names none.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let (word, rest) = args.split_first()?;
    let (command, tool) = TOOLS
        .iter()
        .find(|(command, _)| word == command.name || word == alias(command.name))?;
    let result = command.parse(rest).and_then(|flags| {
        if flags.switch("help")? {
            return write_stdout(&command.help());
        }
        tool(&flags)
    });
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    })
}

/// The long and short words of the `nats` tool.
fn alias(name: &str) -> &str {
    match name {
        "pub" => "publish",
        "sub" => "subscribe",
        "request" => "req",
        _ => name,
    }
}

/// Lines for the help page of `midge` itself: name and purpose of each tool.
pub fn summaries() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOOLS
        .iter()
        .map(|(command, _)| (command.name, command.about))
}

/// Writes and flushes text on standard output.
fn write_stdout(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}
