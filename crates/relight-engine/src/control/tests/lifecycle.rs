//! From the first finding to the resolution, without a ladder.

use relight_core::incident::{ActionState, IncidentState, LedgerState};
use relight_core::rule::{DetectorView, Limits, RuleSpec, Step};
use relight_core::{Span, Timestamp};

use super::stage::{BASE, Stage, check, condition, ladder, page, rollback, rule, secs, settings};
use crate::control::{Control, ControlInput, summary};

/// Guarantee: `for` wants the condition to hold without a break; what does not come to that leaves
/// no incident behind.
#[test]
fn short_excursions_come_to_nothing() {
    check(rule(), "..!..!.x5!.", "nothing");
    check(rule(), "..!!", "40 opened, Open");
    check(RuleSpec { hold: Span::ZERO, ..rule() }, "..!", "30 opened, Open");
    check(RuleSpec { hold: Span::ZERO, hold_turns: 3, ..rule() }, "..!!", "Pending");
    check(RuleSpec { hold: Span::ZERO, hold_turns: 3, ..rule() }, "..!!!", "50 opened, Open");
}

/// Guarantee: it is over after `keep_firing_for` of calm; calm that does not last starts anew.
#[test]
fn calm_must_last() {
    check(rule(), "!!...", "20 opened, 30 recovering, 50 resolved, Resolved by itself");
    check(rule(), "!!..", "20 opened, 30 recovering, Recovering");
    check(rule(), "!!..!", "20 opened, 30 recovering, 50 relapsed, Open");
    check(
        rule(),
        "!!..!...",
        "20 opened, 30 recovering, 50 relapsed, 60 recovering, 80 resolved, Resolved by itself",
    );
}

/// Scenario: data goes missing while `for` runs, while the incident is open, and while it is calm.
/// Guarantee: bins without data neither advance nor reset anything, and never resolve an incident.
#[test]
fn missing_data_never_resolves() {
    check(rule(), "!_x9", "Pending");
    check(rule(), "!_!", "30 opened, Open");
    check(rule(), "!sx9!", "20 stale, 110 fresh, 110 opened, Open");
    check(rule(), "!!sx500", "20 opened, 30 stale, Open");
    check(rule(), "!!.sx500", "20 opened, 30 recovering, 40 stale, Recovering");
    check(rule(), "!!.sx9.", "20 opened, 30 recovering, 40 stale, 130 fresh, Recovering");
    // Nor does a condition that missing data satisfies.
    let out_of_band = condition("!d.in_band", |view| Ok(!view.detectors[0].in_band()));
    check(RuleSpec { when: out_of_band, ..rule() }, "!_x9", "Pending");
    check(rule(), "!!.__.", "20 opened, 30 recovering, 60 resolved, Resolved by itself");
}

/// Plays bins of two detectors, the first of which has fired, and gives what became of the incident.
fn after_firing(views: impl Fn(i64) -> Vec<DetectorView>) -> IncidentState {
    let two = RuleSpec { detectors: vec![0, 1], ..rule() };
    let mut stage = Stage::new(vec![two]);
    stage.play("!!");
    for n in 2..100 {
        let start = BASE.plus(secs(10 * n));
        let queries = stage.control.queries(&[]);
        let views: Vec<_> = queries.into_iter().map(|query| (query, views(n))).collect();
        let turn = crate::control::BinTurn {
            start,
            end: start.plus(secs(10)),
            events: &[],
            recent: &crate::intake::Recent::default(),
            findings: &[],
            views: &views,
            groups_known: &std::collections::BTreeMap::new(),
        };
        stage.control.bin_turn(&turn, &mut Vec::new(), &mut Vec::new());
    }
    // What was resolved long ago is in the ledger alone.
    stage.control.incidents().next().map_or(IncidentState::Resolved, |incident| incident.state)
}

const WELL: DetectorView = DetectorView {
    score: 0.0,
    rows: 1,
    anomalous: 0,
    with_data: 1,
    left: 0,
    last: Timestamp::MAX,
    fresh_until: Timestamp::MAX,
    stale: false,
};

/// Scenario: one of a rule's two detectors fired; then its rows vanish while the other's are calm: at once, or with the
/// time that a row may take.
/// Guarantee: the other's data does not stand in for what is missing.
#[test]
fn calm_of_another_detector_is_not_calm() {
    let gone = DetectorView { with_data: 0, stale: true, ..WELL };
    assert_eq!(after_firing(|_| vec![gone, WELL]), IncidentState::Open);
    let fired = DetectorView { with_data: 0, left: 1, ..WELL };
    assert_eq!(after_firing(|_| vec![fired, WELL]), IncidentState::Open);
}

