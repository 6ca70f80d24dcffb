//! The response ladder: which step is next, how it starts, how it ends.
//!
//! One step of an episode is under way at a time, and each is tried once: the rung that is next is
//! part of the incident, so that neither a rewind nor a restart plans a step again.

use std::sync::Arc;

use relight_core::incident::{Action, ActionState, Incident, IncidentState, LedgerWrite, action_id};
use relight_core::rule::{RuleSpec, Step};
use relight_core::{Span, Timestamp};

use super::gates::{Asked, Gate, Refusal, is_mode_blocked, lock_of};
use super::incident::is_held;
use super::{Control, Effect, Out};

/// How long a human has to approve a step before the ladder goes on without it. Control time.
pub(super) const APPROVAL_WITHIN: Span = Span::from_secs(15 * 60);

impl Control {
    /// The action of the rung that was planned last, in this episode.
    pub(super) fn current_action(&self, incident: &Incident) -> Option<&Action> {
        let step = incident.next_step.checked_sub(1)?;
        self.actions.get(&action_id(&incident.id, incident.episode, step))
    }

    /// All actions of this episode, by rung.
    pub(super) fn episode_actions(&self, incident: &Incident) -> impl Iterator<Item = &Action> {
        let (id, episode) = (incident.id.clone(), incident.episode);
        (0..incident.next_step).filter_map(move |step| self.actions.get(&action_id(&id, episode, step)))
    }

