//! The targets of one subject, in eight bytes as long as there is only one of them.
//!
//! Most subjects have one subscriber, so a [`List`] is either empty, that target, or the number of a
//! bigger set in [`Lists`]. Sets remove in constant time however big they are: a subject with a
//! million subscribers must not make each of their goodbyes walk a million targets.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::router::Hasher;
use super::target::Target;

/// Members from which a set keeps an index of positions; below, a scan is as fast.
const INDEXED_FROM: usize = 64;

/// The list of a literal entry or of a node, to be stored in a slot.
///
/// ```text
/// bits 63-54  owner; 1022, which no target has, marks the other two kinds
/// bits 31-0   number of the set, or `u32::MAX` for an empty list
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct List(u64);

const MARK: u64 = 1022 << 54;
const MARK_MASK: u64 = 1023 << 54;

/// A list taken apart.
enum Kind {
    Empty,
    One(Target),
    Many(u32),
}

impl List {
    pub(super) const EMPTY: List = List(MARK | u32::MAX as u64);

    pub(super) fn from_bytes(bytes: &[u8]) -> List {
        List(
            bytes
                .first_chunk()
                .map_or(Self::EMPTY.0, |bytes| u64::from_ne_bytes(*bytes)),
        )
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.0.to_ne_bytes()
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    #[inline]
    fn kind(self) -> Kind {
        if self.0 & MARK_MASK != MARK {
            Kind::One(Target::from_bits(self.0))
        } else if self.is_empty() {
            Kind::Empty
        } else {
            Kind::Many(self.0 as u32)
        }
    }

    fn one(target: Target) -> List {
        List(target.to_bits())
    }
}

/// An interned queue name.
pub(super) type NameId = u32;

/// Targets in no particular order.
#[derive(Default)]
struct TargetSet {
    members: Vec<Target>,
    /// Positions in `members` by the hash of the target, for big sets.
    positions: Option<Box<HashTable<u32>>>,
}

/// A list that does not fit in eight bytes.
enum Set {
    /// One member of a queue group.
    Queued(NameId, Target),
    Plain(TargetSet),
    Mixed(Box<Mixed>),
}

#[derive(Default)]
struct Mixed {
    plain: TargetSet,
    groups: HashMap<NameId, TargetSet, foldhash::fast::RandomState>,
    /// Queue of each queued target, so that removing does not search the groups.
    queues: HashMap<Target, NameId, foldhash::fast::RandomState>,
}

struct Name {
    text: Arc<[u8]>,
    uses: u32,
}

/// The bigger lists and the queue names of an index.
#[derive(Default)]
pub(super) struct Lists {
    sets: Arena<Set>,
    names: Slab<Name>,
    name_ids: HashTable<NameId>,
}

fn hash_target(target: Target) -> u64 {
    let product = u128::from(target.to_bits() ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB;
    (product >> 64) as u64 ^ product as u64
}

impl TargetSet {
    fn insert(&mut self, target: Target) {
        let members = &mut self.members;
        members.push(target);
        let hash_at = |&at: &u32| {
            members
                .get(at as usize)
                .map_or(0, |&member| hash_target(member))
        };
        if let Some(positions) = &mut self.positions {
            positions.insert_unique(hash_target(target), (members.len() - 1) as u32, hash_at);
        } else if members.len() >= INDEXED_FROM {
            let mut positions = HashTable::with_capacity(2 * INDEXED_FROM);
            for (at, &member) in members.iter().enumerate() {
                positions.insert_unique(hash_target(member), at as u32, hash_at);
            }
            self.positions = Some(Box::new(positions));
        }
    }

    fn find(&self, target: Target) -> Option<usize> {
        let Some(positions) = &self.positions else {
            return self.members.iter().position(|&member| member == target);
        };
        let is_target = |&at: &u32| self.members.get(at as usize) == Some(&target);
        positions
            .find(hash_target(target), is_target)
            .map(|&at| at as usize)
    }

    fn remove(&mut self, target: Target) -> bool {
        let Some(at) = self.find(target) else {
            return false;
        };
        let last_at = self.members.len() - 1;
        self.members.swap_remove(at);
        if let Some(positions) = &mut self.positions {
            if let Ok(found) = positions.find_entry(hash_target(target), |&p| p == at as u32) {
                found.remove();
            }
            if let Some(&last) = self.members.get(at)
                && let Some(moved) = positions.find_mut(hash_target(last), |&p| p == last_at as u32)
            {
                *moved = at as u32;
            }
        }
        self.give_back();
        true
    }

    /// Shrinks what has become far too big.
    fn give_back(&mut self) {
        let members = &mut self.members;
        if members.len() < members.capacity() / 4 {
            members.shrink_to(members.len() * 2);
            let hash_at = |&at: &u32| {
                members
                    .get(at as usize)
                    .map_or(0, |&member| hash_target(member))
            };
            if members.len() < INDEXED_FROM / 2 {
                self.positions = None;
            } else if let Some(positions) = &mut self.positions {
                positions.shrink_to(members.len() * 2, hash_at);
            }
        }
    }
}

/// What a list tells a match about each of its parts.
pub(super) trait Collect {
    fn plain(&mut self, targets: &[Target]);
    fn queued(&mut self, name: NameId, text: &Arc<[u8]>, targets: &[Target]);
}

impl Lists {
    /// The list with one more target.
    pub(super) fn insert(
        &mut self,
        list: List,
        hasher: &Hasher,
        queue: Option<&[u8]>,
        target: Target,
    ) -> List {
        let name = queue.map(|text| self.intern(hasher, text));
        match (list.kind(), name) {
            (Kind::Empty, None) => List::one(target),
            (Kind::Empty, Some(name)) => self.add(Set::Queued(name, target)),
            (Kind::One(first), None) => {
                let mut set = TargetSet::default();
                set.insert(first);
                set.insert(target);
                self.add(Set::Plain(set))
            }
            (Kind::One(first), Some(name)) => {
                let mut mixed = Box::<Mixed>::default();
                mixed.plain.insert(first);
                mixed.insert_queued(name, target);
                self.add(Set::Mixed(mixed))
            }
            (Kind::Many(index), name) => {
                if let Some(set) = self.sets.get_mut(index) {
                    set.insert(name, target);
                }
                list
            }
        }
    }

    /// The list without the target; `None` if it was not in it.
    pub(super) fn remove(&mut self, list: List, hasher: &Hasher, target: Target) -> Option<List> {
        let index = match list.kind() {
            Kind::One(only) if only == target => return Some(List::EMPTY),
            Kind::Empty | Kind::One(_) => return None,
            Kind::Many(index) => index,
        };
        let (name, rest) = self.sets.get_mut(index)?.remove(target)?;
        if let Some(name) = name {
            self.release(hasher, name);
        }
        Some(match rest {
            Rest::Many => list,
            Rest::One(target) => {
                self.sets.remove(index);
                List::one(target)
            }
            Rest::Empty => {
                self.sets.remove(index);
                List::EMPTY
            }
        })
    }

    /// Hands the targets of the list to `out`.
    #[inline]
    pub(super) fn collect(&self, list: List, out: &mut impl Collect) {
        match list.kind() {
            Kind::Empty => {}
            Kind::One(target) => out.plain(&[target]),
            Kind::Many(index) => self.collect_set(index, out),
        }
    }

    fn collect_set(&self, index: u32, out: &mut impl Collect) {
        let mut queued = |name: NameId, targets: &[Target]| {
            if let Some(known) = self.names.get(name as usize) {
                out.queued(name, &known.text, targets);
            }
        };
        match self.sets.get(index) {
            None => {}
            Some(&Set::Queued(name, target)) => queued(name, &[target]),
            Some(Set::Plain(set)) => out.plain(&set.members),
            Some(Set::Mixed(mixed)) => {
                for (&name, set) in &mixed.groups {
                    queued(name, &set.members);
                }
                out.plain(&mixed.plain.members);
            }
        }
    }

    /// Whether the target is in the list.
    #[cfg(test)]
    pub(super) fn contains(&self, list: List, target: Target) -> bool {
        match list.kind() {
            Kind::Empty => false,
            Kind::One(only) => only == target,
            Kind::Many(index) => match self.sets.get(index) {
                None => false,
                Some(&Set::Queued(_, only)) => only == target,
                Some(Set::Plain(set)) => set.find(target).is_some(),
                Some(Set::Mixed(mixed)) => {
                    mixed.queues.contains_key(&target) || mixed.plain.find(target).is_some()
                }
            },
        }
    }

    /// Queue name of a target of the list.
    #[cfg(test)]
    pub(super) fn queue_of(&self, list: List, target: Target) -> Option<&[u8]> {
        let Kind::Many(index) = list.kind() else {
            return None;
        };
        let name = match self.sets.get(index)? {
            Set::Queued(name, _) => name,
            Set::Plain(_) => return None,
            Set::Mixed(mixed) => mixed.queues.get(&target)?,
        };
        self.names.get(*name as usize).map(|name| &*name.text)
    }

    /// Whether nothing is left, not even memory of it.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sets.chunks.is_empty() && self.names.is_empty() && self.name_ids.is_empty()
    }

    fn add(&mut self, set: Set) -> List {
        List(MARK | u64::from(self.sets.insert(set)))
    }

    fn intern(&mut self, hasher: &Hasher, text: &[u8]) -> NameId {
        let hash = hasher.hash(text);
        let names = &mut self.names;
        let is_it = |&id: &NameId| {
            names
                .get(id as usize)
                .is_some_and(|name| *name.text == *text)
        };
        if let Some(&id) = self.name_ids.find(hash, is_it) {
            if let Some(name) = names.get_mut(id as usize) {
                name.uses += 1;
            }
            return id;
        }
        let id = names.insert(Name {
            text: text.into(),
            uses: 1,
        }) as NameId;
        self.name_ids.insert_unique(hash, id, |&id| {
            names
                .get(id as usize)
                .map_or(0, |name| hasher.hash(&name.text))
        });
        id
    }

    fn release(&mut self, hasher: &Hasher, id: NameId) {
        let Some(name) = self.names.get_mut(id as usize) else {
            return;
        };
        name.uses -= 1;
        if name.uses > 0 {
            return;
        }
        let hash = hasher.hash(&name.text);
        if let Ok(entry) = self.name_ids.find_entry(hash, |&found| found == id) {
            entry.remove();
        }
        self.names.remove(id as usize);
        if self.names.is_empty() {
            self.names = Slab::new();
            self.name_ids = HashTable::new();
        }
    }
}

/// What is left of a set after a removal.
enum Rest {
    Empty,
    One(Target),
    Many,
}

impl Set {
    fn insert(&mut self, name: Option<NameId>, target: Target) {
        if let (Set::Plain(set), None) = (&mut *self, name) {
            return set.insert(target);
        }
        if !matches!(self, Set::Mixed(_)) {
            let mut mixed = Box::<Mixed>::default();
            match std::mem::replace(self, Set::Plain(TargetSet::default())) {
                Set::Queued(first_name, first) => mixed.insert_queued(first_name, first),
                Set::Plain(set) => mixed.plain = set,
                Set::Mixed(_) => {}
            }
            *self = Set::Mixed(mixed);
        }
        if let Set::Mixed(mixed) = self {
            match name {
                Some(name) => mixed.insert_queued(name, target),
                None => mixed.plain.insert(target),
            }
        }
    }

