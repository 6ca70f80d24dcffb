//! A ledger that cannot be written: what goes on, what stops, and how it comes back.

use relight_core::Span;
use relight_core::incident::ActionState;
use relight_runtime::{Clock, RuntimeError};

use super::journal::Fate;
use super::rig::{Rig, story};

/// Scenario: the disk is full when a fault begins; later it has room again.
/// Guarantee: what changes the world is not sent, and says why; the page goes out at once; `/readyz` says what is wrong;
/// then all of it is in the ledger, and relight is ready and acts again.
#[test]
fn e08_a_full_disk_stops_what_changes_the_world_and_no_page() {
    let mut rig = Rig::with_ladder("{do: rollback, with: deployer}, {do: page, with: duty}");
    rig.start();
    rig.seconds(3, 1.0);
    rig.journal.fate(Fate::Full);
    rig.seconds(3, 50.0);
    let page = rig.journal.wait_sent(1).remove(0);
    assert_eq!((page.with.as_str(), page.in_ledger), ("duty", false));
    rig.clock.pass(2);
    rig.wait_board("the reason", |posted| posted.unready.iter().any(|why| why.contains("disk is full")));
    rig.journal.wait_notice("cannot be written");
    assert_eq!(rig.journal.actions(), 0, "nothing of it is in the ledger");

    rig.journal.fate(Fate::Commit);
    rig.clock.pass(60);
    rig.journal.wait_notice("can be written again");
    let incident = rig.journal.wait_incident("an incident", |_| true);
    assert!(story(&incident).contains("warm-up: the ledger cannot be written"), "{}", story(&incident));
    let paged = rig.journal.wait_action("the page", |action| action.id == page.key);
    assert_eq!(paged.state, ActionState::Succeeded);
    rig.wait_board("readiness", |posted| posted.unready.is_empty());
    rig.seconds(2, 1.0);
    rig.load(&[("shop", 1.0), ("cart", 50.0)]);
    rig.load(&[("shop", 1.0), ("cart", 50.0)]);
    assert!(rig.journal.wait_calls("deployer", 1)[0].in_ledger);
    rig.stop();
    assert_eq!(rig.on_disk().incidents.len(), 2);
}

/// Scenario: the disk is full at the very moment at which an attempt is to be written.
/// Guarantee: the attempt is not made, and the rung behind it is climbed within seconds.
#[test]
fn an_attempt_that_was_not_written_is_not_made() {
    let mut rig = Rig::with_ladder("{do: rollback, with: deployer}, {do: page, with: duty}");
    rig.start();
    rig.journal.fate(Fate::FullAt("action_attempt"));
    rig.seconds(3, 50.0);
    let began = rig.clock.wall();
    rig.pass_until("the page", |rig| !rig.journal.sent().is_empty());
    let page = rig.journal.sent().remove(0);
    assert_eq!((page.with.as_str(), page.in_ledger), ("duty", false));
    assert!(rig.clock.wall().since(began) < Span::from_secs(10), "the page waited");
    rig.journal.fate(Fate::Commit);
    rig.clock.pass(60);
    let rollback = rig.journal.wait_action("the rollback", |a| a.mutates && a.state == ActionState::Blocked);
    assert!(rollback.detail.contains("ledger cannot be written"), "{}", rollback.detail);
    rig.stop();
    assert!(rig.journal.sent().iter().all(|sent| sent.with == "duty"));
}

/// Scenario: the disk stays full; the process is stopped.
/// Guarantee: it ends, and says that something is missing; the next start opens what was written.
#[test]
fn a_stop_with_a_full_disk_says_so() {
    let mut rig = Rig::with_ladder("{do: page, with: duty}");
    rig.start();
    rig.journal.fate(Fate::Full);
    rig.seconds(3, 50.0);
    rig.journal.wait_sent(1);
    rig.tell(relight_runtime::LiveInput::Stop);
    let error = rig.ended().expect_err("the last turns are not in the ledger");
    assert!(error.to_string().contains("commit the last turns"), "{error}");
    assert_eq!(rig.on_disk().incidents.len(), 0);
}

/// Scenario: the ledger can be written, and no snapshot can; the process is stopped.
/// Guarantee: it ends, says that something is missing, and the next start is told of it as after a kill.
#[test]
fn a_stop_without_its_last_snapshot_says_so() {
    let mut rig = Rig::with_ladder("{do: page, with: duty}");
    rig.start();
    rig.seconds(3, 1.0);
    let images = rig.state().join("images");
    rig.pass_until("a snapshot", |_| images.is_dir());
    std::fs::rename(&images, rig.state().join("aside")).expect("a folder of our own");
    std::fs::write(&images, "in the way").expect("a folder of our own");
    rig.tell(relight_runtime::LiveInput::Stop);
    let error = rig.ended().expect_err("there is no last snapshot");
    assert!(matches!(error, RuntimeError::NotCut), "{error}");
}

/// Scenario: the disk answers with an error of which nobody knows what it left behind.
/// Guarantee: it is not tried again and trusted: the run ends, and nothing was sent.
#[test]
fn e10_what_failed_for_good_ends_the_run() {
    let mut rig = Rig::with_ladder("{do: rollback, with: deployer}");
    rig.start();
    rig.journal.fate(Fate::Broken);
    rig.seconds_until_it_ends(50.0);
    let error = rig.ended().expect_err("it cannot go on");
    assert!(matches!(error, RuntimeError::Store(_)), "{error}");
    assert!(rig.journal.sent().is_empty());
}
