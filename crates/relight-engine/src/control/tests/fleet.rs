//! The fleet limit: how much is changed at once, what counts, who is paged, and how it ends.

use relight_core::incident::{Action, ActionState};
use relight_core::responder::NotSent;
use relight_core::rule::{FleetLimit, Limits, Mode, RuleSpec, Step};

use super::stage::{Stage, ladder, page, rollback, secs};
use crate::control::{Answer, ControlInput, FLEET_LIMIT};

fn limit() -> FleetLimit {
    FleetLimit { actions: 5, within: secs(600), share_percent: 20.0, minimum: 1 }
}

/// A rollback of each group by itself, then a page.
fn each() -> RuleSpec {
    ladder(vec![Step { limits: Limits::default(), verify: None, ..rollback() }, page()])
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("s{n:02}")).collect()
}

/// All of these groups are anomalous for as long as it takes to open an incident of each.
fn storm(stage: &mut Stage, groups: &[String]) {
    let bin: Vec<(&str, char)> = groups.iter().map(|group| (group.as_str(), '!')).collect();
    for _ in 0..2 {
        stage.bin(&bin);
    }
}

/// What changes the world and may have left.
fn changes(stage: &Stage) -> Vec<&Action> {
    stage
        .ledger
        .actions
        .values()
        .filter(|a| a.mutates && a.started.is_some() && !a.was_never_sent())
        .collect()
}

fn blocked(stage: &Stage) -> Vec<&str> {
    let blocked = stage.ledger.actions.values().filter(|action| action.state == ActionState::Blocked);
    blocked.map(|action| action.detail.as_str()).collect()
}

fn check(groups: usize, limit: FleetLimit, expected: usize) {
    let mut stage = Stage::limited(vec![each()], limit, groups as u64);
    storm(&mut stage, &names(0, groups));
    assert_eq!(changes(&stage).len(), expected, "{groups} groups, {limit:?}");
    let pages = stage.started.iter().filter(|action| !action.mutates).count();
    assert_eq!(pages, groups - expected, "the ladder of what is blocked goes on");
    assert_eq!(stage.ledger.holds.contains_key(FLEET_LIMIT), groups > expected);
}

/// Guarantee: as after the action at most `actions` are started, in at most `share` of the groups, and in `minimum` at the
/// least; each bound by itself.
#[test]
fn the_smallest_bound_holds() {
    for (groups, expected) in [(1, 1), (2, 1), (3, 1), (9, 1), (10, 2), (24, 4), (25, 5), (60, 5), (200, 5)] {
        check(groups, limit(), expected);
    }
    check(3, FleetLimit { minimum: 2, ..limit() }, 2);
    check(10, FleetLimit { share_percent: 100.0, actions: 9, ..limit() }, 9);
    check(100, FleetLimit { share_percent: 7.0, actions: 50, ..limit() }, 7);
    check(100, FleetLimit { share_percent: 0.5, actions: 50, ..limit() }, 1);
}

/// Scenario: 60 services are anomalous at once, the process restarts after each bin, another config comes; an hour later more
/// services are anomalous; a human resumes, and the limit engages anew.
/// Guarantee: the limit is engaged until then, says its value and limit in each incident, and people are paged once each time.
#[test]
fn f12_global_brake() {
    let told = |stage: &Stage| stage.ledger.audit.iter().filter(|line| line.starts_with("trouble ")).count();
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    storm(&mut stage, &names(0, 60));
    stage.restart();
    assert_eq!((changes(&stage).len(), told(&stage)), (5, 1));
    assert_eq!(blocked(&stage).len(), 55);
    for detail in blocked(&stage) {
        assert_eq!(detail, "fleet limit: 6 actions in 10m would exceed 5; until `relight resume`");
    }
    let held: Vec<(&str, _)> = stage.control.holds().collect();
    assert!(matches!(&*held, [(FLEET_LIMIT, hold)] if hold.until.is_none()), "{held:?}");

    stage.now = stage.now.plus(secs(3_600));
    stage.reload(vec![each()]);
    storm(&mut stage, &names(60, 64));
    assert_eq!((changes(&stage).len(), told(&stage)), (5, 1), "it does not lift itself");

    stage.command("resume", None);
    stage.restart();
    assert_eq!(stage.control.holds().count(), 0);
    storm(&mut stage, &names(64, 80));
    assert_eq!((changes(&stage).len(), told(&stage)), (10, 2));
}

