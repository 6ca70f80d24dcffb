//! A JSON request of which some part is of the wrong type: what can be read of it, and what cannot.
//!
//! Only for requests that cannot be read as a whole. From the request down, what cannot be read is taken apart, until the
//! part that is wrong is a point, an attribute's owner or a log record: that is left out and named, and its neighbours
//! stay. What is no JSON is not taken apart.

use relight_core::record::Reason;
use relight_core::refusal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::model::{
    LogRecord, Metric, Origin, Request, ResourceLogs, ResourceMetrics, Samples, ScopeLogs, ScopeMetrics,
    or_default,
};
use super::value::Temporality;
use crate::ndjson::Text;
use crate::source::Sink;

/// How the reason begins for which a part is refused that cannot be read.
pub(super) const MALFORMED: &str = "malformed ";

/// One part as it is written.
type Raw<'a> = &'a RawValue;

/// Reads a request, and refuses the parts of it that cannot be read.
pub(super) fn request<'a>(json: &'a [u8], out: &mut Sink<'_>) -> Result<Request<'a>, serde_json::Error> {
    let RawRequest { metrics, logs, spans } = serde_json::from_slice(json)?;
    let mut parts = Parts { service: String::new(), out };
    Ok(Request {
        metrics: metrics.into_iter().filter_map(|raw| parts.resource_metrics(raw)).collect(),
        logs: logs.into_iter().filter_map(|raw| parts.resource_logs(raw)).collect(),
        spans: spans.into_iter().map(|_| serde::de::IgnoredAny).collect(),
    })
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "resourceMetrics",
        alias = "resource_metrics"
    )]
    metrics: Vec<Raw<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "resourceLogs",
        alias = "resource_logs"
    )]
    logs: Vec<Raw<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "resourceSpans",
        alias = "resource_spans"
    )]
    spans: Vec<Raw<'a>>,
}

/// A resource's or a scope's own part, and what it contains.
#[derive(Deserialize)]
struct RawGroup<'a> {
    #[serde(borrow, alias = "scope")]
    resource: Option<Raw<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        alias = "scopeMetrics",
        alias = "scope_metrics",
        alias = "scopeLogs",
        alias = "scope_logs",
        alias = "metrics",
        alias = "logRecords",
        alias = "log_records"
    )]
    content: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
struct RawMetric<'a> {
    #[serde(borrow)]
    name: Option<Raw<'a>>,
    #[serde(borrow)]
    gauge: Option<Raw<'a>>,
    #[serde(borrow)]
    sum: Option<Raw<'a>>,
    #[serde(borrow)]
    histogram: Option<Raw<'a>>,
    #[serde(borrow, rename = "exponentialHistogram", alias = "exponential_histogram")]
    exponential_histogram: Option<Raw<'a>>,
    #[serde(borrow)]
    summary: Option<Raw<'a>>,
}

#[derive(Deserialize)]
struct RawSamples<'a> {
    #[serde(borrow, default, deserialize_with = "or_default", rename = "dataPoints", alias = "data_points")]
    data_points: Vec<Raw<'a>>,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "aggregationTemporality",
        alias = "aggregation_temporality"
    )]
    aggregation_temporality: Temporality,
    #[serde(default, deserialize_with = "or_default", rename = "isMonotonic", alias = "is_monotonic")]
    is_monotonic: bool,
}

/// The name of a metric of which nothing else can be read.
#[derive(Deserialize, Default)]
struct Name<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    name: Text<'a>,
}

/// Takes parts of a request apart.
struct Parts<'s, 'o> {
    service: String,
    out: &'s mut Sink<'o>,
}

impl Parts<'_, '_> {
    fn refuse(&mut self, metric: &str, what: &str, error: &serde_json::Error, count: u32) {
        let error = error.to_string();
        // A position in a part means nothing to anybody.
        let why = error.split(" at line ").next().unwrap_or_default();
        let origin = refusal::Origin { metric, service: &self.service };
        self.out.refuse_named(Reason::Malformed, origin, &format!("{MALFORMED}{what}: {why}"), count);
    }

