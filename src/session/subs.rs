//! The subscriptions of one worker's connections, and the names (sids) their clients gave them.

use hashbrown::HashTable;

use crate::router::{Owner, Place, Target};
use crate::slots::Slots;

/// The name a client gave a subscription, with the blank that follows it in a delivery.
///
/// Sids are almost always short decimal numbers, so they lie in place; 16 bytes in all.
pub enum Sid {
    /// Length and bytes.
    Short(u8, [u8; 14]),
    /// Anything longer, behind one thin pointer.
    #[expect(
        clippy::box_collection,
        reason = "a bare Vec would make every sid 24 bytes"
    )]
    Long(Box<Vec<u8>>),
}

impl Sid {
    /// Takes a name without the blank.
    pub fn new(name: &[u8]) -> Sid {
        let mut short = [b' '; 14];
        if name.len() < short.len() {
            short[..name.len()].copy_from_slice(name);
            return Sid::Short(name.len() as u8 + 1, short);
        }
        let mut long = Vec::with_capacity(name.len() + 1);
        long.extend_from_slice(name);
        long.push(b' ');
        Sid::Long(Box::new(long))
    }

    /// The name and the blank behind it, as a delivery says it.
    #[inline(always)]
    pub fn with_blank(&self) -> &[u8] {
        match self {
            Sid::Short(length, bytes) => &bytes[..*length as usize],
            Sid::Long(bytes) => bytes,
        }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        let bytes = self.with_blank();
        &bytes[..bytes.len() - 1]
    }
}

/// One subscription of a connection.
pub struct Sub {
    /// Slot of the connection.
    pub conn: u32,
    /// Tells this subscription from earlier ones in the same slot.
    pub generation: u32,
    /// Where the router keeps it.
    pub place: Place,
    /// Deliveries after which it ends, counted since SUB; 0 is unlimited.
    pub delivered_max: u32,
    /// Deliveries so far.
    pub delivered: u64,
    /// The client's name for it.
    pub sid: Sid,
}

impl Sub {
    /// Whether it has had all deliveries it asked for.
    #[inline(always)]
    pub fn is_used_up(&self) -> bool {
        self.delivered_max != 0 && self.delivered >= u64::from(self.delivered_max)
    }
}

/// All subscriptions of one worker.
pub struct SubTable {
    owner: Owner,
    subs: Slots<Sub>,
    generations: u32,
    hash_seed: foldhash::fast::FixedState,
}

/// The subscriptions of one connection by sid: keys of the table.
pub type SidIndex = HashTable<u32>;

impl SubTable {
    /// A table for the worker that is `owner` to the router.
    pub fn new(owner: Owner, seed: u64) -> SubTable {
        SubTable {
            owner,
            subs: Slots::default(),
            generations: 0,
            hash_seed: foldhash::fast::FixedState::with_seed(seed),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.subs.len()
    }

    /// The subscription a target leads to, unless it has ended.
    #[inline(always)]
    pub fn resolve(&mut self, target: Target) -> Option<&mut Sub> {
        let sub = self.subs.get_mut(target.key())?;
        (sub.generation == target.generation()).then_some(sub)
    }

    /// The same, only to be looked at.
    pub fn resolved(&self, target: Target) -> Option<&Sub> {
        let sub = self.subs.get(target.key())?;
        (sub.generation == target.generation()).then_some(sub)
    }

    /// Reads a little of each subscription, so that the processor fetches them side by side: among a
    /// million of them each is a trip to main memory.
    #[inline]
    pub fn warm_up(&self, targets: &[Target]) {
        let read = |target: &Target| self.subs.get(target.key()).map_or(0, |sub| sub.conn);
        std::hint::black_box(targets.iter().map(read).fold(0, u32::wrapping_add));
    }

    /// The subscription with a key.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Sub> {
        self.subs.get_mut(key)
    }

    /// The target that leads to a subscription.
    pub fn target(&self, key: u32) -> Option<Target> {
        let sub = self.subs.get(key)?;
        Some(Target::new(self.owner, sub.generation, key))
    }

