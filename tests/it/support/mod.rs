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
pub use server::{Server, is_reference, ports_file_addr, server_program};

use std::time::Duration;

/// How long anything that must happen may take before a test gives up. Generous: a loaded machine
/// is no failure, and a passing test never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers of workers that a test goes through: alone, the usual two, and more than there are cores.
pub fn worker_counts() -> &'static [u16] {
    if is_reference() { &[1] } else { &[1, 2, 4] }
}

/// Whether the test must be left out because the server under test is not midge.
pub fn is_midge_missing(ability: &str) -> bool {
    if is_reference() {
        eprintln!("left out: nats-server has no {ability}");
    }
    is_reference()
}
