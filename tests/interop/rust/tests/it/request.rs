//! Request and reply.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, HeaderMap, Request, StatusCode};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::support::{PATIENCE, Server, next, queue_subscribe, subscribe, text};

/// Answers until the connection ends.
async fn serve(client: Client, subject: &str) {
    let mut sub = queue_subscribe(&client, subject, "workers").await;
    tokio::spawn(async move {
        while let Some(message) = sub.next().await {
            let answer = format!("re:{}", text(&message));
            let reply = message.reply.clone().unwrap();
            let headers = message.headers.clone().unwrap_or_default();
            client
                .publish_with_headers(reply, headers, answer.into())
                .await
                .unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request() {
    let server = Server::start().await;
    serve(server.connect().await, "rr.one").await;
    let caller = server.connect().await;
    let mut headers = HeaderMap::new();
    headers.insert("Ask-Me", "Anything");
    let message = caller
        .request_with_headers("rr.one", headers.clone(), "ask".into())
        .await
        .unwrap();
    assert_eq!(text(&message), "re:ask");
    assert_eq!(message.headers, Some(headers));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_with_an_inbox_of_its_own() {
    let server = Server::start().await;
    serve(server.connect().await, "rr.own").await;
    let caller = server.connect().await;
    let request = Request::new()
        .inbox(caller.new_inbox())
        .payload("ask".into());
    let message = caller.send_request("rr.own", request).await.unwrap();
    assert_eq!(text(&message), "re:ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once() {
    let server = Server::start().await;
    for _ in 0..3 {
        serve(server.connect().await, "rr.many").await;
    }
    let caller = server.connect().await;
    let replies = join_all((0..200).map(|i| {
        let request = Request::new()
            .payload(i.to_string().into())
            .timeout(Some(PATIENCE));
        caller.send_request("rr.many", request)
    }));
    for (i, reply) in replies.await.into_iter().enumerate() {
        assert_eq!(text(&reply.unwrap()), format!("re:{i}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_responders() {
    let server = Server::start().await;
    let caller = server.connect().await;
    let refused = caller.request("rr.nobody", "".into()).await.unwrap_err();
    assert_eq!(refused.kind(), RequestErrorKind::NoResponders);

    let inbox = caller.new_inbox();
    let mut sub = subscribe(&caller, &inbox).await;
    caller
        .publish_with_reply("rr.nobody", inbox, "x".into())
        .await
        .unwrap();
    let message = next(&mut sub).await;
    assert_eq!(message.status, Some(StatusCode::NO_RESPONDERS));
    assert!(message.payload.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_nobody_answers_in_time() {
    let server = Server::start().await;
    let caller = server.connect().await;
    let _silent = subscribe(&caller, "rr.silent").await;
    let request = Request::new().timeout(Some(Duration::from_millis(200)));
    let refused = caller.send_request("rr.silent", request).await.unwrap_err();
    assert_eq!(refused.kind(), RequestErrorKind::TimedOut);
}
