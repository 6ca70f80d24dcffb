//! A small sealed file that says what must be there, so that an emptied store is never a first boot.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use relight_core::codec::{Codec, Corrupt, Reader, open, seal};

use crate::SCHEMA_VERSION;
use crate::error::{StoreError, failed_to};
use crate::files;

/// What a sentinel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    /// There is none: a first boot, if nothing else is there.
    Absent,
    /// There is one, and it is damaged: something was here, and what cannot be told.
    Damaged,
    /// At least this much was committed.
    Says(u64),
}

/// One sentinel file.
#[derive(Debug, Clone)]
pub(crate) struct Sentinel {
    path: PathBuf,
    kind: [u8; 4],
}

impl Sentinel {
    /// The one of the baselines: the newest generation.
    pub(crate) fn of_baselines(state: &Path) -> Self {
        Self { path: state.join("baselines.sentinel"), kind: *b"BSEN" }
    }

    /// The one of the ledger: how many transactions it has committed.
    pub(crate) fn of_ledger(state: &Path) -> Self {
        Self { path: state.join("ledger.sentinel"), kind: *b"LSEN" }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. The only error beside I/O is a newer release's.
    pub(crate) fn read(&self) -> Result<Witness, StoreError> {
        let Some(bytes) = files::read(&self.path)? else {
            return Ok(Witness::Absent);
        };
        match open(self.kind, SCHEMA_VERSION, &bytes) {
            Ok((_, payload)) => {
                Ok(u64::decode(&mut Reader::new(payload)).map_or(Witness::Damaged, Witness::Says))
            }
            Err(Corrupt::Future { found, known }) => {
                let path = self.path.clone();
                Err(StoreError::Future { path, found: found.into(), known: known.into() })
            }
            Err(_) => Ok(Witness::Damaged),
        }
    }

    /// Replaces it, durably.
    pub(crate) fn write(&self, value: u64) -> Result<(), StoreError> {
        files::write_durably(&self.path, &self.sealed(value))
    }

    /// Opens it for [`Sentinel::note`].
    pub(crate) fn open(&self) -> Result<File, StoreError> {
        File::options().write(true).open(&self.path).map_err(failed_to("open", &self.path))
    }

    /// Overwrites it in place without fsync: one small write inside one sector. A power cut may
    /// leave an older value, which vouches for less and is still true.
    pub(crate) fn note(&self, file: &File, value: u64) -> Result<(), StoreError> {
        file.write_all_at(&self.sealed(value), 0).map_err(failed_to("write", &self.path))
    }

    fn sealed(&self, value: u64) -> Vec<u8> {
        seal(self.kind, SCHEMA_VERSION, &value.to_le_bytes())
    }
}
