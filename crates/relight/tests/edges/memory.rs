//! Senders whose requests are legal and together far more than the memory that there is.
//!
//! The limit is injected by the config's `memory`, since not every machine lets a test make a cgroup; what counts is the
//! process' own peak (`VmHWM`), which is what the kernel would kill for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::attack::healthy;
use crate::daemon::*;

const LIMIT: u64 = 256 << 20;
const ATTACKERS: usize = 64;

/// A daemon that may use 256 MiB.
fn limited(dir: &std::path::Path) -> Daemon {
    let file = config(dir, NOBODY, "");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let edges = format!("memory: {{soft_bytes: {}, hard_bytes: {}}}\n", LIMIT / 5 * 4, LIMIT / 10 * 9);
    std::fs::write(&file, text + &edges).expect("a folder of our own");
    Daemon::start(&file)
}

/// A length-delimited field of protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
    out
}

/// An export request of gauges in the sixth second of the data: so many points, each of a series of its own, whose
/// name makes the request as long as it is to be.
fn export(first: usize, points: usize, bytes: usize) -> Vec<u8> {
    let padding = "x".repeat((bytes / points).saturating_sub(50));
    let time = 1_767_225_605_000_000_000_u64.to_le_bytes();
    let point = |n: usize| {
        let value = field(2, &field(1, format!("{n}-{padding}").as_bytes()));
        let attribute = field(7, &[field(1, b"pod"), value].concat());
        let value = 1.0_f64.to_le_bytes();
        field(1, &[&[0x19], &time[..], &[0x21], &value[..], &attribute].concat())
    };
    let points: Vec<u8> = (first..first + points).flat_map(point).collect();
    let metric = [field(1, b"flood"), field(5, &points)].concat();
    field(1, &field(2, &field(2, &metric)))
}

/// Sends one request; the status of its answer, if there is one.
fn send(to: SocketAddr, gzip: bool, body: &[u8]) -> String {
    let coding = if gzip { "Content-Encoding: gzip\r\n" } else { "" };
    let headers = format!("Content-Type: application/x-protobuf\r\n{coding}");
    let mut stream = connect_as(to, Ipv4Addr::LOCALHOST);
    let head = head("POST", "/v1/metrics", &headers, body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    // The names of what is refused come in protobuf.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned()
}

/// Sends bodies again and again from one address by many connections at once, until it is told to stop.
fn attack(daemon: &Daemon, gzip: bool, body: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> Attack {
    let (stop, body) = (Arc::new(AtomicBool::default()), Arc::new(body));
    let [taken, refused] = [(); 2].map(|()| Arc::new(AtomicUsize::default()));
    let to = daemon.http;
    let thread = |thread| {
        let (stop, body) = (Arc::clone(&stop), Arc::clone(&body));
        let (taken, refused) = (Arc::clone(&taken), Arc::clone(&refused));
        std::thread::spawn(move || {
            let mut round = thread;
            while !stop.load(Ordering::Relaxed) {
                match &*send(to, gzip, &body(round)) {
                    "200" => taken.fetch_add(1, Ordering::Relaxed),
                    "503" => refused.fetch_add(1, Ordering::Relaxed),
                    _ => 0,
                };
                round += ATTACKERS;
            }
        })
    };
    let threads = (0..ATTACKERS).map(thread).collect();
    Attack { stop, threads, taken, refused }
}

struct Attack {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    taken: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Attack {
    /// Ends it; how many requests were taken, and how many refused.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        (self.taken.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// It lives, and its peak left a sixteenth of the limit free: what the kernel charges a cgroup beside the process' pages.
fn assert_within(daemon: &mut Daemon) {
    assert!(daemon.child.try_wait().expect("a child of our own").is_none(), "it died");
    let peak = daemon.memory_kib("VmHWM:") << 10;
    assert!(peak <= LIMIT - LIMIT / 16, "its peak was {} MiB", peak >> 20);
}

/// Rounds of the healthy sender in which one of the crowd's requests has to be taken.
const ROUNDS: usize = 50;

fn crowd(daemon: &mut Daemon, gzip: bool, body: Vec<u8>) {
    let again = body.clone();
    // While memory is short a new series waits; this one is known. Its points are behind those of the crowd, so none is late.
    assert_eq!(healthy(daemon, 6..7), 1);
    let attack = attack(daemon, gzip, move |_| body.clone());
    daemon.wait_for("relight_source_total{source=\"otlp\",what=\"requests\",kind=\"busy\"}", |n| n >= 64.0);
    assert_eq!(healthy(daemon, 7..37), 30);
    for _ in 0..ROUNDS {
        if attack.taken.load(Ordering::Relaxed) > 0 {
            break;
        }
        assert_eq!(healthy(daemon, 36..37), 1);
    }
    let (taken, refused) = attack.end();
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    assert!((0..1_000).any(|_| send(daemon.http, gzip, &again) == "200"), "none is taken after the crowd");
    assert_within(daemon);
}

/// Scenario: 64 connections of one address send requests of 15 MB side by side, and go on as soon as they are answered.
/// Guarantee: the process stays within its limit, some are taken and the others are refused with 503; each request of a sender
/// on another address is taken meanwhile, and a largest one is taken once the crowd is gone.
#[test]
fn d06_largest_requests_in_parallel() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut daemon = limited(dir.path());
    let body = export(0, 50_000, 15_000_000);
    crowd(&mut daemon, false, body);
    assert!(daemon.stop().success());
}

/// The same, packed: what counts is what a body becomes.
#[test]
fn d06_largest_packed_requests_in_parallel() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut daemon = limited(dir.path());
    let plain = export(0, 50_000, 30_000_000);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).expect("memory does not fail");
    let body = encoder.finish().expect("memory does not fail");
    crowd(&mut daemon, true, body);
    assert!(daemon.stop().success());
}

/// Scenario: 64 connections of one address bring new series without end, 1,000 with each request.
/// Guarantee: the process stays within its limit: new series are refused in the end, and each request with a known series
/// is taken, before and after.
#[test]
fn d01_series_flood_at_the_limit() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut daemon = limited(dir.path());
    assert_eq!(healthy(&daemon, 0..5), 5);
    let attack = attack(&daemon, false, |round| export(round * 1_000, 1_000, 800_000));
    let mut before = 0;
    wait_until("the end of new series", || {
        before += 1;
        assert_eq!(healthy(&daemon, 5..6), 1, "request {before} before new series are refused");
        daemon.metric("relight_memory_refuses_series") == Some(1.0)
    });
    // All in the second that the flood has: none is late.
    let taken: usize = (0..30).map(|_| healthy(&daemon, 5..6)).sum();
    assert_eq!(taken, 30);
    attack.end();
    assert_within(&mut daemon);
    assert!(daemon.stop().success());
}
