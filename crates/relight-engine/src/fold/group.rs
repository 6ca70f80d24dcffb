//! One series key group: the last point and the feeds of each series, and the logs of open bins.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind, Reason};
use relight_core::{KeyGroup, Span, Timestamp};

use super::contributors::Contributors;
use super::counter::Watch;
use super::feeds::Feeds;
use super::last::Last;
use super::log::{Log, Waiting};
use super::series::{Fate, Tally};
use super::{Buckets, Closing, Partial, Partials, Survey};
use crate::counters::Counters;
use crate::directory::{Channel, Feed, IdleSeries, NewSeries, SeriesAddr};
use crate::intake::{RoutedPoint, Run};

/// Version of what [`SeriesGroup::save`] writes. The first format had none, and began with a zero.
const FORMAT: u8 = 4;

#[derive(Default)]
pub(super) struct SeriesGroup {
    last: Vec<Last>,
    feeds: Feeds,
    contributors: Contributors,
    unusual: Unusual,
    /// By bin, ascending. Seldom more than two, so the last is nearly always the one.
    open: Vec<(Timestamp, Log)>,
    /// Series folded early, in bins that are still open.
    early: BTreeMap<(Timestamp, u32), Tally>,
    spare: Log,
    pub(super) counters: Counters,
}

/// What most series do not have.
#[derive(Default)]
struct Unusual {
    /// Running totals of histogram series.
    totals: BTreeMap<u32, Histogram>,
    /// Running totals that fell lately, and those that began lately.
    watches: BTreeMap<u32, Watch>,
    conflicts: WriterConflicts,
}

/// The slots whose writers got into each other's way last, until they are named to people. In no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WriterConflicts {
    /// Of deltas that overlap.
    pub(super) delta: Option<u32>,
    /// Of running totals that go up and down past each other.
    pub(super) cumulative: Option<u32>,
}

impl SeriesGroup {
    pub(super) fn add(&mut self, series: &NewSeries) {
        let slot = series.at.slot as usize;
        if slot == self.last.len() {
            self.last.push(Last::NEVER);
        }
        self.feeds.set(slot, &series.feeds);
        self.contributors.set(series.at.slot, &series.feeds);
    }

    /// How many series a bin has seen.
    pub(super) fn seen(&self) -> usize {
        self.last.iter().filter(|last| { last.at }.is_known()).count()
    }

    /// Series whose last point is not younger than `until`, and the feeds of those that no bin has seen.
    pub(super) fn survey(&self, group: KeyGroup, until: Timestamp, out: &mut Survey) {
        let waiting = LazyCell::new(|| self.waiting());
        for (slot, last) in (0_u32..).zip(&self.last) {
            let (last, rows) = (last.at, self.feeds.of(slot).iter().map(|feed| feed.row));
            if !last.is_known() {
                out.unseen.extend(rows);
            } else if last <= until {
                let (at, rows) = (SeriesAddr { group, slot }, rows.collect());
                out.idle.push(IdleSeries { at, last, rows, waiting: waiting[slot as usize] });
            }
        }
    }

    /// By slot, the kind of the first point that waits in an open bin.
    fn waiting(&self) -> Vec<Option<Kind>> {
        let mut kinds = vec![None; self.last.len()];
        for point in self.open.iter().flat_map(|(_, log)| log.as_they_came()) {
            kinds[point.slot as usize].get_or_insert(point.kind);
        }
        for (_, slot) in self.early.keys() {
            kinds[*slot as usize].get_or_insert(self.last[*slot as usize].kind());
        }
        kinds
    }

    /// A series is forgotten: its slot is as that of a series that was never seen, and feeds nothing.
    pub(super) fn forget(&mut self, slot: u32) {
        self.last[slot as usize] = Last::NEVER;
        let Unusual { totals, watches, conflicts } = &mut self.unusual;
        totals.remove(&slot);
        watches.remove(&slot);
        conflicts.delta.take_if(|of| *of == slot);
        conflicts.cumulative.take_if(|of| *of == slot);
        self.feeds.set(slot as usize, &[]);
        self.contributors.forget(slot);
    }

