//! Turns contributions into rows, rows into scores: frames, banks and findings.
//!
//! Knows no names, no incidents and no deadlines but those of silence. Nothing that Control decides
//! comes back here: a row learns or holds by its own scores alone.

mod fault;
mod frame;
mod group;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relight_core::codec::{Corrupt, Reader};
use relight_core::detector::{BankSource, RowReading};
use relight_core::record::Histogram;
use relight_core::rule::{DetectorView, Settings};
use relight_core::series::KEY_GROUPS;
use relight_core::signal::{Binning, SignalKind};
use relight_core::{KeyGroup, Span, Timestamp};

use crate::directory::{GoneRow, NewRow, RowAddr};
use crate::fold::{Buckets, Contribution, Partial};

pub use fault::{Fault, MAX_PANICS};
use group::RowGroup;

/// A row whose score is above 1 or that re-learned, by address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowFinding {
    /// Index of the detector in the settings.
    pub detector: usize,
    /// The row.
    pub row: RowAddr,
    /// The verdict.
    pub reading: RowReading,
}

/// What one bin's step gives.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Findings.
    pub findings: Vec<RowFinding>,
    /// Every verdict, if asked for.
    pub all: Option<Vec<RowFinding>>,
    /// Values of rows that were not judged, since nothing in them was new or not all of them was there; if verdicts are asked
    /// for.
    pub carried: Vec<(RowAddr, f64)>,
    /// Panics of detectors.
    pub faults: Vec<Fault>,
}

/// One configured detector, as its row groups share it.
struct Use {
    index: usize,
    name: String,
    version: u16,
    shape: String,
    source: Arc<dyn BankSource>,
}

/// What all row groups of a signal share.
struct Signal {
    kind: SignalKind,
    uses: Vec<Use>,
    interval: Span,
    samples: bool,
    /// After so long without a finding no incident of a rule that looks at it is open any more; `None` where nothing
    /// is ever evicted, so that nobody asks.
    calm: Option<Span>,
    /// How long a row that left its band is waited for although it is silent.
    gone_after: Span,
}

/// Rows of one detector that have not seen enough to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Warming {
    /// Those that have seen some values.
    pub warming: u64,
    /// All of them.
    pub rows: u64,
    /// Values that a row must have seen.
    pub needs: u32,
}

impl Warming {
    /// Adds the rows of another shard or key group.
    pub fn add(&mut self, other: Self) {
        self.warming += other.warming;
        self.rows += other.rows;
        self.needs = self.needs.max(other.needs);
    }
}

/// The third of the four parts, for some of the row key groups.
pub struct Detect {
    signals: Vec<Signal>,
    /// `groups[signal][group]`.
    groups: Vec<Vec<RowGroup>>,
    /// Rows of each rule group that has any here.
    members: BTreeMap<u32, Vec<RowAddr>>,
    /// Detectors of each rule, for views: (signal, bank within the signal).
    rules: Vec<Vec<(usize, usize)>>,
    scratch: frame::Scratch,
}

impl Detect {
    /// A detect that has seen nothing.
    pub fn new(settings: &Settings) -> Self {
        let signals: Vec<Signal> = (0..settings.signals.len()).map(|ix| signal(settings, ix)).collect();
        let place = |index: &usize| {
            let signal = settings.detectors[*index].signal;
            let bank = signals[signal].uses.iter().position(|u| u.index == *index);
            (signal, bank.expect("every detector is a use of its signal"))
        };
        let rules = settings.rules.iter().map(|rule| rule.detectors.iter().map(place).collect()).collect();
        Self {
            groups: signals.iter().map(|_| (0..KEY_GROUPS).map(|_| RowGroup::default()).collect()).collect(),
            signals,
            members: BTreeMap::new(),
            rules,
            scratch: frame::Scratch::default(),
        }
    }

