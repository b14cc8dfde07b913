//! Starts and stops the server under test, and the few moves that every case needs.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, Subscriber};
use futures_util::{FutureExt, StreamExt};

/// Bounds every wait. Only a broken server reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One server process on a port of its own, which it keeps over a restart.
pub struct Server {
    dir: tempfile::TempDir,
    port: String,
    child: Child,
}

impl Server {
    pub async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(&dir, "-1");
        let mut server = Server {
            dir,
            port: String::new(),
            child,
        };
        server.wait_for_port().await;
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As a power cut does it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.port);
        self.wait_for_port().await;
    }

    pub fn lame_duck(&self) {
        let status = Command::new("kill")
            .args(["-USR2", &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    pub async fn connect(&self) -> Client {
        self.connect_with(ConnectOptions::new()).await
    }

    pub async fn connect_with(&self, options: ConnectOptions) -> Client {
        options
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(self.url())
            .await
            .unwrap()
    }

    /// The ports file is written once the listener is open.
    async fn wait_for_port(&mut self) {
        let suffix = format!("_{}.ports", self.child.id());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(port) = self.read_port(&suffix) {
                self.port = port;
                return;
            }
            let stopped = self.child.try_wait().unwrap();
            if stopped.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("server.log"));
                panic!("the server did not start:\n{}", log.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn read_port(&self, suffix: &str) -> Option<String> {
        let file = fs::read_dir(self.dir.path())
            .ok()?
            .filter_map(|entry| entry.ok())
            .find(|entry| entry.file_name().to_string_lossy().ends_with(suffix))?;
        let text = fs::read_to_string(file.path()).ok()?;
        let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
        let url = ports["nats"][0].as_str()?;
        Some(url.rsplit(':').next()?.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    std::env::var_os("MIDGE_TEST_SERVER").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/debug/midge"),
        PathBuf::from,
    )
}

fn spawn(dir: &tempfile::TempDir, port: &str) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.path().join("server.log"))
        .unwrap();
    Command::new(program())
        .args(["-a", "127.0.0.1", "-p", port, "--ports_file_dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What the client wrote so far has been handled by the server: its `flush` ends at the socket, so
/// a message makes the round.
pub async fn synced(client: &Client) {
    let inbox = client.new_inbox();
    let mut sub = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    next(&mut sub).await;
}

pub async fn subscribe(client: &Client, subject: &str) -> Subscriber {
    let sub = client.subscribe(subject.to_string()).await.unwrap();
    synced(client).await;
    sub
}

pub async fn queue_subscribe(client: &Client, subject: &str, group: &str) -> Subscriber {
    let sub = client
        .queue_subscribe(subject.to_string(), group.to_string())
        .await
        .unwrap();
    synced(client).await;
    sub
}

pub async fn publish(client: &Client, subject: &str, payload: impl ToString) {
    let payload = payload.to_string();
    client
        .publish(subject.to_string(), payload.into())
        .await
        .unwrap();
}

pub async fn next(sub: &mut Subscriber) -> Message {
    tokio::time::timeout(PATIENCE, sub.next())
        .await
        .expect("a message in time")
        .expect("a living subscription")
}

/// What has come up to now, without waiting. Unconstrained, since the runtime's budget for a task
/// would otherwise end the list early.
pub fn arrived(sub: &mut Subscriber) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(Some(message)) = tokio::task::unconstrained(sub.next()).now_or_never() {
        messages.push(message);
    }
    messages
}

pub fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
