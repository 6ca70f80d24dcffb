//! The command line as a person or a script meets it: what is printed where, and the exit code.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

fn relight(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    command.current_dir(folder).args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Three services of which one fails for a while, ten seconds a line.
fn shop(lines: u32) -> String {
    let mut capture = String::new();
    for i in 0..lines {
        let t = 1_763_884_800_000_000_000 + u64::from(i) * 10_000_000_000;
        for (service, base) in [("cart", 20.0), ("checkout", 50.0), ("search", 90.0)] {
            let fails = service == "checkout" && (600..640).contains(&i);
            for metric in ["latency_ms", "queue", "threads"] {
                let value = if fails { base * 9.0 } else { base + f64::from(i * 7 % 5) };
                writeln!(capture, "{{\"t\":{t},\"metric\":\"{metric}\",\"labels\":{{\"service.name\":\"{service}\"}},\"value\":{value}}}")
                    .expect("a String takes every line");
            }
        }
    }
    capture
}

/// Guarantee: each way to call it wrongly ends with the documented exit code and says what to do.
#[test]
fn exit_codes_and_messages() {
    let folder = folder(&[
        ("ok.csv", "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,2\n"),
        ("ok.ndjson", "{\"t\":0,\"metric\":\"m\",\"value\":1}\nnot json\n"),
        ("empty.csv", ""),
        ("bad.ndjson", "not json\nneither\n"),
        ("bad.yaml", "sgnals: {}\nrulez: []\n"),
        ("no_limit.yaml", "signals: {d: {value: d}}\ndetectors: {full: {type: threshold, signal: d}}\n"),
        ("faults.ndjson", "{\"fault\":\"x\",\"start\":\"2014-04-01T00:00:00Z\"}\n"),
    ]);
    for (args, code, said) in [
        (&["replay", "ok.csv"][..], 0, "1 of 1 row still warming up"),
        (&["replay", "ok.ndjson"], 0, "ok.ndjson:2: not a JSON object"),
        (&["replay"], 2, "CAPTURE"),
        (&["replay", "nope.csv"], 2, "`nope.csv`: no such file or folder"),
        (&["replay", "empty.csv"], 1, "`empty.csv` is empty"),
        (&["replay", "bad.yaml"], 2, "pass it as `-c bad.yaml`"),
        (&["replay", "ok.csv", "ok.csv"], 2, "given twice"),
        (&["replay", "ok.csv", "./ok.csv"], 2, "given twice"),
        (&["replay", "ok.csv", "--snapshot-every", "10"], 2, "--state"),
        (&["replay", "ok.csv", "-c", "bad.yaml"], 2, "bad.yaml:1:1: sgnals: unknown key"),
        (&["replay", "ok.csv", "--threads", "0"], 2, "--threads"),
        (&["replay", "ok.csv", "--labels", "faults.ndjson"], 2, "faults.ndjson:1: missing field `end`"),
        (&["replay", "ok.csv", "--fail-if", "recall < 1"], 2, "needs --labels"),
        (&["replay", "ok.ndjson", "--scores", "s.csv"], 2, "a `timestamp,value` CSV"),
        (&["replay", "ok.csv", "--scores", "./ok.csv"], 2, "would overwrite the capture"),
        (&["replay", "bad.ndjson"], 1, "all 2 lines were refused"),
        (&["replay", "ok.csv", "--fail-if", "points == 2"], 3, "points is 2"),
        (&["replay", "ok.csv", "--fail-if", "points > 2"], 0, "warming up"),
        (&["replay", "ok.csv", "--fail-if", "points > 2m"], 2, "`points` is a number and `2m` a time"),
        (&["check", "-c", "bad.yaml"], 2, "bad.yaml:2:1: rulez: unknown key"),
        (
            &["check", "-c", "no_limit.yaml"],
            2,
            "detectors.full.above: no limit: nothing is ever anomalous; set `above`",
        ),
        (&["explain", "nothing"], 2, "no detector, responder or metric is named `nothing`"),
        (&["explain", "EWMA"], 2, "did you mean `ewma`?"),
        (&["explain", "relight_point_total"], 2, "did you mean `relight_points_total`?"),
        (&["explain", "relight_points_total"], 0, ""),
        (&["explain", "adaptive"], 0, ""),
        (&["schema"], 0, ""),
        (&["completions", "bash"], 0, ""),
    ] {
        let output = relight(folder.path(), args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{args:?}: {error}");
        assert!(
            !error.contains('\u{1B}') && !text(&output.stdout).contains('\u{1B}'),
            "{args:?}: colours in a pipe"
        );
        assert_eq!(output.stdout.is_empty(), code == 1 || code == 2, "{args:?}");
    }
}

#[test]
fn scores_have_a_row_for_each_row() {
    let mut rows = String::new();
    for i in 0..500 {
        writeln!(rows, "{},{}", 1_396_310_400 + i * 300, i % 7).expect("a String takes every line");
    }
    let folder = folder(&[("a.csv", &format!("timestamp,value\n{rows}"))]);
    let output = relight(folder.path(), &["replay", "a.csv", "--scores", "s.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let scores = std::fs::read_to_string(folder.path().join("s.csv")).expect("it is there");
    let (header, scored) = scores.split_once('\n').expect("a header");
    assert_eq!(header, "timestamp,value,anomaly_score");
    let as_written = scored.lines().filter_map(|line| line.rsplit_once(','));
    assert!(as_written.map(|(row, _)| row).eq(rows.lines()), "{scores}");
}

/// Scenario: the same capture with 1, 2 and 8 threads, with a state folder, and with one that holds it already.
/// Guarantee: `--json` is the same to the byte.
#[test]
fn json_depends_on_the_capture_alone() {
    let whole = shop(900);
    let folder = folder(&[("shop.ndjson", &whole)]);
    let json = |args: &[&str]| {
        let output = relight(folder.path(), &[&["replay", "shop.ndjson", "--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let expected = json(&["--threads", "1"]);
    assert!(expected.contains("\"record\":\"incident\"") && expected.contains("checkout"), "{expected}");
    for threads in ["2", "8"] {
        assert_eq!(json(&["--threads", threads]), expected, "{threads} threads");
    }
    assert_eq!(json(&["--state", "whole"]), expected, "with a state folder");
    assert_eq!(json(&["--state", "whole"]), expected, "with nothing new to read");
}

/// Scenario: the ledger of a state folder is lost, and the folder is used again, twice.
/// Guarantee: that is told once; the ledger that took its place stays.
#[test]
fn a_lost_ledger_is_told_once() {
    let folder = folder(&[("a.ndjson", &shop(60)), ("b.ndjson", &shop(120)), ("c.ndjson", &shop(180))]);
    let replay = |capture: &str| {
        let output = relight(folder.path(), &["replay", capture, "--state", "state"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    replay("a.ndjson");
    for entry in std::fs::read_dir(folder.path().join("state")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger.sqlite")) {
            std::fs::remove_file(path).expect("it can be removed");
        }
    }
    assert!(replay("b.ndjson").contains("the ledger was moved"));
    let after = replay("c.ndjson");
    assert!(!after.contains("the ledger was moved"), "{after}");
}
