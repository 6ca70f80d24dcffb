use relight_core::record::Record;
use relight_core::{KeyView, Labels};

use super::*;
use crate::source::decode_lines;

/// Decodes lines with one decoder, so that later ones meet what earlier ones taught it.
fn records(lines: &[&str]) -> (Vec<(u32, Record)>, Vec<String>) {
    decode_lines(&mut Ndjson::new(), lines)
}

/// The single point of a line, as `name{labels} kind at-start value`.
fn point(line: &str) -> String {
    let (records, complaints) = records(&[line]);
    let [(_, record)] = &records[..] else { panic!("one record for {line}") };
    let [point] = &record.points[..] else { panic!("no point in {line}: {complaints:?}") };
    let view = KeyView::new(record.key(point));
    let start = if point.start == Timestamp::MIN { String::new() } else { format!(" from {}", point.start) };
    let value = match record.histograms.get(point.value as usize).filter(|_| point.kind.is_histogram()) {
        Some(h) => format!("{:?}/{:?}", h.bounds, h.counts),
        None => point.value.to_string(),
    };
    format!("{}{} {:?} {}{start} {value}", view.name(), view.to_labels(), point.kind, point.at)
}

#[test]
fn points() {
    for (line, expected) in [
        (
            r#"{"t":"2026-11-23T08:00:10.5Z","metric":"cpu","labels":{"host":"b","az":"a"},"value":0.5}"#,
            r#"cpu{az="a",host="b"} Gauge 2026-11-23T08:00:10.5Z 0.5"#,
        ),
        (
            r#" { "value" : -1e3 , "metric" : "c\u0070u" , "t" : 1396310400 } "#,
            "cpu{} Gauge 2014-04-01T00:00:00Z -1000",
        ),
        (
            r#"{"t":0,"metric":"up","labels":{"n":1,"ok":true,"x":"a\"b","n":2},"value":1}"#,
            r#"up{n="2",ok="true",x="a\"b"} Gauge 1970-01-01T00:00:00Z 1"#,
        ),
        (
            r#"{"t":"2026-11-23T10:00:10+02:00","metric":"n","value":7,"kind":"cumulative","start":"2026-11-23T08:00:00Z"}"#,
            "n{} Cumulative 2026-11-23T08:00:10Z from 2026-11-23T08:00:00Z 7",
        ),
        (r#"{"t":0,"metric":"n","value":7,"kind":"delta"}"#, "n{} Delta 1970-01-01T00:00:00Z 7"),
        (
            r#"{"t":0,"metric":"h","kind":"histogram","bounds":[1,2.5],"counts":[3,0,1]}"#,
            "h{} CumulativeHistogram 1970-01-01T00:00:00Z [1.0, 2.5]/[3, 0, 1]",
        ),
        (
            r#"{"t":0,"metric":"h","kind":"delta_histogram","bounds":[],"counts":[3]}"#,
            "h{} DeltaHistogram 1970-01-01T00:00:00Z []/[3]",
        ),
    ] {
        assert_eq!(point(line), expected);
    }
}

/// Guarantee: a line may say that a series has ended; it is no point, and has no value.
#[test]
fn an_end_is_a_line_of_its_own() {
    let (records, complaints) =
        records(&[r#"{"t":5,"metric":"up","labels":{"host":"a"},"kind":"end"}"#, r#"{"t":5,"kind":"end"}"#]);
    let ends: Vec<_> =
        records.iter().flat_map(|(_, r)| r.ends.iter().map(|end| (r.key(end), end.at))).collect();
    let key = relight_core::series::key_of("up", &Labels::new(vec![("host".to_owned(), "a".to_owned())]));
    assert_eq!(ends, [(&key[..], Timestamp::from_secs(5))]);
    assert!(records.iter().all(|(_, record)| record.points.is_empty()));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}

#[test]
fn events_and_control_records() {
    let (records, complaints) = records(&[
        r#"{"t":0,"event":"deploy","labels":{"service":"shop"},"body":"v3"}"#,
        r#"{"t":0,"advance":{"to":"1970-01-01T00:00:05Z"},"partition":"p1"}"#,
        r#"{"t":1,"outcome":{"action":"01H-1-0","ok":true}}"#,
        r#"{"t":2,"command":{"verb":"ack","target":"01H"},"received":3}"#,
    ]);
    assert_eq!(complaints, Vec::<String>::new());
    let labels = Labels::new([("service".to_owned(), "shop".to_owned())]);
    let deploy =
        Event { at: Timestamp::from_ns(0), kind: "deploy".to_owned(), labels, body: "v3".to_owned() };
    assert_eq!(records[0].1.events, [deploy]);
    assert_eq!(records[1].0, 1);
    assert_eq!(records[1].1.controls, [ControlRecord::Advance { to: Timestamp::from_secs(5) }]);
    let outcome = ControlRecord::Outcome {
        at: Timestamp::from_secs(1),
        action: "01H-1-0".to_owned(),
        ok: true,
        detail: String::new(),
    };
    assert_eq!(records[2].1.controls, [outcome]);
    let command = ControlRecord::Command {
        at: Timestamp::from_secs(2),
        verb: "ack".to_owned(),
        target: "01H".to_owned(),
    };
    assert_eq!(records[3].1.controls, [command]);
    assert_eq!(records[3].1.received, Some(Timestamp::from_secs(3)));
}

/// Guarantee: an event with a long value is taken, with the front of it. (A point with one is refused, below.)
#[test]
fn a_long_value_of_an_event_is_cut() {
    let line = format!(r#"{{"t":0,"event":"log","labels":{{"a":"{}"}}}}"#, "ü".repeat(2_000));
    let (records, complaints) = records(&[&line]);
    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!(records[0].1.events[0].labels.get("a"), Some(&*("ü".repeat(510) + "…")));
}

/// Scenario: lines that cannot be taken, each for its own reason.
/// Guarantee: each is counted under that reason, names what is wrong, and is still a record.
#[test]
fn bad_lines_say_why() {
    use Reason::{BadHistogram, LabelLimit, Malformed, NonFinite};
    for (line, reason, why) in [
        ("", Malformed, "not a JSON object"),
        ("{", Malformed, "EOF"),
        ("[]", Malformed, "not a JSON object"),
        ("{}", Malformed, "needs one of"),
        (r#"{"t":0,"metric":"m","value":1} x"#, Malformed, "trailing"),
        (r#"{"t":0,"metric":"m","knd":"delta","value":1}"#, Malformed, "unknown field `knd`"),
        (r#"{"t":0,"metric":"m","kind":"counter","value":1}"#, Malformed, "`kind` must be"),
        (r#"{"metric":"m","value":1}"#, Malformed, "no `t`"),
        (r#"{"t":1.5,"metric":"m","value":1}"#, Malformed, "RFC 3339"),
        (r#"{"t":"yesterday","metric":"m","value":1}"#, Malformed, "RFC 3339"),
        (r#"{"t":0,"metric":"m"}"#, Malformed, "`value`"),
        (r#"{"t":0,"metric":"m","value":null}"#, Malformed, "`value`"),
        (r#"{"t":0,"metric":"m","value":"12"}"#, Malformed, "number"),
        (r#"{"t":0,"metric":"m","value":NaN}"#, Malformed, "expected"),
        (r#"{"t":0,"metric":"m","value":"NaN"}"#, NonFinite, ""),
        (r#"{"t":0,"metric":"m","value":1e999}"#, NonFinite, ""),
        (r#"{"t":0,"metric":"","value":1}"#, Malformed, "empty"),
        (r#"{"t":0,"metric":5,"value":1}"#, Malformed, "string"),
        (r#"{"t":0,"metric":"m","labels":{"a":{}},"value":1}"#, Malformed, "labels"),
        (r#"{"t":0,"metric":"m","event":"e","value":1}"#, Malformed, "needs one of"),
        (
            r#"{"t":0,"metric":"h","kind":"histogram","bounds":[2,1],"counts":[1,1,1]}"#,
            BadHistogram,
            "ascend",
        ),
        (r#"{"t":0,"metric":"h","kind":"histogram","bounds":[2]}"#, Malformed, "`counts`"),
        (
            &format!(r#"{{"t":0,"metric":"m","labels":{{"a":"{}"}},"value":1}}"#, "x".repeat(1025)),
            LabelLimit,
            "1025",
        ),
        (&"[".repeat(1_000_000), Malformed, "not a JSON object"),
        (&format!(r#"{{"t":{}"#, "[".repeat(1_000_000)), Malformed, "EOF"),
    ] {
        let shown = &line[..line.len().min(80)];
        let (records, complaints) = records(&[line]);
        assert_eq!(records.len(), 1, "{shown}");
        assert_eq!(records[0].1.refused, [(reason, 1)], "{shown}: {complaints:?}");
        assert!(records[0].1.points.is_empty(), "{shown}");
        assert!(why.is_empty() || complaints[0].contains(why), "{shown}: {complaints:?}");
    }
}

/// Scenario: the same series again and again, in lines that differ in every way that lines can.
/// Guarantee: a decoder that has seen them before says exactly what a fresh one says.
#[test]
fn what_was_seen_before_changes_nothing() {
    let lines = [
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1.}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":01}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1e999}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":"NaN"}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1} "#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1}}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1,"kind":"delta"}"#,
        r#"{"t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1,"partition":"p"}"#,
        r#"{"t":1763884800000000001,"metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":1763884800000000001.0,"metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":"2026-11-23T08:00:00Z","received":5,"metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":"2026-11-23T08:00:00Z","received":"5","metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":"2026-11-23T08:00:00\u005a","metric":"a","labels":{"x":"1"},"value":1}"#,
        r#"{"t":"2026-11-23T08:00:00Z","t":"2026-11-23T08:00:00Z","metric":"a","labels":{"x":"1"},"value":1}"#,
    ];
    for (i, first) in lines.iter().enumerate() {
        for second in &lines {
            let both = [*first, first, first, second, second, second];
            let (seen, _) = records(&both);
            for (line, (_, record)) in both.iter().zip(&seen) {
                let (fresh, _) = records(&[line]);
                let mut fresh = fresh[0].1.clone();
                fresh.offset = record.offset;
                assert_eq!(*record, fresh, "line {i} before {line}");
            }
        }
    }
}
