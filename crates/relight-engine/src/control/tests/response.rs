//! The ladder, its gates and its proofs.

use relight_core::incident::{ActionState, IncidentState};
use relight_core::rule::{Limits, Mode, OnInconclusive, RuleSpec, Step, Verify};

use super::stage::{Stage, check, condition, ladder, page, rollback, rule, secs};

fn in_mode(mode: Mode) -> RuleSpec {
    ladder(vec![Step { mode, ..page() }, Step { mode, ..rollback() }, Step { mode, ..page() }])
}

/// Guarantee: the step helps, it is proven, and the incident ends by it.
#[test]
fn a_verified_step_ends_the_ladder() {
    check(
        ladder(vec![page(), rollback(), page()]),
        "!!+ + . . . . .",
        "20 opened, 20 started page, 20 sent page, 20 started rollback, 20 verifying rollback, \
         30 recovering, 50 verified rollback, 50 resolved, Resolved by action",
    );
    // Sent while the trouble was at its height, proven only by bins from after `settle`.
    check(
        ladder(vec![rollback(), page()]),
        "!! !+ ! . . .",
        "20 opened, 20 started rollback, 30 verifying rollback, 50 recovering, 60 verified rollback, \
         70 resolved, Resolved by action",
    );
    // Calm for long enough, but the proof is still out: it is waited for.
    check(
        RuleSpec { keep_firing: secs(10), ..ladder(vec![rollback()]) },
        "!!+ . . .",
        "20 opened, 20 started rollback, 20 verifying rollback, 30 recovering, 50 verified rollback, \
         50 resolved, Resolved by action",
    );
}

/// Scenario: a rollback brings about what its proof asks for, and the rule's condition holds all the same.
/// Guarantee: the ladder goes on once the time that the step had to help is over.
#[test]
fn a_proof_narrower_than_the_condition_does_not_end_the_ladder() {
    let narrow = condition("true", |_| Ok(true));
    let verify = rollback().verify.map(|verify| Verify { require: narrow, ..verify });
    check(
        ladder(vec![Step { verify, ..rollback() }, page()]),
        "!!+!x14",
        "20 opened, 20 started rollback, 20 verifying rollback, 50 verified rollback, 140 relapsed, 140 started page, \
         Responding",
    );
}

/// Scenario: it is calm before the action even starts to work.
/// Guarantee: relight does not take credit for it.
#[test]
fn what_was_well_before_is_not_credited() {
    let asks_first = Step { mode: Mode::Approve, ..rollback() };
    let mut stage = Stage::new(vec![RuleSpec { keep_firing: secs(60), ..ladder(vec![asks_first]) }]);
    stage.play("!! . y");
    assert!(stage.story().ends_with("30 blocked rollback by recovered, Recovering"), "{}", stage.story());
    stage.play(".x9");
    assert!(stage.story().ends_with("Resolved by itself"), "{}", stage.story());
    assert!(stage.started.is_empty());
}

/// Scenario: the same trouble is found again a hundred times, and every turn comes again.
/// Guarantee: one action.
#[test]
fn f08_duplicate_alert_100x() {
    let mut stage = Stage::new(vec![ladder(vec![rollback()])]);
    stage.play("!!+");
    for _ in 0..100 {
        stage.step('!');
        stage.now = stage.now.minus(secs(10));
        stage.step('!');
        let again = stage.started[0].id.clone();
        stage.outcome(again, true);
    }
    assert_eq!(stage.started.len(), 1);
}

/// Scenario: the condition toggles every 20 s for an hour, and the rollback never lasts.
/// Guarantee: one rollback, a bounded number of pages, a human is called.
#[test]
fn f09_flap() {
    let mut stage = Stage::new(vec![RuleSpec { keep_firing: secs(20), ..ladder(vec![rollback(), page()]) }]);
    for _ in 0..90 {
        stage.play("!!+..+");
    }
    let count = |verb| stage.started.iter().filter(|action| action.action == verb).count();
    assert_eq!(count("rollback"), 1);
    assert!(count("page") <= 4, "{} pages", count("page"));
    assert!(stage.story().ends_with("Escalated"), "{}", stage.story());
}

/// Guarantee: a rollback that does not help is not tried again; the page goes out and a human is called.
#[test]
fn f10_rollback_does_not_help() {
    check(
        ladder(vec![rollback(), page()]),
        "!!+ !x12 + !x50",
        "20 opened, 20 started rollback, 20 verifying rollback, 140 ineffective rollback, \
         140 started page, 140 sent page, 140 escalated, Escalated",
    );
    // Acknowledged is acknowledged: what goes on is no reason to escalate again.
    let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
    stage.play("!!+ !x12 + a !x9");
    assert!(stage.story().ends_with("140 acknowledged, Responding"), "{}", stage.story());
}

