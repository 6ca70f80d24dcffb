//! Whether the points of a partition come later than `allowed_lateness` lets them: what is late does not count.
//!
//! The p99 of their delays exceeds what is allowed where more than one point in a hundred is late; so points in time are
//! counted, and of late ones the delay, in buckets of powers of two. Says what it sees and changes nothing.

use relight_core::record::Record;
use relight_core::{Span, Timestamp};

/// Two of these are looked at, so that what was late an hour ago is no news.
const WINDOW: Span = Span::from_secs(300);
/// Up to 2^20 s, twelve days; the last one has what is later.
const BUCKETS: usize = 21;
/// Of fewer points nothing is said: one of fifty is no p99.
const ENOUGH: u64 = 100;

/// The newest points of one partition.
#[derive(Debug)]
pub(super) struct Lateness {
    allowed: Span,
    newest: Window,
    before: Window,
    ends: Option<Timestamp>,
    /// It was late at the last look.
    was_late: bool,
}

#[derive(Debug, Default)]
struct Window {
    points: u64,
    /// Late points by delay: up to 1 s, 2 s, 4 s and so on.
    late: [u64; BUCKETS],
}

impl Lateness {
    pub(super) fn new(allowed: Span) -> Self {
        Self { allowed, newest: Window::default(), before: Window::default(), ends: None, was_late: false }
    }

    /// Another bound: what was counted under the one before says nothing of it.
    pub(super) fn allow(&mut self, allowed: Span) {
        if self.allowed != allowed {
            *self = Self::new(allowed);
        }
    }

    /// Counts a record that was taken in. `watermark` is its partition's as it stood before it.
    pub(super) fn count(&mut self, record: &Record, late: u32, watermark: Timestamp) {
        self.newest.points += record.points.len() as u64;
        if late == 0 {
            return;
        }
        for point in record.points.iter().filter(|point| point.at < watermark) {
            let delay = watermark.since(point.at).secs_f64() + self.allowed.secs_f64();
            self.newest.late[bucket(delay)] += 1;
        }
    }

    /// The p99 of the delays, rounded up to a power of two, while it exceeds what is allowed.
    pub(super) fn p99(&self) -> Option<Span> {
        let points = self.newest.points + self.before.points;
        let late = |i: usize| self.newest.late[i] + self.before.late[i];
        // From the latest on, until one in a hundred is passed.
        let mut seen = 0;
        let found = (0..BUCKETS).rev().find(|i| {
            seen += late(*i);
            seen * 100 > points
        })?;
        (points >= ENOUGH).then(|| Span::from_secs(1 << found))
    }

    /// Lets go of what is long ago. Whether the p99 has come to exceed what is allowed since the last look.
    pub(super) fn look(&mut self, now: Timestamp) -> bool {
        if *self.ends.get_or_insert(now.plus(WINDOW)) <= now {
            self.before = std::mem::take(&mut self.newest);
            self.ends = Some(now.plus(WINDOW));
        }
        let is_late = self.p99().is_some();
        !std::mem::replace(&mut self.was_late, is_late) && is_late
    }
}

fn bucket(delay_secs: f64) -> usize {
    (delay_secs.max(1.0).log2().ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use relight_core::record::Kind;

    use super::*;

    const ALLOWED: Span = Span::from_secs(10);
    const NOON: Timestamp = Timestamp::from_secs(1_764_000_000);

    /// Counts `points`, of which `late` are so many seconds behind the watermark.
    fn count(lateness: &mut Lateness, points: usize, late: usize, behind: i64) {
        let mut record = Record::default();
        for i in 0..points {
            let at = if i < late { NOON.minus(Span::from_secs(behind)) } else { NOON };
            record.push_point(b"a", at, Timestamp::MIN, Kind::Gauge, 1.0);
        }
        lateness.count(&record, late as u32, NOON);
    }

    /// Guarantee: more than one late point in a hundred is told, with a delay that 99 of 100 stay within; one is not, and
    /// neither are too few to tell.
    #[test]
    fn one_in_a_hundred_may_be_late() {
        for (points, late, behind, expected) in [
            (99, 50, 20, None),
            (1_000, 0, 0, None),
            (1_000, 10, 20, None),
            (1_000, 11, 20, Some(32)),
            (1_000, 11, 1, Some(16)),
            (1_000, 500, 100_000_000, Some(1 << 20)),
        ] {
            let mut lateness = Lateness::new(ALLOWED);
            count(&mut lateness, points, late, behind);
            let expected = expected.map(Span::from_secs);
            assert_eq!(lateness.p99(), expected, "{late} of {points} {behind} s behind");
        }
        let mut lateness = Lateness::new(ALLOWED);
        count(&mut lateness, 1_000, 30, 20);
        count(&mut lateness, 1_000, 12, 1_000);
        assert_eq!(lateness.p99(), Some(Span::from_secs(32)), "20 of 2,000 would be one in a hundred");
    }

    /// Scenario: late for a while, then in time, then late again.
    /// Guarantee: told once each time; after two windows in time it is forgotten.
    #[test]
    fn what_was_late_is_forgotten() {
        let mut lateness = Lateness::new(ALLOWED);
        let at = |windows: i64| NOON.plus(Span::from_secs(300 * windows));
        assert!(!lateness.look(at(0)));
        count(&mut lateness, 1_000, 500, 20);
        assert!(lateness.look(at(0)));
        assert!(!lateness.look(at(1)), "it was told");
        assert!(lateness.p99().is_some());
        count(&mut lateness, 1_000, 0, 0);
        assert!(!lateness.look(at(2)));
        assert_eq!(lateness.p99(), None);
        count(&mut lateness, 1_000, 500, 20);
        assert!(lateness.look(at(2)));
    }
}
