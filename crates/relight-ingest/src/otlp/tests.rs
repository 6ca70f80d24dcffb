mod bounds;

use relight_core::KeyView;
use relight_core::record::{Histogram, Record};

use super::*;
use crate::source::decode_lines;

fn record(line: &str) -> (Record, Vec<String>) {
    let (mut records, complaints) = decode_lines(&mut Otlp::new(), &[line]);
    (records.remove(0).1, complaints)
}

fn metrics(metric: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"shop"}}}},
            {{"key":"k8s.pod.uid","value":{{"stringValue":"churn"}}}},
            {{"key":"who","value":{{"stringValue":"resource"}}}}]}},
          "scopeMetrics":[{{"scope":{{"name":"s","attributes":[{{"key":"who","value":{{"stringValue":"scope"}}}}]}},
            "metrics":[{{"name":"m","unit":"1",{metric}}}],"schemaUrl":"x"}}]}}]}}"#
    )
    .replace('\n', " ")
}

/// One line per point: `name{labels} kind at-start value`.
fn shown(record: &Record) -> Vec<String> {
    let point = |point: &relight_core::record::Point| {
        let view = KeyView::new(record.key(point));
        let start = if point.start == Timestamp::MIN { "?".to_owned() } else { point.start.ns().to_string() };
        let value = match record.histograms.get(point.value as usize).filter(|_| point.kind.is_histogram()) {
            Some(h) => format!("{:?}/{:?}", h.bounds, h.counts),
            None => point.value.to_string(),
        };
        let labels: Vec<String> = view.labels().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{} {} {:?} {start}..{} {value}", view.name(), labels.join(","), point.kind, point.at.ns())
    };
    record.points.iter().map(point).collect()
}

fn check(metric: &str, expected: &[&str]) {
    let (record, complaints) = record(&metrics(metric));
    assert_eq!(shown(&record), expected, "{metric}: {complaints:?}");
}

#[test]
fn numbers_of_every_kind() {
    check(
        r#""gauge":{"dataPoints":[{"timeUnixNano":"5","asDouble":1.5,"unknown":[1]},{"timeUnixNano":6,"asInt":"-3","attributes":[{"key":"who","value":{"stringValue":"point"}}]}]}"#,
        &["m service.name=shop,who=scope Gauge ?..5 1.5", "m service.name=shop,who=point Gauge ?..6 -3"],
    );
    let sum = |monotonic: bool, temporality: u8| {
        format!(
            r#""sum":{{"isMonotonic":{monotonic},"aggregationTemporality":{temporality},"dataPoints":[{{"startTimeUnixNano":"2","timeUnixNano":"5","asInt":7}}]}}"#
        )
    };
    check(&sum(true, 2), &["m service.name=shop,who=scope Cumulative 2..5 7"]);
    check(&sum(true, 1), &["m service.name=shop,who=scope Delta 2..5 7"]);
    check(&sum(false, 2), &["m service.name=shop,who=scope Gauge 2..5 7"]);
    check(&sum(false, 1), &["m service.name=shop,who=scope Gauge 2..5 7"]);
}

#[test]
fn histograms_and_summaries() {
    check(
        r#""histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"5","count":"3","sum":4.5,"bucketCounts":["1",2],"explicitBounds":[0.5]}]}"#,
        &["m service.name=shop,who=scope CumulativeHistogram ?..5 [0.5]/[1, 2]"],
    );
    check(
        r#""histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"5","count":"3"}]}"#,
        &["m service.name=shop,who=scope DeltaHistogram ?..5 []/[3]"],
    );
    check(
        r#""summary":{"dataPoints":[{"timeUnixNano":"5","count":"4","sum":2.5,"quantileValues":[{"quantile":0.99,"value":1.25}]}]}"#,
        &[
            "m quantile=0.99,service.name=shop,who=scope Gauge ?..5 1.25",
            "m_count service.name=shop,who=scope Cumulative ?..5 4",
            "m_sum service.name=shop,who=scope Cumulative ?..5 2.5",
        ],
    );
}

