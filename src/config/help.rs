//! The help page and the version line.

use std::fmt::Write as _;

use super::NATS_VERSION;
use super::kind::Row;
use super::options::Options;
use super::table::{NOT_YET, SECTIONS};

/// Columns of the page.
const WIDTH: usize = 80;
/// Column at which descriptions begin.
const TEXT_COLUMN: usize = 34;

/// The server's help page; `program` is how the reader calls it.
pub(super) fn page(program: &str) -> String {
    let mut page = format!(
        "midge {}: a subject pub/sub server that speaks the NATS protocol\n\
         \n\
         Usage: {program} [serve] [options]\n       \
         {program} pub|sub|request|reply|bench ...   client tools (see --help)\n       \
         {program} help | version\n",
        env!("CARGO_PKG_VERSION")
    );
    let defaults = Options::default();
    for section in SECTIONS {
        let _ = write!(page, "\n{}:\n", section.title);
        for row in section.rows {
            push_row(&mut page, row, &defaults);
        }
    }
    let _ = write!(
        page,
        "\nOne dash or two, -flag value or -flag=value; of a repeated flag the last counts.\n\
         Sizes take k, m, g (powers of 1000) and KB, KiB, MB, ... (powers of 1024).\n\
         \n\
         Examples:\n  \
         {program}                               loopback only, port 4222\n  \
         {program} -a 0.0.0.0                    open to the network, for everybody\n  \
         {program} --user ann --pass s3cret      open to those who know\n  \
         {program} -p -1 --ports_file_dir /tmp   any free port, written to a file\n  \
         {program} -DV                           show what clients say\n  \
         {program} --signal ldm                  ease clients away, then end\n  \
         {program} sub 'sensors.>'               print what is published, as it comes\n  \
         {program} pub sensors.attic 21.5        publish one message\n"
    );
    page.push_str("\nFlags of nats-server that are not there yet:\n");
    let names: Vec<String> = NOT_YET
        .iter()
        .flat_map(|(_, names)| names.iter().map(|name| dashed(name)))
        .collect();
    for line in wrap(&names.join(" "), WIDTH - 2) {
        let _ = writeln!(page, "  {line}");
    }
    page
}

/// One option: its names on the left, its description wrapped on the right.
fn push_row(page: &mut String, row: &Row, defaults: &Options) {
    let names: Vec<String> = row.names.iter().map(|name| dashed(name)).collect();
    let mut left = format!("  {}", names.join(", "));
    if !row.value.is_empty() {
        let _ = write!(left, " <{}>", row.value);
    }
    let mut text = row.help.to_owned();
    let default = (row.default)(defaults);
    if !default.is_empty() {
        let _ = write!(text, " (default: {default})");
    }
    for line in wrap(&text, WIDTH - TEXT_COLUMN) {
        // Two blanks at least between the columns; longer names have a line of their own.
        if left.len() + 2 > TEXT_COLUMN {
            let _ = writeln!(page, "{left}");
            left.clear();
        }
        let _ = writeln!(page, "{left:TEXT_COLUMN$}{line}");
        left.clear();
    }
}

/// A flag as it is usually typed: one dash for the short ones.
pub(super) fn dashed(name: &str) -> String {
    let is_short = matches!(name, "sl" | "sd" | "js" | "ms")
        || name.len() == 1
        || name.bytes().all(|letter| letter.is_ascii_uppercase());
    match is_short {
        true => format!("-{name}"),
        false => format!("--{name}"),
    }
}

/// `text` in lines of at most `width` bytes, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// What `--version` prints: midge's own version, or, when it runs under the name `nats-server`, the
/// line that harnesses parse, alone.
pub(super) fn version(program: &str) -> String {
    if program == "nats-server" {
        return format!("nats-server: v{NATS_VERSION}\n");
    }
    let revision = match env!("MIDGE_REVISION") {
        "" => String::new(),
        revision => format!(", revision {revision}"),
    };
    format!(
        "midge: v{} (NATS protocol of nats-server {NATS_VERSION}{revision})\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::{CLIENT_COMMANDS, rows};

    #[test]
    fn the_page_fits_and_names_everything() {
        // The longest name it usually runs under.
        for line in page("nats-server").lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line.trim_end(), line);
        }
        let page = page("midge");
        for name in rows().flat_map(|row| row.names) {
            assert!(page.contains(&dashed(name)), "{name}");
        }
        for command in CLIENT_COMMANDS {
            assert!(page.contains(command), "{command}");
        }
        assert!(page.contains("\n  -p, --port <port>               Port for clients"));
        assert!(page.contains("(default: 4222)"));
        assert!(page.contains("(default: 64MiB)"));
        assert!(page.ends_with('\n'));
    }

    #[test]
    fn texts_wrap_at_blanks() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b", 5), ["aaaaaaa", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn versions() {
        assert_eq!(version("nats-server"), "nats-server: v2.2.0\n");
        let own = version("midge");
        assert!(own.starts_with(concat!("midge: v", env!("CARGO_PKG_VERSION"), " (NATS ")));
        assert!(own.contains("nats-server 2.2.0"));
    }
}
