//! OTLP metrics from a loopback socket to folded points: gRPC and HTTP, unpacked, gzip and zstd.
//!
//! The listeners are the daemon's; who sends is another process, so that the processor time of this one is relight's
//! alone. Read points per second and core beside those of the same bytes without a socket; `-- 200000` sets another
//! number of series.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use relight_benches::fleet::{Fleet, OtlpEngine, cpu};
use relight_benches::{INTERVAL, POINTS_PER_RECORD, START, say};
use relight_core::responder::Secrets;
use relight_core::source::{Listen, Otlp, SourceKind, SourceSpec};
use relight_ingest::listen;
use relight_ingest::live::{Hub, Load, Next, Outlet, Verdict};

/// Bins before those that are timed, and those.
const WARM: usize = 2;
const TIMED: usize = 16;
/// Connections of the sender; each has one request on its way.
const CONNECTIONS: usize = 4;
const PATIENCE: Duration = Duration::from_mins(5);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "send") {
        let [address, protocol, coding, series] = &args[at + 1..at + 5] else { panic!("{args:?}") };
        let series = series.parse().expect("a number");
        return send(address.parse().expect("an address"), protocol, Coding::named(coding), series);
    }
    let series: usize = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let series = series.next_multiple_of(POINTS_PER_RECORD);
    println!(
        "{series} series, {POINTS_PER_RECORD} points a request, 10 attributes, {CONNECTIONS} connections, one thread of the engine"
    );
    let inflated = inflaters(series);
    let bare = without_socket(series);
    for protocol in ["http", "grpc"] {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            of_socket(series, protocol, coding, bare, inflated[coding as usize]);
        }
    }
}

/// How bodies are packed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Coding {
    Identity = 0,
    Gzip = 1,
    Zstd = 2,
}

impl Coding {
    fn named(name: &str) -> Self {
        [Self::Identity, Self::Gzip, Self::Zstd].into_iter().find(|coding| coding.name() == name).expect(name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn pack(self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Identity => body.to_vec(),
            Self::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                packer.write_all(body).and_then(|()| packer.finish()).expect("a Vec takes all")
            }
            Self::Zstd => zstd::bulk::compress(body, 3).expect("a Vec takes all"),
        }
    }
}

/// Nanoseconds a point that unpacking takes, by coding, as the listeners do it; beside it the other safe inflater.
fn inflaters(series: usize) -> [f64; 3] {
    let mut fleet = Fleet::new(series.min(20_000));
    fleet.refresh(1);
    let points = (fleet.bodies.len() * POINTS_PER_RECORD) as f64;
    let pack = |coding: Coding| fleet.bodies.iter().map(|body| coding.pack(body)).collect::<Vec<_>>();
    let (gzip, zstd) = (pack(Coding::Gzip), pack(Coding::Zstd));
    let bytes = |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).sum::<usize>() as f64 / points;
    println!(
        "bytes a point: {:.0} as they are, {:.0} in gzip, {:.0} in zstd",
        bytes(&fleet.bodies),
        bytes(&gzip),
        bytes(&zstd)
    );
    let zune = |body: &[u8]| {
        let len = body.last_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len) as usize);
        let options = zune_inflate::DeflateOptions::default()
            .set_limit(len)
            .set_size_hint(len + 1)
            .set_confirm_checksum(false);
        let bytes = zune_inflate::DeflateDecoder::new_with_options(body, options).decode_gzip();
        let bytes = bytes.expect("it was packed here");
        std::hint::black_box(crc32fast::hash(&bytes));
        bytes
    };
    let zlib_rs = |body: &[u8]| {
        let mut bytes = Vec::new();
        flate2::bufread::MultiGzDecoder::new(body).read_to_end(&mut bytes).expect("it was packed here");
        bytes
    };
    let of_zstd = |body: &[u8]| {
        let mut bytes = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(body);
        decoder.and_then(|mut decoder| decoder.read_to_end(&mut bytes)).expect("it was packed here");
        bytes
    };
    let taken = [
        ("inflate gzip: zune-inflate and crc32fast, as listeners do", best(&gzip, zune) / points),
        ("inflate gzip: zlib-rs", best(&gzip, zlib_rs) / points),
        ("inflate zstd", best(&zstd, of_zstd) / points),
    ];
    for (what, ns) in taken {
        say(what, ns, "ns/point", "");
    }
    [0.0, taken[0].1, taken[2].1]
}

