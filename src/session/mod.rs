//! What the protocol says, without sockets and without a clock.
//!
//! A [`Shard`](shard::Shard) holds the connections of one worker and everything that passes between
//! them: bytes and the time go in (`on_bytes`, `on_mail`, `on_time`), effects come out as lists the
//! caller works off: connections to flush, to close, to read again, mail for other workers. The
//! event loop is a thin shell around it, the simulator another.
//!
//! Reading order: `conn` (what is known of a connection), `shard` (opening, closing, effects),
//! `input` and `receive` (bytes to operations), `connect`, `subscribe`, `publish`, `deliver`,
//! `mail` (between workers), `pressure` (consumers that are too slow), `timers`.

#![forbid(unsafe_code)]

pub mod conn;
mod connect;
mod deliver;
mod input;
pub mod mail;
pub mod outbound;
mod pressure;
mod publish;
mod receive;
pub mod shard;
mod subs;
mod subscribe;
mod timers;
mod trace;
