//! relight's own troubles: who is told, how often, and what becomes of the page.

use std::sync::Arc;

use relight_core::incident::{ActionState, IncidentState, LedgerState};
use relight_core::rule::Settings;
use relight_core::{Span, Timestamp};

use super::super::{Answer, Control, ControlInput, Effect, QUIET};
use super::stage::{Ledger, page, settings};

fn told() -> Arc<Settings> {
    Arc::new(Settings { trouble: Some(page()), ..(*settings(Vec::new())).clone() })
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

/// A Control and its ledger; effects come back.
struct Play {
    control: Control,
    ledger: Ledger,
}

impl Play {
    fn new(settings: Arc<Settings>) -> Self {
        Self { control: Control::new(settings, LedgerState::default()), ledger: Ledger::default() }
    }

    fn turn(&mut self, input: ControlInput, now: Timestamp) -> Vec<Effect> {
        let (mut writes, mut effects) = (Vec::new(), Vec::new());
        self.control.control_turn(input, now, &mut writes, &mut effects);
        for write in writes {
            self.ledger.apply(write);
        }
        effects
    }

    fn trouble(&mut self, kind: &str, now: Timestamp) -> Vec<Effect> {
        let (kind, about, why) = (kind.to_owned(), "queue".to_owned(), "because".to_owned());
        self.turn(ControlInput::Trouble { kind, about, why }, now)
    }

    fn restart(&mut self, settings: &Arc<Settings>) {
        self.control = Control::new(Arc::clone(settings), self.ledger.state());
    }
}

fn started<'a>(effects: &'a [Effect]) -> Vec<&'a str> {
    let id = |effect: &'a Effect| match effect {
        Effect::Start { action, .. } => Some(action.id.as_str()),
        _ => None,
    };
    effects.iter().filter_map(id).collect()
}

/// Scenario: a trouble; its page is tried, refused, and tried again after a restart.
/// Guarantee: it stands in the ledger before it leaves, under one key; no turn of bins is made for it, and it opens no
/// incident.
#[test]
fn a_trouble_is_a_page_like_any_other() {
    let settings = told();
    let mut play = Play::new(Arc::clone(&settings));
    let effects = play.trouble("gap", at(0));
    let [Effect::Start { action, incident }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((incident.state, action.state), (IncidentState::Resolved, ActionState::Pending));
    assert_eq!(incident.group.to_string(), r#"{about="queue",trouble="gap",why="because"}"#);
    assert!(play.ledger.actions.contains_key(&action.id) && play.control.queries(&[]).is_empty());
    let ready = ControlInput::Ready { action: action.id.clone(), plan: None };
    assert!(matches!(&play.turn(ready, at(1))[..], [Effect::Send { .. }]));
    let detail = "503".to_owned();
    let answer = Answer::Retry(None);
    play.turn(ControlInput::Outcome { at: at(2), action: action.id.clone(), answer, detail }, at(2));
    play.restart(&settings);
    play.turn(ControlInput::Restart, at(2));
    assert_eq!(started(&play.turn(ControlInput::Timeout, at(60))), [action.id.as_str()]);
}

/// Scenario: the same trouble five times in an hour, with a restart between, and another kind; then quiet.
/// Guarantee: people are told at once of each kind, once more when the hour is over, since it may have lasted, and
/// then no more.
#[test]
fn a_trouble_that_comes_again_is_told_once_an_hour() {
    let settings = told();
    let mut play = Play::new(Arc::clone(&settings));
    assert_eq!(started(&play.trouble("source_down", at(0))).len(), 1);
    assert_eq!(started(&play.trouble("gap", at(1))).len(), 1);
    for n in 1..5 {
        assert_eq!(started(&play.trouble("source_down", at(n * 60))).len(), 0, "time {n}");
        play.restart(&settings);
    }
    let later = at(0).plus(QUIET);
    assert_eq!(started(&play.turn(ControlInput::Timeout, later.minus(Span::from_secs(1)))).len(), 0);
    assert_eq!(started(&play.turn(ControlInput::Timeout, later)).len(), 1);
    assert_eq!(play.ledger.actions.len(), 3);
    let fresh = later.plus(QUIET).plus(QUIET);
    assert_eq!(started(&play.trouble("source_down", fresh)).len(), 1);
}

/// Guarantee: where the config names nobody, nobody is told, and the audit has it all the same.
#[test]
fn nobody_is_told_who_is_not_named() {
    let mut play = Play::new(settings(Vec::new()));
    assert_eq!(play.trouble("gap", at(0)), []);
    assert_eq!(play.ledger.audit, ["trouble queue"]);
    assert!(play.ledger.actions.is_empty() && play.ledger.incidents.is_empty());
}
