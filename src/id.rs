//! Newtypes for the numbers that are handed around, so that the compiler catches a swap.

/// Index of a worker thread, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Number of a client connection: unique for the life of the process, shown as `cid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId(pub u64);
