//! What every detector in the list must be, whoever wrote it.

use proptest::prelude::*;
use relight_core::codec::Reader;
use relight_core::detector::{Bank, BinColumn, DetectorSpec, Policy, Readings, Rhythm};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp};
use serde_json::json;

use crate::ALL;

fn signal() -> SignalInfo {
    SignalInfo { name: "s".to_owned(), interval: Span::from_secs(10) }
}

/// A bank of the defaults, and of a limit where that has none.
fn bank(spec: &DetectorSpec) -> Box<dyn Bank> {
    let mut config = (spec.defaults)();
    if spec.name == "threshold" {
        config["above"] = json!(150);
    }
    (spec.build)(&config, &Policy::default(), &signal()).expect("a good config").bank()
}

fn column<'a>(at: Timestamp, values: &'a [f64], missing: &'a [u32]) -> BinColumn<'a> {
    BinColumn { at, values, missing, rhythm: Rhythm::default() }
}

fn feed(bank: &mut dyn Bank, start: i64, values: &[f64]) -> Vec<(f64, f64, f64, f64)> {
    let mut out = Readings { all: Some(Vec::new()), ..Readings::default() };
    for (i, value) in values.iter().enumerate() {
        let at = Timestamp::from_secs(1_763_942_400 + 600 * (start + i as i64));
        bank.step(column(at, &[*value, f64::NAN], &[0, 9]), &mut out);
    }
    let all = out.all.expect("was asked for");
    let first = all.into_iter().filter(|r| r.row == 0);
    first
        .map(|r| (r.reading.score, r.reading.band.expected, r.reading.band.lower, r.reading.band.upper))
        .collect()
}

#[test]
fn names_are_unique_and_sorted() {
    assert!(ALL.is_sorted_by(|a, b| a.name < b.name));
}

/// Scenario: rows with a past; a step begins at the third, as if the second had panicked; the second is forgotten.
/// Guarantee: those before it are as they were, it is as new, and those behind it are as after a whole step.
#[test]
fn a_step_goes_on_behind_a_row_that_panicked() {
    for spec in ALL {
        let (mut whole, mut cut, mut before) = (bank(spec), bank(spec), bank(spec));
        for bank in [&mut whole, &mut cut, &mut before] {
            bank.grow(4);
            (0..300).for_each(|i| step(&mut **bank, i, 0));
        }
        step(&mut *whole, 300, 0);
        step(&mut *cut, 300, 2);
        cut.forget(1);
        let state = |bank: &dyn Bank, row: u32| {
            let mut bytes = Vec::new();
            bank.save(&[row], &mut bytes);
            (bytes, bank.last_score(row).to_bits())
        };
        let mut new = bank(spec);
        new.grow(4);
        for (row, expected) in [(0, &before), (1, &new), (2, &whole), (3, &whole)] {
            assert!(state(&*cut, row) == state(&**expected, row), "{}: row {row}", spec.name);
        }
    }
}

/// Steps four rows, one of them silent, from a row on.
fn step(bank: &mut dyn Bank, i: i64, row: usize) {
    let at = Timestamp::from_secs(1_763_942_400 + 600 * i);
    let values = [0.0, 1.0, 2.0, f64::NAN].map(|level| level + f64::from(i as i32 % 7));
    let mut out = Readings { row, ..Readings::default() };
    bank.step(column(at, &values, &[0, 0, 0, 9]), &mut out);
    assert_eq!(out.row, 0, "a step that ends says so");
}

#[test]
fn pages_have_the_fixed_headings() {
    for spec in ALL {
        let headings: Vec<&str> = spec.doc.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {}", spec.name);
        let expected =
            [title.as_str(), "## What it does", "## Use it when", "## Parameters", "## Example", "## Source"];
        assert_eq!(headings, expected, "{}.md", spec.name);
        assert!(spec.doc.contains("State: "), "{}.md does not state the size of its state", spec.name);
        assert!(spec.doc.contains(&format!("type: {}", spec.name)), "{}.md has no example", spec.name);
    }
}

