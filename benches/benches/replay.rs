//! `relight replay` of NDJSON beside a bare `serde_json` parse of the same lines, in one run, one thread
//! each. The whole loop is in it: read, decode, intake, fold, detect, control, report.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use relight_benches::{resident_bytes, say, series_key};
use relight_config::Registry;
use relight_core::{KeyView, Timestamp};
use relight_runtime::{ReplayRequest, replay};
use relight_testkit::rng::Rng;

const SERIES: usize = 1_000;
const SCRAPES: usize = 600;

/// What one would parse a line into first. Read for its cost, so its fields are never looked at.
#[derive(serde::Deserialize)]
struct Owned {
    t: String,
    metric: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("fleet.ndjson");
    std::fs::write(&path, capture(SCRAPES)).expect("the capture is written");
    println!(
        "{SERIES} series of 5 labels, {SCRAPES} scrapes at 5 s, defaults (10 s bins, adaptive), one thread"
    );
    let lines = (SERIES * SCRAPES) as f64;
    // Twice, and the second counts: the first one reads the file from the disk.
    bare(&path);
    run(&path);
    let (bare, ours) = (bare(&path), run(&path));
    say("bare serde_json parse into an owned struct", bare / lines * 1e9, "ns/line", "");
    say("replay", ours / lines * 1e9, "ns/line", "");
    say("  ratio", bare / ours, "times", "at least 1");
    let short = resident_bytes();
    std::fs::write(&path, capture(5 * SCRAPES)).expect("the capture is written");
    run(&path);
    let grown = resident_bytes().saturating_sub(short) as f64 / 1e6;
    say("  resident memory more for a capture 5 times as long", grown, "MB", "about 0");
}

fn capture(scrapes: usize) -> String {
    let mut rng = Rng::new(7);
    let mut text = String::new();
    let start = 1_767_225_600;
    for scrape in 0..scrapes {
        let t = Timestamp::from_secs(start + 5 * scrape as i64);
        for i in 0..SERIES {
            let key = series_key(i);
            let view = KeyView::new(&key);
            let labels = serde_json::to_string(&view.to_labels()).expect("labels serialise");
            let (metric, value) = (view.name(), 100.0 + 10.0 * rng.unit());
            let line =
                writeln!(text, r#"{{"t":"{t}","metric":"{metric}","labels":{labels},"value":{value}}}"#);
            line.expect("text takes all there is");
        }
    }
    text
}

fn bare(path: &Path) -> f64 {
    let begin = Instant::now();
    let text = std::fs::read_to_string(path).expect("it was written above");
    let mut sum = 0.0;
    for line in text.lines() {
        let owned: Owned = serde_json::from_str(line).expect("a line of ours");
        sum += owned.value + (owned.t.len() + owned.metric.len() + owned.labels.len()) as f64;
    }
    std::hint::black_box(sum);
    begin.elapsed().as_secs_f64()
}

fn run(path: &Path) -> f64 {
    let registry = Registry { detectors: relight_detectors::ALL, responders: relight_responders::ALL };
    let begin = Instant::now();
    let request = ReplayRequest {
        settings: Arc::new(relight_config::defaults(&registry).settings),
        sources: relight_ingest::open(path).expect("it was written above"),
        threads: 1,
        stores: None,
        snapshot_every: u64::MAX,
        outcomes: BTreeMap::new(),
        want_readings: false,
    };
    std::hint::black_box(replay(request, &mut ()).expect("the capture is sound"));
    begin.elapsed().as_secs_f64()
}
