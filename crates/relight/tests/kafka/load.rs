//! A steady load on a topic of its own, as it would come from four collectors: two hundred series, in real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::{pause, switch};

pub(crate) const PARTITIONS: u32 = 4;
/// Instances of the one service of a partition, each with a gauge and a counter.
const INSTANCES: u64 = 25;
/// Points of one record.
pub(crate) const BATCH: u64 = 2 * INSTANCES;
/// Between two records of a partition.
const TICK_MS: u64 = 100;
/// Ticks before the first fault: the detector warms up.
const QUIET: u64 = 200;

/// From one fault to the next, and how long each lasts, in ticks.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    every: u64,
    last: u64,
}

const SHORT: Faults = Faults { every: 120, last: 50 };
/// Long enough for one member to act, and the other to take over before it is over.
pub(crate) const LONG: Faults = Faults { every: 300, last: 200 };

const FLUSH: Duration = Duration::from_mins(1);

/// The broker of these tests.
pub(crate) fn broker() -> String {
    switch("RELIGHT_KAFKA")
        .expect("no broker: run testdata/peers/kafka/test.sh, or set RELIGHT_KAFKA=HOST:PORT")
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Makes topics that nobody has used before: their names end in the time.
pub(crate) fn create(name: &str, partitions: u32) -> String {
    let topic = format!("{name}-{}", now_ms());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker()).create().expect("an admin client");
    let new = NewTopic::new(&topic, partitions as i32, TopicReplication::Fixed(1));
    let created = admin.create_topics([&new], &AdminOptions::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let created = runtime.block_on(created).expect("the broker answers");
    created[0].as_ref().expect("the topic is new");
    topic
}

/// A topic with a past: a record a partition every ten seconds of the last `ticks`, written at once. The last fault
/// ended long ago. Gives the topic and the number of its points.
pub(crate) fn past(name: &str, ticks: u64) -> (String, u64) {
    let (topic, producer, now) = (create(name, PARTITIONS), producer(), now_ms());
    let began = now - ticks * 10_000;
    for tick in 0..ticks {
        send(&producer, &topic, SHORT, tick, began + tick * 10_000, began);
        producer.poll(Duration::ZERO);
    }
    producer.flush(FLUSH).expect("the broker takes all");
    (topic, ticks * u64::from(PARTITIONS) * BATCH)
}

/// Writes until it is stopped.
pub(crate) struct Load {
    pub(crate) topic: String,
    faults: Faults,
    over: Arc<AtomicBool>,
    ticks: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Load {
    pub(crate) fn start(name: &str) -> Self {
        Self::with(SHORT, name)
    }

    pub(crate) fn with(faults: Faults, name: &str) -> Self {
        let topic = create(name, PARTITIONS);
        let (over, ticks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted, to) = (Arc::clone(&over), Arc::clone(&ticks), topic.clone());
        let thread = std::thread::spawn(move || write(&to, faults, &told, &counted));
        Self { topic, faults, over, ticks, thread }
    }

    /// Waits until so many faults are over, and a second more.
    pub(crate) fn wait_for_faults(&self, faults: u64) {
        let until = QUIET + (faults.max(1) - 1) * self.faults.every + self.faults.last + 10;
        while self.ticks.load(Ordering::Relaxed) < until {
            pause(TICK_MS);
        }
    }

    /// Waits until the next fault is about to begin; how many were before it.
    pub(crate) fn wait_for_quiet(&self) -> u64 {
        let every = self.faults.every;
        loop {
            let ticks = self.ticks.load(Ordering::Relaxed);
            let into = ticks.saturating_sub(QUIET) % every;
            if ticks >= QUIET && (every - 25..every - 15).contains(&into) {
                return (ticks - QUIET) / every + 1;
            }
            pause(TICK_MS);
        }
    }

    /// Stops; gives the number of points that the broker has.
    pub(crate) fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the broker took all")
    }
}

fn producer() -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", broker())
        // A batch that is sent again is not there twice.
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .expect("a producer")
}

/// One record for each partition.
fn send(producer: &BaseProducer, topic: &str, faults: Faults, tick: u64, at: u64, began: u64) {
    for partition in 0..PARTITIONS {
        let is_ill = faults.is_ill(partition, tick);
        let body = request(partition, is_ill, tick, at, began).encode_to_vec();
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition as i32)
            .timestamp(at as i64)
            .payload(&body);
        producer.send(record).map_err(|(error, _)| error).expect("room for a record");
    }
}

fn write(topic: &str, faults: Faults, over: &AtomicBool, ticks: &AtomicU64) -> u64 {
    let producer = producer();
    let began = now_ms();
    let mut tick = 0;
    while !over.load(Ordering::Relaxed) {
        send(&producer, topic, faults, tick, now_ms(), began);
        producer.poll(Duration::ZERO);
        tick += 1;
        ticks.store(tick, Ordering::Relaxed);
        pause((began + tick * TICK_MS).saturating_sub(now_ms()));
    }
    producer.flush(FLUSH).expect("the broker takes all");
    tick * u64::from(PARTITIONS) * BATCH
}

impl Faults {
    /// Whether the service of a partition is ill: they take turns.
    fn is_ill(self, partition: u32, tick: u64) -> bool {
        let Some(since) = tick.checked_sub(QUIET) else { return false };
        since % self.every < self.last && (since / self.every) % u64::from(PARTITIONS) == u64::from(partition)
    }
}

fn request(
    partition: u32,
    is_ill: bool,
    tick: u64,
    at_ms: u64,
    began_ms: u64,
) -> ExportMetricsServiceRequest {
    let ill = if is_ill { 40.0 } else { 0.0 };
    let point = |instance: u64, value: f64| NumberDataPoint {
        attributes: vec![attribute("instance", &format!("i{instance}"))],
        start_time_unix_nano: began_ms * 1_000_000,
        time_unix_nano: at_ms * 1_000_000,
        value: Some(Number::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let load = |i: u64| point(i, 10.0 + ((tick * 7 + i * 13) % 10) as f64 * 0.1 + ill);
    let requests = |i: u64| point(i, (tick * (i + 3)) as f64);
    let gauge = Gauge { data_points: (0..INSTANCES).map(load).collect() };
    let sum = Sum {
        data_points: (0..INSTANCES).map(requests).collect(),
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: true,
    };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let metrics = vec![metric("load", Data::Gauge(gauge)), metric("requests", Data::Sum(sum))];
    let attributes = vec![attribute("service.name", &format!("s{partition}"))];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            schema_url: String::new(),
        }],
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}
