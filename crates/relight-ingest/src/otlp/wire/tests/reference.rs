//! What a request says, read the plain way from prost's objects.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, Summary};
use relight_core::aliases::Aliases;
use relight_core::record::{Event, Histogram, Kind, Point, Reason, Record};
use relight_core::series::key_of;
use relight_core::{Labels, Timestamp};

const CHURN: [&str; 5] =
    ["container.id", "k8s.pod.uid", "process.creation.time", "process.parent_pid", "process.pid"];

/// Points with the names of their series, bit for bit, and what was refused.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Reading {
    points: Vec<(Vec<u8>, Timestamp, Timestamp, Kind, u64)>,
    histograms: Vec<Histogram>,
    ends: Vec<(Vec<u8>, Timestamp)>,
    pub(super) refused: Vec<(Reason, u32)>,
}

impl Reading {
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    pub(super) fn push(&mut self, name: Vec<u8>, point: &Point, record: &Record) {
        if point.kind.is_histogram() {
            self.histograms.push(record.histograms[point.value as usize].clone());
        }
        self.points.push((name, point.at, point.start, point.kind, point.value.to_bits()));
    }

    pub(super) fn end(&mut self, name: Vec<u8>, end: &Point) {
        self.ends.push((name, end.at));
    }
}

pub(super) fn read(request: &ExportMetricsServiceRequest) -> Reading {
    let mut reader = Reader::default();
    for resource in &request.resource_metrics {
        let of_resource = resource.resource.iter().flat_map(|r| r.attributes.clone()).collect::<Vec<_>>();
        for scope in &resource.scope_metrics {
            reader.shared.clone_from(&of_resource);
            reader.shared.extend(scope.scope.iter().flat_map(|s| s.attributes.clone()));
            for metric in &scope.metrics {
                reader.name.clone_from(&metric.name);
                reader.data(metric.data.as_ref());
            }
        }
    }
    let mut reading = Reading::default();
    for point in &reader.record.points {
        reading.push(reader.record.key(point).to_vec(), point, &reader.record);
    }
    for end in &reader.record.ends {
        reading.end(reader.record.key(end).to_vec(), end);
    }
    reading.refused = reader.record.refused;
    reading.refused.sort_unstable();
    reading
}

#[derive(Default)]
struct Reader {
    record: Record,
    name: String,
    shared: Vec<KeyValue>,
}

impl Reader {
    fn data(&mut self, data: Option<&Data>) {
        match data {
            None => {}
            Some(Data::Gauge(gauge)) => {
                for p in &gauge.data_points {
                    let value = p.value.as_ref().map(number);
                    self.number(
                        Some(Kind::Gauge),
                        (p.flags, p.time_unix_nano, p.start_time_unix_nano),
                        value,
                        &p.attributes,
                    );
                }
            }
            Some(Data::Sum(sum)) => {
                let kind = match (sum.is_monotonic, sum.aggregation_temporality) {
                    (false, _) => Some(Kind::Gauge),
                    (true, 1) => Some(Kind::Delta),
                    (true, 2) => Some(Kind::Cumulative),
                    _ => None,
                };
                for p in &sum.data_points {
                    let value = p.value.as_ref().map(number);
                    self.number(
                        kind,
                        (p.flags, p.time_unix_nano, p.start_time_unix_nano),
                        value,
                        &p.attributes,
                    );
                }
            }
            Some(Data::Histogram(h)) => {
                for p in &h.data_points {
                    let made = explicit(&p.explicit_bounds, &p.bucket_counts, p.count);
                    let times = (p.flags, p.time_unix_nano, p.start_time_unix_nano);
                    self.histogram(
                        bucket_kind(h.aggregation_temporality),
                        times,
                        made,
                        p.count,
                        &p.attributes,
                    );
                }
            }
            Some(Data::ExponentialHistogram(h)) => {
                for p in &h.data_points {
                    let made = exponential(p);
                    let times = (p.flags, p.time_unix_nano, p.start_time_unix_nano);
                    self.histogram(
                        bucket_kind(h.aggregation_temporality),
                        times,
                        made,
                        p.count,
                        &p.attributes,
                    );
                }
            }
            Some(Data::Summary(summary)) => self.summary(summary),
        }
    }

