//! How one log line looks, as text or as JSON.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use super::{Level, LogFormat};
use crate::clock::{Civil, rfc3339};

impl Level {
    /// The three letters of text lines.
    pub fn tag(self) -> &'static str {
        match self {
            Level::Trace => "TRC",
            Level::Debug => "DBG",
            Level::Info => "INF",
            Level::Warn => "WRN",
            Level::Error => "ERR",
            Level::Fatal => "FTL",
        }
    }

    /// The word of JSON lines, spelled as log collectors know it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// Parameter of the terminal's colour sequence; the colours of nats-server.
    fn color(self) -> &'static str {
        match self {
            Level::Trace => "33",
            Level::Debug => "36",
            Level::Info => "32",
            Level::Warn => "0;93",
            Level::Error | Level::Fatal => "31",
        }
    }
}

/// What the lines of one log have in common.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub format: LogFormat,
    pub pid: u32,
    pub time: bool,
    pub time_utc: bool,
    pub colors: bool,
}

impl Style {
    /// Appends one line, with its line feed, to `out`.
    pub fn write_line(&self, out: &mut String, at: SystemTime, level: Level, text: &str) {
        // Writing to a String cannot fail.
        let _ = match self.format {
            LogFormat::Text => self.write_text(out, at, level, text),
            LogFormat::Json => self.write_json(out, at, level, text),
        };
        out.push('\n');
    }

    /// `[pid] 2006/01/02 15:04:05.000000 [INF] text`
    fn write_text(
        &self,
        out: &mut String,
        at: SystemTime,
        level: Level,
        text: &str,
    ) -> std::fmt::Result {
        write!(out, "[{}] ", self.pid)?;
        if self.time {
            let Civil {
                year,
                month,
                day,
                hour,
                minute,
                second,
                nanos,
            } = match self.time_utc {
                true => Civil::utc(at),
                false => Civil::local(at),
            };
            let micros = nanos / 1000;
            write!(
                out,
                "{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} "
            )?;
        }
        match self.colors {
            true => write!(out, "[\x1b[{}m{}\x1b[0m] ", level.color(), level.tag())?,
            false => write!(out, "[{}] ", level.tag())?,
        }
        out.push_str(&escape(text));
        Ok(())
    }

    /// `{"time":"2006-01-02T15:04:05.000000000Z","level":"info","pid":1,"msg":"text"}`
    fn write_json(
        &self,
        out: &mut String,
        at: SystemTime,
        level: Level,
        text: &str,
    ) -> std::fmt::Result {
        out.push('{');
        if self.time {
            write!(out, "\"time\":\"{}\",", rfc3339(at))?;
        }
        write!(
            out,
            "\"level\":\"{}\",\"pid\":{},\"msg\":",
            level.word(),
            self.pid
        )?;
        let message = serde_json::Value::from(text).to_string();
        for letter in message.chars() {
            match letter {
                // DEL and C1, which JSON lets stand but a terminal obeys. Nothing of JSON's own is
                // among them, so what they stand in is a string.
                control if control.is_control() => write!(out, "\\u{:04x}", u32::from(control))?,
                other => out.push(other),
            }
        }
        out.push('}');
        Ok(())
    }
}

/// `text` with every control character (C0, DEL, C1) written as an escape, so that no name from
/// outside can begin a line of its own or steer a terminal. A backslash stays as it is: traced
/// payloads arrive here already quoted.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            control if control.is_control() => {
                // C0, DEL and C1 all fit in two hexadecimal digits.
                let _ = write!(escaped, "\\x{:02x}", u32::from(control));
            }
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const STYLE: Style = Style {
        format: LogFormat::Text,
        pid: 42,
        time: true,
        time_utc: true,
        colors: false,
    };

    fn line(style: &Style, level: Level, text: &str) -> String {
        let at = UNIX_EPOCH + Duration::new(1_795_271_167, 485_357_123);
        let mut out = String::new();
        style.write_line(&mut out, at, level, text);
        out
    }

    #[test]
    fn text_lines_are_those_of_nats_server() {
        for (level, expected) in [
            (Level::Info, "[42] 2026/11/21 14:26:07.485357 [INF] hello\n"),
            (
                Level::Fatal,
                "[42] 2026/11/21 14:26:07.485357 [FTL] hello\n",
            ),
            (
                Level::Trace,
                "[42] 2026/11/21 14:26:07.485357 [TRC] hello\n",
            ),
        ] {
            assert_eq!(line(&STYLE, level, "hello"), expected);
        }
        let bare = Style {
            time: false,
            ..STYLE
        };
        assert_eq!(line(&bare, Level::Warn, "hi"), "[42] [WRN] hi\n");
        let colored = Style {
            colors: true,
            ..bare
        };
        assert_eq!(
            line(&colored, Level::Warn, "hi"),
            "[42] [\x1b[0;93mWRN\x1b[0m] hi\n"
        );
    }

    #[test]
    fn json_lines_parse_and_keep_the_text() {
        let json = Style {
            format: LogFormat::Json,
            ..STYLE
        };
        let text = "a \"b\" \\ \n\u{1b}[31m ü \u{0} \u{7f}\u{9b}31m\u{a0}";
        let written = line(&json, Level::Error, text);
        let message = written.strip_suffix('\n').unwrap();
        assert!(!message.contains(char::is_control), "{written:?}");
        assert!(written.contains("\\u007f\\u009b31m\u{a0}"), "{written:?}");
        let value: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["time"], "2026-11-21T14:26:07.485357123Z");
        assert_eq!(value["level"], "error");
        assert_eq!(value["pid"], 42);
        assert_eq!(value["msg"], text);
        let bare = Style {
            time: false,
            ..json
        };
        assert_eq!(
            line(&bare, Level::Info, "x"),
            "{\"level\":\"info\",\"pid\":42,\"msg\":\"x\"}\n"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain ü ☃", "plain ü ☃"),
            ("a\r\n[1] [INF] forged", "a\\r\\n[1] [INF] forged"),
            ("\t\0\x1b[2J\x7f", "\\t\\x00\\x1b[2J\\x7f"),
            ("\u{9b}31m", "\\x9b31m"),
            ("back\\slash", "back\\slash"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }
}
