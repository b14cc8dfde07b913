//! A connection against servers of a few lines.

use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::cli::server_url;

const INFO: &str = "INFO {\"version\":\"2.1.0\",\"headers\":true,\"max_payload\":10}\r\n";

/// A server that greets with `greeting`, waits for a PING, says `answer` and hands back what
/// it was sent until the other side hangs up.
fn server(greeting: &'static str, answer: &'static str) -> (Settings, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        servers: server_url::parse_list(&format!("me:secret@{}", listener.local_addr().unwrap()))
            .unwrap(),
        learned: Vec::new(),
        name: "test".into(),
    };
    let thread = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(greeting.as_bytes()).unwrap();
        let mut sent = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = peer.read(&mut piece) {
            sent.extend_from_slice(&piece[..count]);
            if sent.ends_with(b"PING\r\n") {
                peer.write_all(answer.as_bytes()).unwrap();
            }
        }
        String::from_utf8(sent).unwrap()
    });
    (settings, thread)
}

#[test]
fn a_server_is_greeted_its_pings_are_answered_and_its_messages_come() {
    let (settings, thread) = server(INFO, "PONG\r\nPING\r\nMSG foo 1 2\r\nhi\r\n");
    let mut connection = Connection::open(&settings).unwrap();
    let event = connection.receive(None).unwrap();
    let Some(Event::Message(message)) = event else {
        panic!("{event:?} is no message");
    };
    assert_eq!(
        (&message.subject[..], &message.payload[..]),
        (&b"foo"[..], &b"hi"[..])
    );
    assert!(connection.check_message(b"", b"0123456789").is_ok());
    assert!(connection.check_message(b"0", b"0123456789").is_err());
    let (stream, rest) = connection.into_parts().unwrap();
    assert_eq!((stream.read_timeout().unwrap(), rest), (None, Vec::new()));
    drop(stream);
    let sent = thread.join().unwrap();
    let (connect, rest) = sent.split_once("\r\n").unwrap();
    let connect: serde_json::Value =
        serde_json::from_str(connect.strip_prefix("CONNECT ").unwrap()).unwrap();
    assert_eq!(connect["user"], "me");
    assert_eq!(connect["no_responders"], true);
    assert_eq!(rest, "PING\r\nPONG\r\n");
}

#[test]
fn who_is_not_let_in_or_meets_no_server_is_told_so() {
    for (greeting, answer, expected, hint) in [
        (
            INFO,
            "-ERR 'Authorization Violation'\r\n",
            "refused the connection: Authorization Violation",
            "check the user name and the password",
        ),
        (
            "SSH-2.0-OpenSSH\r\n",
            "",
            "does not speak the NATS protocol",
            "",
        ),
        ("INFO []\r\n", "", "sent an INFO without a version", ""),
        (
            "INFO {\"version\":\"2\",\"tls_required\":true}\r\n",
            "",
            "requires TLS",
            "",
        ),
    ] {
        let (settings, thread) = server(greeting, answer);
        let error = Connection::open(&settings).err().unwrap();
        assert!(error.text.contains(expected), "{}", error.text);
        assert_eq!((error.hint, error.is_temporary), (hint, false));
        thread.join().unwrap();
    }
}

#[test]
fn a_server_that_hangs_up_may_come_back() {
    let (settings, thread) = server(INFO, "PONG\r\n");
    let mut connection = Connection::open(&settings).unwrap();
    connection
        .stream_handle()
        .unwrap()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    let error = connection.receive(None).unwrap_err();
    assert!(error.is_temporary && error.text.ends_with("closed the connection"));
    thread.join().unwrap();
}

#[test]
fn a_ping_is_answered_while_nothing_is_to_be_done() {
    let (settings, thread) = server(INFO, "PONG\r\nPING\r\n-ERR 'enough'\r\n");
    let mut connection = Connection::open(&settings).unwrap();
    let error = connection.idle(Duration::from_secs(3600)).unwrap_err();
    assert!(error.text.ends_with("enough"), "{}", error.text);
    connection.idle(Duration::from_millis(1)).unwrap();
    drop(connection);
    assert!(thread.join().unwrap().ends_with("PING\r\nPONG\r\n"));
}