    /// Removes the target and tells of which queue it was; `None` if it was not here.
    fn remove(&mut self, target: Target) -> Option<(Option<NameId>, Rest)> {
        match self {
            Set::Queued(name, only) if *only == target => Some((Some(*name), Rest::Empty)),
            Set::Queued(..) => None,
            Set::Plain(set) => {
                set.remove(target).then_some(())?;
                let rest = match set.members[..] {
                    [] => Rest::Empty,
                    [last] => Rest::One(last),
                    _ => Rest::Many,
                };
                Some((None, rest))
            }
            Set::Mixed(mixed) => {
                let name = mixed.remove(target)?;
                let rest = match (&mixed.plain.members[..], mixed.groups.is_empty()) {
                    ([], true) => Rest::Empty,
                    (&[last], true) => Rest::One(last),
                    _ => Rest::Many,
                };
                Some((name, rest))
            }
        }
    }
}

impl Mixed {
    fn insert_queued(&mut self, name: NameId, target: Target) {
        self.groups.entry(name).or_default().insert(target);
        self.queues.insert(target, name);
    }

    fn remove(&mut self, target: Target) -> Option<Option<NameId>> {
        let Some(name) = self.queues.remove(&target) else {
            return self.plain.remove(target).then_some(None);
        };
        if let Some(group) = self.groups.get_mut(&name) {
            group.remove(target);
            if group.members.is_empty() {
                self.groups.remove(&name);
            }
        }
        if self.queues.len() < self.queues.capacity() / 8 {
            self.queues.shrink_to(self.queues.len() * 2);
            self.groups.shrink_to(self.groups.len() * 2);
        }
        Some(Some(name))
    }
}

/// A slab in chunks, so that growing does not copy and emptied parts are given back.
struct Arena<T> {
    chunks: Vec<Slab<T>>,
    /// Chunks that have room, perhaps some more than once.
    open: Vec<u32>,
    len: usize,
}

const ARENA_CHUNK: u32 = 256;

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena {
            chunks: Vec::new(),
            open: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Arena<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        loop {
            let Some(&chunk_index) = self.open.last() else {
                self.open.push(self.chunks.len() as u32);
                self.chunks.push(Slab::new());
                continue;
            };
            let chunk = &mut self.chunks[chunk_index as usize];
            if chunk.len() < ARENA_CHUNK as usize {
                return chunk_index * ARENA_CHUNK + chunk.insert(value) as u32;
            }
            self.open.pop();
        }
    }

