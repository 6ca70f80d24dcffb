//! Against a real broker: what librdkafka's mock cluster cannot do.
//!
//! `testdata/peers/kafka/test.sh` starts one, and runs these tests too.

use std::sync::Arc;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use relight_core::responder::{Secret, Secrets};
use relight_core::source::kafka::Kafka;

use super::rig::{BOUND, Running, clock, run};

/// Where `start.sh` listens: plain, and with SCRAM-SHA-512 two ports on.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not an input of what it tests")]
fn plain() -> String {
    std::env::var("RELIGHT_KAFKA").expect("no broker: run testdata/peers/kafka/test.sh")
}

fn sasl() -> String {
    let broker = plain();
    let (host, port) = broker.rsplit_once(':').expect("HOST:PORT");
    format!("{host}:{}", port.parse::<u16>().expect("a port") + 2)
}

/// Rings when a future may go on.
struct Bell(crossbeam_channel::Sender<()>);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Waits for one answer of the admin client, whose futures need no runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let (wake, woken) = crossbeam_channel::unbounded();
    let waker = Arc::new(Bell(wake)).into();
    loop {
        if let std::task::Poll::Ready(value) =
            future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
        {
            return value;
        }
        woken.recv_timeout(BOUND).expect("the broker answers");
    }
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", plain()).create().expect("an admin client")
}

fn create(topic: &str) {
    let admin = admin();
    // Left over from a run before.
    let _ = wait(admin.delete_topics(&[topic], &AdminOptions::new()));
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let mut tries = 0;
    while wait(admin.create_topics([&new], &AdminOptions::new())).expect("an answer")[0].is_err() {
        tries += 1;
        assert!(tries < 100, "the topic cannot be created");
    }
}

fn producer(transactional: bool) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", plain());
    if transactional {
        config.set("transactional.id", "relight-test");
    }
    config.create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, values: &[&str]) {
    for value in values {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(BOUND).expect("the broker takes records");
}

fn start(topic: &str, resume: &[(&str, u64)]) -> (Running, Arc<super::rig::TestClock>, tempfile::TempDir) {
    let json = format!(
        r#"{{"brokers":["{}"],"start":"earliest","topics":[{{"topic":"{topic}","format":"otlp_proto"}}],
        "group":"relight-{topic}",
        "sasl":{{"mechanism":"SCRAM-SHA-512","username":"relight","password":"kafka"}}}}"#,
        sasl()
    );
    let settings: Kafka = serde_json::from_str(&json).expect("settings");
    let secrets = Secrets::new([("kafka".to_owned(), Secret::new("relight"))]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = clock();
    let running = run(&settings, &secrets, resume, clock.clone(), folder.path().join("letters.ndjson"));
    (running, clock, folder)
}

/// Scenario: a login by SCRAM; records, an aborted transaction, a committed one, records.
/// Guarantee: what was aborted is never seen, and neither it nor the markers hold anything up.
#[test]
#[ignore = "needs Apache Kafka: testdata/peers/kafka/test.sh"]
fn b22_txn_aborted() {
    create("txn");
    send(&producer(false), "txn", 0, &["0"]);
    let transactions = producer(true);
    transactions.init_transactions(BOUND).expect("transactions");
    transactions.begin_transaction().expect("a transaction");
    send(&transactions, "txn", 0, &["aborted", "aborted"]);
    transactions.abort_transaction(BOUND).expect("aborted");
    transactions.begin_transaction().expect("a transaction");
    send(&transactions, "txn", 0, &["4"]);
    transactions.commit_transaction(BOUND).expect("committed");
    let (mut running, clock, _folder) = start("txn", &[]);
    // 3 and 5 are the markers.
    running.until("the end", |running| running.engine.of("s/txn/0").contains(&super::rig::Seen::CaughtUp));
    assert_eq!(running.engine.offsets("s/txn/0"), [0, 4]);
    running.engine.outlets["s/txn/0"].cover(5);
    assert!(running.source.take().expect("it runs").close(&*clock));
}

/// Scenario: partitions are added to a topic that is read, with records in them before anybody looks.
/// Guarantee: they are read from their first record; the others go on.
#[test]
#[ignore = "needs Apache Kafka: testdata/peers/kafka/test.sh"]
fn added_partitions_are_found() {
    create("grows");
    send(&producer(false), "grows", 0, &["a"]);
    let (mut running, clock, _folder) = start("grows", &[]);
    running.expect_offsets("s/grows/0", 0..1);
    let answers = wait(admin().create_partitions(&[NewPartitions::new("grows", 3)], &AdminOptions::new()));
    assert!(answers.expect("an answer").iter().all(Result::is_ok));
    let producer = producer(false);
    send(&producer, "grows", 2, &["b", "c"]);
    clock.skip(std::time::Duration::from_secs(61));
    running.expect_offsets("s/grows/2", 0..2);
    send(&producer, "grows", 0, &["d"]);
    running.expect_offsets("s/grows/0", 0..2);
    assert!(running.source.take().expect("it runs").close(&*clock));
}

/// Scenario: a topic is deleted and made anew while relight is stopped.
/// Guarantee: read from its start, as a partition of a new generation.
#[test]
#[ignore = "needs Apache Kafka: testdata/peers/kafka/test.sh"]
fn b18_topic_recreated_for_real() {
    create("again");
    send(&producer(false), "again", 0, &["a", "b"]);
    let (mut running, clock, _folder) = start("again", &[("s/again/0", 500)]);
    running.expect_offsets("s/again/0#2", 0..2);
    assert!(running.source.take().expect("it runs").close(&*clock));
}

/// Scenario: the topic is deleted while it is read, then the source is closed with something to commit.
/// Guarantee: closing takes no longer than its bound.
#[test]
#[ignore = "needs Apache Kafka: testdata/peers/kafka/test.sh"]
fn b13_drop_hangs_without_its_topic() {
    create("gone");
    send(&producer(false), "gone", 0, &["a", "b"]);
    let (mut running, clock, _folder) = start("gone", &[]);
    running.expect_offsets("s/gone/0", 0..2);
    running.engine.outlets["s/gone/0"].cover(2);
    let deleted = wait(admin().delete_topics(&["gone"], &AdminOptions::new())).expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let source = running.source.take().expect("it runs");
    let (closed, over) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || closed.send(source.close(&*clock)));
    // Its bound is 10 s; the rest is for a machine that has much to do.
    assert!(over.recv_timeout(std::time::Duration::from_secs(30)).is_ok(), "closing hangs");
}
