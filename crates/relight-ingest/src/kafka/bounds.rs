//! Where a partition is read from, and what it means if that is no longer there. Pure.

use relight_core::source::kafka::Start;

use crate::live::Hub;

/// Partitions of one topic that were made anew more often than this go on under their last name.
const MAX_GENERATIONS: u32 = 1_000;

/// The name of a partition. Offsets of a topic that was made anew count from 0 again, so its partitions are new
/// ones to the engine: from the second generation on the name says which.
pub(super) fn name(source: &str, topic: &str, partition: i32, generation: u32) -> String {
    match generation {
        0 | 1 => format!("{source}/{topic}/{partition}"),
        n => format!("{source}/{topic}/{partition}#{n}"),
    }
}

/// The newest generation of a partition that the state knows, and the first offset that is not in it.
pub(super) fn known(hub: &Hub, source: &str, topic: &str, partition: i32) -> (u32, Option<u64>) {
    let next_of = |generation| hub.resume(&name(source, topic, partition, generation));
    let mut newest = (1, next_of(1));
    while newest.1.is_some() && newest.0 < MAX_GENERATIONS {
        match next_of(newest.0 + 1) {
            None => break,
            next => newest = (newest.0 + 1, next),
        }
    }
    newest
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// At this offset.
    Offset(u64),
    /// At the oldest record, wherever that is.
    Oldest,
    /// At the next record that comes.
    Next,
}

/// What is known of a partition before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    /// The first offset that relight's state does not hold.
    pub(super) state: Option<u64>,
    /// What the group committed.
    pub(super) committed: Option<u64>,
    /// Its oldest offset and its end.
    pub(super) bounds: Option<(u64, u64)>,
    /// It was added to a topic that is read already.
    pub(super) is_added: bool,
}

/// relight's own state wins over what the group committed: that is behind it after a crash between snapshot and
/// commit, and ahead of it after an older snapshot was restored. Where neither knows the partition, `start` decides.
pub(super) fn start(known: Known, start: Start) -> From {
    match (known.state.or(known.committed), start) {
        (Some(next), _) => From::Offset(next),
        // Named by its number where that is known, so that it can be committed and a restart goes on from here.
        (None, Start::Latest) if !known.is_added => {
            known.bounds.map_or(From::Next, |(_, end)| From::Offset(end))
        }
        (None, _) => known.bounds.map_or(From::Oldest, |(oldest, _)| From::Offset(oldest)),
    }
}

/// What happened to a partition that does not have the next offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// What lay before `to` is gone.
    Gap {
        /// The oldest offset that is there.
        to: u64,
    },
    /// It ends before the next offset.
    Recreated {
        /// The oldest offset that is there.
        oldest: u64,
        /// Where it ends.
        end: u64,
    },
}

/// What happened, if `next` lies outside the partition's bounds.
pub(super) fn loss(next: u64, (oldest, end): (u64, u64)) -> Option<Loss> {
    if next > end {
        Some(Loss::Recreated { oldest, end })
    } else {
        (next < oldest).then_some(Loss::Gap { to: oldest })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Scenario: every mixture of what the state, the group and the brokers know.
    /// Guarantee: the state wins, then the group, then `start`; an added partition misses nothing.
    #[test]
    fn the_state_wins() {
        let bounds = Some((3, 50));
        for (state, committed, bounds, is_added, policy, expected) in [
            (Some(10), Some(20), bounds, false, Start::Latest, From::Offset(10)),
            (Some(20), Some(10), bounds, false, Start::Earliest, From::Offset(20)),
            (None, Some(10), bounds, false, Start::Latest, From::Offset(10)),
            (None, None, bounds, false, Start::Latest, From::Offset(50)),
            (None, None, bounds, false, Start::Earliest, From::Offset(3)),
            (None, None, bounds, true, Start::Latest, From::Offset(3)),
            (None, None, None, false, Start::Latest, From::Next),
            (None, None, None, true, Start::Latest, From::Oldest),
        ] {
            assert_eq!(start(Known { state, committed, bounds, is_added }, policy), expected);
        }
    }

    #[test]
    fn losses_are_told_apart() {
        assert_eq!(loss(5, (0, 5)), None);
        assert_eq!(loss(5, (5, 9)), None);
        assert_eq!(loss(4, (5, 9)), Some(Loss::Gap { to: 5 }));
        assert_eq!(loss(5000, (0, 10)), Some(Loss::Recreated { oldest: 0, end: 10 }));
    }

    #[test]
    fn generations_are_found_again() {
        let state = [("s/t/0", 5000), ("s/t/0#2", 7), ("s/t/0#3", 9), ("s/t/1", 4), ("s/t/2#2", 1)];
        let (hub, _opened) = Hub::new(
            state.map(|(name, next)| (name.to_owned(), next)).into_iter().collect::<BTreeMap<_, _>>(),
        );
        let newest: Vec<_> = (0..3).map(|partition| known(&hub, "s", "t", partition)).collect();
        assert_eq!(newest, [(3, Some(9)), (1, Some(4)), (1, None)]);
        assert_eq!((name("s", "t", 4, 1), name("s", "t", 4, 2)), ("s/t/4".to_owned(), "s/t/4#2".to_owned()));
    }
}
