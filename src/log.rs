//! The log: levels, line formats, and a writer that never makes anybody wait.
//!
//! A [`Logger`] is a handle that is cloned to whoever has something to say; there is no global one,
//! so several servers in one process each have their own. A line is handed to a queue that is bounded
//! in bytes; one thread, started by the first line, formats and writes. When the log's reader (a
//! pipe, a slow disk) does not keep up, the queue fills, further lines are dropped and counted, and
//! the next line that fits is preceded by their number.
//!
//! Always holds: no call but [`Logger::flush`] and [`Logger::fatal`] waits for the reader, and those
//! two wait a bounded time; one call makes one line, whatever bytes its text contains; lines appear
//! in the order of the calls.

#![forbid(unsafe_code)]

mod line;
mod writer;

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::limits;
use line::Style;
use writer::{Destination, Writer};

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Protocol lines; written only when asked for.
    Trace,
    /// What a developer wants to know; written only when asked for.
    Debug,
    /// What an operator wants to know.
    Info,
    /// Something is odd, and dealt with.
    Warn,
    /// Something failed.
    Error,
    /// The process ends because of it.
    Fatal,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// `[pid] date time [LVL] text`, as nats-server writes it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What goes into the log, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// File to append to; standard error when absent.
    pub file: Option<PathBuf>,
    /// Line format.
    pub format: LogFormat,
    /// Whether lines of level DBG are written.
    pub debug: bool,
    /// Whether protocol lines (level TRC) are written.
    pub trace: bool,
    /// Whether lines carry date and time.
    pub time: bool,
    /// Whether date and time are UTC instead of local time. JSON lines are always in UTC.
    pub time_utc: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            file: None,
            format: LogFormat::Text,
            debug: false,
            trace: false,
            time: true,
            time_utc: false,
        }
    }
}

/// What a program that embeds midge gets the log lines with.
pub type Callback = Box<dyn Fn(Level, &str) + Send + Sync>;

/// A handle to one log; clones write to the same one. The last clone to go ends the writer thread
/// once it has written what is queued.
#[derive(Clone)]
pub struct Logger {
    inner: Arc<Inner>,
}

struct Inner {
    debug: AtomicBool,
    trace: AtomicBool,
    sink: Sink,
}

enum Sink {
    Callback(Callback),
    Queue(writer::Queue),
}

impl Logger {
    /// A log as `options` describe it. A file is opened (created with mode 0640) before this
    /// returns, so that a bad path is an error at start.
    pub fn open(options: &LogOptions) -> io::Result<Logger> {
        let destination = match &options.file {
            Some(path) => Destination::file(path)?,
            None => Destination::stderr()?,
        };
        Ok(Logger::with_destination(destination, options))
    }

    /// A log that hands each line to `callback`, on the thread that logs: without a queue, so the
    /// callback must not block. Control characters are escaped already. Debug and trace are off
    /// until [`Logger::set_verbosity`].
    pub fn callback(callback: Callback) -> Logger {
        Logger::with_sink(Sink::Callback(callback), false, false)
    }

    /// A log that goes to `output`; the thread that writes may block in it for any time.
    pub fn to_output(output: Box<dyn io::Write + Send>, options: &LogOptions) -> Logger {
        Logger::with_destination(Destination::Other(output), options)
    }

    fn with_destination(destination: Destination, options: &LogOptions) -> Logger {
        let style = Style {
            format: options.format,
            pid: std::process::id(),
            time: options.time,
            time_utc: options.time_utc,
            colors: destination.wants_colors(),
        };
        let queue = writer::Queue::new(Writer::new(destination, style));
        Logger::with_sink(Sink::Queue(queue), options.debug, options.trace)
    }

    fn with_sink(sink: Sink, debug: bool, trace: bool) -> Logger {
        Logger {
            inner: Arc::new(Inner {
                debug: AtomicBool::new(debug),
                trace: AtomicBool::new(trace),
                sink,
            }),
        }
    }

    /// Whether DBG lines are written; one relaxed load.
    pub fn debug_enabled(&self) -> bool {
        self.inner.debug.load(Ordering::Relaxed)
    }

    /// Whether TRC lines are written; one relaxed load.
    pub fn trace_enabled(&self) -> bool {
        self.inner.trace.load(Ordering::Relaxed)
    }

