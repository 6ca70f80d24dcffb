//! Trouble everywhere at once: how much is changed, the page about it, and targets that no program can be told of.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::daemon::*;

/// A program that writes down what it was started for, and a config that starts it for each service whose load is high.
fn config_that_acts(dir: &Path, duty: &Hook, more: &str) -> PathBuf {
    let program = dir.join("restart");
    let log = dir.join("started").display().to_string();
    std::fs::write(&program, format!("#!/bin/sh\necho \"$1\" >> {log}\n")).expect("a folder of our own");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("a file of our own");
    let file = dir.join("relight.yaml");
    let text = format!(
        r#"
interval: 1s
allowed_lateness: 0s
warm_up: 0s
mode: auto
state: {state}
admin: 127.0.0.1:0
trouble: {{with: duty}}
sources: {{otlp: {{type: otlp, grpc: off, http: "127.0.0.1:0"}}}}
signals: {{load: {{value: load, by: [service.name]}}}}
detectors: {{high: {{type: threshold, signal: load, above: 20}}}}
responders:
  fixer: {{type: exec, command: [{program}, "{{group.service.name}}"]}}
  duty: {{type: webhook, url: "http://{duty}/duty", reach: notify}}
rules:
  - name: load-high
    when: high.score > 1.0
    group_by: [service.name]
    respond: [{{do: restart, with: fixer, limits: {{cooldown: 0s}}}}]
{more}
"#,
        state = dir.join("state").display(),
        program = program.display(),
        duty = duty.address,
    );
    std::fs::write(&file, text).expect("a folder of our own");
    file
}

