//! Simulated responders: what a replay's actions come to, on the virtual clock. Touches nothing.
//!
//! An action that the capture holds an outcome of ends as it did; every other one succeeds at once.

use std::collections::{BTreeMap, VecDeque};

use relight_core::Timestamp;
use relight_core::incident::{Action, Incident};
use relight_engine::control::{ControlInput, Effect};

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
    at_once: VecDeque<String>,
    /// Inputs of Control that wait for their time.
    later: BTreeMap<Timestamp, Vec<ControlInput>>,
}

impl Responders {
    /// Responders that answer as recorded, by action id.
    pub fn new(recorded: BTreeMap<String, SimulatedOutcome>) -> Self {
        Self { recorded, ..Self::default() }
    }

    fn take_up(&mut self, action: String, now: Timestamp) {
        match self.recorded.get(&action) {
            Some(outcome) => {
                let SimulatedOutcome { at, ok, detail } = outcome.clone();
                let at = at.max(now);
                let input = ControlInput::Outcome { at, action, ok, detail };
                self.later.entry(at).or_default().push(input);
            }
            None => self.at_once.push_back(action),
        }
    }
}

impl Outbox for Responders {
    fn start(&mut self, effect: Effect, now: Timestamp) {
        let Effect::Start { action, .. } = effect;
        self.take_up(action.id, now);
    }

    fn resume(&mut self, action: &Action, _incident: &Incident, now: Timestamp) {
        self.take_up(action.id.clone(), now);
    }

    fn command(&mut self, at: Timestamp, verb: String, target: String) {
        self.later.entry(at).or_default().push(ControlInput::Command { at, verb, target });
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.later.first_key_value().map(|(at, _)| *at)
    }

    fn next(&mut self, now: Timestamp) -> Option<ControlInput> {
        if let Some(action) = self.at_once.pop_front() {
            let detail = "simulated".to_owned();
            return Some(ControlInput::Outcome { at: now, action, ok: true, detail });
        }
        let mut due = self.later.first_entry().filter(|due| *due.key() <= now)?;
        let input = due.get_mut().remove(0);
        if due.get().is_empty() {
            due.remove();
        }
        Some(input)
    }
}
