//! `load subs`: many subscriptions held by few connections, then publishing to random subjects.
//!
//! `mixed` has 87 % literal, 9 % `*` and 4 % `>` subscriptions, laid out in blocks of one hundred so
//! that each subject matches exactly three of them, one of each kind: four sites with a `>`
//! subscription each, nine kinds of reading with a `*` each, 87 literal ones shared out among both.
//! `literal` has only literal ones, `--copies` of them on each subject.

use crate::args::Args;
use crate::flow::Outcome;
use crate::full_speed::report;
use crate::net::Net;
use crate::{Report, memory};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Encoded ahead of the socket.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy)]
enum Layout {
    Mixed,
    Literal { copies: u64 },
}

impl Layout {
    /// Deliveries of each publish.
    fn fan(self) -> u64 {
        match self {
            Layout::Mixed => 3,
            Layout::Literal { copies } => copies,
        }
    }

    /// Subjects to publish to, among `count` subscriptions.
    fn subjects(self, count: u64) -> u64 {
        match self {
            Layout::Mixed => count / 100 * 87,
            Layout::Literal { copies } => count / copies,
        }
    }

    /// Appends the subject of subscription `index`.
    fn subscription(self, out: &mut Vec<u8>, index: u64) {
        let Layout::Mixed = self else {
            return self.subject(out, index / self.fan());
        };
        let (block, place) = (index / 100, index % 100);
        let _ = match place {
            0..87 => return self.subject(out, block * 87 + place),
            87..91 => write!(out, "fleet.s{}.>", block * 4 + place - 87),
            // Sites have two kinds of reading, the last one of a block has three.
            91..97 => {
                let at = place - 91;
                write!(out, "fleet.s{}.*.k{}", block * 4 + at / 2, at % 2)
            }
            _ => write!(out, "fleet.s{}.*.k{}", block * 4 + 3, place - 97),
        };
    }

    /// Appends subject `index`; `mixed`: site, device, kind.
    fn subject(self, out: &mut Vec<u8>, index: u64) {
        let _ = match self {
            Layout::Mixed => {
                let (block, place) = (index / 87, index % 87);
                let (site, device) = ((place / 22), place % 22);
                let kinds = if site == 3 { 3 } else { 2 };
                write!(
                    out,
                    "fleet.s{}.d{device}.k{}",
                    block * 4 + site,
                    device % kinds
                )
            }
            Layout::Literal { .. } => {
                write!(
                    out,
                    "fleet.s{}.d{}.k{}",
                    index / 22,
                    index % 22 / 2,
                    index % 2
                )
            }
        };
    }
}

/// Runs the load: subscribe, publish, unsubscribe.
pub fn run(args: &Args) -> Result<Report, String> {
    let mut net = Net::new(args)?;
    let count: u64 = args.get("count", 100_000)?;
    let copies = args.get("copies", 1)?;
    let layout = match args.get("layout", "mixed".to_string())?.as_str() {
        "mixed" if count.is_multiple_of(100) => Layout::Mixed,
        "mixed" => return Err("--count: mixed subscriptions come in hundreds".into()),
        "literal" => Layout::Literal { copies },
        other => return Err(format!("--layout {other}: mixed or literal")),
    };
    let holders: u64 = args.get("holders", 4)?;
    let msgs: u64 = args.get("msgs", 300_000)?;
    let size: usize = args.get("size", 128)?;
    let window = args.get("window", 8 << 20)?;
    args.finish()?;
    let publisher = net.open(b"")?;
    let mut conns = Vec::new();
    for _ in 0..holders {
        conns.push(net.open(b"")?);
    }
    net.proc.settle(Duration::from_secs(2))?;
    let empty = net.proc.memory().rss;
    let loading = control(&mut net, &conns, count, |out, index| {
        out.extend_from_slice(b"SUB ");
        layout.subscription(out, index);
        let _ = write!(out, " {}\r\n", index + 1);
    })?;
    net.proc.settle(Duration::from_secs(2))?;
    let full = net.proc.memory().rss;

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut route = |net: &mut Net, msgs| {
        let load = Publish {
            layout,
            subjects: layout.subjects(count),
            size,
            window,
        };
        load.run(net, publisher, msgs, &mut random)
    };
    route(&mut net, msgs.div_ceil(10))?;
    let outcome = route(&mut net, msgs)?;
    let mut out = report(&net, &outcome);

    let unloading = control(&mut net, &conns, count, |out, index| {
        let _ = write!(out, "UNSUB {}\r\n", index + 1);
    })?;
    net.proc.settle(Duration::from_secs(3))?;
    let per = |bytes: u64| bytes as f64 / count as f64;
    out.insert("rss_empty".into(), empty.into());
    out.insert("rss_loaded".into(), full.into());
    out.insert("rss_unsubscribed".into(), net.proc.memory().rss.into());
    out.insert(
        "bytes_per_subscription".into(),
        per(full.saturating_sub(empty)).into(),
    );
    out.insert(
        "load_cpu_s_per_million".into(),
        (loading.cpu_ns as f64 / 1e3 / count as f64).into(),
    );
    out.insert("load_seconds".into(), loading.seconds.into());
    let unload = unloading.cpu_ns as f64 / 1e3 / count as f64;
    out.insert("unload_cpu_s_per_million".into(), unload.into());
    memory(&net, &mut out);
    Ok(out)
}

