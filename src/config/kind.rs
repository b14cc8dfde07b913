//! What an option is: its row in the table, and how its value is read and checked.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::options::Options;
use super::signal::SignalRequest;
use super::values::{format_duration_ms, format_size, parse_bool, parse_duration_ms, parse_size};

/// What a command line has said so far: the options, and what becomes part of them at the end.
#[derive(Default)]
pub(super) struct Draft {
    pub options: Options,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub signal: Option<SignalRequest>,
    pub help: bool,
    pub version: bool,
}

/// One option.
pub(super) struct Row {
    /// Without dashes; the first is the short one, if there is one.
    pub names: &'static [&'static str],
    /// What the help page shows in the place of the value; empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    /// The default as it would be typed; empty if there is none to show.
    pub default: fn(&Options) -> String,
    pub kind: Kind,
}

/// A word that an option takes, and what it sets.
pub(super) type Choice = (&'static str, fn(&mut Draft));

/// How the value of an option is read, and where it goes.
///
/// A zero in sizes, counts and times that cannot be zero stands for the default, as in nats-server;
/// the setters see to it.
pub(super) enum Kind {
    Switch(fn(&mut Draft, bool)),
    /// An empty text unsets the option, so that `-n "$NAME"` works with and without a name.
    Text {
        expects: &'static str,
        is_valid: fn(&str) -> bool,
        set: fn(&mut Draft, Option<String>),
    },
    /// Never repeated in a message. Must not be empty: `--auth "$TOKEN"` without a token would
    /// open the server to everybody.
    Secret(fn(&mut Draft, String)),
    Path(fn(&mut Draft, Option<PathBuf>)),
    Number(RangeInclusive<i64>, fn(&mut Draft, i64)),
    Size(RangeInclusive<i64>, fn(&mut Draft, i64)),
    /// The least number of milliseconds; zero is always allowed where it means the default.
    Duration(u64, fn(&mut Draft, u64)),
    Choice(&'static [Choice]),
    Signal,
}

impl Kind {
    pub fn is_switch(&self) -> bool {
        matches!(self, Kind::Switch(_))
    }

    /// What the value should be, as the end of a sentence.
    pub fn expects(&self) -> String {
        match self {
            Kind::Switch(_) => "true or false".to_owned(),
            Kind::Text { expects, .. } => (*expects).to_owned(),
            Kind::Secret(_) => "text that is not empty".to_owned(),
            Kind::Path(_) => "a path".to_owned(),
            Kind::Number(range, _) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Kind::Size(range, _) => format!(
                "a size from {} to {}, such as 4096, 64KB or 1MiB",
                format_size(*range.start()),
                format_size(*range.end())
            ),
            Kind::Duration(0, _) => "a duration such as 250ms, 2m or 1h30m".to_owned(),
            Kind::Duration(min_ms, _) => format!(
                "a duration of at least {}, such as 2m or 1h30m",
                format_duration_ms(*min_ms)
            ),
            Kind::Choice(choices) => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                words.join(" or ")
            }
            Kind::Signal => SignalRequest::expects(),
        }
    }

    /// Reads `value` into `draft`; `None` if it is not what this kind expects.
    pub fn apply(&self, value: &OsStr, draft: &mut Draft) -> Option<()> {
        match self {
            Kind::Path(set) => {
                set(draft, (!value.is_empty()).then(|| PathBuf::from(value)));
                return Some(());
            }
            Kind::Signal => {
                draft.signal = Some(SignalRequest::parse(value)?);
                return Some(());
            }
            _ => {}
        }
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        match self {
            Kind::Path(_) | Kind::Signal => unreachable!("returned above"),
            Kind::Switch(set) => set(draft, parse_bool(text)?),
            Kind::Text { set, .. } if text.is_empty() => set(draft, None),
            Kind::Text { is_valid, set, .. } => {
                is_valid(text).then(|| set(draft, Some(text.to_owned())))?;
            }
            Kind::Secret(set) => (!text.is_empty()).then(|| set(draft, text.to_owned()))?,
            Kind::Number(range, set) => {
                let number = text.parse().ok().filter(|n| range.contains(n))?;
                set(draft, number);
            }
            Kind::Size(range, set) => {
                let bytes = parse_size(text).filter(|bytes| range.contains(bytes))?;
                set(draft, bytes);
            }
            Kind::Duration(min_ms, set) => {
                let ms = parse_duration_ms(text).filter(|ms| ms >= min_ms)?;
                set(draft, ms);
            }
            Kind::Choice(choices) => {
                let (_, set) = choices.iter().find(|(word, _)| *word == text)?;
                set(draft);
            }
        }
        Some(())
    }
}