/// Guarantee: an action that could not be carried out hands on.
#[test]
fn a_failed_step_hands_on() {
    check(
        ladder(vec![page(), rollback(), page()]),
        "!!- -",
        "20 opened, 20 started page, 20 failed page, 20 started rollback, 20 failed rollback, \
         20 started page, Responding",
    );
    check(
        ladder(vec![page()]),
        "!!-!x9",
        "20 opened, 20 started page, 20 failed page, 20 escalated, Escalated",
    );
}

/// Guarantee: a ladder that only tells somebody is no failure when it is through.
#[test]
fn a_ladder_of_pages_does_not_escalate() {
    check(
        ladder(vec![page(), page()]),
        "!!++!x50...",
        "20 opened, 20 started page, 20 sent page, 20 started page, 20 sent page, 530 recovering, \
         550 resolved, Resolved by itself",
    );
}

/// Scenario: the data ends after the action.
/// Guarantee: inconclusive; no other action that changes the world, but the page goes out.
#[test]
fn f13_missing_data_no_action() {
    let script = "!!+ sx12 + ";
    let blind = "20 opened, 20 started rollback, 20 verifying rollback, 30 stale, \
                 140 inconclusive rollback, 140 blocked rollback by freshness, 140 started page, \
                 140 sent page, 140 escalated, Escalated";
    check(ladder(vec![rollback(), rollback(), page()]), script, blind);
    // The same when no bin closes at all: the deadline alone tells.
    let mut stage = Stage::new(vec![ladder(vec![rollback(), rollback(), page()])]);
    stage.play("!!+ ~x12");
    let (due, why) = stage.control.poll_timeout().expect("a verification runs");
    assert_eq!((due, why), (stage.now, "verification"));
    stage.turn(crate::control::ControlInput::Timeout, due);
    assert!(stage.story().contains("140 blocked rollback by freshness, 140 started page"));
    // Silence itself may be the trouble: it pages, and changes nothing.
    check(
        ladder(vec![rollback(), page()]),
        "AA",
        "10 stale, 20 opened, 20 blocked rollback by freshness, 20 started page, Responding",
    );
}

/// Scenario: an action, and then traffic that stops: before the first sample, after one that is out of band, after one that is
/// in it; at once, or as a source that goes silent altogether; `settle` is over long before.
/// Guarantee: no traffic proves nothing: inconclusive, not counted by the breaker, and nothing else is changed until there is
/// traffic again; the page goes out. With traffic to the end the same samples are "did not help".
#[test]
fn no_traffic_is_no_proof() {
    let respond = || vec![rollback(), Step { action: "scale".to_owned(), ..rollback() }, page()];
    let play = |script: &str| {
        let free = |step: Step| Step { limits: Limits::default(), ..step };
        let mut stage = Stage::new(vec![ladder(respond().into_iter().map(free).collect())]);
        stage.play(script);
        let breaker = stage.ledger.breakers.get("r").copied().unwrap_or(0);
        (stage.story(), breaker)
    };
    let gone = ["!!+ sx14", "!!+ !! sx12", "!!+ !!! __ sx10", "!!+ !! ~x12 !", "!!+ !x5 sx9"];
    for script in gone {
        let (story, breaker) = play(script);
        assert!(
            story.contains("140 inconclusive rollback, 140 blocked scale by freshness, 140 started page"),
            "{script}: {story}"
        );
        assert_eq!(breaker, 0, "{script}");
    }
    for script in ["!!+ !x13", "!!+ sx8 !x5", "!!+ _ ! _ ! _ ! _ ! _ ! _ ! _ !", "!!+ !x10 _ !"] {
        let (story, breaker) = play(script);
        assert!(story.contains("140 ineffective rollback"), "{script}: {story}");
        assert_eq!(breaker, 1, "{script}");
    }
}

/// Scenario: `settle` is 15 s, no multiple of the bin: one bin overlaps its end, the next is the first behind it.
/// Guarantee: a bin of which a part is within `settle` proves nothing.
#[test]
fn a_bin_that_overlaps_settle_is_no_sample() {
    let verify = rollback().verify.map(|verify| Verify { settle: secs(15), ..verify });
    // The action ends at 20, so samples count from 35 on: the bin at 30 overlaps, those at 40 and 50 make up the 20 s.
    check(
        RuleSpec { keep_firing: secs(600), ..ladder(vec![Step { verify, ..rollback() }]) },
        "!!+ .x6",
        "20 opened, 20 started rollback, 20 verifying rollback, 30 recovering, 60 verified rollback, Mitigated",
    );
}

