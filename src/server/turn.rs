//! One pass of the loop, in order: sleep, letters, readiness, reading, timers, posting, flushing.

use std::io;
use std::time::Duration;

use mio::Token;

use super::linger::Farewell;
use super::mailbox::Letter;
use super::socket::Socket;
use super::start::Report;
use super::worker::{LINGERING, Phase, WAKER, Worker};
use crate::error::CloseReason;
use crate::id::WorkerId;
use crate::limits::MAIL_BYTES_MAX;

/// Reads of one connection before others are served again.
const READS_MAX: usize = 8;
/// Listening addresses of a worker; more are bound by nobody.
pub(super) const LISTENERS_MAX: usize = 64;
/// Milliseconds that peers have to take what is queued when the server ends.
const FINISH_MS_MAX: u64 = 1_000;

impl Worker {
    /// Runs to the end.
    ///
    /// # Errors
    /// Waiting for events failed.
    pub fn run(&mut self) -> io::Result<()> {
        while self.phase != Phase::Finishing {
            self.turn()?;
        }
        self.finish();
        Ok(())
    }

    /// One pass.
    ///
    /// # Errors
    /// Waiting for events failed.
    pub fn turn(&mut self) -> io::Result<()> {
        self.sleep()?;
        self.now = self.clock.now();
        self.open_letters();
        self.take_events();
        self.read_all();
        self.accept_left_over();
        self.shard.on_time(self.now);
        self.resume();
        self.lingering.on_turn(self.now);
        self.settle();
        let freed_bytes = self.shard.take_freed_bytes() + self.lingering.take_freed_bytes();
        self.memory.on_turn(freed_bytes, self.now);
        Ok(())
    }

