//! Memory of the requests of all sources together: refused before it is taken, if the process has no room for it.
//!
//! Two figures count: what the process has resident, and what requests have been promised. Part of the promised bytes is
//! resident already and counts twice, so the sum errs on the safe side. Decides nothing about series or bins. Which
//! budgets follow from which limit: docs/design/memory.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Returns how many bytes of the process are resident, if the system says so.
pub type ResidentMeter = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Of the limit, what a small request has at most: it is let in up to the limit itself, so that large ones cannot keep it
/// out.
const SMALL: u64 = 64;
/// Of the limit, what a tiny one has at most: what others were promised does not count against it.
const TINY: u64 = 4_096;
/// Of the limit, the part that is promised between two measurements at most. One costs about 30 us.
const UNMEASURED: u64 = 64;
/// Of the limit, the part that one connection of HTTP/2 may have unread.
const UNREAD: u64 = 1_024;
/// What an unread part is at least (the protocol's own) and at most: a request of 1,000 points has about 380 KB, which
/// with 64 KiB would wait for the sender's round trip six times.
const WINDOW_BYTES: (u64, u64) = (64 << 10, 1 << 20);

/// Held while relight is short of memory. Clones are the same brake.
#[derive(Debug, Clone, Default)]
pub struct Brake(Arc<AtomicU8>);

/// Everything passes.
const OPEN: u8 = 0;
/// Of what is pushed without a journal small requests pass; nothing else does.
const TIGHT: u8 = 1;
/// Nothing passes, as if all queues were full.
const HELD: u8 = 2;

impl Brake {
    /// Holds all sources back, or lets them go on.
    pub fn hold(&self, is_held: bool) {
        self.0.store(if is_held { HELD } else { OPEN }, Ordering::Release);
    }

    /// Holds back all but small requests that are pushed without a journal.
    pub fn hold_large(&self) {
        self.0.store(TIGHT, Ordering::Release);
    }

    /// Whether all sources are held back.
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire) == HELD
    }

    /// Whether anything is held back.
    pub fn is_tight(&self) -> bool {
        self.0.load(Ordering::Acquire) != OPEN
    }
}

/// Room for requests. Clones share it; the default one has no limit.
#[derive(Clone, Default)]
pub struct MemoryBudget(Option<Arc<Limited>>);

struct Limited {
    large_bytes: u64,
    max_bytes: u64,
    meter: ResidentMeter,
    resident: AtomicU64,
    promised: AtomicU64,
    unmeasured: AtomicU64,
}

impl MemoryBudget {
    /// Room for large requests up to `large_bytes` of resident memory, and for small ones up to `max_bytes`.
    pub fn new(large_bytes: u64, max_bytes: u64, meter: ResidentMeter) -> Self {
        let resident = AtomicU64::new(meter().unwrap_or(0));
        let (promised, unmeasured) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Some(Arc::new(Limited { large_bytes, max_bytes, meter, resident, promised, unmeasured })))
    }

    /// Bytes that requests have been promised.
    pub fn promised(&self) -> u64 {
        self.0.as_ref().map_or(0, |limited| limited.promised.load(Ordering::Relaxed))
    }

    /// Bytes that one connection of HTTP/2 may have unread.
    pub(crate) fn window_bytes(&self) -> u32 {
        let (least, most) = WINDOW_BYTES;
        let share = self.0.as_ref().map_or(most, |limited| limited.max_bytes / UNREAD);
        share.clamp(least, most) as u32
    }

    /// A promise of nothing yet.
    pub(crate) fn promise(&self) -> Promise {
        Promise { of: self.0.clone(), bytes: 0 }
    }
}

/// Bytes that a request may take. Given back when it is dropped.
pub(crate) struct Promise {
    of: Option<Arc<Limited>>,
    bytes: u64,
}

impl Promise {
    /// Promises more; whether there is room for it.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let Some(limited) = &self.of else { return true };
        let all = self.bytes.saturating_add(bytes);
        let is_granted = limited.grant(bytes, all);
        if is_granted {
            self.bytes = all;
        }
        is_granted
    }

    /// Gives a part back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let Some(limited) = &self.of else { return };
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        limited.promised.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Limited {
    /// `all`: what the request then has.
    fn grant(&self, bytes: u64, all: u64) -> bool {
        let promised = self.promised.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let unmeasured = self.unmeasured.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let (promised, limit) = match all {
            tiny if tiny <= self.max_bytes / TINY => (0, self.max_bytes),
            small if small <= self.max_bytes / SMALL => (promised, self.max_bytes),
            _ => (promised, self.large_bytes),
        };
        let fits = |resident: u64| resident.saturating_add(promised) <= limit;
        let known = self.resident.load(Ordering::Relaxed);
        // What does not fit by an old figure is measured again: memory may have been given back.
        let is_granted = if unmeasured > self.max_bytes / UNMEASURED || !fits(known) {
            fits(self.measure(known))
        } else {
            true
        };
        if !is_granted {
            self.promised.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_granted
    }

    fn measure(&self, known: u64) -> u64 {
        self.unmeasured.store(0, Ordering::Relaxed);
        let resident = (self.meter)().unwrap_or(known);
        self.resident.store(resident, Ordering::Relaxed);
        resident
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget(resident: &Arc<AtomicU64>) -> MemoryBudget {
        let resident = Arc::clone(resident);
        let meter: ResidentMeter = Arc::new(move || Some(resident.load(Ordering::Relaxed)));
        MemoryBudget::new(200 * MIB, 230 * MIB, meter)
    }

    /// Scenario: large requests come until there is no room; then memory is given back.
    /// Guarantee: what is resident and what is promised never come to more than the limit; a small request finds room
    /// when a large one does not; a refusal takes nothing.
    #[test]
    fn promises_stay_below_the_limit() {
        let resident = Arc::new(AtomicU64::new(50 * MIB));
        let budget = budget(&resident);
        let mut held = Vec::new();
        loop {
            let mut promise = budget.promise();
            if !promise.grow(15 * MIB) {
                break;
            }
            held.push(promise);
        }
        assert_eq!((held.len(), budget.promised()), (10, 150 * MIB));
        let mut small = budget.promise();
        assert!(small.grow(3 * MIB) && !small.grow(MIB), "the second makes it a large one");
        resident.store(228 * MIB, Ordering::Relaxed);
        assert!(!budget.promise().grow(4 << 20) && budget.promise().grow(1 << 10));
        drop((held, small));
        assert_eq!(budget.promised(), 0);
        assert!(budget.promise().grow(2 * MIB) && !budget.promise().grow(3 * MIB));
        resident.store(100 * MIB, Ordering::Relaxed);
        assert!(budget.promise().grow(90 * MIB), "it is measured again before it is refused");
    }

    /// Scenario: the process grows by what was promised, one request after another, each given back.
    /// Guarantee: growth is seen without a refusal, after a 64th of the limit at most.
    #[test]
    fn growth_is_seen() {
        let resident = Arc::new(AtomicU64::new(50 * MIB));
        let budget = budget(&resident);
        let granted = (0..1_000).take_while(|_| {
            let is_granted = budget.promise().grow(MIB);
            resident.fetch_add(MIB, Ordering::Relaxed);
            is_granted
        });
        let granted = granted.count() as u64;
        assert!((170..=184).contains(&granted), "{granted}");
        let mut without = MemoryBudget::default().promise();
        assert!(without.grow(u64::MAX) && without.grow(1), "no limit, no refusal");
    }
}