    /// To be called once after what was forgotten.
    pub(super) fn tidy(&mut self) {
        self.feeds.tidy();
    }

    pub(super) fn push(
        &mut self,
        points: &[RoutedPoint],
        runs: &[Run],
        histograms: &[Histogram],
        interval: Span,
    ) {
        for of_run in points.chunk_by(|a, b| a.run == b.run) {
            let run = &runs[of_run[0].run as usize];
            let log = self.log(run.bin);
            log.push(run, of_run, histograms);
            if log.may_overflow() {
                self.fold_early(run.bin, interval);
            }
        }
    }

    /// A marker of the bin that closes next: the series ends at this time.
    pub(super) fn end(&mut self, slot: u32, at: Timestamp) {
        self.contributors.end(slot, at);
    }

    fn log(&mut self, bin: Timestamp) -> &mut Log {
        let at = match self.open.last() {
            Some((newest, _)) if *newest == bin => self.open.len() - 1,
            _ => self.open.binary_search_by_key(&bin, |(bin, _)| *bin).unwrap_or_else(|at| {
                self.open.insert(at, (bin, std::mem::take(&mut self.spare)));
                at
            }),
        };
        &mut self.open[at].1
    }

    // The one exception to determinism, and counted as such: without it one series could fill memory.
    fn fold_early(&mut self, bin: Timestamp, interval: Span) {
        let slots = self.last.len();
        let over = self.log(bin).overflow(slots);
        self.counters.refuse(Reason::FoldedEarly, over.len() as u64);
        for point in over.as_they_came() {
            let tally = self.early.entry((bin, point.slot)).or_default();
            let last = &mut self.last[point.slot as usize];
            take(last, &mut self.unusual, &mut self.counters, tally, point, interval);
        }
    }

    pub(super) fn close(&mut self, closing: &Closing<'_>, out: &mut Partials) {
        self.close_points(closing, out);
        if !self.contributors.is_empty() {
            self.contributors.close(closing, |slot| self.feeds.of(slot), &mut out.shared);
        }
    }

    fn close_points(&mut self, closing: &Closing<'_>, out: &mut Partials) {
        let Ok(at) = self.open.binary_search_by_key(&closing.bin, |(bin, _)| *bin) else { return };
        let (_, mut log) = self.open.remove(at);
        if self.early.is_empty() && log.is_one_each() {
            self.close_one_each(log.as_they_came(), closing, out);
        } else if self.early.is_empty()
            && let Some(order) = log.one_each_by_slot(self.last.len())
        {
            self.close_one_each(log.in_order(order), closing, out);
        } else {
            self.close_sorted(&log, closing, out);
        }
        log.clear();
        self.spare = log;
    }

