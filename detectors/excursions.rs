//! What detectors say while a row is outside its band for long, and when it comes back.

use relight_core::Timestamp;
use relight_core::detector::{Direction, Policy, RowReading};
use serde_json::json;

use crate::guarantees::{Row, noise};

/// A detector, after how many values it knows a row well, and how many it takes to tell a shift.
const LEARNED: [(&str, usize, usize); 4] =
    [("ewma", 500, 0), ("adaptive", 3000, 0), ("seasonal", 17_280, 0), ("changepoint", 500, 6)];

/// What to look at, and a level that a row at 100 leaves for on that side.
fn sides() -> impl Iterator<Item = (Policy, f64)> {
    use Direction::{Above, Below, Both};
    let sides = [(Both, 1000.0), (Both, 10.0), (Above, 1000.0), (Below, 10.0)];
    sides.into_iter().flat_map(|(direction, level)| {
        [0.0, 40.0].map(|min_deviation| (Policy { direction, min_deviation, ..Policy::default() }, level))
    })
}

/// A row at 100 with noise for so many values.
fn settled(name: &str, values: usize, policy: &Policy) -> Row {
    let mut row = Row::with(name, &json!({}), 10, policy);
    for i in 0..values {
        row.feed(100.0 + noise(i));
    }
    row
}

/// Scenario: a level with noise that rises tenfold, or falls to a tenth, for three hours, and is looked at from both
/// sides or from that one.
/// Guarantee: it stays anomalous throughout, in the band of its onset, and is the new normal after six.
#[test]
fn c21_sustained_anomaly() {
    for ((name, before, delay), (policy, level)) in pairs() {
        let what = format!("{name} {policy:?} to {level}");
        let mut row = settled(name, before, &policy);
        let onset = row.feed(level).reading.band;
        for i in 0..3 * 360 {
            let verdict = row.feed(level + noise(i));
            assert!(i < delay || verdict.reading.is_anomalous(), "{what}: bin {i} {verdict:?}");
            assert!((verdict.reading.band.expected - onset.expected).abs() < 1.0, "{what}: the band moved");
        }
        let after: Vec<RowReading> = (0..4 * 360).map(|i| row.feed(level + noise(i))).collect();
        assert_eq!(after.iter().filter(|v| v.relearned).count(), 1, "{what}");
        assert!(after[after.len() - 300..].iter().all(|v| v.reading.score <= 1.02), "{what}");
    }
}

/// Scenario: a row leaves its band, says nothing for eight hours, and is still outside when it speaks again; now and then
/// it falls silent once more.
/// Guarantee: only time with values counts: it is the new normal after six hours of them, however long that takes.
#[test]
fn silence_is_no_time_outside_the_band() {
    for (name, before, delay) in LEARNED {
        let mut row = settled(name, before, &Policy::default());
        let mut seen = 0;
        let relearned = (0..7 * 360).find(|i| {
            if i % 300 == 10 {
                row.pause(8 * 360);
            }
            seen += 1;
            row.feed(1000.0 + noise(*i)).relearned
        });
        assert!(relearned.is_some(), "{name}: never");
        // A silence counts as two values, after which the row was stale.
        let held = seen + seen / 300;
        assert!((2160..=2162 + delay).contains(&held), "{name}: after {seen} values");
    }
}

/// Scenario: an earlier capture with eight hours of silence between two values outside the band.
/// Guarantee: what it teaches a row is the normal before them.
#[test]
fn silence_in_a_history_teaches_no_new_normal() {
    for name in ["ewma", "adaptive", "changepoint"] {
        let mut row = Row::new(name, &json!({}), 10);
        let start = row.at - 10 * 4000;
        let at = |i: usize| start + 10 * i as i64 - if i < 900 { 8 * 3600 } else { 0 };
        let value = |i: usize| noise(i) + if (894..906).contains(&i) { 1000.0 } else { 100.0 };
        let history: Vec<(Timestamp, f64)> =
            (0..1000).map(|i| (Timestamp::from_secs(at(i)), value(i))).collect();
        row.bank.seed(0, Timestamp::from_secs(row.at), &history);
        assert_eq!(row.bank.warming().0, 0, "{name} has learned something");
        let verdict = row.feed(100.0);
        let error = (verdict.reading.band.expected - 100.0).abs();
        assert!(error < 1.0 && !verdict.reading.is_anomalous(), "{name}: {verdict:?}");
    }
}

/// Scenario: a shift that ends after an hour.
/// Guarantee: the row is back at once, and not anomalous for having come back.
#[test]
fn coming_back_is_no_anomaly() {
    for ((name, ..), (policy, level)) in pairs().filter(|((name, ..), _)| ["ewma", "adaptive"].contains(name))
    {
        let what = format!("{name} {policy:?} from {level}");
        let mut row = settled(name, 3000, &policy);
        for i in 0..360 {
            assert!(row.feed(level + noise(i)).reading.is_anomalous(), "{what}: bin {i} of the shift");
        }
        for i in 0..2000 {
            let verdict = row.feed(100.0 + noise(i));
            assert!(verdict.reading.score <= 1.02, "{what}: bin {i} {verdict:?}");
        }
    }
}

/// Scenario: a row rises, or falls, by its noise for an hour and comes back; it is looked at from both sides and from each.
/// Guarantee: who looks at the side where it went is told the same as who looks at both, value by value, and who looks
/// at the other is told nothing, least of all that it came back.
#[test]
fn a_side_has_its_own_evidence() {
    let told = |direction: Direction, shift: f64| -> Vec<bool> {
        let mut row = settled("changepoint", 2000, &Policy { direction, ..Policy::default() });
        let shifted = |i: usize| row.feed(100.0 + noise(i) + if i < 360 { shift } else { 0.0 });
        (0..1000).map(shifted).map(|verdict| verdict.reading.is_anomalous()).collect()
    };
    for (side, other, shift) in
        [(Direction::Above, Direction::Below, 0.5), (Direction::Below, Direction::Above, -0.5)]
    {
        let both = told(Direction::Both, shift);
        assert!(both[30..360].iter().all(|told| *told) && !both[420..].contains(&true), "{shift}: {both:?}");
        assert_eq!(told(side, shift), both, "{side:?} of {shift}");
        assert!(!told(other, shift).contains(&true), "{other:?} of {shift}");
        assert!(!told(other, 20.0 * shift).contains(&true), "{other:?} of {}", 20.0 * shift);
    }
}

/// Each detector with each side.
fn pairs() -> impl Iterator<Item = ((&'static str, usize, usize), (Policy, f64))> {
    LEARNED.into_iter().flat_map(|learned| sides().map(move |side| (learned, side)))
}
