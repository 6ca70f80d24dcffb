//! A ledger that cannot be written, as a live run sees it: told once, tried again, told when it is over.

use relight_core::Timestamp;
use relight_store::StoreError;

use super::Live;
use super::trouble::Trouble;
use crate::error::RuntimeError;

impl Live {
    /// Tries again what could not be committed, and tells when that begins and ends.
    pub(super) fn tend_ledger(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        let is_back = self.pipeline.retry_ledger(now)?;
        let why = self.pipeline.ledger_fault().map(str::to_owned);
        match (&why, self.figures.ledger_failing) {
            (Some(why), false) => {
                let why = format!(
                    "cannot be written: {why}; nothing is changed and no snapshot is taken until it can be, pages go out"
                );
                self.trouble(Trouble::new("ledger_unwritable", "the ledger", why), now)?;
            }
            (None, true) => self.notice("the ledger can be written again"),
            _ => {}
        }
        self.figures.ledger_failing = why.is_some();
        if is_back {
            self.next_cut = now;
        }
        Ok(())
    }

    /// An error if the run ends with turns that the ledger does not have.
    pub(super) fn kept(&self) -> Result<(), RuntimeError> {
        self.pipeline.ledger_fault().map_or(Ok(()), |why| {
            Err(StoreError::Unwritable { doing: "commit the last turns to the ledger", why: why.to_owned() }
                .into())
        })
    }
}
