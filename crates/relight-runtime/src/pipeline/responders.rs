//! Simulated responders: what a replay's actions come to, on the virtual clock. Touches nothing.
//!
//! An action that the capture holds an outcome of ends as it did; every other one succeeds at once.
//! Those that end at the same time do so in the order of their ids, never in that of their starts: after
//! a crash the ledger tells what is under way, and not what began first.

use std::collections::{BTreeMap, BTreeSet};

use relight_core::Timestamp;
use relight_core::incident::{Action, Incident};
use relight_engine::control::{Answer, ControlInput, Effect};

use super::Outbox;

/// How an action ended, as a capture recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedOutcome {
    /// When.
    pub at: Timestamp,
    /// Whether it was carried out.
    pub ok: bool,
    /// What the responder said.
    pub detail: String,
}

/// The responders of a simulated run.
#[derive(Debug, Clone, Default)]
pub struct Responders {
    recorded: BTreeMap<String, SimulatedOutcome>,
    at_once: BTreeSet<String>,
    /// Actions that end as recorded, by when.
    later: BTreeSet<(Timestamp, String)>,
}

impl Responders {
    /// Responders that answer as recorded, by action id.
    pub fn new(recorded: BTreeMap<String, SimulatedOutcome>) -> Self {
        Self { recorded, ..Self::default() }
    }

    fn take_up(&mut self, action: String, now: Timestamp) {
        match self.recorded.get(&action) {
            Some(outcome) => self.later.insert((outcome.at.max(now), action)),
            None => self.at_once.insert(action),
        };
    }
}

impl Outbox for Responders {
    fn start(&mut self, effect: Effect, now: Timestamp) {
        // Simulated responders answer an offer at once: they never ask, so nothing else is said to them.
        if let Effect::Start { action, .. } = effect {
            self.take_up(action.id, now);
        }
    }

    fn resume(&mut self, action: &Action, _incident: &Incident, now: Timestamp) {
        self.take_up(action.id.clone(), now);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.later.first().map(|(at, _)| *at)
    }

    fn next(&mut self, now: Timestamp) -> Option<ControlInput> {
        if let Some(action) = self.at_once.pop_first() {
            let detail = "simulated".to_owned();
            return Some(ControlInput::Outcome { at: now, action, answer: Answer::Done, detail });
        }
        let due = self.later.first().is_some_and(|(at, _)| *at <= now);
        let (at, action) = due.then(|| self.later.pop_first())??;
        let SimulatedOutcome { ok, detail, .. } = self.recorded.get(&action)?.clone();
        let answer = if ok { Answer::Done } else { Answer::Failed };
        Some(ControlInput::Outcome { at, action, answer, detail })
    }
}
