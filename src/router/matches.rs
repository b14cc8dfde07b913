//! The result of a match, in memory that is used again.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::list::{Collect, NameId};
use super::local::LocalSub;
use super::target::{Owner, Target};

/// A few targets inline, more on the heap.
pub type Targets = SmallVec<[Target; 2]>;

/// Groups from which a match finds them by a map.
const GROUPS_MAPPED_FROM: usize = 16;

/// The members of one queue group whose subjects match, of which one is to get the message.
#[derive(Clone, Debug)]
pub struct Group {
    /// Queue name.
    pub name: Arc<[u8]>,
    /// Members, merged by queue name over all matching subjects.
    pub members: Targets,
    id: NameId,
}

impl Group {
    /// A group made by hand, for tests and for owners that narrow one down.
    pub fn new(name: &[u8], members: impl IntoIterator<Item = Target>) -> Group {
        Group {
            name: name.into(),
            members: members.into_iter().collect(),
            id: NameId::MAX,
        }
    }
}

/// What a published subject leads to.
#[derive(Default)]
pub struct Matches {
    /// Plain subscriptions, sorted by owner, so those of the router itself come last.
    pub plain: Targets,
    /// Queue groups.
    pub groups: Vec<Group>,
    /// In-process subscriptions among the targets, sorted.
    locals: Vec<(Target, Arc<LocalSub>)>,
    scratch: Option<Box<Scratch>>,
}

/// What only the computing of a match needs.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) frontier: Vec<u32>,
    pub(super) next: Vec<u32>,
    group_index: HashMap<NameId, usize, foldhash::fast::RandomState>,
    spare: Vec<Targets>,
}

/// Slots of scratch that are kept from one match to the next.
const SCRATCH_KEPT: usize = 4096;

impl Matches {
    /// Whether nobody is interested.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    /// The in-process subscription behind a target of [`Owner::LOCAL`].
    pub fn local(&self, target: Target) -> Option<&Arc<LocalSub>> {
        let at = self
            .locals
            .binary_search_by_key(&target, |&(local, _)| local)
            .ok()?;
        Some(&self.locals[at].1)
    }

    /// All in-process subscriptions of the match, plain and queued, sorted by target.
    #[inline]
    pub(super) fn locals(&self) -> &[(Target, Arc<LocalSub>)] {
        &self.locals
    }

    /// The plain targets that are ports, sorted by owner, and those that are in-process.
    #[inline]
    pub(super) fn split_plain(&self) -> (&[Target], &[Target]) {
        let plain = &self.plain[..];
        match plain {
            [.., last] if last.owner() == Owner::LOCAL => {
                let ports = plain.partition_point(|target| target.owner() < Owner::LOCAL);
                plain.split_at(ports)
            }
            _ => (plain, &[]),
        }
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.locals.clear();
        if self.groups.is_empty() {
            return;
        }
        let scratch = self.scratch.get_or_insert_default();
        scratch.group_index.clear();
        for mut group in self.groups.drain(..) {
            if scratch.spare.len() < SCRATCH_KEPT {
                group.members.clear();
                scratch.spare.push(group.members);
            }
        }
    }

    pub(super) fn take_scratch(&mut self) -> Box<Scratch> {
        self.scratch.take().unwrap_or_default()
    }

    pub(super) fn put_scratch(&mut self, mut scratch: Box<Scratch>) {
        scratch.frontier.clear();
        scratch.next.clear();
        scratch.frontier.shrink_to(SCRATCH_KEPT);
        scratch.next.shrink_to(SCRATCH_KEPT);
        if self.scratch.is_none() {
            self.scratch = Some(scratch);
        }
    }

    /// Sorts by owner and looks the in-process subscriptions up.
    #[inline]
    pub(super) fn finish(&mut self, resolve: impl Fn(Target) -> Option<Arc<LocalSub>>) {
        if let [_, _, ..] = self.plain[..]
            && !self.plain.is_sorted_by_key(|target| target.owner())
        {
            self.plain.sort_unstable();
        }
        if self.split_plain().1.is_empty() && self.groups.is_empty() {
            return;
        }
        let ports = self.split_plain().0.len();
        self.plain[ports..].sort_unstable();
        let members = self.groups.iter().flat_map(|group| &group.members);
        let targets = self.plain[ports..].iter().chain(members);
        let locals = targets.filter(|target| target.owner() == Owner::LOCAL);
        self.locals
            .extend(locals.filter_map(|&target| Some((target, resolve(target)?))));
        self.locals.sort_unstable_by_key(|&(target, _)| target);
        self.locals.dedup_by_key(|&mut (target, _)| target);
    }

    /// A copy without slack or scratch, for a cache.
    pub(super) fn compact(&self) -> Matches {
        Matches {
            plain: self.plain.iter().copied().collect(),
            groups: self.groups.clone(),
            locals: self.locals.clone(),
            scratch: None,
        }
    }

    /// Bytes on the heap that a compact copy takes.
    pub(super) fn compact_bytes(&self) -> usize {
        let spilled = |targets: &Targets| match targets.len() {
            0..=2 => 0,
            many => many * size_of::<Target>() + 16,
        };
        let groups = self
            .groups
            .iter()
            .map(|g| size_of::<Group>() + spilled(&g.members));
        spilled(&self.plain)
            + groups.sum::<usize>()
            + self.locals.len() * size_of::<(Target, Arc<LocalSub>)>()
    }

    fn group(&mut self, id: NameId, name: &Arc<[u8]>) -> &mut Group {
        let known = if self.groups.len() < GROUPS_MAPPED_FROM {
            self.groups.iter().position(|group| group.id == id)
        } else {
            let index = &mut self.scratch.get_or_insert_default().group_index;
            for (at, group) in self.groups.iter().enumerate().skip(index.len()) {
                index.insert(group.id, at);
            }
            index.get(&id).copied()
        };
        let at = known.unwrap_or_else(|| {
            let spare = self
                .scratch
                .as_mut()
                .and_then(|scratch| scratch.spare.pop());
            let members = spare.unwrap_or_default();
            self.groups.push(Group {
                name: name.clone(),
                members,
                id,
            });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

impl Collect for Matches {
    #[inline]
    fn plain(&mut self, targets: &[Target]) {
        match *targets {
            [one] => self.plain.push(one),
            ref many => self.plain.extend_from_slice(many),
        }
    }

    fn queued(&mut self, id: NameId, name: &Arc<[u8]>, targets: &[Target]) {
        self.group(id, name).members.extend_from_slice(targets);
    }
}
