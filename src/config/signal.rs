//! `--signal`: which process a signal is for. Sending it is the business of `server`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use super::ArgsError;
use super::table::CLIENT_COMMANDS;

/// What a running server can be told; the words are those of nats-server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Lame duck: ease the clients away, then end.
    LameDuck,
    /// End cleanly, as from the keyboard.
    Quit,
    /// End cleanly.
    Term,
    /// End at once.
    Stop,
    /// Close and reopen the log file.
    Reopen,
}

impl Signal {
    /// All of them, in the order of help texts.
    const ALL: [Signal; 5] = [
        Signal::LameDuck,
        Signal::Quit,
        Signal::Term,
        Signal::Stop,
        Signal::Reopen,
    ];

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Signal::LameDuck => "ldm",
            Signal::Quit => "quit",
            Signal::Term => "term",
            Signal::Stop => "stop",
            Signal::Reopen => "reopen",
        }
    }

    /// The number to send. Source: core-protocol section 6.
    pub fn number(self) -> i32 {
        match self {
            Signal::LameDuck => libc::SIGUSR2,
            Signal::Quit => libc::SIGINT,
            Signal::Term => libc::SIGTERM,
            Signal::Stop => libc::SIGKILL,
            Signal::Reopen => libc::SIGUSR1,
        }
    }
}

/// A signal and whom it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalRequest {
    /// The signal.
    pub signal: Signal,
    /// Process id, file that contains one, or beginning of an id followed by `*`; the only other
    /// process of the same name when absent.
    pub target: Option<OsString>,
}

impl SignalRequest {
    /// Reads `word[=target]`; `None` if no signal has that name.
    pub(super) fn parse(value: &OsStr) -> Option<SignalRequest> {
        let (word, target) = super::args::split_equals(value);
        let signal = Signal::ALL
            .into_iter()
            .find(|signal| word == signal.word())?;
        let target = target.filter(|target| !target.is_empty());
        Some(SignalRequest {
            signal,
            target: target.map(OsStr::to_owned),
        })
    }

    /// What `--signal` takes, for messages.
    pub(super) fn expects() -> String {
        let words = Signal::ALL.map(Signal::word).join(", ");
        format!("one of {words}, alone or followed by =<pid>, =<pid file> or =<prefix>*")
    }

    /// The processes to send to. `program` is the name looked for when no id was given, `proc` the
    /// place where the system lists processes (`/proc`), `own` the asking process, which is left
    /// out. Never an id below 1, which would mean a whole group.
    ///
    /// The texts of errors are those of nats-server and end the process with code 1.
    pub fn pids(&self, program: &str, proc: &Path, own: u32) -> Result<Vec<i32>, ArgsError> {
        let error = |text: String| Err(ArgsError::Conflict(text));
        let Some(target) = &self.target else {
            let pids = processes(proc, program, own);
            return match pids.len() {
                0 => error(format!("no {program} processes running")),
                1 => Ok(pids),
                _ => {
                    let list: String = pids.iter().map(|pid| format!("\n{pid}")).collect();
                    error(format!("multiple {program} processes running:{list}"))
                }
            };
        };
        let text = target.to_string_lossy();
        if let Some(prefix) = text.strip_suffix('*') {
            if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
                return error(format!("invalid pid: {}", prefix.escape_debug()));
            }
            let mut pids = processes(proc, program, own);
            pids.retain(|pid| pid.to_string().starts_with(prefix));
            return Ok(pids);
        }
        if let Some(pid) = parse_pid(&text) {
            return Ok(vec![pid]);
        }
        // Differs: a line feed after the number in the file is fine.
        let named = fs::read_to_string(target).unwrap_or_else(|_| text.into_owned());
        match parse_pid(named.trim()) {
            Some(pid) => Ok(vec![pid]),
            None => error(format!("invalid pid: {}", named.trim().escape_debug())),
        }
    }
}

fn parse_pid(text: &str) -> Option<i32> {
    text.parse().ok().filter(|pid| *pid > 0)
}

/// Bytes of a name that the kernel keeps in `comm`.
const COMM_BYTES_MAX: usize = 15;

