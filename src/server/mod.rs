//! Event loops and sockets: what the operating system says.
//!
//! `start` binds the listeners and starts one `worker` per core; a worker is a loop of `turn`s
//! around the [`Shard`](crate::session::shard::Shard) that knows the protocol. `listen` accepts and
//! spreads connections, `socket` reads and writes them, `mailbox` carries letters between workers,
//! `linger` sees closed connections off, `process` is the server as a process: files, signals, exit
//! code. mio, socket2 and libc are used here and nowhere above.

mod linger;
mod listen;
mod mailbox;
mod memory;
mod port;
pub mod process;
mod socket;
mod start;
mod turn;
mod worker;

pub use start::{Server, StartError};
