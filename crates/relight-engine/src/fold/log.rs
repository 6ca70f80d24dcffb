//! The points of one open bin of one key group, as they came.
//!
//! An appended log instead of a list per series: a scrape is one sequential write, and a bin whose
//! series came once each and in order is folded without sorting.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind};
use relight_core::{Timestamp, codec_struct};

use crate::intake::RoutedPoint;

/// Points of one series in one bin that are kept; beyond them they are folded in arrival order.
pub const MAX_POINTS_PER_BIN: usize = 4_096;

/// One waiting point, 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) value: f64,
    pub(super) offset: u64,
    /// From the lowest bit: the slot (29 bits), the kind (3), the index in the record (16), the partition (16). One
    /// number, so that an entry is four writes.
    place: u64,
}
codec_struct!(Entry { at, value, offset, place });

const KIND_SHIFT: u32 = 29;
const INDEX_SHIFT: u32 = 32;
const PARTITION_SHIFT: u32 = 48;

fn place(slot: u32, kind: Kind, index: u16, partition: u16) -> u64 {
    u64::from(slot)
        | (kind as u64) << KIND_SHIFT
        | u64::from(index) << INDEX_SHIFT
        | u64::from(partition) << PARTITION_SHIFT
}

impl Entry {
    pub(super) const fn slot(&self) -> u32 {
        self.place as u32 & ((1 << KIND_SHIFT) - 1)
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::ALL[(self.place as u32 >> KIND_SHIFT) as usize % Kind::ALL.len()]
    }

    const fn index(&self) -> u16 {
        (self.place >> INDEX_SHIFT) as u16
    }

    const fn partition(&self) -> u16 {
        (self.place >> PARTITION_SHIFT) as u16
    }

    fn order(&self, ranks: &[u16]) -> (u32, Timestamp, u16, u64, u16) {
        let rank = ranks.get(self.partition() as usize).copied().unwrap_or(self.partition());
        (self.slot(), self.at, rank, self.offset, self.index())
    }
}

/// A point together with what only some points have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) entry: Entry,
    pub(super) start: Timestamp,
    pub(super) histogram: Option<&'a Histogram>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    /// Starts of sums, parallel to `entries`; empty while nobody has told one.
    starts: Vec<Timestamp>,
    histograms: Vec<Histogram>,
    /// Unless every series has one point, in order of slots.
    mixed: bool,
    /// The next length at which some series may have too many points.
    check_at: usize,
}

