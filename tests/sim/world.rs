//! One run: a server of several workers and random clients, from a seed.

use midge::clock::Millis;
use midge::config::Options;
use midge::error::CloseReason;
use midge::session::outbound::Outbound;
use midge::wire::from_server::Frame;

use crate::client::{Client, End, Reading, Sizes};
use crate::model::{Model, Op};
use crate::rng::Rng;
use crate::shell::{Io, Observer, Staff, shared, take};

/// Bytes of a client's stream that the kernel holds at most.
const INCOMING_BYTES_MAX: usize = 128 * 1024;

/// Bytes for a client that the kernel holds at most.
const CAPACITY_BYTES_MAX: usize = 200_000;

/// What a run came to, to see that it was worth running.
#[derive(Default, Debug)]
pub struct Outcome {
    pub messages: u64,
    pub frames: u64,
    pub slow_consumers: u64,
    pub pauses: u64,
    pub queue_drops: u64,
    pub queue_reorders: u64,
    pub no_responders: u64,
    pub mail_letters: u64,
}

/// The clients and what they should see.
struct Side {
    model: Model,
    clients: Vec<Client>,
    pending_bytes_max: usize,
    log: bool,
}

impl Side {
    /// A client reads bytes.
    fn take(&mut self, me: usize, bytes: &[u8]) {
        let client = &mut self.clients[me];
        if client.is_noise {
            return;
        }
        client.inbox.extend_from_slice(bytes);
        let mut inbox = std::mem::take(&mut client.inbox);
        let mut at = 0;
        loop {
            let found = self.clients[me].parser.parse(&inbox[at..]);
            let found = found.unwrap_or_else(|error| {
                panic!("client {me}: {error}: {}", inbox[at..].escape_ascii())
            });
            let Some((frame, used)) = found else { break };
            if self.log {
                eprintln!("  client {me} got {}", describe(&frame));
            }
            match frame {
                Frame::Ping if self.clients[me].end != End::Open => {}
                Frame::Ping => self.clients[me].pong(),
                frame => self.model.received(me, &frame),
            }
            at += used;
        }
        inbox.drain(..at);
        self.clients[me].inbox = inbox;
    }
}

fn describe(frame: &Frame<'_>) -> String {
    let mut text = format!("{frame:?}");
    if let Frame::Message(message) = frame {
        text = format!(
            "MSG {} {} {:?} {}",
            message.subject.escape_ascii(),
            message.sid.escape_ascii(),
            message.reply.map(|reply| reply.escape_ascii().to_string()),
            message.payload[..message.payload.len().min(10)].escape_ascii()
        );
    }
    text.truncate(200);
    text
}

impl Observer for Side {
    fn closing(&mut self, clients: &[usize]) {
        for &client in clients {
            self.model.conns[client].is_closing = true;
            self.model.conns[client].is_marked = true;
        }
    }

    fn consumed(&mut self, client: usize, bytes: usize, published: u64) {
        let is_closing = self.model.conns[client].is_marked;
        let known = &mut self.clients[client];
        known.consumed_bytes += bytes as u64;
        let consumed = known.consumed_bytes;
        while let Some((end, op)) = self.clients[client].ops.pop_front() {
            let known = &mut self.clients[client];
            // Of one that is being closed only what was published is known to have been done.
            if end > consumed || (is_closing && known.published == published) {
                known.ops.push_front((end, op));
                break;
            }
            known.published += u64::from(matches!(op, Op::Publish(_)));
            if self.log {
                eprintln!("  client {client}: {op:?}");
            }
            self.model.apply(client, &op);
        }
        let known = &self.clients[client];
        assert!(
            known.is_noise || known.published == published,
            "client {client}: published"
        );
    }

    fn plain_mail(&mut self, from: usize, to: usize, subject: &[u8], body: &[u8]) {
        self.model.plain_mail(from, to, subject, body);
    }

    fn may_drop(&self, subject: &[u8], queue: &[u8], hops: u8) -> bool {
        self.model.may_drop(subject, queue, hops)
    }