    /// A bin whose series came once each, by slot: what a steady scrape leaves.
    fn close_one_each<'a>(
        &mut self,
        points: impl Iterator<Item = Waiting<'a>>,
        closing: &Closing<'_>,
        out: &mut Partials,
    ) {
        let mut tally = Tally::default();
        let shares = !self.contributors.is_empty();
        for point in points {
            let slot = point.slot;
            let last = &mut self.last[slot as usize];
            if point.kind == Kind::Gauge {
                if last.is_watched() {
                    self.unusual.watches.remove(&slot);
                }
                *last = Last::new(Kind::Gauge, point.at, point.value);
                emit_gauge(self.feeds.of(slot), point.value, out);
                if shares {
                    self.contributors.take_gauge(slot, point.at, point.value);
                }
                continue;
            }
            tally.clear();
            if !tally.take_steady(last, point) {
                take(last, &mut self.unusual, &mut self.counters, &mut tally, point, closing.interval);
            }
            emit(self.feeds.of(slot), point.kind, &tally, closing.interval, out);
            if shares {
                self.contributors.take(slot, point.kind, &tally, closing.interval);
            }
        }
    }

    fn close_sorted(&mut self, log: &Log, closing: &Closing<'_>, out: &mut Partials) {
        let mut current: Option<(u32, Tally)> = None;
        let mut early = std::mem::take(&mut self.early);
        for point in log.by_series(closing.ranks) {
            let slot = point.slot;
            if current.as_ref().is_none_or(|(open, _)| *open != slot) {
                if let Some((done, tally)) = current.take() {
                    self.finish(done, &tally, closing.interval, out);
                }
                current = Some((slot, early.remove(&(closing.bin, slot)).unwrap_or_default()));
            }
            let (_, tally) = current.as_mut().expect("set just above");
            let last = &mut self.last[slot as usize];
            if !tally.take_steady(last, point) {
                take(last, &mut self.unusual, &mut self.counters, tally, point, closing.interval);
            }
        }
        if let Some((done, tally)) = current.take() {
            self.finish(done, &tally, closing.interval, out);
        }
        let later = early.split_off(&(closing.bin.plus(Span::from_ns(1)), 0));
        for ((_, slot), tally) in early {
            self.finish(slot, &tally, closing.interval, out);
        }
        self.early = later;
    }

    /// All points of a series in the bin were taken.
    fn finish(&mut self, slot: u32, tally: &Tally, interval: Span, out: &mut Partials) {
        let kind = self.last[slot as usize].kind();
        emit(self.feeds.of(slot), kind, tally, interval, out);
        self.contributors.take(slot, kind, tally, interval);
    }

    /// The slots whose writers got into each other's way last since this was last asked.
    pub(super) fn take_writer_conflicts(&mut self) -> WriterConflicts {
        std::mem::take(&mut self.unusual.conflicts)
    }

    pub(super) fn save(&self, order: &[u32], ranks: &[u16], out: &mut Vec<u8>) {
        FORMAT.encode(out);
        self.counters.encode(out);
        let mut rank_of_slot = vec![0; self.last.len()];
        for (rank, slot) in order.iter().enumerate() {
            rank_of_slot[*slot as usize] = rank as u32;
            let Unusual { totals, watches, .. } = &self.unusual;
            self.last[*slot as usize].encode(out);
            if let Some(watch) = watches.get(slot) {
                watch.encode(out);
            }
            totals.contains_key(slot).encode(out);
            if let Some(h) = totals.get(slot) {
                h.bounds.encode(out);
                h.counts.encode(out);
            }
        }
        (self.open.len() as u32).encode(out);
        for (bin, log) in &self.open {
            bin.encode(out);
            log.save(&rank_of_slot, ranks, out);
        }
        let mut early: Vec<_> =
            self.early.iter().map(|((bin, slot), t)| (*bin, rank_of_slot[*slot as usize], t)).collect();
        early.sort_by_key(|(bin, slot, _)| (*bin, *slot));
        (early.len() as u32).encode(out);
        for (bin, slot, tally) in early {
            bin.encode(out);
            slot.encode(out);
            tally.encode(out);
        }
        self.contributors.save(&rank_of_slot, out);
    }

    pub(super) fn load(&mut self, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        if u8::decode(reader)? != FORMAT {
            return Err(Corrupt::Value("format of series: another release wrote it"));
        }
        self.counters = Counters::decode(reader)?;
        for slot in 0..self.last.len() {
            self.last[slot] = Last::decode(reader)?;
            if self.last[slot].is_watched() {
                self.unusual.watches.insert(slot as u32, Watch::decode(reader)?);
            }
            if bool::decode(reader)? {
                let h = Histogram { bounds: Codec::decode(reader)?, counts: Codec::decode(reader)? };
                self.unusual.totals.insert(slot as u32, h);
            }
        }
        for _ in 0..reader.len(12, "open bins")? {
            let bin = Timestamp::decode(reader)?;
            if self.open.last().is_some_and(|(last, _)| *last >= bin) {
                return Err(Corrupt::Value("open bins"));
            }
            self.open.push((bin, Log::load(bin, self.last.len(), reader)?));
        }
        for _ in 0..reader.len(12, "early series")? {
            let (bin, slot) = (Timestamp::decode(reader)?, u32::decode(reader)?);
            if slot as usize >= self.last.len() {
                return Err(Corrupt::Value("early series"));
            }
            self.early.insert((bin, slot), Tally::decode(reader)?);
        }
        self.contributors.load(self.last.len(), reader)
    }

    pub(super) fn state_bytes(&self) -> usize {
        let logs: usize =
            self.open.iter().map(|(_, log)| log).chain([&self.spare]).map(Log::state_bytes).sum();
        let shared = self.contributors.state_bytes();
        // A map's entry takes about half as much again as its content.
        let watches = self.unusual.watches.len() * (size_of::<(u32, Watch)>() * 3 / 2);
        self.last.capacity() * size_of::<Last>() + self.feeds.state_bytes() + watches + shared + logs
    }
}