    /// Waits until there is something to do; without a time limit when nothing is due.
    fn sleep(&mut self) -> io::Result<()> {
        let mailbox = &self.staff.mailboxes[self.index];
        let has_work = !self.readable.is_empty() && self.phase != Phase::Quiet;
        let timeout = match has_work || !self.letters.is_empty() || !mailbox.may_sleep() {
            true => Some(Duration::ZERO),
            false => self.until_next(),
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let timers = self.shard.next_timer();
        let due = [
            timers,
            self.accept_again.at(),
            self.lingering.next_at(),
            self.memory.next_at(),
        ];
        let next = due.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.since(self.clock.now())))
    }

    fn open_letters(&mut self) {
        let new = self.staff.mailboxes[self.index].take();
        self.letters.extend(new);
        while let Some(letter) = self.letters.pop_front() {
            match letter {
                Letter::Mail(bytes) => self.read_mail(bytes),
                Letter::Adopt(stream, peer) => self.take_in(stream, peer, true),
                Letter::LameDuck => {
                    self.phase = Phase::LameDuck;
                    self.listeners.clear();
                    self.shard.announce_lame_duck();
                }
                Letter::EaseOne => {
                    let slot = self.shard.slots().next();
                    if let Some(slot) = slot {
                        self.shard.close(slot, CloseReason::ServerShutdown);
                    }
                }
                Letter::Quiesce => {
                    self.phase = Phase::Quiet;
                    self.listeners.clear();
                    self.settle();
                    // The control thread may have given up waiting; then nobody needs to know.
                    let _ = self.reports.send(Report::Quiet);
                }
                Letter::Finish => self.phase = Phase::Finishing,
            }
        }
    }

    /// Takes in the mail that was posted before the bytes just read were sent: a client that heard the
    /// PONG of a publisher may unsubscribe, and must still get what was published before.
    fn open_mail(&mut self) {
        if self.staff.mailboxes[self.index].mail_bytes() == 0 {
            return;
        }
        for letter in self.staff.mailboxes[self.index].take() {
            match letter {
                Letter::Mail(bytes) => self.read_mail(bytes),
                other => self.letters.push_back(other),
            }
        }
    }

    /// Works through mail, flushing as often as the shard asks for it.
    fn read_mail(&mut self, bytes: Vec<u8>) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.shard.on_mail(&bytes[at..], self.now);
            if at < bytes.len() {
                self.flush();
            }
        }
        self.staff.mailboxes[self.index].give_back(bytes);
    }

    fn take_events(&mut self) {
        let mut accept = [false; LISTENERS_MAX];
        // Set aside while the worker is changed by what they say; nothing is allocated for none.
        let events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WAKER => {}
                Token(token) if token >= WAKER.0 - accept.len() => {
                    accept[WAKER.0 - 1 - token] = true
                }
                Token(token) if token >= LINGERING => self.lingering.step(token - LINGERING),
                Token(token) => {
                    let slot = token as u32;
                    let Some(conn) = self.shard.conn_mut(slot) else {
                        continue;
                    };
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        conn.io.is_readable = true;
                        conn.io.is_read_closed |= event.is_read_closed() || event.is_error();
                        self.queue_read(slot);
                    }
                    if event.is_writable() {
                        self.flush_conn(slot);
                    }
                }
            }
        }
        self.events = events;
        for (number, is_ready) in accept.into_iter().enumerate() {
            if is_ready {
                self.accept(number);
            }
        }
    }

    /// Puts a connection in the list of those to be read.
    fn queue_read(&mut self, slot: u32) {
        if let Some(conn) = self.shard.conn_mut(slot)
            && !conn.io.is_queued
        {
            conn.io.is_queued = true;
            self.readable.push_back(slot);
        }
    }

    /// Reads every connection that has something, once around.
    fn read_all(&mut self) {
        if matches!(self.phase, Phase::Quiet | Phase::Finishing) {
            return;
        }
        for _ in 0..self.readable.len() {
            let Some(slot) = self.readable.pop_front() else {
                return;
            };
            let Some(conn) = self.shard.conn_mut(slot) else {
                continue;
            };
            conn.io.is_queued = false;
            self.read_conn(slot);
            if let Some(conn) = self.shard.conn(slot)
                && conn.io.is_readable
                && !conn.is_paused()
            {
                self.queue_read(slot);
            }
        }
    }

    fn read_conn(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..READS_MAX {
            let Some(conn) = self.shard.conn_mut(slot) else {
                break;
            };
            if conn.is_paused() || conn.close_reason().is_some() || !conn.io.is_readable {
                break;
            }
            if !conn.io.backlog.is_empty() {
                let backlog = std::mem::take(&mut conn.io.backlog);
                self.take_bytes(slot, &backlog);
                continue;
            }
            match conn.io.read(&mut buffer) {
                Ok(Some(0)) => self.shard.close(slot, CloseReason::ClientClosed),
                Ok(Some(bytes)) => {
                    // Less than asked for is all there was, unless the end comes behind it.
                    if bytes < buffer.len() && !conn.io.is_read_closed {
                        conn.io.is_readable = false;
                    }
                    self.open_mail();
                    self.take_bytes(slot, &buffer[..bytes]);
                }
                Ok(None) => conn.io.is_readable = false,
                Err(error) => {
                    let reason = match error.kind() {
                        io::ErrorKind::ConnectionReset => CloseReason::ClientClosed,
                        _ => CloseReason::ReadError,
                    };
                    self.shard.close(slot, reason);
                }
            }
        }
        self.buffer = buffer;
    }

    /// Hands bytes to the shard, flushing as often as it asks for it; what a paused connection
    /// cannot get rid of is kept.
    fn take_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let mut at = 0;
        loop {
            at += self.shard.on_bytes(slot, &bytes[at..], self.now);
            if self.shard.wants_flush() {
                self.flush();
            }
            let Some(conn) = self.shard.conn_mut(slot) else {
                return;
            };
            if at >= bytes.len() || conn.close_reason().is_some() {
                return;
            }
            if conn.is_paused() {
                conn.io.backlog = bytes[at..].to_vec();
                conn.io.is_readable = true;
                return;
            }
        }
    }

    /// Reads those again whose pause is over.
    fn resume(&mut self) {
        while let Some(slot) = self.shard.next_resumed() {
            if self
                .shard
                .conn(slot)
                .is_some_and(|conn| conn.io.is_readable)
            {
                self.queue_read(slot);
            }
        }
    }

    /// Leaves nothing undone: flushes, posts, closes, until there is no more of it.
    pub fn settle(&mut self) {
        loop {
            self.flush();
            if let Some(slot) = self.shard.next_closing() {
                self.close_conn(slot);
            } else if self.shard.outboxes_with_mail().next().is_none() {
                // Writing may have let producers of other workers go on, which is mail as well.
                return;
            }
        }
    }

    /// Posts what other workers are to know, then sends what is queued: whoever gets a PONG may rely on
    /// everything before it being on its way.
    fn flush(&mut self) {
        for index in 0..self.staff.mailboxes.len() {
            let worker = WorkerId(index as u16);
            let mailbox = &self.staff.mailboxes[index];
            if self.shard.outbox_bytes(worker) > 0 {
                let spare = mailbox.post_mail(self.shard.take_outbox(worker));
                self.shard.refill_outbox(worker, spare);
            }
            self.shard
                .set_congested(worker, mailbox.mail_bytes() > MAIL_BYTES_MAX);
        }
        while let Some(slot) = self.shard.next_dirty() {
            self.flush_conn(slot);
        }
        self.shard.flushed();
        self.resume();
    }

    fn flush_conn(&mut self, slot: u32) {
        if self
            .shard
            .flush_with(slot, self.now, Socket::write)
            .is_err()
        {
            self.shard.close(slot, CloseReason::WriteError);
        }
    }

    fn close_conn(&mut self, slot: u32) {
        self.flush_conn(slot);
        let reason = self.shard.conn(slot).and_then(|conn| conn.close_reason());
        let Some((socket, out)) = self.shard.remove(slot) else {
            return;
        };
        if socket.is_counted {
            self.staff.loads.leave(self.index);
        }
        let reason = reason.unwrap_or(CloseReason::ClientClosed);
        let can_take_more = reason.is_told() || reason == CloseReason::ClientClosed;
        if reason.is_told() || (can_take_more && out.pending_bytes() > 0) {
            let farewell = match self.phase {
                Phase::Finishing => Farewell::Brief,
                _ => Farewell::Patient,
            };
            let token = |key: usize| Token(LINGERING + key);
            let registry = self.poll.registry();
            self.lingering
                .add(socket, out, self.now, farewell, registry, token);
        }
    }

    /// Sends what is left, for a bounded time, and closes everything.
    fn finish(&mut self) {
        self.now = self.clock.now();
        let until = self.now.plus(FINISH_MS_MAX);
        let slots: Vec<u32> = self.shard.slots().collect();
        for slot in slots {
            self.shard.close(slot, CloseReason::ServerShutdown);
            self.close_conn(slot);
        }
        while !self.lingering.is_empty() && self.now < until {
            let left = Duration::from_millis(until.since(self.now));
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
            self.now = self.clock.now();
            for event in &self.events {
                if let Token(token @ LINGERING..) = event.token()
                    && token < WAKER.0 - LISTENERS_MAX
                {
                    self.lingering.step(token - LINGERING);
                }
            }
            self.lingering.on_turn(self.now);
        }
    }
}
