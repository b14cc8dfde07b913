//! Loads whose point is latency: request/reply in a closed loop, and publishing at a steady rate.

use crate::Report;
use crate::args::Args;
use crate::flow::Outcome;
use crate::full_speed::report;
use crate::hist::Hist;
use crate::net::Net;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// `load request`: `--clients` with one request under way each, one responder. With `--mux` each
/// request carries a reply subject of its own below one wildcard inbox, as client libraries do it.
pub fn request(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let clients: usize = args.get("clients", 1)?;
    let msgs: u64 = args.get("msgs", 20_000)?;
    let size = args.get("size", 128)?;
    let mux = args.has("mux");
    args.finish()?;
    let responder = net.open(b"SUB load.service 1\r\n")?;
    let mut loop_ = Requests {
        net,
        responder,
        mux,
        body: vec![b'x'; size],
        line: Vec::new(),
    };
    for client in 1..=clients {
        let tail = if mux { ".*" } else { "" };
        let setup = format!("SUB _INBOX.load{client}{tail} 1\r\n");
        loop_.net.open(setup.as_bytes())?;
    }
    loop_.run(clients, msgs.div_ceil(10))?;
    let (outcome, hist) = loop_.run(clients, msgs)?;
    let mut out = report(&loop_.net, &outcome);
    hist.report(&mut out);
    Ok(out)
}

struct Requests {
    net: Net,
    responder: usize,
    mux: bool,
    body: Vec<u8>,
    line: Vec<u8>,
}

impl Requests {
    fn run(&mut self, clients: usize, msgs: u64) -> Result<(Outcome, Hist), String> {
        let mut hist = Hist::new();
        let mut since = vec![Instant::now(); self.net.conns.len()];
        let (mut begun, mut done) = (0, 0);
        let mut answers = Vec::new();
        // Every client that may send its next request.
        let mut free: Vec<usize> = (1..=clients).collect();
        let cpu = self.net.proc.cpu_ns()?;
        let start = Instant::now();
        while done < msgs {
            for client in free.drain(..) {
                if begun == msgs {
                    break;
                }
                begun += 1;
                since[client] = Instant::now();
                ask(
                    &mut self.line,
                    client,
                    self.mux.then_some(begun),
                    &self.body,
                );
                self.net.queue(client, &self.line);
                self.net.flush(client)?;
            }
            let (responder, body) = (self.responder, &self.body);
            let turn = self
                .net
                .turn(Some(Duration::from_millis(100)), |conn, head| {
                    if conn == responder {
                        publish(
                            &mut answers,
                            head.reply().unwrap_or(b"_missing"),
                            None,
                            body,
                        );
                    } else {
                        hist.record(since[conn].elapsed().as_nanos() as u64);
                        done += 1;
                        free.push(conn);
                    }
                });
            turn.map_err(|e| format!("{e}; {} replies are missing", msgs - done))?;
            self.net.queue(responder, &answers);
            answers.clear();
            self.net.flush(responder)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu_ns = self.net.proc.cpu_ns()? - cpu;
        Ok((
            Outcome {
                cpu_ns,
                seconds,
                units: msgs,
            },
            hist,
        ))
    }
}

fn ask(out: &mut Vec<u8>, client: usize, token: Option<u64>, body: &[u8]) {
    let inbox = match token {
        Some(token) => format!("_INBOX.load{client}.{token}"),
        None => format!("_INBOX.load{client}"),
    };
    out.clear();
    publish(out, b"load.service", Some(inbox.as_bytes()), body);
}

fn publish(out: &mut Vec<u8>, subject: &[u8], reply: Option<&[u8]>, body: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject);
    out.push(b' ');
    if let Some(reply) = reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// `load paced`: `--rate` messages a second in all, one after the other over `--pairs` pairs.
/// Latency counts from when a message was due, so a load that falls behind shows it.
pub fn paced(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let pairs: usize = args.get("pairs", 100)?;
    let rate: f64 = args.get("rate", 20_000.0)?;
    let seconds: f64 = args.get("seconds", 5.0)?;
    let size: usize = args.get("size", 128)?;
    args.finish()?;
    let mut messages = Vec::new();
    for pair in 0..pairs {
        let subject = format!("load.paced.{pair}");
        net.open(format!("SUB {subject} 1\r\n").as_bytes())?;
        net.open(b"")?;
        let mut message = Vec::new();
        publish(&mut message, subject.as_bytes(), None, &vec![b'x'; size]);
        messages.push(message);
    }
    pace(&mut net, &messages, rate, (rate * seconds / 10.0) as u64)?;
    let (outcome, hist) = pace(&mut net, &messages, rate, (rate * seconds) as u64)?;
    let mut out = report(&net, &outcome);
    hist.report(&mut out);
    Ok(out)
}

fn pace(
    net: &mut Net,
    messages: &[Vec<u8>],
    rate: f64,
    msgs: u64,
) -> Result<(Outcome, Hist), String> {
    let mut hist = Hist::new();
    // When the messages under way were due, in order for each pair.
    let mut due: Vec<VecDeque<Instant>> = vec![VecDeque::new(); messages.len()];
    let (mut sent, mut done) = (0, 0);
    let cpu = net.proc.cpu_ns()?;
    let start = Instant::now();
    while done < msgs {
        let mut next = start + Duration::from_secs_f64(sent as f64 / rate);
        while sent < msgs && next <= Instant::now() {
            let pair = (sent % messages.len() as u64) as usize;
            net.queue(2 * pair + 1, &messages[pair]);
            net.flush(2 * pair + 1)?;
            due[pair].push_back(next);
            sent += 1;
            next = start + Duration::from_secs_f64(sent as f64 / rate);
        }
        // The poll's clock has milliseconds: near the next message only looking often is exact.
        let ahead = next.saturating_duration_since(Instant::now());
        let wait = ahead
            .checked_sub(Duration::from_millis(2))
            .filter(|_| sent < msgs);
        let turn = net.turn(wait, |conn, _| {
            if let Some(since) = due[conn / 2].pop_front() {
                hist.record(since.elapsed().as_nanos() as u64);
            }
            done += 1;
        });
        turn.map_err(|e| format!("{e}; {} deliveries are missing", msgs - done))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok((
        Outcome {
            cpu_ns: net.proc.cpu_ns()? - cpu,
            seconds,
            units: msgs,
        },
        hist,
    ))
}
