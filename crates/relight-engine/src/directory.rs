//! Names: which series and rows there are, where each lives, and which series feeds which row.
//!
//! Everything else works on dense addresses that are never persisted, hashed or shown; this is the
//! one place that knows what they stand for. Holds no values and no state of detectors.

mod arena;
mod caps;
mod evict;
mod rows;
mod unmatched;

use relight_core::record::{Kind, Reason};
use relight_core::rule::Settings;
use relight_core::series::{KEY_GROUPS, KeyGroup, KeyView, encode_key};
use relight_core::signal::{By, SignalKind, SignalSpec};

pub use arena::SeriesAddr;
pub use evict::IdleSeries;
pub use rows::{GoneRow, NewRow, RowAddr, Stat};
pub use unmatched::{Unfit, Unmatched};

use arena::Arena;
use caps::Caps;
pub use caps::SourceIx;
use rows::Rows;

/// What a series contributes to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// A gauge its mean, a sum its rate: the row of a series by itself.
    Every = 0,
    /// Mean in the bin.
    Value = 1,
    /// Increase per second.
    Rate = 2,
    /// Increase, as a ratio's numerator.
    Of = 3,
    /// Increase, as a ratio's denominator.
    To = 4,
    /// Bucket counts.
    Buckets = 5,
    /// One event.
    Event = 6,
}

/// A row that a series feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// The row.
    pub row: RowAddr,
    /// What is contributed.
    pub channel: Channel,
    /// Whether other series may feed the row, too: it then counts with its latest value between two of its points.
    pub is_shared: bool,
}

/// A series that was met for the first time: what Fold has to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSeries {
    /// Where it lives.
    pub at: SeriesAddr,
    /// What it feeds.
    pub feeds: Vec<Feed>,
}

/// What is to be known of a signal to find its rows.
struct Named {
    kind: SignalKind,
    by: By,
    name: String,
    is_shared: bool,
}

/// Series and rows by name.
pub struct Directory {
    signals: Vec<Named>,
    arena: Arena,
    rows: Rows,
    caps: Caps,
    max_series: usize,
    /// No series is let in for now: there is no memory for it.
    is_shut: bool,
    generation: u64,
}

impl Directory {
    /// An empty directory for these settings.
    pub fn new(settings: &Settings) -> Self {
        let named = |signal: &SignalSpec| Named {
            kind: signal.kind.clone(),
            by: signal.by.clone(),
            name: signal.name.clone(),
            is_shared: signal.has_shared_rows(settings.binning),
        };
        Self {
            signals: settings.signals.iter().map(named).collect(),
            arena: Arena::new(),
            rows: Rows::new(settings),
            caps: Caps::new(&settings.sources),
            is_shut: false,
            max_series: settings.max_series,
            generation: 0,
        }
    }

    /// Moves whenever series are numbered anew: dense indices that were learned before mean nothing then.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Series known.
    pub fn series_len(&self) -> usize {
        self.arena.len()
    }

    /// Rows known.
    pub fn rows_len(&self) -> usize {
        self.rows.len()
    }

    /// Finds a series that is known already. `hint` is the caller's guess of its index and is moved to
    /// the guess for the next call.
    #[inline]
    pub fn find(&mut self, key: &[u8], hint: &mut u32) -> Option<SeriesAddr> {
        self.arena.find(key, hint)
    }

    /// Where a series lives, by its dense index.
    #[inline]
    pub fn series_at(&self, ix: u32) -> SeriesAddr {
        self.arena.addr(ix)
    }

    /// A series' key, by its dense index.
    pub fn key_at(&self, ix: u32) -> &[u8] {
        self.arena.key(ix)
    }

    /// The source that a partition belongs to, if it has a bound of its own.
    pub fn capped_source(&self, partition: &str) -> Option<SourceIx> {
        self.caps.of(partition)
    }

    /// Whether no series is let in: there is no memory for it.
    pub const fn shut(&mut self, is_shut: bool) {
        self.is_shut = is_shut;
    }

