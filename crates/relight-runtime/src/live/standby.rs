//! Handing over: a snapshot between two turns, at once, for whoever waits for it.
//!
//! Decides nothing: who acts is known outside, and what that means is Control's.

use crossbeam_channel::Sender;
use relight_core::Timestamp;
use relight_engine::control::ControlInput;

use super::Live;
use crate::error::RuntimeError;

impl Live {
    /// Another relight acts from now on.
    pub(super) fn stand_by(
        &mut self,
        release: Option<Sender<()>>,
        now: Timestamp,
    ) -> Result<(), RuntimeError> {
        self.pipeline.control(ControlInput::StandBy, now)?;
        let Some(release) = release else { return Ok(()) };
        self.cut_now(now)?;
        if self.kept().is_err() {
            // There is no snapshot while the ledger cannot be written. Whoever waits may have gone.
            let _ = release.send(());
        }
        // Dropped here: the snapshot is written.
        drop(release);
        Ok(())
    }

    /// Waits for the snapshot that is being written, and writes one more. Whether that is on the disk.
    pub(super) fn cut_now(&mut self, now: Timestamp) -> Result<bool, RuntimeError> {
        if self.pipeline.is_cutting() {
            match self.cuts.recv() {
                Ok(written) => self.written(written, now),
                Err(_) => return Err(RuntimeError::Worker),
            }
        }
        let before = self.pipeline.generation();
        if let Some(cut) = self.pipeline.cut()? {
            self.written(cut.write(), now);
        }
        Ok(self.pipeline.generation() > before)
    }
}
