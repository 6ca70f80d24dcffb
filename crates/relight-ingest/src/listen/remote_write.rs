//! Prometheus' remote write: version 1, and version 2, which carries each series' type and start with it.
//!
//! A series' kind comes from metadata, else from its name (`kinds`). A family of which neither tells waits for
//! metadata for a bounded time (`held`), since a counter that is taken for a gauge is a false incident; what is known
//! survives a restart (`store`). Messages are read in `request`. A classic histogram stays what Prometheus makes of it, one cumulative series a
//! bucket, told apart by `le`; a native one becomes a histogram (`native`). The stale marker is no value. Exemplars
//! are passed over. A series that cannot be taken is refused by itself, and named in the answer.

mod families;
mod held;
mod kinds;
mod native;
mod request;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use relight_core::Timestamp;
use relight_core::record::{Reason, Record};

pub(super) use self::families::Families;
use self::families::Released;
use self::request::{Decoded, Written};
use super::body::{self, off_thread};
use super::front::{Admitted, Fault, Front, Rejected};
use super::http::{media_type, nothing_at, post, refuse, respond};
use super::reply::{Form, Payload, Taken};
use super::stats::{Outcome, add};
use crate::live::Load;

const NS_PER_MS: i64 = 1_000_000;
/// Prometheus marks the end of a series with this NaN; any other NaN is a value that is none.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The sign and the bit that a processor sets when it passes a signalling NaN on.
const QUIETED: u64 = 1 << 63 | 1 << 51;
/// A request waits so long for its metadata to be written to disk.
const SAVE: Duration = Duration::from_secs(2);
/// What version 2 wants to know of each answer.
const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// Whether a value's bits are the stale marker, also where a sender or a processor in between has quieted it.
const fn is_stale(bits: u64) -> bool {
    bits & !QUIETED == STALE
}

/// Which message a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// How a block is packed. Both versions are snappy; what has no coding is taken for it, as Prometheus itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Snappy,
    Identity,
}

/// What became of a write that was read.
struct Answered {
    taken: Taken,
    is_whole: bool,
    written: Written,
}

/// Answers one write.
pub(super) async fn handle(
    front: &Arc<Front>,
    (path, families): (&str, &Arc<Families>),
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    let (answer, written) = match take(front, path, families, request).await {
        Ok(Answered { taken, is_whole, written }) => (answer(front, &taken, is_whole), written),
        Err(fault) => (refuse(front, Form::Json, &fault), Written::default()),
    };
    let (outcome, mut response) = answer;
    for (name, n) in WRITTEN.into_iter().zip([written.samples, written.histograms, 0]) {
        response.headers_mut().insert(name, HeaderValue::from(n));
    }
    (outcome, response)
}

fn answer(front: &Front, taken: &Taken, is_whole: bool) -> (Outcome, Response<Payload>) {
    if taken.rejected > 0 {
        // Neither version has a partial success that is a success: a 400 says that some were refused, and Prometheus,
        // vmagent and the Collector do not send it again.
        let message = format!("some samples were refused, the others are in: {}", taken.message);
        return refuse(front, Form::Json, &Fault::malformed(message));
    }
    let outcome = if is_whole { Outcome::Taken } else { Outcome::Partial };
    (outcome, respond(StatusCode::NO_CONTENT, "text/plain", ""))
}

async fn take(
    front: &Arc<Front>,
    path: &str,
    families: &Arc<Families>,
    request: Request<Incoming>,
) -> Result<Answered, Fault> {
    if request.uri().path() != path {
        return Err(nothing_at(request.uri().path()));
    }
    let Admitted { permit, mut held } = post(front, &request)?;
    let (version, packing) = understood(request.headers())?;
    let wire = body::read(request.into_body(), front.limits.max_wire_bytes, &mut held).await?;
    let len = match packing {
        Packing::Snappy => snap::raw::decompress_len(&wire).map_err(|error| not_snappy(&error))?,
        Packing::Identity => wire.len(),
    };
    if len > front.limits.max_inflated_bytes {
        let message = format!("the block has {len} bytes (at most {})", front.limits.max_inflated_bytes);
        return Err(Fault::new(Outcome::TooLarge, message));
    }
    held.grow(len)?;
    add(&front.stats.inflated_bytes, len as u64);
    let is_small = wire.len() < body::OFFLOAD_BYTES;
    let (now, known, stats) = (front.now(), Arc::clone(families), Arc::clone(&front.stats));
    let work = move || {
        let message = unpacked(packing, wire)?;
        request::decode(&message, version, (&known, &stats), now)
    };
    let decoded = if is_small { work()? } else { off_thread(work).await? };
    save(families, now).await;
    let answered = deliver(front, families, decoded, now).await?;
    drop((permit, held));
    Ok(answered)
}