/// Scenario: the two detectors' exporters report in turn, and never in one bin; both are well again.
/// Guarantee: the incident ends: between two of its values a row is as it was.
#[test]
fn exporters_take_turns() {
    let waits = DetectorView { with_data: 0, ..WELL };
    let views = |n| if n % 2 == 0 { vec![WELL, waits] } else { vec![waits, WELL] };
    assert_eq!(after_firing(views), IncidentState::Resolved);
}

/// Guarantee: a detector that judges silence opens incidents without data, and they end with data.
#[test]
fn absence_opens_and_data_ends_it() {
    check(rule(), "AAA...", "10 stale, 20 opened, 40 fresh, 40 recovering, 60 resolved, Resolved by itself");
}

/// Scenario: a human acknowledges an incident about silence, and one whose data has stopped.
/// Guarantee: the first goes on, since its silence is what is judged; nothing is judged of the second, which is closed.
#[test]
fn an_incident_about_silence_is_not_closed_as_silent() {
    let goes_on = "10 stale, 20 opened, 30 acknowledged, Open";
    check(rule(), "AAAaAA", goes_on);
    let closed = "20 opened, 30 stale, 90 acknowledged, 90 resolved, Resolved by a human";
    check(rule(), "!!sx7a", closed);
}

/// Guarantee: a row that took what it sees for normal ends its incident as such, never as recovered.
#[test]
fn a_new_normal_is_no_recovery() {
    let script = "!!!R...";
    check(rule(), script, "20 opened, 40 relearned, 50 recovering, 70 resolved, Resolved new normal");
    let mut stage = Stage::new(vec![ladder(vec![rollback()])]);
    stage.play("!!+R.x20");
    let incident = stage.ledger.incidents.values().next().expect("there is one");
    assert_eq!(incident.recovered, None);
    assert_eq!(incident.mitigated, None, "a row that re-learned proves nothing");
    assert!(stage.story().ends_with("Resolved new normal"), "{}", stage.story());
}

/// Guarantee: the same trouble within `reopen_within` is the same incident in a new episode, and it
/// has to hold as long as the first time; later it is another incident.
#[test]
fn it_reopens_within_its_window() {
    check(rule(), "!!... .x9!.", "20 opened, 30 recovering, 50 resolved, Resolved by itself");
    check(rule(), "!!... .x9!!", "20 opened, 30 recovering, 50 resolved, 140 returned, 160 reopened, Open");
    check(rule(), "!!... .x60!!", "20 opened, 30 recovering, 50 resolved, 650 returned, 670 reopened, Open");
    check(rule(), "!!... .x61!!", "680 opened, Open");
    let mut stage = Stage::new(vec![rule()]);
    stage.play("!!... .x9!!");
    let incident = stage.ledger.incidents.values().next().expect("there is one");
    assert_eq!((stage.ledger.incidents.len(), incident.episode), (1, 2));
    assert_eq!(incident.first_finding, BASE.plus(secs(140)));
    assert_eq!((incident.onset, incident.recovered), (BASE.plus(secs(140)), None));
}

/// Guarantee: more reopenings than `max_flaps` are a human's business, latched until one acks.
#[test]
fn f09_flapping_escalates_and_latches() {
    let mut stage = Stage::new(vec![RuleSpec { max_flaps: 1, ..rule() }]);
    stage.play("!!... !!... !!...");
    assert!(stage.story().ends_with("120 escalated, 130 recovering, Escalated"), "{}", stage.story());
    stage.play(".x50 a");
    assert!(stage.story().ends_with("650 acknowledged, 650 resolved, Resolved by a human"));
    stage.play("!! a");
    assert!(stage.story().ends_with("670 escalated, 670 acknowledged, Responding"), "{}", stage.story());
    stage.play("...");
    assert!(stage.story().ends_with("700 resolved, Resolved by itself"), "{}", stage.story());
}

