//! What was taken and what was refused, by reason. Part of the state: a crash does not forget it.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::Reason;

/// What the fall of a running total was taken for (`docs/design/counters.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fall {
    /// The total began anew: it counts from zero.
    Reset,
    /// The total was corrected: it counts from before or from after the fall.
    Correction,
    /// Neither: it counts for nothing until the next points show what it was.
    Unexplained,
}

impl Fall {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Reset, Self::Correction, Self::Unexplained];

    /// The name in metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Correction => "correction",
            Self::Unexplained => "unexplained",
        }
    }
}

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
    /// Falls of running totals, by what they were taken for.
    falls: [u64; Fall::ALL.len()],
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

    /// Counts a fall of a running total.
    pub const fn fell(&mut self, fall: Fall) {
        let sum = &mut self.falls[fall as usize];
        *sum = sum.saturating_add(1);
    }

    /// How many falls of running totals were taken for this.
    pub const fn falls(&self, fall: Fall) -> u64 {
        self.falls[fall as usize]
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
        for (mine, theirs) in self.falls.iter_mut().zip(other.falls) {
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
        self.falls.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            records: u64::decode(reader)?,
            repeated: 0,
            points: u64::decode(reader)?,
            events: u64::decode(reader)?,
            late_events: u64::decode(reader)?,
            refused: Codec::decode(reader)?,
            falls: Codec::decode(reader)?,
        })
    }
}
