//! The loads that `flow` drives: pairs, fan-out, fan-in, queue groups, headers, a stuck subscriber.

use crate::args::Args;
use crate::flow::{Batch, Flow, Outcome};
use crate::net::Net;
use crate::{Report, memory};

/// `load publish|pairs|fanout|fanin|queue`: one tenth of the messages first, to warm up, then all.
pub fn run(shape: &str, args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let msgs: u64 = args.get("msgs", 1_000_000)?;
    let size = args.get("size", 128)?;
    let headers = args.has("headers");
    let mut flow = Flow::new(args.get("window", 8 << 20)?);
    let pairs = args.get("pairs", 1)?;
    let many = args.get("conns", if shape == "queue" { 8 } else { 16 })?;
    args.finish()?;
    let mut subscribers = Vec::new();
    let publishers = match shape {
        "pairs" => pairs,
        "fanin" => many,
        _ => 1,
    };
    for pair in 0..if shape == "pairs" { pairs } else { 1 } {
        let subject = format!("load.{shape}.{pair}");
        let first = subscribers.len();
        let (count, queue, fan) = match shape {
            "publish" => (0, "", 0),
            "pairs" | "fanin" => (1, "", 1),
            "fanout" => (many, "", many as u64),
            _ => (many, "workers ", 1),
        };
        for _ in 0..count {
            subscribers.push(net.open(format!("SUB {subject} {queue}1\r\n").as_bytes())?);
        }
        let mut senders = Vec::new();
        for _ in 0..if shape == "fanin" { many } else { 1 } {
            senders.push(net.open(b"")?);
        }
        flow.group(
            &senders,
            &subscribers[first..],
            fan,
            &Batch::new(&subject, size, headers),
        );
    }
    let each = msgs.div_ceil(publishers as u64);
    flow.run(&mut net, each.div_ceil(10))?;
    let outcome = flow.run(&mut net, each)?;
    flow.check_excess(&mut net, &subscribers)?;
    Ok(report(&net, &outcome))
}

/// `load stuck`: the rate of healthy subscribers, first alone, then from the moment on when another
/// one stops reading.
pub fn stuck(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let healthy: usize = args.get("conns", 100)?;
    let size = args.get("size", 4096)?;
    let seconds = args.get("seconds", 10)?;
    let mut flow = Flow::new(args.get("window", 8 << 20)?);
    args.finish()?;
    let mut subscribers = Vec::new();
    for _ in 0..healthy {
        subscribers.push(net.open(b"SUB load.stuck 1\r\n")?);
    }
    let publisher = net.open(b"")?;
    flow.group(
        &[publisher],
        &subscribers,
        healthy as u64,
        &Batch::new("load.stuck", size, false),
    );
    flow.run_for(&mut net, 1)?;
    let alone = mean(&flow.run_for(&mut net, seconds / 2)?);
    let stuck = net.open(b"SUB load.stuck 1\r\n")?;
    net.stop_reading(stuck)?;
    let beside = flow.run_for(&mut net, seconds)?;
    let worst = beside.iter().copied().fold(f64::INFINITY, f64::min);
    let mut report = Report::new();
    report.insert("rate_alone".into(), alone.into());
    report.insert("rate".into(), mean(&beside).into());
    report.insert("rate_kept".into(), (mean(&beside) / alone).into());
    report.insert("rate_kept_worst_second".into(), (worst / alone).into());
    memory(&net, &mut report);
    Ok(report)
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

/// Rate, CPU and memory of a run.
pub fn report(net: &Net, outcome: &Outcome) -> Report {
    let mut report = Report::new();
    let units = outcome.units as f64;
    report.insert("units".into(), outcome.units.into());
    report.insert("seconds".into(), outcome.seconds.into());
    report.insert("rate".into(), (units / outcome.seconds).into());
    report.insert(
        "cpu_s_per_million".into(),
        (outcome.cpu_ns as f64 / 1e3 / units).into(),
    );
    memory(net, &mut report);
    report
}
