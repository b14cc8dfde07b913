//! The process: start, stop, signals, files, the port.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use crate::support::{
    Conn, Op, PATIENCE, Server, eventually, is_midge_missing, is_reference, ports_file_addr,
};

/// SIGTERM and SIGINT end the server with exit code 0; clients see the end of their connection,
/// and a new server gets the same port at once.
#[test]
fn a_signal_stops_the_server_and_frees_the_port() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::with_workers(2);
        let port = server.addr().port();
        let mut clients: Vec<Conn> = (0..8).map(|_| server.subscriber("a 1")).collect();
        server.signal(signal);
        let status = server.wait_exit();
        assert_eq!(status.code(), Some(0), "signal {signal}");
        for client in &mut clients {
            client.expect_closed();
        }
        let mut next = Server::builder().port(port).start();
        assert_eq!(next.addr().port(), port);
        next.assert_healthy();
    }
}

/// What was accepted before the signal is still flushed to a subscriber that reads.
#[test]
fn what_is_queued_is_flushed_before_the_server_stops() {
    if is_midge_missing("flush at its stop") {
        return;
    }
    const MESSAGES: usize = 100;
    let mut server = Server::with_workers(2);
    let mut subscriber = Conn::open_with_receive_buffer(server.addr(), 16 * 1024);
    subscriber.next_op();
    subscriber.handshake(r#"{"verbose":false}"#);
    subscriber.subscribe("late 1");
    let mut publisher = server.client();
    // 10 MiB: more than the system takes from the server for a reader that has not begun.
    let message = [b"PUB late 102400\r\n".as_slice(), &[b'x'; 102_400], b"\r\n"].concat();
    publisher.send(&message.repeat(MESSAGES));
    publisher.barrier();
    server.signal(libc::SIGTERM);
    for _ in 0..MESSAGES {
        assert_eq!(subscriber.next_msg().payload.len(), 102_400);
    }
    subscriber.expect_closed();
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A stuck reader cannot keep the server from stopping.
#[test]
fn a_stuck_reader_does_not_hold_up_the_stop() {
    let mut server = Server::with_workers(2);
    let mut stuck = Conn::open_with_receive_buffer(server.addr(), 8 * 1024);
    stuck.next_op();
    stuck.handshake(r#"{"verbose":false}"#);
    stuck.subscribe("late 1");
    let mut publisher = server.client();
    let message = [b"PUB late 102400\r\n".as_slice(), &[b'x'; 102_400], b"\r\n"].concat();
    publisher.send(&message.repeat(100));
    publisher.barrier();
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A second server on the port says so in one line that names it, and exits with an error.
#[test]
fn a_taken_port_is_said_in_one_line() {
    let mut first = Server::with_workers(2);
    let port = first.addr().port();
    let (status, log) = Server::builder().port(port).workers(2).run_to_end();
    assert_ne!(status.code(), Some(0));
    assert!(status.code().is_some(), "it died of a signal");
    let complaints: Vec<&str> = log
        .lines()
        .filter(|line| {
            !["[INF]", "[WRN]", "[DBG]"]
                .iter()
                .any(|level| line.contains(level))
        })
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(complaints.len(), 1, "{log}");
    assert!(
        complaints[0].contains(&port.to_string()),
        "{}",
        complaints[0]
    );
    assert!(!log.contains("Server is ready"), "{log}");
    first.assert_healthy();
}

/// Lame duck: the port closes, clients that understand are told, all are closed one by one without
/// an error line, and the process ends by itself with exit code 0.
#[test]
fn a_lame_duck_eases_its_clients_away() {
    let mut server = Server::builder()
        .workers(2)
        // The least that is allowed. The pause between two clients is at most a second anyway.
        .option("lame_duck_duration", "30s")
        .option("lame_duck_grace_period", "2s")
        .start();
    let mut told: Vec<Conn> = (0..2).map(|_| server.open()).collect();
    for conn in &mut told {
        conn.handshake(r#"{"verbose":false,"protocol":1}"#);
        assert!(matches!(conn.next_op(), Op::Info(_)));
    }
    let mut untold = server.client();
    server.signal(libc::SIGUSR2);
    for conn in &mut told {
        let Op::Info(info) = conn.next_op() else {
            panic!("INFO announces the lame duck")
        };
        assert_eq!(info["ldm"], true, "{info}");
    }
    let addr = server.addr();
    let is_port_closed = eventually(PATIENCE, || std::net::TcpStream::connect(addr).is_err());
    assert!(is_port_closed, "a lame duck still listens");
    // During the grace period messages flow as before.
    told[0].subscribe("still 1");
    untold.send(b"PUB still 2\r\nhi\r\n");
    told[0].expect(b"MSG still 1 2\r\nhi\r\n");
    // SIGTERM changes nothing now.
    server.signal(libc::SIGTERM);
    for mut conn in told.into_iter().chain([untold]) {
        // The PING that measures the round trip may still come; an error line must not.
        while let Ok(op) = conn.try_next_op() {
            assert_eq!(op, Op::Ping);
        }
        conn.expect_closed();
    }
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// SIGINT ends a lame duck at once.
#[test]
fn a_lame_duck_can_still_be_interrupted() {
    let mut server = Server::with_workers(2);
    let _client = server.client();
    server.signal(libc::SIGUSR2);
    // Ten seconds of grace are the default.
    server.wait_log("ame duck");
    server.signal(libc::SIGINT);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A lame duck without clients has nobody to wait for: it ends at once, whatever the grace period.
#[test]
fn a_lame_duck_without_clients_ends_at_once() {
    // Longer than a test waits.
    let mut server = Server::builder()
        .option("lame_duck_grace_period", "100s")
        .start();
    server.signal(libc::SIGUSR2);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// The pid file holds the number and nothing else, is private, and is there when the server is
/// ready; the ports file names the port and goes away at the end.
#[test]
fn pid_file_and_ports_file() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("server.pid");
    let mut server = Server::builder()
        .arg("-P")
        .arg(pid_file.display().to_string())
        .workers(2)
        .start();
    assert_eq!(
        std::fs::read_to_string(&pid_file).unwrap(),
        server.pid().to_string()
    );
    let mode = std::fs::metadata(&pid_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // nats-server writes it at about the time of the line; a launcher that reads it then may be late
    // or early.
    let patience = if is_reference() {
        PATIENCE
    } else {
        Duration::ZERO
    };
    assert!(eventually(patience, || ports_file_addr(server.dir())
        == Some(server.addr())));
    let program = crate::support::server_program();
    let program = program.file_name().unwrap().to_string_lossy();
    let ports_file = server
        .dir()
        .join(format!("{program}_{}.ports", server.pid()));
    assert!(ports_file.exists());
    server.signal(libc::SIGTERM);
    server.wait_exit();
    assert!(!ports_file.exists(), "the ports file is still there");
    assert!(pid_file.exists(), "the pid file is left for others to read");
}

/// `-l` sends the log into a file.
#[test]
fn the_log_goes_into_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.log");
    let path = file.display().to_string();
    let mut server = Server::builder().arg("-l").arg(path).unread_log().start();
    let has_line = eventually(PATIENCE, || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.contains("Server is ready")
    });
    assert!(has_line);
    server.assert_healthy();
    server.signal(libc::SIGTERM);
    server.wait_exit();
    assert!(std::fs::read_to_string(&file).unwrap().ends_with('\n'));
}

/// Standard error is a pipe that nobody reads, and every protocol line goes there: the pipe is soon
/// full, and the server must not care.
#[test]
fn a_full_pipe_on_stderr_stops_nothing() {
    if is_midge_missing("log that never blocks") {
        return;
    }
    let mut server = Server::builder().workers(2).arg("-DV").unread_log().start();
    let mut subscriber = server.subscriber("noise 1");
    let mut publisher = server.client();
    // A pipe holds 64 KiB; a line is about 100 bytes, and each message makes several.
    for _ in 0..20 {
        publisher.send(&b"PUB noise 20\r\n01234567890123456789\r\n".repeat(100));
        publisher.barrier();
        subscriber.expect(&b"MSG noise 1 20\r\n01234567890123456789\r\n".repeat(100));
    }
    server.assert_healthy();
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// Standard error is closed at the other end: writing there fails, and the server goes on.
#[test]
fn a_closed_stderr_stops_nothing() {
    if is_midge_missing("indifference to a closed standard error") {
        return;
    }
    let mut server = Server::builder().workers(2).arg("-DV").unread_log().start();
    server.close_log_pipe();
    for _ in 0..3 {
        server.assert_healthy();
    }
}

/// Killed without warning under load, and started again on the same port at once.
#[test]
fn killed_and_restarted_under_load() {
    let mut server = Server::with_workers(2);
    let port = server.addr().port();
    let mut subscriber = server.subscriber("load 1");
    let mut publisher = server.client();
    thread::scope(|scope| {
        scope.spawn(move || while publisher.try_send(&b"PUB load 2\r\nhi\r\n".repeat(100)) {});
        scope.spawn(move || {
            subscriber.drain_until_closed();
        });
        server.wait_log("ready");
        server.kill();
    });
    let mut next = Server::builder().port(port).workers(2).start();
    next.assert_healthy();
}

/// The addresses that something listens on at `port`, as the kernel writes them.
fn listen_addresses(port: u16) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let mut addresses: Vec<String> = texts
        .iter()
        .flat_map(|text| text.lines().skip(1))
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        // Field 3 is the state, and 0A is LISTEN.
        .filter(|fields| fields[3] == "0A")
        .filter_map(|fields| fields[1].split_once(':'))
        .filter(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port))
        .map(|(address, _)| address.to_owned())
        .collect();
    addresses.dedup();
    addresses
}

/// Without an address and without credentials only this machine can connect, over both families;
/// with credentials everybody may try.
#[test]
fn without_an_address_an_open_server_is_for_this_machine_only() {
    if is_midge_missing("loopback as its default") {
        return;
    }
    const LOOPBACK: [&str; 2] = ["0100007F", "00000000000000000000000001000000"];
    let mut open = Server::builder().no_address().workers(2).start();
    let addresses = listen_addresses(open.addr().port());
    assert!(!addresses.is_empty());
    let is_local = addresses
        .iter()
        .all(|address| LOOPBACK.contains(&address.as_str()));
    assert!(is_local, "{addresses:?}");
    open.assert_healthy();
    let has_ipv6 = std::fs::read_to_string("/proc/net/if_inet6")
        .unwrap_or_default()
        .contains(" lo");
    if has_ipv6 {
        let addr = (std::net::Ipv6Addr::LOCALHOST, open.addr().port()).into();
        Conn::open(addr).quiet().barrier();
    }

    let guarded = Server::builder()
        .no_address()
        .workers(2)
        .option("auth", "s3cr3t")
        .start();
    let addresses = listen_addresses(guarded.addr().port());
    let is_everywhere = addresses
        .iter()
        .any(|address| address.bytes().all(|byte| byte == b'0'));
    assert!(is_everywhere, "{addresses:?}");
}

/// SIGUSR1 makes the server open its log file anew, as log rotation wants it; SIGHUP asks for a
/// reload, of which there is nothing to be done without a file. Neither disturbs a client.
#[test]
fn other_signals_do_not_disturb_clients() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.log");
    let path = file.display().to_string();
    let mut server = Server::builder()
        .arg("-D")
        .arg("-l")
        .arg(path)
        .unread_log()
        .start();
    let text_in = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let mut client = server.subscriber("calm 1");
    let has_first = || text_in("server.log").contains("Client connection created");
    assert!(eventually(PATIENCE, has_first));

    std::fs::rename(&file, dir.path().join("old.log")).unwrap();
    server.signal(libc::SIGUSR1);
    assert!(
        eventually(PATIENCE, || file.exists()),
        "the log file is not opened again"
    );
    let _second = server.client();
    let has_second = || text_in("server.log").contains("Client connection created");
    assert!(
        eventually(PATIENCE, has_second),
        "the log goes on elsewhere"
    );

    server.signal(libc::SIGHUP);
    let has_answer = || text_in("server.log").contains("eload");
    assert!(
        eventually(PATIENCE, has_answer),
        "nothing is said about the reload"
    );
    client.send(b"PUB calm 2\r\nhi\r\n");
    client.expect(b"MSG calm 1 2\r\nhi\r\n");
    server.assert_healthy();
}

/// A client that has closed its side still gets everything that was queued for it, also what its
/// socket did not take at once.
#[test]
fn what_is_queued_is_sent_after_the_client_closed_its_side() {
    const MESSAGES: usize = 20;
    let server = Server::with_workers(2);
    let mut conn = server.client();
    conn.send(b"SUB a 1\r\n");
    let message = [&b"PUB a 1000000\r\n"[..], &[b'x'; 1_000_000], b"\r\n"].concat();
    let mut writer = conn.writer();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        for _ in 0..MESSAGES {
            writer.write_all(&message).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    sender.join().unwrap();
    for _ in 0..MESSAGES {
        assert_eq!(conn.next_msg().payload.len(), 1_000_000);
    }
    conn.expect_closed();
}
