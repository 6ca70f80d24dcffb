//! With the programs that every system has. Nothing here waits for a length of time to pass but the limits
//! that are tested.

use std::fs;
use std::path::Path;

use relight_core::{Labels, Timestamp};
use rustix::process::test_kill_process;

use super::*;
use crate::sample::incident_and_action;

fn exec(settings: Value) -> Result<Exec, ConfigError> {
    Exec::new(serde_json::from_value(settings).expect("settings"), &Secrets::default())
}

/// A script for a shell that the test itself starts: the responder knows of none.
fn script(text: &str, timeout: &str) -> Exec {
    exec(json!({ "command": ["/bin/sh", "-c", text], "timeout": timeout, "env": { "TOKEN": "canary-7f3a" } }))
        .expect("builds")
}

fn run(exec: &Exec) -> Result<Receipt, ResponderError> {
    let (incident, action) = incident_and_action();
    let plan = exec.plan(&Request { action: &action, incident: &incident }).expect("a plan");
    let attempt = Attempt { number: 2, idempotency_key: "key-1".to_owned(), at: Timestamp::from_secs(0) };
    runtime().block_on(exec.apply(attempt, &plan))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn pid(file: &Path) -> Pid {
    let text = fs::read_to_string(file).expect("the script wrote its number");
    Pid::from_raw(text.trim().parse().expect("a number")).expect("not nought")
}

fn is_alive(pid: Pid) -> bool {
    // A zombie that nobody has reaped yet can be signalled, but runs no more. One that was killed a moment ago
    // ends when it is next scheduled: far sooner than after so many looks.
    let lives = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        test_kill_process(pid).is_ok() && !stat.contains(") Z ")
    };
    (0..1_000_000).all(|_| {
        std::thread::yield_now();
        lives()
    })
}

#[test]
fn exit_codes_are_classified() {
    assert_eq!(run(&script("echo done", "10s")).map(|r| r.summary), Ok("exit 0: done".to_owned()));
    for (text, retry) in [("exit 3", Retry::Never), ("kill -9 $$", Retry::Unknown)] {
        assert_eq!(run(&script(text, "10s")).map_err(|e| e.retry), Err(retry), "{text}");
    }
}

/// Guarantee: the program is told everything on its standard input, and need not listen.
#[test]
fn the_document_is_on_standard_input() {
    let receipt = run(&script("grep -c '\"id\":\"01HF7YAT00TESTTESTTESTTEST-1-0\"'", "10s"));
    assert_eq!(receipt.map(|r| r.summary), Ok("exit 0: 1".to_owned()));
    assert!(run(&script("exec 0<&-; exit 0", "10s")).is_ok());
}

/// Scenario: a program that does not end, obeys no SIGTERM, and has started another one.
/// Guarantee: both are gone when the attempt is over, and it is not known what they did.
#[test]
fn f23_exec_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("grandchild");
    let text = format!("sleep 3600 & echo $! > {}; wait", file.display());
    let error = run(&script(&text, "500ms")).expect_err("it does not end");
    assert_eq!(error.retry, Retry::Unknown);
    assert!(error.message.starts_with("killed after 500ms"), "{error}");
    assert!(!is_alive(pid(&file)));
}

/// Scenario: the program ends at once, and leaves one behind that holds its output open.
#[test]
fn what_is_left_behind_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("left");
    assert!(run(&script(&format!("sleep 3600 & echo $! > {}", file.display()), "60s")).is_ok());
    assert!(!is_alive(pid(&file)));
}

/// Scenario: relight stops while a program runs.
/// Guarantee: giving up on the attempt ends the program and its children.
#[test]
fn an_abandoned_attempt_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("child");
    let exec =
        script(&format!("sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display()), "60s");
    let (incident, action) = incident_and_action();
    let plan = exec.plan(&Request { action: &action, incident: &incident }).expect("a plan");
    let attempt = Attempt { number: 1, idempotency_key: "k".to_owned(), at: Timestamp::from_secs(0) };
    runtime().block_on(async {
        let seen = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = exec.apply(attempt, &plan) => panic!("it does not end by itself"),
            () = seen => {}
        }
    });
    let child = pid(&file);
    for _ in 0..2_000 {
        if !is_alive(child) {
            return;
        }
        std::thread::yield_now();
    }
    assert!(!is_alive(child));
}

