//! The index itself: a table of literal subjects and a trie of wildcard subjects, each in an arena.
//!
//! ```text
//! literal entry   list (8) | subject
//! node            here (8) | full (8) | parent (4) | star (4) | children (4) | token
//! ```
//!
//! `here` lists who subscribed to exactly the path to this node, `full` who subscribed to the path
//! followed by `>`. `star` is the child for `*`; other children are found by (parent, token) in one
//! table for the whole trie, and `children` counts them. Node 0 of no parent is the root.

use std::sync::Arc;

use super::arena::Arena;
use super::list::{List, Lists};
use super::local::LocalSub;
use super::matches::Matches;
use super::router::{Hasher, SubjectError};
use super::table::Table;
use super::target::{Place, PlaceKind, Target};
use crate::slots::Slots;
use crate::subject;

const ENTRY_HEAD: usize = 8;
const HERE: usize = 0;
const FULL: usize = 8;
const PARENT: usize = 16;
const STAR: usize = 20;
const CHILDREN: usize = 24;
const NODE_HEAD: usize = 28;
/// No node: no parent, no star child.
const NONE: u32 = u32::MAX;

/// Everything that the router's lock protects.
pub(super) struct Index {
    hasher: Hasher,
    entries: Arena,
    nodes: Arena,
    literals: Table,
    edges: Table,
    lists: Lists,
    /// `NONE` while no wildcard subscription exists.
    root: u32,
    node_count: usize,
    pub(super) locals: Slots<Arc<LocalSub>>,
    pub(super) subscriptions: usize,
}

fn read_u32(slot: &[u8], at: usize) -> u32 {
    slot.get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(NONE, |b| u32::from_ne_bytes(*b))
}

