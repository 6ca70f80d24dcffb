//! The points of one open bin of one key group, as they came.
//!
//! An appended log instead of a list per series: a scrape is one sequential write, and a bin whose
//! series came once each and in order is folded without sorting.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind};
use relight_core::{Timestamp, growth};

use crate::intake::{RoutedPoint, Run};

/// Points of one series in one bin that are kept; beyond them they are folded in arrival order.
pub const MAX_POINTS_PER_BIN: usize = 4_096;

/// One waiting point, 16 bytes. What it shares with the points around it lies in its [`Run`].
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    /// The value, or the place of the histogram.
    value: f64,
    slot: u32,
    run: u32,
}

/// A point with all that is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) slot: u32,
    pub(super) kind: Kind,
    pub(super) at: Timestamp,
    pub(super) start: Timestamp,
    pub(super) value: f64,
    pub(super) histogram: Option<&'a Histogram>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    runs: Vec<Run>,
    histograms: Vec<Histogram>,
    /// Unless every series has one point, in order of slots.
    mixed: bool,
    /// The lowest slot that may come next for that to hold. Kept here, where it is at hand: the entry before may be
    /// far away.
    next_slot: u32,
    /// The next length at which some series may have too many points.
    check_at: usize,
}

impl Log {
    /// Points of one run; `histograms` is where theirs lie.
    #[inline]
    pub(super) fn push(&mut self, run: &Run, points: &[RoutedPoint], histograms: &[Histogram]) {
        self.begin(run);
        if run.kind.is_histogram() {
            for point in points {
                self.append(point.series.slot, point.value, histograms.get(point.value as usize));
            }
            return;
        }
        let run = self.runs.len() as u32 - 1;
        for point in points {
            self.note(point.series.slot);
        }
        let entry = |point: &RoutedPoint| Entry { value: point.value, slot: point.series.slot, run };
        growth::reserve(&mut self.entries, points.len());
        self.entries.extend(points.iter().map(entry));
    }

    /// Another point of the last run.
    #[inline]
    fn append(&mut self, slot: u32, value: f64, histogram: Option<&Histogram>) {
        let value = histogram.map_or(value, |histogram| self.keep(histogram));
        self.note(slot);
        self.entries.push(Entry { value, slot, run: self.runs.len() as u32 - 1 });
    }

    #[inline]
    const fn note(&mut self, slot: u32) {
        self.mixed |= slot < self.next_slot;
        self.next_slot = slot + 1;
    }

    /// Begins a run, unless it goes on.
    fn begin(&mut self, run: &Run) {
        if self.runs.last() != Some(run) {
            growth::reserve(&mut self.runs, 1);
            self.runs.push(*run);
        }
    }

    /// Keeps a histogram; its place, which is its point's value.
    #[inline(never)]
    fn keep(&mut self, histogram: &Histogram) -> f64 {
        self.histograms.push(histogram.clone());
        (self.histograms.len() - 1) as f64
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether enough has come since the last look that a series may be over its limit.
    pub(super) fn may_overflow(&self) -> bool {
        self.entries.len() > self.check_at.max(2 * MAX_POINTS_PER_BIN)
    }

    /// Takes out all points of series that have more than [`MAX_POINTS_PER_BIN`], in arrival order.
    pub(super) fn overflow(&mut self, slots: usize) -> Log {
        let mut counts = vec![0_usize; slots];
        for entry in &self.entries {
            counts[entry.slot as usize] += 1;
        }
        let mut kept = Log::default();
        let mut over = Log::default();
        for entry in &self.entries {
            let full = counts[entry.slot as usize] > MAX_POINTS_PER_BIN;
            let to = if full { &mut over } else { &mut kept };
            to.begin(self.run(entry));
            to.append(entry.slot, entry.value, self.histogram(entry));
        }
        kept.check_at = 2 * kept.entries.len();
        *self = kept;
        over
    }

    /// Whether every series has one point, in order of slots: nothing to sort and nothing to compare.
    pub(super) const fn is_one_each(&self) -> bool {
        !self.mixed
    }

    /// The points by slot, if every series has one. Putting each in its place took a third of the time of
    /// sorting them (108 ns a point at 1 M series whose requests came in any order).
    pub(super) fn one_each_by_slot(&self, slots: usize) -> Option<Vec<u32>> {
        const NONE: u32 = u32::MAX;
        // A few points of many series are sorted sooner than all series are gone over.
        if self.entries.len() < slots / 8 {
            return None;
        }
        let mut places = vec![NONE; slots];
        for (i, entry) in self.entries.iter().enumerate() {
            let place = &mut places[entry.slot as usize];
            if *place != NONE {
                return None;
            }
            *place = i as u32;
        }
        places.retain(|place| *place != NONE);
        Some(places)
    }

    #[inline]
    fn run(&self, entry: &Entry) -> &Run {
        &self.runs[entry.run as usize]
    }

    fn histogram(&self, entry: &Entry) -> Option<&Histogram> {
        self.run(entry).kind.is_histogram().then(|| self.histograms.get(entry.value as usize)).flatten()
    }

    #[inline]
    fn waiting(&self, entry: &Entry) -> Waiting<'_> {
        let Run { at, start, kind, .. } = *self.run(entry);
        let Entry { slot, value, .. } = *entry;
        Waiting { slot, kind, at, start, value, histogram: self.histogram(entry) }
    }

