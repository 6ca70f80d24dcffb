//! A daemon, its supervisor's socket, and a receiver of pages that hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::json;

/// Far longer than anything here takes; only a hang is ended by it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// The first second of the data: long ago, so that everything is behind the present.
const START: i64 = 1_767_225_600;

pub(crate) fn relight() -> Command {
    Command::new(env!("CARGO_BIN_EXE_relight"))
}

pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// All that it says it listens on.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Daemon {
    pub(crate) fn start(config: &Path) -> Self {
        Self::of(relight().args(["run", "-c"]).arg(config)).expect("it starts")
    }

    /// Runs a command that becomes a daemon. `None` if it ends before it listens.
    pub(crate) fn of(command: &mut Command) -> Option<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary is built");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (mut addresses, mut http) = (Vec::new(), None);
        for line in lines.map_while(Result::ok) {
            let Some(address) = address_in(&line) else { continue };
            addresses.push(address);
            if line.contains("OTLP/HTTP") {
                http = Some(address);
            } else if line.contains("itself") {
                return Some(Self { child, addresses, http: http.expect("an address"), admin: address });
            }
        }
        let _ = child.wait();
        None
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = request(self.admin, "GET", "/metrics", "");
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric of its own satisfies a condition.
    pub(crate) fn wait_for(&self, name: &str, holds: impl Fn(f64) -> bool) {
        wait_until(&format!("{name}, now {:?},", self.metric(name)), || {
            self.metric(name).is_some_and(&holds)
        });
    }

    /// A counter of its OTLP source, by its label `what` and, where it has one, `kind`.
    pub(crate) fn source(&self, what: &str, kind: &str) -> f64 {
        let name = format!("relight_source_total{{source=\"otlp\",what=\"{what}\",kind=\"{kind}\"}}");
        self.metric(&name).unwrap_or(0.0)
    }

    /// A gauge of its OTLP source.
    pub(crate) fn gauge(&self, what: &str) -> f64 {
        let name = format!("relight_source{{source=\"otlp\",what=\"{what}\",kind=\"\"}}");
        self.metric(&name).unwrap_or(0.0)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("there is a `kill`").success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    pub(crate) fn stop(self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let found =
            status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {status}"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').map(|word| word.trim_start_matches("http://"));
    words.find_map(|word| word.split('/').next()?.parse().ok())
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        pause(Duration::from_millis(50));
    }
}

/// Between two looks.
pub(crate) fn pause(time: Duration) {
    let (_kept, never) = channel::<()>();
    let _ = never.recv_timeout(time);
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// A connection from this address of the machine: senders are told apart by it.
pub(crate) fn connect_as(to: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.into(), 0))?;
        socket.connect(to).await?.into_std()
    });
    let stream = connected.expect("it listens");
    stream.set_nonblocking(false).expect("a socket of our own");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

pub(crate) fn head(method: &str, path: &str, more: &str, length: usize) -> String {
    let fixed = "Host: localhost\r\nConnection: close\r\n";
    format!("{method} {path} HTTP/1.1\r\n{fixed}{more}Content-Length: {length}\r\n\r\n")
}

pub(crate) fn request(to: SocketAddr, method: &str, path: &str, body: &str) -> String {
    try_request(to, method, path, body).expect("it answers")
}

pub(crate) fn try_request(to: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(head(method, path, "Content-Type: application/json\r\n", body.len()).as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// An export request with one point of one gauge.
pub(crate) fn point(second: i64, value: f64) -> String {
    point_at(START + second, value)
}

/// The same, by seconds since the epoch.
pub(crate) fn point_at(seconds: i64, value: f64) -> String {
    let attribute = json!([{"key": "service.name", "value": {"stringValue": "shop"}}]);
    let time = (seconds * 1_000_000_000).to_string();
    json!({"resourceMetrics": [{"resource": {"attributes": attribute}, "scopeMetrics": [{"metrics": [
        {"name": "load", "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": value}]}}]}]}]})
    .to_string()
}

/// Sends points and waits for each to be taken.
pub(crate) fn send(daemon: &Daemon, seconds: std::ops::Range<i64>, value: impl Fn(i64) -> f64) {
    for second in seconds {
        let answer = request(daemon.http, "POST", "/v1/metrics", &point(second, value(second)));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

pub(crate) fn quiet(second: i64) -> f64 {
    10.0 + (second % 3) as f64 * 0.1
}

/// A config that pages once `load` leaves its band; `more` goes into its source.
pub(crate) fn config(dir: &Path, hook: SocketAddr, more: &str) -> PathBuf {
    let file = dir.join("relight.yaml");
    let text = format!(
        r#"
interval: 1s
allowed_lateness: 0s
state: {state}
admin: 127.0.0.1:0
sources: {{otlp: {{type: otlp, grpc: "127.0.0.1:0", http: "127.0.0.1:0"{more}}}}}
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

/// Nobody pages here.
pub(crate) const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// What a supervisor hears.
pub(crate) struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        let socket = UnixDatagram::bind(&path).expect("a folder of our own");
        Self { socket, path }
    }

    /// A daemon that it watches over, which must give a sign of life within these microseconds.
    pub(crate) fn command(&self, config: &Path, watchdog_us: u32) -> Command {
        let mut command = Command::new("sh");
        let run = "WATCHDOG_PID=$$ exec \"$0\" run -c \"$1\"";
        command.args(["-c", run, env!("CARGO_BIN_EXE_relight")]).arg(config);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", watchdog_us.to_string());
        command
    }

    /// The next lines that it is told, if any within this time.
    pub(crate) fn hear(&self, within: Duration) -> Option<String> {
        let mut message = [0; 4_096];
        self.socket.set_read_timeout(Some(within)).expect("a timeout can be set");
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    pub(crate) fn wait_for(&self, line: &str) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.hear(PATIENCE).is_some_and(|said| said.lines().any(|one| one == line)) {
                return;
            }
        }
        panic!("{line} was not said");
    }
}

/// A receiver of pages that takes requests and leaves them without an answer, until it is told to answer.
pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    /// The idempotency key of each request.
    pub(crate) keys: Receiver<String>,
    answers: Arc<AtomicBool>,
}

impl Hook {
    pub(crate) fn hanging() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let answers = Arc::new(AtomicBool::new(false));
        let (tell, keys) = channel();
        let does = Arc::clone(&answers);
        std::thread::spawn(move || {
            let mut left = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
                let (mut key, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    if let Some(value) = line.to_lowercase().strip_prefix("idempotency-key:") {
                        value.trim().clone_into(&mut key);
                    }
                    line.clear();
                }
                if does.load(Ordering::Relaxed) {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                } else {
                    left.push(stream);
                }
                if tell.send(key).is_err() {
                    return;
                }
            }
        });
        Self { address, keys, answers }
    }

    pub(crate) fn answer(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }

    pub(crate) fn key(&self) -> String {
        self.keys.recv_timeout(PATIENCE).expect("a page")
    }
}
