//! What Control holds in memory, and how it gets into the ledger.
//!
//! Decides nothing about incidents. The ledger keeps everything; memory keeps what can still matter.

use std::collections::{BTreeMap, BTreeSet};

use relight_core::Timestamp;
use relight_core::codec::{Codec, encode_bytes};
use relight_core::incident::{Action, Applied, Incident, LedgerWrite};
use relight_core::rule::Finding;

use super::{Control, DAY, Effect, GroupQuery, is_watched, reopens};

/// What a turn leaves behind, gathered while it runs: each incident and action is written once.
pub(super) struct Out<'a> {
    pub(super) incidents: BTreeSet<String>,
    actions: BTreeSet<String>,
    pub(super) log: Vec<LedgerWrite>,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl<'a> Out<'a> {
    pub(super) const fn new(effects: &'a mut Vec<Effect>) -> Self {
        Self { incidents: BTreeSet::new(), actions: BTreeSet::new(), log: Vec::new(), effects }
    }

    pub(super) fn audit(&mut self, at: Timestamp, what: &str, subject: &str, detail: impl Into<String>) {
        let (what, subject) = (what.to_owned(), subject.to_owned());
        self.log.push(LedgerWrite::Audit { at, what, subject, detail: detail.into() });
    }
}

impl Control {
    /// The latest incident of each group.
    pub(super) fn index_groups(&mut self) {
        let mut latest: BTreeMap<GroupQuery, (Timestamp, &String)> = BTreeMap::new();
        for incident in self.incidents.values() {
            let Some(rule) = self.rule_ix(&incident.rule) else {
                continue;
            };
            let place = latest
                .entry(GroupQuery { rule, group: incident.group.clone() })
                .or_insert((incident.first_finding, &incident.id));
            *place = (*place).max((incident.first_finding, &incident.id));
        }
        self.groups = latest.into_iter().map(|(query, (_, id))| (query, id.clone())).collect();
    }

    /// Gives an incident back that was in hand, and has it written.
    pub(super) fn put(&mut self, incident: Incident, out: &mut Out<'_>) {
        out.incidents.insert(incident.id.clone());
        self.incidents.insert(incident.id.clone(), incident);
    }

    /// Gives an action back that was in hand, and has it written.
    pub(super) fn put_action(&mut self, action: Action, out: &mut Out<'_>) {
        out.actions.insert(action.id.clone());
        self.actions.insert(action.id.clone(), action);
    }

    /// Hands out what the turn wrote: incidents, actions, the rest, and last how far Control has come.
    pub(super) fn commit(&mut self, out: Out<'_>, writes: &mut Vec<LedgerWrite>) {
        let incidents = out.incidents.iter().filter_map(|id| self.incidents.get(id));
        writes.extend(incidents.map(|incident| LedgerWrite::Incident(Box::new(incident.clone()))));
        let actions = out.actions.iter().filter_map(|id| self.actions.get(id));
        writes.extend(actions.map(|action| LedgerWrite::Action(Box::new(action.clone()))));
        writes.extend(out.log);
        writes.push(LedgerWrite::Applied(self.applied));
        self.forget_closed();
    }

    /// Drops from memory what no rule can ask for any more. Decided by time alone, so that it makes no
    /// difference when it is done.
    pub(super) fn forget_closed(&mut self) {
        let Applied { turn, control, .. } = self.applied;
        let sent: BTreeSet<&str> =
            self.actions.values().filter(|a| !a.state.is_final()).map(|a| a.incident.as_str()).collect();
        let settings = &self.settings;
        self.incidents.retain(|id, incident| {
            let rule = settings.rules.iter().find(|rule| rule.name == incident.rule);
            is_watched(incident) || sent.contains(id.as_str()) || reopens(incident, rule, turn)
        });
        let incidents = &self.incidents;
        self.groups.retain(|_, id| incidents.contains_key(id));
        let recent = control.minus(DAY);
        self.actions.retain(|_, action| {
            incidents.contains_key(&action.incident) || action.started.is_some_and(|at| at > recent)
        });
        self.cooldowns.retain(|_, until| *until > control);
        self.holds.retain(|_, hold| hold.until.is_none_or(|until| until > control));
    }

    /// The digest of a turn's findings, over names and canonical bytes: never over dense indices.
    pub(super) fn digest(&self, findings: &[Finding]) -> u64 {
        let mut bytes = Vec::new();
        for finding in findings {
            finding.at.encode(&mut bytes);
            let detector = self.settings.detectors.get(finding.detector);
            encode_bytes(detector.map_or("", |d| d.name.as_str()).as_bytes(), &mut bytes);
            encode_bytes(&finding.row, &mut bytes);
            let band = finding.reading.band;
            [finding.value, finding.reading.score, band.expected, band.lower, band.upper].encode(&mut bytes);
            finding.relearned.encode(&mut bytes);
            finding.onset.encode(&mut bytes);
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}