    /// Adds a series of a source, with the rows it feeds, and gives its dense index; or the reason why it may not
    /// come in. What is new is appended to `series` and `rows`.
    pub fn add(
        &mut self,
        key: &[u8],
        kind: Kind,
        source: Option<SourceIx>,
        (series, rows): (&mut Vec<NewSeries>, &mut Vec<NewRow>),
    ) -> Result<u32, Reason> {
        if self.is_shut {
            return Err(Reason::MemoryLimit);
        }
        if self.arena.len() >= self.max_series || !self.arena.has_room(key) {
            return Err(Reason::SeriesLimit);
        }
        if !self.caps.has_room(source) {
            return Err(Reason::SourceSeriesLimit);
        }
        let (ix, at) = self.arena.add(key, kind);
        self.caps.own(ix, source);
        let feeds = self.feeds(ix, key, kind, rows);
        series.push(NewSeries { at, feeds });
        Ok(ix)
    }

    fn feeds(&mut self, ix: u32, key: &[u8], kind: Kind, rows: &mut Vec<NewRow>) -> Vec<Feed> {
        let mut feeds = Vec::new();
        for signal in 0..self.signals.len() {
            self.feed(signal, key, ix, kind, &mut feeds, rows);
        }
        feeds
    }

    fn feed(
        &mut self,
        signal: usize,
        key: &[u8],
        ix: u32,
        kind: Kind,
        feeds: &mut Vec<Feed>,
        rows: &mut Vec<NewRow>,
    ) {
        let view = KeyView::new(key);
        let Named { kind: spec, by, name, is_shared } = &self.signals[signal];
        if matches!(spec, SignalKind::EverySeries) {
            let stats: &[Stat] = match kind {
                Kind::Gauge => &[Stat::Plain],
                Kind::Cumulative | Kind::Delta => &[Stat::Rate],
                Kind::CumulativeHistogram | Kind::DeltaHistogram => &[Stat::P99, Stat::Rate],
            };
            for stat in stats {
                let row = self.rows.add_series_row(signal, KeyGroup::of(key), ix, *stat, view, rows);
                let channel = if *stat == Stat::P99 { Channel::Buckets } else { Channel::Every };
                feeds.push(Feed { row, channel, is_shared: false });
            }
            return;
        }
        let (channels, is_shared) = (channels(spec, view), *is_shared);
        let count = channels.iter().flatten().count() as u32;
        if count == 0 {
            return;
        }
        let key = row_key(name, by, view);
        let row = self.rows.intern_fed(signal, &key, count, rows);
        feeds.extend(channels.into_iter().flatten().map(|channel| Feed { row, channel, is_shared }));
    }

    /// Rows that one event feeds, made where they are new. Returns how many could not be made, because
    /// there are twice as many rows as there may be series: labels of events must not fill memory.
    pub fn event_rows(&mut self, event: KeyView<'_>, out: &mut Vec<RowAddr>, rows: &mut Vec<NewRow>) -> u64 {
        let mut refused = 0;
        for signal in 0..self.signals.len() {
            let Named { kind, by, name, .. } = &self.signals[signal];
            let SignalKind::EventCount { of } = kind else { continue };
            if of.selects(event) {
                let key = row_key(name, by, event);
                if self.rows.len() < self.max_series.saturating_mul(2) || self.rows.knows(signal, &key) {
                    out.push(self.rows.intern(signal, &key, rows));
                } else {
                    refused += 1;
                }
            }
        }
        refused
    }

    /// Canonical bytes of a row: its signal's name (of a series by itself: its metric's, with the
    /// statistic around it) and its labels.
    pub fn row_key(&self, row: RowAddr) -> Vec<u8> {
        self.rows.display_key(row, &self.arena)
    }

