//! `relight capture` as a process: what was sent live, recorded and replayed, is what the sent requests replay to.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Far longer than anything here takes; only a hang is ended by it.
const PATIENCE: Duration = Duration::from_mins(1);
const START: i64 = 1_767_225_600;
const CONFIG: &str = r#"
interval: 1s
allowed_lateness: 5s
idle_after: 1h
admin: off
state: never-made
sources:
  otlp: {type: otlp, grpc: off, http: "127.0.0.1:0", journal: fsync}
signals: {load: {value: load, by: [service.name]}}
detectors: {load_high: {type: ewma, signal: load, half_life: 30s, warm_up: 30}}
rules:
  - {name: load-high, when: 'load_high.score > 1.0 && changed("deploy", "10m")', for: 2s, group_by: [service.name]}
"#;

fn relight(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    command.current_dir(folder).args(args);
    command
}

fn finished(folder: &Path, args: &[&str]) -> Output {
    relight(folder, args).output().expect("the binary runs")
}

/// A capture that is running.
struct Recorder {
    child: Child,
    http: SocketAddr,
}

impl Recorder {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let args = [&["capture", "-c", "relight.yaml"], more].concat();
        Self::of(relight(folder, &args))
    }

    fn of(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary is built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let http = loop {
            let line = lines.next().expect("it says where to send data").expect("it is text");
            let Some((_, rest)) = line.split_once("http://") else { continue };
            break rest.split(' ').next().and_then(|address| address.parse().ok()).expect("an address");
        };
        Self { child, http }
    }

    fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let stream = TcpStream::connect(self.http);
        let Ok(mut stream) = stream else { return String::new() };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        // One that is stopped, or cannot write, may close without an answer.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Its exit code and what it said, after a signal or by itself.
    fn end(mut self, signal: Option<&str>) -> (Option<i32>, String) {
        if let Some(signal) = signal {
            let pid = self.child.id().to_string();
            let told = Command::new("kill").args([signal, &pid]).status();
            assert!(told.expect("there is a `kill`").success());
        }
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it is text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn service(name: &str) -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": name}}]})
}

/// Ten seconds of two services, newest first, with a point that is late for good; and at times a deploy as a log record.
fn requests() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for ten in 0..18_i64 {
        let value = |second: i64| if second >= 150 { 50.0 } else { 10.0 + (second % 3) as f64 * 0.1 };
        let point = |second: i64| {
            let time = ((START + second) * 1_000_000_000 + 1).to_string();
            json!({"timeUnixNano": time, "asDouble": value(second)})
        };
        let seconds = (10 * ten..10 * (ten + 1)).rev().chain((ten > 3).then_some(0));
        let points: Vec<Value> = seconds.map(point).collect();
        let metrics = json!([{"metrics": [{"name": "load", "gauge": {"dataPoints": points}}]}]);
        let of = |name: &str| json!({"resource": service(name), "scopeMetrics": metrics});
        all.push(("/v1/metrics", json!({"resourceMetrics": [of("shop"), of("cart")]})));
        if ten % 7 == 6 {
            let time = ((START + 10 * ten + 5) * 1_000_000_000).to_string();
            let log = json!({"timeUnixNano": time, "eventName": "deploy", "body": {"stringValue": "v\"3\""}});
            let logs = json!([{"resource": service("shop"), "scopeLogs": [{"logRecords": [log]}]}]);
            all.push(("/v1/logs", json!({"resourceLogs": logs})));
        }
    }
    all
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("relight.yaml"), CONFIG).expect("a folder of our own");
    folder
}

