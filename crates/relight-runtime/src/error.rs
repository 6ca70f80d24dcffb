//! What can stop a run.

use relight_core::codec::Corrupt;
use relight_core::{Span, Timestamp};
use relight_ingest::IngestError;
use relight_store::StoreError;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A capture could not be read further.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// An image is whole by its checksum and makes no sense all the same.
    #[error("failed to read the learned state: {0}")]
    State(#[from] Corrupt),
    /// The state was learned with bins of another length.
    #[error(
        "the state was learned with interval {was}, the config says {is}: use the same interval or another --state folder"
    )]
    Interval {
        /// The interval in the state.
        was: Span,
        /// The interval in the config.
        is: Span,
    },
    /// Rows are seeded before anything was learned, or not at all.
    #[error(
        "the state folder is not empty, so its rows cannot be seeded: go on from it without --seed, or use another --state folder"
    )]
    SeedTwice,
    /// The captures are not later than what they are seeded with.
    #[error(
        "the seed goes on until {seed}, the capture begins at {capture}: seed with what was recorded before it"
    )]
    SeedNotEarlier {
        /// The last bin of the seed.
        seed: Timestamp,
        /// The first bin of the captures.
        capture: Timestamp,
    },
    /// A live run ended without its last snapshot.
    #[error(
        "the last snapshot could not be written, so what was pushed since the one before is lost; the next start tells of the gap"
    )]
    NotCut,
    /// A worker thread panicked.
    #[error("a worker thread died; its panic is above")]
    Worker,
}
