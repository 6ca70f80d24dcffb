//! A ledger that cannot be written, as a live run sees it: told once, tried again, told when it is over.

use relight_core::{Span, Timestamp};
use relight_store::StoreError;

use super::trouble::Trouble;
use super::{Live, holds};
use crate::error::RuntimeError;

/// How often it is asked whether the ledger's file is still there.
const CHECK_EVERY: Span = Span::from_secs(1);

impl Live {
    /// Tries again what could not be committed, and tells when that begins and ends.
    pub(super) fn tend_ledger(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        if now >= self.figures.next_check {
            self.figures.next_check = now.plus(CHECK_EVERY);
            self.pipeline.check_ledger()?;
        }
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

    /// This run has no state folder: it was opened on memory because the disk is full or read-only. It is never ready, changes
    /// nothing, and people are told once.
    pub fn run_blind(&mut self, why: &str) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        let why = format!(
            "cannot be opened: {why}; what was learned is not read and nothing is kept; make room, or make the disk writable, and restart relight"
        );
        self.figures.blind = Some(format!("the state folder {why}"));
        self.pipeline.control(holds::no_state(&why), now)?;
        self.trouble(Trouble::new("state_unwritable", "the state folder", why), now)
    }

    /// An error if the run ends with turns that the ledger does not have.
    pub(super) fn kept(&self) -> Result<(), RuntimeError> {
        self.pipeline.ledger_fault().map_or(Ok(()), |why| {
            Err(StoreError::Unwritable { doing: "commit the last turns to the ledger", why: why.to_owned() }
                .into())
        })
    }
}
