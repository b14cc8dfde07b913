//! `midge reply`: answers requests, with a fixed payload or with what was asked.

use std::fmt;
use std::io::{self, Read, Write};
use std::process::{self, Stdio};
use std::time::Duration;

use super::connection::{Connection, Event, Message};
use super::failure::{Failure, say};
use super::flags::{Command, Flag, Parsed};
use super::follow::{Ended, Ending, follow};
use super::print::{self, Form, escape};
use super::settings::Settings;
use super::{headers, input};

/// The table of `midge reply`.
pub static COMMAND: Command = Command {
    name: "reply",
    arguments: "SUBJECT [PAYLOAD]",
    argument_counts: 1..=2,
    about: "answer requests",
    details: "Several of them on one subject share the requests out.\n\
        Without PAYLOAD the answers are empty. With - it is read from standard input, to its end\n\
        before the first request is taken.\n\
        A request that cannot be answered is reported, and the next one taken. With --count, the\n\
        exit code is 1 if that happened.",
    flags: &[
        Flag::value(
            "queue",
            &[],
            "NAME",
            "queue group to join (default NATS-RPLY-22)",
        ),
        Flag::switch(
            "echo",
            &[],
            "answer with the payload and headers of the request",
        ),
        Flag::value(
            "command",
            &[],
            "COMMAND",
            "answer with the output of a shell command, which reads the payload; the subject is \
             in $NATS_REQUEST_SUBJECT",
        ),
        Flag::value(
            "header",
            &["H"],
            "'NAME: VALUE'",
            "add a header (may be repeated)",
        ),
        Flag::value("count", &[], "N", "exit after N requests"),
        Flag::switch("quiet", &["q"], "do not print the requests"),
    ],
    examples: &[
        "midge reply greet 'hello yourself'",
        "midge reply 'echo.>' --echo",
        "midge reply upper --command 'tr a-z A-Z'",
    ],
};

/// The group that the `nats` tool joins, so that both share the requests.
const QUEUE_DEFAULT: &str = "NATS-RPLY-22";

/// Where a command finds the subject of the request.
const SUBJECT_VARIABLE: &str = "NATS_REQUEST_SUBJECT";

/// How long the server may take to confirm the last answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// What fits into an answer's control line, of which servers take 4096 bytes, with room for sizes.
/// A longer subject fitted into the shorter line of the request.
const REPLY_SUBJECT_BYTES_MAX: usize = 4096 - 64;

/// Whether an -ERR is about one answer: whoever asks names the subject that it goes to, and we
/// may not be allowed to publish there.
fn is_about_an_answer(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("permissions violation for publish")
        || text.starts_with("invalid publish subject")
}

/// Where the payload of an answer comes from.
enum Answer {
    Fixed(Vec<u8>),
    Echo,
    /// The output of a shell command that reads the request.
    Command(String),
}

impl Answer {
    fn from_flags(flags: &Parsed) -> Result<Self, Failure> {
        flags.exclude("echo", "command")?;
        let is_echo = flags.switch("echo")?;
        let payload = flags.positionals.get(1);
        match (is_echo, flags.text("command")?) {
            // Standard input only when it is asked for: what runs in the background often has
            // one that never ends.
            (false, None) => Ok(Answer::Fixed(match payload {
                Some(payload) => input::payload_argument(payload)?,
                None => Vec::new(),
            })),
            _ if payload.is_some() => Err(Failure::usage(
                "reply: --echo and --command take no payload: they make their own",
            )),
            (_, Some(command)) => Ok(Answer::Command(command)),
            (true, None) => Ok(Answer::Echo),
        }
    }
}

struct Job {
    subject: Vec<u8>,
    queue: Vec<u8>,
    answer: Answer,
    headers: Vec<u8>,
    count_max: u64,
    /// Requests that came, whether they could be answered or not.
    request_count: u64,
    unanswered_count: u64,
    is_quiet: bool,
    is_announced: bool,
}

/// Answers.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let queue = flags.text("queue")?.unwrap_or(QUEUE_DEFAULT.to_owned());
    let mut job = Job {
        subject: input::pattern(&flags.positionals[0])?,
        queue: input::word("queue", queue)?,
        answer: Answer::from_flags(flags)?,
        headers: headers::build(&flags.texts("header")?)?,
        count_max: flags.number("count", 1..=u64::MAX)?.unwrap_or(u64::MAX),
        request_count: 0,
        unanswered_count: 0,
        is_quiet: flags.switch("quiet")?,
        is_announced: false,
    };
    let settings = Settings::from_flags(flags, "reply")?;
    let ending = follow(settings, |connection| job.answer_all(connection))?;
    let unanswered_count = job.unanswered_count;
    let answered_count = job.request_count - unanswered_count;
    match (ending, unanswered_count) {
        (Ending::Done, 0) => Ok(()),
        (Ending::Done, _) => Err(Failure::run(format!(
            "{unanswered_count} of {} requests could not be answered",
            job.request_count
        ))),
        (Ending::Stopped, 0) => {
            say(format_args!("answered {answered_count} requests"));
            Ok(())
        }
        (Ending::Stopped, _) => {
            say(format_args!(
                "answered {answered_count} requests, but {unanswered_count} could not be answered"
            ));
            Ok(())
        }
    }
}

