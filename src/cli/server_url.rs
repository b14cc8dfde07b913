//! Server addresses as users write them: `nats://user:pass@host:port`, `host:port`, `host`.

use std::fmt;

use super::failure::Failure;

/// Where to connect when nobody says.
pub const DEFAULT: &str = "nats://127.0.0.1:4222";
const PORT_DEFAULT: u16 = 4222;

/// What we show to be let in.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// A secret shared by all.
    Token(String),
    /// A name and a password.
    User(String, String),
}

impl fmt::Debug for Credentials {
    /// Secrets never reach a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Token(_) => "Token([REDACTED])",
            Credentials::User(..) => "User([REDACTED])",
        })
    }
}

/// One server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Credentials written into the URL.
    pub credentials: Credentials,
}

impl fmt::Display for ServerUrl {
    /// `host:port`, without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses a list with commas.
pub fn parse_list(text: &str) -> Result<Vec<ServerUrl>, Failure> {
    let urls = text.split(',').map(str::trim);
    let servers: Result<Vec<_>, _> = urls.filter(|url| !url.is_empty()).map(parse).collect();
    match servers {
        Ok(servers) if servers.is_empty() => Err(Failure::usage(
            "no server is named; a server looks like nats://127.0.0.1:4222",
        )),
        other => other,
    }
}

/// Parses one server.
pub fn parse(text: &str) -> Result<ServerUrl, Failure> {
    let bad = |fault: &str| {
        // What stands before the @ may be a password.
        let shown = text.rsplit_once('@').map_or(text, |(_, address)| address);
        Failure::usage(format!(
            "bad server \"{shown}\": {fault}; a server looks like nats://127.0.0.1:4222"
        ))
    };
    let rest = match text.split_once("://") {
        None => text,
        Some(("nats", rest)) => rest,
        Some(("tls", _)) => return Err(bad("these tools do not speak TLS")),
        Some((scheme, _)) => return Err(bad(&format!("the scheme {scheme} is not nats"))),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, address) = match rest.rsplit_once('@') {
        None => (Credentials::None, rest),
        Some((secret, address)) => (
            parse_credentials(secret).ok_or_else(|| bad("bad % escape"))?,
            address,
        ),
    };
    let (host, port) = split_port(address).ok_or_else(|| bad("unclosed bracket"))?;
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => return Err(bad("the port is no number from 1 to 65535")),
            Ok(port) => port,
        },
    };
    Ok(ServerUrl {
        host: host.to_owned(),
        port,
        credentials,
    })
}

/// `[::1]:4222`, `::1`, `host:4222` or `host`.
fn split_port(address: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = address.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match address.split_once(':') {
        Some((_, port)) if port.contains(':') => Some((address, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((address, None)),
    }
}

/// `user:pass`, or a token when there is no colon.
fn parse_credentials(text: &str) -> Option<Credentials> {
    Some(match text.split_once(':') {
        Some((user, password)) => {
            Credentials::User(percent_decode(user)?, percent_decode(password)?)
        }
        None => Credentials::Token(percent_decode(text)?),
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Credentials {
        Credentials::User(name.into(), password.into())
    }

    #[test]
    fn the_usual_spellings_are_read() {
        for (text, host, port, credentials) in [
            (
                "nats://127.0.0.1:4222",
                "127.0.0.1",
                4222,
                Credentials::None,
            ),
            ("nats://example.org", "example.org", 4222, Credentials::None),
            ("example.org:5000", "example.org", 5000, Credentials::None),
            ("localhost", "localhost", 4222, Credentials::None),
            (
                "nats://localhost:5000/",
                "localhost",
                5000,
                Credentials::None,
            ),
            ("[::1]:5000", "::1", 5000, Credentials::None),
            ("nats://[::1]", "::1", 4222, Credentials::None),
            ("::1", "::1", 4222, Credentials::None),
            ("nats://me:secret@h:1", "h", 1, user("me", "secret")),
            ("nats://me:p%40ss%3A@h", "h", 4222, user("me", "p@ss:")),
            (
                "nats://t0ken@h",
                "h",
                4222,
                Credentials::Token("t0ken".into()),
            ),
            ("me:a@b@h", "h", 4222, user("me", "a@b")),
        ] {
            let expected = ServerUrl {
                host: host.into(),
                port,
                credentials,
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_spellings_are_named_without_their_secrets() {
        for (text, expected) in [
            ("", "bad server \"\": the host is missing"),
            (":4222", "bad server \":4222\": the host is missing"),
            (
                "h:0",
                "bad server \"h:0\": the port is no number from 1 to 65535",
            ),
            (
                "h:65536",
                "bad server \"h:65536\": the port is no number from 1 to 65535",
            ),
            (
                "h:x",
                "bad server \"h:x\": the port is no number from 1 to 65535",
            ),
            ("[::1", "bad server \"[::1\": unclosed bracket"),
            (
                "http://h",
                "bad server \"http://h\": the scheme http is not nats",
            ),
            (
                "tls://h",
                "bad server \"tls://h\": these tools do not speak TLS",
            ),
            (
                "me:secret@h:x",
                "bad server \"h:x\": the port is no number from 1 to 65535",
            ),
            ("me:%zz@h", "bad server \"h\": bad % escape"),
            ("me:%4@h", "bad server \"h\": bad % escape"),
        ] {
            let expected = format!("{expected}; a server looks like nats://127.0.0.1:4222");
            assert_eq!(parse(text), Err(Failure::Usage(expected)), "{text}");
        }
    }

    #[test]
    fn a_list_has_commas_and_may_have_blanks() {
        let names: Vec<String> = parse_list("a, nats://b:1,,[::1]:2")
            .unwrap()
            .iter()
            .map(ServerUrl::to_string)
            .collect();
        assert_eq!(names, ["a:4222", "b:1", "[::1]:2"]);
        assert!(parse_list(" , ").is_err());
    }
}