/// Scenario: a human resumes right after the limit engaged.
/// Guarantee: what was counted until then counts no more, after a restart either.
#[test]
fn resume_counts_anew() {
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    storm(&mut stage, &names(0, 7));
    stage.command("resume", None);
    stage.restart();
    storm(&mut stage, &names(7, 14));
    assert_eq!(changes(&stage).len(), 10);
    assert!(stage.ledger.audit.contains(&format!("resumed {FLEET_LIMIT}")));
}

/// Guarantee: what was started longer ago than the window does not count, and nothing engages.
#[test]
fn the_window_moves() {
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    for n in 0..8 {
        storm(&mut stage, &names(n, n + 1));
        stage.now = stage.now.plus(secs(130));
    }
    assert_eq!(changes(&stage).len(), 8);
    assert_eq!(stage.ledger.holds.len(), 0);
}

/// Scenario: an action is tried again and again; another one turns out never to have been sent; a ladder has two steps.
/// Guarantee: an action counts once; what was never sent frees its place; a second step on one group is no second group.
#[test]
fn what_counts() {
    let mut stage = Stage::limited(vec![each()], FleetLimit { actions: 2, ..limit() }, 1_000);
    storm(&mut stage, &names(0, 1));
    let first = stage.started[0].id.clone();
    for _ in 0..3 {
        stage.ready(&first);
        stage.answer(first.clone(), Answer::Retry(None));
        stage.now = stage.now.plus(secs(30));
        stage.turn(ControlInput::Timeout, stage.now);
    }
    storm(&mut stage, &names(1, 2));
    let second = stage.started.last().map(|action| action.id.clone()).unwrap_or_default();
    stage.ready(&second);
    stage.answer(second, Answer::Unsent(NotSent::Request));
    storm(&mut stage, &names(2, 3));
    assert_eq!(changes(&stage).len(), 2, "{:?}", blocked(&stage));
    assert_eq!(stage.ledger.holds.len(), 0);
    storm(&mut stage, &names(3, 4));
    assert_eq!((changes(&stage).len(), stage.ledger.holds.len()), (2, 1));

    let step =
        |verb: &str| Step { action: verb.to_owned(), limits: Limits::default(), verify: None, ..rollback() };
    let mut stage = Stage::limited(vec![ladder(vec![step("restart"), step("scale")])], limit(), 3);
    stage.play("!!+");
    assert_eq!((changes(&stage).len(), stage.ledger.holds.len()), (2, 0));
}

/// Scenario: the limit engages while actions that it let through have not been sent yet.
/// Guarantee: those go out; they are counted.
#[test]
fn what_was_let_through_goes_out() {
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    storm(&mut stage, &names(0, 60));
    let offered: Vec<String> = changes(&stage).iter().map(|action| action.id.clone()).collect();
    for id in offered {
        stage.ready(&id);
        assert_eq!(
            stage.ledger.actions[&id].state,
            ActionState::Running,
            "{}",
            stage.ledger.actions[&id].detail
        );
    }
}

