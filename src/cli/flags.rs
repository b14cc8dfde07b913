//! The flags of the client tools. One table a command feeds both the parser and the help page.
//!
//! Go's style, as users of `nats` and `nats-server` type: one dash or two, `-flag value` or
//! `-flag=value`, flags and arguments in any order, `--` ends the flags.

use std::ffi::{OsStr, OsString};
use std::str::FromStr;
use std::time::Duration;

use super::duration;
use super::failure::Failure;

/// One flag.
pub struct Flag {
    /// The name it is read by, without dashes.
    pub name: &'static str,
    /// Other spellings; one-letter ones come first on the help page.
    pub aliases: &'static [&'static str],
    /// What the value is, as the help page shows it; empty for a switch.
    pub argument: &'static str,
    /// One line of help.
    pub help: &'static str,
}

impl Flag {
    /// A flag with a value.
    pub const fn value(
        name: &'static str,
        aliases: &'static [&'static str],
        argument: &'static str,
        help: &'static str,
    ) -> Self {
        Flag {
            name,
            aliases,
            argument,
            help,
        }
    }

    /// A flag without one.
    pub const fn switch(
        name: &'static str,
        aliases: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Flag::value(name, aliases, "", help)
    }

    fn is_switch(&self) -> bool {
        self.argument.is_empty()
    }

    /// `-s, --server URL`, with room for a short form where there is none.
    fn synopsis(&self) -> String {
        let (short, long): (Vec<&str>, Vec<&str>) = self
            .aliases
            .iter()
            .chain([&self.name])
            .partition(|name| name.len() == 1);
        let short = short
            .first()
            .map_or("    ".into(), |name| format!("-{name}, "));
        let long: Vec<String> = long.iter().rev().map(|name| format!("--{name}")).collect();
        let synopsis = format!("{short}{} {}", long.join(", "), self.argument);
        synopsis.trim_end().to_owned()
    }
}

/// Flags that every tool has: where to connect, and as whom.
pub const CONNECTION: &[Flag] = &[
    Flag::value(
        "server",
        &["s"],
        "URL",
        "server, or several with commas (default $NATS_URL, else nats://127.0.0.1:4222)",
    ),
    Flag::value("user", &[], "NAME", "user name (default $NATS_USER)"),
    Flag::value(
        "password",
        &["pass"],
        "TEXT",
        "password (default $NATS_PASSWORD)",
    ),
    Flag::value(
        "token",
        &[],
        "TEXT",
        "authentication token (default $NATS_TOKEN)",
    ),
    Flag::value(
        "name",
        &["connection-name"],
        "NAME",
        "name of the connection, as the server shows it",
    ),
    Flag::switch("help", &["h"], "show this page"),
];

/// How to give `-5` as an argument.
const BEHIND_DASHES: &str = "an argument that begins with a dash goes behind --";

/// A client tool: what it is called, what it takes, what it is for.
pub struct Command {
    /// The word behind `midge`.
    pub name: &'static str,
    /// Its positional arguments, as the help page shows them.
    pub arguments: &'static str,
    /// How many positional arguments it needs and how many it takes.
    pub argument_counts: std::ops::RangeInclusive<usize>,
    /// One line: what it does.
    pub about: &'static str,
    /// A paragraph that the flags do not tell; may be empty.
    pub details: &'static str,
    /// Its own flags; [`CONNECTION`] comes on top.
    pub flags: &'static [Flag],
    /// Command lines to learn from.
    pub examples: &'static [&'static str],
}

/// What was typed, by the names of the table.
pub struct Parsed {
    command: &'static Command,
    values: Vec<(&'static str, OsString)>,
    /// Arguments that are no flags, in order.
    pub positionals: Vec<OsString>,
}

impl Command {
    fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().chain(CONNECTION)
    }

    /// Reads the arguments behind the command word.
    pub fn parse(&'static self, args: &[OsString]) -> Result<Parsed, Failure> {
        let mut parsed = Parsed {
            command: self,
            values: Vec::new(),
            positionals: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(body) = flag_body(arg) else {
                parsed.positionals.push(arg.clone());
                continue;
            };
            if body.is_empty() {
                parsed.positionals.extend(args.by_ref().cloned());
                break;
            }
            self.parse_flag(arg, body, &mut args, &mut parsed)?;
        }
        if !parsed.switch("help")? {
            self.check_argument_count(parsed.positionals.len())?;
        }
        Ok(parsed)
    }

    fn parse_flag(
        &'static self,
        arg: &OsStr,
        body: &str,
        rest: &mut std::slice::Iter<'_, OsString>,
        parsed: &mut Parsed,
    ) -> Result<(), Failure> {
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let flag = self
            .flags()
            .find(|flag| flag.name == name || flag.aliases.contains(&name))
            .ok_or_else(|| self.unknown_flag(arg, name, !parsed.positionals.is_empty()))?;
        let value = match inline {
            Some(value) => value.into(),
            None if flag.is_switch() => "true".into(),
            None => rest.next().cloned().ok_or_else(|| {
                Failure::usage(format!("--{} needs a value: {}", flag.name, flag.help))
            })?,
        };
        parsed.values.push((flag.name, value));
        Ok(())
    }

