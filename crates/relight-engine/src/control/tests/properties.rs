//! Whatever comes, in whatever order: the promises that hold in every history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use relight_core::incident::{Action, ActionState, IncidentState};
use relight_core::responder::EffectKind;
use relight_core::rule::{Limits, Mode, RuleSpec, Step};

use super::stage::{Stage, Turned, ladder, page, rollback, secs};
use crate::control::{Answer, ControlInput, Effect};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    Bin(char, char),
    Silence(u8),
    Ready(prop::sample::Index),
    Answer(prop::sample::Index, Answer),
    Busy(prop::sample::Index),
    Process,
    Deploy,
    Command(&'static str, prop::sample::Index),
    Deadline,
}

fn happens() -> impl Strategy<Value = Happens> {
    let symbol = || prop::sample::select(vec!['!', '!', '!', '!', '.', '.', '.', '_', 's', 'R', 'A', 'E']);
    let verb = prop::sample::select(vec!["ack", "approve", "reject", "reset", "pause", "resume"]);
    let again = Answer::Retry(Some(secs(30)));
    let all = [Answer::Done, Answer::Done, Answer::Failed, again, Answer::Ambiguous];
    let answer = prop::sample::select(all.to_vec());
    prop_oneof![
        12 => (symbol(), symbol()).prop_map(|(a, b)| Happens::Bin(a, b)),
        4 => any::<prop::sample::Index>().prop_map(Happens::Ready),
        5 => (any::<prop::sample::Index>(), answer).prop_map(|(ix, answer)| Happens::Answer(ix, answer)),
        1 => any::<prop::sample::Index>().prop_map(Happens::Busy),
        1 => Just(Happens::Process),
        1 => (1..200_u8).prop_map(Happens::Silence),
        1 => Just(Happens::Deploy),
        1 => (verb, any::<prop::sample::Index>()).prop_map(|(verb, ix)| Happens::Command(verb, ix)),
        1 => Just(Happens::Deadline),
    ]
}

/// Two rules on the same groups whose mutating steps share locks, with short limits, so that much
/// happens in a short history.
fn stage() -> Stage {
    let limits = |lock: &str| Limits { cooldown: secs(60), max_per_day: Some(4), lock: lock.to_owned() };
    let asks = Step { mode: Mode::Approve, limits: limits("a"), ..rollback() };
    let acts = Step { limits: limits("a"), ..rollback() };
    let own = Step { limits: limits(""), verify: None, ..rollback() };
    let quick = RuleSpec { hold: secs(0), keep_firing: secs(20), reopen_within: secs(100), ..ladder(vec![]) };
    Stage::new(vec![
        RuleSpec { respond: vec![acts.clone(), page(), own], max_flaps: 5, ..quick.clone() },
        RuleSpec { name: "q".to_owned(), respond: vec![page(), asks, acts, page()], ..quick },
    ])
}

fn happen(stage: &mut Stage, what: &Happens) -> Turned {
    let ids: Vec<String> = stage.ledger.actions.keys().cloned().collect();
    match what {
        Happens::Bin(shop, cart) => stage.bin(&[("cart", *cart), ("shop", *shop)]),
        Happens::Silence(bins) => {
            stage.now = stage.now.plus(secs(10 * i64::from(*bins)));
            Turned::default()
        }
        Happens::Deploy => stage.step('D'),
        Happens::Ready(ix) if !ids.is_empty() => stage.ready(ix.get(&ids).as_str()),
        Happens::Answer(ix, answer) if !ids.is_empty() => stage.answer(ix.get(&ids).clone(), *answer),
        Happens::Busy(ix) if !ids.is_empty() => stage.busy(ix.get(&ids).as_str()),
        Happens::Process => stage.turn(ControlInput::Restart, stage.now),
        Happens::Command(verb @ ("pause" | "resume"), _) => stage.command(verb, None),
        Happens::Command("reset", _) => stage.command("reset", Some("r".to_owned())),
        Happens::Command("ack", ix) if !stage.ledger.incidents.is_empty() => {
            let incidents: Vec<String> = stage.ledger.incidents.keys().cloned().collect();
            stage.command("ack", Some(ix.get(&incidents).clone()))
        }
        Happens::Command(verb, ix) if !ids.is_empty() => stage.command(verb, Some(ix.get(&ids).clone())),
        Happens::Deadline => {
            let due = stage.control.poll_timeout().map_or(stage.now, |(at, _)| at.max(stage.now));
            // Control time runs ahead of event time, as it does live.
            stage.turn(ControlInput::Timeout, due)
        }
        _ => Turned::default(),
    }
}

