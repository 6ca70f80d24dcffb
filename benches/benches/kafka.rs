//! OTLP metrics from a Kafka topic to folded points, beside a bare consumer that drops every message of the same topic.
//!
//! Both read from the same broker, one after the other, in this process: read the ratio. The broker is an argument,
//! `-- 127.0.0.1:29092` (`testdata/peers/kafka/start.sh` starts one); librdkafka's mock cluster keeps 5 MiB a partition
//! and is used without one, to see that all of this runs.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, number_data_point,
};
use prost::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relight_benches::fleet::{self, OtlpEngine};
use relight_benches::{INTERVAL, say};
use relight_core::responder::Secrets;
use relight_core::source::kafka::Kafka;
use relight_core::{Span, Timestamp};
use relight_ingest::kafka::{Clock, KafkaSource, Surroundings};
use relight_ingest::live::{Hub, Load, Next, Outlet};

const BATCH: usize = 500;
const PARTITIONS: i32 = 4;
const ROUNDS: usize = 3;
const WAIT: Duration = Duration::from_mins(1);

fn main() {
    let broker = std::env::args().find(|arg| arg.contains(':'));
    let mock = broker.is_none().then(|| MockCluster::new(1).expect("a mock cluster"));
    // 20 MiB are all that a mock cluster's four partitions keep.
    let (requests, scrapes) = if mock.is_some() { (8, 10) } else { (20, 500) };
    let brokers = broker.or_else(|| mock.as_ref().map(MockCluster::bootstrap_servers)).unwrap_or_default();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The last hours: older than a topic's retention is deleted while it is read, later than now may be refused.
    let start =
        Timestamp::from_secs(since_epoch as i64).minus(INTERVAL.times(scrapes as i64)).bin_start(INTERVAL);
    let topic = format!("bench-{since_epoch}");
    match &mock {
        Some(mock) => mock.create_topic(&topic, PARTITIONS, 1).expect("a topic"),
        None => create(&brokers, &topic),
    }
    let bytes = produce(&brokers, &topic, start, (requests, scrapes));
    let points = requests * scrapes * BATCH;
    println!(
        "{} requests of {BATCH} points, {} bytes a point, {PARTITIONS} partitions, {}",
        requests * scrapes,
        bytes / points,
        if mock.is_some() { "mock cluster" } else { "real broker" }
    );
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(of_cpu(|| drop_all(&brokers, &topic, requests * scrapes)));
        ours.push(of_cpu(|| fold_all(&brokers, &topic, points, requests * BATCH)));
    }
    let rate = |rounds: &[(Duration, Duration)]| points as f64 / median(rounds, |round| round.0) / 1e6;
    let cpu = |rounds: &[(Duration, Duration)]| median(rounds, |round| round.1) * 1e9 / points as f64;
    say("bare consumer, drops every message", rate(&bare), "M points/s", "");
    say("  CPU of this process", cpu(&bare), "ns/point", "");
    say("relight, to folded points", rate(&ours), "M points/s", "");
    say("  CPU of this process", cpu(&ours), "ns/point", "");
    say("  ratio", 100.0 * rate(&ours) / rate(&bare), "%", "at least 80");
}

fn median(rounds: &[(Duration, Duration)], of: impl Fn(&(Duration, Duration)) -> Duration) -> f64 {
    let mut all: Vec<Duration> = rounds.iter().map(of).collect();
    all.sort_unstable();
    all[all.len() / 2].as_secs_f64()
}

/// What something answers, and the processor time that this process spent meanwhile.
fn of_cpu(run: impl FnOnce() -> Duration) -> (Duration, Duration) {
    let before = fleet::cpu().0;
    (run(), fleet::cpu().0.saturating_sub(before))
}

fn create(brokers: &str, topic: &str) {
    let admin: rdkafka::admin::AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client");
    let new = rdkafka::admin::NewTopic::new(topic, PARTITIONS, rdkafka::admin::TopicReplication::Fixed(1));
    let created = admin.create_topics([&new], &rdkafka::admin::AdminOptions::new());
    let created = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(created);
    created.expect("an answer")[0].as_ref().expect("the topic is new");
}

