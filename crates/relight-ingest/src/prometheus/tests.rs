use relight_core::KeyView;
use relight_core::record::Record;

use super::*;
use crate::source::decode_lines;

fn records(text: &str) -> (Vec<(u32, Record)>, Vec<String>) {
    decode_lines(&mut Prometheus::new(), &text.lines().collect::<Vec<_>>())
}

fn shown(record: &Record) -> Vec<String> {
    let point = |point: &relight_core::record::Point| {
        let view = KeyView::new(record.key(point));
        let value = match record.histograms.get(point.value as usize).filter(|_| point.kind.is_histogram()) {
            Some(h) => format!("{:?}/{:?}", h.bounds, h.counts),
            None => point.value.to_string(),
        };
        let ms = point.at.ns() / 1_000_000;
        format!("{}: {}{} {:?} {ms} {value}", record.offset, view.name(), view.to_labels(), point.kind)
    };
    record.points.iter().map(point).collect()
}

fn check(text: &str, expected: &[&str]) {
    let (records, complaints) = records(text);
    let points: Vec<String> = records.iter().flat_map(|(_, record)| shown(record)).collect();
    assert_eq!(points, expected, "{text}\n{complaints:?}");
}

#[test]
fn types_decide() {
    check(
        "# HELP http_requests Requests.\n# TYPE http_requests counter\n\
         http_requests{code=\"200\",path=\"/a\\\"b\\\\\"} 5 1396310400000\n\
         # TYPE temp gauge\ntemp -1.5 1396310400000\nuntyped_total 3 1396310400.5\nuntyped{} 3 1396310400",
        &[
            r#"2: http_requests{code="200",path="/a\"b\\"} Cumulative 1396310400000 5"#,
            "4: temp{} Gauge 1396310400000 -1.5",
            "5: untyped_total{} Cumulative 1396310400500 3",
            "6: untyped{} Gauge 1396310400000 3",
        ],
    );
}

#[test]
fn openmetrics_and_quoted_names() {
    check(
        "# TYPE foo counter\nfoo_total{a=\"b\"} 17.0 1396310400.123 # {trace_id=\"x\"} 0.6 1396310400.1\n\
         foo_created{a=\"b\"} 1396310000.0 1396310400.123\n\
         {\"http.server.duration\", \"host.name\"=\"h\"} 2 1396310400000\n# EOF",
        &[
            r#"1: foo_total{a="b"} Cumulative 1396310400123 17"#,
            r#"3: http.server.duration{host.name="h"} Gauge 1396310400000 2"#,
        ],
    );
}

/// Scenario: two label sets of a histogram, scraped twice.
/// Guarantee: each is one point with counts per bucket, made by its `+Inf` line, and nothing is counted twice.
#[test]
fn histograms_are_assembled() {
    let scrape = |ms: u32, n: u32| {
        let set = |p: &str| {
            format!(
                "h_bucket{{p=\"{p}\",le=\"0.1\"}} {n} {ms}000000000\nh_bucket{{p=\"{p}\",le=\"1\"}} {n} {ms}000000000\n\
                 h_bucket{{p=\"{p}\",le=\"+Inf\"}} {} {ms}000000000\nh_sum{{p=\"{p}\"}} 9 {ms}000000000\n\
                 h_count{{p=\"{p}\"}} {} {ms}000000000\n",
                n + 3,
                n + 3
            )
        };
        format!("# TYPE h histogram\n{}{}", set("a"), set("b"))
    };
    check(
        &format!("{}{}", scrape(1396, 4), scrape(1397, 5)),
        &[
            r#"3: h{p="a"} CumulativeHistogram 1396000000000 [0.1, 1.0]/[4, 0, 3]"#,
            r#"8: h{p="b"} CumulativeHistogram 1396000000000 [0.1, 1.0]/[4, 0, 3]"#,
            r#"14: h{p="a"} CumulativeHistogram 1397000000000 [0.1, 1.0]/[5, 0, 3]"#,
            r#"19: h{p="b"} CumulativeHistogram 1397000000000 [0.1, 1.0]/[5, 0, 3]"#,
        ],
    );
}

#[test]
fn summaries() {
    check(
        "# TYPE s summary\ns{quantile=\"0.99\"} 0.5 1396310400000\ns_sum 10 1396310400000\ns_count 4 1396310400000",
        &[
            r#"1: s{quantile="0.99"} Gauge 1396310400000 0.5"#,
            "2: s_sum{} Cumulative 1396310400000 10",
            "3: s_count{} Cumulative 1396310400000 4",
        ],
    );
}

#[test]
fn bad_lines_say_why() {
    for (text, reason, why) in [
        ("up 1", Reason::Malformed, "no timestamp"),
        ("up x 1396310400000", Reason::Malformed, "value"),
        ("up 1 noon", Reason::Malformed, "timestamp"),
        ("up 1 1396310400000 2", Reason::Malformed, "follows"),
        ("up{a=\"b} 1 1396310400000", Reason::Malformed, "no sample"),
        ("up{a=b} 1 1396310400000", Reason::Malformed, "no sample"),
        ("{a=\"b\"} 1 1396310400000", Reason::Malformed, "no sample"),
        ("up NaN 1396310400000", Reason::NonFinite, ""),
        ("up +Inf 1396310400000", Reason::NonFinite, ""),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1 1396310400000\nup 1 1396310400000",
            Reason::BadHistogram,
            "+Inf",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 4 1396310400000\nh_bucket{le=\"+Inf\"} 3 1396310400000",
            Reason::BadHistogram,
            "fall",
        ),
        ("# TYPE h histogram\nh_bucket{le=\"x\"} 4 1396310400000", Reason::Malformed, "`le`"),
    ] {
        let (records, complaints) = records(text);
        let refused: Vec<_> = records.iter().flat_map(|(_, record)| record.refused.clone()).collect();
        assert_eq!(refused, [(reason, 1)], "{text}: {complaints:?}");
        assert!(why.is_empty() || complaints[0].contains(why), "{text}: {complaints:?}");
    }
}

/// Scenario: a series whose name starts another's, with and without a blank before the braces.
/// Guarantee: guessing the series that usually follows never takes one for the other.
#[test]
fn a_guess_is_never_wrong() {
    let t = 1_396_310_400_000_i64;
    check(
        &format!("a 1 {t}\nb 1 {t}\na 1 {t}\nb {{x=\"1\"}} 2 {t}\na 1 {t}\nbc 3 {t}\na 1 {t}\nb 4 {t}"),
        &[
            "0: a{} Gauge 1396310400000 1",
            "1: b{} Gauge 1396310400000 1",
            "2: a{} Gauge 1396310400000 1",
            r#"3: b{x="1"} Gauge 1396310400000 2"#,
            "4: a{} Gauge 1396310400000 1",
            "5: bc{} Gauge 1396310400000 3",
            "6: a{} Gauge 1396310400000 1",
            "7: b{} Gauge 1396310400000 4",
        ],
    );
}
