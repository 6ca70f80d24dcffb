//! Alertmanager, whose webhook is a source of events.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::http::must;
use crate::otlp::{load, now_ms};
use crate::peer::{Peer, free_port, peer};
use crate::relight::{Home, Relight};

/// Alerts may not run ahead of `slow` by more than `max_skew`: one is taken, one waits, and for more there is no room.
const TWO: &str = r#"
sources:
  slow: {type: otlp, grpc: off, http: "127.0.0.1:0"}
  alerts: {type: alertmanager, listen: "127.0.0.1:0", limits: {max_waiting_bytes: 1024}}
"#;

fn start(folder: &Path, relight: SocketAddr) -> (Peer, SocketAddr) {
    let at = free_port();
    let file = folder.join("alertmanager.yaml");
    let config = format!(
        "route: {{receiver: relight, group_by: [alertname], group_wait: 100ms, group_interval: 1s}}\n\
         receivers: [{{name: relight, webhook_configs: [{{url: \"http://{relight}/alerts\"}}]}}]\n"
    );
    std::fs::write(&file, config).expect("a folder of our own");
    let args = [
        format!("--config.file={}", file.display()),
        format!("--storage.path={}", folder.join("alertmanager").display()),
        format!("--web.listen-address={at}"),
        "--cluster.listen-address=".to_owned(),
        "--log.level=debug".to_owned(),
    ];
    let process = Peer::start(&peer("alertmanager-0.25.0"), args, &folder.join("alertmanager.said"));
    (process.listening(at), at)
}

fn alert(alertmanager: SocketAddr, name: &str) {
    let body = json!([{"labels": {"alertname": name, "service": "shop"}, "annotations": {"summary": "slow ".repeat(500)}}]);
    must(alertmanager, "POST", "/api/v2/alerts", &body.to_string());
}

/// Scenario: Alertmanager notifies of four alerts, each in a group of its own, while relight waits for a source that is ten
/// minutes behind: one of them waits in relight for longer than Alertmanager does, and for two there is no room. Then that source has
/// caught up.
/// Guarantee: those without room are answered 503 and never 429, upon which Alertmanager would give up; it comes again with all
/// that it had no answer to, and each alert is an event, once.
#[test]
fn alertmanager_is_told_to_come_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = [("allowed_lateness", "1h"), ("max_skew", "10s")];
    let daemon = Home::new(folder.path(), &keys, TWO).start();
    let now = now_ms();
    let slow = |at| must(daemon.at("slow"), "POST", "/v1/metrics", &load("slow", 1, at, 1.0));
    slow(now - 600_000);
    slow(now - 599_999);
    let (alertmanager, at) = start(folder.path(), daemon.at("alerts"));
    for name in ["Slow", "Down", "Full", "Late"] {
        alert(at, name);
    }
    let repeated = |daemon: &Relight| daemon.metric("relight_source_total", &["alerts", "repeated_events"]);
    daemon.wait_for("some are sent away", |daemon| daemon.requests("alerts", "busy") >= 3.0);
    daemon.wait_for("one gives up waiting", |daemon| daemon.requests("alerts", "disconnected") >= 1.0);
    let before = repeated(&daemon);
    slow(now);
    daemon.wait_for("it comes again with that one", |daemon| repeated(daemon) > before);
    daemon.wait_for("all are here", |daemon| daemon.metric("relight_events_total", &[]) >= 4.0);
    let said = alertmanager.said();
    assert!(said.contains("status code 503") && !said.contains("status code 429"), "{said}");
    assert!(alertmanager.stop());
    assert_eq!((daemon.metric("relight_events_total", &[]), daemon.refused()), (4.0, 0.0));
    daemon.stop();
}
