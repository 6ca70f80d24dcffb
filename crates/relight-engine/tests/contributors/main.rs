//! Rows that several series feed: what they come to must not depend on when each series reports.
//!
//! What the pods of a service truly do is known, so every bin's row is held against it, whether or not anything new came
//! in that bin.

mod engine;
mod pods;
mod rng;

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::{Kind, Record};
use relight_core::series::{Labels, key_of};

use engine::{Rows, run};
use pods::{PARTITIONS, Pod, at, records, truth};
use rng::Rng;

/// Cases of a property.
const CASES: u64 = 1_000;

/// In one order, without the bins that the end of the records cuts short.
fn calm(pods: &[Pod], interval: i64, end: f64) -> Rows {
    let mut rows = run(interval, &records(pods, end), 1);
    rows.values.retain(|of, _| (*of as f64) < end);
    rows.judged.retain(|of, _| (*of as f64) < end);
    rows
}

/// Holds the rows of all bins that end after `from` against what is true.
fn hold(rows: &Rows, from: f64, share: f64, truth: [f64; 4], what: &str) {
    let checked = rows.values.iter().filter(|(end, _)| **end as f64 > from);
    let mut bins = 0;
    for (end, row) in checked {
        bins += 1;
        for (i, name) in ["rate", "sum", "ratio", "quantile"].into_iter().enumerate() {
            let value = f64::from_bits(row[i]);
            let is_right = (value / truth[i] - 1.0).abs() <= share;
            assert!(is_right, "{what}: {name} is {value} at {end} s, and {} is true", truth[i]);
        }
    }
    assert!(bins > 3, "{what}: {bins} bins");
}

const CADENCES: [f64; 8] = [5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0];

fn cadence(rng: &mut Rng) -> f64 {
    if rng.one_in(3) { 5.0 + 295.0 * rng.unit() } else { CADENCES[rng.below(8) as usize] }
}

/// Scenario: up to eight pods, each with a cadence of 5 s to 300 s of its own and a random phase; in every other case all have the
/// same cadence; each pod loses a report now and then, never two in a row.
/// Guarantee: rate, sum, ratio and quantile are what the pods do, within 2 % and in every bin, from the pods' third report on; where
/// all have the same cadence, no sum of a part of them is judged before that.
#[test]
fn a_row_does_not_depend_on_when_its_series_report() {
    for seed in 0..CASES {
        let mut rng = Rng::new(seed);
        let common = rng.one_in(2).then(|| cadence(&mut rng));
        let mut pods: Vec<Pod> = (0..=rng.below(8))
            .map(|i| Pod::random(&format!("p{i}"), common.unwrap_or_else(|| cadence(&mut rng)), &mut rng))
            .collect();
        for pod in &mut pods {
            pod.lost = (4..).step_by(2).filter(|_| rng.one_in(8)).take(3).collect();
        }
        let slowest = pods.iter().map(|pod| pod.cadence).fold(0.0, f64::max);
        let interval = [5, 10, 10, 30, 60][rng.below(5) as usize];
        let warm = 3.0 * slowest + interval as f64;
        let end = warm + (9.0 * slowest).max(30.0 * interval as f64);
        let rows = calm(&pods, interval, end);
        let truth = truth(&pods);
        hold(&rows, warm, 0.02, truth, &format!("seed {seed}"));
        for signal in if common.is_some() { 0..2 } else { 0..0 } {
            let judged = rows.of(signal).into_iter().filter(|(.., judged)| *judged);
            let mut wrong = judged.filter(|(_, value, _)| (value / truth[signal] - 1.0).abs() > 0.02);
            assert_eq!(wrong.next(), None, "seed {seed}: judged, and {} is true", truth[signal]);
        }
    }
}

/// Scenario: four to six pods are replaced one by one, each new one at the moment at which the old one ends, with a phase of its own
/// and counters at zero that do not say when they started.
/// Guarantee: the rows are what the pods do, within 2 % and in every bin: the old pod's last value stands until the new pod's counts.
#[test]
fn a_rolling_restart_does_not_move_a_row() {
    for seed in 0..CASES {
        let mut rng = Rng::new(seed);
        let cadence = [5.0, 10.0, 15.0, 30.0, 60.0, 5.0 + 55.0 * rng.unit()][rng.below(6) as usize];
        let model = Pod::random("", cadence, &mut rng);
        let count = 4 + rng.below(3) as usize;
        let mut pods = Vec::new();
        for i in 0..count {
            let ends = cadence * (20.0 + 5.0 * i as f64 + 2.0 * rng.unit());
            let pod =
                |name: String, rng: &mut Rng| Pod { name, phase: cadence * rng.unit(), ..model.clone() };
            pods.push(Pod { until: ends, ..pod(format!("old-{i}"), &mut rng) });
            pods.push(Pod { from: ends, before: 0.0, ..pod(format!("new-{i}"), &mut rng) });
        }
        let interval = [5, 10, 10, 15][rng.below(4) as usize];
        let rows = calm(&pods, interval, cadence * 60.0);
        let alike: Vec<Pod> = (0..count).map(|_| model.clone()).collect();
        let mut expected = truth(&alike);
        // A gauge's old value stands beside the new one until the old pod is overdue.
        expected[1] = f64::NAN;
        hold_but_sum(&rows, 4.0 * cadence, 0.02, expected, &format!("seed {seed}, cadence {cadence}"));
    }
}

