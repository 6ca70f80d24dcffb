//! Which series of remote write count up: by metadata, by name, else by a guess.
//!
//! A series' kind is settled before its samples become points, so a record carries it and nothing that is read
//! again depends on this table. Does no I/O and reads no clock.

use std::collections::HashMap;

use relight_core::record::Kind;
use relight_core::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Families whose type is remembered, guesses included.
pub(super) const MAX_FAMILIES: usize = 20_000;
/// A longer name is not remembered; no series may have it either.
const MAX_NAME_BYTES: usize = 1 << 10;
/// How long metadata must say only another type before a known one is replaced: Prometheus sends metadata once a
/// minute, and where two targets give one family two types it sends both each time, in any order.
const CONTRADICTED_FOR: Span = Span::from_secs(180);
/// Suffixes of series that count up.
const COUNTING: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
/// Suffixes of series that do not, by the naming conventions of Prometheus and OpenMetrics.
const GAUGES: [&str; 11] = [
    "_created",
    "_info",
    "_gcount",
    "_gsum",
    "_ratio",
    "_percent",
    "_celsius",
    "_timestamp",
    "_timestamp_seconds",
    "_start_time_seconds",
    "_boot_time_seconds",
];
/// Series that Prometheus makes itself, for which it never sends metadata.
const OF_PROMETHEUS: [&str; 3] = ["up", "ALERTS", "ALERTS_FOR_STATE"];
const OF_SCRAPES: &str = "scrape_";

/// A family's type, as far as it matters: which of its series count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Family {
    /// The series with the family's name, with or without `_total`.
    Counter,
    /// A classic histogram or a summary: `_bucket`, `_count` and `_sum`.
    Parts,
    /// A histogram whose buckets may fall.
    GaugeHistogram,
    /// A gauge, an info or a state set.
    Gauge,
}

impl Family {
    /// By the number of remote write's `MetricType`, the same in both versions; `None` for an unknown type.
    pub(super) const fn of(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Counter),
            3 | 5 => Some(Self::Parts),
            4 => Some(Self::GaugeHistogram),
            2 | 6 | 7 => Some(Self::Gauge),
            _ => None,
        }
    }

    /// The kind of the series with the family's own name.
    const fn own(self) -> Kind {
        if matches!(self, Self::Counter) { Kind::Cumulative } else { Kind::Gauge }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    family: Family,
    /// No metadata has said it.
    is_guess: bool,
    /// This process has heard of it; the others give way first when the table is full.
    is_current: bool,
    /// The request that brought it: types that contradict each other in one request are ordered by their rank, not
    /// by their place in it.
    born: u64,
    /// What metadata has said since then, and only that.
    contradicted: Option<(Family, Timestamp)>,
}

/// One family as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) name: String,
    pub(super) family: Family,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) guessed: bool,
}

/// The types of metric families.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    known: HashMap<Box<str>, Entry>,
    /// Families that were guessed, and whether there may be some that this process has not heard of.
    guesses: usize,
    has_old: bool,
    requests: u64,
    /// There is something that was not written to disk.
    pub(super) is_changed: bool,
}

impl Kinds {
    /// From what a process before this one knew.
    pub(super) fn restore(saved: Vec<Saved>) -> Self {
        let entry = |saved: Saved| {
            let (family, is_guess) = (saved.family, saved.guessed);
            (saved.name.into(), Entry { family, is_guess, is_current: false, born: 0, contradicted: None })
        };
        let known: HashMap<Box<str>, Entry> = saved.into_iter().take(MAX_FAMILIES).map(entry).collect();
        let guesses = known.values().filter(|entry| entry.is_guess).count();
        Self { known, guesses, has_old: true, ..Self::default() }
    }

