//! Running totals: resets, corrections, first points, several writers.

use relight_core::record::Kind;

use super::{Outcome, Sample, fold, since, total};
use crate::counters::Fall;

/// Totals a cadence apart.
fn totals(cadence: f64, values: &[f64]) -> Vec<Sample> {
    (0..).zip(values).map(|(i, value)| total(f64::from(i) * cadence, *value)).collect()
}

fn check(samples: &[Sample], interval: f64, rates: &[(i64, f64)], falls: [u64; 3]) {
    let outcome = fold(samples, interval);
    assert_eq!((outcome.rates(), outcome.falls()), (rates.to_vec(), falls), "{samples:?}");
    assert_eq!(outcome.shared(), 0, "{samples:?}");
}

/// A steady counter with a fall in its middle: what came of the fall, and the increases from there on.
fn fall_of(before: f64, after: &[f64]) -> Outcome {
    let steady = (0..20).map(|i| before - 100.0 * f64::from(19 - i));
    let values: Vec<f64> = steady.chain(after.iter().copied()).collect();
    fold(&totals(10.0, &values), 10.0)
}

/// Scenario: a counter at 1e9 falls to about nothing, to zero and below zero; one that began lately falls by half.
/// Guarantee: each is a reset, which counts from zero: not from the value before, and not by 0.
#[test]
fn a_reset_counts_from_zero() {
    check(
        &totals(10.0, &[999_999_990.0, 1e9, 3.0, 13.0]),
        10.0,
        &[(10, 1.0), (20, 0.3), (30, 1.0)],
        [1, 0, 0],
    );
    check(&totals(10.0, &[10.0, -5.0, 5.0]), 10.0, &[(10, 0.0), (20, 1.0)], [1, 0, 0]);
    check(
        &totals(10.0, &[100.0, 200.0, 100.0, 200.0]),
        10.0,
        &[(10, 10.0), (20, 10.0), (30, 10.0)],
        [1, 0, 0],
    );
    // Two points of the reset in one bin.
    check(
        &totals(5.0, &[900.0, 950.0, 1_000.0, 30.0, 80.0, 130.0]),
        10.0,
        &[(0, 10.0), (10, 8.0), (20, 10.0)],
        [1, 0, 0],
    );
    // After an hour without a point.
    let mut gap = totals(10.0, &[1e6, 1e6 + 100.0, 1e6 + 200.0]);
    gap.push(total(3_620.0, 36_000.0));
    check(&gap, 10.0, &[(10, 10.0), (20, 10.0), (3_620, 10.0)], [1, 0, 0]);
}

/// Scenario: a new start while the total falls, and while it goes on rising; a start at the point's own time.
/// Guarantee: the new start counts from zero; one that says nothing is none.
#[test]
fn a_new_start_is_a_reset() {
    let rising = [since(-50.0, 0.0, 10.0), since(-50.0, 10.0, 20.0), since(15.0, 20.0, 30.0)];
    check(
        &[since(-2_000.0, 0.0, 10.0), rising[1].clone(), rising[2].clone()],
        10.0,
        &[(10, 1.0), (20, 3.0)],
        [1, 0, 0],
    );
    let falling = [since(-2_000.0, 0.0, 1e6), since(-2_000.0, 10.0, 1e6 + 100.0), since(12.0, 20.0, 9e5)];
    check(&falling, 10.0, &[(10, 10.0), (20, 9e4)], [1, 0, 0]);
    let own = [since(0.0, 0.0, 500.0), since(10.0, 10.0, 510.0), since(20.0, 20.0, 520.0)];
    check(&own, 10.0, &[(10, 1.0), (20, 1.0)], [0, 0, 0]);
}

/// Scenario: a process that restarts while the clock of whoever reads it is 2 s ahead: its start is before the last point.
/// Guarantee: it is a restart all the same, since the total could not have come to what it was since that start.
#[test]
fn a_start_by_another_clock_is_new() {
    let mut samples: Vec<Sample> =
        (0..20).map(|i| since(-90_000.0, f64::from(i) * 10.0, 9e5 + 100.0 * f64::from(i))).collect();
    samples.extend((0..5).map(|i| since(188.0, 200.0 + f64::from(i) * 10.0, 80.0 + 100.0 * f64::from(i))));
    let outcome = fold(&samples, 10.0);
    assert_eq!(outcome.falls(), [1, 0, 0]);
    assert_eq!(outcome.sum(), 1_900.0 + 480.0);
}

