//! In-memory twins of both stores, for replay without a state folder and for simulations.
//!
//! A handle is cheap to clone and shares what was committed with its clones: drop the one that an
//! engine holds, [`load`](Baselines::load) another, and the engine has crashed. What was put but not
//! committed is lost with the handle, as on disk. Damage happens only on request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relight_core::KeyGroup;
use relight_core::incident::{LedgerState, LedgerWrite, RecordedAdvance};

use crate::baselines::{Baselines, ImageKind, ImageRef, Loaded, Manifest, Snapshot};
use crate::disk_baselines::check_images;
use crate::error::StoreError;
use crate::ledger::{Ledger, LedgerHealth};

/// [`Baselines`] in memory.
#[derive(Default)]
pub struct MemoryBaselines {
    kept: Arc<Mutex<Kept>>,
    draft: Option<Draft>,
    staged_facts: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct Kept {
    snapshots: BTreeMap<u64, Snapshot>,
    damaged: BTreeSet<u64>,
    facts: BTreeMap<String, Vec<u8>>,
    quarantined: u32,
}

struct Draft {
    generation: u64,
    refs: BTreeMap<(ImageKind, KeyGroup), ImageRef>,
    payloads: BTreeMap<(ImageKind, KeyGroup), Vec<u8>>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update under the lock is complete or not begun, so a panic elsewhere spoils nothing.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clone for MemoryBaselines {
    /// Another handle on what was committed; what this one has put since stays with it.
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept), draft: None, staged_facts: BTreeMap::new() }
    }
}

impl MemoryBaselines {
    /// Damages a generation: the next load falls back to the one before.
    pub fn damage(&self, generation: u64) {
        lock(&self.kept).damaged.insert(generation);
    }

    /// The newest generation, if there is one.
    pub fn newest(&self) -> Option<u64> {
        lock(&self.kept).snapshots.keys().next_back().copied()
    }

    fn check_order(&self, generation: u64) -> Result<(), StoreError> {
        let newest = self.newest().unwrap_or(0);
        if generation > newest {
            return Ok(());
        }
        Err(StoreError::Order(format!("generation {generation} does not follow {newest}")))
    }
}

impl Kept {
    fn quarantine(&mut self) -> PathBuf {
        self.quarantined += 1;
        PathBuf::from(format!("quarantine-{}", self.quarantined))
    }

    fn load(&mut self) -> Loaded {
        let damaged: Vec<u64> =
            self.snapshots.keys().rev().copied().take_while(|g| self.damaged.contains(g)).collect();
        for generation in &damaged {
            self.snapshots.remove(generation);
            self.damaged.remove(generation);
        }
        let why = damaged.iter().map(|g| format!("generation {g} is damaged")).collect::<Vec<_>>().join("; ");
        match self.snapshots.values().next_back().cloned() {
            Some(snapshot) if why.is_empty() => Loaded::Whole(snapshot),
            None if why.is_empty() => Loaded::Cold,
            Some(snapshot) => Loaded::FellBack { snapshot, why },
            None => {
                self.facts.clear();
                Loaded::Quarantined { to: self.quarantine(), why }
            }
        }
    }
}

impl Baselines for MemoryBaselines {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.draft = None;
        self.staged_facts.clear();
        Ok(lock(&self.kept).load())
    }

    fn put_image(
        &mut self,
        generation: u64,
        kind: ImageKind,
        group: KeyGroup,
        payload: &[u8],
    ) -> Result<ImageRef, StoreError> {
        self.check_order(generation)?;
        let image =
            ImageRef { kind, group, bytes: payload.len() as u64, crc: crc32c::crc32c(payload), generation };
        if self.draft.as_ref().is_none_or(|draft| draft.generation != generation) {
            self.draft = Some(Draft { generation, refs: BTreeMap::new(), payloads: BTreeMap::new() });
        }
        let draft = self.draft.as_mut().expect("just made");
        draft.refs.insert((kind, group), image.clone());
        draft.payloads.insert((kind, group), payload.to_vec());
        Ok(image)
    }

    fn commit(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        self.check_order(manifest.generation)?;
        let put = self.draft.as_ref().filter(|d| d.generation == manifest.generation).map(|d| &d.refs);
        check_images(manifest, put.unwrap_or(&BTreeMap::new()))?;
        let mut payloads = self.draft.take().map(|draft| draft.payloads).unwrap_or_default();
        let image = |image: &ImageRef| {
            let payload = payloads.remove(&(image.kind, image.group)).unwrap_or_default();
            (image.kind, image.group, payload)
        };
        let images = manifest.images.iter().map(image).collect();
        let mut kept = lock(&self.kept);
        kept.snapshots.insert(manifest.generation, Snapshot { manifest: manifest.clone(), images });
        kept.facts.append(&mut self.staged_facts);
        Ok(())
    }

    fn prune(&mut self, keep_from: u64) -> Result<(), StoreError> {
        let keep_from = keep_from.min(self.newest().unwrap_or(0));
        lock(&self.kept).snapshots.retain(|generation, _| *generation >= keep_from);
        Ok(())
    }

    fn reject(&mut self, generation: u64, why: &str) -> Result<Loaded, StoreError> {
        if !lock(&self.kept).snapshots.contains_key(&generation) {
            return Err(StoreError::Order(format!("there is no generation {generation} to reject")));
        }
        self.damage(generation);
        let rejected = format!("generation {generation} cannot be used: {why}");
        Ok(match self.load()? {
            Loaded::FellBack { snapshot, .. } => Loaded::FellBack { snapshot, why: rejected },
            Loaded::Quarantined { to, .. } => Loaded::Quarantined { to, why: rejected },
            loaded => loaded,
        })
    }

    fn get_fact(&self, key: &str) -> Option<Vec<u8>> {
        self.staged_facts.get(key).cloned().or_else(|| lock(&self.kept).facts.get(key).cloned())
    }

    fn put_fact(&mut self, key: &str, value: &[u8]) {
        self.staged_facts.insert(key.to_owned(), value.to_vec());
    }
}

