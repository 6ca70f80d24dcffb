//! relight's state on disk, behind two small traits with in-memory twins.
//!
//! Two stores with two temperaments. [`Baselines`] are large, learned and reconstructible: image
//! files of one cut, under a manifest in sled. The [`Ledger`] is small and precious: SQLite, one
//! durable transaction a turn. Everything in one folder, held by one process:
//!
//! ```text
//! STATE/                     mode 0700 where relight makes it
//!   lock                     flock: one process at a time
//!   running                  empty: a live run has begun, and has not ended well yet
//!   baselines.sentinel       sealed: the newest generation that was committed
//!   manifest/                sled: `m<generation>` -> manifest, `f<key>` -> small fact, all sealed
//!   manifest.copy/           sled's files as they were before an open that has not ended well yet
//!   images/<generation>/     one cut: manifest.img, s000.img .. s127.img, r000.img .. r127.img, all sealed
//!   images/<generation>.tmp/ a cut that is being written
//!   images/<generation>.old/ a cut that is being removed
//!   ledger.sqlite (-wal, -shm)
//!   ledger.sentinel          sealed: how many transactions the ledger has committed
//!   ballast                  room for a full disk, let go of at each start
//!   commands/                what people want of the daemon, a file each
//!   quarantine-<n>/          what was damaged, untouched, with why.txt
//! ```
//!
//! **The order** is the caller's: the ledger first, then the manifest. [`ledger_behind`] tells
//! whether a ledger was rolled back behind the baselines.
//!
//! **Damage** is a value, never an error: what cannot be trusted is moved to `quarantine-<n>` and
//! [`Loaded`] and [`LedgerHealth`] say so. A missing store that a sentinel vouches for is damage,
//! never a first boot. Errors are left for what the operator has to see to: a full disk, a folder
//! in use, a newer release's files; those leave every file as it was.
//!
//! sled panics on damage. It is opened on a thread of its own, `relight-sled-open`, with a time
//! limit, and every later call runs under `catch_unwind`; so the program must not be built with
//! `panic = "abort"`. The process's panic hook is left alone: it prints such a panic, under that name.
//!
//! Nothing here knows what an image holds, decides when to snapshot, or reads a clock.
#![warn(missing_docs)]

mod ballast;
mod baselines;
mod disk_baselines;
mod disk_ledger;
mod error;
mod files;
mod ledger;
mod manifest_db;
mod memory;
mod rows;
mod sentinel;
mod spool;
mod state_dir;

pub use baselines::{
    Baselines, ImageKind, ImageRef, Loaded, Manifest, PartitionCut, Snapshot, ledger_behind,
};
pub use error::StoreError;
pub use ledger::{Ledger, LedgerHealth};
pub use memory::{MemoryBaselines, MemoryLedger};
pub use spool::{LeftCommand, LeftFile, Spool};
pub use state_dir::{StateDir, Stores};

/// Version of every sealed file and of sled's values. Whoever raises it writes both sentinels
/// before anything else, so that an older release refuses the folder before it touches a file.
pub const SCHEMA_VERSION: u16 = 1;
/// `user_version` of the ledger.
pub const LEDGER_VERSION: u32 = 1;