/// Guarantee: `on_inconclusive: wait` waits once more, and once only; in band but not yet for long
/// enough is no failure.
#[test]
fn inconclusive_may_wait_once() {
    let verify = rollback().verify.expect("it wants proof");
    let waits = Verify { on_inconclusive: OnInconclusive::Wait, hold: secs(60), ..verify };
    let patient = || ladder(vec![Step { verify: Some(waits.clone()), ..rollback() }]);
    check(
        patient(),
        "!!+ sx24",
        "20 opened, 20 started rollback, 20 verifying rollback, 30 stale, 140 waiting rollback, \
         260 inconclusive rollback, 260 escalated, Escalated",
    );
    check(
        RuleSpec { keep_firing: secs(600), ..patient() },
        "!!+ !x9 .x6",
        "20 opened, 20 started rollback, 20 verifying rollback, 120 recovering, 140 waiting rollback, \
         170 verified rollback, Mitigated",
    );
}

/// Guarantee: each mode lets out what it says: nothing, notifications, what a human agrees to, all.
#[test]
fn f16_modes() {
    for (mode, name) in [(Mode::Off, "off"), (Mode::Observe, "observe")] {
        let mut stage = Stage::new(vec![in_mode(mode)]);
        stage.play("!!");
        assert!(stage.started.is_empty());
        let details: Vec<&str> = stage.ledger.actions.values().map(|a| a.detail.as_str()).collect();
        let [page, rollback] = ["suggest", "auto"]
            .map(|wanted| format!("mode: the config allows `{name}`, this needs `{wanted}`"));
        assert_eq!(details, [page.as_str(), rollback.as_str(), page.as_str()]);
        assert!(stage.story().ends_with("Open"), "what the mode holds back is no failure");
    }
    check(
        in_mode(Mode::Suggest),
        "!!++!!",
        "20 opened, 20 started page, 20 sent page, 20 blocked rollback by mode, 20 started page, \
         20 sent page, Responding",
    );
}

/// Guarantee: what waits for approval starts when it comes, goes on when it does not, and is asked
/// again at the gates when it comes.
#[test]
fn approval() {
    let asks = || ladder(vec![Step { mode: Mode::Approve, ..rollback() }, page()]);
    check(asks(), "!!y", "20 opened, 20 awaiting_approval rollback, 20 started rollback, Responding");
    check(
        asks(),
        "!!n+",
        "20 opened, 20 awaiting_approval rollback, 20 blocked rollback by rejected, 20 started page, \
         20 sent page, 20 escalated, Escalated",
    );
    check(
        asks(),
        "!!!x89r!!",
        "20 opened, 20 awaiting_approval rollback, 920 blocked rollback by approval, 920 started page, \
         Responding",
    );
    check(
        asks(),
        "!!...",
        "20 opened, 20 awaiting_approval rollback, 30 recovering, 50 blocked rollback by recovered, \
         50 resolved, Resolved by itself",
    );
}

/// Guarantee: cooldown, budget, lock and breaker hold back what changes the world, say which and why,
/// and never hold back a page.
#[test]
fn gates_hold_back() {
    let again = || RuleSpec { max_flaps: 9, ..ladder(vec![rollback(), page()]) };
    let play = |rule: RuleSpec, script: &str| {
        let mut stage = Stage::new(vec![rule]);
        stage.play(script);
        stage
    };
    let stage = play(again(), "!!+..... !!");
    assert!(
        stage.story().ends_with("90 reopened, 90 blocked rollback by cooldown, 90 started page, Responding")
    );

    let limits = Limits { max_per_day: Some(1), lock: "l".to_owned(), ..Limits::default() };
    let once = RuleSpec { respond: vec![Step { limits, ..rollback() }, page()], ..again() };
    let stage = play(once, "!!+..... !!");
    assert!(stage.story().contains("90 blocked rollback by budget"), "{}", stage.story());

    let free = Limits { lock: "l".to_owned(), ..Limits::default() };
    let breaks = RuleSpec { respond: vec![Step { limits: free, ..rollback() }, page()], ..again() };
    let twice = "!!-+...a !!-+...a !!";
    let stage = play(breaks.clone(), &format!("{twice}+..."));
    assert!(stage.story().contains("blocked rollback by breaker"), "{}", stage.story());
    let stage = play(RuleSpec { breaker_after: 9, ..breaks.clone() }, twice);
    assert_eq!(stage.started.last().map(|a| a.action.as_str()), Some("rollback"), "{}", stage.story());
}

