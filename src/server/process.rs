//! The server as a process: log, pid file, ports file, signals, exit code.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::start::Server;
use crate::config::options::Credentials;
use crate::config::{NATS_VERSION, Options, SignalRequest};
use crate::log::Logger;

/// How long the last log lines may take.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until a signal ends it. `program` is the name the process was started under, which names
/// the ports file.
pub fn run(options: Options, program: &str) -> ExitCode {
    let log = match Logger::open(&options.log) {
        Ok(log) => log,
        Err(error) => {
            let file = options.log.file.unwrap_or_default();
            say(format_args!(
                "{program}: cannot write the log file {}: {error}",
                file.display()
            ));
            return ExitCode::FAILURE;
        }
    };
    let code = match serve(options, program, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log.fatal(format_args!("{text}"));
            ExitCode::FAILURE
        }
    };
    log.flush(LOG_FLUSH_TIMEOUT);
    code
}

/// Writes one line to standard error. When nobody can read it there is nobody left to tell, and
/// the exit code says it too.
fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn serve(options: Options, program: &str, log: &Logger) -> Result<(), String> {
    // Before any thread starts, so that no signal finds its default disposition.
    let (events, signals) =
        catch_signals().map_err(|error| format!("Error catching signals: {error}"))?;
    log.info(format_args!("Starting midge"));
    log.info(format_args!("  Version:  {}", env!("CARGO_PKG_VERSION")));
    log.info(format_args!("  NATS:     {NATS_VERSION}"));
    if !env!("MIDGE_REVISION").is_empty() {
        log.info(format_args!("  Git:      [{}]", env!("MIDGE_REVISION")));
    }
    let settings = options.clone();
    let server = Server::start(options, log.clone(), move || {
        // Nobody listens any more when the server is ending anyway.
        let _ = events.send(Event::WorkerFailed);
    })
    .map_err(|error| error.to_string())?;
    log.info(format_args!("  Name:     {}", server.info().server_name));
    log.info(format_args!("  ID:       {}", server.info().server_id));
    log.info(format_args!("  Workers:  {}", server.worker_count()));
    for warning in &settings.warnings {
        log.warn(format_args!("{warning}"));
    }
    let files = Files::write(&settings, program, server.addresses())?;
    for address in server.addresses() {
        log.info(format_args!(
            "Listening for client connections on {address}"
        ));
    }
    if settings.host.is_none() && settings.credentials == Credentials::Open {
        log.info(format_args!(
            "Only this machine can connect; to let others in, give an address (-a 0.0.0.0) or \
             ask for credentials (--auth TOKEN, or --user and --pass)"
        ));
    }
    report_descriptor_limit(settings.connections_max, log);
    log.info(format_args!("Server is ready"));
    let has_failed = control(&server, &signals, log) == Ending::Failed;
    server.stop();
    files.remove();
    log.info(format_args!("Server Exiting.."));
    match has_failed {
        true => Err("The server cannot go on without one of its workers".to_owned()),
        false => Ok(()),
    }
}

/// What wakes the control thread.
enum Event {
    Signal(i32),
    WorkerFailed,
}

/// Why the server ends.
#[derive(PartialEq, Eq)]
enum Ending {
    Asked,
    Failed,
}

/// Does what signals ask for, until one of them ends the server.
fn control(server: &Server, events: &Receiver<Event>, log: &Logger) -> Ending {
    loop {
        match events.recv() {
            Ok(Event::WorkerFailed) => return Ending::Failed,
            Ok(Event::Signal(SIGHUP)) => log.error(format_args!(
                "can only reload config when a file is provided using -c or --config"
            )),
            Ok(Event::Signal(SIGUSR1)) => reopen(log),
            Ok(Event::Signal(SIGUSR2)) => {
                log.info(format_args!(
                    "Entering lame duck mode, stop accepting new clients"
                ));
                server.ease_away(|pause| lame_duck_pause(events, pause, log));
                return Ending::Asked;
            }
            Ok(Event::Signal(_)) | Err(_) => return Ending::Asked,
        }
    }
}

