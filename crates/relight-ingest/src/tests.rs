//! What a caller of [`open`] is promised, on real files.

use std::path::Path;

use relight_core::KeyView;
use relight_core::record::Record;

use super::*;

const POINT: &str = r#"{"t":0,"metric":"m","value":1}"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

fn refusal(path: &Path) -> String {
    let folder = path.parent().expect("files lie in a folder").display().to_string();
    match open(path) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => error.to_string().replace(&folder, ".."),
    }
}

/// Offsets, partitions and values of all that is left after a skip.
fn rest(source: &mut dyn CaptureSource) -> Vec<(u64, String, f64)> {
    let (mut record, mut seen) = (Record::default(), Vec::new());
    while let Some(partition) = source.next(&mut record).expect("the file is whole") {
        let name = Path::new(&source.partitions()[partition as usize]);
        let name = name.file_name().expect("a name").to_string_lossy().into_owned();
        seen.push((record.offset, name, record.points.first().map_or(f64::NAN, |point| point.value)));
    }
    seen
}

/// Scenario: paths that are no captures.
/// Guarantee: each message says what is wrong and what to do instead.
#[test]
fn what_is_no_capture_says_so() {
    let folder = folder(&[
        ("shop.yaml", "# mine\nsignals:\n  a: {rate: {of: b}}\n"),
        ("shop.conf", "interval: 10s\nrules:\n"),
        (
            "faults.ndjson",
            r#"{"fault":"bad_deploy","start":"2026-11-23T08:00:00Z","end":"2026-11-23T08:05:00Z","labels":{}}"#,
        ),
        ("novel.txt", "It was a dark and stormy night.\n"),
    ]);
    std::fs::create_dir(folder.path().join("sub")).expect("it can be made");
    for (name, message) in [
        ("missing.csv", "`../missing.csv`: no such file or folder"),
        ("shop.yaml", "`../shop.yaml` looks like a config, not a capture: pass it as `-c ../shop.yaml`"),
        ("shop.conf", "`../shop.conf` looks like a config, not a capture: pass it as `-c ../shop.conf`"),
        (
            "faults.ndjson",
            "`../faults.ndjson` holds labels, not records: pass it as `--labels ../faults.ndjson`",
        ),
    ] {
        assert_eq!(refusal(&folder.path().join(name)), message);
    }
    assert!(refusal(&folder.path().join("novel.txt")).contains("line 1 is neither newline-delimited JSON"));
    assert!(
        refusal(&folder.path().join("sub")).starts_with("no captures in folder `../sub`: looked for .ndjson")
    );
}

/// Scenario: files without a byte, without a line, and of JSON as people read it.
/// Guarantee: each is a capture without records that says why, so that it stops no others.
#[test]
fn what_holds_no_record_is_a_capture_all_the_same() {
    let folder = folder(&[
        ("empty.ndjson", ""),
        ("blank.csv", "\n \n"),
        ("pretty.json", "{\n  \"resourceMetrics\": []\n}\n"),
    ]);
    for (name, why) in [
        ("empty.ndjson", "empty.ndjson` is empty"),
        ("blank.csv", "blank.csv` is empty"),
        ("pretty.json", "is JSON spread over several lines: one object"),
    ] {
        let mut source = open(&folder.path().join(name)).expect("a capture").remove(0);
        assert!(rest(&mut *source).is_empty(), "{name}");
        assert!(matches!(source.complaints(), [one] if one.contains(why)), "{:?}", source.complaints());
    }
}

#[test]
fn a_folder_gives_its_captures_in_name_order() {
    let labels = r#"{"fault":"x","start":"2026-11-23T08:00:00Z","end":"2026-11-23T08:05:00Z"}"#;
    let folder = folder(&[
        ("b.ndjson", POINT),
        ("a.csv", "1396310400,1\n"),
        ("labels.ndjson", labels),
        ("README.md", "not a capture"),
        (".hidden.csv", "1396310400,1\n"),
        ("record.sh", "echo"),
    ]);
    let sources = open(folder.path()).expect("a folder of captures");
    let names: Vec<&str> =
        sources.iter().map(|s| s.partitions()[0].rsplit('/').next().expect("a name")).collect();
    assert_eq!(names, ["a.csv", "b.ndjson"]);
    assert_eq!(sources.iter().map(|s| s.is_samples()).collect::<Vec<_>>(), [true, false]);
}

