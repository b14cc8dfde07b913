//! The midge process.

use std::ffi::OsString;
use std::process::ExitCode;

#[cfg(feature = "cli")]
mod cli;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    #[cfg(feature = "cli")]
    if let Some(code) = cli::run(&args) {
        return code;
    }
    drop(args);
    #[cfg(feature = "cli")]
    for (name, about) in cli::summaries() {
        eprintln!("  midge {name:<8} {about}");
    }
    ExitCode::from(2)
}
