//! What the daemon's log tells of incidents.

use super::*;

/// The lines of a log that tell of incidents, from the incident's id on.
fn news(config: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(log_of(config)).expect("it is written");
    log.lines().filter_map(|line| Some(line.strip_prefix("note: incident ")?.to_owned())).collect()
}

fn wait_for_news(config: &Path, part: &str) {
    wait_until(part, || news(config).iter().any(|line| line.contains(part)));
}

/// Scenario: a gauge leaves its band, and the receiver of the page answers 503 once; the daemon is killed, started on the same
/// state and stopped again; the gauge comes back.
/// Guarantee: each of these is told in a line, once: what left its band, that the page was begun, did not get through and was
/// sent, and that the incident is over, with how long that took.
#[test]
fn an_incident_is_told_once_a_kill_in_between() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, told) = receiver(&[503, 200]);
    let file = config_with(dir.path(), hook, "fsync");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, text.replace("for: 2s", "for: 2s\n    keep_firing_for: 5s"))
        .expect("a folder of our own");
    let daemon = Daemon::start(&file);
    send(&daemon, 0..120, quiet);
    send(&daemon, 120..130, |_| 50.0);
    told.recv_timeout(PATIENCE).expect("a page");
    told.recv_timeout(PATIENCE).expect("the page again");
    wait_for_news(&file, " sent");
    let before = news(&file);
    let _ = daemon.stop("-KILL");
    let daemon = Daemon::start(&file);
    daemon.wait_for("relight_points_total", |n| n == 130.0);
    assert!(daemon.stop("-TERM").success());
    assert_eq!(news(&file), before, "what was told is told again");
    let daemon = Daemon::start(&file);
    send(&daemon, 130..160, quiet);
    wait_for_news(&file, "resolved");
    assert!(daemon.stop("-TERM").success());

    let id = before[0].split(' ').next().expect("an id");
    let expected = [
        "load-high {service.name=\"shop\"} opened: load{service.name=\"shop\"} was 50, outside ",
        "load-high: 1. notify with chat started: notify about load-high {service.name=\"shop\"}: load 50.0000, ",
        "load-high: 1. notify with chat did not get through, and is tried again: ",
        "load-high: 1. notify with chat sent with attempt 2: ",
        "load-high {service.name=\"shop\"} resolved, recovered by itself; back in its band 2026-01-01T00:02:10Z, 10s after onset",
    ];
    let lines = news(&file);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("{id} {expected}")), "{line}\n{expected}");
    }
    let opened = "; onset 2026-01-01T00:02:00Z, detected 2026-01-01T00:02:02Z, 2s after onset";
    assert!(lines[0].contains(" by load_high)") && lines[0].ends_with(opened), "{}", lines[0]);
}
