//! What the server is told to do: options with their defaults, and the command line they come from.
//!
//! `table` is the one list of options: the parser, the checks of single values, the defaults shown
//! and the help page all come from it. `main` calls [`parse`] and acts on the [`Command`].

#![forbid(unsafe_code)]

mod args;
mod check;
mod error;
mod help;
mod kind;
pub mod options;
mod signal;
mod table;
mod values;

pub use args::{Command, parse};
pub use error::ArgsError;
pub use options::Options;
pub use signal::{Signal, SignalRequest};
pub use table::CLIENT_COMMANDS;

/// The NATS version that clients see in INFO and harnesses in `--version`.
///
/// Clients switch features on by it, so it must not promise more than is there: 2.2.0 is the first
/// with headers and no-responders, which is all of the core protocol, and it is below every version
/// at which a client begins to expect something of JetStream. Three plain numbers, since clients
/// disagree about suffixes. Source: core-protocol section 1.3.
pub const NATS_VERSION: &str = "2.2.0";
