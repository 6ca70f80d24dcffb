//! Files, streams and texts that belong to others: none of them stops it, and none of them speaks through it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::daemon::*;

/// A pipe without a writer: opened without care, it blocks for ever.
fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a folder of our own");
}

/// Scenario: the file of a page's address becomes a pipe while relight runs; then the data leave their band.
/// Guarantee: the page leaves by the last good address; listener, `/healthz` and SIGTERM work.
#[test]
fn a_secret_that_becomes_a_pipe_blocks_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let hook = Hook::hanging();
    hook.answer();
    let secret = dir.path().join("url");
    std::fs::write(&secret, format!("http://{}/hook\n", hook.address)).expect("a folder of our own");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("ours");
    let file = config(dir.path(), hook.address, "");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let of_file = format!("url_file: \"{}\"", secret.display());
    let text = text.replace(&format!("url: \"http://{}/hook\"", hook.address), &of_file);
    assert!(text.contains("url_file"), "{text}");
    std::fs::write(&file, text).expect("a folder of our own");
    let daemon = Daemon::start(&file);
    send(&daemon, 0..120, quiet);
    std::fs::remove_file(&secret).expect("it was written");
    make_pipe(&secret);
    send(&daemon, 120..130, |_| 50.0);
    assert!(!hook.key().is_empty());
    assert!(request(daemon.admin, "GET", "/healthz", "").starts_with("HTTP/1.1 200"));
    send(&daemon, 130..140, |_| 50.0);
    daemon.wait_for("relight_points_total", |n| n == 140.0);
    // Read again, with all that it names: refused, and the config stays.
    daemon.signal("-HUP");
    daemon.wait_for("relight_config_last_reload_successful", |taken| taken == 0.0);
    assert!(daemon.stop().success());
}

/// Leaves pauses whose reasons fill the log with this many bytes.
fn shout(dir: &Path, bytes: usize) {
    let reason = "x".repeat(15_000);
    for i in 0..bytes / reason.len() {
        leave(dir, &format!("{i:09}"), &format!(r#"{{"verb": "pause", "target": "{reason}"}}"#));
    }
}

/// Leaves a file among the commands, whole.
fn leave(dir: &Path, name: &str, text: &str) {
    let commands = dir.join("state/commands");
    let draft = commands.join(format!("{name}.new"));
    std::fs::write(&draft, text).expect("the daemon made the folder");
    std::fs::rename(&draft, commands.join(format!("{name}.json"))).expect("a folder of our own");
}

/// Scenario: standard error is a pipe that nobody reads, and far more is said than it holds; it is told to stop. Then the
/// same, but for a reader that comes back.
/// Guarantee: points are taken and counted, `/healthz` answers, and it stops with a last snapshot; the reader that comes
/// back is told how many lines it has missed, and so is a metric.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let mut command = relight();
    command.args(["run", "-c"]).arg(&file).stderr(Stdio::piped());
    let mut points = 0;
    for reads_again in [false, true] {
        let mut daemon = Daemon::of(&mut command).expect("it starts");
        shout(dir.path(), 1_500_000);
        daemon.wait_for("relight_log_lines_dropped_total", |n| n > 0.0);
        send(&daemon, points..points + 20, quiet);
        points += 20;
        daemon.wait_for("relight_points_total", |n| n == points as f64);
        assert!(request(daemon.admin, "GET", "/healthz", "").starts_with("HTTP/1.1 200"));
        let mut said = daemon.child.stderr.take().expect("it is piped");
        if reads_again {
            let mut lines = BufReader::new(&mut said).lines().map_while(Result::ok);
            let told = lines.find(|line| line.contains("log lines were dropped")).expect("a line");
            assert!(told.contains("standard error was not read in time"), "{told}");
        }
        // A little is read after the end, so that the pipe lives until then.
        assert!(daemon.stop().success());
        let _ = said.read(&mut [0; 16]);
    }
    let daemon = Daemon::start(&file);
    daemon.wait_for("relight_points_total", |n| n == points as f64);
    assert!(daemon.stop().success());
}

/// The lines that a daemon says on standard error.
fn lines(daemon: &mut Daemon) -> Receiver<String> {
    let (tell, told) = channel();
    let said = BufReader::new(daemon.child.stderr.take().expect("it is piped"));
    std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    told
}

/// Scenario: among the commands are a pipe, a link to a command elsewhere, a folder and a text that is none; behind them is a
/// pause whose reason would clear the screen and forge a line.
/// Guarantee: the pause is obeyed, each of the others is named once, however often the folder is looked at, and nothing of
/// the reason reaches a terminal as anything but text.
#[test]
fn what_is_no_command_is_named_once_and_harms_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let mut command = relight();
    let mut daemon =
        Daemon::of(command.args(["run", "-c"]).arg(&file).stderr(Stdio::piped())).expect("it starts");
    let told = lines(&mut daemon);
    let at = |name: &str| dir.path().join("state/commands").join(name);
    make_pipe(&at("1.json"));
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, r#"{"verb": "resume", "target": ""}"#).expect("a folder of our own");
    symlink(&elsewhere, at("2.json")).expect("a folder of our own");
    std::fs::create_dir(at("3.json")).expect("a folder of our own");
    leave(dir.path(), "4", "no JSON");
    leave(dir.path(), "5", r#"{"verb": "pause", "target": "\u001b[2J\nerror: forged\u202e"}"#);
    daemon.wait_for("relight_held{hold=\"paused\"}", |held| held == 1.0);
    // Looked at again, more than once.
    for (name, hold) in [("6", "resume"), ("7", "pause")] {
        leave(dir.path(), name, &format!(r#"{{"verb": "{hold}", "target": ""}}"#));
        wait_until("that it is obeyed", || !at(&format!("{name}.json")).exists());
    }
    assert!(daemon.stop().success());
    let said: Vec<String> = told.iter().collect();
    for name in ["1", "2", "3", "4"] {
        let of = format!("{} is no command", at(&format!("{name}.json")).display());
        assert_eq!(said.iter().filter(|line| line.contains(&of)).count(), 1, "{name}: {said:#?}");
    }
    assert!(elsewhere.exists());
    assert!(
        said.iter().any(|line| line.contains(r"command: pause \u{1b}[2J\nerror: forged\u{202e}")),
        "{said:#?}"
    );
    assert!(said.iter().all(|line| !line.contains(|c: char| c.is_control() || c == '\u{202e}')), "{said:#?}");
}

/// Guarantee: a config whose name or keys would move the cursor is refused in plain text, an error a line.
#[test]
fn the_errors_of_a_config_are_plain_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a\u{1b}[31m\nb.yaml");
    std::fs::write(&file, "\"x\\e[2J\\nc.yaml:1:1: forged\": 1\n").expect("a folder of our own");
    for path in [file.clone(), dir.path().join("none\n\u{1b}")] {
        let output = relight().args(["check", "-c"]).arg(&path).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
        assert!(
            said.lines().all(|line| !line.starts_with("b.yaml") && !line.starts_with("c.yaml")),
            "{said}"
        );
    }
}

/// Guarantee: no core is dumped, whatever the shell allows.
#[test]
fn core_dumps_are_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = config(dir.path(), NOBODY, "");
    let mut command = Command::new("sh");
    let run = "ulimit -c unlimited; exec \"$0\" run -c \"$1\"";
    let daemon = Daemon::of(command.args(["-c", run, env!("CARGO_BIN_EXE_relight")]).arg(&file));
    let daemon = daemon.expect("it starts, and the hard limit allows cores");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert!(daemon.stop().success());
}
