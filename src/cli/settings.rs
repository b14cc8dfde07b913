//! Where the client tools connect and as whom: flags first, then the environment.

use super::failure::Failure;
use super::flags::Parsed;
use super::server_info::ServerInfo;
use super::server_url::{self, Credentials, ServerUrl};

/// Servers of a cluster that are remembered: a dozen is a large cluster, and a list without end
/// is an attack.
const LEARNED_MAX: usize = 64;

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Candidates with their credentials, in the order in which they are tried.
    pub servers: Vec<ServerUrl>,
    /// Others that a server has told of, tried after the user's own.
    pub learned: Vec<ServerUrl>,
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
            learned: Vec::new(),
            name: flags.text("name")?.unwrap_or(format!("midge {command}")),
        })
    }

    /// All servers, in the order in which they are tried.
    pub fn candidates(&self) -> impl Iterator<Item = &ServerUrl> {
        self.servers.iter().chain(&self.learned)
    }

    /// Takes over the servers that a server tells of, in place of those told of before: clusters
    /// change. A server that tells of none knows nothing better.
    pub fn learn(&mut self, info: &ServerInfo) {
        if info.connect_urls.is_empty() {
            return;
        }
        self.learned.clear();
        for url in info.connect_urls.iter().take(LEARNED_MAX) {
            let Ok(server) = server_url::parse(url) else {
                continue;
            };
            let is_same =
                |known: &ServerUrl| (&known.host, known.port) == (&server.host, server.port);
            if !self.candidates().any(is_same) {
                let credentials = self.servers[0].credentials.clone();
                self.learned.push(ServerUrl {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &Settings) -> Vec<String> {
        settings.candidates().map(ToString::to_string).collect()
    }

    #[test]
    fn the_latest_servers_that_were_told_of_follow_those_of_the_user() {
        let mut settings = Settings {
            servers: server_url::parse_list("me:secret@a:1,b:2").unwrap(),
            learned: Vec::new(),
            name: "test".into(),
        };
        let info = |urls: &[String]| ServerInfo {
            connect_urls: urls.to_vec(),
            ..ServerInfo::default()
        };
        let told = ["b:2", "c:3", "c:3", "tls://d:4", "e:5"].map(str::to_owned);
        settings.learn(&info(&told));
        assert_eq!(names(&settings), ["a:1", "b:2", "c:3", "e:5"]);
        let secret = Credentials::User("me".into(), "secret".into());
        assert!(settings.learned.iter().all(|one| one.credentials == secret));
        settings.learn(&info(&[]));
        assert_eq!(names(&settings), ["a:1", "b:2", "c:3", "e:5"]);
        settings.learn(&info(&["f:6".to_owned()]));
        assert_eq!(names(&settings), ["a:1", "b:2", "f:6"]);
        let many: Vec<String> = (1..10_000).map(|port| format!("g:{port}")).collect();
        settings.learn(&info(&many));
        assert_eq!(settings.learned.len(), LEARNED_MAX);
    }
}
