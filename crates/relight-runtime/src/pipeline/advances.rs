//! What moves a partition's watermark, or keeps it, apart from its records.
//!
//! Both have a place in the partition, so that a run which reads it again comes to the same: an advance lies in the ledger
//! with the offset before which it was made, and the mark of a start in the listener's journal. When one is made
//! is the driver's to say.

use relight_core::Timestamp;
use relight_core::incident::{LedgerWrite, RecordedAdvance};

use super::Pipeline;
use crate::error::RuntimeError;

impl Pipeline {
    /// A partition is idle up to `to`; [`Timestamp::MAX`] ends it.
    pub fn advance(&mut self, partition: u32, to: Timestamp) -> Result<(), RuntimeError> {
        self.intake.advance(partition, to, &mut self.routed);
        self.shards.route(&mut self.routed)
    }

    /// A live partition is silent up to `to`: journalled, so that a rewind advances it at the same place.
    pub fn record_advance(&mut self, partition: u32, name: &str, to: Timestamp) -> Result<(), RuntimeError> {
        let advance =
            RecordedAdvance { partition: name.to_owned(), before_offset: self.next_offset(name), to };
        self.advanced.insert(name.to_owned());
        self.writes.push(LedgerWrite::Advance(advance));
        self.advance(partition, to)
    }

    /// A listener's watermark stays where it is until it is advanced, so that what is sent again after a
    /// start is not late.
    pub fn keep_watermark(&mut self, partition: u32) {
        self.intake.keep_watermark(partition);
    }

    /// Whether a partition's watermark is kept, since this start or by the snapshot.
    pub fn is_kept(&self, partition: u32) -> bool {
        self.intake.is_kept(partition)
    }

    /// Takes the mark of a start: see [`Intake::start`].
    ///
    /// [`Intake::start`]: relight_engine::intake::Intake::start
    pub fn start(&mut self, partition: u32, offset: u64) {
        // What let go of the watermark before the mark must not do so behind it.
        self.repeat_advances(partition, offset);
        self.intake.start(partition, offset);
    }

    /// Lets go of a watermark that was kept: the watermark goes to where the partition's records are, at most to what
    /// can have been received by now. One whose sender's clock is fast makes all others late otherwise.
    pub fn release_watermark(
        &mut self,
        partition: u32,
        name: &str,
        at_most: Timestamp,
    ) -> Result<(), RuntimeError> {
        let to = self.intake.record_watermark(partition).min(at_most);
        self.record_advance(partition, name, to.max(self.intake.partition_watermark(partition)))
    }

    /// After a rewind: advances that came before a record are made before it once more.
    pub(super) fn repeat_advances(&mut self, partition: u32, offset: u64) {
        let Some(waiting) = self.rewound.get_mut(&partition) else { return };
        while let Some(advance) = waiting.front().filter(|advance| advance.before_offset <= offset) {
            self.intake.advance(partition, advance.to, &mut self.routed);
            waiting.pop_front();
        }
        if waiting.is_empty() {
            self.rewound.remove(&partition);
        }
    }
}