    /// The points as they came.
    pub(super) fn as_they_came(&self) -> impl Iterator<Item = Waiting<'_>> {
        self.entries.iter().map(|entry| self.waiting(entry))
    }

    /// The points at these places.
    pub(super) fn in_order(&self, places: Vec<u32>) -> impl Iterator<Item = Waiting<'_>> {
        places.into_iter().map(|i| self.waiting(&self.entries[i as usize]))
    }

    /// By series, and within one by (time, partition, offset); points of one record as they came, which is their order
    /// in it.
    fn sorted(&self, rank_of_slot: impl Fn(u32) -> u32, ranks: &[u16]) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_by_key(|i| {
            let entry = &self.entries[*i as usize];
            let run = self.run(entry);
            (rank_of_slot(entry.slot), run.at, rank_of(run.partition, ranks), run.offset)
        });
        order
    }

    /// The points by series, and within one by (time, partition, offset).
    pub(super) fn by_series(&self, ranks: &[u16]) -> impl Iterator<Item = Waiting<'_>> {
        self.in_order(self.sorted(|slot| slot, ranks))
    }

    /// Appends the log in canonical order, with slots and partitions renumbered.
    pub(super) fn save(&self, rank_of_slot: &[u32], ranks: &[u16], out: &mut Vec<u8>) {
        let order = self.sorted(|slot| rank_of_slot[slot as usize], ranks);
        (order.len() as u32).encode(out);
        for i in order {
            let entry = &self.entries[i as usize];
            let Run { at, start, offset, partition, kind, .. } = *self.run(entry);
            at.encode(out);
            start.encode(out);
            offset.encode(out);
            rank_of(partition, ranks).encode(out);
            rank_of_slot[entry.slot as usize].encode(out);
            (kind as u8).encode(out);
            let histogram = self.histogram(entry);
            // A histogram's place tells who came first: none of it is kept.
            if histogram.is_some() { 0.0 } else { entry.value }.encode(out);
            histogram.is_some().encode(out);
            if let Some(h) = histogram {
                h.bounds.encode(out);
                h.counts.encode(out);
            }
        }
    }

    pub(super) fn load(bin: Timestamp, slots: usize, reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut log = Self::default();
        for _ in 0..reader.len(40, "open points")? {
            let (at, start) = (Codec::decode(reader)?, Codec::decode(reader)?);
            let (offset, partition) = (Codec::decode(reader)?, Codec::decode(reader)?);
            let (slot, kind) = (u32::decode(reader)?, u8::decode(reader)?);
            let kind = *Kind::ALL.get(kind as usize).ok_or(Corrupt::Value("kind"))?;
            let value = f64::decode(reader)?;
            let histogram = if bool::decode(reader)? {
                Some(Histogram { bounds: Codec::decode(reader)?, counts: Codec::decode(reader)? })
            } else {
                None
            };
            if slot as usize >= slots {
                return Err(Corrupt::Value("open point"));
            }
            log.begin(&Run { bin, at, start, offset, partition, kind });
            log.append(slot, value, histogram.as_ref());
        }
        Ok(log)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.runs.clear();
        self.histograms.clear();
        (self.mixed, self.next_slot, self.check_at) = (false, 0, 0);
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.runs.capacity() * size_of::<Run>()
    }
}

