//! Requests that are small and would come to much: what is shared times those that share it.
//!
//! None of them is timed. Without their bounds they take hours, or more memory than there is.

use relight_core::KeyView;
use relight_core::record::{Reason, Record};

use super::super::{MAX_POINTS, OtlpMetrics, WireError};
use super::writings::enclosed;
use crate::otlp::budget::MAX_NAMED_BYTES;

/// What follows the attributes of a gauge's point: a time and a value.
const SAMPLE: [u8; 18] = [0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0x31, 7, 0, 0, 0, 0, 0, 0, 0];

/// An attribute without the field that it lies in.
fn attribute(key: &str, value: &str) -> Vec<u8> {
    [enclosed(&[1], key.as_bytes()), enclosed(&[2, 1], value.as_bytes())].concat()
}

/// So many attributes in field `field`, with keys of their own or all with the same.
fn attributes(field: u8, n: usize, is_one: bool) -> Vec<u8> {
    let key = |i: usize| if is_one { "k".to_owned() } else { i.to_string() };
    (0..n).flat_map(|i| enclosed(&[field], &attribute(&key(i), "v"))).collect()
}

/// A gauge `m` with points of these attributes.
fn gauge(attributes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let points = attributes.flat_map(|own| enclosed(&[1], &[&own[..], &SAMPLE].concat()));
    enclosed(&[2], &[enclosed(&[1], b"m"), enclosed(&[5], &points.collect::<Vec<u8>>())].concat())
}

/// A request of one resource and one scope of it.
fn request(resource: &[u8], scope: &[u8], metric: &[u8]) -> Vec<u8> {
    let scope = [&enclosed(&[1], scope)[..], metric].concat();
    enclosed(&[1], &[enclosed(&[1], resource), enclosed(&[2], &scope)].concat())
}

fn read(body: &[u8]) -> (Record, Result<(), WireError>) {
    let mut record = Record::default();
    let read = OtlpMetrics::default().decode(body, 0, None, &mut record);
    (record, read)
}

/// Scenario: a resource, or a scope, or both together, with more labels than a series may have, and as many points as
/// a request may have.
/// Guarantee: all are refused for their labels, and what they share is not read for each.
#[test]
fn a12_wide_resource() {
    let points = gauge((0..MAX_POINTS).map(|_| Vec::new()));
    let wide = |field, n| attributes(field, n, false);
    let some = |field, from: usize| -> Vec<u8> {
        (from..from + 40).flat_map(|i| enclosed(&[field], &attribute(&i.to_string(), "v"))).collect()
    };
    for (resource, scope) in
        [(wide(1, 1_000_000), Vec::new()), (Vec::new(), wide(3, 100_000)), (some(1, 0), some(3, 40))]
    {
        let (record, read) = read(&request(&resource, &scope, &points));
        assert_eq!((read, record.points.len()), (Ok(()), 0));
        assert_eq!(record.refused, [(Reason::LabelLimit, MAX_POINTS as u32)]);
    }
    let (record, read) = read(&request(&some(1, 0), &some(3, 20), &points));
    assert_eq!((read, record.points.len()), (Ok(()), MAX_POINTS), "20 of 60 labels are in both");
}

/// Scenario: a label a million times, and as many points, or scopes with a point each, as a request may have.
/// Guarantee: it is one label, the last one, and is read once.
#[test]
fn a12_one_label_many_times() {
    let resource = [attributes(1, 1_000_000, true), enclosed(&[1], &attribute("k", "last"))].concat();
    let in_one = request(&resource, b"", &gauge((0..MAX_POINTS).map(|_| Vec::new())));
    let scopes = (0..MAX_POINTS).flat_map(|_| enclosed(&[2], &gauge(std::iter::once(Vec::new()))));
    let in_many = enclosed(&[1], &[enclosed(&[1], &resource), scopes.collect()].concat());
    for body in [in_one, in_many] {
        let (record, read) = read(&body);
        assert_eq!((read, record.points.len()), (Ok(()), MAX_POINTS));
        for point in &record.points {
            assert_eq!(record.key(point), b"m\xFEk\xFFlast");
        }
    }
}

/// Scenario: a summary's point with as many quantiles as a request may have points, and attributes beyond counting.
/// Guarantee: the attributes are read once for all its series.
#[test]
fn a12_wide_summary() {
    let quantile = |i: usize| [&[0x09][..], &(i as f64).to_le_bytes()].concat();
    let quantiles = (0..MAX_POINTS - 2).flat_map(|i| enclosed(&[6], &quantile(i))).collect::<Vec<u8>>();
    for (is_one, taken) in [(true, MAX_POINTS), (false, 0)] {
        let point = [&SAMPLE[..9], &quantiles, &attributes(7, 1_000_000, is_one)].concat();
        let metric = enclosed(&[2], &[enclosed(&[1], b"m"), enclosed(&[11, 1], &point)].concat());
        let (record, read) = read(&request(b"", b"", &metric));
        assert_eq!((read, record.points.len()), (Ok(()), taken));
    }
}

