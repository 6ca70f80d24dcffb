//! The clock that records are received by: the wall clock, but never back.
//!
//! Watermarks move at most to the time at which a record was received, so a wall clock that is set back by minutes would
//! stop every bin for as long. Between two readings of the wall clock the time is the monotonic clock's. A wall clock
//! that is ahead is followed at once: a machine that slept, or whose clock was set right at its start. One that is
//! behind is approached: the time goes on at nine tenths of its pace until both are one.

use std::sync::{Arc, Mutex, PoisonError};

use relight_core::{Span, Timestamp};

use super::Live;
use super::clock::{Clock, MAX_STEP};

/// The part of the time that passes by which the time approaches a wall clock that is behind: 82 s take 14 minutes. A
/// larger part would make the points of senders that were set back, too, late for longer than they are anyway.
const APPROACH: i64 = 10;

/// The time that records are received at. A clone is the same clock.
#[derive(Clone)]
pub struct ReceivedClock(Arc<Mutex<State>>);

struct State {
    clock: Box<dyn Clock>,
    last: Reading,
    /// The time if the wall clock had never been set.
    steady: Timestamp,
    /// The largest step of the wall clock that nobody has asked about, in nanoseconds.
    step_ns: i64,
}

/// Both clocks, and the time made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Span,
    pub(super) time: Timestamp,
}

impl ReceivedClock {
    /// Begins at a time, which is the wall clock's or a little ahead of it.
    pub(super) fn start(clock: Box<dyn Clock>, time: Timestamp) -> Self {
        let last = Reading { wall: clock.wall(), monotonic: clock.monotonic(), time };
        Self(Arc::new(Mutex::new(State { clock, last, steady: time, step_ns: 0 })))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.read().time
    }

    pub(super) fn read(&self) -> Reading {
        // Every field of the state is set at once.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// The largest step of the wall clock since this was last asked, in nanoseconds and below 0 if it was set back, if it
    /// is larger than `least`.
    pub(super) fn take_step(&self, least: Span) -> Option<i64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.read();
        let step = std::mem::take(&mut state.step_ns);
        (step.saturating_abs() > least.ns()).then_some(step)
    }
}

impl Live {
    /// The clock by which sources are to say when a record was received.
    pub fn received_clock(&self) -> ReceivedClock {
        self.clock.received().clone()
    }
}

impl State {
    fn read(&mut self) -> Reading {
        let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
        // Another thread may have read the clocks later and come here first.
        let passed = Span::from_ns(monotonic.ns().saturating_sub(self.last.monotonic.ns()).max(0));
        let step = wall.ns().saturating_sub(self.last.wall.plus(passed).ns());
        if step.saturating_abs() > self.step_ns.saturating_abs() {
            self.step_ns = step;
        }
        self.steady = self.steady.plus(passed);
        let on = self.last.time.plus(passed);
        // A jump ahead by hours that is taken back was an error: days at nine tenths would not undo it.
        let is_undone = on > self.steady.plus(MAX_STEP)
            && wall <= self.steady.plus(MAX_STEP)
            && wall >= self.steady.minus(MAX_STEP);
        let time = if is_undone {
            self.steady.max(wall)
        } else if wall >= on {
            wall
        } else {
            on.minus(Span::from_ns(on.since(wall).ns().min(passed.ns() / APPROACH)))
        };
        self.last = Reading { wall, monotonic, time };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const NOON: i64 = 1_764_000_000_000;

    /// Set by hand, in milliseconds.
    #[derive(Clone, Default)]
    struct Hand(Arc<[AtomicI64; 2]>);

    impl Clock for Hand {
        fn wall(&self) -> Timestamp {
            Timestamp::from_ns(self.0[0].load(Ordering::Relaxed) * 1_000_000)
        }
        fn monotonic(&self) -> Span {
            Span::from_ns(self.0[1].load(Ordering::Relaxed) * 1_000_000)
        }
    }

    impl Hand {
        fn clock() -> (Self, ReceivedClock) {
            let hand = Self::default();
            hand.step(NOON);
            let time = hand.wall();
            (hand.clone(), ReceivedClock::start(Box::new(hand), time))
        }
        fn step(&self, ms: i64) {
            self.0[0].fetch_add(ms, Ordering::Relaxed);
        }
        fn pass(&self, ms: i64) {
            self.step(ms);
            self.0[1].fetch_add(ms, Ordering::Relaxed);
        }
    }

    fn ms(clock: &ReceivedClock) -> i64 {
        clock.now().ns() / 1_000_000 - NOON
    }

    /// Scenario: the wall clock is set back by 82 s, and read ten times a second.
    /// Guarantee: the time goes on at nine tenths until it is the wall clock's again, and is it from then on; the step is
    /// told once, with its sign.
    #[test]
    fn a_clock_that_is_set_back_is_approached() {
        let (hand, clock) = Hand::clock();
        hand.pass(1_000);
        assert_eq!((ms(&clock), clock.take_step(Span::from_secs(1))), (1_000, None));
        hand.step(-82_000);
        assert_eq!(ms(&clock), 1_000);
        assert_eq!(clock.take_step(Span::from_secs(10)), Some(-82_000_000_000));
        assert_eq!(clock.take_step(Span::ZERO), None);
        for i in 1..=8_200 {
            hand.pass(100);
            assert_eq!(ms(&clock), 1_000 + 90 * i);
        }
        for _ in 0..100 {
            hand.pass(100);
            assert_eq!(clock.now(), hand.wall());
        }
    }

    /// Scenario: the machine slept for five minutes, or its clock was set right by years; later that turns out to be wrong.
    /// Guarantee: what is ahead is followed at once; a far jump that is taken back leaves no trace.
    #[test]
    fn a_clock_that_is_ahead_is_followed() {
        for ahead in [300_000, 86_400_000 * 365 * 5] {
            let (hand, clock) = Hand::clock();
            hand.step(ahead);
            assert_eq!(ms(&clock), ahead);
            assert_eq!(clock.take_step(Span::from_secs(10)), Some(ahead * 1_000_000));
            hand.pass(10_000);
            assert_eq!(ms(&clock), ahead + 10_000);
            hand.step(-ahead);
            let is_far = ahead > 600_000;
            assert_eq!(ms(&clock), if is_far { 10_000 } else { ahead + 10_000 });
            hand.pass(10_000);
            assert_eq!(ms(&clock), if is_far { 20_000 } else { ahead + 19_000 });
        }
    }

    /// Property: whatever the wall clock does within ten minutes, the time never runs back, never stands still, never runs
    /// behind the wall clock, and comes to it.
    #[test]
    fn time_goes_on_whatever_the_wall_clock_does() {
        for seed in 0..1_000_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = |most: i64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.cast_signed().rem_euclid(most)
            };
            let (hand, clock) = Hand::clock();
            let (mut before, mut away) = (clock.now(), 0);
            for _ in 0..200 {
                let step = if next(10) == 0 { next(600_000) - 300_000 } else { 0 };
                let step = step.clamp(-300_000 - away, 300_000 - away);
                away += step;
                hand.step(step);
                let passes = 1 + next(5_000);
                hand.pass(passes);
                let now = clock.now();
                let least = Span::from_ns(passes * 900_000);
                assert!(now >= before.plus(least) && now >= hand.wall(), "seed {seed}");
                before = now;
            }
            hand.pass(6_100_000);
            assert_eq!(clock.now(), hand.wall(), "seed {seed}");
        }
    }
}
