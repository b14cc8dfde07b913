//! Where the client tools connect and as whom: flags first, then the environment.

use super::failure::Failure;
use super::flags::Parsed;
use super::server_info::ServerInfo;
use super::server_url::{self, Credentials, ServerUrl};

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Candidates with their credentials, in the order in which they are tried.
    pub servers: Vec<ServerUrl>,
    /// Shown by the server in its list of connections.
    pub name: String,
}

impl Settings {
    /// Reads the flags that all tools share; `NATS_URL` and its kin fill what they leave open.
    pub fn from_flags(flags: &Parsed, command: &str) -> Result<Self, Failure> {
        let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        flags.exclude("user", "token")?;
        let user = flags.text("user")?;
        let password = flags.text("password")?;
        if password.is_some() && user.is_none() && env("NATS_USER").is_none() {
            return Err(Failure::usage(format!(
                "{command}: --password needs --user"
            )));
        }
        let password = password.or_else(|| env("NATS_PASSWORD"));
        let from_flags = credentials(user, &password, flags.text("token")?);
        let from_env = credentials(env("NATS_USER"), &password, env("NATS_TOKEN"));
        let text = flags.text("server")?.or_else(|| env("NATS_URL"));
        let text = text.as_deref().unwrap_or(server_url::DEFAULT);
        let mut servers = server_url::parse_list(text)?;
        for server in &mut servers {
            // Flags come first, then the URL, then the environment.
            if from_flags != Credentials::None {
                server.credentials = from_flags.clone();
            } else if server.credentials == Credentials::None {
                server.credentials = from_env.clone();
            }
        }
        Ok(Settings {
            servers,
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
}

fn credentials(
    user: Option<String>,
    password: &Option<String>,
    token: Option<String>,
) -> Credentials {
    match (user, token) {
        (Some(user), _) => Credentials::User(user, password.clone().unwrap_or_default()),
        (None, Some(token)) => Credentials::Token(token),
        (None, None) => Credentials::None,
    }
}
