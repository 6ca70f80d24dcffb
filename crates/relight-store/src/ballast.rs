//! Room that is kept for a full disk: a file that holds nothing and is let go of at each start, so that the state can be opened.
//!
//! While a run goes on nothing depends on it: a ledger that cannot be written is minded by the driver. It is made as soon as
//! the disk has plenty of room, also during a run. Where the file system cannot keep room, there is none.

use std::fs;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::files;

const FILE: &str = "ballast";
/// Copies of sled's files and of a full ledger's newest pages fit in it.
const BYTES: u64 = 8 << 20;
/// Only a disk that has more than this has room to be kept.
const PLENTY: u64 = 8 * BYTES;

/// Gives the room back, before anything is opened. There may be none.
pub(crate) fn let_go(state: &Path) {
    let _ = fs::remove_file(state.join(FILE));
}

/// Keeps room for the next start, unless it is kept already. Whether there was enough to keep any.
pub(crate) fn keep(state: &Path) -> bool {
    if fs::metadata(state.join(FILE)).is_ok_and(|file| file.len() == BYTES) {
        return true;
    }
    let Ok(disk) = statvfs(state) else { return true };
    if disk.f_bavail.saturating_mul(disk.f_frsize) < PLENTY {
        return false;
    }
    let path = state.join(FILE);
    let kept = files::create_temporary(&path)
        .and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, BYTES)?));
    if kept.is_err() {
        let _ = fs::remove_file(path);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what is kept takes room, and letting go of it gives the room back, however often.
    #[test]
    fn room_is_kept_and_given_back() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let_go(state.path());
        for _ in 0..2 {
            assert!(keep(state.path()), "the machine's own disk is full");
            assert_eq!(fs::metadata(state.path().join(FILE)).map(|file| file.len()).ok(), Some(BYTES));
            let_go(state.path());
            assert!(!state.path().join(FILE).exists());
        }
        assert!(keep(state.path()) && keep(state.path()), "what is kept stays");
        assert!(keep(Path::new("/nowhere")), "of a disk that says nothing nothing is said");
    }
}
