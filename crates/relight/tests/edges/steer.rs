//! What people do about a running daemon, by its state folder.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::daemon::*;

/// Asks for approval, and fails: so the incident waits for a human, and the breaker has counted.
fn config_that_asks(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("relight.yaml");
    let text = format!(
        r#"
interval: 1s
allowed_lateness: 0s
warm_up: 1s
mode: approve
state: {state}
admin: 127.0.0.1:0
sources: {{otlp: {{type: otlp, grpc: off, http: "127.0.0.1:0"}}}}
signals: {{load: {{value: load, by: [service.name]}}}}
detectors: {{high: {{type: threshold, signal: load, above: 20}}}}
responders: {{fixer: {{type: exec, command: [/bin/false]}}}}
rules:
  - name: load-high
    when: high.score > 1.0
    keep_firing_for: 2s
    group_by: [service.name]
    respond: [{{do: restart, with: fixer}}]
"#,
        state = dir.join("state").display(),
    );
    std::fs::write(&file, text).expect("a folder of our own");
    file
}

/// Exit code and both outputs of a command about the daemon with this config.
fn steer(file: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = relight().args(args).arg("-c").arg(file).output().expect("the binary is built");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What `relight incidents --json` lists of this kind.
fn listed(file: &Path, record: &str) -> Vec<Value> {
    let (code, text, error) = steer(file, &["incidents", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.filter(|line| line["record"] == record).collect()
}

fn send_now(daemon: &Daemon, value: f64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let body = point_at(i64::try_from(now).expect("before 2262"), value);
    let answer = request(daemon.http, "POST", "/v1/metrics", &body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Scenario: a load leaves its band; the step asks for approval, is approved, and fails; the load comes back.
/// Guarantee: each is listed with what a person can do about it; a slip is told, and not passed over; the action is tried only once
/// approved; the incident, which waits for a human, ends when one says so, and the breaker counts anew.
#[test]
fn people_approve_acknowledge_and_reset() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config_that_asks(dir.path());
    let (code, _, error) = steer(&file, &["incidents"]);
    assert!(code == Some(1) && error.contains("ledger.sqlite"), "{error}");
    let daemon = Daemon::start(&file);
    wait_until("the end of the warm-up", || steer(&file, &["incidents"]).1 == "no open incidents\n");
    let state_of =
        |record: &str| listed(&file, record).iter().map(|one| one["state"].clone()).collect::<Vec<_>>();
    wait_until("a question", || {
        send_now(&daemon, 50.0);
        state_of("action") == ["awaiting_approval"]
    });
    let action = listed(&file, "action")[0]["id"].as_str().expect("an id").to_owned();
    let (_, text, _) = steer(&file, &["incidents"]);
    assert!(text.contains(&format!("`relight approve {action}`")) && text.contains("load-high"), "{text}");
    let (code, _, error) = steer(&file, &["approve", "01M84YZ97GNR95XBR1YBNZRYXS-1-0"]);
    assert!(code == Some(2) && error.contains(&action), "{error}");
    let (code, text, error) = steer(&file, &["approve", &action]);
    assert_eq!(code, Some(0), "{text}{error}");
    wait_until("its failure", || {
        send_now(&daemon, 50.0);
        state_of("action") == ["failed"] && state_of("incident") == ["escalated"]
    });
    wait_until("calm", || {
        send_now(&daemon, 1.0);
        listed(&file, "incident")[0]["recovered"].is_string()
    });
    let incident = listed(&file, "incident")[0]["id"].as_str().expect("an id").to_owned();
    let (_, text, _) = steer(&file, &["incidents", &incident]);
    assert!(text.contains("escalated") && text.contains("load{service.name=\"shop\"} was 50"), "{text}");
    let (code, text, error) = steer(&file, &["ack", &incident]);
    assert!(code == Some(0) && text.contains("closed"), "{text}{error}");
    let (_, text, _) = steer(&file, &["incidents"]);
    assert!(text.starts_with("no open incidents") && text.contains("`relight reset load-high`"), "{text}");
    let (_, text, _) = steer(&file, &["incidents", "--all"]);
    assert!(text.contains("closed by a human"), "{text}");
    assert_eq!(steer(&file, &["reset", "load-high"]).0, Some(0));
    assert_eq!(listed(&file, "breaker"), Vec::<Value>::new());
    assert!(daemon.stop().success());
    assert_eq!(steer(&file, &["incidents"]).1, "no open incidents\n");
}