/// What a replay tells: sums of points, and every incident. Records are counted otherwise, a line each.
fn told(folder: &Path, capture: &str) -> (Vec<Value>, Vec<Value>) {
    let output = finished(folder, &["replay", "-c", "relight.yaml", capture, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let totals = all.iter().filter(|record| record["record"] == "totals").flat_map(|totals| {
        ["points", "events", "series", "rows", "bins", "findings", "first", "last", "refused"]
            .map(|key| json!({key: totals[key]}))
    });
    let incidents = all.iter().filter(|record| record["record"] == "incident").cloned().collect();
    (totals.collect(), incidents)
}

/// Scenario: three minutes of OTLP metrics and logs are sent to a capture, which is then told to stop, by either signal, plain
/// and compressed; the same requests lie in a file.
/// Guarantee: both replay to the same sums, findings and incidents; no state folder is made; the file is not overwritten.
#[test]
fn a_capture_replays_as_what_was_sent() {
    let folder = folder();
    let requests = requests();
    let mut sent = String::new();
    for (_, body) in &requests {
        writeln!(sent, "{body}").expect("a String takes any text");
    }
    std::fs::write(folder.path().join("sent.ndjson"), sent).expect("a folder of our own");
    let expected = told(folder.path(), "sent.ndjson");
    assert_eq!(expected.1.len(), 1, "{expected:#?}");
    for (name, signal) in [("c.ndjson", "-INT"), ("c.ndjson.gz", "-TERM"), ("c.ndjson.zst", "-TERM")] {
        let recorder = Recorder::start(folder.path(), &["-o", name]);
        for (path, body) in &requests {
            let answer = recorder.post(path, body);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let (code, said) = recorder.end(Some(signal));
        assert_eq!((code, said.contains("388 points, 2 events")), (Some(0), true), "{said}");
        assert_eq!(told(folder.path(), name), expected, "{name}");
        let again = finished(folder.path(), &["capture", "-c", "relight.yaml", "-o", name]);
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert_eq!((again.status.code(), said.contains("pass --force")), (Some(2), true), "{said}");
    }
    assert!(!folder.path().join("never-made").exists());
}

/// Scenario: a bound on time, one on bytes, and a kill.
/// Guarantee: each bound ends it with 0; what a kill leaves can be replayed.
#[test]
fn it_ends_at_its_bounds_and_a_kill_leaves_a_prefix() {
    let folder = folder();
    let recorder = Recorder::start(folder.path(), &["-o", "t.ndjson", "--for", "1s"]);
    assert_eq!(recorder.end(None).0, Some(0));
    assert_eq!(told(folder.path(), "t.ndjson").0[0], json!({"points": 0}));
    let (_, body) = requests().remove(0);
    for (name, more, code) in
        [("b.ndjson", &["--max-bytes", "1000"][..], Some(0)), ("k.ndjson.zst", &[], None)]
    {
        let recorder = Recorder::start(folder.path(), &[&["-o", name], more].concat());
        assert!(recorder.post("/v1/metrics", &body).starts_with("HTTP/1.1 200"));
        let file: PathBuf = folder.path().join(name);
        let (_kept, never) = std::sync::mpsc::channel::<()>();
        // The line of the partition alone is shorter.
        while std::fs::metadata(&file).map_or(0, |file| file.len()) < 200 {
            let _ = never.recv_timeout(Duration::from_millis(50));
        }
        let signal = code.is_none().then_some("-KILL");
        assert_eq!(recorder.end(signal).0, code);
        assert_eq!(told(folder.path(), name).0[0], json!({"points": 20}), "{name}");
    }
}

/// Scenario: the disk takes 8 KiB.
/// Guarantee: it ends with 1 and says why; the file ends with a whole line, and replays without a complaint.
#[test]
fn a_full_disk_leaves_what_it_took() {
    let folder = folder();
    let line = r#"trap "" XFSZ; ulimit -f 16; exec "$0" capture -c relight.yaml -o full.ndjson"#;
    let mut command = Command::new("sh");
    command.current_dir(folder.path()).args(["-c", line, env!("CARGO_BIN_EXE_relight")]);
    let mut recorder = Recorder::of(command);
    let requests = requests();
    let began = std::time::Instant::now();
    while recorder.child.try_wait().expect("it can be asked").is_none() {
        for (path, body) in &requests {
            if let Ok(Some(_)) = recorder.child.try_wait() {
                break;
            }
            recorder.post(path, body);
        }
        assert!(began.elapsed() < PATIENCE, "it goes on with a full disk");
    }
    let (code, said) = recorder.end(None);
    assert!(code == Some(1) && said.contains("full.ndjson") && said.contains("can be replayed"), "{said}");
    let text = std::fs::read_to_string(folder.path().join("full.ndjson")).expect("it is text");
    assert!(text.is_empty() || text.ends_with("}\n"), "{text}");
}
