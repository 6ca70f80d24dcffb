//! The fleet limit: how much may be changed in all before a human has to look.
//!
//! Each gate before it knows one target; trouble of a shared dependency is anomalous everywhere at once, and each action
//! looks right by itself. When one more action would exceed the limit, the limit engages: a hold without an end, so that it
//! survives a restart, is lifted by `resume`, and people are paged once. Counted are the actions in the ledger, so a crash
//! forgets none; an action counts once, however often it is tried. Pages are never held. docs/design/fleet-limit.md.

use std::collections::BTreeSet;

use relight_core::incident::{Action, LedgerWrite};
use relight_core::rule::{FleetLimit, ITSELF};
use relight_core::{Labels, Timestamp};

use super::gates::{Asked, GateKind, Refusal};
use super::{Control, Out};

/// The hold while the fleet limit is engaged, and the kind of trouble that people are paged about.
pub const FLEET_LIMIT: &str = "fleet_limit";
/// The subject of that page.
const ABOUT: &str = "all actions that change the world";

impl Control {
    /// Rules of which a turn counts the groups: those with a step that the fleet limit measures. Sorted.
    pub fn counted_rules<'a>(
        &'a self,
        queries: impl Iterator<Item = usize> + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let mutates = |rule: &usize| {
            let spec = self.settings.rules.get(*rule);
            spec.is_some_and(|spec| spec.respond.iter().any(|step| step.mutates))
        };
        let rules: BTreeSet<usize> = queries.filter(|_| self.settings.fleet_limit.is_some()).collect();
        rules.into_iter().filter(mutates)
    }

    /// How many actions count towards the limit at present.
    pub fn fleet_actions(&self) -> usize {
        let since = self.settings.fleet_limit.map_or(self.now(), |limit| self.now().minus(limit.within));
        self.counted(since).count()
    }

    /// The limit is engaged. An action that was measured before goes on: it has been counted.
    pub(super) fn fleet_gate(&self, own: Option<&Action>) -> Option<String> {
        if own.is_some_and(|own| self.is_measured(own)) {
            return None;
        }
        let hold = self.holds.get(FLEET_LIMIT)?;
        Some(format!("fleet limit: {}; until `relight resume`", hold.why))
    }

    /// Why one more action would exceed the limit.
    pub(super) fn fleet_excess(&self, asked: Asked<'_>) -> Option<Refusal> {
        let limit = self.settings.fleet_limit.filter(|_| asked.step.mutates)?;
        if asked.own.is_some_and(|own| self.is_measured(own)) {
            return None;
        }
        let refusal = |why: String| Refusal::new(GateKind::FleetLimit.word(), format!("fleet limit: {why}"));
        if let Some(until) = self.unknown_until(limit.within) {
            return Some(refusal(format!("how much the other relight has changed is unknown until {until}")));
        }
        let why = self.excess(limit, asked)?;
        let exceeds = Some(why.clone());
        Some(Refusal { exceeds, ..refusal(format!("{why}; until `relight resume`")) })
    }

    fn excess(&self, limit: FleetLimit, asked: Asked<'_>) -> Option<String> {
        let FleetLimit { actions, within, share_percent, minimum } = limit;
        let since = self.now().minus(within);
        let count = self.counted(since).count() + 1;
        if count > actions as usize {
            return Some(format!("{count} actions in {within} would exceed {actions}"));
        }
        let mut groups: BTreeSet<&Labels> = self.counted(since).map(|action| &action.group).collect();
        groups.insert(&asked.incident.group);
        let known = asked.incident.groups_known;
        let (count, most) = (groups.len() as u64, limit.groups(known));
        let of = format!("{share_percent}% of {known} groups, at least {minimum}");
        (count > most).then(|| format!("{count} groups changed in {within} would exceed {most} ({of})"))
    }

    /// Actions that changed something, or are on their way to, since then. Those of a closed incident count, too.
    fn counted(&self, since: Timestamp) -> impl Iterator<Item = &Action> {
        self.actions.values().filter(move |action| {
            let is_recent = action.started.is_some_and(|at| at > since);
            let counts = is_recent && self.is_measured(action);
            action.mutates && counts && !action.limit_lifted && !action.was_never_sent()
        })
    }

    /// Whether an action has passed the measurement: it has been let out or, where nobody asks before sending, started.
    const fn is_measured(&self, action: &Action) -> bool {
        action.attempts > 0 || !self.measures_when_sent && action.started.is_some()
    }

    /// Actions are measured when they are let out ([`super::ControlInput::Ready`]) and not when they are started, so that one of
    /// which no request can be made takes no other's place. Simulated responders never ask: there the start is measured.
    pub const fn measure_when_sent(&mut self) {
        self.measures_when_sent = true;
    }

    pub(super) fn engage_fleet_limit(&mut self, why: &str, out: &mut Out<'_>) {
        out.audit(self.now(), "fleet_limit_engaged", FLEET_LIMIT, why.to_owned());
        self.hold_back(FLEET_LIMIT, None, why.to_owned(), out);
        let message = format!("{why}: nothing is changed until `relight resume`; pages still go out");
        self.trouble(FLEET_LIMIT, ABOUT, &message, out);
    }

    /// A human has looked: what was counted counts no more, and should the limit engage again people are paged at once.
    pub(super) fn lift_fleet_limit(&mut self, out: &mut Out<'_>) {
        let counted: Vec<Action> = self.counted(Timestamp::MIN).cloned().collect();
        for mut action in counted {
            action.limit_lifted = true;
            self.put_action(action, out);
        }
        let quiet = format!("{ITSELF}/{FLEET_LIMIT}/{ABOUT}");
        if self.cooldowns.remove(&quiet).is_some() {
            out.log.push(LedgerWrite::Cooldown(quiet, self.now()));
        }
    }
}