    /// A group's own part and its content; `None` if one of them cannot be read.
    fn group<'a>(&mut self, raw: Raw<'a>, what: &str) -> Option<(Origin<'a>, Vec<Raw<'a>>)> {
        let read = serde_json::from_str::<RawGroup<'a>>(raw.get()).and_then(|group| {
            let own = group.resource.map_or("null", RawValue::get);
            Ok((serde_json::from_str::<Option<Origin<'a>>>(own)?.unwrap_or_default(), group.content))
        });
        read.map_err(|error| self.refuse("", what, &error, points_in(raw))).ok()
    }

    fn resource_metrics<'a>(&mut self, raw: Raw<'a>) -> Option<ResourceMetrics<'a>> {
        if let Ok(whole) = serde_json::from_str(raw.get()) {
            return Some(whole);
        }
        self.service.clear();
        let (resource, scopes) = self.group(raw, "resource")?;
        self.service = resource.service();
        let scope_metrics = scopes.into_iter().filter_map(|raw| self.scope_metrics(raw)).collect();
        Some(ResourceMetrics { resource, scope_metrics })
    }

    fn scope_metrics<'a>(&mut self, raw: Raw<'a>) -> Option<ScopeMetrics<'a>> {
        if let Ok(whole) = serde_json::from_str(raw.get()) {
            return Some(whole);
        }
        let (scope, metrics) = self.group(raw, "scope")?;
        Some(ScopeMetrics {
            scope,
            metrics: metrics.into_iter().filter_map(|raw| self.metric(raw)).collect(),
        })
    }

    fn metric<'a>(&mut self, raw: Raw<'a>) -> Option<Metric<'a>> {
        if let Ok(whole) = serde_json::from_str(raw.get()) {
            return Some(whole);
        }
        let read = serde_json::from_str::<RawMetric<'a>>(raw.get()).and_then(|parts| {
            let RawMetric { name, gauge, sum, histogram, exponential_histogram, summary } = parts;
            let name: Option<Text<'a>> = serde_json::from_str(name.map_or("null", RawValue::get))?;
            let name = name.unwrap_or_default();
            Ok(Metric {
                gauge: self.samples(gauge, &name.0)?,
                sum: self.samples(sum, &name.0)?,
                histogram: self.samples(histogram, &name.0)?,
                exponential_histogram: self.samples(exponential_histogram, &name.0)?,
                summary: self.samples(summary, &name.0)?,
                name,
            })
        });
        let refuse = |error: serde_json::Error| {
            let Name { name } = serde_json::from_str(raw.get()).unwrap_or_default();
            self.refuse(&name.0, "metric", &error, points_in(raw));
        };
        read.map_err(refuse).ok()
    }

    /// The points that can be read of one kind of a metric's data.
    fn samples<'a, P: Deserialize<'a>>(
        &mut self,
        raw: Option<Raw<'a>>,
        name: &str,
    ) -> Result<Option<Samples<P>>, serde_json::Error> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
        let RawSamples { data_points, aggregation_temporality, is_monotonic } =
            serde_json::from_str(raw.get())?;
        let mut good = Vec::with_capacity(data_points.len());
        for raw in data_points {
            match serde_json::from_str(raw.get()) {
                Ok(point) => good.push(point),
                Err(error) => self.refuse(name, "point", &error, 1),
            }
        }
        Ok(Some(Samples { data_points: good, aggregation_temporality, is_monotonic }))
    }

    fn resource_logs<'a>(&mut self, raw: Raw<'a>) -> Option<ResourceLogs<'a>> {
        if let Ok(whole) = serde_json::from_str(raw.get()) {
            return Some(whole);
        }
        self.service.clear();
        let (resource, scopes) = self.group(raw, "resource")?;
        self.service = resource.service();
        let scope_logs = scopes.into_iter().filter_map(|raw| self.scope_logs(raw)).collect();
        Some(ResourceLogs { resource, scope_logs })
    }

    fn scope_logs<'a>(&mut self, raw: Raw<'a>) -> Option<ScopeLogs<'a>> {
        if let Ok(whole) = serde_json::from_str(raw.get()) {
            return Some(whole);
        }
        let (scope, logs) = self.group(raw, "scope")?;
        let mut log_records: Vec<LogRecord<'a>> = Vec::with_capacity(logs.len());
        for raw in logs {
            match serde_json::from_str(raw.get()) {
                Ok(log) => log_records.push(log),
                Err(error) => self.refuse("", "log record", &error, 1),
            }
        }
        Some(ScopeLogs { scope, log_records })
    }
}

/// How many points or log records lie in a part, as far as it can be walked; at least one.
fn points_in(raw: Raw<'_>) -> u32 {
    points_below(raw).max(1)
}

fn points_below(raw: Raw<'_>) -> u32 {
    let inner = |raw: &Raw<'_>| points_below(raw);
    if let Ok(RawGroup { content, .. }) = serde_json::from_str(raw.get())
        && !content.is_empty()
    {
        return content.iter().map(inner).fold(0, u32::saturating_add);
    }
    let Ok(metric) = serde_json::from_str::<RawMetric<'_>>(raw.get()) else { return 1 };
    let RawMetric { gauge, sum, histogram, exponential_histogram, summary, .. } = metric;
    let data = [gauge, sum, histogram, exponential_histogram, summary];
    if data.iter().all(Option::is_none) {
        // A log record.
        return 1;
    }
    let points = |raw: Raw<'_>| {
        let samples: Result<Points<'_>, _> = serde_json::from_str(raw.get());
        samples.map_or(0, |samples| samples.data_points.len() as u32)
    };
    data.into_iter().flatten().map(points).fold(0, u32::saturating_add)
}

/// The points of a metric's data, of which nothing else need be right.
#[derive(Deserialize)]
struct Points<'a> {
    #[serde(borrow, default, deserialize_with = "or_default", rename = "dataPoints", alias = "data_points")]
    data_points: Vec<Raw<'a>>,
}
