//! A cluster, a producer, a source and an engine that only takes notes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relight_core::Timestamp;
use relight_core::responder::Secrets;
use relight_core::source::kafka::Kafka;
use tempfile::TempDir;

use super::super::{Clock, KafkaSource, News, Notice, Surroundings};
use crate::live::{Delivery, Hub, Load, Next, Outlet, Verdict};

/// Nothing that is waited for takes this long on a machine that is alive.
pub(super) const BOUND: Duration = Duration::from_mins(2);
pub(super) const TOPIC: &str = "t";

/// Real time, and what a test adds to it.
pub(super) struct TestClock {
    start: Instant,
    ahead_ms: AtomicU64,
}

impl TestClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a client's threads run on real time, so the source's clock must too"
    )]
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), ahead_ms: AtomicU64::new(0) })
    }

    pub(super) fn skip(&self, span: Duration) {
        self.ahead_ms.fetch_add(span.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }
}

/// What the engine saw of a partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Metrics(u64, Vec<u8>),
    Record(u64, Vec<String>),
    Nothing(u64),
    CaughtUp,
    Unreachable(String),
}

impl Seen {
    pub(super) const fn offset(&self) -> Option<u64> {
        match self {
            Self::Metrics(offset, _) | Self::Record(offset, _) | Self::Nothing(offset) => Some(*offset),
            Self::CaughtUp | Self::Unreachable(_) => None,
        }
    }
}

/// An engine that takes notes.
pub(super) struct Engine {
    opened: Receiver<Outlet>,
    pub(super) outlets: BTreeMap<String, Outlet>,
    pub(super) seen: BTreeMap<String, Vec<Seen>>,
    /// Partitions of which nothing is taken.
    pub(super) left_alone: Vec<String>,
    pub(super) verdict: Verdict,
}

impl Engine {
    fn turn(&mut self) {
        for outlet in self.opened.try_iter() {
            self.outlets.insert(outlet.partition.to_string(), outlet);
        }
        for (name, outlet) in self.outlets.iter().filter(|(name, _)| !self.left_alone.contains(name)) {
            while let Next::Delivery(delivery) = outlet.take() {
                let notes = self.seen.entry(name.clone()).or_default();
                notes.push(note(delivery, &self.verdict));
            }
        }
    }

    pub(super) fn of(&self, partition: &str) -> &[Seen] {
        self.seen.get(partition).map_or(&[], Vec::as_slice)
    }

    pub(super) fn offsets(&self, partition: &str) -> Vec<u64> {
        self.of(partition).iter().filter_map(Seen::offset).collect()
    }
}

fn note(delivery: Delivery, verdict: &Verdict) -> Seen {
    let offset = delivery.offset.unwrap_or(u64::MAX);
    let seen = match delivery.load {
        Load::Metrics(bytes) => Seen::Metrics(offset, bytes.to_vec()),
        Load::Record(record) => {
            let points = record.points.iter().map(|point| {
                let key = relight_core::KeyView::new(record.key(point));
                format!("{}{} {} {}", key.name(), key.to_labels(), point.at.secs(), point.value)
            });
            let events = record.events.iter().map(|e| format!("{}{} {}", e.kind, e.labels, e.at.secs()));
            Seen::Record(offset, points.chain(events).collect())
        }
        Load::Nothing => Seen::Nothing(offset),
        Load::Started => unreachable!("a log is read from its offset, whoever starts"),
        Load::CaughtUp => Seen::CaughtUp,
        Load::Unreachable(why) => Seen::Unreachable(why),
    };
    if let Some(answer) = delivery.answer {
        answer(verdict.clone());
    }
    seen
}

/// A source that runs against a cluster.
pub(super) struct Running {
    pub(super) source: Option<KafkaSource>,
    pub(super) engine: Engine,
    pub(super) notices: Receiver<Notice>,
    pub(super) told: Vec<News>,
}

impl Running {
    /// Lets the engine run until something holds.
    #[expect(
        clippy::disallowed_methods,
        reason = "the bound of a wait for something that happens on other threads"
    )]
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        loop {
            self.engine.turn();
            self.told.extend(self.notices.try_iter().map(|notice| notice.news));
            if holds(self) {
                return;
            }
            assert!(started.elapsed() < BOUND, "{what}: {:?}, told {:?}", self.engine.seen, self.told);
            let _ = crossbeam_channel::after(Duration::from_millis(2)).recv();
        }
    }

    pub(super) fn counted(&self, of: impl Fn(&super::super::Counters) -> &AtomicU64) -> u64 {
        self.source.as_ref().map_or(0, |source| of(source.counters()).load(Ordering::Relaxed))
    }

    /// Waits for so many records of a partition, then checks that they are these, each once.
    pub(super) fn expect_offsets(&mut self, partition: &str, offsets: std::ops::Range<u64>) {
        let n = (offsets.end - offsets.start) as usize;
        self.until("records", |running| running.engine.offsets(partition).len() >= n);
        assert_eq!(self.engine.offsets(partition), offsets.collect::<Vec<_>>(), "{partition}");
    }
}

