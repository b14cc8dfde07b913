//! The shared router: the index behind its lock, the change counters, the ports.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::generation::{Generations, Watch};
use super::matches::Matches;
use super::publisher::{Port, Ports};
use super::target::{Owner, Place, Target};
use super::trie::Index;
use crate::subject;

/// Subscriptions that are removed before others are let at the index again.
const REMOVED_AT_ONCE: usize = 1000;

/// The hash function of one router, seeded so that nobody outside can construct collisions.
#[derive(Clone)]
pub(super) struct Hasher(foldhash::quality::RandomState);

impl Hasher {
    pub(super) fn new() -> Self {
        Hasher(foldhash::quality::RandomState::default())
    }

    #[inline]
    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Why a subscription was refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SubjectError {
    /// An empty token, or `>` before the last one.
    Invalid,
    /// The index has no slot left (a thousand million subjects, or a million longer than 500 bytes).
    Full,
}

impl std::fmt::Display for SubjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SubjectError::Invalid => "invalid subject",
            SubjectError::Full => "no room for another subject",
        })
    }
}

impl std::error::Error for SubjectError {}

/// Maps published subjects to targets; shared by all threads as `Arc<Router>`.
///
/// Subscribing and unsubscribing take a lock for writing, a match that no cache has takes it for
/// reading. No lock is held while a callback runs or a port is handed something.
pub struct Router {
    index: RwLock<Index>,
    generations: Generations,
    pub(super) hasher: Hasher,
    id: usize,
    inserts: AtomicUsize,
    removes: AtomicUsize,
    ports: RwLock<Arc<Ports>>,
    ports_version: AtomicUsize,
    /// Generation of the next in-process subscription.
    pub(super) local_generation: AtomicUsize,
    /// Messages that callbacks published too deeply nested, or too many of at a time.
    pub(super) nested_dropped: AtomicUsize,
}

/// What a router holds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// Subscriptions of all kinds.
    pub subscriptions: usize,
    /// Distinct literal subjects.
    pub literals: usize,
    /// Nodes of the wildcard trie.
    pub nodes: usize,
    /// In-process subscriptions.
    pub locals: usize,
    /// Bytes of subjects, nodes and their tables.
    pub index_bytes: usize,
    /// Subscriptions made since the start.
    pub inserts: usize,
    /// Subscriptions ended since the start.
    pub removes: usize,
    /// Messages published by callbacks that were dropped; see [`Publisher`](super::Publisher).
    pub nested_dropped: usize,
}

