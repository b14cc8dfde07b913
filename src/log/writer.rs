//! The queue of lines, and the thread that writes them.
//!
//! Two locks: `state` is held for a few instructions by everybody; `writer` is held by the writer
//! thread for its whole life and by nobody else. The bytes of a line count until it is written, so
//! that the bound covers the batch in a blocked write too.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::line::Style;
use super::{Level, limits};

/// One line that waits, not yet formatted.
struct Entry {
    at: SystemTime,
    level: Level,
    text: String,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Entry>() + self.text.len()
    }
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// Of the entries and of the batch that is being written.
    bytes: usize,
    /// Lines dropped since the last line that told their number.
    untold: u64,
    dropped: u64,
    reopen: bool,
    is_started: bool,
    is_writing: bool,
    is_closed: bool,
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Queues the line that tells how many were dropped. It may exceed the bound, by one line.
    fn push_notice(&mut self, at: SystemTime) {
        if self.untold > 0 {
            let lines = lines(self.untold);
            self.untold = 0;
            self.push(Entry {
                at,
                level: Level::Warn,
                text: format!("{lines} dropped: the log's reader is too slow"),
            });
        }
    }

    fn has_work(&self) -> bool {
        !self.entries.is_empty() || self.reopen
    }
}

struct Shared {
    state: Mutex<State>,
    /// There is something to write, or the log is closed.
    work: Condvar,
    /// Everything is written.
    idle: Condvar,
    writer: Mutex<Writer>,
}

impl Shared {
    /// A panic while this lock is held leaves the state usable: every change is complete in itself.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers' end; dropping it ends the thread after a last batch.
pub(super) struct Queue {
    shared: Arc<Shared>,
}

impl Queue {
    pub fn new(writer: Writer) -> Queue {
        Queue {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                idle: Condvar::new(),
                writer: Mutex::new(writer),
            }),
        }
    }

    /// Queues a line, or drops and counts it. A fatal line is let in past the bound: the process is
    /// about to end, so there are few of them.
    pub fn push(&self, at: SystemTime, level: Level, text: String) {
        let entry = Entry { at, level, text };
        let mut state = self.shared.state();
        let bound = match level {
            Level::Fatal => 2 * limits::LOG_QUEUE_BYTES_MAX,
            _ => limits::LOG_QUEUE_BYTES_MAX,
        };
        if state.bytes + entry.bytes() > bound {
            state.untold += 1;
            state.dropped += 1;
            return;
        }
        state.push_notice(at);
        state.push(entry);
        self.wake(state);
    }

    pub fn flush(&self, timeout: Duration) -> bool {
        // A timeout too long to be counted is as good as a day.
        let day = Duration::from_secs(86_400);
        let deadline = Instant::now() + timeout.min(day);
        let mut state = self.shared.state();
        state.push_notice(SystemTime::now());
        if state.has_work() {
            self.wake(state);
            state = self.shared.state();
        }
        while state.has_work() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub fn reopen(&self) {
        let mut state = self.shared.state();
        state.reopen = true;
        self.wake(state);
    }

    pub fn dropped(&self) -> u64 {
        self.shared.state().dropped
    }

    /// Wakes the writer thread, or starts it. If the system has no thread to give, the lines wait
    /// (bounded) and the next one tries again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.is_started {
            let sleeps = !state.is_writing;
            drop(state);
            if sleeps {
                self.shared.work.notify_one();
            }
            return;
        }
        let shared = self.shared.clone();
        let spawned = thread::Builder::new()
            .name("midge-log".into())
            .spawn(move || run(&shared));
        state.is_started = spawned.is_ok();
    }

    #[cfg(test)]
    pub fn is_started(&self) -> bool {
        self.shared.state().is_started
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.push_notice(SystemTime::now());
        state.is_closed = true;
        drop(state);
        self.shared.work.notify_one();
    }
}