/// Waits in lame duck mode; `false` if the server is to end at once. Of the signals only SIGINT
/// does that then.
fn lame_duck_pause(events: &Receiver<Event>, pause: Duration, log: &Logger) -> bool {
    let until = Instant::now() + pause;
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Event::Signal(SIGUSR1)) => reopen(log),
            Ok(Event::Signal(SIGINT) | Event::WorkerFailed)
            | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Event::Signal(_)) => {}
        }
    }
}

fn reopen(log: &Logger) {
    log.reopen();
    log.info(format_args!("File log re-opened"));
}

/// A thread that turns signals into messages; it sleeps until one comes.
fn catch_signals() -> io::Result<(Sender<Event>, Receiver<Event>)> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
    let (sender, receiver) = mpsc::channel();
    let events = sender.clone();
    std::thread::Builder::new()
        .name("midge-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
    Ok((events, receiver))
}

/// Takes as many descriptors as the system lets us have: a connection is one. For the process to
/// call at its start; a library leaves the limits of its host alone.
pub fn raise_descriptor_limit() {
    if let Some(mut limit) = descriptor_limit()
        && limit.rlim_cur < limit.rlim_max
    {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit only reads the struct it is given, which lives here. Refused means that
        // we have fewer; accepting then pauses when they are used up.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

fn descriptor_limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit only writes the struct it is given, which lives here.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (result == 0).then_some(limit)
}

/// Descriptors that are no connections: epoll, wakers, listeners, log, signals.
const OWN_DESCRIPTORS: u64 = 32;

/// Says so when fewer connections fit than are allowed.
fn report_descriptor_limit(connections_max: usize, log: &Logger) {
    let Some(limit) = descriptor_limit() else {
        return;
    };
    let room = limit.rlim_cur.saturating_sub(OWN_DESCRIPTORS);
    if room < connections_max as u64 {
        log.info(format_args!(
            "About {room} connections fit into the limit of open files, fewer than \
             max_connections {connections_max}; raise it with ulimit -n before the start"
        ));
    }
}

/// Files that tell others about the process.
struct Files {
    ports: Option<PathBuf>,
}

impl Files {
    fn write(options: &Options, program: &str, addresses: &[SocketAddr]) -> Result<Files, String> {
        let pid = std::process::id();
        if let Some(path) = &options.pid_file {
            write_file(path, pid.to_string().as_bytes(), 0o600)
                .map_err(|error| format!("Could not write pidfile {}: {error}", path.display()))?;
        }
        let ports = options
            .ports_file_dir
            .as_ref()
            .map(|directory| directory.join(format!("{program}_{pid}.ports")));
        if let Some(path) = &ports {
            let urls: Vec<String> = addresses
                .iter()
                .map(|address| format!("nats://{address}"))
                .collect();
            let text = serde_json::json!({ "nats": urls }).to_string();
            write_file(path, text.as_bytes(), 0o666)
                .map_err(|error| format!("Error writing ports file {}: {error}", path.display()))?;
        }
        Ok(Files { ports })
    }

    /// The ports file goes with the process; the pid file stays, as the reference leaves it.
    fn remove(self) {
        if let Some(path) = self.ports {
            // Somebody else may have cleaned up already.
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes a file whole or not at all, so that nobody reads half of it.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Sends a signal to other servers (`--signal`).
pub fn send_signal(request: &SignalRequest, program: &str) -> ExitCode {
    let pids = match request.pids(program, Path::new("/proc"), std::process::id()) {
        Ok(pids) => pids,
        Err(error) => {
            say(format_args!("{program}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for pid in pids {
        // SAFETY: kill takes two numbers and touches no memory; `pids` gives none below 1, so no
        // process group is meant.
        if unsafe { libc::kill(pid, request.signal.number()) } != 0 {
            let error = io::Error::last_os_error();
            say(format_args!(
                "{program}: signal \"{}\" {pid}: {error}",
                request.signal.word()
            ));
            code = ExitCode::FAILURE;
        }
    }
    code
}
