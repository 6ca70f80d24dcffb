//! Means, spreads and differences that stay finite whatever they are fed.

/// Standard deviations per mean absolute deviation, of a normal distribution: sqrt(pi / 2).
pub(crate) const SIGMA_PER_MEAN_DEVIATION: f64 = 1.253_314_137_315_500_1;

/// Values over which a scale forgets.
const MEMORY: f32 = 2000.0;

/// A mean absolute deviation whose steps are clipped at six times itself, so that spikes barely move it.
pub(crate) fn learn_scale(scale: &mut f32, n: u32, deviation: f32) {
    let clipped = if n > 50 { deviation.min(6.0 * *scale) } else { deviation };
    *scale += (1.0 / (n as f32 + 1.0)).max(1.0 / MEMORY) * (clipped - *scale);
}

/// The step of a running mean that has seen `n` values: a plain mean first, exponential from `rate` on.
pub(crate) fn rate(n: u32, rate: f64) -> f64 {
    (1.0 / (f64::from(n) + 1.0)).max(rate)
}

/// `a - b`, kept where sums and `f32` still hold it.
pub(crate) fn difference(a: f64, b: f64) -> f64 {
    (a - b).clamp(-1e30, 1e30)
}

/// The least spread that a detector believes in: the tenth of a thousandth of the level. A row that
/// was constant for a week and moves in its ninth digit is no incident of a billion sigmas.
pub(crate) fn spread_floor(level: f64) -> f64 {
    (1e-4 * level.abs()).clamp(1e-9, 1e30)
}