/// Scenario: totals at 1e3 to 1e15 fall by 3e-7 to 10 % and go on from there, or are back at the next point; with an
/// unchanged start, by half, too.
/// Guarantee: nothing counts at the fall, and the rate around it stays what it was.
#[test]
fn a_small_fall_is_a_correction() {
    for before in [1e4, 5e9, 1e15] {
        for share in [3e-7_f64, 1e-3, 0.1] {
            let low = before - (before * share).max(1.0);
            for after in [[low, low + 100.0, low + 200.0], [low, before + 200.0, before + 300.0]] {
                let outcome = fall_of(before, &after);
                assert_eq!(outcome.falls(), [0, 1, 0], "{before} {share}");
                let rates: Vec<f64> = outcome.rates().iter().map(|(_, rate)| *rate).collect();
                let steady = (before * 1e-15).max(1e-6);
                assert_eq!(rates.len(), 21, "{before} {share} {rates:?}");
                assert!(rates.iter().all(|rate| (rate - 10.0).abs() <= steady), "{before} {share} {rates:?}");
            }
        }
    }
    let with_start = |i: u32, value: f64| since(-9e6, f64::from(i) * 10.0, value);
    let steady = (0..10).map(|i| with_start(i, 1e6 + 100.0 * f64::from(i)));
    let halved = (10..20).map(|i| with_start(i, 5e5 + 100.0 * f64::from(i)));
    let outcome = fold(&steady.chain(halved).collect::<Vec<_>>(), 10.0);
    assert_eq!((outcome.falls(), outcome.sum()), ([0, 1, 0], 1_800.0));
}

/// Scenario: a steady counter falls to a quarter, much more than its pace would have brought since; then it goes on from
/// there, or is back.
/// Guarantee: nothing counts before it is clear; the first is found to be a reset only where the total is small.
#[test]
fn an_unexplained_fall_waits_for_the_next_points() {
    let on = |from: f64| -> Vec<f64> { (0..6).map(|i| from + 100.0 * f64::from(i)).collect() };
    let outcome = fall_of(1e6, &on(4e5));
    assert_eq!((outcome.falls(), outcome.sum()), ([0, 0, 1], 1_900.0 + 300.0));
    let outcome = fall_of(1e6, &on(1e4));
    assert_eq!((outcome.falls(), outcome.sum()), ([1, 0, 1], 1_900.0 + 1e4 + 500.0));
    let outcome = fall_of(1e6, &[4e5, 1e6 + 200.0, 1e6 + 300.0]);
    assert_eq!((outcome.falls(), outcome.sum()), ([0, 0, 1], 1_900.0 + 300.0));
}

/// Scenario: first points with a start of a moment, 60 s, 10 minutes and 2 hours ago, read every 10 s to 5 minutes; and
/// without one.
/// Guarantee: what came within the last few bins or points counts, over at least a bin; the rest does not.
#[test]
fn a_first_point_counts_since_a_recent_start() {
    let of = |start: f64, cadence: f64, interval: f64| {
        let samples: Vec<Sample> =
            (0..4).map(|i| since(start, f64::from(i) * cadence, 600.0 + 6.0 * f64::from(i))).collect();
        fold(&samples, interval)
    };
    let later = 18.0;
    for (start, cadence, interval, counts) in [
        (-0.001, 10.0, 10.0, true),
        (-25.0, 10.0, 10.0, true),
        (-60.0, 60.0, 10.0, true),
        (-300.0, 300.0, 10.0, true),
        (-300.0, 300.0, 60.0, true),
        (-600.0, 10.0, 10.0, false),
        (-60.0, 15.0, 10.0, false),
        (-7_200.0, 60.0, 60.0, false),
        (-7_200.0, 3_600.0, 10.0, false),
    ] {
        let outcome = of(start, cadence, interval);
        let expected = later + if counts { 600.0 } else { 0.0 };
        assert_eq!(outcome.sum(), expected, "{start} {cadence} {interval}");
        let most = outcome.rates().iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        assert!(most <= 600.0 / interval, "{start} {cadence} {interval}: {most}");
    }
    assert_eq!(fold(&totals(10.0, &[600.0, 606.0]), 10.0).sum(), 6.0);
    // Whoever falls before the distance of its points is known is as any other.
    let falls = [since(-100.0, 0.0, 600.0), since(-100.0, 60.0, 590.0), since(-100.0, 120.0, 596.0)];
    assert_eq!(fold(&falls, 10.0).falls(), [0, 1, 0]);
}

