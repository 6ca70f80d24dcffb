//! `relight pause`, `resume`, `ack`, `approve`, `reject` and `reset`: commands that are left in the state folder for the daemon.
//!
//! No port and no token: who may write to the state folder may steer what acts on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use relight_core::incident::{Action, ActionState, Hold, LedgerState};
use relight_core::text;
use relight_engine::control::FLEET_LIMIT;
use relight_runtime::{Clock as _, SystemClock};
use relight_store::{Spool, StateDir};

use crate::check;
use crate::cli::StateArgs;
use crate::failure::Failure;
use crate::incidents::is_open;
use crate::output::visible;
use crate::words::REASON_SHOWN;
use crate::{output, words};

/// Names that are listed where one was not known.
const MAX_LISTED: usize = 10;
/// A daemon looks every 200 ms; one that is busy with a large turn may take a little.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn pause(reason: &str, at: &StateArgs) -> Result<(), Failure> {
    obeyed("pause", reason, at)?;
    output::print("paused: nothing is changed until `relight resume`; people are still told\n")
}

pub(crate) fn resume(at: &StateArgs) -> Result<(), Failure> {
    let waiting = |at: &StateArgs| -> Result<Vec<(String, Hold)>, Failure> {
        let holds = look(at)?.holds;
        Ok(holds.into_iter().filter(|(_, hold)| hold.until.is_none()).collect())
    };
    let before = waiting(at)?;
    obeyed("resume", "", at)?;
    let after = waiting(at)?;
    let lifted = before.iter().filter(|(name, _)| after.iter().all(|(other, _)| other != name));
    output::print(&resumed(lifted))
}

/// One line for each hold that is lifted: the pause, what relight held by itself, the fleet limit.
fn resumed<'a>(lifted: impl Iterator<Item = &'a (String, Hold)>) -> String {
    let lines = lifted.map(|(name, hold)| {
        let what = match name.as_str() {
            "paused" => "the pause".to_owned(),
            FLEET_LIMIT => "the fleet limit, which counts from 0".to_owned(),
            name => format!("the hold {}", visible(name, REASON_SHOWN)),
        };
        format!("lifted {what}: {}\n", visible(&hold.why, REASON_SHOWN))
    });
    let lines: String = lines.collect();
    let lines = if lines.is_empty() { "nothing was held until `relight resume`\n".to_owned() } else { lines };
    format!("resumed\n{lines}")
}

/// What is named is looked up first: the daemon would pass over a slip without a word.
pub(crate) fn ack(id: &str, at: &StateArgs) -> Result<(), Failure> {
    let open: Vec<String> = look(at)?.incidents.into_iter().filter(is_open).map(|one| one.id).collect();
    known(id, &open, "open incident")?;
    obeyed("ack", id, at)?;
    let incidents = look(at)?.incidents;
    let incident = incidents.iter().find(|incident| incident.id == id);
    let now = match incident.map(|incident| (incident.resolution, incident.state)) {
        Some((Some(_), _)) => "it is calm or silent, and closed",
        Some((None, _)) => "it goes on, and ends when it is back in its band",
        None => "it is over",
    };
    output::print(&format!("acknowledged: {now}\n"))
}

/// Answers an action that waits for approval.
pub(crate) fn answer(verb: &str, id: &str, at: &StateArgs) -> Result<(), Failure> {
    let waits = |action: &Action| action.state == ActionState::AwaitingApproval;
    let waiting: Vec<String> = look(at)?.actions.into_iter().filter(waits).map(|one| one.id).collect();
    known(id, &waiting, "action that waits for approval")?;
    obeyed(verb, id, at)?;
    let actions = look(at)?.actions;
    let step = actions.iter().find(|action| action.id == id).map(words::step);
    output::print(&format!("{}\n", step.unwrap_or_else(|| "it is over".to_owned())))
}

/// Sets a rule's circuit breaker back.
pub(crate) fn reset(rule: &str, at: &StateArgs) -> Result<(), Failure> {
    let breakers: Vec<String> = look(at)?.breakers.into_iter().map(|(rule, _)| rule).collect();
    known(rule, &breakers, "rule with a circuit breaker that has counted")?;
    obeyed("reset", rule, at)?;
    output::print(&format!("reset: `{rule}` may act again\n"))
}

fn look(at: &StateArgs) -> Result<LedgerState, Failure> {
    StateDir::look(&state_of(at)?).map_err(Failure::from)
}

fn known(name: &str, known: &[String], what: &str) -> Result<(), Failure> {
    if known.iter().any(|one| one == name) {
        return Ok(());
    }
    let (first, more) = known.split_at(known.len().min(MAX_LISTED));
    let have = match (first, more.len()) {
        ([], _) => "there is none".to_owned(),
        (first, 0) => format!("have: {}", first.join(", ")),
        (first, more) => format!("have: {}, and {more} more", first.join(", ")),
    };
    Err(Failure::usage(format_args!("no {what} is named `{name}` ({have})")))
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
        text::path(&state)
    )))
}

pub(crate) fn state_of(at: &StateArgs) -> Result<PathBuf, Failure> {
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
