//! Attempts over crashes, refusals, silence and full queues.

use relight_core::Span;
use relight_core::incident::{ActionState, IncidentState};
use relight_core::responder::{EffectKind, NotSent, Observation};
use relight_core::telemetry::ACTIONS_NOT_SENT;
use relight_engine::control::{ControlInput, LONGEST_PAUSE, pause_after};
use relight_runtime::{Clock, LiveInput};

use super::fake::Reply;
use super::journal::{Fate, latest};
use super::rig::{Rig, rule, story, yaml};

const PAGE: &str = "{do: page, with: duty}";
const ROLLBACK: &str = "{do: rollback, with: deployer}, {do: page, with: duty}";

/// Lets time pass until there are so many calls of a responder.
fn pass_until(rig: &Rig, with: &str, calls: usize) {
    rig.pass_until(&format!("call {calls} of {with}"), |rig| {
        rig.journal.sent().iter().filter(|sent| sent.with == with).count() >= calls
    });
}

/// Guarantee: an attempt is in the ledger on disk, with its plan, before the responder is called; what it answers
/// moves the ladder on.
#[test]
fn an_intent_is_in_the_ledger_before_the_first_byte_leaves() {
    let mut rig = Rig::with_ladder(ROLLBACK);
    rig.start();
    rig.seconds(3, 50.0);
    let sent = rig.journal.wait_sent(2);
    assert!(sent.iter().all(|sent| sent.in_ledger), "{sent:?}");
    assert_eq!(sent.iter().map(|sent| &*sent.with).collect::<Vec<_>>(), ["deployer", "duty"]);
    rig.journal.wait_action("the page", |action| action.step == 1 && action.state == ActionState::Succeeded);
    rig.stop();
    let on_disk = rig.on_disk();
    assert!(
        on_disk.actions.iter().all(|action| action.state == ActionState::Succeeded),
        "{:?}",
        on_disk.actions
    );
    assert_eq!(on_disk.incidents[0].timeline.iter().filter(|moment| moment.what == "sent").count(), 2);
}

/// Scenario: the process dies once the intent is written: of a page, and of what must not happen twice.
/// Guarantee: nothing had left; after a restart it leaves once, under the key that the intent has.
#[test]
fn e02_a_crash_before_the_attempt_sends_once() {
    for (ladder, with) in [(PAGE, "duty"), (ROLLBACK, "deployer")] {
        let mut rig = Rig::with_ladder(ladder);
        rig.start();
        rig.journal.fate(Fate::DieAfter("action_started"));
        rig.seconds_until_it_ends(50.0);
        rig.ended().expect("it died");
        assert!(rig.journal.sent().is_empty(), "{with}: {:?}", rig.journal.sent());
        let intent = rig.on_disk().actions.remove(0);
        assert_eq!((intent.state, intent.attempts), (ActionState::Pending, 0));
        rig.start();
        rig.seconds(2, 50.0);
        let sent = rig.journal.wait_calls(with, 1).remove(0);
        assert_eq!((&sent.key, sent.number, sent.in_ledger), (&intent.id, 1, true));
        rig.journal.wait_action("its end", |action| {
            action.id == intent.id && action.state == ActionState::Succeeded
        });
        rig.seconds(2, 50.0);
        rig.stop();
        assert_eq!(rig.journal.sent().iter().filter(|sent| sent.with == with).count(), 1);
    }
}

