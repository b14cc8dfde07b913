//! Maps a published subject to the targets that want it.
//!
//! A [`Router`] is a plain thread-safe value that knows neither protocols nor sockets. Literal
//! subscriptions sit in one hash table, wildcard subscriptions in a trie of tokens; both keep their
//! text in one arena of byte slots (`arena.rs`), so that a subscription costs about fifty bytes and
//! gives them back. Publishing threads own a [`MatchCache`] each: a hit takes no lock and allocates
//! nothing, and stays valid until a counter that concerns its subject moves (`generation.rs`).
//!
//! Two kinds of user: the server's workers, whose connections are targets of their own
//! ([`Owner::port`]), and code in the same process ([`Router::subscribe_local`], [`Publisher`]).

#![forbid(unsafe_code)]

mod arena;
mod cache;
mod generation;
mod list;
mod local;
mod local_queue;
mod matches;
mod publisher;
mod queue_pick;
#[expect(
    clippy::module_inception,
    reason = "the room and its central type share the name"
)]
mod router;
mod table;
mod target;
mod trie;

#[cfg(test)]
mod tests;

pub use cache::{CacheStats, MatchCache};
pub use local::{Callback, LocalHandle, LocalOptions, LocalSub, Message, NESTED_CALLS_MAX};
pub use local_queue::{Batch, LocalQueue, Overflow, OwnedMessage, QueueLimits};
pub use matches::{Group, Matches, Targets};
pub use publisher::{
    NESTED_ROUNDS_MAX, OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX, Outbox, Port, Publisher,
};
pub use queue_pick::{Rng, pick};
pub use router::{Router, RouterStats, SubjectError};
pub use target::{Owner, Place, Target};
