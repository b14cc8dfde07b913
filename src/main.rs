//! The midge process.

fn main() {}
