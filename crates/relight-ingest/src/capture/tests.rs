//! What is written is what was taken in, by the reader that replays use.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message;
use relight_core::Labels;
use relight_core::record::{ControlRecord, Event, Histogram, Kind};
use relight_core::series::key_of;

use super::*;
use crate::otlp::wire::tests::requests;
use crate::otlp::wire::{OtlpMetrics, decode_logs};

const RECEIVED: Timestamp = Timestamp::from_secs(1_767_225_600);

/// A point with its name, and its value to the last bit.
type Read = (Vec<u8>, Timestamp, Timestamp, Kind, u64, Option<Histogram>);

fn points(record: &Record) -> Vec<Read> {
    let read = |point: &relight_core::record::Point| {
        let histogram = point.kind.is_histogram().then(|| record.histograms[point.value as usize].clone());
        let bits = if histogram.is_some() { 0 } else { point.value.to_bits() };
        (record.key(point).to_vec(), point.at, point.start, point.kind, bits, histogram)
    };
    record.points.iter().map(read).collect()
}

/// Markers that series have ended, with their names.
fn ends(record: &Record) -> Vec<(Vec<u8>, Timestamp)> {
    record.ends.iter().map(|end| (record.key(end).to_vec(), end.at)).collect()
}

fn write(path: &Path, records: &[Record]) {
    let mut file = CaptureFile::create(path, true).expect("a folder of our own");
    for record in records {
        file.record("a \"b\"/ü", record).expect("there is room");
    }
    file.finish().expect("there is room");
}

/// All that a capture holds, and what its reader refused.
fn read(path: &Path) -> (Vec<Record>, Vec<String>) {
    let mut source = crate::open(path).expect("it is a capture").remove(0);
    let mut records = Vec::new();
    loop {
        let mut record = Record::default();
        let Some(partition) = source.next(&mut record).expect("it is whole") else { break };
        assert!(source.partitions()[partition as usize].ends_with(":a \"b\"/ü"));
        records.push(record);
    }
    (records, source.complaints().to_vec())
}

/// Guarantee: what is read is what was written: a line each, in the order of time, and nothing is refused.
fn check(record: &Record) -> Result<(), TestCaseError> {
    if record.points.is_empty() && record.events.is_empty() && record.ends.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("c.ndjson");
    write(&path, std::slice::from_ref(record));
    let (lines, complaints) = read(&path);
    prop_assert_eq!(complaints, Vec::<String>::new());
    prop_assert!(lines.iter().all(|line| line.received == record.received));
    let (mut expected, mut events) = (points(record), record.events.clone());
    expected.sort_by_key(|point| point.1);
    events.sort_by_key(|event| event.at);
    let mut ended = ends(record);
    ended.sort_by_key(|end| end.1);
    prop_assert_eq!(lines.iter().flat_map(ends).collect::<Vec<_>>(), ended);
    prop_assert_eq!(lines.iter().flat_map(points).collect::<Vec<_>>(), expected);
    prop_assert_eq!(lines.iter().flat_map(|line| line.events.clone()).collect::<Vec<_>>(), events);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Scenario: any request of OTLP metrics: all kinds, full mantissas, times beyond reason, odd names, exemplars.
    #[test]
    fn points_come_back(request in requests::metrics()) {
        let request: ExportMetricsServiceRequest = request;
        let mut record = Record::default();
        if OtlpMetrics::default().decode(&request.encode_to_vec(), 7, Some(RECEIVED), &mut record).is_ok() {
            check(&record)?;
        }
    }

    /// Scenario: any request of OTLP logs.
    #[test]
    fn events_come_back(request in requests::logs()) {
        let mut record = Record::default();
        if decode_logs(&request.encode_to_vec(), 7, Some(RECEIVED), &mut record).is_ok() {
            check(&record)?;
        }
    }
}

