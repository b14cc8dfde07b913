//! Starting a server, and telling it to stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::listen::{self, Loads};
use super::mailbox::{Letter, Mailbox};
use super::port::WorkerPort;
use super::worker::{Staff, Worker, poll_with_waker};
use crate::clock::Clock;
use crate::config::options::Credentials;
use crate::config::{NATS_VERSION, Options};
use crate::log::Logger;
use crate::router::{Owner, Rng, Router};
use crate::session::shard::Shared;
use crate::wire::info::ServerInfo;

/// How long workers may take to deliver what they have read, when the server stops.
const QUIET_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest time between two connections being closed in lame duck mode.
const EASE_STEP_MIN: Duration = Duration::from_millis(1);
/// Longest time between two connections being closed in lame duck mode.
const EASE_STEP_MAX: Duration = Duration::from_secs(1);

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// The address, or the host name that does not resolve.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The system refused something else: descriptors, threads, random bytes.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { address, error } => {
                let what = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        "address already in use; is another server running? Choose another port with -p"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "permission denied; ports below 1024 need privileges, choose another with -p"
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        "this machine has no such address; give one of its own with -a"
                    }
                    _ => return write!(f, "Error listening on port: {address}: {error}"),
                };
                write!(f, "Error listening on port: {address}: {what}")
            }
            StartError::System(error) => write!(f, "Error starting: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}

/// What a worker tells whoever controls the server.
pub(super) enum Report {
    /// It reads no more and has posted everything.
    Quiet,
    /// Its thread has ended.
    Ended,
}

/// A running server. Dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    staff: Arc<Staff>,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    reports: Mutex<Receiver<Report>>,
}