/// The writer thread: sleeps without a timeout, takes all that is queued, writes it.
fn run(shared: &Shared) {
    let mut writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = shared.state();
    loop {
        if !state.has_work() {
            if state.is_closed {
                return;
            }
            let waited = shared.work.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let batch = std::mem::take(&mut state.entries);
        let reopen = std::mem::take(&mut state.reopen);
        state.is_writing = true;
        drop(state);

        if reopen {
            writer.reopen();
        }
        writer.write_batch(batch, |bytes| shared.state().bytes -= bytes);

        state = shared.state();
        state.is_writing = false;
        shared.idle.notify_all();
    }
}

/// Where lines go.
pub(super) enum Destination {
    /// A duplicate of standard error: written without the lock of `std::io::stderr`, which a panic
    /// message on another thread would otherwise wait for while this one is blocked.
    Stderr(File),
    File(File, PathBuf),
    Other(Box<dyn io::Write + Send>),
}

impl Destination {
    pub fn stderr() -> io::Result<Destination> {
        let duplicate = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Destination::Stderr(duplicate.into()))
    }

    pub fn file(path: &Path) -> io::Result<Destination> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?;
        Ok(Destination::File(file, path.to_owned()))
    }

    /// Only a person at a terminal wants colours, and not one who has asked every program for none.
    pub fn wants_colors(&self) -> bool {
        match self {
            Destination::Stderr(file) => {
                file.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
            }
            _ => false,
        }
    }

    fn output(&mut self) -> &mut dyn io::Write {
        match self {
            Destination::Stderr(file) | Destination::File(file, _) => file,
            Destination::Other(output) => output,
        }
    }

    /// Writes all of `bytes`; on failure says how many were written before it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        let mut pause_ms = 1;
        while written < bytes.len() {
            match self.output().write(&bytes[written..]) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    pause_ms = 1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A parent process may have made our standard error non-blocking. Nobody waits for
                // this thread, so it may look again now and then.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(pause_ms));
                    pause_ms = (pause_ms * 2).min(100);
                }
                Err(error) => return Err((written, error)),
            }
        }
        self.output().flush().map_err(|error| (written, error))
    }
}

/// Bytes formatted before they are written, so that escaping cannot multiply a whole queue.
const CHUNK_BYTES: usize = 32 * 1024;

/// The writing end: formats batches, survives a full disk and a closed pipe.
pub(super) struct Writer {
    destination: Destination,
    style: Style,
    /// Lines that the destination refused since it last took one, and why.
    lost: u64,
    lost_because: Option<io::Error>,
    /// The last write ended inside a line.
    is_mid_line: bool,
}

impl Writer {
    pub fn new(destination: Destination, style: Style) -> Writer {
        Writer {
            destination,
            style,
            lost: 0,
            lost_because: None,
            is_mid_line: false,
        }
    }

    /// Writes `batch`; `release` gets the bytes of its entries as soon as they are written.
    fn write_batch(&mut self, batch: Vec<Entry>, mut release: impl FnMut(usize)) {
        let mut chunk = String::new();
        let mut bytes = 0;
        for entry in batch {
            self.style
                .write_line(&mut chunk, entry.at, entry.level, &entry.text);
            bytes += entry.bytes();
            if chunk.len() >= CHUNK_BYTES {
                self.write_chunk(&chunk);
                chunk.clear();
                release(std::mem::take(&mut bytes));
            }
        }
        if !chunk.is_empty() {
            self.write_chunk(&chunk);
            release(bytes);
        }
    }

    /// Writes whole lines. What fails is counted, and told before the next chunk that succeeds.
    fn write_chunk(&mut self, chunk: &str) {
        let mut text = String::new();
        if self.is_mid_line {
            text.push('\n');
        }
        if let Some(error) = &self.lost_because {
            let notice = format!("{} lost, could not be written: {error}", lines(self.lost));
            self.style
                .write_line(&mut text, SystemTime::now(), Level::Warn, &notice);
        }
        let chunk_start = text.len();
        text.push_str(chunk);

        match self.destination.write(text.as_bytes()) {
            Ok(()) => {
                self.lost = 0;
                self.lost_because = None;
                self.is_mid_line = false;
            }
            Err((written, error)) => {
                if written > chunk_start {
                    self.lost = 0;
                }
                let unwritten = &text.as_bytes()[written.max(chunk_start)..];
                self.lost += unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.lost_because = Some(error);
                if written > 0 {
                    self.is_mid_line = text.as_bytes()[written - 1] != b'\n';
                }
            }
        }
    }

    fn reopen(&mut self) {
        let Destination::File(_, path) = &self.destination else {
            return;
        };
        let (level, text) = match Destination::file(path) {
            Ok(destination) => {
                self.destination = destination;
                self.is_mid_line = false;
                (Level::Info, "File log re-opened".to_owned())
            }
            Err(error) => (
                Level::Error,
                format!(
                    "Log file {} could not be re-opened, the old one stays in use: {error}",
                    path.display()
                ),
            ),
        };
        let mut line = String::new();
        self.style
            .write_line(&mut line, SystemTime::now(), level, &text);
        self.write_chunk(&line);
    }
}

fn lines(count: u64) -> String {
    match count {
        1 => "1 log line".to_owned(),
        _ => format!("{count} log lines"),
    }
}
