//! Integration tests: a real server, real sockets, one module a theme.
//!
//! `tests/wire/*.txt` hold what the protocol says, as dialogues; `transcript` runs them. The other
//! modules test what a dialogue cannot show: many connections, load, time, signals, memory.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod accept;
mod core;
mod idle;
mod in_process;
mod lifecycle;
mod limits;
mod log;
mod many_subs;
mod memory;
mod nonsense;
mod queue;
mod spread;
mod support;
mod timers;
mod transcript;