    fn summary(&mut self, summary: &Summary) {
        for p in &summary.data_points {
            let times = (p.flags, p.time_unix_nano);
            let Some((at, _)) = self.times(Some(Kind::Gauge), times) else {
                self.ends(Some(Kind::Gauge), times, &["_count", "_sum"], &p.attributes);
                continue;
            };
            for q in &p.quantile_values {
                let quantile = KeyValue {
                    value: Some(AnyValue { value: Some(Value::StringValue(q.quantile.to_string())) }),
                    key: "quantile".into(),
                    key_strindex: 0,
                };
                let mut attributes = p.attributes.clone();
                attributes.push(quantile);
                let value = if q.quantile.is_nan() { f64::NAN } else { q.value };
                self.scalar("", &attributes, (at, Timestamp::MIN), Kind::Gauge, value);
            }
            let times = (at, start(p.start_time_unix_nano));
            self.scalar("_count", &p.attributes, times, Kind::Cumulative, p.count as f64);
            self.scalar("_sum", &p.attributes, times, Kind::Cumulative, p.sum);
        }
    }

    fn times(&mut self, kind: Option<Kind>, (flags, at): (u32, u64)) -> Option<(Timestamp, Kind)> {
        let refused = if self.name.is_empty() || kind.is_none() {
            Reason::Malformed
        } else if flags & 1 != 0 {
            Reason::NoRecordedValue
        } else if at == 0 {
            Reason::Malformed
        } else if let Ok(at) = i64::try_from(at) {
            return Some((Timestamp::from_ns(at), kind?));
        } else {
            Reason::Future
        };
        self.record.refuse(refused);
        None
    }

    /// Markers that series have ended.
    fn ends(
        &mut self,
        kind: Option<Kind>,
        (flags, at): (u32, u64),
        suffixes: &[&str],
        attributes: &[KeyValue],
    ) {
        let is_marker = flags & 1 != 0 && at > 0 && kind.is_some() && !self.name.is_empty();
        let Some(at) = i64::try_from(at).ok().filter(|_| is_marker) else { return };
        for suffix in suffixes {
            let name = format!("{}{suffix}", self.name);
            if let Some(key) = key(&name, labels(self.shared.iter().chain(attributes))) {
                let key = self.record.push_key(&key);
                self.record.push_end(key, Aliases::NONE, Timestamp::from_ns(at));
            }
        }
    }

    fn number(
        &mut self,
        kind: Option<Kind>,
        (flags, at, from): (u32, u64, u64),
        value: Option<f64>,
        attributes: &[KeyValue],
    ) {
        let Some((at, kind)) = self.times(kind, (flags, at)) else {
            return self.ends(kind, (flags, at), &[""], attributes);
        };
        match value {
            None => self.record.refuse(Reason::Malformed),
            Some(value) => self.scalar("", attributes, (at, start(from)), kind, value),
        }
    }

    fn scalar(
        &mut self,
        suffix: &str,
        attributes: &[KeyValue],
        times: (Timestamp, Timestamp),
        kind: Kind,
        value: f64,
    ) {
        if !value.is_finite() {
            return self.record.refuse(Reason::NonFinite);
        }
        let name = format!("{}{suffix}", self.name);
        let labels = labels(self.shared.iter().chain(attributes));
        match key(&name, labels) {
            Some(key) => self.record.push_point(&key, times.0, times.1, kind, value),
            None => self.record.refuse(Reason::LabelLimit),
        }
    }

    fn histogram(
        &mut self,
        kind: Option<Kind>,
        (flags, at, from): (u32, u64, u64),
        made: Option<Histogram>,
        count: u64,
        attributes: &[KeyValue],
    ) {
        let Some((at, kind)) = self.times(kind, (flags, at)) else {
            return self.ends(kind, (flags, at), &[""], attributes);
        };
        let Some(made) = made.filter(|h| h.is_valid() && h.total() == count) else {
            return self.record.refuse(Reason::BadHistogram);
        };
        match key(&self.name, labels(self.shared.iter().chain(attributes))) {
            Some(key) => self.record.push_histogram(&key, at, start(from), kind, made),
            None => self.record.refuse(Reason::LabelLimit),
        }
    }
}

