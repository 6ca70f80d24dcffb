//! What moves a band, and when: never the value that is judged, and no value while a row is held.

use relight_core::detector::Policy;
use serde_json::json;

use crate::guarantees::Row;

/// Detectors that expect a value, and how many values they are taught.
const LEARNERS: [(&str, usize); 3] = [("ewma", 60), ("adaptive", 400), ("seasonal", 100_000)];
const CALM_BINS: u32 = 7;

/// Low enough in the band of its neighbours, and never the same twice in a row.
fn quiet(i: usize) -> f64 {
    10.0 + [0.0, 1.0, 0.4][i % 3]
}

/// A row that was taught, and the next of its values.
fn taught(name: &str, values: usize) -> (Row, usize) {
    let policy = Policy { calm_bins: CALM_BINS, ..Policy::default() };
    let mut row = Row::with(name, &json!({}), 10, &policy);
    for i in 0..values {
        row.feed(quiet(i));
    }
    (row, values)
}

fn expected(row: &mut Row, value: f64) -> f64 {
    row.feed(value).reading.band.expected
}

/// Scenario: two rows with one past; the next value of one is a spike.
/// Guarantee: the value that was expected in its place is the same, to the last bit.
#[test]
fn a_spike_does_not_move_the_band_that_judges_it() {
    for (name, values) in LEARNERS {
        let ((mut calm, next), (mut other, _)) = (taught(name, values), taught(name, values));
        let spike = other.feed(60.0);
        assert!(spike.reading.is_anomalous(), "{name}");
        assert_eq!(
            spike.reading.band.expected.to_bits(),
            expected(&mut calm, quiet(next)).to_bits(),
            "{name}"
        );
        assert!((10.0..=11.0).contains(&spike.reading.band.expected), "{name}");
    }
}

/// Scenario: after a spike the values settle a third of the band higher, for `calm_bins` values and more.
/// Guarantee: what is expected does not move before `calm_bins` values were in band, and then it does.
#[test]
fn nothing_is_learned_while_it_calms_down() {
    for (name, values) in LEARNERS {
        let (mut row, _) = taught(name, values);
        let spike = row.feed(60.0).reading;
        assert!(spike.is_anomalous(), "{name}");
        let higher = spike.band.expected + (spike.band.upper - spike.band.expected) / 3.0;
        for bin in 0..CALM_BINS {
            let reading = row.feed(higher).reading;
            assert!(!reading.is_anomalous(), "{name}, bin {bin}");
            assert!(
                (reading.band.expected - spike.band.expected).abs() < 1e-9,
                "{name}, bin {bin}: it has learned"
            );
        }
        if name == "seasonal" {
            // A slot remembers weeks: a few values do not show in it.
            continue;
        }
        let before = expected(&mut row, higher);
        for _ in 0..20 {
            row.feed(higher);
        }
        assert!(expected(&mut row, higher) > before, "{name}: it learns no more");
    }
}