/// The fastest of five rounds over all bodies, in nanoseconds.
fn best(bodies: &[Vec<u8>], inflate: impl Fn(&[u8]) -> Vec<u8>) -> f64 {
    let round = || {
        let begin = Instant::now();
        for body in bodies {
            drop(std::hint::black_box(inflate(body)));
        }
        begin.elapsed().as_secs_f64() * 1e9
    };
    (0..5).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Nanoseconds a point from bytes in memory to folded points.
fn without_socket(series: usize) -> f64 {
    let mut fleet = Fleet::new(series);
    let mut engine = OtlpEngine::default();
    let (partition, mut offset, mut spent) = (engine.intake.partition("otlp"), 0, Duration::ZERO);
    for bin in 0..WARM + TIMED {
        let at = fleet.refresh(bin);
        if bin == WARM {
            engine.spent = Default::default();
        }
        let begin = own_cpu();
        for body in &fleet.bodies {
            engine.take(partition, offset, at, body);
            offset += 1;
        }
        if bin >= WARM {
            spent += own_cpu().saturating_sub(begin);
        }
    }
    let points = (series * TIMED) as f64;
    let bare = spent.as_secs_f64() * 1e9 / points;
    say("the same bytes without a socket", 1e3 / bare, "M points/s and core", "");
    println!("    {bare:.0} ns a point: {}", parts(&engine, points));
    bare
}

/// Processor time of this thread so far.
fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("the kernel tells a thread's time in schedstat"))
}

/// What was spent so far: by the process, by the kernel for it, by the engine's thread.
fn so_far() -> [Duration; 3] {
    let (all, kernel) = cpu();
    [all, kernel, own_cpu()]
}

fn of_socket(series: usize, protocol: &str, coding: Coding, bare: f64, inflate: f64) {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("relight-io").build();
    let threads = threads.expect("a runtime");
    let (hub, opened) = Hub::new(BTreeMap::new());
    let otlp = Otlp { grpc: Listen::local(0), http: Listen::local(0), ..Otlp::default() };
    let spec = SourceSpec { name: "otlp".to_owned(), kind: SourceKind::Otlp(otlp) };
    // After all that is sent: time of arrival holds no bin open.
    let clock: listen::Clock = Arc::new(|| START.plus(INTERVAL.times((WARM + TIMED + 1) as i64)));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let around = listen::Surroundings::new(clock, folder.path());
    let source = listen::start_in(&around, &spec, &Secrets::default(), &hub, threads.handle());
    let source = source.expect("a free port");
    let address = source.addresses().iter().find(|(key, _)| *key == protocol).expect("it listens").1;
    let mut sender = sender(address, protocol, coding, series);
    let outlet = opened.recv_timeout(PATIENCE).expect("the source opens its partition");

    let mut engine = OtlpEngine::default();
    let partition = engine.intake.partition(&outlet.partition);
    let mut offset = 0;
    take_until(&outlet, &mut engine, (partition, &mut offset), (series * WARM) as u64);
    engine.spent = Default::default();
    let before = so_far();
    take_until(&outlet, &mut engine, (partition, &mut offset), (series * (WARM + TIMED)) as u64);
    let after = so_far();
    assert!(
        sender.wait().expect("it was started").success(),
        "the sender saw an answer that it did not want"
    );
    assert_eq!(engine.intake.directory().series_len(), series);
    drop(source);

    let points = (series * TIMED) as f64;
    let ns = |ix: usize| after[ix].saturating_sub(before[ix]).as_secs_f64() * 1e9 / points;
    let [all, kernel, of_engine] = [ns(0), ns(1), ns(2)];
    let parts = parts(&engine, points);
    say(&format!("{protocol}, {}", coding.name()), 1e3 / all, "M points/s and core", "");
    println!(
        "    {all:.0} ns a point: engine {of_engine:.0} ({parts}), \
         inflating about {inflate:.0}, HTTP, sockets and queue {:.0}; of all {kernel:.0} in the kernel; {:.2} times the bytes alone",
        (all - of_engine - inflate).max(0.0),
        all / bare
    );
}

/// Where the engine's time went, in nanoseconds a point.
fn parts(engine: &OtlpEngine, points: f64) -> String {
    let ns = |samples: &Vec<Duration>| samples.iter().sum::<Duration>().as_secs_f64() * 1e9 / points;
    let [decode, intake, push, close] = engine.spent.each_ref().map(ns);
    format!("decode {decode:.0}, intake {intake:.0}, fold {push:.0}, close of bins {close:.0}")
}