    fn get(&self, index: u32) -> Option<&T> {
        self.chunks
            .get((index / ARENA_CHUNK) as usize)?
            .get((index % ARENA_CHUNK) as usize)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks
            .get_mut((index / ARENA_CHUNK) as usize)?
            .get_mut((index % ARENA_CHUNK) as usize)
    }

    fn remove(&mut self, index: u32) {
        let chunk_index = index / ARENA_CHUNK;
        let Some(chunk) = self.chunks.get_mut(chunk_index as usize) else {
            return;
        };
        if chunk.try_remove((index % ARENA_CHUNK) as usize).is_none() {
            return;
        }
        self.len -= 1;
        if chunk.len() == ARENA_CHUNK as usize - 1 {
            self.open.push(chunk_index);
        }
        if chunk.is_empty() {
            *chunk = Slab::new();
        }
        if self.len == 0 {
            *self = Arena::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Owner, Rng};

    /// Grows past the size at which positions are indexed and back, in random order.
    #[test]
    fn a_set_loses_exactly_what_is_removed() {
        let mut rng = Rng::new(11);
        let mut set = TargetSet::default();
        let mut model = Vec::new();
        for step in 0..20_000u32 {
            if rng.below(3) > u32::from(step % 4000 > 2000) {
                let target = Target::new(Owner::LOCAL, step, step);
                set.insert(target);
                model.push(target);
            } else if !model.is_empty() {
                let gone = model.swap_remove(rng.below(model.len() as u32) as usize);
                assert!(set.remove(gone), "{gone:?} at {step} of {}", model.len());
                assert!(!set.remove(gone));
            }
        }
        let mut left = set.members.clone();
        left.sort_unstable();
        model.sort_unstable();
        assert_eq!(left, model);
    }
}
