//! The one error of this crate: what an operator has to see to. Damage is not among it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do what it was asked. Nothing was half done: the last commit stands.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the folder.
    #[error("state folder {} is in use by another relight process", relight_core::text::path(.0))]
    Locked(PathBuf),
    /// Written by a newer release; no file was touched.
    #[error(
        "{} was written by a newer release (version {found}, this one reads up to {known}); nothing was changed: \
         run that release, or move the state folder aside",
        relight_core::text::path(.path)
    )]
    Future {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this release reads.
        known: u32,
    },
    /// The operating system said no: a full disk, missing rights, a failed fsync.
    #[error("failed to {doing} {}", relight_core::text::path(.path))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk is full, read-only or held by somebody: nothing is written for the time being, what was written
    /// stands, and the same may be tried again.
    #[error("failed to {doing}: {why}")]
    Unwritable {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        why: String,
    },
    /// sled or SQLite failed for a reason other than damage.
    #[error("failed to {doing}: {why}")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        why: String,
    },
    /// The caller broke the protocol, for instance by committing an image that was never put.
    #[error("store used out of order: {0}")]
    Order(String),
}

impl StoreError {
    /// Whether the disk is full or read-only: nothing is wrong with what it holds.
    pub fn is_unwritable_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
            }
            Self::Unwritable { .. } => true,
            _ => false,
        }
    }
}

/// Wraps an I/O error with what was being done to which file.
pub(crate) fn failed_to(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// Why something on disk could not be used: it is damaged, which is handled here, or the system
/// failed, which is not.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Not what was written. For people.
    Damage(String),
    /// Not the file's fault.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Sorts a [`Fault`] out: damage is pushed onto `troubles` and gives `None`.
pub(crate) fn note_damage<T>(
    result: Result<T, Fault>,
    troubles: &mut Vec<String>,
) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Fault::Store(error)) => Err(error),
        Err(Fault::Damage(why)) => {
            troubles.push(why);
            Ok(None)
        }
    }
}