    /// All families, by name.
    pub(super) fn saved(&self) -> Vec<Saved> {
        let each = self.known.iter().map(|(name, entry)| Saved {
            name: name.to_string(),
            family: entry.family,
            guessed: entry.is_guess,
        });
        let mut all: Vec<Saved> = each.collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A request begins.
    pub(super) const fn begin(&mut self) {
        self.requests += 1;
    }

    /// Takes what metadata says of a family; `None`: that its type is unknown. Returns whether a series was taken for
    /// another kind until now.
    pub(super) fn learn(&mut self, name: &str, said: Option<Family>, now: Timestamp) -> bool {
        let Some(said) = said else {
            // There is nothing to wait for.
            self.guess(name);
            return false;
        };
        let born = self.requests;
        let Some(known) = self.known.get_mut(name) else {
            self.insert(name, said, false);
            return false;
        };
        known.is_current = true;
        let is_news = known.is_guess;
        if known.family == said && !is_news {
            known.contradicted = None;
            return false;
        }
        let is_refined = known.born == born && said < known.family;
        let since = known.contradicted.filter(|(other, _)| *other == said).map_or(now, |(_, since)| since);
        if !is_news && !is_refined && now.since(since) < CONTRADICTED_FOR {
            known.contradicted = Some((said, since));
            return false;
        }
        let was = known.family;
        self.guesses -= usize::from(is_news);
        *known = Entry { family: said, is_guess: false, is_current: true, born, contradicted: None };
        self.is_changed = true;
        !is_refined && was.own() != said.own()
    }

    /// Takes the series of this name for gauges until metadata says better. Returns whether it was not known.
    pub(super) fn guess(&mut self, name: &str) -> bool {
        if self.known.contains_key(name) || counting(name).is_some() {
            return false;
        }
        self.insert(name, Family::Gauge, true)
    }

    fn insert(&mut self, name: &str, family: Family, is_guess: bool) -> bool {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return false;
        }
        if self.known.len() >= MAX_FAMILIES && (self.has_old || (self.guesses > 0 && !is_guess)) {
            self.known.retain(|_, entry| entry.is_current && (is_guess || !entry.is_guess));
            self.guesses = self.known.values().filter(|entry| entry.is_guess).count();
            self.has_old = false;
        }
        let fits = self.known.len() < MAX_FAMILIES;
        if fits {
            self.guesses += usize::from(is_guess);
            let (is_current, born) = (true, self.requests);
            let entry = Entry { family, is_guess, is_current, born, contradicted: None };
            self.known.insert(name.into(), entry);
            self.is_changed = true;
        }
        fits
    }

    /// How a series counts; `None` where neither metadata nor its name tells.
    pub(super) fn kind(&self, name: &str, has_quantile: bool) -> Option<Kind> {
        if let Some(own) = self.known.get(name) {
            return Some(own.family.own());
        }
        let counts = |family: Option<&Entry>| match family.map(|entry| entry.family) {
            Some(Family::GaugeHistogram) => Kind::Gauge,
            _ => Kind::Cumulative,
        };
        if let Some(family) = counting(name) {
            let of = self.known.get(family).filter(|_| !name.ends_with("_total"));
            return Some(counts(of));
        }
        let is_gauge = has_quantile
            || GAUGES.iter().any(|suffix| name.ends_with(suffix))
            || OF_PROMETHEUS.contains(&name)
            || name.starts_with(OF_SCRAPES)
            // The name of a recording rule, which nobody scrapes.
            || name.contains(':');
        is_gauge.then_some(Kind::Gauge)
    }
}