    /// The rule and the step that an action was made of, as they are configured now. `None` if they are not any more.
    pub(super) fn step_of<'a>(
        &self,
        rules: &'a [RuleSpec],
        action: &Action,
    ) -> Option<(&'a RuleSpec, &'a Step)> {
        let rule = &rules[self.rule_ix(&action.rule)?];
        Some((rule, rule.respond.get(action.step as usize).filter(|step| is_of(action, step))?))
    }

    /// Goes on with the ladder as far as it goes now: past blocked steps to the first that starts or
    /// waits. Nothing happens while the incident is calm or a step is under way.
    pub(super) fn advance(&mut self, incident: &mut Incident, out: &mut Out<'_>) {
        let settings = Arc::clone(&self.settings);
        let Some(rule) = self.rule_ix(&incident.rule).map(|ix| &settings.rules[ix]) else {
            return;
        };
        let is_through = |action: &Action| action.state.is_final() || action.handed_on;
        while needs_action(incident, rule) && self.current_action(incident).is_none_or(is_through) {
            let Some(step) = rule.respond.get(incident.next_step as usize) else {
                return self.exhausted(incident, rule, out);
            };
            let moved = self.has_moved(incident, rule, step);
            let action = self.plan(incident, step, out);
            if moved {
                let why = "config: it was done about this already, as another step";
                self.block(incident, action, Refusal::new("config", why), out);
                continue;
            }
            match self.gate(Asked { incident, rule, step, own: None }) {
                Gate::Pass => self.start(incident, action, out),
                Gate::Approval => self.await_approval(incident, action, out),
                Gate::Blocked(refusal) => self.block(incident, action, refusal, out),
            }
        }
    }

    /// Whether what a step would change was changed in this episode by one that another config had elsewhere in the ladder.
    fn has_moved(&self, incident: &Incident, rule: &RuleSpec, step: &Step) -> bool {
        let was_here = |action: &Action| {
            let place = rule.respond.get(action.step as usize);
            place.is_some_and(|place| is_of(action, place))
        };
        let mut started = self
            .episode_actions(incident)
            .filter(|action| action.started.is_some() && !action.was_never_sent());
        step.mutates && started.any(|action| is_of(action, step) && !was_here(action))
    }

    pub(super) fn plan(&mut self, incident: &mut Incident, step: &Step, out: &mut Out<'_>) -> Action {
        let rung = incident.next_step;
        incident.next_step += 1;
        let action = Action {
            id: action_id(&incident.id, incident.episode, rung),
            incident: incident.id.clone(),
            episode: incident.episode,
            rule: incident.rule.clone(),
            group: incident.group.clone(),
            step: rung,
            action: step.action.clone(),
            with: step.with.clone(),
            mutates: step.mutates,
            effect: step.effect,
            args: step.args.clone(),
            lock: lock_of(incident, step),
            cooldown: step.limits.cooldown,
            state: ActionState::Planned,
            approved: false,
            plan: None,
            attempts: 0,
            retry_at: None,
            handed_on: false,
            planned: self.now(),
            started: None,
            ended: None,
            verify_until: None,
            verified_for: Span::ZERO,
            sampled: false,
            fresh_until: None,
            reached: false,
            not_sent: None,
            limit_lifted: false,
            detail: String::new(),
        };
        out.audit(self.now(), "action_planned", &action.id, name_of(&action));
        action
    }

    pub(super) fn start(&mut self, incident: &mut Incident, mut action: Action, out: &mut Out<'_>) {
        action.state = ActionState::Pending;
        action.started = Some(self.now());
        action.verify_until = None;
        action.detail.clear();
        incident.acted.get_or_insert(self.now());
        if incident.state == IncidentState::Open {
            incident.state = IncidentState::Responding;
        }
        incident.note(self.now(), "started", name_of(&action));
        out.audit(self.now(), "action_started", &action.id, name_of(&action));
        out.effects.push(Effect::Start { action: action.clone(), incident: incident.clone() });
        self.put_action(action, out);
    }

    pub(super) fn await_approval(&mut self, incident: &mut Incident, mut action: Action, out: &mut Out<'_>) {
        let until = self.now().plus(APPROVAL_WITHIN);
        action.state = ActionState::AwaitingApproval;
        action.verify_until = Some(until);
        action.detail = format!("waits for approval until {until}");
        if incident.state == IncidentState::Open {
            incident.state = IncidentState::Responding;
        }
        incident.note(self.now(), "awaiting_approval", format!("{} until {until}", name_of(&action)));
        out.audit(self.now(), "action_awaiting", &action.id, action.detail.clone());
        self.put_action(action, out);
    }

    /// A gate, a human or the incident's end says no.
    pub(super) fn block(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        refusal: Refusal,
        out: &mut Out<'_>,
    ) {
        let Refusal { reason, detail, exceeds } = refusal;
        action.state = ActionState::Blocked;
        action.verify_until = None;
        detail.clone_into(&mut action.detail);
        incident.note(self.now(), "blocked", format!("{}: {detail}", name_of(&action)));
        out.audit(self.now(), "action_blocked", &action.id, detail);
        if action.mutates {
            *self.not_sent.entry(reason).or_default() += 1;
        }
        self.put_action(action, out);
        if let Some(why) = exceeds {
            self.engage_fleet_limit(&why, out);
        }
    }

    /// The responder is done with an action: it was carried out, or never will be.
    pub(super) fn ended(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        at: Timestamp,
        ok: bool,
        detail: String,
        out: &mut Out<'_>,
    ) {
        let started = action.started.unwrap_or(action.planned);
        let ended = at.min(self.now()).max(started);
        action.ended = Some(ended);
        action.detail = detail;
        let settings = Arc::clone(&self.settings);
        let verify = self.step_of(&settings.rules, &action).and_then(|(_, step)| step.verify.as_ref());
        let is_over = !incident.is_live() || incident.episode != action.episode;
        let said = action.detail.clone();
        match verify {
            _ if !ok => self.finish(incident, action, ActionState::Failed, &said, out),
            Some(_) if is_over => {
                self.finish(incident, action, ActionState::Inconclusive, "the incident is over", out);
            }
            Some(verify) => {
                let until = ended.plus(verify.within);
                action.state = ActionState::Verifying;
                action.verify_until = Some(until);
                incident.note(self.now(), "verifying", format!("{} until {until}", name_of(&action)));
                self.put_action(action, out);
            }
            None => self.finish(incident, action, ActionState::Succeeded, &said, out),
        }
    }

    /// An action is over: its lock is free from now on, and its cooldown begins.
    pub(super) fn finish(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        state: ActionState,
        detail: &str,
        out: &mut Out<'_>,
    ) {
        action.state = state;
        detail.clone_into(&mut action.detail);
        let word = match state {
            ActionState::Succeeded if action.verify_until.is_some() => "verified",
            ActionState::Succeeded => "sent",
            ActionState::Ineffective => "ineffective",
            ActionState::Failed if action.not_sent.is_some() => "not_sent",
            ActionState::Failed => "failed",
            _ => "inconclusive",
        };
        incident.note(self.now(), word, format!("{}: {detail}", name_of(&action)));
        out.audit(self.now(), "action_ended", &action.id, format!("{word}: {detail}"));
        match action.not_sent.filter(|_| action.was_never_sent()) {
            // Nothing has touched the target: there is nothing to cool down from, and nothing that did not help.
            Some(why) if action.mutates => *self.not_sent.entry(why.word()).or_default() += 1,
            None if action.mutates => {
                self.cool_down(&action, out);
                self.count_breaker(&action, out);
            }
            _ => {}
        }
        self.put_action(action, out);
    }

    fn cool_down(&mut self, action: &Action, out: &mut Out<'_>) {
        if action.cooldown > Span::ZERO {
            let until = self.now().plus(action.cooldown);
            self.cooldowns.insert(action.lock.clone(), until);
            out.log.push(LedgerWrite::Cooldown(action.lock.clone(), until));
        }
    }

    /// Ineffective and failed actions count; a verified one clears the count; what cannot be told
    /// does neither. An action that was never sent does not come here.
    fn count_breaker(&mut self, action: &Action, out: &mut Out<'_>) {
        let count = self.breakers.get(&action.rule).copied().unwrap_or(0);
        let next = match action.state {
            ActionState::Ineffective | ActionState::Failed => count.saturating_add(1),
            ActionState::Succeeded if action.verify_until.is_some() => 0,
            _ => count,
        };
        if next != count {
            self.set_breaker(&action.rule, next, out);
        }
    }

    pub(super) fn set_breaker(&mut self, rule: &str, count: u32, out: &mut Out<'_>) {
        self.breakers.insert(rule.to_owned(), count);
        out.log.push(LedgerWrite::Breaker(rule.to_owned(), count));
    }

    /// No step is left. A human is needed if one of them was to help and did not; what the mode alone
    /// held back is as configured.
    fn exhausted(&mut self, incident: &mut Incident, rule: &RuleSpec, out: &mut Out<'_>) {
        if self.stands_by() {
            return;
        }
        let let_down = |action: &Action| match action.state {
            ActionState::Ineffective | ActionState::Inconclusive | ActionState::Failed => true,
            ActionState::Blocked => {
                action.mutates && !rule.respond.get(action.step as usize).is_some_and(is_mode_blocked)
            }
            // It was verified, and here we are again.
            ActionState::Succeeded => action.verify_until.is_some(),
            _ => false,
        };
        let Some(action) = self.episode_actions(incident).find(|action| let_down(action)) else {
            return;
        };
        if incident.state != IncidentState::Escalated {
            let how = match action.state {
                ActionState::Blocked => "was held back",
                ActionState::Failed if action.not_sent.is_some() => "was not sent",
                _ => "did not help",
            };
            let why = format!("the ladder is exhausted: {} {how}", name_of(action));
            self.escalate(incident, &why, out);
        }
    }
}

/// Whether an action was made of a step.
fn is_of(action: &Action, step: &Step) -> bool {
    (&step.action, &step.with, &step.args) == (&action.action, &action.with, &action.args)
}

/// Whether the ladder may go on: the condition holds, and has for long enough.
pub(super) fn needs_action(incident: &Incident, rule: &RuleSpec) -> bool {
    let state = incident.state;
    let is_open = matches!(state, IncidentState::Open | IncidentState::Responding | IncidentState::Escalated);
    is_open && incident.calm_for == Span::ZERO && is_held(incident, rule)
}

/// An action as people call it.
pub(super) fn name_of(action: &Action) -> String {
    format!("{} with {}", action.action, action.with)
}