/// Produces all scrapes; gives their bytes.
fn produce(brokers: &str, topic: &str, start: Timestamp, (requests, scrapes): (usize, usize)) -> usize {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("message.max.bytes", "10000000")
        .create()
        .expect("a producer");
    let mut bytes = 0;
    for scrape in 0..scrapes {
        let at = start.plus(INTERVAL.times(scrape as i64)).plus(Span::from_secs(3));
        for i in 0..requests {
            let body = request(i, at, scrape as f64).encode_to_vec();
            bytes += body.len();
            let mut record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(i as i32 % PARTITIONS)
                .timestamp(at.ns() / 1_000_000)
                .payload(&body);
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
    }
    producer.flush(WAIT).expect("the broker takes records");
    bytes
}

fn request(i: usize, at: Timestamp, value: f64) -> ExportMetricsServiceRequest {
    let point = |n: usize| NumberDataPoint {
        attributes: fleet::attributes(i * BATCH + n),
        time_unix_nano: at.ns() as u64,
        value: Some(number_data_point::Value::AsDouble(value + n as f64)),
        ..NumberDataPoint::default()
    };
    let gauge = Gauge { data_points: (0..BATCH).map(point).collect() };
    let name = "http.server.active_requests".to_owned();
    let metrics = vec![Metric { name, data: Some(Data::Gauge(gauge)), ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { resource: None, scope_metrics, schema_url: String::new() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// A consumer with relight's fetch settings that drops all it gets: from the first message on.
fn drop_all(brokers: &str, topic: &str, messages: usize) -> Duration {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "8192")
        .set("queued.min.messages", "20000")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Offset(0)).expect("an offset");
    }
    let mut begin = Instant::now();
    consumer.assign(&list).expect("assigned");
    let mut seen = 0;
    while seen < messages {
        match consumer.poll(WAIT) {
            Some(Ok(_)) => {
                if seen == 0 {
                    begin = Instant::now();
                }
                seen += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            other => panic!("{other:?} after {seen} of {messages}"),
        }
    }
    begin.elapsed()
}

struct RealClock(Instant);

impl Clock for RealClock {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ns(since.as_nanos() as i64)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The source, its queues, decoder, Intake and Fold: from the first request to the last point.
fn fold_all(brokers: &str, topic: &str, points: usize, series: usize) -> Duration {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (hub, opened) = Hub::new((0..PARTITIONS).map(|n| (format!("bench/{topic}/{n}"), 0)).collect());
    let clock: Arc<dyn Clock> = Arc::new(RealClock(Instant::now()));
    let surroundings = Surroundings {
        hub,
        clock: Arc::clone(&clock),
        notices: Arc::new(|notice| println!("{notice}")),
        may_commit: Arc::new(|| false),
        dead_letters: folder.path().join("letters.ndjson"),
    };
    let json =
        format!(r#"{{"brokers":["{brokers}"],"topics":[{{"topic":"{topic}","format":"otlp_proto"}}]}}"#);
    let kafka: Kafka = serde_json::from_str(&json).expect("settings");
    let mut begin = Instant::now();
    let source = KafkaSource::start("bench", &kafka, &Secrets::default(), &surroundings).expect("a source");
    let mut engine = OtlpEngine::default();
    let mut outlets: BTreeMap<u32, Outlet> = BTreeMap::new();
    while engine.intake.counters().points < points as u64 {
        for outlet in opened.try_iter() {
            outlets.insert(engine.intake.partition(&outlet.partition), outlet);
        }
        let mut is_idle = true;
        for (partition, outlet) in &outlets {
            if let Next::Delivery(delivery) = outlet.take() {
                is_idle = false;
                if engine.intake.counters().points == 0 {
                    begin = Instant::now();
                }
                if let Load::Metrics(body) = delivery.load {
                    engine.take(*partition, delivery.offset.unwrap_or(0), delivery.received, &body);
                }
            }
        }
        if is_idle {
            let mut select = crossbeam_channel::Select::new();
            for outlet in outlets.values() {
                outlet.wait_in(&mut select);
            }
            let _ = select.ready_timeout(Duration::from_millis(1));
        }
        assert!(begin.elapsed() < WAIT * 10, "{} of {points} points", engine.intake.counters().points);
    }
    let spent = begin.elapsed();
    assert_eq!(engine.intake.directory().series_len(), series);
    source.close(&*clock);
    spent
}
