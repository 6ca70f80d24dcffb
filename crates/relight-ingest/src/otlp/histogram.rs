//! The buckets of a histogram, as relight keeps them.
//!
//! Only the buckets count: sum, minimum and maximum may be infinite or NaN, as those of an empty histogram are. A bound
//! that is infinite at an end, or NaN, bounds nothing, so the buckets beside it are one. Prometheus' own writing, in which
//! the last bound is +Inf and belongs to the open bucket, comes to the same.

use relight_core::record::Histogram;

use super::exponential;
use super::model::HistogramPoint;

/// The buckets of either kind of histogram, or what is wrong with them.
pub(super) fn of(point: &HistogramPoint<'_>, exponential: bool) -> Result<Histogram, &'static str> {
    let histogram = if exponential {
        exponential::explicit(point).ok_or("its scale is out of range")?
    } else {
        explicit(point)?
    };
    if histogram.total() == point.count.0 {
        Ok(histogram)
    } else {
        Err("its count is not the sum of its bucket counts")
    }
}

fn explicit(point: &HistogramPoint<'_>) -> Result<Histogram, &'static str> {
    let counts: Vec<u64> = point.bucket_counts.iter().map(|n| n.0).collect();
    let bounds = point.explicit_bounds.iter().map(|bound| bound.0).collect();
    // Without buckets the count is all there is.
    let counts = if counts.is_empty() { vec![point.count.0] } else { counts };
    let mut histogram = Histogram { bounds, counts };
    if histogram.is_valid() {
        return Ok(histogram);
    }
    if !histogram.bounds.iter().all(|bound| bound.is_finite()) {
        histogram = finite(histogram);
    }
    if histogram.is_valid() {
        Ok(histogram)
    } else if histogram.counts.len() == histogram.bounds.len() + 1 {
        Err("its bounds do not ascend")
    } else {
        Err("it has not one bucket more than bounds")
    }
}

/// The same without bounds that bound nothing.
fn finite(Histogram { bounds, mut counts }: Histogram) -> Histogram {
    if counts.len() == bounds.len() && bounds.last() == Some(&f64::INFINITY) {
        // The last bound's bucket is the open one; none is beyond it.
        counts.push(0);
    }
    let ascend = bounds.iter().filter(|bound| !bound.is_nan()).is_sorted();
    if counts.len() != bounds.len() + 1 || !ascend {
        return Histogram { bounds, counts };
    }
    let mut kept =
        Histogram { bounds: Vec::with_capacity(bounds.len()), counts: Vec::with_capacity(counts.len()) };
    let mut open = 0_u64;
    for (bound, count) in bounds.iter().zip(&counts) {
        open = open.saturating_add(*count);
        if bound.is_finite() {
            kept.bounds.push(*bound);
            kept.counts.push(std::mem::take(&mut open));
        }
    }
    kept.counts.push(open.saturating_add(counts.last().copied().unwrap_or_default()));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::value::{Float, Unsigned};

    fn check(bounds: &[f64], counts: &[u64], expected: Result<(&[f64], &[u64]), &str>) {
        let point = HistogramPoint {
            count: Unsigned(counts.iter().fold(0, |sum, n| sum.saturating_add(*n))),
            bucket_counts: counts.iter().copied().map(Unsigned).collect(),
            explicit_bounds: bounds.iter().copied().map(Float).collect(),
            ..HistogramPoint::default()
        };
        let expected =
            expected.map(|(bounds, counts)| Histogram { bounds: bounds.to_vec(), counts: counts.to_vec() });
        assert_eq!(of(&point, false), expected, "{bounds:?} {counts:?}");
    }

    /// Scenario: bounds that are infinite or NaN, at the ends and between others, with and without a bucket of their own.
    /// Guarantee: no observation is lost, those beside such a bound are in one bucket, and bounds out of order are refused.
    #[test]
    fn bounds_that_bound_nothing_are_left_out() {
        const INF: f64 = f64::INFINITY;
        check(&[5.0], &[4, 6], Ok((&[5.0], &[4, 6])));
        check(&[5.0, INF], &[4, 6, 0], Ok((&[5.0], &[4, 6])));
        check(&[5.0, INF], &[4, 6], Ok((&[5.0], &[4, 6])));
        check(&[5.0, INF], &[4, 6, 3], Ok((&[5.0], &[4, 9])));
        check(&[INF], &[7], Ok((&[], &[7])));
        check(&[INF], &[7, 0], Ok((&[], &[7])));
        check(&[-INF, 5.0, INF], &[1, 2, 3, 4], Ok((&[5.0], &[3, 7])));
        check(&[-INF, INF], &[1, 2], Ok((&[], &[3])));
        check(&[1.0, f64::NAN, 2.0], &[1, 2, 3, 4], Ok((&[1.0, 2.0], &[1, 5, 4])));
        check(&[f64::NAN], &[1, 2], Ok((&[], &[3])));
        check(&[1.0, INF], &[u64::MAX, u64::MAX, 1], Ok((&[1.0], &[u64::MAX, u64::MAX])));
        check(&[1.0, INF, 2.0], &[1, 2, 3, 4], Err("its bounds do not ascend"));
        check(&[2.0, 1.0, INF], &[1, 2, 3, 4], Err("its bounds do not ascend"));
        check(&[1.0, 2.0], &[1, 2], Err("it has not one bucket more than bounds"));
        check(&[1.0, f64::NAN], &[1, 2], Err("it has not one bucket more than bounds"));
        check(&[1.0, INF], &[1], Err("it has not one bucket more than bounds"));
    }
}
