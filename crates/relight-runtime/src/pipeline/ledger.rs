//! Commits, and what goes on while the ledger cannot be written: the disk is full, read-only, or held by somebody.
//!
//! Turns go on, and what they wrote waits in memory. What tells somebody goes out all the same, under its derived key;
//! what changes the world does not, and the rungs behind it are climbed at once. A replay has nothing that is worth
//! going on for, and ends.

use std::collections::BTreeSet;

use relight_core::incident::{Action, LedgerWrite};
use relight_core::responder::NotSent;
use relight_core::{Span, Timestamp};
use relight_engine::control::{Answer, ControlInput, Effect};
use relight_store::StoreError;

use super::Pipeline;
use crate::error::RuntimeError;

const FIRST_PAUSE: Span = Span::from_secs(1);
/// A disk that has room again is noticed within this.
const LONGEST_PAUSE: Span = Span::from_secs(30);
/// What is held for the ledger is held for this long after each try that failed, and until one that does not.
const HELD_FOR: Span = Span::from_secs(120);
/// Writes that wait are looked through for those that later ones replace, each time they have grown by this.
const SWEEP: usize = 4_096;

/// Writes of a replay are looked through each time that they have doubled, from so many on.
const FEW_WRITES: usize = 256;
/// More writes than this are committed before the next snapshot. As many incidents of a few KiB take as much memory as a
/// million points.
const MOST_WRITES: usize = 16 * SWEEP;

/// How the ledger has done so far.
#[derive(Debug, Default)]
pub(super) struct Commits {
    done: u64,
    refused: u64,
    failing: Option<Failing>,
    /// It has failed, and Control has not been told yet that this is over.
    to_be_told: bool,
    /// So many writes waited after the last sweep.
    swept: usize,
}

#[derive(Debug)]
struct Failing {
    why: String,
    tries: u32,
    again: Timestamp,
}

impl Pipeline {
    /// Commits what the turns so far have written.
    pub fn commit(&mut self) -> Result<(), RuntimeError> {
        self.ledger.commit(&self.writes)?;
        self.writes.clear();
        self.commits.done += 1;
        self.commits.swept = 0;
        self.commits.failing = None;
        Ok(())
    }

    /// Why the ledger cannot be written at present.
    pub fn ledger_fault(&self) -> Option<&str> {
        self.commits.failing.as_ref().map(|failing| failing.why.as_str())
    }

    /// Writes that wait to be committed.
    pub const fn writes_waiting(&self) -> usize {
        self.writes.len()
    }

    /// Commits so far, and those that the ledger refused.
    pub const fn commits(&self) -> (u64, u64) {
        (self.commits.done, self.commits.refused)
    }

    /// Asks whether the ledger's file is still there. If not, that counts as a commit that was refused, though no turn has
    /// anything to write.
    pub fn check_ledger(&mut self) -> Result<(), RuntimeError> {
        if self.commits.failing.is_some() || self.now.is_none() {
            return Ok(());
        }
        self.ledger.check().map_err(RuntimeError::Store).or_else(|error| self.commit_failed(error))
    }

    /// Tries a ledger again that could not be written, if it is time, and ends what is held for it. `true` once that is
    /// over.
    pub fn retry_ledger(&mut self, now: Timestamp) -> Result<bool, RuntimeError> {
        // Any commit may be the one that ends it, this one or that of a turn.
        if !self.commits.to_be_told || self.commits.failing.is_some() && !self.commit_if_due()? {
            return Ok(false);
        }
        self.commits.to_be_told = false;
        let why = "the ledger can be written again".to_owned();
        self.control(ControlInput::Hold { name: HOLD.to_owned(), until: Some(now), why }, now)?;
        Ok(true)
    }

    /// Commits, unless that has failed and it is not time to try again. Whether all is in the ledger.
    pub fn commit_if_due(&mut self) -> Result<bool, RuntimeError> {
        let now = self.now.unwrap_or(Timestamp::MAX);
        if self.commits.failing.as_ref().is_some_and(|failing| now < failing.again) {
            self.sweep();
            return Ok(false);
        }
        match self.commit() {
            Ok(()) => Ok(true),
            Err(error) => self.commit_failed(error).map(|()| false),
        }
    }