fn write_u32(slot: &mut [u8], at: usize, value: u32) {
    slot[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn read_list(slot: &[u8], at: usize) -> List {
    List::from_bytes(&slot[at..])
}

/// Hash of the edge from `parent` with a token of this hash.
fn edge_hash(parent: u32, token_hash: u64) -> u64 {
    let product = u128::from(token_hash ^ u64::from(parent)) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}

fn hash_literal(hasher: &Hasher, arena: &Arena, handle: u32) -> u64 {
    hasher.hash(Arena::text(arena.get(handle), ENTRY_HEAD))
}

fn hash_edge(hasher: &Hasher, arena: &Arena, handle: u32) -> u64 {
    let slot = arena.get(handle);
    edge_hash(
        read_u32(slot, PARENT),
        hasher.hash(Arena::text(slot, NODE_HEAD)),
    )
}

/// Whether a published subject has an empty token, so that nothing matches it.
fn has_empty_token(subject: &[u8]) -> bool {
    let mut before = b'.';
    for &byte in subject {
        if byte == b'.' && before == b'.' {
            return true;
        }
        before = byte;
    }
    before == b'.'
}

impl Index {
    pub(super) fn new(hasher: Hasher) -> Self {
        Index {
            hasher,
            entries: Arena::default(),
            nodes: Arena::default(),
            literals: Table::default(),
            edges: Table::default(),
            lists: Lists::default(),
            root: NONE,
            node_count: 0,
            locals: Slots::default(),
            subscriptions: 0,
        }
    }

    pub(super) fn literal_count(&self) -> usize {
        self.literals.len()
    }

    pub(super) fn node_count(&self) -> usize {
        self.node_count
    }

    /// Bytes of the arena and the tables; lists of more than one target come on top.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes() + self.nodes.bytes() + self.literals.bytes() + self.edges.bytes()
    }

    /// Whether nothing is left of earlier subscriptions, not even memory.
    #[cfg(test)]
    pub(super) fn is_pristine(&self) -> bool {
        self.bytes() == 0
            && self.lists.is_empty()
            && self.root == NONE
            && self.node_count == 0
            && self.subscriptions == 0
            && self.locals.is_empty()
    }

    /// Adds a target under a valid subscribe subject.
    pub(super) fn insert(
        &mut self,
        subject: &[u8],
        queue: Option<&[u8]>,
        target: Target,
    ) -> Result<Place, SubjectError> {
        let place = if subject::has_wildcard(subject) {
            self.node_for(subject)?
        } else {
            let handle = self.literal_for(subject)?;
            Place::new(PlaceKind::Literal, handle)
        };
        let list = self.list(place).unwrap_or(List::EMPTY);
        let list = self.lists.insert(list, &self.hasher, queue, target);
        self.set_list(place, list);
        self.subscriptions += 1;
        Ok(place)
    }

    /// Takes a target out, and with the last one the entry or the branch; appends to `subject` what
    /// it was subscribed to. `false` if it was not there.
    pub(super) fn remove(&mut self, place: Place, target: Target, subject: &mut Vec<u8>) -> bool {
        let list = self.list(place);
        let rest = list.and_then(|list| self.lists.remove(list, &self.hasher, target));
        let Some(rest) = rest else {
            return false;
        };
        self.write_subject(place, subject);
        self.set_list(place, rest);
        self.subscriptions -= 1;
        if rest.is_empty() {
            match place.kind() {
                PlaceKind::Literal => self.remove_literal(place.slot()),
                PlaceKind::Here | PlaceKind::Full => self.prune(place.slot()),
            }
        }
        true
    }

    fn list(&self, place: Place) -> Option<List> {
        let (arena, at) = match place.kind() {
            PlaceKind::Literal => (&self.entries, 0),
            PlaceKind::Here => (&self.nodes, HERE),
            PlaceKind::Full => (&self.nodes, FULL),
        };
        Some(read_list(arena.get_checked(place.slot())?, at))
    }

    fn set_list(&mut self, place: Place, list: List) {
        let (arena, at) = match place.kind() {
            PlaceKind::Literal => (&mut self.entries, 0),
            PlaceKind::Here => (&mut self.nodes, HERE),
            PlaceKind::Full => (&mut self.nodes, FULL),
        };
        arena.get_mut(place.slot())[at..at + 8].copy_from_slice(&list.to_bytes());
    }

    fn literal_for(&mut self, subject: &[u8]) -> Result<u32, SubjectError> {
        let hash = self.hasher.hash(subject);
        if let Some(handle) = self.find_literal(hash, subject) {
            return Ok(handle);
        }
        let handle = self
            .entries
            .insert(ENTRY_HEAD, subject)
            .ok_or(SubjectError::Full)?;
        let slot = self.entries.get_mut(handle);
        slot[..8].copy_from_slice(&List::EMPTY.to_bytes());
        let (arena, hasher) = (&self.entries, &self.hasher);
        self.literals
            .insert(hash, handle, |handle| hash_literal(hasher, arena, handle));
        Ok(handle)
    }

    #[inline]
    fn find_literal(&self, hash: u64, subject: &[u8]) -> Option<u32> {
        let is_it = |handle| Arena::text(self.entries.get(handle), ENTRY_HEAD) == subject;
        self.literals.find(hash, is_it)
    }

    fn remove_literal(&mut self, handle: u32) {
        let (arena, hasher) = (&self.entries, &self.hasher);
        let hash = hash_literal(hasher, arena, handle);
        self.literals
            .remove(hash, handle, |handle| hash_literal(hasher, arena, handle));
        self.entries.remove(handle);
    }

    /// Walks to the list of a wildcard subject, adding nodes on the way.
    fn node_for(&mut self, subject: &[u8]) -> Result<Place, SubjectError> {
        if self.root == NONE {
            self.root = self.new_node(NONE, b"")?;
        }
        let mut node = self.root;
        for token in subject::tokens(subject) {
            let child = match token {
                b">" => return Ok(Place::new(PlaceKind::Full, node)),
                b"*" => self.star_child(node),
                _ => self.token_child(node, token),
            };
            match child {
                Ok(child) => node = child,
                Err(error) => {
                    self.prune(node);
                    return Err(error);
                }
            }
        }
        Ok(Place::new(PlaceKind::Here, node))
    }

    fn new_node(&mut self, parent: u32, token: &[u8]) -> Result<u32, SubjectError> {
        let handle = self
            .nodes
            .insert(NODE_HEAD, token)
            .ok_or(SubjectError::Full)?;
        let slot = self.nodes.get_mut(handle);
        slot[HERE..HERE + 8].copy_from_slice(&List::EMPTY.to_bytes());
        slot[FULL..FULL + 8].copy_from_slice(&List::EMPTY.to_bytes());
        write_u32(slot, PARENT, parent);
        write_u32(slot, STAR, NONE);
        self.node_count += 1;
        Ok(handle)
    }

    fn star_child(&mut self, parent: u32) -> Result<u32, SubjectError> {
        let star = read_u32(self.nodes.get(parent), STAR);
        if star != NONE {
            return Ok(star);
        }
        let child = self.new_node(parent, b"*")?;
        write_u32(self.nodes.get_mut(parent), STAR, child);
        Ok(child)
    }

    fn token_child(&mut self, parent: u32, token: &[u8]) -> Result<u32, SubjectError> {
        let hash = edge_hash(parent, self.hasher.hash(token));
        if let Some(child) = self.find_edge(hash, parent, token) {
            return Ok(child);
        }
        let child = self.new_node(parent, token)?;
        let (arena, hasher) = (&self.nodes, &self.hasher);
        self.edges
            .insert(hash, child, |handle| hash_edge(hasher, arena, handle));
        let slot = self.nodes.get_mut(parent);
        let children = read_u32(slot, CHILDREN);
        write_u32(slot, CHILDREN, children + 1);
        Ok(child)
    }

    #[inline]
    fn find_edge(&self, hash: u64, parent: u32, token: &[u8]) -> Option<u32> {
        self.edges.find(hash, |handle| {
            let slot = self.nodes.get(handle);
            read_u32(slot, PARENT) == parent && Arena::text(slot, NODE_HEAD) == token
        })
    }

    /// Removes the node if nothing hangs on it any more, then its parent, and so on.
    fn prune(&mut self, mut node: u32) {
        while node != NONE {
            let slot = self.nodes.get(node);
            let is_used = !read_list(slot, HERE).is_empty()
                || !read_list(slot, FULL).is_empty()
                || read_u32(slot, STAR) != NONE
                || read_u32(slot, CHILDREN) != 0;
            if is_used {
                return;
            }
            let parent = read_u32(slot, PARENT);
            if parent == NONE {
                self.root = NONE;
            } else if read_u32(self.nodes.get(parent), STAR) == node {
                write_u32(self.nodes.get_mut(parent), STAR, NONE);
            } else {
                let (arena, hasher) = (&self.nodes, &self.hasher);
                let hash = hash_edge(hasher, arena, node);
                self.edges
                    .remove(hash, node, |handle| hash_edge(hasher, arena, handle));
                let slot = self.nodes.get_mut(parent);
                let children = read_u32(slot, CHILDREN);
                write_u32(slot, CHILDREN, children - 1);
            }
            self.nodes.remove(node);
            self.node_count -= 1;
            node = parent;
        }
    }

    /// Adds to `out`, which is empty, what matches; `hash` is the hasher's of the subject.
    #[inline]
    pub(super) fn matches(&self, subject: &[u8], hash: u64, out: &mut Matches) {
        // The place of the literal is on its way from memory while the walk goes on.
        self.literals.warm_up(hash);
        if self.root != NONE && !has_empty_token(subject) {
            self.walk(subject, out);
        }
        if let Some(handle) = self.find_literal(hash, subject) {
            self.lists
                .collect(read_list(self.entries.get(handle), 0), out);
        }
        out.finish(|target| {
            let local = self.locals.get(target.key())?;
            (local.target() == target).then(|| local.clone())
        });
    }

    /// Goes down the trie level by level. A node has one path to it, so none is visited twice.
    fn walk(&self, subject: &[u8], out: &mut Matches) {
        let mut scratch = out.take_scratch();
        scratch.frontier.push(self.root);
        for token in subject::tokens(subject) {
            let mut token_hash = None;
            for &node in &scratch.frontier {
                let slot = self.nodes.get(node);
                self.lists.collect(read_list(slot, FULL), out);
                let star = read_u32(slot, STAR);
                if star != NONE {
                    std::hint::black_box(self.nodes.get(star)[0]);
                    scratch.next.push(star);
                }
                if read_u32(slot, CHILDREN) != 0 {
                    let hash = *token_hash.get_or_insert_with(|| self.hasher.hash(token));
                    let child = self.find_edge(edge_hash(node, hash), node, token);
                    scratch.next.extend(child);
                }
            }
            std::mem::swap(&mut scratch.frontier, &mut scratch.next);
            scratch.next.clear();
            if scratch.frontier.is_empty() {
                break;
            }
        }
        for &node in &scratch.frontier {
            self.lists
                .collect(read_list(self.nodes.get(node), HERE), out);
        }
        out.put_scratch(scratch);
    }

    /// Subject and queue name of a subscription, if it is there.
    #[cfg(test)]
    pub(super) fn describe(
        &self,
        place: Place,
        target: Target,
        subject: &mut Vec<u8>,
    ) -> Option<Option<&[u8]>> {
        let list = self.list(place)?;
        self.lists.contains(list, target).then_some(())?;
        self.write_subject(place, subject);
        Some(self.lists.queue_of(list, target))
    }

    /// Appends the subject of a place in use.
    fn write_subject(&self, place: Place, out: &mut Vec<u8>) {
        if place.kind() == PlaceKind::Literal {
            out.extend_from_slice(Arena::text(self.entries.get(place.slot()), ENTRY_HEAD));
            return;
        }
        // Collected from the leaf up, so back to front.
        let start = out.len();
        if place.kind() == PlaceKind::Full {
            out.extend_from_slice(b">.");
        }
        let mut slot = self.nodes.get(place.slot());
        while read_u32(slot, PARENT) != NONE {
            out.extend(Arena::text(slot, NODE_HEAD).iter().rev());
            out.push(b'.');
            slot = self.nodes.get(read_u32(slot, PARENT));
        }
        out.pop();
        out[start..].reverse();
    }
}
