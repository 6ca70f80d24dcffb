//! OTLP's three signals, and what becomes of a request of each.
//!
//! Metrics in protobuf go to the engine's thread as they are; everything else is decoded here.

use bytes::Bytes;
use relight_core::record::Record;

use super::body::{OFFLOAD_BYTES, off_thread};
use super::front::{Fault, Front, Rejected};
use super::reply::{Form, Taken};
use super::stats::add;
use super::{logs, proto};
use crate::complaints::Complaints;
use crate::json;
use crate::live::Load;
use crate::otlp::export;
use crate::source::Sink;

/// Points, log records or alerts of one request.
pub(super) const MAX_ENTRIES: usize = 100_000;
/// Bytes of one JSON request: decoded it takes several times as much.
pub(super) const MAX_JSON_BYTES: usize = 16 << 20;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/metrics" => Some(Self::Metrics),
            "/v1/logs" => Some(Self::Logs),
            "/v1/traces" => Some(Self::Traces),
            _ => None,
        }
    }

    pub(super) fn of_method(path: &str) -> Option<Self> {
        match path {
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Self::Metrics),
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Self::Logs),
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Self::Traces),
            _ => None,
        }
    }

    pub(super) const fn rejected_key(self) -> &'static str {
        match self {
            Self::Metrics => "rejectedDataPoints",
            Self::Logs => "rejectedLogRecords",
            Self::Traces => "rejectedSpans",
        }
    }
}

/// What a decoder made of a request, and what it complains about.
#[derive(Default)]
struct Decoded {
    record: Record,
    complaints: Vec<String>,
    spans: u64,
}

/// Takes one export request: decodes what is not the engine's to decode, and waits for what becomes of it.
pub(super) async fn take(front: &Front, signal: Signal, form: Form, body: Bytes) -> Result<Taken, Fault> {
    if form == Form::Protobuf && (signal == Signal::Metrics || body.is_empty()) {
        let empty = body.is_empty();
        let refused = if empty { Rejected::default() } else { front.deliver(Load::Metrics(body)).await? };
        return Ok(Taken::new(&refused.counts, &refused.texts()));
    }
    let name = front.name().to_owned();
    let turn = front.decode_turn().await;
    let decoded = if body.len() < OFFLOAD_BYTES {
        decode(&name, signal, form, &body)?
    } else {
        off_thread(move || decode(&name, signal, form, &body)).await?
    };
    add(&front.stats.spans, decoded.spans);
    let entries = decoded.record.points.len() + decoded.record.events.len();
    if entries > MAX_ENTRIES {
        return Err(Fault::malformed(format!("{entries} entries in one request (at most {MAX_ENTRIES})")));
    }
    drop(turn);
    let refused = front.deliver_record(decoded.record).await?;
    let named = refused.texts();
    // A decoder's own words are for what has no name.
    let texts = if named.is_empty() { &decoded.complaints } else { &named };
    Ok(Taken::new(&refused.counts, texts))
}

fn decode(name: &str, signal: Signal, form: Form, body: &[u8]) -> Result<Decoded, Fault> {
    let mut decoded = Decoded::default();
    let Decoded { record, complaints: told, spans } = &mut decoded;
    match (form, signal) {
        (Form::Protobuf, Signal::Traces) => *spans = proto::count_spans(body).map_err(Fault::malformed)?,
        (Form::Protobuf, _) => logs::decode(body, record).map_err(|why| Fault::malformed(why.to_string()))?,
        (Form::Json, _) => {
            json::bounded(body).map_err(Fault::malformed)?;
            let (mut partitions, mut complaints) = (vec![name.to_owned()], Complaints::default());
            let out = &mut Sink::new(record, &mut partitions, &mut complaints, 0);
            let read = match signal {
                Signal::Metrics => export::metrics(body, out),
                Signal::Logs => export::logs(body, out),
                Signal::Traces => export::spans(body).map(|n| *spans = n),
            };
            read.map_err(Fault::malformed)?;
            // A request has no lines.
            let place = format!("{name}:0: ");
            let texts = complaints.texts().iter();
            *told = texts.map(|text| text.strip_prefix(&place).unwrap_or(text).to_owned()).collect();
        }
    }
    Ok(decoded)
}
