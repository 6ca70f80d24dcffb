//! What it starts with: where it listens, what it refuses, and what it shows of itself.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::daemon::*;

/// relight, for a run that should end at once: one that does not is killed.
fn brief() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30", env!("CARGO_BIN_EXE_relight")]);
    command
}

/// What a command says on its way to its end, and with which code it ends.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Local addresses of the sockets on which a process listens, as the kernel tells.
fn listens_on(pid: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").map_while(Result::ok);
    let links: BTreeSet<String> =
        links.filter_map(|link| Some(std::fs::read_link(link.path()).ok()?.display().to_string())).collect();
    let tables = ["tcp", "tcp6"]
        .map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let sockets = tables.iter().flat_map(|table| table.lines().skip(1));
    let fields = sockets.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = fields.filter(|fields| fields[3] == "0A" && links.contains(&format!("socket:[{}]", fields[9])));
    own.map(|fields| fields[1].to_owned()).collect()
}

/// Scenario: no config at all; then configs that listen where other machines can reach, without saying who may send.
/// Guarantee: without a config only this machine can reach it (where somebody has its ports, it says that of this machine's); the
/// others do not start, and name the key.
#[test]
fn h01_bind_default() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bare = relight();
    bare.args(["run", "--state"]).arg(dir.path().join("state"));
    if let Some(daemon) = Daemon::of(bare.stderr(Stdio::null())) {
        assert_eq!(daemon.addresses.len(), 3);
        assert!(daemon.addresses.iter().all(|address| address.ip().is_loopback()), "{:?}", daemon.addresses);
        let sockets = listens_on(daemon.child.id());
        let local: Vec<_> = sockets.iter().filter(|address| address.starts_with("0100007F:")).collect();
        assert_eq!((local.len(), sockets.len()), (3, 3), "{sockets:?}");
        assert!(daemon.stop().success());
    } else {
        let (code, said) = ends(bare.stderr(Stdio::piped()));
        assert!(code == Some(1) && said.contains("127.0.0.1:"), "{code:?}: {said}");
    }

    let file = dir.path().join("open.yaml");
    for (key, text) in [
        ("http", "sources: {a: {type: otlp, grpc: off, http: \"0.0.0.0:0\"}}"),
        ("grpc", "sources: {a: {type: otlp, grpc: \"[::]:0\", http: off}}"),
        ("listen", "sources: {a: {type: alertmanager, listen: \"0.0.0.0:0\"}}"),
        ("admin", "admin: 0.0.0.0:0"),
    ] {
        std::fs::write(&file, format!("{text}\n")).expect("a folder of our own");
        let (code, said) =
            ends(brief().args(["run", "-c"]).arg(&file).arg("--state").arg(dir.path().join("open")));
        assert!(code == Some(2) && said.contains(key), "{key}: {code:?}: {said}");
    }
    assert!(!dir.path().join("open").exists(), "nothing was begun");
}

/// Scenario: a second process on the folder of one that runs.
/// Guarantee: it ends at once, says which folder is taken, and the first goes on undisturbed.
#[test]
fn e16_two_processes_one_dir() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let first = Daemon::start(&file);
    send(&first, 0..5, quiet);
    // The first goes on until the test stops it: the second ends beside it.
    let (code, said) = ends(brief().args(["run", "-c"]).arg(&file));
    let state = dir.path().join("state").display().to_string();
    assert!(code == Some(1) && said.contains(&state), "{code:?}: {said}");
    send(&first, 5..10, quiet);
    first.wait_for("relight_points_total", |n| n == 10.0);
    assert!(first.stop().success());
}

/// Guarantee: every metric that a daemon shows is one that `relight explain metrics` explains, with its type and its labels.
#[test]
fn what_is_shown_is_explained() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    send(&daemon, 0..40, quiet);
    daemon.wait_for("relight_bins_total", |n| n > 30.0);
    let output = relight().args(["explain", "metrics"]).output().expect("it runs");
    let explained = String::from_utf8_lossy(&output.stdout).into_owned();
    let page = request(daemon.admin, "GET", "/metrics", "");
    let lines = page.lines().filter(|line| line.starts_with("relight_"));
    let kinds: BTreeSet<(&str, &str)> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut seen = BTreeSet::new();
    for line in lines {
        let (sample, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let labels: Vec<&str> =
            labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(", ")) };
        let kind = kinds.iter().find(|(known, _)| *known == name).expect("a type").1;
        assert!(explained.contains(&format!("\n{name}{labels}  {kind}\n")), "{line}\n{explained}");
        seen.insert(name);
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// Guarantee: `relight health` is content with a daemon that runs, and not with a port where none does.
#[test]
fn health_is_asked_by_the_binary_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let ask = |admin: String| ends(brief().args(["health", "--admin", &admin]));
    let admin = daemon.admin.to_string();
    assert_eq!(ask(admin.clone()), (Some(0), String::new()));
    // No page of the daemon's at all, and one that says no.
    assert_eq!(ask(daemon.http.to_string()).0, Some(1));
    assert!(daemon.stop().success());
    let (code, said) = ask(admin.clone());
    assert!(code == Some(1) && said.contains(&admin), "{code:?}: {said}");
    assert_eq!(
        relight()
            .args(["health", "--admin", "nowhere"])
            .stderr(Stdio::null())
            .status()
            .expect("it runs")
            .code(),
        Some(2)
    );
}

/// Scenario: of two hundred points some are a minute older than the newest, where nothing may be late.
/// Guarantee: `/readyz` and a metric name the partition and what would be needed; it stays ready, since it works.
#[test]
fn a_source_that_is_too_late_is_named() {
    const DELAY: &str = "relight_partition_delay_seconds{partition=\"otlp\"}";
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    send(&daemon, 100..300, quiet);
    daemon.wait_for("relight_points_total", |n| n == 200.0);
    assert_eq!(daemon.metric(DELAY), None);
    send(&daemon, 230..240, quiet);
    daemon.wait_for(DELAY, |p99| p99 == 128.0);
    let page = request(daemon.admin, "GET", "/readyz", "");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("otlp: more than 1 %") && page.contains("99 % come within 2m8s"), "{page}");
}
