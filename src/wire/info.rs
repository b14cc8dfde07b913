//! The INFO line: what a server says of itself. Source: core-protocol section 1.1.

use std::fmt::Write;
use std::net::IpAddr;

/// What every INFO of a server has in common.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Public key of the server, new at every start.
    pub server_id: String,
    /// Name given, or the id.
    pub server_name: String,
    /// The NATS version whose features are there: clients decide by it what they may use.
    pub nats_version: &'static str,
    /// Version of midge itself.
    pub midge_version: &'static str,
    /// Source revision midge was built from; empty when unknown.
    pub revision: &'static str,
    /// Address told to clients.
    pub host: String,
    /// Port told to clients.
    pub port: u16,
    /// Whether credentials are needed.
    pub auth_required: bool,
    /// Header and payload bytes of one message; -1 is unlimited.
    pub max_payload: i64,
}

/// What an INFO says of one connection at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo {
    /// Number of the connection.
    pub client_id: u64,
    /// Address of the peer; none over a Unix socket or in process.
    pub client_ip: Option<IpAddr>,
    /// Whether the client has sent CONNECT.
    pub is_connected: bool,
    /// Whether the server is in lame duck mode.
    pub is_lame_duck: bool,
}

impl ServerInfo {
    /// Appends the whole line. Like the reference there is a blank between `}` and CR.
    pub fn append_line(&self, conn: &ConnInfo, out: &mut Vec<u8>) {
        let mut json = String::with_capacity(512);
        json.push_str("INFO {");
        field(&mut json, "server_id", &self.server_id);
        json.push(',');
        field(&mut json, "server_name", &self.server_name);
        json.push(',');
        field(&mut json, "version", self.nats_version);
        json.push_str(",\"proto\":1,");
        if !self.revision.is_empty() {
            field(&mut json, "git_commit", self.revision);
            json.push(',');
        }
        field(&mut json, "midge", self.midge_version);
        json.push(',');
        field(&mut json, "host", &self.host);
        let _ = write!(json, ",\"port\":{},\"headers\":true", self.port);
        if self.auth_required {
            json.push_str(",\"auth_required\":true");
        }
        let _ = write!(json, ",\"max_payload\":{}", self.max_payload);
        let _ = write!(json, ",\"client_id\":{}", conn.client_id);
        if let Some(ip) = conn.client_ip {
            let _ = write!(json, ",\"client_ip\":\"{ip}\"");
        }
        if conn.is_lame_duck {
            json.push_str(",\"ldm\":true");
        }
        if conn.is_connected {
            json.push_str(",\"connect_info\":true,\"remote_account\":\"$G\"");
        }
        json.push_str("} \r\n");
        out.extend_from_slice(json.as_bytes());
    }
}

/// Appends `"key":"value"` with the value escaped.
fn field(json: &mut String, key: &str, value: &str) {
    // Strings always serialize; a failure would leave an empty value rather than a broken line.
    let value = serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned());
    let _ = write!(json, "\"{key}\":{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_json_between_info_and_crlf() {
        let info = ServerInfo {
            server_id: "NID".into(),
            server_name: "a \"name\"\r\n".into(),
            nats_version: "2.2.0",
            midge_version: "0.1.0",
            revision: "",
            host: "127.0.0.1".into(),
            port: 4222,
            auth_required: true,
            max_payload: 1024,
        };
        let conn = ConnInfo {
            client_id: 7,
            client_ip: Some(IpAddr::from([127, 0, 0, 1])),
            is_connected: true,
            is_lame_duck: false,
        };
        let mut line = Vec::new();
        info.append_line(&conn, &mut line);
        let text = String::from_utf8(line).expect("UTF-8");
        let json = text
            .strip_prefix("INFO ")
            .and_then(|t| t.strip_suffix(" \r\n"))
            .expect("frame");
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(value["server_name"], "a \"name\"\r\n");
        assert_eq!(value["client_id"], 7);
        assert_eq!(value["auth_required"], true);
        assert_eq!(value["connect_info"], true);
        assert!(value.get("ldm").is_none());
    }
}