    fn removed(&mut self, me: usize, reason: Option<CloseReason>, mut io: Io, _: Outbound) {
        let client = &mut self.clients[me];
        let reason = reason.expect("removed for a reason");
        if self.log {
            eprintln!("  client {me} ({:?}) gone: {reason}", client.reading);
        }
        let is_leaving = matches!(client.end, End::Leaving | End::Left);
        let is_expected = match reason {
            CloseReason::ClientClosed => is_leaving,
            CloseReason::ReadError | CloseReason::WriteError => io.is_broken,
            CloseReason::SlowConsumerPendingBytes => true,
            // Through a small kernel buffer even a prompt reader may not get everything in time.
            CloseReason::SlowConsumerWriteDeadline => {
                client.reading != Reading::Prompt || io.capacity < CAPACITY_BYTES_MAX
            }
            _ => client.is_noise,
        };
        assert!(is_expected, "client {me} was closed: {reason}");
        if reason == CloseReason::ClientClosed && !client.is_noise {
            assert_eq!(
                client.consumed_bytes, client.written_bytes,
                "client {me}: all is read"
            );
        }
        client.end = if is_leaving { End::Left } else { End::ByServer };
        self.model.conns[me].is_closing = true;
        self.model.removed(me);
        if !io.is_broken {
            self.take(me, io.outgoing.make_contiguous());
        }
    }

    fn pending_bytes_bound(&self, client: usize) -> usize {
        match self.clients[client].is_noise {
            true => self.pending_bytes_max + 128 * 1024,
            false => self.pending_bytes_max + self.model.conns[client].burst_bytes_max,
        }
    }
}

pub struct World {
    rng: Rng,
    staff: Staff,
    side: Side,
    sizes: Sizes,
    clients_max: usize,
    mail_letters: u64,
}

impl World {
    pub fn new(seed: u64, has_noise: bool, log: bool) -> World {
        let mut rng = Rng::new(seed);
        let payload_bytes_max = *rng.pick(&[1000, 20_000, 80_000]);
        let options = Options {
            payload_bytes_max: Some(payload_bytes_max),
            pending_bytes_max: payload_bytes_max + *rng.pick(&[1000, 60_000, 400_000, 4_000_000]),
            write_deadline_ms: *rng.pick(&[5_000, 10_000]),
            control_line_bytes_max: *rng.pick(&[1024, 4096]),
            ..Options::default()
        };
        let pending_bytes_max = options.pending_bytes_max;
        let worker_count = rng.below(4) + 1;
        let mail_bytes_max = *rng.pick(&[2_000, 100_000, 8_000_000]);
        let is_tracing = rng.chance(1, 30);
        let shared = shared(options, is_tracing);
        World {
            staff: Staff::new(worker_count, shared, &mut rng, mail_bytes_max),
            side: Side {
                model: Model::new(worker_count, has_noise),
                clients: Vec::new(),
                pending_bytes_max,
                log,
            },
            sizes: Sizes {
                payload_bytes_max,
                zero_length: !has_noise,
                wide_wildcards: !has_noise,
            },
            clients_max: rng.below(10) + 2,
            mail_letters: 0,
            rng,
        }
    }

