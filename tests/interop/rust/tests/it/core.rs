//! Publish, subscribe, wildcards, queue groups, headers and payloads.

use async_nats::{ConnectOptions, HeaderMap, HeaderName, client::PublishErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::support::{
    Server, arrived, next, publish, queue_subscribe, subscribe, synced, text, until,
};

const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn info_names_the_server() {
    let server = Server::start().await;
    let client = server.connect().await;
    let info = client.server_info();
    assert_eq!(info.max_payload, PAYLOAD_BYTES_MAX);
    assert!(info.headers);
    assert!(info.client_id > 0);
    assert!(client.is_server_compatible(2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_subscribe_keeps_order() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscribe(&subscriber, "order.a").await;
    for i in 0..5000 {
        publish(&publisher, "order.a", i).await;
    }
    for i in 0..5000 {
        assert_eq!(text(&next(&mut sub).await), i.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subject_reply_and_empty_payload_arrive() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut sub = subscribe(&client, "cb.>").await;
    client
        .publish_with_reply("cb.one.two", "answers.here", Bytes::new())
        .await
        .unwrap();
    let message = next(&mut sub).await;
    assert_eq!(message.subject.as_str(), "cb.one.two");
    assert_eq!(message.reply.unwrap().as_str(), "answers.here");
    assert!(message.payload.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_matching_subscriptions_get_a_copy_each() {
    let server = Server::start().await;
    let client = server.connect().await;
    for subject in ["twice.a", "twice.*", "twice.>"] {
        let mut subs = [
            subscribe(&client, subject).await,
            subscribe(&client, "twice.a").await,
        ];
        publish(&client, "twice.a", "1").await;
        synced(&client).await;
        for sub in &mut subs {
            assert_eq!(arrived(sub).len(), 1, "{subject}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    for (wildcard, matches, misses) in [
        ("w.*", &["w.a", "w.b"][..], &["w", "w.a.b", "v.a"][..]),
        ("w.*.c", &["w.a.c", "w.cc.c"], &["w.c", "w.a.d", "w.a.b.c"]),
        ("w.>", &["w.a", "w.a.b.c"], &["w", "v.a"]),
        ("*.w", &["a.w", "w.w"], &["w", "a.b.w"]),
        ("w.*.>", &["w.a.b", "w.a.b.c"], &["w.a", "w"]),
    ] {
        let mut sub = subscribe(&subscriber, wildcard).await;
        let mut end = subscribe(&subscriber, "end.wild.card").await;
        for subject in misses.iter().chain(matches) {
            publish(&publisher, subject, "").await;
        }
        // The last message of this publisher: whatever was to come before it has come.
        publish(&publisher, "end.wild.card", "").await;
        next(&mut end).await;
        let got = arrived(&mut sub);
        let got: Vec<&str> = got.iter().map(|m| m.subject.as_str()).collect();
        assert_eq!(got, matches, "{wildcard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_group_gives_each_message_to_one_member() {
    let server = Server::start().await;
    let publisher = server.connect().await;
    let mut groups = Vec::new();
    for (group, size) in [("a", 3), ("b", 2)] {
        let mut members = Vec::new();
        for _ in 0..size {
            let client = server.connect().await;
            let jobs = queue_subscribe(&client, "jobs.*", group).await;
            let end = subscribe(&client, "end.of.jobs").await;
            members.push((client, jobs, end));
        }
        groups.push(members);
    }
    for i in 0..600 {
        publish(&publisher, &format!("jobs.{}", i % 7), i).await;
    }
    publish(&publisher, "end.of.jobs", "").await;
    for mut members in groups {
        let mut all = Vec::new();
        for (_, jobs, end) in &mut members {
            next(end).await;
            let mine: Vec<u32> = arrived(jobs)
                .iter()
                .map(|m| text(m).parse().unwrap())
                .collect();
            assert!(!mine.is_empty(), "a member got nothing");
            assert!(mine.is_sorted());
            all.extend(mine);
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..600), "{} messages", all.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_keep_case_and_duplicates() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscribe(&subscriber, "head").await;
    let mut headers = HeaderMap::new();
    headers.append("X-Mixed-CASE", "One");
    headers.append("X-Mixed-CASE", "Two");
    headers.append("x-mixed-case", "three");
    headers.append("utf8", "grüße: ☃");
    for payload in ["body", ""] {
        publisher
            .publish_with_headers("head", headers.clone(), payload.into())
            .await
            .unwrap();
    }
    publish(&publisher, "head", "none").await;
    for payload in ["body", ""] {
        let message = next(&mut sub).await;
        assert_eq!(text(&message), payload);
        let got = message.headers.unwrap();
        assert_eq!(got, headers);
        let name: HeaderName = "X-Mixed-CASE".parse().unwrap();
        let values: Vec<&str> = got.get_all(name).map(|v| v.as_str()).collect();
        assert_eq!(values, ["One", "Two"]);
    }
    assert!(next(&mut sub).await.headers.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_payloads() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut sub = subscribe(&client, "binary").await;
    let every: Vec<u8> = (0..=255).collect();
    for data in [&every[..], b"\r\nPING\r\nMSG a 1 2\r\n\0\r\n", b"\r\n", b""] {
        let data = Bytes::copy_from_slice(data);
        client.publish("binary", data.clone()).await.unwrap();
        assert_eq!(next(&mut sub).await.payload, data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_of_one_mebibyte_and_one_byte_more() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscribe(&subscriber, "big").await;
    let data = Bytes::from(b"0123456789abcdef".repeat(PAYLOAD_BYTES_MAX / 16));
    for _ in 0..5 {
        publisher.publish("big", data.clone()).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(next(&mut sub).await.payload, data);
    }
    let too_big = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let refused = publisher.publish("big", too_big).await.unwrap_err();
    assert_eq!(refused.kind(), PublishErrorKind::MaxPayloadExceeded);
    synced(&publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_unsubscribe() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscriber.subscribe("auto").await.unwrap();
    sub.unsubscribe_after(5).await.unwrap();
    synced(&subscriber).await;
    for i in 0..20 {
        publish(&publisher, "auto", i).await;
    }
    for i in 0..5 {
        assert_eq!(text(&next(&mut sub).await), i.to_string());
    }
    assert!(sub.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_echo() {
    let server = Server::start().await;
    let quiet = server.connect_with(ConnectOptions::new().no_echo()).await;
    let other = server.connect().await;
    let mut own = quiet.subscribe("echo").await.unwrap();
    let mut theirs = subscribe(&other, "echo").await;
    publish(&quiet, "echo", "mine").await;
    assert_eq!(text(&next(&mut theirs).await), "mine");
    // The subscription stood before the publish on the same connection.
    publish(&other, "echo", "yours").await;
    assert_eq!(text(&next(&mut own).await), "yours");
    assert!(arrived(&mut own).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_subscription_ends_the_interest() {
    let server = Server::start().await;
    let (publisher, subscriber) = (server.connect().await, server.connect().await);
    let mut sub = subscribe(&subscriber, "gone").await;
    sub.unsubscribe().await.unwrap();
    synced(&subscriber).await;
    let refused = publisher.request("gone", "".into()).await.unwrap_err();
    assert_eq!(
        refused.kind(),
        async_nats::client::RequestErrorKind::NoResponders
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_agree_with_the_server() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut sub = subscribe(&client, "stat").await;
    let statistics = client.statistics();
    let before = statistics
        .in_messages
        .load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..100 {
        publish(&client, "stat", "x").await;
    }
    for _ in 0..100 {
        next(&mut sub).await;
    }
    until("the count", || {
        statistics
            .in_messages
            .load(std::sync::atomic::Ordering::Relaxed)
            - before
            == 100
    })
    .await;
}
