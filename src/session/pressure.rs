//! Consumers that take less than they are sent.
//!
//! Up to the high-water mark nothing happens. Above it the producers that feed the consumer are
//! read no further, for at most `STALL_MS_MAX`, or until the consumer is below the low-water mark.
//! A consumer that did not get there in that time *lags*: nobody waits for it again until it has
//! caught up, so that one slow reader costs a producer (and thereby the others it feeds) one short
//! pause and not one after the other. It may use the rest of `max_pending`; in the last quarter of
//! that its producers wait again, as long as it takes anything at all. Beyond it, or when queued
//! bytes are not taken within the write deadline, it is closed as a slow consumer.
//!
//! Differs: the reference makes producers wait at three quarters of `max_pending` only and for
//! every consumer alike, which costs 48 MiB a consumer before anybody waits, and lets one dead
//! reader slow everybody down.
//! Source: core-protocol section 6.

use smallvec::SmallVec;

use super::conn::Conn;
use super::mail::Producer;
use super::shard::Shard;
use super::timers::Due;
use crate::error::CloseReason;
use crate::id::WorkerId;
use crate::limits::{CONGESTION_MS, STALL_MS_MAX, STUCK_MS_MIN};

impl<S> Shard<S> {
    /// A message was queued for consumers above their high-water mark.
    #[cold]
    pub(super) fn on_pressure(&mut self, from: Option<Producer>) {
        let mut pressed = std::mem::take(&mut self.local.pressed);
        for slot in pressed.drain(..) {
            if self.presses_on(slot)
                && let Some(from) = from
            {
                self.let_wait(from, slot);
            }
        }
        self.local.pressed = pressed;
    }

