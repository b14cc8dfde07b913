//! How a client tool ends when it does not end well.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::print::escape;

/// Why a tool stops before its work is done.
#[derive(PartialEq, Eq, Debug)]
pub enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The work could not be done: exit code 1.
    Run(String),
    /// Whoever read our output has seen enough (`midge sub '>' | head -1`): success, silently.
    StdoutClosed,
}

impl Failure {
    /// What is wrong with the command line, in one line.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(text.into())
    }

    /// What went wrong, in one line.
    pub fn run(text: impl Into<String>) -> Self {
        Failure::Run(text.into())
    }

    /// A failed write to standard output.
    pub fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
            _ => Failure::Run(format!("cannot write to standard output: {error}")),
        }
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::StdoutClosed => ExitCode::SUCCESS,
            Failure::Usage(_) => {
                say(format_args!("{self}"));
                ExitCode::from(2)
            }
            Failure::Run(_) => {
                say(format_args!("{self}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Usage(text) | Failure::Run(text) => text,
            Failure::StdoutClosed => "standard output is closed",
        })
    }
}

/// Writes one line to standard error. When nobody reads it there is nobody left to tell.
pub fn say(text: fmt::Arguments<'_>) {
    use io::Write;
    // Servers have a part in it, and they are strangers as well.
    let text = escape(text.to_string().as_bytes());
    let _ = writeln!(io::stderr().lock(), "midge: {text}");
}
