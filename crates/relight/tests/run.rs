//! The daemon as a process: data in by OTLP, a page out by webhook, a stop, and a start that goes on.

mod families;
mod news;
mod reload;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Far longer than anything here takes; only a hang is ended by it.
const PATIENCE: Duration = Duration::from_mins(1);
/// The first second of the data: long ago, so that everything is behind the present.
const START: i64 = 1_767_225_600;

struct Daemon {
    child: Child,
    http: SocketAddr,
    /// Of further sources.
    others: Vec<SocketAddr>,
    admin: SocketAddr,
}

impl Daemon {
    fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        let log =
            File::options().append(true).create(true).open(log_of(config)).expect("a folder of our own");
        let mut child = Command::new(env!("CARGO_BIN_EXE_relight"))
            .args(["run", "-c"])
            .arg(config)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (mut http, mut others, mut admin) = (None, Vec::new(), None);
        while http.is_none() || admin.is_none() {
            let line = lines.next().expect("it says where it listens").expect("it is text");
            let address = line.split("http://").nth(1).and_then(|rest| {
                let end = rest.find(['/', ' ']).unwrap_or(rest.len());
                rest[..end].parse().ok()
            });
            if line.contains("itself") {
                admin = address;
            } else if http.is_none() {
                http = address;
            } else {
                others.extend(address);
            }
        }
        Self { child, http: http.expect("an address"), others, admin: admin.expect("an address") }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let page = request(self.admin, "GET", "/metrics", "");
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric of its own satisfies a condition.
    fn wait_for(&self, name: &str, holds: impl Fn(f64) -> bool) {
        wait_until(&format!("{name}, now {:?},", self.metric(name)), || {
            self.metric(name).is_some_and(&holds)
        });
    }

    fn stop(mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("there is a `kill`").success());
        self.child.wait().expect("it ends")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What daemons with this config say, one after the other.
fn log_of(config: &Path) -> PathBuf {
    config.with_extension("log")
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let (_kept, never) = channel::<()>();
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        // Nothing is sent: this is a pause between two looks.
        let _ = never.recv_timeout(Duration::from_millis(50));
    }
}

fn request(to: SocketAddr, method: &str, path: &str, body: &str) -> String {
    exchange(to, method, path, body).expect("it answers")
}

/// The answer. An error where a request was cut off: one that is sent away may be, while it is still being written.
fn exchange(to: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// An export request with one point of one gauge.
fn point(second: i64, value: f64) -> String {
    let attribute = json!([{"key": "service.name", "value": {"stringValue": "shop"}}]);
    let time = ((START + second) * 1_000_000_000).to_string();
    json!({"resourceMetrics": [{"resource": {"attributes": attribute}, "scopeMetrics": [{"metrics": [
        {"name": "load", "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": value}]}}]}]}]})
    .to_string()
}

fn send(daemon: &Daemon, seconds: std::ops::Range<i64>, value: impl Fn(i64) -> f64) {
    for second in seconds {
        let answer = request(daemon.http, "POST", "/v1/metrics", &point(second, value(second)));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Log records of one service.
fn send_logs(daemon: &Daemon, service: &str, second: i64, records: &Value) {
    let mut records = records.clone();
    for record in records.as_array_mut().into_iter().flatten() {
        record["timeUnixNano"] = ((START + second) * 1_000_000_000).to_string().into();
    }
    let attribute = json!([{"key": "service.name", "value": {"stringValue": service}}]);
    let logs = json!({"resourceLogs": [{"resource": {"attributes": attribute}, "scopeLogs": [{"logRecords": records}]}]});
    let answer = request(daemon.http, "POST", "/v1/logs", &logs.to_string());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn quiet(second: i64) -> f64 {
    10.0 + (second % 3) as f64 * 0.1
}

/// Answers with these statuses in turn, the last one for ever, and hands out each request's head and body.
fn receiver(statuses: &'static [u16]) -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let status = statuses[n.min(statuses.len() - 1)];
            let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if tell.send((head, serde_json::from_slice(&body).unwrap_or_default())).is_err() {
                return;
            }
        }
    });
    (address, told)
}

fn config(dir: &Path, hook: SocketAddr) -> PathBuf {
    config_with(dir, hook, "off")
}

