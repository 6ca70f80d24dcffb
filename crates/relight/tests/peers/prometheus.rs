//! Prometheus, which scrapes a small application and writes to relight.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::peer::{Peer, free_port, peer};
use crate::relight::Home;

const WATCH: &str = r#"
sources: {prometheus: {type: prometheus_remote_write, listen: "127.0.0.1:0"}}
signals:
  load: {value: load, by: [job]}
  failing: {ratio: {of: 'requests_total{code="500"}', to: requests_total}, by: [job]}
detectors:
  load_is: {type: threshold, signal: load, above: -1000}
  failing_is: {type: threshold, signal: failing, above: -1000}
rules:
  - {name: load, when: load_is.score > 1.0}
  - {name: failing, when: failing_is.score > 1.0}
"#;

/// An application with a gauge, and a counter of which a quarter fails. Without `alive` it has nothing to tell.
struct Application {
    at: SocketAddr,
    alive: Arc<AtomicBool>,
}

impl Application {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let alive = Arc::new(AtomicBool::new(true));
        let (told, scrapes) = (Arc::clone(&alive), AtomicU64::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let _ = lines.find(String::is_empty);
                let body = if told.load(Ordering::Relaxed) { page(&scrapes) } else { String::new() };
                let _ = write!(
                    &stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { at, alive }
    }
}

fn page(scrapes: &AtomicU64) -> String {
    let n = scrapes.fetch_add(1, Ordering::Relaxed);
    format!(
        "# TYPE load gauge\nload 42.5\n# TYPE requests_total counter\nrequests_total{{code=\"200\"}} {}\nrequests_total{{code=\"500\"}} {}\n",
        9 * n,
        3 * n
    )
}

fn start(folder: &Path, application: SocketAddr, relight: SocketAddr) -> Peer {
    let at = free_port();
    let file = folder.join("prometheus.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs: [{{job_name: shop, static_configs: [{{targets: [\"{application}\"]}}]}}]\n\
         remote_write: [{{url: \"http://{relight}/api/v1/write\", queue_config: {{batch_send_deadline: 200ms}}, metadata_config: {{send_interval: 1s}}}}]\n"
    );
    std::fs::write(&file, config).expect("a folder of our own");
    let flag = |name: &str, value: String| format!("--{name}={value}");
    let args = [
        flag("config.file", file.display().to_string()),
        flag("storage.tsdb.path", folder.join("prometheus").display().to_string()),
        flag("web.listen-address", at.to_string()),
    ];
    Peer::start(&peer("prometheus-2.42.0"), args, &folder.join("prometheus.said")).listening(at)
}

/// Scenario: Prometheus scrapes an application every second and writes on what it reads; then the application has nothing to
/// tell any more.
/// Guarantee: its three series and Prometheus' own five of each target are here, with the values that the application has, and
/// their end is told by a marker for each that ended, which is no value; nothing else is refused.
#[test]
fn prometheus_writes_on_what_it_scrapes() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::new(folder.path(), &[("allowed_lateness", "5s")], WATCH);
    let (daemon, application) = (home.start(), Application::start());
    let prometheus = start(folder.path(), application.at, daemon.at("prometheus"));
    daemon.wait_for("ten scrapes", |daemon| daemon.points() >= 80.0);
    application.alive.store(false, Ordering::Relaxed);
    let ended = |reason: &str| daemon.metric("relight_refused_total", &[&format!("reason=\"{reason}\"")]);
    daemon.wait_for("three ends", |_| ended("no_recorded_value") >= 3.0);
    let came = (daemon.metric("relight_series", &[]), ended("no_recorded_value"), daemon.refused());
    assert_eq!(came, (8.0, 3.0, 3.0));
    assert!(prometheus.stop());
    daemon.stop();
    let incidents = home.incidents();
    let seen = |signal: &str| {
        let mut evidence = incidents.iter().flat_map(|incident| &incident.evidence);
        evidence.find(|row| row.signal == signal).map(|row| row.value)
    };
    assert_eq!((seen("load"), seen("failing")), (Some(42.5), Some(0.25)));
}