impl Job {
    /// Subscribes and answers until enough are answered.
    fn answer_all(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        // What comes after our last request is for the others of the group.
        let left_count = self.count_max - self.request_count;
        connection.subscribe_for(&self.subject, Some(&self.queue), 1, left_count);
        connection.write(b"PING\r\n");
        connection.flush()?;
        while self.request_count < self.count_max {
            match connection.receive(None)? {
                Some(Event::Message(request)) => {
                    self.request_count += 1;
                    self.print(&request).map_err(Failure::stdout)?;
                    match self.answer(connection, &request) {
                        Err(Ended::Failure(failure)) => {
                            let number = self.request_count;
                            self.report_unanswered(format_args!(
                                "request #{number} was not answered: {failure}"
                            ));
                        }
                        other => other?,
                    }
                }
                Some(Event::ServerError(text)) if is_about_an_answer(&text) => {
                    let error = connection.server_error(&text);
                    self.report_unanswered(format_args!("an answer was refused: {error}"));
                }
                Some(Event::ServerError(text)) => {
                    return Err(connection.server_error(&text).into());
                }
                Some(Event::Pong) => self.announce(&connection.address),
                None => {}
            }
        }
        // The last answer has to be with the server before we leave. If it is not, another
        // connection would not bring it there.
        let confirmed = connection.flush_and_confirm(CONFIRM_TIMEOUT);
        confirmed.map_err(|error| Ended::Failure(error.into()))
    }

    /// Says that an answer failed. That may be the fault of whoever asked, so it ends nothing.
    fn report_unanswered(&mut self, text: fmt::Arguments<'_>) {
        self.unanswered_count += 1;
        say(text);
    }

    /// Says once that requests from now on will be answered.
    fn announce(&mut self, address: &str) {
        if !std::mem::replace(&mut self.is_announced, true) {
            let subject = escape(&self.subject);
            say(format_args!("answering requests on {subject} at {address}"));
        }
    }

    /// Answers; an `Ended::Failure` is about this request alone.
    fn answer(&self, connection: &mut Connection, request: &Message) -> Result<(), Ended> {
        let Some(reply) = &request.reply else {
            return Ok(());
        };
        if reply.len() > REPLY_SUBJECT_BYTES_MAX {
            let bytes = reply.len();
            let text = format!("the subject for the reply is too long: {bytes} bytes");
            return Err(Failure::run(text).into());
        }
        let output;
        let (headers, payload) = match &self.answer {
            Answer::Fixed(payload) => (&self.headers, payload),
            Answer::Echo if self.headers.is_empty() => (&request.headers, &request.payload),
            Answer::Echo => (&self.headers, &request.payload),
            Answer::Command(command) => {
                let bytes_max = connection.info.payload_bytes_max.unwrap_or(usize::MAX);
                output = run_command(command, request, bytes_max)?;
                (&self.headers, &output)
            }
        };
        connection.check_message(headers, payload)?;
        connection.publish(reply, None, headers, payload)?;
        Ok(connection.flush()?)
    }

    fn print(&self, request: &Message) -> io::Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        let subject = escape(&request.subject);
        let note = match request.reply {
            Some(_) => "",
            None => ", which wants no reply",
        };
        let headline = format!("[#{}] Request on \"{subject}\"{note}", self.request_count);
        let mut out = io::stdout().lock();
        print::message(&mut out, request, Form::Readable, &headline)?;
        out.flush()
    }
}

