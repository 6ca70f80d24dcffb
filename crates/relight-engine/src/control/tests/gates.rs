//! The gates before what changes the world: each by itself, and which of several speaks.

use relight_core::Timestamp;
use relight_core::incident::{ActionState, Hold};
use relight_core::rule::{Limits, Mode, RuleSpec, Step};

use super::stage::{Stage, ladder, page, rollback, secs};
use crate::control::gates::GateKind;
use crate::control::{ControlInput, FLEET_LIMIT};

/// A gate that is closed: what it says, and how it is closed.
struct Closed {
    says: &'static str,
    mode: Mode,
    /// Before the incident opens.
    close: fn(&mut Stage),
}

impl Closed {
    const fn by(says: &'static str, close: fn(&mut Stage)) -> Self {
        Self { says, mode: Mode::Auto, close }
    }
}

/// How each gate is closed. A gate without a line here does not compile.
const fn closed(gate: GateKind) -> Closed {
    match gate {
        GateKind::KillSwitch => Closed::by("kill switch: paused, storm", pause),
        GateKind::Standby => Closed::by("takeover: it was open before", take_over),
        GateKind::Mode => Closed {
            mode: Mode::Suggest,
            ..Closed::by("mode: the config allows `suggest`, this needs `auto`", open)
        },
        GateKind::WarmUp => Closed::by("warm-up: nothing was learned before until", hold),
        GateKind::Freshness => Closed::by("freshness: the stream is", lag),
        GateKind::Escalated => Closed::by("escalated: waits for a human", escalate),
        GateKind::FleetLimit => Closed::by("fleet limit: 6 actions", engage),
        GateKind::Breaker => Closed::by("breaker: 2 actions in a row did not help, limit 2", trip),
        GateKind::Cooldown => Closed::by("cooldown: deploy/shop until", cool),
        GateKind::Budget => Closed::by("budget: ", spend),
        GateKind::Lock => Closed::by("lock: deploy/shop is held by other", lock),
    }
}

fn open(_: &mut Stage) {}

fn pause(stage: &mut Stage) {
    stage.command("pause", Some("storm".to_owned()));
}

fn take_over(stage: &mut Stage) {
    stage.turn(ControlInput::StandBy, stage.now);
    stage.turn(ControlInput::Lead, stage.now.plus(secs(10_000)));
}

fn hold(stage: &mut Stage) {
    let (name, until) = ("warm_up".to_owned(), Some(stage.now.plus(secs(100_000))));
    let why = "nothing was learned before".to_owned();
    stage.turn(ControlInput::Hold { name, until, why }, stage.now);
}

fn lag(stage: &mut Stage) {
    // Control time has gone on without the stream.
    stage.turn(ControlInput::Timeout, stage.now.plus(secs(200)));
}

/// The incident was there before, went away, and its reopening is one too many.
fn escalate(stage: &mut Stage) {
    stage.play("!!....");
    assert!(stage.story().ends_with("Resolved by itself"), "{}", stage.story());
    stage.started.clear();
    stage.ledger.actions.clear();
}

fn engage(stage: &mut Stage) {
    let why = "6 actions in 10m would exceed 5".to_owned();
    stage.ledger.holds.insert(FLEET_LIMIT.to_owned(), Hold { until: None, why });
}

fn trip(stage: &mut Stage) {
    stage.ledger.breakers.insert("r".to_owned(), 2);
}

fn cool(stage: &mut Stage) {
    stage.ledger.cooldowns.insert("deploy/shop".to_owned(), stage.now.plus(secs(20_000)));
}

fn spend(stage: &mut Stage) {
    let action = other(stage, ActionState::Succeeded, stage.now);
    stage.ledger.actions.insert(action.id.clone(), action);
}

fn lock(stage: &mut Stage) {
    let action = other(stage, ActionState::Running, stage.now);
    stage.ledger.actions.insert(action.id.clone(), action);
}

/// An action of another rule on the same lock.
fn other(stage: &Stage, state: ActionState, started: Timestamp) -> relight_core::incident::Action {
    let mut other = Stage::new(vec![RuleSpec { name: "other".to_owned(), ..ladder(vec![rollback()]) }]);
    other.play("!!");
    let mut action = other.started.pop().expect("it was started");
    (action.id, action.incident) = (format!("other-{}", stage.ledger.actions.len()), "other".to_owned());
    (action.state, action.started) = (state, Some(started));
    action
}

