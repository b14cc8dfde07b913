//! Loads whose point is the number of connections: idle ones, short-lived ones, a broadcast; and the
//! time a server needs to start.

use crate::args::Args;
use crate::flow::Outcome;
use crate::full_speed::report;
use crate::hist::Hist;
use crate::net::{Net, text};
use crate::server_proc::Proc;
use crate::{Report, memory};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `load idle`: `--conns` connections, one subscription each; memory, and context switches while
/// nothing happens but pings.
pub fn idle(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let conns: usize = args.get("conns", 10_000)?;
    let seconds: f64 = args.get("seconds", 10.0)?;
    let settle: f64 = args.get("settle", 3.0)?;
    args.finish()?;
    let empty = net.proc.memory().rss;
    for conn in 0..conns {
        net.open(format!("SUB load.idle.{conn} 1\r\n").as_bytes())?;
    }
    serve(&mut net, settle)?;
    let pings = |net: &Net| net.conns.iter().map(|c| c.frames.pings).sum::<u64>();
    let (switches, pings_before) = (net.proc.switches(), pings(&net));
    let cpu = net.proc.cpu_ns()?;
    let start = Instant::now();
    serve(&mut net, seconds)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut out = Report::new();
    let per_second = (net.proc.switches() - switches) as f64 / seconds;
    out.insert("switches_per_second".into(), per_second.into());
    out.insert(
        "pings_per_second".into(),
        ((pings(&net) - pings_before) as f64 / seconds).into(),
    );
    out.insert(
        "cpu_ms_per_second".into(),
        ((net.proc.cpu_ns()? - cpu) as f64 / 1e6 / seconds).into(),
    );
    memory(&net, &mut out);
    if conns > 0 {
        let grown = net.proc.memory().rss.saturating_sub(empty);
        out.insert(
            "bytes_per_connection".into(),
            (grown as f64 / conns as f64).into(),
        );
    }
    Ok(out)
}

/// Answers pings for a while.
fn serve(net: &mut Net, seconds: f64) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        net.turn(Some(left + Duration::from_millis(1)), |_, _| {})?;
    }
    Ok(())
}

/// `load churn`: connect, CONNECT, SUB, close, one after the other.
pub fn churn(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let count: u64 = args.get("count", 5_000)?;
    args.finish()?;
    let mut outcome = None;
    for count in [count.div_ceil(10), count] {
        let cpu = net.proc.cpu_ns()?;
        let start = Instant::now();
        for conn in 0..count {
            net.open_and_close(format!("SUB load.churn.{conn} 1\r\n").as_bytes())?;
        }
        let seconds = start.elapsed().as_secs_f64();
        // The last ones are being taken down: that belongs to the cost.
        net.proc.settle(Duration::from_secs(3))?;
        outcome = Some(Outcome {
            cpu_ns: net.proc.cpu_ns()? - cpu,
            seconds,
            units: count,
        });
    }
    outcome
        .map(|outcome| report(&net, &outcome))
        .ok_or_else(|| "no run".into())
}

/// `load broadcast`: one message to `--conns` subscribers, `--msgs` times; the next one goes out when
/// the last reader has the one before. Latency is that of the last reader.
pub fn broadcast(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let conns: u64 = args.get("conns", 10_000)?;
    let msgs: u64 = args.get("msgs", 20)?;
    let size: usize = args.get("size", 128)?;
    args.finish()?;
    for _ in 0..conns {
        net.open(b"SUB load.broadcast 1\r\n")?;
    }
    let publisher = net.open(b"")?;
    let message = format!("PUB load.broadcast {size}\r\n{}\r\n", "x".repeat(size));
    net.proc.settle(Duration::from_secs(3))?;
    let mut hist = Hist::new();
    let mut cpu_ns = 0;
    let mut time = Duration::ZERO;
    for turn in 0..msgs + 2 {
        let cpu = net.proc.cpu_ns()?;
        let start = Instant::now();
        net.queue(publisher, message.as_bytes());
        net.flush(publisher)?;
        let mut received = 0;
        while received < conns {
            net.turn(Some(Duration::from_millis(100)), |_, _| received += 1)
                .map_err(|e| format!("{e}; {} deliveries are missing", conns - received))?;
        }
        // The first two rounds warm up.
        if turn >= 2 {
            hist.record(start.elapsed().as_nanos() as u64);
            time += start.elapsed();
            cpu_ns += net.proc.cpu_ns()? - cpu;
        }
    }
    let outcome = Outcome {
        cpu_ns,
        seconds: time.as_secs_f64(),
        units: msgs * conns,
    };
    let mut out = report(&net, &outcome);
    hist.report(&mut out);
    Ok(out)
}

/// `load start --exec "PROGRAM ARGUMENTS" --server ADDRESS`: from exec to the first PONG, `--times`.
pub fn start(args: &Args) -> Result<Report, String> {
    let line: String = args.get("exec", String::new())?;
    let addr: SocketAddr = args.get("server", SocketAddr::from(([127, 0, 0, 1], 4222)))?;
    let times: usize = args.get("times", 20)?;
    args.finish()?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [program, rest @ ..] = words.as_slice() else {
        return Err("--exec: a program is missing".into());
    };
    let mut took = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        let mut command = Command::new(program);
        command
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let answered = first_pong(addr, begin + Duration::from_secs(10));
        let proc = Proc::new(Some(child.id()));
        took.push((
            begin.elapsed().as_secs_f64() * 1e3,
            proc.cpu_ns()? as f64 / 1e6,
        ));
        child.kill().map_err(text)?;
        child.wait().map_err(text)?;
        answered?;
    }
    took.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out = Report::new();
    out.insert("start_ms".into(), took[times / 2].0.into());
    out.insert("start_min_ms".into(), took[0].0.into());
    took.sort_by(|a, b| a.1.total_cmp(&b.1));
    out.insert("start_cpu_ms".into(), took[times / 2].1.into());
    Ok(out)
}

fn first_pong(addr: SocketAddr, end: Instant) -> Result<(), String> {
    let mut stream = loop {
        match TcpStream::connect(addr) {
            Ok(stream) => break stream,
            Err(e) if Instant::now() > end => return Err(format!("{addr}: {e}")),
            // Trying at once again would take the core from a server that shares it.
            Err(_) => std::thread::sleep(Duration::from_micros(50)),
        }
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(text)?;
    stream
        .write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")
        .map_err(text)?;
    let mut got = Vec::new();
    let mut buf = [0; 8192];
    while !got.windows(6).any(|w| w == b"PONG\r\n") {
        match stream.read(&mut buf).map_err(text)? {
            0 => return Err(format!("{addr} closed the connection")),
            n => got.extend_from_slice(&buf[..n]),
        }
    }
    Ok(())
}
