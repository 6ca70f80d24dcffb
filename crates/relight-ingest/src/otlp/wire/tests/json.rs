//! The other writing: what a request says in JSON, in any of the ways in which ProtoJSON may be written.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint,
};
use serde_json::{Map, Value, json};

use super::writings::Dice;
use super::*;
use crate::otlp::Otlp;
use crate::source::decode_lines;

/// Writes a request in one of many ways.
struct Writer(Dice);

impl Writer {
    /// A field by either of its names. One that has its default is left out, is null, or is written.
    fn put(&mut self, to: &mut Map<String, Value>, name: &str, is_default: bool, value: Value) {
        let snake: String = name
            .chars()
            .flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
            .collect();
        let name = if self.0.in_(4) { snake } else { name.to_owned() };
        match self.0.roll(3) {
            0 if is_default => {}
            1 if is_default => drop(to.insert(name, Value::Null)),
            _ => drop(to.insert(name, value)),
        }
        if self.0.in_(20) {
            to.insert("unknown".to_owned(), json!([{"deep": [null, 1e300]}]));
        }
    }

    fn integer(&mut self, n: impl Into<i128>) -> Value {
        let n: i128 = n.into();
        let number = i64::try_from(n).map(Value::from).or_else(|_| u64::try_from(n).map(Value::from));
        match number {
            Ok(number) if !self.0.in_(2) => number,
            _ => Value::from(n.to_string()),
        }
    }

    fn double(&mut self, value: f64) -> Value {
        match serde_json::Number::from_f64(value) {
            Some(number) if !self.0.in_(4) => Value::Number(number),
            Some(_) => Value::from(value.to_string()),
            None if value.is_nan() => Value::from("NaN"),
            None => Value::from(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        }
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T) -> Value) -> Value {
        items.iter().map(|item| write(self, item)).collect()
    }

    fn any(&mut self, value: Option<&AnyValue>) -> Value {
        let mut map = Map::new();
        let Some(value) = value.and_then(|value| value.value.as_ref()) else {
            return if self.0.in_(2) { Value::Null } else { Value::Object(map) };
        };
        let (name, value) = match value {
            Any::StringValue(text) => ("stringValue", Value::from(text.as_str())),
            Any::BoolValue(value) => ("boolValue", Value::from(*value)),
            Any::IntValue(value) => ("intValue", self.integer(*value)),
            Any::DoubleValue(value) => ("doubleValue", self.double(*value)),
            Any::BytesValue(bytes) => ("bytesValue", Value::from(self.base64(bytes))),
            Any::StringValueStrindex(ix) => ("stringValueStrindex", Value::from(*ix)),
            Any::ArrayValue(list) => {
                let values = self.list(&list.values, Self::any_in_list);
                ("arrayValue", json!({ "values": values }))
            }
            Any::KvlistValue(list) => {
                let values = self.attributes(&list.values);
                ("kvlistValue", json!({ "values": values }))
            }
        };
        self.put(&mut map, name, false, value);
        Value::Object(map)
    }

    /// In a list there is no null.
    fn any_in_list(&mut self, value: &AnyValue) -> Value {
        match self.any(Some(value)) {
            Value::Null => json!({}),
            value => value,
        }
    }