/// What must be true of the ledger after every turn.
fn assert_promises(stage: &Stage) {
    let live = |action: &&Action| {
        let waits = matches!(action.state, ActionState::Planned | ActionState::AwaitingApproval);
        action.mutates && !waits && !action.state.is_final()
    };
    let mut locks: BTreeMap<&str, &str> = BTreeMap::new();
    for action in stage.ledger.actions.values().filter(live) {
        let other = locks.insert(&action.lock, &action.id);
        assert_eq!(other, None, "two live actions on {}: {}", action.lock, action.id);
    }
    let intents = || stage.ledger.audit.iter().filter(|line| line.starts_with("action_started"));
    assert_eq!(intents().collect::<BTreeSet<_>>().len(), intents().count(), "an action was started twice");
    let mut groups = BTreeSet::new();
    for incident in stage.ledger.incidents.values().filter(|i| i.is_live()) {
        assert!(groups.insert((&incident.rule, &incident.group)), "two live incidents of one group");
        let resolved = incident.state == IncidentState::Resolved;
        assert_eq!(incident.resolution.is_some(), resolved);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Guarantee: what must not happen twice is not sent again unless its target said that it did not happen;
    /// nothing that changes the world is sent while relight is paused, and nothing without its attempt in the
    /// ledger.
    #[test]
    fn nothing_is_sent_twice_in_doubt(history in prop::collection::vec(happens(), 1..200)) {
        let mut stage = stage();
        let mut out: BTreeSet<String> = BTreeSet::new();
        for what in &history {
            if let (Happens::Answer(ix, answer), false) = (what, stage.ledger.actions.is_empty()) {
                let ids: Vec<String> = stage.ledger.actions.keys().cloned().collect();
                if matches!(answer, Answer::Retry(_)) {
                    out.remove(ix.get(&ids));
                }
            }
            for effect in happen(&mut stage, what).1 {
                let Effect::Send { action, .. } = effect else { continue };
                prop_assert!(action.effect != EffectKind::FireOnce || out.insert(action.id.clone()));
                prop_assert!(!action.mutates || stage.control.holds().next().is_none());
                // A deadline of the same turn may have handed on; what leaves is what was written.
                let written = &stage.ledger.actions[&action.id];
                prop_assert_eq!((&written.plan, written.attempts), (&action.plan, action.attempts));
                prop_assert_eq!((written.state, action.state), (ActionState::Running, ActionState::Running));
            }
        }
    }

    /// Guarantee: never two live actions on one lock, no action twice, one live incident a group; an
    /// incident that is over stays over but by reopening in a new episode; episodes only grow.
    #[test]
    fn promises_hold_in_every_history(history in prop::collection::vec(happens(), 1..150)) {
        let mut stage = stage();
        let mut episodes: BTreeMap<String, u32> = BTreeMap::new();
        for what in &history {
            let (_, effects) = happen(&mut stage, what);
            assert_promises(&stage);
            for effect in &effects {
                if let Effect::Start { action, .. } = effect {
                    prop_assert!(stage.ledger.actions[&action.id].started.is_some());
                }
            }
            for incident in stage.ledger.incidents.values() {
                let before = episodes.insert(incident.id.clone(), incident.episode).unwrap_or(1);
                prop_assert!(incident.episode == before || incident.episode == before + 1);
            }
        }
    }

    /// Guarantee: Control is its ledger. Restored after every single turn, or after any one of them,
    /// it leaves the same writes and effects as without.
    #[test]
    fn a_restart_anywhere_changes_nothing(
        history in prop::collection::vec(happens(), 1..120),
        at in any::<prop::sample::Index>(),
    ) {
        let (mut calm, mut once, mut always) = (stage(), stage(), stage());
        let at = at.index(history.len());
        for (n, what) in history.iter().enumerate() {
            let expected = happen(&mut calm, what);
            prop_assert_eq!(&expected, &happen(&mut once, what));
            prop_assert_eq!(&expected, &happen(&mut always, what));
            prop_assert_eq!(calm.control.poll_timeout(), always.control.poll_timeout());
            if n == at {
                once.restart();
            }
            always.restart();
        }
    }
}