    /// Finds the key of a connection's subscription.
    pub fn find(&self, index: &SidIndex, sid: &[u8]) -> Option<u32> {
        index
            .find(self.hash(sid), |&key| self.has_sid(key, sid))
            .copied()
    }

    /// Adds a subscription; `route` puts its target into the router and says where, or refuses.
    pub fn insert<E>(
        &mut self,
        index: &mut SidIndex,
        conn: u32,
        sid: &[u8],
        route: impl FnOnce(Target) -> Result<Place, E>,
    ) -> Result<u32, E> {
        let generation = (self.generations + 1) & Target::GENERATION_MAX;
        let place = route(Target::new(self.owner, generation, self.subs.next_key()))?;
        self.generations = generation;
        let sid_hash = self.hash(sid);
        let sub = Sub {
            conn,
            generation,
            place,
            delivered_max: 0,
            delivered: 0,
            sid: Sid::new(sid),
        };
        let key = self.subs.insert(sub);
        index.insert_unique(sid_hash, key, |&key| self.hash_of(key));
        Ok(key)
    }

    /// Takes a subscription out of the table and of its connection's index.
    pub fn remove(&mut self, index: &mut SidIndex, key: u32) -> Option<(Sub, Target)> {
        let target = self.target(key)?;
        let hash = self.hash_of(key);
        if let Ok(entry) = index.find_entry(hash, |&found| found == key) {
            entry.remove();
        }
        // A table that has been large keeps no memory for what has gone.
        if index.capacity() > 64 && index.len() < index.capacity() / 8 {
            index.shrink_to(index.len() * 2, |&key| self.hash_of(key));
        }
        Some((self.subs.remove(key)?, target))
    }

    /// Takes a subscription out whose index goes away as a whole.
    pub fn remove_with_index(&mut self, key: u32) -> Option<(Sub, Target)> {
        let target = self.target(key)?;
        Some((self.subs.remove(key)?, target))
    }

    fn has_sid(&self, key: u32, sid: &[u8]) -> bool {
        self.subs.get(key).is_some_and(|sub| sub.sid.name() == sid)
    }

    fn hash(&self, sid: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hash_seed.build_hasher();
        hasher.write(sid);
        hasher.finish()
    }

    fn hash_of(&self, key: u32) -> u64 {
        self.subs
            .get(key)
            .map_or(0, |sub| self.hash(sub.sid.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Router;

    #[test]
    fn sids_keep_their_bytes_and_their_size() {
        for name in [&b"1"[..], b"1234567890123", b"12345678901234", &[b'x'; 300]] {
            assert_eq!(Sid::new(name).name(), name);
            assert_eq!(Sid::new(name).with_blank(), [name, b" "].concat());
        }
        assert_eq!(size_of::<Sid>(), 16);
        assert_eq!(size_of::<Sub>(), 40);
    }

    #[test]
    fn subscriptions_are_found_by_sid_and_lost_targets_resolve_to_nothing() {
        let router = Router::new();
        let owner = Owner::port(0).expect("a port");
        let mut table = SubTable::new(owner, 1);
        let mut index = SidIndex::new();
        let mut targets = Vec::new();
        for number in 0..300 {
            let sid = number.to_string();
            let added = table.insert(&mut index, 5, sid.as_bytes(), |target| {
                targets.push(target);
                router.subscribe(b"foo", None, target)
            });
            assert!(added.is_ok());
        }
        let key = table.find(&index, b"77").expect("there");
        let (sub, target) = table.remove(&mut index, key).expect("there");
        assert_eq!((sub.sid.name(), target), (&b"77"[..], targets[77]));
        assert!(table.find(&index, b"77").is_none() && table.resolve(target).is_none());
        let again = table.insert(&mut index, 5, b"77", |target| {
            router.subscribe(b"foo", None, target)
        });
        assert_eq!(again, Ok(key), "the slot is used again");
        assert!(
            table.resolve(target).is_none(),
            "but the old target does not lead to it"
        );
    }
}
