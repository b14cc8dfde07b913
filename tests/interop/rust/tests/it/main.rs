//! The stock Rust client against the server that `MIDGE_TEST_SERVER` names.

mod core;
mod lifecycle;
mod request;
mod support;
