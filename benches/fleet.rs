//! OTLP requests of a fleet of containers, and Decoder, Intake and Fold in one thread to take them.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use relight_core::record::Record;
use relight_core::{Span, Timestamp};
use relight_engine::directory::key_groups;
use relight_engine::fold::{Closing, Fold, Partials};
use relight_engine::intake::{Intake, Routed};
use relight_ingest::otlp::wire::OtlpMetrics;
use relight_testkit::rng::Rng;

use crate::{INTERVAL, POINTS_PER_RECORD, START, settings};

/// Encoded requests. All points have the same size, so that any two may change places.
pub struct Fleet {
    /// The requests, 1,000 points each.
    pub bodies: Vec<Vec<u8>>,
    /// Where each body's gauges and sums begin, and how far apart two points are.
    starts: [usize; 2],
    stride: usize,
    /// For values, and for whoever changes the order.
    pub rng: Rng,
}

impl Fleet {
    /// Requests for so many series.
    ///
    /// # Panics
    ///
    /// If points differ in size.
    pub fn new(series: usize) -> Self {
        let bodies: Vec<Vec<u8>> =
            (0..series.div_ceil(POINTS_PER_RECORD)).map(|i| request(i).encode_to_vec()).collect();
        let mark: Vec<u8> = std::iter::once(0x19).chain(START.ns().to_le_bytes()).collect();
        let times: Vec<usize> =
            (0..bodies[0].len()).filter(|at| bodies[0][*at..].starts_with(&mark)).collect();
        assert_eq!(times.len(), POINTS_PER_RECORD, "a time in every point");
        let stride = times[1] - times[0];
        // A point begins with its key, two bytes of length, and its start.
        let begin = |i: usize| times[i] - 12;
        let starts = [begin(0), begin(POINTS_PER_RECORD / 2)];
        assert!(bodies.iter().all(|body| body.len() == bodies[0].len()), "all points have the same size");
        Self { bodies, starts, stride, rng: Rng::new(1) }
    }

    /// Where the `i`th point of a body lies.
    pub fn point(&self, i: usize) -> std::ops::Range<usize> {
        let half = POINTS_PER_RECORD / 2;
        let begin = self.starts[i / half] + i % half * self.stride;
        begin..begin + self.stride
    }

    /// Times and values of the `bin`th bin; returns the time.
    pub fn refresh(&mut self, bin: usize) -> Timestamp {
        let at = START.plus(INTERVAL.times(bin as i64)).plus(Span::from_secs(7));
        for request in 0..self.bodies.len() {
            for i in 0..POINTS_PER_RECORD {
                let begin = self.point(i).start + 13;
                let value = 100.0 * bin as f64 + 10.0 * self.rng.unit();
                let point = &mut self.bodies[request][begin..begin + 17];
                point[..8].copy_from_slice(&at.ns().to_le_bytes());
                point[9..].copy_from_slice(&value.to_le_bytes());
            }
        }
        at
    }
}

/// A string attribute.
pub fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        key_strindex: 0,
    }
}