fn config_with(dir: &Path, hook: SocketAddr, journal: &str) -> PathBuf {
    let file = dir.join("relight.yaml");
    let text = format!(
        r#"
interval: 1s
allowed_lateness: 0s
state: {state}
admin: 127.0.0.1:0
sources: {{otlp: {{type: otlp, grpc: off, http: "127.0.0.1:0", journal: {journal}}}}}
signals: {{load: {{value: load, by: [service.name]}}}}
detectors: {{load_high: {{type: ewma, signal: load, half_life: 30s, warm_up: 30}}}}
responders: {{chat: {{type: webhook, url: "http://{hook}/hook", reach: notify}}}}
rules:
  - name: load-high
    when: load_high.score > 1.0
    for: 2s
    group_by: [service.name]
    respond: [{{do: notify, with: chat}}]
"#,
        state = dir.join("state").display(),
    );
    std::fs::write(&file, text).expect("a folder of our own");
    file
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn idempotency_key(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("idempotency-key:")).map_or("", str::trim)
}

/// Scenario: a deploy and log records of two services; the daemon is stopped and started; a gauge leaves its band; the
/// receiver of the page answers 503 once. Then the daemon is stopped, started on the same state, and sent more.
/// Guarantee: the receiver accepts exactly one body, under the key of the first attempt, with the incident, its
/// onset, the band and what happened there before; the stop is clean, and the start goes on where it ended: nothing is
/// paged again.
#[test]
fn a_fault_pages_once_and_a_restart_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[503, 200]);
    let file = config(dir.path(), hook);
    let daemon = Daemon::start(&file);
    send(&daemon, 0..110, quiet);
    let error = json!({"severityText": "ERROR", "body": {"stringValue": "no route to payments"}});
    send_logs(&daemon, "shop", 110, &json!([{"eventName": "deploy", "body": {"stringValue": "v7"}}, error]));
    send_logs(&daemon, "cart", 111, &json!([error]));
    send(&daemon, 112..116, quiet);
    assert!(daemon.stop("-TERM").success());
    let daemon = Daemon::start(&file);
    send(&daemon, 116..120, quiet);
    send(&daemon, 120..130, |_| 50.0);
    let (refused, _) = told.recv_timeout(PATIENCE).expect("a page");
    let (accepted, page) = told.recv_timeout(PATIENCE).expect("the page again");
    assert!(!idempotency_key(&refused).is_empty(), "{refused}");
    assert_eq!(idempotency_key(&refused), idempotency_key(&accepted));
    let text = page.to_string();
    for part in ["load-high", "shop", "onset", "upper", "lower"] {
        assert!(text.contains(part), "{part} is not in {page:#}");
    }
    assert_eq!(page["incident"]["id"].as_str().map(str::len), Some(26), "{page:#}");
    let context: Vec<(&str, &str)> = page["context"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| (text_of(&event["kind"]), text_of(&event["body"])))
        .collect();
    assert_eq!(context, [("deploy", "v7"), ("log", "no route to payments")], "{page:#}");
    daemon.wait_for("relight_points_total", |n| n >= 128.0);
    assert!(daemon.stop("-TERM").success());

    let daemon = Daemon::start(&file);
    daemon.wait_for("relight_points_total", |n| n >= 128.0);
    assert_eq!(daemon.metric("relight_series"), Some(1.0));
    send(&daemon, 130..140, |_| 50.0);
    daemon.wait_for("relight_points_total", |n| n >= 138.0);
    assert!(daemon.stop("-TERM").success());
    assert!(told.try_recv().is_err(), "it was paged again");
}

/// An export request with one delta of a counter, over the ten seconds before.
fn delta(second: i64) -> String {
    let ns = |second: i64| ((START + second) * 1_000_000_000).to_string();
    let point = json!({"startTimeUnixNano": ns(second - 10), "timeUnixNano": ns(second), "asInt": 1});
    let sum = json!({"isMonotonic": true, "aggregationTemporality": 1, "dataPoints": [point]});
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "orders", "sum": sum}]}]}]})
        .to_string()
}

/// Scenario: two writers send deltas under one name.
/// Guarantee: the series is named among what the daemon has to say.
#[test]
fn c14_who_overlaps_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let daemon = Daemon::start(&config(dir.path(), hook));
    for second in [10, 13, 20, 23, 30] {
        let answer = request(daemon.http, "POST", "/v1/metrics", &delta(second));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    send(&daemon, 40..41, quiet);
    daemon.wait_for("relight_refused_total{reason=\"delta_overlap\"}", |n| n == 2.0);
    wait_until("the name", || {
        request(daemon.admin, "GET", "/readyz", "").contains("such as those of orders{}")
    });
}

