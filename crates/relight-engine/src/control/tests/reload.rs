//! Other rules while something is under way.

use relight_core::rule::{RuleSpec, Step};

use super::stage::{Stage, ladder, page, rollback, secs};

/// Scenario: a rollback waits for its proof, and a config puts a step before it into its ladder; it does not help.
/// Guarantee: it is not done a second time under its new place: the step behind it follows, and it cools down as planned.
#[test]
fn a_step_that_moved_is_not_done_again() {
    let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
    stage.play("!!+!");
    let notify = Step { action: "notify".to_owned(), ..page() };
    stage.reload(vec![ladder(vec![notify, rollback(), page()])]);
    stage.play("!x20");
    let story = stage.story();
    assert_eq!(story.matches("started rollback").count(), 1, "{story}");
    assert!(story.contains("blocked rollback by config") && story.contains("started page"), "{story}");
    assert!(stage.ledger.cooldowns.contains_key("deploy/shop"), "{:?}", stage.ledger.cooldowns);
}

/// Scenario: a rollback waits for its proof, and a config gives its rule another name, with the same lock.
/// Guarantee: the incident that opens under the new name does not roll back again: the lock cools down.
#[test]
fn a_rule_with_another_name_does_not_act_again() {
    let quick = RuleSpec { hold: secs(0), ..ladder(vec![rollback(), page()]) };
    let mut stage = Stage::new(vec![quick.clone()]);
    stage.play("!!+!");
    stage.reload(vec![RuleSpec { name: "renamed".to_owned(), ..quick }]);
    stage.play("!x20");
    let started = stage.ledger.audit.iter().filter(|line| line.starts_with("action_started")).count();
    let rollbacks = stage.ledger.actions.values().filter(|action| action.mutates && action.started.is_some());
    assert_eq!((rollbacks.count(), started), (1, 2), "{:?}", stage.ledger.audit);
}
