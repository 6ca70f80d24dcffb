//! OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes them: one export request a line.
//!
//! All five kinds of metric, both temporalities, and logs. A line is one record with all its points.
//! Labels are resource, scope and point attributes, the later winning, without those that churn
//! (`DROPPED`). A sum that may fall is a gauge. What is wrong in one point, metric, scope or resource refuses that alone. Exponential histograms become explicit ones
//! (`exponential`); a summary becomes gauges by `quantile` and the counters `_count` and `_sum`. A log
//! record is an event: of the kind that its event name says, else `log`. Traces are refused.

pub(crate) mod budget;
pub(crate) mod exponential;
pub(crate) mod export;
mod histogram;
mod lenient;
pub(crate) mod messages;
mod model;
pub(crate) mod severity;
mod value;
pub mod wire;

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::{Event, Kind, Reason};
use relight_core::refusal;

pub use self::budget::limit_decoded;
use self::budget::{Budget, max_event_bytes, max_named_bytes};
use self::model::{
    HistogramPoint, LogRecord, Metric, NumberPoint, Request, ResourceLogs, ResourceMetrics, SummaryPoint,
};
use self::value::{Attribute, Float, Nanos};
use self::wire::WireError;
use crate::key::{Level, Shared};
use crate::source::{Decoder, Sink};

/// Attributes that are new with every restart: kept, they would make each restart a new series.
pub(crate) const DROPPED: [&str; 5] =
    ["container.id", "k8s.pod.uid", "process.creation.time", "process.parent_pid", "process.pid"];

/// Data point flag: the series has ended, there is no value.
const NO_RECORDED_VALUE: u32 = 1;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;
/// The attribute that says whose a resource is.
pub(crate) const SERVICE: &str = "service.name";

/// Decoder of OTLP JSON.
pub(crate) struct Otlp {
    key: Vec<u8>,
    budget: Budget,
}

/// Where points of one metric go: its name and the attributes they share.
struct Target<'a, 'b> {
    name: &'a str,
    /// For people.
    service: &'a str,
    shared: &'a Shared<'a>,
    to: &'a mut Otlp,
    out: &'a mut Sink<'b>,
}

impl Otlp {
    pub(crate) fn new() -> Self {
        Self { key: Vec::new(), budget: Budget::full() }
    }

    fn request(&mut self, request: &Request<'_>, out: &mut Sink<'_>) -> Result<(), WireError> {
        self.budget = Budget::full();
        for resource in &request.metrics {
            self.metrics(resource, out)?;
        }
        for resource in &request.logs {
            self.logs(resource, out);
        }
        for _ in &request.spans {
            out.refuse(Reason::Malformed, "traces are not read");
        }
        Ok(())
    }

    /// Takes a line or body, which may be damaged.
    fn json(&mut self, json: &[u8], out: &mut Sink<'_>) -> Result<(), String> {
        let request = read(json, out)?;
        if request.is_empty() && out.record.refused.is_empty() {
            return Err("neither `resourceMetrics` nor `resourceLogs`".to_owned());
        }
        self.request(&request, out).map_err(|error| error.to_string())
    }

    fn metrics(&mut self, resource: &ResourceMetrics<'_>, out: &mut Sink<'_>) -> Result<(), WireError> {
        let (of_resource, service) = (level(&resource.resource.attributes), resource.resource.service());
        for scope in &resource.scope_metrics {
            let of_scope = level(&scope.scope.attributes);
            let shared = Shared::new(&of_resource, &of_scope);
            for metric in &scope.metrics {
                let (name, service) = (&*metric.name.0, &*service);
                Target { name, service, shared: &shared, to: self, out: &mut *out }.metric(metric)?;
            }
        }
        Ok(())
    }

    fn logs(&mut self, resource: &ResourceLogs<'_>, out: &mut Sink<'_>) {
        let (of_resource, service) = (level(&resource.resource.attributes), resource.resource.service());
        let origin = refusal::Origin { metric: "", service: &service };
        for scope in &resource.scope_logs {
            let of_scope = level(&scope.scope.attributes);
            let shared = Shared::new(&of_resource, &of_scope);
            for log in &scope.log_records {
                match event(log, &shared, &mut self.budget) {
                    Ok(event) => out.record.events.push(event),
                    Err((reason, why)) => out.refuse_named(reason, origin, &why, 1),
                }
            }
        }
    }
}