/// Scenario: the process dies once the attempt is written, before or after it left: nobody can tell.
/// Guarantee: what may be repeated is, under the same key; what may not is not started again, the incident says so and
/// calls a human, and the page behind it goes out; what can be asked is asked, and not sent again if it happened.
#[test]
fn e02_a_crash_before_the_answer_leaves_doubt() {
    let doubtful = |ladder: &str, effect, observed| {
        let mut rig = Rig::with_ladder(ladder);
        let with = if ladder == PAGE { "duty" } else { "deployer" };
        rig.fake_observed(with, effect, &[Reply::Done], observed);
        rig.start();
        rig.journal.fate(Fate::DieAfter("action_attempt"));
        rig.seconds_until_it_ends(50.0);
        rig.ended().expect("it died");
        let attempt = rig.on_disk().actions.remove(0);
        assert_eq!((attempt.state, attempt.attempts), (ActionState::Running, 1));
        rig.start();
        rig.seconds(2, 50.0);
        (rig, attempt.id)
    };

    let (rig, id) = doubtful(PAGE, EffectKind::Idempotent, Observation::Unknown);
    pass_until(&rig, "duty", 1);
    let again = rig.journal.wait_calls("duty", 1).remove(0);
    assert_eq!((again.key, again.number, again.in_ledger), (id, 2, true));

    let (mut rig, id) = doubtful(ROLLBACK, EffectKind::FireOnce, Observation::Unknown);
    rig.journal.wait_calls("duty", 1);
    let failed = rig.journal.wait_action("its end", |action| action.id == id && action.state.is_final());
    assert_eq!(failed.state, ActionState::Failed);
    assert!(failed.detail.starts_with("ambiguous, not sent again: the process ended"), "{}", failed.detail);
    let incident = rig.journal.wait_incident("a call for a human", |i| i.state == IncidentState::Escalated);
    let told = story(&incident);
    assert!(told.contains("escalated nobody can tell whether rollback with deployer happened"), "{told}");
    rig.stop();
    assert!(rig.journal.sent().iter().all(|sent| sent.with == "duty"), "{:?}", rig.journal.sent());

    let (mut rig, id) = doubtful(ROLLBACK, EffectKind::Observable, Observation::Done);
    let done = rig.journal.wait_action("its end", |action| action.id == id && action.state.is_final());
    assert_eq!((done.state, done.detail.as_str()), (ActionState::Succeeded, "it had happened"));
    rig.stop();
    assert!(rig.journal.sent().iter().all(|sent| sent.with == "duty"));

    let (rig, id) = doubtful(ROLLBACK, EffectKind::Observable, Observation::NotDone);
    pass_until(&rig, "deployer", 1);
    let again = rig.journal.wait_calls("deployer", 1).remove(0);
    assert_eq!((again.key, again.number), (id, 2));
}

/// Scenario: a page's target says no for now: three times without a wish, then with one, and with one that is far too long.
/// Guarantee: the pauses are those of the pure function, or the target's wish up to its limit; the key stays.
#[test]
fn f04_pauses_are_kept_in_a_live_run() {
    let mut rig = Rig::with_ladder(PAGE);
    let replies = [
        Reply::Later(None),
        Reply::Later(None),
        Reply::Later(None),
        Reply::Later(Some(90)),
        Reply::Later(Some(86_400)),
        Reply::Done,
    ];
    rig.fake("duty", EffectKind::Idempotent, &replies);
    rig.start();
    rig.seconds(3, 50.0);
    let id = rig.journal.wait_sent(1)[0].key.clone();
    let wishes = [Span::ZERO, Span::ZERO, Span::ZERO, Span::from_secs(90), LONGEST_PAUSE];
    for (attempt, wish) in (1..).zip(wishes) {
        let waits = rig.journal.wait_action("a pause", |a| a.attempts == attempt && a.retry_at.is_some());
        let told = rig.clock.wall();
        let pause = waits.retry_at.expect("it is tried again").since(told);
        assert_eq!(pause, wish.max(pause_after(attempt, &id)), "after attempt {attempt}");
        // A second before it is due nothing is sent.
        let secs = pause.ns() / 1_000_000_000;
        rig.clock.pass((secs - 1).max(0));
        rig.settle();
        assert_eq!(rig.journal.sent().len(), attempt as usize, "too early");
        rig.clock.pass(2);
        rig.journal.wait_sent(attempt as usize + 1);
    }
    let sent = rig.journal.sent();
    assert!(sent.iter().all(|each| each.key == id && each.body == sent[0].body), "{sent:?}");
    rig.stop();
}

