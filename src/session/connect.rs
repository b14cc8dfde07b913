//! CONNECT, PING and PONG: who is there, and whether still.

use super::conn::{ClientNames, Conn, Wishes};
use super::shard::Shard;
use super::timers::{Due, on_grid};
use crate::auth::{Presented, admits};
use crate::clock::Millis;
use crate::config::options::Credentials;
use crate::limits;
use crate::wire::connect::Connect;
use crate::wire::err_text;

impl<S> Shard<S> {
    /// CONNECT. A second one shows credentials again and loses all subscriptions, as on the
    /// reference. Source: core-protocol section 1.4.
    pub(super) fn on_connect(&mut self, slot: u32, json: &[u8]) {
        let Some(conn) = self.conn(slot) else { return };
        let Some(connect) = Connect::parse(json, conn.said_before()) else {
            return self.fail(slot, err_text::BAD_CONNECT);
        };
        let presented = Presented {
            token: connect.auth_token.as_deref(),
            user: connect.user.as_deref(),
            password: connect.password.as_deref(),
        };
        let shows_none = [presented.token, presented.user, presented.password] == [None; 3];
        let stays_admitted = conn.is_admitted && shows_none;
        if !(stays_admitted || admits(&self.shared.options.credentials, &presented))
            || connect.names_account
        {
            return self.fail(slot, err_text::AUTHORIZATION);
        }
        if !matches!(connect.protocol, 0 | 1) {
            return self.fail(slot, err_text::CLIENT_PROTOCOL);
        }
        if connect.no_responders && !connect.headers {
            return self.fail(slot, err_text::NO_RESPONDERS);
        }
        if self.conn(slot).is_some_and(|conn| conn.is_connected) {
            self.drop_subscriptions_of(slot);
        }
        let is_open = self.shared.options.credentials == Credentials::Open;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        conn.wishes = Wishes {
            verbose: connect.verbose,
            pedantic: connect.pedantic,
            echo: connect.echo,
            headers: connect.headers,
            no_responders: connect.no_responders,
            async_info: connect.protocol == 1,
        };
        conn.is_admitted = true;
        conn.is_connected = true;
        let user_before = conn
            .names
            .take()
            .map(|names| names.user)
            .unwrap_or_default();
        let user = match is_open {
            true => String::new(),
            false => connect.user.clone().unwrap_or(user_before),
        };
        conn.names = ClientNames::new(connect, user);
        let first_ping_ms = self
            .shared
            .options
            .ping_interval_ms
            .min(limits::FIRST_PING_MS);
        let spread_ms = u64::from(self.rng.below((first_ping_ms / 5).max(1) as u32));
        self.schedule_ping(slot, self.now.plus(first_ping_ms + spread_ms));
        if self.conn(slot).is_some_and(|conn| conn.wishes.verbose) {
            self.send_ok(slot);
        }
    }

    /// PING: PONG, and after the first one since CONNECT an INFO for clients that understand it.
    pub(super) fn on_ping(&mut self, slot: u32) {
        self.trace_out(slot, format_args!("PONG"));
        self.send(slot, [b"PONG\r\n"]);
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        if conn.is_connected && !conn.has_ponged {
            conn.has_ponged = true;
            if conn.wishes.async_info {
                self.send_info(slot);
            }
        }
    }

    pub(super) fn on_pong(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        conn.liveness.pings_out = 0;
        if let Some(pinged_at) = conn.liveness.pinged_at.take() {
            conn.liveness.rtt = Some((now.since(pinged_at), now));
        }
    }

    /// Sets when the next PING is due. A timer that fires before that will see to it; only a time
    /// before every timer needs a new one, so that a client cannot pile them up.
    pub(super) fn schedule_ping(&mut self, slot: u32, at: Millis) {
        let at = on_grid(self.now, at.max(self.now.plus(1)));
        if let Some(conn) = self.local.conns.get_mut(slot as usize) {
            let liveness = &mut conn.liveness;
            liveness.ping_at = at;
            if liveness.timer_at.is_none_or(|timer_at| timer_at > at) {
                liveness.timer_at = Some(at);
                self.add_timer(slot, Due::Ping, at);
            }
        }
    }

    /// A PING may be due: not when the client has been active meanwhile and its round trip is
    /// known; the end when too many are unanswered. Source: core-protocol section 6.
    fn on_ping_due(&mut self, slot: u32, timer_at: Millis) {
        let now = self.now;
        let interval_ms = self.shared.options.ping_interval_ms;
        let pings_max = self.shared.options.pings_outstanding_max;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else {
            return;
        };
        let liveness = &mut conn.liveness;
        liveness.timer_at = liveness.timer_at.filter(|&at| at > timer_at);
        if liveness.ping_at > now {
            let at = liveness.ping_at;
            return self.schedule_ping(slot, at);
        }
        let is_active = now.since(liveness.active_at) < interval_ms;
        let knows_rtt = liveness
            .rtt
            .is_some_and(|(_, at)| now.since(at) < limits::RTT_AGE_MS_MAX);
        // Between CONNECT and the first PONG clients expect exactly one line.
        let must_wait = conn.is_connected && !conn.has_ponged && liveness.pings_out == 0 && {
            now.since(liveness.active_at) < limits::FIRST_PING_MS
        };
        if !(must_wait || is_active && knows_rtt) {
            if liveness.pings_out >= pings_max {
                self.local.counters.stale_connections += 1;
                return self.fail(slot, err_text::STALE);
            }
            liveness.pings_out += 1;
            liveness.pinged_at.get_or_insert(now);
            self.trace_out(slot, format_args!("PING"));
            self.send(slot, [b"PING\r\n"]);
        }
        self.schedule_ping(slot, now.plus(interval_ms));
    }

    /// When `on_time` is to be called next, if ever.
    pub fn next_timer(&self) -> Option<Millis> {
        self.timers.next_at()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Millis) {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            let Some(conn) = self.conn(timer.slot) else {
                continue;
            };
            if conn.id != timer.conn || conn.close.is_some() {
                continue;
            }
            match timer.due {
                Due::Auth if conn.is_admitted => {}
                Due::Auth => self.fail(timer.slot, err_text::AUTH_TIMEOUT),
                Due::Ping => self.on_ping_due(timer.slot, timer.at),
                Due::Write => self.on_write_deadline(timer.slot),
                Due::Resume => self.on_pause_over(timer.slot),
            }
        }
    }
}

impl<S> Conn<S> {
    /// What earlier CONNECTs said, but for credentials, which are not kept.
    fn said_before(&self) -> Connect {
        let names = self.names.as_deref();
        let text = |of: fn(&ClientNames) -> &String| names.map(of).cloned().unwrap_or_default();
        Connect {
            verbose: self.wishes.verbose,
            pedantic: self.wishes.pedantic,
            echo: self.wishes.echo,
            headers: self.wishes.headers,
            no_responders: self.wishes.no_responders,
            protocol: i64::from(self.wishes.async_info),
            name: text(|names| &names.name),
            lang: text(|names| &names.lang),
            version: text(|names| &names.version),
            ..Connect::default()
        }
    }
}

impl ClientNames {
    /// What is worth keeping for logs, if anything. On an open server a user name says nothing.
    fn new(connect: Connect, user: String) -> Option<Box<ClientNames>> {
        let names = ClientNames {
            name: connect.name,
            lang: connect.lang,
            version: connect.version,
            user,
        };
        let all = [&names.name, &names.lang, &names.version, &names.user];
        let has_any = all.iter().any(|name| !name.is_empty());
        has_any.then(|| Box::new(names))
    }
}
