//! One partition: its inlet, what waits to go into it, and how it is doing.
//!
//! Records go into the inlet in the order of their offsets, and none goes past a dead letter that is not durable.
//! No client is known here: who reads decides when to pause and to go on, from what this says.

use std::collections::VecDeque;
use std::time::Duration;

use relight_core::Timestamp;

use super::dead_letter::Unwritten;
use crate::live::{Delivery, Inlet, Load, Refused};

/// How long a full queue is waited for before its partition is paused. Pausing throws away what was fetched ahead,
/// so an engine that is merely slower than Kafka is not worth it; meanwhile the topic's other partitions wait.
const GRACE: Duration = Duration::from_millis(50);
/// Deliveries that wait behind a dead letter before the partition is paused.
const MAX_HELD: usize = 64;
/// Dead letters of a partition that are not durable yet, at which it is paused.
const MAX_UNWRITTEN: usize = 64;
/// Deliveries in the queue at which a paused partition goes on.
const LOW: usize = 16;
/// A partition is paused for at least this long, so that a source whose budget is full does not fetch in vain.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// Deliveries in a row that found room, after which a full queue is waited for again.
const SMOOTH: u32 = 256;

/// How it is with what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Nothing waits.
    Open,
    /// The queue is full, and may soon have room.
    Wait,
    /// A dead letter is being written.
    Letter,
    /// What waits will wait for long, or is much: pause.
    Pause,
    /// relight is stopping.
    Closed,
}

/// One partition.
pub(super) struct Part {
    pub(super) inlet: Inlet,
    pub(super) generation: u32,
    pub(super) unwritten: Unwritten,
    /// The offset to be read next; `None` until the first record of a partition that starts at one of its ends.
    pub(super) next: Option<u64>,
    /// What may be committed before any snapshot: where reading started.
    floor: u64,
    /// What was committed.
    pub(super) committed: u64,
    pub(super) is_assigned: bool,
    pub(super) paused: Option<Duration>,
    /// Reading stands at an end that was reported.
    pub(super) is_at_end: bool,
    pub(super) away_since: Option<Duration>,
    pub(super) well_since: Option<Duration>,
    /// The engine has been told that it cannot be reached.
    pub(super) is_told_away: bool,
    /// Since when nothing is fetched although there is more, and where fetching stands.
    pub(super) stalled: Option<(Duration, i64)>,
    held: VecDeque<Delivery>,
    blocked_since: Option<Duration>,
    /// Deliveries in a row that found room; waiting in vain sets it back.
    smooth: u32,
}

impl Part {
    pub(super) fn new(inlet: Inlet, generation: u32, unwritten: Unwritten) -> Self {
        Self {
            inlet,
            generation,
            unwritten,
            next: None,
            floor: 0,
            committed: 0,
            is_assigned: false,
            paused: None,
            is_at_end: false,
            away_since: None,
            well_since: None,
            is_told_away: false,
            stalled: None,
            held: VecDeque::new(),
            blocked_since: None,
            smooth: SMOOTH,
        }
    }

    /// Reading starts at `next`. `is_known`: the state holds what lies before.
    pub(super) const fn begin(&mut self, next: Option<u64>, committed: Option<u64>, is_known: bool) {
        self.next = next;
        self.is_assigned = true;
        if let (Some(next), false) = (next, is_known) {
            self.floor = next;
        }
        if let Some(committed) = committed {
            self.committed = committed;
        }
    }

    /// Whether deliveries wait.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// A record came.
    pub(super) fn take(&mut self, delivery: Delivery, now: Duration) -> Flow {
        self.is_at_end = false;
        self.is_told_away = false;
        self.away_since = None;
        self.held.push_back(delivery);
        self.flush(now)
    }

    /// Hands on what waits, as far as it goes.
    pub(super) fn flush(&mut self, now: Duration) -> Flow {
        while let Some(delivery) = self.held.pop_front() {
            if self.is_letter(&delivery) {
                self.held.push_front(delivery);
                return self.blocked(Flow::Letter, now);
            }
            match self.inlet.offer(delivery) {
                Ok(()) => self.smooth = self.smooth.saturating_add(1),
                Err(Refused::Full(delivery)) => {
                    self.held.push_front(delivery);
                    return self.blocked(Flow::Wait, now);
                }
                Err(Refused::Closed(_)) => return Flow::Closed,
            }
        }
        self.blocked_since = None;
        if self.unwritten.len() >= MAX_UNWRITTEN { Flow::Pause } else { Flow::Open }
    }

    /// Whether a delivery stands for a dead letter that is not durable yet.
    fn is_letter(&self, delivery: &Delivery) -> bool {
        matches!(delivery.load, Load::Nothing)
            && delivery.offset.is_some_and(|offset| self.unwritten.has(offset))
    }

    fn blocked(&mut self, flow: Flow, now: Duration) -> Flow {
        let since = *self.blocked_since.get_or_insert(now);
        let too_long = now.saturating_sub(since) >= GRACE;
        let is_in_vain = flow == Flow::Wait && (too_long || self.smooth < SMOOTH);
        if is_in_vain {
            self.smooth = 0;
        }
        if is_in_vain || too_long || self.held.len() > MAX_HELD { Flow::Pause } else { flow }
    }

