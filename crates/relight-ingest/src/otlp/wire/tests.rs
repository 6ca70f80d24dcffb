//! The reader against prost: the same points, keys and refusals, cold and warm; and of what prost refuses, all that can be
//! read.

mod bounds;
mod json;
mod neighbours;
mod reference;
pub(crate) mod requests;
mod writings;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use relight_core::Timestamp;
use relight_core::record::{Reason, Record};

use super::{MAX_POINTS, OtlpMetrics, WireError, count_spans, decode_logs};
use reference::Reading;

const RECEIVED: Timestamp = Timestamp::from_secs(1_767_225_600);

/// A decoder and the names that its numbers stand for: what Intake knows, without Intake.
#[derive(Default)]
struct Source {
    decoder: OtlpMetrics,
    names: Vec<Vec<u8>>,
}

impl Source {
    /// Decodes, and reads every point back with the name of its series. Learns the series that `learns` says.
    fn read(&mut self, body: &[u8], learns: impl Fn(&[u8]) -> bool) -> Result<Reading, WireError> {
        let mut record = Record::default();
        let read = self.decoder.decode(body, 7, Some(RECEIVED), &mut record);
        assert_eq!((record.offset, record.received), (7, Some(RECEIVED)));
        if let Err(error) = read {
            assert!(record.points.is_empty() && record.refused.is_empty() && record.histograms.is_empty());
            return Err(error);
        }
        let mut reading = Reading::default();
        for point in &record.points {
            let known = self.decoder.aliases().get(point.alias);
            let name = match known {
                Some(ix) if point.key_len == 0 => self.names[ix as usize].clone(),
                _ => record.key(point).to_vec(),
            };
            if known.is_none() && learns(&name) {
                let ix = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
                    self.names.push(name.clone());
                    self.names.len() - 1
                });
                self.decoder.aliases().set(point.alias, ix as u32);
            }
            reading.push(name, point, &record);
        }
        for end in &record.ends {
            let name = match self.decoder.aliases().get(end.alias) {
                Some(ix) if end.key_len == 0 => self.names[ix as usize].clone(),
                _ => record.key(end).to_vec(),
            };
            reading.end(name, end);
        }
        reading.refused = record.refused.clone();
        reading.refused.sort_unstable();
        Ok(reading)
    }
}

