//! Sees closed connections off.
//!
//! Closing a socket with unread input makes the kernel send a reset, and the peer may then never
//! read the error line that told it why. So our side is shut first, and input is thrown away until
//! the peer closes its side, for a bounded time and a bounded number of connections.

use std::io::Read;
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::clock::Millis;

/// Milliseconds a peer has to read the last words.
const LINGER_MS_MAX: u64 = 2_000;
/// Connections seen off at a time; beyond that they are closed at once.
const LINGERING_MAX: usize = 1_024;
/// Bytes thrown away at a time.
const DISCARD_BYTES: usize = 16 * 1024;
/// Reads at a time, so that a peer that floods does not hold the loop.
const DISCARD_READS_MAX: usize = 16;

/// Connections that are being seen off.
#[derive(Default)]
pub struct Lingering {
    streams: Slab<(TcpStream, Millis)>,
}

impl Lingering {
    /// Begins to see a connection off whose last bytes have been written.
    pub fn add(
        &mut self,
        mut stream: TcpStream,
        now: Millis,
        registry: &Registry,
        token: impl FnOnce(usize) -> Token,
    ) {
        if self.streams.len() >= LINGERING_MAX || stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        if registry
            .reregister(&mut stream, token(key), Interest::READABLE)
            .is_err()
        {
            return;
        }
        entry.insert((stream, now.plus(LINGER_MS_MAX)));
        self.discard(key);
    }

    /// Throws away what has come, and lets the connection go at its end.
    pub fn discard(&mut self, key: usize) {
        let Some((stream, _)) = self.streams.get_mut(key) else {
            return;
        };
        let mut buffer = [0; DISCARD_BYTES];
        for _ in 0..DISCARD_READS_MAX {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.streams.try_remove(key);
    }

    /// Lets those go whose time is over.
    pub fn expire(&mut self, now: Millis) {
        self.streams.retain(|_, (_, until)| *until > now);
        if self.streams.is_empty() {
            self.streams = Slab::new();
        }
    }

    /// When the next one's time is over.
    pub fn next_at(&self) -> Option<Millis> {
        self.streams.iter().map(|(_, (_, until))| *until).min()
    }
}
