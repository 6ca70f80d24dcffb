//! The figure that relight exists to lower: time to recovery, per rule, with credit only for what an
//! action of ours was proven to have done.
//!
//! Works on plain incidents and actions, such as a ledger holds; of a reopened incident the last
//! episode counts. Incidents that are not resolved are not in it.

use std::collections::BTreeMap;

use relight_core::incident::{Action, Incident, IncidentState, Resolution};
use relight_core::{Span, Timestamp};
use serde::Serialize;

/// Two percentiles (nearest rank) of a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half of the incidents took no longer.
    pub p50: Span,
    /// Nine of ten took no longer.
    pub p90: Span,
}

/// What became of a rule's incidents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSummary {
    /// Rule's name.
    pub rule: String,
    /// How many incidents are resolved.
    pub resolved: u32,
    /// Of them, recovered by an action that was verified.
    pub by_verified_action: u32,
    /// Recovered by themselves.
    pub by_themselves: u32,
    /// Ended as the new normal: not recovered.
    pub new_normal: u32,
    /// Closed by a human or with their rule.
    pub closed: u32,
    /// From onset to detection.
    pub time_to_detect: Option<Percentiles>,
    /// From onset to the first action that changes the world, or, if there was none, the first that
    /// told somebody. Of incidents with an action.
    pub time_to_act: Option<Percentiles>,
    /// From onset to the time from which all was well. Of incidents that recovered.
    pub time_to_recover: Option<Percentiles>,
    /// The same of those that recovered by themselves: what the actions are to be compared with.
    pub time_to_recover_by_themselves: Option<Percentiles>,
}

/// Sums resolved incidents up by rule, in the order of the rules' names.
pub fn summarize(incidents: &[Incident], actions: &[Action]) -> Vec<RuleSummary> {
    let mut first_mutation: BTreeMap<(&str, u32), Timestamp> = BTreeMap::new();
    for action in actions.iter().filter(|action| action.mutates && !action.was_never_sent()) {
        let Some(started) = action.started else { continue };
        let first = first_mutation.entry((&action.incident, action.episode)).or_insert(started);
        *first = started.min(*first);
    }
    let mut rules: BTreeMap<&str, Vec<&Incident>> = BTreeMap::new();
    for incident in incidents.iter().filter(|i| i.state == IncidentState::Resolved) {
        rules.entry(&incident.rule).or_default().push(incident);
    }
    let acted = |i: &Incident| first_mutation.get(&(i.id.as_str(), i.episode)).copied().or(i.acted);
    rules.into_iter().map(|(rule, incidents)| of_rule(rule, &incidents, acted)).collect()
}

fn of_rule(
    rule: &str,
    incidents: &[&Incident],
    acted: impl Fn(&Incident) -> Option<Timestamp>,
) -> RuleSummary {
    let count = |why: &[Resolution]| {
        incidents.iter().filter(|i| i.resolution.is_some_and(|r| why.contains(&r))).count() as u32
    };
    let since_onset = |time: &dyn Fn(&Incident) -> Option<Timestamp>| {
        percentiles(incidents.iter().filter_map(|i| Some(time(i)?.since(i.onset))).collect())
    };
    let alone = |i: &Incident| i.recovered.filter(|_| i.resolution == Some(Resolution::SelfRecovered));
    RuleSummary {
        rule: rule.to_owned(),
        resolved: incidents.len() as u32,
        by_verified_action: count(&[Resolution::VerifiedAction]),
        by_themselves: count(&[Resolution::SelfRecovered]),
        new_normal: count(&[Resolution::NewNormal]),
        closed: count(&[Resolution::Human, Resolution::RuleRemoved, Resolution::Gone]),
        time_to_detect: since_onset(&|i| i.detected),
        time_to_act: since_onset(&acted),
        time_to_recover: since_onset(&|i| i.recovered),
        time_to_recover_by_themselves: since_onset(&alone),
    }
}

fn percentiles(mut spans: Vec<Span>) -> Option<Percentiles> {
    spans.sort_unstable();
    let rank = |percent: usize| spans.get((spans.len() * percent).div_ceil(100).max(1) - 1).copied();
    Some(Percentiles { p50: rank(50)?, p90: rank(90)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secs: &[i64], expected: Option<(i64, i64)>) {
        let found = percentiles(secs.iter().map(|s| Span::from_secs(*s)).collect());
        let expected =
            expected.map(|(p50, p90)| Percentiles { p50: Span::from_secs(p50), p90: Span::from_secs(p90) });
        assert_eq!(found, expected, "{secs:?}");
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        check(&[], None);
        check(&[7], Some((7, 7)));
        check(&[30, 10], Some((10, 30)));
        check(&[5, 1, 2, 3, 4], Some((3, 5)));
        check(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1], Some((5, 9)));
    }
}
