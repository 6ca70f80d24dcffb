//! One `relight run` in a folder of its own, with a program for pages and one for what changes the world.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::load::broker;
use crate::pause;

/// Far longer than anything here takes; only a hang is ended by it.
const PATIENCE: Duration = Duration::from_mins(3);

/// The rung that changes the world.
const ACT: &str = "      - {do: switch, with: switch, limits: {cooldown: 1s}}";

/// A member: its folder, and what it is told.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    folder: PathBuf,
}

/// A daemon that runs.
pub(crate) struct Daemon {
    child: Child,
    admin: SocketAddr,
    said: PathBuf,
}

impl Member {
    /// One that only tells people. `shared` is where members write what they do.
    pub(crate) fn telling(shared: &Path, name: &'static str, topic: &str) -> Self {
        Self::new(shared, name, topic, "", "")
    }

    /// One that changes the world, too; `lock` goes into the source's settings.
    pub(crate) fn acting(shared: &Path, name: &'static str, topic: &str, lock: &str) -> Self {
        Self::new(shared, name, topic, lock, ACT)
    }

    fn new(shared: &Path, name: &'static str, topic: &str, lock: &str, act: &str) -> Self {
        let folder = shared.join(name);
        std::fs::create_dir_all(&folder).expect("a folder of our own");
        for what in ["page", "act"] {
            let script =
                format!("#!/bin/sh\necho \"$RELIGHT_ACTION {name}\" >> {}\n", shared.join(what).display());
            std::fs::write(folder.join(what), script).expect("a folder of our own");
        }
        let member = Self { name, folder };
        std::fs::write(member.config(), member.text(topic, lock, act)).expect("a folder of our own");
        member
    }

    /// Has its pages fail.
    pub(crate) fn fail_pages(&self) {
        std::fs::write(self.folder.join("page"), "#!/bin/sh\nexit 1\n").expect("a folder of our own");
    }

    fn config(&self) -> PathBuf {
        self.folder.join("relight.yaml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn text(&self, topic: &str, lock: &str, act: &str) -> String {
        format!(
            r#"
interval: 1s
allowed_lateness: 1s
snapshot_every: 1s
idle_after: 10m
warm_up: 0s
mode: auto
fleet_limit: off
state: {state}
admin: 127.0.0.1:0
sources:
  queue:
    type: kafka
    brokers: ["{broker}"]
    group: {topic}-{name}
    start: earliest
    topics: [{{topic: {topic}, format: otlp_proto}}]
    {lock}
signals:
  load: {{value: load, by: [service.name]}}
  every: {{every_series: true}}
detectors:
  load_high: {{type: ewma, signal: load, half_life: 30s, warm_up: 10, min_deviation: 5, direction: above}}
  any: {{type: ewma, signal: every}}
responders:
  pager: {{type: exec, command: [/bin/sh, "{page}"], reach: notify, idempotent: true}}
  switch: {{type: exec, command: [/bin/sh, "{script}"]}}
rules:
  - name: load-high
    when: load_high.score > 1.0
    for: 2s
    keep_firing_for: 1s
    group_by: [service.name]
    respond:
      - {{do: notify, with: pager}}
{act}
"#,
            broker = broker(),
            name = self.name,
            state = self.state().display(),
            page = self.folder.join("page").display(),
            script = self.folder.join("act").display(),
        )
    }

    /// Starts it, and waits until it says where it can be asked.
    pub(crate) fn start(&self) -> Daemon {
        let said = self.folder.join("said");
        let log = File::options().create(true).append(true).open(&said).expect("a folder of our own");
        let mut child = Command::new(env!("CARGO_BIN_EXE_relight"))
            .args(["run", "-c"])
            .arg(self.config())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let itself = lines.map_while(Result::ok).find_map(|line| {
            let rest = line.contains("itself").then(|| line.split("http://").nth(1))??;
            rest[..rest.find('/')?].parse().ok()
        });
        let admin = itself.unwrap_or_else(|| panic!("{} did not start: {}", self.name, text(&said)));
        Daemon { child, admin, said }
    }
}

impl Daemon {
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = ask(self.admin, "/metrics").ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric of its own satisfies a condition.
    pub(crate) fn wait_for(&self, name: &str, holds: impl Fn(f64) -> bool) {
        until(&format!("{name} of {}", self.said.display()), || self.metric(name).is_some_and(&holds));
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("there is a `kill`").success());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    pub(crate) fn stop(self) {
        self.signal("-TERM");
        let said = self.said.clone();
        let status = self.end();
        assert!(status.success(), "{status}: {}", text(&said));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that other processes do; how long it took.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        pause(50);
    }
    began.elapsed()
}

/// What is in a file; nothing if it is not there.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn ask(at: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
