//! When series that have been silent are looked for, and which of them go.
//!
//! By turn: what decides is event time and what closed bins have seen, never what has arrived since or what Control
//! thinks of it. So an evicted series is evicted in every run of the same records, in the same turn. Moves nothing
//! itself: the driver asks Fold and Detect, and tells the directory.

use std::collections::BTreeSet;

use relight_core::rule::Settings;
use relight_core::signal::Binning;
use relight_core::{Span, Timestamp, codec_struct};

use crate::directory::{IdleSeries, RowAddr};

/// The longest time between two looks: at the default of 24 h for a series.
const LONGEST: Span = Span::from_secs(300);
/// A table with fewer free places than this fraction is nearly full.
const NEARLY_FULL: usize = 8;
/// In a nearly full table a series is kept for this fraction of the time that it is kept for otherwise.
const HURRY: i64 = 24;

/// What was evicted so far, and when was last looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// The slot of time that the last look was in.
    slot: Timestamp,
    /// Series that were silent for their whole time.
    pub idle: u64,
    /// Those that had to go before it was over, since the table was nearly full.
    pub crowded: u64,
    /// Those that were over the limit of the config when a state was loaded.
    pub over_limit: u64,
    /// Those that would have gone at the last look, but for a row that is still needed.
    pub kept: u64,
}
codec_struct!(Swept { slot, idle, crowded, over_limit, kept });

impl Default for Swept {
    fn default() -> Self {
        Self { slot: Timestamp::MIN, idle: 0, crowded: 0, over_limit: 0, kept: 0 }
    }
}

impl Swept {
    /// Series evicted, for whatever reason.
    pub const fn evicted(&self) -> u64 {
        self.idle + self.crowded + self.over_limit
    }
}

/// The rule by which series go.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    ttl: Span,
    every: Span,
    max_series: usize,
}

impl Sweep {
    /// As the settings have it. Where bins are samples nothing is evicted: a single series has its own pace.
    pub fn new(settings: &Settings) -> Self {
        let ttl = if settings.binning == Binning::Sample { Span::ZERO } else { settings.series_ttl };
        let every = Span::from_ns(ttl.ns() / HURRY).min(LONGEST).max(settings.interval());
        Self { ttl, every, max_series: settings.max_series }
    }

    /// Whether the turn of a bin with data that ends at `end` is one to look in.
    pub fn is_due(&self, end: Timestamp, swept: &mut Swept) -> bool {
        let slot = end.bin_start(self.every);
        let is_due = self.ttl > Span::ZERO && slot > swept.slot;
        if is_due {
            swept.slot = slot;
        }
        is_due
    }

    /// The series to look at are those with no point after this, where bins have seen `seen` of them.
    pub fn until(&self, end: Timestamp, seen: usize) -> Timestamp {
        if self.excess(seen) > 0 {
            end.minus(Span::from_ns(self.ttl.ns() / HURRY))
        } else {
            end.minus(self.ttl)
        }
    }

    /// How many have to go so that a nearly full table is less so.
    const fn excess(&self, seen: usize) -> usize {
        seen.saturating_sub(self.max_series - self.max_series / NEARLY_FULL)
    }

    /// Which of the idle series go: all whose time is over, then the longest silent, in order of `key` where they are
    /// equal, while the table is nearly full. None that feeds a row which is `needed`.
    pub fn choose<'a>(
        &self,
        (end, seen): (Timestamp, usize),
        idle: Vec<IdleSeries>,
        needed: &BTreeSet<RowAddr>,
        key: &dyn Fn(&IdleSeries) -> &'a [u8],
        swept: &mut Swept,
    ) -> Vec<IdleSeries> {
        let over = end.minus(self.ttl);
        let (mut free, kept): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|series| !series.rows.iter().any(|row| needed.contains(row)));
        swept.kept = kept.iter().filter(|series| series.last <= over).count() as u64;
        free.sort_unstable_by(|a, b| (a.last, key(a)).cmp(&(b.last, key(b))));
        let silent = free.partition_point(|series| series.last <= over);
        free.truncate(silent.max(self.excess(seen)));
        swept.idle += silent as u64;
        swept.crowded += (free.len() - silent) as u64;
        free
    }

    /// Which series of a state that holds `known` are over the limit: those that nothing waits for and no row needs
    /// first, then the longest silent.
    pub fn over_limit<'a>(
        &self,
        known: usize,
        mut all: Vec<IdleSeries>,
        needed: &BTreeSet<RowAddr>,
        key: &dyn Fn(&IdleSeries) -> &'a [u8],
        swept: &mut Swept,
    ) -> Vec<IdleSeries> {
        all.retain(|series| series.waiting.is_none());
        let is_needed = |series: &IdleSeries| series.rows.iter().any(|row| needed.contains(row));
        all.sort_by_cached_key(|series| (is_needed(series), series.last, key(series)));
        all.truncate(known.saturating_sub(self.max_series));
        swept.over_limit += all.len() as u64;
        all
    }
}
