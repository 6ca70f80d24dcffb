//! Prometheus' remote write, version 1: a snappy block of protobuf.
//!
//! Metadata says what a series is where the sender sends it; until then its name does: `_total`, `_count`,
//! `_sum` and `_bucket` count up, everything else is a gauge. A classic histogram stays what Prometheus makes
//! of it, one cumulative series a bucket, told apart by `le`. The stale marker is no value. Exemplars are
//! passed over; native histograms are refused and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response, StatusCode};
use relight_core::Timestamp;
use relight_core::record::{Kind, Reason, Record};

use super::body::{self, off_thread};
use super::front::{Admitted, Fault, Front};
use super::http::{media_type, nothing_at, post, refuse, respond};
use super::proto::{Fields, Value, each};
use super::reply::{Form, Payload};
use super::signal::{MAX_ENTRIES, rejections};
use super::stats::{Outcome, add};
use crate::key::{Level, encode_levels};

/// Prometheus marks the end of a series with this NaN; any other NaN is a value that is none.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// Metric families whose type is remembered.
const MAX_FAMILIES: usize = 20_000;
const NS_PER_MS: i64 = 1_000_000;
/// Suffixes of series that count up.
const COUNTING: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// What metadata said of each metric family.
#[derive(Default)]
pub(super) struct Families {
    known: Mutex<HashMap<Box<str>, Family>>,
}

/// A family's type, as far as it matters: which of its series count up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Counter,
    /// Only the series with a suffix.
    Parts,
    Gauge,
}

impl Family {
    /// By the number that remote write's metadata has for a type.
    const fn of(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Counter),
            3 | 5 => Some(Self::Parts),
            2 | 4 | 6 | 7 => Some(Self::Gauge),
            _ => None,
        }
    }
}

impl Families {
    fn learn(&self, metadata: &[u8]) -> Result<(), &'static str> {
        let (mut code, mut name) = (0, "");
        for field in Fields::new(metadata) {
            match field? {
                (1, value) => code = value.varint()?,
                (2, value) => name = value.text()?,
                _ => {}
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(family) = Family::of(code)
            && (known.len() < MAX_FAMILIES || known.contains_key(name))
            && name.len() <= 1_024
        {
            known.insert(name.into(), family);
        }
        Ok(())
    }

    /// How a series counts.
    fn kind(&self, name: &str) -> Kind {
        let suffix = COUNTING.into_iter().find(|suffix| name.ends_with(suffix));
        let family = suffix.map_or(name, |suffix| &name[..name.len() - suffix.len()]);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match (known.get(name), known.get(family)) {
            (Some(own), _) => *own == Family::Counter,
            (None, Some(of_parts)) => *of_parts != Family::Gauge && suffix.is_some(),
            (None, None) => suffix.is_some(),
        };
        if counts { Kind::Cumulative } else { Kind::Gauge }
    }
}

/// Answers one write.
pub(super) async fn handle(
    front: &Arc<Front>,
    (path, families): (&str, &Arc<Families>),
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    match take(front, path, families, request).await {
        Ok(outcome) => (outcome, respond(StatusCode::NO_CONTENT, "text/plain", "")),
        Err(fault) => refuse(front, Form::Json, &fault),
    }
}

async fn take(
    front: &Arc<Front>,
    path: &str,
    families: &Arc<Families>,
    request: Request<Incoming>,
) -> Result<Outcome, Fault> {
    if request.uri().path() != path {
        return Err(nothing_at(request.uri().path()));
    }
    let Admitted { permit, mut held } = post(front, &request)?;
    understood(request.headers())?;
    let wire = body::read(request.into_body(), front.limits.max_wire_bytes, &mut held).await?;
    let len = snap::raw::decompress_len(&wire).map_err(|error| not_snappy(&error))?;
    if len > front.limits.max_inflated_bytes {
        let message = format!("the block has {len} bytes (at most {})", front.limits.max_inflated_bytes);
        return Err(Fault::new(Outcome::TooLarge, message));
    }
    held.grow(len)?;
    add(&front.stats.inflated_bytes, len as u64);
    let families = Arc::clone(families);
    let record = if wire.len() < body::OFFLOAD_BYTES {
        decode(&wire, &families)?
    } else {
        off_thread(move || decode(&wire, &families)).await?
    };
    let refused = front.deliver_record(record).await?;
    drop((permit, held));
    // What cannot be told apart from a gap in the data is no fault of the sender: summaries without
    // observations are NaN.
    let told: Vec<_> = refused.iter().copied().filter(|(reason, _)| *reason != Reason::NonFinite).collect();
    match rejections(&told) {
        // The protocol has no partial success: a 400 says that some were refused, and is not sent again.
        Some(message) => Err(Fault::new(Outcome::Malformed, format!("some samples were refused: {message}"))),
        None if refused.is_empty() => Ok(Outcome::Taken),
        None => Ok(Outcome::Partial),
    }
}

/// Version 1 only: version 2 has its own content type, and Prometheus falls back when told so.
fn understood(headers: &HeaderMap) -> Result<(), Fault> {
    let parameters = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_v2 = parameters.windows(3).any(|part| part == b".v2");
    if media_type(headers).is_some_and(|kind| kind != "application/x-protobuf") || is_v2 {
        let message = "only remote write version 1 is taken: Content-Type application/x-protobuf";
        return Err(Fault::new(Outcome::Unsupported, message));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "snappy") {
        return Err(Fault::new(Outcome::Unsupported, "Content-Encoding must be snappy"));
    }
    Ok(())
}

fn not_snappy(error: &snap::Error) -> Fault {
    Fault::malformed(format!("the body is no snappy block: {error}"))
}

fn decode(wire: &Bytes, families: &Families) -> Result<Record, Fault> {
    let request = snap::raw::Decoder::new().decompress_vec(wire).map_err(|error| not_snappy(&error))?;
    let mut record = Record::default();
    write_request(&request, families, &mut record)
        .map_err(|why| Fault::malformed(format!("not a WriteRequest: {why}")))?;
    Ok(record)
}

fn write_request(request: &[u8], families: &Families, record: &mut Record) -> Result<(), &'static str> {
    // Metadata first, wherever it lies: it says what the series beside it are.
    each(request, 3, &mut |metadata| families.learn(metadata))?;
    let (mut labels, mut key) = (Level::default(), Vec::new());
    each(request, 1, &mut |series| time_series(series, families, (&mut labels, &mut key), record))
}

