//! What a server says of itself in INFO, as far as the client tools care.

use serde_json::Value;

/// The fields of INFO that have a use here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ServerInfo {
    /// NATS version that the server reports; never empty once INFO has come.
    pub version: String,
    /// Most bytes of header block and payload; `None` is unlimited.
    pub payload_bytes_max: Option<usize>,
    /// Whether messages may have headers.
    pub has_headers: bool,
    /// Whether the connection has to be encrypted.
    pub is_tls_required: bool,
    /// Whether the server is about to shut down.
    pub is_lame_duck: bool,
    /// Other servers of the cluster.
    pub connect_urls: Vec<String>,
}

impl ServerInfo {
    /// Reads the JSON; `None` if it is none, or has no version.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let fields = value.as_object()?;
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        let payload_bytes_max = fields.get("max_payload").and_then(Value::as_u64);
        let urls = fields.get("connect_urls").and_then(Value::as_array);
        let urls = urls.map_or(&[][..], Vec::as_slice).iter();
        Some(ServerInfo {
            version: fields.get("version").and_then(Value::as_str)?.to_owned(),
            payload_bytes_max: payload_bytes_max.and_then(|bytes| usize::try_from(bytes).ok()),
            has_headers: flag("headers"),
            is_tls_required: flag("tls_required"),
            is_lame_duck: flag("ldm"),
            connect_urls: urls.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_absent_ones_have_their_defaults() {
        let info = ServerInfo::parse(
            br#"{"version":"2.1.0","max_payload":-1,"connect_urls":["a:1"],"ldm":true}"#,
        );
        let expected = ServerInfo {
            version: "2.1.0".into(),
            connect_urls: vec!["a:1".into()],
            is_lame_duck: true,
            ..ServerInfo::default()
        };
        assert_eq!(info, Some(expected));
        let info = ServerInfo::parse(br#"{"version":"x","max_payload":7,"headers":true}"#).unwrap();
        assert_eq!((info.payload_bytes_max, info.has_headers), (Some(7), true));
    }

    #[test]
    fn what_is_no_info_is_refused() {
        for json in ["", "[]", "{", "{}", r#"{"version":1}"#] {
            assert_eq!(ServerInfo::parse(json.as_bytes()), None, "{json}");
        }
    }
}
