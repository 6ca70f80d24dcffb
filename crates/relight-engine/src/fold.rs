//! Folds a bin's points into what each series contributes to its rows.
//!
//! Points wait, unjudged, until their bin closes; only then are they sorted, deduplicated and turned
//! from running totals into increases. Nothing that arrives later can change what a closed bin said,
//! and nothing here depends on the order of arrival.

mod contributors;
mod counter;
mod feeds;
mod group;
mod last;
mod log;
mod series;

use std::sync::Arc;

use relight_core::codec::{Corrupt, Reader};
use relight_core::record::Histogram;
use relight_core::series::KEY_GROUPS;
use relight_core::{KeyGroup, Span, Timestamp};

use crate::counters::Counters;
use crate::directory::{Channel, IdleSeries, NewSeries, RowAddr, SeriesAddr};
use crate::intake::{Routed, RoutedPoint};

pub(crate) use contributors::LIFE;
pub use log::MAX_POINTS_PER_BIN;

use group::SeriesGroup;

/// What one series contributes to one row in one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partial {
    /// The row.
    pub row: RowAddr,
    /// What the value is.
    pub channel: Channel,
    /// The value.
    pub value: f64,
}

/// Bucket counts that one series contributes to one row in one bin.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// The row.
    pub row: RowAddr,
    /// Observations in the bin.
    pub counts: Histogram,
}

/// How a series takes part in a bin of a row that it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Presence {
    /// It has a point in the bin.
    New,
    /// It has none, and lives: its latest value counts.
    Carried,
    /// It is gone, but not for long: its latest value counts only while a successor is awaited.
    Lapsed,
    /// It has sent the first point of a counter: there is no rate before the second one.
    Awaited,
}

/// What one series contributes to a row that others may feed, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// The row.
    pub row: RowAddr,
    /// What the value is.
    pub channel: Channel,
    /// Whether it is new in this bin.
    pub presence: Presence,
    /// Mean of the last bin with points for [`Channel::Value`], else the latest increase; NaN of one that is awaited.
    pub value: f64,
    /// The time that the increase covers, above zero.
    pub covered: Span,
    /// The increase is the first delta of the series.
    pub is_initial: bool,
    /// Bucket counts of the increase, of [`Channel::Buckets`].
    pub counts: Option<Arc<Histogram>>,
    /// Time of the last point.
    pub at: Timestamp,
    /// Time of the first one; [`Timestamp::MIN`] if it is not known.
    pub first: Timestamp,
    /// How long after the last point the next one is due.
    pub period: Span,
}

/// All contributions of a bin.
#[derive(Debug, Default)]
pub struct Partials {
    /// Single values.
    pub scalars: Vec<Partial>,
    /// Bucket counts.
    pub buckets: Vec<Buckets>,
    /// Contributions to rows that several series may feed.
    pub shared: Vec<Contribution>,
}

/// What closing a bin needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Closing<'a> {
    /// Key of the bin.
    pub bin: Timestamp,
    /// Nominal length of a bin: the time that a first delta without a start is taken to cover.
    pub interval: Span,
    /// Place of each partition in the order of names.
    pub ranks: &'a [u16],
}

/// A series that several writers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterConflict {
    /// Its deltas overlap.
    Delta(SeriesAddr),
    /// Its running totals go up and down past each other.
    Cumulative(SeriesAddr),
}

/// What a look at all series gives.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those that have been silent.
    pub idle: Vec<IdleSeries>,
    /// The rows of those that no bin has seen, one entry a feed.
    pub unseen: Vec<RowAddr>,
}

/// The second of the four parts, for some of the series key groups.
pub struct Fold {
    groups: Vec<SeriesGroup>,
    /// Points of a batch by group; kept for its memory.
    sorted: Vec<RoutedPoint>,
    /// As in [`Closing`], for what is folded before its bin closes.
    interval: Span,
}

impl Fold {
    /// A fold without series, for bins of this length.
    pub fn new(interval: Span) -> Self {
        let groups = (0..KEY_GROUPS).map(|_| SeriesGroup::default()).collect();
        Self { groups, sorted: Vec::new(), interval }
    }