    /// Whether the producers of a consumer above its high-water mark should wait for it.
    fn presses_on(&mut self, slot: u32) -> bool {
        let now = self.now;
        let limits = self.local.limits;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return false;
        };
        if conn.close.is_some() {
            return false;
        }
        if !conn.pressure.is_blocked {
            // What is queued may only be there because nobody has tried to send it.
            self.local.wants_flush = true;
            return false;
        }
        let pending_bytes = conn.out.pending_bytes();
        if pending_bytes > limits.pending_bytes_max {
            self.close_slow(slot, CloseReason::SlowConsumerPendingBytes);
            return false;
        }
        let pressure = &mut conn.pressure;
        if pending_bytes <= limits.high_water_bytes {
            return false;
        }
        if pending_bytes > limits.critical_bytes {
            return now.since(pressure.progress_at) < STUCK_MS_MIN;
        }
        let slow = pressure.slow();
        match slow.waited_for_since {
            None => slow.waited_for_since = Some(now),
            Some(since) if now.since(since) >= STALL_MS_MAX => slow.is_lagging = true,
            Some(_) => {}
        }
        !slow.is_lagging
    }

    /// Lets a producer wait for a consumer here.
    fn let_wait(&mut self, producer: Producer, slot: u32) {
        if let Some(conn) = self.local.conns.get_mut(slot as usize)
            && !conn.pressure.slow().waiting.contains(&producer)
        {
            conn.pressure.slow().waiting.push(producer);
        }
        if producer.worker == self.worker {
            self.stall(producer, STALL_MS_MAX);
        } else if let Some(outbox) = self.outboxes.get_mut(producer.worker.0 as usize) {
            outbox.push_stall(producer);
        }
    }

    /// Stops reading a producer of this worker, for a bounded time.
    pub(super) fn stall(&mut self, producer: Producer, ms: u64) {
        let until = self.now.plus(ms);
        let Some(conn) = self.local.conns.get_mut(producer.slot as usize) else {
            return;
        };
        if conn.id != producer.conn || conn.paused_until.is_some() {
            return;
        }
        conn.paused_until = Some(until);
        self.local.counters.stalls += 1;
        self.local.wants_flush = true;
        self.add_timer(producer.slot, Due::Resume, until);
    }

    /// Stops reading a producer of this worker until another worker has got to its mail: looked at
    /// again and again, since a mailbox takes what it must and knows no bound of its own.
    #[cold]
    pub(super) fn wait_for_mailbox(&mut self, producer: Producer, worker: WorkerId) {
        self.stall(producer, CONGESTION_MS);
        if let Some(conn) = self.local.conns.get_mut(producer.slot as usize)
            && conn.id == producer.conn
        {
            conn.waits_for_mailbox = Some(worker);
        }
    }

    /// Reads a producer of this worker again.
    pub(super) fn resume(&mut self, producer: Producer) {
        let Some(conn) = self.local.conns.get_mut(producer.slot as usize) else {
            return;
        };
        if conn.id == producer.conn
            && conn.waits_for_mailbox.is_none()
            && conn.paused_until.take().is_some()
        {
            self.local.resumed.push(producer.slot);
        }
    }

    pub(super) fn on_pause_over(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        if conn.paused_until.is_some_and(|until| until <= now) {
            if let Some(worker) = conn.waits_for_mailbox
                && self.is_congested[worker.0 as usize]
            {
                let until = now.plus(CONGESTION_MS);
                conn.paused_until = Some(until);
                return self.add_timer(slot, Due::Resume, until);
            }
            conn.waits_for_mailbox = None;
            conn.paused_until = None;
            self.local.resumed.push(slot);
        }
    }

    /// Takes note of how a flush ended that met, or ended, a refusal of the socket.
    pub(super) fn after_blocked_write(&mut self, slot: u32, is_blocked: bool) {
        let now = self.now;
        let limits = self.local.limits;
        let deadline_at = now.plus(self.shared.options.write_deadline_ms);
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        conn.pressure.is_blocked = is_blocked;
        let pending_bytes = conn.out.pending_bytes();
        let taken_bytes = conn.out.taken_bytes();
        if pending_bytes > limits.pending_bytes_max && is_blocked {
            return self.close_slow(slot, CloseReason::SlowConsumerPendingBytes);
        }
        let mut waiting = SmallVec::new();
        if !is_blocked {
            if let Some(slow) = conn.pressure.slow.take() {
                waiting = slow.waiting;
            }
        } else {
            let slow = conn.pressure.slow();
            if pending_bytes <= limits.low_water_bytes {
                slow.waited_for_since = None;
                slow.is_lagging = false;
                waiting = std::mem::take(&mut slow.waiting);
            }
            if slow.deadline.is_none_or(|(bytes, _)| taken_bytes >= bytes) {
                // All that is queued now must be taken in time; what comes later has its own time.
                slow.deadline = Some((taken_bytes + pending_bytes as u64, deadline_at));
                // One timer a connection, however often it is blocked and free again.
                if !std::mem::replace(&mut conn.pressure.has_timer, true) {
                    self.add_timer(slot, Due::Write, deadline_at);
                }
            }
        }
        self.release(&waiting);
    }

    pub(super) fn on_write_deadline(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        let taken_bytes = conn.out.taken_bytes();
        conn.pressure.has_timer = false;
        let Some(slow) = &mut conn.pressure.slow else {
            return;
        };
        match slow.deadline {
            Some((bytes, _)) if taken_bytes >= bytes => slow.deadline = None,
            Some((_, at)) if at <= now => {
                self.close_slow(slot, CloseReason::SlowConsumerWriteDeadline);
            }
            Some((_, at)) => {
                conn.pressure.has_timer = true;
                self.add_timer(slot, Due::Write, at);
            }
            None => {}
        }
    }

    /// Closes a connection that takes too little; nothing more is sent to it.
    fn close_slow(&mut self, slot: u32, reason: CloseReason) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        if conn.close.is_some() {
            return;
        }
        let options = &self.shared.options;
        let label = conn.label();
        match reason {
            CloseReason::SlowConsumerPendingBytes => self.shared.log.info(format_args!(
                "{label} - Slow Consumer Detected: MaxPending of {} Exceeded",
                options.pending_bytes_max
            )),
            _ => self.shared.log.info(format_args!(
                "{label} - Slow Consumer Detected: WriteDeadline of {:?} Exceeded with {} bytes pending",
                std::time::Duration::from_millis(options.write_deadline_ms),
                conn.out.pending_bytes()
            )),
        }
        self.local.counters.slow_consumers += 1;
        conn.out.clear(&mut self.local.pool);
        self.local.close(slot, reason);
    }

    /// Lets everybody go on who waits for a connection that goes.
    pub(super) fn release_waiting(&mut self, conn: &mut Conn<S>) {
        if let Some(slow) = conn.pressure.slow.take() {
            self.release(&slow.waiting);
        }
    }

    fn release(&mut self, waiting: &[Producer]) {
        for &producer in waiting {
            if producer.worker == self.worker {
                self.resume(producer);
            } else if let Some(outbox) = self.outboxes.get_mut(producer.worker.0 as usize) {
                outbox.push_resume(producer);
            }
        }
    }
}