fn hold_but_sum(rows: &Rows, from: f64, share: f64, mut truth: [f64; 4], what: &str) {
    truth[1] = 1.0;
    let one = |row: &[u64; 4]| [row[0], 1.0_f64.to_bits(), row[2], row[3]];
    let rows =
        Rows { values: rows.values.iter().map(|(end, row)| (*end, one(row))).collect(), ..Rows::default() };
    hold(&rows, from, share, truth, what);
}

/// Scenario: pods of mixed cadences, read in another order across partitions.
/// Guarantee: every row is the same in every bin, to the last bit.
#[test]
fn arrival_does_not_show() {
    for seed in 0..CASES / 10 {
        let mut rng = Rng::new(seed);
        let pods: Vec<Pod> =
            (0..8).map(|i| Pod::random(&format!("p{i}"), cadence(&mut rng), &mut rng)).collect();
        let records = records(&pods, 1_200.0);
        assert_eq!(run(10, &records, seed + 2), run(10, &records, 1), "seed {seed}");
    }
}

/// Points of some series of one partition, in bins of 10 s: metric, pod, second, value.
fn of_points(points: &[(&str, &str, i64, f64)], kind: Kind, ends: &[(&str, &str, i64)]) -> Rows {
    let key = |metric: &str, pod: &str| {
        let labels = [("service", "api"), ("pod", pod)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        key_of(metric, &Labels::new(labels.to_vec()))
    };
    let mut all: Vec<(i64, Record)> = Vec::new();
    for (metric, pod, secs, value) in points {
        let mut record = Record { received: Some(at(*secs as f64)), ..Record::default() };
        // A series that is created right before its first export covers milliseconds.
        let covered = if *pod == "fresh" { 0.03 } else { 10.0 };
        let start = if kind.is_delta() { at(*secs as f64 - covered) } else { Timestamp::MIN };
        record.push_point(&key(metric, pod), at(*secs as f64), start, kind, *value);
        all.push((*secs, record));
    }
    for (metric, pod, secs) in ends {
        let mut record = Record { received: Some(at(*secs as f64)), ..Record::default() };
        let key = record.push_key(&key(metric, pod));
        record.push_end(key, Aliases::NONE, at(*secs as f64));
        all.push((*secs, record));
    }
    all.sort_by_key(|(secs, _)| *secs);
    for ((_, record), offset) in all.iter_mut().zip(0..) {
        record.offset = offset;
    }
    let mut partitions = vec![Vec::new(); PARTITIONS];
    partitions[0] = all.into_iter().map(|(_, record)| record).collect();
    run(10, &partitions, 1)
}

/// Points of a gauge: pods `a` and `b` report 1 and 2 once a minute, a quarter of a minute apart.
fn two_pods(minutes: i64) -> Vec<(&'static str, &'static str, i64, f64)> {
    (0..minutes).flat_map(|i| [("open", "a", 60 * i + 5, 1.0), ("open", "b", 60 * i + 20, 2.0)]).collect()
}

/// Scenario: two pods report once a minute, and another one's records keep bins closing in between.
/// Guarantee: the sum is that of both in every bin; it is judged once for each report, and not before each pod can have reported.
#[test]
fn a_value_counts_in_every_bin_and_is_judged_once() {
    let mut points = two_pods(5);
    points.extend((0..30).map(|i| ("other", "c", 10 * i + 1, 0.0)));
    let rows = of_points(&points, Kind::Gauge, &[]).of(1);
    assert_eq!(rows.len(), 30);
    let settled: Vec<_> = rows.iter().filter(|(end, ..)| *end >= 30).collect();
    assert!(settled.iter().all(|(_, value, _)| *value == 3.0), "{rows:?}");
    let judged: Vec<i64> = rows.iter().filter(|(.., judged)| *judged).map(|(end, ..)| *end).collect();
    assert_eq!(judged, [70, 90, 130, 150, 190, 210, 250, 270]);
}

/// Scenario: one of two pods says that it ends; another one falls silent without a word.
/// Guarantee: the first counts no more from that bin on, the second for two of its cadences.
#[test]
fn an_end_ends_at_once_and_silence_after_two_cadences() {
    let mut points = two_pods(3);
    points.extend((0..40).map(|i| ("other", "c", 10 * i + 1, 0.0)));
    for (ends, until_a) in [(&[("open", "a", 141)][..], 140), (&[], 240)] {
        for (end, value, _) in of_points(&points, Kind::Gauge, ends).of(1) {
            // The last reports are at 125 s and 140 s.
            let expected = f64::from(u8::from(end <= until_a)) + 2.0 * f64::from(u8::from(end <= 260));
            assert!(end < 30 || value == expected, "{ends:?}: {value} at {end} s");
        }
    }
}

/// Scenario: an ended series reports again; a marker is older than the series' last point.
/// Guarantee: a point behind the marker counts, and an old marker ends nothing.
#[test]
fn a_series_that_goes_on_has_not_ended() {
    let mut points = two_pods(6);
    points.extend((0..36).map(|i| ("other", "c", 10 * i + 1, 0.0)));
    let rows = of_points(&points, Kind::Gauge, &[("open", "a", 150), ("open", "b", 199)]).of(1);
    for (end, value, _) in rows {
        let (a, b) = (!(160..=180).contains(&end), !(200..=200).contains(&end));
        let expected = f64::from(u8::from(a)) + 2.0 * f64::from(u8::from(b));
        assert!(end < 30 || value == expected, "{value} at {end} s");
    }
}

/// Scenario: the counter of one of two pods is corrected downwards by one per cent, once.
/// Guarantee: a correction brings no increase and takes none away: the sum of both rates stays.
#[test]
fn a_correction_is_no_dip_of_the_sum() {
    let total = |i: i64, offset: i64| {
        1_000_000.0 + 600.0 * i as f64 - if i >= 9 && offset == 5 { 10_000.0 } else { 0.0 }
    };
    let points: Vec<_> = (0..18)
        .flat_map(|i| {
            [("a", 5), ("b", 20)].map(|(pod, offset)| ("requests", pod, 60 * i + offset, total(i, offset)))
        })
        .collect();
    let rows = of_points(&points, Kind::Cumulative, &[]).of(0);
    let settled: Vec<_> = rows.iter().filter(|(end, ..)| (180..1_080).contains(end)).collect();
    assert!(settled.len() > 20 && settled.iter().all(|(_, rate, _)| (rate - 20.0).abs() < 0.4), "{rows:?}");
}

/// Scenario: a delta of ten seconds comes once an hour, and another one every ten seconds.
/// Guarantee: the rare one counts for the time that it covers, and not for the hour until the next one.
#[test]
fn a_delta_stands_for_its_own_time() {
    let mut points: Vec<_> = (1..1_100).map(|i| ("requests", "steady", 10 * i + 2, 10.0)).collect();
    points.extend((1..3).map(|i| ("requests", "rare", 3_600 * i + 2, 500.0)));
    let rows = of_points(&points, Kind::Delta, &[]).of(0);
    let loud: Vec<_> = rows.iter().filter(|(_, rate, _)| *rate > 1.0 + 1e-9).collect();
    assert_eq!(loud, [&(3_610, 51.0, true), &(7_210, 51.0, true)]);
    assert!(rows.len() > 1_000 && rows.iter().all(|(_, rate, _)| *rate >= 1.0 - 1e-9));
}

/// Scenario: errors are counted for the first time, by a delta that covers 30 ms; the requests beside them cover 10 s.
/// Guarantee: the ratio is that of the counts, and the rate of a first delta is one over a bin.
#[test]
fn a_first_delta_is_no_burst() {
    let mut points: Vec<_> = (1..20).map(|i| ("requests", "steady", 10 * i + 2, 10.0)).collect();
    points.extend([("errors", "fresh", 102, 5.0), ("requests", "fresh", 102, 10.0)]);
    let rows = of_points(&points, Kind::Delta, &[]);
    let at = |signal, end| rows.of(signal).iter().find(|row| row.0 == end).map(|row| row.1);
    assert_eq!((at(2, 110), at(0, 110)), (Some(0.25), Some(2.0)));
}

/// Scenario: an action ends at 130 s; the pods last reported at 125 s and 80 s, and report again at 140 s and 185 s.
/// Guarantee: what a rule sees is as old as the oldest report that the sum rests on, so the sum proves something only when all
/// of it is from after the action; it is never called stale in between.
#[test]
fn a_value_is_as_old_as_its_oldest_part() {
    let mut points = two_pods(6);
    points.extend((0..36).map(|i| ("other", "c", 10 * i + 1, 0.0)));
    let rows = of_points(&points, Kind::Gauge, &[]);
    for (end, view) in rows.views.iter().filter(|(end, _)| *end > 70) {
        assert!(!view.stale && view.in_band(), "{view:?} at {end} s");
        let after = view.since(at(130.0));
        assert_eq!(after.stale, *end < 190, "{after:?} at {end} s");
        assert!(!after.stale || after.with_data == 0, "{after:?} at {end} s");
    }
}
