//! Lines that would come to much more than they are long: what is shared times those that share it.
//!
//! None of them is timed. Without their bounds they take minutes, or gigabytes.

use relight_core::record::{Reason, Record};

use super::record;
use crate::otlp::budget::{MAX_EVENT_BYTES, MAX_NAMED_BYTES};

const MANY: usize = 50_000;

/// So many attributes, with keys of their own or all with the same.
fn attributes(n: usize, is_one: bool) -> String {
    let one = |i: usize| {
        let key = if is_one { "k".to_owned() } else { i.to_string() };
        format!(r#"{{"key":"{key}","value":{{"stringValue":"v"}}}}"#)
    };
    format!(r#""attributes":[{}]"#, (0..n).map(one).collect::<Vec<_>>().join(","))
}

/// Sixty labels of 1 KiB, which together are within the limits.
fn broad() -> String {
    let value = "v".repeat(1 << 10);
    let one = |i: usize| format!(r#"{{"key":"{i}","value":{{"stringValue":"{value}"}}}}"#);
    format!(r#""attributes":[{}]"#, (0..60).map(one).collect::<Vec<_>>().join(","))
}

/// A metric `m` of this kind with a point, as often as told.
fn metric(kind: &str, point: &str, n: usize) -> String {
    let points = vec![point; n].join(",");
    format!(r#"{{"name":"m","{kind}":{{"aggregationTemporality":2,"dataPoints":[{points}]}}}}"#)
}

fn metrics(resource: &str, scopes: &str) -> (Record, Vec<String>) {
    record(&format!(r#"{{"resourceMetrics":[{{"resource":{{{resource}}},"scopeMetrics":[{scopes}]}}]}}"#))
}

const POINT: &str = r#"{"timeUnixNano":"5","asInt":1}"#;

/// Scenario: a resource with labels beyond counting, and as many points as labels; then as many scopes.
/// Guarantee: all points are refused for them, in few words, and what they share is read once.
#[test]
fn a12_wide_resource() {
    let in_one = format!(r#"{{"metrics":[{}]}}"#, metric("gauge", POINT, MANY));
    let in_many = vec![format!(r#"{{"metrics":[{}]}}"#, metric("gauge", POINT, 1)); MANY].join(",");
    for scopes in [in_one, in_many] {
        let (record, complaints) = metrics(&attributes(MANY, false), &scopes);
        assert_eq!((record.points.len(), record.refused), (0, vec![(Reason::LabelLimit, MANY as u32)]));
        assert_eq!(complaints[0], "test:1: `m`: more than 64 labels");
        let (record, _) = metrics(&attributes(MANY, true), &scopes);
        assert_eq!((record.points.len(), record.key(&record.points[0])), (MANY, &b"m\xFEk\xFFv"[..]));
    }
}

/// Scenario: a summary's point with quantiles and attributes beyond counting.
/// Guarantee: the attributes are read once for all its series.
#[test]
fn a12_wide_summary() {
    let quantiles = vec![r#"{"quantile":0.5,"value":1}"#; MANY].join(",");
    for (is_one, taken) in [(true, MANY + 2), (false, 0)] {
        let own = attributes(MANY, is_one);
        let point = format!(r#"{{"timeUnixNano":"5","count":"1","quantileValues":[{quantiles}],{own}}}"#);
        let (record, _) = metrics("", &format!(r#"{{"metrics":[{}]}}"#, metric("summary", &point, 1)));
        assert_eq!(record.points.len(), taken);
    }
}

/// Scenario: a metric whose name has megabytes, with points that cannot be taken.
/// Guarantee: they are counted, and what is said of them is short.
#[test]
fn a_long_name_is_not_said_in_full() {
    let name = "n".repeat(4 << 20);
    let scope = format!(
        r#"{{"metrics":[{}]}}"#,
        metric("gauge", "{}", MANY).replace("\"m\"", &format!("\"{name}\""))
    );
    let (record, complaints) = metrics("", &scope);
    assert_eq!(record.refused, [(Reason::Malformed, MANY as u32)]);
    assert!(complaints.iter().all(|text| text.len() < 200), "{}", complaints[0].len());
}

/// Scenario: points of new series, with 60 KiB of labels on their resource, that would make a gigabyte of names.
/// Guarantee: what the record holds is bounded, and the rest is refused for its labels, with the bound.
#[test]
fn d01_names_of_a_request_are_bounded() {
    let n = 20_000;
    let (record, complaints) =
        metrics(&broad(), &format!(r#"{{"metrics":[{}]}}"#, metric("gauge", POINT, n)));
    assert!(record.keys.len() <= MAX_NAMED_BYTES && record.points.len() > 2_000, "{}", record.points.len());
    assert_eq!(record.refused, [(Reason::LabelLimit, (n - record.points.len()) as u32)]);
    assert!(complaints[0].contains("more than 134217728 bytes of names and labels"), "{}", complaints[0]);
}

/// Scenario: exponential histograms of twenty bytes each, of which every one becomes four kilobytes of buckets.
/// Guarantee: a request with too many of them is refused as a whole, as the same in protobuf is.
#[test]
fn a11_huge_histograms() {
    let scope =
        |n| format!(r#"{{"metrics":[{}]}}"#, metric("exponentialHistogram", r#"{"timeUnixNano":"5"}"#, n));
    assert_eq!(metrics("", &scope(17_000)).0.histograms.len(), 17_000);
    let (record, complaints) = metrics("", &scope(18_000));
    assert_eq!((record.histograms.len(), record.points.len()), (0, 0));
    assert_eq!(record.refused, [(Reason::Malformed, 1)]);
    assert_eq!(complaints, ["test:1: more than 4194304 histogram buckets in one request"]);
}

/// Scenario: log records with 60 KiB of labels on their resource that would make a gigabyte of events; the same with
/// labels beyond counting.
/// Guarantee: what the record holds is bounded, and the rest is refused for its labels.
#[test]
fn logs_are_bounded() {
    let logs = |resource: &str, n: usize| {
        let logs = vec![r#"{"timeUnixNano":"5"}"#; n].join(",");
        record(&format!(
            r#"{{"resourceLogs":[{{"resource":{{{resource}}},"scopeLogs":[{{"logRecords":[{logs}]}}]}}]}}"#
        ))
    };
    let (record, complaints) = logs(&broad(), 20_000);
    assert!(record.bytes() <= MAX_EVENT_BYTES && record.events.len() > 3_000, "{}", record.events.len());
    assert_eq!(record.refused, [(Reason::LabelLimit, (20_000 - record.events.len()) as u32)]);
    assert!(complaints[0].contains("more than 268435456 bytes of events"), "{}", complaints[0]);
    let (record, complaints) = logs(&attributes(MANY, false), MANY);
    assert_eq!(record.refused, [(Reason::LabelLimit, MANY as u32)]);
    assert_eq!(complaints[0], "test:1: a log record: more than 64 labels");
}
