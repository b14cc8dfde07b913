//! End to end over real loopback sockets, with a server in this process: batches of messages to one
//! and to several subscribers, and request and reply one at a time.
//!
//! `cargo bench --bench loopback`. Client and server share the machine's cores, so this is a figure
//! for comparing changes; `benches/compare` compares servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use midge::config::Options;
use midge::log::Logger;
use midge::server::Server;
use midge::wire::from_server::{Frame, Parser};

/// Messages in one round; the round ends when the last subscriber has the last of them.
const BATCH: usize = 1000;

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that are no whole frame yet.
    held: usize,
    parser: Parser,
}

impl Client {
    /// Connects and carries `setup` out.
    fn new(address: SocketAddr, setup: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).expect("a socket option");
        let mut client = Client {
            stream,
            buffer: vec![0; 256 * 1024],
            held: 0,
            parser: Parser::new(),
        };
        client.write(format!("CONNECT {{\"verbose\":false}}\r\n{setup}PING\r\n").as_bytes());
        client.read_until(1, |frame| matches!(frame, Frame::Pong));
        client
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    fn read_messages(&mut self, count: usize) {
        self.read_until(count, |frame| matches!(frame, Frame::Message(_)));
    }

    /// Reads until so many frames have come that are wanted; answers PING.
    fn read_until(&mut self, mut wanted: usize, is_wanted: impl Fn(&Frame<'_>) -> bool) {
        while wanted > 0 {
            let read = self.stream.read(&mut self.buffer[self.held..]);
            let read = read.expect("the server answers");
            assert!(read > 0, "the server closed");
            let end = self.held + read;
            let mut at = 0;
            while let Some((frame, used)) = self.parser.parse(&self.buffer[at..end]).expect("NATS")
            {
                if is_wanted(&frame) {
                    wanted -= 1;
                } else if frame == Frame::Ping {
                    self.stream
                        .write_all(b"PONG\r\n")
                        .expect("the server reads");
                }
                at += used;
            }
            self.buffer.copy_within(at..end, 0);
            self.held = end - at;
        }
    }
}

fn start(workers: u16) -> (Server, SocketAddr) {
    let options = Options {
        host: Some("127.0.0.1".into()),
        port: 0,
        workers: Some(workers),
        ..Options::default()
    };
    let log = Logger::callback(Box::new(|_, _| {}));
    let server = Server::start(options, log, || panic!("a worker failed")).expect("it starts");
    let address = server.addresses()[0];
    (server, address)
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("loopback");
    for (receivers, bytes) in [(1, 16), (1, 1024), (8, 16)] {
        let (_server, address) = start(1);
        let mut subscribers: Vec<Client> = (0..receivers)
            .map(|_| Client::new(address, "SUB foo 1\r\n"))
            .collect();
        let mut publisher = Client::new(address, "");
        let payload = "x".repeat(bytes);
        let chunk = format!("PUB foo {bytes}\r\n{payload}\r\n")
            .repeat(BATCH)
            .into_bytes();
        group.throughput(Throughput::Elements((BATCH * receivers) as u64));
        group.bench_function(BenchmarkId::new(format!("1:{receivers}"), bytes), |b| {
            b.iter(|| {
                publisher.write(&chunk);
                for subscriber in &mut subscribers {
                    subscriber.read_messages(BATCH);
                }
            });
        });
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("loopback request");
    for workers in [1, 2] {
        let (_server, address) = start(workers);
        let mut responder = Client::new(address, "SUB svc 1\r\n");
        let mut requester = Client::new(address, "SUB inbox 1\r\n");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("workers", workers), |b| {
            b.iter(|| {
                requester.write(b"PUB svc inbox 2\r\nhi\r\n");
                responder.read_messages(1);
                responder.write(b"PUB inbox 2\r\nho\r\n");
                requester.read_messages(1);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = messages, requests
}
criterion_main!(benches);