/// Takes what comes until so many points are in.
fn take_until(outlet: &Outlet, engine: &mut OtlpEngine, (partition, offset): (u32, &mut u64), points: u64) {
    let begin = Instant::now();
    while engine.intake.counters().points < points {
        match outlet.take() {
            Next::Delivery(delivery) => {
                if let Load::Metrics(body) = delivery.load {
                    engine.take(partition, *offset, delivery.received, &body);
                    *offset += 1;
                }
                if let Some(answer) = delivery.answer {
                    answer(Verdict::Taken(Vec::new()));
                }
            }
            Next::Empty => {
                let mut select = crossbeam_channel::Select::new();
                outlet.wait_in(&mut select);
                let _ = select.ready_timeout(Duration::from_millis(10));
            }
            Next::Closed => panic!("the source has let go of its partition"),
        }
        assert!(begin.elapsed() < PATIENCE, "{} of {points} points", engine.intake.counters().points);
    }
    assert_eq!(engine.intake.counters().points, points, "each point once");
}

fn sender(address: SocketAddr, protocol: &str, coding: Coding, series: usize) -> Child {
    let this = std::env::current_exe().expect("this program");
    let args = ["send", &address.to_string(), protocol, coding.name(), &series.to_string()];
    Command::new(this).args(args).spawn().expect("it is this program")
}

/// Sends all bins, each once the one before was taken.
fn send(address: SocketAddr, protocol: &str, coding: Coding, series: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut fleet = Fleet::new(series);
    runtime.block_on(async {
        let mut lanes = Vec::new();
        for _ in 0..CONNECTIONS {
            lanes.push(Lane::open(address, protocol, coding).await);
        }
        for bin in 0..WARM + TIMED {
            fleet.refresh(bin);
            let bodies: Vec<Bytes> = fleet.bodies.iter().map(|body| framed(protocol, coding, body)).collect();
            let share = bodies.len().div_ceil(CONNECTIONS);
            let mut sending = tokio::task::JoinSet::new();
            for (mut lane, bodies) in lanes.drain(..).zip(bodies.chunks(share)) {
                let bodies = bodies.to_vec();
                sending.spawn(async move {
                    for body in bodies {
                        lane.send(body).await;
                    }
                    lane
                });
            }
            lanes = sending.join_all().await;
        }
    });
}

/// A body as it goes over the wire.
fn framed(protocol: &str, coding: Coding, body: &[u8]) -> Bytes {
    let packed = coding.pack(body);
    if protocol == "http" {
        return packed.into();
    }
    let mut frame = vec![u8::from(coding != Coding::Identity)];
    frame.extend_from_slice(&(packed.len() as u32).to_be_bytes());
    frame.extend_from_slice(&packed);
    frame.into()
}

enum Sender {
    Http(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Grpc(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// One connection.
struct Lane {
    sender: Sender,
    url: String,
    coding: Coding,
}

impl Lane {
    async fn open(address: SocketAddr, protocol: &str, coding: Coding) -> Self {
        let socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("an option of every socket");
        let socket = TokioIo::new(socket);
        let (sender, path) = if protocol == "grpc" {
            let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await;
            let (sender, connection) = made.expect("HTTP/2");
            tokio::spawn(connection);
            (Sender::Grpc(sender), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(socket).await.expect("HTTP");
            tokio::spawn(connection);
            (Sender::Http(sender), "/v1/metrics")
        };
        Self { sender, url: format!("http://{address}{path}"), coding }
    }

    /// Sends a body until it is taken.
    async fn send(&mut self, body: Bytes) {
        while !self.try_to(body.clone()).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// `false` if there was no room.
    async fn try_to(&mut self, body: Bytes) -> bool {
        let mut request = hyper::Request::post(&self.url);
        if self.coding != Coding::Identity {
            let key =
                if matches!(self.sender, Sender::Grpc(_)) { "grpc-encoding" } else { "content-encoding" };
            request = request.header(key, self.coding.name());
        }
        let kind = |kind: &'static str| request.header("content-type", kind);
        let answer = match &mut self.sender {
            Sender::Http(sender) => {
                let request = kind("application/x-protobuf").header("host", "localhost");
                sender.ready().await.expect("the connection lasts");
                sender.send_request(request.body(Full::new(body)).expect("a request")).await
            }
            Sender::Grpc(sender) => {
                let request = kind("application/grpc").header("te", "trailers");
                sender.ready().await.expect("the connection lasts");
                sender.send_request(request.body(Full::new(body)).expect("a request")).await
            }
        };
        let (head, body) = answer.expect("an answer").into_parts();
        let trailers = body.collect().await.expect("a whole answer").trailers().cloned().unwrap_or_default();
        let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
        match (head.status.as_u16(), status.map(hyper::http::HeaderValue::as_bytes)) {
            (200, None | Some(b"0")) => true,
            (503, _) | (200, Some(b"14")) => false,
            other => panic!("{other:?}: {head:?} {trailers:?}"),
        }
    }
}
