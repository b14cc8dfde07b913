//! From a published message to everybody who gets it.

use std::sync::Arc;

use super::deliver::{Local, Outgoing};
use super::mail::{self, Mail, Outbox, Producer};
use super::shard::Shard;
use crate::clock::Millis;
use crate::id::WorkerId;
use crate::limits::STALL_MS_MAX;
use crate::router::{self, Group, Matches, Message, Owner, Router, Target, pick};
use crate::wire::encode;
use crate::wire::err_text;
use crate::wire::parse::Publish;

/// Bytes of records that are worth a letter of their own.
const LETTER_BYTES: usize = 128 * 1024;

/// Receivers up to which their subscriptions are fetched before the first is served; with more, the
/// processor finds enough to do by itself.
const WARM_UP_MAX: usize = 8;

/// How often a message for a queue group is passed on because the member picked on another worker
/// had gone: each hop finds another worker's view of the group, and two views are enough in
/// practice.
const HOPS_MAX: u8 = 4;

impl<S> Shard<S> {
    /// A message from a connection.
    #[inline]
    pub(super) fn on_publish(&mut self, slot: u32, publish: &Publish<'_>) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        conn.traffic.in_msgs += 1;
        conn.traffic.in_bytes += publish.body.len() as u64;
        conn.liveness.active_at = self.now;
        let from = Producer {
            worker: self.worker,
            slot,
            conn: conn.id,
        };
        let wishes = conn.wishes;
        let is_special = wishes.verbose
            || wishes.pedantic
            || matches!(publish.subject, [b'$' | b'_', ..])
            || matches!(publish.reply, Some([b'$' | b'_', ..]));
        if is_special && !self.check_publish(slot, publish) {
            return;
        }
        let is_delivered = self.route(publish, Some(from));
        if !is_delivered && wishes.no_responders && publish.reply.is_some() {
            self.answer_no_responders(slot, publish);
        }
    }

    /// What only some clients ask for and only some subjects need. `false` if it goes no further.
    fn check_publish(&mut self, slot: u32, publish: &Publish<'_>) -> bool {
        let Some(conn) = self.conn(slot) else {
            return false;
        };
        let wishes = conn.wishes;
        if wishes.pedantic && !crate::subject::is_valid_literal(publish.subject) {
            self.send_error(slot, err_text::INVALID_PUBLISH_SUBJECT);
        }
        if is_reserved_subject(publish.subject) {
            self.refuse_publish(
                slot,
                "Permissions Violation for Publish to ",
                publish.subject,
            );
            return false;
        }
        if let Some(reply) = publish.reply
            && is_reserved_reply(reply)
        {
            self.refuse_publish(
                slot,
                "Permissions Violation for Publish with Reply of ",
                reply,
            );
            return false;
        }
        if wishes.verbose {
            self.send_ok(slot);
        }
        true
    }

    fn refuse_publish(&mut self, slot: u32, what: &str, subject: &[u8]) {
        let mut text = what.to_owned();
        err_text::append_quoted(&mut text, subject);
        self.send_error(slot, &text);
        if let Some(conn) = self.conn(slot) {
            self.shared.log.error(format_args!(
                "{} - Publish Violation - Subject {:?}",
                conn.label(),
                String::from_utf8_lossy(subject)
            ));
        }
    }

    /// Delivers to everybody, wherever they are. `false` if nobody was there.
    #[inline]
    pub(super) fn route(&mut self, publish: &Publish<'_>, from: Option<Producer>) -> bool {
        let matches = self.cache.lookup(&self.shared.router, publish.subject);
        if matches.is_empty() {
            return false;
        }
        let mut built = Vec::new();
        let tail = tail_of(publish, &mut built);
        let mut message = Outgoing::new(publish, from, self.worker, tail, matches.plain.len());
        let mut is_delivered = false;
        let mut congested = None;
        let own = self.local.owner;
        let mut rest = &matches.plain[..];
        while let Some(first) = rest.first() {
            let owner = first.owner();
            // Sorted by owner, so most often all of them are of one.
            let run = match rest.last() {
                Some(last) if last.owner() == owner => rest.len(),
                _ => rest.partition_point(|target| target.owner() <= owner),
            };
            let (same, others) = rest.split_at(run);
            rest = others;
            if owner == own {
                if matches!(same.len(), 2..=WARM_UP_MAX) {
                    self.local.subs.warm_up(same);
                }
                for &target in same {
                    is_delivered |= self.local.deliver(target, &mut message);
                }
            } else if owner == Owner::LOCAL {
                for &target in same {
                    is_delivered |=
                        self.callbacks
                            .call(&self.shared.router, matches, target, publish);
                }
            } else if let Some(outbox) = self.outboxes.get_mut(owner.index()) {
                post(outbox, &mut self.local, from, publish, None, 0);
                congested = full_one(&self.is_congested, owner).or(congested);
                is_delivered = true;
            }
        }
        for group in &matches.groups {
            is_delivered |= pick(group, &mut self.rng, |target| {
                let owner = target.owner();
                if owner == own {
                    self.local.deliver(target, &mut message)
                } else if owner == Owner::LOCAL {
                    self.callbacks
                        .call(&self.shared.router, matches, target, publish)
                } else if let Some(outbox) = self.outboxes.get_mut(owner.index()) {
                    let member = Some((target, &group.name[..]));
                    post(outbox, &mut self.local, from, publish, member, 0);
                    congested = full_one(&self.is_congested, owner).or(congested);
                    true
                } else {
                    false
                }
            })
            .is_some();
        }
        self.after_delivery(from);
        if let (Some(from), Some(worker)) = (from, congested) {
            self.wait_for_mailbox(from, worker);
        }
        is_delivered
    }