fn start(ns: u64) -> Timestamp {
    i64::try_from(ns).ok().filter(|ns| *ns > 0).map_or(Timestamp::MIN, Timestamp::from_ns)
}

fn number(value: &Number) -> f64 {
    match value {
        Number::AsDouble(value) => *value,
        Number::AsInt(value) => *value as f64,
    }
}

/// Observations up to each bound that bounds something, by the differences of running totals.
fn explicit(bounds: &[f64], counts: &[u64], count: u64) -> Option<Histogram> {
    // Without buckets the count is that of the open one.
    let counts = if counts.is_empty() { &[count][..] } else { counts };
    let open_is_listed =
        counts.len() == bounds.len() && bounds.last().is_some_and(|last| *last == f64::INFINITY);
    let comparable: Vec<f64> = bounds.iter().copied().filter(|bound| !bound.is_nan()).collect();
    if (counts.len() != bounds.len() + 1 && !open_is_listed) || comparable.windows(2).any(|w| w[0] > w[1]) {
        return None;
    }
    let total = |n: usize| counts[..n.min(counts.len())].iter().map(|n| u128::from(*n)).sum::<u128>();
    let mut made = Histogram::default();
    let mut before = 0;
    for (ix, bound) in bounds.iter().enumerate().filter(|(_, bound)| bound.is_finite()) {
        made.bounds.push(*bound);
        made.counts.push(u64::try_from(total(ix + 1) - before).unwrap_or(u64::MAX));
        before = total(ix + 1);
    }
    made.counts.push(u64::try_from(total(counts.len()) - before).unwrap_or(u64::MAX));
    Some(made)
}

const fn bucket_kind(temporality: i32) -> Option<Kind> {
    match temporality {
        1 => Some(Kind::DeltaHistogram),
        2 => Some(Kind::CumulativeHistogram),
        _ => None,
    }
}

/// Puts each bucket where its upper end lies, by comparing with the bounds.
fn exponential(p: &ExponentialHistogramDataPoint) -> Option<Histogram> {
    if !(-10..=20).contains(&p.scale) {
        return None;
    }
    let step = if p.scale < 2 { 1 << (2 - p.scale) } else { 1 };
    let threshold = if p.zero_threshold >= (-20_f64).exp2() { p.zero_threshold } else { 0.0 };
    let floor = (threshold.log2() * 4.0 - 1e-6).min(160.0);
    let is_bound = |quarters: &i64| quarters % step == 0 && (threshold == 0.0 || *quarters as f64 >= floor);
    let grid: Vec<i64> = (-80..=160).filter(is_bound).collect();
    let of = |buckets: &Option<Buckets>| -> Vec<(i128, u64)> {
        let all = buckets.iter().flat_map(|b| (i128::from(b.offset)..).zip(b.bucket_counts.iter().copied()));
        all.filter(|(_, n)| *n > 0).collect()
    };
    let (positive, negative) = (of(&p.positive), of(&p.negative));
    let mut ends: Vec<i64> = Vec::new();
    if !negative.is_empty() {
        ends.extend(grid.iter().rev());
    }
    let below = ends.len();
    let mut bounds: Vec<f64> = ends.iter().map(|q| -(*q as f64 / 4.0).exp2()).collect();
    if threshold == 0.0 {
        bounds.push(0.0);
    }
    let above = bounds.len();
    bounds.extend(grid.iter().map(|q| (*q as f64 / 4.0).exp2()));
    let mut counts = vec![0_u64; bounds.len() + 1];
    let mut put = |slot: usize, n: u64| counts[slot] = counts[slot].saturating_add(n);
    put(below, p.zero_count);
    // In 2^-20ths of quarters of a doubling, exactly.
    let place = |end: i128| end << (22 - p.scale);
    for (index, n) in positive {
        put(above + grid.iter().filter(|q| i128::from(**q) << 20 < place(index + 1)).count(), n);
    }
    for (index, n) in negative {
        put(below - grid.iter().filter(|q| i128::from(**q) << 20 <= place(index)).count(), n);
    }
    Some(Histogram { bounds, counts })
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> BTreeMap<String, String> {
    let kept = attributes.filter(|a| !CHURN.contains(&a.key.as_str()));
    kept.map(|a| (a.key.clone(), text(a.value.as_ref().and_then(|v| v.value.as_ref())))).collect()
}

fn key(name: &str, labels: BTreeMap<String, String>) -> Option<Vec<u8>> {
    let fits = name.len() <= 1024 && within_limits(&labels) && labels.values().all(|v| v.len() <= 1024);
    fits.then(|| key_of(name, &Labels::from(labels)))
}

fn within_limits(labels: &BTreeMap<String, String>) -> bool {
    labels.len() <= 64 && labels.keys().all(|k| k.len() <= 256)
}

/// An event's value: whole letters of up to 1,021 bytes, and what says that there were more.
fn cut(value: &mut String) {
    if value.len() > 1024 {
        while value.len() > 1021 {
            value.pop();
        }
        value.push('…');
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::StringValueStrindex(_)) => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BytesValue(bytes)) => base64(bytes),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(nested) => json(Some(nested)).to_string(),
    }
}

