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
    /// Refused, by reason.
    refused: [u64; Reason::ALL.len()],
}

impl Counters {
    /// Counts a refusal.
    pub fn refuse(&mut self, reason: Reason, n: u64) {
        let sum = &mut self.refused[reason as usize];
        *sum = sum.saturating_add(n);
    }

    /// How many were refused for a reason.
    pub const fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Everything of `other`, added.
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
            refused: Codec::decode(reader)?,
        })
    }
}
