//! `relight pause` and `relight resume`: commands that are left in the state folder for the daemon.
//!
//! No port and no token: who may write to the state folder may steer what acts on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use relight_runtime::{Clock as _, SystemClock};
use relight_store::Spool;

use crate::check;
use crate::cli::StateArgs;
use crate::failure::Failure;
use crate::output;

/// A daemon looks every 200 ms; one that is busy with a large turn may take a little.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn pause(reason: &str, at: &StateArgs) -> Result<(), Failure> {
    obeyed("pause", reason, at)?;
    output::print("paused: nothing is changed until `relight resume`; people are still told\n")
}

pub(crate) fn resume(at: &StateArgs) -> Result<(), Failure> {
    obeyed("resume", "", at)?;
    output::print("resumed: what waited for a human is lifted\n")
}

fn obeyed(verb: &str, target: &str, at: &StateArgs) -> Result<(), Failure> {
    let state = state_of(at)?;
    let failed = |error: relight_store::StoreError| Failure::Run(error.into());
    let order = SystemClock::default().wall().ns().unsigned_abs();
    let left = Spool::of(&state).map_err(failed)?.leave(verb, target, order).map_err(failed)?;
    if is_taken(&left) {
        return Ok(());
    }
    let seconds = TAKEN_WITHIN.as_secs();
    Err(Failure::Run(anyhow!(
        "no relight has taken it from {} within {seconds} s: it stays there, and the next one that starts obeys it first",
        state.display()
    )))
}

fn state_of(at: &StateArgs) -> Result<PathBuf, Failure> {
    match (&at.state, &at.config) {
        (Some(state), _) => Ok(state.clone()),
        (None, Some(config)) => Ok(check::read(config)?.daemon.state),
        (None, None) => Ok(check::without_file(false)?.daemon.state),
    }
}

/// The daemon removes what it has obeyed.
#[expect(clippy::disallowed_methods, reason = "how long a person waits is told by a clock")]
fn is_taken(left: &Path) -> bool {
    let began = Instant::now();
    while left.exists() {
        if began.elapsed() > TAKEN_WITHIN {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
