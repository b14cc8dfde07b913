//! What the log shows, in the form that client test suites read, and what it never shows.

use crate::support::Server;

/// `-DV` writes a line for each operation; a password and a token are never in it.
#[test]
fn protocol_lines_are_traced_without_secrets() {
    let server = Server::builder()
        .arg("-DV")
        .option("user", "bob")
        .option("pass", "hush-hush")
        .start();
    let mut conn = server.open();
    conn.handshake(r#"{"verbose":false,"user":"bob","pass":"hush-hush","name":"probe"}"#);
    conn.send(b"SUB foo 1\r\nSUB bar q 2\r\nPUB foo 3\r\nabc\r\nUNSUB 1\r\nPING\r\n");
    conn.expect(b"MSG foo 1 3\r\nabc\r\nPONG\r\n");
    let mut wrong = server.open();
    wrong.send(
        b"CONNECT {\"user\":\"bob\",\"pass\":\"hush-wrong\",\"auth_token\":\"hush-token\"}\r\n",
    );
    wrong.expect(b"-ERR 'Authorization Violation'\r\n");
    wrong.expect_closed();
    conn.shut_down_write();
    conn.expect_closed();
    for part in [
        "Client connection created",
        "<<- [SUB foo 1]",
        "<<- [SUB bar q 2]",
        "<<- [PUB foo 3]",
        "->> [MSG foo 1 3]",
        "<<- [UNSUB 1]",
        "->> [PONG]",
        "Client connection closed: Client Closed",
        "Client connection closed: Authentication Failure",
    ] {
        server.wait_log(part);
    }
    let log = server.log();
    // A test of the C client looks for this and must not find it.
    assert!(!log.contains("[UNSUB 1 ]"), "{log}");
    assert!(!log.contains("hush"), "a secret is in the log:\n{log}");
    let created = log
        .lines()
        .find(|line| line.contains("Client connection created"));
    assert!(created.is_some_and(|line| line.contains("127.0.0.1:") && line.contains("cid:")));
}