/// Guarantee: each parameter and each field of the policy is on the page and in the schema.
#[test]
fn parameters_are_documented() {
    let policy = serde_json::to_value(Policy::default()).expect("plain fields");
    for spec in ALL {
        let defaults = (spec.defaults)();
        let schema = (spec.schema)();
        for key in defaults.as_object().expect("a config is a map").keys() {
            assert!(spec.doc.contains(&format!("| `{key}` |")), "{}.md lacks a row for {key}", spec.name);
            let described = schema["properties"][key]["description"].is_string();
            assert!(described, "{}.{key} has no description in the schema", spec.name);
        }
        for key in policy.as_object().expect("a policy is a map").keys() {
            assert!(spec.doc.contains(&format!("`{key}`")), "{}.md does not speak of {key}", spec.name);
        }
    }
}

#[test]
fn unknown_parameters_are_errors() {
    for spec in ALL {
        let wrong = (spec.build)(&json!({"half_lfe": 1}), &Policy::default(), &signal());
        let message = wrong.err().expect("unknown parameter").to_string();
        assert!(message.contains("half_lfe"), "{}: {message}", spec.name);
        bank(spec);
    }
}

/// Guarantee: state is kept across a reload unless a parameter that shapes it has changed.
#[test]
fn only_what_shapes_the_state_changes_its_shape() {
    let shape = |name: &str, config: &serde_json::Value| {
        let spec = ALL.iter().find(|spec| spec.name == name).expect("in the list");
        (spec.state_shape)(config)
    };
    for spec in ALL {
        assert_eq!((spec.state_shape)(&json!({})), (spec.state_shape)(&(spec.defaults)()), "{}", spec.name);
    }
    assert_eq!(shape("ewma", &json!({"threshold": 9})), shape("ewma", &json!({})));
    assert_ne!(shape("ewma", &json!({"half_life": "1h"})), shape("ewma", &json!({})));
    assert_ne!(shape("adaptive", &json!({"zone": "Asia/Tokyo"})), shape("adaptive", &json!({})));
    assert_ne!(shape("seasonal", &json!({"period": "day"})), shape("seasonal", &json!({})));
}

#[test]
fn wrong_values_are_errors_at_their_key() {
    let cases = [
        ("ewma", json!({"threshold": 0}), "threshold"),
        ("ewma", json!({"half_life": "0s"}), "half_life"),
        ("seasonal", json!({"zone": "Mars/Olympus"}), "zone"),
        ("seasonal", json!({"threshold": -1}), "threshold"),
        ("adaptive", json!({"zone": ""}), "zone"),
        ("changepoint", json!({"min_shift": 9}), "min_shift"),
        ("threshold", json!({}), "above"),
        ("threshold", json!({"hysteresis": 1}), "above"),
        ("threshold", json!({"above": 1, "below": 2}), "below"),
        ("threshold", json!({"above": 1, "below": 0, "hysteresis": 0.6}), "hysteresis"),
        ("absence", json!({"patience": 0}), "patience"),
    ];
    for (name, config, path) in cases {
        let spec = ALL.iter().find(|spec| spec.name == name).expect("in the list");
        let error = (spec.build)(&config, &Policy::default(), &signal()).err().expect("wrong");
        assert_eq!(error.path, path, "{name} {config}: {error}");
    }
}

/// Guarantee: the page says how large the state is, and it is.
#[test]
fn state_sizes_are_as_stated() {
    for spec in ALL {
        let mut bank = bank(spec);
        bank.grow(100_000);
        let mut bytes = Vec::new();
        bank.save(&[7], &mut bytes);
        let memory = bank.state_bytes() / 100_000;
        let most = if spec.name == "adaptive" { 480 } else { 220 };
        assert!(
            memory <= most && bytes.len() <= most,
            "{}: {memory} B, {} B on disk",
            spec.name,
            bytes.len()
        );
        println_size(spec.name, memory, bytes.len());
    }
}

#[expect(clippy::print_stdout, reason = "shown by `cargo test -- --nocapture`, where the figures are read")]
fn println_size(name: &str, memory: usize, disk: usize) {
    println!("{name}: {memory} B a row in memory, {disk} B on disk, guard and last score included");
}

