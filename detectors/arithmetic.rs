//! Means, spreads and differences that stay finite whatever they are fed.

/// Standard deviations per mean absolute deviation, of a normal distribution: sqrt(pi / 2).
pub(crate) const SIGMA_PER_MEAN_DEVIATION: f64 = 1.253_314_137_315_500_1;

/// Values over which a scale forgets.
const MEMORY: f32 = 2000.0;

/// A mean absolute deviation whose steps are clipped at six times itself, so that spikes barely move it.
#[inline]
pub(crate) fn learn_scale(scale: &mut f32, n: u32, deviation: f32) {
    let clipped = if n > 50 { deviation.min(6.0 * *scale) } else { deviation };
    *scale += (1.0 / (n as f32 + 1.0)).max(1.0 / MEMORY) * (clipped - *scale);
}

/// The step of a running mean that has seen `n` values: a plain mean first, exponential from `rate` on.
#[inline]
pub(crate) fn rate(n: u32, rate: f64) -> f64 {
    // Of a row that has settled the mean's step is the smaller one: no need to divide.
    if f64::from(n) * rate >= 1.0 { rate } else { at_least(1.0 / (f64::from(n) + 1.0), rate) }
}

/// [`rate`] for one row after the other. Neighbours have mostly seen as much as each other, so the
/// division is paid where that changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    n: u32,
    inverse: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { n: 0, inverse: 1.0 }
    }
}

impl Pace {
    /// `rate(n, least)`.
    #[inline]
    pub(crate) fn rate(&mut self, n: u32, least: f64) -> f64 {
        if n != self.n {
            *self = Self { n, inverse: 1.0 / (f64::from(n) + 1.0) };
        }
        at_least(self.inverse, least)
    }
}

/// The larger of two numbers; `least` if `value` is NaN. One instruction where `f64::max`, which heeds
/// either being NaN, is five.
#[inline]
pub(crate) fn at_least(value: f64, least: f64) -> f64 {
    if value > least { value } else { least }
}

/// The smaller of two numbers; `most` if `value` is NaN.
#[inline]
pub(crate) fn at_most(value: f64, most: f64) -> f64 {
    if value < most { value } else { most }
}

/// `value`, but no further from zero than `most`, which is not negative.
#[inline]
pub(crate) fn within(value: f64, most: f64) -> f64 {
    at_most(at_least(value, -most), most)
}

/// `a - b` of two numbers, kept where sums and `f32` still hold it.
#[inline]
pub(crate) fn difference(a: f64, b: f64) -> f64 {
    within(a - b, 1e30)
}

/// The least spread that a detector believes in: the tenth of a thousandth of the level. A row that
/// was constant for a week and moves in its ninth digit is no incident of a billion sigmas.
#[inline]
pub(crate) fn spread_floor(level: f64) -> f64 {
    at_most(at_least(1e-4 * level.abs(), 1e-9), 1e30)
}
