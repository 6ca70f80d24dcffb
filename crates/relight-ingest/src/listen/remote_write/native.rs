//! Prometheus' native histograms: exponential ones, and those with bounds of their own, in integers and in floats.
//!
//! Read as OTLP's exponential histograms are, so that both feed the same signals. Bucket `i` of Prometheus ends at
//! base^i, of OTLP at base^(i + 1). Counts of float histograms are rounded: what a rate is made of are differences
//! of large counts.

use relight_core::Timestamp;
use relight_core::record::{Histogram, Reason};

use super::{NS_PER_MS, is_stale};
use crate::listen::proto::{Fields, Value};
use crate::otlp::exponential::{Counted, of_buckets};

/// The schema of a histogram with bounds of its own.
const CUSTOM: i64 = -53;
/// The reset hint of a histogram that may fall.
const GAUGE: u64 = 3;
/// Buckets from the first to the last, gaps included; Prometheus' clients keep to 160.
const MAX_BUCKETS: i64 = 1 << 14;

/// Why a histogram is not taken, and what people should know of it.
pub(super) type Refused = (Reason, &'static str);

/// A histogram as it lies on the wire.
#[derive(Default)]
struct Wire {
    schema: i64,
    sum: f64,
    zero_threshold: f64,
    zero_count: f64,
    negative: Side,
    positive: Side,
    hint: u64,
    ms: i64,
    bounds: Vec<f64>,
}

/// The buckets above zero, or those below.
#[derive(Default)]
struct Side {
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads one histogram: its time and its buckets, or why it is refused.
pub(super) fn read(message: &[u8]) -> Result<(Timestamp, Histogram), Refused> {
    let wire = wire(message).map_err(|_| (Reason::BadHistogram, "a native histogram that cannot be read"))?;
    if is_stale(wire.sum.to_bits()) {
        return Err((Reason::NoRecordedValue, "the end of a series"));
    }
    if wire.hint == GAUGE {
        return Err((Reason::BadHistogram, "a gauge histogram, whose buckets may fall, is not supported"));
    }
    let at = wire.ms.checked_mul(NS_PER_MS).map(Timestamp::from_ns);
    let at = at.ok_or((Reason::Future, "a time beyond the year 2262"))?;
    let histogram = if wire.schema == CUSTOM { custom(&wire) } else { exponential(&wire) };
    let histogram = histogram
        .ok_or((Reason::BadHistogram, "schema, spans or counts of a native histogram make no sense"))?;
    Ok((at, histogram))
}

fn exponential(wire: &Wire) -> Option<Histogram> {
    let ((first, positive), (first_below, negative)) = (wire.positive.dense()?, wire.negative.dense()?);
    let offset = |first: i64| i32::try_from(first - 1).ok();
    of_buckets(&Counted {
        scale: i32::try_from(wire.schema).ok()?,
        zero: (whole(wire.zero_count)?, wire.zero_threshold),
        positive: (offset(first)?, &positive),
        negative: (offset(first_below)?, &negative),
    })
}

fn custom(wire: &Wire) -> Option<Histogram> {
    let (first, dense) = wire.positive.dense()?;
    let mut counts = vec![0; wire.bounds.len() + 1];
    for (ix, n) in (first..).zip(dense) {
        *counts.get_mut(usize::try_from(ix).ok()?)? = n;
    }
    let histogram = Histogram { bounds: wire.bounds.clone(), counts };
    histogram.is_valid().then_some(histogram)
}

impl Side {
    /// The index of the first bucket, and all from there to the last.
    fn dense(&self) -> Option<(i64, Vec<u64>)> {
        let mut counts = self.counts()?.into_iter();
        let first = self.spans.first().map_or(0, |(offset, _)| *offset);
        let mut dense = Vec::new();
        for (i, (gap, length)) in self.spans.iter().enumerate() {
            let gap = if i == 0 { 0 } else { *gap };
            let end = dense.len() as i64 + gap + i64::try_from(*length).ok()?;
            if gap < 0 || end > MAX_BUCKETS {
                return None;
            }
            dense.resize((end - *length as i64) as usize, 0);
            for _ in 0..*length {
                dense.push(counts.next()?);
            }
        }
        counts.next().is_none().then_some((first, dense))
    }

    fn counts(&self) -> Option<Vec<u64>> {
        if !self.counts.is_empty() {
            return self.counts.iter().map(|n| whole(*n)).collect();
        }
        let mut sum = 0_i64;
        let mut absolute = |delta: &i64| {
            sum = sum.checked_add(*delta)?;
            u64::try_from(sum).ok()
        };
        self.deltas.iter().map(&mut absolute).collect()
    }
}

/// A count, rounded.
fn whole(n: f64) -> Option<u64> {
    (0.0..1.8e19).contains(&n).then_some(n.round() as u64)
}

fn wire(message: &[u8]) -> Result<Wire, &'static str> {
    let mut wire = Wire::default();
    for field in Fields::new(message) {
        match field? {
            (3, value) => wire.sum = f64::from_bits(value.fixed64()?),
            (4, value) => wire.schema = zigzag(value.varint()?),
            (5, value) => wire.zero_threshold = f64::from_bits(value.fixed64()?),
            (6, value) => wire.zero_count = value.varint()? as f64,
            (7, value) => wire.zero_count = f64::from_bits(value.fixed64()?),
            (8, value) => wire.negative.spans.push(span(value)?),
            (9, value) => varints(value, &mut |n| wire.negative.deltas.push(zigzag(n)))?,
            (10, value) => doubles(value, &mut wire.negative.counts)?,
            (11, value) => wire.positive.spans.push(span(value)?),
            (12, value) => varints(value, &mut |n| wire.positive.deltas.push(zigzag(n)))?,
            (13, value) => doubles(value, &mut wire.positive.counts)?,
            (14, value) => wire.hint = value.varint()?,
            (15, value) => wire.ms = value.varint()?.cast_signed(),
            (16, value) => doubles(value, &mut wire.bounds)?,
            _ => {}
        }
    }
    Ok(wire)
}

fn span(value: Value<'_>) -> Result<(i64, u64), &'static str> {
    let (mut offset, mut length) = (0, 0);
    for field in Fields::new(value.bytes()?) {
        match field? {
            (1, value) => offset = zigzag(value.varint()?),
            (2, value) => length = value.varint()?,
            _ => {}
        }
    }
    Ok((offset, length))
}

const fn zigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -((n & 1).cast_signed())
}

/// A repeated field of varints, packed or not.
fn varints(value: Value<'_>, put: &mut dyn FnMut(u64)) -> Result<(), &'static str> {
    match value {
        Value::Varint(one) => put(one),
        packed => {
            let mut left = Fields::new(packed.bytes()?);
            while let Some(one) = left.packed() {
                put(one?);
            }
        }
    }
    Ok(())
}

/// A repeated field of doubles, packed or not.
fn doubles(value: Value<'_>, out: &mut Vec<f64>) -> Result<(), &'static str> {
    match value {
        Value::Fixed64(bits) => out.push(f64::from_bits(bits)),
        packed => {
            let (whole, rest) = packed.bytes()?.as_chunks::<8>();
            if !rest.is_empty() {
                return Err("packed doubles that end within one");
            }
            out.extend(whole.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        }
    }
    Ok(())
}