/// Takes a point that is not steady.
#[inline(never)]
fn take(
    last: &mut Last,
    unusual: &mut Unusual,
    counters: &mut Counters,
    tally: &mut Tally,
    point: Waiting<'_>,
    interval: Span,
) {
    let slot = point.slot;
    let Unusual { totals, watches, conflicts } = unusual;
    let mut watch = if last.is_watched() { watches.remove(&slot) } else { None };
    let mut total = if last.kind().is_histogram() { totals.remove(&slot) } else { None };
    let fate = tally.take(last, (&mut watch, &mut total), point, interval);
    last.watch(watch.is_some());
    watches.extend(watch.map(|watch| (slot, watch)));
    totals.extend(total.map(|total| (slot, total)));
    match fate {
        Fate::Taken => {}
        Fate::Fell(fall) => counters.fell(fall),
        Fate::Superseded => counters.refuse(Reason::FoldedEarly, 1),
        Fate::Duplicate => counters.refuse(Reason::Duplicate, 1),
        Fate::Conflict => counters.refuse(Reason::DuplicateConflict, 1),
        Fate::WriterConflict => {
            counters.refuse(Reason::SharedCounter, 1);
            conflicts.cumulative = Some(slot);
        }
        Fate::Overlap => {
            counters.refuse(Reason::DeltaOverlap, 1);
            conflicts.delta = Some(slot);
        }
    }
}

fn emit_gauge(feeds: &[Feed], value: f64, out: &mut Partials) {
    if let [Feed { row, channel: Channel::Every, .. }] = *feeds {
        out.scalars.push(Partial { row, channel: Channel::Every, value });
        return;
    }
    let is_shown = |feed: &&Feed| !feed.is_shared && matches!(feed.channel, Channel::Every | Channel::Value);
    let shown = feeds.iter().filter(is_shown);
    out.scalars.extend(shown.map(|feed| Partial { row: feed.row, channel: feed.channel, value }));
}

fn emit(feeds: &[Feed], kind: Kind, tally: &Tally, interval: Span, out: &mut Partials) {
    for feed in feeds.iter().filter(|feed| !feed.is_shared) {
        let value = match feed.channel {
            Channel::Every if kind == Kind::Gauge => tally.mean(),
            Channel::Every | Channel::Rate => tally.rate(interval),
            Channel::Value => tally.mean(),
            Channel::Of | Channel::To => tally.increase(),
            Channel::Buckets => {
                out.buckets.extend(tally.buckets.clone().map(|counts| Buckets { row: feed.row, counts }));
                None
            }
            Channel::Event => None,
        };
        if let Some(value) = value {
            out.scalars.push(Partial { row: feed.row, channel: feed.channel, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: deltas of one series overlap, then of one whose place another series takes before anybody asks; and so do
    /// running totals.
    /// Guarantee: the last is named, once, and never by the name of another.
    #[test]
    fn the_last_overlap_is_told_once() {
        let mut group = SeriesGroup::default();
        for slot in 0..2 {
            group.add(&NewSeries { at: SeriesAddr { group: KeyGroup::nth(0), slot }, feeds: Vec::new() });
        }
        let delta = WriterConflicts { delta: Some(1), cumulative: None };
        let cumulative = WriterConflicts { delta: None, cumulative: Some(1) };
        for conflicts in [delta, cumulative] {
            group.unusual.conflicts = conflicts;
            group.forget(0);
            assert_eq!(
                (group.take_writer_conflicts(), group.take_writer_conflicts()),
                (conflicts, WriterConflicts::default())
            );
            group.unusual.conflicts = conflicts;
            group.forget(1);
            assert_eq!(group.take_writer_conflicts(), WriterConflicts::default());
        }
    }
}
