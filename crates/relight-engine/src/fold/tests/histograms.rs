//! Running histograms: resets by their count, corrections of a bucket, bounds that change, scales that change.

use relight_core::record::{Histogram, Kind, exponential_bound};

use super::{Sample, fold, since};

fn sample(at: f64, start: Option<f64>, bounds: &[f64], counts: &[u64]) -> Sample {
    let histogram = Some(Histogram { bounds: bounds.to_vec(), counts: counts.to_vec() });
    Sample { at, start, kind: Kind::CumulativeHistogram, value: 0.0, histogram }
}

/// Points 10 s apart with a start of long ago.
fn check(points: &[(&[f64], &[u64])], increases: &[Option<f64>], falls: [u64; 3]) {
    for start in [None, Some(-90_000.0)] {
        let samples: Vec<Sample> = (0..)
            .zip(points)
            .map(|(i, (bounds, counts))| sample(f64::from(i) * 10.0, start, bounds, counts))
            .collect();
        let outcome = fold(&samples, 10.0);
        let found: Vec<Option<f64>> = outcome.bins.iter().map(|bin| bin.increase).collect();
        assert_eq!((&found[..], outcome.falls()), (increases, falls), "{points:?}");
        for (bin, increase) in outcome.bins.iter().zip(increases) {
            let observed = bin.buckets.as_ref().map(Histogram::total);
            assert!(observed.is_none_or(|n| n as f64 >= increase.unwrap_or(0.0)), "{bin:?}");
        }
    }
}

/// Scenario: one bucket falls while the count rises; then the count itself falls by little, by itself and for good.
/// Guarantee: no reset: the count's increase counts, and what a bucket lost is a correction.
#[test]
fn a_bucket_that_falls_is_a_correction() {
    let bounds: &[f64] = &[1.0, 2.0];
    let points: &[(&[f64], &[u64])] = &[
        (bounds, &[1_000, 500, 20]),
        (bounds, &[1_008, 502, 20]),
        (bounds, &[1_020, 500, 20]),
        (bounds, &[1_010, 500, 20]),
        (bounds, &[1_020, 500, 20]),
        (bounds, &[1_030, 500, 20]),
    ];
    check(points, &[None, Some(10.0), Some(10.0), None, Some(10.0), Some(10.0)], [0, 2, 0]);
}

/// Scenario: a process starts anew, by its start, and by its count alone.
/// Guarantee: its buckets count from zero.
#[test]
fn a_reset_counts_all_buckets() {
    let bounds = [1.0, 2.0];
    for start in [None, Some(12.0)] {
        let before = start.map(|_| -90_000.0);
        let samples = [
            sample(0.0, before, &bounds, &[1_000, 500, 20]),
            sample(10.0, before, &bounds, &[1_010, 500, 20]),
            sample(20.0, start, &bounds, &[6, 3, 1]),
        ];
        let outcome = fold(&samples, 10.0);
        assert_eq!(outcome.bins[2].increase, Some(10.0));
        assert_eq!(outcome.bins[2].buckets.as_ref().map(|h| h.counts.clone()), Some(vec![6, 3, 1]));
        assert_eq!(outcome.falls(), [1, 0, 0]);
    }
}

/// Scenario: explicit bounds change; with a new start, too.
/// Guarantee: that is another stream, of which nothing is known but what came since its start.
#[test]
fn other_bounds_are_another_stream() {
    let (old, new): (&[f64], &[f64]) = (&[1.0, 3.0], &[1.0, 2.0, 3.0]);
    let points: &[(&[f64], &[u64])] = &[
        (old, &[1_000, 500, 20]),
        (old, &[1_010, 500, 20]),
        (new, &[1_015, 200, 305, 20]),
        (new, &[1_025, 200, 305, 20]),
    ];
    check(points, &[None, Some(10.0), None, Some(10.0)], [0, 0, 0]);
    let restart = [sample(0.0, Some(-9e4), old, &[9, 9, 9]), sample(10.0, Some(5.0), new, &[3, 2, 1, 0])];
    assert_eq!(fold(&restart, 10.0).bins[1].increase, Some(6.0));
}

/// Scenario: the first point of a histogram whose start is 20 s, 60 s and an hour ago, 60 s apart.
/// Guarantee: as of a counter, and its buckets likewise.
#[test]
fn a_first_histogram_counts_since_a_recent_start() {
    for (start, first, second) in
        [(-20.0, Some(10.0), Some(2.0)), (-60.0, None, Some(12.0)), (-3_600.0, None, Some(2.0))]
    {
        let of = |at, counts: &[u64]| sample(at, Some(start), &[1.0], counts);
        let outcome = fold(&[of(0.0, &[7, 3]), of(60.0, &[8, 4])], 10.0);
        let increases: Vec<Option<f64>> = outcome.bins.iter().map(|bin| bin.increase).collect();
        assert_eq!(increases, [first, second], "{start}");
        let observed = |bin: usize| outcome.bins[bin].buckets.as_ref().map(|h| h.total() as f64);
        assert_eq!([observed(0), observed(1)], [first, second], "{start}");
    }
    assert_eq!(since(-1.0, 0.0, 1.0).start, Some(-1.0));
}

/// Scenario: an exponential histogram becomes coarser, then finer, then widens its zero bucket, then has values below zero.
/// Guarantee: each bin has what came in it, in the bounds that both points have.
#[test]
fn scales_and_zero_buckets_may_change() {
    let bound = |quarters: i64| exponential_bound(quarters);
    let fine = [0.0, bound(0), bound(1), bound(2), bound(3), bound(4)];
    let coarse = [0.0, bound(0), bound(2), bound(4)];
    let wide = [bound(2), bound(4)];
    let below = [-bound(4), -bound(2), bound(2), bound(4)];
    let points: &[(&[f64], &[u64])] = &[
        (&fine, &[1, 10, 100, 1_000, 100, 10, 1]),
        (&coarse, &[2, 10, 1_105, 111, 1]),
        (&fine, &[2, 10, 101, 1_010, 101, 11, 1]),
        (&wide, &[1_130, 115, 2]),
        (&below, &[0, 1, 1_130, 116, 2]),
    ];
    check(points, &[None, Some(7.0), Some(7.0), Some(11.0), Some(2.0)], [0, 0, 0]);
}
