//! What is read long after it happened.

use relight_core::incident::{Action, ActionState};

use crate::daemon::{Member, text};
use crate::load::{BATCH, past};
use crate::state::Left;

/// Almost three hours, with seven faults in four services; the last has been over for twelve minutes.
const TICKS: u64 = 1_040;
const FAULTS: usize = 7;
/// One a service: nothing helps here, so from the first fault on each waits for a human. A later one, after long calm, is
/// told in another episode of it.
const INCIDENTS: usize = 4;

/// Scenario: a relight that may act starts on a backlog of three hours with faults in it, and reads it in seconds.
/// Guarantee: it learns and opens every incident at its own time, changes nothing, and tells people once a fault.
#[test]
fn b21_backlog_replay() {
    let shared = tempfile::tempdir().expect("a folder");
    let (topic, written) = past("backlog", TICKS);
    let member = Member::acting(shared.path(), "late", &topic, "");
    let daemon = member.start();
    daemon.wait_for("relight_points_total", |n| n >= written as f64);
    daemon.stop();
    let left = Left::read(&member.state());
    assert_eq!(left.incidents.len(), INCIDENTS);
    assert_eq!(text(&shared.path().join("act")), "", "old news was acted on");
    assert!(text(&shared.path().join("page")).lines().count() <= FAULTS, "a page a finding");
    let is_held = |action: &&Action| action.state == ActionState::Blocked;
    assert!(left.actions.values().filter(|action| action.mutates).all(|action| is_held(&action)));
}

/// Scenario: every page about a backlog fails for good.
/// Guarantee: offsets move on all the same: what is to be done about a record is in the ledger, and no longer the
/// stream's business.
#[test]
fn b24_sink_4xx_does_not_skip() {
    let shared = tempfile::tempdir().expect("a folder");
    let (topic, written) = past("refused", TICKS);
    let member = Member::telling(shared.path(), "refused", &topic);
    member.fail_pages();
    let daemon = member.start();
    daemon.wait_for("relight_points_total", |n| n >= written as f64);
    daemon.stop();
    let left = Left::read(&member.state());
    let read: u64 = left.partitions.values().map(|(next, _)| next * BATCH).sum();
    assert_eq!((read, left.incidents.len()), (written, INCIDENTS));
    assert!(!left.actions.is_empty());
}
