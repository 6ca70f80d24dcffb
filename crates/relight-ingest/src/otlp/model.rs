//! The parts of OTLP's JSON that relight reads. Unknown fields are left alone, as the protocol asks.
//!
//! As ProtoJSON has it, `null` stands for a field that is absent, enums are numbers or names, and a field has its
//! lowerCamelCase name or the one of the `.proto` file.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::severity::Number;
use super::value::{AnyValue, Attribute, Float, Int, Nanos, Small, Temporality, Unsigned};
use crate::ndjson::Text;

/// Reads a field for which `null` is the same as its absence.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize, Default)]
pub(super) struct Request<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "resourceMetrics",
        alias = "resource_metrics"
    )]
    pub(super) metrics: Vec<ResourceMetrics<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "resourceLogs",
        alias = "resource_logs"
    )]
    pub(super) logs: Vec<ResourceLogs<'a>>,
    #[serde(default, deserialize_with = "or_default", rename = "resourceSpans", alias = "resource_spans")]
    pub(super) spans: Vec<IgnoredAny>,
}

impl Request<'_> {
    pub(super) const fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.logs.is_empty() && self.spans.is_empty()
    }
}

/// A resource or a scope.
#[derive(Deserialize, Default)]
pub(super) struct Origin<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attributes: Vec<Attribute<'a>>,
}

impl Origin<'_> {
    /// `service.name`, for people; empty if there is none.
    pub(super) fn service(&self) -> String {
        let found = self.attributes.iter().rfind(|attribute| attribute.key.0 == super::SERVICE);
        found.map_or_else(String::new, |attribute| attribute.value.text().into_owned())
    }
}

#[derive(Deserialize, Default)]
pub(super) struct ResourceMetrics<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) resource: Origin<'a>,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "scopeMetrics",
        alias = "scope_metrics"
    )]
    pub(super) scope_metrics: Vec<ScopeMetrics<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct ScopeMetrics<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) scope: Origin<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) metrics: Vec<Metric<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct Metric<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) gauge: Option<Samples<NumberPoint<'a>>>,
    #[serde(borrow)]
    pub(super) sum: Option<Samples<NumberPoint<'a>>>,
    #[serde(borrow)]
    pub(super) histogram: Option<Samples<HistogramPoint<'a>>>,
    #[serde(borrow, rename = "exponentialHistogram", alias = "exponential_histogram")]
    pub(super) exponential_histogram: Option<Samples<HistogramPoint<'a>>>,
    #[serde(borrow)]
    pub(super) summary: Option<Samples<SummaryPoint<'a>>>,
}

#[derive(Deserialize)]
#[serde(bound = "P: Deserialize<'de>")]
pub(super) struct Samples<P> {
    #[serde(
        default = "Vec::new",
        deserialize_with = "or_default",
        rename = "dataPoints",
        alias = "data_points"
    )]
    pub(super) data_points: Vec<P>,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "aggregationTemporality",
        alias = "aggregation_temporality"
    )]
    pub(super) aggregation_temporality: Temporality,
    #[serde(default, deserialize_with = "or_default", rename = "isMonotonic", alias = "is_monotonic")]
    pub(super) is_monotonic: bool,
}

#[derive(Deserialize)]
pub(super) struct NumberPoint<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "startTimeUnixNano",
        alias = "start_time_unix_nano"
    )]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default, deserialize_with = "or_default", rename = "timeUnixNano", alias = "time_unix_nano")]
    pub(super) time_unix_nano: Nanos,
    #[serde(rename = "asDouble", alias = "as_double")]
    pub(super) as_double: Option<Float>,
    #[serde(rename = "asInt", alias = "as_int")]
    pub(super) as_int: Option<Int>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) flags: Unsigned,
}

/// A point of either kind of histogram: one has `explicitBounds`, the other `scale`.
#[derive(Deserialize, Default)]
pub(super) struct HistogramPoint<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "startTimeUnixNano",
        alias = "start_time_unix_nano"
    )]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default, deserialize_with = "or_default", rename = "timeUnixNano", alias = "time_unix_nano")]
    pub(super) time_unix_nano: Nanos,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) count: Unsigned,
    #[serde(default, deserialize_with = "or_default", rename = "bucketCounts", alias = "bucket_counts")]
    pub(super) bucket_counts: Vec<Unsigned>,
    #[serde(default, deserialize_with = "or_default", rename = "explicitBounds", alias = "explicit_bounds")]
    pub(super) explicit_bounds: Vec<Float>,
    pub(super) scale: Option<Small>,
    #[serde(default, deserialize_with = "or_default", rename = "zeroCount", alias = "zero_count")]
    pub(super) zero_count: Unsigned,
    #[serde(default, deserialize_with = "or_default", rename = "zeroThreshold", alias = "zero_threshold")]
    pub(super) zero_threshold: Float,
    pub(super) positive: Option<Buckets>,
    pub(super) negative: Option<Buckets>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) flags: Unsigned,
}

#[derive(Deserialize, Default)]
pub(super) struct Buckets {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) offset: Small,
    #[serde(default, deserialize_with = "or_default", rename = "bucketCounts", alias = "bucket_counts")]
    pub(super) bucket_counts: Vec<Unsigned>,
}

#[derive(Deserialize)]
pub(super) struct SummaryPoint<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "startTimeUnixNano",
        alias = "start_time_unix_nano"
    )]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default, deserialize_with = "or_default", rename = "timeUnixNano", alias = "time_unix_nano")]
    pub(super) time_unix_nano: Nanos,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) count: Unsigned,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) sum: Float,
    #[serde(default, deserialize_with = "or_default", rename = "quantileValues", alias = "quantile_values")]
    pub(super) quantile_values: Vec<Quantile>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) flags: Unsigned,
}

#[derive(Deserialize)]
pub(super) struct Quantile {
    #[serde(default, deserialize_with = "or_default", rename = "quantile")]
    pub(super) q: Float,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) value: Float,
}

#[derive(Deserialize, Default)]
pub(super) struct ResourceLogs<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) resource: Origin<'a>,
    #[serde(borrow, default, deserialize_with = "or_default", rename = "scopeLogs", alias = "scope_logs")]
    pub(super) scope_logs: Vec<ScopeLogs<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct ScopeLogs<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) scope: Origin<'a>,
    #[serde(borrow, default, deserialize_with = "or_default", rename = "logRecords", alias = "log_records")]
    pub(super) log_records: Vec<LogRecord<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct LogRecord<'a> {
    #[serde(default, deserialize_with = "or_default", rename = "timeUnixNano", alias = "time_unix_nano")]
    pub(super) time_unix_nano: Nanos,
    #[serde(
        default,
        deserialize_with = "or_default",
        rename = "observedTimeUnixNano",
        alias = "observed_time_unix_nano"
    )]
    pub(super) observed_time_unix_nano: Nanos,
    #[serde(default, rename = "severityNumber", alias = "severity_number")]
    pub(super) severity_number: Number,
    #[serde(
        borrow,
        default,
        deserialize_with = "or_default",
        rename = "severityText",
        alias = "severity_text"
    )]
    pub(super) severity_text: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default", rename = "eventName", alias = "event_name")]
    pub(super) event_name: Text<'a>,
    #[serde(borrow)]
    pub(super) body: Option<AnyValue<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attributes: Vec<Attribute<'a>>,
}