    /// `is_behind_argument`: it may have been meant as an argument itself.
    fn unknown_flag(&self, arg: &OsStr, name: &str, is_behind_argument: bool) -> Failure {
        let near = self
            .flags()
            .flat_map(|flag| flag.aliases.iter().chain([&flag.name]))
            .filter(|known| known.len() > 2 && is_near(known, name))
            .min_by_key(|known| known.len().abs_diff(name.len()));
        let hint = match near {
            Some(known) => format!("did you mean --{known}?"),
            // -5 or -.5 is more likely a payload.
            None if name.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                BEHIND_DASHES.to_owned()
            }
            None if is_behind_argument => {
                format!(
                    "`midge {} --help` lists the flags, and {BEHIND_DASHES}",
                    self.name
                )
            }
            None => format!("`midge {} --help` lists the flags", self.name),
        };
        let arg = arg.display();
        Failure::usage(format!("{}: unknown flag {arg}; {hint}", self.name))
    }

    fn check_argument_count(&self, count: usize) -> Result<(), Failure> {
        let fault = match count {
            count if count < *self.argument_counts.start() => "missing argument",
            count if count > *self.argument_counts.end() => "too many arguments",
            _ => return Ok(()),
        };
        Err(Failure::usage(format!(
            "{}: {fault}; usage: {}",
            self.name,
            self.usage()
        )))
    }

    fn usage(&self) -> String {
        let usage = format!("midge {} [flags] {}", self.name, self.arguments);
        usage.trim_end().to_owned()
    }

    /// The page behind `--help`.
    pub fn help(&self) -> String {
        let mut page = format!("midge {}: {}\n\n", self.name, self.about);
        page += &format!("Usage: {}\n", self.usage());
        if !self.details.is_empty() {
            page += &format!("\n{}\n", self.details);
        }
        let width = self.flags().map(|flag| flag.synopsis().len()).max();
        let width = width.unwrap_or(0);
        for (title, flags) in [("Flags", self.flags), ("Connection", CONNECTION)] {
            page += &format!("\n{title}:\n");
            for flag in flags {
                page += &format!("  {:<width$}  {}\n", flag.synopsis(), flag.help);
            }
        }
        if *self.argument_counts.end() > 0 {
            page += &format!("\n-- ends the flags: {BEHIND_DASHES}.\n");
        }
        if !self.examples.is_empty() {
            page += "\nExamples:\n";
            for example in self.examples {
                page += &format!("  {example}\n");
            }
        }
        page
    }
}

impl Parsed {
    /// The last value of a flag, as it was typed.
    fn last(&self, name: &str) -> Option<&OsStr> {
        debug_assert!(
            self.command.flags().any(|flag| flag.name == name),
            "{name} is in the table"
        );
        let mut values = self.values.iter().rev();
        values
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_os_str())
    }

    fn bad_value(&self, name: &str, value: &OsStr, wanted: &str) -> Failure {
        let (command, value) = (self.command.name, value.display());
        Failure::usage(format!(
            "{command}: --{name} is \"{value}\", but must be {wanted}"
        ))
    }

    /// The value of a flag as text.
    pub fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(value) = self.last(name) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.bad_value(name, value, "UTF-8 text")),
        }
    }

    /// All values of a flag that may be repeated.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Failure> {
        let values = self.values.iter().filter(|(known, _)| *known == name);
        values
            .map(|(_, value)| match value.to_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(self.bad_value(name, value, "UTF-8 text")),
            })
            .collect()
    }

    /// Whether a switch is on.
    pub fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.last(name) {
            None => Ok(false),
            Some(value) => match value.to_str() {
                Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                _ => Err(self.bad_value(name, value, "true or false")),
            },
        }
    }

    /// A whole number within `range`.
    pub fn number<N>(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<N>,
    ) -> Result<Option<N>, Failure>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.last(name) else {
            return Ok(None);
        };
        // 1_000_000 and 1,000,000 are easier to get right than a row of zeros.
        let digits = value.to_str().map(|text| text.replace(['_', ','], ""));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let wanted = format!("a number from {} to {}", range.start(), range.end());
                Err(self.bad_value(name, value, &wanted))
            }
        }
    }

    /// A duration such as 500ms.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let Some(value) = self.last(name) else {
            return Ok(None);
        };
        match value.to_str().and_then(duration::parse) {
            Some(duration) => Ok(Some(duration)),
            None => Err(self.bad_value(name, value, "a duration such as 500ms, 2s or 1m30s")),
        }
    }

    /// Refuses two flags that exclude each other.
    pub fn exclude(&self, one: &str, other: &str) -> Result<(), Failure> {
        match self.last(one).and(self.last(other)) {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!(
                "{}: --{one} and --{other} exclude each other",
                self.command.name
            ))),
        }
    }
}

