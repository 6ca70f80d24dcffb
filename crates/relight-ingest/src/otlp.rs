//! OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes them: one export request a line.
//!
//! All five kinds of metric, both temporalities, and logs. A line is one record with all its points.
//! Labels are resource, scope and point attributes, the later winning, without those that churn
//! (`DROPPED`). A sum that may fall is a gauge. Exponential histograms become explicit ones
//! (`exponential`); a summary becomes gauges by `quantile` and the counters `_count` and `_sum`. A log
//! record is an event: of the kind that its event name says, else `log`. Traces are refused.

mod exponential;
pub(crate) mod export;
mod model;
pub(crate) mod severity;
mod value;
pub mod wire;

use std::borrow::Cow;

use relight_core::Timestamp;
use relight_core::record::{Event, Histogram, Kind, Reason};

use self::model::{
    HistogramPoint, LogRecord, Metric, NumberPoint, Request, ResourceLogs, ResourceMetrics, SummaryPoint,
};
use self::value::{Attribute, Float, Nanos};
use crate::key;
use crate::source::{Decoder, Sink};

/// Attributes that are new with every restart: kept, they would make each restart a new series.
pub(crate) const DROPPED: [&str; 5] =
    ["container.id", "k8s.pod.uid", "process.creation.time", "process.parent_pid", "process.pid"];

/// Data point flag: the series has ended, there is no value.
const NO_RECORDED_VALUE: u32 = 1;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// Decoder of OTLP JSON.
pub(crate) struct Otlp {
    key: Vec<u8>,
}

type Pair<'a> = (&'a str, Cow<'a, str>);

/// Where points of one metric go: its name and the attributes they share.
struct Target<'a, 'b> {
    name: &'a str,
    shared: &'a [Pair<'a>],
    key: &'a mut Vec<u8>,
    out: &'a mut Sink<'b>,
}

impl Otlp {
    pub(crate) const fn new() -> Self {
        Self { key: Vec::new() }
    }

    fn request(&mut self, request: &Request<'_>, out: &mut Sink<'_>) {
        for resource in &request.metrics {
            self.metrics(resource, out);
        }
        for resource in &request.logs {
            logs(resource, out);
        }
        for _ in &request.spans {
            out.refuse(Reason::Malformed, "traces are not read");
        }
    }

    fn metrics(&mut self, resource: &ResourceMetrics<'_>, out: &mut Sink<'_>) {
        for scope in &resource.scope_metrics {
            let shared = shared(&resource.resource.attributes, &scope.scope.attributes);
            for metric in &scope.metrics {
                let key = &mut self.key;
                Target { name: &metric.name.0, shared: &shared, key, out: &mut *out }.metric(metric);
            }
        }
    }
}

impl Target<'_, '_> {
    fn metric(&mut self, metric: &Metric<'_>) {
        let Metric { gauge, sum, histogram, exponential_histogram, summary, .. } = metric;
        if let Some(gauge) = gauge {
            gauge.data_points.iter().for_each(|point| self.number(point, Ok(Kind::Gauge)));
        }
        if let Some(sum) = sum {
            let kind = sum_kind(sum.is_monotonic, sum.aggregation_temporality);
            sum.data_points.iter().for_each(|point| self.number(point, kind));
        }
        for (histogram, exponential) in
            histogram.iter().map(|h| (h, false)).chain(exponential_histogram.iter().map(|h| (h, true)))
        {
            let kind = histogram_kind(histogram.aggregation_temporality);
            histogram.data_points.iter().for_each(|point| self.histogram(point, kind, exponential));
        }
        if let Some(summary) = summary {
            summary.data_points.iter().for_each(|point| self.summary(point));
        }
    }

    fn refuse(&mut self, (reason, why): Refusal) {
        match why {
            "" => self.out.record.refuse(reason),
            why => self.out.refuse(reason, format_args!("`{}`: {why}", self.name)),
        }
    }

    /// Kind and time of a point that has a value.
    fn admit(&mut self, kind: Result<Kind, Refusal>, flags: u32, at: Nanos) -> Option<(Kind, Timestamp)> {
        let admitted = named(self.name).and(kind).and_then(|kind| Ok((kind, time(flags, at)?)));
        admitted.map_err(|refusal| self.refuse(refusal)).ok()
    }

