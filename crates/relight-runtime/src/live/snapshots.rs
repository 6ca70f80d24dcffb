//! Snapshots beside the turns: begun when they are due, written by a thread of their own, taken back when they are on the disk.
//!
//! What a snapshot holds and how it is written is the pipeline's.

use relight_core::Timestamp;

use super::Live;
use crate::error::RuntimeError;
use crate::pipeline::Written;

impl Live {
    /// Takes back the snapshot that was written, and begins the next when it is due.
    pub(super) fn snapshot(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        if let Ok(written) = self.cuts.try_recv() {
            self.written(written, now);
        }
        if now < self.next_cut {
            return Ok(());
        }
        self.next_cut = now.plus(self.how.snapshot_every);
        if let Some(cut) = self.pipeline.cut()? {
            self.figures.cutting(now, cut.bytes());
            let back = self.cut.clone();
            self.writer = Some(std::thread::spawn(move || {
                // Nobody takes it back only when the run is over.
                let _ = back.send(cut.write());
            }));
        }
        Ok(())
    }

    pub(super) fn written(&mut self, written: Written, now: Timestamp) {
        match self.pipeline.written(written) {
            Ok(unpruned) => {
                self.figures.cut(self.pipeline.generation());
                if let Some(error) = unpruned {
                    self.notice(&format!(
                        "an old snapshot is still on the disk: {error}; the next one removes it"
                    ));
                }
                let covered = self.pipeline.covered();
                for stream in &self.streams {
                    if let Some(next_offset) = covered.get(&*stream.outlet.partition) {
                        stream.outlet.cover(*next_offset);
                    }
                }
            }
            Err(error) => {
                self.figures.cut_failed();
                self.notice(&format!(
                    "failed to write a snapshot: {error}; offsets stay where the last one left them, next try at {}",
                    self.next_cut.max(now)
                ));
            }
        }
    }
}