/// Scenario: an empty histogram's extremes, a sum that overflowed, a last bound of +Inf with and without a bucket beyond it.
/// Guarantee: the buckets count, and an infinite bound is the open bucket.
#[test]
fn a05_a06_a07_only_buckets_count() {
    let point = |more: &str, counts: &str, bounds: &str| {
        format!(
            r#""histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"5","count":"10",{more}"bucketCounts":{counts},"explicitBounds":{bounds}}}]}}"#
        )
    };
    let expected = ["m service.name=shop,who=scope CumulativeHistogram ?..5 [5.0]/[4, 6]"];
    for more in [
        r#""min":"Infinity","max":"-Infinity","#,
        r#""sum":"Infinity","#,
        r#""sum":"NaN","min":"NaN","max":null,"#,
        r#""sum":1e400,"#,
    ] {
        check(&point(more, r#"["4","6"]"#, "[5]"), &expected);
    }
    check(&point("", r#"["4","6","0"]"#, r#"[5,"Infinity"]"#), &expected);
    check(&point("", r#"["4","6"]"#, r#"[5,"+Infinity"]"#), &expected);
    check(&point("", r#"["0","4","6","0"]"#, r#"["-Infinity",5,"Infinity"]"#), &expected);
    check(
        r#""summary":{"dataPoints":[{"timeUnixNano":"5","count":"4","sum":"NaN","quantileValues":[{"quantile":0.5,"value":"NaN"},{"quantile":1,"value":2}]}]}"#,
        &[
            "m quantile=1,service.name=shop,who=scope Gauge ?..5 2",
            "m_count service.name=shop,who=scope Cumulative ?..5 4",
        ],
    );
}

/// Scenario: enums by name, nulls for what is absent, names of fields as in the `.proto` files, integers as text, a BOM.
/// Guarantee: ProtoJSON is read as a Collector reads it.
#[test]
fn a03_a04_protojson_is_read() {
    let labels = "m service.name=shop,who=scope";
    check(
        r#""unit":null,"description":null,"gauge":null,"sum":{"isMonotonic":true,"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","dataPoints":[{"attributes":null,"startTimeUnixNano":"2","timeUnixNano":5,"asInt":"7","asDouble":null,"exemplars":null,"flags":null}]}"#,
        &[&format!("{labels} Cumulative 2..5 7")],
    );
    check(
        r#""sum":{"is_monotonic":true,"aggregation_temporality":"AGGREGATION_TEMPORALITY_DELTA","data_points":[{"start_time_unix_nano":null,"time_unix_nano":"5e0","as_int":"3"}]}"#,
        &[&format!("{labels} Delta ?..5 3")],
    );
    check(
        r#""gauge":{"dataPoints":[{"timeUnixNano":"5","asInt":0,"attributes":[{"key":"n","value":{"intValue":null}},{"key":"o","value":null},{"key":"b","value":{"bytesValue":"-_8"}}]}]}"#,
        &["m b=+/8=,n=,o=,service.name=shop,who=scope Gauge ?..5 0"],
    );
    check(r#""gauge":{"dataPoints":null}"#, &[]);
    for line in [
        r#"{"resource_metrics":[{"scope_metrics":[{"scope":null,"metrics":[{"name":"m","gauge":{"data_points":[{"time_unix_nano":"5","as_double":1.5}]}}]}],"resource":null,"schemaUrl":null}],"resourceLogs":null}"#,
        "\u{FEFF}{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"m\",\"gauge\":{\"dataPoints\":[{\"timeUnixNano\":\"5\",\"asDouble\":1.5}]}}]}]}]}",
    ] {
        let (record, complaints) = record(line);
        assert_eq!(shown(&record), ["m  Gauge ?..5 1.5"], "{complaints:?}");
    }
}

/// Scenario: a value of the wrong type in a point, an attribute of a metric's point, a metric, a scope and a resource.
/// Guarantee: what holds it is refused alone, with metric, service and cause, and counts the points in it.
#[test]
fn what_is_wrong_is_refused_alone() {
    let whole = r#"{"timeUnixNano":"9","asInt":1}"#;
    let gauge = |points: &str| metrics(&format!(r#""gauge":{{"dataPoints":[{points}]}}"#));
    let two = gauge(&format!("{whole},{whole}"));
    for (line, taken, said) in [
        (
            gauge(&format!(r#"{whole},{{"timeUnixNano":"9","asInt":{{}}}},{whole}"#)),
            2,
            "`m` of service `shop`: malformed point: invalid type: map, expected a 64-bit integer",
        ),
        (
            gauge(&format!(r#"{whole},{{"timeUnixNano":"9","asInt":1,"attributes":{{"k":"v"}}}}"#)),
            1,
            "`m` of service `shop`: malformed point: invalid type: map, expected a sequence",
        ),
        (
            gauge(&format!(
                r#"{whole},{{"timeUnixNano":"9","asInt":1,"attributes":[{{"key":"k","value":{}}}]}}"#,
                r#"{"arrayValue":{"values":["#.repeat(60) + "1" + &"]}}".repeat(60)
            )),
            1,
            "`m` of service `shop`: malformed point: recursion limit exceeded",
        ),
        (
            two.replace(r#""gauge":{"#, r#""gauge":{"isMonotonic":"no","#),
            0,
            "`m` of service `shop`: malformed metric: invalid type: string",
        ),
        (
            two.replace(r#""name":"m""#, r#""name":7"#),
            0,
            "service `shop`: malformed metric: invalid type: integer",
        ),
        (
            two.replace(r#""value":{"stringValue":"scope"}"#, r#""value":"scope""#),
            0,
            "service `shop`: malformed scope: invalid type: string",
        ),
        (
            two.replace(r#""value":{"stringValue":"churn"}"#, r#""value":"churn""#),
            0,
            "malformed resource: invalid type: string",
        ),
    ] {
        let other = metrics(&format!(r#""gauge":{{"dataPoints":[{whole}]}}"#));
        let other = other.strip_suffix("]}").expect("it ends so");
        let beside = line.replacen(r#"{"resourceMetrics":["#, &format!("{other},"), 1);
        for (line, beside) in [(&line, 0), (&beside, 1)] {
            let (record, complaints) = record(line);
            let refused = 2_u32.saturating_sub(taken as u32).max(1);
            assert_eq!(record.points.len(), taken + beside, "{line}: {complaints:?}");
            assert_eq!(record.refused, [(Reason::Malformed, if taken == 2 { 1 } else { refused })], "{line}");
            assert!(complaints[0].starts_with(&format!("test:1: {said}")), "{complaints:?}");
        }
    }
}

/// Scenario: values 1.0 (zero offset), 3 and a zero at scale 3, then the same at the coarser scale 0.
/// Guarantee: both have bounds in common, so that their counts may be subtracted, and no observation is lost.
#[test]
fn exponential_histograms_share_their_bounds() {
    let point = |scale: i32, offset: i32, counts: &str, zero: u32, count: u32| {
        format!(
            r#""exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"5","count":{count},"scale":{scale},"zeroCount":{zero},"positive":{{"offset":{offset},"bucketCounts":[{counts}]}}}}]}}"#
        )
    };
    let (fine, _) = record(&metrics(&point(3, -1, "1,0,0,2", 4, 7)));
    let (coarse, _) = record(&metrics(&point(0, -1, "1,2", 4, 7)));
    let (fine, coarse) = (&fine.histograms[0], &coarse.histograms[0]);
    assert!(fine.is_valid() && coarse.is_valid());
    assert_eq!(fine.common_bounds(coarse).as_ref(), Some(&coarse.bounds));
    assert_eq!(fine.merged(&coarse.bounds), *coarse);
    assert_eq!((fine.total(), coarse.total()), (7, 7));
    let filled = |h: &Histogram| -> Vec<(f64, u64)> {
        let bounds = h.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(h.counts.iter().copied()).filter(|(_, n)| *n > 0).collect()
    };
    assert_eq!(filled(fine), [(0.0, 4), (1.0, 1), (0.5_f64.exp2(), 2)]);
    assert_eq!(filled(coarse), [(0.0, 4), (1.0, 1), (2.0, 2)]);
}

/// Scenario: log records with a severity by number, by its name, by text, by several of these and by none.
/// Guarantee: the text is told, else the number's name; what is none keeps no record back, and an attribute wins over all.
#[test]
fn severities_are_told() {
    for (told, expected) in [
        (r#""severityNumber":17"#, Some("ERROR")),
        (r#""severityNumber":"SEVERITY_NUMBER_WARN2""#, Some("WARN")),
        (r#""severityNumber":17,"severityText":"crit""#, Some("crit")),
        (r#""severityNumber":9,"severityText":"""#, Some("INFO")),
        (r#""severityNumber":0"#, None),
        (r#""severityNumber":25"#, None),
        (r#""severityNumber":{}"#, None),
        (r#""severityText":"""#, None),
        (
            r#""severityNumber":9,"attributes":[{"key":"severity","value":{"stringValue":"mine"}}]"#,
            Some("mine"),
        ),
    ] {
        let line = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"5",{told}}}]}}]}}]}}"#
        );
        let (record, complaints) = record(&line);
        let severities: Vec<_> = record.events.iter().map(|event| event.labels.get("severity")).collect();
        assert_eq!(severities, [expected], "{told}: {complaints:?}");
    }
}

#[test]
fn logs_are_events() {
    let line = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeLogs":[{"scope":{},"logRecords":[
        {"timeUnixNano":"5","severityText":"ERROR","body":{"stringValue":"boom"},"attributes":[{"key":"n","value":{"intValue":"3"}}]},
        {"observedTimeUnixNano":"6","eventName":"deploy","body":{"kvlistValue":{"values":[{"key":"v","value":{"arrayValue":{"values":[{"doubleValue":1.5},{}]}}}]}}}]}]}]}"#
        .replace('\n', " ");
    let (record, complaints) = record(&line);
    let shown: Vec<String> =
        record.events.iter().map(|e| format!("{} {}{} {}", e.at.ns(), e.kind, e.labels, e.body)).collect();
    assert_eq!(
        shown,
        [
            r#"5 log{n="3",service.name="shop",severity="ERROR"} boom"#,
            r#"6 deploy{service.name="shop"} {"v":[1.5,null]}"#
        ],
        "{complaints:?}"
    );
}

/// Scenario: points and lines that cannot be taken, each for its own reason.
/// Guarantee: each is counted under that reason, and the good point beside it stays.
#[test]
fn c02_c16_bad_points_say_why() {
    use Reason::{BadHistogram, Future, LabelLimit, Malformed, NoRecordedValue, NonFinite};
    let long = format!(
        r#"{{"timeUnixNano":"5","asInt":1,"attributes":[{{"key":"k","value":{{"stringValue":"{}"}}}}]}}"#,
        "x".repeat(2000)
    );
    for (point, reason) in [
        (r#"{"timeUnixNano":"5","flags":1}"#, NoRecordedValue),
        (r#"{"timeUnixNano":"0","asInt":1}"#, Malformed),
        (r#"{"timeUnixNano":"18446744073709551615","asInt":1}"#, Future),
        (r#"{"timeUnixNano":"5"}"#, Malformed),
        (r#"{"timeUnixNano":"5","asDouble":"NaN"}"#, NonFinite),
        (&long, LabelLimit),
    ] {
        let (record, complaints) = record(&metrics(&format!(
            r#""gauge":{{"dataPoints":[{point},{{"timeUnixNano":"9","asInt":1}}]}}"#
        )));
        assert_eq!(record.refused, [(reason, 1)], "{point}: {complaints:?}");
        assert_eq!(record.points.len(), 1, "{point}");
        // A marker ends its series, which is the other point's here.
        let ends: Vec<_> = record.ends.iter().map(|end| (record.key(end), end.at)).collect();
        let ended = [(record.key(&record.points[0]), Timestamp::from_ns(5))];
        assert_eq!(ends, if reason == NoRecordedValue { &ended[..] } else { &[] }, "{point}");
    }
    for point in [
        r#""count":"3","bucketCounts":["1","1"],"explicitBounds":[0.5]"#,
        r#""count":"2","bucketCounts":["1","1"],"explicitBounds":[]"#,
        r#""count":"3","bucketCounts":["1","1","1"],"explicitBounds":[2,1]"#,
        r#""count":"1","scale":20000,"positive":{"offset":0,"bucketCounts":[1]}"#,
    ] {
        let kind = if point.contains("scale") { "exponentialHistogram" } else { "histogram" };
        let (record, _) = record(&metrics(&format!(
            r#""{kind}":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"5",{point}}}]}}"#
        )));
        assert_eq!(record.refused, [(BadHistogram, 1)], "{point}");
    }
    for line in [
        r#"{"resource_metrics":[]}"#,
        r#"{"resourceMetrics":[]}"#,
        r#"{"resourceMetrics":[{}],}"#,
        r#"{"resourceSpans":[{}]}"#,
        &metrics(r#""sum":{"isMonotonic":true,"dataPoints":[{"timeUnixNano":"5","asInt":1}]}"#),
        &metrics(r#""sum":{"isMonotonic":true,"aggregationTemporality":"CUMULATIVE","dataPoints":[]}"#),
        &metrics(r#""gauge":{"dataPoints":[{"timeUnixNano":"1.5","asInt":1}]}"#),
        &"[".repeat(1_000_000),
        &format!(r#"{{"resourceMetrics":{}"#, "[".repeat(1_000_000)),
    ] {
        let (record, complaints) = record(line);
        assert_eq!(record.refused, [(Malformed, 1)], "{}: {complaints:?}", &line[..line.len().min(80)]);
    }
}