impl<'a> Target<'a, '_> {
    fn metric(&mut self, metric: &Metric<'_>) -> Result<(), WireError> {
        let Metric { gauge, sum, histogram, exponential_histogram, summary, .. } = metric;
        if let Some(gauge) = gauge {
            gauge.data_points.iter().for_each(|point| self.number(point, Ok(Kind::Gauge)));
        }
        if let Some(sum) = sum {
            let kind = sum_kind(sum.is_monotonic, sum.aggregation_temporality.0);
            sum.data_points.iter().for_each(|point| self.number(point, kind));
        }
        for (histogram, exponential) in
            histogram.iter().map(|h| (h, false)).chain(exponential_histogram.iter().map(|h| (h, true)))
        {
            let kind = histogram_kind(histogram.aggregation_temporality.0);
            for point in &histogram.data_points {
                self.histogram(point, kind, exponential)?;
            }
        }
        if let Some(summary) = summary {
            summary.data_points.iter().for_each(|point| self.summary(point));
        }
        Ok(())
    }

    fn refuse(&mut self, (reason, why): Refusal) {
        match why {
            "" => self.out.record.refuse(reason),
            why => self.refuse_as(reason, why),
        }
    }

    fn refuse_as(&mut self, reason: Reason, why: &str) {
        let origin = self.origin();
        self.out.refuse_named(reason, origin, why, 1);
    }

    const fn origin(&self) -> refusal::Origin<'a> {
        refusal::Origin { metric: self.name, service: self.service }
    }

    /// Kind and time of a point that has a value; else when its series ended, if it says so.
    fn admit(
        &mut self,
        kind: Result<Kind, Refusal>,
        flags: u32,
        at: Nanos,
    ) -> Result<(Kind, Timestamp), Option<Timestamp>> {
        let admitted = named(self.name).and(kind).and_then(|kind| Ok((kind, time(flags, at)?)));
        admitted.map_err(|refusal| {
            self.refuse(refusal);
            ended(refusal, at)
        })
    }

    /// A marker that a series has ended, if there is one.
    fn end(&mut self, suffix: &str, own: &Level<'_>, at: Option<Timestamp>) {
        if let Some(at) = at
            && self.encode(suffix, own, None).is_ok()
        {
            let key = self.out.record.push_key(&self.to.key);
            self.out.record.push_end(key, Aliases::NONE, at);
        }
    }

    fn number(&mut self, point: &NumberPoint<'_>, kind: Result<Kind, Refusal>) {
        let (kind, at) = match self.admit(kind, point.flags.0 as u32, point.time_unix_nano) {
            Ok(admitted) => admitted,
            Err(end) => return self.end("", &level(&point.attributes), end),
        };
        let value = match (&point.as_double, &point.as_int) {
            (Some(Float(value)), _) => *value,
            (None, Some(int)) => int.0 as f64,
            (None, None) => return self.refuse(NO_VALUE),
        };
        let start = point.start_time_unix_nano.start();
        self.scalar(("", &level(&point.attributes), None), (at, start), kind, value);
    }

    fn histogram(
        &mut self,
        point: &HistogramPoint<'_>,
        kind: Result<Kind, Refusal>,
        exponential: bool,
    ) -> Result<(), WireError> {
        let n = if exponential { exponential::size(point) } else { point.bucket_counts.len() };
        self.to.budget.buckets(n)?;
        let (kind, at) = match self.admit(kind, point.flags.0 as u32, point.time_unix_nano) {
            Ok(admitted) => admitted,
            Err(end) => {
                self.end("", &level(&point.attributes), end);
                return Ok(());
            }
        };
        let histogram = match histogram::of(point, exponential) {
            Ok(histogram) => histogram,
            Err(why) => {
                self.refuse((Reason::BadHistogram, why));
                return Ok(());
            }
        };
        if self.series("", &level(&point.attributes), None) {
            let start = point.start_time_unix_nano.start();
            self.out.record.push_histogram(&self.to.key, at, start, kind, histogram);
        }
        Ok(())
    }

    fn summary(&mut self, point: &SummaryPoint<'_>) {
        let (start, own) = (point.start_time_unix_nano.start(), level(&point.attributes));
        let at = match self.admit(Ok(Kind::Gauge), point.flags.0 as u32, point.time_unix_nano) {
            Ok((_, at)) => at,
            Err(end) => return ["_count", "_sum"].into_iter().for_each(|part| self.end(part, &own, end)),
        };
        for quantile in &point.quantile_values {
            let label = quantile.q.0.to_string();
            let times = (at, Timestamp::MIN);
            self.scalar(("", &own, Some(&label)), times, Kind::Gauge, quantile.value.0);
        }
        let count = point.count.0 as f64;
        self.scalar(("_count", &own, None), (at, start), Kind::Cumulative, count);
        self.scalar(("_sum", &own, None), (at, start), Kind::Cumulative, point.sum.0);
    }

    fn scalar(
        &mut self,
        (suffix, own, quantile): (&str, &Level<'_>, Option<&str>),
        (at, start): (Timestamp, Timestamp),
        kind: Kind,
        value: f64,
    ) {
        if !value.is_finite() || quantile.is_some_and(|quantile| quantile.parse().is_ok_and(f64::is_nan)) {
            // A summary without observations has no quantiles: no fault of the sender.
            if quantile.is_some() {
                self.out.record.refuse(Reason::NonFinite);
            } else {
                let origin = self.origin();
                self.out.record.refuse_named(NON_FINITE.0, origin, NON_FINITE.1, 1);
            }
        } else if self.series(suffix, own, quantile) {
            self.out.record.push_point(&self.to.key, at, start, kind, value);
        }
    }

    /// Puts the canonical key of a point's series into `self.to.key`.
    fn series(&mut self, suffix: &str, own: &Level<'_>, quantile: Option<&str>) -> bool {
        let encoded = self.encode(suffix, own, quantile);
        if let Err(why) = &encoded {
            self.refuse_as(Reason::LabelLimit, why);
        }
        encoded.is_ok()
    }

    fn encode(&mut self, suffix: &str, own: &Level<'_>, quantile: Option<&str>) -> Result<(), String> {
        let Otlp { key, budget } = &mut *self.to;
        let quantile = quantile.map(|quantile| ("quantile", quantile));
        let too_many =
            || format!("more than {} bytes of names and labels of points in one request", max_named_bytes());
        if budget.has_names() { Ok(()) } else { Err(too_many()) }
            .and_then(|()| self.shared.encode((self.name, suffix), own, quantile, key))
            .and_then(|()| if budget.name(key.len()) { Ok(()) } else { Err(too_many()) })
    }
}