    /// Runs `steps` random steps, then lets everything come to rest and looks at what is left.
    pub fn run(mut self, steps: usize) -> Outcome {
        for _ in 0..self.clients_max {
            self.open();
        }
        for _ in 0..steps {
            self.step();
        }
        self.come_to_rest();
        self.check_rest();
        let gone = self.side.model.gone();
        self.close_all();
        let counters = self
            .staff
            .workers
            .iter()
            .map(|worker| worker.shard.counters());
        let mut outcome = Outcome {
            messages: self.side.model.messages.len() as u64,
            frames: self.side.model.frames_checked,
            pauses: self.staff.pauses,
            queue_reorders: self.side.model.queue_reorders,
            no_responders: self.side.model.no_responders_seen,
            mail_letters: self.mail_letters,
            ..Outcome::default()
        };
        for counters in counters {
            outcome.slow_consumers += counters.slow_consumers;
            outcome.queue_drops += counters.queue_drops;
        }
        let dropped = self.side.model.check_groups(&gone) as u64;
        assert!(
            dropped <= outcome.queue_drops,
            "{dropped} queue messages are missing, {} were counted as dropped",
            outcome.queue_drops
        );
        outcome
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.turn(),
            30..45 => self.send(),
            45..65 => self.read(),
            65..80 => self.act(),
            80..90 => self.deliver_mail(),
            90..97 => self.pass_time(),
            97 if self.rng.chance(1, 100) => self.announce(),
            97 => self.leave(),
            _ => self.open(),
        }
    }

    fn open(&mut self) {
        let open = self
            .side
            .clients
            .iter()
            .filter(|client| client.end == End::Open);
        if open.count() >= self.clients_max {
            return;
        }
        let rng = &mut self.rng;
        let worker = rng.below(self.staff.workers.len());
        let me = self.side.model.open(worker);
        let capacity = *rng.pick(&[500, 5_000, CAPACITY_BYTES_MAX]);
        let shard = &mut self.staff.workers[worker].shard;
        let peer = rng.chance(1, 2).then(|| ([127, 0, 0, 1], 50_000).into());
        let slot = shard.open(Io::new(me, capacity), peer, self.staff.now);
        let reading = match rng.below(10) {
            0 => Reading::Never,
            1 => Reading::Slow,
            _ => Reading::Prompt,
        };
        let is_noise = self.side.model.has_noise && rng.chance(1, 3);
        let mut client = Client::new(worker, slot, reading, is_noise);
        if !is_noise && rng.chance(9, 10) {
            client.connect(rng);
        }
        if !is_noise {
            for _ in 0..rng.below(4) {
                client.subscribe(me, rng, &self.sizes);
            }
            client.ping();
        }
        self.side.clients.push(client);
    }

    fn some_client(&mut self) -> usize {
        let is_here = |me: &usize| {
            let end = self.side.clients[*me].end;
            matches!(end, End::Open | End::Leaving)
        };
        let here: Vec<usize> = (0..self.side.clients.len()).filter(is_here).collect();
        match here.is_empty() {
            true => 0,
            false => *self.rng.pick(&here),
        }
    }

    fn act(&mut self) {
        let me = self.some_client();
        let client = &mut self.side.clients[me];
        if client.end != End::Open || client.to_send.len() > 1_000_000 {
            return;
        }
        if client.is_noise {
            return client.make_noise(&mut self.rng);
        }
        let messages = &mut self.side.model.messages;
        for _ in 0..self.rng.sized(1, 20) {
            client.act(me, &mut self.rng, &self.sizes, messages);
        }
    }

    fn io(&mut self, me: usize) -> Option<&mut Io> {
        let client = &self.side.clients[me];
        let conn = self.staff.workers[client.worker]
            .shard
            .conn_mut(client.slot)?;
        (conn.io.client == me).then_some(&mut conn.io)
    }

    /// The kernel takes some of what a client has written.
    fn send(&mut self) {
        let me = self.some_client();
        let bytes = self.rng.sized(1, INCOMING_BYTES_MAX);
        self.send_some(me, bytes);
    }

    fn send_some(&mut self, me: usize, bytes: usize) {
        let mut to_send = std::mem::take(&mut self.side.clients[me].to_send);
        let is_leaving = self.side.clients[me].end == End::Leaving;
        match self.io(me) {
            Some(io) => {
                let room = INCOMING_BYTES_MAX.saturating_sub(io.incoming.len());
                io.incoming.extend(take(&mut to_send, bytes.min(room)));
                if is_leaving && to_send.is_empty() {
                    io.is_at_end = true;
                }
            }
            None => to_send.clear(),
        }
        self.side.clients[me].to_send = to_send;
    }

    fn read(&mut self) {
        let me = self.some_client();
        let most = match self.side.clients[me].reading {
            Reading::Never => 0,
            Reading::Slow if self.rng.chance(1, 4) => 300,
            Reading::Slow => 0,
            Reading::Prompt => 1_000_000,
        };
        let most = if most > 0 { self.rng.sized(1, most) } else { 0 };
        self.read_some(me, most);
    }

    fn read_some(&mut self, me: usize, most: usize) {
        let Some(io) = self.io(me) else { return };
        let bytes = take(&mut io.outgoing, most);
        self.side.take(me, &bytes);
    }

    fn turn(&mut self) {
        let worker = self.rng.below(self.staff.workers.len());
        if self.side.log {
            eprintln!("{} ms, turn of worker {worker}", self.staff.now.0);
        }
        self.staff.turn(worker, &mut self.rng, &mut self.side);
    }

    fn deliver_mail(&mut self) {
        let count = self.staff.workers.len();
        let (from, to) = (self.rng.below(count), self.rng.below(count));
        for _ in 0..self.rng.sized(1, 10) {
            self.mail_letters += u64::from(self.staff.deliver_mail(from, to));
        }
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.below(50) {
            0 => self.rng.below(500),
            1..10 => self.rng.below(20),
            _ => self.rng.below(3),
        };
        self.staff.now = Millis(self.staff.now.0 + ms as u64);
    }

    /// A worker announces the end, as in lame duck mode.
    fn announce(&mut self) {
        let worker = self.rng.below(self.staff.workers.len());
        self.staff.workers[worker].shard.announce_lame_duck();
        self.side.model.lame_duck(worker);
    }

    /// A client goes, after what it has written or in the middle of it.
    fn leave(&mut self) {
        if self.rng.chance(2, 3) {
            return;
        }
        let me = self.some_client();
        if self.side.clients[me].end != End::Open {
            return;
        }
        let is_rude = self.rng.chance(1, 3);
        self.side.clients[me].end = End::Leaving;
        self.side.model.conns[me].is_closing |= is_rude;
        if is_rude && let Some(io) = self.io(me) {
            io.is_broken = true;
        }
    }

    /// Nobody writes any more; everybody who reads at all reads everything.
    fn come_to_rest(&mut self) {
        let mut quiet_rounds = 0;
        for _ in 0..100_000 {
            let before = self.progress();
            self.round(|reading| reading != Reading::Never);
            quiet_rounds = if self.progress() == before {
                quiet_rounds + 1
            } else {
                0
            };
            self.staff.now = self.staff.now.plus(1);
            if quiet_rounds > 200 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// A number that changes as long as anything happens.
    fn progress(&self) -> u64 {
        let clients = self.side.clients.iter();
        let sent: u64 = clients.map(|client| client.consumed_bytes).sum();
        let left: usize = self
            .side
            .clients
            .iter()
            .map(|client| client.to_send.len())
            .sum();
        let gone = self
            .side
            .model
            .conns
            .iter()
            .filter(|conn| conn.is_gone)
            .count();
        sent + left as u64 + gone as u64 + self.side.model.frames_checked + self.mail_letters
    }

    fn round(&mut self, reads: impl Fn(Reading) -> bool) {
        for me in 0..self.side.clients.len() {
            if matches!(self.side.clients[me].end, End::Left | End::ByServer) {
                continue;
            }
            self.send_some(me, usize::MAX);
            if reads(self.side.clients[me].reading) {
                self.read_some(me, usize::MAX);
            }
        }
        let count = self.staff.workers.len();
        for worker in 0..count {
            for from in 0..count {
                while self.staff.deliver_mail(from, worker) {
                    self.mail_letters += 1;
                }
            }
            self.staff.turn(worker, &mut self.rng, &mut self.side);
        }
    }

    fn check_rest(&mut self) {
        self.side.model.check_all_mail_came();
        for me in 0..self.side.clients.len() {
            let client = &self.side.clients[me];
            let is_here = matches!(client.end, End::Open | End::Leaving);
            if is_here && client.reading != Reading::Never && !client.is_noise {
                assert!(
                    client.inbox.is_empty(),
                    "client {me}: half a frame at the end"
                );
                assert!(client.to_send.is_empty(), "client {me} cannot write");
                assert!(
                    client.ops.is_empty(),
                    "client {me}: not carried out: {:?}",
                    client.ops
                );
                self.side.model.check_complete(me);
            }
        }
        // Whoever does not take what is queued is closed when the deadline has passed.
        let deadline = self.staff.shared.options.write_deadline_ms;
        for _ in 0..30 {
            self.staff.now = self.staff.now.plus(deadline / 10);
            self.round(|reading| reading != Reading::Never);
        }
        for worker in &self.staff.workers {
            let shard = &worker.shard;
            for conn in shard.slots().filter_map(|slot| shard.conn(slot)) {
                assert_eq!(
                    conn.out.pending_bytes(),
                    0,
                    "client {} is stuck",
                    conn.io.client
                );
            }
        }
    }

    fn close_all(&mut self) {
        for me in 0..self.side.clients.len() {
            if self.side.clients[me].end == End::Open {
                self.side.clients[me].end = End::Leaving;
            }
        }
        for _ in 0..20 {
            self.round(|_| true);
            self.staff.now = self.staff.now.plus(10);
        }
        for worker in &self.staff.workers {
            assert_eq!(
                (worker.shard.len(), worker.shard.sub_count()),
                (0, 0),
                "all have gone"
            );
        }
        let stats = self.staff.shared.router.stats();
        assert_eq!(
            (stats.subscriptions, stats.literals, stats.nodes),
            (0, 0, 0),
            "{stats:?}"
        );
        assert_eq!(self.side.model.sub_count(), 0);
    }
}
