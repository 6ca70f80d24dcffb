//! State that is whole by its checksums and makes no sense all the same.

use std::sync::Arc;

use relight_core::series::KeyGroup;
use relight_core::{Span, Timestamp};
use relight_runtime::{Commit, Pipeline, Responders, Stores};
use relight_store::{Baselines, ImageKind, Manifest, MemoryBaselines, MemoryLedger};
use relight_testkit::{World, rules};

fn open(baselines: &MemoryBaselines, notices: &mut Vec<String>) -> Pipeline {
    let ledger = MemoryLedger::default();
    let stores = Stores { baselines: Box::new(baselines.clone()), ledger: Box::new(ledger) };
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
