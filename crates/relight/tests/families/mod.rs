//! What the daemon knows of remote write's metric families, over kills and restarts.

use super::*;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    [out, bytes.to_vec()].concat()
}

/// A series of `shop` with one sample.
fn series(name: &str, second: i64, value: f64) -> Vec<u8> {
    let label =
        |key: &str, value: &str| field(1, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let mut sample = [&b"\x09"[..], &value.to_le_bytes(), b"\x10"].concat();
    varint(((START + second) * 1_000).cast_unsigned(), &mut sample);
    field(1, &[label("__name__", name), label("job", "shop"), field(2, &sample)].concat())
}

/// The body packed in one literal, as snappy allows.
fn snappy(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(body.len() as u64, &mut out);
    // A literal with its length less one in the next two bytes.
    out.push(61 << 2);
    out.extend_from_slice(&((body.len() - 1) as u16).to_le_bytes());
    out.extend_from_slice(body);
    out
}

fn write(to: SocketAddr, message: &[u8]) {
    let body = snappy(message);
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// A counter that stands at 7e9 and grows by 10 a second, and one whose name tells.
fn write_seconds(daemon: &Daemon, seconds: std::ops::Range<i64>) {
    for second in seconds {
        let counters = [("jobs", 7e9), ("requests_total", 100.0)];
        let all = counters.map(|(name, from)| series(name, second, from + 10.0 * second as f64));
        write(daemon.http, &all.concat());
    }
}

/// Scenario: a counter whose name does not tell; its metadata comes once, and never again. The daemon is killed right
/// after that, stopped, and started once more with its baselines gone.
/// Guarantee: it is a counter from its first point on, after each start: nothing ever sees its value of 7e9.
#[test]
fn a11_a_counter_stays_a_counter_over_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, state) = (dir.path().join("relight.yaml"), dir.path().join("state"));
    let text = format!(
        r#"
interval: 1s
allowed_lateness: 0s
catch_up: 1s
state: {}
admin: 127.0.0.1:0
sources:
  prom: {{type: prometheus_remote_write, listen: "127.0.0.1:0"}}
signals: {{each: {{every_series: true}}}}
detectors: {{huge: {{type: threshold, signal: each, above: 1000000}}}}
rules: [{{name: huge, when: huge.score > 1.0}}]
"#,
        state.display()
    );
    std::fs::write(&file, text).expect("a folder of our own");
    let daemon = Daemon::start(&file);
    let metadata = [&b"\x08\x01"[..], &field(2, b"jobs")].concat();
    write(daemon.http, &field(3, &metadata));
    write_seconds(&daemon, 0..5);
    daemon.wait_for("relight_points_total", |n| n == 10.0);
    let _ = daemon.stop("-KILL");
    for (n, from) in [20, 40, 60].into_iter().enumerate() {
        if n == 2 {
            for gone in ["images", "manifest", "manifest.copy", "baselines.sentinel"] {
                let gone = state.join(gone);
                let _ = std::fs::remove_dir_all(&gone).or_else(|_| std::fs::remove_file(&gone));
            }
        }
        let daemon = Daemon::start(&file);
        let now = |name: &str| daemon.metric(name).unwrap_or(0.0);
        let (points_before, bins_before) = (now("relight_points_total"), now("relight_bins_total"));
        write_seconds(&daemon, from..from + 10);
        daemon.wait_for("relight_points_total", |points| points == points_before + 20.0);
        daemon.wait_for("relight_bins_total", |bins| bins >= bins_before + 9.0);
        assert_eq!(daemon.metric("relight_findings_total"), Some(0.0), "start {n}");
        assert!(daemon.stop("-TERM").success());
    }
}