impl Server {
    /// Binds and serves; on return clients can connect. `on_failure` is called, on the thread
    /// concerned, if a worker ends that should not: the server then no longer serves everybody.
    ///
    /// # Errors
    /// An address that cannot be bound, or a system out of descriptors or threads. Nothing is left
    /// behind then.
    pub fn start(
        options: Options,
        log: Logger,
        on_failure: impl Fn() + Send + Sync + 'static,
    ) -> Result<Server, StartError> {
        let on_failure: OnFailure = Arc::new(on_failure);
        let workers = worker_count(&options);
        let bound = listen::bind(&options, workers)
            .map_err(|(address, error)| StartError::Listen { address, error })?;
        let info = server_info(&options, &bound.addresses)?;
        let shared = Arc::new(Shared {
            router: Arc::new(Router::new()),
            log,
            info,
            last_conn: AtomicU64::new(0),
            is_lame_duck: AtomicBool::new(false),
            options,
        });
        let mut polls = Vec::with_capacity(workers);
        let mut mailboxes = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (poll, waker) = poll_with_waker()?;
            polls.push(poll);
            mailboxes.push(Mailbox::new(waker));
        }
        let staff = Arc::new(Staff {
            mailboxes,
            loads: Loads::new(workers),
        });
        let (sender, receiver) = mpsc::channel();
        let clock = Clock::start();
        let mut server = Server {
            shared: Arc::clone(&shared),
            staff: Arc::clone(&staff),
            addresses: bound.addresses,
            threads: Vec::with_capacity(workers),
            reports: Mutex::new(receiver),
        };
        for (index, (poll, listeners)) in polls.into_iter().zip(bound.listeners).enumerate() {
            let (shared, staff) = (Arc::clone(&shared), Arc::clone(&staff));
            if let Some(owner) = Owner::port(index as u16) {
                let port = Arc::new(WorkerPort::new(Arc::clone(&staff), index));
                shared.router.set_port(owner, Some(port));
            }
            let worker = Worker::new(index, shared, staff, sender.clone(), poll, listeners, clock)?;
            server
                .threads
                .push(spawn(worker, sender.clone(), Arc::clone(&on_failure))?);
        }
        Ok(server)
    }

    /// Where clients can connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Subjects and who wants them: what the own process may subscribe to and publish on.
    pub fn router(&self) -> &Arc<Router> {
        &self.shared.router
    }

    /// What INFO says of the server.
    pub fn info(&self) -> &ServerInfo {
        &self.shared.info
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.staff.mailboxes.len()
    }

    /// Client connections at the moment.
    pub fn connection_count(&self) -> usize {
        self.staff.loads.total()
    }

    /// Eases the clients away: accepts no more, tells those who understand it, waits the grace
    /// period, then closes one after the other so that all are gone when the duration is over.
    /// `wait` waits that long and says whether to go on; returns when no client is left or `wait`
    /// says no. Source: core-protocol section 6, "Lame duck".
    pub fn ease_away(&self, mut wait: impl FnMut(Duration) -> bool) {
        let options = &self.shared.options;
        self.shared.is_lame_duck.store(true, Ordering::Relaxed);
        self.tell_all(|| Letter::LameDuck);
        let grace = Duration::from_millis(options.lame_duck_grace_ms);
        if self.staff.loads.total() == 0 || !wait(grace) {
            return;
        }
        let duration = Duration::from_millis(options.lame_duck_duration_ms).saturating_sub(grace);
        let clients = self.staff.loads.total().max(1) as u32;
        let step = (duration / clients).clamp(EASE_STEP_MIN, EASE_STEP_MAX);
        let mut rng = Rng::from_entropy();
        while let Some(index) = self.staff.loads.fullest() {
            self.staff.mailboxes[index].post(Letter::EaseOne);
            let half = step / 2;
            let jitter = half.mul_f64(f64::from(rng.below(1000)) / 1000.0);
            if !wait(half + jitter) {
                return;
            }
        }
    }

    /// Stops: what clients have sent and midge has read is delivered, what is queued is sent as far
    /// as peers take it within a second, then everything is closed.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.tell_all(|| Letter::Quiesce);
        self.await_quiet();
        self.tell_all(|| Letter::Finish);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so in the log.
            let _ = thread.join();
        }
        for index in 0..self.staff.mailboxes.len() {
            if let Some(owner) = Owner::port(index as u16) {
                self.shared.router.set_port(owner, None);
            }
        }
    }

    /// Waits until no worker can write to another any more.
    fn await_quiet(&self) {
        let until = Instant::now() + QUIET_TIMEOUT;
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.threads.len();
        while waiting > 0 {
            match reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Report::Quiet | Report::Ended) => waiting -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        for mailbox in &self.staff.mailboxes {
            mailbox.post(letter());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// One worker for each core this process may use, unless told otherwise.
fn worker_count(options: &Options) -> usize {
    match options.workers {
        Some(workers) => usize::from(workers).max(1),
        None => std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(256),
    }
}

fn server_info(options: &Options, addresses: &[SocketAddr]) -> Result<ServerInfo, StartError> {
    let server_id = crate::crypto::server_id()?;
    let port = addresses.first().map_or(options.port, SocketAddr::port);
    let own_host = match (&options.host, addresses.first()) {
        (Some(host), _) => host.clone(),
        (None, Some(address)) => address.ip().to_string(),
        (None, None) => String::new(),
    };
    let (host, port) = match &options.client_advertise {
        Some(advertised) => split_advertised(advertised, port),
        None => (own_host, port),
    };
    Ok(ServerInfo {
        server_name: options.name.clone().unwrap_or_else(|| server_id.clone()),
        server_id,
        nats_version: NATS_VERSION,
        midge_version: env!("CARGO_PKG_VERSION"),
        revision: env!("MIDGE_REVISION"),
        host,
        port,
        auth_required: options.credentials != Credentials::Open,
        max_payload: options.payload_bytes_max.map_or(-1, |bytes| bytes as i64),
    })
}

/// `host:port`, or a host alone, which keeps the own port.
fn split_advertised(advertised: &str, own_port: u16) -> (String, u16) {
    match advertised.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => match port.parse() {
            Ok(port) => (host.trim_matches(['[', ']']).to_owned(), port),
            Err(_) => (advertised.to_owned(), own_port),
        },
        _ => (advertised.to_owned(), own_port),
    }
}

type OnFailure = Arc<dyn Fn() + Send + Sync>;

/// Runs a worker on a thread of its own.
fn spawn(
    mut worker: Worker,
    reports: Sender<Report>,
    on_failure: OnFailure,
) -> io::Result<JoinHandle<()>> {
    let name = format!("midge-{}", worker.index);
    std::thread::Builder::new().name(name).spawn(move || {
        let log = worker.shared.log.clone();
        let run = std::panic::AssertUnwindSafe(|| worker.run());
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                log.error(format_args!("Waiting for events failed: {error}"));
                on_failure();
            }
            Err(_) => {
                let text = "A worker failed; this is a bug in midge, please report it";
                log.error(format_args!("{text}"));
                on_failure();
            }
        }
        // Nobody may be listening any more.
        let _ = reports.send(Report::Ended);
    })
}