/// What became of the rollback of an incident that opens with these gates closed; its page must go out.
fn verdict(gates: &[GateKind]) -> (ActionState, String) {
    let closed: Vec<Closed> = gates.iter().map(|gate| self::closed(*gate)).collect();
    let mode = closed.iter().map(|gate| gate.mode).min().unwrap_or(Mode::Auto);
    let max_per_day = gates.contains(&GateKind::Budget).then_some(1);
    let limits = Limits { max_per_day, cooldown: secs(600), lock: "deploy/shop".to_owned() };
    let step = Step { mode, limits, ..rollback() };
    let is_escalated = gates.contains(&GateKind::Escalated);
    let rule = RuleSpec { max_flaps: if is_escalated { 0 } else { 2 }, ..ladder(vec![step, page()]) };
    let mut stage = Stage::new(vec![rule]);
    // An incident that was there before, then what the ledger holds, which comes with a restart, then inputs; those that
    // move control time last.
    let phase = |gate: &GateKind| match gate {
        GateKind::Escalated => 0,
        GateKind::FleetLimit | GateKind::Breaker | GateKind::Cooldown | GateKind::Budget | GateKind::Lock => {
            1
        }
        GateKind::KillSwitch | GateKind::Mode | GateKind::WarmUp => 2,
        GateKind::Freshness | GateKind::Standby => 3,
    };
    for now in 0..=3 {
        gates
            .iter()
            .filter(|gate| phase(gate) == now)
            .for_each(|gate| (self::closed(*gate).close)(&mut stage));
        if now == 1 {
            stage.restart();
        }
    }
    let before = (stage.ledger.breakers.clone(), stage.ledger.cooldowns.clone());
    stage.play("!!");
    let page = stage.started.iter().find(|action| action.step == 1);
    assert_eq!(page.is_some(), !closed.is_empty(), "{gates:?}: {}", stage.story());
    let rollback = stage.ledger.actions.values().find(|action| action.rule == "r" && action.step == 0);
    let rollback = rollback.expect("it was planned");
    let (state, detail) = (rollback.state, rollback.detail.clone());
    let incident = stage.ledger.incidents.values().find(|i| i.rule == "r").expect("it is open");
    let told =
        incident.timeline.iter().any(|moment| moment.what == "blocked" && moment.detail.contains(&detail));
    assert_eq!(told, !closed.is_empty(), "the timeline: {:?}", incident.timeline);
    // A gate says nothing about whether the step helps, and nothing has touched the target.
    assert_eq!((&stage.ledger.breakers, &stage.ledger.cooldowns), (&before.0, &before.1), "{gates:?}");
    let counted: Vec<(&str, u64)> = stage.control.not_sent().collect();
    assert_eq!(counted, gates.first().map(|gate| (gate.word(), 1)).into_iter().collect::<Vec<_>>());
    (state, detail)
}

/// Guarantee: with all gates open it is started; each of them closed, alone, blocks it, and the timeline has gate, value
/// and limit.
#[test]
fn each_gate_alone_blocks() {
    assert_eq!(verdict(&[]).0, ActionState::Pending);
    for gate in GateKind::ALL {
        let (state, detail) = verdict(&[*gate]);
        let says = closed(*gate).says;
        assert_eq!(state, ActionState::Blocked, "{gate:?}: {says}");
        assert!(detail.starts_with(says), "{gate:?}: {detail}");
    }
}

/// Guarantee: of several that are closed the first in DESIGN's order speaks, whichever two they are.
#[test]
fn gates_speak_in_order() {
    for (ix, first) in GateKind::ALL.iter().enumerate() {
        for second in &GateKind::ALL[ix + 1..] {
            let (_, detail) = verdict(&[*first, *second]);
            assert!(detail.starts_with(closed(*first).says), "{first:?} before {second:?}: {detail}");
        }
        let (_, detail) = verdict(&GateKind::ALL[ix..]);
        assert!(detail.starts_with(closed(*first).says), "{first:?}: {detail}");
    }
}
