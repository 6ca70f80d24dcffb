//! The gates before what changes the world: each by itself, and which of several speaks.

use relight_core::incident::ActionState;
use relight_core::rule::{Mode, Step};

use super::stage::{Stage, ladder, page, rollback, secs};
use crate::control::ControlInput;

/// A gate that is closed, what it says, and how it is closed.
struct Closed {
    says: &'static str,
    mode: Mode,
    close: fn(&mut Stage),
}

fn open(_: &mut Stage) {}

fn hold(stage: &mut Stage) {
    let (name, until) = ("warm_up".to_owned(), Some(stage.now.plus(secs(10_000))));
    let why = "nothing was learned before".to_owned();
    stage.turn(ControlInput::Hold { name, until, why }, stage.now);
}

fn lag(stage: &mut Stage) {
    // Control time has gone on without the stream.
    stage.turn(ControlInput::Timeout, stage.now.plus(secs(200)));
}

fn cool(stage: &mut Stage) {
    stage.ledger.cooldowns.insert("deploy/shop".to_owned(), stage.now.plus(secs(1_000)));
    stage.restart();
}

fn trip(stage: &mut Stage) {
    stage.ledger.breakers.insert("r".to_owned(), 2);
    stage.restart();
}

/// In DESIGN's order, those that there are. What is set in the ledger comes with a restart, so a gate that is closed
/// by an input is closed after it.
const GATES: [Closed; 6] = [
    Closed {
        says: "kill switch: paused, storm",
        mode: Mode::Auto,
        close: |stage| drop(stage.command("pause", Some("storm".to_owned()))),
    },
    Closed { says: "mode: the config allows `suggest`, this needs `auto`", mode: Mode::Suggest, close: open },
    Closed { says: "warm-up: nothing was learned before until", mode: Mode::Auto, close: hold },
    Closed { says: "freshness: the stream is", mode: Mode::Auto, close: lag },
    Closed { says: "breaker: 2 actions in a row did not help, limit 2", mode: Mode::Auto, close: trip },
    Closed { says: "cooldown: deploy/shop until", mode: Mode::Auto, close: cool },
];

/// What became of the rollback of an incident that opens with these gates closed; its page must go out.
fn verdict(closed: &[Closed]) -> (ActionState, String) {
    let mode = closed.iter().map(|gate| gate.mode).min().unwrap_or(Mode::Auto);
    let mut stage = Stage::new(vec![ladder(vec![Step { mode, ..rollback() }, page()])]);
    // The last ones first: see above.
    closed.iter().rev().for_each(|gate| (gate.close)(&mut stage));
    stage.play("!!");
    let page = stage.started.iter().find(|action| action.step == 1);
    assert_eq!(page.is_some(), !closed.is_empty(), "{}", stage.story());
    let rollback = stage.ledger.actions.values().find(|action| action.step == 0).expect("it was planned");
    let (state, detail) = (rollback.state, rollback.detail.clone());
    let incident = stage.ledger.incidents.values().next().expect("it is open");
    let told =
        incident.timeline.iter().any(|moment| moment.what == "blocked" && moment.detail.contains(&detail));
    assert_eq!(told, !closed.is_empty(), "the timeline: {:?}", incident.timeline);
    (state, detail)
}

/// Guarantee: with all gates open it is started; each of them closed, alone, blocks it, and the timeline has gate, value
/// and limit.
#[test]
fn each_gate_alone_blocks() {
    assert_eq!(verdict(&[]).0, ActionState::Pending);
    for gate in &GATES {
        let (state, detail) = verdict(std::slice::from_ref(gate));
        assert_eq!(state, ActionState::Blocked, "{}", gate.says);
        assert!(detail.starts_with(gate.says), "{}: {detail}", gate.says);
    }
}

/// Guarantee: of several that are closed the first in DESIGN's order speaks.
#[test]
fn gates_speak_in_order() {
    for first in 0..GATES.len() {
        let (_, detail) = verdict(&GATES[first..]);
        assert!(detail.starts_with(GATES[first].says), "{}: {detail}", GATES[first].says);
    }
}
