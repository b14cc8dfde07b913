//! The load generator of `benches/compare`: one thread that plays all clients of one load against a
//! server that speaks the NATS protocol, and prints one line of JSON.
//!
//! It is made to be cheap and the same for every server: messages are encoded ahead, nothing is
//! allocated per message, what comes in is counted and not kept, what is under way is bounded, and a
//! run is over when every expected delivery has arrived. With `--pid` it reads the server's CPU time
//! just before the first publish and just after the last delivery.

mod args;
mod check;
mod crowd;
mod flow;
mod frames;
mod full_speed;
mod hist;
mod net;
mod paced;
mod routing;
mod server_proc;

use args::Args;
use net::Net;
use std::process::ExitCode;

/// The figures of one run.
pub type Report = serde_json::Map<String, serde_json::Value>;

const USAGE: &str = "\
usage: load SHAPE [--server HOST:PORT] [--pid SERVER] [--timeout SECONDS] [--spin] ...

  publish    --msgs N --size N                       nobody listens
  pairs      --pairs N --msgs N --size N [--headers] publisher to subscriber, each on its subject
  fanout     --conns N --msgs N --size N             one publisher, N subscribers
  fanin      --conns N --msgs N --size N             N publishers, one subscriber
  queue      --conns N --msgs N --size N             one publisher, a queue group of N
  request    --clients N --msgs N --size N [--mux]   closed loop, one responder
  paced      --pairs N --rate N --seconds N --size N steady rate, delivery latency
  subs       --count N --layout mixed|literal [--copies N] --holders N --msgs N --size N
  idle       --conns N --settle N --seconds N        one subscription each, nothing happens
  churn      --count N                               connect, CONNECT, SUB, close
  broadcast  --conns N --msgs N --size N             one message at a time to everybody
  stuck      --conns N --seconds N --size N          healthy subscribers beside one that never reads
  start      --exec 'PROGRAM ARGUMENTS' --times N    from exec to the first PONG
  check                                              is this program right?

Full-speed loads take --window BYTES, the bound of what is published but not delivered in each group.
--spin looks for events without ever sleeping.
`benches/compare/run` runs all of them against two servers and prints a table.";

fn main() -> ExitCode {
    // Cargo passes --bench to every benchmark it runs.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let Some((shape, rest)) = words.split_first() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    match Args::parse(rest).and_then(|args| run(shape, &args)) {
        Ok(report) => {
            println!("{}", serde_json::Value::Object(report));
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("load {shape}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(shape: &str, args: &Args) -> Result<Report, String> {
    match shape {
        "publish" | "pairs" | "fanout" | "fanin" | "queue" => full_speed::run(shape, args),
        "stuck" => full_speed::stuck(args),
        "request" => paced::request(args),
        "paced" => paced::paced(args),
        "subs" => routing::run(args),
        "idle" => crowd::idle(args),
        "churn" => crowd::churn(args),
        "broadcast" => crowd::broadcast(args),
        "start" => crowd::start(args),
        "check" => check::run(args),
        _ => Err(format!("no such load\n{USAGE}")),
    }
}

/// Adds the server's memory to a report.
pub fn memory(net: &Net, report: &mut Report) {
    let memory = net.proc.memory();
    report.insert("rss".into(), memory.rss.into());
    report.insert("peak_rss".into(), memory.peak.into());
}
