//! Exponential histograms as explicit ones whose bounds nest.
//!
//! An exponential histogram moves, widens and merges its buckets as observations come. Two points of one series can be
//! compared all the same if each is put into buckets that are made of those of every finer one: powers of two whose
//! exponents are multiples of a quarter (scale 2, 19 % wide), a half, one, two and so on, by the point's scale, from 2^-20
//! to 2^40, which holds a microsecond in seconds and a terabyte in bytes. Scales finer than 2 are put into those of scale
//! 2. The bounds below the zero threshold are left out. What two points have in common are then the bounds of the coarser
//! scale above the wider zero bucket ([`Histogram::common_bounds`]).
//!
//! Buckets below zero are mirrored, if there are any; else what is zero or below is one bucket. What is above is the open
//! one.

use relight_core::record::{Histogram, exponential_bound};

use super::model::{Buckets, HistogramPoint};
use super::value::{Float, Small, Unsigned};

const PER_DOUBLING: i64 = 4;
const LOWEST: i64 = -20 * PER_DOUBLING;
const HIGHEST: i64 = 40 * PER_DOUBLING;
/// How many buckets the explicit form has at most on either side of zero, the one of zero included.
const BUCKETS: usize = (HIGHEST - LOWEST) as usize + 3;
/// The finest scale that is kept.
const FINEST: i32 = 2;
/// The range of scales that the protocol's own implementations use.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// How many buckets the explicit form has at most.
pub(super) fn size(point: &HistogramPoint<'_>) -> usize {
    if has_negative(point) { 2 * BUCKETS } else { BUCKETS }
}

/// The explicit form; `None` if the scale makes no sense.
pub(super) fn explicit(point: &HistogramPoint<'_>) -> Option<Histogram> {
    let scale = point.scale.unwrap_or_default().0;
    if !SCALES.contains(&scale) {
        return None;
    }
    // One that makes no sense is none, and so is one below all bounds, such as 2^-128 of Prometheus' clients.
    let least = exponential_bound(LOWEST);
    let threshold = Some(point.zero_threshold.0).filter(|threshold| *threshold >= least).unwrap_or(0.0);
    let grid = Grid::new(scale, threshold);
    let below = if has_negative(point) { grid.len() } else { 0 };
    let mirrored = grid.quarters().rev().map(|quarters| -exponential_bound(quarters)).take(below);
    let zero = (threshold == 0.0).then_some(0.0);
    let bounds: Vec<f64> = mirrored.chain(zero).chain(grid.quarters().map(exponential_bound)).collect();
    let mut counts = vec![0_u64; bounds.len() + 1];
    let mut put = |slot: usize, n: u64| counts[slot] = counts[slot].saturating_add(n);
    // The zero bucket ends at zero, or at the first bound above it where there is a threshold.
    put(below, point.zero_count.0);
    let above = below + usize::from(zero.is_some());
    for (index, n) in of(point.positive.as_ref()) {
        put(above + grid.above(index), n);
    }
    for (index, n) in of(point.negative.as_ref()) {
        put(if below == 0 { 0 } else { below - grid.below(index) }, n);
    }
    Some(Histogram { bounds, counts })
}

