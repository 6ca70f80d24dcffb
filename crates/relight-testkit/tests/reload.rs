//! What a reload keeps and what it ends, on one series that goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::detector::Policy;
use relight_core::incident::{Incident, IncidentState, Resolution};
use relight_core::record::{Kind, Record};
use relight_core::rule::{GroupBy, Settings};
use relight_core::series::{Labels, key_of};
use relight_core::signal::{Aggregate, SignalKind};
use relight_core::{Span, Timestamp};
use relight_runtime::{Commit, Pipeline, Responders, RuntimeError, Stores, Turn, Watch};
use relight_store::{MemoryBaselines, MemoryLedger};
use relight_testkit::rules;

/// The expected value of each detector in the last turn, as bits.
#[derive(Default)]
struct Expected(BTreeMap<usize, u64>);

impl Watch for Expected {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        self.0 = turn.readings.iter().map(|r| (r.detector, r.reading.band.expected.to_bits())).collect();
    }
}

struct Stage {
    engine: Pipeline,
    partition: u32,
    offset: u64,
}

impl Stage {
    fn new() -> Self {
        let stores = Stores {
            baselines: Box::new(MemoryBaselines::default()),
            ledger: Box::new(MemoryLedger::default()),
        };
        let (settings, outbox) = (Arc::new(rules::simulated()), Box::new(Responders::default()));
        let mut engine = Pipeline::open(settings, 2, stores, outbox, Commit::EveryTurn, &mut Vec::new())
            .expect("empty stores open");
        let partition = engine.partition("p");
        Self { engine, partition, offset: 0 }
    }

    /// Bins with these queues; gives what each detector expected in the last turn.
    fn feed(&mut self, lengths: impl IntoIterator<Item = f64>) -> BTreeMap<usize, u64> {
        let key = key_of("queue", &Labels::new([("service".to_owned(), "cart".to_owned())]));
        let mut expected = Expected::default();
        for length in lengths {
            let mut record = Record { offset: self.offset, ..Record::default() };
            let at = Timestamp::from_secs(1_700_000_000 + 10 * self.offset as i64);
            record.push_point(&key, at, Timestamp::MIN, Kind::Gauge, length);
            self.offset += 1;
            self.engine.handle(self.partition, &record).expect("the engine works");
            self.engine.run(&mut expected).expect("the engine works");
        }
        expected.0
    }

    fn reload(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), RuntimeError> {
        let mut settings = rules::simulated();
        change(&mut settings);
        self.engine.reload(Arc::new(settings), None)
    }

    fn incident(&self) -> &Incident {
        self.engine.control_state().incidents().next().expect("an incident")
    }
}

fn steady() -> impl Iterator<Item = f64> {
    (0..).map(|i| 10.0 + f64::from(i % 3) * 0.1)
}

/// What each detector expects in the first turn after a change in mid-stream, and what it would have.
fn after(change: impl FnOnce(&mut Settings)) -> [BTreeMap<usize, u64>; 2] {
    let (mut calm, mut changed) = (Stage::new(), Stage::new());
    calm.feed(steady().take(200));
    changed.feed(steady().take(200));
    changed.reload(change).expect("it can change");
    // The one that closes the bin that was open, and one more.
    [changed.feed([10.0, 10.0]), calm.feed([10.0, 10.0])]
}

const EVERY: usize = 5;
const QUEUE: usize = 7;

/// Scenario: what shapes one detector's state changes; its signal comes to mean something else.
/// Guarantee: its rows start cold, and those of every other detector keep what they have learned.
#[test]
fn what_shapes_state_starts_cold_and_nothing_else_does() {
    let [now, calm] = after(|settings| settings.detectors[EVERY].state_shape = "other".to_owned());
    // It has seen one value, and had seen two hundred.
    assert_eq!(f64::from_bits(now[&EVERY]), 10.0);
    assert_ne!(now[&EVERY], calm[&EVERY]);
    assert_eq!(now[&QUEUE], calm[&QUEUE]);
    let [now, calm] = after(|settings| {
        settings.signals[6].kind = SignalKind::Value { of: rules::named("queue"), aggregate: Aggregate::Max };
    });
    assert_ne!(now[&QUEUE], calm[&QUEUE]);
    assert_eq!(now[&EVERY], calm[&EVERY]);
}

/// Scenario: what does not shape a detector's state changes: how far from the expected a value may be.
/// Guarantee: all that was learned is kept.
#[test]
fn what_judges_may_change() {
    let wide = Policy { min_deviation: 5.0, ..Policy::default() };
    let [now, calm] = after(|settings| {
        let signal = settings.signals[5].clone();
        let (none, interval) = (serde_json::json!({}), settings.interval());
        settings.detectors[EVERY] =
            rules::detector("every", "adaptive", &none, &wide, (5, &signal), interval);
    });
    assert_eq!(now, calm);
}

/// Scenario: an incident is open; its rule is deleted, and another config has it again.
/// Guarantee: nothing ends before the next turn, which ends it as `rule_removed`.
#[test]
fn g07_rule_removed_while_firing() {
    let mut stage = Stage::new();
    stage.feed(steady().take(200).chain([90.0; 8]));
    assert!(stage.incident().is_live(), "{:?}", stage.incident());
    stage.reload(|settings| settings.rules.truncate(1)).expect("it can change");
    assert!(stage.incident().is_live(), "{:?}", stage.incident());
    stage.feed([90.0; 2]);
    let (state, _) = stage.engine.ledger().load().expect("memory does not fail");
    let ended: Vec<_> = state.incidents.iter().map(|i| (i.state, i.resolution)).collect();
    assert_eq!(ended, [(IncidentState::Resolved, Some(Resolution::RuleRemoved))]);
}

/// Scenario: an incident is open, and its rule comes to group by other labels.
/// Guarantee: it ends: no row falls into its group any more, and it would wait for one for ever.
#[test]
fn a_rule_that_groups_otherwise_ends_its_incidents() {
    let mut stage = Stage::new();
    stage.feed(steady().take(200).chain([90.0; 8]));
    let by = GroupBy::Labels(vec!["region".to_owned()]);
    stage.reload(|settings| settings.rules[1].group_by = by).expect("it can change");
    let (state, _) = stage.engine.ledger().load().expect("memory does not fail");
    assert_eq!(state.incidents[0].resolution, Some(Resolution::RuleRemoved));
}

/// Scenario: `for` of a rule is under way when the config is loaded again.
/// Guarantee: it goes on from where it was: the incident opens when it would have.
#[test]
fn timers_survive() {
    let opened = |reloads: bool| {
        let mut stage = Stage::new();
        stage.feed(steady().take(200));
        for _ in 0..8 {
            stage.feed([90.0]);
            if reloads {
                stage.reload(|_| ()).expect("it is the same");
            }
        }
        (stage.incident().detected, stage.incident().held_for, stage.incident().held_turns)
    };
    assert!(opened(false).0.is_some());
    assert_eq!(opened(true), opened(false));
}

/// Scenario: bins of another length.
/// Guarantee: refused, and everything goes on as it was.
#[test]
fn bins_of_another_length_are_refused() {
    let (mut calm, mut stage) = (Stage::new(), Stage::new());
    calm.feed(steady().take(50));
    stage.feed(steady().take(50));
    let longer = relight_core::signal::Binning::Interval(Span::from_secs(60));
    let refused = stage.reload(|settings| settings.binning = longer);
    assert!(matches!(refused, Err(RuntimeError::Interval { .. })), "{refused:?}");
    assert_eq!(stage.feed(steady().take(9)), calm.feed(steady().take(9)));
}
