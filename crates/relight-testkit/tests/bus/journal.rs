//! What a test sees of a daemon: what is in its ledger, what its responders were sent, and what it tells people.
//!
//! Nothing is decided here but when a commit fails or is the last of a life.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relight_core::incident::{Action, ActionState, Incident, LedgerState, LedgerWrite};
use relight_core::telemetry::Board;
use relight_store::{Ledger, LedgerHealth, StoreError};

/// A look at the journal, and how often one looks before a test gives up: a minute at the least.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS: u32 = 30_000;

/// One call of a responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) with: String,
    pub(crate) key: String,
    pub(crate) number: u32,
    /// Whether the ledger had this very attempt, with its plan, when it was made.
    pub(crate) in_ledger: bool,
    pub(crate) body: String,
}

/// What a ledger is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fate {
    #[default]
    Commit,
    /// The disk is full.
    Full,
    /// It failed for good.
    Broken,
    /// The disk is full when this is to be written.
    FullAt(&'static str),
    /// The process dies once this has been written.
    DieAfter(&'static str),
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) writes: Vec<LedgerWrite>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) notices: Vec<String>,
    /// Whether calls that were held may end.
    pub(crate) is_released: bool,
    fate: Fate,
}

/// What everybody has seen so far.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<(Mutex<Kept>, Condvar)>);

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.1.notify_all();
        changed
    }

    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn(&Kept) -> Option<T>) -> T {
        let mut looks = 0;
        let mut kept = self.lock();
        loop {
            if let Some(found) = look(&kept) {
                return found;
            }
            assert!(looks < LOOKS, "{what} did not come: {:#?}\n{:#?}", kept.sent, latest(&kept.writes).0);
            let (held, over) = self.0.1.wait_timeout(kept, LOOK).unwrap_or_else(PoisonError::into_inner);
            looks += u32::from(over.timed_out());
            kept = held;
        }
    }

    pub(crate) fn fate(&self, fate: Fate) {
        self.change(|kept| kept.fate = fate);
    }

    /// A look at the journal, and a breath for who writes in it.
    pub(crate) fn pause(&self) {
        drop(self.0.1.wait_timeout(self.lock(), Duration::from_millis(5)));
    }

    /// Calls so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    pub(crate) fn wait_sent(&self, count: usize) -> Vec<Sent> {
        self.wait(&format!("call {count}"), |kept| (kept.sent.len() >= count).then(|| kept.sent.clone()))
    }

    pub(crate) fn wait_calls(&self, with: &str, count: usize) -> Vec<Sent> {
        self.wait(&format!("call {count} of {with}"), |kept| {
            let calls: Vec<Sent> = kept.sent.iter().filter(|sent| sent.with == with).cloned().collect();
            (calls.len() >= count).then_some(calls)
        })
    }

    /// Waits for an action in the ledger.
    pub(crate) fn wait_action(&self, what: &str, is_it: impl Fn(&Action) -> bool) -> Action {
        self.wait(what, |kept| latest(&kept.writes).0.into_values().find(|action| is_it(action)))
    }

    /// Waits for an incident in the ledger.
    pub(crate) fn wait_incident(&self, what: &str, is_it: impl Fn(&Incident) -> bool) -> Incident {
        self.wait(what, |kept| latest(&kept.writes).1.into_values().find(|incident| is_it(incident)))
    }

    /// Ends the calls that are held.
    pub(crate) fn release(&self) {
        self.change(|kept| kept.is_released = true);
    }

    pub(crate) fn wait_release(&self) {
        self.wait("the release", |kept| kept.is_released.then_some(()));
    }

    pub(crate) fn wait_notice(&self, part: &str) -> String {
        self.wait(part, |kept| kept.notices.iter().find(|notice| notice.contains(part)).cloned())
    }

    /// Waits until the ledger has so many actions.
    pub(crate) fn wait_actions(&self, count: usize) {
        self.wait("the intents", |kept| (latest(&kept.writes).0.len() >= count).then_some(()));
    }

    /// Actions that succeeded.
    pub(crate) fn delivered(&self) -> usize {
        latest(&self.lock().writes).0.values().filter(|action| action.state == ActionState::Succeeded).count()
    }

    /// Actions that the ledger has.
    pub(crate) fn actions(&self) -> usize {
        latest(&self.lock().writes).0.len()
    }

    /// Waits until the engine has gone round.
    pub(crate) fn wait_round(&self, board: &Board, beats: u64) {
        self.wait("the engine's next round", |_| (board.beats() > beats).then_some(()));
    }
}

/// An action as it was written last.
pub(crate) fn newest<'a>(writes: &'a [LedgerWrite], id: &str) -> Option<&'a Action> {
    writes.iter().rev().find_map(|write| match write {
        LedgerWrite::Action(action) if action.id == id => Some(&**action),
        _ => None,
    })
}

pub(crate) fn latest(writes: &[LedgerWrite]) -> (BTreeMap<String, Action>, BTreeMap<String, Incident>) {
    let (mut actions, mut incidents) = (BTreeMap::new(), BTreeMap::new());
    for write in writes {
        match write {
            LedgerWrite::Action(action) => drop(actions.insert(action.id.clone(), (**action).clone())),
            LedgerWrite::Incident(incident) => {
                drop(incidents.insert(incident.id.clone(), (**incident).clone()));
            }
            _ => {}
        }
    }
    (actions, incidents)
}

/// The ledger on disk, watched.
pub(crate) struct Watched {
    pub(crate) inner: Box<dyn Ledger>,
    pub(crate) journal: Journal,
}

impl Ledger for Watched {
    fn load(&mut self) -> Result<(LedgerState, LedgerHealth), StoreError> {
        self.inner.load()
    }

    fn commit(&mut self, writes: &[LedgerWrite]) -> Result<(), StoreError> {
        let fate = self.journal.lock().fate;
        let has = |word: &str| {
            writes.iter().any(|write| matches!(write, LedgerWrite::Audit { what, .. } if what == word))
        };
        let doing = "commit to the ledger";
        if let Fate::FullAt(word) = fate
            && has(word)
        {
            self.journal.fate(Fate::Full);
        }
        match self.journal.lock().fate {
            Fate::Full => {
                return Err(StoreError::Unwritable { doing, why: "database or disk is full".to_owned() });
            }
            Fate::Broken => {
                let why = "the disk answers with an error to fsync".to_owned();
                return Err(StoreError::Backend { doing, why });
            }
            Fate::Commit | Fate::FullAt(_) | Fate::DieAfter(_) => {}
        }
        self.inner.commit(writes)?;
        self.journal.change(|kept| kept.writes.extend(writes.iter().cloned()));
        if matches!(fate, Fate::DieAfter(word) if has(word)) {
            // Not `panic!`: nothing is wrong.
            std::panic::resume_unwind(Box::new("the process dies here"));
        }
        Ok(())
    }

    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        self.inner.quarantine(why)
    }
}