/// What stands behind the dashes; `None` if the argument is no flag. A lone dash stands for
/// standard input.
fn flag_body(arg: &OsStr) -> Option<&str> {
    let body = arg.to_str()?.strip_prefix('-')?;
    match body.strip_prefix('-') {
        Some(long) => Some(long),
        None if body.is_empty() => None,
        None => Some(body),
    }
}

/// Whether one name begins the other, or they differ by one letter or by two swapped ones.
fn is_near(known: &str, typed: &str) -> bool {
    if typed.len() > 2 && (known.starts_with(typed) || typed.starts_with(known)) {
        return true;
    }
    let (known, typed) = (known.as_bytes(), typed.as_bytes());
    let front = known.iter().zip(typed).take_while(|(a, b)| a == b).count();
    let (known, typed) = (&known[front..], &typed[front..]);
    match (known, typed) {
        ([_, known @ ..], [_, typed @ ..]) if known == typed => true,
        ([_, known @ ..], typed) if known == typed => true,
        (known, [_, typed @ ..]) if known == typed => true,
        ([a, b, known @ ..], [c, d, typed @ ..]) => (a, b) == (d, c) && known == typed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COMMAND: Command = Command {
        name: "try",
        arguments: "SUBJECT [PAYLOAD]",
        argument_counts: 1..=2,
        about: "a command for tests",
        details: "",
        flags: &[
            Flag::value("count", &[], "N", "how many"),
            Flag::value("header", &["H"], "TEXT", "a header"),
            Flag::value("timeout", &[], "DURATION", "how long"),
            Flag::switch("raw", &["r"], "no decoration"),
        ],
        examples: &["midge try foo"],
    };

    fn parse(args: &[&str]) -> Result<Parsed, Failure> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        COMMAND.parse(&args)
    }

    fn usage_error(result: Result<impl Sized, Failure>) -> String {
        match result {
            Err(Failure::Usage(text)) => text,
            Err(other) => panic!("{other:?} is no usage error"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn one_dash_or_two_with_blank_or_equals_in_any_order() {
        for args in [
            &["foo", "--count", "5", "--raw"][..],
            &["-count=5", "foo", "-raw"],
            &["--count=5", "-r", "foo"],
            &["-raw=true", "-count", "5", "--", "foo"],
            &["--count", "9", "--count", "5", "foo", "-r=1"],
        ] {
            let parsed = parse(args).unwrap();
            assert_eq!(parsed.number("count", 1..=10), Ok(Some(5)), "{args:?}");
            assert_eq!(parsed.switch("raw"), Ok(true), "{args:?}");
            assert_eq!(parsed.positionals, ["foo"], "{args:?}");
        }
    }

    #[test]
    fn a_lone_dash_and_what_follows_two_dashes_are_arguments() {
        assert_eq!(parse(&["foo", "-"]).unwrap().positionals, ["foo", "-"]);
        assert_eq!(
            parse(&["--", "foo", "--raw"]).unwrap().positionals,
            ["foo", "--raw"]
        );
    }

    #[test]
    fn repeated_flags_keep_their_order_and_values_may_start_with_a_dash() {
        let parsed = parse(&["foo", "-H", "A: 1", "--header=B: 2=3", "-H", "-x"]).unwrap();
        assert_eq!(parsed.texts("header").unwrap(), ["A: 1", "B: 2=3", "-x"]);
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        for (args, expected) in [
            (
                &["foo", "--tiemout", "1s"][..],
                "try: unknown flag --tiemout; did you mean --timeout?",
            ),
            (
                &["-x", "foo"],
                "try: unknown flag -x; `midge try --help` lists the flags",
            ),
            (
                &["foo", "-x"],
                "try: unknown flag -x; `midge try --help` lists the flags, and an argument that \
                 begins with a dash goes behind --",
            ),
            (
                &["foo", "-5.5"],
                "try: unknown flag -5.5; an argument that begins with a dash goes behind --",
            ),
            (&["foo", "--count"], "--count needs a value: how many"),
            (
                &[],
                "try: missing argument; usage: midge try [flags] SUBJECT [PAYLOAD]",
            ),
            (
                &["a", "b", "c"],
                "try: too many arguments; usage: midge try [flags] SUBJECT [PAYLOAD]",
            ),
        ] {
            assert_eq!(usage_error(parse(args)), expected);
        }
        let parsed = parse(&["foo", "--count", "many", "--timeout", "5", "--raw=maybe"]).unwrap();
        assert_eq!(
            usage_error(parsed.number("count", 1..=10)),
            "try: --count is \"many\", but must be a number from 1 to 10"
        );
        assert_eq!(
            usage_error(parsed.duration("timeout")),
            "try: --timeout is \"5\", but must be a duration such as 500ms, 2s or 1m30s"
        );
        assert_eq!(
            usage_error(parsed.switch("raw")),
            "try: --raw is \"maybe\", but must be true or false"
        );
    }

    #[test]
    fn every_flag_stands_on_the_help_page() {
        let page = COMMAND.help();
        for line in [
            "      --count N",
            "  -H, --header TEXT",
            "  -s, --server URL",
            "Usage: midge try",
            "behind --.",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
        assert!(parse(&["--help"]).unwrap().switch("help").unwrap());
    }
}