/// Runs a shell command with the request on its standard input and returns what it prints, which
/// may be `bytes_max` at most.
fn run_command(command: &str, request: &Message, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::run(format!("cannot run \"{command}\": {error}"));
    let mut shell = process::Command::new("sh");
    shell.args(["-c", command]);
    match request.subject.contains(&0) {
        // No environment holds a NUL. Nothing is better than another subject.
        true => shell.env_remove(SUBJECT_VARIABLE),
        false => shell.env(
            SUBJECT_VARIABLE,
            &*String::from_utf8_lossy(&request.subject),
        ),
    };
    let mut child = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut output = Vec::new();
    let status = std::thread::scope(|scope| {
        // From a thread of its own: a command may print much before it has read all.
        scope.spawn(move || {
            // A command that does not care for its input is as good as any.
            let _ = stdin.map(|mut stdin| stdin.write_all(&request.payload));
        });
        let bytes_wanted = (bytes_max as u64).saturating_add(1);
        let read = stdout.map_or(Ok(0), |out| out.take(bytes_wanted).read_to_end(&mut output));
        if read.is_err() || output.len() > bytes_max {
            // It may go on for ever. If it is gone already, so much the better.
            let _ = child.kill();
        }
        let status = child.wait();
        read.and(status)
    });
    let status = status.map_err(failed)?;
    if output.len() > bytes_max {
        return Err(Failure::run(format!(
            "\"{command}\" printed more than {bytes_max} bytes (max_payload)"
        )));
    }
    if !status.success() {
        say(format_args!(
            "\"{command}\" failed: {status}; answered with what it printed"
        ));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::server_url;
    use super::*;

    #[test]
    fn a_command_reads_the_request_and_its_output_is_the_answer() {
        let request = Message {
            subject: b"greet.joe".to_vec(),
            payload: vec![b'x'; 1024 * 1024],
            ..Message::default()
        };
        let run = |command| run_command(command, &request, 1024 * 1024).unwrap();
        assert_eq!(run("cat"), request.payload);
        assert_eq!(run("echo $NATS_REQUEST_SUBJECT"), b"greet.joe\n");
        assert_eq!(run("printf partly; exit 3"), b"partly");
    }

    #[test]
    fn a_request_that_no_command_can_answer_is_a_failure_and_no_more() {
        let request = |subject: &[u8]| Message {
            subject: subject.to_vec(),
            ..Message::default()
        };
        let shown = "echo ${NATS_REQUEST_SUBJECT-none}";
        let output = run_command(shown, &request(b"a\0b"), 100);
        assert_eq!(output, Ok(b"none\n".to_vec()));
        for endless in ["yes", "cat /dev/zero", "yes | cat"] {
            let error = run_command(endless, &request(b"a"), 100_000).unwrap_err();
            assert!(error.to_string().contains("more than 100000 bytes"));
        }
        assert_eq!(
            run_command("printf abc", &request(b"a"), 3),
            Ok(b"abc".to_vec())
        );
        assert!(run_command("printf abcd", &request(b"a"), 3).is_err());
    }

    /// Answers `requests` of a server that is a few lines, and returns what it was sent behind
    /// CONNECT and PING, and what became of the job.
    fn answered(job: &mut Job, requests: Vec<u8>) -> (String, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = Settings {
            servers: server_url::parse_list(&listener.local_addr().unwrap().to_string()).unwrap(),
            learned: Vec::new(),
            name: "test".into(),
        };
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let info = br#"INFO {"version":"2.1.0","headers":true,"max_payload":10}"#;
            peer.write_all(&[&info[..], b"\r\n"].concat()).unwrap();
            let mut sent = Vec::new();
            let mut ping_count = 0;
            let mut piece = [0; 1024];
            while let Ok(count @ 1..) = peer.read(&mut piece) {
                sent.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&sent);
                while ping_count < text.matches("PING\r\n").count() {
                    ping_count += 1;
                    peer.write_all(b"PONG\r\n").unwrap();
                    // The second stands behind the subscription.
                    if ping_count == 2 {
                        peer.write_all(&requests).unwrap();
                    }
                }
            }
            String::from_utf8(sent).unwrap()
        });
        let mut connection = Connection::open(&settings).unwrap();
        let is_done = job.answer_all(&mut connection).is_ok();
        drop(connection);
        let sent = server.join().unwrap();
        let (_, sent) = sent.split_once("PING\r\n").unwrap();
        (sent.to_owned(), is_done)
    }

    fn job(answer: Answer, count_max: u64) -> Job {
        Job {
            subject: b"s".to_vec(),
            queue: b"q".to_vec(),
            answer,
            headers: Vec::new(),
            count_max,
            request_count: 0,
            unanswered_count: 0,
            is_quiet: true,
            is_announced: false,
        }
    }

    #[test]
    fn what_strangers_ask_ends_no_replier() {
        let mut echo = job(Answer::Echo, 5);
        let long = "r".repeat(REPLY_SUBJECT_BYTES_MAX + 1);
        let requests = format!(
            "MSG s 1 a 11\r\n0123456789a\r\n\
             -ERR 'Permissions Violation for Publish to \"b\"'\r\n\
             MSG s 1 {long} 1\r\nx\r\n\
             MSG s 1 c 1\r\ny\r\nMSG s 1 1\r\nx\r\nMSG s 1 d 1\r\nz\r\n"
        );
        let (sent, is_done) = answered(&mut echo, requests.into_bytes());
        assert!(is_done);
        assert_eq!(
            sent,
            "SUB s q 1\r\nUNSUB 1 5\r\nPING\r\nPUB c 1\r\ny\r\nPUB d 1\r\nz\r\nPING\r\n"
        );
        assert_eq!((echo.request_count, echo.unanswered_count), (5, 3));
    }

    #[test]
    fn a_replier_that_may_not_subscribe_ends() {
        let refusal = b"-ERR 'Permissions Violation for Subscription to \"s\"'\r\n".to_vec();
        let (sent, is_done) = answered(&mut job(Answer::Echo, u64::MAX), refusal);
        assert!(!is_done);
        assert_eq!(sent, "SUB s q 1\r\nPING\r\n");
    }
}
