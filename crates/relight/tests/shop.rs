//! The bundled recording of a real shop, with the bundled config: what the first page promises of it.
//!
//! All times come from the labels and the recording itself, so that a new recording needs no change here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use relight_core::{Span, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

/// Points between two snapshots: a dozen of them in the recording.
const SNAPSHOT_EVERY: &str = "15000";
/// How long after a fault's end an incident may still begin: what it shook is not yet at rest.
const REST: Span = Span::from_secs(120);
/// What the config promises.
const ROLLBACK_WITHIN: Span = Span::from_secs(60);
/// Far more than lies between a writer and the engine: a pipe, a reader's buffer.
const IN_FLIGHT_BYTES: usize = 4 << 20;

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn command(folder: &Path, capture: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relight"));
    command.current_dir(folder).arg("replay").arg("-c").arg(bundled("config/shop.yaml"));
    command.arg(capture).arg("--json").args(args);
    command
}

fn finished(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(folder: &Path, capture: &str, args: &[&str]) -> String {
    finished(&command(folder, capture, args).output().expect("the binary runs"))
}

fn of_bundled(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = bundled("testdata/captures/shop.ndjson.zst");
    json(folder.path(), capture.to_str().expect("the tree's path is text"), args)
}

fn recording() -> Vec<u8> {
    let file = std::fs::File::open(bundled("testdata/captures/shop.ndjson.zst")).expect("it is bundled");
    zstd::decode_all(file).expect("it is whole")
}

fn records(json: &str, kind: &str) -> Vec<Value> {
    let all = json.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is an object"));
    all.filter(|record| record["record"] == kind).collect()
}

fn time(record: &Value, key: &str) -> Option<Timestamp> {
    serde_json::from_value(record[key].clone()).unwrap_or_else(|error| panic!("`{key}` of {record}: {error}"))
}

struct Fault {
    name: String,
    start: Timestamp,
    end: Timestamp,
}

fn faults() -> Vec<Fault> {
    let text =
        std::fs::read_to_string(bundled("testdata/captures/shop.labels.ndjson")).expect("it is bundled");
    let fault = |line: &str| {
        let fault: Value = serde_json::from_str(line).expect("a line is an object");
        Fault {
            name: fault["fault"].as_str().expect("a name").to_owned(),
            start: time(&fault, "start").expect("a start"),
            end: time(&fault, "end").expect("an end"),
        }
    };
    text.lines().map(fault).collect()
}

/// Scenario: the recording, held against its labels.
/// Guarantee: every fault is caught while it lasts, by an incident that agrees with its labels.
#[test]
fn every_fault_is_caught() {
    let labels = bundled("testdata/captures/shop.labels.ndjson");
    let json = of_bundled(&["--labels", labels.to_str().expect("the tree's path is text")]);
    let told = records(&json, "fault");
    assert_eq!(told.len(), faults().len(), "{json}");
    for (told, fault) in told.iter().zip(faults()) {
        assert_eq!(told["fault"], fault.name.as_str());
        let delay = told["delay_s"].as_f64().unwrap_or_else(|| panic!("{} was missed", fault.name));
        assert!(delay < fault.end.since(fault.start).secs_f64(), "{}: caught after {delay} s", fault.name);
    }
}

/// Guarantee: the rollback is planned within a minute of the bad deploy, and once in the whole recording.
#[test]
fn the_bad_deploy_is_rolled_back() {
    let json = of_bundled(&[]);
    let rollbacks: Vec<Value> =
        records(&json, "action").into_iter().filter(|action| action["do"] == "rollback").collect();
    let bad = faults().into_iter().find(|fault| fault.name == "bad-deploy").expect("it is labelled");
    assert_eq!(rollbacks.len(), 1, "{rollbacks:?}");
    let planned = time(&rollbacks[0], "planned").expect("every action has it");
    assert!(bad.start <= planned && planned <= bad.start.plus(ROLLBACK_WITHIN), "planned {planned}");
    assert!(time(&rollbacks[0], "started").is_some(), "{}", rollbacks[0]);
    let incident = &rollbacks[0]["incident"];
    let healed = records(&json, "incident").into_iter().find(|i| i["id"] == *incident).expect("it is told");
    assert_eq!(healed["resolution"], "verified_action", "{healed}");
    assert!(time(&healed, "recovered").is_some_and(|at| at >= bad.end.minus(Span::from_secs(5))), "{healed}");
}

/// Guarantee: no incident begins and ends where nothing was wrong.
#[test]
fn healthy_stretches_stay_quiet() {
    let incidents = records(&of_bundled(&[]), "incident");
    assert!(incidents.len() >= faults().len());
    for incident in incidents {
        let begin = time(&incident, "onset").expect("every incident has it");
        let end = time(&incident, "resolved").unwrap_or(Timestamp::MAX);
        let touches = |fault: &Fault| begin <= fault.end.plus(REST) && end >= fault.start;
        assert!(faults().iter().any(touches), "of nothing: {incident}");
    }
}

/// Guarantee: threads change nothing, to the byte.
#[test]
fn threads_change_nothing() {
    let expected = of_bundled(&["--threads", "1"]);
    for threads in ["2", "8"] {
        assert_eq!(of_bundled(&["--threads", threads]), expected, "{threads} threads");
    }
}

/// A run whose standard input is fed, so that it is certain to be midway when it is killed.
struct Fed {
    child: Child,
}

impl Fed {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(folder, "-", args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("the binary runs") }
    }

    /// Returns when all but [`IN_FLIGHT_BYTES`] of it was taken.
    fn feed(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().expect("it is piped and still open");
        input.write_all(bytes).expect("the run takes it");
    }

    fn kill(mut self) {
        self.child.kill().expect("it is still running: its input has not ended");
        let output = self.child.wait_with_output().expect("it is a child");
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "it was killed before it told anything"
        );
    }

    fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        finished(&self.child.wait_with_output().expect("it is a child"))
    }
}

