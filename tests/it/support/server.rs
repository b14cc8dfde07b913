//! A server process of the test's own, on a free port, ended when the test ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Conn, PATIENCE, eventually};

/// The program under test.
pub fn server_program() -> PathBuf {
    match std::env::var_os("MIDGE_TEST_SERVER") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_midge").into(),
    }
}

/// Whether the program under test is nats-server: it takes most options from a file only.
pub fn is_reference() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        std::env::var_os("MIDGE_TEST_SERVER").is_some() && {
            let output = Command::new(server_program()).arg("-v").output();
            output
                .expect("the server under test runs")
                .stdout
                .starts_with(b"nats-server")
        }
    })
}

/// How a server is to be started.
#[derive(Default, Clone)]
pub struct Builder {
    options: Vec<(String, String)>,
    args: Vec<String>,
    workers: Option<u16>,
    open_files_max: Option<u32>,
    port: Option<u16>,
    has_unread_log: bool,
    has_no_address: bool,
}

impl Builder {
    /// Sets an option by its name in nats-server's configuration file.
    pub fn option(mut self, name: &str, value: impl ToString) -> Builder {
        self.options.push((name.to_owned(), value.to_string()));
        self
    }

    /// Passes a flag as it is.
    pub fn arg(mut self, arg: impl Into<String>) -> Builder {
        self.args.push(arg.into());
        self
    }

    /// The number of worker threads; nats-server has none and ignores it here.
    pub fn workers(mut self, count: u16) -> Builder {
        self.workers = Some(count);
        self
    }

    /// Starts the server under a limit of open files.
    pub fn open_files_max(mut self, count: u32) -> Builder {
        self.open_files_max = Some(count);
        self
    }

    /// A port of the test's choice instead of any free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = Some(port);
        self
    }

    /// Leaves standard error a pipe that nobody reads.
    pub fn unread_log(mut self) -> Builder {
        self.has_unread_log = true;
        self
    }

    /// Leaves the address to listen on to the server.
    pub fn no_address(mut self) -> Builder {
        self.has_no_address = true;
        self
    }

    /// The command, with `dir` for the files that belong to this server.
    fn command(&self, dir: &Path) -> Command {
        let mut args: Vec<String> = Vec::new();
        if !self.has_no_address {
            args.extend(["-a".into(), "127.0.0.1".into()]);
        }
        args.push("-p".into());
        args.push(self.port.map_or("-1".into(), |port| port.to_string()));
        args.push("--ports_file_dir".into());
        args.push(dir.display().to_string());
        if is_reference() {
            let file = dir.join("server.conf");
            std::fs::write(&file, reference_config(&self.options)).expect("the directory is ours");
            args.push("-c".into());
            args.push(file.display().to_string());
        } else {
            args.extend(self.workers.map(|count| format!("--workers={count}")));
            args.extend(
                self.options
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}")),
            );
        }
        args.extend(self.args.iter().cloned());
        match self.open_files_max {
            None => {
                let mut command = Command::new(server_program());
                command.args(args);
                command
            }
            Some(count) => {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("ulimit -n {count}; exec \"$0\" \"$@\""));
                command.arg(server_program()).args(args);
                command
            }
        }
    }

    /// Starts a server that is expected to stop by itself, and waits for that.
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = self.command(dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server program starts");
        let log = Log::follow(child.stderr.take().expect("a pipe"));
        let Some(status) = wait_exit(&mut child) else {
            let _ = child.kill();
            panic!("the server goes on instead of stopping");
        };
        log.wait(|log| log.is_ended);
        (status, log.text())
    }

    /// Starts the server and waits until it is ready.
    pub fn start(&self) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = self.command(dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server program starts");
        let stderr = child.stderr.take().expect("a pipe");
        let (log, unread) = if self.has_unread_log {
            (Log::default(), Some(stderr))
        } else {
            (Log::follow(stderr), None)
        };
        let mut server = Server {
            child,
            addr: ([127, 0, 0, 1], 0).into(),
            log,
            dir,
            unread,
            is_over: false,
        };
        server.addr = server.wait_ready(self.has_unread_log);
        server
    }
}

/// A running server.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    log: Log,
    dir: TempDir,
    unread: Option<ChildStderr>,
    is_over: bool,
}

