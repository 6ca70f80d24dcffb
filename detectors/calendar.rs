//! Which hour of the local week a time falls into, daylight saving included.
//!
//! Holds no state of any row: it is a function of time and zone, remembered for a quarter of an hour,
//! so that a zone look-up is paid once in many bins and never per row.

use jiff::tz::TimeZone;
use relight_core::Timestamp;
use relight_core::detector::ConfigError;

/// Hours of a day.
pub(crate) const DAY: usize = 24;
/// Hours of a week.
pub(crate) const WEEK: usize = 7 * DAY;

// Offsets and transitions of all present zones are whole quarters of an hour, so within one nothing changes.
const QUARTER_NS: i64 = 900 * 1_000_000_000;

/// Where a time lies in the local week.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// Hour since Monday 00:00 local time, below [`WEEK`].
    pub(crate) hour: u8,
    /// How much of that hour is over, 0 to 1.
    pub(crate) over: f32,
}

impl Place {
    /// The half-hour of the local week.
    pub(crate) fn half(self) -> u16 {
        2 * u16::from(self.hour) + u16::from(self.over >= 0.5)
    }
}

/// Local hours of one zone.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    zone: TimeZone,
    /// Start of the quarter that is remembered.
    quarter: i64,
    place: Place,
}

impl Calendar {
    /// A calendar of an IANA zone (`Europe/Berlin`).
    pub(crate) fn new(zone: &str) -> Result<Self, ConfigError> {
        let zone = TimeZone::get(zone).map_err(|_| {
            ConfigError::at("zone", format!("no time zone `{zone}` (write it as `UTC` or `Europe/Berlin`)"))
        })?;
        // No quarter starts here, so the first look-up computes.
        Ok(Self { zone, quarter: i64::MIN, place: Place { hour: 0, over: 0.0 } })
    }

    /// The place of `at`. Civil time decides: the hour that a change to winter time repeats falls
    /// into the same slot twice, the one that a change to summer time skips is not visited.
    pub(crate) fn place(&mut self, at: Timestamp) -> Place {
        let into = at.ns().rem_euclid(QUARTER_NS);
        let quarter = at.ns().saturating_sub(into);
        if quarter != self.quarter {
            self.quarter = quarter;
            self.place = self.look_up(quarter);
        }
        Place { hour: self.place.hour, over: self.place.over + into as f32 / (4.0 * QUARTER_NS as f32) }
    }

    fn look_up(&self, ns: i64) -> Place {
        let secs = ns.div_euclid(1_000_000_000);
        let offset =
            jiff::Timestamp::from_second(secs).map_or(0, |at| i64::from(self.zone.to_offset(at).seconds()));
        let local = secs + offset;
        let hours = local.div_euclid(3600);
        // 1970-01-01 was a Thursday: three days after the Monday that a week starts with.
        let hour = (hours + 3 * DAY as i64).rem_euclid(WEEK as i64);
        Place { hour: hour as u8, over: local.rem_euclid(3600) as f32 / 3600.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zone: &str, at: &str, hour: usize, over: f32) {
        let mut calendar = Calendar::new(zone).expect("a zone");
        let at = at.parse().expect("a time");
        assert_eq!(calendar.place(at), Place { hour: hour as u8, over }, "{zone} {at}");
        assert_eq!(calendar.place(at), Place { hour: hour as u8, over }, "{zone} {at}, remembered");
    }

    #[test]
    fn weeks_start_on_monday_local_time() {
        check("UTC", "2026-11-23T00:00:00Z", 0, 0.0);
        check("UTC", "1970-01-01T00:30:00Z", 72, 0.5);
        check("UTC", "1969-12-31T23:00:00Z", 71, 0.0);
        check("Asia/Kolkata", "2026-11-22T18:45:00Z", 0, 0.25);
    }

    /// Scenario: the last Sunday of March and of October in Berlin, of 23 and of 25 hours.
    /// Guarantee: the hour after the change has its usual slot; 02:00 is skipped, then visited twice.
    #[test]
    fn both_transitions() {
        let sunday = 6 * DAY;
        check("Europe/Berlin", "2026-03-29T00:59:00Z", sunday + 1, 0.983_333_35);
        check("Europe/Berlin", "2026-03-29T01:00:00Z", sunday + 3, 0.0);
        check("Europe/Berlin", "2026-10-25T00:00:00Z", sunday + 2, 0.0);
        check("Europe/Berlin", "2026-10-25T01:00:00Z", sunday + 2, 0.0);
        check("Europe/Berlin", "2026-10-25T02:00:00Z", sunday + 3, 0.0);
    }

    /// Guarantee: a day of 23 hours visits 23 slots and one of 25 visits 24, one of them twice.
    #[test]
    fn short_and_long_days() {
        for (midnight, hours, slots) in [
            ("2026-03-28T23:00:00Z", 23, 23),
            ("2026-10-24T22:00:00Z", 25, 24),
            ("2026-11-22T23:00:00Z", 24, 24),
        ] {
            let mut calendar = Calendar::new("Europe/Berlin").expect("a zone");
            let start: Timestamp = midnight.parse().expect("a time");
            let mut seen: Vec<u8> = (0..hours)
                .map(|h| calendar.place(start.plus(relight_core::Span::from_secs(h * 3600))).hour)
                .collect();
            seen.dedup();
            assert_eq!(seen.len(), slots, "{midnight}");
        }
    }

    #[test]
    fn the_ends_of_time_have_a_place() {
        let mut calendar = Calendar::new("Europe/Berlin").expect("a zone");
        for ns in [i64::MIN, i64::MIN + 1, -1, i64::MAX] {
            let place = calendar.place(Timestamp::from_ns(ns));
            assert!(usize::from(place.hour) < WEEK && (0.0..=1.0).contains(&place.over));
        }
    }

    #[test]
    fn an_unknown_zone_is_an_error_at_its_key() {
        let error = Calendar::new("Mars/Olympus").expect_err("no such zone");
        assert_eq!(error.path, "zone");
    }
}
