//! The heartbeat: a sign of life for somebody who notices when it stops.
//!
//! It says that the whole loop goes round, so it is given only when a bin has closed since the one before and the ledger
//! commits at that moment. Nobody but whoever carries it out knows where it goes.

use relight_core::{Span, Timestamp};

use super::Live;
use crate::error::RuntimeError;

/// Carries a sign of life out; must not wait.
pub type Pulse = Box<dyn Fn(Timestamp) + Send>;

pub(super) struct Heart {
    pub(super) pulse: Pulse,
    pub(super) every: Span,
    pub(super) next: Timestamp,
    /// Up to where bins had closed at the last beat.
    pub(super) closed: Timestamp,
}

impl Live {
    /// Gives a sign of life this often, while there is life.
    pub fn heartbeat(&mut self, every: Span, pulse: Pulse) {
        let closed = self.pipeline.bins_closed_through();
        self.heart = Some(Heart { pulse, every, next: self.clock.now(), closed });
    }

    pub(super) fn beat(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        let closed = self.pipeline.bins_closed_through();
        let is_due = |heart: &Heart| now >= heart.next && closed > heart.closed;
        if !self.heart.as_ref().is_some_and(is_due) || !self.pipeline.commit_if_due()? {
            return Ok(());
        }
        let Some(heart) = &mut self.heart else { return Ok(()) };
        heart.closed = closed;
        heart.next = now.plus(heart.every);
        (heart.pulse)(now);
        Ok(())
    }
}
