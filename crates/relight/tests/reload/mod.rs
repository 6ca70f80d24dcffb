//! SIGHUP on a daemon: another config, or the one of before.

mod certificates;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use super::{Daemon, PATIENCE, config, idempotency_key, point, quiet, receiver, request, send, wait_until};

const TAKEN: &str = "relight_config_last_reload_successful";

impl Daemon {
    fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("there is a `kill`").success());
    }

    fn said(&self, what: &str) -> usize {
        request(self.admin, "GET", "/readyz", "").matches(what).count()
    }

    fn wait_until_said(&self, what: &str) {
        wait_until(what, || self.said(what) > 0);
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("it was written");
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(file, text.replace(from, to)).expect("a folder of our own");
}

/// Scenario: a config with two errors, then one that a running daemon cannot go over to, then a good one, each with a SIGHUP.
/// Guarantee: each error and each reason is told at once, the config of before rules and takes data; the good one is taken.
#[test]
fn g01_reload_invalid() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let good = std::fs::read_to_string(&file).expect("it was written");
    let daemon = Daemon::start(&file);
    daemon.wait_for(TAKEN, |taken| taken == 1.0);
    edit(&file, "half_life: 30s", "half_lfe: 30s");
    edit(&file, "with: chat", "with: chta");
    daemon.hang_up();
    daemon.wait_for(TAKEN, |taken| taken == 0.0);
    for what in ["half_lfe", "chta", "refused, the config of before rules on"] {
        daemon.wait_until_said(what);
    }
    send(&daemon, 0..10, quiet);
    daemon.wait_for("relight_points_total", |n| n == 10.0);

    std::fs::write(
        &file,
        good.replace("interval: 1s", "interval: 2s").replace("grpc: off", "grpc: \"127.0.0.1:0\""),
    )
    .expect("a folder of our own");
    daemon.hang_up();
    for what in
        ["interval: cannot change while running", "sources.otlp: a source cannot change while running"]
    {
        daemon.wait_until_said(what);
    }

    std::fs::write(&file, good.replace("half_life: 30s", "half_life: 40s")).expect("a folder of our own");
    daemon.hang_up();
    daemon.wait_for(TAKEN, |taken| taken == 1.0);
    daemon.wait_until_said("rows start cold: detectors.load_high: what shapes its state has changed");
    send(&daemon, 10..20, quiet);
    daemon.wait_for("relight_points_total", |n| n == 20.0);
    assert!(daemon.stop("-TERM").success());
}

/// Scenario: a page is refused and waits for its next attempt; the config is loaded again, with the same rule.
/// Guarantee: the reload waits for nobody; the page comes under the key of the first attempt, once.
#[test]
fn g04_reload_with_inflight() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[503, 503, 200]);
    let file = config(dir.path(), hook);
    let daemon = Daemon::start(&file);
    send(&daemon, 0..120, quiet);
    send(&daemon, 120..130, |_| 50.0);
    let (first, _) = told.recv_timeout(PATIENCE).expect("a page");
    daemon.hang_up();
    daemon.wait_until_said("the config was taken");
    for _ in 0..2 {
        let (again, _) = told.recv_timeout(PATIENCE).expect("the page again");
        assert_eq!(idempotency_key(&first), idempotency_key(&again));
    }
    send(&daemon, 130..140, |_| 50.0);
    daemon.wait_for("relight_points_total", |n| n >= 140.0);
    assert!(daemon.stop("-TERM").success());
    assert!(told.try_recv().is_err(), "it was paged again");
}

/// Scenario: a hundred SIGHUPs at once, while two series come whose names are not in the order in which they were met.
/// Guarantee: they are a few reloads, and the daemon goes on: no value of one series is taken for the other's.
#[test]
fn g05_reload_storm() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[200]);
    let daemon = Daemon::start(&config(dir.path(), hook));
    let both = |seconds: std::ops::Range<i64>| {
        for second in seconds {
            let other = point(second, 1_000.0).replace("\"load\"", "\"zeta\"");
            for body in [other, point(second, quiet(second))] {
                assert!(request(daemon.http, "POST", "/v1/metrics", &body).starts_with("HTTP/1.1 200"));
            }
        }
    };
    both(0..120);
    let pid = daemon.child.id().to_string();
    let storm = format!("for i in $(seq 100); do kill -HUP {pid}; done");
    assert!(Command::new("sh").args(["-c", &storm]).status().expect("there is a shell").success());
    daemon.wait_until_said("the config was taken");
    both(120..130);
    daemon.wait_for("relight_points_total", |n| n == 260.0);
    let reloads = daemon.said("the config was taken");
    assert!(reloads < 20, "{reloads} reloads");
    assert!(daemon.stop("-TERM").success());
    assert!(told.try_recv().is_err(), "one was taken for the other");
}

/// Scenario: an incident is open when its rule is deleted.
/// Guarantee: it is over with the next bin, and no more is told about it.
#[test]
fn g07_rule_removed_while_firing() {
    const OPEN: &str = "relight_incidents{state=\"responding\"}";
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[503]);
    let file = config(dir.path(), hook);
    let daemon = Daemon::start(&file);
    send(&daemon, 0..120, quiet);
    send(&daemon, 120..130, |_| 50.0);
    told.recv_timeout(PATIENCE).expect("a page");
    daemon.wait_for(OPEN, |open| open == 1.0);
    edit(&file, "name: load-high", "name: other");
    edit(&file, "when: load_high.score > 1.0", "when: load_high.score > 1000000.0");
    daemon.hang_up();
    daemon.wait_until_said("the config was taken");
    send(&daemon, 130..135, |_| 50.0);
    wait_until("the end of the incident", || daemon.metric(OPEN).is_none());
    assert!(daemon.stop("-TERM").success());
}

/// Scenario: a service manager listens while the config is loaded, first one that is refused, then one that is taken.
/// Guarantee: RELOADING with a monotonic time, then READY, each time.
#[test]
fn g13_notify_reloading() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let file = config(dir.path(), hook);
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket of our own");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let next = || {
        let mut buffer = [0; 4_096];
        let n = socket.recv(&mut buffer).expect("something is told");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let daemon = Daemon::start_with(&file, &[("NOTIFY_SOCKET", &path.display().to_string())]);
    assert!(next().contains("READY=1"));
    for interval in ["interval: 2s", "interval: 1s"] {
        edit(&file, "interval: 1s", interval);
        daemon.hang_up();
        let told = next();
        assert!(told.contains("RELOADING=1") && told.contains("MONOTONIC_USEC="), "{told}");
        let told = next();
        assert!(told.contains("READY=1"), "{told}");
        edit(&file, interval, "interval: 1s");
    }
    assert!(daemon.stop("-TERM").success());
}
