//! Why a connection ended: one list that logs, monitoring and tests share.

use std::fmt;

/// Reason a connection was closed. The texts are those of the reference, since dashboards and
/// tests compare them. Source: core-protocol section 2.9.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CloseReason {
    /// The peer closed.
    ClientClosed,
    /// No credentials in time.
    AuthenticationTimeout,
    /// Credentials missing or wrong.
    AuthenticationFailure,
    /// More bytes were queued for the peer than allowed.
    SlowConsumerPendingBytes,
    /// The peer did not take what was queued for it within the write deadline.
    SlowConsumerWriteDeadline,
    /// Writing failed.
    WriteError,
    /// Reading failed.
    ReadError,
    /// A line that could not be understood.
    ParseError,
    /// PINGs went unanswered.
    StaleConnection,
    /// Bytes that are not the protocol.
    ProtocolViolation,
    /// CONNECT with an unknown protocol number.
    BadClientProtocolVersion,
    /// The server is full.
    ConnectionsExceeded,
    /// A message larger than allowed.
    PayloadExceeded,
    /// A control line longer than allowed.
    ControlLineExceeded,
    /// The server stops, or eases its clients away.
    ServerShutdown,
    /// HPUB without headers negotiated, or with contradicting sizes.
    HeaderViolation,
    /// `no_responders` without headers.
    NoRespondersRequiresHeaders,
}

impl CloseReason {
    /// Whether the peer was told something it should be able to read before the connection goes.
    pub fn is_told(self) -> bool {
        !matches!(
            self,
            CloseReason::ClientClosed
                | CloseReason::SlowConsumerPendingBytes
                | CloseReason::SlowConsumerWriteDeadline
                | CloseReason::WriteError
                | CloseReason::ReadError
        )
    }

    /// The words of the reference.
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "Client Closed",
            CloseReason::AuthenticationTimeout => "Authentication Timeout",
            CloseReason::AuthenticationFailure => "Authentication Failure",
            CloseReason::SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            CloseReason::SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            CloseReason::WriteError => "Write Error",
            CloseReason::ReadError => "Read Error",
            CloseReason::ParseError => "Parse Error",
            CloseReason::StaleConnection => "Stale Connection",
            CloseReason::ProtocolViolation => "Protocol Violation",
            CloseReason::BadClientProtocolVersion => "Bad Client Protocol Version",
            CloseReason::ConnectionsExceeded => "Maximum Connections Exceeded",
            CloseReason::PayloadExceeded => "Maximum Message Payload Exceeded",
            CloseReason::ControlLineExceeded => "Maximum Control Line Exceeded",
            CloseReason::ServerShutdown => "Server Shutdown",
            CloseReason::HeaderViolation => "Message Header Violation",
            CloseReason::NoRespondersRequiresHeaders => "No Responders Requires Headers",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