/// Guarantee: cold, warm, half warm and with the memory forgotten, the reader says what prost's objects say, and the same
/// each time of what prost cannot read.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let request = ExportMetricsServiceRequest::decode(body);
    let mut source = Source::default();
    let cold = source.read(body, |name| name.len() % 3 > 0);
    match request {
        Err(_) => {
            let known = match &cold {
                Err(WireError::Malformed { at, .. }) => *at <= body.len(),
                Err(WireError::TooMany { .. }) => false,
                Ok(_) => true,
            };
            prop_assert!(known, "prost refuses what is read as {:?}", cold);
            prop_assert_eq!(&source.read(body, |_| true), &cold);
            source.decoder.aliases().renew(1);
            prop_assert_eq!(&source.read(body, |_| true), &cold);
        }
        Ok(request) => {
            let expected = reference::read(&request);
            prop_assert_eq!(&cold, &Ok(expected.clone()));
            prop_assert_eq!(&source.read(body, |_| true), &Ok(expected.clone()));
            prop_assert_eq!(&source.read(body, |_| true), &Ok(expected.clone()));
            source.decoder.aliases().renew(1);
            prop_assert_eq!(&source.read(body, |_| true), &Ok(expected));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn points_are_as_prost_reads_them(request in requests::metrics()) {
        check(&request.encode_to_vec())?;
    }

    /// Scenario: two requests share some series; one decoder reads them in turn.
    /// Guarantee: what it remembers of one changes nothing in the other.
    #[test]
    fn memory_changes_nothing(a in requests::metrics(), b in requests::metrics()) {
        let mut source = Source::default();
        for request in [&a, &b, &b, &a, &b] {
            let body = request.encode_to_vec();
            let request = ExportMetricsServiceRequest::decode(&body[..]).expect("prost wrote it");
            prop_assert_eq!(source.read(&body, |_| true), Ok(reference::read(&request)));
        }
    }

    /// Scenario: messages are cut into parts, fields are shuffled and repeated, unknown ones and groups lie
    /// between them, lists are packed or not.
    /// Guarantee: the reader merges them as protobuf says.
    #[test]
    fn the_same_in_any_writing(request in requests::metrics(), seed: u64) {
        check(&writings::rewritten(&request.encode_to_vec(), seed))?;
    }

    /// Scenario: a request is cut off, or has bytes that were hit.
    /// Guarantee: never a panic, and the same as prost where prost reads it.
    #[test]
    fn damage_is_read_as_far_as_it_goes(request in requests::metrics(), cut: prop::sample::Index,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut body = request.encode_to_vec();
        check(&body[..cut.index(body.len() + 1)])?;
        for (at, byte) in hits {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
            check(&body)?;
        }
    }

    #[test]
    fn noise_is_read_as_far_as_it_goes(body in writings::noise()) {
        check(&body)?;
        let logs = ExportLogsServiceRequest::decode(&body[..]);
        let read = decode_logs(&body, 0, None, &mut Record::default());
        prop_assert!(read.is_ok() || logs.is_err(), "{:?}", read);
        let spans = ExportTraceServiceRequest::decode(&body[..]);
        prop_assert_eq!(count_spans(&body).is_err(), spans.is_err());
    }

    #[test]
    fn logs_are_as_prost_reads_them(request in requests::logs(), seed: u64, cut: prop::sample::Index) {
        let body = writings::rewritten(&request.encode_to_vec(), seed);
        for body in [&body[..], &body[..cut.index(body.len() + 1)]] {
            let mut record = Record::default();
            let read = decode_logs(body, 0, None, &mut record);
            match ExportLogsServiceRequest::decode(body) {
                Err(_) => prop_assert!(read.is_ok() || record.events.is_empty()),
                Ok(request) => {
                    record.refused.sort_unstable();
                    prop_assert_eq!((record.events, record.refused), reference::read_logs(&request));
                }
            }
        }
    }

    #[test]
    fn spans_are_counted(request in requests::traces(), seed: u64, cut: prop::sample::Index) {
        let body = writings::rewritten(&request.encode_to_vec(), seed);
        for body in [&body[..], &body[..cut.index(body.len() + 1)]] {
            let expected = ExportTraceServiceRequest::decode(body).ok().map(|request| {
                let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
                scopes.map(|scope| scope.spans.len() as u64).sum()
            });
            prop_assert_eq!(count_spans(body).ok(), expected);
        }
    }
}

/// Scenario: one request with every kind of message in a thousand writings.
/// Guarantee: prost reads the most of them, so that what merging means is put to the test.
#[test]
fn writings_are_requests() {
    let body = writings::everything().encode_to_vec();
    let mut read = 0;
    for seed in 0..1_000 {
        let body = writings::rewritten(&body, seed);
        read += usize::from(ExportMetricsServiceRequest::decode(&body[..]).is_ok());
        check(&body).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(read > 500, "only {read} of 1,000 writings are requests");
}

/// Scenario: a metric has data of one kind and then of another, as a careless merger writes it.
/// Guarantee: the last one counts, and the one before is passed over, whether it can be read or not.
#[test]
fn data_that_does_not_count_is_passed_over() {
    let point = [0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0x31, 7, 0, 0, 0, 0, 0, 0, 0];
    for passed_over in [&point[..], &point[..5]] {
        let name = writings::enclosed(&[1], b"m");
        let data = [writings::enclosed(&[7, 1], passed_over), writings::enclosed(&[5, 1], &point)];
        let body = writings::enclosed(&[1, 2, 2], &[name, data.concat()].concat());
        check(&body).unwrap_or_else(|error| panic!("{error}"));
        let mut record = Record::default();
        OtlpMetrics::default().decode(&body, 0, None, &mut record).expect("its framing is whole");
        assert_eq!((record.points.len(), record.refused.len()), (1, 0));
    }
}

/// Scenario: points whose attributes lie in two pieces, around the value; they differ in one of the pieces.
/// Guarantee: each has its own series.
#[test]
fn both_pieces_of_attributes_count() {
    let point = |first: &[u8], second: &[u8]| {
        let attribute = |value| writings::enclosed(&[7, 2, 1], value);
        let number = [0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0x31, 7, 0, 0, 0, 0, 0, 0, 0];
        let second = [writings::enclosed(&[1], b"k"), writings::enclosed(&[2, 1], second)].concat();
        let point = [&attribute(first)[..], &number, &writings::enclosed(&[7], &second)].concat();
        writings::enclosed(&[1], &point)
    };
    let points = [point(b"a", b"x"), point(b"b", b"x"), point(b"a", b"y")].concat();
    let body = writings::enclosed(
        &[1, 2, 2],
        &[writings::enclosed(&[1], b"m"), writings::enclosed(&[5], &points)].concat(),
    );
    check(&body).unwrap_or_else(|error| panic!("{error}"));
    let mut record = Record::default();
    OtlpMetrics::default().decode(&body, 0, None, &mut record).expect("it is well formed");
    let mut names: Vec<_> = record.points.iter().map(|point| record.key(point)).collect();
    names.dedup();
    assert_eq!(names.len(), 3);
}

/// Scenario: one request with every kind of message, cut off after each of its bytes.
#[test]
fn a02_truncation_at_every_byte() {
    let body = writings::everything().encode_to_vec();
    for end in 0..=body.len() {
        check(&body[..end]).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
    }
}

/// Scenario: each byte of the same request is hit in turn.
#[test]
fn a02_every_byte_hit() {
    let whole = writings::everything().encode_to_vec();
    for at in 0..whole.len() {
        let mut body = whole.clone();
        body[at] ^= [0x01, 0x80, 0xFF][at % 3];
        check(&body).unwrap_or_else(|error| panic!("hit at {at}: {error}"));
    }
}

/// Scenario: groups and values as deep as allowed, and one deeper.
/// Guarantee: the same verdict as prost's, and no stack overflow at a million levels.
#[test]
fn a09_proto_group_depth() {
    for depth in [1, 90, 98, 99, 100, 101, 1_000_000] {
        let mut groups = vec![0x7B_u8; depth];
        groups.extend(vec![0x7C; depth]);
        check(&groups).unwrap_or_else(|error| panic!("{depth} groups: {error}"));
        if depth > 100 {
            assert!(OtlpMetrics::default().decode(&groups, 0, None, &mut Record::default()).is_err());
        }
    }
    for depth in 40..52 {
        let body = writings::nested(depth);
        check(&body).unwrap_or_else(|error| panic!("a value of {depth} levels: {error}"));
    }
}

/// Scenario: two million points without a byte of their own.
#[test]
fn a11_huge_repeated() {
    let points = [0x0A, 0x00].repeat(2_000_000);
    let body = writings::enclosed(&[1, 2, 2, 5], &points);
    let read = OtlpMetrics::default().decode(&body, 0, None, &mut Record::default());
    assert_eq!(read, Err(WireError::TooMany { what: "points", limit: MAX_POINTS }));
    let few = writings::enclosed(&[1, 2, 2, 5], &[0x0A, 0x00].repeat(MAX_POINTS));
    let mut record = Record::default();
    assert_eq!(OtlpMetrics::default().decode(&few, 0, None, &mut record), Ok(()));
    assert_eq!(record.refused, [(Reason::Malformed, MAX_POINTS as u32)]);
}

/// Scenario: as many exponential histograms as make gigabytes of buckets.
#[test]
fn a11_huge_histograms() {
    let points = [0x0A, 0x00].repeat(MAX_POINTS);
    let body = writings::enclosed(&[1, 2, 2, 10], &points);
    let read = OtlpMetrics::default().decode(&body, 0, None, &mut Record::default());
    assert!(matches!(read, Err(WireError::TooMany { what: "histogram buckets", .. })), "{read:?}");
}

/// Scenario: a decoder that may remember less than the series there are.
/// Guarantee: it forgets all and numbers anew; every series keeps its name.
#[test]
fn a_full_memory_is_forgotten() {
    let body = writings::everything().encode_to_vec();
    let expected = reference::read(&Message::decode(&body[..]).expect("prost wrote it"));
    for remembered in [0, MAX_POINTS + 1, MAX_POINTS + 1_000] {
        let mut source = Source { decoder: OtlpMetrics::remembering(remembered), names: Vec::new() };
        for _ in 0..4 {
            assert_eq!(source.read(&body, |_| true).as_ref(), Ok(&expected));
        }
        assert!(source.decoder.memo.len() <= remembered.max(MAX_POINTS));
    }
}