/// Ids of the servers called `program` that `proc` lists, ascending, without `own`. A client tool
/// has the same name but a command after it, a finished process has no command line: neither counts.
fn processes(proc: &Path, program: &str, own: u32) -> Vec<i32> {
    let name = &program.as_bytes()[..program.len().min(COMM_BYTES_MAX)];
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let mut pids: Vec<i32> = entries
        .flatten()
        .filter(|entry| {
            let comm = fs::read(entry.path().join("comm")).unwrap_or_default();
            comm.strip_suffix(b"\n").unwrap_or(&comm) == name
        })
        .filter(|entry| {
            let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = command_line.split(|byte| *byte == 0);
            let has_name = words.next().is_some_and(|word| !word.is_empty());
            let command = words.next().unwrap_or_default();
            has_name
                && !CLIENT_COMMANDS
                    .iter()
                    .any(|client| client.as_bytes() == command)
        })
        .filter_map(|entry| parse_pid(entry.file_name().to_str()?))
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: &str) -> SignalRequest {
        SignalRequest::parse(OsStr::new(value)).unwrap()
    }

    /// A process list with (id, name, command line).
    fn fake_proc(processes: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, command_line) in processes {
            let folder = proc.path().join(pid);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
            fs::write(folder.join("cmdline"), command_line.replace(' ', "\0")).unwrap();
        }
        proc
    }

    #[test]
    fn words_and_targets() {
        assert_eq!(request("ldm").signal, Signal::LameDuck);
        assert_eq!(request("ldm").target, None);
        assert_eq!(request("reopen=").target, None);
        assert_eq!(request("quit=/a=b").target, Some("/a=b".into()));
        for unknown in ["", "LDM", "reload", "=1", "ldm 1"] {
            assert_eq!(SignalRequest::parse(OsStr::new(unknown)), None, "{unknown}");
        }
    }

    #[test]
    fn ids_files_and_refusals() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("good"), "4711").unwrap();
        fs::write(path("newline"), "4712\n").unwrap();
        fs::write(path("bad"), "no number\n").unwrap();
        for (target, expected) in [
            ("123".to_owned(), Ok(vec![123])),
            (path("good"), Ok(vec![4711])),
            (path("newline"), Ok(vec![4712])),
            (path("bad"), Err("invalid pid: no number".to_owned())),
            (
                "/nonexistent/x".into(),
                Err("invalid pid: /nonexistent/x".into()),
            ),
            ("0".into(), Err("invalid pid: 0".into())),
            ("-1".into(), Err("invalid pid: -1".into())),
            ("4294967295".into(), Err("invalid pid: 4294967295".into())),
            ("x*".into(), Err("invalid pid: x".into())),
        ] {
            let found = request(&format!("term={target}")).pids("midge", folder.path(), 1);
            assert_eq!(found.map_err(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn the_only_process_of_the_name_is_found() {
        let proc = fake_proc(&[
            ("10", "midge", "midge --signal ldm"),
            ("11", "bash", "bash"),
            ("12", "midge", "/usr/bin/midge -p 4222"),
            ("13", "midge", "midge sub >"),
            ("14", "midge", ""),
            ("self", "midge", "midge"),
            ("15", "a-rather-long-n", "a-rather-long-name"),
        ]);
        let pids = |value: &str, program: &str, own| {
            let found = request(value).pids(program, proc.path(), own);
            found.map_err(|error| error.to_string())
        };
        assert_eq!(pids("ldm", "midge", 10), Ok(vec![12]));
        assert_eq!(pids("ldm", "a-rather-long-name", 10), Ok(vec![15]));
        assert_eq!(
            pids("ldm", "midge", 99).unwrap_err(),
            "multiple midge processes running:\n10\n12"
        );
        assert_eq!(
            pids("ldm", "nats-server", 99).unwrap_err(),
            "no nats-server processes running"
        );
        assert_eq!(pids("ldm=*", "midge", 99), Ok(vec![10, 12]));
        assert_eq!(pids("ldm=12*", "midge", 99), Ok(vec![12]));
        assert_eq!(pids("ldm=9*", "midge", 99), Ok(vec![]));
    }
}
