//! Who sent the series that were refused: points by source and metric.
//!
//! Itself bounded, since what overflows is what has many names: the first metrics of a source have a count of their
//! own, all others share one. The sum is exact.

use std::collections::BTreeMap;

use relight_core::KeyView;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::Reason;

use super::Intake;

/// Metrics of one source that are counted by name.
const MAX_METRICS: usize = 50;
/// Sources that are counted by name.
const MAX_SOURCES: usize = 50;
/// What all others are counted under.
const OTHER: &str = "other";

/// Points of refused series. Part of the state, as [`crate::counters::Counters`] are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overflow {
    by: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Overflow {
    /// Counts `n` points.
    pub(super) fn count(&mut self, source: &str, metric: &str, n: u64) {
        let sum = slot(slot(&mut self.by, source, MAX_SOURCES), metric, MAX_METRICS);
        *sum = sum.saturating_add(n);
    }

    /// Source, metric and points, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.by.iter().flat_map(|(source, metrics)| {
            metrics.iter().map(|(metric, n)| (source.as_str(), metric.as_str(), *n))
        })
    }
}

impl Intake {
    /// New series that were refused, by source and metric: one for each of their points.
    pub const fn overflow(&self) -> &Overflow {
        &self.overflow
    }

    pub(super) fn refuse_series(&mut self, partition: u32, key: &[u8], reason: Reason, n: u64) {
        self.counters.refuse(reason, n);
        if self.named.has_room() {
            self.named.add(reason, key);
        }
        let metric = if key.is_empty() { "" } else { KeyView::new(key).name() };
        self.overflow.count(&self.partitions[partition as usize].origin, metric, n);
    }
}

/// The entry of a name, or that of all others if there are as many as may be.
fn slot<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str, max: usize) -> &'a mut T {
    let name = if map.len() < max || map.contains_key(name) { name } else { OTHER };
    if !map.contains_key(name) {
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name).expect("it is there, or was put there just now")
}

impl Codec for Overflow {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.iter().count() as u32).encode(out);
        for (source, metric, n) in self.iter() {
            source.to_owned().encode(out);
            metric.to_owned().encode(out);
            n.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut overflow = Self::default();
        for _ in 0..reader.len(16, "refused series")? {
            let (source, metric) = (String::decode(reader)?, String::decode(reader)?);
            overflow.by.entry(source).or_default().insert(metric, u64::decode(reader)?);
        }
        Ok(overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: 1,000 metrics of one source and one of another overflow, then the first once more.
    /// Guarantee: 50 names and one for the rest, the sum exact, and the other source apart; it reads back as written.
    #[test]
    fn names_that_overflow_are_bounded() {
        let mut overflow = Overflow::default();
        for i in 0..1_000 {
            overflow.count("a", &format!("m{i:04}"), 2);
        }
        overflow.count("a", "m0000", 1);
        overflow.count("b", "m0999", 7);
        let of_a: Vec<_> = overflow.iter().filter(|(source, ..)| *source == "a").collect();
        assert_eq!(of_a.len(), MAX_METRICS + 1);
        assert_eq!(of_a.iter().map(|(.., n)| n).sum::<u64>(), 2_001);
        assert_eq!(of_a[0], ("a", "m0000", 3));
        assert!(of_a.contains(&("a", OTHER, 2 * (1_000 - 50))));
        assert_eq!(overflow.iter().last(), Some(("b", "m0999", 7)));
        let mut bytes = Vec::new();
        overflow.encode(&mut bytes);
        assert_eq!(Overflow::decode(&mut Reader::new(&bytes)), Ok(overflow));
    }
}
