//! What odd times and values come to: the rows that a replay sees, and what it refused. No detector's opinion.

use relight_core::Timestamp;
use relight_runtime::{ReplayObserver, ScoredRow};
use relight_testkit::capture::replay_text;

/// The first second of the data; a bin starts there.
const START: i64 = 1_767_225_600;
const CONFIG: &str = "
interval: 10s
allowed_lateness: 20s
signals: {seen: {value: m}, rate: {rate: n_total}}
detectors: {a: {type: threshold, signal: seen, above: 1e300}, b: {type: threshold, signal: rate, above: 1e300}}
";

/// Rows by the second of their bin, after [`START`].
#[derive(Default)]
struct Rows(Vec<(i64, f64)>);

impl ReplayObserver for Rows {
    fn readings(&mut self, readings: &[ScoredRow]) {
        let known = readings.iter().filter(|row| !row.value.is_nan());
        self.0.extend(known.map(|row| (row.at.secs() - START, row.value)));
    }
}

/// Seconds since the start, and values.
type Values = Vec<(i64, f64)>;

/// Replays lines: the rows, and what was refused.
fn came(lines: &[String]) -> (Values, Vec<(&'static str, u64)>) {
    let mut rows = Rows::default();
    let report = replay_text(CONFIG, ".ndjson", &lines.join("\n"), 1, &mut rows);
    let refused = report.totals.refused.iter().map(|(reason, n)| (reason.name(), *n)).filter(|(_, n)| *n > 0);
    (rows.0, refused.collect())
}

/// A point of a gauge, received when it was measured.
fn gauge(secs: i64, value: f64) -> String {
    let t = Timestamp::from_secs(START + secs);
    format!(r#"{{"t":"{t}","metric":"m","value":{value},"received":"{t}"}}"#)
}

/// Points of a counter, by second and value: `kind`, and when it started if that is told.
fn counter(kind: &str, points: &[(i64, &str, Option<i64>)]) -> Vec<String> {
    let line = |(secs, value, start): &(i64, &str, Option<i64>)| {
        let t = Timestamp::from_secs(START + secs);
        let start = start.map(|start| format!(r#","start":"{}""#, Timestamp::from_secs(START + start)));
        let start = start.unwrap_or_default();
        format!(r#"{{"t":"{t}","metric":"n_total","kind":"{kind}","value":{value}{start},"received":"{t}"}}"#)
    };
    points.iter().map(line).collect()
}

fn rates(lines: &[String], expected: &[(i64, f64)]) {
    assert_eq!(came(lines), (expected.to_vec(), Vec::new()), "{lines:#?}");
}

/// Scenario: beside good points some that are 11 minutes, a week and 236 years ahead of their arrival.
/// Guarantee: each of them is refused, and moves no time: the good points count.
#[test]
fn c03_future_ts() {
    let mut lines = vec![gauge(0, 1.0)];
    for ahead in ["2026-01-01T00:11:01Z", "2026-01-08T00:00:00Z", "2262-04-11T23:47:16.854775807Z"] {
        lines.push(format!(r#"{{"t":"{ahead}","metric":"m","value":9,"received":"2026-01-01T00:00:00Z"}}"#));
    }
    lines.extend([gauge(10, 2.0), gauge(20, 3.0)]);
    let rows = vec![(0, 1.0), (10, 2.0), (20, 3.0)];
    assert_eq!(came(&lines), (rows, vec![("too_far_future", 3)]));
}

/// Scenario: points of 1970 and before, in the midst of today's.
/// Guarantee: each is refused as late, and no row is made of it.
#[test]
fn c04_ancient_ts() {
    let ancient =
        |t: &str| format!(r#"{{"t":"{t}","metric":"m","value":9,"received":"2026-01-01T00:00:30Z"}}"#);
    let times = ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z", "1969-12-31T23:59:59Z"];
    let mut lines = vec![gauge(0, 1.0), gauge(30, 2.0)];
    lines.extend(times.map(ancient));
    lines.push(gauge(40, 3.0));
    assert_eq!(came(&lines), (vec![(0, 1.0), (30, 2.0), (40, 3.0)], vec![("late", 3)]));
}

/// Scenario: points in order, and shuffled by less than `allowed_lateness`; then one that is older than that.
/// Guarantee: both come to the same; the older one is refused as late.
#[test]
fn c05_out_of_order() {
    let values =
        |order: &[i64]| -> Vec<String> { order.iter().map(|s| gauge(*s, (*s * *s) as f64)).collect() };
    let sorted = came(&values(&[0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]));
    assert_eq!(came(&values(&[8, 0, 4, 20, 12, 16, 32, 28, 24, 40, 36])), sorted);
    let mut late = values(&[0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]);
    late.push(gauge(19, 9e9));
    assert_eq!(came(&late), (sorted.0, vec![("late", 1)]));
}

/// Scenario: one point three times, among others.
/// Guarantee: it counts once.
#[test]
fn c06_duplicate_ts_same() {
    let lines = [gauge(0, 1.0), gauge(2, 4.0), gauge(2, 4.0), gauge(2, 4.0), gauge(10, 1.0)];
    assert_eq!(came(&lines), (vec![(0, 2.5), (10, 1.0)], vec![("duplicate", 2)]));
}

/// Scenario: two values at one time.
/// Guarantee: the first counts, the other is counted as a conflict.
#[test]
fn c07_duplicate_ts_diff() {
    let lines = [gauge(0, 1.0), gauge(2, 4.0), gauge(2, 9e9), gauge(10, 1.0)];
    assert_eq!(came(&lines), (vec![(0, 2.5), (10, 1.0)], vec![("dup_conflict", 1)]));
}

/// Scenario: a counter falls from 1e9 to 3.
/// Guarantee: the increase is 3, never negative.
#[test]
fn c11_counter_reset() {
    let points = [(0, "999999990", None), (10, "1000000000", None), (20, "3", None), (30, "13", None)];
    rates(&counter("cumulative", &points), &[(10, 1.0), (20, 0.3), (30, 1.0)]);
}

/// Scenario: a counter starts anew while its value goes on rising; another starts at its first point's own time.
/// Guarantee: it counts from zero; the very first point of a series contributes nothing.
#[test]
fn c12_counter_reset_start_time() {
    let points = [(0, "10", Some(-50)), (10, "20", Some(-50)), (20, "30", Some(15)), (30, "40", Some(15))];
    rates(&counter("cumulative", &points), &[(10, 1.0), (20, 3.0), (30, 1.0)]);
    let own = [(0, "500", Some(0)), (10, "510", Some(0))];
    rates(&counter("cumulative", &own), &[(10, 1.0)]);
}

/// Scenario: a counter at the end of its 64 bits, then at 5; one below zero.
/// Guarantee: both are resets; nothing wraps around, and no increase is negative.
#[test]
fn c13_u64_wrap() {
    let points = [(0, "18446744073709551615", None), (10, "5", None), (20, "15", None)];
    rates(&counter("cumulative", &points), &[(10, 0.5), (20, 1.0)]);
    let (below, _) = came(&counter("cumulative", &[(0, "10", None), (10, "-5", None), (20, "5", None)]));
    assert_eq!(below, [(10, 0.0), (20, 1.0)]);
}

/// Scenario: deltas with a gap between two; then two writers under one name, whose times overlap; starts that say nothing.
/// Guarantee: what follows a gap is a rate over its own time; of overlapping ones the first counts, and each other is told.
#[test]
fn c14_delta_gap_overlap() {
    let gap = [(10, "10", Some(0)), (20, "20", Some(10)), (60, "30", Some(50)), (70, "10", Some(65))];
    rates(&counter("delta", &gap), &[(10, 1.0), (20, 2.0), (60, 3.0), (70, 2.0)]);
    // The gap lies within a bin here: 6 in the 3 seconds that are known.
    let within = [(10, "1", Some(9)), (12, "2", Some(11)), (19, "3", Some(18)), (20, "1", Some(19))];
    rates(&counter("delta", &within), &[(10, 2.0), (20, 1.0)]);

    let mut two = counter("delta", &[(10, "10", Some(0)), (20, "20", Some(10)), (30, "30", Some(20))]);
    two.extend(counter("delta", &[(13, "77", Some(3)), (23, "88", Some(13)), (33, "99", Some(30))]));
    let (rows, refused) = came(&two);
    assert_eq!(refused, vec![("delta_overlap", 2)]);
    assert_eq!(rows[..2], [(10, 1.0), (20, 2.0)]);
    assert_eq!(rows[2], (30, (30.0 + 99.0) / 13.0));
    // Starts that say nothing: behind the end, at it, and always the sender's own.
    for start in [|_| 1_000, |end| end, |_| 0] {
        let odd = [60, 120, 180].map(|end| (end, "30", Some(start(end))));
        let (rows, refused) = came(&counter("delta", &odd));
        assert_eq!((&rows[1..], refused), (&[(120, 0.5), (180, 0.5)][..], Vec::new()));
    }
}

/// Scenario: an exporter changes from cumulative to delta in mid-stream, and back.
/// Guarantee: what was the total of one is no value of the other: each change begins a stream of its own.
#[test]
fn c15_temporality_flip() {
    let mut lines = counter("cumulative", &[(0, "1000", None), (10, "1010", None)]);
    lines.extend(counter("delta", &[(20, "10", None), (30, "20", None)]));
    lines.extend(counter("cumulative", &[(40, "2000", None), (50, "2010", None)]));
    rates(&lines, &[(10, 1.0), (20, 1.0), (30, 2.0), (50, 1.0)]);
}