/// Two writers of a counter with 120 a second, 15 s apart each, the second one `lag` behind by its clock and `less` behind by
/// its total.
fn two(lag: f64, less: f64, n: u32, start: Option<f64>) -> Vec<Sample> {
    let of = |i: u32| {
        let (round, second) = (f64::from(i / 2), f64::from(i % 2));
        let at = round * 15.0 + second * lag;
        Sample { start, ..total(at, 1e6 + round * 1_800.0 - second * less) }
    };
    (0..n).map(of).collect()
}

/// Scenario: two writers under one name, with clocks 0.3 s to 9 s apart and totals that differ by little, by half and by
/// hundredfold; with and without a start.
/// Guarantee: no rate is far from one writer's own; after a few points they are named and the series has no data.
#[test]
fn two_writers_are_noticed() {
    for lag in [0.3, 0.7, 4.0, 7.5, 9.0] {
        for less in [875.0, 30.0, 2e5, 5e5, 9.5e5, 9.9e5] {
            for start in [None, Some(-90_000.0)] {
                let outcome = fold(&two(lag, less, 60, start), 10.0);
                let case = format!("{lag} {less} {start:?} {:?}", outcome.rates());
                assert!(outcome.is_named && outcome.shared() >= 40, "{} {case}", outcome.shared());
                let fast = outcome.rates().into_iter().filter(|(_, rate)| *rate > 250.0).count();
                assert_eq!(fast, 0, "{case}");
                assert!(outcome.rates().iter().all(|(at, _)| *at < 150), "{case}");
            }
        }
    }
}

/// Scenario: the same, but the first two points ever seen are the one that is behind and then the other: their distance looks
/// like an increase, and the fall behind it like a reset.
/// Guarantee: they are noticed within 16 points all the same.
#[test]
fn two_writers_whose_distance_looks_like_an_increase_are_noticed() {
    for lag in [0.7, 7.5] {
        for less in [875.0, 2e5, 5e5, 9.5e5] {
            let outcome = fold(&two(lag, less, 61, None)[1..], 10.0);
            let case = format!("{lag} {less} {:?} {:?}", outcome.falls(), outcome.rates());
            assert!(outcome.is_named && outcome.shared() >= 44, "{} {case}", outcome.shared());
        }
    }
}

/// Scenario: one of two writers ends.
/// Guarantee: the other one counts again after a while, and is not named any more.
#[test]
fn one_writer_that_is_left_counts_again() {
    let mut samples = two(0.7, 5e5, 40, None);
    samples.extend((20..60).map(|i| total(f64::from(i) * 15.0, 1e6 + f64::from(i) * 1_800.0)));
    let outcome = fold(&samples, 15.0);
    let after: Vec<f64> =
        outcome.rates().iter().filter(|(at, _)| *at >= 600).map(|(_, rate)| *rate).collect();
    assert!(after.len() >= 18 && after.iter().all(|rate| (rate - 120.0).abs() < 1e-6), "{after:?}");
}

/// Scenario: three writers in turn, and in any order.
/// Guarantee: as of two.
#[test]
fn three_writers_are_noticed() {
    for order in [[0, 1, 2, 0, 1, 2], [0, 2, 1, 2, 0, 1], [2, 1, 0, 2, 0, 1], [1, 0, 2, 1, 0, 2]] {
        let of = |i: u32| {
            let writer = f64::from(order[i as usize % 6]);
            let at = f64::from(i) * 5.0;
            total(at, 1e6 - 1.5e5 * writer + 10.0 * at)
        };
        let outcome = fold(&(0..120).map(of).collect::<Vec<_>>(), 10.0);
        assert!(outcome.is_named && outcome.shared() > 60, "{order:?} {}", outcome.shared());
        let looks_like_an_increase = order[0] > order[1];
        let most = outcome.rates().iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        assert!(most <= 20.0 || looks_like_an_increase, "{order:?} {most}");
    }
}

