//! The two clocks of a live run, behind one trait, and control time made of them.
//!
//! Control time goes on from where the ledger left it and is moved by the monotonic clock, so that a step
//! of the wall clock neither lets a cooldown run out nor starts one anew.

use std::time::{SystemTime, UNIX_EPOCH};

use relight_core::{Span, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use super::received::ReceivedClock;

/// What a live run reads the time from.
pub trait Clock: Send {
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// Time since some moment before the run; never runs backwards.
    fn monotonic(&self) -> Span;
}

/// A clock that nobody sets. It counts while the machine sleeps, where the system has one that does: that is no jump.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// The system's clocks, and when the run began by the one that nobody sets.
#[derive(Debug)]
pub struct SystemClock(Span);

impl Default for SystemClock {
    fn default() -> Self {
        Self(steady())
    }
}

fn steady() -> Span {
    let now = clock_gettime(STEADY);
    Span::from_ns(now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec))
}

#[expect(clippy::disallowed_methods, reason = "the one place where a live run reads a clock")]
impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        // A clock before 1970 counts as 1970: nothing that is received then can be in its future.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ns(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Span {
        Span::from_ns(steady().ns() - self.0.ns())
    }
}

/// How far the wall clock may be from control time before somebody must look.
pub(crate) const MAX_STEP: Span = Span::from_secs(600);

/// Control time of a live run.
pub(crate) struct ControlClock {
    received: ReceivedClock,
    began: Timestamp,
    began_monotonic: Span,
}

impl ControlClock {
    /// Goes on from the last control time of the ledger, or with the wall clock, which is followed at a
    /// start. The second value says by how much the wall clock was behind the ledger.
    pub(crate) fn start(clock: Box<dyn Clock>, last: Option<Timestamp>) -> (Self, Option<Span>) {
        let (wall, began_monotonic) = (clock.wall(), clock.monotonic());
        let began = last.map_or(wall, |last| last.max(wall));
        let behind = last.filter(|last| *last > wall).map(|last| last.since(wall));
        // A clock that was set back while nothing ran is no other case than one that is set back now.
        let time = if behind.is_some_and(|behind| behind <= MAX_STEP) { began } else { wall };
        (Self { received: ReceivedClock::start(clock, time), began, began_monotonic }, behind)
    }

    /// Control time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(self.received.read().monotonic)
    }

    fn at(&self, monotonic: Span) -> Timestamp {
        let passed = monotonic.ns().saturating_sub(self.began_monotonic.ns());
        self.began.plus(Span::from_ns(passed))
    }

    /// The clock that records are received by.
    pub(crate) const fn received(&self) -> &ReceivedClock {
        &self.received
    }

    /// Up to when it is known that nothing has come, if nothing has: that is told by the clock that records are received by.
    /// Unless that one has jumped ahead: what it says then is no ground to close a bin on.
    pub(crate) fn heard(&self) -> Timestamp {
        let read = self.received.read();
        let now = self.at(read.monotonic);
        if read.time > now.plus(MAX_STEP) { now } else { read.time }
    }

    /// How far the wall clock has stepped away from control time, if that is more than [`MAX_STEP`].
    pub(crate) fn step(&self) -> Option<Span> {
        let read = self.received.read();
        let (wall, now) = (read.wall, self.at(read.monotonic));
        let away = if wall > now { wall.since(now) } else { now.since(wall) };
        (away > MAX_STEP).then_some(away)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Manual {
        wall: Arc<AtomicI64>,
        monotonic: Arc<AtomicI64>,
    }

    impl Clock for Manual {
        fn wall(&self) -> Timestamp {
            Timestamp::from_secs(self.wall.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> Span {
            Span::from_secs(self.monotonic.load(Ordering::Relaxed))
        }
    }

    /// Scenario: the wall clock steps an hour back, then two days ahead, while ten seconds pass.
    /// Guarantee: control time moves by ten seconds each, and the step is told.
    #[test]
    fn control_time_follows_the_monotonic_clock() {
        let manual = Manual::default();
        manual.wall.store(1_000_000, Ordering::Relaxed);
        manual.monotonic.store(77, Ordering::Relaxed);
        let (control, behind) = ControlClock::start(Box::new(manual.clone()), None);
        assert_eq!((control.now(), control.step(), behind), (Timestamp::from_secs(1_000_000), None, None));
        for (wall, passed, step) in [(996_400, 10, 3_610), (1_172_820, 20, 172_800)] {
            manual.wall.store(wall, Ordering::Relaxed);
            manual.monotonic.store(77 + passed, Ordering::Relaxed);
            assert_eq!(control.now(), Timestamp::from_secs(1_000_000 + passed));
            assert_eq!(control.step(), Some(Span::from_secs(step)));
        }
    }

    /// Scenario: a restart with a wall clock that is before, or after, what the ledger says.
    /// Guarantee: control time never runs backwards, and a clock that does is told.
    #[test]
    fn a_restart_goes_on_from_the_ledger() {
        let manual = Manual::default();
        manual.wall.store(500, Ordering::Relaxed);
        let (control, behind) =
            ControlClock::start(Box::new(manual.clone()), Some(Timestamp::from_secs(560)));
        assert_eq!((control.now(), behind), (Timestamp::from_secs(560), Some(Span::from_secs(60))));
        let (control, behind) = ControlClock::start(Box::new(manual), Some(Timestamp::from_secs(440)));
        assert_eq!((control.now(), behind), (Timestamp::from_secs(500), None));
    }
}
