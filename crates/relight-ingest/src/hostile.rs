//! Whatever bytes a capture holds, reading it ends, and never with a panic.

use proptest::prelude::*;
use relight_core::record::Record;

use crate::IngestError;

const NDJSON: &str = r#"{"t":"2026-11-23T08:00:10.5Z","metric":"cpu","labels":{"host":"b","az":"a"},"value":0.5}
{"t":1000000000,"metric":"h","kind":"histogram","bounds":[1,2.5],"counts":[3,0,1],"partition":"p"}
{"t":"2026-11-23T08:00:10.5Z","metric":"cpu","labels":{"host":"b","az":"a"},"value":0.7}
{"t":"2026-11-23T08:00:11Z","event":"deploy","labels":{"service":"shop"},"body":"v3"}
"#;
const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"intValue":"1"}}]},"scopeMetrics":[{"metrics":[{"name":"m","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"5","asInt":"7"}]}},{"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"5","count":3,"scale":3,"positive":{"offset":-5,"bucketCounts":["1","2"]}}]}}]}]}]}
"#;
const PROMETHEUS: &str = "# TYPE h histogram\nh_bucket{p=\"a\",le=\"0.1\"} 4 1396310400000\n\
    h_bucket{p=\"a\",le=\"+Inf\"} 7 1396310400000\nh_sum 1 1396310400000\nup{job=\"x\\\"y\"} 1 1396310400000\n";
const CSV: &str = "timestamp,value\n2014-04-01 00:00:00,20.0\n1396310400,\"1,5\"\n1396310400.5,7\n";

/// Reads a file to its end; the number of records.
fn read_all(bytes: &[u8], skip: u64) -> Result<usize, IngestError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("it can be written");
    let mut records = 0;
    for mut source in crate::open(file.path())? {
        source.skip_to(&|_| skip)?;
        let (mut record, mut offsets) = (Record::default(), Vec::new());
        while let Some(partition) = source.next(&mut record)? {
            assert!((partition as usize) < source.partitions().len());
            assert!(record.points.iter().all(|p| p.value.is_finite() && !record.key(p).is_empty()));
            assert!(record.histograms.iter().all(relight_core::record::Histogram::is_valid));
            assert!(offsets.last().is_none_or(|last| *last < record.offset) && record.offset >= skip);
            offsets.push(record.offset);
        }
        records += offsets.len();
        // Bad lines, and two remarks on a table as a whole.
        assert!(source.complaints().len() <= crate::complaints::MAX_TEXTS + 2);
    }
    if let Ok(mut rows) = crate::sample_rows(file.path()) {
        while rows.next_row()?.is_some() {}
    }
    Ok(records)
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Cut(usize, usize),
    Double(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<usize>(), prop::sample::select(b"{}[]\",:\\\n0-9.eE#= \xFF".to_vec()))
            .prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<usize>(), 1..20_usize).prop_map(|(at, n)| Mutation::Cut(at, n)),
        (any::<usize>(), 1..200_usize).prop_map(|(at, n)| Mutation::Double(at, n)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let len = bytes.len().max(1);
        match *mutation {
            Mutation::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at % len) {
                    *place = byte;
                }
            }
            Mutation::Cut(at, n) => {
                let from = (at % len).min(bytes.len());
                bytes.drain(from..(from + n).min(bytes.len()));
            }
            Mutation::Double(at, n) => {
                let from = (at % len).min(bytes.len());
                let part = bytes[from..(from + n).min(bytes.len())].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(&bytes, 0);
    }

    #[test]
    fn any_bytes_after_a_good_start(
        start in prop::sample::select(vec![NDJSON, OTLP, PROMETHEUS, CSV]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        skip in 0..6_u64,
    ) {
        let bytes = [start.as_bytes(), &bytes, b"\n", start.as_bytes()].concat();
        prop_assert!(read_all(&bytes, skip).is_ok());
    }

    #[test]
    fn mutated_captures(
        start in prop::sample::select(vec![NDJSON, OTLP, PROMETHEUS, CSV]),
        mutations in prop::collection::vec(mutation(), 1..6),
        skip in 0..3_u64,
    ) {
        let _ = read_all(&mutate(start.repeat(3).into_bytes(), &mutations), skip);
    }

    #[test]
    fn damaged_archives(
        gzip in any::<bool>(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let bytes = NDJSON.repeat(50);
        let packed = if gzip { gzipped(bytes.as_bytes()) } else { zstd::encode_all(bytes.as_bytes(), 3).expect("packs") };
        let _ = read_all(&mutate(packed, &mutations), 0);
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

/// Scenario: the same capture plain, gzipped, and as zstd, each also in two parts put together.
/// Guarantee: all give the same records.
#[test]
fn archives_are_read_whole() {
    for text in [NDJSON, OTLP, PROMETHEUS, CSV] {
        let bytes = text.as_bytes();
        let plain = read_all(bytes, 0).expect("reads");
        let packed = zstd::encode_all(bytes, 3).expect("packs");
        assert_eq!(read_all(&packed, 0).expect("reads"), plain);
        assert_eq!(read_all(&gzipped(bytes), 0).expect("reads"), plain);
        assert_eq!(
            read_all(&[gzipped(bytes), gzipped(bytes)].concat(), 0).expect("reads"),
            read_all(text.repeat(2).as_bytes(), 0).expect("reads")
        );
        assert_eq!(
            read_all(&packed.repeat(2), 0).expect("reads"),
            read_all(text.repeat(2).as_bytes(), 0).expect("reads")
        );
    }
}