/// Scenario: one restart; a crash loop with a reset every 2 to 12 points, with rates of 0.1 to 1e6 a second.
/// Guarantee: that is no second writer, and each life counts.
#[test]
fn a_crash_loop_is_no_second_writer() {
    for cadence in [5.0, 15.0, 60.0] {
        for lives in [[2, 2, 2, 2], [3, 5, 2, 4], [12, 9, 10, 11], [2, 12, 3, 8]] {
            for rate in [0.1, 30.0, 1e6] {
                let lives = lives.iter().cycle().take(40);
                let ages = lives.flat_map(|n| (0..*n).map(|i| f64::from(i) * cadence + cadence * 0.4));
                let samples: Vec<Sample> =
                    ages.zip(0..).map(|(age, i)| total(f64::from(i) * cadence, age * rate)).collect();
                let outcome = fold(&samples, 10.0);
                assert_eq!(outcome.shared(), 0, "{cadence} {rate} {:?}", outcome.falls());
                let truth: f64 = samples
                    .windows(2)
                    .map(|w| if w[1].value < w[0].value { w[1].value } else { w[1].value - w[0].value })
                    .sum();
                let lost = truth - outcome.sum();
                assert!(lost.abs() <= truth * 0.02, "{cadence} {rate} {lost} of {truth}");
            }
        }
    }
}

/// Scenario: a process that restarts at every second point, with totals that differ by a few percent from life to life.
/// Guarantee: that is no second writer, in 5,000 lives.
#[test]
fn a_regular_crash_loop_is_no_second_writer() {
    let mut bits = 12_345_u64;
    let mut noise = || {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 40) as f64 / 16_777_216.0
    };
    let of = |i: u32| {
        let age = f64::from(i % 2) * 60.0 + 24.0;
        total(f64::from(i) * 60.0, (age * 50.0 * (0.95 + 0.1 * noise())).floor())
    };
    let outcome = fold(&(0..10_000).map(of).collect::<Vec<_>>(), 60.0);
    assert_eq!((outcome.shared(), outcome.falls()), (0, [4_999, 0, 0]));
}

/// Scenario: a nearly idle total that goes up and down by its rounding: of 32 bits, and of CPU times that are read one core
/// after the other.
/// Guarantee: corrections, and no second writer; the rate is about zero.
#[test]
fn rounding_is_no_second_writer() {
    let noise = [0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0, 0.0];
    for (base, step, rise) in [(5e9, 512.0, 0.0), (1_234.5, 0.01, 0.0), (1e6, 0.062_5, 0.000_1)] {
        let value = |i: u32| base + noise[i as usize % 8] * step + f64::from(i) * rise;
        let outcome = fold(&totals(10.0, &(0..200).map(value).collect::<Vec<_>>()), 10.0);
        assert!(outcome.shared() == 0 && outcome.falls()[0] == 0, "{:?}", outcome.falls());
        let most = outcome.rates().iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        assert!(most <= step, "{base} {most}");
    }
}

/// Guarantee: another kind is another stream: what was watched of the one before is forgotten.
#[test]
fn another_kind_is_another_stream() {
    let mut samples = totals(10.0, &[1e6, 1e6 + 100.0, 1e6 - 10.0]);
    let delta = |at, value| Sample { kind: Kind::Delta, ..total(at, value) };
    samples.extend([delta(30.0, 10.0), delta(40.0, 20.0), total(50.0, 2_000.0), total(60.0, 2_010.0)]);
    check(&samples, 10.0, &[(10, 10.0), (30, 1.0), (40, 2.0), (60, 1.0)], [0, 1, 0]);
    assert_eq!(Fall::ALL.map(Fall::name), ["reset", "correction", "unexplained"]);
}
