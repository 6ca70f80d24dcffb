//! What a start goes on from: what worlds never have open at a crash, and state that is whole by its
//! checksums and makes no sense all the same.

use std::sync::Arc;

use relight_core::record::{Kind, Reason, Record};
use relight_core::series::{KeyGroup, Labels, key_of};
use relight_core::{Span, Timestamp};
use relight_runtime::{Commit, Pipeline, Responders, Stores, Turn, Watch};
use relight_store::{Baselines, ImageKind, Manifest, MemoryBaselines, MemoryLedger};
use relight_testkit::{World, rules};

fn open(baselines: &MemoryBaselines, notices: &mut Vec<String>) -> Pipeline {
    open_on(baselines, &MemoryLedger::default(), notices)
}

fn open_on(baselines: &MemoryBaselines, ledger: &MemoryLedger, notices: &mut Vec<String>) -> Pipeline {
    let stores = Stores { baselines: Box::new(baselines.clone()), ledger: Box::new(ledger.clone()) };
    let settings = Arc::new(rules::simulated());
    let opened =
        Pipeline::open(settings, 1, stores, Box::new(Responders::default()), Commit::EveryTurn, notices);
    opened.unwrap_or_else(|error| panic!("a bad state must not stop a start: {error}"))
}

fn commit(baselines: &mut MemoryBaselines, generation: u64, intake: Vec<u8>, image: &[u8]) {
    let put = baselines.put_image(generation, ImageKind::Rows, KeyGroup::nth(3), image);
    let images = vec![put.expect("memory does not fail")];
    let manifest = Manifest { generation, intake, images, ..Manifest::default() };
    baselines.commit(&manifest).expect("memory does not fail");
}

/// Scenario: a cut whose checksums are right holds bytes that no release of ours writes.
/// Guarantee: it is put aside and told about; the engine starts cold and works.
#[test]
fn nonsense_is_put_aside() {
    for (intake, image) in [(vec![], vec![1, 2, 3]), (interval(), vec![7; 40]), (interval(), vec![])] {
        let mut baselines = MemoryBaselines::default();
        baselines.load().expect("memory does not fail");
        commit(&mut baselines, 1, intake, &image);
        let mut notices = Vec::new();
        let mut engine = open(&baselines, &mut notices);
        assert!(notices.iter().any(|n| n.contains("baselines were damaged")), "{notices:?}");
        let world = World::generate(1);
        let partition = engine.partition(&world.partitions[0].0);
        for record in &world.partitions[0].1 {
            engine.handle(partition, record).expect("the engine works");
        }
        engine.advance(partition, Timestamp::MAX).expect("the engine works");
        engine.run(&mut ()).expect("the engine works");
        assert!(engine.points() > 0);
    }
}

fn interval() -> Vec<u8> {
    Span::from_secs(10).ns().to_le_bytes().to_vec()
}

/// Each turn's findings and verdicts as text, in which a missing value equals a missing value.
#[derive(Default)]
struct Told(Vec<String>);

impl Watch for Told {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        self.0.push(format!("{}: {:?} {:?}", turn.end, turn.findings, turn.readings));
    }
}

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

/// A load at these times, a record each, then silence up to `pause` and on to `until`: the turns, and how many
/// points were folded early. With `restarts` the process ends at the pause, and another goes on.
fn turns(
    times: &[Vec<Timestamp>],
    (pause, until): (Timestamp, Timestamp),
    restarts: bool,
) -> (Vec<String>, u64) {
    let (baselines, ledger) = (MemoryBaselines::default(), MemoryLedger::default());
    let key = key_of("load", &Labels::new([("service".to_owned(), "cart".to_owned())]));
    let mut engine = open_on(&baselines, &ledger, &mut Vec::new());
    let (mut partition, mut told) = (engine.partition("p"), Told::default());
    for (offset, times) in (0..).zip(times) {
        let mut record = Record { offset, ..Record::default() };
        for (i, at) in times.iter().enumerate() {
            record.push_point(&key, *at, Timestamp::MIN, Kind::Gauge, 100.0 + (i % 7) as f64 / 3.0);
        }
        engine.handle(partition, &record).expect("the engine works");
        engine.run(&mut told).expect("the engine works");
    }
    engine.advance(partition, pause).expect("the engine works");
    engine.run(&mut told).expect("the engine works");
    if restarts {
        engine.snapshot().expect("memory does not fail");
        drop(engine);
        engine = open_on(&baselines, &ledger, &mut Vec::new());
        partition = engine.partition("p");
    }
    engine.advance(partition, until).expect("the engine works");
    engine.run(&mut told).expect("the engine works");
    let refused = engine.totals().expect("the engine works").refused;
    let early = refused.iter().find(|(reason, _)| *reason == Reason::FoldedEarly).map_or(0, |(_, n)| *n);
    (told.0, early)
}

/// Scenario: all that there is falls silent, and the process starts anew before the silence is told.
/// Guarantee: it is told at the same time: when it is due survives, though no data makes a turn.
#[test]
fn c18_series_silent_across_restart() {
    let times: Vec<_> = (0..60).map(|bin| vec![secs(10 * bin)]).collect();
    // Every bin with data is closed at the pause, and none has been missed yet.
    let silence = (secs(610), secs(1_200));
    let (calm, _) = turns(&times, silence, false);
    assert!(calm.len() > 61, "silence alone makes turns: {}", calm.len());
    assert_eq!(turns(&times, silence, true).0, calm);
}

/// Scenario: a series floods its bin, so that it is folded before the bin closes, and the process starts
/// anew in between.
/// Guarantee: what was folded is in the snapshot with the open bin.
#[test]
fn what_was_folded_early_survives_a_restart() {
    let mut times: Vec<_> = (0..30).map(|bin| vec![secs(10 * bin)]).collect();
    times.push((0..9_000).map(|ms| secs(300).plus(Span::from_ns(ms * 1_000_000))).collect());
    let flood = (secs(300), secs(330));
    let (calm, early) = turns(&times, flood, false);
    assert!(early > 8_000, "{early} points folded early");
    assert!(calm.iter().any(|turn| turn.starts_with(&format!("{}: ", secs(310)))), "{calm:?}");
    assert_eq!(turns(&times, flood, true), (calm, early));
}