/// What the program was started for.
fn started(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("started")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A second of high load of these services.
fn storm(daemon: &Daemon, services: &[String]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let time = (now * 1_000_000_000).to_string();
    let resource = |service: &String| {
        json!({"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
            "scopeMetrics": [{"metrics": [{"name": "load", "gauge": {"dataPoints": [
                {"timeUnixNano": time, "asDouble": 50.0}]}}]}]})
    };
    let all: Vec<Value> = services.iter().map(resource).collect();
    let body = json!({ "resourceMetrics": all }).to_string();
    let answer = request(daemon.http, "POST", "/v1/metrics", &body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    pause(std::time::Duration::from_millis(100));
}

fn services(prefix: char, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:02}")).collect()
}

fn ask(file: &Path, args: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        relight().args(args).arg("-c").arg(file).output().expect("the binary is built");
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// The number of incidents about an engaged limit, and of their pages that have arrived.
fn pages(file: &Path) -> (usize, usize) {
    let lines = ask(file, &["incidents", "--all", "--json"]);
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let records: Vec<Value> = records.collect();
    let about = |one: &&Value| one["record"] == "incident" && one["group"]["trouble"] == "fleet_limit";
    let ids: Vec<&Value> = records.iter().filter(about).map(|one| &one["id"]).collect();
    let is_sent = |one: &&Value| one["state"] == "succeeded" && ids.contains(&&one["incident"]);
    (ids.len(), records.iter().filter(is_sent).count())
}

const HELD: &str = "relight_held{hold=\"fleet_limit\"}";
const BLOCKED: &str = "relight_actions_not_sent_total{reason=\"fleet_limit\"}";

/// Scenario: a dependency that 60 services share breaks, and all of them are anomalous at once; then the process is killed,
/// started again, and 60 other services follow; a human resumes, and 60 more follow.
/// Guarantee: the program is started for 5 of the first, for none of the others, and for 5 more once a human has resumed; people
/// are paged once each time; `/metrics` and `relight incidents` show it, and `resume` says what it lifts.
#[test]
fn f12_global_brake() {
    let dir = tempfile::tempdir().expect("a folder");
    let duty = Hook::hanging();
    duty.answer();
    let file = config_that_acts(dir.path(), &duty, "");
    let mut daemon = Daemon::start(&file);
    wait_until("the limit", || {
        storm(&daemon, &services('a', 60));
        daemon.metric(HELD) == Some(1.0) && daemon.metric(BLOCKED) == Some(55.0)
    });
    wait_until("five programs", || started(dir.path()).len() == 5);
    assert_eq!(duty.keys.recv_timeout(PATIENCE).map(|key| key.is_empty()), Ok(false), "people are paged");
    assert_eq!(daemon.metric("relight_fleet_actions"), Some(5.0));
    let text = ask(&file, &["incidents"]);
    assert!(
        text.contains("held back by fleet_limit until `relight resume`: 6 actions in 10m would exceed 5"),
        "{text}"
    );
    assert!(text.contains("blocked by fleet limit: 6 actions in 10m would exceed 5"), "{text}");
    daemon.signal("-KILL");
    let _ = daemon.child.wait();

    let daemon = Daemon::start(&file);
    wait_until("the others", || {
        storm(&daemon, &services('b', 60));
        daemon.metric(BLOCKED) == Some(60.0)
    });
    assert_eq!((started(dir.path()).len(), pages(&file)), (5, (1, 1)));

    let text = ask(&file, &["pause", "a drill"]);
    assert!(text.starts_with("paused"), "{text}");
    let text = ask(&file, &["resume"]);
    assert!(
        text.contains("lifted the fleet limit, which counts from 0: 6 actions in 10m would exceed 5"),
        "{text}"
    );
    assert!(text.contains("lifted the pause: a drill"), "{text}");
    assert_eq!(ask(&file, &["resume"]), "resumed\nnothing was held until `relight resume`\n");
    wait_until("it to engage again", || {
        storm(&daemon, &services('c', 60));
        daemon.metric(HELD) == Some(1.0) && pages(&file) == (2, 2)
    });
    wait_until("five more programs", || started(dir.path()).len() == 10);
    assert!(daemon.stop().success());
    let mut all = started(dir.path());
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10, "one for each service");
}

/// Guarantee: of three services one is changed; a limit that is off bounds nothing.
#[test]
fn a_small_fleet_has_its_minimum() {
    for (more, expected) in [("", 1), ("fleet_limit: off", 3), ("fleet_limit: {minimum: 2}", 2)] {
        let dir = tempfile::tempdir().expect("a folder");
        let duty = Hook::hanging();
        duty.answer();
        let file = config_that_acts(dir.path(), &duty, more);
        let daemon = Daemon::start(&file);
        wait_until("their incidents", || {
            storm(&daemon, &services('a', 3));
            let count = |record: &str, state: &str| {
                let lines = ask(&file, &["incidents", "--json"]);
                let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
                lines.filter(|one| one["record"] == record && one["state"] == state).count()
            };
            count("action", "blocked") == 3 - expected && count("action", "succeeded") == expected
        });
        assert_eq!(started(dir.path()).len(), expected, "{more}");
        assert!(daemon.stop().success());
    }
}

/// Scenario: the labels of three services are no argument of a program, over and over; then a legitimate one needs it.
/// Guarantee: nothing is started for the three, the reason is counted, and the breaker does not open.
#[test]
fn f25_odd_labels_do_not_disable_a_rule() {
    let dir = tempfile::tempdir().expect("a folder");
    let duty = Hook::hanging();
    duty.answer();
    let file = config_that_acts(dir.path(), &duty, "");
    let daemon = Daemon::start(&file);
    let odd = ["--x", "../../etc/shadow", "root@db"].map(str::to_owned);
    wait_until("three refusals", || {
        storm(&daemon, &odd);
        daemon.metric("relight_actions_not_sent_total{reason=\"request\"}") == Some(3.0)
    });
    wait_until("the legitimate one", || {
        storm(&daemon, &services('a', 1));
        started(dir.path()) == ["a00"]
    });
    let text = ask(&file, &["incidents"]);
    assert!(
        text.contains("not sent: no request can be made: `service.name` is no safe argument: --x"),
        "{text}"
    );
    assert!(!text.contains("breaker"), "{text}");
    assert!(daemon.stop().success());
}