fn sample() -> Record {
    let labels = Labels::new([("h".to_owned(), "é\"\n".to_owned())]);
    let (key, at) = (key_of("m", &labels), |s: i64| Timestamp::from_ns(s * 1_000_000_000 + 1));
    let mut record = Record::default();
    record.clear(0, Some(Timestamp::from_secs(9)));
    record.push_point(&key, at(5), at(1), Kind::Cumulative, 0.1 + 0.2);
    record.push_point(&key, at(3), Timestamp::MIN, Kind::Gauge, -0.0);
    let histogram = Histogram { bounds: vec![0.5], counts: vec![1, u64::MAX] };
    record.push_histogram(&key, at(4), Timestamp::MIN, Kind::DeltaHistogram, histogram);
    record.push_point(&key, at(4), Timestamp::MIN, Kind::Delta, f64::INFINITY);
    record.events.push(Event { at: at(2), kind: "deploy".to_owned(), labels, body: "v3".to_owned() });
    record.controls.push(ControlRecord::Advance { to: at(6) });
    let command = |verb: &str, target: &str| (verb.to_owned(), target.to_owned());
    let (verb, target) = command("ack", "x");
    record.controls.push(ControlRecord::Command { at: at(1), verb, target });
    let (action, detail) = command("a", "");
    record.controls.push(ControlRecord::Outcome { at: at(7), action, ok: true, detail });
    record
}

/// Scenario: one record with everything in it, its times in no order.
/// Guarantee: these lines, oldest first, so that none makes a later one late; all are read again.
#[test]
fn lines_stand_in_the_order_of_time() {
    let mut lines = Vec::new();
    write::record("p", &sample(), &mut lines);
    let text = String::from_utf8(lines).expect("JSON is text");
    let expected = r#"{"t":"1970-01-01T00:00:01.000000001Z","command":{"verb":"ack","target":"x"},"received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:02.000000001Z","event":"deploy","labels":{"h":"é\"\n"},"body":"v3","received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:03.000000001Z","metric":"m","labels":{"h":"é\"\n"},"value":-0.0,"received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:04.000000001Z","metric":"m","labels":{"h":"é\"\n"},"kind":"delta_histogram","bounds":[0.5],"counts":[1,18446744073709551615],"received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:04.000000001Z","metric":"m","labels":{"h":"é\"\n"},"kind":"delta","value":"NaN","received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:05.000000001Z","metric":"m","labels":{"h":"é\"\n"},"kind":"cumulative","start":"1970-01-01T00:00:01.000000001Z","value":0.30000000000000004,"received":"1970-01-01T00:00:09Z","partition":"p"}
{"advance":{"to":"1970-01-01T00:00:06.000000001Z"},"received":"1970-01-01T00:00:09Z","partition":"p"}
{"t":"1970-01-01T00:00:07.000000001Z","outcome":{"action":"a","ok":true,"detail":""},"received":"1970-01-01T00:00:09Z","partition":"p"}
"#;
    assert_eq!(text, expected);
    let mut decoder = crate::ndjson::Ndjson::new();
    let lines: Vec<&str> = text.lines().collect();
    let (records, complaints) = crate::source::decode_lines(&mut decoder, &lines);
    assert_eq!((records.len(), complaints), (8, Vec::new()));
    let refused: Vec<_> = records.iter().flat_map(|(_, record)| record.refused.clone()).collect();
    assert_eq!(refused, [(relight_core::record::Reason::NonFinite, 1)]);
    let controls = records.iter().map(|(_, record)| record.controls.len()).sum::<usize>();
    assert_eq!(controls, 3);
}

/// Scenario: a capture grows for minutes, and its process is killed.
/// Guarantee: what is older than a second is in the file, which is whole, however it is compressed; a name that is
/// taken is refused, and replaced only by who says so.
#[test]
fn a_kill_leaves_a_whole_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["c.ndjson", "c.ndjson.gz", "c.ndjson.zst"] {
        let path = folder.path().join(name);
        let mut file = CaptureFile::create(&path, false).expect("a folder of our own");
        let (captured, mut now) = (file.captured(), RECEIVED);
        for _ in 0..10 {
            file.record("a \"b\"/ü", &sample()).expect("there is room");
            for _ in 0..2 {
                file.tick(now).expect("there is room");
                now = now.plus(BLOCK_AGE);
            }
        }
        file.record("a \"b\"/ü", &sample()).expect("there is room");
        // As after a kill: what waits in memory is gone.
        drop(file);
        assert_eq!(read(&path).0.len(), 80, "{name}");
        let on_disk = std::fs::metadata(&path).expect("it is there").len();
        assert_eq!(captured.bytes.load(Ordering::Relaxed), on_disk, "{name}");
        let taken =
            CaptureFile::create(&path, false).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(taken.contains("is there already"), "{taken}");
        write(&path, &[sample()]);
        assert_eq!(read(&path).0.len(), 8, "{name}");
    }
}