/// Scenario: an incident that waits for a human; trouble comes back soon, and after as long a calm as makes it news.
/// Guarantee: the first is that incident's; of the second people are told, in an episode of its own that waits for a human,
/// too, with nothing changed.
#[test]
fn trouble_after_a_long_calm_is_told_though_a_human_is_waited_for() {
    let mut stage = Stage::new(vec![RuleSpec { max_flaps: 0, ..ladder(vec![page(), rollback()]) }]);
    stage.play("!!... !!");
    let pages = |stage: &Stage| stage.ledger.actions.values().filter(|action| !action.mutates).count();
    let told = pages(&stage);
    assert!(stage.story().contains("escalated"), "{}", stage.story());
    stage.play(".x62 !!");
    assert_eq!(pages(&stage), told, "{}", stage.story());
    stage.play(".x63 !.x5 !!!");
    assert_eq!(pages(&stage), told + 1, "{}", stage.story());
    let incident = stage.ledger.incidents.values().next().expect("it is there");
    assert_eq!((incident.state, incident.rested), (IncidentState::Escalated, false));
    let last = stage.ledger.actions.values().filter(|a| a.mutates && a.episode == incident.episode);
    assert!(last.clone().count() <= 1 && last.clone().all(|a| a.state == ActionState::Blocked));
    stage.play("!x30");
    assert_eq!(pages(&stage), told + 1);
}

/// Guarantee: a condition that cannot be evaluated is false, counted each time, told once; and is no
/// recovery while there are findings.
#[test]
fn a_condition_error_is_false_and_told_once() {
    let mut stage = Stage::new(vec![rule()]);
    stage.play("EE!!EE");
    assert_eq!(stage.control.counters().condition_errors, 4);
    assert_eq!(stage.story(), "40 opened, 50 condition_error, Open");
}

/// Guarantee: the earliest onset that a detector names until the incident opens is believed, within an
/// hour before the first finding and never before the end of the episode before.
#[test]
fn onsets_are_believed_within_reason() {
    let onsets = |script: &str| {
        let mut stage = Stage::new(vec![RuleSpec { keep_firing: secs(10), ..rule() }]);
        stage.play(script);
        let incident = stage.ledger.incidents.values().next().expect("there is one");
        (incident.first_finding.since(BASE), incident.onset.since(BASE))
    };
    assert_eq!(onsets("....!!"), (secs(40), secs(40)));
    assert_eq!(onsets("....o!"), (secs(40), secs(10)));
    assert_eq!(onsets("....!o"), (secs(40), secs(20)));
    assert_eq!(onsets("....!!o"), (secs(40), secs(40)));
    assert_eq!(onsets("....OO"), (secs(40), secs(40)));
    assert_eq!(onsets("!!... oo"), (secs(50), secs(30)));
    assert_eq!(onsets("!!. oo"), (secs(30), secs(30)));
}

/// Guarantee: `changed` looks at the window before the turn, and a restart forgets no change.
#[test]
fn changed_joins_events_with_the_group() {
    let after_deploy = || RuleSpec {
        when: condition("d.score > 1.0 && changed(deploy, 30s)", |view| {
            Ok(view.detectors[0].score > 1.0 && (view.changed)("deploy", secs(30)))
        }),
        hold: Span::ZERO,
        ..rule()
    };
    check(after_deploy(), "..!.", "nothing");
    check(after_deploy(), "D.!", "20 opened, Open");
    check(after_deploy(), "D..r!", "30 opened, Open");
    check(after_deploy(), "D...!", "nothing");
}

/// Scenario: what a deploy has broken stays broken for longer than changes are remembered.
/// Guarantee: the deploy is remembered for as long as the incident lasts, also over a restart, and no longer.
#[test]
fn a_change_does_not_age_out_of_a_live_incident() {
    let after_deploy = RuleSpec {
        when: condition("d.score > 1.0 && changed(deploy, 30s)", |view| {
            Ok(view.detectors[0].score > 1.0 && (view.changed)("deploy", secs(30)))
        }),
        hold: Span::ZERO,
        ..rule()
    };
    let mut stage = Stage::new(vec![after_deploy]);
    stage.play("D!x9000 r .!");
    assert_eq!(stage.story(), "10 opened, 90010 recovering, 90020 relapsed, Open");
    stage.play("...~x9000 .");
    assert!(stage.ledger.state().changes.is_empty(), "{}", stage.story());
}

/// Scenario: the rule of an open incident is removed, and the process starts again.
/// Guarantee: the incident ends, said so, in the next turn.
#[test]
fn an_incident_whose_rule_is_gone_ends() {
    let mut stage = Stage::new(vec![rule()]);
    stage.play("!!");
    let mut control = Control::new(settings(Vec::new()), stage.ledger.state());
    let (start, end) = (stage.now, stage.now.plus(secs(10)));
    let turn = crate::control::BinTurn {
        start,
        end,
        events: &[],
        recent: &crate::intake::Recent::default(),
        findings: &[],
        views: &[],
        groups_known: &std::collections::BTreeMap::new(),
    };
    let mut writes = Vec::new();
    control.bin_turn(&turn, &mut writes, &mut Vec::new());
    for write in writes {
        stage.ledger.apply(write);
    }
    assert_eq!(stage.story(), "20 opened, 30 resolved, Resolved rule removed");
}