/// Sends `count` control lines, spread over `conns`, and waits until the server has taken all in.
fn control(
    net: &mut Net,
    conns: &[usize],
    count: u64,
    line: impl Fn(&mut Vec<u8>, u64),
) -> Result<Outcome, String> {
    let cpu = net.proc.cpu_ns()?;
    let start = Instant::now();
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    // Connection `at` has sent the lines at + n * conns.len() below next[at].
    let mut next: Vec<u64> = (0..conns.len() as u64).collect();
    while next.iter().any(|index| *index < count) {
        for (conn, next) in conns.iter().zip(&mut next) {
            if net.queued(*conn) > 0 {
                net.flush(*conn)?;
                continue;
            }
            chunk.clear();
            while *next < count && chunk.len() < CHUNK_BYTES {
                line(&mut chunk, *next);
                *next += conns.len() as u64;
            }
            net.queue(*conn, &chunk);
            net.flush(*conn)?;
        }
        let all_full = conns.iter().all(|conn| net.queued(*conn) > 0);
        net.turn(all_full.then_some(Duration::from_millis(10)), |_, _| {})?;
    }
    net.sync(conns, |_, _| {})?;
    let cpu_ns = net.proc.cpu_ns()? - cpu;
    Ok(Outcome {
        cpu_ns,
        seconds: start.elapsed().as_secs_f64(),
        units: count,
    })
}

struct Publish {
    layout: Layout,
    subjects: u64,
    size: usize,
    window: u64,
}

impl Publish {
    fn run(
        &self,
        net: &mut Net,
        publisher: usize,
        msgs: u64,
        random: &mut Random,
    ) -> Result<Outcome, String> {
        let body = vec![b'x'; self.size];
        let fan = self.layout.fan();
        let window = (self.window / (fan * (self.size as u64 + 40))).max(1);
        let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
        let (mut sent, mut received) = (0, 0);
        let cpu = net.proc.cpu_ns()?;
        let start = Instant::now();
        while received < msgs * fan {
            let busy = net.queued(publisher) > 0;
            if !busy {
                chunk.clear();
                while sent < msgs.min(window + received / fan) && chunk.len() < CHUNK_BYTES {
                    chunk.extend_from_slice(b"PUB ");
                    self.layout.subject(&mut chunk, random.below(self.subjects));
                    let _ = write!(chunk, " {}\r\n", self.size);
                    chunk.extend_from_slice(&body);
                    chunk.extend_from_slice(b"\r\n");
                    sent += 1;
                }
                net.queue(publisher, &chunk);
            }
            net.flush(publisher)?;
            let idle = busy || chunk.is_empty();
            let wait = idle.then_some(Duration::from_millis(100));
            net.turn(wait, |_, _| received += 1)
                .map_err(|e| format!("{e}; {} deliveries are missing", msgs * fan - received))?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu_ns = net.proc.cpu_ns()? - cpu;
        net.sync(&(0..net.conns.len()).collect::<Vec<_>>(), |_, _| {
            received += 1
        })?;
        match received - msgs * fan {
            0 => Ok(Outcome {
                cpu_ns,
                seconds,
                units: msgs,
            }),
            more => Err(format!("{more} deliveries too many")),
        }
    }
}

/// xorshift64*: the same subjects in the same order for every server.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((bits as u128 * bound as u128) >> 64) as u64
    }
}
