//! The options of a server, as the rest of midge reads them: checked, with units, no strings left
//! to interpret. `args` fills them from the command line.

use std::path::PathBuf;

use crate::limits;
pub use crate::log::{LogFormat, LogOptions};

/// Credentials a client must show, if any.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Everybody may connect.
    #[default]
    Open,
    /// One shared secret, given by clients as `auth_token`.
    Token(String),
    /// One name and password, given by clients as `user` and `pass`.
    User {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Credentials {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::Open => "Open",
            Credentials::Token(_) => "Token([REDACTED])",
            Credentials::User { .. } => "User([REDACTED])",
        })
    }
}

/// Everything a server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on as it was given, or `None`: loopback only, both families, or every
    /// address when credentials are required.
    pub host: Option<String>,
    /// TCP port; 0 asks the system for any free one.
    pub port: u16,
    /// Name shown to clients; the server id when absent.
    pub name: Option<String>,
    /// `host:port` told to clients instead of the listen address.
    pub client_advertise: Option<String>,
    /// Number of worker threads; the cores this process may use when absent.
    pub workers: Option<u16>,
    /// File that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// Directory that gets the `<program>_<pid>.ports` file.
    pub ports_file_dir: Option<PathBuf>,
    /// Logging.
    pub log: LogOptions,
    /// Who may connect.
    pub credentials: Credentials,
    /// Milliseconds from accept until credentials must have arrived.
    pub auth_timeout_ms: u64,
    /// Client connections at a time; 0 refuses everybody.
    pub connections_max: usize,
    /// Subscriptions of one connection; 0 is unlimited.
    pub subscriptions_max: usize,
    /// Bytes of arguments on one control line.
    pub control_line_bytes_max: usize,
    /// Bytes of header block and payload together; `None` is unlimited.
    pub payload_bytes_max: Option<usize>,
    /// Bytes queued for one connection.
    pub pending_bytes_max: usize,
    /// Milliseconds between PINGs.
    pub ping_interval_ms: u64,
    /// PINGs that may go unanswered.
    pub pings_outstanding_max: u32,
    /// Milliseconds a peer has to take all that was queued when its socket refused more.
    pub write_deadline_ms: u64,
    /// Milliseconds over which a lame duck closes its clients.
    pub lame_duck_duration_ms: u64,
    /// Milliseconds before a lame duck closes the first of them.
    pub lame_duck_grace_ms: u64,
    /// Bytes of one message that a trace line shows; `None` is all of them.
    pub traced_message_bytes_max: Option<usize>,
    /// What was accepted although it is odd; the server logs each at start.
    pub warnings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: None,
            port: limits::PORT,
            name: None,
            client_advertise: None,
            workers: None,
            pid_file: None,
            ports_file_dir: None,
            log: LogOptions::default(),
            credentials: Credentials::Open,
            auth_timeout_ms: limits::AUTH_TIMEOUT_MS,
            connections_max: limits::CONNECTIONS_MAX,
            subscriptions_max: 0,
            control_line_bytes_max: limits::CONTROL_LINE_BYTES_MAX,
            payload_bytes_max: Some(limits::PAYLOAD_BYTES_MAX),
            pending_bytes_max: limits::PENDING_BYTES_MAX,
            ping_interval_ms: limits::PING_INTERVAL_MS,
            pings_outstanding_max: limits::PINGS_OUTSTANDING_MAX,
            write_deadline_ms: limits::WRITE_DEADLINE_MS,
            lame_duck_duration_ms: limits::LAME_DUCK_DURATION_MS,
            lame_duck_grace_ms: limits::LAME_DUCK_GRACE_MS,
            traced_message_bytes_max: None,
            warnings: Vec::new(),
        }
    }
}
