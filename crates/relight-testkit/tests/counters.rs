//! Running totals as real senders have them, through a whole replay: two writers, small falls, first points, histograms that
//! rescale. What each means is in `docs/design/counters.md`.

use std::fmt::Write;

use relight_core::Timestamp;
use relight_runtime::{ReplayObserver, Report, ScoredRow};
use relight_testkit::capture::replay_text;

/// The first second of the data.
const START: i64 = 1_767_225_600;

/// Rows by the second of their bin, after [`START`], and by detector.
#[derive(Default)]
struct Rows(Vec<(i64, usize, f64)>);

impl ReplayObserver for Rows {
    fn readings(&mut self, readings: &[ScoredRow]) {
        let known = readings.iter().filter(|row| !row.value.is_nan());
        self.0.extend(known.map(|row| (row.at.secs() - START, row.detector, row.value)));
    }
}

impl Rows {
    fn of(&self, detector: usize) -> Vec<(i64, f64)> {
        self.0.iter().filter(|row| row.1 == detector).map(|row| (row.0, row.2)).collect()
    }
}

/// Replays a capture of this kind of file.
fn run(config: &str, suffix: &str, capture: &str) -> (Rows, Report) {
    let mut rows = Rows::default();
    let report = replay_text(config, suffix, capture, 2, &mut rows);
    (rows, report)
}

fn refused(report: &Report, reason: &str) -> u64 {
    report.totals.refused.iter().filter(|(known, _)| known.name() == reason).map(|(_, n)| *n).sum()
}

fn falls(report: &Report) -> Vec<(&'static str, u64)> {
    report.totals.falls.iter().map(|(fall, n)| (fall.name(), *n)).collect()
}

