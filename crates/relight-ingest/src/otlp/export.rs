//! OTLP's JSON as a listener receives it: one request of one signal, which is refused as a whole if nothing of it can be
//! read. In a file such a line is only counted.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::lenient::MALFORMED;
use super::model::or_default;
use super::wire::is_unread;
use super::{Otlp, read};
use crate::source::Sink;

/// Reads an `ExportMetricsServiceRequest`.
pub(crate) fn metrics(json: &[u8], out: &mut Sink<'_>) -> Result<(), String> {
    let request = read(json, out).map_err(|why| unread("resourceMetrics", &why))?;
    let mut otlp = Otlp::new();
    let read = request.metrics.iter().try_for_each(|resource| otlp.metrics(resource, out));
    read.map_err(|error| error.to_string())?;
    some_is_read(out)
}

/// Reads an `ExportLogsServiceRequest`.
pub(crate) fn logs(json: &[u8], out: &mut Sink<'_>) -> Result<(), String> {
    let request = read(json, out).map_err(|why| unread("resourceLogs", &why))?;
    let mut otlp = Otlp::new();
    request.logs.iter().for_each(|resource| otlp.logs(resource, out));
    some_is_read(out)
}

/// An error if a request came to nothing because it is malformed.
fn some_is_read(out: &Sink<'_>) -> Result<(), String> {
    match out.record.refusals.kinds().first() {
        Some(first) if first.detail.starts_with(MALFORMED) && is_unread(out.record) => Err(first.to_string()),
        _ => Ok(()),
    }
}

/// Counts the spans of an `ExportTraceServiceRequest`.
pub(crate) fn spans(json: &[u8]) -> Result<u64, String> {
    let json = json.strip_prefix(crate::lines::BOM).unwrap_or(json);
    let traces: Traces =
        serde_json::from_slice(json).map_err(|error| unread("resourceSpans", &error.to_string()))?;
    let scopes = traces.resources.iter().flat_map(|resource| &resource.scopes);
    Ok(scopes.map(|scope| scope.spans.len() as u64).sum())
}

fn unread(wanted: &str, why: &str) -> String {
    format!("no OTLP request with `{wanted}` in JSON: {why}")
}

#[derive(Deserialize)]
struct Traces {
    #[serde(default, deserialize_with = "or_default", rename = "resourceSpans", alias = "resource_spans")]
    resources: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
struct ResourceSpans {
    #[serde(default, deserialize_with = "or_default", rename = "scopeSpans", alias = "scope_spans")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default, deserialize_with = "or_default")]
    spans: Vec<IgnoredAny>,
}
