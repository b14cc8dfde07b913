//! `midge bench`: a load generator for any NATS server.
//!
//! It must never be what limits a measurement. Publishers write large batches that are encoded
//! once; subscribers count frames without taking them apart; nothing is allocated, formatted or
//! locked per message. `plan` says what a run does, the roles (`publisher`, `subscriber`,
//! `requester`) are state machines without sockets, `drive` and `pace` move their bytes, and this
//! file brings them together: connect, subscribe, open the gate, watch, gather.

mod buffer;
mod count;
mod drive;
mod histogram;
mod pace;
mod plan;
mod progress;
mod publisher;
mod report;
mod requester;
mod role;
mod subscriber;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::connection::Connection;
use super::encode::{self, new_inbox};
use super::failure::Failure;
use super::flags::{Command, Flag, Parsed};
use super::print::escape;
use super::settings::Settings;
use super::write_stdout;
use drive::{Crew, Endpoint, Stage};
use histogram::Histogram;
use plan::{Mode, Plan};
use progress::Progress;
use publisher::{Batch, Publisher};
use report::Report;
use requester::{Replier, Requester};
use role::{Clock, Meter, Role};
use subscriber::Subscriber;

/// The table of `midge bench`.
pub static COMMAND: Command = Command {
    name: "bench",
    arguments: "",
    argument_counts: 0..=0,
    about: "measure throughput and latency of a server",
    details: "Publishers send as fast as the server takes it; every message has to arrive.\n\
        With --rate they send at that rate, and the latency of each delivery is measured.\n\
        With --request, clients ask, wait for the reply and ask again; round trips are measured.\n\
        Messages that do not arrive make the exit code 1.",
    flags: &[
        Flag::value("pub", &[], "N", "connections that publish (default 1)"),
        Flag::value("sub", &[], "N", "connections that subscribe (default 1)"),
        Flag::value(
            "msgs",
            &[],
            "N",
            "messages of all publishers, or requests of all clients, together",
        ),
        Flag::value("size", &[], "BYTES", "payload of a message (default 128)"),
        Flag::value(
            "subjects",
            &[],
            "N",
            "spread publishers and subscribers over N subjects (default 1)",
        ),
        Flag::value(
            "subject",
            &[],
            "NAME",
            "subjects are NAME.0, NAME.1 ... (default bench)",
        ),
        Flag::value(
            "queue",
            &[],
            "NAME",
            "let the subscribers of a subject share its messages",
        ),
        Flag::switch("headers", &[], "give each message a header block"),
        Flag::value(
            "rate",
            &[],
            "MSG/S",
            "publish so many messages a second in all, and measure latency",
        ),
        Flag::switch("request", &[], "measure requests and replies"),
        Flag::value(
            "clients",
            &[],
            "N",
            "with --request: connections that ask (default 1)",
        ),
        Flag::value(
            "repliers",
            &[],
            "N",
            "with --request: connections that reply, 0 for others elsewhere (default 1)",
        ),
        Flag::value(
            "threads",
            &[],
            "N",
            "threads for each kind of connection (default one each, up to 16)",
        ),
        Flag::value(
            "timeout",
            &[],
            "DURATION",
            "give up when nothing arrives for so long (default 10s)",
        ),
        Flag::switch("json", &[], "print inputs and results as one JSON object"),
        Flag::switch("no-progress", &[], "do not show how far it is"),
    ],
    examples: &[
        "midge bench",
        "midge bench --sub 16 --size 1024 --msgs 100000",
        "midge bench --pub 64 --sub 64 --subjects 64",
        "midge bench --pub 100 --sub 100 --subjects 100 --rate 20000",
        "midge bench --request --clients 100 --json",
    ],
};

/// How long one connection may take to be subscribed.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// An error of the system while the load is set up.
fn system(error: io::Error) -> Failure {
    Failure::run(format!("cannot start the load: {error}"))
}

/// How often the run looks whether it is over: often enough for short runs...
const WATCH_INTERVAL: Duration = Duration::from_millis(10);
/// ... and with a little more time for each connection, since looking at thousands takes some.
const WATCH_INTERVAL_EACH: Duration = Duration::from_micros(4);

/// Measures.
pub fn run(flags: &Parsed) -> Result<(), Failure> {
    let plan = Plan::from_flags(flags)?;
    let is_json = flags.switch("json")?;
    let has_progress = !is_json && !flags.switch("no-progress")?;
    let settings = Settings::from_flags(flags, "bench")?;
    let report = measure(&plan, &settings, has_progress)?;
    write_stdout(&if is_json {
        report.json()
    } else {
        report.text()
    })?;
    report.verdict()
}

