//! The lock of a hot standby, with two members against the mock cluster's group coordinator.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use relight_core::responder::Secrets;
use relight_core::source::kafka::Lock;

use super::super::Clock;
use super::super::lock::{Asked, LockKeeper};
use super::rig::{BOUND, Rig, TestClock, clock};

struct Member {
    keeper: LockKeeper,
    asks: Receiver<Asked>,
    clock: Arc<TestClock>,
}

impl Member {
    fn join(rig: &Rig, name: &str) -> Self {
        let lock = Lock { topic: "lock".to_owned(), group: "lock".to_owned() };
        let (ask, asks) = unbounded();
        let clock = clock();
        let told = Arc::clone(&clock) as Arc<dyn Clock>;
        let keeper = LockKeeper::start("s", &rig.proto(), &lock, name, &Secrets::default(), &told, ask);
        Self { keeper: keeper.expect("the client takes its settings"), asks, clock }
    }

    fn held(&self) -> Option<u64> {
        self.keeper.ownership().held()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = clock();
    while !holds() {
        assert!(started.elapsed() < BOUND, "{what}");
        let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
    }
}

fn rig() -> Rig {
    let rig = Rig::new(1);
    rig.cluster.create_topic("lock", 1, 1).expect("a topic");
    rig
}

/// Scenario: a second member joins, then the holder leaves; and once more.
/// Guarantee: whoever remains gets the lock.
#[test]
fn b08_rebalance_add_remove() {
    let rig = rig();
    let mut holder = Member::join(&rig, "m0");
    until("the first holds it", || holder.held().is_some());
    for n in 1..3 {
        let next = Member::join(&rig, &format!("m{n}"));
        drop(holder);
        until("the next holds it", || next.held().is_some());
        assert_eq!(next.held(), Some(1));
        holder = next;
    }
}

/// Scenario: the process is stopped for a minute and goes on.
/// Guarantee: what it asks first says that the lock is not held, before any broker was heard; the driver is told.
#[test]
fn b11_zombie_owner() {
    let rig = rig();
    let member = Member::join(&rig, "m");
    until("it holds it", || member.held().is_some());
    member.clock.skip(Duration::from_mins(1));
    assert_eq!(member.held(), None);
    until("it is told", || matches!(member.asks.try_recv(), Ok(Asked::Lost)));
    until("it holds it again", || member.held().is_some());
    assert_eq!(member.held(), Some(2));
}

/// Scenario: the holder is cut off from the brokers.
/// Guarantee: it loses the lock by itself once the session is over.
#[test]
fn b10_assignment_lost() {
    let rig = rig();
    let member = Member::join(&rig, "m");
    until("it holds it", || member.held().is_some());
    rig.cluster.broker_down(-1).expect("a mock cluster obeys");
    until("it lost it", || matches!(member.asks.try_recv(), Ok(Asked::Lost)));
    assert_eq!(member.held(), None);
}

/// Scenario: a second member joins and the group gives it the lock while the driver takes its time to let go.
/// Guarantee: the holder lets nothing out from the moment it is asked, and the other holds the lock only after the
/// driver is done.
#[test]
fn b09_revoke_flush() {
    let rig = rig();
    // The range assignor gives the one partition to the member whose name sorts first.
    let holder = Member::join(&rig, "z");
    until("it holds it", || holder.held().is_some());
    let other = Member::join(&rig, "a");
    let mut asked = None;
    until("it is asked", || {
        asked = asked.take().or_else(|| holder.asks.try_recv().ok());
        asked.is_some()
    });
    let Some(Asked::Release(done)) = asked else { panic!("asked something else") };
    assert_eq!((holder.held(), other.held()), (None, None));
    drop(done);
    until("somebody holds it", || holder.held().is_some() || other.held().is_some());
    assert!(!(holder.held().is_some() && other.held().is_some()));
}
