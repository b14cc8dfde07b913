//! What the server is told to do: options with their defaults, and the command line they come from.

pub mod options;

pub use options::Options;