/// Scenario: a second process on the same state, and a port that is taken.
/// Guarantee: each says what is wrong, and ends with 1.
#[test]
fn what_is_taken_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let first = Daemon::start(&file);
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_relight")).arg("run").args(args).output();
        let output = output.expect("the binary is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["-c", &file.display().to_string()]);
    assert_eq!(code, Some(1), "{said}");
    let taken = dir.path().join("taken.yaml");
    let text = format!(
        "state: {}\nadmin: off\nsources: {{otlp: {{type: otlp, grpc: off, http: \"{}\"}}}}\n",
        dir.path().join("other").display(),
        first.http
    );
    std::fs::write(&taken, text).expect("a folder of our own");
    let (code, said) = run(&["-c", &taken.display().to_string()]);
    assert!(code == Some(1) && said.contains(&first.http.to_string()), "{code:?}: {said}");
}

/// Scenario: the daemon is killed right after it answered, again and again, and started on the same state; once with
/// a journal, once without.
/// Guarantee: with a journal all that was answered is there, once. Without one the gap is told and counted. A start
/// after a clean stop tells of none.
#[test]
fn a_kill_loses_nothing_with_a_journal_and_tells_of_it_without() {
    for journal in ["fsync", "off"] {
        let dir = tempfile::tempdir().expect("a folder");
        let (hook, _told) = receiver(&[200]);
        let file = config_with(dir.path(), hook, journal);
        // So that there is a state to go on from.
        let daemon = Daemon::start(&file);
        send(&daemon, 0..10, quiet);
        assert!(daemon.stop("-TERM").success());
        for life in 1..5 {
            let daemon = Daemon::start(&file);
            daemon.wait_for("relight_series", |n| n == 1.0);
            let gap = daemon.metric("relight_gap_seconds{partition=\"otlp\"}");
            assert_eq!(gap.is_some(), journal == "off" && life > 1, "{journal}, life {life}: {gap:?}");
            send(&daemon, 10 * life..10 * (life + 1), quiet);
            let _ = daemon.stop("-KILL");
        }
        if journal == "fsync" {
            let daemon = Daemon::start(&file);
            daemon.wait_for("relight_points_total", |n| n == 50.0);
            daemon.wait_for("relight_records_total", |n| n == 50.0);
        }
    }
}

/// Runs a command of people's and gives its exit code and what it printed.
fn steer(args: &[&str], state: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_relight")).args(args).arg("--state").arg(state).output();
    let output = output.expect("the binary is built");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Scenario: the kill switch is set on a running daemon, which is killed and started again; it is lifted; it is set while
/// none runs.
/// Guarantee: it holds over the restart, is shown with its reason, ends with `resume`, and what was left while nothing ran is
/// obeyed at the next start.
#[test]
fn f15_kill_switch() {
    const HELD: &str = "relight_held{hold=\"paused\"}";
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let state = dir.path().join("state");
    let daemon = Daemon::start(&file);
    let (code, said) = steer(&["pause", "storm", "in", "eu-1"], &state);
    assert_eq!((code, said.starts_with("paused")), (Some(0), true), "{said}");
    daemon.wait_for(HELD, |held| held == 1.0);
    let page = request(daemon.admin, "GET", "/readyz", "");
    assert!(page.contains("paused, until `relight resume`: storm in eu-1"), "{page}");
    assert!(!daemon.stop("-KILL").success());

    let daemon = Daemon::start(&file);
    daemon.wait_for(HELD, |held| held == 1.0);
    let (code, said) = steer(&["resume"], &state);
    assert_eq!((code, said.starts_with("resumed")), (Some(0), true), "{said}");
    daemon.wait_for("relight_held{hold=\"warm_up\"}", |held| held == 1.0);
    wait_until("the end of the hold", || daemon.metric(HELD).is_none());
    assert!(daemon.stop("-TERM").success());

    let (code, said) = steer(&["pause"], &state);
    assert_eq!((code, said.contains("the next one that starts obeys it first")), (Some(1), true), "{said}");
    let daemon = Daemon::start(&file);
    daemon.wait_for(HELD, |held| held == 1.0);
    assert!(daemon.stop("-TERM").success());
    assert_eq!(std::fs::read_dir(state.join("commands")).expect("it is there").count(), 0);

    let (code, said) = steer(&["pause"], &dir.path().join("nowhere"));
    assert!(code == Some(1) && said.contains("nowhere"), "{said}");
}

/// Scenario: a heartbeat by webhook, data, and then none.
/// Guarantee: beats come while bins close, each under a key of its own, and are counted.
#[test]
fn heartbeats_come_while_bins_close() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, format!("{text}heartbeat: {{with: chat, every: 1s}}\n"))
        .expect("a folder of our own");
    let daemon = Daemon::start(&file);
    let mut keys = std::collections::BTreeSet::new();
    for second in 0.. {
        send(&daemon, second..second + 1, quiet);
        keys.extend(told.try_iter().map(|(head, body)| {
            assert_eq!(body["action"]["do"], "heartbeat", "{body:#}");
            idempotency_key(&head).to_owned()
        }));
        if keys.len() >= 2 {
            break;
        }
        assert!(second < 100_000, "no heartbeat came");
    }
    daemon.wait_for("relight_heartbeats_total{outcome=\"sent\"}", |sent| sent >= 2.0);
    assert!(daemon.stop("-TERM").success());
}

