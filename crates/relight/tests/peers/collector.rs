//! The OpenTelemetry Collector in front of relight: what it sends by either protocol, what it writes into a file, and what it
//! does when it is told to come again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::http::must;
use crate::otlp::{load, now_ms};
use crate::peer::{Peer, await_text, free_port, peer};
use crate::relight::{Home, Relight};

const SOURCE: &str = r#"
sources: {otlp: {type: otlp, grpc: "127.0.0.1:0", http: "127.0.0.1:0"}}
"#;

/// A Collector that runs, and where it takes OTLP/HTTP.
pub(crate) struct Collector {
    pub(crate) http: SocketAddr,
    pub(crate) process: Peer,
}

impl Collector {
    /// One that hands metrics on by one exporter, a `NAME: {..}` of its config.
    pub(crate) fn start_metrics(folder: &Path, exporter: (&str, String)) -> Self {
        Self::start(folder, &[exporter], &["metrics"])
    }

    pub(crate) fn start(folder: &Path, exporters: &[(&str, String)], signals: &[&str]) -> Self {
        let http = free_port();
        let names: Vec<&str> = exporters.iter().map(|(name, _)| *name).collect();
        let settings = exporters.iter().map(|(name, how)| format!("{name}: {how}"));
        let settings = settings.collect::<Vec<_>>().join(", ");
        let pipeline = |signal: &&str| {
            format!("{signal}: {{receivers: [otlp], processors: [batch], exporters: [{}]}}", names.join(", "))
        };
        let pipelines = signals.iter().map(pipeline).collect::<Vec<_>>().join(", ");
        let config = format!(
            "receivers:\n  otlp: {{protocols: {{http: {{endpoint: \"{http}\"}}}}}}\n\
             processors:\n  batch: {{timeout: 50ms, send_batch_size: 100}}\n\
             exporters: {{{settings}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{{pipelines}}}}}\n"
        );
        Self::with_config(folder, &config, http)
    }

    /// The same with a config of which is known where it listens.
    pub(crate) fn with_config(folder: &Path, config: &str, http: SocketAddr) -> Self {
        let file = folder.join("collector.yaml");
        std::fs::write(&file, config).expect("a folder of our own");
        let args = ["--config".into(), file];
        let process = Peer::start(&peer("collector-0.155.0"), args, &folder.join("collector.said"));
        Self { http, process: process.listening(http) }
    }

    pub(crate) fn send(&self, body: &str) {
        must(self.http, "POST", "/v1/metrics", body);
    }
}

/// An exporter to a source of relight's that gives up on nothing.
fn exporter(protocol: &'static str, daemon: &Relight, source: &str) -> (&'static str, String) {
    if protocol == "otlp" {
        patient(protocol, &format!("\"{}\", tls: {{insecure: true}}", daemon.at(&format!("{source}/grpc"))))
    } else {
        patient(protocol, &format!("\"http://{}\"", daemon.at(source)))
    }
}

/// The same by its `endpoint` and what belongs to it.
pub(crate) fn patient(protocol: &'static str, endpoint: &str) -> (&'static str, String) {
    let retry = "retry_on_failure: {initial_interval: 200ms, max_interval: 1s, max_elapsed_time: 0}";
    let queue = "sending_queue: {num_consumers: 4, queue_size: 10000}";
    (protocol, format!("{{endpoint: {endpoint}, timeout: 1m, {retry}, {queue}}}"))
}

const LOG: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"NOW","eventName":"deploy",
    "body":{"stringValue":"v3"}}]}]}]}"#;

/// The totals of what `relight replay` makes of a capture.
fn replay(file: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    let output = command.args(["replay", "--json"]).arg(file).output().expect("the binary is built");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let totals = told.lines().next().and_then(|line| serde_json::from_str(line).ok());
    totals.unwrap_or_else(|| panic!("{told} {}", String::from_utf8_lossy(&output.stderr)))
}

/// Scenario: a Collector sends two hundred series and a log record on, by gRPC or HTTP, and writes them into a file as well.
/// Guarantee: every point and event arrives once, and a replay of the file reads as many of each.
#[test]
fn the_collector_sends_by_both_protocols_and_writes_what_replay_reads() {
    for protocol in ["otlp", "otlphttp"] {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = Home::new(folder.path(), &[], SOURCE).start();
        let file = folder.path().join("capture.json");
        let exporters =
            [exporter(protocol, &daemon, "otlp"), ("file", format!("{{path: \"{}\"}}", file.display()))];
        let collector = Collector::start(folder.path(), &exporters, &["metrics", "logs"]);
        let began = now_ms();
        for n in 0..50 {
            collector.send(&load("shop", 200, began + n * 10, 10.0));
        }
        must(collector.http, "POST", "/v1/logs", &LOG.replace("NOW", &format!("{began}000000")));
        daemon.wait_for(protocol, |daemon| {
            daemon.points() >= 10_000.0 && daemon.metric("relight_events_total", &[]) >= 1.0
        });
        let came = (daemon.points(), daemon.metric("relight_series", &[]), daemon.refused());
        assert_eq!(came, (10_000.0, 200.0, 0.0), "{protocol}");
        daemon.stop();
        assert!(collector.process.stop(), "it flushes its file");
        let written = await_text(&file, |text| text.contains("resourceLogs"));
        let replayed = replay(&file);
        let counts = ["points", "series", "events"].map(|what| replayed[what].as_f64());
        assert_eq!(counts, [Some(10_000.0), Some(200.0), Some(1.0)], "{written:.500} {replayed:.2000}");
    }
}

/// Two sources, of which `fast` may not run ahead of `slow` by more than `max_skew`: what it sends then waits, until no
/// more fits.
const TWO: &str = r#"
sources:
  slow: {type: otlp, grpc: off, http: "127.0.0.1:0"}
  fast: {type: otlp, grpc: "127.0.0.1:0", http: "127.0.0.1:0", limits: {max_waiting_bytes: 4096}}
"#;

/// Scenario: relight waits for a source that is far behind, so its queue for the Collector is full: it answers 503 with
/// Retry-After, and UNAVAILABLE with RetryInfo. Half a minute later the other source has caught up.
/// Guarantee: the Collector has come again, and everything has arrived once.
#[test]
fn a_collector_that_is_sent_away_comes_again() {
    for protocol in ["otlp", "otlphttp"] {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = [("allowed_lateness", "1h"), ("max_skew", "10s")];
        let daemon = Home::new(folder.path(), &keys, TWO).start();
        let began = now_ms() - 600_000;
        let slow = |at| must(daemon.at("slow"), "POST", "/v1/metrics", &load("slow", 1, at, 1.0));
        slow(began);
        slow(began + 1);
        let collector = Collector::start(folder.path(), &[exporter(protocol, &daemon, "fast")], &["metrics"]);
        for n in 0..100 {
            collector.send(&load("fast", 100, began + 60_000 + n, 1.0));
        }
        daemon.wait_for("it is sent away", |daemon| daemon.requests("fast", "busy") >= 10.0);
        assert!(daemon.points() < 10_000.0);
        let said = collector.process.said();
        assert!(said.contains("Throttle"), "it does not wait as long as it is told: {said}");
        slow(began + 60_000);
        daemon.wait_for("all of it", |daemon| daemon.points() >= 10_003.0);
        assert_eq!(daemon.points(), 10_003.0, "{protocol}");
        assert_eq!(daemon.metric("relight_refused_total", &["reason=\"late\""]), 0.0, "{protocol}");
        daemon.stop();
    }
}
