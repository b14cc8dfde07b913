//! What should happen, computed plainly: every subscription in one list, matched one by one with
//! the definition of a match, and for every connection the exact sequence of frames it is to get.
//!
//! The shell reports which operations the shard has carried out and which records of mail, in that
//! order, so the sequence is known exactly. Only two things are left open: the order of the copies
//! of one message on one connection, and which member of a queue group is picked.

use std::collections::{BTreeMap, VecDeque};

use midge::subject::matches;

use crate::expect::Expect;

/// How often a message for a queue group is passed on at most.
const HOPS_MAX: u8 = 4;

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    pub verbose: bool,
    pub pedantic: bool,
    pub echo: bool,
    pub headers: bool,
    pub no_responders: bool,
    pub protocol: u8,
}

impl Wishes {
    /// What holds without CONNECT.
    pub const DEFAULT: Wishes = Wishes {
        verbose: true,
        pedantic: true,
        echo: true,
        headers: false,
        no_responders: false,
        protocol: 0,
    };
}

/// An operation a client has written.
#[derive(Clone, Debug)]
pub enum Op {
    Connect(Wishes),
    Sub {
        sid: String,
        subject: Vec<u8>,
        queue: Option<Vec<u8>>,
    },
    Unsub {
        sid: String,
        max: Option<u64>,
    },
    /// Number of the message.
    Publish(usize),
    Ping,
    Pong,
}

/// A message that was written by a client, whether or not the server has read it.
#[derive(Clone, Debug)]
pub struct Message {
    pub publisher: usize,
    pub subject: Vec<u8>,
    pub reply: Option<Vec<u8>>,
    pub headers: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A subscription that holds.
#[derive(Clone, Debug)]
struct Sub {
    uid: usize,
    client: usize,
    worker: usize,
    sid: String,
    subject: Vec<u8>,
    queue: Option<Vec<u8>>,
    max: Option<u64>,
    delivered: u64,
}

/// What a subscription ever was, for frames that arrive late.
pub struct Past {
    pub subject: Vec<u8>,
    pub queue: Option<Vec<u8>>,
    /// Messages for its group that it could have been picked for, when they were published.
    pub candidate_for: u64,
    /// Deliveries received; of a queue group, those among these.
    pub received: u64,
    /// A bound on `received`, once UNSUB with a number was carried out.
    pub received_max: Option<u64>,
    /// The client knows that it has ended.
    pub is_over: bool,
    /// It may have ended.
    pub has_left: bool,
    /// Last message received from each publisher.
    pub last: BTreeMap<usize, usize>,
}

/// A message for a queue group: exactly one member gets it.
pub struct GroupMessage {
    pub is_received: bool,
    /// Subscriptions that could get it when it was published.
    pub members: Vec<usize>,
    /// Whether one of them could for certain.
    pub is_certain: bool,
}

/// What is known of a client.
pub struct Conn {
    pub worker: usize,
    pub wishes: Wishes,
    is_connected: bool,
    has_ponged: bool,
    pub expected: VecDeque<Expect>,
    pub sids: BTreeMap<String, usize>,
    /// Subscriptions it ever had.
    pub all_subs: Vec<usize>,
    /// Marked to be closed by its shard.
    pub is_marked: bool,
    /// That, or its client is gone without a word: what it is sent may be lost.
    pub is_closing: bool,
    /// Gone from its shard; what was written may still arrive.
    pub is_gone: bool,
    /// Bytes that one message put into its queue at most.
    pub burst_bytes_max: usize,
}

/// Everything that should hold.
#[derive(Default)]
pub struct Model {
    pub conns: Vec<Conn>,
    pub messages: Vec<Message>,
    subs: Vec<Sub>,
    pub past: Vec<Past>,
    pub groups: BTreeMap<(usize, Vec<u8>), GroupMessage>,
    /// Plain records under way from one worker to another: message and whether it must come.
    posted: BTreeMap<(usize, usize), VecDeque<(usize, bool)>>,
    workers: usize,
    /// Somebody else subscribes and publishes too.
    pub has_noise: bool,
    pub frames_checked: u64,
    pub no_responders_seen: u64,
    /// Queue messages that overtook an earlier one of the same publisher; see `on_queue_message`.
    pub queue_reorders: u64,
}

impl Model {
    pub fn new(workers: usize, has_noise: bool) -> Model {
        Model {
            workers,
            has_noise,
            ..Model::default()
        }
    }