    fn base64(&mut self, bytes: &[u8]) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
        match self.0.roll(4) {
            0 => STANDARD.encode(bytes),
            1 => STANDARD_NO_PAD.encode(bytes),
            2 => URL_SAFE.encode(bytes),
            _ => URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    fn attributes(&mut self, attributes: &[KeyValue]) -> Value {
        self.list(attributes, |w, attribute| {
            let mut map = Map::new();
            let value = w.any(attribute.value.as_ref());
            w.put(&mut map, "key", attribute.key.is_empty(), Value::from(attribute.key.as_str()));
            w.put(&mut map, "value", attribute.value.is_none(), value);
            Value::Object(map)
        })
    }

    fn own(&mut self, attributes: Option<&[KeyValue]>) -> Value {
        let mut map = Map::new();
        let written = self.attributes(attributes.unwrap_or_default());
        self.put(&mut map, "attributes", attributes.is_none_or(<[_]>::is_empty), written);
        Value::Object(map)
    }

    fn request(&mut self, request: &ExportMetricsServiceRequest) -> String {
        let resources = self.list(&request.resource_metrics, |w, resource| {
            let mut map = Map::new();
            let own = w.own(resource.resource.as_ref().map(|own| &own.attributes[..]));
            w.put(&mut map, "resource", resource.resource.is_none(), own);
            let scopes = w.list(&resource.scope_metrics, |w, scope| {
                let mut map = Map::new();
                let attributes = scope.scope.as_ref().map(|own: &InstrumentationScope| &own.attributes[..]);
                let own = w.own(attributes);
                w.put(&mut map, "scope", scope.scope.is_none(), own);
                let metrics = w.list(&scope.metrics, Self::metric);
                w.put(&mut map, "metrics", scope.metrics.is_empty(), metrics);
                Value::Object(map)
            });
            w.put(&mut map, "scopeMetrics", resource.scope_metrics.is_empty(), scopes);
            Value::Object(map)
        });
        let mut map = Map::new();
        self.put(&mut map, "resourceMetrics", false, resources);
        Value::Object(map).to_string()
    }

    fn metric(&mut self, metric: &Metric) -> Value {
        let mut map = Map::new();
        self.put(&mut map, "name", metric.name.is_empty(), Value::from(metric.name.as_str()));
        let (name, points, temporality, is_monotonic) = match &metric.data {
            None => return Value::Object(map),
            Some(Data::Gauge(data)) => ("gauge", self.list(&data.data_points, Self::number), None, false),
            Some(Data::Sum(data)) => {
                let points = self.list(&data.data_points, Self::number);
                ("sum", points, Some(data.aggregation_temporality), data.is_monotonic)
            }
            Some(Data::Histogram(data)) => {
                let points = self.list(&data.data_points, Self::histogram);
                ("histogram", points, Some(data.aggregation_temporality), false)
            }
            Some(Data::ExponentialHistogram(data)) => {
                let points = self.list(&data.data_points, Self::exponential);
                ("exponentialHistogram", points, Some(data.aggregation_temporality), false)
            }
            Some(Data::Summary(data)) => {
                ("summary", self.list(&data.data_points, Self::summary), None, false)
            }
        };
        let mut data = Map::new();
        self.put(&mut data, "dataPoints", points == json!([]), points);
        if let Some(temporality) = temporality {
            let written = self.temporality(temporality);
            self.put(&mut data, "aggregationTemporality", temporality == 0, written);
        }
        if name == "sum" {
            self.put(&mut data, "isMonotonic", !is_monotonic, Value::from(is_monotonic));
        }
        self.put(&mut map, name, false, Value::Object(data));
        for other in ["gauge", "sum", "histogram", "exponentialHistogram", "summary"] {
            if other != name && self.0.in_(4) {
                map.insert(other.to_owned(), Value::Null);
            }
        }
        Value::Object(map)
    }

    fn temporality(&mut self, temporality: i32) -> Value {
        match temporality {
            1 if self.0.in_(2) => Value::from("AGGREGATION_TEMPORALITY_DELTA"),
            2 if self.0.in_(2) => Value::from("AGGREGATION_TEMPORALITY_CUMULATIVE"),
            0 if self.0.in_(2) => Value::from("AGGREGATION_TEMPORALITY_UNSPECIFIED"),
            other => Value::from(other),
        }
    }

    fn common(&mut self, attributes: &[KeyValue], (start, at): (u64, u64), flags: u32) -> Map<String, Value> {
        let mut map = Map::new();
        let written = self.attributes(attributes);
        self.put(&mut map, "attributes", attributes.is_empty(), written);
        for (name, ns) in [("startTimeUnixNano", start), ("timeUnixNano", at)] {
            let written = self.integer(ns);
            self.put(&mut map, name, ns == 0, written);
        }
        let written = self.integer(flags);
        self.put(&mut map, "flags", flags == 0, written);
        map
    }

    fn number(&mut self, p: &NumberDataPoint) -> Value {
        let mut map = self.common(&p.attributes, (p.start_time_unix_nano, p.time_unix_nano), p.flags);
        match p.value {
            Some(Number::AsDouble(value)) => {
                let written = self.double(value);
                self.put(&mut map, "asDouble", false, written);
            }
            Some(Number::AsInt(value)) => {
                let written = self.integer(value);
                self.put(&mut map, "asInt", false, written);
                map.insert("asDouble".to_owned(), Value::Null);
            }
            None => {}
        }
        Value::Object(map)
    }

    fn counts(&mut self, counts: &[u64]) -> Value {
        self.list(counts, |w, n| w.integer(*n))
    }

    fn extremes(&mut self, map: &mut Map<String, Value>, values: [(&str, Option<f64>); 3]) {
        for (name, value) in values {
            let written = value.map_or(Value::Null, |value| self.double(value));
            self.put(map, name, value.is_none(), written);
        }
    }

    fn histogram(&mut self, p: &HistogramDataPoint) -> Value {
        let mut map = self.common(&p.attributes, (p.start_time_unix_nano, p.time_unix_nano), p.flags);
        let count = self.integer(p.count);
        self.put(&mut map, "count", p.count == 0, count);
        self.extremes(&mut map, [("sum", p.sum), ("min", p.min), ("max", p.max)]);
        let counts = self.counts(&p.bucket_counts);
        self.put(&mut map, "bucketCounts", p.bucket_counts.is_empty(), counts);
        let bounds = self.list(&p.explicit_bounds, |w, bound| w.double(*bound));
        self.put(&mut map, "explicitBounds", p.explicit_bounds.is_empty(), bounds);
        Value::Object(map)
    }

    fn side(&mut self, map: &mut Map<String, Value>, name: &str, side: Option<&Buckets>) {
        let mut own = Map::new();
        if let Some(Buckets { offset, bucket_counts }) = side {
            let written = self.integer(*offset);
            self.put(&mut own, "offset", *offset == 0, written);
            let counts = self.counts(bucket_counts);
            self.put(&mut own, "bucketCounts", bucket_counts.is_empty(), counts);
        }
        self.put(map, name, side.is_none(), Value::Object(own));
    }

    fn exponential(&mut self, p: &ExponentialHistogramDataPoint) -> Value {
        let mut map = self.common(&p.attributes, (p.start_time_unix_nano, p.time_unix_nano), p.flags);
        for (name, n) in [("count", p.count), ("zeroCount", p.zero_count)] {
            let written = self.integer(n);
            self.put(&mut map, name, n == 0, written);
        }
        let scale = self.integer(p.scale);
        self.put(&mut map, "scale", p.scale == 0, scale);
        self.extremes(&mut map, [("sum", p.sum), ("min", p.min), ("max", p.max)]);
        let threshold = self.double(p.zero_threshold);
        self.put(&mut map, "zeroThreshold", p.zero_threshold == 0.0, threshold);
        self.side(&mut map, "positive", p.positive.as_ref());
        self.side(&mut map, "negative", p.negative.as_ref());
        Value::Object(map)
    }

    fn summary(&mut self, p: &SummaryDataPoint) -> Value {
        let mut map = self.common(&p.attributes, (p.start_time_unix_nano, p.time_unix_nano), p.flags);
        let count = self.integer(p.count);
        self.put(&mut map, "count", p.count == 0, count);
        let sum = self.double(p.sum);
        self.put(&mut map, "sum", p.sum == 0.0 && p.sum.is_sign_positive(), sum);
        let quantiles = self.list(&p.quantile_values, |w, quantile| {
            let mut map = Map::new();
            for (name, value) in [("quantile", quantile.quantile), ("value", quantile.value)] {
                let written = w.double(value);
                w.put(&mut map, name, value == 0.0 && value.is_sign_positive(), written);
            }
            Value::Object(map)
        });
        self.put(&mut map, "quantileValues", p.quantile_values.is_empty(), quantiles);
        Value::Object(map)
    }
}

/// What the decoder of JSON says of a line, and what it names.
fn read(line: &str) -> (Reading, Vec<(Reason, String, String, u32)>) {
    let (mut records, _) = decode_lines(&mut Otlp::new(), &[line]);
    let record = records.remove(0).1;
    let mut reading = Reading::default();
    record.points.iter().for_each(|point| reading.push(record.key(point).to_vec(), point, &record));
    record.ends.iter().for_each(|end| reading.end(record.key(end).to_vec(), end));
    reading.refused = record.refused.clone();
    reading.refused.sort_unstable();
    (reading, named(&record))
}

fn named(record: &Record) -> Vec<(Reason, String, String, u32)> {
    let kinds = record.refusals.kinds().iter();
    kinds.map(|kind| (kind.reason, kind.metric.clone(), kind.service.clone(), kind.count)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Scenario: a request in protobuf and in JSON, with enums by name or number, nulls, both names of fields, integers as
    /// strings, floats that JSON has no number for, every base 64, and fields that nobody knows.
    /// Guarantee: points and refusals are the same, and so are the names of what is refused.
    #[test]
    fn json_says_what_protobuf_says(request in requests::metrics(), seed: u64) {
        prop_assume!(!request.resource_metrics.is_empty());
        let line = Writer(Dice(seed)).request(&request);
        let (reading, names) = read(&line);
        prop_assert_eq!(reading, reference::read(&request), "{}", line);
        let mut record = Record::default();
        prop_assert_eq!(OtlpMetrics::default().decode(&request.encode_to_vec(), 0, None, &mut record), Ok(()));
        prop_assert_eq!(names, named(&record));
    }

    /// Scenario: one value anywhere in a request is of a type that it must not be.
    /// Guarantee: never a panic, and what is whole of the request stays: never more than one metric's worth is lost by a
    /// value within a metric.
    #[test]
    fn one_wrong_value_refuses_what_holds_it(request in requests::metrics(), seed: u64, at: prop::sample::Index) {
        prop_assume!(!request.resource_metrics.is_empty());
        let whole: Value = serde_json::from_str(&Writer(Dice(seed)).request(&request)).expect("it is JSON");
        let (before, _) = read(&whole.to_string());
        let mut paths = Vec::new();
        leaves(&whole, &mut Vec::new(), &mut paths);
        prop_assume!(!paths.is_empty());
        let path = at.get(&paths);
        let mut damaged = whole.clone();
        *path.iter().fold(&mut damaged, |value, step| match step {
            Step::Key(key) => &mut value[key],
            Step::Ix(ix) => &mut value[*ix],
        }) = json!([["wrong"]]);
        let (after, names) = read(&damaged.to_string());
        let is_in = |at: usize, name: &str| matches!(path.get(at), Some(Step::Key(key)) if key == name);
        let is_in_metric = (is_in(2, "scopeMetrics") || is_in(2, "scope_metrics")) && is_in(4, "metrics");
        let most = match path.get(6) {
            Some(_) if is_in_metric => {
                let metric = path[..6].iter().fold(&whole, |value, step| match step {
                    Step::Key(key) => &value[key],
                    Step::Ix(ix) => &value[*ix],
                });
                let alone = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]});
                read(&alone.to_string()).0.len()
            }
            _ => before.len(),
        };
        prop_assert!(after.len() + most >= before.len(), "{} points of {}, {:?}", after.len(), before.len(), names);
    }
}

/// How to get from a value to one in it.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Ix(usize),
}

fn leaves(value: &Value, path: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(Step::Key(key.clone()));
                leaves(value, path, out);
                path.pop();
            }
        }
        Value::Array(list) => {
            for (ix, value) in list.iter().enumerate() {
                path.push(Step::Ix(ix));
                leaves(value, path, out);
                path.pop();
            }
        }
        _ => out.push(path.clone()),
    }
}
