//! midge: a subject pub/sub server that speaks the NATS wire protocol, and the router inside it.
//!
//! The rooms, from the ground up; a module imports only from floors below its own:
//!
//! | floor | rooms | job |
//! |---|---|---|
//! | 6 | `main.rs`, `cli` | the process: flags, client tools, exit codes |
//! | 5 | `server` | event loops and sockets |
//! | 4 | `session` | what the protocol says, without I/O and without a clock |
//! | 3 | `auth` | who may connect |
//! | 2 | [`router`] | subject → targets: trie, queue groups, match cache |
//! | 1 | `wire`, [`subject`], `config` | bytes ⇄ values; subjects; options and flags |
//! | 0 | `limits`, `id`, `clock`, `buffer`, `log`, `crypto` | the nouns that every room shares |
//!
//! What is promised is the wire and the names re-exported here; the rest is public for benches and
//! tests only, and hidden from these pages.

#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod buffer;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod crypto;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod id;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod log;
pub mod router;
pub mod server;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod slots;
pub mod subject;
#[doc(hidden)]
pub mod wire;

/// The examples of the README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
