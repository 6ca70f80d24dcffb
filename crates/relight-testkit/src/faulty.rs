//! Stores that crash: at a given operation, before or after it took effect.

use std::sync::{Arc, Mutex};

use relight_core::KeyGroup;
use relight_core::incident::{LedgerState, LedgerWrite};
use relight_store::{
    Baselines, ImageKind, ImageRef, Ledger, LedgerHealth, Loaded, Manifest, MemoryBaselines, MemoryLedger,
    StoreError,
};

/// How many operations are left before the crash; shared by both stores of an engine.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<Mutex<Option<u64>>>);

/// Whether an operation goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    LostBefore,
    LostAfter,
}

impl Fuse {
    /// Burns down after `operations` store operations; even numbers crash before the operation took
    /// effect, odd ones after it.
    pub fn light(&self, operations: u64) {
        *self.0.lock().expect("no holder panics") = Some(operations);
    }

    /// Puts it out.
    pub fn douse(&self) {
        *self.0.lock().expect("no holder panics") = None;
    }

    fn burn(&self) -> Fate {
        let mut left = self.0.lock().expect("no holder panics");
        match *left {
            None => Fate::Done,
            Some(0) => Fate::LostBefore,
            Some(1) => {
                *left = Some(0);
                Fate::LostAfter
            }
            Some(n) => {
                *left = Some(n - 2);
                Fate::Done
            }
        }
    }
}

fn crash() -> StoreError {
    StoreError::Backend { doing: "go on", why: "the simulated process was killed".to_owned() }
}

fn through<T>(fuse: &Fuse, operation: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    match fuse.burn() {
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
        through(fuse, || inner.put_image(generation, kind, group, payload))
    }

    fn commit(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, || inner.commit(manifest))
    }

    fn prune(&mut self, keep_from: u64) -> Result<(), StoreError> {
        let Self { inner, fuse } = self;
        through(fuse, || inner.prune(keep_from))
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
        through(fuse, || inner.commit(writes))
    }

    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        self.inner.quarantine(why)
    }
}
