//! The one table of options: names, help, default, how the value is read, where it goes.
//!
//! A row is all there is to an option; parser, single-value checks, defaults and help page read it.
//! What a row consists of is in `kind`, checks across options are in `check`.

use super::kind::{Kind, Row};
use super::options::{LogFormat, Options};
use super::values::{format_duration_ms, format_size};
use crate::limits;

/// First words that belong to the client tools, not to the server.
pub const CLIENT_COMMANDS: [&str; 5] = ["pub", "sub", "request", "reply", "bench"];

/// Options under one heading of the help page.
pub(super) struct Section {
    pub title: &'static str,
    pub rows: &'static [Row],
}

/// Every option that midge has.
pub(super) static SECTIONS: &[Section] = &[
    Section {
        title: "Server",
        rows: SERVER,
    },
    Section {
        title: "Logins",
        rows: LOGINS,
    },
    Section {
        title: "Logging",
        rows: LOGGING,
    },
    Section {
        title: "Limits",
        rows: LIMITS,
    },
    Section {
        title: "Times (such as 250ms, 2m or 1h30m; a bare number is seconds)",
        rows: TIMES,
    },
    Section {
        title: "Other",
        rows: OTHER,
    },
];

/// Flags of nats-server that midge refuses for now, by the ability they need.
pub(super) static NOT_YET: &[(&str, &[&str])] = &[
    ("configuration files", &["c", "config", "t"]),
    ("HTTP monitoring", &["m", "http_port", "ms", "https_port"]),
    ("JetStream streams", &["js", "jetstream"]),
    ("syslog outputs", &["s", "syslog", "r", "remote_syslog"]),
    (
        "log files that rotate by size (rename the file, then --signal reopen)",
        &["log_size_limit"],
    ),
    (
        "TLS listeners",
        &[
            "tls",
            "tlscert",
            "tlskey",
            "tlsverify",
            "tlscacert",
            "help_tls",
        ],
    ),
    (
        "clusters",
        &[
            "routes",
            "cluster",
            "cluster_listen",
            "cluster_name",
            "no_advertise",
            "cluster_advertise",
            "connect_retries",
        ],
    ),
    ("profiling ports", &["profile"]),
];

/// All rows, in the order of the help page.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}

fn no_default(_: &Options) -> String {
    String::new()
}

/// Zero stands for the default.
fn or_default<T: From<bool> + PartialEq>(value: T, default: T) -> T {
    match value == T::from(false) {
        true => default,
        false => value,
    }
}

/// A size or count that its row has found to be 0 or more.
fn to_usize(value: i64) -> usize {
    usize::try_from(value.max(0)).unwrap_or(usize::MAX)
}

/// Bound of sizes that nats-server keeps in 32 bits.
const SIZE_32_MAX: i64 = i32::MAX as i64;

static SERVER: &[Row] = &[
    Row {
        names: &["a", "addr", "net", "host"],
        value: "host",
        help: "Address to listen on (default: 127.0.0.1 and ::1 only; every address if logins are \
               required)",
        default: no_default,
        kind: Kind::Text {
            expects: "a host name or address without blanks",
            is_valid: has_no_blanks,
            set: |draft, host| draft.options.host = host,
        },
    },
    Row {
        names: &["p", "port"],
        value: "port",
        help: "Port for clients; -1 takes any free one",
        default: |options| options.port.to_string(),
        kind: Kind::Number(-1..=65_535, |draft, port| {
            // Inside, 0 asks for any port; on the command line that is -1, and 0 the default.
            draft.options.port = match u16::try_from(port) {
                Ok(0) => limits::PORT,
                Ok(port) => port,
                Err(_) => 0,
            };
        }),
    },
    Row {
        names: &["n", "name", "server_name"],
        value: "name",
        help: "Name shown to clients (default: the server id)",
        default: no_default,
        kind: Kind::Text {
            expects: "a name without blanks",
            is_valid: has_no_blanks,
            set: |draft, name| draft.options.name = name,
        },
    },
    Row {
        names: &["client_advertise"],
        value: "host[:port]",
        help: "Address told to clients instead of the one listened on",
        default: no_default,
        kind: Kind::Text {
            expects: "host or host:port, an IPv6 address in brackets",
            is_valid: is_host_and_port,
            set: |draft, address| draft.options.client_advertise = address,
        },
    },
    Row {
        names: &["workers"],
        value: "count",
        help: "Threads that serve clients (default: the cores this process may use)",
        default: no_default,
        kind: Kind::Number(1..=256, |draft, count| {
            draft.options.workers = u16::try_from(count).ok();
        }),
    },
    Row {
        names: &["P", "pid"],
        value: "file",
        help: "File that gets the process id",
        default: no_default,
        kind: Kind::Path(|draft, path| draft.options.pid_file = path),
    },
    Row {
        names: &["ports_file_dir"],
        value: "dir",
        help: "Directory that gets <program>_<pid>.ports, which tells the ports in use",
        default: no_default,
        kind: Kind::Path(|draft, path| draft.options.ports_file_dir = path),
    },
    Row {
        names: &["sl", "signal"],
        value: "signal[=pid]",
        help: "Tell a running server: ldm (ease the clients away, then end), quit, term, stop or \
               reopen (the log file). It is found by its name, by pid, or by the pid file given",
        default: no_default,
        kind: Kind::Signal,
    },
    Row {
        names: &["sd", "store_dir"],
        value: "dir",
        help: "Accepted and unused, as there are no streams yet",
        default: no_default,
        kind: Kind::Path(|draft, path| {
            draft
                .options
                .warnings
                .retain(|text| text != STORE_DIR_WARNING);
            if path.is_some() {
                draft.options.warnings.push(STORE_DIR_WARNING.to_owned());
            }
        }),
    },
];