/// Buckets as others count them: how many lie around zero, how wide that is, and those above and below with the offset of
/// the first.
pub(crate) struct Counted<'a> {
    pub(crate) scale: i32,
    pub(crate) zero: (u64, f64),
    pub(crate) positive: (i32, &'a [u64]),
    pub(crate) negative: (i32, &'a [u64]),
}

/// The explicit form of such buckets.
pub(crate) fn of_buckets(counted: &Counted<'_>) -> Option<Histogram> {
    let Counted { scale, zero, positive, negative } = *counted;
    let side = |(offset, counts): (i32, &[u64])| {
        let bucket_counts = counts.iter().copied().map(Unsigned).collect();
        Some(Buckets { offset: Small(offset), bucket_counts })
    };
    explicit(&HistogramPoint {
        scale: Some(Small(scale)),
        zero_count: Unsigned(zero.0),
        zero_threshold: Float(zero.1),
        positive: side(positive),
        negative: side(negative),
        ..HistogramPoint::default()
    })
}

fn has_negative(point: &HistogramPoint<'_>) -> bool {
    of(point.negative.as_ref()).any(|(_, n)| n > 0)
}

/// Index and count of each bucket.
fn of(buckets: Option<&Buckets>) -> impl Iterator<Item = (i64, u64)> {
    let counts =
        buckets.into_iter().flat_map(|buckets| (i64::from(buckets.offset.0)..).zip(&buckets.bucket_counts));
    counts.map(|(index, n)| (index, n.0))
}

/// The positive bounds of one scale above one zero threshold, in quarters of a doubling.
struct Grid {
    scale: i32,
    /// The distance of two bounds.
    step: i64,
    first: i64,
    last: i64,
}

impl Grid {
    fn new(scale: i32, threshold: f64) -> Self {
        let step = 1 << (FINEST - scale.min(FINEST));
        let lowest = if threshold > 0.0 {
            // Rounded by a hair, so that a threshold that is a bound stays one.
            let quarters = threshold.log2() * PER_DOUBLING as f64;
            (quarters - 1e-6).ceil().clamp(LOWEST as f64, HIGHEST as f64) as i64
        } else {
            LOWEST
        };
        let first = (lowest + step - 1).div_euclid(step) * step;
        Self { scale, step, first, last: HIGHEST.div_euclid(step) * step }
    }

    fn len(&self) -> usize {
        ((self.last - self.first).div_euclid(self.step) + 1).max(0) as usize
    }

    fn quarters(&self) -> impl DoubleEndedIterator<Item = i64> {
        let (first, step) = (self.first, self.step);
        (0..self.len() as i64).map(move |i| first + i * step)
    }

    /// The number of bounds below the upper end of the bucket of this index, 2^((index + 1) / 2^scale): where it goes, by
    /// that end.
    fn above(&self, index: i64) -> usize {
        let end = index.saturating_add(1);
        let quarters = if self.scale >= FINEST {
            // Rounded up: the bound that its upper end does not pass.
            -((-end) >> (self.scale - FINEST))
        } else {
            end.saturating_mul(self.step)
        };
        let steps = quarters.saturating_sub(self.first).saturating_add(self.step - 1).div_euclid(self.step);
        steps.clamp(0, self.len() as i64) as usize
    }

    /// The number of bounds that are not above the lower end of the bucket of this index, 2^(index / 2^scale): of buckets
    /// below zero that is the upper end.
    fn below(&self, index: i64) -> usize {
        let quarters = if self.scale >= FINEST {
            index >> (self.scale - FINEST)
        } else {
            index.saturating_mul(self.step)
        };
        let steps = quarters.saturating_sub(self.first).div_euclid(self.step).saturating_add(1);
        steps.clamp(0, self.len() as i64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Guarantee: at every scale, a bucket's upper end lies in the slot it is put into, above zero and below.
    #[test]
    fn buckets_go_where_they_end() {
        for scale in SCALES {
            let grid = Grid::new(scale, 0.0);
            let bounds: Vec<f64> = grid.quarters().map(exponential_bound).collect();
            let base = f64::from(-scale).exp2();
            for index in -500..500_i32 {
                let end = (f64::from(index + 1) * base).exp2();
                let expected = bounds.iter().filter(|bound| **bound < end * (1.0 - 1e-9)).count();
                assert_eq!(grid.above(index.into()), expected, "scale {scale} index {index}");
                let end = (f64::from(index) * base).exp2();
                let expected = bounds.iter().filter(|bound| **bound <= end * (1.0 + 1e-9)).count();
                assert_eq!(grid.below(index.into()), expected, "scale {scale} index {index}");
            }
            for index in [i32::MIN, i32::MAX] {
                let all = if index > 0 { grid.len() } else { 0 };
                assert_eq!((grid.above(index.into()), grid.below(index.into())), (all, all));
            }
        }
    }

    /// Buckets that hold each of these indices once.
    fn side(indices: &[i64]) -> Option<Buckets> {
        let (first, last) = (*indices.iter().min()?, *indices.iter().max()?);
        let mut bucket_counts = vec![Unsigned(0); (last - first + 1) as usize];
        for index in indices {
            bucket_counts[(index - first) as usize].0 += 1;
        }
        Some(Buckets { offset: Small(first as i32), bucket_counts })
    }

    /// A histogram of observations, which are bucket indices at scale 6, as a sender has it at a coarser scale and with a
    /// zero bucket that ends at a bound of that scale.
    fn sent((above, below): (&[i64], &[i64]), scale: i32, zero: Option<i64>) -> Histogram {
        let coarse = |all: &[i64]| -> (Vec<i64>, Vec<i64>) {
            let at = all.iter().map(|index| index >> (6 - scale));
            at.partition(|index| zero.is_some_and(|zero| *index < zero))
        };
        let ((small, above), (small_below, below)) = (coarse(above), coarse(below));
        let threshold = zero.map_or(0.0, |zero| (zero as f64 * f64::from(-scale).exp2()).exp2());
        let point = HistogramPoint {
            scale: Some(Small(scale)),
            zero_count: Unsigned((small.len() + small_below.len()) as u64),
            zero_threshold: Float(threshold),
            positive: side(&above),
            negative: side(&below),
            ..HistogramPoint::default()
        };
        explicit(&point).expect("it makes sense")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Scenario: the same observations at two scales, with zero buckets of two widths.
        /// Guarantee: in the bounds that both have, each bucket has the same count; and there are such bounds.
        #[test]
        fn scales_and_zero_buckets_nest(
            above in prop::collection::vec(-900_i64..1_500, 0..60),
            below in prop::collection::vec(-900_i64..1_500, 0..6),
            scales in (-4_i32..=6, -4_i32..=6),
            zeros in (prop::option::of(-12_i64..12), prop::option::of(-12_i64..12)),
        ) {
            let one = sent((&above, &below), scales.0, zeros.0);
            let other = sent((&above, &below), scales.1, zeros.1);
            prop_assert!(one.is_valid() && other.is_valid());
            prop_assert_eq!(one.total(), (above.len() + below.len()) as u64);
            let common = one.common_bounds(&other).expect("bounds of exponential histograms nest");
            prop_assert_eq!(one.merged(&common), other.merged(&common));
            if zeros == (None, None) {
                let fewer = one.bounds.len().min(other.bounds.len());
                prop_assert_eq!(common.len(), fewer, "the coarser scale's bounds are all there");
            }
        }
    }
}