/// A cluster in process, and all that a source needs.
pub(super) struct Rig {
    pub(super) cluster: MockCluster<'static, DefaultProducerContext>,
    pub(super) producer: BaseProducer,
    pub(super) folder: TempDir,
    pub(super) clock: Arc<TestClock>,
}

impl Rig {
    pub(super) fn new(partitions: i32) -> Self {
        let rig = Self::without_topic("none");
        rig.cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
        rig
    }

    pub(super) fn without_topic(codec: &str) -> Self {
        Self::with_brokers(1, codec)
    }

    pub(super) fn with_brokers(brokers: i32, codec: &str) -> Self {
        let cluster = MockCluster::new(brokers).expect("a mock cluster");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("compression.type", codec)
            .set("message.max.bytes", "100000000")
            .create()
            .expect("a producer");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { cluster, producer, folder, clock: TestClock::new() }
    }

    pub(super) fn produce<V: AsRef<[u8]>>(&self, partition: i32, values: impl IntoIterator<Item = V>) {
        for value in values {
            self.send(partition, Some(value.as_ref()), &[]);
        }
        self.flush();
    }

    pub(super) fn send(&self, partition: i32, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        let all = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record = BaseRecord::<[u8], [u8]>::to(TOPIC)
            .partition(partition)
            .timestamp(1_700_000_000_000)
            .headers(all);
        if let Some(value) = value {
            record = record.payload(value);
        }
        while let Err((error, back)) = self.producer.send(record) {
            assert!(error.to_string().contains("Queue full"), "{error}");
            self.producer.poll(Duration::from_millis(50));
            record = back;
        }
    }

    pub(super) fn flush(&self) {
        self.producer.flush(BOUND).expect("the cluster takes records");
    }

    /// Settings for one topic, with more of them as JSON.
    pub(super) fn settings(&self, format: &str, more: &str) -> Kafka {
        let json = format!(
            r#"{{"brokers":[{}],"start":"earliest","topics":[{{"topic":"{TOPIC}",{format}}}]{more}}}"#,
            self.cluster
                .bootstrap_servers()
                .split(',')
                .map(|broker| format!("\"{broker}\""))
                .collect::<Vec<_>>()
                .join(",")
        );
        let settings: Kafka = serde_json::from_str(&json).expect("settings");
        assert_eq!(settings.problems(), []);
        settings
    }

    pub(super) fn proto(&self) -> Kafka {
        self.settings(r#""format":"otlp_proto""#, "")
    }

    pub(super) fn start(&self, settings: &Kafka, resume: &[(&str, u64)]) -> Running {
        self.start_with(settings, &Secrets::default(), resume)
    }

    pub(super) fn start_with(&self, settings: &Kafka, secrets: &Secrets, resume: &[(&str, u64)]) -> Running {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        run(settings, secrets, resume, clock, self.folder.path().join("letters.ndjson"))
    }

    /// A consumer under the group that the source commits to.
    pub(super) fn consumer(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer")
    }

    pub(super) fn commit(&self, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).expect("an offset");
        self.consumer("relight").commit(&list, CommitMode::Sync).expect("the cluster commits");
    }

    pub(super) fn committed(&self, partition: i32) -> Option<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition(TOPIC, partition);
        let list = self.consumer("relight").committed_offsets(list, BOUND).expect("the cluster answers");
        list.elements()[0].offset().to_raw().filter(|offset| *offset >= 0)
    }
}

/// Starts a source named `s`.
pub(super) fn run(
    settings: &Kafka,
    secrets: &Secrets,
    resume: &[(&str, u64)],
    clock: Arc<dyn Clock>,
    dead_letters: std::path::PathBuf,
) -> Running {
    let resume = resume.iter().map(|(name, next)| ((*name).to_owned(), *next)).collect();
    let (hub, opened) = Hub::new(resume);
    let (tell, notices) = unbounded();
    let surroundings = Surroundings {
        hub,
        clock,
        notices: Arc::new(move |notice| drop(tell.send(notice))),
        may_commit: Arc::new(|| true),
        dead_letters,
    };
    let source = KafkaSource::start("s", settings, secrets, &surroundings).expect("a source starts");
    let engine = Engine {
        opened,
        outlets: BTreeMap::new(),
        seen: BTreeMap::new(),
        left_alone: Vec::new(),
        verdict: Verdict::Taken(Vec::new()),
    };
    Running { source: Some(source), engine, notices, told: Vec::new() }
}

pub(super) fn clock() -> Arc<TestClock> {
    TestClock::new()
}