/// A [`Ledger`] in memory. Audit lines are dropped.
#[derive(Clone, Default)]
pub struct MemoryLedger {
    kept: Arc<Mutex<KeptLedger>>,
}

#[derive(Default)]
struct KeptLedger {
    state: LedgerState,
    exists: bool,
    quarantined: u32,
}

impl Ledger for MemoryLedger {
    fn load(&mut self) -> Result<(LedgerState, LedgerHealth), StoreError> {
        let mut kept = lock(&self.kept);
        let health = if kept.exists { LedgerHealth::Whole } else { LedgerHealth::New };
        kept.exists = true;
        Ok((kept.state.clone(), health))
    }

    fn commit(&mut self, writes: &[LedgerWrite]) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        for write in writes {
            apply(&mut kept.state, write);
        }
        Ok(())
    }

    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        let mut kept = lock(&self.kept);
        kept.state = LedgerState::default();
        kept.quarantined += 1;
        let to = PathBuf::from(format!("quarantine-{}", kept.quarantined));
        Ok(LedgerHealth::Quarantined { to, why: why.to_owned() })
    }
}

fn apply(state: &mut LedgerState, write: &LedgerWrite) {
    match write {
        LedgerWrite::Incident(new) => upsert(&mut state.incidents, (**new).clone(), |i| &i.id),
        LedgerWrite::ForgetIncident(id) => state.incidents.retain(|incident| incident.id != *id),
        LedgerWrite::Action(new) => upsert(&mut state.actions, (**new).clone(), |a| &a.id),
        LedgerWrite::Cooldown(lock, until) => upsert(&mut state.cooldowns, (lock.clone(), *until), |c| &c.0),
        LedgerWrite::Change(event) => {
            let at = state.changes.partition_point(|known| known.at <= event.at);
            state.changes.insert(at, event.clone());
        }
        LedgerWrite::ForgetChanges(before) => state.changes.retain(|event| event.at >= *before),
        LedgerWrite::Breaker(rule, count) => upsert(&mut state.breakers, (rule.clone(), *count), |b| &b.0),
        LedgerWrite::Advance(new) => {
            let place = |advance: &RecordedAdvance| (advance.partition.clone(), advance.before_offset);
            match state.advances.binary_search_by_key(&place(new), place) {
                Ok(at) => state.advances[at] = new.clone(),
                Err(at) => state.advances.insert(at, new.clone()),
            }
        }
        LedgerWrite::ForgetAdvances { partition, before_offset } => {
            state.advances.retain(|a| a.partition != *partition || a.before_offset >= *before_offset);
        }
        LedgerWrite::Hold(name, Some(hold)) => {
            upsert(&mut state.holds, (name.clone(), hold.clone()), |h| &h.0);
        }
        LedgerWrite::Hold(name, None) => state.holds.retain(|(known, _)| known != name),
        LedgerWrite::Audit { .. } => {}
        LedgerWrite::Applied(applied) => state.applied_through = Some(*applied),
    }
}

/// Inserts or replaces in a list that is sorted by `key`.
fn upsert<T>(list: &mut Vec<T>, new: T, key: impl Fn(&T) -> &String) {
    match list.binary_search_by(|known| key(known).cmp(key(&new))) {
        Ok(at) => list[at] = new,
        Err(at) => list.insert(at, new),
    }
}