/// Scenario: one responder never answers; another has work to do.
/// Guarantee: the other is not slower for it, and nobody waits for ever: the ladder goes on after two minutes.
#[test]
fn i11_a_responder_that_hangs_slows_no_other() {
    let rules = rule("hangs", "{do: notify, with: stuck}, {do: page, with: duty}")
        + &rule("works", "{do: notify, with: chat}");
    let mut rig = Rig::new(&yaml(&[("stuck", "notify"), ("chat", "notify"), ("duty", "notify")], &rules));
    rig.fake("stuck", EffectKind::Idempotent, &[Reply::Hang]);
    rig.fake("chat", EffectKind::Idempotent, &[Reply::Done]);
    rig.fake("duty", EffectKind::Idempotent, &[Reply::Done]);
    rig.start();
    rig.load(&[("a", 50.0), ("b", 50.0), ("c", 50.0)]);
    rig.load(&[("a", 50.0), ("b", 50.0), ("c", 50.0)]);
    assert!(rig.journal.wait_calls("chat", 3).iter().all(|sent| sent.in_ledger));
    rig.journal.wait_calls("stuck", 1);
    assert!(rig.journal.sent().iter().all(|sent| sent.with != "duty"));
    rig.clock.pass(130);
    rig.load(&[("a", 50.0), ("b", 50.0), ("c", 50.0)]);
    rig.journal.wait_calls("duty", 3);
    assert_eq!(rig.journal.sent().iter().filter(|sent| sent.with == "stuck").count(), 1, "one at a time");
}

/// Scenario: a responder's target hangs while 300 pages come for it, far more than its queue holds.
/// Guarantee: none is lost: they wait in the ledger, and all arrive once it answers, each once.
#[test]
fn d07_queue_full() {
    const SERVICES: usize = 300;
    let mut rig = Rig::with_ladder(PAGE);
    rig.fake("duty", EffectKind::Idempotent, &[Reply::Hang]);
    rig.start();
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    let loads: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 50.0)).collect();
    rig.load(&loads);
    rig.load(&loads);
    rig.journal.wait_calls("duty", 1);
    rig.journal.wait_actions(SERVICES);
    rig.stop();
    let waiting = rig.on_disk().actions;
    assert_eq!(waiting.iter().filter(|action| !action.state.is_final()).count(), SERVICES);
    rig.fake("duty", EffectKind::Idempotent, &[Reply::Done]);
    rig.start();
    rig.pass_until("all pages", |rig| rig.journal.delivered() >= SERVICES);
    let mut keys: Vec<String> = rig.journal.sent().split_off(1).into_iter().map(|sent| sent.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), SERVICES);
    assert_eq!(rig.journal.sent().len(), SERVICES + 1, "each once, and the one that hung");
}

/// Scenario: 1,200 services are in trouble at once, and their pages go through one responder.
/// Guarantee: all arrive, each once, without a restart: far more than its queue and the engine's hold.
#[test]
fn d07_a_storm_of_pages() {
    const SERVICES: usize = 1_200;
    let mut rig = Rig::with_ladder(PAGE);
    rig.start();
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    let loads: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 50.0)).collect();
    rig.load(&loads);
    rig.load(&loads);
    rig.journal.wait_actions(SERVICES);
    rig.pass_until("all pages", |rig| rig.journal.delivered() >= SERVICES);
    assert_eq!(rig.journal.sent().len(), SERVICES);
    rig.stop();
}

