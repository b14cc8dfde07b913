//! The midge process: command line in, exit code out.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use midge::config::{self, Command};
use midge::server::process;

#[cfg(feature = "cli")]
mod cli;

/// The command line makes no sense; nothing was started.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args
        .next()
        .map(program_name)
        .unwrap_or_else(|| "midge".to_owned());
    let args: Vec<OsString> = args.collect();
    process::raise_descriptor_limit();
    #[cfg(feature = "cli")]
    if let Some(code) = cli::run(&args) {
        return code;
    }
    match config::parse(&program, &args) {
        Ok(Command::Serve(options)) => process::run(*options, &program),
        Ok(Command::Signal(request)) => process::send_signal(&request, &program),
        Ok(Command::Help(text)) => show(&(text + &client_tools())),
        Ok(Command::Version(text)) => show(&text),
        Err(error) => {
            // A full or closed standard error changes nothing about the exit code.
            let _ = writeln!(std::io::stderr(), "{program}: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn show(text: &str) -> ExitCode {
    // A reader that has seen enough may close the pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The part of the help page about the client tools.
#[cfg(feature = "cli")]
fn client_tools() -> String {
    let lines = cli::summaries().map(|(name, about)| format!("  midge {name:<8} {about}\n"));
    format!(
        "\nClient tools (each has its own --help):\n{}",
        lines.collect::<String>()
    )
}

#[cfg(not(feature = "cli"))]
fn client_tools() -> String {
    "\nThis midge was built without the client tools.\n".to_owned()
}

/// The name the process was started under, without its folder: drop-ins are called `nats-server`.
fn program_name(path: OsString) -> String {
    let name = Path::new(&path).file_name().unwrap_or(&path);
    name.to_string_lossy().into_owned()
}