    /// A series that intake met for the first time.
    pub fn add_series(&mut self, series: &NewSeries) {
        self.groups[series.at.group.ix()].add(series);
    }

    /// Points of open bins, in the order they came.
    // Neighbours in a scrape belong to different groups, and a group's log is a cache line of its own:
    // sorted by group first, a batch writes to each log once, whole lines at a time.
    pub fn push(&mut self, routed: &Routed) {
        for (series, at) in &routed.ends {
            self.groups[series.group.ix()].end(series.slot, *at);
        }
        let Some(filler) = routed.points.first() else { return };
        let mut starts = [0_usize; KEY_GROUPS + 1];
        for point in &routed.points {
            starts[point.series.group.ix() + 1] += 1;
        }
        for group in 0..KEY_GROUPS {
            starts[group + 1] += starts[group];
        }
        let mut next = starts;
        self.sorted.resize(self.sorted.len().max(routed.points.len()), *filler);
        for point in &routed.points {
            let place = &mut next[point.series.group.ix()];
            self.sorted[*place] = *point;
            *place += 1;
        }
        for (group, range) in self.groups.iter_mut().zip(starts.windows(2)) {
            group.push(&self.sorted[range[0]..range[1]], &routed.runs, &routed.histograms, self.interval);
        }
    }

    /// Folds a bin of one key group; contributions are appended to `out`.
    pub fn close(&mut self, group: KeyGroup, closing: &Closing<'_>, out: &mut Partials) {
        self.groups[group.ix()].close(closing, out);
    }

    /// How many series here a bin has seen: not a matter of what has arrived since.
    pub fn seen(&self) -> usize {
        self.groups.iter().map(SeriesGroup::seen).sum()
    }

    /// The series here whose last point that a bin has seen is not younger than `until`.
    pub fn survey(&self, until: Timestamp) -> Survey {
        let mut survey = Survey::default();
        for (ix, group) in self.groups.iter().enumerate() {
            group.survey(KeyGroup::nth(ix), until, &mut survey);
        }
        survey
    }

    /// Forgets series.
    pub fn forget(&mut self, series: &[SeriesAddr]) {
        for at in series {
            self.groups[at.group.ix()].forget(at.slot);
        }
        self.groups.iter_mut().for_each(SeriesGroup::tidy);
    }

    /// What was refused here.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for group in &self.groups {
            sum.add(&group.counters);
        }
        sum
    }

    /// Series whose writers got into each other's way since this was last asked: of each key group the last one of each
    /// kind.
    pub fn take_writer_conflicts(&mut self) -> Vec<WriterConflict> {
        let last = |(ix, group): (usize, &mut SeriesGroup)| {
            let conflicts = group.take_writer_conflicts();
            let of = |slot: Option<u32>| slot.map(|slot| SeriesAddr { group: KeyGroup::nth(ix), slot });
            let delta = of(conflicts.delta).map(WriterConflict::Delta);
            delta.into_iter().chain(of(conflicts.cumulative).map(WriterConflict::Cumulative))
        };
        self.groups.iter_mut().enumerate().flat_map(last).collect()
    }

    /// Whether a key group has counted nothing so far.
    pub fn is_untouched(&self, group: KeyGroup) -> bool {
        self.groups[group.ix()].counters == Counters::default()
    }

    /// Appends the image of a key group: its series in `order`, whose keys the caller has written.
    pub fn save(&self, group: KeyGroup, order: &[u32], ranks: &[u16], out: &mut Vec<u8>) {
        self.groups[group.ix()].save(order, ranks, out);
    }

    /// Reads what [`Fold::save`] wrote. The group's series were added before, in the order they were
    /// saved in.
    pub fn load(&mut self, group: KeyGroup, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.groups[group.ix()].load(reader)
    }

    /// Bytes of memory held.
    pub fn state_bytes(&self) -> usize {
        let sorted = self.sorted.capacity() * size_of::<RoutedPoint>();
        self.groups.iter().map(SeriesGroup::state_bytes).sum::<usize>() + sorted
    }
}

#[cfg(test)]
mod tests;
