//! Hot standby: what is done by who stands by, who has just taken over, and who has led for long.

use relight_core::incident::{Action, ActionState};

use super::stage::{BASE, Stage, Turned, ladder, page, rollback, secs};
use crate::control::{ControlInput, Effect};

fn standby() -> Stage {
    let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
    stage.turn(ControlInput::StandBy, BASE);
    stage
}

/// The steps of one group's incidents, by rung: state, and the gate that said no.
fn steps(stage: &Stage, group: &str) -> Vec<(ActionState, String)> {
    let of_group =
        |action: &&Action| stage.ledger.incidents[&action.incident].group == super::stage::labels(group);
    let mut found: Vec<&Action> = stage.ledger.actions.values().filter(of_group).collect();
    found.sort_by_key(|action| action.step);
    found.iter().map(|a| (a.state, a.detail.split(':').next().unwrap_or_default().to_owned())).collect()
}

fn starts(turned: &Turned) -> usize {
    turned.1.iter().filter(|effect| matches!(effect, Effect::Start { .. })).count()
}

/// Scenario: trouble while another relight acts; this one takes over; trouble of another group right after, and of a
/// third when the cooldown is over.
/// Guarantee: standing by it changes nothing, and nobody is called for that; taking over, it pages about what is open
/// and changes nothing about it; cooldowns start anew; then it acts.
#[test]
fn who_takes_over_changes_nothing_that_was_open() {
    let mut stage = standby();
    stage.play("!!!");
    let blocked = |gate: &str| (ActionState::Blocked, gate.to_owned());
    let offered = (ActionState::Pending, String::new());
    assert_eq!(steps(&stage, "shop"), [blocked("standby"), offered.clone()]);
    let turned = stage.turn(ControlInput::Lead, stage.now);
    assert_eq!(starts(&turned), 1, "the page is offered again");
    stage.play("!!");
    assert_eq!(steps(&stage, "shop"), [blocked("standby"), offered.clone()]);
    for _ in 0..2 {
        stage.bin(&[("shop", '!'), ("cart", '!')]);
    }
    assert_eq!(steps(&stage, "cart"), [blocked("cooldown"), offered.clone()]);
    stage.now = stage.now.plus(secs(1_800));
    for _ in 0..2 {
        stage.bin(&[("pay", '!')]);
    }
    assert_eq!(steps(&stage, "pay"), [offered]);
}

/// Scenario: a standby that lags behind takes over, and comes to trouble that the other may have acted on.
/// Guarantee: what opened before the takeover by event time is not acted on.
#[test]
fn who_lags_behind_does_not_act_again() {
    let mut stage = standby();
    stage.turn(ControlInput::Lead, BASE.plus(secs(1_000)));
    stage.play("!!");
    assert_eq!(steps(&stage, "shop")[0], (ActionState::Blocked, "takeover".to_owned()));
}

/// Scenario: trouble that is over when this relight takes over, just now or long ago.
/// Guarantee: people are told of it unless the other has had the time to.
#[test]
fn what_was_over_long_ago_is_not_told_again() {
    for (pause, told) in [(0, 1), (200, 0)] {
        let mut stage = standby();
        stage.play("!!.....");
        assert_eq!(stage.ledger.incidents.values().filter(|incident| incident.is_live()).count(), 0);
        let turned = stage.turn(ControlInput::Lead, stage.now.plus(secs(pause)));
        assert_eq!(starts(&turned), told, "after {pause} s");
    }
}

/// Scenario: the lock is lost while a page is on its way, and comes back.
/// Guarantee: the page is not sent a second time while the first attempt is out.
#[test]
fn an_attempt_that_is_out_is_waited_for() {
    let mut stage = Stage::new(vec![ladder(vec![page()])]);
    stage.play("!!");
    let id = stage.started[0].id.clone();
    stage.ready(&id);
    stage.turn(ControlInput::StandBy, stage.now);
    let turned = stage.turn(ControlInput::Lead, stage.now);
    assert_eq!((starts(&turned), stage.ledger.actions[&id].state), (0, ActionState::Running));
}
