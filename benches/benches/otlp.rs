//! OTLP metrics from a request's bytes to folded points, beside prost decoding the same bytes and nothing else.
//!
//! Both sides run in this process, on the same requests, one after the other: read the ratio. `-- 100000`
//! sets another number of series.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

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
use relight_benches::{INTERVAL, POINTS_PER_RECORD, say, settings};
use relight_core::record::Record;
use relight_core::{KEY_GROUPS, Span, Timestamp};
use relight_engine::directory::key_groups;
use relight_engine::fold::{Closing, Fold, Partials};
use relight_engine::intake::{Intake, Routed};
use relight_ingest::otlp::wire::OtlpMetrics;
use relight_testkit::rng::Rng;

const START: Timestamp = Timestamp::from_secs(1_767_225_600);
/// Bins before those that are timed: in them every series is new, and then in its usual order.
const WARM: usize = 2;
const TIMED: usize = 4;

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let mut fleet = Fleet::new(series);
    let bytes = fleet.bodies.iter().map(Vec::len).sum::<usize>() / series;
    println!(
        "{series} series, {POINTS_PER_RECORD} points a request, 10 attributes, {bytes} bytes a point, one thread"
    );
    let prost = prost_alone(&fleet);
    say("prost: bytes to objects, and nothing else", prost, "ns/point", "");
    let steady = run("steady order", &mut fleet, Shuffle::Nothing, "");
    say("  ratio", prost / steady, "times", "at least 8");
    let requests = run("requests in any order", &mut fleet, Shuffle::Requests, "");
    say("  slower than steady", requests / steady, "times", "at most 2");
    let points = run("requests, and points within each, in any order", &mut fleet, Shuffle::Within, "");
    say("  slower than steady", points / steady, "times", "at most 2");
    let all = run("every point in any request", &mut fleet, Shuffle::Everything, "");
    say("  slower than steady", all / steady, "times", "no exporter does so");
}

/// What is put into another order before each bin.
#[derive(Clone, Copy, PartialEq)]
enum Shuffle {
    Nothing,
    Requests,
    Within,
    Everything,
}

/// Encoded requests. All points have the same size, so that any two may change places.
struct Fleet {
    bodies: Vec<Vec<u8>>,
    /// Where each body's gauges and sums begin, and how far apart two points are.
    starts: [usize; 2],
    stride: usize,
    rng: Rng,
}