    /// What deliveries set off: subscriptions that ended, consumers that are slow.
    #[inline]
    fn after_delivery(&mut self, from: Option<Producer>) {
        self.local.after_delivery();
        if !self.local.used_up.is_empty() {
            self.end_used_up();
        }
        if !self.local.pressed.is_empty() {
            self.on_pressure(from);
        }
        if self.callbacks.has_published() {
            self.publish_for_callbacks();
        }
    }

    /// Publishes what callbacks left behind while they were called.
    #[cold]
    fn publish_for_callbacks(&mut self) {
        let mut outbox = std::mem::take(&mut self.callbacks.outbox);
        let shared = Arc::clone(&self.shared);
        outbox.drain(&shared.router, |message, outbox| {
            let mut body = Vec::new();
            let publish = mail::publish_of(message, &mut body);
            // Callbacks called meanwhile add to the same outbox.
            self.callbacks.outbox = std::mem::take(outbox);
            self.callbacks.is_draining = true;
            self.route(&publish, None);
            self.callbacks.is_draining = false;
            *outbox = std::mem::take(&mut self.callbacks.outbox);
        });
        self.callbacks.outbox = outbox;
    }

    /// Works through mail from another worker, and says how many bytes of it: fewer than all when
    /// the caller should flush first.
    pub fn on_mail(&mut self, bytes: &[u8], now: Millis) -> usize {
        self.now = now;
        self.renew_trace();
        let mut at = 0;
        while !self.local.wants_flush {
            let Some((mail, used)) = mail::read(&bytes[at..]) else {
                return bytes.len();
            };
            at += used;
            match mail {
                Mail::Message {
                    from,
                    publish,
                    member: None,
                    ..
                } => {
                    self.deliver_plain(&publish, from);
                }
                Mail::Message {
                    from,
                    publish,
                    member: Some((target, queue)),
                    hops,
                } => {
                    let from = from.filter(|from| !self.has_gone(from));
                    self.deliver_to_member(&publish, from, target, queue, hops);
                }
                Mail::Stall(producer) => self.stall(producer, STALL_MS_MAX),
                Mail::Resume(producer) => self.resume(producer),
            }
        }
        at
    }

    /// Whether a producer of this worker is no longer here; its slot may be somebody else's.
    fn has_gone(&self, producer: &Producer) -> bool {
        producer.worker == self.worker
            && self
                .conn(producer.slot)
                .is_none_or(|conn| conn.id() != producer.conn)
    }

    /// Delivers to the plain subscriptions of this worker only.
    fn deliver_plain(&mut self, publish: &Publish<'_>, from: Option<Producer>) {
        let own = self.local.owner;
        let matches = self.cache.lookup(&self.shared.router, publish.subject);
        let start = matches.plain.partition_point(|target| target.owner() < own);
        let end = start + matches.plain[start..].partition_point(|target| target.owner() <= own);
        let mut message = Outgoing::new(publish, from, self.worker, publish.tail, end - start);
        for &target in &matches.plain[start..end] {
            self.local.deliver(target, &mut message);
        }
        self.after_delivery(from);
    }

    /// Delivers to the member another worker picked, or to another member if that one has gone
    /// meanwhile.
    fn deliver_to_member(
        &mut self,
        publish: &Publish<'_>,
        from: Option<Producer>,
        target: Target,
        queue: &[u8],
        hops: u8,
    ) {
        let mut message = Outgoing::new(publish, from, self.worker, publish.tail, 1);
        if !self.local.deliver(target, &mut message) {
            self.pass_on(publish, from, target, queue, hops);
        }
        self.after_delivery(from);
    }

