//! The shell around the shards, as `server/turn.rs` is one: simulated sockets with bounded buffers,
//! mail that takes its time, and the order of a turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use midge::clock::Millis;
use midge::config::Options;
use midge::error::CloseReason;
use midge::id::WorkerId;
use midge::limits::STALL_MS_MAX;
use midge::log::Logger;
use midge::router::Router;
use midge::session::conn::Conn;
use midge::session::mail::{self, Mail};
use midge::session::outbound::Outbound;
use midge::session::shard::{Shard, Shared};
use midge::wire::info::ServerInfo;

use crate::rng::Rng;

const READS_MAX: usize = 8;
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A socket as the server sees it.
pub struct Io {
    /// The client at the other end.
    pub client: usize,
    /// Bytes the kernel holds for the server.
    pub incoming: VecDeque<u8>,
    /// The client has closed its side behind them.
    pub is_at_end: bool,
    /// The client is gone: reading and writing fail.
    pub is_broken: bool,
    /// Bytes the kernel holds for the client.
    pub outgoing: VecDeque<u8>,
    /// How many of them it holds at most.
    pub capacity: usize,
    /// The kernel will tell when there is room again.
    pub wants_room: bool,
    /// Bytes read but not worked off.
    backlog: Vec<u8>,
    paused_at: Option<Millis>,
}

impl Io {
    pub fn new(client: usize, capacity: usize) -> Io {
        Io {
            client,
            incoming: VecDeque::new(),
            is_at_end: false,
            is_broken: false,
            outgoing: VecDeque::new(),
            capacity,
            wants_room: false,
            backlog: Vec::new(),
            paused_at: None,
        }
    }

