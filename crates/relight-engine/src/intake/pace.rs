//! How far apart the records of a partition usually are, and so how far ahead a time may lie.
//!
//! A partition whose times are dense has the fixed limit of [`MAX_AHEAD`]. Where gaps longer than half of it recur, the data are
//! sparse, and the limit is a multiple of the usual gap. Depends on the partition's records in their order alone.

use relight_core::{Span, Timestamp, codec_struct};

use super::MAX_AHEAD;

/// A gap this long counts as one between samples, not as one within a burst: data with shorter gaps never jump by missing one sample.
const LONG: Span = Span::from_ns(MAX_AHEAD.ns() / 2);
/// Gaps are usual as long as they cover a third of the time: two outages a month apart are no cadence.
const SHARE: i64 = 3;
/// How many usual gaps a time may lie ahead unconfirmed: two samples in a row may be missing.
const UNCONFIRMED: i64 = 3;
/// How many, if nothing follows that could confirm it: a day of an hourly job, a month of a daily one. A clock that is wrong is
/// mostly wrong by years.
const AT_THE_END: i64 = 32;
/// The same for a partition that has shown no gap at all.
const FIRST_GAP: Span = Span::from_secs(62 * 86_400);

/// A long gap between two times of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// The time that ended it; [`Timestamp::MIN`] before there was one.
    end: Timestamp,
    length: Span,
}
codec_struct!(Gap { end, length });

/// The last two long gaps of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    older: Gap,
    newer: Gap,
    /// It had two times that were close together.
    has_short: bool,
}
codec_struct!(Pace { older, newer, has_short });

impl Default for Pace {
    fn default() -> Self {
        let none = Gap { end: Timestamp::MIN, length: Span::ZERO };
        Self { older: none, newer: none, has_short: false }
    }
}

impl Pace {
    /// Learns that the highest time moved from `from` to `to`.
    #[inline]
    pub(super) fn learn(&mut self, from: Timestamp, to: Timestamp) {
        if to <= from || !from.is_known() {
            return;
        }
        let length = to.since(from);
        if length > LONG {
            self.older = std::mem::replace(&mut self.newer, Gap { end: to, length });
        } else {
            self.has_short = true;
        }
    }

    /// How far behind `highest` a time may lie unconfirmed.
    pub(super) fn unconfirmed(&self, highest: Timestamp) -> Span {
        self.usual(highest).map_or(MAX_AHEAD, |gap| gap.times(UNCONFIRMED).max(MAX_AHEAD))
    }

    /// The same where the partition ends, so that no record can confirm it.
    pub(super) fn at_the_end(&self, highest: Timestamp) -> Span {
        let only = || (!self.has_short).then_some(self.newer.length);
        match self.usual(highest).or_else(only) {
            None => MAX_AHEAD,
            Some(Span::ZERO) => FIRST_GAP,
            Some(gap) => gap.times(AT_THE_END).max(MAX_AHEAD),
        }
    }

    /// How far ahead of its arrival a point may be: sparse values may carry the end of the period that they are of.
    pub(super) fn ahead_of_arrival(&self, highest: Timestamp) -> Span {
        self.usual(highest).map_or(MAX_AHEAD, |gap| gap.max(MAX_AHEAD))
    }

    /// The gap between samples of sparse data; `None` where the data are dense, or nothing is known.
    fn usual(&self, highest: Timestamp) -> Option<Span> {
        let Self { older, newer, .. } = *self;
        if !older.end.is_known() {
            return None;
        }
        let gap = newer.length.min(older.length);
        let is_within = |from: Timestamp, to: Timestamp| to.since(from) <= gap.times(SHARE);
        (is_within(older.end, newer.end) && is_within(newer.end, highest)).then_some(gap)
    }
}
