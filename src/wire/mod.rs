//! Bytes ⇄ values: the grammar of the protocol. Knows nothing of sockets or sessions.

pub mod from_server;