    /// A client has connected; its number is returned.
    pub fn open(&mut self, worker: usize) -> usize {
        self.conns.push(Conn {
            worker,
            wishes: Wishes::DEFAULT,
            is_connected: false,
            has_ponged: false,
            expected: VecDeque::from([Expect::Info]),
            sids: BTreeMap::new(),
            all_subs: Vec::new(),
            is_marked: false,
            is_closing: false,
            is_gone: false,
            burst_bytes_max: 2048,
        });
        self.conns.len() - 1
    }

    /// The shard has removed the connection, and its subscriptions with it.
    pub fn removed(&mut self, client: usize) {
        self.conns[client].is_gone = true;
        for sub in self.subs.iter().filter(|sub| sub.client == client) {
            self.past[sub.uid].has_left = true;
        }
        self.subs.retain(|sub| sub.client != client);
    }

    /// The shard has carried out an operation.
    pub fn apply(&mut self, client: usize, op: &Op) {
        let conn = &mut self.conns[client];
        match op {
            Op::Connect(wishes) => {
                conn.wishes = *wishes;
                let is_second = std::mem::replace(&mut conn.is_connected, true);
                if is_second {
                    self.end_where(|sub| sub.client == client);
                }
                self.acknowledge(client);
            }
            Op::Sub {
                sid,
                subject,
                queue,
            } => self.subscribe(client, sid, subject, queue.as_deref()),
            Op::Unsub { sid, max } => {
                self.unsubscribe(client, sid, *max);
                self.acknowledge(client);
            }
            Op::Publish(message) => self.publish(client, *message),
            Op::Ping => {
                conn.expected.push_back(Expect::Pong);
                if conn.is_connected && !conn.has_ponged {
                    conn.has_ponged = true;
                    if conn.wishes.protocol == 1 {
                        conn.expected.push_back(Expect::Info);
                    }
                }
            }
            Op::Pong => {}
        }
    }

    fn acknowledge(&mut self, client: usize) {
        let conn = &mut self.conns[client];
        if conn.wishes.verbose {
            conn.expected.push_back(Expect::Ok);
        }
    }

    fn subscribe(&mut self, client: usize, sid: &str, subject: &[u8], queue: Option<&[u8]>) {
        let is_live = |sub: &Sub| sub.client == client && sub.sid == sid;
        if self.subs.iter().any(is_live) {
            return self.acknowledge(client);
        }
        if !midge::subject::is_valid_subscribe(subject) {
            let invalid = Expect::Err(midge::wire::err_text::INVALID_SUBJECT);
            return self.conns[client].expected.push_back(invalid);
        }
        let uid = self.past.len();
        self.past.push(Past {
            subject: subject.to_vec(),
            queue: queue.map(<[u8]>::to_vec),
            candidate_for: 0,
            received: 0,
            received_max: None,
            is_over: false,
            has_left: false,
            last: BTreeMap::new(),
        });
        self.conns[client].sids.insert(sid.to_owned(), uid);
        self.conns[client].all_subs.push(uid);
        self.subs.push(Sub {
            uid,
            client,
            worker: self.conns[client].worker,
            sid: sid.to_owned(),
            subject: subject.to_vec(),
            queue: queue.map(<[u8]>::to_vec),
            max: None,
            delivered: 0,
        });
        self.acknowledge(client);
    }

    fn unsubscribe(&mut self, client: usize, sid: &str, max: Option<u64>) {
        let is_it = |sub: &&mut Sub| sub.client == client && sub.sid == sid;
        let Some(sub) = self.subs.iter_mut().find(is_it) else {
            return;
        };
        let uid = sub.uid;
        sub.max = max;
        if sub.queue.is_some() {
            // How many it has got is only known when they arrive; it may end at any time from now.
            self.past[uid].has_left = true;
            if let Some(max) = max {
                let past = &mut self.past[uid];
                // Those it had before count as well, and one that comes late ends it at once.
                let bound = max.max(past.candidate_for);
                past.received_max = Some(past.received_max.map_or(bound, |old| old.max(bound)));
                return;
            }
        } else if max.is_some_and(|max| sub.delivered < max) {
            return;
        }
        self.end_where(|sub| sub.uid == uid);
    }