    /// Takes note of a commit that failed, unless that ends the run.
    fn commit_failed(&mut self, error: RuntimeError) -> Result<(), RuntimeError> {
        let (why, now) = match (error, self.now) {
            (RuntimeError::Store(StoreError::Unwritable { why, .. }), Some(now)) => (why, now),
            (error, _) => return Err(error),
        };
        let tries = self.commits.failing.as_ref().map_or(0, |failing| failing.tries).saturating_add(1);
        self.commits.failing = Some(Failing { why, tries, again: now.plus(pause_after(tries)) });
        self.commits.refused += 1;
        self.commits.to_be_told = true;
        Ok(())
    }

    /// Takes out of a turn's effects what must not leave before the ledger has it, and gives what Control is told
    /// instead: that there is a reason to change nothing, then that none of it was sent.
    pub(super) fn withhold(&self, effects: &mut Vec<Effect>, now: Timestamp) -> Vec<ControlInput> {
        let mut inputs = Vec::new();
        for effect in std::mem::take(effects) {
            match effect {
                // Its gates are read again, and the hold is among them.
                Effect::Start { action, .. } if action.mutates => {
                    inputs.push(ControlInput::Ready { action: action.id, plan: None });
                }
                Effect::Send { action, .. } if action.mutates => {
                    inputs.push(not_sent(&action, now));
                    effects.push(Effect::Withdraw { action: action.id });
                }
                effect => effects.push(effect),
            }
        }
        let held = self.control.holds().any(|(name, hold)| {
            name == HOLD && hold.until.is_some_and(|until| until > now.plus(LONGEST_PAUSE))
        });
        if !held {
            let why = format!("the ledger cannot be written: {}", self.ledger_fault().unwrap_or_default());
            let until = Some(now.plus(HELD_FOR));
            inputs.insert(0, ControlInput::Hold { name: HOLD.to_owned(), until, why });
        }
        inputs
    }

    /// Keeps what waits for the next snapshot's commit bounded: an incident is written anew in each of its turns, and may last
    /// for weeks. What no later write replaces is committed when there is too much of it.
    pub(super) fn bound_writes(&mut self) -> Result<(), RuntimeError> {
        if self.writes.len() >= 2 * self.commits.swept.max(FEW_WRITES) {
            self.drop_replaced();
        }
        if self.writes.len() >= MOST_WRITES { self.commit() } else { Ok(()) }
    }

    /// Drops writes that a later one replaces.
    fn sweep(&mut self) {
        if self.writes.len() >= self.commits.swept + SWEEP {
            self.drop_replaced();
        }
    }

    fn drop_replaced(&mut self) {
        let mut seen = BTreeSet::new();
        let newest_first = std::mem::take(&mut self.writes).into_iter().rev();
        self.writes =
            newest_first.filter(|write| place(write).is_none_or(|place| seen.insert(place))).collect();
        self.writes.reverse();
        self.commits.swept = self.writes.len();
    }
}

/// The hold of a ledger that cannot be written.
const HOLD: &str = "ledger";

fn not_sent(action: &Action, now: Timestamp) -> ControlInput {
    let detail = "the ledger could not be written, so it was not sent".to_owned();
    let answer = Answer::Unreached(NotSent::Ledger);
    ControlInput::Outcome { at: now, action: action.id.clone(), answer, detail }
}

fn pause_after(tries: u32) -> Span {
    let doubled = FIRST_PAUSE.ns() << tries.saturating_sub(1).min(5);
    Span::from_ns(doubled.min(LONGEST_PAUSE.ns()))
}

/// What a write replaces when it comes again; `None` for what only adds.
fn place(write: &LedgerWrite) -> Option<(u8, String)> {
    Some(match write {
        LedgerWrite::Incident(incident) => (0, incident.id.clone()),
        LedgerWrite::ForgetIncident(id) => (0, id.clone()),
        LedgerWrite::Action(action) => (1, action.id.clone()),
        LedgerWrite::Cooldown(lock, _) => (2, lock.clone()),
        LedgerWrite::Breaker(rule, _) => (3, rule.clone()),
        LedgerWrite::Hold(name, _) => (4, name.clone()),
        LedgerWrite::Applied(_) => (5, String::new()),
        LedgerWrite::Advance(advance) => (6, format!("{}\n{}", advance.partition, advance.before_offset)),
        LedgerWrite::Change(_)
        | LedgerWrite::ForgetChanges(_)
        | LedgerWrite::ForgetAdvances { .. }
        | LedgerWrite::Audit { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the pauses double, and none is longer than half a minute.
    #[test]
    fn a_full_disk_is_asked_again_soon() {
        let pauses: Vec<i64> = (1..9).map(|tries| pause_after(tries).ns() / 1_000_000_000).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
