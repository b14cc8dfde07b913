//! The server's command line, in the style of Go's `flag` package, which users of nats-server type:
//! one dash or two, `-flag value` or `-flag=value`, `-switch` or `-switch=false`, `--` ends the
//! flags, the last of repeated flags counts. The next word is the value even if it begins with a
//! dash: `-p -1`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::kind::{Draft, Kind, Row};
use super::table::{CLIENT_COMMANDS, NOT_YET, rows};
use super::values::parse_bool;
use super::{ArgsError, Options, SignalRequest, check, help};

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Options>),
    /// Send a signal to a running server and end.
    Signal(SignalRequest),
    /// Print this page to standard output and end with code 0.
    Help(String),
    /// Print this line to standard output and end with code 0.
    Version(String),
}

/// Reads the server's command line. `program` is the first word of it (a path is fine), `args` the
/// rest. Client commands (see [`CLIENT_COMMANDS`]) are told apart by the caller before.
pub fn parse(program: &str, args: &[OsString]) -> Result<Command, ArgsError> {
    let program = Path::new(program)
        .file_name()
        .map_or(program.into(), OsStr::to_string_lossy);
    let mut draft = Draft::default();
    let flags = match args.split_first() {
        Some((first, rest)) if first == "serve" => rest,
        _ => args,
    };
    let words = read_flags(flags, &mut draft)?;

    // As in nats-server: the version before the help page, both before anything else.
    if draft.version {
        return Ok(Command::Version(help::version(&program)));
    }
    if draft.help {
        return Ok(Command::Help(help::page(&program)));
    }
    match words.first() {
        None => {}
        Some(word) if word == "version" => return Ok(Command::Version(help::version(&program))),
        Some(word) if word == "help" => return Ok(Command::Help(help::page(&program))),
        Some(word) => return Err(unknown_word(word)),
    }
    if let Some(request) = draft.signal {
        return Ok(Command::Signal(request));
    }
    Ok(Command::Serve(Box::new(check::finish(draft)?)))
}

/// Reads flags into `draft` up to the first word that is none, and returns that word and the rest.
fn read_flags<'a>(args: &'a [OsString], draft: &mut Draft) -> Result<&'a [OsString], ArgsError> {
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        let Some(flag) = Flag::split(arg) else {
            return Ok(rest);
        };
        rest = after;
        if flag.name.is_empty() && flag.value.is_none() {
            // `--`
            return Ok(rest);
        }
        let row = flag.row()?;
        let value = match flag.value {
            Some(value) => value,
            None if row.kind.is_switch() => OsStr::new("true"),
            None => {
                let Some((value, after)) = rest.split_first() else {
                    return Err(ArgsError::NeedsValue {
                        flag: flag.text(),
                        expects: row.kind.expects(),
                    });
                };
                rest = after;
                value
            }
        };
        if row.kind.apply(value, draft).is_none() {
            let is_secret = matches!(row.kind, Kind::Secret(_));
            return Err(ArgsError::BadValue {
                flag: flag.text(),
                value: (!is_secret).then(|| format!("{value:?}")),
                expects: row.kind.expects(),
            });
        }
    }
    Ok(rest)
}

/// A word that is a flag, taken apart.
struct Flag<'a> {
    dashes: &'static str,
    name: &'a OsStr,
    /// What stands after `=`.
    value: Option<&'a OsStr>,
}

impl<'a> Flag<'a> {
    /// `None` if `arg` is an ordinary word; a lone dash is one.
    fn split(arg: &'a OsStr) -> Option<Flag<'a>> {
        let bytes = arg.as_bytes();
        let (dashes, body) = match bytes.strip_prefix(b"--") {
            Some(body) => ("--", body),
            None => (
                "-",
                bytes.strip_prefix(b"-").filter(|body| !body.is_empty())?,
            ),
        };
        let (name, value) = split_equals(OsStr::from_bytes(body));
        Some(Flag {
            dashes,
            name,
            value,
        })
    }

    /// As it was typed, without the value.
    fn text(&self) -> String {
        format!("{}{}", self.dashes, self.name.to_string_lossy())
    }

    /// The row of the table that has this name.
    fn row(&self) -> Result<&'static Row, ArgsError> {
        if let Some(row) = rows().find(|row| row.names.iter().any(|name| self.name == *name)) {
            return Ok(row);
        }
        for (missing, names) in NOT_YET {
            if names.iter().any(|name| self.name == *name) {
                return Err(ArgsError::NotYet {
                    flag: self.text(),
                    missing,
                });
            }
        }
        let known = rows().flat_map(|row| row.names).copied();
        let nearest = nearest(&self.name.to_string_lossy(), known);
        Err(ArgsError::UnknownFlag {
            flag: self.text(),
            nearest: nearest.map(help::dashed),
        })
    }
}

/// `name=value` at the first `=`, or `name` alone.
pub(super) fn split_equals(text: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = text.as_bytes();
    match memchr::memchr(b'=', bytes) {
        Some(at) => (
            OsStr::from_bytes(&bytes[..at]),
            Some(OsStr::from_bytes(&bytes[at + 1..])),
        ),
        None => (text, None),
    }
}

fn unknown_word(word: &OsStr) -> ArgsError {
    let word = word.to_string_lossy().into_owned();
    let hint = if CLIENT_COMMANDS.contains(&word.as_str()) {
        Some("client commands come first on the line, if this build has them".to_owned())
    } else if parse_bool(&word).is_some() {
        Some("a switch takes its value after =, as in -T=false".to_owned())
    } else {
        let known = CLIENT_COMMANDS.into_iter();
        nearest(&word, known.chain(["serve", "help", "version"]))
            .map(|nearest| format!("did you mean {nearest}?"))
    };
    ArgsError::UnknownWord { word, hint }
}

/// The one of `known` that `typed` was probably meant to be: at most one mistake for each three
/// letters, upper case and `-` for `_` counting as none.
fn nearest(typed: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    /// Longer than any flag by more mistakes than are forgiven; keeps the search short.
    const LETTERS_MAX: usize = 64;

    let typed = plain(typed);
    if typed.len() > LETTERS_MAX {
        return None;
    }
    known
        .map(|name| (edits(&typed, &plain(name)), name))
        .filter(|(edits, name)| *edits <= name.len() / 3)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

fn plain(name: &str) -> Vec<char> {
    // A third dash is left in the name.
    let name = name.trim_start_matches('-');
    name.replace('-', "_").to_lowercase().chars().collect()
}

/// Letters to insert, delete, replace or swap with their neighbour to get from `from` to `to`.
/// `table[i][j]` is that number for the first `i` letters of `from` and the first `j` of `to`.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut table = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let is_swap =
                    i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                let swapped = match is_swap {
                    true => table[i - 2][j - 2] + 1,
                    false => usize::MAX,
                };
                let inserted_or_deleted = table[i - 1][j].min(table[i][j - 1]) + 1;
                replaced.min(swapped).min(inserted_or_deleted)
            };
        }
    }
    table[from.len()][to.len()]
}

#[cfg(test)]
mod tests;
