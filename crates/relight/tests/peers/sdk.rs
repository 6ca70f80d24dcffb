//! The OpenTelemetry Python SDK, with every instrument that it has, by both protocols.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::peer::{Peer, of_tree, peer};
use crate::relight::{Home, Relight};

/// A row of each instrument, by a detector that finds every value worth telling: an incident's evidence has what it saw.
/// Counters are held against each other, since what they grow by in a bin is a matter of when the bin begins.
const WATCH: &str = r#"
sources: {otlp: {type: otlp, grpc: "127.0.0.1:0", http: "127.0.0.1:0"}}
signals:
  active: {value: active, by: []}
  observed_active: {value: observed_active, by: []}
  load: {value: load, by: []}
  observed_load: {value: observed_load, by: []}
  failing: {ratio: {of: 'requests{code="500"}', to: requests}, by: []}
  observed_requests: {ratio: {of: observed_requests, to: requests}, by: []}
  latency: {quantile: {of: latency, q: 0.5}, by: []}
  wait: {quantile: {of: wait, q: 0.5}, by: []}
  orders: {events: order, by: []}
detectors:
  active_is: {type: threshold, signal: active, above: -1000}
  observed_active_is: {type: threshold, signal: observed_active, above: -1000}
  load_is: {type: threshold, signal: load, above: -1000}
  observed_load_is: {type: threshold, signal: observed_load, above: -1000}
  failing_is: {type: threshold, signal: failing, above: -1000}
  observed_requests_is: {type: threshold, signal: observed_requests, above: -1000}
  latency_is: {type: threshold, signal: latency, above: -1000}
  wait_is: {type: threshold, signal: wait, above: -1000}
  orders_is: {type: threshold, signal: orders, above: 0.5}
rules:
  - {name: active, when: active_is.score > 1.0}
  - {name: observed_active, when: observed_active_is.score > 1.0}
  - {name: load, when: load_is.score > 1.0}
  - {name: observed_load, when: observed_load_is.score > 1.0}
  - {name: failing, when: failing_is.score > 1.0}
  - {name: observed_requests, when: observed_requests_is.score > 1.0}
  - {name: latency, when: latency_is.score > 1.0}
  - {name: wait, when: wait_is.score > 1.0}
  - {name: orders, when: orders_is.score > 1.0}
"#;

/// Runs the application, and gives what it says that it exported.
fn send(protocol: &str, temporality: &str, compression: &str, daemon: &Relight, folder: &Path) -> Value {
    let to = daemon.at(if protocol == "grpc" { "otlp/grpc" } else { "otlp" }).to_string();
    let script = of_tree("testdata/peers/python/sdk.py").display().to_string();
    let (process, told) = Peer::telling(
        &peer("python-1.45.2/bin/python"),
        [script.as_str(), protocol, &to, temporality, compression],
        &folder.join("sdk.said"),
    );
    let told: Vec<String> = told.iter().collect();
    let said = process.said();
    assert!(process.end(), "{said}");
    told.last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{told:?} {said}"))
}

fn check(protocol: &str, temporality: &str, compression: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::new(folder.path(), &[], WATCH);
    let daemon = home.start();
    let told = send(protocol, temporality, compression, &daemon, folder.path());
    let count = |name: &str| told[name].as_f64().unwrap_or(-1.0);
    assert!(count("points") >= 36.0, "{told}");
    daemon.wait_for(&format!("all of {told}"), |daemon| daemon.points() >= count("points"));
    let came =
        (daemon.points(), daemon.metric("relight_series", &[]), daemon.metric("relight_events_total", &[]));
    assert_eq!(came, (count("points"), count("series"), count("logs")), "{told}");
    assert_eq!(daemon.metric("relight_source_total", &["what=\"spans\""]), count("spans"));
    assert_eq!((count("failed"), daemon.refused(), daemon.requests("otlp", "partial")), (0.0, 0.0, 0.0));
    daemon.stop();
    let incidents = home.incidents();
    let evidence = incidents.iter().flat_map(|incident| &incident.evidence);
    let seen: BTreeMap<&str, f64> = evidence.map(|row| (row.signal.as_str(), row.value)).collect();
    let near = |signal: &str, value: f64, tolerance: f64| {
        let seen = seen.get(signal).copied().unwrap_or(f64::NAN);
        assert!((seen - value).abs() <= tolerance, "{signal} is {seen} and not {value}, {temporality}");
    };
    near("active", 7.0, 0.0);
    near("observed_active", -4.0, 0.0);
    near("load", 42.5, 0.0);
    near("observed_load", 0.25, 0.0);
    near("failing", 0.25, 1e-9);
    near("observed_requests", 1.0, 1e-9);
    // Somewhere in the bucket from 25 to 50.
    near("latency", 37.5, 12.5);
    near("wait", 100.0, 1.0);
    near("orders", 1.0, 0.0);
}

/// Scenario: an application with every instrument of the SDK, in cumulative temporality, by gRPC, and one by gRPC with gzip in
/// delta temporality. It logs, and has spans.
/// Guarantee: each series, point, log record and span is counted once, nothing is refused, and detectors see the values that
/// the application recorded.
#[test]
fn the_sdk_by_grpc() {
    check("grpc", "cumulative", "none");
    check("grpc", "delta", "gzip");
}

/// Scenario: the same by HTTP.
/// Guarantee: the same.
#[test]
fn the_sdk_by_http() {
    check("http", "delta", "none");
    check("http", "cumulative", "gzip");
}
