//! Data that come rarely: every value of an hourly job counts, and a job that misses a run is found by its own cadence.

use relight_core::Timestamp;
use relight_core::incident::Incident;
use relight_runtime::Report;
use relight_testkit::capture::replay_text;
use relight_testkit::rng::Rng;
use relight_testkit::seeds;

const START: i64 = 1_767_225_600;
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// A job's runs, by the second since [`START`].
struct Job {
    cadence: i64,
    runs: Vec<i64>,
    /// Index of the first run that was missed: it has no value.
    missed: usize,
}

impl Job {
    /// Runs around their due time, `jitter` seconds early or late, of which `missing` in a row are missed.
    fn new(rng: &mut Rng, cadence: i64, jitter: i64, missing: usize) -> Self {
        let phase = rng.below(cadence as u64) as i64;
        let missed = 8 + rng.below(8) as usize;
        let due =
            (0..24).filter(|n| !(missed..missed + missing).contains(n)).map(|n| phase + n as i64 * cadence);
        let runs = due.map(|due| due + jitter + rng.below(2 * jitter as u64 + 1) as i64 - jitter).collect();
        Self { cadence, runs, missed }
    }

    fn last_before_miss(&self) -> i64 {
        self.runs[self.missed - 1]
    }

    /// Its values, and those of something that reports all the time, if `busy`.
    fn lines(&self, busy: bool) -> Vec<String> {
        let line =
            |t: i64, metric: &str| (t, format!(r#"{{"t":{},"metric":"{metric}","value":1}}"#, START + t));
        let mut lines: Vec<_> = self.runs.iter().map(|t| line(*t, "backup")).collect();
        let end = self.runs.last().copied().unwrap_or(0);
        let step = (self.cadence / 100).max(MINUTE) as usize;
        lines.extend((0..end).step_by(step).filter(|_| busy).map(|t| line(t, "up")));
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

fn run(lines: &[String], interval: &str) -> Report {
    let config = format!(
        "interval: {interval}
signals: {{backup: {{value: backup}}, up: {{value: up}}}}
detectors: {{missing: {{type: absence, signal: backup, patience: 1}}}}
rules: [{{name: missing, when: missing.score > 1.0}}]
"
    );
    replay_text(&config, ".ndjson", &lines.join("\n"), 1, &mut ())
}

fn found(report: &Report) -> Vec<i64> {
    let detected = |incident: &Incident| Some(incident.detected?.since(Timestamp::from_secs(START)).ns());
    report.incidents.iter().filter_map(detected).map(|ns| ns / 1_000_000_000).collect()
}

/// Scenario: values that come every 2 minutes to every month, with nothing beside them, up to a last one; a few runs or
/// many; one run in the midst is missed, or the last but one.
/// Guarantee: each counts, the first and the last too.
#[test]
fn every_value_of_a_sparse_capture_counts() {
    for cadence in [2 * MINUTE, 9 * MINUTE, 10 * MINUTE, 11 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 31 * DAY]
    {
        for seed in seeds() {
            let mut rng = Rng::new(seed);
            let job = Job::new(&mut rng, cadence, cadence / 20, 1);
            for runs in [1, 2, 3, 4, job.runs.len()] {
                let mut job = Job { runs: job.runs[..runs].to_vec(), ..job };
                let last = job.runs[runs - 1];
                job.runs.extend((runs > 4).then_some(last + 2 * cadence));
                let totals = run(&job.lines(false), "1m").totals;
                let refused: u64 = totals.refused.iter().map(|(_, n)| n).sum();
                let what = format!("seed {seed}, every {cadence} s, {runs} runs");
                assert_eq!((totals.points, refused), (job.runs.len() as u64, 0), "{what}");
            }
        }
    }
}

/// Scenario: a job that runs every 5 minutes, hour, day or week, a bit early or late, misses one run, or two in a row; beside
/// it other data or none. Series are kept for a day, as they are by default.
/// Guarantee: there is one incident; it opens within a cadence of the run that was missed, and within a day of it.
#[test]
fn b11_a_missed_run_is_found_by_the_next_day() {
    for (cadence, interval) in [(5 * MINUTE, "1m"), (HOUR, "5m"), (DAY, "5m"), (7 * DAY, "5m")] {
        for seed in seeds().take(8) {
            let mut rng = Rng::new(seed);
            let missing = 1 + rng.below(2) as usize;
            let job = Job::new(&mut rng, cadence, (cadence / 20).min(HOUR), missing);
            for busy in [false, true] {
                let found = found(&run(&job.lines(busy), interval));
                let what = format!("seed {seed}, every {cadence} s, busy: {busy}, {missing} missed");
                let [found] = found[..] else { panic!("{what}: found at {found:?}") };
                let late = found - job.last_before_miss() - cadence;
                assert!(late > 0 && late <= cadence.min(DAY), "{what}: {late} s after the run was due");
            }
        }
    }
}
