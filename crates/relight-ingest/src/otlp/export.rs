//! OTLP's JSON as a listener receives it: one request of one signal, which is refused as a whole if it cannot
//! be read. In a file such a line is only counted.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Otlp;
use super::model::Request;
use crate::source::Sink;

/// Reads an `ExportMetricsServiceRequest`.
pub(crate) fn metrics(json: &[u8], out: &mut Sink<'_>) -> Result<(), String> {
    let request = read(json, "resourceMetrics")?;
    let mut otlp = Otlp::new();
    let read = request.metrics.iter().try_for_each(|resource| otlp.metrics(resource, out));
    read.map_err(|error| error.to_string())
}

/// Reads an `ExportLogsServiceRequest`.
pub(crate) fn logs(json: &[u8], out: &mut Sink<'_>) -> Result<(), String> {
    let (request, mut otlp) = (read(json, "resourceLogs")?, Otlp::new());
    request.logs.iter().for_each(|resource| otlp.logs(resource, out));
    Ok(())
}

/// Counts the spans of an `ExportTraceServiceRequest`.
pub(crate) fn spans(json: &[u8]) -> Result<u64, String> {
    read(json, "resourceSpans")?;
    let traces: Traces = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let scopes = traces.resources.iter().flat_map(|resource| &resource.scopes);
    Ok(scopes.map(|scope| scope.spans.len() as u64).sum())
}

fn read<'a>(json: &'a [u8], wanted: &str) -> Result<Request<'a>, String> {
    let request: Request<'a> = serde_json::from_slice(json)
        .map_err(|error| format!("no OTLP request with `{wanted}` in JSON: {error}"))?;
    if request.is_empty() {
        // Unknown keys are left alone, as the protocol asks; but a sender that spells the known one wrong
        // would be told that all is well.
        let top: Top = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if top.is_snake_case() {
            return Err(format!("keys are written in lowerCamelCase: `{wanted}`"));
        }
    }
    Ok(request)
}

#[derive(Deserialize)]
struct Top {
    #[serde(rename = "resource_metrics")]
    metrics: Option<IgnoredAny>,
    #[serde(rename = "resource_logs")]
    logs: Option<IgnoredAny>,
    #[serde(rename = "resource_spans")]
    spans: Option<IgnoredAny>,
}

impl Top {
    const fn is_snake_case(&self) -> bool {
        self.metrics.is_some() || self.logs.is_some() || self.spans.is_some()
    }
}

#[derive(Deserialize)]
struct Traces {
    #[serde(default, rename = "resourceSpans")]
    resources: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
struct ResourceSpans {
    #[serde(default, rename = "scopeSpans")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<IgnoredAny>,
}
