//! What a daemon left behind, in a form that can be held against another's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use relight_core::incident::{Action, Incident, IncidentState};
use relight_store::{Loaded, StateDir};

/// The state of one daemon after it has ended.
pub(crate) struct Left {
    /// Of each partition the first offset that is not in it, and its watermark.
    pub(crate) partitions: BTreeMap<String, (u64, String)>,
    /// Bin turns, and the last of them.
    pub(crate) turns: (u64, String),
    /// What was counted, and all that Intake and the detectors know, by key group.
    pub(crate) learned: BTreeMap<String, Vec<u8>>,
    pub(crate) incidents: BTreeMap<String, Incident>,
    pub(crate) actions: BTreeMap<String, Action>,
}

impl Left {
    pub(crate) fn read(state: &Path) -> Self {
        let (mut baselines, mut ledger) = StateDir::open(state).expect("nobody else has it");
        let (kept, _) = ledger.load().expect("the ledger is whole");
        let Loaded::Whole(snapshot) = baselines.load().expect("the baselines can be read") else {
            panic!("the baselines are not whole");
        };
        let manifest = snapshot.manifest;
        let partition = |p: relight_store::PartitionCut| (p.name, (p.next_offset, p.watermark.to_string()));
        let image = |(kind, group, bytes): (_, relight_core::series::KeyGroup, Vec<u8>)| {
            (format!("{kind:?} {:03}", group.ix()), bytes)
        };
        let mut learned: BTreeMap<String, Vec<u8>> = snapshot.images.into_iter().map(image).collect();
        learned.insert("intake".to_owned(), manifest.intake);
        Self {
            partitions: manifest.partitions.into_iter().map(partition).collect(),
            turns: (manifest.turns, format!("{:?}", manifest.turn)),
            learned,
            incidents: kept.incidents.into_iter().map(|incident| (incident.id.clone(), incident)).collect(),
            actions: kept.actions.into_iter().map(|action| (action.id.clone(), action)).collect(),
        }
    }

    /// The incidents that wait for a human, whatever the stream says: one whose ladder came to an end, or of which nobody
    /// knows what was done.
    pub(crate) fn latched(&self) -> BTreeSet<String> {
        let latched = self.incidents.values().filter(|i| i.state == IncidentState::Escalated);
        latched.map(|i| i.id.clone()).collect()
    }

    /// Of each incident what the stream alone decides: not when its actions ran, nor how; and of those that are `latched`
    /// somewhere not when they were over.
    pub(crate) fn findings(&self, latched: &BTreeSet<String>) -> Vec<String> {
        let told = |i: &Incident| {
            let over = (!latched.contains(&i.id)).then_some((i.resolved, i.calm_for, i.last_data));
            let lasted = (i.first_finding, i.onset, i.detected, i.recovered, over);
            let held = (i.held_for, i.held_turns, i.findings, i.relearned, i.worst_score.to_bits());
            let Incident { id, rule, group, episode, stale, evidence, .. } = i;
            format!("{id} {rule}{group} {episode} {stale} {lasted:?} {held:?} {evidence:?}")
        };
        self.incidents.values().map(told).collect()
    }
}
