//! The ledger's contract: small, precious, durable.

use std::path::PathBuf;

use relight_core::incident::{LedgerState, LedgerWrite};

use crate::error::StoreError;

/// How the ledger was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerHealth {
    /// There was none, and nothing says that there ever was one.
    New,
    /// All that was committed is there.
    Whole,
    /// It was damaged, missing or rolled back; an empty one is in its place.
    Quarantined {
        /// Where the damaged one lies, untouched.
        to: PathBuf,
        /// What was wrong, for people.
        why: String,
    },
}

/// The durable record of incidents, actions and all else that Control remembers.
pub trait Ledger: Send {
    /// Reads and checks everything. Comes first; may be called again. Damage is in the health, and
    /// the state is then empty.
    fn load(&mut self) -> Result<(LedgerState, LedgerHealth), StoreError>;

    /// Commits one turn's writes as one transaction, durable on return. After [`StoreError::Unwritable`] none of
    /// them is in, and the same call may be tried again; after any other error the ledger is done with.
    fn commit(&mut self, writes: &[LedgerWrite]) -> Result<(), StoreError>;

    /// Whether what is committed will be found at the next start; [`StoreError::Unwritable`] if its file was removed or is out
    /// of reach. Cheap: it is asked once a second.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Puts the ledger aside and starts an empty one: for a ledger behind the baselines, and for
    /// whatever else only the caller can see. Returns [`LedgerHealth::Quarantined`].
    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError>;
}