impl Fleet {
    fn new(series: usize) -> Self {
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

    fn point(&self, i: usize) -> std::ops::Range<usize> {
        let half = POINTS_PER_RECORD / 2;
        let begin = self.starts[i / half] + i % half * self.stride;
        begin..begin + self.stride
    }

    /// New times and values.
    fn refresh(&mut self, bin: usize) -> Timestamp {
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

    fn shuffle(&mut self, how: Shuffle) {
        let requests = self.bodies.len();
        if how == Shuffle::Requests || how == Shuffle::Within {
            for i in (1..requests).rev() {
                let other = self.rng.below(i as u64 + 1) as usize;
                self.bodies.swap(i, other);
            }
        }
        let half = POINTS_PER_RECORD / 2;
        for request in 0..requests {
            for i in 0..POINTS_PER_RECORD {
                let other = (self.rng.below(half as u64) as usize) + i / half * half;
                match how {
                    Shuffle::Within => self.swap((request, i), (request, other)),
                    Shuffle::Everything => {
                        let to = self.rng.below(requests as u64) as usize;
                        self.swap((request, i), (to, other));
                    }
                    Shuffle::Nothing | Shuffle::Requests => {}
                }
            }
        }
    }

    fn swap(&mut self, a: (usize, usize), b: (usize, usize)) {
        let (at, to) = (self.point(a.1), self.point(b.1));
        let first = self.bodies[a.0][at.clone()].to_vec();
        let second = self.bodies[b.0][to.clone()].to_vec();
        self.bodies[b.0][to].copy_from_slice(&first);
        self.bodies[a.0][at].copy_from_slice(&second);
    }
}

fn attribute(key: &str, value: String) -> KeyValue {
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

fn attributes(series: usize) -> Vec<KeyValue> {
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

/// The slowest of the fastest tenth, in nanoseconds: what a machine's other work interrupts does not count. It
/// would count for more in prost's samples, which are longer.
fn undisturbed(samples: &mut [Duration]) -> f64 {
    let tenth = samples.len() / 10;
    samples.select_nth_unstable(tenth).1.as_secs_f64() * 1e9
}

/// Nanoseconds a point; freeing the objects is not counted.
fn prost_alone(fleet: &Fleet) -> f64 {
    let mut spent = Vec::new();
    let some = fleet.bodies.len().min(300);
    for body in &fleet.bodies[..some] {
        let begin = Instant::now();
        let request = ExportMetricsServiceRequest::decode(&body[..]).expect("prost wrote it");
        spent.push(begin.elapsed());
        drop(std::hint::black_box(request));
    }
    undisturbed(&mut spent) / POINTS_PER_RECORD as f64
}

/// Nanoseconds a point from bytes to folded points, with where they go.
fn run(what: &str, fleet: &mut Fleet, how: Shuffle, against: &str) -> f64 {
    let mut engine = Engine::new();
    for bin in 0..WARM + TIMED {
        if bin == WARM {
            engine.spent = Default::default();
        }
        if bin >= WARM {
            fleet.shuffle(how);
        }
        let at = fleet.refresh(bin);
        for body in &fleet.bodies {
            engine.take(body, at);
        }
    }
    let series = fleet.bodies.len() * POINTS_PER_RECORD;
    engine.verify(series);
    let [decode, intake, push, close] = engine.spent.map(|mut samples| undisturbed(&mut samples));
    let [decode, intake, push] = [decode, intake, push].map(|ns| ns / POINTS_PER_RECORD as f64);
    let close = close * KEY_GROUPS as f64 / series as f64;
    let all = decode + intake + push + close;
    say(what, all, "ns/point", against);
    println!(
        "    decode and identity {decode:.1}, intake {intake:.1}, fold {push:.1}, close of bins {close:.1}"
    );
    all
}

/// Decoder, Intake and Fold in one thread, as the daemon has them.
struct Engine {
    decoder: OtlpMetrics,
    record: Record,
    intake: Intake,
    fold: Fold,
    routed: Routed,
    partials: Partials,
    partition: u32,
    next_offset: u64,
    folded: u64,
    /// Of decoding, intake and pushing a request, and of closing a key group of a bin.
    spent: [Vec<Duration>; 4],
}

impl Engine {
    fn new() -> Self {
        let mut intake = Intake::new(&settings(&[]));
        let partition = intake.partition("otlp");
        Self {
            decoder: OtlpMetrics::default(),
            record: Record::default(),
            intake,
            fold: Fold::new(INTERVAL),
            routed: Routed::default(),
            partials: Partials::default(),
            partition,
            next_offset: 0,
            folded: 0,
            spent: Default::default(),
        }
    }

    fn take(&mut self, body: &[u8], received: Timestamp) {
        let begin = Instant::now();
        self.decoder.aliases().renew(self.intake.directory().generation());
        self.decoder
            .decode(body, self.next_offset, Some(received), &mut self.record)
            .expect("the request is well formed");
        let decoded = Instant::now();
        self.intake.handle(self.partition, &self.record, self.decoder.aliases(), &mut self.routed);
        self.next_offset += 1;
        let handled = Instant::now();
        for series in self.routed.series.drain(..) {
            self.fold.add_series(&series);
        }
        self.routed.rows.clear();
        self.fold.push(&self.routed.points, &self.routed.histograms);
        self.routed.points.clear();
        let pushed = Instant::now();
        let steps = [decoded - begin, handled - decoded, pushed - handled];
        for (samples, step) in self.spent.iter_mut().zip(steps) {
            samples.push(step);
        }
        self.close();
    }

    fn close(&mut self) {
        while let Some(bin) = self.intake.next_bin(None) {
            self.intake.close(bin, &mut self.routed.rows);
            let ranks = self.intake.ranks();
            for group in key_groups() {
                let begin = Instant::now();
                self.partials.scalars.clear();
                self.fold.close(
                    group,
                    &Closing { bin, interval: INTERVAL, ranks: &ranks },
                    &mut self.partials,
                );
                self.folded += self.partials.scalars.len() as u64;
                self.spent[3].push(begin.elapsed());
            }
        }
    }

    /// Whether every point arrived, and every series in every bin that is closed.
    fn verify(&self, series: usize) {
        let bins = WARM + TIMED;
        assert_eq!(self.intake.counters().points, (bins * series) as u64);
        assert_eq!(self.intake.directory().series_len(), series);
        // A sum says nothing in its first bin.
        assert_eq!(self.folded, ((bins - 1) * series - series / 2) as u64);
    }
}
