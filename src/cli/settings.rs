//! Where the client tools connect and as whom: flags first, then the environment.

use super::failure::Failure;
use super::flags::Parsed;
use super::server_info::ServerInfo;
use super::server_url::{self, Credentials, ServerUrl};

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Candidates, in the order in which they are tried.
    pub servers: Vec<ServerUrl>,
    /// From flags or the environment; a URL's own credentials come first.
    pub credentials: Credentials,
    /// Shown by the server in its list of connections.
    pub name: String,
}

impl Settings {
    /// Reads the flags that all tools share; `NATS_URL` and its kin fill what they leave open.
    pub fn from_flags(flags: &Parsed, command: &str) -> Result<Self, Failure> {
        let or_env = |flag: Option<String>, name| flag.or_else(|| std::env::var(name).ok());
        let text = or_env(flags.text("server")?, "NATS_URL").filter(|url| !url.trim().is_empty());
        let user = or_env(flags.text("user")?, "NATS_USER");
        let password = or_env(flags.text("password")?, "NATS_PASSWORD");
        let token = or_env(flags.text("token")?, "NATS_TOKEN");
        flags.exclude("user", "token")?;
        let credentials = match (user, token) {
            (Some(user), _) => Credentials::User(user, password.unwrap_or_default()),
            (None, Some(token)) => Credentials::Token(token),
            (None, None) => Credentials::None,
        };
        Ok(Settings {
            servers: server_url::parse_list(text.as_deref().unwrap_or(server_url::DEFAULT))?,
            credentials,
            name: flags.text("name")?.unwrap_or(format!("midge {command}")),
        })
    }

    /// Adds servers that a server has told of.
    pub fn learn(&mut self, info: &ServerInfo) {
        for url in &info.connect_urls {
            let Ok(server) = server_url::parse(url) else {
                continue;
            };
            let is_known = |known: &ServerUrl| known.to_string() == server.to_string();
            if !self.servers.iter().any(is_known) {
                let credentials = self.servers[0].credentials.clone();
                self.servers.push(ServerUrl {
                    credentials,
                    ..server
                });
            }
        }
    }

    /// What to show to one of the servers.
    pub fn credentials_for<'a>(&'a self, server: &'a ServerUrl) -> &'a Credentials {
        match &server.credentials {
            Credentials::None => &self.credentials,
            own => own,
        }
    }
}
