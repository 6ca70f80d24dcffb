//! What `replay` tells when there is less in the result than was hoped for.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const START_SECS: u64 = 1_763_884_800;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

fn replay(folder: &TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    command.current_dir(folder.path()).arg("replay").args(args).output().expect("the binary runs")
}

/// Exit code, standard output and standard error.
fn told(folder: &TempDir, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = replay(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// Rows of a table, 60 s apart, with a spike at some of them.
fn table(rows: std::ops::Range<u64>, spikes: std::ops::Range<u64>) -> String {
    let mut text = "timestamp,value\n".to_owned();
    for i in rows {
        let value = if spikes.contains(&i) { 500 } else { 100 + i * 7 % 5 };
        writeln!(text, "{},{value}", START_SECS + i * 60).expect("a String takes every line");
    }
    text
}

/// Points of one service, 5 s apart.
fn points(which: std::ops::Range<u64>) -> String {
    let mut text = String::new();
    for i in which {
        let (t, value) = (START_SECS + i * 5, 20 + i * 7 % 5);
        let line =
            format!(r#"{{"t":{t},"metric":"latency_ms","labels":{{"service":"cart"}},"value":{value}}}"#);
        writeln!(text, "{line}").expect("a String takes every line");
    }
    text
}

/// Scenario: a misspelt metric, a label that no series has, and an event that never came.
/// Guarantee: each is told with its signal and key, and with the nearest name where one is near.
#[test]
fn what_a_config_never_met_is_told() {
    let config = "signals:\n  slow: {value: latncy_ms, by: [service]}\n  odd: {value: latency_ms, by: [svc]}\n\
                  \x20 deploys: {events: deploy, by: [service]}\n";
    let folder = folder(&[("a.ndjson", &points(0..200)), ("c.yaml", config)]);
    let (code, _, notes) = told(&folder, &["a.ndjson", "-c", "c.yaml"]);
    assert_eq!(code, Some(0), "{notes}");
    for said in [
        "signal `slow`: nothing matched `value: latncy_ms`; did you mean `latency_ms`?",
        "signal `odd`: no series of it has the label `svc` of `by`",
        "signal `deploys`: nothing matched `events: deploy`",
    ] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
}

/// Scenario: a wild value after 59 rows, and the same with enough rows before it.
/// Guarantee: that it could not be judged yet is told, and only then.
#[test]
fn a_warm_up_is_told() {
    let folder = folder(&[("short.csv", &table(0..60, 59..60)), ("long.csv", &table(0..300, 299..300))]);
    let warm = "1 of 1 row still warming up at the end: `adaptive` finds nothing in a row before it has seen 100 values";
    let (_, summary, notes) = told(&folder, &["short.csv"]);
    assert!(notes.contains(warm) && summary.contains("0 findings in 1 row over 60 bins"), "{notes}{summary}");
    let (_, summary, notes) = told(&folder, &["long.csv"]);
    assert!(notes.is_empty() && summary.contains("1 finding in 1 row over 300 bins"), "{notes}{summary}");
}

/// Scenario: a state folder that is asked again, that goes on between two bins, and that was cut within one.
/// Guarantee: what is of earlier runs is told, and late points with why they are late and what to do.
#[test]
fn what_a_state_folder_brings_along_is_told() {
    let folder = folder(&[
        ("r1.ndjson", &points(0..201)),
        ("r2.ndjson", &points(201..400)),
        ("calm.ndjson", &points(400..600)),
    ]);
    let notes = |args: &[&str]| told(&folder, &[args, &["--state", "s"]].concat()).2;
    assert!(!notes(&["r1.ndjson"]).contains("earlier run"));
    let again = notes(&["r1.ndjson"]);
    assert!(again.contains("0 new records: what is shown is from the earlier runs"), "{again}");
    let seam = notes(&["r2.ndjson"]);
    assert!(seam.contains("1 new point came too late: an earlier run of this state folder closed"), "{seam}");
    let on = notes(&["calm.ndjson"]);
    assert!(on.contains("400 of 600 records are from the earlier runs"), "{on}");
}

/// Deltas of one series by two writers, each every 10 s, the second one 3 s behind.
fn two_writers(service: &str) -> String {
    let mut text = String::new();
    for i in 0..40 {
        let start = START_SECS + i / 2 * 10 + i % 2 * 3;
        let end = start + 10;
        let line = format!(
            r#"{{"t":{end},"start":{start},"kind":"delta","metric":"orders","labels":{{"service":"{service}"}},"value":1}}"#
        );
        writeln!(text, "{line}").expect("a String takes every line");
    }
    text
}

/// Scenario: deltas of two writers under one name, of one series and of two hundred; and of one writer.
/// Guarantee: series are named, few of them, and the same for any number of threads.
#[test]
fn c14_who_overlaps_is_told() {
    let all: String = (0..200).map(|i| two_writers(&format!("s{i:03}{}", "x".repeat(500)))).collect();
    let mut all: Vec<&str> = all.lines().collect();
    all.sort_by_key(|line| line.get(..15));
    let one = two_writers("cart").lines().step_by(2).map(|line| line.to_owned() + "\n").collect::<String>();
    let folder = folder(&[
        ("two.ndjson", &two_writers("cart")),
        ("all.ndjson", &all.join("\n")),
        ("one.ndjson", &one),
    ]);
    let (_, summary, notes) = told(&folder, &["two.ndjson"]);
    let named = r#"delta_overlap: deltas whose times overlap, such as those of orders{service="cart"}: the first one counts"#;
    assert!(notes.contains(named) && summary.contains("20 of overlapping deltas"), "{notes}{summary}");
    assert!(!told(&folder, &["one.ndjson"]).2.contains("overlap"));
    let of = |threads: &str| told(&folder, &["all.ndjson", "--json", "--threads", threads]);
    let (code, json, notes) = of("1");
    assert!(code == Some(0) && json.contains(r#""delta_overlap":4000"#), "{json}");
    assert_eq!(notes.matches("orders{service=").count(), 3, "{notes}");
    assert!(notes.lines().all(|line| line.len() < 1_000), "{notes}");
    for threads in ["2", "8"] {
        assert_eq!(of(threads), (code, json.clone(), notes.clone()), "{threads} threads");
    }
}

/// Scenario: two replicas send one counter with clocks apart; another counter falls by a little once.
/// Guarantee: the first is named and its points are refused; the fall is counted as a correction.
#[test]
fn a17_a18_falls_of_counters_are_told() {
    let line = |name: &str, ms: u64, value: u64| {
        format!(
            r#"{{"t":{ms},"metric":"{name}","labels":{{"service":"cart"}},"kind":"cumulative","value":{value}}}"#
        )
    };
    let (mut two, mut one) = (String::new(), String::new());
    for i in 0..40 {
        let ms = START_SECS * 1_000 + i / 2 * 15_000 + i % 2 * 700;
        two += &(line("orders_total", ms, 1_000_000 + i / 2 * 1_800 - i % 2 * 875) + "\n");
        let fell = if i == 30 { 25_000 } else { 0 };
        one += &(line("bytes_total", START_SECS * 1_000 + i * 10_000, 1_000_000 + i * 10_000 - fell) + "\n");
    }
    let folder = folder(&[("two.ndjson", &two), ("one.ndjson", &one)]);
    let (_, summary, notes) = told(&folder, &["two.ndjson"]);
    let named = r#"shared_counter: several writers share a counter, such as orders_total{service="cart"}"#;
    assert!(
        notes.contains(named) && summary.contains("of counters that several writers share"),
        "{notes}{summary}"
    );
    let (_, _, notes) = told(&folder, &["one.ndjson"]);
    assert!(notes.contains("counters fell 1 time by a little"), "{notes}");
    let (_, json, _) = told(&folder, &["one.ndjson", "--json"]);
    assert!(json.contains(r#""counter_falls":{"correction":1}"#), "{json}");
}

/// Scenario: rows that stand in no order, with a spike that opens an incident.
/// Guarantee: no time of it is printed, in JSON it is null, and labels, which name times, are refused.
#[test]
fn times_of_an_unsorted_table_are_not_known() {
    let (late, early) = (table(400..800, 700..720), table(0..400, 0..0));
    let early = early.strip_prefix("timestamp,value\n").expect("its header");
    let fault = r#"{"fault":"x","start":"2025-11-23T20:00:00Z","end":"2025-11-23T21:00:00Z"}"#;
    let rules = "interval: sample\nrules:\n  - {name: odd, when: adaptive.score > 1.0}\n";
    let folder = folder(&[
        ("u.csv", &(late.clone() + early)),
        ("ok.csv", &late),
        ("f.ndjson", fault),
        ("c.yaml", rules),
    ]);
    for (file, known) in [("ok.csv", true), ("u.csv", false)] {
        let (code, summary, notes) = told(&folder, &[file, "-c", "c.yaml"]);
        assert_eq!(code, Some(0), "{notes}");
        assert!(summary.contains("incident odd"), "{summary}");
        assert_eq!(
            summary.contains("times      not known: the file is not in order of time"),
            !known,
            "{summary}"
        );
        assert_eq!(summary.contains("2025-11-2"), known, "{summary}");
        let (_, json, _) = told(&folder, &[file, "-c", "c.yaml", "--json"]);
        assert_eq!(json.contains("\"onset\":null") && json.contains("\"first\":null"), !known, "{json}");
        let (code, _, error) = told(&folder, &[file, "-c", "c.yaml", "--labels", "f.ndjson"]);
        assert_eq!(code == Some(1) && error.contains("not in order of time"), !known, "{error}");
    }
}

/// Scenario: captures and seeds without a single record, alone and among others.
/// Guarantee: alone they fail the run with 1 and say why; among others they are a note.
#[test]
fn a_run_that_read_nothing_has_failed() {
    let folder = folder(&[
        ("empty.csv", ""),
        ("header.csv", "timestamp,value\n"),
        ("bad.ndjson", "x\n"),
        ("pretty.json", "{\n \"resourceMetrics\": []\n}\n"),
        ("a.csv", &table(0..150, 0..0)),
    ]);
    for (args, said) in [
        (&["empty.csv"][..], "`empty.csv` is empty"),
        (&["header.csv"], "there is no record in the captures"),
        (&["bad.ndjson"], "all 1 lines were refused"),
        (&["pretty.json"], "a line is expected, as `jq -c . pretty.json` writes it"),
        (&["a.csv", "--seed", "bad.ndjson"], "nothing could be read of --seed"),
        (&["a.csv", "--seed", "header.csv"], "nothing could be read of --seed"),
    ] {
        let (code, summary, error) = told(&folder, args);
        assert_eq!((code, summary.as_str()), (Some(1), ""), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
    let (code, _, notes) = told(&folder, &["."]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(
        notes.contains("empty.csv` is empty") && notes.contains("pretty.json` is JSON spread"),
        "{notes}"
    );
}

/// Scenario: labels that are compressed, that lie outside the capture, and of which several lines are bad.
/// Guarantee: compressed ones are read, the outside is told, and all bad lines are named at once.
#[test]
fn labels_are_read_as_captures_are() {
    let fault = r#"{"fault":"x","start":"2020-01-01T00:00:00Z","end":"2020-01-01T00:05:00Z"}"#;
    let folder = folder(&[("a.csv", &table(0..150, 0..0)), ("bad.ndjson", "x\n\n{}\n")]);
    let packed = zstd::encode_all(fault.as_bytes(), 0).expect("memory does not fail");
    std::fs::write(folder.path().join("f.ndjson.zst"), packed).expect("it can be written");
    let (code, summary, notes) = told(&folder, &["a.csv", "--labels", "f.ndjson.zst"]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(summary.contains("0 of 1 fault caught"), "{summary}");
    assert!(
        notes.contains("fault `x` (2020-01-01T00:00:00Z to 2020-01-01T00:05:00Z) lies outside"),
        "{notes}"
    );
    let (code, _, error) = told(&folder, &["a.csv", "--labels", "bad.ndjson"]);
    assert!(code == Some(2) && error.contains("bad.ndjson:1:") && error.contains("bad.ndjson:3:"), "{error}");
}

/// Guarantee: `--scores -` writes the scores, and nothing else, to standard output.
#[test]
fn scores_go_to_standard_output() {
    let folder = folder(&[("a.csv", &table(0..150, 0..0))]);
    let (code, scores, notes) = told(&folder, &["a.csv", "--scores", "-"]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(
        scores.starts_with("timestamp,value,anomaly_score\n") && scores.lines().count() == 151,
        "{scores}"
    );
    assert!(!Path::new(&folder.path().join("-")).exists());
    let (code, _, error) = told(&folder, &["a.csv", "--scores", "-", "--json"]);
    assert!(code == Some(2) && error.contains("name a file"), "{error}");
}

/// Errors once a minute and a latency between them, for an hour and a half; from the first hour on both are high for five minutes.
fn in_turns() -> String {
    let mut text = String::new();
    for minute in 0..90 {
        for (metric, after) in [("errors", 0), ("latency", 30)] {
            let value = if (60..65).contains(&minute) { 80 } else { 10 + minute % 3 };
            let t = START_SECS + minute * 60 + after;
            let line =
                format!(r#"{{"t":{t},"metric":"{metric}","labels":{{"service":"cart"}},"value":{value}}}"#);
            writeln!(text, "{line}").expect("a String takes every line");
        }
    }
    text
}

/// Scenario: two exporters report once a minute, half a minute apart; both signals leave their bands, a rollback follows, and
/// both come back. Or only one of them is out of band, and the rule ends after half a minute of calm; series may be kept for ever.
/// Guarantee: the incident ends, and the rollback is proved, though no bin has data of both; the other's data is no calm.
#[test]
fn exporters_that_take_turns_end_an_incident() {
    let config = |ttl: &str, calm: &str, l: &str| {
        format!(
            "mode: auto\nseries_ttl: {ttl}\n\
             signals: {{errors: {{value: errors, by: [service]}}, latency: {{value: latency, by: [service]}}}}\n\
             detectors: {{e: {{type: threshold, signal: errors, above: 50}}, l: {{type: threshold, signal: latency, above: {l}}}}}\n\
             responders: {{deployer: {{type: log, reach: mutate}}}}\n\
             rules: [{{name: bad, when: e.score > 1.0 || l.score > 1.0, keep_firing_for: {calm}, group_by: [service],\n\
             \x20 respond: [{{do: rollback, with: deployer, verify: {{settle: 30s, within: 15m, require: e.in_band, for: 20s}}}}]}}]\n"
        )
    };
    for ttl in ["24h", "0s"] {
        let files = [
            ("a.ndjson", in_turns()),
            ("both.yaml", config(ttl, "3m", "50")),
            ("one.yaml", config(ttl, "20s", "500")),
        ];
        let folder = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
        let (code, summary, notes) = told(&folder, &["a.ndjson", "-c", "both.yaml"]);
        assert_eq!(code, Some(0), "{notes}");
        assert!(summary.contains("resolved by an action that was verified"), "{ttl}: {summary}{notes}");
        let (_, summary, _) = told(&folder, &["a.ndjson", "-c", "one.yaml"]);
        let proved = summary.lines().find(|line| line.contains("verified   ")).unwrap_or_default();
        assert!(proved.contains("2025-11-23T09:05:"), "{ttl}: {summary}");
        assert!(!summary.contains("episode 2"), "{ttl}: {summary}");
    }
}
