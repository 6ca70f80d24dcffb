//! What was taken lately, by its identity: senders of events repeat themselves, and an event is no series
//! that could be deduplicated by its time.
//!
//! Bounded: the oldest is forgotten first, and so would be repeated.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::front::Fault;

/// Identities that are kept. A sender repeats itself within minutes, and no site deploys 8,192 times in those.
const KEPT: usize = 8_192;
/// A longer one is kept by its front.
const MAX_BYTES: usize = 1 << 10;

/// Identities of what was taken lately, and of what is on its way to the engine.
#[derive(Default)]
pub(super) struct Seen {
    known: Mutex<Known>,
    requests: AtomicU64,
}

#[derive(Default)]
struct Known {
    names: HashMap<Arc<str>, Stage>,
    order: VecDeque<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The engine has yet to say what becomes of the request of this number. Its sender may be gone by then.
    OnItsWay(u64),
    Taken,
}

impl Seen {
    /// Takes note of an identity that came with a request; gives where it stands if it is there already.
    fn insert(&self, name: &str, request: u64) -> Option<Stage> {
        let name: Arc<str> = front(name).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = known.names.get(&name) {
            return Some(*stage);
        }
        known.names.insert(Arc::clone(&name), Stage::OnItsWay(request));
        known.order.push_back(name);
        if known.order.len() > KEPT
            && let Some(oldest) = known.order.pop_front()
        {
            known.names.remove(&oldest);
        }
        None
    }

    fn settle(&self, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = known.names.get_mut(front(name)) {
            *stage = Stage::Taken;
        }
    }

    /// Forgets an identity: what had it was not taken after all.
    fn remove(&self, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.remove(front(name)).is_some() {
            // It came last or nearly so.
            if let Some(at) = known.order.iter().rposition(|other| **other == *front(name)) {
                known.order.remove(at);
            }
        }
    }
}

/// Identities that are new with one request. It goes to the engine with what they are of, so that the engine's word counts
/// and not whether the sender was still there to hear it: unless they were taken they are forgotten.
pub(super) struct Fresh {
    seen: Arc<Seen>,
    request: u64,
    names: Vec<String>,
}

impl Fresh {
    pub(super) fn new(seen: &Arc<Seen>) -> Self {
        let request = seen.requests.fetch_add(1, Ordering::Relaxed);
        Self { seen: Arc::clone(seen), request, names: Vec::new() }
    }

    /// Whether it is new. What an earlier request has on its way may yet be lost: its sender has to come again.
    pub(super) fn insert(&mut self, name: String) -> Result<bool, Fault> {
        match self.seen.insert(&name, self.request) {
            None => {
                self.names.push(name);
                Ok(true)
            }
            Some(Stage::OnItsWay(request)) if request != self.request => {
                Err(Fault::busy("an earlier request with the same event is still on its way"))
            }
            Some(_) => Ok(false),
        }
    }

    /// The engine has them.
    pub(super) fn taken(mut self) {
        for name in std::mem::take(&mut self.names) {
            self.seen.settle(&name);
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // The last one first: each is looked for from there.
        self.names.iter().rev().for_each(|name| self.seen.remove(name));
    }
}

fn front(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one more than is kept.
    /// Guarantee: the oldest is forgotten first, and the rest is known.
    #[test]
    fn the_oldest_is_forgotten_first() {
        let seen = Arc::new(Seen::default());
        let insert = |name: &str| {
            let mut fresh = Fresh::new(&seen);
            let is_new = fresh.insert(name.to_owned()).expect("nothing is on its way");
            fresh.taken();
            is_new
        };
        assert!((0..=KEPT).all(|i| insert(&i.to_string())));
        assert!(!insert("1") && !insert(&KEPT.to_string()));
        assert!(insert("0"), "one too many came after it");
        let known = seen.known.lock().expect("nobody panicked");
        assert_eq!((known.names.len(), known.order.len()), (KEPT, KEPT));
    }

    /// Scenario: a request of as many events as there may be and then one of them as often; two events of one request whose
    /// identities differ beyond what is kept of them.
    /// Guarantee: each repetition is one, whatever came before it: looked up among all, they took a minute.
    #[test]
    fn a_request_may_repeat_itself() {
        let seen = Arc::new(Seen::default());
        let mut fresh = Fresh::new(&seen);
        let n = 100_000;
        for i in 0..n {
            assert_eq!(fresh.insert(format!("firing 1763884810000000000 {i:06}")).ok(), Some(true));
        }
        for _ in 0..n {
            assert_eq!(fresh.insert("firing 1763884810000000000 099999".to_owned()).ok(), Some(false));
        }
        let long = "x".repeat(MAX_BYTES);
        let of = |last: &str| format!("{long}{last}");
        assert_eq!([fresh.insert(of("a")).ok(), fresh.insert(of("b")).ok()], [Some(true), Some(false)]);
        drop(fresh);
        assert_eq!(Fresh::new(&seen).insert(of("b")).ok(), Some(true), "what was lost is new");
    }

    /// Scenario: a request with an event twice; another with it while the first is on its way; then the first is lost, or
    /// taken.
    /// Guarantee: within a request the second is a repetition; the other request has to come again; afterwards the event
    /// is new if it was lost, and a repetition if it was taken.
    #[test]
    fn what_is_on_its_way_is_not_taken_yet() {
        for is_taken in [false, true] {
            let seen = Arc::new(Seen::default());
            let name = || "deploy".to_owned();
            let (mut first, mut second) = (Fresh::new(&seen), Fresh::new(&seen));
            assert_eq!([first.insert(name()).ok(), first.insert(name()).ok()], [Some(true), Some(false)]);
            assert!(second.insert(name()).is_err());
            if is_taken {
                first.taken();
            } else {
                drop(first);
            }
            assert_eq!(second.insert(name()).ok(), Some(!is_taken));
        }
    }
}