/// 1,000 points: 500 gauges and 500 monotonic sums, of ten containers.
fn request(i: usize) -> ExportMetricsServiceRequest {
    let half = POINTS_PER_RECORD / 2;
    let point = |n: usize| NumberDataPoint {
        attributes: attributes(i * POINTS_PER_RECORD + n),
        start_time_unix_nano: START.ns() as u64 - 1,
        time_unix_nano: START.ns() as u64,
        value: Some(number_data_point::Value::AsDouble(1.0)),
        ..NumberDataPoint::default()
    };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let gauges = Gauge { data_points: (0..half).map(point).collect() };
    let sums = Sum {
        data_points: (half..POINTS_PER_RECORD).map(point).collect(),
        aggregation_temporality: 2,
        is_monotonic: true,
    };
    let metrics = vec![
        metric("http.server.active_requests", Data::Gauge(gauges)),
        metric("http.server.request.count", Data::Sum(sums)),
    ];
    let resource =
        Resource { attributes: vec![attribute("service.name", "gateway".to_owned())], ..Resource::default() };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// The ten attributes of a series.
pub fn attributes(series: usize) -> Vec<KeyValue> {
    let (container, route) = (series / 100, series % 100);
    vec![
        attribute("cloud.region", "eu-central-1".to_owned()),
        attribute("k8s.cluster.name", format!("prod-{:02}", container % 16)),
        attribute("k8s.namespace.name", format!("shop-{:03}", container % 128)),
        attribute("k8s.deployment.name", format!("checkout-{:04}", container % 1_024)),
        attribute("k8s.pod.name", format!("checkout-7d9c5b6f{container:08}")),
        attribute("http.request.method", if route % 2 == 0 { "GET" } else { "PUT" }.to_owned()),
        attribute("http.route", format!("/api/v1/orders/{route:04}")),
        attribute("http.response.status_code", format!("{}", 200 + route % 5)),
        attribute("server.address", format!("10.{:03}.{:03}.7", container / 250 % 250, container % 250)),
        attribute("url.scheme", "https".to_owned()),
    ]
}

/// Decoder, Intake and Fold, as the daemon has them.
pub struct OtlpEngine {
    decoder: OtlpMetrics,
    record: Record,
    /// Whose counters and directory tell what came.
    pub intake: Intake,
    fold: Fold,
    routed: Routed,
    partials: Partials,
    /// Contributions that closed bins made.
    pub folded: u64,
    /// Of decoding, intake and pushing a request, and of closing a key group of a bin.
    pub spent: [Vec<Duration>; 4],
}

impl Default for OtlpEngine {
    fn default() -> Self {
        Self {
            decoder: OtlpMetrics::default(),
            record: Record::default(),
            intake: Intake::new(&settings(&[])),
            fold: Fold::new(INTERVAL),
            routed: Routed::default(),
            partials: Partials::default(),
            folded: 0,
            spent: Default::default(),
        }
    }
}

impl OtlpEngine {
    /// Takes a request, and closes every bin that is over.
    ///
    /// # Panics
    ///
    /// If the request is malformed.
    pub fn take(&mut self, partition: u32, offset: u64, received: Timestamp, body: &[u8]) {
        let begin = Instant::now();
        self.decoder.aliases().renew(self.intake.directory().generation());
        let decoded = self.decoder.decode(body, offset, Some(received), &mut self.record);
        decoded.expect("the request is well formed");
        let decoded = Instant::now();
        self.intake.handle(partition, &self.record, self.decoder.aliases(), &mut self.routed);
        let handled = Instant::now();
        for series in self.routed.series.drain(..) {
            self.fold.add_series(&series);
        }
        self.routed.rows.clear();
        self.fold.push(&self.routed);
        self.routed.clear_points();
        let pushed = Instant::now();
        let steps = [decoded - begin, handled - decoded, pushed - handled];
        for (samples, step) in self.spent.iter_mut().zip(steps) {
            samples.push(step);
        }
        self.close();
    }

    fn close(&mut self) {
        while let Some(bin) = self.intake.next_bin(None) {
            self.intake.close(bin, &mut self.routed);
            let ranks = self.intake.ranks();
            for group in key_groups() {
                let begin = Instant::now();
                self.partials.scalars.clear();
                let closing = Closing { bin, interval: INTERVAL, ranks: &ranks };
                self.fold.close(group, &closing, &mut self.partials);
                self.folded += self.partials.scalars.len() as u64;
                self.spent[3].push(begin.elapsed());
            }
        }
    }
}

/// Processor time of this process so far: all of it, and the kernel's part, in steps of 10 ms.
pub fn cpu() -> (Duration, Duration) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<u64> = after_name.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    let time = |ticks: u64| Duration::from_millis(ticks * 10);
    (time(ticks.iter().sum()), time(ticks.get(1).copied().unwrap_or(0)))
}
