//! Threads, channels and drivers around the engine.
//!
//! [`Pipeline`] moves records through Intake, Fold, Detect and Control, in any number of threads, and
//! cuts snapshots between turns; [`replay`] drives it from captures on a virtual clock. Knows no
//! config syntax, no detector and no responder by name, and decides nothing: what a record means is
//! the engine's business.
#![warn(missing_docs)]

mod bus;
mod error;
mod image;
mod live;
mod pipeline;
mod replay;
mod report;
mod seed;
mod shards;

pub use bus::{Bus, BusOutbox, Guard, Heartbeat, Now};
pub use error::RuntimeError;
pub use live::{
    Clock, Live, LiveInput, LiveSettings, MemoryLimits, Meter, MoreSamples, Pulse, ReceivedClock, Reload,
    SystemClock, Tell, TellNews, Trouble, memory_limit, resident_bytes,
};
pub use pipeline::{
    Commit, Cut, Doubts, MoreNews, News, Outbox, Panicked, Pipeline, Responders, Stores, Turn, Watch, Written,
};
pub use relight_engine::control::summary::RuleSummary;
pub use replay::{ReplayObserver, ReplayRequest, SimulatedOutcome, replay, replay_seeded};
pub use report::{Report, ScoredRow, Totals};
pub use seed::History;
