//! The heartbeat: there while the whole loop goes round, gone when any part of it does not.

use std::sync::{Arc, Mutex};

use relight_core::telemetry::Sample;
use relight_runtime::{Clock, Heartbeat};

use super::fake::Reply;
use super::journal::Fate;
use super::rig::{EVERY, Rig};

fn beats(rig: &Rig) -> usize {
    rig.beats.lock().expect("no holder panics").len()
}

/// Bins that close, with time for the engine to see each.
fn live_on(rig: &Rig, seconds: usize) {
    for _ in 0..seconds {
        rig.load(&[("shop", 1.0)]);
        rig.settle();
    }
}

/// Scenario: data for half a minute; then time passes without any; then the ledger cannot be written; then all is well.
/// Guarantee: one beat a period while bins close and the ledger commits, none while either does not happen.
#[test]
fn it_beats_while_bins_close_and_the_ledger_commits() {
    let mut rig = Rig::with_ladder("{do: page, with: duty}");
    rig.start();
    live_on(&rig, 35);
    let told = rig.beats.lock().expect("no holder panics").clone();
    assert!(told.len() >= 3, "{told:?}");
    assert!(told.windows(2).all(|two| two[1].since(two[0]) >= EVERY), "{told:?}");

    // The bins since the last beat are good for one more.
    rig.clock.pass(50);
    rig.settle();
    let before = beats(&rig);
    rig.clock.pass(50);
    rig.settle();
    assert_eq!(beats(&rig), before, "no bin has closed");
    live_on(&rig, 2);
    assert_eq!(beats(&rig), before + 1);

    rig.journal.fate(Fate::Full);
    let before = beats(&rig);
    live_on(&rig, 30);
    assert_eq!(beats(&rig), before, "the ledger does not commit");
    rig.journal.fate(Fate::Commit);
    live_on(&rig, 40);
    assert!(beats(&rig) > before, "all is well again");
    rig.stop();
}

/// Scenario: a responder that carries it out, refuses it, panics, and hangs.
/// Guarantee: each is counted, what begins to go wrong is told once, and no beat waits for another.
#[test]
fn beats_are_counted_by_what_became_of_them() {
    let mut rig = Rig::with_ladder("{do: page, with: duty}");
    rig.fake(
        "duty",
        relight_core::responder::EffectKind::Idempotent,
        &[Reply::Done, Reply::Refuse, Reply::Refuse, Reply::Done, Reply::Hang],
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let heartbeat = Heartbeat::new(
        "duty",
        &rig.config.responders["duty"],
        runtime.handle(),
        Arc::new(move |text| tell.lock().expect("no holder panics").push(text.to_owned())),
    );
    let counts = || heartbeat.samples().iter().map(|sample: &Sample| sample.value as u64).collect::<Vec<_>>();
    for (n, expected) in [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 2, 0]), (4, [2, 2, 0])] {
        // The one before is over once it is counted, a moment later.
        while rig.journal.sent().len() < n {
            heartbeat.beat(rig.clock.wall());
            rig.journal.pause();
        }
        while counts()[..2] != expected[..2] {
            rig.journal.pause();
        }
    }
    while rig.journal.sent().len() < 5 {
        heartbeat.beat(rig.clock.wall());
        rig.journal.pause();
    }
    let skipped = counts()[2];
    heartbeat.beat(rig.clock.wall());
    assert_eq!(counts(), [2, 2, skipped + 1], "the one that hangs is not waited for");
    assert_eq!(rig.journal.sent().len(), 5);
    let told = told.lock().expect("no holder panics").clone();
    assert_eq!(told, ["failed to send a heartbeat with duty: HTTP 400 Bad Request"]);
    runtime.shutdown_background();
}