/// Scenario: two services are in trouble, the responder that changes the world is slow with the first; meanwhile relight is
/// paused, or both are well again.
/// Guarantee: what waited for its turn is not sent: the gates are read right before each call.
#[test]
fn i04_gates_are_read_right_before_each_call() {
    for is_paused in [true, false] {
        let mut rig = Rig::with_ladder(ROLLBACK);
        rig.fake("deployer", EffectKind::FireOnce, &[Reply::Held, Reply::Done]);
        rig.start();
        rig.load(&[("a", 50.0), ("b", 50.0)]);
        rig.load(&[("a", 50.0), ("b", 50.0)]);
        rig.journal.wait_calls("deployer", 1);
        rig.journal.wait("both intents", |kept| {
            (latest(&kept.writes).0.values().filter(|action| action.mutates).count() == 2).then_some(())
        });
        if is_paused {
            rig.tell(LiveInput::Control(ControlInput::Command {
                at: rig.clock.wall(),
                verb: "pause".to_owned(),
                target: String::new(),
            }));
            rig.clock.pass(1);
            rig.wait_board("the hold", |posted| !posted.held.is_empty());
        } else {
            rig.load(&[("a", 1.0), ("b", 1.0)]);
            rig.load(&[("a", 1.0), ("b", 1.0)]);
            rig.journal.wait_incident("calm", |incident| incident.recovered.is_some());
        }
        rig.journal.release();
        let why = if is_paused { "kill switch" } else { "recovered" };
        rig.journal.wait_action("the one that waited", |action| {
            action.mutates && action.state == ActionState::Blocked && action.detail.starts_with(why)
        });
        rig.stop();
        assert_eq!(rig.journal.sent().iter().filter(|sent| sent.with == "deployer").count(), 1);
    }
}

/// Scenario: a responder panics; a target refuses for good.
/// Guarantee: a panic is an attempt in doubt and takes nobody with it; a refusal is not repeated, and the next rung is
/// climbed at once.
#[test]
fn f02_refusals_and_panics_hand_on() {
    for (reply, said) in
        [(Reply::Refuse, "HTTP 400"), (Reply::Panic, "ambiguous, not sent again: `deployer` panicked")]
    {
        let mut rig = Rig::with_ladder(ROLLBACK);
        rig.fake("deployer", EffectKind::FireOnce, &[reply]);
        rig.start();
        rig.seconds(3, 50.0);
        rig.journal.wait_calls("duty", 1);
        let failed = rig.journal.wait_action("its end", |action| action.mutates && action.state.is_final());
        assert!(failed.state == ActionState::Failed && failed.detail.starts_with(said), "{}", failed.detail);
        rig.clock.pass(120);
        rig.seconds(2, 50.0);
        rig.stop();
        assert_eq!(rig.journal.sent().iter().filter(|sent| sent.with == "deployer").count(), 1);
    }
}

/// Scenario: a telemetry label that no responder can make a request of, on three targets; then a legitimate one.
/// Guarantee: each of the three is an error of its target, with a page behind it; nothing is sent for them, the reason is
/// counted, the breaker is not, and the legitimate action goes out.
#[test]
fn f25_odd_labels_do_not_disable_a_rule() {
    let mut rig = Rig::with_ladder(ROLLBACK);
    rig.start();
    let odd = ["--a", "--b", "--c"];
    assert!(rig.config.settings.fleet_limit.is_some(), "of one group at a time in a fleet as small as this");
    rig.load(&odd.map(|service| (service, 50.0)));
    rig.load(&odd.map(|service| (service, 50.0)));
    rig.journal.wait_calls("duty", 3);
    rig.load(&[("shop", 50.0)]);
    rig.load(&[("shop", 50.0)]);
    rig.journal.wait_calls("deployer", 1);
    rig.wait_board("the count by reason", |posted| {
        posted.samples.iter().any(|sample| {
            sample.metric == ACTIONS_NOT_SENT && sample.labels == ["request"] && sample.value == 3.0
        })
    });
    rig.stop();
    let on_disk = rig.on_disk();
    assert!(on_disk.breakers.iter().all(|(_, count)| *count == 0), "{:?}", on_disk.breakers);
    let odd: Vec<_> = on_disk.actions.iter().filter(|action| action.was_never_sent()).collect();
    assert_eq!(odd.len(), 3);
    assert!(odd.iter().all(|action| action.not_sent == Some(NotSent::Request)));
    let incident =
        on_disk.incidents.iter().find(|incident| incident.id == odd[0].incident).expect("it is there");
    let told = story(incident);
    assert!(
        told.contains("not_sent rollback with deployer: no request can be made: the service is no"),
        "{told}"
    );
    assert_eq!(rig.journal.sent().iter().filter(|sent| sent.with == "deployer").count(), 1);
}