fn rank_of(partition: u16, ranks: &[u16]) -> u16 {
    ranks.get(partition as usize).copied().unwrap_or(partition)
}

#[cfg(test)]
mod tests {
    use relight_core::KeyGroup;

    use super::*;
    use crate::directory::SeriesAddr;

    fn log(slots: &[u32]) -> Log {
        let entry = |slot: &u32| Entry { value: 0.0, slot: *slot, run: 0 };
        Log { entries: slots.iter().map(entry).collect(), ..Log::default() }
    }

    /// Guarantee: each point is put in its place, and only where no series has two.
    #[test]
    fn points_of_different_series_need_no_sorting() {
        assert_eq!(log(&[3, 0, 2]).one_each_by_slot(5), Some(vec![1, 2, 0]));
        assert_eq!(log(&[3, 0, 3]).one_each_by_slot(5), None);
        assert_eq!(log(&[1]).one_each_by_slot(100), None);
    }

    /// Guarantee: a log knows whether each series came once and in order, however its points were handed over.
    #[test]
    fn a_log_knows_its_order() {
        let run = |offset| {
            let (bin, start) = (Timestamp::from_secs(0), Timestamp::MIN);
            Run { bin, at: bin, start, offset, partition: 0, kind: Kind::Gauge }
        };
        let point = |slot: &u32| RoutedPoint {
            series: SeriesAddr { group: KeyGroup::nth(0), slot: *slot },
            value: 0.0,
            run: 0,
        };
        for (first, second, is_one_each) in [
            (&[0, 2], &[3, 9], true),
            (&[0, 2], &[2, 3], false),
            (&[0, 2], &[1, 3], false),
            (&[2, 0], &[3, 4], false),
        ] {
            let mut log = Log::default();
            for (offset, slots) in [(0, first), (1, second)] {
                log.push(&run(offset), &slots.iter().map(point).collect::<Vec<_>>(), &[]);
            }
            assert_eq!(log.is_one_each(), is_one_each, "{first:?} {second:?}");
            log.clear();
            assert!(log.is_one_each());
        }
    }

    /// Scenario: one record has many points of one series at one time, with other values each, and others between.
    /// Guarantee: they keep their order, on the way to the disk and back, too: which of two conflicting ones wins is theirs.
    #[test]
    fn points_of_one_record_keep_their_order() {
        let (bin, at, start) = (Timestamp::from_secs(0), Timestamp::from_secs(7), Timestamp::MIN);
        let run = Run { bin, at, start, offset: 3, partition: 1, kind: Kind::Gauge };
        let series = |slot| SeriesAddr { group: KeyGroup::nth(0), slot };
        let point = |n: u32| RoutedPoint { series: series(1 - n % 2), value: f64::from(n), run: 0 };
        let points: Vec<RoutedPoint> = (0..200).map(point).collect();
        let mut log = Log::default();
        for part in points.chunks(70) {
            log.push(&run, part, &[]);
        }
        assert!(log.runs.len() == 1 && !log.is_one_each());
        let values = |log: &Log| -> Vec<(u32, u32)> {
            log.by_series(&[0, 1]).map(|point| (point.slot, point.value as u32)).collect()
        };
        let expected: Vec<(u32, u32)> =
            (0..2).flat_map(|slot| (0..100).map(move |n| (slot, 2 * n + 1 - slot))).collect();
        assert_eq!(values(&log), expected);
        let mut bytes = Vec::new();
        log.save(&[0, 1], &[0, 1], &mut bytes);
        let back = Log::load(bin, 2, &mut Reader::new(&bytes)).expect("it was saved");
        assert_eq!(values(&back), expected);
    }
}