/// Scenario: after a rewind turns come again that the ledger has already.
/// Guarantee: they do nothing; other findings than the first time are counted.
#[test]
fn turns_that_were_applied_are_ignored() {
    let mut stage = Stage::new(vec![ladder(vec![page()])]);
    stage.play("!!!");
    let (ledger, started) = (stage.ledger.clone(), stage.started.len());
    for (last, mismatches) in [('!', 0), ('.', 1)] {
        stage.now = BASE;
        stage.play("!!");
        let (writes, effects) = stage.step(last);
        assert!(writes.is_empty() && effects.is_empty());
        assert_eq!(stage.control.counters().digest_mismatches, mismatches);
    }
    assert_eq!((stage.ledger.state(), stage.started.len()), (ledger.state(), started));
    let fresh = Control::new(settings(vec![rule()]), LedgerState::default());
    assert_eq!((fresh.applied_through(), fresh.poll_timeout()), (None, None));
}

/// Scenario: a rewind brings an ack again: before the next bin turn, and long after.
/// Guarantee: it is applied once; it does not take back an escalation that came later.
#[test]
fn a_command_that_comes_again_is_not_obeyed_again() {
    let mut stage = Stage::new(vec![RuleSpec { max_flaps: 0, ..rule() }]);
    stage.play("!!... !! a");
    let acked = stage.story();
    let (then, id) = (stage.now, stage.story_id());
    let ack = ControlInput::Command { at: then, verb: "ack".to_owned(), target: id.clone() };
    stage.turn(ack, then);
    assert_eq!(stage.story(), acked);
    stage.play("... !!");
    let escalated = stage.story();
    assert!(escalated.ends_with("Escalated"), "{escalated}");
    let older = ControlInput::Command { at: then.minus(secs(1)), verb: "ack".to_owned(), target: id };
    stage.turn(older, then);
    assert_eq!((stage.story(), stage.control.counters().stray_inputs), (escalated, 2));
}

/// Guarantee: memory holds what can still matter, not all that ever happened.
#[test]
fn what_is_over_leaves_memory() {
    let mut stage = Stage::new(vec![ladder(vec![page()])]);
    stage.play("!!+...");
    assert_eq!((stage.control.incidents().count(), stage.control.actions().count()), (1, 1));
    stage.play(".x70");
    assert_eq!((stage.control.incidents().count(), stage.control.actions().count()), (0, 1));
    stage.now = Timestamp::from_secs(1_700_100_000);
    stage.play(".");
    assert_eq!((stage.control.incidents().count(), stage.control.actions().count()), (0, 0));
    assert_eq!(stage.ledger.incidents.len(), 1);
    // An action on its way keeps its incident, so that its outcome finds it.
    let mut stage = Stage::new(vec![ladder(vec![page()])]);
    stage.play("!!... .x70");
    assert_eq!(stage.control.unfinished().count(), 1);
    stage.play("+.");
    assert_eq!(stage.control.incidents().count(), 0);
    assert!(stage.story().ends_with("sent page, Resolved by itself"), "{}", stage.story());
}

/// Guarantee: times are counted from the onset, and credit is given only for what was proven.
#[test]
fn summary_counts_by_rule() {
    let rollback = Step { limits: Limits::default(), ..rollback() };
    let mut stage = Stage::new(vec![ladder(vec![page(), rollback])]);
    stage.play("!!+!+.x70 !!+...");
    let incidents: Vec<_> = stage.ledger.incidents.values().cloned().collect();
    let actions: Vec<_> = stage.ledger.actions.values().cloned().collect();
    let summary = summary::summarize(&incidents, &actions);
    let [rule] = summary.as_slice() else { panic!("one rule, one summary") };
    assert_eq!((rule.resolved, rule.by_verified_action, rule.by_themselves), (2, 1, 1));
    let detect = rule.time_to_detect.expect("both were detected");
    assert_eq!((detect.p50, detect.p90), (secs(20), secs(20)));
    let recover = rule.time_to_recover.expect("both recovered");
    assert_eq!((recover.p50, recover.p90), (secs(20), secs(30)));
    assert_eq!(rule.time_to_recover_by_themselves.map(|t| t.p50), Some(secs(20)));
}
