//! What becomes of its state folder: it goes away, the disk is full or read-only, a file may not be written.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::daemon::*;
use crate::system::Disk;

/// `config` with a step that changes something, and people who are told of trouble; and the file that the step makes.
fn config_that_acts(dir: &Path, state: &Path, (hook, more): (SocketAddr, &str)) -> (PathBuf, PathBuf) {
    let file = config(dir, hook, more);
    let marker = dir.join("changed");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let text = text
        .replace(
            &format!("state: {}\n", dir.join("state").display()),
            &format!("state: {}\n", state.display()),
        )
        .replace("respond: [", "respond: [{do: restart, with: fixer}, ")
        .replace(
            "responders: {",
            &format!("responders: {{fixer: {{type: exec, command: [/bin/touch, {}]}}, ", marker.display()),
        );
    let text = format!("{text}mode: auto\nwarm_up: 1s\ntrouble: {{with: chat}}\n");
    std::fs::write(&file, text).expect("a folder of our own");
    (file, marker)
}

/// The status line of what a source answers to a point.
fn status(to: SocketAddr, second: i64) -> String {
    let answer = request(to, "POST", "/v1/metrics", &point(second, quiet(second)));
    answer.lines().next().unwrap_or_default().to_owned()
}

fn readiness(daemon: &Daemon) -> String {
    request(daemon.admin, "GET", "/readyz", "")
}

fn is_unready_for(daemon: &Daemon, why: &str) {
    wait_until(&format!("not ready: {why}"), || {
        let page = readiness(daemon);
        page.starts_with("HTTP/1.1 503") && page.contains(why)
    });
}

/// relight as root without the right to pass over the permissions of files.
fn without_override(file: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let lost = "-dac_override,-dac_read_search";
    command
        .args(["--bounding-set", lost, "--inh-caps", lost, env!("CARGO_BIN_EXE_relight"), "run", "-c"])
        .arg(file);
    command.stderr(Stdio::null());
    command
}

/// Scenario: the state folder of a running daemon is removed, or its permissions are; then the data leave their band.
/// Guarantee: within seconds it is not ready and says why; who sends to a journal is told to come again; nothing is changed, and
/// people are paged. With the permissions back it is ready again.
#[test]
fn e10_state_folder_goes_away() {
    for (is_removed, is_kept) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (state, hook) = (dir.path().join("state"), Hook::hanging());
        hook.answer();
        let more = if is_kept { ", journal: fsync" } else { "" };
        let (file, marker) = config_that_acts(dir.path(), &state, (hook.address, more));
        let daemon = Daemon::of(&mut without_override(&file)).expect("it starts");
        send(&daemon, 0..60, quiet);
        wait_until("readiness", || readiness(&daemon).starts_with("HTTP/1.1 200"));
        let permissions =
            |mode| std::fs::set_permissions(&state, PermissionsExt::from_mode(mode)).expect("ours");
        let why = if is_removed {
            std::fs::remove_dir_all(&state).expect("ours");
            "was removed"
        } else {
            permissions(0o000);
            "cannot be reached"
        };
        is_unready_for(&daemon, why);
        assert!(!hook.key().is_empty(), "people are told");
        if is_kept {
            assert!(status(daemon.http, 60).contains("503"), "{why}: it takes what it cannot keep");
        } else {
            send(&daemon, 60..70, |_| 50.0);
            assert!(!hook.key().is_empty(), "a page about the load");
            assert!(!marker.exists(), "{why}: something was changed");
        }
        if is_removed {
            assert!(!daemon.stop().success(), "the last turns are lost, and it says so");
            continue;
        }
        permissions(0o700);
        wait_until("recovery", || readiness(&daemon).starts_with("HTTP/1.1 200"));
        assert!(status(daemon.http, 70).contains("200"), "the folder is back");
        assert!(daemon.stop().success());
    }
}

