//! The in-memory twins behave as the disk does, and the ledger gives back every bit.

use crate::world::{event, text, turn};
use proptest::prelude::*;
use relight_core::incident::{Applied, LedgerWrite};
use relight_core::{KeyGroup, Timestamp};
use relight_store::{
    Baselines, ImageKind, ImageRef, LedgerHealth, Loaded, Manifest, MemoryBaselines, MemoryLedger, StateDir,
    StoreError, Stores, ledger_behind,
};

/// What a driver may do, in any order.
#[derive(Debug, Clone)]
enum Op {
    Put { ahead: u64, group: usize, payload: Vec<u8> },
    Fact(u8, u8),
    Commit { ahead: u64 },
    Prune { back: u64 },
    Reject,
    Turn(u32),
    Change(i64, u32),
    ForgetIncident(u32),
    QuarantineLedger,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u64, 0..4_usize, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(ahead, group, payload)| Op::Put { ahead, group, payload }),
        2 => (0..3_u8, any::<u8>()).prop_map(|(key, value)| Op::Fact(key, value)),
        5 => (0..3_u64).prop_map(|ahead| Op::Commit { ahead }),
        2 => (0..3_u64).prop_map(|back| Op::Prune { back }),
        1 => Just(Op::Reject),
        3 => (0..40_u32).prop_map(Op::Turn),
        2 => (0..8_i64, any::<u32>()).prop_map(|(at, build)| Op::Change(at, build)),
        1 => (0..13_u32).prop_map(Op::ForgetIncident),
        1 => Just(Op::QuarantineLedger),
        2 => Just(Op::Crash),
    ]
}

/// One store under test, with what its driver remembers.
struct Run {
    stores: Stores,
    newest: u64,
    put: Vec<ImageRef>,
}

impl Run {
    /// Does one thing and tells what came of it, paths and reasons left out.
    fn step(&mut self, op: &Op, reopen: impl FnOnce() -> Stores) -> String {
        let (baselines, ledger) = &mut self.stores;
        match op {
            Op::Put { ahead, group, payload } => {
                let generation = self.newest + ahead;
                let put = baselines.put_image(generation, ImageKind::Series, KeyGroup::nth(*group), payload);
                if let Ok(image) = &put {
                    self.put.retain(|old| old.generation == generation && old.group != image.group);
                    self.put.push(image.clone());
                }
                outcome(put)
            }
            Op::Fact(key, value) => {
                baselines.put_fact(&key.to_string(), &[*value]);
                String::new()
            }
            Op::Commit { ahead } => {
                let generation = self.newest + ahead;
                let images = self.put.clone();
                let manifest = Manifest { generation, images, intake: vec![7; 9], ..Manifest::default() };
                let done = baselines.commit(&manifest);
                if done.is_ok() {
                    self.newest = generation;
                    self.put.clear();
                }
                outcome(done)
            }
            Op::Prune { back } => outcome(baselines.prune(self.newest.saturating_sub(*back))),
            Op::Reject => {
                let loaded = baselines.reject(self.newest, "test");
                self.remember(loaded)
            }
            Op::Turn(n) => outcome(ledger.commit(&turn(*n))),
            Op::Change(at, build) => outcome(ledger.commit(&[LedgerWrite::Change(event(*at, *build))])),
            Op::ForgetIncident(n) => {
                outcome(ledger.commit(&[LedgerWrite::ForgetIncident(format!("incident-{n}"))]))
            }
            Op::QuarantineLedger => outcome(ledger.quarantine("test").map(|found| health(&found))),
            Op::Crash => {
                self.stores = reopen();
                self.load()
            }
        }
    }

    fn load(&mut self) -> String {
        let loaded = self.stores.0.load();
        let (state, found) = self.stores.1.load().expect("loads");
        let facts: Vec<_> = (0..3).map(|key| self.stores.0.get_fact(&key.to_string())).collect();
        format!("{} {facts:?} {} {}", self.remember(loaded), health(&found), text(&state))
    }

    fn remember(&mut self, loaded: Result<Loaded, StoreError>) -> String {
        let Ok(loaded) = loaded else {
            return outcome(loaded);
        };
        let how = match &loaded {
            Loaded::Cold => "cold",
            Loaded::Whole(_) => "whole",
            Loaded::FellBack { .. } => "fell back",
            Loaded::Quarantined { .. } => "quarantined",
        };
        let snapshot = loaded.into_snapshot();
        self.newest = snapshot.as_ref().map_or(0, |s| s.manifest.generation);
        self.put.clear();
        format!("{how} {snapshot:?}")
    }
}

