//! Attempts: permission, retries, doubt, restarts, and what holds everything back.

use relight_core::Span;
use relight_core::incident::{Action, ActionState, LedgerWrite};
use relight_core::responder::{EffectKind, NotSent};
use relight_core::rule::{Limits, Mode, RuleSpec, Step};

use super::stage::{Stage, Turned, ladder, page, rollback, secs};
use crate::control::{
    Answer, ControlInput, Effect, HAND_ON_AFTER, LONGEST_PAUSE, MUTATE_FOR, NOTIFY_FOR, pause_after,
};

/// What a turn lets out, in short: `start`, `send 1`, `withdraw`, `observe`.
fn told(turned: &Turned) -> String {
    let told = turned.1.iter().map(|effect| match effect {
        Effect::Start { .. } => "start".to_owned(),
        Effect::Send { action, .. } => format!("send {}", action.attempts),
        Effect::Withdraw { .. } => "withdraw".to_owned(),
        Effect::Observe { .. } => "observe".to_owned(),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// A stage on which the ladder's first step has started.
fn begun(step: Step) -> (Stage, String) {
    let mut stage = Stage::new(vec![RuleSpec { keep_firing: secs(600), ..ladder(vec![step, page()]) }]);
    stage.play("!!");
    let id = stage.started[0].id.clone();
    (stage, id)
}

fn action<'a>(stage: &'a Stage, id: &str) -> &'a Action {
    &stage.ledger.actions[id]
}

/// The next deadline, at its own time.
fn due(stage: &mut Stage) -> Turned {
    let (at, _) = stage.control.poll_timeout().expect("a deadline");
    stage.now = stage.now.max(at);
    stage.turn(ControlInput::Timeout, stage.now)
}

fn process(stage: &mut Stage) -> Turned {
    stage.restart();
    stage.turn(ControlInput::Restart, stage.now)
}

/// Guarantee: an attempt is in the ledger, with its plan, in the turn that lets it out; the plan of the first
/// attempt is that of all.
#[test]
fn an_attempt_is_written_before_it_is_sent() {
    let (mut stage, id) = begun(page());
    let turned = stage.ready(&id);
    assert_eq!(told(&turned), "send 1");
    let written = |w: &LedgerWrite| matches!(w, LedgerWrite::Action(a) if a.state == ActionState::Running);
    assert!(turned.0.iter().any(written));
    let plan = action(&stage, &id).plan.clone().expect("the plan is in the ledger");
    stage.answer(id.clone(), Answer::Retry(None));
    let other = relight_core::responder::Plan { summary: "other".to_owned(), ..plan.clone() };
    stage.now = stage.now.plus(secs(5));
    let turned = stage.turn(ControlInput::Ready { action: id.clone(), plan: Some(other) }, stage.now);
    let Some(Effect::Send { action, .. }) = turned.1.last() else { panic!("{}", told(&turned)) };
    assert_eq!((action.attempts, &action.plan), (2, &Some(plan)));
}

/// Guarantee: an action is asked for once: a second asker, and one for what nobody knows, is sent away.
#[test]
fn only_a_pending_action_is_sent() {
    let (mut stage, id) = begun(page());
    stage.ready(&id);
    assert_eq!(told(&stage.ready(&id)), "withdraw");
    assert_eq!(told(&stage.ready("nobody")), "withdraw");
    stage.answer(id.clone(), Answer::Done);
    assert_eq!(told(&stage.ready(&id)), "withdraw");
    assert_eq!(stage.control.counters().stray_inputs, 3);
}

/// Scenario: the world changes between the intent and the moment it could be sent.
/// Guarantee: the gates are read again right before; a page passes all the same.
#[test]
fn gates_are_read_again_before_sending() {
    type Case = (&'static str, fn(&mut Stage));
    let too_late = |stage: &mut Stage| stage.now = stage.now.plus(secs(200));
    let cases: [Case; 4] = [
        ("kill switch: paused, storm", |stage| drop(stage.command("pause", Some("storm".to_owned())))),
        ("freshness: no data since", |stage| drop(stage.play("s"))),
        ("recovered", |stage| drop(stage.play("."))),
        ("freshness: the stream is 3m20s behind, limit 2m30s", too_late),
    ];
    for (gate, happen) in cases {
        let (mut stage, id) = begun(rollback());
        happen(&mut stage);
        assert!(told(&stage.ready(&id)).starts_with("withdraw"), "{gate}");
        assert_eq!(action(&stage, &id).state, ActionState::Blocked);
        assert!(action(&stage, &id).detail.starts_with(gate), "{}", action(&stage, &id).detail);

        let (mut stage, id) = begun(page());
        happen(&mut stage);
        assert!(told(&stage.ready(&id)).ends_with("send 1"), "{gate}");
    }
    let (mut stage, id) = begun(rollback());
    assert_eq!(told(&stage.ready(&id)), "send 1", "its own lock and budget do not stand in its way");
}

/// Guarantee: what a human has agreed to need not be asked for again when it is sent.
#[test]
fn an_approved_action_is_sent() {
    let asks = Step { mode: Mode::Approve, ..rollback() };
    let mut stage = Stage::new(vec![ladder(vec![asks])]);
    stage.play("!!y");
    let id = stage.started[0].id.clone();
    assert_eq!(told(&stage.ready(&id)), "send 1");
}

/// Guarantee: paused means that nothing is changed and pages go out, over a restart, until `resume`.
#[test]
fn f15_kill_switch() {
    let mut stage = Stage::new(vec![ladder(vec![rollback(), page()])]);
    stage.command("pause", None);
    stage.restart();
    stage.play("!!+");
    assert_eq!(
        stage.story(),
        "20 opened, 20 blocked rollback by kill switch, 20 started page, 20 sent page, 20 escalated, Escalated"
    );
    stage.command("resume", None);
    stage.restart();
    assert_eq!(stage.control.holds().count(), 0);
    stage.play("a.....!!");
    assert!(stage.story().ends_with("started rollback, Responding"), "{}", stage.story());
    assert!(stage.ledger.audit.contains(&"held paused".to_owned()), "{:?}", stage.ledger.audit);
    assert!(stage.ledger.audit.contains(&"resumed paused".to_owned()));
}

/// Guarantee: after a cold start nothing is changed until it is warm again, and then it is.
#[test]
fn f14_warmup_no_action() {
    let rule = || RuleSpec { reopen_within: secs(0), ..ladder(vec![rollback(), page()]) };
    let mut stage = Stage::new(vec![rule()]);
    let until = Some(stage.now.plus(secs(60)));
    let why = "baselines start cold".to_owned();
    stage.turn(ControlInput::Hold { name: "warm_up".to_owned(), until, why }, stage.now);
    stage.restart();
    stage.play("!!+");
    assert!(stage.story().contains("20 blocked rollback by warm-up, 20 started page"), "{}", stage.story());
    stage.command("resume", None);
    assert_eq!(stage.control.holds().count(), 1, "what runs out by itself is not lifted by hand");
    stage.play("a.x6 !!");
    assert!(stage.story().ends_with("started rollback, Responding"), "{}", stage.story());
}

/// Guarantee: the pauses double up to their limit and differ by key.
#[test]
fn pauses_are_bounded_and_jittered() {
    for attempt in 1..100 {
        let full = (1_i64 << (attempt - 1).min(6)).min(60) * 1_000_000_000;
        let pause = pause_after(attempt, "a").ns();
        assert!((full / 2..full).contains(&pause), "{attempt}: {pause}");
        assert_eq!(pause, pause_after(attempt, "a").ns());
        assert_ne!(pause, pause_after(attempt, "b").ns());
    }
    assert!(pause_after(0, "a").ns() > 0);
}

/// Scenario: a page's target is down for ten minutes.
/// Guarantee: after two minutes the next step goes out; the page is tried on, over restarts, until it is
/// delivered.
#[test]
fn f01_page_target_down_10m() {
    let (mut stage, id) = begun(page());
    let begin = stage.now;
    let mut offers = 0;
    while stage.now.since(begin) < secs(600) {
        if action(&stage, &id).state == ActionState::Pending && action(&stage, &id).retry_at.is_none() {
            assert!(told(&stage.ready(&id)).starts_with("send"));
            stage.answer(id.clone(), Answer::Retry(None));
            offers += 1;
        }
        if offers % 3 == 0 {
            process(&mut stage);
        }
        due(&mut stage);
    }
    assert!((10..40).contains(&offers), "{offers} attempts in ten minutes");
    let fallback = stage.started.iter().find(|a| a.step == 1).expect("the fallback went out");
    assert_eq!(fallback.planned.since(begin), HAND_ON_AFTER);
    while action(&stage, &id).retry_at.is_some() {
        due(&mut stage);
    }
    let sent = told(&stage.ready(&id));
    assert_eq!(sent, format!("send {}", offers + 1));
    stage.answer(id.clone(), Answer::Done);
    assert_eq!(action(&stage, &id).state, ActionState::Succeeded);
}

/// Guarantee: a target that refuses for good hands on at once.
#[test]
fn f02_page_400() {
    let (mut stage, id) = begun(page());
    stage.ready(&id);
    let turned = stage.answer(id.clone(), Answer::Failed);
    assert_eq!(told(&turned), "start");
    assert_eq!(action(&stage, &id).state, ActionState::Failed);
}

/// Guarantee: the target's wish is honoured, up to a limit, and is never shorter than the own pause.
#[test]
fn f04_page_429_retry_after() {
    for (wish, least) in [(120, secs(120)), (86_400, LONGEST_PAUSE), (0, Span::ZERO)] {
        let (mut stage, id) = begun(page());
        stage.ready(&id);
        stage.answer(id.clone(), Answer::Retry(Some(secs(wish))));
        let pause = action(&stage, &id).retry_at.expect("it is tried again").since(stage.now);
        assert_eq!(pause, least.max(pause_after(1, &id)));
    }
}

/// Guarantee: nothing is tried for ever, and what changes the world not for long.
#[test]
fn attempts_end() {
    for (step, limit) in [(page(), NOTIFY_FOR), (rollback(), MUTATE_FOR)] {
        let (mut stage, id) = begun(step);
        let begin = stage.now;
        while !action(&stage, &id).state.is_final() {
            stage.bin(&[("shop", '!')]);
            if action(&stage, &id).retry_at.is_none() {
                stage.ready(&id);
            }
            stage.answer(id.clone(), Answer::Retry(None));
        }
        assert_eq!(action(&stage, &id).state, ActionState::Failed);
        assert!(action(&stage, &id).detail.contains("given up"), "{}", action(&stage, &id).detail);
        let tried = stage.now.since(begin);
        assert!(tried <= limit && tried.times(10) > limit.times(9), "{tried}");
    }
}

/// Scenario: the connection breaks after the request has left.
/// Guarantee: idempotent is sent again; what can be asked for is asked for; all else is left to a human.
#[test]
fn f05_f06_timeout_after_send() {
    let doubt = |effect| {
        let (mut stage, id) = begun(Step { effect, ..rollback() });
        stage.ready(&id);
        let turned = stage.answer(id.clone(), Answer::Ambiguous);
        (stage, id, told(&turned))
    };
    let (stage, id, out) = doubt(EffectKind::Idempotent);
    assert_eq!((out.as_str(), action(&stage, &id).state), ("", ActionState::Pending));
    assert!(action(&stage, &id).retry_at.is_some());

    let (mut stage, id, out) = doubt(EffectKind::FireOnce);
    assert_eq!((out.as_str(), action(&stage, &id).state), ("start", ActionState::Failed), "the page");
    assert!(stage.story().contains("failed rollback, 20 escalated, 20 started page"), "{}", stage.story());
    assert_eq!(told(&stage.ready(&id)), "withdraw");

    for (answer, state) in [
        (Answer::Done, ActionState::Verifying),
        (Answer::Retry(None), ActionState::Pending),
        (Answer::Ambiguous, ActionState::Failed),
    ] {
        let (mut stage, id, out) = doubt(EffectKind::Observable);
        assert_eq!((out.as_str(), action(&stage, &id).state), ("observe", ActionState::Unknown));
        assert_eq!(told(&process(&mut stage)), "observe", "a restart asks again");
        stage.answer(id.clone(), answer);
        assert_eq!(action(&stage, &id).state, state);
    }
}

/// Scenario: the process ends before the intent is sent, between attempt and answer, and between retries.
/// Guarantee: what was not sent is offered, what may have been is treated as in doubt.
#[test]
fn a_restart_takes_up_what_was_on_its_way() {
    let (mut stage, id) = begun(rollback());
    assert_eq!(told(&process(&mut stage)), "start");
    assert_eq!(told(&stage.ready(&id)), "send 1");
    assert_eq!(told(&process(&mut stage)), "start", "the page: the rollback is not sent again");
    assert_eq!(action(&stage, &id).state, ActionState::Failed);
    assert!(action(&stage, &id).detail.starts_with("ambiguous"), "{}", action(&stage, &id).detail);

    let (mut stage, id) = begun(page());
    stage.ready(&id);
    assert_eq!(told(&process(&mut stage)), "", "after a pause");
    assert_eq!(told(&due(&mut stage)), "start");
    assert_eq!(told(&stage.ready(&id)), "send 2");
    stage.answer(id.clone(), Answer::Retry(Some(secs(60))));
    let retry_at = action(&stage, &id).retry_at;
    assert_eq!(told(&process(&mut stage)), "", "deadlines are absolute");
    assert_eq!(action(&stage, &id).retry_at, retry_at);
}

/// Scenario: the queue is full when an action is offered, and when its target is to be asked whether it happened.
/// Guarantee: it costs no attempt and loses nothing: it is offered, or asked, again; what is under way is left alone.
#[test]
fn busy_is_offered_again() {
    let (mut stage, id) = begun(Step { effect: EffectKind::Observable, ..rollback() });
    assert_eq!(told(&stage.busy(&id)), "");
    assert_eq!(told(&due(&mut stage)), "start");
    assert_eq!(told(&stage.ready(&id)), "send 1");
    stage.busy(&id);
    assert_eq!(action(&stage, &id).state, ActionState::Running);
    assert_eq!(told(&stage.answer(id.clone(), Answer::Ambiguous)), "observe");
    assert_eq!(told(&stage.busy(&id)), "");
    assert_eq!(told(&due(&mut stage)), "observe");
    assert_eq!(action(&stage, &id).state, ActionState::Unknown);
}

/// Scenario: the config changes between intent and attempt, and the step is another one.
/// Guarantee: what was decided on is not sent in another's name.
#[test]
fn a_step_that_was_replaced_is_not_sent() {
    let (mut stage, id) = begun(rollback());
    let mut changed = Stage::new(vec![ladder(vec![Step { with: "other".to_owned(), ..rollback() }, page()])]);
    changed.ledger = stage.ledger.clone();
    changed.now = stage.now;
    changed.restart();
    assert!(told(&changed.ready(&id)).starts_with("withdraw"));
    assert!(action(&changed, &id).detail.starts_with("config"), "{}", action(&changed, &id).detail);
    assert_eq!(told(&stage.ready(&id)), "send 1");
}

/// Scenario: an action of which nothing left for its target: its request cannot be made; no attempt got a connection, for as
/// long as it is tried; and one that was sent once in between.
/// Guarantee: an error of that target: the incident says why, the ladder goes on, the reason is counted apart; no breaker, no
/// cooldown and no budget counts it. What was sent counts as ever.
#[test]
fn what_was_never_sent_says_nothing_about_the_action() {
    let play = |answers: &[Answer]| {
        let limits = Limits { cooldown: secs(600), max_per_day: Some(1), lock: "l".to_owned() };
        let mut stage = Stage::new(vec![ladder(vec![Step { limits, ..rollback() }, page()])]);
        stage.play("!!");
        let id = stage.started[0].id.clone();
        for n in 0.. {
            stage.ready(&id);
            stage.answer(id.clone(), answers[n.min(answers.len() - 1)]);
            if stage.ledger.actions[&id].state.is_final() {
                break;
            }
            // The stream goes on, and so does the trouble.
            stage.play("!x6");
        }
        let page = stage.started.iter().any(|action| !action.mutates);
        assert!(page, "{}", stage.story());
        (stage, id)
    };
    let unsent: [(&[Answer], &str); 3] = [
        (&[Answer::Unsent(NotSent::Request)], "request"),
        (&[Answer::Unreached(NotSent::Egress)], "egress"),
        (&[Answer::Unreached(NotSent::Connect), Answer::Unsent(NotSent::Start)], "start"),
    ];
    for (answers, reason) in unsent {
        let (stage, id) = play(answers);
        let action = &stage.ledger.actions[&id];
        assert_eq!((action.state, action.was_never_sent()), (ActionState::Failed, true), "{reason}");
        assert!(stage.story().contains(" not_sent"), "{}", stage.story());
        assert_eq!(stage.control.not_sent().collect::<Vec<_>>(), [(reason, 1)]);
        assert!(stage.ledger.breakers.is_empty() && stage.ledger.cooldowns.is_empty(), "{reason}");
    }
    let sent: [&[Answer]; 3] = [
        &[Answer::Failed],
        &[Answer::Unreached(NotSent::Connect), Answer::Retry(None), Answer::Unreached(NotSent::Connect)],
        &[Answer::Ambiguous],
    ];
    for answers in sent {
        let (stage, id) = play(answers);
        assert!(!stage.ledger.actions[&id].was_never_sent(), "{answers:?}");
        assert_eq!(stage.ledger.breakers.get("r"), Some(&1), "{answers:?}");
        assert!(stage.ledger.cooldowns.contains_key("l") && stage.control.not_sent().count() == 0);
    }
}

/// Scenario: the requests of two odd targets cannot be made, over and over; then a legitimate one needs its action.
/// Guarantee: it is taken.
#[test]
fn odd_targets_do_not_disable_a_rule() {
    let step = Step { limits: Limits::default(), ..rollback() };
    let mut stage = Stage::new(vec![ladder(vec![step, page()])]);
    for group in ["--a", "--b", "--c"] {
        stage.bin(&[(group, '!')]);
        stage.bin(&[(group, '!')]);
        let id = stage.started.last().map(|action| action.id.clone()).unwrap_or_default();
        stage.answer(id, Answer::Unsent(NotSent::Request));
    }
    stage.bin(&[("shop", '!')]);
    stage.bin(&[("shop", '!')]);
    let last = stage.started.iter().rfind(|action| action.mutates).expect("one was started");
    assert_eq!(last.group, super::stage::labels("shop"));
}
