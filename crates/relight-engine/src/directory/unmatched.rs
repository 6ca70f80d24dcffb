//! What of the signals has met nothing: selectors that chose no series, and labels that none has.
//!
//! Worked out from the names alone, when somebody asks; nothing is counted while points come in.

use std::collections::BTreeSet;

use relight_core::series::KeyView;
use relight_core::signal::{By, Selector, SignalKind, SignalSpec};

use super::{Directory, key_groups};

/// Names that are kept to choose a near one from.
const MAX_NAMES: usize = 10_000;

/// A part of a signal that has met nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// The signal's name.
    pub signal: String,
    /// Which part, as the config calls it: `value`, `ratio.of`, .., or `by`.
    pub part: &'static str,
    /// The selector or label, as it was written.
    pub wanted: String,
    /// What there was instead: names of metrics, or labels of the series that were chosen; at most 10,000,
    /// ascending. Of events nothing is kept.
    pub have: Vec<String>,
}

impl Directory {
    /// What of the signals has met nothing so far, in the order of the signals.
    pub fn unmatched(&self, signals: &[SignalSpec]) -> Vec<Unmatched> {
        let mut found = Vec::new();
        for (ix, signal) in signals.iter().enumerate() {
            if let SignalKind::EventCount { of } = &signal.kind {
                if !self.has_rows(ix) {
                    found.push(unmatched_selector(signal, "events", of, Vec::new()));
                }
                continue;
            }
            let sides = sides(&signal.kind);
            for (part, selector) in &sides {
                if !self.keys().any(|key| selector.selects(key)) {
                    found.push(unmatched_selector(signal, part, selector, self.metrics()));
                }
            }
            found.extend(self.unmatched_labels(signal, &sides));
        }
        found
    }

    /// Labels of `by` that no chosen series has. Where none was chosen that is told already.
    fn unmatched_labels(&self, signal: &SignalSpec, sides: &[(&'static str, &Selector)]) -> Vec<Unmatched> {
        let By::Labels(by) = &signal.by else { return Vec::new() };
        let is_chosen = |key: &KeyView<'_>| sides.iter().any(|(_, selector)| selector.selects(*key));
        let mut have = BTreeSet::new();
        for (label, _) in self.keys().filter(is_chosen).flat_map(KeyView::labels) {
            if have.len() < MAX_NAMES && !have.contains(label) {
                have.insert(label);
            }
        }
        let any_chosen = self.keys().any(|key| is_chosen(&key));
        let missing = by.iter().filter(|label| any_chosen && !have.contains(label.as_str()));
        let unmatched = |label: &String| Unmatched {
            signal: signal.name.clone(),
            part: "by",
            wanted: label.clone(),
            have: have.iter().map(|label| (*label).to_owned()).collect(),
        };
        missing.map(unmatched).collect()
    }

    fn keys(&self) -> impl Iterator<Item = KeyView<'_>> {
        (0..self.arena.len() as u32).map(|ix| KeyView::new(self.arena.key(ix)))
    }

    fn metrics(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for key in self.keys() {
            if names.len() < MAX_NAMES {
                names.insert(key.name());
            }
        }
        names.into_iter().map(str::to_owned).collect()
    }

    fn has_rows(&self, signal: usize) -> bool {
        key_groups().any(|group| self.rows.has_any(signal, group))
    }
}

fn unmatched_selector(
    signal: &SignalSpec,
    part: &'static str,
    selector: &Selector,
    have: Vec<String>,
) -> Unmatched {
    Unmatched { signal: signal.name.clone(), part, wanted: selector.text().to_owned(), have }
}

/// The selectors of series that a signal has, by the part that they are.
fn sides(kind: &SignalKind) -> Vec<(&'static str, &Selector)> {
    match kind {
        SignalKind::EverySeries | SignalKind::EventCount { .. } => Vec::new(),
        SignalKind::Value { of, .. } => vec![("value", of)],
        SignalKind::Rate { of } => vec![("rate", of)],
        SignalKind::Quantile { of, .. } => vec![("quantile.of", of)],
        SignalKind::Ratio { of, to, .. } => vec![("ratio.of", of), ("ratio.to", to)],
    }
}