/// Metadata that was answered survives a kill. A disk that hangs must not keep samples from coming in.
async fn save(families: &Arc<Families>, now: Timestamp) {
    if families.wants_saving(now) {
        let families = Arc::clone(families);
        let saved = off_thread(move || Ok(families.save(now)));
        // What is not on disk now is written with a later request.
        let _ = tokio::time::timeout(SAVE, saved).await;
    }
}

/// Hands on what was decoded. Whatever becomes of this request, samples of earlier ones that it gave out are not lost.
async fn deliver(
    front: &Arc<Front>,
    families: &Arc<Families>,
    decoded: Decoded,
    now: Timestamp,
) -> Result<Answered, Fault> {
    let Decoded { mut record, settled, mut written } = decoded;
    let newest = record.points.iter().map(|point| point.at).max().unwrap_or(Timestamp::MIN).min(now);
    for Released { sample, kind, .. } in &settled.released {
        record.push_point(&sample.key, sample.at, Timestamp::MIN, *kind, sample.value);
    }
    let of_decoder: u64 = record.refused.iter().map(|(_, n)| u64::from(*n)).sum();
    // A request of which all waits takes its turn as well: its source is not idle, and a standby must not take it.
    let is_empty = record == Record::default() && settled.held.is_empty();
    let delivered =
        if is_empty { Ok(Rejected::default()) } else { front.deliver(Load::Record(Box::new(record))).await };
    let refused = match delivered {
        Ok(refused) => refused,
        Err(fault) => {
            families.not_taken(settled);
            return Err(fault);
        }
    };
    families.taken(settled.held, newest, &front.stats);
    let of_all: u64 = refused.counts.iter().map(|(_, n)| u64::from(*n)).sum();
    written.samples = written.samples.saturating_sub(of_all.saturating_sub(of_decoder));
    // What cannot be told apart from a gap in the data is no fault of the sender: summaries without
    // observations are NaN.
    let mut told = refused.counts.clone();
    told.retain(|(reason, _)| *reason != Reason::NonFinite);
    let is_whole = refused.counts.is_empty();
    Ok(Answered { taken: Taken::new(&told, &refused.texts()), is_whole, written })
}

/// The message's version and how it is packed, by its headers. Names of types and codings have no case.
fn understood(headers: &HeaderMap) -> Result<(Version, Packing), Fault> {
    if media_type(headers).is_some_and(|kind| kind != "application/x-protobuf") {
        let message = "Content-Type must be application/x-protobuf";
        return Err(Fault::new(Outcome::Unsupported, message));
    }
    let version = match parameter(headers, "proto").as_deref() {
        None | Some("prometheus.writerequest") => Version::One,
        Some("io.prometheus.write.v2.request") => Version::Two,
        Some(other) => {
            let message = format!(
                "the message `{}` is not known (have: prometheus.WriteRequest, io.prometheus.write.v2.Request)",
                other.chars().take(80).collect::<String>()
            );
            return Err(Fault::new(Outcome::Unsupported, message));
        }
    };
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
    let packing = match coding.to_ascii_lowercase().as_slice() {
        b"" | b"snappy" => Some(Packing::Snappy),
        b"identity" => Some(Packing::Identity),
        _ => None,
    };
    let packing = packing.filter(|_| codings.next().is_none());
    // vmagent begins with zstd and goes on with snappy after a 415.
    let unsupported = || Fault::new(Outcome::Unsupported, "Content-Encoding must be snappy");
    Ok((version, packing.ok_or_else(unsupported)?))
}

/// A parameter of the content type, in lower case and without quotes.
fn parameter(headers: &HeaderMap, name: &str) -> Option<String> {
    let whole = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let pairs = whole.split(';').skip(1).filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase())
}

fn unpacked(packing: Packing, wire: Bytes) -> Result<Bytes, Fault> {
    match packing {
        Packing::Identity => Ok(wire),
        Packing::Snappy => {
            let whole = snap::raw::Decoder::new().decompress_vec(&wire);
            whole.map(Bytes::from).map_err(|error| not_snappy(&error))
        }
    }
}

fn not_snappy(error: &snap::Error) -> Fault {
    Fault::malformed(format!("the body is no snappy block: {error}"))
}