/// A point of a counter: seconds, label, total, and its start.
type Total = (f64, &'static str, f64, Option<f64>);

fn nanos(secs: f64) -> String {
    Timestamp::from_secs(START).plus(relight_core::Span::from_ns((secs * 1e9) as i64)).ns().to_string()
}

fn ndjson(name: &str, points: &[Total]) -> String {
    let mut text = String::new();
    for (at, code, value, start) in points {
        let ms = |secs: &f64| START * 1_000 + (secs * 1e3).round() as i64;
        let start = start.as_ref().map_or(String::new(), |start| format!(r#","start":{}"#, ms(start)));
        let labels = format!(r#"{{"service":"api","code":"{code}"}}"#);
        let t = ms(at);
        writeln!(
            text,
            r#"{{"t":{t},"metric":"{name}","labels":{labels},"kind":"cumulative","value":{value}{start}}}"#
        )
        .expect("a String takes every line");
    }
    text
}

/// One export a line; whole totals as integers.
fn otlp(name: &str, points: &[Total]) -> String {
    let mut text = String::new();
    for (at, code, value, start) in points {
        let value = if value.fract() == 0.0 {
            format!(r#""asInt":"{value}""#)
        } else {
            format!(r#""asDouble":{value}"#)
        };
        let start =
            start.map_or(String::new(), |start| format!(r#""startTimeUnixNano":"{}","#, nanos(start)));
        let label =
            |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
        let point = format!(
            r#"{{"attributes":[{}],{start}"timeUnixNano":"{}",{value}}}"#,
            label("code", code),
            nanos(*at)
        );
        let sum = format!(r#"{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{point}]}}"#);
        let resource = format!(r#"{{"attributes":[{}]}}"#, label("service", "api"));
        let metrics = format!(r#"[{{"name":"{name}","sum":{sum}}}]"#);
        writeln!(
            text,
            r#"{{"resourceMetrics":[{{"resource":{resource},"scopeMetrics":[{{"metrics":{metrics}}}]}}]}}"#
        )
        .expect("a String takes every line");
    }
    text
}

/// The same points in both formats.
fn both(config: &str, name: &str, points: &[Total], check: &dyn Fn(&Rows, &Report, &str)) {
    for (suffix, capture) in [(".ndjson", ndjson(name, points)), (".otlp.jsonl", otlp(name, points))] {
        let (rows, report) = run(config, suffix, &capture);
        check(&rows, &report, suffix);
    }
}

const ABSURD: &str = "
interval: 10s
signals: {reqs: {rate: requests_total, by: [service]}}
detectors: {absurd: {type: threshold, signal: reqs, above: 1000}}
rules: [{name: absurd, when: absurd.score > 1.0, group_by: [service]}]
";

/// Scenario: two replicas send one counter of 120 a second under one name, every 15 s or every minute, with clocks 0.7 s to
/// half of that apart; their totals differ by 0.1 % or by half; with a start and without.
/// Guarantee: no incident and no absurd rate: they are named, their points are refused, and the row has no data.
#[test]
fn a17_two_writers_of_one_counter() {
    for (cadence, lag, less) in [(15.0, 0.7, 875.0), (15.0, 7.0, 500_000.5), (60.0, 30.0, 3_000.0)] {
        for start in [None, Some(-86_400.0)] {
            let of = |i: u32| {
                let (at, second) = (f64::from(i / 2) * cadence, f64::from(i % 2));
                (at + second * lag, "200", 1e6 + at * 120.0 - second * less, start)
            };
            let points: Vec<Total> = (0..80).map(of).collect();
            both(ABSURD, "requests_total", &points, &|rows, report, format| {
                let rows = rows.of(0);
                assert!(rows.iter().all(|(_, rate)| *rate < 250.0), "{format} {rows:?}");
                assert!(rows.iter().all(|(at, _)| *at as f64 <= 12.0 * cadence), "{format} {rows:?}");
                assert!(report.incidents.is_empty() && refused(report, "shared_counter") > 50, "{format}");
                let notice =
                    r#"shared_counter: several writers share a counter, such as requests_total{code="200","#;
                assert!(report.notices.iter().any(|note| note.starts_with(notice)), "{:?}", report.notices);
            });
        }
    }
}

const ODD: &str = "
interval: 10s
signals: {io: {rate: io_total, by: [service]}}
detectors: {odd: {type: ewma, signal: io, min_relative_deviation: 0.5}}
rules: [{name: odd, when: odd.score > 1.0, group_by: [service]}]
";

/// Scenario: a counter of 1,000 a second near 5e9, or 0.5 near 40,000, falls by a little twice, for good and for one point,
/// every 10 s or 60 s; with an unchanged start it falls by a third.
/// Guarantee: no finding: each is a correction, and counted as such.
#[test]
fn a18_a_small_fall_is_no_reset() {
    for (cadence, base, rate) in [(10.0, 5e9, 1_000.0), (60.0, 5e9, 1_000.0), (10.0, 40_000.25, 0.5)] {
        for (start, first, second) in
            [(None, 1.1, 1.3), (Some(-1e7), 1.1, 1.3), (Some(-1e7), 1.1, base / rate / cadence / 3.0)]
        {
            let of = |i: u32| {
                let at = f64::from(i) * cadence;
                let fell = if i == 220 { second } else { 0.0 } + if i >= 170 { first } else { 0.0 };
                (at, "200", base + rate * (at - fell * cadence), start)
            };
            let points: Vec<Total> = (0..280).map(of).collect();
            both(ODD, "io_total", &points, &|rows, report, format| {
                let rows = rows.of(0);
                assert!(rows.iter().all(|(_, found)| (found / rate - 1.0).abs() < 0.11), "{format} {rows:?}");
                assert!(report.incidents.is_empty() && rows.len() > 250, "{format}");
                assert_eq!((falls(report), report.totals.findings), (vec![("correction", 2)], 0), "{format}");
            });
        }
    }
}

/// Scenario: the same counter is really reset, by its start and by its total alone.
/// Guarantee: it counts from zero: the rate goes on, and the reset is counted.
#[test]
fn a18_a_fall_to_about_zero_is_a_reset() {
    for has_start in [false, true] {
        let of = |i: u32| {
            let (at, life) = (f64::from(i) * 10.0, if i < 200 { -1e7 } else { 1_994.0 });
            (at, "200", 1_000.0 * (at - life), has_start.then_some(life))
        };
        let points: Vec<Total> = (0..280).map(of).collect();
        both(ODD, "io_total", &points, &|rows, report, format| {
            assert!(rows.of(0).len() == 279 && rows.of(0).iter().all(|(_, rate)| *rate >= 600.0), "{format}");
            assert_eq!(falls(report), [("reset", 1)], "{format}");
        });
    }
}

const ERRORS: &str = "
interval: 10s
signals:
  errors:
    ratio: {of: 'requests{code=~\"5..\"}', to: requests}
    by: [service]
    min_denominator: 50
detectors: {high: {type: ewma, signal: errors, direction: above, min_deviation: 0.02}}
rules: [{name: errors, when: high.score > 1.0, group_by: [service]}]
";

/// Scenario: the first error ever brings a counter with 2,700 at once, which began 8 s or a cadence ago, or hours before.
/// Guarantee: they are found where they began lately. Where relight is new and the process old, no first point counts.
#[test]
fn a20_the_first_burst_of_a_lazy_counter() {
    for (cadence, ago, is_found) in [
        (10.0, 8.0, true),
        (30.0, 30.0, true),
        (60.0, 60.0, true),
        (10.0, 7_200.0, false),
        (60.0, 7_200.0, false),
    ] {
        let mut points: Vec<Total> = Vec::new();
        for i in 0..240 {
            let at = f64::from(i) * cadence;
            points.push((at, "200", 4e6 + 50.0 * at, Some(-80_000.0)));
            if i >= 180 {
                points.push((at, "500", 2_700.0, Some(180.0 * cadence - ago)));
            }
        }
        both(ERRORS, "requests", &points, &|rows, report, format| {
            let rows = rows.of(0);
            let most = rows.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
            assert_eq!(most > 0.3, is_found, "{format} {cadence} {ago} {most}");
            assert_eq!(
                report.incidents.iter().filter(|i| i.detected.is_some()).count(),
                usize::from(is_found)
            );
        });
    }
}

/// Scenario: relight meets counters for the first time: of a process that has run for hours, and of one that began 20 s ago.
/// Guarantee: the first one's total does not count; the other's does, over the time that it came in.
#[test]
fn a20_a_cold_start_is_no_burst() {
    for (ago, first) in [(20.0, Some((0, 120.0))), (9_000.0, None)] {
        let of = |i: u32| (f64::from(i) * 10.0, "200", 120.0 * (ago + f64::from(i) * 10.0), Some(-ago));
        let points: Vec<Total> = (0..30).map(of).collect();
        both(ABSURD, "requests_total", &points, &|rows, report, format| {
            let rows = rows.of(0);
            assert_eq!(rows.first().copied().filter(|(at, _)| *at == 0), first, "{format} {rows:?}");
            assert!(rows.iter().all(|(_, rate)| (rate - 120.0).abs() < 1e-6), "{format} {rows:?}");
            assert!(report.incidents.is_empty());
        });
    }
}

const SIZES: &str = "
interval: 10s
signals:
  rate: {rate: size, by: [service]}
  middle: {quantile: {of: size, q: 0.5}, by: [service]}
detectors:
  odd: {type: ewma, signal: rate, min_relative_deviation: 0.5}
  slow: {type: ewma, signal: middle, min_relative_deviation: 0.5}
rules: [{name: odd, when: odd.score > 1.0 || slow.score > 1.0, group_by: [service]}]
";

/// An exponential histogram that has seen these values: at this scale, with a zero bucket of this width.
fn exponential(at: f64, values: &[f64], scale: i32, threshold: f64) -> String {
    let side = |sign: f64| {
        let index = |value: &f64| ((value * sign).log2() * f64::from(scale).exp2()).ceil() as i64 - 1;
        let of_side: Vec<i64> = values.iter().filter(|value| **value * sign > threshold).map(index).collect();
        let (first, last) =
            (of_side.iter().min().copied().unwrap_or(0), of_side.iter().max().copied().unwrap_or(-1));
        let counts: Vec<String> =
            (first..=last).map(|index| of_side.iter().filter(|i| **i == index).count().to_string()).collect();
        format!(r#"{{"offset":{first},"bucketCounts":[{}]}}"#, counts.join(","))
    };
    let zero = values.iter().filter(|value| value.abs() <= threshold).count();
    let point = format!(
        r#"{{"startTimeUnixNano":"{}","timeUnixNano":"{}","count":{},"scale":{scale},"zeroCount":{zero},"zeroThreshold":{threshold},"positive":{},"negative":{}}}"#,
        nanos(-9_000.0),
        nanos(at),
        values.len(),
        side(1.0),
        side(-1.0)
    );
    let metric = format!(
        r#"{{"name":"size","exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{point}]}}}}"#
    );
    let resource = r#"{"attributes":[{"key":"service","value":{"stringValue":"api"}}]}"#;
    format!(r#"{{"resourceMetrics":[{{"resource":{resource},"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#)
}

/// Scenario: an exponential histogram with 10 values a second becomes coarser, finer again, widens its zero bucket, or has
/// values below zero.
/// Guarantee: rate and median stay what they were; there is no reset and no incident.
#[test]
fn a19_histograms_that_rescale() {
    for (scales, thresholds) in [
        ([2, 1], [0.0, 0.0]),
        ([1, 3], [0.0, 0.0]),
        ([6, -1], [0.0, 0.0]),
        ([3, 3], [0.0, 0.25]),
        ([2, 0], [0.25, 0.5]),
    ] {
        for below in [0, 10] {
            let (mut values, mut text) = (Vec::new(), String::new());
            for i in 0..160 {
                values.extend((0..100).map(|n| {
                    if n < below { -f64::from(n + 1) } else { 0.1 * 1.06_f64.powi((n + 7 * i) % 100) }
                }));
                let later = usize::from(i >= 120);
                let line = exponential(f64::from(i) * 10.0, &values, scales[later], thresholds[later]);
                writeln!(text, "{line}").expect("a String takes every line");
            }
            let (rows, report) = run(SIZES, ".otlp.jsonl", &text);
            let case = format!("{scales:?} {thresholds:?} {below}");
            assert!(rows.of(0).len() == 159 && rows.of(0).iter().all(|(_, rate)| *rate == 10.0), "{case}");
            let odd: Vec<_> =
                rows.of(1).into_iter().filter(|(_, middle)| !(1.0..4.0).contains(middle)).collect();
            assert!(odd.is_empty() && rows.of(1).len() == 159, "{case} {odd:?}");
            assert!(report.incidents.is_empty() && falls(&report).is_empty(), "{case} {:?}", falls(&report));
        }
    }
}