const STORE_DIR_WARNING: &str = "The store directory is not used: midge does not have streams yet";

static LOGINS: &[Row] = &[
    Row {
        names: &["user"],
        value: "name",
        help: "User that clients must log in as",
        default: no_default,
        kind: Kind::Secret(|draft, user| draft.user = Some(user)),
    },
    Row {
        names: &["pass"],
        value: "password",
        help: "Password of that user",
        default: no_default,
        kind: Kind::Secret(|draft, password| draft.password = Some(password)),
    },
    Row {
        names: &["auth"],
        value: "token",
        help: "Token that clients must show, instead of user and password",
        default: no_default,
        kind: Kind::Secret(|draft, token| draft.token = Some(token)),
    },
];

static LOGGING: &[Row] = &[
    Row {
        names: &["l", "log"],
        value: "file",
        help: "File to append the log to (default: standard error)",
        default: no_default,
        kind: Kind::Path(|draft, path| draft.options.log.file = path),
    },
    Row {
        names: &["log-format"],
        value: "format",
        help: "text, or json for one object a line",
        default: |options| match options.log.format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        },
        kind: Kind::Choice(&[
            ("text", |draft| draft.options.log.format = LogFormat::Text),
            ("json", |draft| draft.options.log.format = LogFormat::Json),
        ]),
    },
    Row {
        names: &["T", "logtime"],
        value: "",
        help: "Date and time on each line; -T=false for none",
        default: |options| options.log.time.to_string(),
        kind: Kind::Switch(|draft, on| draft.options.log.time = on),
    },
    Row {
        names: &["logtime_utc"],
        value: "",
        help: "Date and time in UTC instead of local time",
        default: no_default,
        kind: Kind::Switch(|draft, on| draft.options.log.time_utc = on),
    },
    Row {
        names: &["D", "debug"],
        value: "",
        help: "Log what happens to connections",
        default: no_default,
        kind: Kind::Switch(|draft, on| draft.options.log.debug = on),
    },
    Row {
        names: &["V", "trace", "VV"],
        value: "",
        help: "Log every protocol line",
        default: no_default,
        kind: Kind::Switch(|draft, on| draft.options.log.trace = on),
    },
    Row {
        names: &["DV", "DVV"],
        value: "",
        help: "Both of these",
        default: no_default,
        kind: Kind::Switch(|draft, on| {
            draft.options.log.debug = on;
            draft.options.log.trace = on;
        }),
    },
    Row {
        names: &["max_traced_msg_len"],
        value: "size",
        help: "Bytes of a message that a trace shows; 0 for all",
        default: |options| format_size(options.traced_message_bytes_max.unwrap_or(0) as i64),
        kind: Kind::Size(0..=SIZE_32_MAX, |draft, bytes| {
            draft.options.traced_message_bytes_max = (bytes > 0).then(|| to_usize(bytes));
        }),
    },
];

static LIMITS: &[Row] = &[
    Row {
        names: &["max_connections"],
        value: "count",
        help: "Clients at a time; 0 refuses everybody",
        default: |options| options.connections_max.to_string(),
        kind: Kind::Number(-1..=SIZE_32_MAX, |draft, count| {
            draft.options.connections_max = to_usize(count);
        }),
    },
    Row {
        names: &["max_subscriptions"],
        value: "count",
        help: "Subscriptions of one client; 0 for any number",
        default: |options| options.subscriptions_max.to_string(),
        kind: Kind::Number(-1..=SIZE_32_MAX, |draft, count| {
            draft.options.subscriptions_max = to_usize(count);
        }),
    },
    Row {
        names: &["max_control_line"],
        value: "size",
        help: "Arguments of one protocol line",
        default: |options| format_size(options.control_line_bytes_max as i64),
        kind: Kind::Size(0..=SIZE_32_MAX, |draft, bytes| {
            draft.options.control_line_bytes_max =
                or_default(to_usize(bytes), limits::CONTROL_LINE_BYTES_MAX);
        }),
    },
    Row {
        names: &["max_payload"],
        value: "size",
        help: "Headers and payload of one message; -1 for any size",
        default: |options| {
            let bytes = options.payload_bytes_max;
            bytes.map_or("-1".to_owned(), |bytes| format_size(bytes as i64))
        },
        kind: Kind::Size(-1..=SIZE_32_MAX, |draft, bytes| {
            draft.options.payload_bytes_max =
                (bytes >= 0).then(|| or_default(to_usize(bytes), limits::PAYLOAD_BYTES_MAX));
        }),
    },
    Row {
        names: &["max_pending"],
        value: "size",
        help: "What may wait for one client before it is closed as a slow consumer",
        default: |options| format_size(options.pending_bytes_max as i64),
        kind: Kind::Size(0..=i64::MAX, |draft, bytes| {
            draft.options.pending_bytes_max =
                or_default(to_usize(bytes), limits::PENDING_BYTES_MAX);
        }),
    },
];