    /// Takes a random part of what is queued, or says that it takes no more now.
    fn write(
        &mut self,
        slices: &[std::io::IoSlice<'_>],
        rng: &mut Rng,
    ) -> Result<Option<usize>, ()> {
        if self.is_broken {
            return Err(());
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(offered > 0, "a write of nothing");
        let room = self.capacity.saturating_sub(self.outgoing.len());
        if room == 0 || rng.chance(1, 20) {
            self.wants_room = true;
            return Ok(None);
        }
        let most = offered.min(room);
        let taken = if rng.chance(1, 3) {
            rng.sized(1, most)
        } else {
            most
        };
        let mut left = taken;
        for slice in slices {
            let bytes = &slice[..slice.len().min(left)];
            self.outgoing.extend(bytes);
            left -= bytes.len();
        }
        Ok(Some(taken))
    }
}

/// Takes up to `most` bytes from the front.
pub fn take(queue: &mut VecDeque<u8>, most: usize) -> Vec<u8> {
    let count = most.min(queue.len());
    let bytes = queue.make_contiguous()[..count].to_vec();
    queue.drain(..count);
    bytes
}

/// What the shell tells whoever checks.
pub trait Observer {
    /// These clients are marked to be closed, since the last call or during it.
    fn closing(&mut self, clients: &[usize]);
    /// The shard has worked off so many bytes of a client, which has published so many messages in
    /// all: fewer than its bytes hold when it is closed meanwhile.
    fn consumed(&mut self, client: usize, bytes: usize, published: u64);
    /// A worker has worked off a plain message from another.
    fn plain_mail(&mut self, from: usize, to: usize, subject: &[u8], body: &[u8]);
    /// A worker has worked off a message for a member of a queue group; whether it may have been
    /// dropped, since nobody of the group was there for certain.
    fn may_drop(&self, subject: &[u8], queue: &[u8], hops: u8) -> bool;
    /// A connection is gone; what is still to be read of it is handed over.
    fn removed(&mut self, client: usize, reason: Option<CloseReason>, io: Io, out: Outbound);
    /// The most bytes that may be queued for a client.
    fn pending_bytes_bound(&self, client: usize) -> usize;
}

/// One worker.
pub struct Worker {
    pub shard: Shard<Io>,
    /// Letters that have arrived, with their sender.
    letters: VecDeque<(usize, Vec<u8>)>,
}

/// All workers of a server and the mail between them.
pub struct Staff {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker>,
    /// Mail under way, by sender and receiver.
    under_way: Vec<Vec<VecDeque<Vec<u8>>>>,
    pub mail_bytes: Vec<usize>,
    /// Mail bytes at which a worker counts as congested.
    pub mail_bytes_max: usize,
    pub now: Millis,
    pub pauses: u64,
}

/// What all workers share, with a log that nobody reads.
pub fn shared(options: Options, is_tracing: bool) -> Arc<Shared> {
    let log = Logger::callback(Box::new(|_, _| {}));
    log.set_verbosity(is_tracing, is_tracing);
    Arc::new(Shared {
        router: Arc::new(Router::new()),
        log,
        info: ServerInfo {
            server_id: "NSIM".into(),
            server_name: "sim".into(),
            nats_version: "2.2.0",
            midge_version: "0",
            revision: "",
            host: "127.0.0.1".into(),
            port: 4222,
            auth_required: false,
            max_payload: options.payload_bytes_max.map_or(-1, |bytes| bytes as i64),
        },
        last_conn: AtomicU64::new(0),
        is_lame_duck: AtomicBool::new(false),
        options,
    })
}

impl Staff {
    pub fn new(count: usize, shared: Arc<Shared>, rng: &mut Rng, mail_bytes_max: usize) -> Staff {
        let worker = |index: usize| {
            let id = WorkerId(index as u16);
            let shard = Shard::new(id, count as u16, Arc::clone(&shared), rng.next());
            Worker {
                shard: shard.expect("few workers"),
                letters: VecDeque::new(),
            }
        };
        Staff {
            workers: (0..count).map(worker).collect(),
            under_way: vec![vec![VecDeque::new(); count]; count],
            mail_bytes: vec![0; count],
            mail_bytes_max,
            now: Millis(1),
            pauses: 0,
            shared,
        }
    }

    /// Lets the oldest letter from one worker to another arrive; `false` if there is none.
    pub fn deliver_mail(&mut self, from: usize, to: usize) -> bool {
        let Some(letter) = self.under_way[from][to].pop_front() else {
            return false;
        };
        self.workers[to].letters.push_back((from, letter));
        true
    }

    /// One pass of a worker, in the order of the real one.
    pub fn turn(&mut self, worker: usize, rng: &mut Rng, observer: &mut impl Observer) {
        let mut turn = Turn {
            staff: self,
            index: worker,
            rng,
            observer,
        };
        turn.run();
    }
}

struct Turn<'a, O: Observer> {
    staff: &'a mut Staff,
    index: usize,
    rng: &'a mut Rng,
    observer: &'a mut O,
}

impl<O: Observer> Turn<'_, O> {
    fn shard(&mut self) -> &mut Shard<Io> {
        &mut self.staff.workers[self.index].shard
    }

    fn run(&mut self) {
        let now = self.staff.now;
        self.open_letters();
        self.write_where_there_is_room();
        let mut slots: Vec<u32> = self.shard().slots().collect();
        while !slots.is_empty() {
            let slot = slots.swap_remove(self.rng.below(slots.len()));
            // Readiness may be told a turn later.
            if self.rng.chance(4, 5) {
                self.read_conn(slot);
            }
        }
        self.shard().on_time(now);
        self.resume();
        self.settle();
        self.check();
    }

    fn open_letters(&mut self) {
        let letters = std::mem::take(&mut self.staff.workers[self.index].letters);
        for (from, letter) in letters {
            self.staff.mail_bytes[self.index] -= letter.len();
            self.read_mail(from, &letter);
        }
    }

