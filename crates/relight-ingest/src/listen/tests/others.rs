//! Alertmanager and Grafana from the outside.

use relight_core::responder::Secrets;
use relight_core::source::{Address, Alertmanager, SourceKind};

use super::super::Outcome;
use super::*;

/// Scenario: Alertmanager notifies, repeats itself, and finds the queue full.
/// Guarantee: an alert's change is taken once; a full queue is 503, never 429, and what was refused then is
/// taken when it comes again.
#[test]
fn alerts_come_through_once() {
    let mut kind = Alertmanager { listen: Address::local(0), ..Alertmanager::default() };
    kind.limits.max_waiting_bytes = 1;
    let mut world = World::new(SourceKind::Alertmanager(kind), Engine::Waits, &Secrets::default());
    let to = world.address("listen");
    let send = move |name: &str| {
        let alert = format!(
            r#"{{"status":"firing","labels":{{"alertname":"{name}"}},"annotations":{{}},
            "startsAt":"2026-11-23T08:00:10Z","endsAt":"0001-01-01T00:00:00Z"}}"#
        );
        let body = format!(r#"{{"version":"4","alerts":[{alert}]}}"#);
        post(to, "/alerts", &[("content-type", "application/json")], body.as_bytes()).status
    };
    let first = std::thread::spawn(move || send("a"));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    assert_eq!(send("b"), 503);
    world.go();
    assert_eq!(first.join().expect("answered"), 200);
    assert_eq!([send("b"), send("a"), send("b")], [200, 200, 200]);
    assert_eq!((world.entries(), world.figure("repeated_events")), (2, 2));
    assert_eq!(post(to, "/alerts", &[], br#"{"version":"3","alerts":[]}"#).status, 400);
    assert_eq!(world.stats.requests(Outcome::Busy), 1);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

/// Scenario: Grafana notifies with POST and with PUT, with a byte order mark, in gzip under odd capitals; one of the alerts
/// cannot be taken, and some were left out.
/// Guarantee: what can be taken is, the answer names the rest, which is no failure that anyone repeats; what was left out
/// is counted, and told once a minute.
#[test]
fn a12_grafana_comes_through() {
    let kind = Alertmanager { listen: Address::local(0), ..Alertmanager::default() };
    let world = World::new(SourceKind::Alertmanager(kind), Engine::Takes, &Secrets::default());
    let send = |method: &str, minute: u32, coding: &str| {
        let body = format!(
            "\u{feff}{{\"version\":\"1\",\"orgId\":1,\"truncatedAlerts\":2,\"alerts\":[\
             {{\"labels\":{{\"alertname\":\"Odd\"}}}},\
             {{\"status\":\"firing\",\"labels\":{{}},\"startsAt\":\"2026-11-23T08:{minute:02}:10+01:00\"}}]}}"
        );
        let body = if coding.is_empty() { body.into_bytes() } else { gzip(body.as_bytes()) };
        let headers = [("content-type", "Application/JSON"), ("content-encoding", coding)];
        client::call(world.address("listen"), method, "/alerts", &headers, &body)
    };
    for (method, minute, coding) in [("POST", 1, ""), ("PUT", 2, " GZip "), ("POST", 3, "X-GZIP")] {
        let answer = send(method, minute, coding);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("`Odd`: malformed 1 (missing field `status`)"), "{}", answer.text());
    }
    assert_eq!((world.entries(), world.figure("truncated_alerts")), (3, 6));
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("left 2 alerts out"), "{told:?}");
    assert_eq!(send("DELETE", 4, "").status, 405);
}

/// Guarantee: a byte order mark before a JSON body harms no listener, and names of types and codings have no case.
#[test]
fn a_byte_order_mark_does_no_harm() {
    let world = World::otlp(Engine::Takes);
    let to = world.address("http");
    let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"5","asInt":"1"}]}}]}]}]}"#;
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"5","body":{"stringValue":"x"}}]}]}]}"#;
    let event = r#"{"specversion":"1.0","id":"1","source":"ci","type":"deploy"}"#;
    for (path, kind, body) in [
        ("/v1/metrics", "Application/JSON; charset=UTF-8", points),
        ("/v1/logs", "application/json", logs),
        ("/v1/events", "Application/CloudEvents+JSON", event),
    ] {
        let body = gzip(format!("\u{feff}{body}").as_bytes());
        let headers = [("content-type", kind), ("content-encoding", " GZIP")];
        let answer = post(to, path, &headers, &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(world.entries(), 3);
}
