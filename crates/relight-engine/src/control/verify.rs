//! Proof that a step helped, its deadline, and what humans say.
//!
//! A verification reads only bins from after the action. It compares with what was normal before the
//! onset: the guard holds a row's baseline while it is out of band, and a row that re-learned
//! can no longer prove anything.

use std::sync::Arc;

use relight_core::incident::{Action, ActionState, Incident, IncidentState, Resolution};
use relight_core::rule::{DetectorView, OnInconclusive, RuleSpec, Step, Verify};
use relight_core::{Span, Timestamp};

use super::gates::{Asked, Gate, Refusal};
use super::incident::{GroupTurn, add};
use super::ladder::{name_of, needs_action};
use super::{Control, Out, is_sent};

impl Control {
    /// Looks at a turn with data on behalf of the action that waits for proof.
    pub(super) fn verify_turn(&mut self, incident: &mut Incident, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        let current = self.current_action(incident).filter(|a| a.state == ActionState::Verifying);
        let Some(mut action) = current.cloned() else {
            return;
        };
        let settings = Arc::clone(&self.settings);
        let step = self.step_of(&settings.rules, &action);
        let Some(verify) = step.and_then(|(_, step)| step.verify.as_ref()) else {
            return;
        };
        let Some(from) = action.ended.map(|ended| ended.plus(verify.settle)) else {
            return;
        };
        let after: Vec<DetectorView> = turn.views.iter().map(|view| view.since(from)).collect();
        // A bin that only overlaps `settle` holds values from before its end: a view knows nothing older than `from`.
        if !self.speakers_are_known(incident, turn.rule, &after) {
            return;
        }
        action.sampled = true;
        action.fresh_until = self.speakers_fresh_until(incident, turn.rule, &after);
        if self.requirement(incident, (verify, &after), turn, out) {
            let begins = action.verified_for == Span::ZERO;
            let span = if begins { turn.own() } else { turn.covered(incident, self.settings.interval()) };
            action.verified_for = add(action.verified_for, span);
        } else {
            action.verified_for = Span::ZERO;
        }
        if action.verified_for < verify.hold || action.verified_for == Span::ZERO {
            return self.put_action(action, out);
        }
        incident.mitigated = Some(turn.end);
        // What the condition has held until now was before the proof: for the ladder to go on it must hold anew.
        (incident.held_for, incident.held_turns) = (Span::ZERO, 0);
        if incident.state != IncidentState::Escalated {
            incident.state = IncidentState::Mitigated;
        }
        let proof = format!("{} for {}", verify.require.text(), action.verified_for);
        self.finish(incident, action, ActionState::Succeeded, &proof, out);
    }

    fn requirement(
        &mut self,
        incident: &mut Incident,
        (verify, after): (&Verify, &[DetectorView]),
        turn: &GroupTurn<'_>,
        out: &mut Out<'_>,
    ) -> bool {
        let verdict = self.ask(verify.require.as_ref(), turn, after, turn.end);
        if let Err(error) = &verdict {
            self.condition_failed(turn.rule, Some(incident), error, out);
        }
        verdict.unwrap_or(false) && incident.relearned == 0
    }

    /// A verification or an approval has run out of time, or an action on its way wants attention.
    pub(super) fn deadline(&mut self, id: &str, out: &mut Out<'_>) {
        let Some(mut action) = self.actions.get(id).cloned() else {
            return;
        };
        let Some(mut incident) = self.incidents.remove(&action.incident) else {
            (action.verify_until, action.retry_at, action.handed_on) = (None, None, true);
            return self.put_action(action, out);
        };
        if is_sent(action.state) {
            self.sent_deadline(&mut incident, action, out);
            self.advance(&mut incident, out);
            return self.put(incident, out);
        }
        let due = action.verify_until.take();
        let settings = Arc::clone(&self.settings);
        let verify = self.step_of(&settings.rules, &action).and_then(|(_, step)| step.verify.as_ref());
        if action.state == ActionState::AwaitingApproval {
            let refusal = Refusal::new("approval", "approval: nobody gave it in time");
            self.block(&mut incident, action, refusal, out);
        } else {
            action.verify_until = due;
            self.verification_over(&mut incident, action, verify, out);
        }
        self.advance(&mut incident, out);
        self.put(incident, out);
    }

