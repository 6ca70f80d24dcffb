//! Records that cannot be read, brokers that go away, offsets that are gone.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::message::{Headers as _, Message as _};
use serde_json::Value;

use super::super::{KafkaSource, News};
use super::rig::{BOUND, Rig, Running, Seen, TOPIC};
use crate::live::Verdict;

const JSON: &str = r#""format":"json","mapping":{"metric":"m","value_field":"v"}"#;

fn letters(rig: &Rig) -> Vec<(u64, String, u64)> {
    let text = std::fs::read_to_string(rig.folder.path().join("letters.ndjson")).unwrap_or_default();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (line["offset"].as_u64().unwrap_or(u64::MAX), text("reason"), line["bytes"].as_u64().unwrap_or(0))
    };
    text.lines().map(line).collect()
}

/// Scenario: a record that is no JSON between good ones.
/// Guarantee: its offset passes after its dead letter is in the file, the next are read, and people are told.
#[test]
fn b04_poison_bytes() {
    let rig = Rig::new(1);
    rig.produce(0, [r#"{"v":1}"#, "{\"v\":", r#"{"v":2}"#]);
    let mut running = rig.start(&rig.settings(JSON, ""), &[]);
    running.expect_offsets("s/t/0", 0..3);
    assert_eq!(running.engine.of("s/t/0")[1], Seen::Nothing(1));
    assert!(
        matches!(&*letters(&rig), [(1, why, 5)] if why.starts_with("EOF while parsing")),
        "{:?}",
        letters(&rig)
    );
    assert!(matches!(&*running.told, [News::Poison { offset: 1, .. }]), "{:?}", running.told);
    assert_eq!((running.counted(|c| &c.poison), running.counted(|c| &c.dead_letters)), (1, 1));
}

/// Scenario: the same, with a topic for dead letters; then a thousand bad records in a row.
/// Guarantee: each is in that topic as it was, with its place and the reason in its headers, in order; one notice.
#[test]
fn b04_poison_bytes_to_a_topic() {
    let rig = Rig::new(1);
    rig.cluster.create_topic("dead", 1, 1).expect("a topic");
    let bad = (0..1_000).map(|n| format!("bad {n}"));
    rig.produce(0, bad.chain([r#"{"v":2}"#.to_owned()]));
    let settings = rig.settings(JSON, r#","dead_letter":{"topic":"dead"}"#);
    let mut running = rig.start(&settings, &[]);
    running.expect_offsets("s/t/0", 0..1_001);
    assert_eq!(running.told.len(), 1);
    let reader = rig.consumer("dead letters");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset("dead", 0, rdkafka::Offset::Beginning).expect("an offset");
    reader.assign(&list).expect("assigned");
    for n in 0..1_000 {
        let letter = reader.poll(BOUND).expect("a letter in time").expect("a letter");
        assert_eq!(letter.payload(), Some(format!("bad {n}").as_bytes()));
        let headers = letter.headers().expect("headers");
        let header = |at: usize| {
            let header = headers.get(at);
            (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        };
        assert_eq!(header(0), ("relight.topic".to_owned(), TOPIC.to_owned()));
        assert_eq!(header(2), ("relight.offset".to_owned(), n.to_string()));
        assert!(header(3).1.starts_with("expected value"), "{:?}", header(3));
    }
}

/// Scenario: OTLP metrics that the engine cannot decode.
/// Guarantee: the record is a dead letter with the engine's reason.
#[test]
fn b04_poison_that_the_engine_finds() {
    let rig = Rig::new(1);
    let mut running = rig.start(&rig.proto(), &[]);
    running.engine.verdict = Verdict::Malformed("a tag of nothing".to_owned());
    rig.produce(0, ["\u{1}\u{2}"]);
    running.until("a letter", |running| running.counted(|c| &c.dead_letters) == 1);
    assert_eq!(letters(&rig), [(0, "a tag of nothing".to_owned(), 2)]);
}

/// Scenario: dead letters cannot be written, since a folder is in their place; then they can.
/// Guarantee: the partition waits at the first, nothing is passed; then it goes on.
#[test]
fn dead_letters_are_waited_for() {
    let rig = Rig::new(1);
    let place = rig.folder.path().join("letters.ndjson");
    std::fs::create_dir(&place).expect("a folder");
    let bad = (0..300).map(|n| format!("bad {n}"));
    rig.produce(0, [r#"{"v":1}"#.to_owned()].into_iter().chain(bad).chain([r#"{"v":2}"#.to_owned()]));
    let mut running = rig.start(&rig.settings(JSON, ""), &[]);
    let is_told = |running: &Running| running.told.iter().any(|news| matches!(news, News::DeadLetters(_)));
    running.until("the news", |running| is_told(running) && running.counted(|c| &c.pauses) > 0);
    assert_eq!(running.engine.offsets("s/t/0"), [0]);
    assert!(running.counted(|c| &c.poison) < 200, "reads on without bound");
    std::fs::remove_dir(&place).expect("an empty folder");
    running.expect_offsets("s/t/0", 0..302);
    assert_eq!(letters(&rig).len(), 300);
}

/// Scenario: records without a value, and without a key.
/// Guarantee: they are counted and passed.
#[test]
fn b07_tombstone_null_value() {
    let rig = Rig::new(1);
    rig.send(0, None, &[]);
    rig.produce(0, [r#"{"v":1}"#]);
    rig.send(0, None, &[]);
    rig.flush();
    let mut running = rig.start(&rig.settings(JSON, ""), &[]);
    running.expect_offsets("s/t/0", 0..3);
    assert_eq!(running.engine.of("s/t/0")[0], Seen::Nothing(0));
    assert_eq!((running.counted(|c| &c.tombstones), running.counted(|c| &c.poison)), (2, 0));
}

/// Scenario: a record of 4 MiB, under a limit above and below that.
/// Guarantee: it is taken, or it is a dead letter that keeps the beginning of it; the next comes either way.
#[test]
fn b20_huge_message() {
    let huge = "x".repeat(4 << 20);
    for (limit, expected) in
        [(8 << 20, Seen::Metrics(0, huge.clone().into_bytes())), (1 << 20, Seen::Nothing(0))]
    {
        let rig = Rig::new(1);
        rig.produce(0, [huge.as_str(), "small"]);
        let mut running = rig.start(
            &rig.settings(r#""format":"otlp_proto""#, &format!(r#","fetch":{{"max_record_bytes":{limit}}}"#)),
            &[],
        );
        running.expect_offsets("s/t/0", 0..2);
        assert!(running.engine.of("s/t/0")[0] == expected, "under a limit of {limit}");
    }
}

/// Scenario: a record that is 1 MiB packed and far more than a client may receive unpacked.
/// Guarantee: the client does not unpack it, and what comes after it is read.
#[test]
#[ignore = "needs 600 MiB of memory for the producer: `cargo test ... b05_ -- --ignored`"]
fn b05_poison_compression_bomb() {
    let rig = Rig::without_topic("zstd");
    rig.cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    rig.produce(0, [vec![0; 99_000_000]]);
    rig.produce(0, ["small"]);
    let mut running = rig.start(&rig.proto(), &[]);
    running.until("the next", |running| running.engine.offsets("s/t/0").contains(&1));
}

fn unreachable(running: &Running, partition: &str) -> bool {
    running.engine.of(partition).iter().any(|seen| matches!(seen, Seen::Unreachable(_)))
}

/// Scenario: the only broker goes away with records still to come, and comes back.
/// Guarantee: the engine is told once that the partition cannot be reached, never that it is caught up meanwhile;
/// then all come, each once, and it is caught up.
#[test]
fn b15_broker_down_up() {
    let rig = Rig::new(1);
    rig.produce(0, ["a", "b"]);
    let mut running = rig.start(&rig.proto(), &[]);
    running.until("the end", |running| running.engine.of("s/t/0").contains(&Seen::CaughtUp));
    rig.cluster.broker_down(-1).expect("a mock cluster obeys");
    running.until("the news", |running| unreachable(running, "s/t/0"));
    let before = running.engine.of("s/t/0").len();
    rig.clock.skip(Duration::from_secs(10));
    rig.cluster.broker_up(-1).expect("a mock cluster obeys");
    rig.produce(0, ["c"]);
    running.until("the end", |running| running.engine.of("s/t/0")[before..].contains(&Seen::CaughtUp));
    running.expect_offsets("s/t/0", 0..3);
    let told = running.engine.of("s/t/0").iter().filter(|seen| matches!(seen, Seen::Unreachable(_)));
    assert_eq!(told.count(), 1);
    assert_eq!(running.engine.of("s/t/0")[before], Seen::Metrics(2, b"c".to_vec()));
}

/// Scenario: the broker that leads one of two partitions goes away.
/// Guarantee: only that one is told to be unreachable; the other is read on. (A partition without any leader is told
/// apart in `health`: librdkafka's mock cluster crashes over a fetch from one.)
#[test]
fn b16_leader_less() {
    let rig = Rig::with_brokers(2, "none");
    rig.cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    for (partition, broker) in [(0, 2), (1, 1)] {
        rig.cluster.partition_leader(TOPIC, partition, Some(broker)).expect("a mock cluster obeys");
    }
    rig.produce(0, ["a"]);
    rig.produce(1, ["a"]);
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..1);
    running.expect_offsets("s/t/1", 0..1);
    rig.cluster.broker_down(2).expect("a mock cluster obeys");
    running.until("the news", |running| unreachable(running, "s/t/0"));
    rig.produce(1, ["b"]);
    running.expect_offsets("s/t/1", 0..2);
    assert!(!unreachable(&running, "s/t/1"));
}

/// Scenario: what the state wants next was deleted, since the topic keeps 5 MiB.
/// Guarantee: reading goes on with the oldest record; the gap is counted and told. Never a silent jump.
#[test]
fn b17_offset_out_of_range() {
    let rig = Rig::new(1);
    let chunk = "x".repeat(512 << 10);
    for _ in 0..24 {
        rig.produce(0, [&chunk]);
    }
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 1)]);
    running.until("the last", |running| running.engine.offsets("s/t/0").contains(&23));
    let offsets = running.engine.offsets("s/t/0");
    let oldest = offsets[0];
    assert!(oldest > 1);
    assert_eq!(offsets, (oldest..24).collect::<Vec<_>>());
    assert!(running.told.contains(&News::Gap { from: 1, to: oldest }), "{:?}", running.told);
    assert_eq!((running.counted(|c| &c.missed), running.counted(|c| &c.gaps)), (oldest - 1, 1));
}

/// Scenario: the state wants offset 5000 of a topic that ends at 10, since it was made anew; then a restart.
/// Guarantee: it is read from its start as a partition of a new generation, and so after the restart.
#[test]
fn b18_topic_recreated() {
    let rig = Rig::new(1);
    rig.produce(0, (0..10).map(|n| n.to_string()));
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 5_000)]);
    running.expect_offsets("s/t/0#2", 0..10);
    assert!(running.told.contains(&News::Recreated { next: 5_000, end: 10 }), "{:?}", running.told);
    running.source.take().expect("it runs").close(&*rig.clock);
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 5_000), ("s/t/0#2", 8)]);
    running.expect_offsets("s/t/0#2", 8..10);
    assert_eq!(running.told, []);
}

/// Scenario: the source is closed while its broker is away.
/// Guarantee: that takes no longer than its bound, whatever the client waits for.
#[test]
fn b13_drop_hangs() {
    let rig = Rig::new(1);
    rig.produce(0, ["a"]);
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..1);
    running.engine.outlets["s/t/0"].cover(1);
    rig.cluster.broker_down(-1).expect("a mock cluster obeys");
    let source: KafkaSource = running.source.take().expect("it runs");
    let (closed, over) = crossbeam_channel::bounded(1);
    let clock = std::sync::Arc::clone(&rig.clock);
    std::thread::spawn(move || closed.send(source.close(&*clock)));
    // Its bound is 10 s; the rest is for a machine that has much to do.
    assert!(over.recv_timeout(Duration::from_secs(30)).is_ok(), "closing hangs");
}

/// Scenario: relight starts while no broker can be reached, with a partition that its state knows.
/// Guarantee: the engine knows the partition and that it cannot be reached; once it can be, it is read.
#[test]
fn b15_brokers_away_at_the_start() {
    let rig = Rig::new(1);
    rig.produce(0, ["a", "b"]);
    rig.cluster.broker_down(-1).expect("a mock cluster obeys");
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 1)]);
    running.until("the news", |running| unreachable(running, "s/t/0"));
    rig.cluster.broker_up(-1).expect("a mock cluster obeys");
    running.expect_offsets("s/t/0", 1..2);
}