/// An export request of so many series that nothing else has, with long names, in the second that was sent last.
fn strangers(from: usize, count: usize) -> String {
    let time = ((START + 119) * 1_000_000_000).to_string();
    let padding = "x".repeat(900);
    let point = |n: usize| {
        let name = json!({"key": "pod", "value": {"stringValue": format!("{n}-{padding}")}});
        json!({"timeUnixNano": time, "asDouble": 1.0, "attributes": [name]})
    };
    let points: Vec<Value> = (from..from + count).map(point).collect();
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "flood", "gauge": {"dataPoints": points}}]}]}]})
        .to_string()
}

/// Scenario: a flood of new series takes memory over its soft edge, and goes on; then a known gauge leaves its band.
/// Guarantee: at the edge senders are told when to come again; that does not help, so new series are refused under a
/// reason of their own and what is known is taken: the page comes. Memory never reaches the hard edge.
#[test]
fn d06_memory_limit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let text = std::fs::read_to_string(&file).expect("it was written");
    let with_memory = |soft: u64, hard: u64| {
        let limited = format!("{text}memory: {{soft_bytes: {soft}, hard_bytes: {hard}}}\n");
        std::fs::write(&file, limited).expect("a folder of our own");
        Daemon::start(&file)
    };
    let daemon = with_memory(1 << 40, 1 << 41);
    send(&daemon, 0..60, quiet);
    daemon.wait_for("relight_memory_resident_bytes", |bytes| bytes > 0.0);
    let usual = daemon.metric("relight_memory_resident_bytes").expect("it was there just now") as u64;
    assert!(daemon.stop("-TERM").success());

    let (soft, hard) = (usual + (24 << 20), usual + (200 << 20));
    let daemon = with_memory(soft, hard);
    send(&daemon, 60..120, quiet);
    let mut sent = 0;
    let busy = loop {
        let answer = exchange(daemon.http, "POST", "/v1/metrics", &strangers(sent, 1_000));
        if answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            sent += 1_000;
            assert!(sent < 1_000_000, "memory has no edge");
            continue;
        }
        // It was sent away before it had been read, which a long one may not hear of.
        let answer = request(daemon.http, "POST", "/v1/metrics", &strangers(sent, 1));
        if !answer.starts_with("HTTP/1.1 200") {
            break answer.to_ascii_lowercase();
        }
        sent += 1;
    };
    assert!(busy.starts_with("http/1.1 503") && busy.contains("retry-after: "), "{busy}");
    wait_until("word of it", || {
        request(daemon.admin, "GET", "/readyz", "").contains("sources are held back")
    });
    daemon.wait_for("relight_memory_refuses_series", |is_set| is_set == 1.0);
    wait_until("an answer", || {
        request(daemon.http, "POST", "/v1/metrics", &strangers(sent, 100)).starts_with("HTTP/1.1 200")
    });
    daemon.wait_for("relight_series_refused_total{source=\"otlp\",metric=\"flood\"}", |n| n >= 100.0);
    daemon.wait_for("relight_refused_total{reason=\"memory_limit\"}", |n| n >= 100.0);
    send(&daemon, 120..130, |_| 50.0);
    let (_, page) = told.recv_timeout(PATIENCE).expect("a page");
    assert!(page.to_string().contains("load-high"), "{page:#}");
    let resident = daemon.metric("relight_memory_resident_bytes").expect("it is there");
    assert!(resident < hard as f64, "{resident} bytes");
    assert!(daemon.stop("-TERM").success());
}