fn outcome<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(StoreError::Order(why)) => format!("refused: {why}"),
        Err(error) => panic!("{error}"),
    }
}

fn health(health: &LedgerHealth) -> &'static str {
    match health {
        LedgerHealth::New => "new",
        LedgerHealth::Whole => "whole",
        LedgerHealth::Quarantined { .. } => "quarantined",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Scenario: any sequence of puts, commits, prunes, rejections, turns and crashes.
    /// Guarantee: the twins in memory answer exactly as the disk does.
    #[test]
    fn twins_are_equal(ops in prop::collection::vec(op(), 1..40)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (baselines, ledger) = (MemoryBaselines::default(), MemoryLedger::default());
        let in_memory = || -> Stores { (Box::new(baselines.clone()), Box::new(ledger.clone())) };
        let on_disk = || StateDir::open(folder.path()).expect("opens");
        let mut memory = Run { stores: in_memory(), newest: 0, put: Vec::new() };
        let mut disk = Run { stores: on_disk(), newest: 0, put: Vec::new() };
        prop_assert_eq!(disk.load(), memory.load());
        for op in ops.iter().chain([&Op::Crash]) {
            let from_memory = memory.step(op, in_memory);
            if matches!(op, Op::Crash) {
                disk.stores = in_memory();
            }
            prop_assert_eq!(disk.step(op, on_disk), from_memory, "{:?}", op);
        }
    }
}

/// Scenario: a simulation damages the newest generation, then all of them.
/// Guarantee: the twin falls back, then says that nothing is left; clones share what was committed.
#[test]
fn a_damaged_twin_falls_back() {
    let mut twin = MemoryBaselines::default();
    let older = crate::world::put_generation(&mut twin, 1).expect("commits");
    crate::world::put_generation(&mut twin, 2).expect("commits");
    let mut reopened = twin.clone();
    drop(twin);
    reopened.damage(2);
    assert!(matches!(reopened.load(), Ok(Loaded::FellBack { snapshot, .. }) if snapshot == older));
    reopened.damage(1);
    assert!(matches!(reopened.load(), Ok(Loaded::Quarantined { .. })));
    assert_eq!(reopened.load().expect("loads"), Loaded::Cold);
}

/// Guarantee: what is committed is readable with any SQLite client, by columns that mean something.
#[test]
fn the_ledger_reads_with_plain_sql() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_baselines, mut ledger) = StateDir::open(folder.path()).expect("opens");
    ledger.load().expect("loads");
    ledger.commit(&turn(7)).expect("commits");
    let conn =
        rusqlite::Connection::open(folder.path().join("ledger.sqlite")).expect("opens beside the daemon");
    let ask = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).expect(sql);
    assert_eq!(
        ask("SELECT rule || ' ' || state FROM incidents WHERE key = 'incident-7'"),
        "checkout-bad-deploy open"
    );
    assert_eq!(
        ask("SELECT verb || ' ' || responder || ' ' || state FROM actions"),
        "rollback k8s-prod pending"
    );
    assert_eq!(ask("SELECT until FROM cooldowns WHERE key = 'lock-1'"), "2025-11-23T08:01:10Z");
    assert_eq!(ask("SELECT at || ' ' || kind FROM changes"), "1970-01-01T00:00:07Z deploy");
    assert_eq!(ask("SELECT failures || '' FROM breakers"), "7");
    assert!(
        ask("SELECT line FROM audit").starts_with(r#"{"n":1,"at":"2025-11-23T08:01:10Z","what":"opened""#)
    );
}

/// Guarantee: a ledger that has seen less than the baselines is told from one that has seen as much or more.
#[test]
fn a_ledger_behind_is_told() {
    let at = Timestamp::from_secs;
    let applied = |turn, count| Applied { turn: at(turn), count, digest: 0, control: at(turn) };
    let manifest = Manifest { turn: Some(at(100)), turns: 10, ..Manifest::default() };
    for (applied, behind) in [
        (None, true),
        (Some(applied(90, 9)), true),
        (Some(applied(100, 9)), true),
        (Some(applied(100, 10)), false),
        (Some(applied(110, 11)), false),
    ] {
        assert_eq!(ledger_behind(&manifest, applied.as_ref()), behind, "{applied:?}");
    }
    assert!(!ledger_behind(&Manifest::default(), None));
}
