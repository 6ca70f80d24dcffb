//! What a start found that is no ground to act on: nothing learned yet, or a ledger that is not the one before.
//!
//! Only says so. Whoever drives decides what is held back for it, and for how long.

use relight_store::Loaded;

use super::Pipeline;

/// What is in doubt after a start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doubts {
    /// Nothing had been learned, or what had been is gone: why.
    pub cold: Option<String>,
    /// What had been learned was damaged and put aside: why.
    pub damaged: Option<String>,
    /// The ledger is not the one of before, so cooldowns, locks and what was done are forgotten: why.
    pub ledger_lost: Option<String>,
}

impl Doubts {
    pub(super) fn baselines(&mut self, loaded: &Loaded) {
        if let Loaded::Quarantined { why, .. } = loaded {
            self.damaged = Some(why.clone());
        }
        self.cold = match loaded {
            Loaded::Cold => Some("nothing was learned before this start".to_owned()),
            Loaded::Quarantined { .. } => Some("what was learned before this start was damaged".to_owned()),
            Loaded::Whole(_) | Loaded::FellBack { .. } => None,
        };
    }
}

impl Pipeline {
    /// What the start found.
    pub const fn doubts(&self) -> &Doubts {
        &self.doubts
    }
}
