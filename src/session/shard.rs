//! The connections of one worker: opening and closing them, and the lists of what the caller is to
//! do for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use slab::Slab;

use super::conn::{Conn, Liveness, Pressure, Traffic, Wishes};
use super::deliver::Local;
use super::input::Input;
use super::mail::Outbox;
use super::outbound::Outbound;
use super::publish::Callbacks;
use super::subs::SidIndex;
use super::timers::{Due, Timer, Timers, on_grid};
use crate::clock::Millis;
use crate::config::Options;
use crate::config::options::Credentials;
use crate::error::CloseReason;
use crate::id::{ConnId, WorkerId};
use crate::log::Logger;
use crate::router::{MatchCache, Owner, Rng, Router};
use crate::wire::err_text::{self, Fatal};
use crate::wire::info::{ConnInfo, ServerInfo};

/// What all shards of a server have in common.
pub struct Shared {
    /// Settings.
    pub options: Options,
    /// Subjects and who wants them.
    pub router: Arc<Router>,
    /// Where to say what happens.
    pub log: Logger,
    /// What INFO says.
    pub info: ServerInfo,
    /// Number of the last connection.
    pub last_conn: AtomicU64,
    /// Whether clients are being eased away.
    pub is_lame_duck: AtomicBool,
}

/// Counts of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages and bytes, seen from the server.
    pub traffic: Traffic,
    /// Connections closed because they took too little.
    pub slow_consumers: u64,
    /// Times a producer was made to wait.
    pub stalls: u64,
    /// Connections closed because they answered no PING.
    pub stale_connections: u64,
    /// Messages for a queue group that found no member any more.
    pub queue_drops: u64,
}

/// The connections of one worker.
pub struct Shard<S> {
    pub(super) worker: WorkerId,
    pub(super) shared: Arc<Shared>,
    pub(super) local: Local<S>,
    pub(super) cache: MatchCache,
    pub(super) rng: Rng,
    pub(super) timers: Timers,
    pub(super) now: Millis,
    /// One per worker; the own one stays empty.
    pub(super) outboxes: Vec<Outbox>,
    /// Which workers are too far behind with their mail.
    pub(super) is_congested: Vec<bool>,
    /// Callbacks and queues inside the process.
    pub(super) callbacks: Callbacks,
}

/// Room for output of one pass before the caller should flush: enough for large writes to each of
/// some hundred receivers, little enough to cost a small device no memory worth speaking of.
pub(super) const FRESH_BYTES_MAX: usize = 4 * 1024 * 1024;

impl<S> Shard<S> {
    /// A shard for the worker with this index of `workers`. `None` if the index is out of range.
    pub fn new(worker: WorkerId, workers: u16, shared: Arc<Shared>, seed: u64) -> Option<Self> {
        let owner = Owner::port(worker.0)?;
        let limits = super::deliver::Limits::new(&shared.options);
        Some(Shard {
            worker,
            local: Local::new(owner, limits, seed),
            cache: MatchCache::new(),
            rng: Rng::new(seed),
            timers: Timers::default(),
            now: Millis(0),
            outboxes: (0..workers).map(|_| Outbox::default()).collect(),
            is_congested: vec![false; workers as usize],
            callbacks: Callbacks::default(),
            shared,
        })
    }

    /// Takes a new connection in; INFO is its first output.
    pub fn open(&mut self, io: S, peer: Option<SocketAddr>, now: Millis) -> u32 {
        self.now = now;
        let id = ConnId(self.shared.last_conn.fetch_add(1, Ordering::Relaxed) + 1);
        let is_admitted = self.shared.options.credentials == Credentials::Open;
        let slot = self.local.conns.insert(Conn {
            io,
            out: Outbound::default(),
            id,
            peer,
            wishes: Wishes::default(),
            is_admitted,
            is_connected: false,
            has_ponged: false,
            is_dirty: false,
            close: None,
            paused_until: None,
            waits_for_mailbox: None,
            input: Input::default(),
            sids: SidIndex::new(),
            traffic: Traffic::default(),
            liveness: Liveness {
                active_at: now,
                ..Liveness::default()
            },
            pressure: Pressure {
                progress_at: now,
                ..Pressure::default()
            },
            names: None,
        }) as u32;
        self.send_info(slot);
        if !is_admitted {
            let at = now.plus(self.shared.options.auth_timeout_ms);
            self.add_timer(slot, Due::Auth, at);
        }
        self.schedule_ping(slot, now.plus(self.shared.options.ping_interval_ms));
        if self.shared.log.debug_enabled() {
            let conn = &self.local.conns[slot as usize];
            let worker = self.worker.0;
            self.shared.log.debug(format_args!(
                "{} - Client connection created, worker {worker}",
                conn.label()
            ));
        }
        slot
    }

