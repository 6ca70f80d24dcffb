//! Stores that crash: at a given operation, before or after it took effect.

use std::sync::{Arc, Mutex};

use relight_core::KeyGroup;
use relight_core::incident::{LedgerState, LedgerWrite};
use relight_store::{
    Baselines, ImageKind, ImageRef, Ledger, LedgerHealth, Loaded, Manifest, MemoryBaselines, MemoryLedger,
    StoreError,
};

/// A step of the commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStep {
    /// The ledger's transaction.
    Ledger,
    /// One image.
    Image,
    /// The manifest.
    Manifest,
    /// The generation before the last goes.
    Prune,
}

impl CommitStep {
    /// All steps, in their order.
    pub const ALL: [Self; 4] = [Self::Ledger, Self::Image, Self::Manifest, Self::Prune];
}

/// Where the crash will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// At which step.
    pub step: CommitStep,
    /// So many such steps go through before.
    pub spared: u64,
    /// After the step took effect, or before.
    pub after: bool,
}

/// Burns down to a crash; shared by both stores of an engine.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<Mutex<Option<Crash>>>);

/// Whether an operation goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    LostBefore,
    LostAfter,
}

impl Fuse {
    /// Lights it, unless it burns already.
    pub fn light(&self, crash: Crash) {
        self.0.lock().expect("no holder panics").get_or_insert(crash);
    }

    /// Puts it out.
    pub fn douse(&self) {
        *self.0.lock().expect("no holder panics") = None;
    }

    fn burn(&self, step: CommitStep) -> Fate {
        let mut fuse = self.0.lock().expect("no holder panics");
        match &mut *fuse {
            Some(crash) if crash.step == step && crash.spared > 0 => {
                crash.spared -= 1;
                Fate::Done
            }
            Some(crash) if crash.step == step && crash.after => Fate::LostAfter,
            Some(crash) if crash.step == step => Fate::LostBefore,
            _ => Fate::Done,
        }
    }
}

fn crash() -> StoreError {
    StoreError::Backend { doing: "go on", why: "the simulated process was killed".to_owned() }
}

fn through<T>(
    fuse: &Fuse,
    step: CommitStep,
    operation: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match fuse.burn(step) {
        Fate::LostBefore => Err(crash()),
        Fate::Done => operation(),
        Fate::LostAfter => {
            operation()?;
            Err(crash())
        }
    }
}

/// Baselines on a fuse.
pub struct FaultyBaselines {
    /// What survives.
    pub inner: MemoryBaselines,
    /// When it ends.
    pub fuse: Fuse,
}

impl Baselines for FaultyBaselines {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn put_image(
        &mut self,
        generation: u64,
        kind: ImageKind,
        group: KeyGroup,
        payload: &[u8],
    ) -> Result<ImageRef, StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, CommitStep::Image, || inner.put_image(generation, kind, group, payload))
    }

    fn commit(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, CommitStep::Manifest, || inner.commit(manifest))
    }

    fn prune(&mut self, keep_from: u64) -> Result<(), StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, CommitStep::Prune, || inner.prune(keep_from))
    }

    fn reject(&mut self, generation: u64, why: &str) -> Result<Loaded, StoreError> {
        self.inner.reject(generation, why)
    }

    fn get_fact(&self, key: &str) -> Option<Vec<u8>> {
        self.inner.get_fact(key)
    }

    fn put_fact(&mut self, key: &str, value: &[u8]) {
        self.inner.put_fact(key, value);
    }
}

/// A ledger on a fuse.
pub struct FaultyLedger {
    /// What survives.
    pub inner: MemoryLedger,
    /// When it ends.
    pub fuse: Fuse,
}

impl Ledger for FaultyLedger {
    fn load(&mut self) -> Result<(LedgerState, LedgerHealth), StoreError> {
        self.inner.load()
    }

    fn commit(&mut self, writes: &[LedgerWrite]) -> Result<(), StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, CommitStep::Ledger, || inner.commit(writes))
    }

    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        self.inner.quarantine(why)
    }
}