    fn verification_over(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        verify: Option<&Verify>,
        out: &mut Out<'_>,
    ) {
        let is_current = action.sampled && self.is_current(&action);
        // In band at present, but not yet for long enough: that is not "did not help".
        if is_current && action.verified_for == Span::ZERO {
            return self.finish(incident, action, ActionState::Ineffective, "still out of band", out);
        }
        let waits = verify.filter(|verify| verify.on_inconclusive == OnInconclusive::Wait);
        if let (Some(verify), Some(ended)) = (waits, action.ended) {
            let (once, twice) = (ended.plus(verify.within), ended.plus(verify.within.times(2)));
            if action.verify_until <= Some(once) && once < twice {
                action.verify_until = Some(twice);
                incident.note(self.now(), "waiting", format!("{} until {twice}", name_of(&action)));
                return self.put_action(action, out);
            }
        }
        let why = match (action.sampled, is_current) {
            (false, _) => "no data since it ended".to_owned(),
            (true, true) => "not in band for long enough".to_owned(),
            (true, false) => {
                let until = action.fresh_until.unwrap_or(Timestamp::MIN);
                format!("no data since {until}")
            }
        };
        action.sampled = is_current;
        self.finish(incident, action, ActionState::Inconclusive, &why, out);
    }

    /// Whether the last sample of a verification still counts, now that its time is over: traffic that has stopped since
    /// proves nothing. By event time as far as bins have closed; and by control time where none closes any more, plus what a
    /// stream in good health is behind.
    fn is_current(&self, action: &Action) -> bool {
        let Some(until) = action.fresh_until else { return false };
        let behind = add(self.settings.interval().times(2), self.settings.allowed_lateness);
        let known = self.now().min(self.applied.turn);
        !self.is_blind() && known <= until && self.now() <= until.plus(behind)
    }

    /// A human asked for something. A command from before the last bin turn was applied then, and
    /// comes again because the stream was rewound.
    pub(super) fn command(&mut self, at: Timestamp, verb: &str, target: &str, out: &mut Out<'_>) {
        if at < self.applied.turn {
            self.counters.stray_inputs += 1;
            return;
        }
        let done = match verb {
            "ack" => self.acknowledge(at, target, out),
            "approve" => self.answer(target, true, out),
            "reject" => self.answer(target, false, out),
            "reset" => self.reset(target, out),
            "pause" => self.pause(target, out),
            "resume" => self.resume(out),
            _ => false,
        };
        if !done {
            self.counters.stray_inputs += 1;
            out.audit(self.now(), "command_ignored", target, verb);
        }
    }

    fn acknowledge(&mut self, at: Timestamp, id: &str, out: &mut Out<'_>) -> bool {
        let Some(mut incident) = self.incidents.remove(id) else {
            return false;
        };
        let known = incident.timeline.iter().any(|moment| moment.what == "acknowledged" && moment.at == at);
        self.counters.stray_inputs += u64::from(known);
        if known || !incident.is_live() {
            self.incidents.insert(incident.id.clone(), incident);
            return known;
        }
        incident.note(at, "acknowledged", "");
        out.audit(self.now(), "incident_acknowledged", id, "");
        let is_escalated = incident.state == IncidentState::Escalated;
        // Where silence is what is judged, each turn of it is news.
        let is_silent = incident.stale && incident.last_data < self.applied.turn;
        if is_silent || is_escalated && incident.calm_for > Span::ZERO {
            self.resolve(&mut incident, self.now(), Resolution::Human, out);
        } else if is_escalated {
            incident.state = IncidentState::Responding;
        }
        self.put(incident, out);
        true
    }

    /// Answers an action that waits for approval. The gates are asked again: time has passed.
    fn answer(&mut self, id: &str, yes: bool, out: &mut Out<'_>) -> bool {
        let waiting = self.actions.get(id).filter(|a| a.state == ActionState::AwaitingApproval);
        let Some(mut action) = waiting.cloned() else {
            return false;
        };
        action.approved = yes;
        let Some(mut incident) = self.incidents.remove(&action.incident) else {
            return false;
        };
        let settings = Arc::clone(&self.settings);
        let gate = match self.step_of(&settings.rules, &action) {
            Some((rule, step)) => self.answer_gate(&incident, rule, step, &action),
            None => Gate::Blocked(Refusal::step_is_gone()),
        };
        match gate {
            Gate::Blocked(refusal) => self.block(&mut incident, action, refusal, out),
            Gate::Pass | Gate::Approval => self.start(&mut incident, action, out),
        }
        self.advance(&mut incident, out);
        self.put(incident, out);
        true
    }

    fn answer_gate(&self, incident: &Incident, rule: &RuleSpec, step: &Step, action: &Action) -> Gate {
        if !action.approved {
            Gate::Blocked(Refusal::new("rejected", "rejected"))
        } else if !needs_action(incident, rule) {
            Gate::Blocked(Refusal::new("recovered", "recovered"))
        } else {
            self.gate(Asked { incident, rule, step, own: Some(action) })
        }
    }

    fn reset(&mut self, rule: &str, out: &mut Out<'_>) -> bool {
        if !self.breakers.contains_key(rule) {
            return false;
        }
        self.set_breaker(rule, 0, out);
        out.audit(self.now(), "breaker_reset", rule, "");
        true
    }
}
