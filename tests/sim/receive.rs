//! What clients really get, compared with what they should get.

use std::collections::BTreeSet;

use midge::subject::matches;
use midge::wire::from_server::{self, Frame};

use crate::expect::{Expect, Fit, check_content, fits};
use crate::model::Model;

impl Model {
    /// A client has got a frame other than PING.
    pub fn received(&mut self, client: usize, frame: &Frame<'_>) {
        self.frames_checked += 1;
        if let Frame::Message(message) = frame {
            let sid = std::str::from_utf8(message.sid).expect("sids are numbers");
            let conn = &self.conns[client];
            let uid = *conn
                .sids
                .get(sid)
                .unwrap_or_else(|| panic!("{client}: sid {sid}?"));
            let is_answer = message.headers.starts_with(b"NATS/1.0 503");
            if self.past[uid].queue.is_some() && !is_answer {
                return self.on_queue_message(client, uid, message);
            }
            assert!(
                !self.past[uid].is_over,
                "{client}: message for {sid}, which has ended"
            );
            self.past[uid].received += 1;
        }
        let mut ended = Vec::new();
        loop {
            let conn = &mut self.conns[client];
            let front = conn.expected.front_mut();
            let Some(front) = front else {
                panic!("client {client}: unexpected {frame:?}");
            };
            if let Expect::Ended(uid) = front {
                ended.push(*uid);
                conn.expected.pop_front();
                continue;
            }
            let is_skippable = matches!(front, Expect::NobodyListens { is_certain: false, .. })
                // A closing connection may have refused what the model thinks it got.
                || (conn.is_closing && matches!(front, Expect::Copies { .. }));
            match fits(front, frame, &self.messages) {
                Fit::Whole => {
                    if matches!(front, Expect::NobodyListens { .. }) {
                        self.no_responders_seen += 1;
                    }
                    conn.expected.pop_front();
                    break;
                }
                Fit::Part => break,
                Fit::No if is_skippable => {
                    conn.expected.pop_front();
                }
                Fit::No if conn.is_closing && matches!(frame, Frame::Err(_)) => break,
                Fit::No => panic!("client {client}: got {frame:?}, expected {front:?}"),
            }
        }
        for uid in ended {
            self.past[uid].is_over = true;
        }
    }

    /// A message for a member of a queue group: nobody else may have got it, and it was for them.
    fn on_queue_message(&mut self, client: usize, uid: usize, got: &from_server::Message<'_>) {
        let past = &mut self.past[uid];
        let queue = past.queue.clone().unwrap_or_default();
        let body = got.payload;
        let digits = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let id: usize = std::str::from_utf8(&body[..digits])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("client {client}: no number in {got:?}"));
        let message = &self.messages[id];
        assert!(
            !past.is_over,
            "client {client}: {id} for a subscription that has ended"
        );
        assert!(
            matches(&past.subject, got.subject),
            "client {client}: {id} is not for it"
        );
        check_content(got, message);
        let group = self.groups.get_mut(&(id, queue.clone()));
        let group = group.unwrap_or_else(|| panic!("{id} was for no member of this group"));
        past.received += u64::from(group.members.contains(&uid));
        let bound = past.received_max.unwrap_or(u64::MAX);
        assert!(
            past.received <= bound,
            "client {client}: more than the {bound} asked for"
        );
        assert!(
            !group.is_received,
            "message {id} reached two members of a group"
        );
        group.is_received = true;
        let last = past.last.insert(message.publisher, id);
        if let Some(last) = last.filter(|&last| last > id) {
            // One of the two went a longer way, since the member picked first had left.
            let groups = [id, last].map(|id| &self.groups[&(id, queue.clone())].members);
            let mut members = groups.into_iter().flatten();
            let has_detour = members.any(|&member| self.past[member].has_left);
            assert!(has_detour, "client {client}: {id} came after {last}");
            self.queue_reorders += 1;
        }
    }

    /// Everything a connection that stays should have got has come.
    pub fn check_complete(&self, client: usize) {
        let mut rest = self.conns[client].expected.iter().filter(|expect| {
            !matches!(
                expect,
                Expect::Ended(_)
                    | Expect::NobodyListens {
                        is_certain: false,
                        ..
                    }
            )
        });
        if let Some(first) = rest.next() {
            panic!(
                "client {client} never got {first:?} and {} more",
                rest.count()
            );
        }
    }

    /// Subscriptions of connections that have gone: what was sent to them may be lost.
    pub fn gone(&self) -> BTreeSet<usize> {
        let gone = self
            .conns
            .iter()
            .filter(|conn| conn.is_gone || conn.is_closing);
        gone.flat_map(|conn| conn.all_subs.iter().copied())
            .collect()
    }

    /// Every message for a queue group reached a member, unless a member left meanwhile. Returns
    /// how many did not although no member's connection had gone: what `queue_drops` counts.
    pub fn check_groups(&self, gone: &BTreeSet<usize>) -> usize {
        let mut dropped = 0;
        for ((id, queue), group) in self.groups.iter().filter(|(_, group)| !group.is_received) {
            let has_left = group.members.iter().any(|&uid| self.past[uid].has_left);
            assert!(
                has_left,
                "message {id} for group {} reached none of {:?}",
                queue.escape_ascii(),
                group.members
            );
            // Those who joined later may have got it as well, and gone with it.
            let subject = &self.messages[*id].subject;
            let is_member = |uid: &&usize| {
                let past = &self.past[**uid];
                past.queue.as_ref() == Some(queue) && matches(&past.subject, subject)
            };
            let is_lost = group.is_certain && !gone.iter().any(|uid| is_member(&uid));
            dropped += usize::from(is_lost);
        }
        dropped
    }
}
