//! Delivery to the connections of one worker.

use std::sync::Arc;

use slab::Slab;

use super::conn::Conn;
use super::mail::Producer;
use super::shard::{Counters, FRESH_BYTES_MAX};
use super::subs::SubTable;
use super::trace;
use crate::buffer::BlockPool;
use crate::config::Options;
use crate::error::CloseReason;
use crate::id::WorkerId;
use crate::log::Logger;
use crate::router::{Owner, Target};
use crate::wire::encode;
use crate::wire::parse::Publish;

/// Bodies of this size and above are queued by reference when several connections get them.
const SHARED_BYTES_MIN: usize = 8 * 1024;

/// Bytes for one connection that are worth a write of their own.
const FLUSH_BYTES: usize = 256 * 1024;

/// Bounds of the output queues.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes at which a connection is closed.
    pub pending_bytes_max: usize,
    /// Bytes at which it is time to send them, while they are still in the processor's cache.
    pub flush_bytes: usize,
    /// Bytes at which producers are asked to wait.
    pub high_water_bytes: usize,
    /// Bytes at which they may go on.
    pub low_water_bytes: usize,
    /// Bytes at which they have to wait even for a consumer that lags.
    pub critical_bytes: usize,
}

impl Limits {
    pub fn new(options: &Options) -> Limits {
        let high_water_bytes = crate::limits::HIGH_WATER_BYTES.min(options.pending_bytes_max / 2);
        Limits {
            pending_bytes_max: options.pending_bytes_max,
            flush_bytes: FLUSH_BYTES.min(high_water_bytes),
            high_water_bytes,
            low_water_bytes: high_water_bytes / 4 * 3,
            critical_bytes: options.pending_bytes_max / 4 * 3,
        }
    }
}

/// Everything delivery touches: what is left out is borrowed meanwhile by the match.
pub(super) struct Local<S> {
    pub owner: Owner,
    pub limits: Limits,
    pub conns: Slab<Conn<S>>,
    pub subs: SubTable,
    pub pool: BlockPool,
    pub counters: Counters,
    /// Connections with something to send.
    pub dirty: Vec<u32>,
    /// Connections to be closed.
    pub closing: Vec<u32>,
    /// Connections that may be read again.
    pub resumed: Vec<u32>,
    /// Subscriptions that have had all they asked for.
    pub used_up: Vec<u32>,
    /// Connections with much to send that met the message being delivered.
    pub pressed: Vec<u32>,
    /// Bytes queued since the last flush.
    pub fresh_bytes: usize,
    /// Whether the caller should flush before more is read.
    pub wants_flush: bool,
    /// Bytes of subscriptions that went.
    pub freed_bytes: usize,
    /// Where deliveries are written down, while protocol lines are asked for.
    pub trace: Option<Logger>,
}

/// A message on its way out.
pub(super) struct Outgoing<'a> {
    pub publish: &'a Publish<'a>,
    /// The slot of the publisher if it is here, else `u32::MAX`.
    pub from_slot: u32,
    /// The last part of the frame, `[reply ]size CR LF body CR LF`.
    pub tail: &'a [u8],
    /// The same in one piece that connections can share, once there are several.
    pub shared: Option<Arc<[u8]>>,
    /// The last part of the frame for receivers without headers, once there is one.
    pub headerless: Option<Vec<u8>>,
    /// Whether there are several receivers and the body is large.
    pub may_share: bool,
}

impl<'a> Outgoing<'a> {
    /// `tail` is the tail of `publish`, which that may not have.
    pub fn new(
        publish: &'a Publish<'a>,
        from: Option<Producer>,
        own: WorkerId,
        tail: &'a [u8],
        receivers: usize,
    ) -> Outgoing<'a> {
        Outgoing {
            publish,
            from_slot: from
                .filter(|from| from.worker == own)
                .map_or(u32::MAX, |from| from.slot),
            tail,
            shared: None,
            headerless: None,
            may_share: receivers > 1 && tail.len() >= SHARED_BYTES_MIN,
        }
    }
}

