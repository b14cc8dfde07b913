//! Runs the dialogues of `tests/wire/*.txt` over real sockets: once as they are, once with every
//! byte in a write of its own, once cut at random. The same bytes must come back each time.
//!
//! `MIDGE_TEST_FILE=part-of-a-name` picks files, `MIDGE_TEST_SEED` repeats the random cuts, and
//! `MIDGE_TEST_SERVER` names another server. How a file is written is told in `tests/wire/README.md`.

mod info;
mod parse;
mod run;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support::Rng;

/// How the client's bytes are handed to the system.
#[derive(Clone, Copy)]
pub enum Cut {
    /// Consecutive lines of one connection in one write.
    Whole,
    /// A write for each byte.
    Bytes,
    /// Writes of random lengths.
    Random(u64),
}

impl Cut {
    /// Workers of the server for this run: which one a connection lands on must make no difference.
    fn workers(self) -> u16 {
        match self {
            Cut::Whole => 2,
            Cut::Bytes => 1,
            Cut::Random(_) => 4,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Whole => f.write_str("whole writes"),
            Cut::Bytes => f.write_str("one byte a write"),
            Cut::Random(seed) => write!(f, "cut at random, MIDGE_TEST_SEED={seed}"),
        }
    }
}

fn files() -> Vec<PathBuf> {
    let wanted = std::env::var("MIDGE_TEST_FILE").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("tests/wire exists")
        .map(|entry| entry.expect("tests/wire can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    files.sort();
    files
}

/// Every dialogue of every file holds, however the client's bytes are cut.
#[test]
fn dialogues_hold_however_they_are_cut() {
    let seed = Rng::seed_from_env();
    let mut jobs = VecDeque::new();
    for path in files() {
        let file = parse::File::read(&path).unwrap_or_else(|error| panic!("{error}"));
        for cut in [Cut::Whole, Cut::Bytes, Cut::Random(seed)] {
            jobs.push_back((file.clone(), cut));
        }
    }
    assert!(!jobs.is_empty(), "no file in tests/wire has that name");
    let jobs = Mutex::new(jobs);
    let failures = Mutex::new(Vec::new());
    // Most of the time is spent waiting for an answer, so more threads than cores.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((file, cut)) = jobs.lock().unwrap().pop_front() else {
                        return;
                    };
                    let failed = run::run_file(&file, cut);
                    failures.lock().unwrap().extend(failed);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failed:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// The runner itself notices a wrong byte, a missing close and extra output, and names the line.
#[test]
fn a_wrong_expectation_is_reported_with_its_line() {
    let cases = [
        ("C: PING\\r\\n\nS: PONK\\r\\n", 3, "differing at byte 3"),
        (
            "C: PING\\r\\n\nS: (closed)",
            3,
            "expected the end of the connection",
        ),
        ("C: SUB a 1\\r\\n\nS: (nothing)", 3, "+OK"),
        ("S: INFO {\"proto\": 2}", 2, "proto"),
        ("S: INFO {\"max_payload\": \"<absent>\"}", 2, "max_payload"),
    ];
    for (dialogue, line, part) in cases {
        let text = format!("== wrong on purpose\n{dialogue}\n");
        let file = parse::File::parse("made-up.txt", &text).expect("it can be read");
        let failures = run::run_file(&file, Cut::Whole);
        assert_eq!(failures.len(), 1, "{dialogue}");
        let place = format!("made-up.txt:{line}: ");
        assert!(
            failures[0].starts_with(&place) && failures[0].contains(part),
            "{}",
            failures[0]
        );
    }
}

/// What cannot be understood in a file is an error with its line, not a dialogue that passes.
#[test]
fn a_file_with_a_mistake_is_refused() {
    let cases = [
        ("C: PING\\r\\n", 1),
        ("== t\nC; PING", 2),
        ("== t\nS: (closing)", 2),
        ("== t\nC: a\\q", 2),
        ("== t\nS: INFO {\"a\": }", 2),
        ("== t\n# option: max_payload", 2),
        ("== t\nC: PING\\r\\n\n# option: max_payload = 1", 3),
        ("== t\n\n== u\nC: PING\\r\\n", 1),
    ];
    for (text, line) in cases {
        let error = parse::File::parse("f.txt", text)
            .err()
            .unwrap_or_else(|| panic!("{text}"));
        assert!(error.starts_with(&format!("f.txt:{line}: ")), "{error}");
    }
}
