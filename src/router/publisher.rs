//! Publishing from a thread of the own process, without a server: one [`Publisher`] a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cache::{CacheStats, MatchCache};
use super::local::Message;
use super::local_queue::{Batch, record_bytes};
use super::matches::Matches;
use super::queue_pick::{Rng, pick};
use super::router::Router;
use super::target::{Owner, Target};

/// Who takes messages for targets that are not of this process, such as a worker of the server.
pub trait Port: Send + Sync {
    /// Takes one message for all of `targets`, which are all of this port, and returns how many of
    /// them get it. With a queue group it is for the one member that was picked; without, `targets`
    /// are all plain subscriptions of the port that match. Called with no lock held, on the
    /// publisher's thread; should not block.
    fn post(&self, targets: &[Target], queue: Option<&[u8]>, message: &Message<'_>) -> usize;
}

/// The ports by index.
pub(super) type Ports = Vec<Option<Arc<dyn Port>>>;

/// Rounds of messages published by callbacks called for messages published by callbacks.
pub const NESTED_ROUNDS_MAX: usize = 64;
/// Messages that the callbacks of one round may publish together.
pub const OUTBOX_MESSAGES_MAX: usize = 65_536;
/// Bytes that they may publish together: all parts of the messages, and 16 for each.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What callbacks publish: kept until the message that they were called for has reached everybody,
/// which keeps one order for all subscribers and the stack flat.
///
/// Bounds: [`OUTBOX_MESSAGES_MAX`] and [`OUTBOX_BYTES_MAX`] a round, [`NESTED_ROUNDS_MAX`] rounds;
/// so two callbacks that answer each other for ever come to an end. What goes beyond is dropped and
/// counted in [`RouterStats::nested_dropped`](super::RouterStats::nested_dropped).
#[derive(Default, Debug)]
pub struct Outbox {
    batch: Batch,
    /// The block of the round before, for the next one.
    spare: Batch,
    dropped: usize,
}

impl Outbox {
    /// An empty outbox, without memory.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Publishes a copy of the message after the present one. `false` if it had to be dropped.
    pub fn publish(&mut self, message: &Message<'_>) -> bool {
        let has_room = self.batch.len() < OUTBOX_MESSAGES_MAX
            && self.batch.bytes() + record_bytes(message) <= OUTBOX_BYTES_MAX;
        let is_taken = has_room && self.batch.push(message);
        self.dropped += usize::from(!is_taken);
        is_taken
    }

    /// Whether nothing waits and nothing was dropped.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.dropped == 0
    }

    /// Gives every message to `deliver`, in order, also those that are published meanwhile.
    pub fn drain(&mut self, router: &Router, mut deliver: impl FnMut(&Message<'_>, &mut Outbox)) {
        for _ in 0..NESTED_ROUNDS_MAX {
            if self.batch.is_empty() {
                break;
            }
            let mut round = std::mem::replace(&mut self.batch, std::mem::take(&mut self.spare));
            for message in round.iter() {
                deliver(&message, self);
            }
            round.clear();
            self.spare = round;
        }
        let dropped = std::mem::take(&mut self.dropped) + self.batch.len();
        self.batch.clear();
        if dropped > 0 {
            router.nested_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }
}

/// Publishes on a router from one thread: a match cache, a random generator, and the ports.
pub struct Publisher {
    router: Arc<Router>,
    cache: MatchCache,
    outbox: Outbox,
    delivery: Delivery,
}

/// What delivering needs beside the matches.
struct Delivery {
    rng: Rng,
    ports: Arc<Ports>,
    ports_version: usize,
}

impl Publisher {
    /// A publisher; owns next to no memory until used.
    pub fn new(router: &Arc<Router>) -> Publisher {
        let delivery = Delivery {
            rng: Rng::from_entropy(),
            ports: Arc::default(),
            ports_version: 0,
        };
        Publisher {
            router: router.clone(),
            cache: MatchCache::new(),
            outbox: Outbox::new(),
            delivery,
        }
    }

    /// The router.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// How the match cache is doing.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Delivers the message: a copy to every plain subscription and to one able member of every
    /// queue group. Callbacks run before it returns, and so do those for what they publish. Returns
    /// how many copies of this message were handed over. One that a full queue dropped is among them
    /// (see [`LocalQueue::dropped`](super::LocalQueue::dropped)), one that was refused is not.
    #[inline]
    pub fn publish(&mut self, message: &Message<'_>) -> usize {
        let matches = self.cache.lookup(&self.router, message.subject);
        if matches.is_empty() {
            return 0;
        }
        let copies = self
            .delivery
            .deliver(&self.router, matches, message, &mut self.outbox);
        if !self.outbox.is_idle() {
            self.publish_nested();
        }
        copies
    }

    #[cold]
    fn publish_nested(&mut self) {
        let Publisher {
            router,
            cache,
            outbox,
            delivery,
        } = self;
        outbox.drain(router, |message, outbox| {
            let matches = cache.lookup(router, message.subject);
            delivery.deliver(router, matches, message, outbox);
        });
    }
}

impl Delivery {
    #[inline]
    fn deliver(
        &mut self,
        router: &Router,
        matches: &Matches,
        message: &Message<'_>,
        outbox: &mut Outbox,
    ) -> usize {
        let (ports, locals) = matches.split_plain();
        let mut copies = 0;
        if !ports.is_empty() {
            copies += self.post(router, ports, message);
        }
        if !matches.groups.is_empty() {
            copies += self.deliver_groups(router, matches, message, outbox);
        }
        // Sorted alike; the members of groups among them are passed over.
        let mut resolved = matches.locals().iter();
        for &target in locals {
            if let Some((_, sub)) = resolved.find(|(local, _)| *local == target) {
                copies += usize::from(sub.deliver(router, message, outbox));
            }
        }
        copies
    }

    /// Hands the message to each port once.
    fn post(&mut self, router: &Router, targets: &[Target], message: &Message<'_>) -> usize {
        self.renew_ports(router);
        let by_owner = targets.chunk_by(|a, b| a.owner() == b.owner());
        by_owner
            .map(|targets| self.post_to(targets[0].owner(), targets, None, message))
            .sum()
    }

    fn post_to(
        &self,
        owner: Owner,
        targets: &[Target],
        queue: Option<&[u8]>,
        message: &Message<'_>,
    ) -> usize {
        match self.ports.get(owner.index()) {
            Some(Some(port)) => port.post(targets, queue, message),
            _ => 0,
        }
    }

    fn deliver_groups(
        &mut self,
        router: &Router,
        matches: &Matches,
        message: &Message<'_>,
        outbox: &mut Outbox,
    ) -> usize {
        self.renew_ports(router);
        let mut rng = self.rng.clone();
        let mut copies = 0;
        for group in &matches.groups {
            let taken = pick(group, &mut rng, |target| match target.owner() {
                Owner::LOCAL => matches
                    .local(target)
                    .is_some_and(|sub| sub.deliver(router, message, outbox)),
                owner => self.post_to(owner, &[target], Some(&group.name), message) > 0,
            });
            copies += usize::from(taken.is_some());
        }
        self.rng = rng;
        copies
    }

    #[inline]
    fn renew_ports(&mut self, router: &Router) {
        if self.ports_version != router.ports_version() {
            (self.ports_version, self.ports) = router.ports();
        }
    }
}