    fn number(&mut self, point: &NumberPoint<'_>, kind: Result<Kind, Refusal>) {
        let Some((kind, at)) = self.admit(kind, point.flags, point.time_unix_nano) else {
            return;
        };
        let value = match (&point.as_double, &point.as_int) {
            (Some(Float(value)), _) => *value,
            (None, Some(int)) => int.0 as f64,
            (None, None) => return self.refuse(NO_VALUE),
        };
        if !value.is_finite() {
            return self.out.record.refuse(Reason::NonFinite);
        }
        if self.series("", &point.attributes, None) {
            self.out.record.push_point(self.key, at, point.start_time_unix_nano.start(), kind, value);
        }
    }

    fn histogram(&mut self, point: &HistogramPoint<'_>, kind: Result<Kind, Refusal>, exponential: bool) {
        let Some((kind, at)) = self.admit(kind, point.flags, point.time_unix_nano) else {
            return;
        };
        let Some(histogram) = buckets(point, exponential) else {
            return self.refuse(BAD_HISTOGRAM);
        };
        if self.series("", &point.attributes, None) {
            let start = point.start_time_unix_nano.start();
            self.out.record.push_histogram(self.key, at, start, kind, histogram);
        }
    }

    fn summary(&mut self, point: &SummaryPoint<'_>) {
        let Some((_, at)) = self.admit(Ok(Kind::Gauge), point.flags, point.time_unix_nano) else {
            return;
        };
        let start = point.start_time_unix_nano.start();
        for quantile in &point.quantile_values {
            let label = quantile.q.0.to_string();
            self.scalar(
                ("", &point.attributes, Some(&label)),
                (at, Timestamp::MIN),
                Kind::Gauge,
                quantile.value.0,
            );
        }
        let count = point.count.0 as f64;
        self.scalar(("_count", &point.attributes, None), (at, start), Kind::Cumulative, count);
        self.scalar(("_sum", &point.attributes, None), (at, start), Kind::Cumulative, point.sum.0);
    }