fn json(value: Option<&Value>) -> serde_json::Value {
    match value {
        None | Some(Value::StringValueStrindex(_)) => serde_json::Value::Null,
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|v| json(v.value.as_ref())).collect(),
        Some(Value::KvlistValue(map)) => {
            let pair =
                |kv: &KeyValue| (kv.key.clone(), json(kv.value.as_ref().and_then(|v| v.value.as_ref())));
            serde_json::Value::Object(map.values.iter().map(pair).collect())
        }
        Some(text_like) => text(Some(text_like)).into(),
    }
}

/// Bit by bit.
fn base64(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
    let digits = bits.chunks(6).map(|bits| bits.iter().fold(0, |n, bit| n << 1 | bit) << (6 - bits.len()));
    let digit = |n: u8| match n {
        0..26 => b'A' + n,
        26..52 => b'a' + n - 26,
        52..62 => b'0' + n - 52,
        62 => b'+',
        _ => b'/',
    };
    let mut text: String = digits.map(|n| digit(n) as char).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

pub(super) fn read_logs(request: &ExportLogsServiceRequest) -> (Vec<Event>, Vec<(Reason, u32)>) {
    let mut record = Record::default();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            for log in &scope.log_records {
                let at =
                    if log.time_unix_nano == 0 { log.observed_time_unix_nano } else { log.time_unix_nano };
                let severity = match (log.severity_text.as_str(), log.severity_number) {
                    ("", 1..=4) => "TRACE",
                    ("", 5..=8) => "DEBUG",
                    ("", 9..=12) => "INFO",
                    ("", 13..=16) => "WARN",
                    ("", 17..=20) => "ERROR",
                    ("", 21..=24) => "FATAL",
                    (text, _) => text,
                };
                let severity = (!severity.is_empty()).then(|| KeyValue {
                    key: "severity".into(),
                    value: Some(AnyValue { value: Some(Value::StringValue(severity.into())) }),
                    key_strindex: 0,
                });
                let of_resource = resource.resource.iter().flat_map(|r| &r.attributes);
                let of_scope = scope.scope.iter().flat_map(|s| &s.attributes);
                let mut labels =
                    labels(severity.iter().chain(of_resource).chain(of_scope).chain(&log.attributes));
                labels.values_mut().for_each(cut);
                if at == 0 {
                    record.refuse(Reason::Malformed);
                } else if i64::try_from(at).is_err() {
                    record.refuse(Reason::Future);
                } else if within_limits(&labels) {
                    let kind = if log.event_name.is_empty() { "log" } else { &log.event_name };
                    let body = text(log.body.as_ref().and_then(|body| body.value.as_ref()));
                    let labels = Labels::from(labels);
                    record.events.push(Event {
                        at: Timestamp::from_ns(at as i64),
                        kind: kind.into(),
                        labels,
                        body,
                    });
                } else {
                    record.refuse(Reason::LabelLimit);
                }
            }
        }
    }
    record.refused.sort_unstable();
    (record.events, record.refused)
}
