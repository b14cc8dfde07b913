//! SUB and UNSUB.

use super::conn::Conn;
use super::shard::Shard;
use crate::wire::err_text;

/// About what a subscription takes in all tables together.
const SUB_BYTES: usize = 90;

/// A queue name the reference keeps for itself.
const RESERVED_QUEUE: &[u8] = b"_sys_";

impl<S> Shard<S> {
    /// SUB. The order of the checks is the reference's: reserved queue, limit, sid in use, subject.
    /// Source: core-protocol section 2.4.
    pub(super) fn on_sub(&mut self, slot: u32, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        if let Some(error) = self.subscribe(slot, subject, queue, sid) {
            return self.send_error(slot, &error);
        }
        if self.conn(slot).is_some_and(|conn| conn.wishes.verbose) {
            self.send_ok(slot);
        }
    }

    /// Subscribes, or says what the client is told instead.
    fn subscribe(
        &mut self,
        slot: u32,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) -> Option<String> {
        if queue == Some(RESERVED_QUEUE) {
            let mut text = "Permissions Violation for Subscription to ".to_owned();
            err_text::append_quoted(&mut text, subject);
            text.push_str(" using queue \"_sys_\"");
            return Some(text);
        }
        let local = &mut self.local;
        let conn = local.conns.get_mut(slot as usize)?;
        let sub_max = self.shared.options.subscriptions_max;
        if sub_max > 0 && conn.sids.len() >= sub_max {
            return Some(err_text::SUBSCRIPTIONS.to_owned());
        }
        if local.subs.find(&conn.sids, sid).is_some() {
            return None;
        }
        let router = &self.shared.router;
        let added = local.subs.insert(&mut conn.sids, slot, sid, |target| {
            router.subscribe(subject, queue, target)
        });
        added.err().map(|_| err_text::INVALID_SUBJECT.to_owned())
    }

    /// UNSUB, now or after a number of deliveries counted since SUB.
    pub(super) fn on_unsub(&mut self, slot: u32, sid: &[u8], max: Option<u64>) {
        let local = &mut self.local;
        let Some(conn) = local.conns.get_mut(slot as usize) else {
            return;
        };
        let verbose = conn.wishes.verbose;
        if let Some(key) = local.subs.find(&conn.sids, sid) {
            let mut ends_now = max.is_none();
            if let (Some(max), Some(sub)) = (max, local.subs.get_mut(key)) {
                // Nine digits at most fit.
                sub.delivered_max = max as u32;
                ends_now = sub.is_used_up();
            }
            if ends_now {
                self.end_subscription(key);
            }
        }
        if verbose {
            self.send_ok(slot);
        }
    }

    /// Ends the subscriptions that have had all deliveries they asked for.
    #[cold]
    pub(super) fn end_used_up(&mut self) {
        while let Some(key) = self.local.used_up.pop() {
            self.end_subscription(key);
        }
    }

    fn end_subscription(&mut self, key: u32) {
        let local = &mut self.local;
        let Some(slot) = local.subs.get_mut(key).map(|sub| sub.conn) else {
            return;
        };
        let Some(conn) = local.conns.get_mut(slot as usize) else {
            return;
        };
        if let Some((sub, target)) = local.subs.remove(&mut conn.sids, key) {
            self.shared.router.unsubscribe(sub.place, target);
            self.local.freed_bytes += SUB_BYTES;
        }
    }

    /// Ends all subscriptions of a connection that stays.
    pub(super) fn drop_subscriptions_of(&mut self, slot: u32) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        let keys = std::mem::take(&mut conn.sids);
        self.drop_keys(keys.into_iter());
    }

    /// Ends all subscriptions of a connection that goes.
    pub(super) fn drop_subscriptions(&mut self, conn: &mut Conn<S>) {
        let keys = std::mem::take(&mut conn.sids);
        self.drop_keys(keys.into_iter());
    }

    fn drop_keys(&mut self, keys: impl Iterator<Item = u32>) {
        let subs = &mut self.local.subs;
        let places = keys.filter_map(|key| {
            let (sub, target) = subs.remove_with_index(key)?;
            Some((sub.place, target))
        });
        let gone = self.shared.router.unsubscribe_all(places);
        self.local.freed_bytes += gone * SUB_BYTES;
    }
}
