//! Command lines and what they mean, as tables.

use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::config::Signal;
use crate::config::options::{Credentials, LogFormat};

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn command(line: &str) -> Result<Command, ArgsError> {
    parse("/usr/bin/midge", &words(line))
}

fn serve(line: &str) -> Options {
    match command(line) {
        Ok(Command::Serve(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match command(line) {
        Err(error) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn nothing_means_the_defaults() {
    let defaults = format!("{:?}", Options::default());
    for line in ["", "serve", "--", "serve --"] {
        assert_eq!(format!("{:?}", serve(line)), defaults, "{line:?}");
    }
}

#[test]
fn dashes_and_equals_signs_are_alike() {
    for line in [
        "-p 5222",
        "--p 5222",
        "-p=5222",
        "--port=5222",
        "-port 5222",
        "--port 5222",
        "serve -p 5222",
        "-p 1 -port 5222",
        "-p 5222 --",
    ] {
        assert_eq!(serve(line).port, 5222, "{line}");
    }
    for line in ["-p -1", "-p=-1", "-p 5222 -p -1"] {
        assert_eq!(serve(line).port, 0, "{line}");
    }
    // As on the reference, 0 is the default.
    assert_eq!(serve("-p 5222 --port 0").port, 4222);
}

#[test]
fn every_alias_sets_its_option() {
    for line in ["-a ::1", "--addr ::1", "--net ::1", "--host=::1"] {
        assert_eq!(serve(line).host.as_deref(), Some("::1"), "{line}");
    }
    for line in ["-n edge", "--name edge", "-server_name edge"] {
        assert_eq!(serve(line).name.as_deref(), Some("edge"), "{line}");
    }
    for line in ["-P x", "--pid x"] {
        assert_eq!(serve(line).pid_file.as_deref(), Some(Path::new("x")));
    }
    for line in ["-l x", "--log x", "-log=x"] {
        assert_eq!(serve(line).log.file.as_deref(), Some(Path::new("x")));
    }
    let options = serve("--ports_file_dir /tmp --client_advertise a:1 --workers 256");
    assert_eq!(options.ports_file_dir.as_deref(), Some(Path::new("/tmp")));
    assert_eq!(options.client_advertise.as_deref(), Some("a:1"));
    assert_eq!(options.workers, Some(256));
}

#[test]
fn switches() {
    for (line, debug, trace) in [
        ("-D", true, false),
        ("--debug=true", true, false),
        ("-V", false, true),
        ("-VV", false, true),
        ("--trace", false, true),
        ("-DV", true, true),
        ("--DVV", true, true),
        ("-D=false", false, false),
        ("-DV -D=false", false, true),
        ("-D=false -DV", true, true),
        ("-D -D=0", false, false),
    ] {
        let log = serve(line).log;
        assert_eq!((log.debug, log.trace), (debug, trace), "{line}");
    }
    assert!(!serve("-T=false").log.time);
    assert!(!serve("--logtime=f").log.time);
    assert!(serve("-T").log.time);
    assert!(serve("--logtime_utc").log.time_utc);
    assert_eq!(serve("--log-format json").log.format, LogFormat::Json);
    assert_eq!(serve("--log-format=text").log.format, LogFormat::Text);
}

#[test]
fn logins() {
    assert_eq!(
        serve("--user ann -pass pw").credentials,
        Credentials::User {
            user: "ann".into(),
            password: "pw".into()
        }
    );
    let token = Credentials::Token("a=b".into());
    assert_eq!(serve("--auth=a=b").credentials, token);
}

#[test]
fn limits_and_times() {
    let options = serve(
        "--max_connections 7 --max_subscriptions 8 --max_control_line 2KB --max_payload 1M \
         --max_pending 10mib --ping_interval 1m30s --ping_max 5 --write_deadline 250ms \
         --auth_timeout 0.5 --lame_duck_duration 30s --lame_duck_grace_period 1s \
         --max_traced_msg_len 100",
    );
    assert_eq!(options.connections_max, 7);
    assert_eq!(options.subscriptions_max, 8);
    assert_eq!(options.control_line_bytes_max, 2048);
    assert_eq!(options.payload_bytes_max, Some(1_000_000));
    assert_eq!(options.pending_bytes_max, 10 * 1024 * 1024);
    assert_eq!(options.ping_interval_ms, 90_000);
    assert_eq!(options.pings_outstanding_max, 5);
    assert_eq!(options.write_deadline_ms, 250);
    assert_eq!(options.auth_timeout_ms, 500);
    assert_eq!(options.lame_duck_duration_ms, 30_000);
    assert_eq!(options.lame_duck_grace_ms, 1000);
    assert_eq!(options.traced_message_bytes_max, Some(100));
    assert!(options.warnings.is_empty());
}

/// Zeros and minus ones mean what they mean to nats-server.
#[test]
fn special_numbers() {
    let defaults = format!("{:?}", Options::default());
    let zeros = serve(
        "--max_control_line 0 --max_payload 0 --max_pending 0 --ping_interval 0 --ping_max 0 \
         --write_deadline 0s --auth_timeout 0 --lame_duck_grace_period 0 --max_traced_msg_len 0",
    );
    assert_eq!(format!("{zeros:?}"), defaults);
    assert_eq!(serve("--max_payload -1").payload_bytes_max, None);
    assert_eq!(serve("--max_connections -1").connections_max, 0);
    assert_eq!(serve("--max_connections 0").connections_max, 0);
    assert_eq!(serve("--max_subscriptions -1").subscriptions_max, 0);
}

#[test]
fn help_and_version_come_first() {
    for line in [
        "-h",
        "--help",
        "help",
        "-D help",
        "-p 1 -h",
        "serve -help",
        "-h --user a",
    ] {
        let found = command(line);
        assert!(matches!(&found, Ok(Command::Help(page)) if page.contains("Usage: midge")));
    }
    for line in [
        "-v",
        "--version",
        "version",
        "-h -v",
        "-D=false version x",
        "-- version",
    ] {
        let found = command(line);
        assert!(matches!(&found, Ok(Command::Version(text)) if text.starts_with("midge: v")));
    }
    let renamed = parse("./nats-server", &words("-v"));
    assert!(matches!(renamed, Ok(Command::Version(text)) if text == "nats-server: v2.2.0\n"));
    assert!(matches!(command("-h=false"), Ok(Command::Serve(_))));
}

#[test]
fn signals() {
    for (line, signal, target) in [
        ("--signal ldm", Signal::LameDuck, None),
        ("-sl reopen=12", Signal::Reopen, Some("12")),
        ("--signal=quit=/run/x.pid", Signal::Quit, Some("/run/x.pid")),
        ("-signal stop", Signal::Stop, None),
        ("-sl=term", Signal::Term, None),
    ] {
        let Ok(Command::Signal(request)) = command(line) else {
            panic!("{line}");
        };
        assert_eq!(request.signal, signal, "{line}");
        assert_eq!(request.target, target.map(OsString::from), "{line}");
    }
}

#[test]
fn accepted_with_a_warning() {
    for line in ["-sd /data", "-sd=/data", "--store_dir /data -sd /data"] {
        let warnings = serve(line).warnings;
        assert_eq!(warnings.len(), 1, "{line}");
        assert!(warnings[0].contains("store directory"));
    }
    assert!(serve("--max_payload 9MB").warnings[0].starts_with("Maximum payloads over 8.00 MB"));
    assert!(serve("--max_payload 8MB").warnings.is_empty());
    assert!(serve("--auth_timeout 5m").warnings[0].contains("5m"));
}

#[test]
fn refusals_name_the_flag_and_what_is_right() {
    for (line, expected) in [
        ("--nope", "unknown flag --nope (see --help)"),
        (
            "--prot 1",
            "unknown flag --prot, did you mean --port? (see --help)",
        ),
        (
            "-max-payload=1",
            "unknown flag -max-payload, did you mean --max_payload? (see --help)",
        ),
        ("-d", "unknown flag -d, did you mean -D? (see --help)"),
        ("---p", "unknown flag ---p, did you mean -p? (see --help)"),
        ("--=3", "unknown flag -- (see --help)"),
        (
            "-p",
            "flag -p needs a value: a whole number from -1 to 65535",
        ),
        (
            "-p abc",
            "flag -p: \"abc\" is not a whole number from -1 to 65535",
        ),
        (
            "--port=70000",
            "flag --port: \"70000\" is not a whole number from -1 to 65535",
        ),
        (
            "-p=",
            "flag -p: \"\" is not a whole number from -1 to 65535",
        ),
        (
            "--workers 0",
            "flag --workers: \"0\" is not a whole number from 1 to 256",
        ),
        ("-T=maybe", "flag -T: \"maybe\" is not true or false"),
        (
            "--log-format xml",
            "flag --log-format: \"xml\" is not text or json",
        ),
        (
            "--ping_interval 2x",
            "flag --ping_interval: \"2x\" is not a duration such as 250ms, 2m or 1h30m",
        ),
        (
            "--lame_duck_duration 1s",
            "flag --lame_duck_duration: \"1s\" is not a duration of at least 30s, such as 2m or 1h30m",
        ),
        (
            "--max_control_line 3GB",
            "flag --max_control_line: \"3GB\" is not a size from 0 to 2147483647, such as 4096, \
             64KB or 1MiB",
        ),
        (
            "--auth=",
            "flag --auth: the value must be text that is not empty",
        ),
        (
            "--client_advertise foo:bar:1",
            "flag --client_advertise: \"foo:bar:1\" is not host or host:port, an IPv6 address in \
             brackets",
        ),
        (
            "--signal reload",
            "flag --signal: \"reload\" is not one of ldm, quit, term, stop, reopen, alone or \
             followed by =<pid>, =<pid file> or =<prefix>*",
        ),
        ("-js", "flag -js: midge does not have JetStream streams yet"),
        (
            "-c x",
            "flag -c: midge does not have configuration files yet",
        ),
        (
            "--tlscert=x",
            "flag --tlscert: midge does not have TLS listeners yet",
        ),
        ("--user a", "flag --user needs --pass beside it"),
        ("--pass a", "flag --pass needs --user beside it"),
        (
            "--auth t --user a --pass b",
            "cannot have a user/pass and token: give --user and --pass, or --auth",
        ),
        (
            "--max_payload 128MB",
            "max_payload (134217728) cannot be higher than max_pending (67108864)",
        ),
        (
            "--lame_duck_grace_period 3m",
            "lame duck grace period (3m) should be strictly lower than lame duck duration (2m)",
        ),
        ("foo", "unrecognized command: \"foo\" (see --help)"),
        ("-", "unrecognized command: \"-\" (see --help)"),
        ("-- -D", "unrecognized command: \"-D\" (see --help)"),
        (
            "-D serv",
            "unrecognized command: \"serv\", did you mean serve?",
        ),
        (
            "-T false",
            "unrecognized command: \"false\", a switch takes its value after =, as in -T=false",
        ),
        (
            "-D sub",
            "unrecognized command: \"sub\", client commands come first on the line, if this build \
             has them",
        ),
    ] {
        assert_eq!(refusal(line), expected, "{line}");
    }
}

#[test]
fn names_have_no_blanks_and_secrets_are_not_repeated() {
    let args = ["-n".into(), "a b".into()];
    let error = parse("midge", &args).unwrap_err().to_string();
    assert_eq!(error, "flag -n: \"a b\" is not a name without blanks");

    let secret = OsString::from_vec(b"s3cr3t\xff".to_vec());
    let error = parse("midge", &["--pass".into(), secret]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cr3t"));
}

/// An unset variable in a start script leaves the option unset.
#[test]
fn empty_texts_unset() {
    let args = ["-a", "", "-n", "x", "-n", "", "-l", "", "-P", ""].map(OsString::from);
    let Ok(Command::Serve(options)) = parse("midge", &args) else {
        panic!("refused");
    };
    assert_eq!(format!("{options:?}"), format!("{:?}", Options::default()));
}

/// Paths keep their bytes; whatever else comes is refused without a panic and in one line.
#[test]
fn bytes_that_are_not_text() {
    let path = OsString::from_vec(b"/tmp/\xff.log".to_vec());
    let Ok(Command::Serve(options)) = parse("midge", &["-l".into(), path.clone()]) else {
        panic!("refused");
    };
    assert_eq!(options.log.file.as_deref(), Some(Path::new(&path)));
    for bytes in [
        &b"--\xff"[..],
        b"-p=\xff\n",
        b"\xff\n\x1b[2J",
        b"--a\nb",
        b"-n=\x1b",
    ] {
        let error = parse("midge", &[OsString::from_vec(bytes.to_vec())]).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

proptest::proptest! {
    /// Whatever the words are, the answer is a value, and a refusal is one line.
    #[test]
    fn any_words_get_an_answer(
        names in proptest::collection::vec("-{0,3}[a-zA-Z_]{0,3}|-[aplD]|--max_pay(load)?|serve", 0..4),
        values in proptest::collection::vec("(=?[-+.0-9a-zµ]{0,6})|\\PC{0,4}|[\\x00-\\x20]", 4),
    ) {
        let mut args = Vec::new();
        for (name, value) in names.iter().zip(&values) {
            match value.starts_with('=') {
                true => args.push(OsString::from(format!("{name}{value}"))),
                false => args.extend([OsString::from(name), OsString::from(value)]),
            }
        }
        if let Err(error) = parse("midge", &args) {
            assert!(!error.to_string().contains(char::is_control), "{args:?} {error}");
        }
    }
}

#[test]
fn edit_distances() {
    for (from, to, expected) in [
        ("", "", 0),
        ("port", "port", 0),
        ("prot", "port", 1),
        ("por", "port", 1),
        ("ports", "port", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(edits(&plain(from), &plain(to)), expected, "{from} {to}");
        assert_eq!(edits(&plain(to), &plain(from)), expected, "{to} {from}");
    }
}
