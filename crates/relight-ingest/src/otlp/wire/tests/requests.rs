//! Requests to read: any that prost's types can hold, and other writings of the same.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["", "a", "b", "code", "service.name", "process.pid", "quantile", "severity", "ü🔥"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,8}",
        1 => prop::sample::select(vec![255, 256, 257, 1024, 1025]).prop_map(|n| "x".repeat(n)),
    ]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-100_i32..100).prop_map(f64::from),
        2 => any::<f64>(),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX]),
    ]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1_767_225_600_000_000_000..1_767_225_700_000_000_000_u64, 1 => Just(0), 1 => any::<u64>()]
}

fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(0), 1 => any::<u32>()]
}

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        6 => text().prop_map(Value::StringValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<i64>().prop_map(Value::IntValue),
        1 => double().prop_map(Value::DoubleValue),
        1 => vec(any::<u8>(), 0..7).prop_map(Value::BytesValue),
        1 => any::<i32>().prop_map(Value::StringValueStrindex),
    ];
    let leaf = option::weighted(0.95, leaf).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let list = vec(inner.clone(), 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values }));
        let pair =
            (text(), option::of(inner)).prop_map(|(key, value)| KeyValue { key, value, key_strindex: 0 });
        let map = vec(pair, 0..3).prop_map(|values| Value::KvlistValue(KeyValueList { values }));
        prop_oneof![list, map].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (text(), option::weighted(0.95, value()), prop_oneof![4 => Just(0), 1 => any::<i32>()])
        .prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex });
    let many = (60..70_usize).prop_map(|n| (0..n).map(|i| attribute(&i.to_string(), "v")).collect());
    prop_oneof![30 => vec(pair, 0..5), 1 => many]
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let exemplar =
        (attributes(), time(), vec(any::<u8>(), 0..8), double()).prop_map(|(a, at, id, value)| Exemplar {
            filtered_attributes: a,
            time_unix_nano: at,
            span_id: id.clone(),
            trace_id: id,
            value: Some(exemplar::Value::AsDouble(value)),
        });
    prop_oneof![5 => Just(Vec::new()), 1 => vec(exemplar, 1..2)]
}

type CommonParts = (Vec<KeyValue>, u64, u64, u32, Vec<Exemplar>);

fn common() -> impl Strategy<Value = CommonParts> {
    (attributes(), time(), time(), flags(), exemplars())
}

fn number() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt)
    ];
    (common(), option::weighted(0.9, value)).prop_map(|((attributes, start, at, flags, exemplars), value)| {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: at,
            exemplars,
            flags,
            value,
        }
    })
}

fn extremes() -> impl Strategy<Value = [Option<f64>; 3]> {
    prop_oneof![4 => Just([None, None, None]), 1 => [option::of(double()), option::of(double()), option::of(double())]]
}

fn histogram() -> impl Strategy<Value = HistogramDataPoint> {
    let ascending = || (0..4_u32).prop_map(|n| (0..n).map(f64::from).collect::<Vec<_>>());
    let ends = (prop::sample::select(vec![&[][..], &[f64::NEG_INFINITY], &[f64::NAN]]), ascending())
        .prop_flat_map(|(first, inner)| {
            (Just(first), Just(inner), prop::sample::select(vec![&[f64::INFINITY][..], &[f64::NAN], &[]]))
        })
        .prop_map(|(first, inner, last)| [first, &inner, last].concat());
    let bounds = prop_oneof![4 => ascending(), 2 => ends, 1 => vec(double(), 0..3)];
    let counts = vec(0..9_u64, 0..5);
    (common(), bounds, counts, extremes(), 0..5_usize, any::<bool>()).prop_map(
        |((attributes, start, at, flags, exemplars), bounds, mut counts, [sum, min, max], fits, adds_up)| {
            match fits {
                0..3 => counts.resize(bounds.len() + 1, 1),
                3 => counts.resize(bounds.len(), 1),
                _ => {}
            }
            HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: at,
                count: if adds_up { counts.iter().sum() } else { 3 },
                sum,
                bucket_counts: counts,
                explicit_bounds: bounds,
                exemplars,
                flags,
                min,
                max,
            }
        },
    )
}

