//! The state folder: made private, locked, and refused before anything in it is touched.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use relight_core::incident::LedgerState;

use crate::disk_baselines::DiskBaselines;
use crate::disk_ledger::{self, DiskLedger};
use crate::error::{StoreError, failed_to};
use crate::sentinel::Sentinel;
use crate::{Baselines, Ledger, ballast, files};

/// Both stores of one folder.
pub type Stores = (Box<dyn Baselines>, Box<dyn Ledger>);

/// The folder that holds both stores.
pub struct StateDir;

impl StateDir {
    /// Opens the stores of a folder, which is made (mode 0700) if it is not there. The lock is held
    /// until both are dropped. Neither is read yet: [`Baselines::load`] and [`Ledger::load`] do that.
    ///
    /// Errors: [`StoreError::Locked`] at once if another process has it, [`StoreError::Future`] if a
    /// newer release wrote it (no file is changed), [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Stores, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed_to("create", path))?;
        tighten(path)?;
        let lock = Arc::new(lock(path)?);
        ballast::let_go(path);
        Sentinel::of_baselines(path).read()?;
        Sentinel::of_ledger(path).read()?;
        disk_ledger::refuse_future(path)?;
        let baselines = DiskBaselines::new(path, Arc::clone(&lock));
        let ledger = DiskLedger::new(path, lock);
        Ok((Box::new(baselines), Box::new(ledger)))
    }

    /// What the ledger of a folder says, read beside the process that holds the folder. Nothing is changed.
    ///
    /// Errors: [`StoreError::Io`] if there is no ledger, [`StoreError::Future`], [`StoreError::Backend`] for a damaged one.
    pub fn look(path: &Path) -> Result<LedgerState, StoreError> {
        disk_ledger::look(path)
    }
}

/// A file that is there while a process runs, and after it was killed.
const RUNNING: &str = "running";

impl StateDir {
    /// A live run begins on an open folder. Whether the one before it was killed: it had taken what no snapshot
    /// holds.
    pub fn begin(path: &Path) -> Result<bool, StoreError> {
        let running = path.join(RUNNING);
        match File::options().write(true).create_new(true).open(&running) {
            Ok(_) => files::sync_parent(&running).map(|()| false),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(e) => Err(failed_to("create", &running)(e)),
        }
    }

    /// Once all is open, and from time to time: keeps room for the next start, which may find the disk full. Whether the disk
    /// has any to spare.
    pub fn keep_room(path: &Path) -> bool {
        ballast::keep(path)
    }

    /// A live run has ended, with all that it took in its last snapshot.
    pub fn end(path: &Path) -> Result<(), StoreError> {
        let running = path.join(RUNNING);
        std::fs::remove_file(&running).map_err(failed_to("remove", &running))?;
        files::sync_parent(&running)
    }
}

/// Makes a folder private to which everybody may write: who may put files there steers what acts on it. A volume of a
/// group's, as Kubernetes mounts one by `fsGroup`, stays as it is.
fn tighten(state: &Path) -> Result<(), StoreError> {
    let mode = std::fs::metadata(state).map_err(failed_to("open", state))?.permissions().mode();
    if mode & 0o002 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(state, Permissions::from_mode(mode & 0o700)).map_err(failed_to(
        "take away everybody's right to write to the state folder (`chmod 700` it, or name a folder within it)",
        state,
    ))
}

fn lock(state: &Path) -> Result<File, StoreError> {
    let path = state.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed_to("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(state.to_owned())),
        Err(TryLockError::Error(e)) => Err(failed_to("lock", &path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a folder that everybody may write to is made private, with its special bits gone; others stay as they are.
    #[test]
    fn a_folder_of_everybody_is_made_private() {
        for (before, after) in
            [(0o777, 0o700), (0o1777, 0o700), (0o707, 0o700), (0o755, 0o755), (0o770, 0o770), (0o700, 0o700)]
        {
            let folder = tempfile::tempdir().expect("a folder");
            let set = std::fs::set_permissions(folder.path(), Permissions::from_mode(before));
            set.expect("ours");
            StateDir::open(folder.path()).expect("it opens");
            let mode = std::fs::metadata(folder.path()).expect("there").permissions().mode();
            assert_eq!(mode & 0o7777, after, "{before:o}");
        }
    }
}