/// Scenario: actions are asked about before they are sent; of 60 that are offered at once the requests of three cannot be made.
/// Guarantee: the limit is measured when an action is let out: the three take no other's place, five go out, and the ladders
/// of the others go on; a retry of the five is let out again.
#[test]
fn what_is_asked_about_is_measured_when_it_is_let_out() {
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    stage.control.measure_when_sent();
    storm(&mut stage, &names(0, 60));
    let offered: Vec<String> = stage.ledger.actions.keys().cloned().collect();
    assert_eq!((offered.len(), stage.ledger.holds.len(), stage.control.fleet_actions()), (60, 0, 0));
    for (n, id) in offered.iter().enumerate() {
        if n < 3 {
            stage.answer(id.clone(), Answer::Unsent(NotSent::Request));
        } else {
            stage.ready(id);
        }
    }
    let count = |stage: &Stage, state| {
        stage.ledger.actions.values().filter(|a| a.mutates && a.state == state).count()
    };
    let counts =
        [ActionState::Failed, ActionState::Running, ActionState::Blocked].map(|state| count(&stage, state));
    assert_eq!(counts, [3, 5, 52]);
    assert_eq!((changes(&stage).len(), stage.control.fleet_actions()), (5, 5));
    assert!(stage.control.holds().any(|(name, _)| name == FLEET_LIMIT));
    let pages = stage.started.iter().filter(|action| !action.mutates).count();
    assert_eq!(pages, 55);
    let running = offered.iter().find(|id| stage.ledger.actions[*id].state == ActionState::Running);
    let running = running.cloned().unwrap_or_default();
    stage.answer(running.clone(), Answer::Retry(None));
    stage.turn(ControlInput::Timeout, stage.now.plus(secs(5)));
    stage.ready(&running);
    assert_eq!(stage.ledger.actions[&running].state, ActionState::Running);
}

/// Guarantee: what waits for approval is measured when it is given, not before; a page never is; a step that another gate
/// blocks engages nothing.
#[test]
fn only_what_would_start_is_measured() {
    let asks = Step { mode: Mode::Approve, limits: Limits::default(), verify: None, ..rollback() };
    let mut stage =
        Stage::limited(vec![ladder(vec![asks, page()])], FleetLimit { actions: 1, ..limit() }, 1_000);
    storm(&mut stage, &names(0, 3));
    let waiting: Vec<String> = stage.ledger.actions.keys().cloned().collect();
    assert_eq!((waiting.len(), stage.ledger.holds.len()), (3, 0));
    stage.command("approve", Some(waiting[0].clone()));
    assert_eq!(stage.ledger.holds.len(), 0);
    stage.command("approve", Some(waiting[1].clone()));
    assert_eq!((changes(&stage).len(), stage.ledger.holds.len()), (1, 1));

    let mut stage = Stage::limited(vec![ladder(vec![page()])], FleetLimit { actions: 1, ..limit() }, 1_000);
    storm(&mut stage, &names(0, 9));
    assert_eq!((stage.started.len(), stage.ledger.holds.len()), (9, 0));

    let mut stage = Stage::limited(vec![each()], FleetLimit { actions: 1, ..limit() }, 1_000);
    stage.ledger.breakers.insert("r".to_owned(), 2);
    stage.restart();
    storm(&mut stage, &names(0, 9));
    assert_eq!((changes(&stage).len(), stage.ledger.holds.len()), (0, 0));
}

/// Scenario: this relight takes over; what the other has changed it does not know.
/// Guarantee: for as long as the window it changes nothing, and then it does; nothing is engaged.
#[test]
fn a_takeover_does_not_double_the_limit() {
    let mut stage = Stage::limited(vec![each()], limit(), 1_000);
    stage.turn(ControlInput::StandBy, stage.now);
    stage.turn(ControlInput::Lead, stage.now);
    stage.now = stage.now.plus(secs(10));
    storm(&mut stage, &names(0, 2));
    let unknown = "fleet limit: how much the other relight has changed is unknown until ";
    assert!(blocked(&stage).iter().all(|detail| detail.starts_with(unknown)), "{:?}", blocked(&stage));
    assert_eq!((changes(&stage).len(), blocked(&stage).len(), stage.ledger.holds.len()), (0, 2, 0));
    stage.now = stage.now.plus(secs(600));
    storm(&mut stage, &names(2, 4));
    assert_eq!(changes(&stage).len(), 2);
}