/// Scenario: a capture of every format, read again from each of its records on.
/// Guarantee: what comes after a skip is exactly what came there in the first place.
#[test]
fn a_skip_changes_nothing_after_it() {
    let ndjson = [r#"{"t":0,"metric":"m","value":0}"#, "", "bad", POINT, r#"{"t":0,"metric":"m","value":3}"#]
        .join("\n");
    let prometheus = "# TYPE h histogram\n\nh_bucket{le=\"1\"} 1 1396310400000\nh_bucket{le=\"+Inf\"} 2 1396310400000\n\
                      # TYPE c counter\nc 5 1396310400000\n";
    let folder = folder(&[
        ("a.ndjson", &ndjson),
        ("b.csv", "\ntimestamp,value\n1396310400,1\n1396310401,2\n"),
        ("c.prom", prometheus),
    ]);
    for name in ["a.ndjson", "b.csv", "c.prom"] {
        let path = folder.path().join(name);
        let whole = rest(&mut *open(&path).expect("a capture")[0]);
        for next in 0..7 {
            let mut source = open(&path).expect("a capture").remove(0);
            source
                .skip_to(&|partition| if partition.ends_with(name) { next } else { 0 })
                .expect("it can be read");
            let expected: Vec<_> =
                whole.iter().filter(|(offset, ..)| *offset >= next).map(|r| format!("{r:?}")).collect();
            let found: Vec<_> = rest(&mut *source).iter().map(|r| format!("{r:?}")).collect();
            // Buckets of a histogram that was cut in two belong to a record that is not below `next`.
            if !(name == "c.prom" && next == 3) {
                assert_eq!(found, expected, "{name} from {next}");
            }
        }
    }
}

#[test]
fn records_go_to_the_partitions_they_name() {
    let line = |p: &str, value: u32| format!(r#"{{"t":0,"metric":"m","value":{value},"partition":"{p}"}}"#);
    let text = [line("x", 0), line("y", 1), POINT.to_owned(), line("x", 3), line("y", 4)].join("\n");
    let folder = folder(&[("a.ndjson", &text)]);
    let path = folder.path().join("a.ndjson");
    let part = |offset: u64, name: &str, value: f64| (offset, name.to_owned(), value);
    let whole = [
        part(0, "a.ndjson:x", 0.0),
        part(1, "a.ndjson:y", 1.0),
        part(2, "a.ndjson", 1.0),
        part(3, "a.ndjson:x", 3.0),
        part(4, "a.ndjson:y", 4.0),
    ];
    let mut source = open(&path).expect("a capture").remove(0);
    assert_eq!(rest(&mut *source), whole);
    assert_eq!(source.progress(), (text.len() as u64, text.len() as u64));
    // Skipping stops at the first record that is not known, whoever's it is.
    let mut source = open(&path).expect("a capture").remove(0);
    source.skip_to(&|name| if name.ends_with(":x") { 4 } else { 1 }).expect("it can be read");
    assert_eq!(rest(&mut *source), whole[1..]);
}

/// Scenario: an archive that was cut short, as a recorder that was killed leaves it.
/// Guarantee: what is there is read; then an error says how far that was.
#[test]
fn a_cut_archive_is_read_as_far_as_it_goes() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder
        .write_all(format!("{POINT}\n{POINT}\n{}", "x".repeat(100)).as_bytes())
        .expect("memory does not fail");
    let packed = encoder.finish().expect("memory does not fail");
    let folder = folder(&[]);
    let path = folder.path().join("a.ndjson.gz");
    std::fs::write(&path, &packed[..packed.len() - 60]).expect("it can be written");
    let mut source = open(&path).expect("a capture").remove(0);
    let mut record = Record::default();
    for offset in 0..2 {
        assert_eq!(source.next(&mut record).expect("whole so far"), Some(0));
        assert_eq!(record.offset, offset);
    }
    let error = source.next(&mut record).expect_err("it is cut short");
    assert!(matches!(error, IngestError::Read { line: 2, .. }), "{error}");
}

#[test]
fn a_bad_first_line_is_a_bad_line() {
    let folder = folder(&[("capture", &format!("oops\n{POINT}\n"))]);
    let mut source = open(&folder.path().join("capture")).expect("a capture").remove(0);
    assert_eq!(rest(&mut *source).len(), 2);
    assert_eq!(source.complaints().len(), 1);
}

#[test]
fn complaints_are_bounded_and_name_the_line() {
    let folder = folder(&[("a.ndjson", &format!("{POINT}\n{}", "x\n".repeat(50)))]);
    let mut source = open(&folder.path().join("a.ndjson")).expect("a capture").remove(0);
    assert_eq!(rest(&mut *source).len(), 51);
    assert_eq!(source.complaints().len(), 4);
    assert!(
        source.complaints()[3].ends_with("a.ndjson: and 47 more like line 2"),
        "{:?}",
        source.complaints()
    );
    assert!(source.complaints()[0].ends_with("a.ndjson:2: not a JSON object"), "{:?}", source.complaints());
}

#[test]
fn sample_rows_are_as_written() {
    let folder =
        folder(&[("a.csv", "timestamp,value\n2014-04-01 00:00:00,20.0\n\n1396310400.50,x,1\noops\n")]);
    let mut rows = sample_rows(&folder.path().join("a.csv")).expect("a table");
    let mut seen = Vec::new();
    while let Some(SampleRow { offset, timestamp, value, accepted }) =
        rows.next_row().expect("it can be read")
    {
        seen.push(format!("{offset} {timestamp} {value} {accepted}"));
    }
    assert_eq!(seen, ["1 2014-04-01 00:00:00 20.0 true", "3 1396310400.50 x false", "4 oops  false"]);
}

#[test]
fn outcomes_are_found_ahead_of_the_replay() {
    let outcome = r#"{"t":7,"outcome":{"action":"A-1-0","ok":false,"detail":"refused"}}"#;
    let event = r#"{"t":7,"event":"note","body":"no \"outcome\" yet"}"#;
    let folder = folder(&[("a.ndjson", &[POINT, event, outcome, "\"outcome\""].join("\n"))]);
    let expected = ControlRecord::Outcome {
        at: relight_core::Timestamp::from_secs(7),
        action: "A-1-0".to_owned(),
        ok: false,
        detail: "refused".to_owned(),
    };
    assert_eq!(recorded_outcomes(folder.path()).expect("a capture"), std::slice::from_ref(&expected));
    assert_eq!(recorded_outcomes(&folder.path().join("a.ndjson")).expect("a capture"), [expected]);
}

/// All points of a capture as `name at value`, and what people are told.
fn read(path: &Path) -> (Vec<String>, Vec<String>) {
    let mut sources = open(path).expect("a capture");
    let (source, mut record, mut seen) = (&mut sources[0], Record::default(), Vec::new());
    while source.next(&mut record).expect("the file is whole").is_some() {
        seen.extend(record.points.iter().map(|point| {
            let key = KeyView::new(record.key(point));
            format!("{}{} {} {}", key.name(), key.to_labels(), point.at.ns() / 1_000_000_000, point.value)
        }));
        seen.extend(record.events.iter().map(|event| format!("{} {}", event.kind, event.body)));
        seen.extend(record.refused.iter().map(|(reason, n)| format!("{} {n}", reason.name())));
    }
    let folder = path.parent().expect("files lie in a folder").display().to_string();
    let told = source.complaints().iter().map(|told| told.replace(&format!("{folder}/"), ""));
    (seen, told.collect())
}

/// Scenario: a dump of promtool's, and its OpenMetrics writing, plain and compressed: each series from its first sample to its
/// last, and the next one from the beginning.
/// Guarantee: samples come in the order of time, so that none is late; a run that goes on in the middle gets the same rest.
#[test]
fn a01_a_dump_is_read_by_time() {
    let samples = ["a", "b", "c"].iter().flat_map(|job| (0..200).map(move |i| (job, 1_767_225_600 + 15 * i)));
    let line = |(job, at)| format!("{{__name__=\"hits_total\", job=\"{job}\"}} {} {at}000\n", at % 1000);
    let dump = samples.map(line).collect::<Vec<_>>().concat();
    let open_metrics =
        dump.replace("{__name__=\"hits_total\", ", "hits_total{").replace("000\n", ".000\n") + "# EOF\n";
    let folder = folder(&[
        ("dump.prom", &dump),
        ("open.txt", &open_metrics),
        ("bom.prom", &format!("\u{FEFF}{dump}")),
    ]);
    let packed = zstd::encode_all(dump.as_bytes(), 3).expect("memory does not fail");
    std::fs::write(folder.path().join("packed.zst"), packed).expect("it can be written");
    let expected: Vec<String> = (0..200)
        .map(|i| 1_767_225_600 + 15 * i)
        .flat_map(|at| ["a", "b", "c"].map(|job| format!("hits_total{{job=\"{job}\"}} {at} {}", at % 1000)))
        .collect();
    for name in ["dump.prom", "open.txt", "packed.zst", "bom.prom"] {
        let (seen, told) = read(&folder.path().join(name));
        assert_eq!(seen, expected, "{name}: {told:?}");
        assert!(told.len() == 1 && told[0].contains("read in the order of time"), "{name}: {told:?}");
        let source = &mut open(&folder.path().join(name)).expect("a capture")[0];
        source.skip_to(&|_| 300).expect("it can be passed over");
        assert_eq!(rest(&mut **source).len(), 300, "{name}");
    }
}

/// Scenario: the Collector's file exporter with `compression: zstd` in JSON and in protobuf, and `format: proto` without
/// compression: metrics and logs in one file, each message behind its length. The file is cut off in the last one.
/// Guarantee: each message is a record, whichever the writing, and the tail is named and nothing else lost.
#[test]
fn c2_the_file_exporters_messages_are_read() {
    use prost::Message as _;
    let line = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"1767225600000000000","asInt":"7"}]}}]}]}]}"#;
    let log = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1767225600000000000","body":{"stringValue":"it broke"}}]}]}]}"#;
    let mut logs = opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest::default();
    let mut metrics =
        opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest::default();
    {
        use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
        use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
        use opentelemetry_proto::tonic::metrics::v1::{
            Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
        };
        let at = 1_767_225_600_000_000_000;
        let value = Some(number_data_point::Value::AsInt(7));
        let point = NumberDataPoint { time_unix_nano: at, value, ..NumberDataPoint::default() };
        let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
        let metric = Metric { name: "m".to_owned(), data, ..Metric::default() };
        let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
        metrics.resource_metrics =
            vec![ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() }];
        let body = Some(AnyValue { value: Some(Value::StringValue("it broke".to_owned())) });
        let log = LogRecord { time_unix_nano: at, body, ..LogRecord::default() };
        let scope = ScopeLogs { log_records: vec![log], ..ScopeLogs::default() };
        logs.resource_logs = vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }];
    }
    let framed = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
    let packed = |message: &[u8]| framed(&zstd::encode_all(message, 3).expect("memory does not fail"));
    let (metrics, logs) = (metrics.encode_to_vec(), logs.encode_to_vec());
    let folder = folder(&[]);
    for (name, file) in [
        ("json.zst", [packed(line.as_bytes()), packed(log.as_bytes()), packed(line.as_bytes())]),
        ("proto.zst", [packed(&metrics), packed(&logs), packed(&metrics)]),
        ("plain.proto", [framed(&metrics), framed(&logs), framed(&metrics)]),
    ] {
        let path = folder.path().join(name);
        let (whole, last) = (file.concat(), file[2].len());
        std::fs::write(&path, &whole).expect("it can be written");
        let (seen, told) = read(&path);
        assert_eq!(seen, ["m{} 1767225600 7", "log it broke", "m{} 1767225600 7"], "{name}: {told:?}");
        assert_eq!(told.len(), 0, "{name}: {told:?}");
        for missing in 1..last {
            std::fs::write(&path, &whole[..whole.len() - missing]).expect("it can be written");
            let (seen, told) = read(&path);
            assert_eq!(seen, ["m{} 1767225600 7", "log it broke", "malformed 1"], "{name} without {missing}");
            assert!(told[0].starts_with(&format!("{name}:3: the file ends within")), "{told:?}");
        }
    }
}