    #[cold]
    fn pass_on(
        &mut self,
        publish: &Publish<'_>,
        from: Option<Producer>,
        gone: Target,
        queue: &[u8],
        hops: u8,
    ) {
        let own = self.local.owner;
        let matches = self.cache.lookup(&self.shared.router, publish.subject);
        let is_queue = |group: &&Group| &group.name[..] == queue;
        let Some(group) = matches
            .groups
            .iter()
            .find(is_queue)
            .filter(|_| hops < HOPS_MAX)
        else {
            self.local.counters.queue_drops += 1;
            return;
        };
        let mut message = Outgoing::new(publish, from, self.worker, publish.tail, 1);
        let picked = pick(group, &mut self.rng, |target| {
            let owner = target.owner();
            if target == gone {
                false
            } else if owner == own {
                self.local.deliver(target, &mut message)
            } else if owner == Owner::LOCAL {
                self.callbacks
                    .call(&self.shared.router, matches, target, publish)
            } else if let Some(outbox) = self.outboxes.get_mut(owner.index()) {
                let member = Some((target, queue));
                post(outbox, &mut self.local, from, publish, member, hops + 1);
                true
            } else {
                false
            }
        });
        if picked.is_none() {
            self.local.counters.queue_drops += 1;
        }
    }

    /// Tells a publisher that nobody listens, through its own subscription to the reply subject.
    /// Source: core-protocol section 5.2.
    #[cold]
    fn answer_no_responders(&mut self, slot: u32, publish: &Publish<'_>) {
        let Some(reply) = publish.reply else { return };
        let own = self.local.owner;
        let matches = self.cache.lookup(&self.shared.router, reply);
        // Of several subscriptions the reference takes one to the very subject before a wildcard: a
        // library may keep the latter for requests of its own, and would throw the answer away.
        let mut sid: Option<&[u8]> = None;
        for &target in matches.plain.iter().filter(|target| target.owner() == own) {
            if let Some(sub) = self.local.subs.resolved(target)
                && sub.conn == slot
                && (sid.is_none() || sub.place.is_literal())
            {
                sid = Some(sub.sid.name());
            }
        }
        let mut line = Vec::new();
        if let Some(sid) = sid {
            encode::append_no_responders(&mut line, reply, sid, publish.subject);
        }
        if !line.is_empty() {
            self.send(slot, [&line]);
        }
    }
}

/// The worker that serves `owner`, if its mailbox is too full.
#[inline]
fn full_one(is_congested: &[bool], owner: Owner) -> Option<WorkerId> {
    is_congested[owner.index()].then_some(WorkerId(owner.index() as u16))
}

/// Whether a subject is used between servers only. Source: core-protocol section 3.2, and the
/// reference for which of them need something behind the prefix.
fn is_reserved_subject(subject: &[u8]) -> bool {
    subject.starts_with(b"$NRG.") || is_longer_than(subject, b"_GR_.")
}

/// Whether a reply subject is used between servers and accounts only.
fn is_reserved_reply(reply: &[u8]) -> bool {
    reply.starts_with(b"_R_.")
        || is_longer_than(reply, b"_GR_.")
        || is_longer_than(reply, b"$JS.ACK.")
}

fn is_longer_than(subject: &[u8], prefix: &[u8]) -> bool {
    subject
        .strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty())
}

/// The tail a message came with, or one built in `built`.
fn tail_of<'a>(publish: &'a Publish<'_>, built: &'a mut Vec<u8>) -> &'a [u8] {
    if publish.tail.is_empty() {
        encode::append_tail(built, publish);
        built
    } else {
        publish.tail
    }
}

fn post<S>(
    outbox: &mut Outbox,
    local: &mut Local<S>,
    from: Option<Producer>,
    publish: &Publish<'_>,
    member: Option<(Target, &[u8])>,
    hops: u8,
) {
    let before = outbox.bytes();
    outbox.push_message(from, publish, member, hops);
    local.fresh_bytes += outbox.bytes() - before;
    // The other worker should begin before all of it is out of the processor's cache.
    local.wants_flush |= outbox.bytes() > LETTER_BYTES;
}

/// Callbacks and queues inside the process, and what callbacks publish.
#[derive(Default)]
pub(super) struct Callbacks {
    outbox: router::Outbox,
    /// Whether what they publish is being published, so that it is not begun anew.
    is_draining: bool,
}

impl Callbacks {
    /// Hands a message to a callback or queue inside the process.
    #[cold]
    fn call(
        &mut self,
        router: &Router,
        matches: &Matches,
        target: Target,
        publish: &Publish<'_>,
    ) -> bool {
        let (headers, payload) = publish.body.split_at(publish.header_bytes);
        let message = Message {
            subject: publish.subject,
            reply: publish.reply,
            headers,
            payload,
        };
        matches
            .local(target)
            .is_some_and(|sub| sub.deliver(router, &message, &mut self.outbox))
    }

    fn has_published(&self) -> bool {
        !self.is_draining && !self.outbox.is_idle()
    }
}