/// Guarantee: a cooldown counts from the action's end, however long it ran.
#[test]
fn cooldown_counts_from_the_end() {
    let limits = Limits { cooldown: secs(60), lock: "l".to_owned(), ..Limits::default() };
    let slow = Step { limits, verify: None, ..rollback() };
    let story = |script: &str| {
        let mut stage = Stage::new(vec![ladder(vec![slow.clone()])]);
        stage.play(script);
        stage.story()
    };
    let early = story("!! !x4 + ... !!");
    assert!(
        early.contains("60 sent rollback") && early.contains("110 blocked rollback by cooldown"),
        "{early}"
    );
    let late = story("!! !x4 + .... !!");
    assert!(late.ends_with("120 started rollback, Responding"), "{late}");
}

/// Scenario: two groups in trouble whose steps share a lock.
/// Guarantee: one acts; the other is held back by the holder's name.
#[test]
fn one_action_at_a_time_on_a_lock() {
    let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
    for _ in 0..2 {
        stage.bin(&[("cart", '!'), ("shop", '!')]);
    }
    let verbs: Vec<&str> = stage.started.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(verbs, ["rollback", "page"]);
    let blocked = stage.ledger.actions.values().find(|a| a.state == ActionState::Blocked);
    let detail = blocked.map(|a| a.detail.clone()).unwrap_or_default();
    assert_eq!(detail, format!("lock: deploy/shop is held by {}", stage.started[0].id));
}

/// Guarantee: what helped and did not last is taken up by the next step, once it has held again.
#[test]
fn a_relapse_goes_on_with_the_ladder() {
    let rule = RuleSpec { keep_firing: secs(60), ..ladder(vec![rollback(), page()]) };
    check(
        rule,
        "!!+ . . . ! . ! ! +",
        "20 opened, 20 started rollback, 20 verifying rollback, 30 recovering, 50 verified rollback, \
         60 relapsed, 70 recovering, 80 relapsed, 90 started page, 90 sent page, 90 escalated, Escalated",
    );
}

/// Scenario: a verification runs, the process dies, and no bin closes until it is long over.
/// Guarantee: the deadline is absolute: it is due at the same time as without the restart.
#[test]
fn deadlines_survive_a_restart() {
    let story = |script: &str| {
        let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
        stage.play(script);
        (stage.story(), stage.ledger.state())
    };
    let calm = story("!!+ !x11 ~x20 !");
    assert_eq!(calm, story("!!r+r !x11r ~x20 r!"));
    assert!(calm.0.contains("140 ineffective rollback, 140 started page"), "{}", calm.0);
}

/// Guarantee: the intent is in the ledger, in the same turn, for every effect that leaves.
#[test]
fn no_effect_without_an_intent() {
    use crate::control::Effect;
    use relight_core::incident::LedgerWrite;
    let mut stage = Stage::new(vec![ladder(vec![page(), rollback(), page()])]);
    for (writes, effects) in stage.play("!!+ + !x13 +") {
        for effect in effects {
            let Effect::Start { action, incident } = effect else { panic!("{effect:?}") };
            assert_eq!(action.state, ActionState::Pending);
            let has = |w: &LedgerWrite| matches!(w, LedgerWrite::Action(a) if **a == action);
            assert!(writes.iter().any(has));
            let knows = |w: &LedgerWrite| matches!(w, LedgerWrite::Incident(i) if i.id == incident.id);
            assert!(writes.iter().any(knows));
            assert!(matches!(writes.last(), Some(LedgerWrite::Applied(_))));
        }
    }
    assert_eq!(stage.started.len(), 3);
}

/// Guarantee: a late outcome, or one of an action nobody knows, changes nothing.
#[test]
fn stray_inputs_are_counted() {
    let mut stage = Stage::new(vec![ladder(vec![rollback()])]);
    stage.play("!!.x9");
    assert_eq!(stage.ledger.incidents.values().next().map(|i| i.state), Some(IncidentState::Resolved));
    let id = stage.started[0].id.clone();
    stage.outcome(id.clone(), true);
    assert_eq!(stage.ledger.actions[&id].state, ActionState::Inconclusive, "nobody can tell any more");
    stage.outcome(id, true);
    stage.outcome("nobody".to_owned(), false);
    stage.command("approve", Some("nobody".to_owned()));
    stage.command("dance", None);
    assert_eq!(stage.control.counters().stray_inputs, 4);
}

/// Guarantee: `require` may be looser than `when`: mitigated is not yet recovered.
#[test]
fn mitigated_is_not_recovered() {
    let verify = rollback().verify.expect("it wants proof");
    let loose = Verify { require: condition("true", |_| Ok(true)), ..verify };
    check(
        RuleSpec { respond: vec![Step { verify: Some(loose), ..rollback() }], ..rule() },
        "!!+!!!!...",
        "20 opened, 20 started rollback, 20 verifying rollback, 50 verified rollback, 70 recovering, \
         90 resolved, Resolved by action",
    );
}
