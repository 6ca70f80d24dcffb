//! What a supervisor is told.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use crate::daemon::*;

/// Long enough to be far from the sign of life of any test here.
const NEVER_US: u32 = 3_600_000_000;

/// Scenario: a daemon with a state of its own is started; a second one on the same folder, and a third on a port that is taken,
/// fail to.
/// Guarantee: ready is said when the listeners answer and the state is read, and not by who fails; that it stops is said before it ends.
#[test]
fn g13_notify_protocol() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let first = Daemon::start(&file);
    send(&first, 0..10, quiet);
    assert!(first.stop().success());

    let supervisor = Supervisor::new(dir.path(), "first");
    let daemon = Daemon::of(&mut supervisor.command(&file, NEVER_US)).expect("it starts");
    let said = supervisor.hear(PATIENCE).expect("a message");
    assert!(said.lines().any(|line| line == "READY=1") && said.contains("STATUS="), "{said}");
    send(&daemon, 10..11, quiet);
    daemon.wait_for("relight_points_total", |n| n == 11.0);

    let taken = dir.path().join("taken.yaml");
    let text = format!(
        "state: {}\nadmin: off\nsources: {{otlp: {{type: otlp, grpc: off, http: \"{}\"}}}}\n",
        dir.path().join("other").display(),
        daemon.http
    );
    std::fs::write(&taken, text).expect("a folder of our own");
    for (name, config) in [("second", &file), ("third", &taken)] {
        let other = Supervisor::new(dir.path(), name);
        let status = other.command(config, NEVER_US).stderr(Stdio::null()).status().expect("it runs");
        assert_eq!((status.code(), other.hear(Duration::from_millis(1))), (Some(1), None), "{name}");
    }

    daemon.signal("-TERM");
    supervisor.wait_for("STOPPING=1");
    assert!(daemon.wait().success());
}

/// Scenario: the engine hangs: what it says goes to a pipe that nobody reads, and the pipe is full. Its supervisor kills it, as systemd
/// does, and starts it anew.
/// Guarantee: signs of life come while the engine moves, and none once it hangs, though the rest of the process is well; what
/// was obeyed before is known after.
#[test]
fn g12_watchdog_hang() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let supervisor = Supervisor::new(dir.path(), "notify");
    let mut command = supervisor.command(&file, 300_000);
    let daemon = Daemon::of(command.stderr(Stdio::piped())).expect("it starts");
    (0..3).for_each(|_| supervisor.wait_for("WATCHDOG=1"));

    // A pipe holds 64 KiB.
    let reason = "x".repeat(15_000);
    let pause = || {
        relight()
            .args(["pause", &reason, "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let pauses: Vec<_> = (0..6).map(|_| pause().expect("it runs")).collect();
    wait_until("the end of its signs of life", || supervisor.hear(Duration::from_secs(1)).is_none());
    let page = request(daemon.admin, "GET", "/healthz", "");
    assert!(page.starts_with("HTTP/1.1 200"), "half a minute has not passed: {page}");
    daemon.signal("-ABRT");
    assert_eq!(daemon.wait().signal(), Some(6));
    for mut pause in pauses {
        let _ = pause.wait();
    }

    let daemon = Daemon::of(command.stderr(Stdio::null())).expect("it starts");
    supervisor.wait_for("READY=1");
    daemon.wait_for("relight_held{hold=\"paused\"}", |held| held == 1.0);
    assert!(daemon.stop().success());
}
