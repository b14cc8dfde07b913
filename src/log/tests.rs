//! The log as its callers see it: what arrives, what is dropped, and that nobody waits.

use std::io::{Read as _, pipe};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn untimed() -> LogOptions {
    LogOptions {
        time: false,
        ..LogOptions::default()
    }
}

/// An output that hands over what it is given, and that fails as often as it is told to.
struct Recorder {
    written: Sender<Vec<u8>>,
    failures: Vec<(usize, io::ErrorKind)>,
}

impl io::Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.failures.pop() {
            // Takes a part first, then fails.
            Some((0, kind)) => return Err(kind.into()),
            Some((part, kind)) => {
                self.failures.push((0, kind));
                part.min(bytes.len())
            }
            None => bytes.len(),
        };
        let _ = self.written.send(bytes[..count].to_vec());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn recorded(failures: &[(usize, io::ErrorKind)]) -> (Logger, Receiver<Vec<u8>>) {
    let (written, received) = channel();
    let recorder = Recorder {
        written,
        failures: failures.iter().rev().copied().collect(),
    };
    (Logger::to_output(Box::new(recorder), &untimed()), received)
}

/// Everything received so far, with the process id replaced.
fn text_of(received: &Receiver<Vec<u8>>) -> String {
    let bytes: Vec<u8> = received.try_iter().flatten().collect();
    let pid = format!("[{}]", std::process::id());
    String::from_utf8(bytes).unwrap().replace(&pid, "[pid]")
}

#[test]
fn lines_come_in_order_and_the_thread_starts_with_the_first() {
    let (logger, received) = recorded(&[]);
    let Sink::Queue(queue) = &logger.inner.sink else {
        panic!("no queue");
    };
    assert!(!queue.is_started());
    logger.info(format_args!("one {}", 1));
    assert!(queue.is_started());
    logger
        .clone()
        .error(format_args!("two\n[pid] [FTL] forged"));
    logger.fatal(format_args!("three"));
    assert_eq!(
        text_of(&received),
        "[pid] [INF] one 1\n[pid] [ERR] two\\n[pid] [FTL] forged\n[pid] [FTL] three\n"
    );
}

/// The receiver sees the sender go only when the thread has ended and freed its output.
#[test]
fn the_last_clone_ends_the_thread_after_the_last_line() {
    let (logger, received) = recorded(&[]);
    let clone = logger.clone();
    drop(logger);
    clone.info(format_args!("still here"));
    drop(clone);
    let mut text = Vec::new();
    let deadline = Instant::now() + LONG;
    while let Ok(part) = received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        text.extend(part);
    }
    assert!(Instant::now() < deadline, "the writer thread did not end");
    assert!(text.ends_with(b"[INF] still here\n"));
}

#[test]
fn levels_that_are_off_are_not_formatted() {
    /// Fails the test when it is formatted.
    struct Costly;
    impl fmt::Display for Costly {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("formatted");
        }
    }
    let evaluated = AtomicBool::new(false);
    let evaluate = || evaluated.swap(true, Ordering::Relaxed);

    let (logger, received) = recorded(&[]);
    logger.debug(format_args!("{Costly}"));
    logger.trace(format_args!("{Costly}"));
    crate::log!(logger, Trace, "{}", evaluate());
    assert!(!evaluated.load(Ordering::Relaxed));

    logger.set_verbosity(false, true);
    crate::log!(logger, Debug, "{Costly}");
    crate::log!(logger, Trace, "{}", evaluate());
    assert!(logger.trace_enabled() && !logger.debug_enabled());
    assert!(logger.flush(LONG));
    assert_eq!(text_of(&received), "[pid] [TRC] false\n");
}

/// A pipe that nobody reads holds 64 KiB and the queue its bound; everything beyond is dropped, and
/// each call returns (the test would hang otherwise). When the pipe is read again, what was accepted
/// is all there, in order, and the notice has the number of the rest.
#[test]
fn a_pipe_that_nobody_reads_blocks_nobody() {
    let (mut reader, writer) = pipe().unwrap();
    let logger = Logger::to_output(Box::new(writer), &untimed());
    let sent = 20_000_u64;
    let padding = "x".repeat(80);
    for number in 0..sent {
        logger.info(format_args!("{padding} {number}"));
    }
    let dropped = logger.dropped();
    assert!(dropped > 0 && dropped < sent, "{dropped} of {sent}");
    assert!(!logger.flush(Duration::from_millis(1)));

    let drain = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert!(logger.flush(LONG));
    logger.info(format_args!("awake"));
    assert_eq!(logger.dropped(), dropped);
    drop(logger);

    let text = drain.join().unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .filter(|line| line.contains(&padding))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.len() as u64, sent - dropped);
    let told: u64 = text
        .lines()
        .filter(|line| line.ends_with(" dropped: the log's reader is too slow"))
        .map(|line| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(told, dropped);
    assert!(text.ends_with("[INF] awake\n"));
}

/// An output that says when a write begins and holds it until it is let go.
struct Gate {
    entered: Sender<()>,
    open: Receiver<()>,
    recorder: Recorder,
}

impl io::Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        // An error means that the gate is open for good.
        let _ = self.open.recv();
        self.recorder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that finds room again is preceded by the number of those that did not.
