//! The conditions that a step must pass before anything is touched, in DESIGN's order.
//!
//! Decides and changes nothing. Asked when a step is started, and again right before each attempt: time has
//! passed, and what was true may not be. Silences, precondition and preflight are not here yet.

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
    /// A gate says no.
    Blocked(Refusal),
}

/// Why a step does not start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// A stable word: the gate's, or one of `approval`, `rejected`, `recovered`, `config`, `standby`.
    pub(super) reason: &'static str,
    /// The gate with value and limit, for people.
    pub(super) detail: String,
    /// The step would exceed the fleet limit, which is not engaged yet.
    pub(super) exceeds: Option<String>,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), exceeds: None }
    }

    pub(super) fn step_is_gone() -> Self {
        Self::new("config", "config: its step is gone")
    }
}

macro_rules! gates {
    ($($(#[doc = $doc:literal])+ $gate:ident = $word:literal;)+) => {
        /// A condition before anything is touched.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum GateKind { $($(#[doc = $doc])+ $gate),+ }

        impl GateKind {
            /// All of them, in the order in which they are asked.
            pub(super) const ALL: &[Self] = &[$(Self::$gate),+];

            /// Its word in `/metrics`.
            pub(super) const fn word(self) -> &'static str {
                match self { $(Self::$gate => $word),+ }
            }
        }
    };
}

gates! {
    /// A hold that waits for a human.
    KillSwitch = "kill_switch";
    /// Another relight acts, or did when the incident opened.
    Standby = "standby";
    /// The lowest mode of config, rule and responder.
    Mode = "mode";
    /// A hold that ends by itself.
    WarmUp = "warm_up";
    /// No action on data that is missing or old.
    Freshness = "freshness";
    /// The incident waits for a human.
    Escalated = "escalated";
    /// How much may be changed in the whole fleet.
    FleetLimit = "fleet_limit";
    /// Actions of the rule that did not help.
    Breaker = "breaker";
    /// The time after an action on the same lock.
    Cooldown = "cooldown";
    /// Actions a day on the same lock.
    Budget = "budget";
    /// One action at a time on a lock.
    Lock = "lock";
}

/// What a gate is asked about. `own` is the action that the step has become, if it has: it does not stand in its own way.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) incident: &'a Incident,
    pub(super) rule: &'a RuleSpec,
    pub(super) step: &'a Step,
    pub(super) own: Option<&'a Action>,
}

impl Control {
    /// Asks all gates, in order. A step that only notifies has to pass the mode alone: pages fail open.
    pub(super) fn gate(&self, asked: Asked<'_>) -> Gate {
        let step = asked.step;
        for gate in GateKind::ALL {
            if !step.mutates && *gate != GateKind::Mode {
                continue;
            }
            if let Some(detail) = self.ask_gate(*gate, asked) {
                return Gate::Blocked(Refusal::new(gate.word(), detail));
            }
        }
        let approved = asked.own.is_some_and(|own| own.approved);
        if step.mutates && step.mode == Mode::Approve && !approved {
            return Gate::Approval;
        }
        // Last: only a step that would start is measured, and only then does the limit engage.
        match self.fleet_excess(asked) {
            Some(refusal) => Gate::Blocked(refusal),
            None => Gate::Pass,
        }
    }

    /// Why one gate says no, with value and limit.
    fn ask_gate(&self, gate: GateKind, asked: Asked<'_>) -> Option<String> {
        let Asked { incident, rule, step, own } = asked;
        let lock = || lock_of(incident, step);
        let others = || self.actions.values().filter(|action| own.is_none_or(|own| own.id != action.id));
        match gate {
            GateKind::KillSwitch => self.kill_switch_gate(),
            GateKind::Standby => self.standby_gate(incident),
            GateKind::Mode => mode_gate(step),
            GateKind::WarmUp => self.warm_up_gate(),
            GateKind::Freshness => freshness_gate(self, incident),
            GateKind::Escalated => escalation_gate(incident),
            GateKind::FleetLimit => self.fleet_gate(own),
            GateKind::Breaker => self.breaker_gate(rule),
            GateKind::Cooldown => self.cooldown_gate(&lock(), step),
            GateKind::Budget => self.budget_gate(&lock(), step, others()),
            GateKind::Lock => lock_gate(&lock(), others()),
        }
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
            action.mutates
                && action.lock == lock
                && !action.was_never_sent()
                && action.started.is_some_and(|at| at > since)
        });
        let count = started.count();
        (count >= limit as usize).then(|| format!("budget: {count} of {limit} in 24h on {lock}"))
    }
}

fn mode_gate(step: &Step) -> Option<String> {
    let wanted = if step.mutates { "auto" } else { "suggest" };
    is_mode_blocked(step)
        .then(|| format!("mode: the config allows `{}`, this needs `{wanted}`", mode_name(step.mode)))
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
            && action.fresh_until.or(action.ended).is_some_and(|since| incident.last_data <= since)
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
