//! What every integration test needs: a server of its own that ends with the test, raw connections
//! with deadlines, and a look at the server process from outside.
//!
//! The server is midge as cargo built it. `MIDGE_TEST_SERVER=/path/to/server` runs the same tests
//! against another one, such as nats-server, so that what a test claims about the protocol can be
//! checked; tests that need an ability of midge alone are then skipped and say so.

mod conn;
mod process;
mod rng;
mod server;

pub use conn::{Conn, Msg, Op, escape};
pub use process::{context_switches, cpu_ticks, eventually, rss_kib};
pub use rng::Rng;
pub use server::{Builder, Server, is_reference, server_program};

use std::time::Duration;

/// How long anything that must happen may take before a test gives up. Generous: a loaded machine
/// is no failure, and a passing test never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);