#[test]
fn the_next_accepted_line_tells_how_many_were_dropped() {
    let (written, received) = channel();
    let (entered, enters) = channel();
    let (opener, open) = channel();
    let recorder = Recorder {
        written,
        failures: Vec::new(),
    };
    let gate = Gate {
        entered,
        open,
        recorder,
    };
    let logger = Logger::to_output(Box::new(gate), &untimed());
    logger.info(format_args!("first"));
    enters.recv_timeout(LONG).unwrap();
    // The writer holds the first line now, so nothing leaves the queue from here on.
    let line = "y".repeat(limits::LOG_LINE_BYTES_MAX / 2);
    while logger.dropped() < 3 {
        logger.info(format_args!("{line}"));
    }
    // A short line fits where a long one did not.
    logger.info(format_args!("short"));
    assert_eq!(logger.dropped(), 3);
    drop(opener);
    assert!(logger.flush(LONG));
    let text = text_of(&received);
    let tail = "[pid] [WRN] 3 log lines dropped: the log's reader is too slow\n[pid] [INF] short\n";
    assert!(text.ends_with(tail), "{}", &text[text.len() - 200..]);
}

#[test]
fn a_fatal_line_finds_room_in_a_full_queue() {
    let (mut reader, writer) = pipe().unwrap();
    let logger = Logger::to_output(Box::new(writer), &untimed());
    while logger.dropped() == 0 {
        logger.info(format_args!("{}", "z".repeat(1000)));
    }
    logger.log(Level::Fatal, format_args!("the end"));
    assert_eq!(logger.dropped(), 1);
    drop(logger);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("[FTL] the end\n"));
}

/// A refused write costs its lines, is told before the next line that succeeds, and a line that was
/// cut in the middle does not glue to the next.
#[test]
fn a_full_disk_is_survived_and_told() {
    let full = io::ErrorKind::StorageFull;
    let (logger, received) = recorded(&[(0, full), (0, full), (9, full)]);
    let mut text = String::new();
    for word in ["first", "second", "third", "fourth", "fifth"] {
        logger.info(format_args!("{word}"));
        assert!(logger.flush(LONG));
        text += &text_of(&received);
    }
    // The third write got nine bytes of the notice before it failed.
    let lost = text.split_once('\n').unwrap().1;
    assert_eq!(
        lost,
        "[pid] [WRN] 3 log lines lost, could not be written: no storage space\n\
         [pid] [INF] fourth\n[pid] [INF] fifth\n"
    );
}

#[test]
fn a_closed_pipe_is_survived() {
    let (reader, writer) = pipe().unwrap();
    let logger = Logger::to_output(Box::new(writer), &untimed());
    drop(reader);
    for _ in 0..3 {
        logger.info(format_args!("into the void"));
        assert!(logger.flush(LONG));
    }
    assert_eq!(logger.dropped(), 0);
}

#[test]
fn non_blocking_and_interrupted_outputs_are_retried() {
    let (logger, received) = recorded(&[
        (0, io::ErrorKind::Interrupted),
        (3, io::ErrorKind::WouldBlock),
        (0, io::ErrorKind::WouldBlock),
    ]);
    logger.info(format_args!("whole"));
    assert!(logger.flush(LONG));
    assert_eq!(text_of(&received), "[pid] [INF] whole\n");
}

/// Rename and reopen, as logrotate does it: every line is in one of the two files.
#[test]
fn reopen_follows_a_rename_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("midge.log");
    let rotated = folder.path().join("midge.log.1");
    let logger = Logger::open(&LogOptions {
        file: Some(path.clone()),
        ..untimed()
    })
    .unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");

    logger.info(format_args!("before"));
    assert!(logger.flush(LONG));
    std::fs::rename(&path, &rotated).unwrap();
    logger.info(format_args!("between"));
    assert!(logger.flush(LONG));
    logger.reopen();
    logger.info(format_args!("after"));
    assert!(logger.flush(LONG));

    let old = std::fs::read_to_string(&rotated).unwrap();
    let new = std::fs::read_to_string(&path).unwrap();
    assert!(old.ends_with("[INF] between\n") && old.contains("before"));
    assert!(new.contains("[INF] File log re-opened\n"), "{new}");
    assert!(new.ends_with("[INF] after\n"), "{new}");
}

#[test]
fn a_failed_reopen_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("midge.log");
    let rotated = folder.path().join("midge.log.1");
    let logger = Logger::open(&LogOptions {
        file: Some(path.clone()),
        ..untimed()
    })
    .unwrap();
    std::fs::rename(&path, &rotated).unwrap();
    std::fs::create_dir(&path).unwrap();
    logger.reopen();
    logger.info(format_args!("kept"));
    assert!(logger.flush(LONG));
    let old = std::fs::read_to_string(&rotated).unwrap();
    assert!(old.contains("could not be re-opened"), "{old}");
    assert!(old.ends_with("[INF] kept\n"));
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = Logger::open(&LogOptions {
        file: Some(folder.path().join("missing").join("midge.log")),
        ..LogOptions::default()
    })
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_callback_gets_levels_and_escaped_text() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_callback = seen.clone();
    let logger = Logger::callback(Box::new(move |level, text| {
        seen_by_callback
            .lock()
            .unwrap()
            .push((level, text.to_owned()));
    }));
    logger.warn(format_args!("a\nb"));
    logger.debug(format_args!("off"));
    logger.reopen();
    assert!(logger.flush(Duration::ZERO));
    assert_eq!(*seen.lock().unwrap(), [(Level::Warn, "a\\nb".to_owned())]);
}

#[test]
fn long_lines_are_cut_between_characters() {
    let bound = limits::LOG_LINE_BYTES_MAX;
    let fits = "a".repeat(bound);
    assert_eq!(bounded_text(format_args!("{fits}")), fits);
    let cut = bounded_text(format_args!("a{}", "ü".repeat(bound)));
    assert_eq!(cut.len(), bound - 1 + 3);
    assert!(cut.ends_with("ü..."));
    let stopped = bounded_text(format_args!("{fits}{}{}", "b", "c"));
    assert_eq!(stopped, fits + "...");
}
