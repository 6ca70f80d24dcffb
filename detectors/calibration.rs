//! From residuals to scores: tail quantiles and the cluster return level.
//!
//! Scores are not sigmas. A residual is large if it is far beyond what this very stream usually
//! shows, and worth an alert only if new excursions as large as it are rare. Knows nothing of
//! models, rows or time: a stream is a sequence of log residuals.

use relight_core::codec_struct;

/// No score is larger. Beyond it a number says nothing more, and sums of scores stay finite.
pub(crate) const MAX_SCORE: f64 = 1000.0;

/// Values that a stream must have shown before it may speak.
pub(crate) const WARM: u32 = 100;

/// The share of values above the upper of the two tracked quantiles.
const Q: f64 = 0.02;
/// The lower tracked quantile has four times the share above it.
const SPREAD: f64 = 4.0;
/// Rows over which quantiles forget.
const MEMORY: f64 = 20_000.0;
/// Slope of the body of an everyday log residual: (u98 - u92) / ln 4. Heavier bodies demand more, lighter less.
const USUAL_SLOPE: f64 = 0.3;

/// The 98 % and 92 % quantiles of a stream of log residuals, by stochastic approximation.
///
/// The body gives the slope of the tail, never the excesses: a tail index learned from the largest
/// values would learn it from the incidents themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tail {
    // Steps are as small as 1e-6 of the level, which f32 cannot add up.
    upper: f64,
    lower: f64,
    mean: f32,
    deviation: f32,
    rate: f32,
}
codec_struct!(Tail { upper, lower, mean, deviation, rate });

impl Tail {
    /// How far `z` lies beyond the usual, in units in which 1.0 is anomalous; 0 inside.
    pub(crate) fn severity(&self, n: u32, z: f64) -> f64 {
        if n < WARM { 0.0 } else { (z - self.upper).max(0.0) * self.gain() }
    }

    /// Severity per unit of log residual.
    pub(crate) fn gain(&self) -> f64 {
        let slope = (self.upper - self.lower) / SPREAD.ln();
        (USUAL_SLOPE / slope.max(0.02)).sqrt()
    }

    /// The log residual whose severity is 1.
    pub(crate) fn limit(&self) -> f64 {
        self.upper + 1.0 / self.gain()
    }

    /// Learns the `n`th log residual, counted from 0.
    pub(crate) fn learn(&mut self, n: u32, z: f64) {
        if n == 0 {
            *self = Self { upper: z, lower: z, mean: z as f32, deviation: 0.5, rate: Q as f32 };
        }
        let exceeds = z > self.upper;
        let count = f64::from(n);
        self.mean += (1.0 / (count + 1.0)).max(1e-3) as f32 * (z as f32 - self.mean);
        self.deviation +=
            (1.0 / (count + 6.0)).max(1e-3) as f32 * ((z as f32 - self.mean).abs() - self.deviation);
        self.deviation = self.deviation.clamp(0.1, 1.0);
        self.rate += 0.02 * (f32::from(u8::from(exceeds)) - self.rate);
        let step = self.step(n);
        self.upper += if exceeds { step * (1.0 - Q) } else { -step * Q };
        self.lower += if z > self.lower { step * (1.0 - SPREAD * Q) } else { -step * SPREAD * Q };
        self.lower = self.lower.min(self.upper - 0.02);
    }

    fn step(&self, n: u32) -> f64 {
        // Many exceedances mean that the regime has changed: catch up.
        let rate = f64::from(self.rate);
        let hurry = if rate > 5.0 * Q { 0.5 * rate / Q } else { 1.0 };
        let early = if n < WARM { 3.0 } else { 1.0 };
        let gain = (1.0 / (f64::from(n) + 1.0)).max(1.0 / MEMORY);
        (gain * f64::from(self.deviation) * 3.0 * hurry * early).min(0.5)
    }
}

/// How a return level counts excursions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excursions {
    /// New excursions a row that are to be let through.
    pub(crate) rate: f32,
    /// Rows without an excess that end an excursion; below 255.
    pub(crate) quiet: u8,
    /// Rows over which only the largest value is taken note of.
    pub(crate) warm: u32,
}

/// The level above which new excursions of a stream start at a given rate.
///
/// A residual counts fully only beyond it, so that what recurs falls silent instead of paging daily.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ReturnLevel {
    level: f32,
    since_excess: u8,
}
codec_struct!(ReturnLevel { level, since_excess });

impl ReturnLevel {
    /// The level; what is not above it has been seen too often. Infinite while it warms up.
    pub(crate) fn limit(self, n: u32, warm: u32) -> f32 {
        if n < warm { f32::INFINITY } else { self.level }
    }

    /// Learns the `n`th value, counted from 0.
    pub(crate) fn learn(&mut self, n: u32, z: f32, how: Excursions) {
        if n == 0 {
            *self = Self { level: z, since_excess: u8::MAX };
        }
        let excess = z - self.level;
        self.since_excess = self.since_excess.saturating_add(1);
        if n < how.warm {
            self.level = self.level.max(z);
            return;
        }
        let expected = (n - how.warm) as f32 * how.rate;
        let starts = excess > 0.0 && self.since_excess > how.quiet;
        self.level += (1.0 / (expected + 3.0)).max(0.15) * (f32::from(u8::from(starts)) - how.rate);
        if excess > 0.0 {
            self.since_excess = 0;
            // While few excursions have been seen the level moves to the peak itself.
            self.level += excess.min(excess / (1.5 + 3.0 * expected));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic stream of uniforms in (0, 1): Weyl's sequence of the golden ratio.
    fn uniforms(n: u32) -> impl Iterator<Item = f64> {
        (1..=n).map(|i| (f64::from(i) * 0.618_033_988_749_894_9).fract())
    }

    /// Scenario: 50,000 exponential log residuals.
    /// Guarantee: between 1 % and 4 % lie above the tracked quantile (it is slow on purpose), and the
    /// limit lies beyond it.
    #[test]
    fn quantiles_are_found() {
        let mut tail = Tail::default();
        for (n, u) in uniforms(50_000).enumerate() {
            tail.learn(n as u32, -(1.0 - u).ln());
        }
        let above = (-tail.upper).exp();
        assert!((0.01..0.04).contains(&above), "{above}");
        assert!(tail.lower < tail.upper && tail.limit() > tail.upper);
        assert!((tail.severity(WARM, tail.limit()) - 1.0).abs() < 1e-12);
    }

    /// Scenario: a spike of the same size every 500 rows.
    /// Guarantee: the level rises to it: what recurs twice as often as allowed is no news.
    #[test]
    fn recurring_spikes_fall_silent() {
        let how = Excursions { rate: 1e-3, quiet: 30, warm: WARM };
        let mut level = ReturnLevel::default();
        let mut let_through = 0;
        for (n, u) in uniforms(20_000).enumerate() {
            let z = if n % 500 == 499 { 9.0 } else { u as f32 };
            let is_late = n > 10_000;
            let_through += usize::from(is_late && z > level.limit(n as u32, WARM));
            level.learn(n as u32, z, how);
        }
        assert!(let_through <= 10, "{let_through} of 20 late spikes came through");
    }
}
