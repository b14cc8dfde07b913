//! Listening sockets: where the server can be reached, and which worker gets a connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::turn::LISTENERS_MAX;
use crate::clock::Millis;
use crate::config::Options;
use crate::config::options::Credentials;

/// Connections the kernel holds for us until we accept them; it lowers this to its own limit.
const BACKLOG: i32 = 4_096;
/// Times to look for a port that is free on all addresses when any will do.
const ANY_PORT_TRIES: usize = 32;
/// Milliseconds until accepting is tried again after the system had no descriptor or memory left.
pub const ACCEPT_RETRY_MS: u64 = 100;

/// The addresses to listen on, without the port.
///
/// # Errors
/// The host name does not resolve.
fn hosts(options: &Options) -> io::Result<Vec<IpAddr>> {
    match &options.host {
        Some(host) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let found = (bare, 0).to_socket_addrs()?;
            let mut hosts: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            hosts.dedup();
            hosts.truncate(LISTENERS_MAX);
            Ok(hosts)
        }
        // Differs: the reference listens on every address. A server that anybody may use does not open itself to the network by accident.
        None if options.credentials == Credentials::Open => {
            Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        }
        None => Ok(vec![Ipv4Addr::UNSPECIFIED.into()]),
    }
}

/// Listening sockets of all workers: `[worker][address]`, and the addresses.
pub struct Bound {
    pub listeners: Vec<Vec<TcpListener>>,
    pub addresses: Vec<SocketAddr>,
}

/// Binds every address for every worker.
///
/// # Errors
/// What the system says, with the address it said it of.
pub fn bind(options: &Options, workers: usize) -> Result<Bound, (String, io::Error)> {
    let host_text = options.host.clone().unwrap_or_default();
    let hosts = hosts(options).map_err(|error| (host_text, error))?;
    let tries = if options.port == 0 { ANY_PORT_TRIES } else { 1 };
    let mut last = None;
    for _ in 0..tries {
        match bind_port(&hosts, options, workers) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.1.kind() == io::ErrorKind::AddrInUse => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| (String::new(), io::ErrorKind::AddrNotAvailable.into())))
}

