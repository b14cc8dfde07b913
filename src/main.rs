//! The midge process: command line in, exit code out.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use midge::config::{self, Command};
use midge::server::process;

/// The command line makes no sense; nothing was started.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args
        .next()
        .map(program_name)
        .unwrap_or_else(|| "midge".to_owned());
    let args: Vec<OsString> = args.collect();
    match config::parse(&program, &args) {
        Ok(Command::Serve(options)) => process::run(*options, &program),
        Ok(Command::Signal(request)) => process::send_signal(&request, &program),
        Ok(Command::Help(text) | Command::Version(text)) => {
            // A reader that has seen enough may close the pipe.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The name the process was started under, without its folder: drop-ins are called `nats-server`.
fn program_name(path: OsString) -> String {
    let name = Path::new(&path).file_name().unwrap_or(&path);
    name.to_string_lossy().into_owned()
}