    fn scalar(
        &mut self,
        (suffix, attributes, quantile): (&str, &[Attribute<'_>], Option<&str>),
        (at, start): (Timestamp, Timestamp),
        kind: Kind,
        value: f64,
    ) {
        if !value.is_finite() {
            self.out.record.refuse(Reason::NonFinite);
        } else if self.series(suffix, attributes, quantile) {
            self.out.record.push_point(self.key, at, start, kind, value);
        }
    }

    /// Puts the canonical key of a point's series into `self.key`.
    fn series(&mut self, suffix: &str, attributes: &[Attribute<'_>], quantile: Option<&str>) -> bool {
        let encoded = encode(self.name, suffix, self.shared, &pairs(attributes), quantile, self.key);
        if let Err(why) = &encoded {
            self.out.refuse(Reason::LabelLimit, format_args!("`{}`: {why}", self.name));
        }
        encoded.is_ok()
    }
}

/// A reason, and what to tell people; nothing where the reason's name says it all.
type Refusal = (Reason, &'static str);

const NO_VALUE: Refusal = (Reason::Malformed, "a point without a value");
const BAD_HISTOGRAM: Refusal = (Reason::BadHistogram, "bounds, counts or sum of a histogram make no sense");
const NO_TEMPORALITY: Refusal =
    (Reason::Malformed, "aggregationTemporality must be 1 (delta) or 2 (cumulative)");

fn named(name: &str) -> Result<(), Refusal> {
    if name.is_empty() { Err((Reason::Malformed, "a metric without a name")) } else { Ok(()) }
}

/// What may fall is a gauge, in either temporality: a delta of it is what changed in its time.
const fn sum_kind(is_monotonic: bool, temporality: i32) -> Result<Kind, Refusal> {
    match (is_monotonic, temporality) {
        (false, _) => Ok(Kind::Gauge),
        (true, DELTA) => Ok(Kind::Delta),
        (true, CUMULATIVE) => Ok(Kind::Cumulative),
        _ => Err(NO_TEMPORALITY),
    }
}

const fn histogram_kind(temporality: i32) -> Result<Kind, Refusal> {
    match temporality {
        DELTA => Ok(Kind::DeltaHistogram),
        CUMULATIVE => Ok(Kind::CumulativeHistogram),
        _ => Err(NO_TEMPORALITY),
    }
}

/// Time of a point that has a value.
fn time(flags: u32, at: Nanos) -> Result<Timestamp, Refusal> {
    if flags & NO_RECORDED_VALUE != 0 {
        return Err((Reason::NoRecordedValue, ""));
    }
    if at.is_unset() {
        return Err((Reason::Malformed, "a point without timeUnixNano"));
    }
    at.time().ok_or((Reason::Future, ""))
}

/// Replaces `key` by the canonical key of a point's series, or says which limit it breaks.
fn encode(
    name: &str,
    suffix: &str,
    shared: &[Pair<'_>],
    own: &[Pair<'_>],
    quantile: Option<&str>,
    key: &mut Vec<u8>,
) -> Result<(), String> {
    let mut all: Vec<(&str, &str)> = shared.iter().chain(own).map(|(k, v)| (*k, &**v)).collect();
    all.extend(quantile.map(|quantile| ("quantile", quantile)));
    let name: Cow<'_, str> = if suffix.is_empty() { name.into() } else { format!("{name}{suffix}").into() };
    key::encode(&name, &mut all, key)
}

fn pairs<'a>(attributes: &'a [Attribute<'a>]) -> Vec<Pair<'a>> {
    let kept = attributes.iter().filter(|attribute| !DROPPED.contains(&&*attribute.key.0));
    kept.map(|attribute| (&*attribute.key.0, attribute.value.text())).collect()
}

fn shared<'a>(resource: &'a [Attribute<'a>], scope: &'a [Attribute<'a>]) -> Vec<Pair<'a>> {
    let mut shared = pairs(resource);
    shared.extend(pairs(scope));
    shared
}

/// Explicit buckets of either kind of histogram; `None` if they make no sense.
fn buckets(point: &HistogramPoint<'_>, exponential: bool) -> Option<Histogram> {
    let sums = [&point.sum, &point.min, &point.max];
    if sums.into_iter().flatten().any(|Float(value)| !value.is_finite()) {
        return None;
    }
    let histogram = if exponential {
        exponential::explicit(point)?
    } else {
        let counts: Vec<u64> = point.bucket_counts.iter().map(|n| n.0).collect();
        let bounds = point.explicit_bounds.iter().map(|bound| bound.0).collect();
        // Without buckets the count is all there is.
        Histogram { bounds, counts: if counts.is_empty() { vec![point.count.0] } else { counts } }
    };
    (histogram.is_valid() && histogram.total() == point.count.0).then_some(histogram)
}

fn logs(resource: &ResourceLogs<'_>, out: &mut Sink<'_>) {
    for scope in &resource.scope_logs {
        let shared = shared(&resource.resource.attributes, &scope.scope.attributes);
        for log in &scope.log_records {
            match event(log, &shared) {
                Ok(event) => out.record.events.push(event),
                Err((reason, why)) => out.refuse(reason, why),
            }
        }
    }
}

fn event(log: &LogRecord<'_>, shared: &[Pair<'_>]) -> Result<Event, (Reason, String)> {
    let at = if log.time_unix_nano.is_unset() { log.observed_time_unix_nano } else { log.time_unix_nano };
    if at.is_unset() {
        return Err((Reason::Malformed, "a log record without a time".to_owned()));
    }
    let at = at
        .time()
        .ok_or_else(|| (Reason::Future, "a log record's time is beyond the year 2262".to_owned()))?;
    let own = pairs(&log.attributes);
    // First, so that an attribute of that name wins.
    let severity = severity::label(&log.severity_text.0, log.severity_number.0);
    let mut all: Vec<(&str, &str)> = severity.into_iter().collect();
    all.extend(shared.iter().chain(&own).map(|(k, v)| (*k, &**v)));
    let labels = key::labels(&mut all).map_err(|why| (Reason::LabelLimit, format!("a log record: {why}")))?;
    let kind = if log.event_name.0.is_empty() { "log" } else { &*log.event_name.0 };
    let body = log.body.as_ref().map_or_else(String::new, |body| body.text().into_owned());
    Ok(Event { at, kind: kind.to_owned(), labels, body })
}

impl Decoder for Otlp {
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        match serde_json::from_slice::<Request<'_>>(line) {
            Ok(request) if request.is_empty() => {
                out.refuse(Reason::Malformed, "neither `resourceMetrics` nor `resourceLogs`");
            }
            Ok(request) => self.request(&request, out),
            Err(error) => {
                let why = error.to_string().replace("at line 1 column", "at column");
                out.refuse(Reason::Malformed, why);
            }
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests;
