//! Integration tests: a real server, real sockets, one module a theme.
//!
//! `tests/wire/*.txt` hold what the protocol says, as dialogues; `transcript` runs them. The other
//! modules test what a dialogue cannot show: many connections, load, time, signals, memory.

mod support;
mod transcript;
