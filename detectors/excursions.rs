//! What detectors say while a row is outside its band for long, and when it comes back.

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

/// Each detector with each side.
fn pairs() -> impl Iterator<Item = ((&'static str, usize, usize), (Policy, f64))> {
    LEARNED.into_iter().flat_map(|learned| sides().map(move |side| (learned, side)))
}