/// How long a match is good: until the sum of the watched counters moves.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Stamp {
    pub(super) watch: Watch,
    pub(super) sum: usize,
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// An empty router.
    pub fn new() -> Router {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let hasher = Hasher::new();
        Router {
            index: RwLock::new(Index::new(hasher.clone())),
            generations: Generations::new(),
            hasher,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            inserts: AtomicUsize::new(0),
            removes: AtomicUsize::new(0),
            ports: RwLock::new(Arc::default()),
            ports_version: AtomicUsize::new(1),
            local_generation: AtomicUsize::new(0),
            nested_dropped: AtomicUsize::new(0),
        }
    }

    /// Adds `target` under `subject`, as a member of the queue group `queue` if that is given. Any
    /// match that starts after this returned, on any thread, has it.
    ///
    /// The place is needed to unsubscribe. A target must not be subscribed twice at a time.
    pub fn subscribe(
        &self,
        subject: &[u8],
        queue: Option<&[u8]>,
        target: Target,
    ) -> Result<Place, SubjectError> {
        self.subscribe_then(subject, queue, |_| target, |_, _| ())
    }

    /// As [`Router::subscribe`], with the target chosen and something done under the same lock.
    pub(super) fn subscribe_then(
        &self,
        subject: &[u8],
        queue: Option<&[u8]>,
        target: impl FnOnce(&mut Index) -> Target,
        then: impl FnOnce(&mut Index, Place),
    ) -> Result<Place, SubjectError> {
        if !subject::is_valid_subscribe(subject) {
            return Err(SubjectError::Invalid);
        }
        let mut index = self.write();
        let target = target(&mut index);
        let place = index.insert(subject, queue, target)?;
        then(&mut index, place);
        self.inserts.fetch_add(1, Ordering::Relaxed);
        self.generations.bump(&self.hasher, subject);
        Ok(place)
    }

    /// Ends a subscription; `false` if the target was not there. No match that starts after this
    /// returned, on any thread, has it.
    pub fn unsubscribe(&self, place: Place, target: Target) -> bool {
        self.unsubscribe_all(std::iter::once((place, target))) == 1
    }

    /// Ends many subscriptions and returns how many there were. Others get at the index in between.
    pub fn unsubscribe_all(&self, items: impl IntoIterator<Item = (Place, Target)>) -> usize {
        let mut items = items.into_iter().peekable();
        let mut subject = Vec::new();
        let mut removed = 0;
        while items.peek().is_some() {
            // Dropped after the lock: what a callback owns may call the router when it goes.
            let mut locals = Vec::new();
            let mut index = self.write();
            for (place, target) in items.by_ref().take(REMOVED_AT_ONCE) {
                subject.clear();
                if index.remove(place, target, &mut subject) {
                    self.generations.bump(&self.hasher, &subject);
                    if target.owner() == Owner::LOCAL {
                        locals.extend(index.remove_local(target));
                        self.generations.local_ended();
                    }
                    removed += 1;
                }
            }
        }
        self.removes.fetch_add(removed, Ordering::Relaxed);
        removed
    }

    /// Hands subject and queue name of a subscription to `out`, if it is there. The index is locked
    /// meanwhile, so `out` must not call the router.
    #[cfg(test)]
    #[expect(
        clippy::type_complexity,
        reason = "a name for this type would say less"
    )]
    pub(super) fn describe(
        &self,
        place: Place,
        target: Target,
        out: &mut dyn FnMut(&[u8], Option<&[u8]>),
    ) {
        let index = self.read();
        let mut subject = Vec::new();
        if let Some(queue) = index.describe(place, target, &mut subject) {
            out(&subject, queue);
        }
    }

    /// Fills `out` with what `subject` leads to, without a cache.
    pub fn matches(&self, subject: &[u8], out: &mut Matches) {
        self.matches_hashed(subject, self.hasher.hash(subject), out);
    }

    /// As [`Router::matches`], for a caller that has hashed the subject already.
    pub(super) fn matches_hashed(&self, subject: &[u8], hash: u64, out: &mut Matches) {
        out.clear();
        self.read().matches(subject, hash, out);
    }

    /// As [`Router::matches`], with the stamp by which a cache can tell how long it holds.
    pub(super) fn matches_stamped(&self, subject: &[u8], hash: u64, out: &mut Matches) -> Stamp {
        out.clear();
        let watch = Generations::watch(&self.hasher, subject);
        let index = self.read();
        index.matches(subject, hash, out);
        Stamp {
            watch,
            sum: self.generations.stamp(watch),
        }
    }

    /// Whether nothing that concerns the match changed since the stamp was taken.
    #[inline]
    pub(super) fn is_current(&self, stamp: Stamp) -> bool {
        self.generations.stamp(stamp.watch) == stamp.sum
    }

    /// Moves whenever an in-process subscription has ended, which a cache may still hold.
    #[inline]
    pub(super) fn locals_ended(&self) -> usize {
        self.generations.locals_ended()
    }

    /// Numbers for monitoring.
    pub fn stats(&self) -> RouterStats {
        let index = self.read();
        RouterStats {
            subscriptions: index.subscriptions,
            literals: index.literal_count(),
            nodes: index.node_count(),
            locals: index.locals.len(),
            index_bytes: index.bytes(),
            inserts: self.inserts.load(Ordering::Relaxed),
            removes: self.removes.load(Ordering::Relaxed),
            nested_dropped: self.nested_dropped.load(Ordering::Relaxed),
        }
    }

    /// Sets who takes the messages that a [`Publisher`](super::Publisher) has for the targets of a
    /// port; `None` drops them. Nothing happens for [`Owner::LOCAL`].
    pub fn set_port(&self, owner: Owner, port: Option<Arc<dyn Port>>) {
        if owner == Owner::LOCAL {
            return;
        }
        let mut ports = self.ports.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Ports::clone(&ports);
        if changed.len() <= owner.index() {
            changed.resize(owner.index() + 1, None);
        }
        changed[owner.index()] = port;
        *ports = Arc::new(changed);
        self.ports_version.fetch_add(1, Ordering::Release);
    }

    /// The version of the ports; a publisher takes them anew when it moved.
    #[inline]
    pub(super) fn ports_version(&self) -> usize {
        self.ports_version.load(Ordering::Acquire)
    }

    pub(super) fn ports(&self) -> (usize, Arc<Ports>) {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        (self.ports_version(), ports.clone())
    }

    /// Different for every router of the process, so that a cache notices which one it serves.
    #[inline]
    pub(super) fn id(&self) -> usize {
        self.id
    }

    // Nothing panics with the index locked short of a bug; after one, its state is still memory-safe
    // and going on is better than failing every later call.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
