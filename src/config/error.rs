//! What can be wrong with a command line, said in one line that names the flag and what is right.

use std::fmt;

/// Why a command line was refused. Its text is one line; `main` puts the program's name before it
/// and exits with code 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArgsError {
    /// A flag that nobody knows.
    UnknownFlag {
        /// As it was typed, with its dashes.
        flag: String,
        /// The nearest known flag, with its dashes, if one is close.
        nearest: Option<String>,
    },
    /// A flag of nats-server that midge does not have yet.
    NotYet {
        /// As it was typed, with its dashes.
        flag: String,
        /// The ability that is missing, in plural.
        missing: &'static str,
    },
    /// The line ends where the value of a flag should stand.
    NeedsValue {
        /// As it was typed, with its dashes.
        flag: String,
        /// What the value should be.
        expects: String,
    },
    /// A value that its flag cannot take.
    BadValue {
        /// As it was typed, with its dashes.
        flag: String,
        /// The value, quoted; absent for a secret.
        value: Option<String>,
        /// What the value should be.
        expects: String,
    },
    /// Neither a flag nor a known word.
    UnknownWord {
        /// The word.
        word: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// Options that cannot be true together.
    Conflict(String),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgsError::UnknownFlag { flag, nearest } => {
                write!(f, "unknown flag {}", flag.escape_debug())?;
                match nearest {
                    Some(nearest) => write!(f, ", did you mean {nearest}? (see --help)"),
                    None => f.write_str(" (see --help)"),
                }
            }
            ArgsError::NotYet { flag, missing } => {
                write!(f, "flag {flag}: midge does not have {missing} yet")
            }
            ArgsError::NeedsValue { flag, expects } => {
                write!(f, "flag {flag} needs a value: {expects}")
            }
            ArgsError::BadValue {
                flag,
                value: Some(value),
                expects,
            } => write!(f, "flag {flag}: {value} is not {expects}"),
            ArgsError::BadValue {
                flag,
                value: None,
                expects,
            } => write!(f, "flag {flag}: the value must be {expects}"),
            ArgsError::UnknownWord { word, hint } => {
                write!(f, "unrecognized command: {word:?}")?;
                match hint {
                    Some(hint) => write!(f, ", {hint}"),
                    None => f.write_str(" (see --help)"),
                }
            }
            ArgsError::Conflict(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ArgsError {}