impl<S> Local<S> {
    pub fn new(owner: Owner, limits: Limits, seed: u64) -> Local<S> {
        Local {
            owner,
            limits,
            conns: Slab::new(),
            subs: SubTable::new(owner, seed),
            pool: BlockPool::default(),
            counters: Counters::default(),
            dirty: Vec::new(),
            closing: Vec::new(),
            resumed: Vec::new(),
            used_up: Vec::new(),
            pressed: Vec::new(),
            fresh_bytes: 0,
            wants_flush: false,
            freed_bytes: 0,
            trace: None,
        }
    }

    /// Queues a message for one subscription. `false` if it cannot take it: it has ended, has had
    /// all it asked for, is being closed, or belongs to the publisher, which wants no echo.
    #[inline]
    pub fn deliver(&mut self, target: Target, message: &mut Outgoing<'_>) -> bool {
        let Some(sub) = self.subs.resolve(target) else {
            return false;
        };
        let slot = sub.conn;
        let Some(conn) = self.conns.get_mut(slot as usize) else {
            return false;
        };
        if conn.close.is_some()
            || sub.is_used_up()
            || (slot == message.from_slot && !conn.wishes.echo)
        {
            return false;
        }
        sub.delivered += 1;
        if sub.is_used_up() {
            self.used_up.push(target.key());
        }
        let publish = message.publish;
        if let Some(log) = &self.trace {
            trace::delivery(log, conn, &sub.sid, publish);
        }
        let queued_before = conn.out.pending_bytes();
        let sid = sub.sid.with_blank();
        let verb: &[u8] = if publish.header_bytes == 0 {
            b"MSG "
        } else {
            b"HMSG "
        };
        if publish.header_bytes > 0 && !conn.wishes.headers {
            let tail = message.headerless.get_or_insert_with(|| {
                let mut tail = Vec::new();
                encode::append_headerless_tail(&mut tail, publish);
                tail
            });
            conn.out
                .push(&mut self.pool, [b"MSG ", publish.subject, b" ", sid, tail]);
        } else if message.may_share {
            let shared = message.shared.get_or_insert_with(|| message.tail.into());
            conn.out
                .push_shared(&mut self.pool, [verb, publish.subject, b" ", sid], shared);
        } else {
            conn.out.push(
                &mut self.pool,
                [verb, publish.subject, b" ", sid, message.tail],
            );
        }
        conn.traffic.out_msgs += 1;
        conn.traffic.out_bytes += publish.body.len() as u64;
        let pending_bytes = conn.out.pending_bytes();
        self.fresh_bytes += pending_bytes - queued_before;
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(slot);
        }
        if pending_bytes > self.limits.flush_bytes {
            self.pressed.push(slot);
        }
        true
    }

    /// Counts what was delivered and says whether it is time to flush.
    #[inline]
    pub fn after_delivery(&mut self) {
        if self.fresh_bytes > FRESH_BYTES_MAX {
            self.wants_flush = true;
        }
    }

    /// Queues bytes of the server itself for one connection.
    pub fn send<const N: usize>(&mut self, slot: u32, parts: [&[u8]; N]) {
        let Some(conn) = self.conns.get_mut(slot as usize) else {
            return;
        };
        if conn.close.is_some() {
            return;
        }
        conn.out.push(&mut self.pool, parts);
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(slot);
        }
        if conn.out.pending_bytes() > self.limits.pending_bytes_max {
            self.wants_flush = true;
            self.pressed.push(slot);
        }
    }

    /// Marks a connection to be closed for a reason.
    pub fn close(&mut self, slot: u32, reason: CloseReason) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && conn.close.is_none()
        {
            conn.close = Some(reason);
            self.closing.push(slot);
            // It may be the very one whose input is being worked off: nothing more of it counts.
            self.wants_flush = true;
        }
    }
}
