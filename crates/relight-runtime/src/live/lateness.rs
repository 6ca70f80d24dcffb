//! Whether the points of a partition come later than `allowed_lateness` lets them: what is late does not count.
//!
//! The p99 of their delays exceeds what is allowed where more than one point in a hundred is late; so points in time are
//! counted, and of late ones the delay, in buckets of powers of two. One of the late points is kept as an example, so that
//! people know whose they are; a clock is never wrong by years, so a time that is tells which unit it was meant in. Says what
//! it sees and changes nothing.

use relight_core::record::{Point, Record};
use relight_core::series::KeyView;
use relight_core::{Span, Timestamp};

/// Two of these are looked at, so that what was late an hour ago is no news.
const WINDOW: Span = Span::from_secs(300);
/// Up to 2^20 s, twelve days; the last one has what is later.
const BUCKETS: usize = 21;
/// Of fewer points nothing is said: one of fifty is no p99.
const ENOUGH: u64 = 100;
/// Times that are in another unit than they should be, by what is missing to make sense of them.
const UNITS: [(i64, &str); 3] = [
    (1_000_000_000, "seconds where nanoseconds belong"),
    (1_000_000, "milliseconds where nanoseconds belong"),
    (1_000, "microseconds where nanoseconds belong, or seconds where milliseconds do"),
];
/// As far as a time may lie from now to be one in another unit.
const NEAR: Span = Span::from_secs(2 * 86_400);
/// Labels that say whose a point is, in the order in which they are looked for.
const SENDERS: [&str; 5] = ["service.name", "service", "job", "instance", "host"];
/// Bytes of a name that are shown.
const SHOWN_BYTES: usize = 80;

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
    example: Option<Example>,
}

/// One of the late points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    /// Its metric, and whose it is if it says so.
    pub(super) sender: String,
    /// The unit that its time is in, where it makes sense in another one only.
    pub(super) unit: Option<&'static str>,
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

    /// Counts a record that was taken in. `watermark` is its partition's as it stood before it; `key` gives the name of a point.
    pub(super) fn count<'k>(
        &mut self,
        record: &'k Record,
        late: u32,
        watermark: Timestamp,
        key: impl Fn(&'k Point) -> &'k [u8],
    ) {
        self.newest.points += record.points.len() as u64;
        if late == 0 {
            return;
        }
        for point in record.points.iter().filter(|point| point.at < watermark) {
            let delay = watermark.since(point.at).secs_f64() + self.allowed.secs_f64();
            self.newest.late[bucket(delay)] += 1;
            if self.newest.example.is_none() {
                self.newest.example = Some(Example::of(key(point), point.at, watermark));
            }
        }
    }

    /// One of the points that were late lately.
    pub(super) fn example(&self) -> Option<&Example> {
        self.newest.example.as_ref().or(self.before.example.as_ref())
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

impl Example {
    fn of(key: &[u8], at: Timestamp, now: Timestamp) -> Self {
        let unit = UNITS.iter().find(|(ns, _)| {
            let meant = at.ns().checked_mul(*ns).map(Timestamp::from_ns);
            meant.is_some_and(|meant| meant.since(now) <= NEAR && now.since(meant) <= NEAR)
        });
        Self { sender: sender(key), unit: unit.map(|(_, unit)| *unit) }
    }
}

/// A metric and whose it is; empty if the point has no name.
fn sender(key: &[u8]) -> String {
    if key.is_empty() {
        return String::new();
    }
    let key = KeyView::new(key);
    let shown = |text: &str| -> String {
        let front = &text[..text.floor_char_boundary(SHOWN_BYTES)];
        front.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    };
    let of = SENDERS.iter().find_map(|label| Some((label, key.get(label)?)));
    let of = of.map_or_else(String::new, |(label, value)| format!(" of {label} `{}`", shown(value)));
    format!("`{}`{of}", shown(key.name()))
}

fn bucket(delay_secs: f64) -> usize {
    (delay_secs.max(1.0).log2().ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;
    use relight_core::record::Kind;
    use relight_core::series::key_of;

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
        lateness.count(&record, late as u32, NOON, |point| record.key(point));
    }

    /// Scenario: times that are late by minutes, and times in seconds, milliseconds and microseconds where nanoseconds belong.
    /// Guarantee: the example names metric and sender, and the unit where one fits.
    #[test]
    fn a_wrong_unit_is_named() {
        let key = key_of("latency", &Labels::new([("job".to_owned(), "shop\n".to_owned())]));
        for (at, unit) in [
            (NOON.ns() / 1_000_000_000, Some(UNITS[0].1)),
            (NOON.ns() / 1_000_000 - 70_000, Some(UNITS[1].1)),
            (NOON.ns() / 1_000, Some(UNITS[2].1)),
            (NOON.ns() - 600_000_000_000, None),
            (0, None),
            (-5, None),
            (i64::MAX / 1_000, None),
        ] {
            let mut lateness = Lateness::new(ALLOWED);
            let mut record = Record::default();
            record.push_point(&key, Timestamp::from_ns(at), Timestamp::MIN, Kind::Gauge, 1.0);
            lateness.count(&record, 1, NOON, |point| record.key(point));
            let expected = Example { sender: "`latency` of job `shop?`".to_owned(), unit };
            assert_eq!(lateness.example(), Some(&expected), "{at}");
        }
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
