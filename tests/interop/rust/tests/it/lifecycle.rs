//! Drain, reconnect, and what the server says of its own accord.

use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    Server, arrived, next, publish, queue_subscribe, subscribe, synced, text, until,
};

type Events = Arc<Mutex<Vec<String>>>;

fn watched(options: ConnectOptions) -> (ConnectOptions, Events) {
    let events = Events::default();
    let seen = events.clone();
    let options = options.event_callback(move |event: Event| {
        seen.lock().unwrap().push(event.to_string().to_lowercase());
        async {}
    });
    (options, events)
}

async fn saw(events: &Events, text: &str, count: usize) {
    until(text, || {
        let events = events.lock().unwrap();
        events.iter().filter(|e| e.contains(text)).count() >= count
    })
    .await;
}

async fn watched_client(server: &Server) -> (Client, Events) {
    let (options, events) = watched(ConnectOptions::new());
    (server.connect_with(options).await, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_drain() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscribe(&subscriber, "drain.sub").await;
    for i in 0..500 {
        publish(&publisher, "drain.sub", i).await;
    }
    synced(&publisher).await;
    // The client forgets a draining subscription once its UNSUB is written, so all must be there by then.
    synced(&subscriber).await;
    sub.drain().await.unwrap();
    let mut got = Vec::new();
    while let Some(message) = sub.next().await {
        got.push(text(&message).parse::<u32>().unwrap());
    }
    assert!(got.iter().copied().eq(0..500), "{} messages", got.len());
    synced(&subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_drain() {
    let server = Server::start().await;
    let caller = server.connect().await;
    let (service, events) = watched_client(&server).await;
    let mut inbox = subscribe(&caller, "drain.inbox").await;
    let mut sub = subscribe(&service, "drain.conn").await;
    let answering = service.clone();
    tokio::spawn(async move {
        while let Some(message) = sub.next().await {
            let reply = message.reply.unwrap();
            // Refused once the client is closed; the caller counts what came.
            let _ = answering.publish(reply, message.payload).await;
        }
    });
    for i in 0..200 {
        caller
            .publish_with_reply("drain.conn", "drain.inbox", i.to_string().into())
            .await
            .unwrap();
    }
    for i in 0..200 {
        assert_eq!(text(&next(&mut inbox).await), i.to_string());
    }
    service.drain().await.unwrap();
    saw(&events, "closed", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_after_kill() {
    let mut server = Server::start().await;
    let (client, events) = watched_client(&server).await;
    let mut plain = subscribe(&client, "again.*").await;
    let mut queued = queue_subscribe(&client, "again.queue", "q").await;
    saw(&events, "connected", 1).await;

    server.kill();
    saw(&events, "disconnected", 1).await;
    server.restart().await;
    until("the reconnect", || {
        events
            .lock()
            .unwrap()
            .last()
            .is_some_and(|e| e == "connected")
    })
    .await;
    synced(&client).await;

    let other = server.connect().await;
    for subject in ["again.queue", "again.b", "again.end"] {
        publish(&other, subject, subject).await;
    }
    for subject in ["again.queue", "again.b", "again.end"] {
        assert_eq!(next(&mut plain).await.subject.as_str(), subject);
    }
    assert_eq!(text(&next(&mut queued).await), "again.queue");
    assert!(arrived(&mut queued).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_while_the_server_is_away_arrives_later() {
    let mut server = Server::start().await;
    let (client, events) = watched_client(&server).await;
    let mut sub = subscribe(&client, "away").await;
    server.kill();
    saw(&events, "disconnected", 1).await;
    publish(&client, "away", "kept").await;
    server.restart().await;
    assert_eq!(text(&next(&mut sub).await), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn lame_duck_is_announced() {
    let server = Server::start().await;
    let (client, events) = watched_client(&server).await;
    let mut sub = subscribe(&client, "ldm").await;
    server.lame_duck();
    saw(&events, "lame duck", 1).await;
    publish(&client, "ldm", "still served").await;
    assert_eq!(text(&next(&mut sub).await), "still served");
}

/// Carries bytes between one client and the server, and writes a line of its own first.
async fn meddler(server: String, line: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut upstream = tokio::net::TcpStream::connect(server).await.unwrap();
        // Only after its CONNECT, which comes with a PING, does the client see an error as one of its own.
        let (mut sent, mut buffer, mut back) = (Vec::new(), [0; 4096], [0; 4096]);
        while !sent.ends_with(b"PING\r\n") {
            tokio::select! {
                count = client.read(&mut buffer) => {
                    let bytes = &buffer[..count.unwrap()];
                    assert!(!bytes.is_empty(), "the client left early");
                    sent.extend_from_slice(bytes);
                    upstream.write_all(bytes).await.unwrap();
                }
                count = upstream.read(&mut back) => {
                    client.write_all(&back[..count.unwrap()]).await.unwrap();
                }
            }
        }
        upstream.write_all(line).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_reach_the_event_callback() {
    let server = Server::start().await;
    for (line, want) in [
        (&b"SUB bad..subject 900\r\n"[..], "invalid subject"),
        (b"PUB big 9000000\r\n", "maximum payload violation"),
        (b"NOPE\r\n", "unknown protocol operation"),
    ] {
        let address = meddler(server.address(), line).await;
        let (options, events) = watched(ConnectOptions::new());
        let _client = options.connect(address).await.unwrap();
        saw(&events, want, 1).await;
    }
    synced(&server.connect().await).await;
}
