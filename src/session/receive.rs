//! From bytes to operations: the loop that every connection's input goes through.

use super::input::{Fed, Input};
use super::shard::Shard;
use crate::clock::Millis;
use crate::wire::err_text;
use crate::wire::parse::{self, Next, Op, ParseLimits};

impl<S> Shard<S> {
    /// Works through bytes from a connection, and says how many of them: fewer than all when the
    /// caller should flush first, or when the connection must wait (`is_paused`). What is left is
    /// to be handed in again.
    pub fn on_bytes(&mut self, slot: u32, bytes: &[u8], now: Millis) -> usize {
        self.now = now;
        self.renew_trace();
        let mut at = 0;
        while at < bytes.len() {
            let Some(conn) = self.local.conns.get_mut(slot as usize) else {
                return bytes.len();
            };
            if conn.close.is_some() {
                return bytes.len();
            }
            if conn.paused_until.is_some() {
                return at;
            }
            if conn.input.is_partial() {
                at += self.feed(slot, &bytes[at..]);
            } else {
                at += self.on_frames(slot, &bytes[at..]);
            }
            if self.local.wants_flush {
                return at;
            }
        }
        at
    }

    /// Works through whole frames until something calls for a pause, and keeps the beginning of a
    /// frame at the end.
    fn on_frames(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some(limits) = self.parse_limits(slot, bytes) else {
            return bytes.len();
        };
        let mut at = 0;
        while at < bytes.len() {
            match parse::next(&bytes[at..], &limits) {
                Ok(Next::Op(Op::Publish(publish), used)) => {
                    at += used;
                    self.trace_publish(slot, &publish);
                    self.on_publish(slot, &publish);
                    // The one check a message: everything that could stop the loop asks for it.
                    if self.local.wants_flush {
                        return at;
                    }
                }
                Ok(Next::Op(op, used)) => {
                    at += used;
                    self.on_op(slot, op);
                    return at;
                }
                Ok(Next::Partial(partial)) => {
                    if let Some(conn) = self.local.conns.get_mut(slot as usize) {
                        conn.input.keep(partial, &bytes[at..], &mut self.local.pool);
                    }
                    return bytes.len();
                }
                Err(fatal) => {
                    self.fail(slot, fatal);
                    return bytes.len();
                }
            }
        }
        at
    }

    /// Takes more of a cut frame, and carries it out when it is complete.
    fn feed(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let limits = self.limits_of(slot);
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return bytes.len();
        };
        let (taken, block, how) = match conn.input.feed(bytes, &limits, &mut self.local.pool) {
            Ok((taken, Fed::More)) => return taken,
            Ok((taken, Fed::Frame(block, how))) => (taken, block, how),
            Err(fatal) => {
                self.fail(slot, fatal);
                return bytes.len();
            }
        };
        match how.op(&block, &limits) {
            Ok(Some(Op::Publish(publish))) => {
                self.trace_publish(slot, &publish);
                self.on_publish(slot, &publish);
            }
            Ok(Some(op)) => self.on_op(slot, op),
            Ok(None) => {}
            Err(fatal) => self.fail(slot, fatal),
        }
        Input::done(block, &mut self.local.pool);
        taken
    }

    /// The limits for frames that begin now, unless the client must show credentials first and
    /// does not: then only CONNECT is listened to. Source: core-protocol section 1.4.
    fn parse_limits(&mut self, slot: u32, bytes: &[u8]) -> Option<ParseLimits> {
        let conn = self.local.conns.get(slot as usize)?;
        if !conn.is_admitted && !matches!(bytes.first(), Some(b'C' | b'c')) {
            self.fail(slot, err_text::AUTHORIZATION);
            return None;
        }
        Some(self.limits_of(slot))
    }

    fn limits_of(&self, slot: u32) -> ParseLimits {
        let options = &self.shared.options;
        ParseLimits {
            args_bytes_max: options.control_line_bytes_max,
            payload_bytes_max: options.payload_bytes_max.unwrap_or(usize::MAX),
            has_headers: self.conn(slot).is_some_and(|conn| conn.wishes.headers),
        }
    }

    /// Any operation but a publish.
    fn on_op(&mut self, slot: u32, op: Op<'_>) {
        if let Some(conn) = self.local.conns.get_mut(slot as usize)
            && !matches!(op, Op::Pong)
        {
            conn.liveness.active_at = self.now;
        }
        self.trace_op(slot, &op);
        match op {
            Op::Publish(publish) => self.on_publish(slot, &publish),
            Op::Sub {
                subject,
                queue,
                sid,
            } => self.on_sub(slot, subject, queue, sid),
            Op::Unsub { sid, max } => self.on_unsub(slot, sid, max),
            Op::Connect(json) => self.on_connect(slot, json),
            Op::Ping => self.on_ping(slot),
            Op::Pong => self.on_pong(slot),
            Op::Info(json) => {
                if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err() {
                    self.fail(slot, err_text::BAD_CONNECT);
                }
            }
            Op::Ok => {}
        }
    }

    /// Answers an operation of a verbose client.
    pub(super) fn send_ok(&mut self, slot: u32) {
        self.trace_out(slot, format_args!("OK"));
        self.send(slot, [b"+OK\r\n"]);
    }
}
