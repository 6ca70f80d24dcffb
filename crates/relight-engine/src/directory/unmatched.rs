//! What of the signals has met nothing: selectors that chose no series, or none of the kind that they need, and labels that
//! none has.
//!
//! Worked out from the names alone, when somebody asks; nothing is counted while points come in.

use std::collections::BTreeSet;

use relight_core::record::Kind;
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
    /// What the chosen series are, where all are of a kind that the part has no use for.
    pub unfit: Option<Unfit>,
    /// What there was instead: names of metrics, or labels of the series that were chosen; at most 10,000,
    /// ascending. Of events nothing is kept.
    pub have: Vec<String>,
}

/// Why series are of no use to a part of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// They are gauges, and what does not count up has no rate.
    Gauges,
    /// They are no histograms, and only those have quantiles.
    NoHistograms,
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
            // Of a lone selector each row is one that it has met, also where all of its series are gone.
            let has_met = sides.len() == 1 && self.has_rows(ix);
            for (part, selector) in &sides {
                if !has_met && !self.keys().any(|key| selector.selects(key)) {
                    found.push(unmatched_selector(signal, part, selector, self.metrics()));
                } else if let Some(unfit) = self.unfit(&signal.kind, selector) {
                    let unmatched = unmatched_selector(signal, part, selector, Vec::new());
                    found.push(Unmatched { unfit: Some(unfit), ..unmatched });
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
            unfit: None,
            have: have.iter().map(|label| (*label).to_owned()).collect(),
        };
        missing.map(unmatched).collect()
    }

    /// Why all series that are chosen are of no use; `None` if one is, or none is there any more.
    fn unfit(&self, kind: &SignalKind, selector: &Selector) -> Option<Unfit> {
        let (unfit, fits): (_, fn(Kind) -> bool) = match kind {
            SignalKind::Rate { .. } | SignalKind::Ratio { .. } => (Unfit::Gauges, |kind| kind != Kind::Gauge),
            SignalKind::Quantile { .. } => (Unfit::NoHistograms, Kind::is_histogram),
            _ => return None,
        };
        let mut chosen =
            self.arena.numbers().filter(|ix| selector.selects(KeyView::new(self.arena.key(*ix)))).peekable();
        chosen.peek()?;
        (!chosen.any(|ix| fits(self.arena.kind(ix)))).then_some(unfit)
    }

    fn keys(&self) -> impl Iterator<Item = KeyView<'_>> {
        self.arena.numbers().map(|ix| KeyView::new(self.arena.key(ix)))
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

    /// Whether the signal has rows, or had some.
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
    Unmatched { signal: signal.name.clone(), part, wanted: selector.text().to_owned(), unfit: None, have }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use relight_core::rule::Settings;
    use relight_core::series::key_of;
    use relight_core::signal::{Aggregate, Binning, Select};
    use relight_core::{Labels, Span, Timestamp};

    use super::*;
    use crate::directory::IdleSeries;

    /// Chooses the series of a name.
    struct Named(&'static str);

    impl Select for Named {
        fn selects(&self, key: KeyView<'_>) -> bool {
            key.name() == self.0
        }
        fn text(&self) -> &str {
            self.0
        }
    }

    fn signal(of: &'static str) -> SignalSpec {
        SignalSpec {
            name: format!("of_{of}"),
            kind: SignalKind::Value { of: Arc::new(Named(of)), aggregate: Aggregate::Mean },
            by: By::Labels(vec!["host".to_owned(), "rack".to_owned()]),
        }
    }

    fn directory(signals: &[SignalSpec]) -> Directory {
        Directory::new(&Settings {
            binning: Binning::Interval(Span::from_secs(10)),
            allowed_lateness: Span::ZERO,
            max_skew: Span::ZERO,
            max_series: 10,
            series_ttl: Span::ZERO,
            sources: Vec::new(),
            signals: signals.to_vec(),
            detectors: Vec::new(),
            rules: Vec::new(),
            trouble: None,
            fleet_limit: None,
            fingerprint: Vec::new(),
        })
    }

    /// Adds a series, and gives what it takes to evict it.
    fn add(directory: &mut Directory, name: &str, label: &str) -> IdleSeries {
        let key = key_of(name, &Labels::new([(label.to_owned(), "1".to_owned())]));
        let (mut series, mut rows) = (Vec::new(), Vec::new());
        directory.add(&key, Kind::Gauge, None, (&mut series, &mut rows)).expect("there is room");
        let new = series.remove(0);
        let rows = new.feeds.iter().map(|feed| feed.row).collect();
        IdleSeries { at: new.at, last: Timestamp::MIN, rows, waiting: None }
    }

    /// Scenario: a rate of gauges, of a counter beside a gauge, and a quantile of what is no histogram.
    /// Guarantee: told is why there is no row where no series that was chosen can give one.
    #[test]
    fn a_rate_of_gauges_is_told() {
        let of = |name: &'static str, kind: fn(Selector) -> SignalKind| SignalSpec {
            kind: kind(Arc::new(Named(name))),
            by: By::Labels(Vec::new()),
            ..signal(name)
        };
        let rate: fn(Selector) -> SignalKind = |of| SignalKind::Rate { of };
        let signals = [
            of("gauge", rate),
            of("counter", rate),
            of("counter", |of| SignalKind::Quantile { of, q: 0.5 }),
            of("gauge", |of| SignalKind::Value { of, aggregate: Aggregate::Mean }),
        ];
        let mut directory = directory(&signals);
        for (name, label, kind) in [
            ("gauge", "a", Kind::Gauge),
            ("gauge", "b", Kind::Gauge),
            ("counter", "a", Kind::Gauge),
            ("counter", "b", Kind::Cumulative),
        ] {
            let key = key_of(name, &Labels::new([(label.to_owned(), "1".to_owned())]));
            directory.add(&key, kind, None, (&mut Vec::new(), &mut Vec::new())).expect("there is room");
        }
        let found: Vec<_> =
            directory.unmatched(&signals).into_iter().map(|u| (u.part, u.wanted, u.unfit)).collect();
        let expected = [
            ("rate", "gauge".to_owned(), Some(Unfit::Gauges)),
            ("quantile.of", "counter".to_owned(), Some(Unfit::NoHistograms)),
        ];
        assert_eq!(found, expected);
    }

    /// Scenario: of four series the first two are evicted, so that those which stay have higher numbers than there are
    /// series; a signal each looks at one of the first and one of the last, and another at none of them.
    /// Guarantee: told is what met nothing, and the names and labels beside it are those of the series that are there.
    #[test]
    fn what_was_evicted_is_not_looked_at() {
        let signals = [signal("first"), signal("last"), signal("lost")];
        let mut directory = directory(&signals);
        let gone = [add(&mut directory, "first", "rack"), add(&mut directory, "second", "rack")];
        add(&mut directory, "third", "host");
        add(&mut directory, "last", "host");
        directory.evict(&gone, &BTreeMap::new(), (&mut Vec::new(), &mut Vec::new()));
        let unmatched = |signal: &str, part, wanted: &str, have: &[&str]| Unmatched {
            signal: signal.to_owned(),
            part,
            wanted: wanted.to_owned(),
            unfit: None,
            have: have.iter().map(|have| (*have).to_owned()).collect(),
        };
        let expected = [
            unmatched("of_last", "by", "rack", &["host"]),
            unmatched("of_lost", "value", "lost", &["last", "third"]),
        ];
        assert_eq!(directory.unmatched(&signals), expected);
    }
}
