//! Exponential histograms as explicit ones.
//!
//! An exponential histogram moves and widens its buckets as observations come, so two points of one
//! series seldom have the same bounds, and counts of different buckets cannot be subtracted. Therefore
//! every one is put into the same fixed buckets: four to each doubling (scale 2, 19 % wide) from 2^-20
//! to 2^40, which holds a microsecond in seconds and a terabyte in bytes. Buckets of scale 2 and finer
//! nest in these exactly; one that is coarser, or that straddles nothing finer, goes where its upper
//! end is. What is zero or below is one bucket, and what is above is the open one.

use relight_core::record::Histogram;

use super::model::{Buckets, HistogramPoint};
use super::value::{Small, Unsigned};

const PER_DOUBLING: i64 = 4;
const LOWEST: i64 = -20 * PER_DOUBLING;
const HIGHEST: i64 = 40 * PER_DOUBLING;
/// How many buckets the explicit form has.
pub(super) const BUCKETS: usize = (HIGHEST - LOWEST) as usize + 3;
/// The range of scales that the protocol's own implementations use.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// The explicit form; `None` if scale or offsets make no sense.
pub(super) fn explicit(point: &HistogramPoint<'_>) -> Option<Histogram> {
    let scale = point.scale.unwrap_or_default().0;
    if !SCALES.contains(&scale) {
        return None;
    }
    let quarters = (LOWEST..=HIGHEST).map(|quarter| (quarter as f64 / PER_DOUBLING as f64).exp2());
    let bounds: Vec<f64> = std::iter::once(0.0).chain(quarters).collect();
    let mut counts = vec![0_u64; bounds.len() + 1];
    let not_above_zero = point.negative.iter().flat_map(|buckets| &buckets.bucket_counts).map(|n| n.0);
    counts[0] = not_above_zero.fold(point.zero_count.0, u64::saturating_add);
    if let Some(positive) = &point.positive {
        for (i, n) in positive.bucket_counts.iter().enumerate() {
            let index = i64::from(positive.offset.0) + i as i64;
            let slot = &mut counts[slot(index, scale)];
            *slot = slot.saturating_add(n.0);
        }
    }
    Some(Histogram { bounds, counts })
}

/// The same of buckets as others count them: those above zero with the offset of the first, and those below.
pub(crate) fn of_buckets(
    scale: i32,
    zero_count: u64,
    (offset, positive): (i32, &[u64]),
    negative: &[u64],
) -> Option<Histogram> {
    let counts = |counts: &[u64]| counts.iter().copied().map(Unsigned).collect();
    explicit(&HistogramPoint {
        scale: Some(Small(scale)),
        zero_count: Unsigned(zero_count),
        positive: Some(Buckets { offset: Small(offset), bucket_counts: counts(positive) }),
        negative: Some(Buckets { offset: Small::default(), bucket_counts: counts(negative) }),
        ..HistogramPoint::default()
    })
}

/// Where the bucket that ends at 2^((index + 1) / 2^scale) goes.
fn slot(index: i64, scale: i32) -> usize {
    let end = index + 1;
    let quarters = if scale >= 2 {
        // Rounded up: the bound that its upper end does not pass.
        -((-end) >> (scale - 2))
    } else {
        end.saturating_mul(1 << (2 - scale))
    };
    // Slot 0 ends at zero, slot 1 at the lowest bound.
    (quarters.clamp(LOWEST, HIGHEST + 1) - LOWEST + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: at every scale, a bucket's upper end lies in the slot it is put into.
    #[test]
    fn buckets_go_where_they_end() {
        let bound = |slot: usize| ((LOWEST + slot as i64 - 1) as f64 / PER_DOUBLING as f64).exp2();
        for scale in SCALES {
            for index in -500..500 {
                let end = ((index + 1) as f64 * f64::from(-scale).exp2()).exp2();
                let slot = slot(index, scale);
                if end <= bound(1) {
                    assert_eq!(slot, 1, "scale {scale} index {index}");
                } else if end > bound((HIGHEST - LOWEST + 1) as usize) * (1.0 + 1e-9) {
                    assert_eq!(slot as i64, HIGHEST - LOWEST + 2, "scale {scale} index {index}");
                } else {
                    let within = end <= bound(slot) * (1.0 + 1e-9) && end > bound(slot - 1) * (1.0 - 1e-9);
                    assert!(within, "scale {scale} index {index}: {end} in slot {slot}");
                }
            }
        }
        assert_eq!(slot(i64::from(i32::MIN), 20), slot(i64::from(i32::MIN), -10));
        assert_eq!(slot(i64::from(i32::MAX), -10) as i64, HIGHEST - LOWEST + 2);
    }
}