    /// Whether a paused partition may go on.
    pub(super) fn may_go_on(&self, now: Duration) -> bool {
        self.paused.is_some_and(|since| now >= since + SHORTEST_PAUSE)
            && self.held.is_empty()
            && self.inlet.waiting() <= LOW
            && self.unwritten.len() <= MAX_UNWRITTEN / 2
    }

    /// The log was read to its end by a fetch that succeeded at `at`.
    pub(super) fn tell_end(&mut self, at: Timestamp) {
        // Behind deliveries that wait it would be wrong, and a full queue shows by itself that there is more.
        if self.held.is_empty() && self.offer(Load::CaughtUp, at) {
            self.is_told_away = false;
        }
    }

    /// The partition cannot be reached. Returns whether that was news to the engine.
    pub(super) fn tell_away(&mut self, why: &str, at: Timestamp) -> bool {
        let is_news = !self.is_told_away && self.held.is_empty();
        if is_news {
            self.is_told_away = self.offer(Load::Unreachable(why.to_owned()), at);
        }
        is_news && self.is_told_away
    }

    fn offer(&self, load: Load, received: Timestamp) -> bool {
        self.inlet.offer(Delivery { offset: None, received, load, answer: None }).is_ok()
    }

    /// The offset that may be committed, if it is another than what was: below it everything is in a snapshot, and
    /// every dead letter is durable.
    pub(super) fn to_commit(&self) -> Option<u64> {
        let covered = self.inlet.covered().max(self.floor);
        let safe = self.unwritten.first().map_or(covered, |letter| letter.min(covered));
        (safe > 0 && safe != self.committed).then_some(safe)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::live::{Budget, Hub, Next, Outlet, Reads};

    const QUEUE: u64 = 64;

    fn part() -> (Part, Outlet) {
        let (hub, opened) = Hub::new(BTreeMap::new());
        let inlet = hub.open("s/t/0", Reads::Pull, &Budget::new(usize::MAX));
        (Part::new(inlet, 1, Unwritten::default()), opened.try_recv().expect("it was opened"))
    }

    fn nothing(offset: u64) -> Delivery {
        Delivery { offset: Some(offset), received: Timestamp::MIN, load: Load::Nothing, answer: None }
    }

    fn drained(outlet: &Outlet) -> Vec<u64> {
        let each = std::iter::from_fn(|| match outlet.take() {
            Next::Delivery(delivery) => Some(delivery.offset),
            _ => None,
        });
        each.flatten().collect()
    }

    /// Scenario: a dead letter that takes its time, with records behind it.
    /// Guarantee: nothing passes it and nothing below it is committed beyond it; then all go in order.
    #[test]
    fn b23_out_of_order_ack() {
        let (mut part, outlet) = part();
        let now = Duration::from_millis(1);
        part.begin(Some(7), None, false);
        assert_eq!(part.take(nothing(7), now), Flow::Open);
        part.unwritten.add(8);
        assert_eq!(part.take(nothing(8), now), Flow::Letter);
        assert_eq!(part.take(nothing(9), now), Flow::Letter);
        assert_eq!(part.take(nothing(10), now + GRACE), Flow::Pause);
        assert_eq!(drained(&outlet), [7]);
        outlet.cover(11);
        assert_eq!(part.to_commit(), Some(8));
        part.unwritten = Unwritten::default();
        assert_eq!((part.flush(now), part.to_commit()), (Flow::Open, Some(11)));
        assert_eq!(drained(&outlet), [8, 9, 10]);
    }

    /// Scenario: an engine that takes nothing for longer than is waited for, then takes all, then nothing again.
    /// Guarantee: the first time it is waited for a little, the second time not at all; the end of the partition is
    /// not told ahead of what waits.
    #[test]
    fn a_full_queue_is_waited_for_once() {
        let (mut part, outlet) = part();
        let mut now = Duration::from_secs(1);
        let filled: Vec<Flow> = (0..QUEUE).map(|offset| part.take(nothing(offset), now)).collect();
        assert!(filled.iter().all(|flow| *flow == Flow::Open));
        assert_eq!(part.take(nothing(QUEUE), now), Flow::Wait);
        assert_eq!(part.flush(now + GRACE / 2), Flow::Wait);
        assert_eq!(part.flush(now + GRACE), Flow::Pause);
        part.paused = Some(now);
        part.tell_end(Timestamp::MIN);
        now += SHORTEST_PAUSE;
        assert!(!part.may_go_on(now));
        assert_eq!(drained(&outlet).len() as u64, QUEUE);
        assert_eq!(part.flush(now), Flow::Open);
        assert!(part.may_go_on(now));
        part.paused = None;
        for offset in 0..QUEUE - 1 {
            assert_eq!(part.take(nothing(QUEUE + 1 + offset), now), Flow::Open);
        }
        assert_eq!(part.take(nothing(200), now), Flow::Pause);
    }
}
