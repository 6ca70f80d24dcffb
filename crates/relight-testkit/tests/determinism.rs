//! The promise that everything hangs on: the same records give the same findings, incidents, planned
//! actions and state, whatever the threads, the pace, the interleaving, the crashes and the rewinds.

use std::sync::Arc;

use relight_runtime::Commit;
use relight_testkit::{Outcome, Sim, World, rules, seeds};

fn check(what: &str, stormy: impl Fn(u64) -> Sim) {
    let settings = Arc::new(rules::simulated());
    for seed in seeds() {
        let world = World::generate(seed);
        let calm = Sim::new(seed).run(&world, &settings);
        let storm = stormy(seed).run(&world, &settings);
        compare(&calm, &storm, &format!("seed {seed}, {what}"));
    }
}

fn compare(calm: &Outcome, storm: &Outcome, what: &str) {
    for (turn, findings) in &calm.findings {
        assert_eq!(Some(findings), storm.findings.get(turn), "{what}: findings of the turn at {turn}");
    }
    assert_eq!(calm.findings.len(), storm.findings.len(), "{what}: turns with findings");
    first_difference(&calm.incidents, &storm.incidents, &format!("{what}: incidents"));
    first_difference(&calm.actions, &storm.actions, &format!("{what}: planned actions"));
    assert_eq!(calm.totals, storm.totals, "{what}: counts");
    assert_eq!(calm.digest, storm.digest, "{what}: state");
}

/// By their text, in which a missing value equals a missing value.
fn first_difference<T: serde::Serialize>(calm: &[T], storm: &[T], what: &str) {
    let text = |item: &T| serde_json::to_string_pretty(item).expect("serialises");
    for (calm, storm) in calm.iter().zip(storm) {
        let (calm, storm) = (text(calm), text(storm));
        if calm != storm {
            let differs = calm.lines().zip(storm.lines()).find(|(a, b)| a != b);
            panic!("{what}: (calm, storm) {differs:?} in {calm}");
        }
    }
    assert_eq!(calm.len(), storm.len(), "{what}: how many");
}

/// Scenario: the worlds of the other tests.
/// Guarantee: they are worth running: there are findings, incidents, actions and refused points in them.
#[test]
fn worlds_are_eventful() {
    let settings = Arc::new(rules::simulated());
    let outcome = Sim::new(1).run(&World::generate(1), &settings);
    assert!(outcome.findings.len() > 20, "{} turns with findings", outcome.findings.len());
    assert!(outcome.incidents.len() > 1, "{} incidents", outcome.incidents.len());
    assert!(outcome.actions.len() > 1, "{} actions", outcome.actions.len());
    assert!(outcome.totals.refused.len() >= 4, "{:?}", outcome.totals.refused);
}

/// Guarantee: threads change nothing, and neither does the pace at which partitions are read.
#[test]
fn threads_and_pace_change_nothing() {
    for threads in [1, 2, 3, 8] {
        check(&format!("{threads} threads"), |seed| Sim::new(seed + 1_000).threads(threads));
    }
}

/// Guarantee: a crash between any two steps of the commit order, with known records sent again, loses
/// nothing, repeats nothing and changes nothing.
#[test]
fn crashes_and_rewinds_change_nothing() {
    check("crashes", |seed| Sim::new(seed + 2_000).crashes(40).rewinds(9));
    check("crashes in threads", |seed| Sim::new(seed + 3_000).threads(3).crashes(60).rewinds(9));
}

/// Guarantee: the same holds where the ledger is committed at snapshots only, as a replay does.
#[test]
fn crashes_of_a_replay_change_nothing() {
    let replay = |seed| Sim::new(seed + 4_000).commit(Commit::AtSnapshots).crashes(40).rewinds(5);
    check("crashes of a replay", replay);
}

/// Guarantee: with its newest generation damaged, an engine goes on from the one before, and arrives
/// at the same place.
#[test]
fn a_damaged_generation_changes_nothing() {
    check("damage", |seed| Sim::new(seed + 5_000).crashes(50).rewinds(3).damage());
}