/// Scenario: a daemon with a history is started on a disk that is full to the last byte and without what was kept for that, and on
/// one that is read-only; then the data leave their band.
/// Guarantee: it stays up, is not ready, says why, and pages from memory; it takes nothing for a journal and changes nothing.
/// Nothing in the folder is harmed: with room it starts with what it knew.
#[test]
fn e09_blind_on_a_full_or_read_only_disk() {
    for is_read_only in [false, true] {
        let disk = Disk::of_mib(96);
        let dir = tempfile::tempdir().expect("a folder");
        let (state, hook) = (disk.0.path().join("state"), Hook::hanging());
        hook.answer();
        let kept = "}, kept: {type: otlp, grpc: off, http: \"127.0.0.1:0\", journal: fsync";
        let (file, marker) = config_that_acts(dir.path(), &state, (hook.address, kept));
        let mut command = relight();
        command.args(["run", "-c"]).arg(&file).stderr(Stdio::null());
        let daemon = Daemon::of(&mut command).expect("it starts");
        send(&daemon, 0..60, quiet);
        assert!(daemon.stop().success());
        let remount = |how: &str| {
            let done = Command::new("mount").args(["-o", how]).arg(disk.0.path()).status();
            assert!(done.is_ok_and(|status| status.success()));
        };
        if is_read_only {
            remount("remount,ro");
        } else {
            std::fs::remove_file(state.join("ballast")).expect("room was kept");
            disk.fill();
        }
        let daemon = Daemon::of(&mut command).expect("it stays up");
        is_unready_for(&daemon, "the state folder cannot be opened");
        assert!(!hook.key().is_empty(), "people are told");
        assert!(status(daemon.addresses[0], 0).contains("503"), "it takes what it cannot keep");
        send(&daemon, 100..160, quiet);
        send(&daemon, 160..170, |_| 50.0);
        assert!(!hook.key().is_empty(), "a page about the load");
        assert!(!marker.exists(), "something was changed");
        assert!(readiness(&daemon).starts_with("HTTP/1.1 503"));
        assert!(daemon.stop().success());
        if is_read_only {
            remount("remount,rw");
        } else {
            disk.empty();
        }
        let daemon = Daemon::of(&mut command).expect("it starts");
        daemon.wait_for("relight_points_total", |n| n == 60.0);
        assert!(readiness(&daemon).starts_with("HTTP/1.1 200"), "{}", readiness(&daemon));
        assert!(!state.join("quarantine-1").exists());
        assert!(daemon.stop().success());
    }
}

/// Scenario: a daemon is started without the right to write its ledger, and then with it.
/// Guarantee: it names the file, puts nothing aside, and then goes on with what it knew.
#[test]
fn a_read_only_ledger_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let daemon = Daemon::start(&file);
    send(&daemon, 0..60, quiet);
    assert!(daemon.stop().success());
    let ledger = dir.path().join("state/ledger.sqlite");
    std::fs::set_permissions(&ledger, PermissionsExt::from_mode(0o444)).expect("a file of our own");
    let output = without_override(&file).stderr(Stdio::piped()).output().expect("util-linux has `setpriv`");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let names_it = said.contains(&ledger.display().to_string()) && said.contains("Permission denied");
    assert!(output.status.code() == Some(1) && names_it, "{:?}: {said}", output.status);
    assert!(!dir.path().join("state/quarantine-1").exists());
    std::fs::set_permissions(&ledger, PermissionsExt::from_mode(0o600)).expect("a file of our own");
    let daemon = Daemon::start(&file);
    daemon.wait_for("relight_points_total", |n| n == 60.0);
    assert!(daemon.stop().success());
}

/// Scenario: the room that is kept for a full disk is lost while a daemon runs.
/// Guarantee: it is kept again without a restart.
#[test]
fn ballast_is_kept_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let ballast = dir.path().join("state/ballast");
    std::fs::remove_file(&ballast).expect("room is kept at the start");
    wait_until("room", || ballast.exists());
    assert!(daemon.stop().success());
}

/// Scenario: a daemon with a journal is killed, and each of two bits of the journal's head flips; then it is stopped, and the journal
/// is removed.
/// Guarantee: it starts each time. With a damaged head all that was answered comes again; that the journal is gone is told as a gap.
#[test]
fn a_damaged_journal_refuses_no_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, ", journal: fsync");
    let journal = dir.path().join("state/journal/otlp");
    for (known, bit) in [(0, 1), (30, 50)] {
        let daemon = Daemon::start(&file);
        daemon.wait_for("relight_points_total", |n| n == known as f64);
        send(&daemon, known..known + 30, quiet);
        daemon.signal("-KILL");
        assert!(!daemon.wait().success());
        let first = std::fs::read_dir(&journal)
            .expect("a journal")
            .map_while(Result::ok)
            .map(|entry| entry.path())
            .min();
        let first = first.expect("a file");
        let mut bytes = std::fs::read(&first).expect("it is there");
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&first, bytes).expect("a file of our own");
        let daemon = Daemon::start(&file);
        daemon.wait_for("relight_points_total", |n| n == (known + 30) as f64);
        assert!(!readiness(&daemon).contains("gap: "), "nothing is lost");
        assert!(daemon.stop().success());
    }
    std::fs::remove_dir_all(&journal).expect("a folder of our own");
    let daemon = Daemon::start(&file);
    wait_until("word of the gap", || readiness(&daemon).contains("gap: otlp"));
    assert_eq!(daemon.metric("relight_points_total"), Some(60.0));
    assert!(daemon.stop().success());
}