fn undisturbed(folder: &Path, recording: &[u8], args: &[&str]) -> String {
    let mut run = Fed::start(folder, args);
    run.feed(recording);
    run.finish()
}

fn newest_generation(state: &Path) -> Option<u64> {
    let images = std::fs::read_dir(state.join("images")).ok()?;
    images.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
}

/// Scenario: kill -9 a third and two thirds into the recording, each time after snapshots, and go on with `--state`.
/// Guarantee: what is told at the end is the same, to the byte, as of a run that nothing disturbed, with `--state` and without.
#[test]
fn kill_nine_and_go_on() {
    let recording = recording();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = |name: &'static str| ["--state", name, "--snapshot-every", SNAPSHOT_EVERY];
    let expected = undisturbed(folder.path(), &recording, &[]);
    assert_eq!(undisturbed(folder.path(), &recording, &state("calm")), expected, "with a state folder");
    let mut before = None;
    for thirds in [1, 2] {
        let mut run = Fed::start(folder.path(), &state("stormy"));
        run.feed(&recording[..recording.len() * thirds / 3]);
        run.kill();
        let generation = newest_generation(&folder.path().join("stormy"));
        assert!(generation > before, "{thirds}/3: killed at {generation:?}, before that at {before:?}");
        before = generation;
    }
    assert!(recording.len() / 3 > 2 * IN_FLIGHT_BYTES, "too short to be certain of a snapshot");
    assert_eq!(undisturbed(folder.path(), &recording, &state("stormy")), expected, "killed twice");
}

fn bin_of(line: &[u8], seconds: i64) -> i64 {
    let line: Value = serde_json::from_slice(line).expect("a line is an object");
    time(&line, "t").expect("every line has it").secs().div_euclid(seconds)
}

/// Bytes up to the first line, from the middle on, that begins a bin of the config's five seconds.
fn half_to_a_bin(recording: &[u8]) -> usize {
    let mut at = recording.len() / 2;
    let mut bin = None;
    loop {
        at += recording[at..].iter().position(|byte| *byte == b'\n').expect("lines go on") + 1;
        let end = at + recording[at..].iter().position(|byte| *byte == b'\n').expect("lines go on");
        let next = bin_of(&recording[at..end], 5);
        if bin.is_some_and(|bin| bin < next) {
            return at;
        }
        bin = Some(next);
    }
}

/// Scenario: a file that is still being written is replayed with `--state`, and again when it has grown.
/// Guarantee: only what is new is read, and all is told as if it had been read at once.
#[test]
fn a_capture_that_grew_is_continued() {
    let recording = recording();
    let folder: TempDir = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shop.ndjson");
    std::fs::write(&file, &recording).expect("it can be written");
    let expected = json(folder.path(), "shop.ndjson", &[]);

    let half = half_to_a_bin(&recording);
    std::fs::write(&file, &recording[..half]).expect("it can be written");
    let first = json(folder.path(), "shop.ndjson", &["--state", "grown"]);
    assert_ne!(first, expected);
    let mut grown = std::fs::OpenOptions::new().append(true).open(&file).expect("it is there");
    grown.write_all(&recording[half..]).expect("it can be written");
    assert_eq!(json(folder.path(), "shop.ndjson", &["--state", "grown"]), expected);
}