static TIMES: &[Row] = &[
    Row {
        names: &["ping_interval"],
        value: "time",
        help: "Time between PINGs to a silent client",
        default: |options| format_duration_ms(options.ping_interval_ms),
        kind: Kind::Duration(0, |draft, ms| {
            draft.options.ping_interval_ms = or_default(ms, limits::PING_INTERVAL_MS);
        }),
    },
    Row {
        names: &["ping_max"],
        value: "count",
        help: "Unanswered PINGs before a client is closed",
        default: |options| options.pings_outstanding_max.to_string(),
        kind: Kind::Number(0..=SIZE_32_MAX, |draft, count| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            draft.options.pings_outstanding_max = or_default(count, limits::PINGS_OUTSTANDING_MAX);
        }),
    },
    Row {
        names: &["write_deadline"],
        value: "time",
        help: "How long a client may take nothing before it is closed",
        default: |options| format_duration_ms(options.write_deadline_ms),
        kind: Kind::Duration(0, |draft, ms| {
            draft.options.write_deadline_ms = or_default(ms, limits::WRITE_DEADLINE_MS);
        }),
    },
    Row {
        names: &["auth_timeout"],
        value: "time",
        help: "How long a new client may take to log in",
        default: |options| format_duration_ms(options.auth_timeout_ms),
        kind: Kind::Duration(0, |draft, ms| {
            draft.options.auth_timeout_ms = or_default(ms, limits::AUTH_TIMEOUT_MS);
        }),
    },
    Row {
        names: &["lame_duck_duration"],
        value: "time",
        help: "How long a lame duck takes to close its clients",
        default: |options| format_duration_ms(options.lame_duck_duration_ms),
        kind: Kind::Duration(LAME_DUCK_DURATION_MS_MIN, |draft, ms| {
            draft.options.lame_duck_duration_ms = ms;
        }),
    },
    Row {
        names: &["lame_duck_grace_period"],
        value: "time",
        help: "How long it waits before it closes the first one",
        default: |options| format_duration_ms(options.lame_duck_grace_ms),
        kind: Kind::Duration(0, |draft, ms| {
            draft.options.lame_duck_grace_ms = or_default(ms, limits::LAME_DUCK_GRACE_MS);
        }),
    },
];

/// The bound of nats-server.
const LAME_DUCK_DURATION_MS_MIN: u64 = 30_000;

static OTHER: &[Row] = &[
    Row {
        names: &["h", "help"],
        value: "",
        help: "Show this page",
        default: no_default,
        kind: Kind::Switch(|draft, on| draft.help = on),
    },
    Row {
        names: &["v", "version"],
        value: "",
        help: "Show the version",
        default: no_default,
        kind: Kind::Switch(|draft, on| draft.version = on),
    },
];

fn has_no_blanks(text: &str) -> bool {
    !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_host_and_port(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some(split) => split,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    !host.is_empty()
        && has_no_blanks(host)
        && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::config::kind::Draft;

    #[test]
    fn names_are_unique() {
        let not_yet = NOT_YET.iter().flat_map(|(_, names)| names.iter());
        let mut names: Vec<&str> = rows()
            .flat_map(|row| row.names.iter())
            .chain(not_yet)
            .copied()
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// A default that the page shows must be what the parser accepts, and mean the same again.
    #[test]
    fn shown_defaults_read_back() {
        let defaults = Options::default();
        for row in rows() {
            let shown = (row.default)(&defaults);
            if shown.is_empty() {
                continue;
            }
            let mut draft = Draft::default();
            assert!(
                row.kind.apply(OsStr::new(&shown), &mut draft).is_some(),
                "{:?} {shown}",
                row.names
            );
            assert_eq!(format!("{:?}", draft.options), format!("{defaults:?}"));
        }
    }

    #[test]
    fn advertised_addresses() {
        for (text, expected) in [
            ("example.org", true),
            ("example.org:4222", true),
            ("10.0.0.1:1", true),
            ("[::1]", true),
            ("[::1]:4222", true),
            ("::1", false),
            ("foo:bar:1", false),
            ("foo:70000", false),
            ("foo:", false),
            (":4222", false),
            ("[]:1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("a b:1", false),
        ] {
            assert_eq!(is_host_and_port(text), expected, "{text}");
        }
    }
}