    /// A row that intake met for the first time.
    pub fn add_row(&mut self, row: &NewRow) {
        let signal = &self.signals[row.at.signal as usize];
        self.groups[row.at.signal as usize][row.at.group.ix()].add(signal, row.at.row);
        for group in &row.groups {
            self.members.entry(*group).or_default().push(row.at);
        }
    }

    /// Of these rows those that must not be evicted.
    pub fn needed(&self, rows: &[RowAddr], at: Timestamp) -> Vec<RowAddr> {
        let is_needed = |row: &&RowAddr| {
            let signal = row.signal as usize;
            self.groups[signal][row.group.ix()].is_needed(&self.signals[signal], row.row, at)
        };
        rows.iter().filter(is_needed).copied().collect()
    }

    /// Lets go of findings that no incident can be open for any more. At turns that depend on data alone, since it is
    /// seen in snapshots.
    pub fn calm_down(&mut self, at: Timestamp) {
        for (signal, groups) in self.signals.iter().zip(&mut self.groups) {
            for group in groups {
                group.calm_down(signal, at);
            }
        }
    }

    /// Rows whose history is gone, and some of which are gone themselves.
    pub fn forget(&mut self, rows: &[GoneRow]) {
        let mut left: BTreeMap<u32, BTreeSet<RowAddr>> = BTreeMap::new();
        for gone in rows {
            self.groups[gone.at.signal as usize][gone.at.group.ix()].forget(gone.at.row);
            for group in gone.groups.iter().flatten() {
                left.entry(*group).or_default().insert(gone.at);
            }
        }
        for (group, rows) in left {
            let Some(members) = self.members.get_mut(&group) else { continue };
            members.retain(|row| !rows.contains(row));
            if members.is_empty() {
                self.members.remove(&group);
            }
        }
    }

    /// Contributions of the bin that is to be stepped next. Their order does not matter.
    pub fn take(&mut self, scalars: &[Partial], buckets: &[Buckets]) {
        // Runs of one row group are long: a key group's series feed rows of the same one first of all.
        let place = |p: &Partial| (p.row.signal, p.row.group);
        for run in scalars.chunk_by(|a, b| place(a) == place(b)) {
            let (signal, group) = place(&run[0]);
            let rows = &mut self.groups[signal as usize][group.ix()];
            rows.take(run);
        }
        for b in buckets {
            self.take_buckets(b.row, &b.counts);
        }
    }

    /// The same, to rows that several series may feed.
    pub fn take_shared(&mut self, contributions: &[Contribution]) {
        for run in contributions.chunk_by(|a, b| (a.row.signal, a.row.group) == (b.row.signal, b.row.group)) {
            let RowAddr { signal, group, .. } = run[0].row;
            self.groups[signal as usize][group.ix()].take_shared(run);
        }
    }

    /// Events that rows count.
    pub fn take_events(&mut self, rows: &[RowAddr]) {
        for row in rows {
            self.groups[row.signal as usize][row.group.ix()].take_event(row.row);
        }
    }

    fn take_buckets(&mut self, row: RowAddr, counts: &Histogram) {
        self.groups[row.signal as usize][row.group.ix()].take_buckets(row.row, counts.clone());
    }

    /// Judges and learns one bin of all row groups here. `at` is the time of its values.
    pub fn step(&mut self, at: Timestamp, out: &mut Verdicts) {
        for signal in 0..self.signals.len() {
            for group in 0..KEY_GROUPS {
                let address = RowAddr { signal: signal as u16, group: KeyGroup::nth(group), row: 0 };
                let rows = &mut self.groups[signal][group];
                rows.step(&self.signals[signal], at, address, &mut self.scratch, out);
                if out.all.is_some() {
                    let carried = rows.carried().map(|(row, value)| (RowAddr { row, ..address }, value));
                    out.carried.extend(carried);
                }
            }
        }
    }