    /// Switches DBG and TRC lines on or off, for all clones.
    pub fn set_verbosity(&self, debug: bool, trace: bool) {
        self.inner.debug.store(debug, Ordering::Relaxed);
        self.inner.trace.store(trace, Ordering::Relaxed);
    }

    /// Whether lines of `level` are written.
    pub fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Trace => self.trace_enabled(),
            Level::Debug => self.debug_enabled(),
            _ => true,
        }
    }

    /// Writes one line. Nothing is formatted if `level` is off; where even computing the arguments
    /// costs something, use [`log!`](crate::log!), which does not evaluate them then.
    pub fn log(&self, level: Level, text: fmt::Arguments) {
        if !self.is_enabled(level) {
            return;
        }
        let text = bounded_text(text);
        match &self.inner.sink {
            Sink::Callback(callback) => callback(level, &line::escape(&text)),
            Sink::Queue(queue) => queue.push(SystemTime::now(), level, text),
        }
    }

    /// A line of level TRC.
    pub fn trace(&self, text: fmt::Arguments) {
        self.log(Level::Trace, text);
    }

    /// A line of level DBG.
    pub fn debug(&self, text: fmt::Arguments) {
        self.log(Level::Debug, text);
    }

    /// A line of level INF.
    pub fn info(&self, text: fmt::Arguments) {
        self.log(Level::Info, text);
    }

    /// A line of level WRN.
    pub fn warn(&self, text: fmt::Arguments) {
        self.log(Level::Warn, text);
    }

    /// A line of level ERR.
    pub fn error(&self, text: fmt::Arguments) {
        self.log(Level::Error, text);
    }

    /// A line of level FTL, and a bounded wait until it is written, since the process is about to
    /// end. It finds room even in a full queue.
    pub fn fatal(&self, text: fmt::Arguments) {
        self.log(Level::Fatal, text);
        self.flush(Duration::from_millis(limits::LOG_FATAL_FLUSH_MS));
    }

    /// Waits until everything logged so far has been handed to the system, at most for `timeout`;
    /// says whether it has. Dropped lines that no later line has reported are reported now.
    pub fn flush(&self, timeout: Duration) -> bool {
        match &self.inner.sink {
            Sink::Callback(_) => true,
            Sink::Queue(queue) => queue.flush(timeout),
        }
    }

    /// Asks the writer to close and reopen the log file, as after a rename by logrotate; no line is
    /// lost. If that fails the old file stays in use and says so. Nothing happens for other logs.
    pub fn reopen(&self) {
        if let Sink::Queue(queue) = &self.inner.sink {
            queue.reopen();
        }
    }

    /// Lines dropped since the start because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        match &self.inner.sink {
            Sink::Callback(_) => 0,
            Sink::Queue(queue) => queue.dropped(),
        }
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger")
            .field("debug", &self.debug_enabled())
            .field("trace", &self.trace_enabled())
            .finish_non_exhaustive()
    }
}

/// Logs at a level (a variant of [`Level`](crate::log::Level)) without evaluating the arguments when
/// that level is off: `log!(logger, Debug, "closed: {}", reason())`.
#[doc(hidden)]
#[macro_export]
macro_rules! log {
    ($logger:expr, $level:ident, $($text:tt)+) => {{
        let logger: &$crate::log::Logger = &$logger;
        if logger.is_enabled($crate::log::Level::$level) {
            logger.log($crate::log::Level::$level, format_args!($($text)+));
        }
    }};
}

/// Formats `text` up to the bound of a line; what was cut off is marked by three dots.
fn bounded_text(text: fmt::Arguments) -> String {
    /// Refuses what no longer fits, which ends the formatting early.
    struct Bounded(String);

    impl fmt::Write for Bounded {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = limits::LOG_LINE_BYTES_MAX - self.0.len();
            if part.len() <= room {
                self.0.push_str(part);
                return Ok(());
            }
            self.0.push_str(&part[..char_boundary_before(part, room)]);
            Err(fmt::Error)
        }
    }

    let mut bounded = Bounded(String::new());
    match bounded.write_fmt(text) {
        Ok(()) => bounded.0,
        Err(fmt::Error) => bounded.0 + "...",
    }
}

/// The last place to cut `text` at or before `index`; the standard library's `floor_char_boundary`
/// is younger than the Rust version promised.
fn char_boundary_before(text: &str, index: usize) -> usize {
    (0..=index)
        .rev()
        .find(|index| text.is_char_boundary(*index))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