    /// Takes a new connection in only to tell it that the server is full.
    pub fn open_refused(&mut self, io: S, peer: Option<SocketAddr>, now: Millis) -> u32 {
        let slot = self.open(io, peer, now);
        self.fail(slot, err_text::CONNECTIONS);
        slot
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.local.conns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.local.conns.is_empty()
    }

    /// A connection.
    pub fn conn(&self, slot: u32) -> Option<&Conn<S>> {
        self.local.conns.get(slot as usize)
    }

    /// A connection, to be changed.
    pub fn conn_mut(&mut self, slot: u32) -> Option<&mut Conn<S>> {
        self.local.conns.get_mut(slot as usize)
    }

    /// Slots of all connections.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.local.conns.iter().map(|(slot, _)| slot as u32)
    }

    /// Gives an empty buffer for records to another worker.
    pub fn refill_outbox(&mut self, worker: WorkerId, bytes: Vec<u8>) {
        self.outboxes[worker.0 as usize].refill(bytes);
    }

    /// Counts so far, those of connections that have gone included.
    pub fn counters(&self) -> Counters {
        let mut counters = self.local.counters;
        for (_, conn) in &self.local.conns {
            counters.traffic.add(&conn.traffic);
        }
        counters
    }

    /// Subscriptions of all connections here.
    pub fn sub_count(&self) -> usize {
        self.local.subs.len()
    }

    /// The next connection with something to send. The caller calls `flush_with` for it.
    pub fn next_dirty(&mut self) -> Option<u32> {
        loop {
            let slot = self.local.dirty.pop()?;
            if let Some(conn) = self.local.conns.get_mut(slot as usize)
                && conn.is_dirty
            {
                conn.is_dirty = false;
                return Some(slot);
            }
        }
    }

    /// The next connection to be closed. The caller sends what is queued and calls `remove`.
    pub fn next_closing(&mut self) -> Option<u32> {
        loop {
            let slot = self.local.closing.pop()?;
            if self.conn(slot).is_some_and(|conn| conn.close.is_some()) {
                return Some(slot);
            }
        }
    }

    /// The next connection that may be read again after a pause.
    pub fn next_resumed(&mut self) -> Option<u32> {
        self.local.resumed.pop()
    }

    /// Bytes of records waiting for another worker.
    pub fn outbox_bytes(&self, worker: WorkerId) -> usize {
        self.outboxes[worker.0 as usize].bytes()
    }

    /// Workers that records wait for.
    pub fn outboxes_with_mail(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let filled = self
            .outboxes
            .iter()
            .enumerate()
            .filter(|(_, outbox)| outbox.bytes() > 0);
        filled.map(|(index, _)| WorkerId(index as u16))
    }

    /// Takes the records for another worker, to be posted.
    pub fn take_outbox(&mut self, worker: WorkerId) -> Vec<u8> {
        self.outboxes[worker.0 as usize].take()
    }

    /// About how many bytes went back to the allocator since this was last asked.
    pub fn take_freed_bytes(&mut self) -> usize {
        std::mem::take(&mut self.local.freed_bytes) + self.local.pool.take_freed_bytes()
    }

    /// Whether the caller should flush before it hands anything more in.
    pub fn wants_flush(&self) -> bool {
        self.local.wants_flush
    }

    /// Tells the shard whether another worker is too far behind with its mail, so that those who
    /// write to it must wait.
    pub fn set_congested(&mut self, worker: WorkerId, is_congested: bool) {
        self.is_congested[worker.0 as usize] = is_congested;
    }

    /// Tells the shard that what was queued has been handed to the kernel as far as it goes, so
    /// that the next pass may queue as much again.
    pub fn flushed(&mut self) {
        self.local.fresh_bytes = 0;
        self.local.wants_flush = false;
    }

    /// Writes what is queued for a connection with `write`, which is given the pieces in order and
    /// says how many bytes were taken, or `None` when the socket takes no more now.
    ///
    /// # Errors
    /// What `write` failed with; the connection is then to be closed.
    pub fn flush_with<E>(
        &mut self,
        slot: u32,
        now: Millis,
        mut write: impl FnMut(&mut S, &[std::io::IoSlice<'_>]) -> Result<Option<usize>, E>,
    ) -> Result<(), E> {
        const SLICES_MAX: usize = 64;
        self.now = now;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return Ok(());
        };
        let mut is_blocked = false;
        while conn.out.pending_bytes() > 0 && !is_blocked {
            let mut slices = [std::io::IoSlice::new(&[]); SLICES_MAX];
            let count = conn.out.slices(&mut slices);
            match write(&mut conn.io, &slices[..count])? {
                Some(bytes) => {
                    conn.out.advance(bytes, &mut self.local.pool);
                    conn.pressure.progress_at = self.now;
                }
                None => is_blocked = true,
            }
        }
        if is_blocked || conn.pressure.is_blocked {
            self.after_blocked_write(slot, is_blocked);
        }
        Ok(())
    }

    /// Ends a connection: its subscriptions go, and what the caller kept with it comes back.
    pub fn remove(&mut self, slot: u32) -> Option<(S, Outbound)> {
        let mut conn = self.local.conns.try_remove(slot as usize)?;
        self.local.counters.traffic.add(&conn.traffic);
        self.drop_subscriptions(&mut conn);
        self.release_waiting(&mut conn);
        if self.local.conns.is_empty() {
            self.local.conns = Slab::new();
            self.local.pool.shrink();
        }
        if self.shared.log.debug_enabled() {
            let reason = conn.close.unwrap_or(CloseReason::ClientClosed);
            let label = conn.label();
            self.shared
                .log
                .debug(format_args!("{label} - Client connection closed: {reason}"));
        }
        Some((conn.io, conn.out))
    }

    /// Marks a connection to be closed for a reason.
    pub fn close(&mut self, slot: u32, reason: CloseReason) {
        self.local.close(slot, reason);
    }

    /// Tells the client what is wrong, if it is to be told, and marks the connection to be closed.
    pub(super) fn fail(&mut self, slot: u32, fatal: Fatal) {
        if let Some(text) = fatal.text {
            self.send_error(slot, text);
        }
        if let Some(conn) = self.conn(slot)
            && conn.close.is_none()
            && fatal.reason != CloseReason::AuthenticationTimeout
        {
            let text = fatal.text.unwrap_or(fatal.reason.text());
            self.shared
                .log
                .error(format_args!("{} - {text}", conn.label()));
        }
        self.close(slot, fatal.reason);
    }

    /// Queues an `-ERR` line.
    pub(super) fn send_error(&mut self, slot: u32, text: &str) {
        self.trace_out(slot, format_args!("-ERR '{text}'"));
        self.send(slot, [b"-ERR '", text.as_bytes(), b"'\r\n"]);
    }

    /// Queues the INFO line.
    pub(super) fn send_info(&mut self, slot: u32) {
        let Some(conn) = self.local.conns.get(slot as usize) else {
            return;
        };
        let mut line = Vec::new();
        let about = ConnInfo {
            client_id: conn.id.0,
            client_ip: conn.peer.map(|peer| peer.ip()),
            is_connected: conn.has_ponged,
            is_lame_duck: self.shared.is_lame_duck.load(Ordering::Relaxed),
        };
        self.shared.info.append_line(&about, &mut line);
        self.send(slot, [&line]);
    }

    /// Queues bytes for one connection.
    pub(super) fn send<const N: usize>(&mut self, slot: u32, parts: [&[u8]; N]) {
        self.local.send(slot, parts);
    }

    pub(super) fn add_timer(&mut self, slot: u32, due: Due, at: Millis) {
        if let Some(conn) = self.local.conns.get(slot as usize) {
            let at = on_grid(self.now, at);
            self.timers.add(Timer {
                at,
                due,
                slot,
                conn: conn.id,
            });
        }
    }

    /// Tells every client that understands it that the server is about to go.
    pub fn announce_lame_duck(&mut self) {
        let slots: Vec<u32> = self.slots().collect();
        for slot in slots {
            if self
                .conn(slot)
                .is_some_and(|conn| conn.wishes.async_info && conn.has_ponged)
            {
                self.send_info(slot);
            }
        }
    }
}