    fn read_mail(&mut self, from: usize, letter: &[u8]) {
        let now = self.staff.now;
        let mut at = 0;
        while at < letter.len() {
            let drops = self.shard().counters().queue_drops;
            let used = self.shard().on_mail(&letter[at..], now);
            let mut drops = self.shard().counters().queue_drops - drops;
            assert!(
                used > 0 || self.shard().wants_flush(),
                "mail that is never read"
            );
            let closing = self.closing();
            self.observer.closing(&closing);
            let mut read = 0;
            while read < used {
                let (record, bytes) = mail::read(&letter[at + read..]).expect("whole records");
                read += bytes;
                self.observe(from, &record, &mut drops);
            }
            assert_eq!(drops, 0, "messages dropped although a member was there");
            assert_eq!(read, used, "records are worked off whole");
            self.check_bounds();
            at += used;
            if at < letter.len() {
                self.flush();
            }
        }
    }

    /// Tells the observer of a record, and takes a drop it may account for from `drops`.
    fn observe(&mut self, from: usize, record: &Mail<'_>, drops: &mut u64) {
        let Mail::Message {
            publish,
            member,
            hops,
            ..
        } = record
        else {
            return;
        };
        let subject = publish.subject;
        match member {
            None => self
                .observer
                .plain_mail(from, self.index, subject, publish.body),
            Some((_, queue)) => {
                let may_drop = self.observer.may_drop(subject, queue, *hops);
                *drops = drops.saturating_sub(u64::from(may_drop));
            }
        }
    }

    /// Clients of this worker that are marked to be closed.
    fn closing(&mut self) -> Vec<usize> {
        let shard = &self.staff.workers[self.index].shard;
        let conns = shard.slots().filter_map(|slot| shard.conn(slot));
        conns
            .filter(|conn| conn.close_reason().is_some())
            .map(|conn| conn.io.client)
            .collect()
    }

    fn write_where_there_is_room(&mut self) {
        let slots: Vec<u32> = self.shard().slots().collect();
        for slot in slots {
            let Some(conn) = self.shard().conn_mut(slot) else {
                continue;
            };
            let has_room = conn.io.is_broken || conn.io.outgoing.len() < conn.io.capacity;
            if conn.io.wants_room && has_room {
                conn.io.wants_room = false;
                self.flush_conn(slot);
            }
        }
    }

    fn read_conn(&mut self, slot: u32) {
        for _ in 0..READS_MAX {
            let wanted = self.rng.sized(1, READ_BUFFER_BYTES);
            let Some(conn) = self.shard().conn_mut(slot) else {
                return;
            };
            if conn.is_paused() || conn.close_reason().is_some() {
                return;
            }
            let bytes = if !conn.io.backlog.is_empty() {
                std::mem::take(&mut conn.io.backlog)
            } else if conn.io.is_broken {
                return self.shard().close(slot, CloseReason::ReadError);
            } else if conn.io.incoming.is_empty() {
                if conn.io.is_at_end {
                    self.shard().close(slot, CloseReason::ClientClosed);
                }
                return;
            } else {
                take(&mut conn.io.incoming, wanted)
            };
            self.take_bytes(slot, &bytes);
        }
    }

