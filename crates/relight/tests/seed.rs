//! `--seed`: what was recorded earlier is known from the first bin on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const CONFIG: &str = "\
interval: 5m
signals:
  orders: {value: {of: orders, aggregate: mean}, by: [shop]}
detectors:
  curve: {type: seasonal, signal: orders, period: day}
rules:
  - {name: odd, when: curve.score > 1.0, for: 5m, group_by: [shop]}
";
const BIN_SECS: u64 = 300;
const BINS_A_DAY: u64 = 288;
/// A Monday, 00:00 UTC.
const START_SECS: u64 = 1_763_942_400;
/// The hour of the spike in the day that is judged, when the curve is near its middle.
const SPIKE: std::ops::Range<u64> = 150..156;

/// Five-minute values of two shops with a daily curve of their own, days counted from [`START_SECS`].
fn days(days: std::ops::Range<u64>, spike: bool) -> String {
    let mut capture = String::new();
    for bin in days.start * BINS_A_DAY..days.end * BINS_A_DAY {
        let t = (START_SECS + bin * BIN_SECS) * 1_000_000_000;
        let hours = (bin % BINS_A_DAY) as f64 * 24.0 / BINS_A_DAY as f64;
        for (shop, phase) in [("north", 0.0), ("south", 5.0)] {
            let curve = 100.0 + 50.0 * ((hours - phase) / 24.0 * std::f64::consts::TAU).sin();
            let noise = (bin * 7 % 5) as f64 - 2.0;
            let odd = spike && shop == "north" && SPIKE.contains(&(bin % BINS_A_DAY));
            let value = curve + noise + if odd { 60.0 } else { 0.0 };
            writeln!(
                capture,
                "{{\"t\":{t},\"metric\":\"orders\",\"labels\":{{\"shop\":\"{shop}\"}},\"value\":{value}}}"
            )
            .expect("a String takes every line");
        }
    }
    capture
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("config.yaml", CONFIG.to_owned()),
        ("earlier.ndjson", days(0..14, false)),
        ("day.ndjson", days(14..15, true)),
        ("calm.ndjson", days(14..15, false)),
    ] {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

fn replay(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    let command = command.current_dir(folder).args(["replay", "-c", "config.yaml"]).args(args);
    command.output().expect("the binary runs")
}

fn told(folder: &Path, args: &[&str]) -> String {
    let output = replay(folder, args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn findings(folder: &Path, args: &[&str]) -> u64 {
    let text = told(folder, &[args, &["--json"]].concat());
    let totals: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("totals come first")).expect("a line is an object");
    totals["findings"].as_u64().expect("it is counted")
}

/// Scenario: a day with a spike, and the same day without, after two weeks of the same daily curve.
/// Guarantee: seeded, the curve is no finding and each value of the spike is one; unseeded, the first day says nothing.
#[test]
fn a_seeded_curve_is_known_from_the_first_bin_on() {
    let folder = folder();
    let seed = ["--seed", "earlier.ndjson"];
    for (capture, args, expected) in [
        ("calm.ndjson", &[][..], 0),
        ("day.ndjson", &[], 0),
        ("calm.ndjson", &seed, 0),
        ("day.ndjson", &seed, SPIKE.count() as u64),
    ] {
        assert_eq!(findings(folder.path(), &[&[capture], args].concat()), expected, "{capture} {args:?}");
    }
    let summary = told(folder.path(), &["day.ndjson", "--seed", "earlier.ndjson"]);
    let seeded =
        "seeded 2 rows from 2025-11-24T00:00:00Z to 2025-12-07T23:55:00Z, effective at 2025-12-07T23:55:00Z";
    assert!(summary.contains(seeded), "{summary}");
    assert!(summary.contains("onset      2025-12-08T12:30:00Z"), "{summary}");
}

/// Scenario: earlier captures with a value in one bin, which is thus their last.
/// Guarantee: that nothing was learned of them is told, and why.
#[test]
fn a_seed_of_one_bin_teaches_nothing() {
    let folder = folder();
    let bin: Vec<String> = days(13..14, false).lines().take(2).map(str::to_owned).collect();
    std::fs::write(folder.path().join("bin.ndjson"), bin.join("\n")).expect("it can be written");
    let summary = told(folder.path(), &["calm.ndjson", "--seed", "bin.ndjson"]);
    assert!(summary.contains("seeded no rows: no signal has a value before the last bin"), "{summary}");
}

/// Guarantee: with any number of threads, with a state folder, and from such a folder without the seed, the same is told.
#[test]
fn seeding_depends_on_the_captures_alone() {
    let folder = folder();
    let json = |args: &[&str]| told(folder.path(), &[&["day.ndjson", "--json"], args].concat());
    let seed = ["--seed", "earlier.ndjson"];
    let expected = json(&[&seed[..], &["--threads", "1"]].concat());
    assert!(expected.contains("\"record\":\"incident\""), "{expected}");
    for threads in ["2", "8"] {
        assert_eq!(json(&[&seed[..], &["--threads", threads]].concat()), expected, "{threads} threads");
    }
    assert_eq!(json(&[&seed[..], &["--state", "warm"]].concat()), expected, "with a state folder");
    assert_eq!(json(&["--state", "warm"]), expected, "with nothing new to read");
}

/// Scenario: a seeded run with `--state` ends at noon, before one of its shops is first named; the rest is written later.
/// Guarantee: the rest is judged as if it had been there at once: the folder keeps the past of rows that only the seed named.
#[test]
fn a_state_folder_keeps_what_was_seeded() {
    let folder = folder();
    let day = days(14..15, true);
    let noon = day.match_indices('\n').nth(BINS_A_DAY as usize - 1).expect("a line a shop and bin").0 + 1;
    let morning = day[..noon].replace("\"orders\",\"labels\":{\"shop\":\"north\"}", "\"visits\"");
    let whole = morning.clone() + &day[noon..];
    let shown =
        |text: &str| std::fs::write(folder.path().join("day.ndjson"), text).expect("it can be written");
    let json = |args: &[&str]| told(folder.path(), &[&["day.ndjson", "--json"], args].concat());
    shown(&whole);
    let expected = json(&["--seed", "earlier.ndjson"]);
    assert!(expected.contains("\"record\":\"incident\""), "{expected}");
    shown(&morning);
    json(&["--seed", "earlier.ndjson", "--state", "warm"]);
    shown(&whole);
    assert_eq!(json(&["--state", "warm"]), expected);
}

/// Scenario: a seeded run with `--state` is killed long before its first snapshot is due.
/// Guarantee: the folder holds the seed all the same, and going on without `--seed` tells what an undisturbed run tells.
#[test]
fn a_killed_run_need_not_be_seeded_again() {
    let folder = folder();
    let stream = days(14..75, true);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
        command.current_dir(folder.path()).args(["replay", "-c", "config.yaml", "-", "--json"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs")
    };
    let feed = |run: &mut Child, text: &str| {
        let input = run.stdin.as_mut().expect("it is piped and still open");
        input.write_all(text.as_bytes()).expect("the run takes it");
    };
    let told = |mut run: Child| {
        feed(&mut run, &stream);
        let output = run.wait_with_output().expect("it is a child");
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let expected = told(run(&["--seed", "earlier.ndjson"]));
    assert!(expected.contains("\"record\":\"incident\""), "{expected}");
    let mut killed = run(&["--seed", "earlier.ndjson", "--state", "warm"]);
    // More than a pipe and a reader's buffers hold: when it is written, the run is past its seed.
    feed(&mut killed, &stream[..2 << 20]);
    killed.kill().expect("it is still running: its input has not ended");
    killed.wait().expect("it is a child");
    assert_eq!(told(run(&["--state", "warm"])), expected);
}

/// Guarantee: what cannot be a seed is refused, and the message says what to do.
#[test]
fn what_cannot_be_a_seed() {
    let folder = folder();
    std::fs::write(folder.path().join("none.ndjson"), "{\"t\":0,\"event\":\"deploy\"}\n")
        .expect("it can be written");
    told(folder.path(), &["calm.ndjson", "--state", "used"]);
    for (args, said) in [
        (&["day.ndjson", "--seed", "day.ndjson"][..], "`day.ndjson` is given both as --seed and as capture"),
        (&["day.ndjson", "--seed", "."], "day.ndjson` is given both as --seed and as capture"),
        (&["day.ndjson", "--seed", "nope"], "`nope`: no such file or folder"),
        (&["earlier.ndjson", "--seed", "day.ndjson"], "seed with what was recorded before it"),
        (&["day.ndjson", "--seed", "earlier.ndjson", "--state", "used"], "the state folder is not empty"),
    ] {
        let output = replay(folder.path(), args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
    let nothing = replay(folder.path(), &["day.ndjson", "--seed", "none.ndjson"]);
    let error = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert_eq!(nothing.status.code(), Some(1), "{error}");
    assert!(error.contains("there is no point in the earlier captures"), "{error}");
}