    /// The end of the first bin in which silence alone would score.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.groups.iter().flatten().filter_map(|group| group.silence_due).min()
    }

    /// Of these rule groups those that have a row with a value in a closed bin.
    pub fn with_history(&self, groups: &[u32]) -> Vec<u32> {
        let has_history =
            |row: &RowAddr| self.groups[row.signal as usize][row.group.ix()].has_history(row.row);
        let known = |group: &&u32| self.members.get(*group).is_some_and(|rows| rows.iter().any(has_history));
        groups.iter().filter(known).copied().collect()
    }

    /// What a rule's detectors say about one of its groups, as of the step at `at`.
    pub fn views(&self, rule: usize, rule_group: u32, at: Timestamp) -> Vec<DetectorView> {
        let rows = self.members.get(&rule_group).map_or(&[][..], Vec::as_slice);
        let detectors = self.rules[rule].iter();
        detectors
            .map(|(signal, bank)| {
                let mut view = DetectorView { stale: true, ..DetectorView::default() };
                for row in rows.iter().filter(|row| row.signal as usize == *signal) {
                    let group = &self.groups[*signal][row.group.ix()];
                    if let Some(one) = group.view(&self.signals[*signal], row.row, *bank, at) {
                        view = view.merge(one);
                    }
                }
                view
            })
            .collect()
    }

    /// Appends the image of one signal's rows in one key group, in `order`; the caller has written
    /// their names.
    pub fn save(&mut self, signal: usize, group: KeyGroup, order: &[u32], out: &mut Vec<u8>) {
        self.groups[signal][group.ix()].save(&self.signals[signal], order, out);
    }

    /// Reads what [`Detect::save`] wrote. The rows were added before, in the order they were saved in.
    pub fn load(&mut self, signal: usize, group: KeyGroup, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.groups[signal][group.ix()].load(&self.signals[signal], reader)
    }

    /// Seeds a row's detectors with its history, oldest first, effective from the bin at `at`.
    pub fn seed(&mut self, row: RowAddr, at: Timestamp, history: &[(Timestamp, f64)]) {
        self.groups[row.signal as usize][row.group.ix()].seed(row.row, at, history);
    }

    /// Adds up, by the index of the detector, which rows are still warming up.
    pub fn warming(&self, sum: &mut [Warming]) {
        for (signal, groups) in self.signals.iter().zip(&self.groups) {
            for group in groups {
                for (of, (warming, rows, needs)) in signal.uses.iter().zip(group.warming()) {
                    sum[of.index].add(Warming { warming: warming as u64, rows: rows as u64, needs });
                }
            }
        }
    }

    /// Bytes of memory held.
    pub fn state_bytes(&self) -> usize {
        let members: usize = self.members.values().map(|m| m.capacity() * size_of::<RowAddr>()).sum();
        self.groups.iter().flatten().map(RowGroup::state_bytes).sum::<usize>() + members
    }
}

fn signal(settings: &Settings, ix: usize) -> Signal {
    let uses = settings.detectors.iter().enumerate().filter(|(_, d)| d.signal == ix);
    Signal {
        kind: settings.signals[ix].kind.clone(),
        uses: uses
            .map(|(index, d)| Use {
                index,
                name: d.name.clone(),
                version: d.state_version,
                shape: d.state_shape.clone(),
                source: Arc::clone(&d.source),
            })
            .collect(),
        interval: settings.interval(),
        samples: settings.binning == Binning::Sample,
        calm: calm(settings, ix),
        gone_after: settings.gone_after().unwrap_or(Span::ZERO),
    }
}

/// The longest that a rule waits for a signal to be calm, and as many bins more as samples of one row may be apart.
fn calm(settings: &Settings, signal: usize) -> Option<Span> {
    let looks = |detector: &usize| settings.detectors.get(*detector).is_some_and(|d| d.signal == signal);
    let rules = settings.rules.iter().filter(|rule| rule.detectors.iter().any(looks));
    let longest = rules.map(|rule| rule.keep_firing).max().unwrap_or(Span::ZERO);
    let calm = Span::from_ns(longest.ns().saturating_add(settings.interval().times(3).ns()));
    (settings.series_ttl > Span::ZERO).then_some(calm)
}