/// `labels` and `key` are filled anew for each series.
fn time_series<'a>(
    series: &'a [u8],
    families: &Families,
    (labels, key): (&mut Level<'a>, &mut Vec<u8>),
    record: &mut Record,
) -> Result<(), &'static str> {
    labels.clear();
    let mut name = "";
    let (mut samples, mut natives) = (0, 0);
    for field in Fields::new(series) {
        match field? {
            (1, value) => match label(value)? {
                ("__name__", value) => name = value,
                (key, value) => labels.put(key, value.into()),
            },
            (2, _) => samples += 1,
            (4, _) => natives += 1,
            _ => {}
        }
    }
    (0..natives).for_each(|_| record.refuse(Reason::BadHistogram));
    if record.points.len() + samples > MAX_ENTRIES {
        return Err("too many samples in one request");
    }
    let reason = if name.is_empty() {
        Some(Reason::Malformed)
    } else {
        encode_levels((name, ""), &[labels], None, key).is_err().then_some(Reason::LabelLimit)
    };
    let (kind, mut placed) = (families.kind(name), None);
    each(series, 2, &mut |sample| {
        let read = sample_of(sample)?;
        match reason.map_or(read, Err) {
            // The key lies in the record once, however many samples the series has.
            Ok((at, value)) => {
                let key = *placed.get_or_insert_with(|| record.push_key(key));
                record.push_point_of(key, at, Timestamp::MIN, kind, value);
            }
            Err(reason) => record.refuse(reason),
        }
        Ok(())
    })
}

fn label(pair: Value<'_>) -> Result<(&str, &str), &'static str> {
    let (mut key, mut value) = ("", "");
    for field in Fields::new(pair.bytes()?) {
        match field? {
            (1, text) => key = text.text()?,
            (2, text) => value = text.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// A sample's time and value, or why it is none.
fn sample_of(sample: &[u8]) -> Result<Result<(Timestamp, f64), Reason>, &'static str> {
    let (mut bits, mut ms) = (0, 0);
    for field in Fields::new(sample) {
        match field? {
            (1, value) => bits = value.fixed64()?,
            (2, value) => ms = value.varint()?.cast_signed(),
            _ => {}
        }
    }
    let value = f64::from_bits(bits);
    Ok(match ms.checked_mul(NS_PER_MS) {
        _ if bits == STALE => Err(Reason::NoRecordedValue),
        _ if !value.is_finite() => Err(Reason::NonFinite),
        None => Err(Reason::Future),
        Some(ns) => Ok((Timestamp::from_ns(ns), value)),
    })
}