/// The family of a series whose name says that it counts up.
fn counting(name: &str) -> Option<&str> {
    COUNTING.iter().find_map(|suffix| name.strip_suffix(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: Option<Family> = Some(Family::Counter);
    const GAUGE: Option<Family> = Some(Family::Gauge);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// A table that has heard this, all in one request.
    fn heard(said: &[(&str, Option<Family>)]) -> Kinds {
        let mut kinds = Kinds::default();
        kinds.begin();
        for (name, family) in said {
            kinds.learn(name, *family, at(0));
        }
        kinds
    }

    /// Guarantee: metadata of the series' own name wins, then its family's, then its name; where nothing tells there is
    /// no kind.
    #[test]
    fn metadata_wins_over_names() {
        let (counts, gauge) = (Some(Kind::Cumulative), Some(Kind::Gauge));
        let none: &[(&str, Option<Family>)] = &[];
        for (said, name, expected) in [
            (none, "http_total", counts),
            (none, "h_bucket", counts),
            (none, "h_created", gauge),
            (none, "up", gauge),
            (none, "scrape_duration_seconds", gauge),
            (none, "job:http:rate5m", gauge),
            (none, "jobs", None),
            (&[("jobs", COUNTER)], "jobs", counts),
            (&[("jobs", GAUGE)], "jobs", gauge),
            (&[("jobs", None)], "jobs", gauge),
            (&[("odd_total", GAUGE)], "odd_total", gauge),
            (&[("odd_total", None)], "odd_total", counts),
            (&[("http", COUNTER)], "http_total", counts),
            (&[("http", COUNTER)], "http_created", gauge),
            (&[("queue", GAUGE)], "queue_total", counts),
            (&[("h", Some(Family::Parts))], "h_sum", counts),
            (&[("h", Some(Family::Parts))], "h", gauge),
            (&[("h", Some(Family::GaugeHistogram))], "h_bucket", gauge),
            (&[("h", Some(Family::GaugeHistogram))], "h_gsum", gauge),
        ] {
            assert_eq!(heard(said).kind(name, false), expected, "{name} after {said:?}");
        }
        assert_eq!(Kinds::default().kind("rpc_seconds", true), gauge, "the quantiles of a summary");
    }

    /// Scenario: two targets give one family two types, and metadata brings both each minute, in any order, in one
    /// request or in two; then one target changes for good.
    /// Guarantee: the kind stays the same for as long as both are said, whatever the order; a change for good is taken
    /// after three minutes, and a guess is replaced at once.
    #[test]
    fn types_that_contradict_each_other_do_not_flap() {
        for order in [[COUNTER, GAUGE], [GAUGE, COUNTER]] {
            let mut kinds = heard(&[("jobs", order[0]), ("jobs", order[1])]);
            let first = kinds.kind("jobs", false);
            assert_eq!(first, Some(Kind::Cumulative), "by rank, not by place");
            for minute in 1..30 {
                for said in order {
                    kinds.begin();
                    assert!(!kinds.learn("jobs", said, at(60 * minute)));
                    assert_eq!(kinds.kind("jobs", false), first);
                }
            }
            let turned: Vec<bool> = (30..36)
                .map(|minute| {
                    kinds.begin();
                    kinds.learn("jobs", GAUGE, at(60 * minute))
                })
                .collect();
            assert_eq!(turned.iter().filter(|turned| **turned).count(), 1, "{turned:?}");
            assert_eq!(kinds.kind("jobs", false), Some(Kind::Gauge));
        }
        let mut kinds = Kinds::default();
        assert!(kinds.guess("jobs") && !kinds.guess("jobs"));
        kinds.begin();
        assert!(kinds.learn("jobs", COUNTER, at(1)));
        assert_eq!(kinds.kind("jobs", false), Some(Kind::Cumulative));
    }

    /// Scenario: a full table that a process before this one left; then as many names that tell nothing.
    /// Guarantee: the table stays bounded; what was not heard of gives way to what is, and guesses push out no metadata.
    #[test]
    fn the_table_is_bounded() {
        let saved = |i: usize| Saved { name: format!("old_{i}"), family: Family::Counter, guessed: false };
        let mut kinds = Kinds::restore((0..MAX_FAMILIES + 5).map(saved).collect());
        assert_eq!(kinds.len(), MAX_FAMILIES);
        kinds.learn("old_7", COUNTER, at(0));
        kinds.learn("new", COUNTER, at(0));
        assert_eq!((kinds.len(), kinds.kind("old_7", false)), (2, Some(Kind::Cumulative)));
        let guessed = (0..MAX_FAMILIES + 5).filter(|i| kinds.guess(&format!("guess_{i}"))).count();
        assert_eq!((guessed, kinds.len()), (MAX_FAMILIES - 2, MAX_FAMILIES));
        kinds.learn("newer", COUNTER, at(0));
        assert_eq!(kinds.len(), 3, "metadata pushes out guesses");
        let again = Kinds::restore(kinds.saved());
        assert_eq!(again.saved(), kinds.saved());
    }
}
