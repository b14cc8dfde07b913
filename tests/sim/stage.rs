//! A few connections, led step by step: for what a random run meets too seldom or cannot judge.

use midge::clock::Millis;
use midge::config::Options;
use midge::error::CloseReason;
use midge::session::conn::Conn;
use midge::session::outbound::Outbound;

use crate::rng::Rng;
use crate::shell::{Io, Observer, Staff, shared};

/// Remembers who was closed and when.
#[derive(Default)]
pub struct Ends {
    now: u64,
    pub ends: Vec<(usize, CloseReason, u64)>,
    /// What had been sent to a client when it was closed.
    pub last_bytes: Vec<u8>,
}

impl Observer for Ends {
    fn closing(&mut self, _: &[usize]) {}

    fn consumed(&mut self, _: usize, _: usize, _: u64) {}

    fn plain_mail(&mut self, _: usize, _: usize, _: &[u8], _: &[u8]) {}

    fn may_drop(&self, _: &[u8], _: &[u8], _: u8) -> bool {
        true
    }

    fn removed(&mut self, client: usize, reason: Option<CloseReason>, io: Io, _: Outbound) {
        let reason = reason.expect("removed for a reason");
        self.ends.push((client, reason, self.now));
        self.last_bytes = io.outgoing.into_iter().collect();
    }

    fn pending_bytes_bound(&self, _: usize) -> usize {
        usize::MAX
    }
}

/// A server, its clients by number, and the time.
pub struct Stage {
    pub staff: Staff,
    rng: Rng,
    pub seen: Ends,
    /// Worker and slot of each client.
    pub places: Vec<(usize, u32)>,
    pub seed: u64,
}

impl Stage {
    /// One worker.
    pub fn new(seed: u64, options: Options) -> Stage {
        Stage::with_workers(seed, options, 1)
    }

    pub fn with_workers(seed: u64, options: Options, workers: usize) -> Stage {
        let mut rng = Rng::new(seed);
        Stage {
            staff: Staff::new(workers, shared(options, false), &mut rng, usize::MAX),
            rng,
            seen: Ends::default(),
            places: Vec::new(),
            seed,
        }
    }

    pub fn open(&mut self, capacity: usize) -> usize {
        self.open_at(0, capacity)
    }

    /// Opens a connection whose kernel buffer takes so many bytes.
    pub fn open_at(&mut self, worker: usize, capacity: usize) -> usize {
        let client = self.places.len();
        let now = self.staff.now;
        let io = Io::new(client, capacity);
        let shard = &mut self.staff.workers[worker].shard;
        self.places.push((worker, shard.open(io, None, now)));
        client
    }

    pub fn conn(&self, client: usize) -> &Conn<Io> {
        let (worker, slot) = self.places[client];
        let conn = self.staff.workers[worker].shard.conn(slot);
        conn.expect("still there")
    }

    pub fn io(&mut self, client: usize) -> Option<&mut Io> {
        let (worker, slot) = self.places[client];
        let conn = self.staff.workers[worker].shard.conn_mut(slot)?;
        (conn.io.client == client).then_some(&mut conn.io)
    }

    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        let io = self.io(client).expect("still there");
        io.incoming.extend(bytes);
        self.turns();
    }

    /// Publishes so many bytes to `foo`.
    pub fn publish(&mut self, client: usize, bytes: usize) {
        let mut frame = format!("PUB foo {bytes}\r\n").into_bytes();
        frame.resize(frame.len() + bytes, b'x');
        frame.extend_from_slice(b"\r\n");
        self.send(client, &frame);
    }

    /// What the kernel holds for a client, which reads all of it.
    pub fn read(&mut self, client: usize) -> String {
        let io = self.io(client).expect("still there");
        let bytes: Vec<u8> = io.outgoing.drain(..).collect();
        String::from_utf8(bytes).expect("text")
    }

    /// Reads until nothing is queued any more.
    pub fn read_all(&mut self, client: usize) {
        while self.conn(client).out.pending_bytes() > 0 {
            self.read(client);
            self.turns();
        }
    }

    /// Enough turns for everything that is due, whatever readiness comes late. Mail stays where it
    /// is.
    pub fn turns(&mut self) {
        for _ in 0..40 {
            for worker in 0..self.staff.workers.len() {
                self.staff.turn(worker, &mut self.rng, &mut self.seen);
            }
        }
    }

    /// One millisecond of one worker alone.
    pub fn tick(&mut self, worker: usize) {
        self.set_time(self.staff.now.0 + 1);
        self.staff.turn(worker, &mut self.rng, &mut self.seen);
    }

    /// Lets all mail arrive.
    pub fn deliver_mail(&mut self) {
        let count = self.staff.workers.len();
        for (from, to) in (0..count * count).map(|pair| (pair / count, pair % count)) {
            while self.staff.deliver_mail(from, to) {}
        }
        self.turns();
    }

    /// Lets time pass as an idle worker does: it wakes for timers only.
    pub fn wait(&mut self, ms: u64) {
        let until = self.staff.now.0 + ms;
        loop {
            let workers = self.staff.workers.iter();
            let next = workers.filter_map(|worker| worker.shard.next_timer()).min();
            let wake = next.map_or(until, |at| at.0.min(until));
            self.set_time(wake.max(self.staff.now.0));
            self.turns();
            if self.staff.now.0 >= until {
                return;
            }
        }
    }

    pub fn set_time(&mut self, ms: u64) {
        self.staff.now = Millis(ms);
        self.seen.now = ms;
    }

    pub fn end_of(&self, client: usize) -> Option<(CloseReason, u64)> {
        let mut ends = self.seen.ends.iter();
        let end = ends.find(|(who, ..)| *who == client);
        end.map(|&(_, reason, at)| (reason, at))
    }
}

/// Runs a scene under several seeds, which differ in what the kernel takes when.
pub fn with_seeds(scene: impl Fn(u64)) {
    for seed in 1..=20 {
        scene(seed);
    }
}
