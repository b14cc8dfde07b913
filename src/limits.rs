//! Every bound of midge in one place: name, unit, reason, who enforces it.
//!
//! A bound that an operator can change has its default here and its name in the option table of
//! `config`. What is not configurable says why the number is what it is.

// ---- Defaults of configurable bounds; source: core-protocol section "Default limits" ----

/// TCP port for clients.
pub const PORT: u16 = 4222;
/// Bytes of arguments on one control line (after the verb and its blanks, without CR LF).
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;
/// Bytes of header block and payload together in one message.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes queued for one connection before it is closed as a slow consumer.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Client connections at a time.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Milliseconds between the server's PINGs to an inactive client.
pub const PING_INTERVAL_MS: u64 = 120_000;
/// Unanswered PINGs before a client is stale.
pub const PINGS_OUTSTANDING_MAX: u32 = 2;
/// Milliseconds from accept until credentials must have arrived.
pub const AUTH_TIMEOUT_MS: u64 = 2_000;
/// Milliseconds a peer has to take all that was queued when its socket refused more, before it
/// counts as a slow consumer.
pub const WRITE_DEADLINE_MS: u64 = 10_000;
/// Milliseconds over which a lame duck closes its clients.
pub const LAME_DUCK_DURATION_MS: u64 = 120_000;
/// Milliseconds a lame duck waits before it closes the first client.
pub const LAME_DUCK_GRACE_MS: u64 = 10_000;

// ---- Fixed bounds ----

/// Milliseconds after CONNECT until the first PING, which measures the round trip.
pub const FIRST_PING_MS: u64 = 2_000;
/// Age in milliseconds at which a measured round trip is taken again, even from an active client.
pub const RTT_AGE_MS_MAX: u64 = 3_600_000;
/// Bytes queued for a consumer at which those who publish to it are asked to wait: enough for the
/// largest socket buffers in common use to stay full, little enough that a thousand busy consumers
/// cost no more than a gigabyte. Halved `max_pending` when that is less.
pub const HIGH_WATER_BYTES: usize = 1024 * 1024;
/// Milliseconds a producer waits for a consumer at most, before it is read again.
/// Source: core-protocol section 6, "Stall gate".
pub const STALL_MS_MAX: u64 = 10;
/// Milliseconds without any progress after which nobody waits for a consumer.
pub const STUCK_MS_MIN: u64 = 100;
/// Bytes of log lines that may wait for the log's reader; later lines are dropped and counted. Four
/// times the capacity of a pipe: enough for the burst of a start or of a mass disconnect.
pub const LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one log line before escaping; the rest is cut off. A traced message of the largest size
/// must not fill the whole queue.
pub const LOG_LINE_BYTES_MAX: usize = 32 * 1024;
/// Milliseconds that a fatal log line may wait for the log's reader before the process goes on.
pub const LOG_FATAL_FLUSH_MS: u64 = 1_000;
/// Bytes of mail that may wait for a worker before those who write to it are read no further.
pub const MAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Milliseconds until it is looked again whether a producer that writes to such a worker can be read.
pub const CONGESTION_MS: u64 = 1;
