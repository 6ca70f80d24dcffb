//! How it ends when its responders do not.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;

use crate::daemon::*;

/// Sends a point after another until nobody takes them, and counts those that were.
fn load(to: SocketAddr, from: i64) -> (Arc<AtomicI64>, JoinHandle<()>) {
    let taken = Arc::new(AtomicI64::new(0));
    let counts = Arc::clone(&taken);
    let sends = std::thread::spawn(move || {
        for second in from.. {
            match try_request(to, "POST", "/v1/metrics", &point(second, quiet(second))) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => counts.fetch_add(1, Ordering::Relaxed),
                _ => return,
            };
        }
    });
    (taken, sends)
}

/// A daemon whose page hangs at its receiver, and the page's key.
fn hung(supervisor: &Supervisor, file: &std::path::Path, hook: &Hook) -> (Daemon, String) {
    let mut command = supervisor.command(file, 3_600_000_000);
    let daemon = Daemon::of(command.stderr(Stdio::null())).expect("it starts");
    supervisor.wait_for("READY=1");
    send(&daemon, 0..120, quiet);
    send(&daemon, 120..130, |_| 50.0);
    (daemon, hook.key())
}

/// Scenario: stopped in the middle of a bin, started again, and sent the rest of it.
/// Guarantee: nothing of it is late: a stop closes no bin.
#[test]
fn a_stop_closes_no_bin() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, text.replace("interval: 1s", "interval: 1m")).expect("a folder of our own");
    let daemon = Daemon::start(&file);
    send(&daemon, 0..30, quiet);
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&file);
    send(&daemon, 30..90, quiet);
    daemon.wait_for("relight_points_total", |n| n == 90.0);
    assert_eq!(daemon.metric("relight_refused_total{reason=\"late\"}"), None);
    assert!(daemon.stop().success());
}

/// Scenario: told to stop under load, while the receiver of a page hangs; then started again, with a receiver that answers.
/// Guarantee: it says so, ends well within 30 s, has all that it answered in its last snapshot, and the page arrives after the start, under
/// its key.
#[test]
fn g10_sigterm_drain() {
    let dir = tempfile::tempdir().expect("a folder");
    let hook = Hook::hanging();
    let file = config(dir.path(), hook.address, "");
    let supervisor = Supervisor::new(dir.path(), "notify");
    let (daemon, key) = hung(&supervisor, &file, &hook);
    let (taken, sends) = load(daemon.http, 130);
    wait_until("load", || taken.load(Ordering::Relaxed) > 20);
    daemon.signal("-TERM");
    supervisor.wait_for("STOPPING=1");
    // The receiver hangs for as long as the test lasts; that the bounds of a stop fit into 30 s is checked when it is built.
    assert!(daemon.wait().success());
    sends.join().expect("it ends once nobody listens");

    hook.answer();
    let daemon = Daemon::start(&file);
    let taken = 130 + taken.load(Ordering::Relaxed);
    daemon.wait_for("relight_points_total", |n| n >= taken as f64);
    assert_eq!(daemon.metric("relight_gap_seconds{partition=\"otlp\"}"), None);
    assert_eq!(hook.key(), key);
    assert!(daemon.stop().success());
}

/// Scenario: told to stop twice, while the receiver of a page hangs.
/// Guarantee: the second time ends it at once and with 1. What the journal holds is there at the next start, and the page is sent
/// under its key.
#[test]
fn g11_sigterm_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let hook = Hook::hanging();
    let file = config(dir.path(), hook.address, ", journal: fsync");
    let supervisor = Supervisor::new(dir.path(), "notify");
    let (daemon, key) = hung(&supervisor, &file, &hook);
    daemon.signal("-TERM");
    supervisor.wait_for("STOPPING=1");
    daemon.signal("-TERM");
    // 1 is the end by a second signal; one that waits for its responders ends with 0.
    assert_eq!(daemon.wait().code(), Some(1));

    hook.answer();
    let daemon = Daemon::start(&file);
    daemon.wait_for("relight_points_total", |n| n == 130.0);
    assert_eq!(hook.key(), key);
    assert!(daemon.stop().success());
}