/// Guarantee: output beyond the limit is read and dropped: the program ends by itself, and memory stays flat.
#[test]
fn f24_exec_output_flood() {
    let receipt =
        run(&script("yes | head -c 300000000; yes | head -c 100000000 >&2", "60s")).expect("it ends");
    assert!(receipt.summary.len() < 1_000, "{} bytes", receipt.summary.len());
    let flood: &[u8] = &vec![b'y'; 1_000_000];
    assert_eq!(runtime().block_on(keep(Some(flood))).len(), MAX_OUTPUT);
}

/// Scenario: a label that would be a command, an option or two lines elsewhere.
/// Guarantee: nothing is started with it as an argument; as a value on standard input it is just a value.
#[test]
fn f25_exec_injection() {
    let exec = exec(json!({ "command": ["/bin/echo", "{group.service}", "{args.to}", "x{args.to}"] }))
        .expect("builds");
    let (mut incident, action) = incident_and_action();
    for (value, fits) in [
        ("$(rm -rf /)", false),
        ("; id", false),
        ("--flag", false),
        ("-", false),
        ("a\0b", false),
        ("a\nb", false),
        ("", false),
        ("`id`", false),
        ("a b", false),
        ("ü", false),
        ("eu-1/shop:v1.2@x", true),
    ] {
        incident.group = Labels::new([("service".to_owned(), value.to_owned())]);
        let plan = exec.plan(&Request { action: &action, incident: &incident });
        assert_eq!(plan.is_ok(), fits, "{value:?}");
        if let Ok(plan) = plan {
            assert_eq!(plan.body["argv"], json!(["/bin/echo", value, "last_known_good", "x{args.to}"]));
        }
    }
    incident.group = Labels::new([]);
    assert!(exec.plan(&Request { action: &action, incident: &incident }).is_err(), "no such label");
}

/// Guarantee: a program that cannot be started is a failure at once, and says which.
#[test]
fn f26_exec_missing() {
    for program in ["/nonexistent/program", "/etc/passwd", "/"] {
        let error = run(&exec(json!({ "command": [program] })).expect("builds")).expect_err("no program");
        assert_eq!(error.retry, Retry::Never, "{program}");
        assert!(error.message.contains(program), "{error}");
    }
}

/// Guarantee: the program sees what config sets and what relight tells it, and nothing that relight was
/// started with; what it prints of a secret is not shown.
#[test]
fn f27_exec_env_leak() {
    let exec =
        exec(json!({ "command": ["/usr/bin/env"], "env": { "TOKEN": "canary-7f3a" } })).expect("builds");
    let said = run(&exec).expect("it runs").summary;
    let mut names: Vec<&str> =
        said.trim_start_matches("exit 0: ").split("\\n").filter_map(|l| Some(l.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["PATH", "RELIGHT_ACTION", "RELIGHT_ATTEMPT", "RELIGHT_IDEMPOTENCY_KEY", "RELIGHT_INCIDENT", "TOKEN"]
    );
    assert!(said.contains("RELIGHT_IDEMPOTENCY_KEY=key-1") && said.contains("RELIGHT_ATTEMPT=2"), "{said}");
    assert!(!format!("{said} {exec:?}").contains("canary"), "{said}");
    let ours = tempfile::NamedTempFile::new().expect("a file that is open in this process");
    let text = format!("pwd; ls -l /proc/self/fd | grep -c {} || true", ours.path().display());
    let open = run(&script(&text, "10s")).expect("it runs").summary;
    assert_eq!(open, "exit 0: /\\n0", "its folder, and how often it sees our file");
}

#[test]
fn bad_settings_are_refused() {
    for settings in [
        json!({ "command": [] }),
        json!({ "command": ["rollback"] }),
        json!({ "command": ["/bin/true", "a\u{0}b"] }),
        json!({ "command": ["/bin/true"], "timeout": "0s" }),
        json!({ "command": ["/bin/true"], "env": { "A=B": "c" } }),
        json!({ "command": ["/bin/true"], "env": { "RELIGHT_ACTION": "c" } }),
    ] {
        assert!(exec(settings.clone()).is_err(), "{settings}");
    }
}