    fn end_where(&mut self, ends: impl Fn(&Sub) -> bool) {
        for sub in self.subs.iter().filter(|sub| ends(sub)) {
            self.past[sub.uid].has_left = true;
            let expected = &mut self.conns[sub.client].expected;
            expected.push_back(Expect::Ended(sub.uid));
        }
        self.subs.retain(|sub| !ends(sub));
    }

    fn publish(&mut self, client: usize, id: usize) {
        let message = self.messages[id].clone();
        let conn = &mut self.conns[client];
        let wishes = conn.wishes;
        let own = conn.worker;
        if wishes.pedantic && !midge::subject::is_valid_literal(&message.subject) {
            let invalid = Expect::Err(midge::wire::err_text::INVALID_PUBLISH_SUBJECT);
            conn.expected.push_back(invalid);
        }
        self.acknowledge(client);
        // Whether somebody gets it for certain, and whether somebody may.
        let (mut certain, mut possible) = (false, false);
        for worker in (0..self.workers).filter(|&worker| worker != own) {
            let wanted = |sub: &&Sub| {
                sub.worker == worker
                    && sub.queue.is_none()
                    && matches(&sub.subject, &message.subject)
            };
            let mut here = self.subs.iter().filter(wanted).peekable();
            if here.peek().is_some() {
                let is_certain = here.any(|sub| !self.conns[sub.client].is_closing);
                (certain, possible) = (certain || is_certain, true);
                let posted = self.posted.entry((own, worker)).or_default();
                posted.push_back((id, is_certain));
            }
        }
        let (sure, maybe) = self.deliver(own, id);
        (certain, possible) = (certain || sure, possible || maybe);
        let (sure, maybe) = self.publish_to_groups(client, id);
        (certain, possible) = (certain || sure, possible || maybe);
        if wishes.no_responders && message.reply.is_some() && !certain {
            self.expect_no_responders(client, id, !possible && !self.has_noise);
        }
    }

    /// Delivers to the plain subscriptions of one worker: whether anybody gets it, and may get it.
    fn deliver(&mut self, worker: usize, id: usize) -> (bool, bool) {
        let message = &self.messages[id];
        let (mut certain, mut possible) = (false, false);
        let mut used_up = Vec::new();
        let mut copies: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for sub in &mut self.subs {
            let is_wanted = sub.worker == worker
                && sub.queue.is_none()
                && matches(&sub.subject, &message.subject);
            let conn = &self.conns[sub.client];
            if !is_wanted || (sub.client == message.publisher && !conn.wishes.echo) {
                continue;
            }
            possible = true;
            copies.entry(sub.client).or_default().push(sub.sid.clone());
            if conn.is_closing {
                continue;
            }
            certain = true;
            sub.delivered += 1;
            if sub.max.is_some_and(|max| sub.delivered >= max) {
                used_up.push(sub.uid);
            }
        }
        let frame_bytes = message.payload.len() + message.headers.len() + 512;
        for (client, sids) in copies {
            let conn = &mut self.conns[client];
            conn.burst_bytes_max = conn.burst_bytes_max.max(sids.len() * frame_bytes);
            conn.expected.push_back(Expect::Copies {
                message: id,
                sids,
                with_headers: conn.wishes.headers,
            });
        }
        if !used_up.is_empty() {
            self.end_where(|sub| used_up.contains(&sub.uid));
        }
        (certain, possible)
    }

    fn publish_to_groups(&mut self, client: usize, id: usize) -> (bool, bool) {
        let message = &self.messages[id];
        let (mut certain, mut possible) = (false, false);
        for sub in &self.subs {
            let Some(queue) = &sub.queue else { continue };
            if !matches(&sub.subject, &message.subject) {
                continue;
            }
            let conn = &mut self.conns[sub.client];
            if sub.client == client && !conn.wishes.echo {
                continue;
            }
            let frame_bytes = message.payload.len() + message.headers.len() + 512;
            conn.burst_bytes_max = conn.burst_bytes_max.max(frame_bytes * 4);
            possible = true;
            // A member that was told to leave after some messages may have left.
            let is_certain = !conn.is_closing && sub.max.is_none();
            certain |= is_certain;
            let group = self.groups.entry((id, queue.clone()));
            let group = group.or_insert_with(|| GroupMessage {
                is_received: false,
                members: Vec::new(),
                is_certain: false,
            });
            group.is_certain |= is_certain;
            group.members.push(sub.uid);
            self.past[sub.uid].candidate_for += 1;
        }
        (certain, possible)
    }

