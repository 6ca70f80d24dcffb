//! What keeps relight from changing anything as a whole: the kill switch, and doubt about its own state.
//!
//! A hold has a name and a reason. One without an end waits for a human's `resume`; one with an end runs
//! out by itself. Holds stand in the ledger, so a restart does not lift them. Pages are never held.

use relight_core::Timestamp;
use relight_core::incident::{Hold, LedgerWrite};

use super::fleet::FLEET_LIMIT;
use super::{Control, Out};

/// The hold while a source is down. Besides what every hold does, it keeps missing data from meaning anything.
pub const SOURCE_DOWN: &str = "source_down";
/// The hold that `pause` sets.
const PAUSED: &str = "paused";

impl Control {
    /// What keeps relight from changing anything at present, by name.
    pub fn holds(&self) -> impl Iterator<Item = (&str, &Hold)> {
        let now = self.now();
        self.holds
            .iter()
            .filter(move |(_, hold)| hold.until.is_none_or(|until| until > now))
            .map(|(n, h)| (n.as_str(), h))
    }

    pub(super) fn hold_back(&mut self, name: &str, until: Option<Timestamp>, why: String, out: &mut Out<'_>) {
        let hold = Hold { until, why };
        out.audit(self.now(), "held", name, hold.why.clone());
        out.log.push(LedgerWrite::Hold(name.to_owned(), Some(hold.clone())));
        self.holds.insert(name.to_owned(), hold);
    }

    /// Whether data may be missing because a source is down.
    pub(super) fn is_blind(&self) -> bool {
        self.holds().any(|(name, _)| name == SOURCE_DOWN)
    }

    /// The kill switch. Pausing twice is pausing once.
    pub(super) fn pause(&mut self, why: &str, out: &mut Out<'_>) -> bool {
        let why = if why.is_empty() { "by hand" } else { why };
        self.hold_back(PAUSED, None, why.to_owned(), out);
        true
    }

    /// Lifts every hold that waits for a human.
    pub(super) fn resume(&mut self, out: &mut Out<'_>) -> bool {
        let waits = self.holds.iter().filter(|(_, hold)| hold.until.is_none());
        let names: Vec<String> = waits.map(|(name, _)| name.clone()).collect();
        for name in &names {
            if name == FLEET_LIMIT {
                self.lift_fleet_limit(out);
            }
            self.holds.remove(name);
            out.audit(self.now(), "resumed", name, "");
            out.log.push(LedgerWrite::Hold(name.clone(), None));
        }
        !names.is_empty()
    }

    /// Holds that wait for a human, but for the fleet limit, which has a gate of its own: the first of all gates.
    pub(super) fn kill_switch_gate(&self) -> Option<String> {
        let waits = |(name, hold): &(&String, &Hold)| hold.until.is_none() && *name != FLEET_LIMIT;
        let (name, hold) = self.holds.iter().find(waits)?;
        Some(format!("kill switch: {name}, {}", hold.why))
    }

    /// Holds that run out by themselves: what was learned is not to be acted on yet.
    pub(super) fn warm_up_gate(&self) -> Option<String> {
        let until = |hold: &Hold| hold.until.filter(|until| *until > self.now());
        let (_, hold, until) = self.holds.iter().find_map(|(name, hold)| Some((name, hold, until(hold)?)))?;
        Some(format!("warm-up: {} until {until}", hold.why))
    }
}
