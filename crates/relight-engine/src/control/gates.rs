//! The conditions that a step must pass before anything is touched, in DESIGN's order.
//!
//! Decides and changes nothing. Asked when a step is started, and again right before each attempt: time has
//! passed, and what was true may not be. Silences, storm brake, precondition and preflight are not here yet.

use relight_core::Span;
use relight_core::incident::{Action, ActionState, Incident, IncidentState};
use relight_core::rule::{Mode, RuleSpec, Step};

use super::{Control, DAY, is_sent};

/// What the gates say about a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may start.
    Pass,
    /// A human must agree.
    Approval,
    /// The gate that says no, with value and limit.
    Blocked(String),
}

impl Control {
    /// Asks all gates, in order. A step that only notifies has to pass the mode alone: pages fail open.
    /// `own` is the action that the step has become, if it has: it does not stand in its own way.
    pub(super) fn gate(
        &self,
        incident: &Incident,
        rule: &RuleSpec,
        step: &Step,
        own: Option<&Action>,
    ) -> Gate {
        let blocked = if step.mutates {
            let lock = lock_of(incident, step);
            let others = || self.actions.values().filter(|a| own.is_none_or(|own| own.id != a.id));
            self.kill_switch_gate()
                .or_else(|| self.standby_gate(incident))
                .or_else(|| self.mode_gate(step))
                .or_else(|| self.warm_up_gate())
                .or_else(|| freshness_gate(self, incident))
                .or_else(|| escalation_gate(incident))
                .or_else(|| self.breaker_gate(rule))
                .or_else(|| self.cooldown_gate(&lock, step))
                .or_else(|| self.budget_gate(&lock, step, others()))
                .or_else(|| lock_gate(&lock, others()))
        } else {
            self.mode_gate(step)
        };
        let approved = own.is_some_and(|own| own.approved);
        match blocked {
            Some(detail) => Gate::Blocked(detail),
            None if step.mutates && step.mode == Mode::Approve && !approved => Gate::Approval,
            None => Gate::Pass,
        }
    }

    #[expect(clippy::unused_self, reason = "all gates are asked in the same way")]
    fn mode_gate(&self, step: &Step) -> Option<String> {
        let wanted = if step.mutates { "auto" } else { "suggest" };
        is_mode_blocked(step)
            .then(|| format!("mode: the config allows `{}`, this needs `{wanted}`", mode_name(step.mode)))
    }

    fn breaker_gate(&self, rule: &RuleSpec) -> Option<String> {
        let count = self.breakers.get(&rule.name).copied().unwrap_or(0);
        let limit = rule.breaker_after;
        (count >= limit).then(|| format!("breaker: {count} actions in a row did not help, limit {limit}"))
    }

    fn cooldown_gate(&self, lock: &str, step: &Step) -> Option<String> {
        let until = self.cooldowns.get(lock).copied().max(self.new_cooldown(step))?;
        (until > self.now()).then(|| format!("cooldown: {lock} until {until}"))
    }

    fn budget_gate<'a>(
        &self,
        lock: &str,
        step: &Step,
        others: impl Iterator<Item = &'a Action>,
    ) -> Option<String> {
        let limit = step.limits.max_per_day?;
        let since = self.now().minus(DAY);
        let started = others.filter(|action| {
            action.mutates && action.lock == lock && action.started.is_some_and(|at| at > since)
        });
        let count = started.count();
        (count >= limit as usize).then(|| format!("budget: {count} of {limit} in 24h on {lock}"))
    }
}

fn lock_gate<'a>(lock: &str, others: impl Iterator<Item = &'a Action>) -> Option<String> {
    let holds = |state| is_sent(state) || state == ActionState::Verifying;
    let mut on_lock = others.filter(|action| action.mutates && action.lock == lock);
    on_lock.find(|action| holds(action.state)).map(|holder| format!("lock: {lock} is held by {}", holder.id))
}

/// Missing data is no reason to act: neither when the stream lags behind control time or the group has none
/// at present, nor after an action of which no sample told what it did.
fn freshness_gate(control: &Control, incident: &Incident) -> Option<String> {
    let settings = &control.settings;
    // What a stream in good health may be behind: the open bin, lateness, and the wait for a stalled partition.
    let healthy = [settings.interval().times(2), settings.allowed_lateness, settings.max_skew];
    let limit = Span::from_ns(healthy.iter().fold(0, |sum, span| sum.saturating_add(span.ns())));
    let lag = control.now().since(control.applied.turn);
    if lag > limit {
        return Some(format!("freshness: the stream is {lag} behind, limit {limit}"));
    }
    if incident.stale {
        return Some(format!("freshness: no data since {}", incident.last_data));
    }
    let blind = control.episode_actions(incident).find(|action| {
        action.state == ActionState::Inconclusive
            && !action.sampled
            && action.ended.is_some_and(|ended| incident.last_data <= ended)
    })?;
    Some(format!("freshness: no data since {} ended", blind.id))
}

fn escalation_gate(incident: &Incident) -> Option<String> {
    let escalated = incident.state == IncidentState::Escalated;
    escalated.then(|| "escalated: waits for a human".to_owned())
}

/// Whether the mode alone keeps a step from happening: a setting, not a failure.
pub(super) fn is_mode_blocked(step: &Step) -> bool {
    step.mode < if step.mutates { Mode::Approve } else { Mode::Suggest }
}

/// The lock of a step's target: as configured, else the rule and its group.
pub(super) fn lock_of(incident: &Incident, step: &Step) -> String {
    if step.limits.lock.is_empty() {
        format!("{}{}", incident.rule, incident.group)
    } else {
        step.limits.lock.clone()
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Observe => "observe",
        Mode::Suggest => "suggest",
        Mode::Approve => "approve",
        Mode::Auto => "auto",
    }
}