    /// The groups of a rule that rows fall into, as Detect numbers them, in the order of their labels.
    pub fn rule_groups(&self, rule: usize) -> impl Iterator<Item = u32> + '_ {
        self.rows.rule_groups(rule)
    }

    /// The group that a rule puts a set of labels into, as Detect numbers it; `None` if no row ever fell into it.
    pub fn rule_group(&self, rule: usize, group: &relight_core::Labels) -> Option<u32> {
        self.rows.rule_group(rule, group)
    }

    /// The series of a key group in key order, as slots.
    pub fn series_order(&self, group: KeyGroup) -> Vec<u32> {
        self.arena.order(group)
    }

    /// A series' key.
    pub fn series_key(&self, at: SeriesAddr) -> &[u8] {
        self.arena.key_at(at)
    }

    /// The rows of a signal in one row group, in the order of their identity.
    pub fn row_order(&self, signal: usize, group: KeyGroup) -> Vec<u32> {
        self.rows.order(signal, group, &self.arena)
    }

    /// What tells a row apart within its signal: canonical bytes and the statistic.
    pub fn row_identity(&self, row: RowAddr) -> (&[u8], Stat) {
        self.rows.identity(row, &self.arena)
    }

    /// A series' kind when it was first met.
    pub fn series_kind(&self, at: SeriesAddr) -> Kind {
        self.arena.kind_at(at)
    }

    /// Makes the series of an image known, without rows: those are restored next, so that they keep
    /// the numbers they have in their own images. Then comes [`Directory::link`].
    pub fn restore_series(&mut self, key: &[u8], kind: Kind, source: Option<SourceIx>) {
        let (ix, _) = self.arena.add(key, kind);
        self.caps.own(ix, source);
    }

    /// The source with a bound of its own that brought a series.
    pub fn series_source(&self, at: SeriesAddr) -> Option<SourceIx> {
        self.caps.owner(self.arena.number(at))
    }

    /// Makes the row of an image known; `None` if its series or signal is gone.
    pub fn restore_row(
        &mut self,
        signal: usize,
        key: &[u8],
        stat: Stat,
        rows: &mut Vec<NewRow>,
    ) -> Option<RowAddr> {
        if matches!(self.signals.get(signal)?.kind, SignalKind::EverySeries) {
            let ix = self.arena.index_of(key)?;
            let group = KeyGroup::of(key);
            return Some(self.rows.restore_series_row(signal, group, ix, stat, KeyView::new(key), rows));
        }
        Some(self.rows.intern(signal, key, rows))
    }

    /// Links every restored series to its rows. Rows that the images did not hold are appended to `rows`.
    pub fn link(&mut self, series: &mut Vec<NewSeries>, rows: &mut Vec<NewRow>) {
        for ix in self.arena.numbers().collect::<Vec<_>>() {
            let (key, kind) = (self.arena.key(ix).to_vec(), self.arena.kind(ix));
            let feeds = self.feeds(ix, &key, kind, rows);
            series.push(NewSeries { at: self.arena.addr(ix), feeds });
        }
        self.rows.finish_restore();
        self.generation += 1;
    }

    /// Takes the place of another directory: what was learned of that one's numbers means nothing here.
    pub(crate) const fn supersede(&mut self, before: &Self) {
        self.generation = before.generation + 1;
        self.is_shut = before.is_shut;
    }

    /// Bytes of memory held by names and look-up tables.
    pub fn state_bytes(&self) -> usize {
        self.arena.state_bytes() + self.rows.state_bytes() + self.caps.state_bytes()
    }
}

/// What a series contributes to a signal; two channels only where a ratio counts it on both sides.
fn channels(spec: &SignalKind, series: KeyView<'_>) -> [Option<Channel>; 2] {
    let one = |chosen: bool, channel| chosen.then_some(channel);
    match spec {
        SignalKind::EverySeries | SignalKind::EventCount { .. } => [None, None],
        SignalKind::Value { of, .. } => [one(of.selects(series), Channel::Value), None],
        SignalKind::Rate { of } => [one(of.selects(series), Channel::Rate), None],
        SignalKind::Quantile { of, .. } => [one(of.selects(series), Channel::Buckets), None],
        SignalKind::Ratio { of, to, .. } => {
            [one(of.selects(series), Channel::Of), one(to.selects(series), Channel::To)]
        }
    }
}

fn row_key(name: &str, by: &By, view: KeyView<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    match by {
        By::All => encode_key(name, view.labels(), &mut key),
        By::Labels(by) => {
            encode_key(name, view.labels().filter(|(k, _)| by.iter().any(|b| b == k)), &mut key);
        }
    }
    key
}

/// All key groups.
pub fn key_groups() -> impl Iterator<Item = KeyGroup> {
    (0..KEY_GROUPS).map(KeyGroup::nth)
}