/// Scenario: each text format with a BOM in front; UTF-16, as PowerShell writes it; tables that are no tables of commas.
/// Guarantee: a BOM is nothing; what cannot be read says what it is and how to convert it.
#[test]
fn marks_and_dialects_are_known() {
    let bom = |text: &str| format!("\u{FEFF}{text}");
    let folder = folder(&[
        ("a.ndjson", &bom(r#"{"t":1767225600,"metric":"m","value":7}"#)),
        (
            "b.json",
            &bom(
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"1767225600000000000","asInt":7}]}}]}]}]}"#,
            ),
        ),
        ("c.prom", &bom("m 7 1767225600000\nx 1 1767225600000")),
        ("m.csv", &bom("timestamp,value\n1767225600,7")),
        ("twice.ndjson", &[bom(POINT), bom(POINT)].join("\n")),
        ("excel.csv", "sep=;\nDatum;Wert\n01.01.2026;20,5\n"),
        ("excel.txt", "sep=;\nDatum;Wert\n01.01.2026;20,5\n"),
        ("german.csv", "Datum,Wert\n01.01.2026,\"20,5\"\n"),
        ("comma.csv", "timestamp,value\n1767225600,\"20,5\"\n"),
        ("influx.txt", "#datatype,string,long,dateTime:RFC3339,double\n,result,table,_time,_value\n"),
        (
            "bare.csv",
            ",result,table,_start,_time,_value,host\n,,0,2026-01-01T00:00:00Z,2026-01-01T00:00:00Z,7,a\n",
        ),
    ]);
    for (name, metric) in
        [("a.ndjson", "m{}"), ("b.json", "m{}"), ("c.prom", "m{}"), ("m.csv", "m{}"), ("bare.csv", "bare{}")]
    {
        let (seen, told) = read(&folder.path().join(name));
        assert_eq!(seen[0], format!("{metric} 1767225600 7"), "{name}: {told:?}");
    }
    assert_eq!(read(&folder.path().join("twice.ndjson")).0.len(), 2);
    for (name, said) in [
        ("excel.csv", "excel.csv:1: `sep=` is for Excel"),
        ("excel.txt", "excel.txt:1: `sep=` is for Excel"),
        ("german.csv", "german.csv:2: `01.01.2026` has day or month first"),
        ("comma.csv", "comma.csv:2: the value `20,5` has a decimal comma"),
        ("influx.txt", "influx.txt:1: looks like InfluxDB's annotated CSV"),
    ] {
        let (_, told) = read(&folder.path().join(name));
        assert!(told.iter().any(|told| told.starts_with(said)), "{name}: {told:?}");
    }
    let utf16: Vec<u8> = bom("m 7 1767225600000\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let path = folder.path().join("shell.prom");
    std::fs::write(&path, utf16).expect("it can be written");
    assert!(
        refusal(&path)
            .starts_with("`../shell.prom` is UTF-16, as PowerShell writes it: convert it with `iconv")
    );
}
