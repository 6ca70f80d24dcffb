//! How findings become an incident's evidence, and how its onset is told.
//!
//! Knows nothing of states: what an incident is made of, not what becomes of it.

use relight_core::incident::{Evidence, Incident, MAX_EVIDENCE};
use relight_core::{Span, Timestamp};

use super::Control;
use super::incident::GroupTurn;

/// An onset further back than this from the first finding is not believed.
const MAX_ONSET: Span = Span::from_secs(3600);

impl Control {
    /// Takes the turn's findings into the incident.
    pub(super) fn collect(&self, incident: &mut Incident, turn: &GroupTurn<'_>) {
        for finding in turn.findings {
            incident.findings += 1;
            incident.worst_score = incident.worst_score.max(finding.reading.score);
            if finding.relearned {
                if incident.relearned == 0 {
                    incident.note(turn.end, "relearned", "a row took what it sees for its new normal");
                }
                incident.relearned += 1;
            }
            if incident.evidence.len() < MAX_EVIDENCE {
                let evidence = Evidence::of(finding, &self.settings);
                let is_known = incident.evidence.iter().any(|known| {
                    (&known.detector, &known.signal, &known.labels)
                        == (&evidence.detector, &evidence.signal, &evidence.labels)
                });
                if !is_known {
                    incident.evidence.push(evidence);
                }
            }
        }
    }
}

/// The earliest believable onset that anybody named up to now.
pub(super) fn onset(incident: &Incident, turn: &GroupTurn<'_>, not_before: Timestamp) -> Timestamp {
    let first = incident.first_finding;
    let earliest = first.minus(MAX_ONSET).max(not_before.min(first));
    let named = turn.findings.iter().filter_map(|finding| finding.onset);
    let believable = named.filter(|at| (earliest..=first).contains(at));
    believable.min().map_or(incident.onset, |at| at.min(incident.onset))
}

/// The row that spoke first, for people.
pub(super) fn describe(evidence: &Evidence) -> String {
    let Evidence { detector, signal, labels, value, score, .. } = evidence;
    let value = if value.is_nan() { String::new() } else { format!(" = {},", short(*value)) };
    let (how, score) = (evidence.in_words(short), short(*score));
    format!("{signal}{labels}{value} {how} ({detector}, score {score})")
}

/// Four significant digits: enough for a person.
fn short(value: f64) -> String {
    let magnitude = if value == 0.0 { 3.0 } else { value.abs().log10().floor() };
    let decimals = (3.0 - magnitude).clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}