impl Log {
    #[inline]
    pub(super) fn push(&mut self, point: &RoutedPoint, histogram: Option<&Histogram>) {
        let entry = Entry {
            at: point.at,
            value: histogram.map_or(point.value, |histogram| self.keep(histogram)),
            offset: point.offset,
            place: place(
                point.series.slot,
                point.kind,
                u16::try_from(point.index).unwrap_or(u16::MAX),
                point.partition,
            ),
        };
        self.append(entry, point.start);
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
            counts[entry.slot() as usize] += 1;
        }
        let mut kept = Log::default();
        let mut over = Log::default();
        for i in 0..self.entries.len() {
            let waiting = self.waiting(i);
            let full = counts[waiting.entry.slot() as usize] > MAX_POINTS_PER_BIN;
            if full { over.push_waiting(waiting) } else { kept.push_waiting(waiting) }
        }
        kept.check_at = 2 * kept.entries.len();
        *self = kept;
        over
    }

    fn push_waiting(&mut self, Waiting { mut entry, start, histogram }: Waiting<'_>) {
        if let Some(histogram) = histogram {
            entry.value = self.keep(histogram);
        }
        self.append(entry, start);
    }

    /// Keeps a histogram; its place, which is its point's value.
    fn keep(&mut self, histogram: &Histogram) -> f64 {
        self.histograms.push(histogram.clone());
        (self.histograms.len() - 1) as f64
    }

    #[inline]
    fn append(&mut self, entry: Entry, start: Timestamp) {
        if start.is_known() || !self.starts.is_empty() {
            // The first start that somebody tells makes the column; before it nobody pays for one.
            self.starts.resize(self.entries.len(), Timestamp::MIN);
            self.starts.push(start);
        }
        // Asked here, where the entry before is at hand, and not of the whole log when its bin closes.
        self.mixed |= self.entries.last().is_some_and(|last| last.slot() >= entry.slot());
        self.entries.push(entry);
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
            let place = &mut places[entry.slot() as usize];
            if *place != NONE {
                return None;
            }
            *place = i as u32;
        }
        places.retain(|place| *place != NONE);
        Some(places)
    }

    /// The points as they came.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    #[inline]
    pub(super) fn waiting(&self, i: usize) -> Waiting<'_> {
        let entry = self.entries[i];
        let histogram =
            entry.kind().is_histogram().then(|| self.histograms.get(entry.value as usize)).flatten();
        Waiting { entry, start: self.starts.get(i).copied().unwrap_or(Timestamp::MIN), histogram }
    }

    /// Calls `each` with every point: by series, and within one by (time, partition, offset).
    pub(super) fn for_each_sorted(&self, ranks: &[u16], mut each: impl FnMut(Waiting<'_>)) {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_by_key(|i| self.entries[*i as usize].order(ranks));
        for i in order {
            each(self.waiting(i as usize));
        }
    }

    pub(super) fn for_each_as_it_came(&self, mut each: impl FnMut(Waiting<'_>)) {
        for i in 0..self.entries.len() {
            each(self.waiting(i));
        }
    }

    /// Appends the log in canonical order, with slots and partitions renumbered.
    pub(super) fn save(&self, rank_of_slot: &[u32], ranks: &[u16], out: &mut Vec<u8>) {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        let renumbered = |i: usize| {
            let (slot, at, rank, offset, index) = self.entries[i].order(ranks);
            (rank_of_slot[slot as usize], at, rank, offset, index)
        };
        order.sort_by_key(|i| renumbered(*i));
        (order.len() as u32).encode(out);
        let mut histograms = 0_u32;
        for i in order {
            let w = self.waiting(i);
            let (slot, _, rank, ..) = renumbered(i);
            let mut entry = w.entry;
            entry.place = place(slot, entry.kind(), entry.index(), rank);
            if w.histogram.is_some() {
                entry.value = f64::from(histograms);
                histograms += 1;
            }
            entry.encode(out);
            w.start.encode(out);
            w.histogram.is_some().encode(out);
            if let Some(h) = w.histogram {
                h.bounds.encode(out);
                h.counts.encode(out);
            }
        }
    }

    pub(super) fn load(slots: usize, reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut log = Self::default();
        for _ in 0..reader.len(41, "open points")? {
            let entry = Entry::decode(reader)?;
            let start = Timestamp::decode(reader)?;
            let histogram = if bool::decode(reader)? {
                Some(Histogram { bounds: Codec::decode(reader)?, counts: Codec::decode(reader)? })
            } else {
                None
            };
            if entry.slot() as usize >= slots || entry.place as u32 >> KIND_SHIFT >= Kind::ALL.len() as u32 {
                return Err(Corrupt::Value("open point"));
            }
            log.push_waiting(Waiting { entry, start, histogram: histogram.as_ref() });
        }
        Ok(log)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.starts.clear();
        self.histograms.clear();
        self.mixed = false;
        self.check_at = 0;
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.starts.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(slots: &[u32]) -> Log {
        let (at, value, offset) = (Timestamp::MIN, 0.0, 0);
        let entry = |slot: &u32| Entry { at, value, offset, place: u64::from(*slot) };
        Log { entries: slots.iter().map(entry).collect(), ..Log::default() }
    }

    /// Guarantee: each point is put in its place, and only where no series has two.
    #[test]
    fn points_of_different_series_need_no_sorting() {
        assert_eq!(log(&[3, 0, 2]).one_each_by_slot(5), Some(vec![1, 2, 0]));
        assert_eq!(log(&[3, 0, 3]).one_each_by_slot(5), None);
        assert_eq!(log(&[1]).one_each_by_slot(100), None);
    }
}
