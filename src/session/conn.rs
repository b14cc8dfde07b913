//! What is known of one connection.

use std::fmt;
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::input::Input;
use super::mail::Producer;
use super::outbound::Outbound;
use super::subs::SidIndex;
use crate::clock::Millis;
use crate::error::CloseReason;
use crate::id::{ConnId, WorkerId};

/// What the client asked for in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub verbose: bool,
    pub pedantic: bool,
    pub echo: bool,
    pub headers: bool,
    pub no_responders: bool,
    /// Understands INFO at any time (`protocol` 1).
    pub async_info: bool,
}

impl Default for Wishes {
    /// What holds for a client that never sends CONNECT.
    fn default() -> Self {
        Wishes {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            async_info: false,
        }
    }
}

/// Messages and bytes in the two directions, seen from the server: `in` is what the client sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages published.
    pub in_msgs: u64,
    /// Header and payload bytes published.
    pub in_bytes: u64,
    /// Messages delivered.
    pub out_msgs: u64,
    /// Header and payload bytes delivered.
    pub out_bytes: u64,
}

impl Traffic {
    /// Adds what another connection had.
    pub(super) fn add(&mut self, other: &Traffic) {
        self.in_msgs += other.in_msgs;
        self.in_bytes += other.in_bytes;
        self.out_msgs += other.out_msgs;
        self.out_bytes += other.out_bytes;
    }
}

/// What keeps a connection alive or ends it: PINGs and the answers to them.
#[derive(Default)]
pub(super) struct Liveness {
    /// When the next PING is due.
    pub ping_at: Millis,
    /// When the soonest timer for that fires; `None` while there is none.
    pub timer_at: Option<Millis>,
    /// PINGs not answered yet.
    pub pings_out: u32,
    /// When the last PING went out, until it is answered.
    pub pinged_at: Option<Millis>,
    /// Last measured round trip and when it was measured.
    pub rtt: Option<(u64, Millis)>,
    /// When the client last did something; a PONG is no activity.
    pub active_at: Millis,
}

/// How willingly the peer takes what it is sent; see `pressure`.
#[derive(Default)]
pub(super) struct Pressure {
    /// Whether the socket refused bytes the last time.
    pub is_blocked: bool,
    /// When the kernel last took bytes.
    pub progress_at: Millis,
    /// Whether a timer for the write deadline is set. It is left alone when the deadline moves or
    /// goes.
    pub has_timer: bool,
    /// What is known of a peer that has refused bytes, until it has caught up.
    pub slow: Option<Box<Slow>>,
}

/// The state of a consumer that is slower than those who publish to it.
#[derive(Default)]
pub(super) struct Slow {
    /// Since when producers have been asked to wait for this one.
    pub waited_for_since: Option<Millis>,
    /// Whether waiting did not help, so that nobody waits any more until it has caught up.
    pub is_lagging: bool,
    /// What must have been taken by when: the count of taken bytes, and the write deadline.
    pub deadline: Option<(u64, Millis)>,
    /// Who waits.
    pub waiting: SmallVec<[Producer; 2]>,
}

impl Pressure {
    pub fn slow(&mut self) -> &mut Slow {
        self.slow.get_or_insert_default()
    }
}

/// Words the client used of itself.
#[derive(Default)]
pub(super) struct ClientNames {
    pub name: String,
    pub lang: String,
    pub version: String,
    pub user: String,
}

/// One connection. `S` is what the caller keeps with it: a socket, or a simulated one.
pub struct Conn<S> {
    /// The caller's own.
    pub io: S,
    /// Bytes to be sent.
    pub out: Outbound,
    pub(super) id: ConnId,
    pub(super) peer: Option<SocketAddr>,
    pub(super) wishes: Wishes,
    /// Whether credentials were shown, or none are needed.
    pub(super) is_admitted: bool,
    /// Whether CONNECT was seen.
    pub(super) is_connected: bool,
    /// Whether a PONG has been sent since CONNECT; only then may INFO come at any time.
    pub(super) has_ponged: bool,
    /// Whether it stands in the list of connections to flush.
    pub(super) is_dirty: bool,
    /// Why it is to be closed.
    pub(super) close: Option<CloseReason>,
    /// Not read until then.
    pub(super) paused_until: Option<Millis>,
    /// The worker whose mailbox is too full, if that is why.
    pub(super) waits_for_mailbox: Option<WorkerId>,
    pub(super) input: Input,
    pub(super) sids: SidIndex,
    pub(super) traffic: Traffic,
    pub(super) liveness: Liveness,
    pub(super) pressure: Pressure,
    pub(super) names: Option<Box<ClientNames>>,
}

impl<S> Conn<S> {
    /// Number of the connection.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Why it is to be closed, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close
    }

    /// Whether it must not be read now.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Messages and bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// How the connection is called in the log.
    pub(super) fn label(&self) -> Label<'_> {
        Label {
            id: self.id,
            peer: self.peer,
            names: self.names.as_deref(),
        }
    }
}

/// `127.0.0.1:53210 - cid:7`, and after CONNECT what the client calls itself, as the reference
/// writes it. Source: core-protocol section 10.
pub(super) struct Label<'a> {
    id: ConnId,
    peer: Option<SocketAddr>,
    names: Option<&'a ClientNames>,
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{}:{} - cid:{}", peer.ip(), peer.port(), self.id.0)?,
            None => write!(f, "in-process - cid:{}", self.id.0)?,
        }
        let Some(names) = self.names else {
            return Ok(());
        };
        if !(names.lang.is_empty() && names.version.is_empty() && names.name.is_empty()) {
            write!(f, " - \"v{}:{}", names.version, names.lang)?;
            match names.name.as_str() {
                "" => f.write_str("\"")?,
                name => write!(f, ":{name}\"")?,
            }
        }
        if !names.user.is_empty() {
            write!(f, " - \"$G/user:{}\"", names.user)?;
        }
        Ok(())
    }
}
