//! What the system does to it: files run out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::daemon::*;

/// Posts on a connection that stays open.
fn post_on(stream: &mut TcpStream, body: &str) {
    let head = head("POST", "/v1/metrics", "Content-Type: application/json\r\n", body.len());
    let head = head.replace("Connection: close\r\n", "");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it reads");
    let mut reader = BufReader::new(stream);
    let (mut answer, mut line, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).expect("it answers") > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        answer.push_str(&std::mem::take(&mut line));
    }
    reader.read_exact(&mut vec![0; length]).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Scenario: 64 files in all, and senders that want more connections than that; then the data leave their band.
/// Guarantee: senders are turned away and counted before files run out: the page is sent, snapshots are written, `/metrics` answers, and
/// who was there before is served.
#[test]
fn e18_fd_exhaustion() {
    let dir = tempfile::tempdir().expect("a folder");
    let hook = Hook::hanging();
    hook.answer();
    let file = config(dir.path(), hook.address, "");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, format!("{text}snapshot_every: 1s\n")).expect("a folder of our own");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" run -c \"$1\"", env!("CARGO_BIN_EXE_relight")]).arg(&file);
    let daemon = Daemon::of(command.stderr(Stdio::null())).expect("it starts");
    let mut first = connect(daemon.http);
    (0..120).for_each(|second| post_on(&mut first, &point(second, quiet(second))));

    let crowd: Vec<TcpStream> =
        (0..100).flat_map(|_| daemon.addresses[..2].iter().map(|to| connect(*to))).collect();
    wait_until("the end of the crowd's coming", || {
        daemon.source("connections_turned_away", "") + daemon.source("connections_accepted", "") >= 201.0
    });
    (120..130).for_each(|second| post_on(&mut first, &point(second, 50.0)));
    assert!(!hook.key().is_empty());
    let generation = daemon.metric("relight_snapshot_generation").expect("a snapshot");
    daemon.wait_for("relight_snapshot_generation", |n| n >= generation + 2.0);
    assert_eq!(daemon.metric("relight_snapshot_failures_total"), Some(0.0));
    let turned_away = daemon.source("connections_turned_away", "");
    assert!(turned_away >= 170.0, "{turned_away} of 200 were turned away");
    assert_eq!(daemon.source("accept_errors", ""), 0.0);
    drop(crowd);
    wait_until("room for others", || try_request(daemon.http, "GET", "/", "").is_ok());
    assert!(daemon.stop().success());
}

/// Changes how many files a process may have open; the bound from before. Its hard bound stays, so that this can be undone.
fn limit_files(pid: u32, limit: Rlimit) -> Rlimit {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, limit).expect("a process of our own")
}

/// Scenario: a thousand connections that speak no TLS; then the process may open no more files, for a while.
/// Guarantee: each is counted, and the loop that accepts goes on after either, without spinning in between.
#[test]
fn a22_accept_error_loop() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).and_then(|params| params.self_signed(&key));
    let [cert_file, key_file] = ["cert", "key"].map(|name| dir.path().join(name));
    std::fs::write(&cert_file, certificate.expect("a certificate").pem()).expect("a folder of our own");
    std::fs::write(&key_file, key.serialize_pem()).expect("a folder of our own");
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).expect("a file of our own");
    let tls = format!(
        "}}, tls: {{type: alertmanager, listen: \"127.0.0.1:0\", tls: {{cert_file: {}, key_file: {}}}",
        cert_file.display(),
        key_file.display()
    );
    let daemon = Daemon::start(&config(dir.path(), NOBODY, &tls));
    let secret = daemon.addresses[2];
    for i in 0..1_000_u32 {
        let mut stream = connect(secret);
        let _ = stream.write_all(&i.to_be_bytes().repeat(16));
        let _ = stream.read_to_end(&mut Vec::new());
    }
    daemon.wait_for("relight_source_total{source=\"tls\",what=\"tls_errors\",kind=\"\"}", |n| n == 1_000.0);

    let pid = daemon.child.id();
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let (began, mut most) = (Instant::now(), 0.0);
    // As often as it takes until the loop has come round twice: how long that is depends on the machine.
    while daemon.source("accept_errors", "") < 2.0 {
        assert!(began.elapsed() < PATIENCE, "it does not try again");
        let without = Instant::now();
        // Its first three are always open, so any next one is above the bound, whatever it closes meanwhile.
        let before = limit_files(pid, Rlimit { current: Some(3), maximum: hard });
        let waits = std::thread::spawn({
            let to = daemon.http;
            move || try_request(to, "POST", "/v1/metrics", &point(1, 10.0))
        });
        pause(Duration::from_millis(500));
        assert!(!waits.is_finished(), "there was no file for it");
        limit_files(pid, before);
        let answer = waits.join().expect("no panic").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // An attempt each 100 ms at most, however slow the machine is.
        most += without.elapsed().as_millis() as f64 / 100.0 + 2.0;
    }
    let errors = daemon.source("accept_errors", "");
    assert!(errors <= most, "{errors} attempts, where {most} would do");
    assert!(daemon.stop().success());
}

/// A small disk of its own, taken away at the end.
pub(crate) struct Disk(pub(crate) tempfile::TempDir);

impl Disk {
    pub(crate) fn of_mib(mib: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a tmpfs: run it as root");
        Self(dir)
    }

    /// Takes all room, to the last byte.
    pub(crate) fn fill(&self) {
        let path = self.0.path().join("fill");
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a name fits");
        for step in [1 << 16, 1] {
            while file.write_all(&vec![0; step]).is_ok() {}
        }
    }

    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.0.path().join("fill")).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Scenario: a daemon is killed, its disk fills up, and it is started; the disk stays full until it has used up what it had kept.
/// Guarantee: it starts with what it knows, and pages; once it can write nothing any more it says so, and it recovers by itself.
#[test]
fn e09_enospc_at_start() {
    let disk = Disk::of_mib(96);
    let dir = tempfile::tempdir().expect("a folder");
    let hook = Hook::hanging();
    hook.answer();
    let file = config(dir.path(), hook.address, "");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let [here, there] =
        [dir.path(), disk.0.path()].map(|dir| format!("state: {}\n", dir.join("state").display()));
    std::fs::write(&file, text.replace(&here, &there)).expect("a folder of our own");
    let daemon = Daemon::start(&file);
    send(&daemon, 0..120, quiet);
    assert!(daemon.stop().success());
    disk.fill();

    let mut command = relight();
    let daemon = Daemon::of(command.args(["run", "-c"]).arg(&file).stderr(Stdio::null())).expect("it starts");
    daemon.wait_for("relight_points_total", |n| n == 120.0);
    disk.fill();
    send(&daemon, 120..130, |_| 50.0);
    assert!(!hook.key().is_empty());
    daemon.wait_for("relight_ledger_refusals_total", |n| n >= 1.0);
    let page = request(daemon.admin, "GET", "/readyz", "");
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("the ledger cannot be written"), "{page}");
    disk.empty();
    wait_until("recovery", || request(daemon.admin, "GET", "/readyz", "").starts_with("HTTP/1.1 200"));
    assert!(daemon.stop().success());
}