/// Scenario: constants, then a step, then a spike, NaN for no data, then a saved and reloaded bank.
/// Guarantee: a reloaded bank saves the same bytes and goes on bit for bit like the one that was saved.
#[test]
fn state_survives_bit_for_bit() {
    for spec in ALL {
        let mut original = bank(spec);
        original.grow(2);
        let values: Vec<f64> =
            (0..700).map(|i| (f64::from(i) * 0.618_034).fract() / 3.0 + f64::from(i / 400)).collect();
        feed(original.as_mut(), 0, &values);
        feed(original.as_mut(), 700, &[1e12, f64::NAN, -0.0, 0.3]);
        let mut bytes = Vec::new();
        original.save(&[0, 1], &mut bytes);
        let mut copy = bank(spec);
        let mut reader = Reader::new(&bytes);
        copy.load(spec.state_version, 2, &mut reader).expect("own bytes");
        reader.finish().expect("all of them");
        let mut again = Vec::new();
        copy.save(&[0, 1], &mut again);
        assert_eq!(bytes, again, "{}", spec.name);
        let ours = format!("{:?}", feed(original.as_mut(), 704, &values));
        assert_eq!(ours, format!("{:?}", feed(copy.as_mut(), 704, &values)), "{}", spec.name);
    }
}

/// Scenario: a row with a history is evicted beside one that is not; a new one takes its place.
/// Guarantee: the new one is judged as the first row of a new bank, bit for bit, and the other as if nothing had
/// happened.
#[test]
fn a_forgotten_row_is_a_new_one() {
    let values: Vec<f64> =
        (0..300).map(|i| (f64::from(i) * 0.618_034).fract() + f64::from(i / 150)).collect();
    for spec in ALL {
        let (mut used, mut new) = (bank(spec), bank(spec));
        used.grow(2);
        used.forget(0);
        feed(used.as_mut(), 0, &values);
        let saved = |bank: &dyn Bank, row: u32| {
            let mut bytes = Vec::new();
            bank.save(&[row], &mut bytes);
            bytes
        };
        let other = saved(used.as_ref(), 1);
        used.forget(0);
        new.grow(2);
        assert_eq!(saved(used.as_ref(), 0), saved(new.as_ref(), 0), "{}", spec.name);
        assert_eq!(saved(used.as_ref(), 1), other, "{}", spec.name);
        let ours = format!("{:?}", feed(used.as_mut(), 300, &values));
        assert_eq!(ours, format!("{:?}", feed(new.as_mut(), 300, &values)), "{}", spec.name);
    }
}

#[test]
fn damaged_and_foreign_state_is_an_error() {
    for spec in ALL {
        let mut saved = bank(spec);
        saved.grow(1);
        let mut bytes = Vec::new();
        saved.save(&[0], &mut bytes);
        for cut in 0..bytes.len() {
            assert!(bank(spec).load(spec.state_version, 1, &mut Reader::new(&bytes[..cut])).is_err());
        }
        assert!(
            bank(spec).load(spec.state_version + 1, 1, &mut Reader::new(&bytes)).is_err(),
            "{}",
            spec.name
        );
    }
}

/// Values that monitoring data is not supposed to have and sooner or later does.
fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::MAX),
        Just(f64::MIN),
        Just(f64::MIN_POSITIVE / 4.0),
        Just(-0.0),
        Just(1e12),
        Just(f64::NAN),
        prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
        -1.0..1.0,
        Just(7.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Guarantee: no sequence of floats makes a detector panic or give a score that is no number,
    /// and afterwards it still finds its way back: two calm weeks end calm.
    #[test]
    fn c01_nan_inf(
        runs in prop::collection::vec((hostile(), 1_usize..40), 1..25),
        unordered in any::<bool>(),
    ) {
        for spec in ALL {
            let mut bank = bank(spec);
            bank.grow(2);
            let mut at = 0;
            for (value, n) in &runs {
                for (score, ..) in feed(bank.as_mut(), at, &vec![*value; *n]) {
                    prop_assert!(score.is_finite() && score >= 0.0, "{}: {score} at {value}", spec.name);
                }
                at += if unordered { -3 } else { *n as i64 };
            }
            // Two weeks at ten minutes, longer than any hold.
            let calm: Vec<f64> = (0..2016).map(|i| 10.0 + (f64::from(i) * 0.618_034).fract()).collect();
            let verdicts = feed(bank.as_mut(), at, &calm);
            let late = &verdicts[verdicts.len() - 100..];
            let loud = late.iter().filter(|v| v.0 > 1.02).count();
            // An hour of `seasonal` is corrected by its own later visits, which two weeks hold two of.
            let has_time = spec.name != "seasonal";
            prop_assert!(!has_time || loud <= 25, "{} does not calm down: {:?}", spec.name, late.last());
        }
    }
}
