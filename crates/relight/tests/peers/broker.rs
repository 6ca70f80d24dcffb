//! A real broker behind a line that breaks.

use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use crate::collector::Collector;
use crate::otlp::{load, now_ms};
use crate::peer::free_port;
use crate::relight::Home;
use crate::story::Receiver;
use crate::toxiproxy::Toxiproxy;
use crate::{PATIENCE, pause};

/// The broker of these tests.
pub(crate) struct Broker {
    pub(crate) plain: SocketAddr,
}

impl Broker {
    pub(crate) fn of_tests() -> Self {
        let set = std::env::var("RELIGHT_KAFKA").ok().and_then(|at| at.parse().ok());
        Self {
            plain: set.expect("no broker: run testdata/peers/test.sh, or set RELIGHT_KAFKA=127.0.0.1:PORT"),
        }
    }

    /// Makes a topic that nobody has used before: its name ends in the time.
    pub(crate) fn create(&self, name: &str, partitions: i32) -> String {
        let topic = format!("{name}-{}", now_ms());
        let mut config = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> =
            config.set("bootstrap.servers", self.plain.to_string()).create().expect("an admin client");
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let created = admin.create_topics([&new], &AdminOptions::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(created).expect("the broker answers")[0].as_ref().expect("the topic is new");
        topic
    }

    pub(crate) fn writer(&self) -> Writer {
        let mut config = ClientConfig::new();
        // A batch that is sent again is not there twice.
        config.set("bootstrap.servers", self.plain.to_string()).set("enable.idempotence", "true");
        Writer(config.create().expect("a producer"))
    }

    /// Stands a proxy before it, where start.sh has it tell its clients to go. There is one such place: only one test can
    /// be there.
    fn behind(&self, proxies: &Toxiproxy) -> SocketAddr {
        let port = |n: u16| SocketAddr::new(self.plain.ip(), self.plain.port() + n);
        proxies.listen("broker", port(4), port(3));
        port(4)
    }
}

/// Writes to the broker.
pub(crate) struct Writer(BaseProducer);

impl Writer {
    pub(crate) fn send(&self, topic: &str, partition: i32, body: &str) {
        let mut record = BaseRecord::<[u8], str>::to(topic).partition(partition).payload(body);
        while let Err((error, back)) = self.0.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            self.0.poll(Duration::from_millis(100));
            record = back;
        }
        self.0.poll(Duration::ZERO);
    }

    /// Waits until the broker has all of it.
    pub(crate) fn finish(self) {
        self.0.flush(PATIENCE).expect("the broker takes all");
    }
}

const WATCH: &str = r#"
sources:
  queue:
    type: kafka
    brokers: ["BROKER"]
    start: earliest
    topics: [{topic: TOPIC, format: otlp_proto}]
signals: {load: {value: load, by: [instance]}}
detectors: {gone: {type: absence, signal: load, patience: 3}}
responders: {chat: {type: webhook, url: "http://HOOK/hook", reach: notify}}
rules: [{name: gone, when: gone.score > 1.0, group_by: [instance], respond: [{do: notify, with: chat}]}]
"#;

/// Scenario: the line to the broker is cut for ten seconds while a Collector goes on writing, once right away and once with
/// connections that are half-open; it comes back each time. Then it is cut for good and relight is told to stop.
/// Guarantee: every point is here, once; nobody is told of a hundred instances that went missing; the stop is clean.
#[test]
fn b13_b15_broker_away_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (broker, proxies) = (Broker::of_tests(), Toxiproxy::start(folder.path()));
    let topic = broker.create("away", 1);
    let receiver = Receiver::start(folder.path(), free_port(), 200);
    let config = WATCH
        .replace("BROKER", &broker.behind(&proxies).to_string())
        .replace("TOPIC", &topic)
        .replace("HOOK", &receiver.at.to_string());
    let exporter =
        format!("{{brokers: [\"{}\"], metrics: {{topic: {topic}, encoding: otlp_proto}}}}", broker.plain);
    let collector = Collector::start_metrics(folder.path(), ("kafka", exporter));
    let home = Home::new(folder.path(), &[], &config);
    let daemon = home.start();
    let mut written = 0.0;
    let mut write = |seconds: u64| {
        for _ in 0..seconds * 2 {
            collector.send(&load("shop", 100, now_ms(), 1.0));
            written += 100.0;
            pause(500);
        }
        written
    };
    let before = write(10);
    daemon.wait_for("all before the cut", |daemon| daemon.points() >= before);
    proxies.enable("broker", false);
    write(10);
    assert_eq!(daemon.points(), before);
    proxies.enable("broker", true);
    let after = write(5);
    daemon.wait_for("all after the cut", |daemon| daemon.points() >= after);
    proxies.poison("broker", "downstream", "timeout", &serde_json::json!({"timeout": 0}));
    write(10);
    proxies.heal("broker", "timeout");
    let all = write(5);
    daemon.wait_for("all", |daemon| daemon.points() >= all);
    assert_eq!((daemon.points(), daemon.refused()), (all, 0.0));
    proxies.enable("broker", false);
    daemon.stop();
    assert_eq!(receiver.rest(), Vec::<serde_json::Value>::new());
    assert_eq!(home.incidents().len(), 0);
}