fn exponential() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let offset = prop_oneof![4 => -400..400, 1 => any::<i32>()];
    let side =
        (offset, vec(0..5_u64, 0..6)).prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts });
    let scale = prop_oneof![8 => -11..=21, 1 => any::<i32>()];
    (common(), scale, 0..5_u64, option::of(side.clone()), option::of(side), extremes()).prop_map(
        |(
            (attributes, start, at, flags, exemplars),
            scale,
            zero_count,
            positive,
            negative,
            [sum, min, max],
        )| {
            let counts = positive.iter().chain(&negative).flat_map(|b| &b.bucket_counts);
            ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: at,
                count: zero_count + counts.sum::<u64>(),
                sum,
                scale,
                zero_count,
                positive,
                negative,
                flags,
                exemplars,
                min,
                max,
                zero_threshold: [0.0, 0.3, 2.0, -1.0, f64::NAN][zero_count as usize],
            }
        },
    )
}

fn summary() -> impl Strategy<Value = SummaryDataPoint> {
    let quantile = (double(), double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (common(), any::<u64>(), double(), vec(quantile, 0..4)).prop_map(
        |((attributes, start, at, flags, _), count, sum, quantile_values)| SummaryDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: at,
            count,
            sum,
            quantile_values,
            flags,
        },
    )
}

fn data() -> impl Strategy<Value = Data> {
    let temporality = || prop_oneof![8 => 1..3, 1 => any::<i32>()];
    prop_oneof![
        vec(number(), 0..4).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number(), 0..4), temporality(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| {
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
            }
        ),
        (vec(histogram(), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential(), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(summary(), 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ]
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    option::weighted(0.8, attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() }))
}

fn scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    let scope = (text(), attributes()).prop_map(|(name, attributes)| InstrumentationScope {
        name,
        attributes,
        ..InstrumentationScope::default()
    });
    option::weighted(0.5, scope)
}

pub(crate) fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric = (text(), attributes(), option::weighted(0.95, data())).prop_map(|(name, metadata, data)| {
        Metric { name, description: "d".to_owned(), unit: "1".to_owned(), metadata, data }
    });
    let of_scope = (scope(), vec(metric, 0..4)).prop_map(|(scope, metrics)| ScopeMetrics {
        scope,
        metrics,
        schema_url: "s".to_owned(),
    });
    let of_resource = (resource(), vec(of_scope, 0..3)).prop_map(|(resource, scope_metrics)| {
        ResourceMetrics { resource, scope_metrics, schema_url: String::new() }
    });
    vec(of_resource, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

pub(crate) fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let number = prop_oneof![4 => -1..27, 1 => any::<i32>()];
    let severity = (number, prop_oneof![Just(String::new()), text()]);
    let log = (time(), time(), severity, text(), option::of(value()), attributes()).prop_map(
        |(time_unix_nano, observed_time_unix_nano, severity, event_name, body, attributes)| LogRecord {
            time_unix_nano,
            observed_time_unix_nano,
            severity_number: severity.0,
            severity_text: severity.1,
            body,
            attributes,
            trace_id: vec![1; 16],
            flags: 1,
            event_name,
            ..LogRecord::default()
        },
    );
    let of_scope = (scope(), vec(log, 0..4)).prop_map(|(scope, log_records)| ScopeLogs {
        scope,
        log_records,
        schema_url: String::new(),
    });
    let of_resource = (resource(), vec(of_scope, 0..3)).prop_map(|(resource, scope_logs)| ResourceLogs {
        resource,
        scope_logs,
        schema_url: "s".to_owned(),
    });
    vec(of_resource, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

pub(crate) fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let span =
        (text(), attributes(), attributes(), any::<u64>()).prop_map(|(name, attributes, inner, at)| Span {
            trace_id: vec![7; 16],
            name: name.clone(),
            kind: 2,
            start_time_unix_nano: at,
            attributes,
            events: vec![span::Event { name, attributes: inner.clone(), ..span::Event::default() }],
            links: vec![span::Link { attributes: inner, flags: 3, ..span::Link::default() }],
            status: Some(Status { message: "m".to_owned(), code: 2 }),
            flags: 1,
            ..Span::default()
        });
    let of_scope = (scope(), vec(span, 0..3)).prop_map(|(scope, spans)| ScopeSpans {
        scope,
        spans,
        schema_url: String::new(),
    });
    let of_resource = (resource(), vec(of_scope, 0..3)).prop_map(|(resource, scope_spans)| ResourceSpans {
        resource,
        scope_spans,
        schema_url: String::new(),
    });
    vec(of_resource, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}
