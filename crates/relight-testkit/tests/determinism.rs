//! The promise that everything hangs on: the same records give the same findings, incidents, planned
//! actions and state, whatever the threads, the pace, the interleaving, the crashes and the rewinds.

use std::sync::Arc;

use relight_core::record::Reason;
use relight_core::signal::{Aggregate, SignalKind};
use relight_core::{KeyView, Span, Timestamp};
use relight_runtime::Commit;
use relight_testkit::sim::ReadingBits;
use relight_testkit::{Outcome, Sim, World, fragile, people, rules, seeds};

fn check(what: &str, stormy: impl Fn(u64) -> Sim) {
    check_in(what, World::generate, &stormy);
}

fn check_in(what: &str, world: impl Fn(u64) -> World, stormy: &dyn Fn(u64) -> Sim) {
    let settings = Arc::new(rules::simulated());
    for seed in seeds() {
        let world = world(seed);
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
    for (turn, readings) in &calm.readings {
        assert_eq!(Some(readings), storm.readings.get(turn), "{what}: values of the turn at {turn}");
    }
    assert_eq!(calm.readings.len(), storm.readings.len(), "{what}: turns with values");
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
/// Guarantee: they are worth running: there are findings, incidents, actions, refused points and evicted series in them.
#[test]
fn worlds_are_eventful() {
    let settings = Arc::new(rules::simulated());
    let outcome = Sim::new(1).run(&World::generate(1), &settings);
    assert!(outcome.findings.len() > 20, "{} turns with findings", outcome.findings.len());
    assert!(outcome.incidents.len() > 1, "{} incidents", outcome.incidents.len());
    assert!(outcome.actions.len() > 1, "{} actions", outcome.actions.len());
    assert!(outcome.totals.refused.len() >= 4, "{:?}", outcome.totals.refused);
    assert!(outcome.totals.evicted > 100, "{} series evicted", outcome.totals.evicted);
}

/// Scenario: the same config is loaded again and again in mid-stream, with records held back and bins open; then with crashes
/// before and after it, too.
/// Guarantee: findings, values, incidents, planned actions and state are those of a run that was left alone.
#[test]
fn reloads_change_nothing() {
    check("reloads", |seed| Sim::new(seed + 7_000).threads(3).reloads(40));
    check("reloads and crashes", |seed| Sim::new(seed + 8_000).reloads(100).crashes(300).rewinds(9));
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

/// Scenario: two files name the partitions of their records; in each a partition appears in the middle,
/// further behind than the lateness allows for.
/// Guarantee: what of it counts depends on its file alone, whatever is closed when it appears.
#[test]
fn partitions_that_appear_within_a_file_change_nothing() {
    let world = |seed| World::generate(seed).in_files();
    let settings = Arc::new(rules::simulated());
    let late = |world: &World| {
        let refused = Sim::new(1).run(world, &settings).totals.refused;
        refused.into_iter().find(|(reason, _)| *reason == Reason::Late).map_or(0, |(_, n)| n)
    };
    assert!(late(&world(1)) > late(&World::generate(1)), "the newcomers bring nothing late");
    check_in("files", world, &|seed| Sim::new(seed + 6_000).threads(2));
    check_in("crashes in files", world, &|seed| Sim::new(seed + 7_000).crashes(50).rewinds(9));
}

/// Scenario: people say what they have to say, early, late, twice, at the end of a bin and in bins without
/// data; responders take their time and fail.
/// Guarantee: each command is obeyed once, in the same order, whatever the pace, the crashes and the
/// rewinds; and it makes no difference to what is found.
#[test]
fn people_are_obeyed_once() {
    let settings = Arc::new(rules::simulated());
    let mut acknowledged = 0;
    for seed in seeds() {
        let world = if seed % 2 == 0 { World::generate(seed) } else { World::generate(seed).in_files() };
        let silent = Sim::new(seed).run(&world, &settings);
        let (world, outcomes) = people::with_people(&world, &silent, seed);
        let calm = Sim::new(seed).outcomes(&outcomes).run(&world, &settings);
        assert_eq!(calm.findings, silent.findings, "seed {seed}: what people say changed what is found");
        acknowledged +=
            calm.incidents.iter().flat_map(|i| &i.timeline).filter(|m| m.what == "acknowledged").count();
        for (what, storm) in [
            ("pace", Sim::new(seed + 8_000).threads(3)),
            ("crashes", Sim::new(seed + 9_000).crashes(40).rewinds(9)),
            (
                "crashes of a replay",
                Sim::new(seed + 10_000).commit(Commit::AtSnapshots).crashes(40).rewinds(9),
            ),
        ] {
            let storm = storm.outcomes(&outcomes).run(&world, &settings);
            compare(&calm, &storm, &format!("seed {seed}, people, {what}"));
        }
    }
    assert!(acknowledged > 4, "{acknowledged} acknowledgements");
}

/// A world in which the least load of one service is, in some bins, what a detector does not bear.
fn with_magic(mut world: World) -> World {
    let magic = |at: Timestamp| match at.bin_start(Span::from_secs(10)).secs() - WORLDS_BEGIN {
        1_000 | 3_000 => Some(fragile::JUDGED),
        2_000 | 4_000 => Some(fragile::LEARNED),
        _ => None,
    };
    for record in world.partitions.iter_mut().flat_map(|(_, records)| records) {
        for i in 0..record.points.len() {
            let key = KeyView::new(record.key(&record.points[i]));
            let is_meant = key.name() == "load" && key.get("service") == Some("cart");
            let value = magic(record.points[i].at).filter(|_| is_meant);
            record.points[i].value = value.unwrap_or(record.points[i].value);
        }
    }
    world
}

/// When worlds begin, in bins of 10 s.
const WORLDS_BEGIN: i64 = 1_763_900_000;
/// The detector that is put in the place of the one on `load`.
const FRAGILE: usize = 2;

/// Verdicts of that detector in a turn.
fn of_fragile(readings: &[ReadingBits]) -> Vec<ReadingBits> {
    readings.iter().copied().filter(|bits| bits[0] == FRAGILE as u64).collect()
}

/// Scenario: a detector panics on a row: while it judges, while it learns with its state half written, while it judges
/// again; and it would once more.
/// Guarantee: the run goes on; every other row has the verdicts that it has where nothing panics, in those bins too;
/// after the third the row is out of that detector's sight; threads, crashes and rewinds change nothing of that.
#[test]
fn b06_poison_panics_detector() {
    let mut settings = rules::simulated();
    settings.detectors[FRAGILE].source = fragile::fragile();
    // The least of all nodes is what is put in for some, whichever nodes report in that bin.
    let least = SignalKind::Value { of: rules::named("load"), aggregate: Aggregate::Min };
    settings.signals[settings.detectors[FRAGILE].signal].kind = least;
    let settings = Arc::new(settings);
    for seed in seeds().take(3) {
        let calm = Sim::new(seed).run(&World::generate(seed), &settings);
        let world = with_magic(World::generate(seed));
        let magic = Sim::new(seed).run(&world, &settings);
        let (last, mut hidden) = (Timestamp::from_secs(WORLDS_BEGIN + 4_010), 0);
        for (turn, readings) in &calm.readings {
            let (all, seen) = (of_fragile(readings), of_fragile(&magic.readings[turn]));
            let same = all.iter().filter(|bits| seen.contains(bits)).count();
            assert!(same + 1 >= all.len(), "seed {seed}: the turn at {turn} lost other rows");
            // Its own readings would not be those of a row that has never panicked.
            assert!(*turn < last || seen.len() == same, "seed {seed}: no quarantine at {turn}");
            hidden += usize::from(*turn >= last && seen.len() < all.len());
        }
        assert!(hidden > 0, "seed {seed}: the row was never there");
        let stormy = Sim::new(seed + 5_000).threads(3).crashes(30).rewinds(9).run(&world, &settings);
        compare(&magic, &stormy, &format!("seed {seed}, a detector that panics"));
    }
}
