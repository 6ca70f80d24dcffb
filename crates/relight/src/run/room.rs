//! Room in the state folder for a start on a full disk, kept as soon as the disk has it to spare.

use std::path::PathBuf;
use std::time::Duration;

use relight_store::StateDir;

/// A look costs one `stat` while there is room.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps it for as long as the process runs.
pub(super) async fn keep(state: PathBuf) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let state = state.clone();
        // Where there is none to spare, that was said at the start.
        let _ = tokio::task::spawn_blocking(move || StateDir::keep_room(&state)).await;
    }
}
