//! Where reading starts, goes on and stands: offsets of the state, of the group, and of queues that are full.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::super::reader::Order;
use super::super::{Clock as _, News};
use super::rig::{Rig, Seen, TOPIC};

fn numbers(n: u64) -> impl Iterator<Item = String> {
    (0..n).map(|n| n.to_string())
}

/// Scenario: the group has committed less than the state holds, as after a crash between snapshot and commit.
/// Guarantee: reading goes on where the state ends; nothing comes twice, and what was skipped is told.
#[test]
fn b02_offset_behind_state() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(10));
    rig.commit(3);
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 7)]);
    running.expect_offsets("s/t/0", 7..10);
    assert_eq!(running.told, [News::Elsewhere { committed: 3, next: 7 }]);
}

/// Scenario: the group has committed more than the state holds, as after an older snapshot was restored.
/// Guarantee: reading goes back to where the state ends; nothing is left out.
#[test]
fn b03_offset_ahead_of_state() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(10));
    rig.commit(9);
    let mut running = rig.start(&rig.proto(), &[("s/t/0", 4)]);
    running.expect_offsets("s/t/0", 4..10);
    assert_eq!(running.told, [News::Elsewhere { committed: 9, next: 4 }]);
}

/// Scenario: a state that knows nothing, with and without a commit of the group, and `start: latest`.
/// Guarantee: the group's offset is taken up; without one only what comes from now on is read, and where that began
/// is committed, so that a restart misses nothing.
#[test]
fn the_group_stands_in_for_a_lost_state() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(6));
    let mut settings = rig.proto();
    settings.start = relight_core::source::kafka::Start::Latest;
    let mut running = rig.start(&settings, &[]);
    running.until("the end", |running| running.engine.of("s/t/0").contains(&Seen::CaughtUp));
    rig.produce(0, numbers(2));
    running.expect_offsets("s/t/0", 6..8);
    rig.clock.skip(Duration::from_secs(6));
    running.until("a commit", |running| running.counted(|c| &c.commits) > 0);
    assert_eq!(rig.committed(0), Some(6));
    running.source.take().expect("it runs").close(&*rig.clock);
    let mut running = rig.start(&settings, &[]);
    running.expect_offsets("s/t/0", 6..8);
}

/// Scenario: an engine that leaves one of two partitions alone while much comes, then takes it.
/// Guarantee: the other is read meanwhile; of the first nothing is left out and nothing comes twice, although what
/// was fetched ahead was thrown away.
#[test]
fn a_full_queue_pauses_its_partition_alone() {
    let rig = Rig::new(2);
    rig.produce(0, numbers(5_000));
    let mut running = rig.start(&rig.proto(), &[]);
    running.engine.left_alone = vec!["s/t/0".to_owned()];
    running.until("a pause", |running| running.counted(|c| &c.pauses) > 0);
    rig.produce(1, numbers(3_000));
    running.expect_offsets("s/t/1", 0..3_000);
    assert_eq!(running.engine.offsets("s/t/0"), Vec::<u64>::new());
    running.engine.left_alone.clear();
    running.expect_offsets("s/t/0", 0..5_000);
    assert_eq!(running.counted(|c| &c.repeated), 0);
}

/// Scenario: snapshots cover offsets while the group's coordinator refuses commits: it is another broker's business now,
/// the group rebalances, and at last nobody may commit.
/// Guarantee: the commit is repeated until it succeeds, and reading goes on meanwhile.
#[test]
fn b14_commit_fails() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(10));
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..10);
    let refusals = [
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 5],
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 5],
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 5],
    ];
    rig.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusals.concat());
    running.engine.outlets["s/t/0"].cover(8);
    rig.produce(0, numbers(1));
    let clock = std::sync::Arc::clone(&rig.clock);
    running.until("a commit", |running| {
        clock.skip(Duration::from_millis(20));
        running.counted(|c| &c.commits) > 0
    });
    assert_eq!(rig.committed(0), Some(8));
    assert!(running.counted(|c| &c.failed_commits) >= 5, "nothing was refused");
    running.expect_offsets("s/t/0", 0..11);
}

/// Scenario: snapshots cover more before the source is closed.
/// Guarantee: what is covered is committed by the time it is closed, and no more.
#[test]
fn the_last_commit_is_what_the_last_snapshot_holds() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(10));
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..10);
    let source = running.source.take().expect("it runs");
    source.halt();
    running.engine.outlets["s/t/0"].cover(9);
    assert!(source.close(&*rig.clock));
    assert_eq!(rig.committed(0), Some(9));
}

/// Scenario: the lock is to be let go of right after a snapshot.
/// Guarantee: what it holds is committed when that is said to be done, and reading goes on.
#[test]
fn b09_committed_before_the_lock_goes() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(10));
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..10);
    running.engine.outlets["s/t/0"].cover(7);
    let committer = running.source.as_ref().expect("it runs").committer();
    assert!(committer.commit(super::rig::BOUND));
    assert_eq!(rig.committed(0), Some(7));
    rig.produce(0, numbers(1));
    running.expect_offsets("s/t/0", 0..11);
}

/// Scenario: a client is replaced in the middle of a partition.
/// Guarantee: reading goes on with the next record.
#[test]
fn b12_a_new_client_goes_on() {
    let rig = Rig::new(1);
    rig.produce(0, numbers(100));
    let mut running = rig.start(&rig.proto(), &[]);
    running.expect_offsets("s/t/0", 0..100);
    running.source.as_ref().expect("it runs").order(&|| Order::Rebuild);
    rig.produce(0, numbers(100));
    running.expect_offsets("s/t/0", 0..200);
    running.until("the new client", |running| running.told.contains(&News::Rebuilt));
    assert_eq!((running.counted(|c| &c.rebuilds), running.counted(|c| &c.repeated)), (1, 0));
}

/// Scenario: a topic that does not exist yet when the source starts.
/// Guarantee: people are told; once it is there it is read.
#[test]
fn a_topic_may_come_later() {
    let rig = Rig::without_topic("none");
    let mut running = rig.start(&rig.proto(), &[]);
    running.until("the news", |running| running.told.iter().any(|news| matches!(news, News::NoTopic(_))));
    rig.cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    rig.produce(1, numbers(3));
    running.expect_offsets("s/t/1", 0..3);
    assert!(rig.clock.elapsed() < super::rig::BOUND);
}
