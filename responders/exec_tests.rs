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

/// Whether it runs. A zombie that nobody has reaped yet can be signalled, but runs no more.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

/// Waits for the end of a process that was killed: the kernel says when, and one that was not killed never ends.
fn has_ended(pid: Pid) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    // Far longer than a kill takes; what was not killed sleeps for an hour.
    let most = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&most)) == Ok(1)
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

/// The program's output, written line by line to a file that the test waits for.
async fn seen(file: &Path) {
    while !file.exists() {
        tokio::task::yield_now().await;
    }
}

/// Runs a program until it has written a file; then its whole time passes at once, whatever the machine is at.
fn run_past_its_time(exec: &Exec, file: &Path, key: &str) -> ResponderError {
    let (incident, action) = incident_and_action();
    let plan = exec.plan(&Request { action: &action, incident: &incident }).expect("a plan");
    let attempt = Attempt { number: 1, idempotency_key: key.to_owned(), at: Timestamp::from_secs(0) };
    runtime().block_on(async {
        let apply = exec.apply(attempt, &plan);
        tokio::pin!(apply);
        tokio::select! {
            biased;
            _ = &mut apply => panic!("its time has not passed"),
            () = seen(file) => tokio::time::pause(),
        }
        // A thread that waits for the program keeps tokio's time from going on by itself.
        let goes_on = async {
            loop {
                tokio::time::advance(Duration::from_mins(10)).await;
            }
        };
        tokio::select! {
            biased;
            ended = &mut apply => ended.expect_err("it does not end"),
            () = goes_on => unreachable!("time goes on for ever"),
        }
    })
}

/// Scenario: a program that does not end, obeys no SIGTERM, and has started another one.
/// Guarantee: both are gone when the attempt is over, and it is not known what they did.
#[test]
fn f23_exec_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("grandchild");
    let text =
        format!("trap '' TERM; sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait; wait", file.display());
    let error = run_past_its_time(&script(&text, "1h"), &file, "f23");
    assert_eq!(error.retry, Retry::Unknown);
    assert!(error.message.starts_with("killed after 3600s"), "{error}");
    assert!(has_ended(pid(&file)));
}

/// Scenario: a program that does not end in its time has started one in a session of its own, which has let go of the
/// output; then an attempt with such a one is given up.
/// Guarantee: both are ended; of another attempt with the same variables nothing is.
#[test]
fn a_program_in_a_session_of_its_own_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let [timed_out, given_up, other] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let text = |file: &Path| {
        let start =
            "setsid sh -c 'echo $$ > FILE.new; mv FILE.new FILE; exec sleep 3600' > /dev/null 2>&1 & wait";
        start.replace("FILE", &file.display().to_string())
    };
    run_past_its_time(&script(&text(&timed_out), "1h"), &timed_out, "strays");
    assert!(has_ended(pid(&timed_out)));

    abandon(&script(&text(&other), "1h"), &other, "strays-2", |_| {
        abandon(&script(&text(&given_up), "1h"), &given_up, "strays", |_| {});
        assert!(has_ended(pid(&given_up)));
        assert!(is_alive(pid(&other)));
    });
    assert!(has_ended(pid(&other)));
}

/// Scenario: the program ends at once, and leaves one behind that holds its output open.
#[test]
fn what_is_left_behind_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("left");
    assert!(run(&script(&format!("sleep 3600 & echo $! > {}", file.display()), "60s")).is_ok());
    assert!(has_ended(pid(&file)));
}

/// Runs a program until it has written a file, does something meanwhile, and gives the attempt up.
fn abandon(exec: &Exec, file: &Path, key: &str, meanwhile: impl FnOnce(Pid)) {
    let (incident, action) = incident_and_action();
    let plan = exec.plan(&Request { action: &action, incident: &incident }).expect("a plan");
    let attempt = Attempt { number: 1, idempotency_key: key.to_owned(), at: Timestamp::from_secs(0) };
    let runtime = runtime();
    let apply = exec.apply(attempt, &plan);
    let mut apply = Box::pin(apply);
    runtime.block_on(async {
        tokio::select! {
            _ = &mut apply => panic!("it does not end by itself"),
            () = seen(file) => {}
        }
    });
    meanwhile(pid(file));
    let _in_runtime = runtime.enter();
    drop(apply);
}

/// Scenario: relight stops while a program runs.
/// Guarantee: giving up on the attempt ends the program and its children.
#[test]
fn an_abandoned_attempt_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("child");
    let exec =
        script(&format!("sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display()), "60s");
    abandon(&exec, &file, "k", |child| assert!(is_alive(child)));
    assert!(has_ended(pid(&file)));
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
        ("../../etc/shadow", false),
        ("a/..", false),
        ("..", false),
        ("v1..v2", false),
        ("@/etc/passwd", false),
        ("root@db", false),
        ("shop@sha256:0123", false),
        ("eu-1/shop:v1.2", true),
        ("./a.b/.c", true),
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

/// Guarantee: `..` and `@` pass where `allow` names them, each by itself; what stands in the config is nobody's label.
#[test]
fn what_an_argument_may_contain_is_allowed_by_name() {
    let (mut incident, action) = incident_and_action();
    let image = "shop@sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";
    for (allow, value, fits) in [
        (json!(["@"]), image, true),
        (json!(["@"]), "v1..v2", false),
        (json!([".."]), "v1..v2", true),
        (json!([".."]), image, false),
        (json!(["@", ".."]), "a@b..c", true),
        (json!(["@", ".."]), "-@..", false),
        (json!([]), image, false),
    ] {
        let exec =
            exec(json!({ "command": ["/bin/echo", "user@host:..", "{group.service}"], "allow": allow }));
        incident.group = Labels::new([("service".to_owned(), value.to_owned())]);
        let plan = exec.expect("builds").plan(&Request { action: &action, incident: &incident });
        assert_eq!(plan.is_ok(), fits, "{allow} {value}: {plan:?}");
    }
}

/// Guarantee: a program that cannot be started is a failure at once, and says which.
#[test]
fn f26_exec_missing() {
    for program in ["/nonexistent/program", "/etc/passwd", "/"] {
        let error = run(&exec(json!({ "command": [program] })).expect("builds")).expect_err("no program");
        assert_eq!(error.retry, Retry::Unsent(NotSent::Start), "{program}");
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
    // As librdkafka opens its pipes: the system would hand it on.
    rustix::io::fcntl_setfd(ours.as_file(), rustix::io::FdFlags::empty()).expect("it is open");
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
