//! Who may connect: decides over what a client shows, knows nothing of sockets or protocols.
//!
//! The session calls [`admits`] with the credentials of CONNECT, once a login. Every refusal looks
//! alike, in its answer and in its time, so that nobody learns which part of a login was right.

#![forbid(unsafe_code)]

mod password;

pub use password::{Presented, admits};
