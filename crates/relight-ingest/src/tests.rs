//! What a caller of [`open`] is promised, on real files.

use std::path::Path;

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