impl Server {
    /// A server to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A server with `count` workers and nothing else said.
    pub fn with_workers(count: u16) -> Server {
        Server::builder().workers(count).start()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A connection that has read INFO.
    pub fn open(&self) -> Conn {
        Conn::open(self.addr)
    }

    /// A connection after CONNECT with verbose and pedantic off.
    pub fn client(&self) -> Conn {
        self.open().quiet()
    }

    /// A connection that subscribed, with the server's knowledge.
    pub fn subscriber(&self, arguments: &str) -> Conn {
        let mut conn = self.client();
        conn.subscribe(arguments);
        conn
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's own directory: ports file, and what a test puts there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a log line that holds `part`.
    pub fn wait_log(&self, part: &str) {
        let found = self
            .log
            .wait(|log| log.lines.iter().any(|line| line.contains(part)));
        assert!(found, "no log line with {part:?}");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers; the child is not waited for yet, so the id is its own.
        let result = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(result, 0, "the server is there to get signal {signal}");
    }

    /// Closes the reading end of a log pipe that nobody reads.
    pub fn close_log_pipe(&mut self) {
        assert!(self.unread.take().is_some(), "the log has a reader");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        !self.is_over && self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for the server to stop by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_exit(&mut self.child).expect("the server stops in time");
        self.is_over = true;
        status
    }

    /// Kills the server at once, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("our child");
        self.is_over = true;
    }

    /// The server must answer a new client.
    pub fn assert_healthy(&mut self) {
        assert!(self.is_running(), "the server is gone");
        let mut conn = self.client();
        conn.send(b"SUB health 1\r\nPUB health 2\r\nok\r\nPING\r\n");
        conn.expect(b"MSG health 1 2\r\nok\r\nPONG\r\n");
    }

    fn wait_ready(&mut self, by_ports_file: bool) -> SocketAddr {
        if by_ports_file {
            let mut addr = None;
            let found = eventually(PATIENCE, || {
                addr = ports_file_addr(self.dir.path());
                addr.is_some()
            });
            assert!(found, "no ports file");
            return addr.expect("just found");
        }
        self.log
            .wait(|log| log.is_ended || log.has("Server is ready"));
        let text = self.log.text();
        assert!(
            text.contains("Server is ready"),
            "the server did not start:\n{text}"
        );
        let listening = text.split("Listening for client connections on ").nth(1);
        let addr = listening.and_then(|rest| rest.split_ascii_whitespace().next());
        addr.and_then(|addr| addr.parse().ok())
            .expect("the log names host and port")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().collect();
            // A panic of the server first, with the beginning of its back trace.
            let panic = lines.iter().position(|line| line.contains("panicked at"));
            let panic = panic
                .map_or(&[][..], |at| &lines[at..lines.len().min(at + 40)])
                .join("\n");
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            eprintln!("--- from the server's log\n{panic}\n[...]\n{tail}\n---");
        }
    }
}

/// The first client address in a `*.ports` file of `dir`, once it is written whole.
pub fn ports_file_addr(dir: &Path) -> Option<SocketAddr> {
    let file = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let url = ports.get("nats")?.get(0)?.as_str()?.to_owned();
    url.strip_prefix("nats://")?.parse().ok()
}

fn wait_exit(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    eventually(PATIENCE, || {
        status = child.try_wait().expect("our child");
        status.is_some()
    });
    status
}

/// nats-server takes most options from a file only. Credentials live in a block of their own there.
fn reference_config(options: &[(String, String)]) -> String {
    let quote = |value: &str| match value.parse::<i64>() {
        Ok(_) => value.to_owned(),
        Err(_) if value == "true" || value == "false" => value.to_owned(),
        Err(_) => format!("\"{value}\""),
    };
    let mut top = String::from("# generated\ndebug: false\n");
    let mut authorization = String::new();
    for (name, value) in options {
        let (block, key) = match name.as_str() {
            "user" => (&mut authorization, "user"),
            "pass" => (&mut authorization, "password"),
            "auth" => (&mut authorization, "token"),
            "auth_timeout" => (&mut authorization, "timeout"),
            other => (&mut top, other),
        };
        block.push_str(&format!("{key}: {}\n", quote(value)));
    }
    if !authorization.is_empty() {
        top.push_str(&format!("authorization {{\n{authorization}}}\n"));
    }
    top
}

/// The log lines of a server, collected by a thread so that the pipe never fills.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<LogState>, Condvar)>);

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    is_ended: bool,
}

impl LogState {
    fn has(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }
}

impl Log {
    fn follow(stderr: ChildStderr) -> Log {
        let log = Log::default();
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                writer.0.0.lock().unwrap().lines.push(line);
                writer.0.1.notify_all();
            }
            writer.0.0.lock().unwrap().is_ended = true;
            writer.0.1.notify_all();
        });
        log
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// Waits until `condition` holds; false if it does not in time.
    fn wait(&self, condition: impl Fn(&LogState) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.0.0.lock().unwrap();
        while !condition(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}
