//! What a supervisor is told.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
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

/// Stops one thread of a process, as a debugger does, until it is dropped.
struct Stopped(Child);

impl Stopped {
    fn thread_of(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let of_name = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let task = tasks.flatten().map(|task| task.path()).find(of_name).expect("a thread of this name");
        // PTRACE_SEIZE and PTRACE_INTERRUPT; the thread goes on when its tracer ends.
        let number = if cfg!(target_arch = "aarch64") { 117 } else { 101 };
        let script = format!(
            "$| = 1; for my $ask (0x4206, 0x4207) {{ syscall({number}, $ask, $ARGV[0] + 0, 0, 0) == 0 or die $! }} print qq(stopped\\n); <STDIN>"
        );
        let mut tracer = Command::new("perl");
        tracer.args(["-e", &script]).arg(task.file_name().expect("a number"));
        let mut tracer =
            tracer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a `perl`");
        let mut said = String::new();
        let out = tracer.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut said).expect("it says something");
        assert_eq!(said, "stopped\n", "this test traces a thread: run it as root");
        Self(tracer)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Scenario: the engine's thread hangs. Its supervisor kills it, as systemd does, and starts it anew.
/// Guarantee: signs of life come while the engine moves, and none once it hangs, though the rest of the process is well; what
/// was obeyed before is known after.
#[test]
fn g12_watchdog_hang() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let supervisor = Supervisor::new(dir.path(), "notify");
    let mut command = supervisor.command(&file, 300_000);
    let daemon = Daemon::of(command.stderr(Stdio::null())).expect("it starts");
    (0..3).for_each(|_| supervisor.wait_for("WATCHDOG=1"));
    let mut pause = relight();
    let paused = pause.args(["pause", "-c"]).arg(&file).stdout(Stdio::null()).status().expect("it runs");
    assert!(paused.success());

    let stopped = Stopped::thread_of(daemon.child.id(), "relight-engine");
    wait_until("the end of its signs of life", || supervisor.hear(Duration::from_secs(1)).is_none());
    let page = request(daemon.admin, "GET", "/healthz", "");
    assert!(page.starts_with("HTTP/1.1 200"), "half a minute has not passed: {page}");
    daemon.signal("-ABRT");
    // Its tracer keeps the thread, and so the process, from being gone.
    drop(stopped);
    assert_eq!(daemon.wait().signal(), Some(6));

    let daemon = Daemon::of(command.stderr(Stdio::null())).expect("it starts");
    supervisor.wait_for("READY=1");
    daemon.wait_for("relight_held{hold=\"paused\"}", |held| held == 1.0);
    assert!(daemon.stop().success());
}
