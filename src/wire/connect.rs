//! The JSON of CONNECT, read as leniently as the reference reads it.
//!
//! Keys in any case, unknown keys ignored, the last of equal keys wins, `null` keeps the default,
//! broken UTF-8 is replaced. Wrong types are errors. Source: core-protocol section 1.4.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// What a client says of itself. The defaults hold for a client that never sends CONNECT; what a
/// later CONNECT leaves out stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// `+OK` after every accepted operation.
    pub verbose: bool,
    /// Check of publish subjects.
    pub pedantic: bool,
    /// Own messages are delivered back.
    pub echo: bool,
    /// Headers wanted.
    pub headers: bool,
    /// Answer 503 when nobody listens.
    pub no_responders: bool,
    /// 0, or 1 for clients that understand INFO at any time.
    pub protocol: i64,
    /// Language of the client library.
    pub lang: String,
    /// Version of the client library.
    pub version: String,
    /// Name the application chose.
    pub name: String,
    /// Name of the user, if given this time.
    pub user: Option<String>,
    /// Password of the user, if given this time.
    pub password: Option<String>,
    /// Shared secret, if given this time.
    pub auth_token: Option<String>,
    /// Whether it names an account to register, which servers stopped doing long ago.
    pub names_account: bool,
}

impl Default for Connect {
    fn default() -> Self {
        Connect {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            protocol: 0,
            lang: String::new(),
            version: String::new(),
            name: String::new(),
            user: None,
            password: None,
            auth_token: None,
            names_account: false,
        }
    }
}

impl Connect {
    /// Reads the JSON over what held before; `None` when it is not an object with fields of the
    /// right types.
    pub fn parse(json: &[u8], before: Connect) -> Option<Connect> {
        let text = String::from_utf8_lossy(json);
        let mut source = serde_json::Deserializer::from_str(&text);
        let connect = source.deserialize_map(ConnectVisitor(before)).ok()?;
        source.end().ok()?;
        Some(connect)
    }
}

struct ConnectVisitor(Connect);

impl<'de> Visitor<'de> for ConnectVisitor {
    type Value = Connect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Connect, A::Error> {
        let mut connect = self.0;
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            match key.as_str() {
                "verbose" => set(&mut connect.verbose, &mut map)?,
                "pedantic" => set(&mut connect.pedantic, &mut map)?,
                "echo" => set(&mut connect.echo, &mut map)?,
                "headers" => set(&mut connect.headers, &mut map)?,
                "no_responders" => set(&mut connect.no_responders, &mut map)?,
                "protocol" => set(&mut connect.protocol, &mut map)?,
                "lang" => set(&mut connect.lang, &mut map)?,
                "version" => set(&mut connect.version, &mut map)?,
                "name" => set(&mut connect.name, &mut map)?,
                "user" => connect.user = map.next_value()?,
                "pass" => connect.password = map.next_value()?,
                "auth_token" => connect.auth_token = map.next_value()?,
                "account" | "new_account" => {
                    connect.names_account |= map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(connect)
    }
}

/// Sets a field unless the value is `null`.
fn set<'de, T: serde::Deserialize<'de>, A: MapAccess<'de>>(
    field: &mut T,
    map: &mut A,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        *field = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leniency_is_the_reference_s() {
        let connect = Connect::parse(
            b"{\"Verbose\":true,\"verbose\":false,\"ECHO\":null,\"x\":[1,{}],\"name\":\"a\xff\"}",
            Connect::default(),
        )
        .expect("valid");
        assert!(!connect.verbose && connect.echo && connect.pedantic);
        assert_eq!(connect.name, "a\u{fffd}");
    }

    #[test]
    fn what_is_left_out_stays() {
        let first = Connect::parse(b"{\"echo\":false,\"user\":\"u\"}", Connect::default());
        let first = first.expect("valid");
        assert_eq!(first.user.as_deref(), Some("u"));
        let second = Connect::parse(b"{\"echo\":null,\"verbose\":false}", first).expect("valid");
        assert!(!second.echo && !second.verbose && second.pedantic);
    }

    #[test]
    fn wrong_types_and_broken_json_are_refused() {
        for json in [
            &b"{\"verbose\":1}"[..],
            b"{\"protocol\":1.0}",
            b"{\"protocol\":99999999999999999999}",
            b"[]",
            b"1",
            b"{} x",
            b"{",
            b"",
        ] {
            assert_eq!(
                Connect::parse(json, Connect::default()),
                None,
                "{}",
                String::from_utf8_lossy(json)
            );
        }
    }
}