fn bind_port(
    hosts: &[IpAddr],
    options: &Options,
    workers: usize,
) -> Result<Bound, (String, io::Error)> {
    let mut bound = Bound {
        listeners: (0..workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
    };
    let mut port = options.port;
    for &host in hosts {
        let wanted = SocketAddr::new(host, port);
        let sockets = match bind_host(wanted, workers) {
            Ok(sockets) => sockets,
            // One family of loopback is enough where the machine has only one.
            Err(error) if options.host.is_none() && is_missing_family(&error) => continue,
            Err(error) => return Err((wanted.to_string(), error)),
        };
        let address = sockets[0]
            .local_addr()
            .map_err(|error| (wanted.to_string(), error))?;
        port = address.port();
        bound.addresses.push(SocketAddr::new(host, port));
        for (listeners, socket) in bound.listeners.iter_mut().zip(sockets) {
            listeners.push(socket);
        }
    }
    if bound.addresses.is_empty() {
        return Err((String::new(), io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(bound)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// Binds one host. `0.0.0.0` is every address of both families, as on the reference, where the
/// machine has both.
fn bind_host(wanted: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if wanted.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), wanted.port());
        match bind_address(both, workers) {
            Err(error) if is_missing_family(&error) => {}
            result => return result,
        }
    }
    bind_address(wanted, workers)
}

/// One listening socket a worker, all on the same address.
fn bind_address(wanted: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Sockets that share a port do so with any other process that shares it as well: a second
    // server would start and take half of the connections. One that does not share finds out.
    let probe = open(wanted, false)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(wanted);
    if workers == 1 {
        return Ok(vec![listening(probe)?]);
    }
    drop(probe);
    (0..workers)
        .map(|_| listening(open(address, true)?))
        .collect()
}

fn open(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// How many connections each worker has, and all have: what accepting is decided by.
pub struct Loads {
    workers: Vec<Load>,
    total: AtomicUsize,
}

/// A counter on a cache line of its own, since each is written by another thread.
#[repr(align(128))]
#[derive(Default)]
struct Load(AtomicUsize);

impl Loads {
    pub fn new(workers: usize) -> Loads {
        Loads {
            workers: (0..workers).map(|_| Load::default()).collect(),
            total: AtomicUsize::new(0),
        }
    }

    /// Connections of all workers.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a new connection that worker `own` accepted, and says which worker is to have it:
    /// the one with the fewest, `own` among equals. `None` when there are `max` already.
    pub fn place(&self, own: usize, max: usize) -> Option<usize> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= max {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let load = |index: usize| self.workers[index].0.load(Ordering::Relaxed);
        let others = 0..self.workers.len();
        let place = others.fold(own, |best, index| {
            if load(index) < load(best) {
                index
            } else {
                best
            }
        });
        self.workers[place].0.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }

    /// A connection of a worker has gone.
    pub fn leave(&self, worker: usize) {
        self.workers[worker].0.fetch_sub(1, Ordering::Relaxed);
        self.total.fetch_sub(1, Ordering::Relaxed);
    }

    /// The worker with the most connections, if there is any connection.
    pub fn fullest(&self) -> Option<usize> {
        let load = |index: &usize| self.workers[*index].0.load(Ordering::Relaxed);
        (0..self.workers.len())
            .filter(|index| load(index) > 0)
            .max_by_key(load)
    }
}

/// When to look at all listeners again without being told: the kernel says once that connections
/// wait, and not again for those that were left.
#[derive(Default)]
pub struct AcceptAgain {
    at: Option<Millis>,
    is_failing: bool,
}

impl AcceptAgain {
    /// More may wait than were accepted: others have their turn first.
    pub fn soon(&mut self, now: Millis) {
        self.no_later_than(now);
    }

    /// The system could give us no connection; `true` if this is new and worth a line in the log.
    pub fn after_failure(&mut self, now: Millis) -> bool {
        self.no_later_than(now.plus(ACCEPT_RETRY_MS));
        !std::mem::replace(&mut self.is_failing, true)
    }

    /// The system could give us one.
    pub fn after_success(&mut self) {
        self.is_failing = false;
    }

    /// When to look.
    pub fn at(&self) -> Option<Millis> {
        self.at
    }

    /// Whether it is time to look, which it then is no longer.
    pub fn take_due(&mut self, now: Millis) -> bool {
        let is_due = self.at.is_some_and(|at| at <= now);
        if is_due {
            self.at = None;
        }
        is_due
    }

    fn no_later_than(&mut self, at: Millis) {
        self.at = Some(self.at.map_or(at, |other| other.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_emptiest_worker_and_to_the_acceptor_among_equals() {
        let loads = Loads::new(2);
        let places: Vec<_> = (0..4).map(|_| loads.place(1, 100)).collect();
        assert_eq!(places, [Some(1), Some(0), Some(1), Some(0)]);
        loads.leave(0);
        assert_eq!(loads.place(1, 100), Some(0));
        assert_eq!(loads.place(1, 4), None, "the limit counts all workers");
        assert_eq!(loads.total(), 4);
    }

    #[test]
    fn an_open_server_listens_on_loopback_only() {
        let open = Options {
            port: 0,
            ..Options::default()
        };
        let bound = bind(&open, 2).expect("any port");
        assert!(
            bound
                .addresses
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        assert_eq!(bound.listeners.len(), 2);
        let taken = Options {
            port: bound.addresses[0].port(),
            ..Options::default()
        };
        let error = bind(&taken, 2).err().expect("the port is taken");
        assert_eq!(error.1.kind(), io::ErrorKind::AddrInUse);
    }
}
