//! Protocol lines in the log, when they are asked for (`-V`). Secrets never appear.

use std::fmt;

use super::conn::Conn;
use super::shard::Shard;
use super::subs::Sid;
use crate::log::Logger;
use crate::wire::parse::{Op, Publish};

/// Bytes as text; the log escapes what could break its lines.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.0))
    }
}

/// A message on its way to a subscription.
#[cold]
pub(super) fn delivery<S>(log: &Logger, conn: &Conn<S>, sid: &Sid, publish: &Publish<'_>) {
    let label = conn.label();
    let (subject, sid) = (Text(publish.subject), Text(sid.name()));
    let reply = publish
        .reply
        .map(|reply| format!("{} ", Text(reply)))
        .unwrap_or_default();
    let payload_bytes = publish.body.len() - publish.header_bytes;
    match (publish.header_bytes, conn.wishes.headers) {
        (0, _) | (_, false) => {
            log.trace(format_args!(
                "{label} - ->> [MSG {subject} {sid} {reply}{payload_bytes}]"
            ));
        }
        (header_bytes, true) => {
            let size = publish.body.len();
            log.trace(format_args!(
                "{label} - ->> [HMSG {subject} {sid} {reply}{header_bytes} {size}]"
            ));
        }
    }
}

impl<S> Shard<S> {
    /// Looks whether protocol lines are asked for: once a call, not once a message.
    pub(super) fn renew_trace(&mut self) {
        self.local.trace = match self.shared.log.trace_enabled() {
            true => Some(self.shared.log.clone()),
            false => None,
        };
    }

    #[inline]
    pub(super) fn trace_op(&self, slot: u32, op: &Op<'_>) {
        if self.shared.log.trace_enabled() {
            self.trace_op_line(slot, op);
        }
    }

    #[inline]
    pub(super) fn trace_publish(&self, slot: u32, publish: &Publish<'_>) {
        if self.local.trace.is_some() {
            self.trace_publish_line(slot, publish);
        }
    }

    /// A line the server sends.
    #[inline]
    pub(super) fn trace_out(&self, slot: u32, line: fmt::Arguments<'_>) {
        if self.shared.log.trace_enabled()
            && let Some(conn) = self.conn(slot)
        {
            self.shared
                .log
                .trace(format_args!("{} - ->> [{line}]", conn.label()));
        }
    }

    #[cold]
    fn trace_op_line(&self, slot: u32, op: &Op<'_>) {
        let Some(conn) = self.conn(slot) else { return };
        let log = |line: fmt::Arguments<'_>| {
            self.shared
                .log
                .trace(format_args!("{} - <<- [{line}]", conn.label()));
        };
        match op {
            Op::Sub {
                subject,
                queue: None,
                sid,
            } => {
                log(format_args!("SUB {} {}", Text(subject), Text(sid)));
            }
            Op::Sub {
                subject,
                queue: Some(queue),
                sid,
            } => {
                log(format_args!(
                    "SUB {} {} {}",
                    Text(subject),
                    Text(queue),
                    Text(sid)
                ));
            }
            Op::Unsub { sid, max: None } => log(format_args!("UNSUB {}", Text(sid))),
            Op::Unsub {
                sid,
                max: Some(max),
            } => log(format_args!("UNSUB {} {max}", Text(sid))),
            Op::Connect(json) => log(format_args!("CONNECT {}", redacted(json))),
            Op::Info(json) => log(format_args!("INFO {}", Text(json))),
            Op::Ping => log(format_args!("PING")),
            Op::Pong => log(format_args!("PONG")),
            Op::Ok => log(format_args!("OK")),
            Op::Publish(publish) => self.trace_publish_line(slot, publish),
        }
    }

    #[cold]
    fn trace_publish_line(&self, slot: u32, publish: &Publish<'_>) {
        let Some(conn) = self.conn(slot) else { return };
        let label = conn.label();
        let log = &self.shared.log;
        let (verb, header) = match publish.header_bytes {
            0 => ("PUB", String::new()),
            bytes => ("HPUB", format!("{bytes} ")),
        };
        let subject = Text(publish.subject);
        let reply = publish
            .reply
            .map(|reply| format!("{} ", Text(reply)))
            .unwrap_or_default();
        let size = publish.body.len();
        log.trace(format_args!(
            "{label} - <<- [{verb} {subject} {reply}{header}{size}]"
        ));
        let shown = match self.shared.options.traced_message_bytes_max {
            Some(max) if publish.body.len() > max => &publish.body[..max],
            _ => publish.body,
        };
        let cut = if shown.len() < publish.body.len() {
            "..."
        } else {
            ""
        };
        let text = Text(shown);
        log.trace(format_args!("{label} - <<- MSG_PAYLOAD: [\"{text}{cut}\"]"));
    }
}

/// The JSON of CONNECT without its secrets; nothing at all of it when it is no JSON.
fn redacted(json: &[u8]) -> String {
    const SECRETS: [&str; 5] = ["pass", "auth_token", "jwt", "sig", "nkey"];
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(json) else {
        return "[REDACTED]".to_owned();
    };
    for (key, value) in &mut fields {
        if SECRETS
            .iter()
            .any(|secret| key.eq_ignore_ascii_case(secret))
        {
            *value = "[REDACTED]".into();
        }
    }
    serde_json::Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn secrets_do_not_show() {
        let shown =
            redacted(br#"{"user":"u","PASS":"geheim","auth_token":"t0ken","verbose":true}"#);
        assert!(!shown.contains("geheim") && !shown.contains("t0ken") && shown.contains("\"u\""));
        assert_eq!(redacted(b"{\"pass\":\"geheim\""), "[REDACTED]");
    }
}