    fn expect_no_responders(&mut self, client: usize, id: usize, is_certain: bool) {
        let Some(reply) = self.messages[id].reply.clone() else {
            return;
        };
        let is_own = |sub: &&Sub| {
            sub.client == client && sub.queue.is_none() && matches(&sub.subject, &reply)
        };
        let own = self.subs.iter().filter(is_own);
        let sids: Vec<String> = own.map(|sub| sub.sid.clone()).collect();
        if !sids.is_empty() {
            let expected = &mut self.conns[client].expected;
            expected.push_back(Expect::NobodyListens {
                message: id,
                sids,
                is_certain,
            });
        }
    }

    /// Worker `to` has worked off a plain record of worker `from`.
    pub fn plain_mail(&mut self, from: usize, to: usize, subject: &[u8], body: &[u8]) {
        let posted = self.posted.entry((from, to)).or_default();
        loop {
            let Some(&(id, is_certain)) = posted.front() else {
                assert!(
                    self.has_noise,
                    "mail nobody expected: {}",
                    subject.escape_ascii()
                );
                break;
            };
            let message = &self.messages[id];
            let is_same = message.subject == subject
                && body.strip_prefix(&message.headers[..]) == Some(&message.payload[..]);
            if is_same {
                posted.pop_front();
                self.deliver(to, id);
                return;
            }
            if is_certain && self.has_noise {
                break;
            }
            assert!(
                !is_certain,
                "message {id} was not posted from worker {from} to {to}; instead {} {}",
                subject.escape_ascii(),
                body[..body.len().min(60)].escape_ascii()
            );
            posted.pop_front();
        }
        // Only somebody unknown was interested when it was published; others may be by now.
        if let Some(id) = self.id_in(body) {
            self.deliver(to, id);
        }
    }

    /// Whether a message for a member of a queue group may be dropped: nobody of the group is there
    /// for certain, or it has been passed on too often.
    pub fn may_drop(&self, subject: &[u8], queue: &[u8], hops: u8) -> bool {
        let is_there = |sub: &Sub| {
            let conn = &self.conns[sub.client];
            sub.queue.as_deref() == Some(queue)
                && matches(&sub.subject, subject)
                && !conn.is_closing
                && conn.wishes.echo
                && sub.max.is_none()
        };
        hops >= HOPS_MAX || !self.subs.iter().any(is_there)
    }

    /// The server is about to go, and says so to those who understand it.
    pub fn lame_duck(&mut self, worker: usize) {
        for conn in &mut self.conns {
            let is_told = conn.wishes.protocol == 1 && conn.has_ponged && !conn.is_gone;
            if conn.worker == worker && is_told {
                conn.expected.push_back(Expect::Info);
            }
        }
    }

    /// The message whose number a body begins with, or has behind its header block.
    fn id_in(&self, body: &[u8]) -> Option<usize> {
        let start = match body.starts_with(b"NATS/1.0") {
            true => memchr::memmem::find(body, b"\r\n\r\n")? + 4,
            false => 0,
        };
        let payload = &body[start..];
        let digits = payload.iter().take_while(|byte| byte.is_ascii_digit());
        let id: usize = std::str::from_utf8(&payload[..digits.count()])
            .ok()?
            .parse()
            .ok()?;
        (self.messages.get(id)?.payload == payload).then_some(id)
    }

    /// Everybody that mail was posted to must have got it by now.
    pub fn check_all_mail_came(&self) {
        for ((from, to), posted) in &self.posted {
            let missing = posted.iter().find(|(_, is_certain)| *is_certain);
            assert!(
                missing.is_none(),
                "mail {missing:?} from {from} to {to} never came"
            );
        }
    }

    /// Subscriptions that hold.
    pub fn sub_count(&self) -> usize {
        self.subs.len()
    }
}
