//! What was taken and what was refused, by reason. Part of the state: a crash does not forget it.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::Reason;

/// Counts of what came in. Refusals are counted by [`Reason`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records taken, repeated ones excluded.
    pub records: u64,
    /// Records skipped because their offset was known; of this process only, since a calm run has none.
    pub repeated: u64,
    /// Points accepted.
    pub points: u64,
    /// Events accepted.
    pub events: u64,
    /// Events that joined the bin of their partition's watermark because they were late.
    pub late_events: u64,
    /// The series whose delta overlapped last, by its slot in the key group that counts; of this process only, to be told.
    overlapped: Option<u32>,
    /// Refused, by reason.
    refused: [u64; Reason::ALL.len()],
}

impl Counters {
    /// Counts a refusal.
    pub fn refuse(&mut self, reason: Reason, n: u64) {
        let sum = &mut self.refused[reason as usize];
        *sum = sum.saturating_add(n);
    }

    /// Counts a delta of a series that overlaps.
    pub(crate) fn overlap(&mut self, slot: u32) {
        self.refuse(Reason::DeltaOverlap, 1);
        self.overlapped = Some(slot);
    }

    /// The series whose delta overlapped last since this was last asked.
    pub(crate) const fn take_overlap(&mut self) -> Option<u32> {
        self.overlapped.take()
    }

    /// A slot is another series' from now on.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.overlapped.take_if(|overlapped| *overlapped == slot);
    }

    /// How many were refused for a reason.
    pub const fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Everything of `other` that is a sum, added.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.repeated += other.repeated;
        self.points += other.points;
        self.events += other.events;
        self.late_events += other.late_events;
        for (mine, theirs) in self.refused.iter_mut().zip(other.refused) {
            *mine += theirs;
        }
    }
}

impl Codec for Counters {
    fn encode(&self, out: &mut Vec<u8>) {
        for n in [self.records, self.points, self.events, self.late_events] {
            n.encode(out);
        }
        self.refused.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            records: u64::decode(reader)?,
            repeated: 0,
            points: u64::decode(reader)?,
            events: u64::decode(reader)?,
            late_events: u64::decode(reader)?,
            overlapped: None,
            refused: Codec::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: deltas of two series overlap, then of one whose place another series takes before anybody asks.
    /// Guarantee: all are counted; the last is told, once, and never by the name of another.
    #[test]
    fn the_last_overlap_is_told_once() {
        let mut counters = Counters::default();
        counters.overlap(3);
        counters.overlap(7);
        counters.forget(3);
        assert_eq!((counters.take_overlap(), counters.take_overlap()), (Some(7), None));
        counters.overlap(5);
        counters.forget(5);
        assert_eq!((counters.take_overlap(), counters.refused(Reason::DeltaOverlap)), (None, 3));
    }
}