/// A reason, and what to tell people; nothing where the reason's name says it all.
type Refusal = (Reason, &'static str);

const NO_VALUE: Refusal = (Reason::Malformed, "a point without a value");
const NON_FINITE: Refusal = (Reason::NonFinite, "a value that is NaN or infinite");
/// What names and labels over a limit come to, where no words are made of it.
const OVER_LIMIT: Refusal = (Reason::LabelLimit, "its name or labels are over a limit");
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
    at.time().ok_or((Reason::Future, "a time beyond the year 2262"))
}

/// When a series ended, if that is what a point without a value says.
fn ended((reason, _): Refusal, at: Nanos) -> Option<Timestamp> {
    at.time().filter(|_| reason == Reason::NoRecordedValue && !at.is_unset())
}

/// Attributes of one level, without those that churn.
fn level<'a>(attributes: &'a [Attribute<'a>]) -> Level<'a> {
    let mut level = Level::default();
    for Attribute { key, value } in attributes {
        if level.is_over() {
            break;
        }
        if !DROPPED.contains(&&*key.0) {
            level.put(&key.0, value.text());
        }
    }
    level
}

/// Reads a request, whole or, where that fails, what can be read of it.
fn read<'a>(json: &'a [u8], out: &mut Sink<'_>) -> Result<Request<'a>, String> {
    let json = json.strip_prefix(crate::lines::BOM).unwrap_or(json);
    // serde would take a list for an object, by position.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    if let Ok(request) = serde_json::from_slice(json) {
        return Ok(request);
    }
    lenient::request(json, out).map_err(|error| error.to_string().replace("at line 1 column", "at column"))
}

fn event(log: &LogRecord<'_>, shared: &Shared<'_>, budget: &mut Budget) -> Result<Event, (Reason, String)> {
    let at = if log.time_unix_nano.is_unset() { log.observed_time_unix_nano } else { log.time_unix_nano };
    if at.is_unset() {
        return Err((Reason::Malformed, "a log record without a time".to_owned()));
    }
    let at = at
        .time()
        .ok_or_else(|| (Reason::Future, "a log record's time is beyond the year 2262".to_owned()))?;
    let too_many =
        || (Reason::LabelLimit, format!("more than {} bytes of events in one request", max_event_bytes()));
    if !budget.has_events() {
        return Err(too_many());
    }
    // First, so that an attribute of that name wins.
    let severity = severity::label(&log.severity_text.0, log.severity_number.0);
    let own = level(&log.attributes);
    let labels = shared.labels(severity, &own);
    let labels = labels.map_err(|why| (Reason::LabelLimit, format!("a log record: {why}")))?;
    let kind = if log.event_name.0.is_empty() { "log" } else { &*log.event_name.0 };
    let body = log.body.as_ref().map_or_else(String::new, |body| body.text().into_owned());
    let event = Event { at, kind: kind.to_owned(), labels, body };
    if budget.event(event.bytes()) { Ok(event) } else { Err(too_many()) }
}

impl Decoder for Otlp {
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        if let Err(why) = self.json(line, out) {
            // A request over a limit, or one that is no JSON, is not taken by half.
            out.record.clear(out.record.offset, out.record.received);
            out.refuse(Reason::Malformed, why);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests;
