//! Bytes ⇄ values of the client protocol: no sockets, no clock, no state but the resume point.
//!
//! `line` splits a control line into arguments, `parse` yields one operation at a time, borrowed
//! from the bytes it was read from; `encode` writes frames, `connect` and `info` read and write the
//! two JSON bodies, `err_text` is the table of error lines.

#![forbid(unsafe_code)]

pub mod connect;
pub mod encode;
pub mod err_text;
pub mod info;
pub mod line;
pub mod parse;
