//! The parts of OTLP's JSON that relight reads. Unknown fields are left alone, as the protocol asks.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::severity::Number;
use super::value::{AnyValue, Attribute, Float, Int, Nanos, Unsigned};
use crate::ndjson::Text;

#[derive(Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow, default, rename = "resourceMetrics")]
    pub(super) metrics: Vec<ResourceMetrics<'a>>,
    #[serde(borrow, default, rename = "resourceLogs")]
    pub(super) logs: Vec<ResourceLogs<'a>>,
    #[serde(default, rename = "resourceSpans")]
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
    #[serde(borrow, default)]
    pub(super) attributes: Vec<Attribute<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceMetrics<'a> {
    #[serde(borrow, default)]
    pub(super) resource: Origin<'a>,
    #[serde(borrow, default)]
    pub(super) scope_metrics: Vec<ScopeMetrics<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ScopeMetrics<'a> {
    #[serde(borrow, default)]
    pub(super) scope: Origin<'a>,
    #[serde(borrow, default)]
    pub(super) metrics: Vec<Metric<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metric<'a> {
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) gauge: Option<Samples<NumberPoint<'a>>>,
    #[serde(borrow)]
    pub(super) sum: Option<Samples<NumberPoint<'a>>>,
    #[serde(borrow)]
    pub(super) histogram: Option<Samples<HistogramPoint<'a>>>,
    #[serde(borrow)]
    pub(super) exponential_histogram: Option<Samples<HistogramPoint<'a>>>,
    #[serde(borrow)]
    pub(super) summary: Option<Samples<SummaryPoint<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "P: Deserialize<'de>")]
pub(super) struct Samples<P> {
    #[serde(default = "Vec::new")]
    pub(super) data_points: Vec<P>,
    #[serde(default)]
    pub(super) aggregation_temporality: i32,
    #[serde(default)]
    pub(super) is_monotonic: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NumberPoint<'a> {
    #[serde(borrow, default)]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(default)]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) time_unix_nano: Nanos,
    pub(super) as_double: Option<Float>,
    pub(super) as_int: Option<Int>,
    #[serde(default)]
    pub(super) flags: u32,
}

/// A point of either kind of histogram: one has `explicitBounds`, the other `scale`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistogramPoint<'a> {
    #[serde(borrow, default)]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(default)]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) count: Unsigned,
    pub(super) sum: Option<Float>,
    pub(super) min: Option<Float>,
    pub(super) max: Option<Float>,
    #[serde(default)]
    pub(super) bucket_counts: Vec<Unsigned>,
    #[serde(default)]
    pub(super) explicit_bounds: Vec<Float>,
    pub(super) scale: Option<i32>,
    #[serde(default)]
    pub(super) zero_count: Unsigned,
    pub(super) positive: Option<Buckets>,
    pub(super) negative: Option<Buckets>,
    #[serde(default)]
    pub(super) flags: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Buckets {
    #[serde(default)]
    pub(super) offset: i32,
    #[serde(default)]
    pub(super) bucket_counts: Vec<Unsigned>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SummaryPoint<'a> {
    #[serde(borrow, default)]
    pub(super) attributes: Vec<Attribute<'a>>,
    #[serde(default)]
    pub(super) start_time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) count: Unsigned,
    #[serde(default)]
    pub(super) sum: Float,
    #[serde(default)]
    pub(super) quantile_values: Vec<Quantile>,
    #[serde(default)]
    pub(super) flags: u32,
}

#[derive(Deserialize)]
pub(super) struct Quantile {
    #[serde(default, rename = "quantile")]
    pub(super) q: Float,
    #[serde(default)]
    pub(super) value: Float,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceLogs<'a> {
    #[serde(borrow, default)]
    pub(super) resource: Origin<'a>,
    #[serde(borrow, default)]
    pub(super) scope_logs: Vec<ScopeLogs<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScopeLogs<'a> {
    #[serde(borrow, default)]
    pub(super) scope: Origin<'a>,
    #[serde(borrow, default)]
    pub(super) log_records: Vec<LogRecord<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogRecord<'a> {
    #[serde(default)]
    pub(super) time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) observed_time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) severity_number: Number,
    #[serde(borrow, default)]
    pub(super) severity_text: Text<'a>,
    #[serde(borrow, default)]
    pub(super) event_name: Text<'a>,
    #[serde(borrow)]
    pub(super) body: Option<AnyValue<'a>>,
    #[serde(borrow, default)]
    pub(super) attributes: Vec<Attribute<'a>>,
}
