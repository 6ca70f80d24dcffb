//! What people want of the daemon: commands from its state folder.
//!
//! Obeyed by the engine, in the ledger, and only then removed, so that a crash in between repeats a command and loses none.

use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use relight_runtime::{Live, LiveInput};
use relight_store::{LeftCommand, Spool, StoreError};

use crate::failure::Failure;
use crate::output;

/// Within a second a pause must hold: a look at an empty folder costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the ledger could not take is told again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What was left while nothing ran: obeyed before the first effect leaves.
pub(super) fn at_start(spool: &Spool, live: &mut Live) -> Result<(), Failure> {
    let failed = |error: StoreError| Failure::Run(error.into());
    for command in spool.read().map_err(failed)? {
        let Some((verb, target)) = words(&command) else {
            spool.remove(&command).map_err(failed)?;
            continue;
        };
        if live.steer(verb, target).map_err(|error| Failure::Run(error.into()))? {
            spool.remove(&command).map_err(failed)?;
        }
    }
    Ok(())
}

/// Until the engine is gone.
#[expect(clippy::disallowed_methods, reason = "a folder tells nobody that something was left in it")]
pub(super) fn watch(spool: &Spool, inputs: &Sender<LiveInput>) {
    let mut told = None;
    loop {
        match pass_on(spool, inputs) {
            Ok(Some(true)) => told = None,
            Ok(Some(false)) => std::thread::sleep(AGAIN_AFTER),
            Ok(None) => return,
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    output::notice(&format!("commands cannot be read: {error}"));
                    told = Some(error);
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether all that was left has been obeyed; `None` if there is no engine any more.
fn pass_on(spool: &Spool, inputs: &Sender<LiveInput>) -> Result<Option<bool>, StoreError> {
    for command in spool.read()? {
        let Some((verb, target)) = words(&command) else {
            spool.remove(&command)?;
            continue;
        };
        let (kept, told) = bounded(1);
        if inputs.send(LiveInput::Command { verb, target, kept }).is_err() {
            return Ok(None);
        }
        match told.recv() {
            Ok(true) => spool.remove(&command)?,
            Ok(false) => return Ok(Some(false)),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(true))
}

fn words(command: &LeftCommand) -> Option<(String, String)> {
    match &command.words {
        Ok(words) => Some(words.clone()),
        Err(why) => {
            output::notice(&format!("{} is no command: {why}", command.path.display()));
            None
        }
    }
}
