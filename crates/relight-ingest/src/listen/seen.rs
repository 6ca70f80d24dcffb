//! What was taken lately, by its identity: senders of events repeat themselves, and an event is no series
//! that could be deduplicated by its time.
//!
//! Bounded: the oldest is forgotten first, and so would be repeated.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Identities that are kept. A sender repeats itself within minutes, and no site deploys 8,192 times in those.
const KEPT: usize = 8_192;
/// A longer one is kept by its front.
const MAX_BYTES: usize = 1 << 10;

/// Identities of what was taken lately.
#[derive(Default)]
pub(super) struct Seen {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Seen {
    /// Takes note of an identity; `false` if it is there already.
    pub(super) fn insert(&self, name: &str) -> bool {
        let name: Arc<str> = front(name).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.names.insert(Arc::clone(&name)) {
            return false;
        }
        known.order.push_back(name);
        if known.order.len() > KEPT
            && let Some(oldest) = known.order.pop_front()
        {
            known.names.remove(&oldest);
        }
        true
    }

    /// Forgets an identity: what had it was not taken after all.
    pub(super) fn remove(&self, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.remove(front(name)) {
            // It came last or nearly so.
            if let Some(at) = known.order.iter().rposition(|other| **other == *front(name)) {
                known.order.remove(at);
            }
        }
    }
}

fn front(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let seen = Seen::default();
        assert!((0..=KEPT).all(|i| seen.insert(&i.to_string())));
        assert!(!seen.insert("1") && !seen.insert(&KEPT.to_string()));
        assert!(seen.insert("0"), "one too many came after it");
        seen.remove("7");
        assert!(seen.insert("7"));
        let known = seen.known.lock().expect("nobody panicked");
        assert_eq!((known.names.len(), known.order.len()), (KEPT, KEPT));
    }
}