/// The meters of a run.
struct Meters {
    sources: Vec<Arc<Meter>>,
    sinks: Vec<Arc<Meter>>,
}

impl Meters {
    fn new(plan: &Plan) -> Self {
        let meters = |count| (0..count).map(|_| Arc::default()).collect();
        Meters {
            sources: meters(plan.source_count),
            sinks: meters(plan.sink_count),
        }
    }

    fn fault(&self) -> Option<String> {
        let mut all = self.sources.iter().chain(&self.sinks);
        all.find_map(|meter| meter.fault())
    }
}

fn measure(plan: &Plan, settings: &Settings, has_progress: bool) -> Result<Report, Failure> {
    let meters = Meters::new(plan);
    let stage = Stage {
        clock: Clock::start(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let mut crew = Crew::new(&stage);
    let mut gates = Vec::new();
    // Whoever listens comes first: nothing published may find nobody.
    let sinks = open_sinks(plan, settings, &meters)?;
    let (server, sources) = open_sources(plan, settings)?;
    crew.add(sinks, plan.thread_count, &stage, &mut gates)
        .map_err(system)?;
    match plan.mode {
        Mode::Paced { rate } if !sources.is_empty() => {
            let mut publishers =
                pace::publishers(sources, plan, &meters.sources).map_err(system)?;
            let (stage, gate) = (stage.clone(), Arc::new(Barrier::new(2)));
            gates.push(gate.clone());
            let (message_count, is_stamped) = (plan.message_count, plan.is_stamped());
            crew.add_thread(std::thread::spawn(move || {
                gate.wait();
                pace::run(&mut publishers, rate, message_count, is_stamped, &stage);
                Histogram::default()
            }));
        }
        _ => {
            let sources = source_roles(plan, sources, &meters)?;
            crew.add(sources, plan.thread_count, &stage, &mut gates)
                .map_err(system)?;
        }
    }
    let start_ns = stage.clock.now_ns();
    for gate in gates {
        gate.wait();
    }
    let verdict = watch(plan, &meters, &stage, start_ns, has_progress);
    let latency = crew.finish();
    if let Some(fault) = meters.fault() {
        return Err(Failure::run(format!("bench: {fault}")));
    }
    Ok(Report {
        plan: plan.clone(),
        server,
        published: report::Flow::of(&meters.sources, start_ns),
        delivered: match plan.mode {
            Mode::Request => report::Flow::of(&meters.sources, start_ns),
            _ if plan.source_count == 0 => report::Flow::since_first(&meters.sinks),
            _ => report::Flow::of(&meters.sinks, start_ns),
        },
        latency,
        is_given_up: verdict == Verdict::GivenUp,
    })
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Complete,
    GivenUp,
}

/// Waits until everything has arrived, something failed, or nothing has moved for too long.
fn watch(
    plan: &Plan,
    meters: &Meters,
    stage: &Stage,
    start_ns: u64,
    has_progress: bool,
) -> Verdict {
    let expected_count = plan.expected_count();
    let connection_count = (plan.source_count + plan.sink_count) as u32;
    let interval = WATCH_INTERVAL + WATCH_INTERVAL_EACH * connection_count;
    let mut progress = Progress::new(has_progress, plan, start_ns);
    let mut moved = (0, 0);
    let mut moved_at_ns = start_ns;
    let verdict = loop {
        std::thread::sleep(interval);
        let sent_count = sum(&meters.sources);
        let received_count = match plan.mode {
            Mode::Request => sent_count,
            _ => sum(&meters.sinks),
        };
        let now_ns = stage.clock.now_ns();
        if (sent_count, received_count) != moved {
            moved = (sent_count, received_count);
            moved_at_ns = now_ns;
        }
        let is_sent = plan.source_count == 0 || is_confirmed(plan, meters);
        if is_sent && received_count >= expected_count {
            break Verdict::Complete;
        }
        let is_stuck = u128::from(now_ns - moved_at_ns) > plan.timeout.as_nanos();
        if is_stuck || meters.fault().is_some() {
            break Verdict::GivenUp;
        }
        progress.show(now_ns, sent_count, received_count, expected_count);
    };
    progress.clear();
    verdict
}

fn sum(meters: &[Arc<Meter>]) -> u64 {
    meters.iter().map(|meter| meter.count()).sum()
}

/// Whether the server has taken what the publishers sent. Requests are their own confirmation.
fn is_confirmed(plan: &Plan, meters: &Meters) -> bool {
    match plan.mode {
        Mode::Request => true,
        _ => meters.sources.iter().all(|meter| meter.is_confirmed()),
    }
}

fn open(plan: &Plan, settings: &Settings) -> Result<Connection, Failure> {
    Connection::open(settings).map_err(|error| {
        let is_out_of_files = error.text.contains("os error 24");
        match (is_out_of_files, Failure::from(error)) {
            (true, Failure::Run(text)) => Failure::run(format!(
                "{text}; {} connections need as many open files: raise the limit with `ulimit -n`",
                plan.source_count + plan.sink_count
            )),
            (_, failure) => failure,
        }
    })
}

/// Connects and subscribes those who listen.
fn open_sinks(plan: &Plan, settings: &Settings, meters: &Meters) -> Result<Vec<Endpoint>, Failure> {
    let queue = plan.queue.as_ref().map(String::as_bytes);
    let mut endpoints = Vec::with_capacity(plan.sink_count);
    for (index, meter) in meters.sinks.iter().enumerate() {
        let mut connection = open(plan, settings)?;
        for (sid, subject) in plan.subjects_of_sink(index).into_iter().enumerate() {
            connection.subscribe(plan.subject(subject).as_bytes(), queue, sid + 1);
        }
        connection.flush_and_confirm(CONFIRM_TIMEOUT)?;
        let (stream, early) = connection.into_parts().map_err(system)?;
        let role: Box<dyn Role> = match plan.mode {
            Mode::Request => Box::new(Replier::new(meter.clone())),
            _ => Box::new(Subscriber::new(plan.is_stamped(), meter.clone())),
        };
        endpoints.push(Endpoint {
            stream,
            early,
            role,
            meter: meter.clone(),
        });
    }
    Ok(endpoints)
}

/// Which server is measured.
struct Server {
    address: String,
    version: String,
}

type Greeted = Vec<(TcpStream, Vec<u8>)>;

/// Connects those who send, and checks that the server takes what they will send.
fn open_sources(plan: &Plan, settings: &Settings) -> Result<(Server, Greeted), Failure> {
    let mut probe = open(plan, settings)?;
    let payload = vec![0; plan.payload_bytes];
    probe.check_message(publisher::headers(plan), &payload)?;
    let server = Server {
        address: probe.address.clone(),
        version: escape(probe.info.version.as_bytes()),
    };
    // So that the server is done with it when the measurement begins.
    probe.flush_and_confirm(CONFIRM_TIMEOUT)?;
    drop(probe);
    let mut sources = Vec::with_capacity(plan.source_count);
    for _ in 0..plan.source_count {
        let mut connection = open(plan, settings)?;
        connection.flush_and_confirm(CONFIRM_TIMEOUT)?;
        sources.push(connection.into_parts().map_err(system)?);
    }
    Ok((server, sources))
}

/// Gives the sending connections their roles.
fn source_roles(plan: &Plan, sources: Greeted, meters: &Meters) -> Result<Vec<Endpoint>, Failure> {
    let payload = publisher::payload(plan.payload_bytes);
    let headers = publisher::headers(plan);
    let mut endpoints = Vec::with_capacity(sources.len());
    for (index, (mut stream, early)) in sources.into_iter().enumerate() {
        let meter = meters.sources[index].clone();
        let subjects = plan.subjects_of_source(index);
        let subjects: Vec<String> = subjects.iter().map(|&one| plan.subject(one)).collect();
        let message_count = plan.message_count_of(index);
        let role: Box<dyn Role> = match plan.mode {
            Mode::Request => {
                let inbox = new_inbox()?;
                subscribe_inbox(&mut stream, &inbox)?;
                let mut request = Vec::new();
                let (subject, inbox) = (subjects[0].as_bytes(), Some(inbox.as_bytes()));
                encode::publish(&mut request, subject, inbox, headers, &payload);
                Box::new(Requester::new(request, message_count, meter.clone()))
            }
            _ => {
                let batch = Batch::encode(&subjects, headers, &payload, plan.source_count);
                Box::new(Publisher::new(batch, message_count, meter.clone()))
            }
        };
        endpoints.push(Endpoint {
            stream,
            early,
            role,
            meter,
        });
    }
    Ok(endpoints)
}

/// No confirmation is needed: the subscription stands in front of the first request.
fn subscribe_inbox(stream: &mut TcpStream, inbox: &str) -> Result<(), Failure> {
    use io::Write;
    stream
        .write_all(format!("SUB {inbox} 1\r\n").as_bytes())
        .map_err(|error| Failure::run(format!("lost a connection: {error}")))
}