/// Scenario: a metric's name as long as a request, and as many points of several series each as it may have.
/// Guarantee: all are refused for it, and it is not copied for each.
#[test]
fn a12_long_name() {
    let name = "n".repeat(16 << 20);
    let points = enclosed(&[1], &SAMPLE[..9]).repeat(MAX_POINTS / 2);
    let metric = enclosed(&[2], &[enclosed(&[1], name.as_bytes()), enclosed(&[11], &points)].concat());
    let (record, read) = read(&request(b"", b"", &metric));
    assert_eq!((read, record.points.len()), (Ok(()), 0));
    assert_eq!(record.refused, [(Reason::LabelLimit, MAX_POINTS as u32)]);
}

/// Scenario: a value on the resource that is too long for a series, which some points replace.
/// Guarantee: those are taken, the others refused.
#[test]
fn a_long_value_may_be_replaced() {
    let resource = enclosed(&[1], &attribute("k", &"v".repeat(1_025)));
    let own =
        |i: usize| if i.is_multiple_of(2) { enclosed(&[7], &attribute("k", "short")) } else { Vec::new() };
    let (record, read) = read(&request(&resource, b"", &gauge((0..10).map(own))));
    assert_eq!((read, record.points.len()), (Ok(()), 5));
    assert_eq!(record.refused, [(Reason::LabelLimit, 5)]);
    assert_eq!(KeyView::new(record.key(&record.points[0])).get("k"), Some("short"));
}

/// Scenario: as many new series as a request may have points, with 60 KiB of labels on their resource; then the same
/// request again and again, each time after Intake has learned what came.
/// Guarantee: what a record holds is bounded and the rest refused for its labels; series that are known cost nothing,
/// so that all get in.
#[test]
fn d01_names_of_a_request_are_bounded() {
    let resource =
        |(key, bytes): (usize, usize)| enclosed(&[1], &attribute(&key.to_string(), &"v".repeat(bytes)));
    let wide: Vec<u8> = (0..60).map(|key| (key, 1_024)).flat_map(resource).collect();
    let own = |i: usize| enclosed(&[7], &attribute("i", &i.to_string()));
    let body = request(&wide, b"", &gauge((0..MAX_POINTS).map(own)));
    let (mut decoder, mut record) = (OtlpMetrics::default(), Record::default());
    let mut known = 0;
    for _ in 0..3 {
        assert_eq!(decoder.decode(&body, 0, None, &mut record), Ok(()));
        assert!(record.keys.len() <= MAX_NAMED_BYTES && record.keys.capacity() <= 2 * MAX_NAMED_BYTES);
        let (taken, new) = (record.points.len(), record.points.len() - known);
        assert!((2_000..2_200).contains(&new), "{new}");
        assert_eq!(record.refused, [(Reason::LabelLimit, (MAX_POINTS - taken) as u32)]);
        for (ix, point) in record.points.iter().enumerate() {
            let is_new = ix >= known;
            assert_eq!(is_new, point.key_len > 0);
            if is_new {
                assert_eq!(KeyView::new(record.key(point)).get("i"), Some(&*ix.to_string()));
                decoder.aliases().set(point.alias, ix as u32);
            }
        }
        known = taken;
    }
    record.clear(1, None);
    assert!(record.keys.capacity() <= 16 << 20, "an emptied record keeps {} bytes", record.keys.capacity());
}

/// Scenario: an attribute whose value is a list of a million values, which as objects would take 130 MB.
/// Guarantee: it is not read: its series is refused whatever else the value says.
#[test]
fn a_list_that_is_too_long_is_not_read() {
    let point = |n: usize| {
        let list = enclosed(&[5], &[0x0A, 0x00].repeat(n));
        let value = [list, vec![0x10, 1]].concat();
        gauge(std::iter::once(enclosed(&[7], &[enclosed(&[1], b"k"), enclosed(&[2], &value)].concat())))
    };
    let (record, _) = read(&request(b"", b"", &point(1_000)));
    assert_eq!(KeyView::new(record.key(&record.points[0])).get("k"), Some("true"), "the last one counts");
    let (record, _) = read(&request(b"", b"", &point(1_000_000)));
    assert_eq!((record.points.len(), record.refused), (0, vec![(Reason::LabelLimit, 1)]));
}

/// Scenario: a resource, a scope or a metric's data in a million empty parts.
/// Guarantee: refused before as many are noted down.
#[test]
fn parts_are_bounded() {
    for path in [&[1][..], &[1, 2], &[1, 2, 2]] {
        let field = if path.len() == 3 { 5 } else { 1 };
        let parts = |n: usize| enclosed(path, &enclosed(&[field], b"").repeat(n));
        assert_eq!(read(&parts(100)).1, Ok(()));
        let limit = 100_000;
        assert_eq!(read(&parts(1_000_000)).1, Err(WireError::TooMany { what: "parts of messages", limit }));
    }
}
