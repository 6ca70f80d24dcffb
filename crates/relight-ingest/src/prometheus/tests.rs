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

/// Scenario: what `/federate` gives, all of it untyped, two scrapes one after the other, with a gauge that is typed.
/// Guarantee: what counts up is told by its name, as by remote write, and people are told once that it is.
#[test]
fn a02_untyped_families_are_known_by_name() {
    let scrape = |ms: &str, n: u32| {
        format!(
            "# TYPE latency_bucket untyped\nlatency_bucket{{le=\"+Inf\"}} {n} {ms}\nlatency_bucket{{le=\"0.5\"}} {n} {ms}\n\
             # TYPE latency_count untyped\nlatency_count {n} {ms}\n# TYPE latency_sum untyped\nlatency_sum 1.5 {ms}\n\
             # TYPE hits_total untyped\nhits_total {n} {ms}\n# TYPE up untyped\nup 1 {ms}\n\
             # TYPE pod_count gauge\npod_count 3 {ms}\n# TYPE pod gauge\npod_sum 4 {ms}\n"
        )
    };
    let text = scrape("1767225600000", 7) + &scrape("1767225610000", 9);
    let (records, complaints) = records(&text);
    let kinds: Vec<String> = records
        .iter()
        .flat_map(|(_, record)| &record.points)
        .zip(records.iter())
        .map(|(point, (_, record))| format!("{} {:?}", KeyView::new(record.key(point)).name(), point.kind))
        .collect();
    let once = [
        "latency_bucket Cumulative",
        "latency_bucket Cumulative",
        "latency_count Cumulative",
        "latency_sum Cumulative",
        "hits_total Cumulative",
        "up Gauge",
        "pod_count Gauge",
        "pod_sum Gauge",
    ];
    assert_eq!(kinds, [once, once].concat(), "{complaints:?}");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("test:2: no `# TYPE` says what `latency_bucket` is"), "{complaints:?}");
}

/// Scenario: two label sets of a histogram whose buckets lie between each other and another family; a histogram that another
/// scrape cuts off; and one that the file's end does.
/// Guarantee: buckets are put together by their series and time, and what stays incomplete is counted.
#[test]
fn interleaved_histograms_are_assembled() {
    let (t, u) = ("1767225600000", "1767225610000");
    let text = format!(
        "# TYPE h histogram\nh_bucket{{p=\"a\",le=\"1\"}} 1 {t}\nh_bucket{{p=\"b\",le=\"1\"}} 2 {t}\nup 1 {t}\n\
         h_bucket{{p=\"a\",le=\"+Inf\"}} 3 {t}\nh_bucket{{p=\"b\",le=\"+Inf\"}} 5 {t}\n\
         h_bucket{{p=\"a\",le=\"1\"}} 9 {t}\nh_bucket{{p=\"a\",le=\"1\"}} 4 {u}"
    );
    check(
        &text,
        &[
            "3: up{} Gauge 1767225600000 1",
            r#"4: h{p="a"} CumulativeHistogram 1767225600000 [1.0]/[1, 2]"#,
            r#"5: h{p="b"} CumulativeHistogram 1767225600000 [1.0]/[2, 3]"#,
        ],
    );
    let (records, complaints) = records(&text);
    let refused: Vec<_> = records.iter().flat_map(|(_, record)| record.refused.clone()).collect();
    assert_eq!(refused, [(Reason::BadHistogram, 1), (Reason::BadHistogram, 1)], "{complaints:?}");

    // A run that goes on behind the first bucket has it all the same.
    let lines: Vec<&str> = text.lines().collect();
    let mut decoder = Prometheus::new();
    lines[..4].iter().for_each(|line| decoder.pass(line.as_bytes()));
    let (records, _) = decode_lines(&mut decoder, &lines[4..6]);
    let points: Vec<String> = records.iter().flat_map(|(_, record)| shown(record)).collect();
    assert_eq!(
        points,
        [
            r#"0: h{p="a"} CumulativeHistogram 1767225600000 [1.0]/[1, 2]"#,
            r#"1: h{p="b"} CumulativeHistogram 1767225600000 [1.0]/[2, 3]"#,
        ]
    );
}

/// Scenario: lines of `promtool tsdb dump` and of its OpenMetrics writing: the name among the labels, texts as Go quotes them,
/// a native histogram, a value that is none.
/// Guarantee: each is the series that it was, and what is not read says so.
#[test]
fn a01_promtool_lines_are_read() {
    let t = 1_767_225_600_000_i64;
    let text = format!(
        "{{__name__=\"hits_total\", path=\"a\\\"b\\\\c\\n\\t\\x1b\\u00e9\\U0001f525\", job=\"é, }} #\"}} 5e+06 {t}\n\
         {{__name__=\"lone\"}} -1.5 {t}\n{{__name__=\"http.size\", \"host.name\"=\"h\"}} 2 {t}\n\
         {{__name__=\"native\", job=\"x\"}} {{count:3, sum:4.5, [-0.05,0.05]:3}} {t}\n\
         {{__name__=\"gone\"}} NaN {t}\nup{{job=\"x\"}} 1 1767225600.000\nbare{{}} 2 1767225600.250\n# EOF"
    );
    let lines: Vec<&str> = text.lines().collect();
    let (records, complaints) = decode_lines(&mut Prometheus::of_series(), &lines);
    let points: Vec<String> = records.iter().flat_map(|(_, record)| shown(record)).collect();
    assert_eq!(
        points,
        [
            "0: hits_total{job=\"é, } #\",path=\"a\\\"b\\\\c\\n\\t\\u{1b}é🔥\"} Cumulative 1767225600000 5000000",
            "1: lone{} Gauge 1767225600000 -1.5",
            r#"2: http.size{host.name="h"} Gauge 1767225600000 2"#,
            r#"5: up{job="x"} Gauge 1767225600000 1"#,
            "6: bare{} Gauge 1767225600250 2",
        ],
        "{complaints:?}"
    );
    let refused: Vec<_> = records.iter().flat_map(|(_, record)| record.refused.clone()).collect();
    assert_eq!(refused, [(Reason::BadHistogram, 1), (Reason::NonFinite, 1)]);
    assert!(complaints.iter().any(|told| told.starts_with("test:4: a native histogram")), "{complaints:?}");
    for cut in 0..text.len() {
        // Never a panic, wherever a line breaks off.
        if let Some(front) = text.get(..cut) {
            decode_lines(&mut Prometheus::of_series(), &front.lines().collect::<Vec<_>>());
        }
    }
}

/// Guarantee: a file is by series where two samples of one follow each other or names are labels, and not where scrapes do.
#[test]
fn a_file_by_series_is_told_from_scrapes() {
    for (text, expected) in [
        ("{__name__=\"a\"} 1 1000\n", true),
        ("a{x=\"1\"} 1 1000\na{x=\"1\"} 2 2000\n", true),
        ("# TYPE a gauge\na 1 1000\na 2 2000", true),
        ("a 1 1000\nb 1 1000\na 2 2000\nb 2 2000\n", false),
        ("a{x=\"1\"} 1 1000\na{x=\"2\"} 1 1000\n", false),
        ("# EOF", false),
        ("", false),
    ] {
        assert_eq!(Prometheus::is_by_series(text), expected, "{text}");
    }
}