    fn take_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let now = self.staff.now;
        let mut at = 0;
        loop {
            let used = self.shard().on_bytes(slot, &bytes[at..], now);
            let is_held =
                self.shard().wants_flush() || self.shard().conn(slot).is_some_and(Conn::is_paused);
            assert!(used > 0 || is_held, "bytes that are never taken");
            let closing = self.closing();
            let conn = self.shard().conn(slot);
            let conn = conn.expect("only the shell removes connections");
            let (client, published) = (conn.io.client, conn.traffic().in_msgs);
            self.observer.closing(&closing);
            self.observer.consumed(client, used, published);
            self.check_bounds();
            at += used;
            if self.shard().wants_flush() {
                self.flush();
            }
            let Some(conn) = self.shard().conn_mut(slot) else {
                return;
            };
            if at >= bytes.len() || conn.close_reason().is_some() {
                return;
            }
            if conn.is_paused() {
                conn.io.backlog = bytes[at..].to_vec();
                return;
            }
        }
    }

    fn resume(&mut self) {
        while let Some(slot) = self.shard().next_resumed() {
            if let Some(conn) = self.shard().conn_mut(slot) {
                conn.io.paused_at = None;
            }
        }
    }

    fn settle(&mut self) {
        loop {
            self.flush();
            if let Some(slot) = self.shard().next_closing() {
                self.close_conn(slot);
            } else if self.shard().outboxes_with_mail().next().is_none() {
                return;
            }
        }
    }

    fn close_conn(&mut self, slot: u32) {
        self.flush_conn(slot);
        let reason = self.shard().conn(slot).and_then(|conn| conn.close_reason());
        if let Some((io, out)) = self.shard().remove(slot) {
            self.observer.removed(io.client, reason, io, out);
        }
    }

    fn flush(&mut self) {
        for to in 0..self.staff.workers.len() {
            let worker = WorkerId(to as u16);
            let shard = &mut self.staff.workers[self.index].shard;
            if shard.outbox_bytes(worker) > 0 {
                assert_ne!(to, self.index, "mail to itself");
                let letter = shard.take_outbox(worker);
                self.staff.mail_bytes[to] += letter.len();
                self.staff.under_way[self.index][to].push_back(letter);
            }
            let is_congested = self.staff.mail_bytes[to] > self.staff.mail_bytes_max;
            shard.set_congested(worker, is_congested);
        }
        while let Some(slot) = self.shard().next_dirty() {
            self.flush_conn(slot);
        }
        self.shard().flushed();
        self.resume();
    }

    fn flush_conn(&mut self, slot: u32) {
        let now = self.staff.now;
        let rng = &mut *self.rng;
        let shard = &mut self.staff.workers[self.index].shard;
        let written = shard.flush_with(slot, now, |io, slices| io.write(slices, rng));
        if written.is_err() {
            shard.close(slot, CloseReason::WriteError);
        }
    }

    fn check_bounds(&mut self) {
        let shard = &self.staff.workers[self.index].shard;
        for conn in shard.slots().filter_map(|slot| shard.conn(slot)) {
            let pending = conn.out.pending_bytes();
            let bound = self.observer.pending_bytes_bound(conn.io.client);
            assert!(
                pending <= bound,
                "{pending} bytes queued for client {}",
                conn.io.client
            );
        }
    }

    fn congests_somebody(&self) -> bool {
        let max = self.staff.mail_bytes_max;
        self.staff.mail_bytes.iter().any(|&bytes| bytes > max)
    }

    /// Nobody is made to wait longer than the bound, and nobody keeps more than one read.
    fn check(&mut self) {
        let now = self.staff.now;
        let is_congested = self.congests_somebody();
        let shard = &mut self.staff.workers[self.index].shard;
        let slots: Vec<u32> = shard.slots().collect();
        for slot in slots {
            let conn = shard.conn_mut(slot).expect("just listed");
            assert!(
                conn.close_reason().is_none(),
                "a turn ends with nothing to close"
            );
            assert!(conn.io.backlog.len() <= READ_BUFFER_BYTES);
            let is_paused = conn.is_paused();
            if is_congested {
                // It takes as long as the mailbox is full.
                conn.io.paused_at = None;
                continue;
            }
            match conn.io.paused_at {
                Some(since) if is_paused => {
                    let waited = now.since(since);
                    assert!(
                        waited < STALL_MS_MAX,
                        "client {} waits {waited} ms",
                        conn.io.client
                    );
                }
                None if is_paused => {
                    conn.io.paused_at = Some(now);
                    self.staff.pauses += 1;
                }
                _ => conn.io.paused_at = None,
            }
        }
        let unposted = shard.outboxes_with_mail().next();
        assert_eq!(unposted, None, "a turn ends with mail that is not posted");
        assert!(
            shard.next_timer().is_none_or(|at| at > now),
            "a timer that was due has fired"
        );
    }
}
