//! Has the context of a row changed: a record was broken, its slow level has moved, or its spread?
//!
//! Says nothing of single values, and says it quietly: a change of context scores at most
//! [`CONTEXT_CAP`], so that a threshold stricter than that asks for point outliers only.

use relight_core::codec_struct;

use crate::arithmetic::{difference, learn_scale, rate};
use crate::calibration::{Excursions, ReturnLevel, WARM};
use crate::emission::CONTEXT_CAP;

/// Rows before level, spread and hour-of-week records may speak.
const LONG_WARM: u32 = 300;
/// Level and spread have a budget in time, not in rows: this many excursions a row at 300 s a row,
/// fewer at faster cadences, but not fewer than a tenth.
const BUDGET: f32 = 1.0 / 1500.0;
const BUDGET_CADENCE_SECS: f32 = 300.0;
/// Rows without an excess that end an excursion of level or spread.
const QUIET: u8 = 100;
/// How far beyond its return level, in log units, a level and a spread must be for a score of 1.
const LEVEL_UNIT: f32 = 0.15;
const SPREAD_UNIT: f32 = 0.2;
/// By how much of its width a range must be left for a record: of values, of values less the slow
/// level, of distances to the hour of the week.
const VALUE_MARGIN: f64 = 0.005;
const RESIDUAL_MARGIN: f32 = 0.03;
const WEEK_MARGIN: f32 = 0.2;
/// Records within this many rows of each other are one.
const RECORD_QUIET: u8 = 30;
/// Records within memory that cost nothing; every further one raises the margin of the next, so
/// that a drift does not break one record a day.
const FREE_RECORDS: f32 = 3.0;
/// Rows over which records forget.
const MEMORY: f32 = 2000.0;

/// What a row has shown so far, slowly.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Context {
    low: f64,
    high: f64,
    slow: f64,
    day_level: f64,
    week_level: f64,
    spread_level: f64,
    residual_low: f32,
    residual_high: f32,
    week_far: f32,
    level_scale: f32,
    fast_spread: f32,
    slow_spread: f32,
    spread_scale: f32,
    records: f32,
    level_return: ReturnLevel,
    spread_return: ReturnLevel,
    since_record: u8,
}
codec_struct!(Context {
    low,
    high,
    slow,
    day_level,
    week_level,
    spread_level,
    residual_low,
    residual_high,
    week_far,
    level_scale,
    fast_spread,
    slow_spread,
    spread_scale,
    records,
    level_return,
    spread_return,
    since_record,
});

/// One value, as the context sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Values before this one.
    pub(crate) n: u32,
    /// The value itself.
    pub(crate) value: f64,
    /// The value, its influence bounded.
    pub(crate) clipped: f64,
    /// Its distance to its hour of the week, 0 if that is not known.
    pub(crate) week_distance: f32,
    /// Seconds between two values of the row; 0 if not known yet.
    pub(crate) cadence_secs: f32,
}

impl Context {
    /// The context of a row whose first value this is.
    pub(crate) fn at(value: f64) -> Self {
        Self {
            low: value,
            high: value,
            slow: value,
            day_level: value,
            week_level: value,
            spread_level: value,
            since_record: u8::MAX,
            ..Self::default()
        }
    }

    /// Judges, then learns: the score is 0, or between 1 and [`CONTEXT_CAP`]. Beside it the slow level that the value
    /// is held against, as it was before.
    pub(crate) fn observe(&mut self, sample: Sample) -> (f64, f64) {
        let how =
            Excursions { rate: BUDGET * budget_share(sample.cadence_secs), quiet: QUIET, warm: LONG_WARM };
        let expected = self.week_level;
        let record = if self.is_record(sample) { f32::INFINITY } else { 0.0 };
        let level = self.level(sample, how) / LEVEL_UNIT;
        let spread = self.spread(sample, how) / SPREAD_UNIT;
        let score = f64::from(record.max(level).max(spread));
        (if score >= 1.0 { score.min(CONTEXT_CAP) } else { 0.0 }, expected)
    }

    fn is_record(&mut self, sample: Sample) -> bool {
        let patience = record_patience(sample.cadence_secs);
        let Sample { n, value, clipped, week_distance, .. } = sample;
        let residual = difference(clipped, self.slow) as f32;
        let margin = (1.0 + (self.records - FREE_RECORDS).max(0.0)).powi(2);
        let width = difference(self.high, self.low);
        let beyond = difference(value, self.high).max(difference(self.low, value));
        let residual_width = self.residual_high - self.residual_low;
        let residual_beyond = (residual - self.residual_high).max(self.residual_low - residual);
        let is_record = n >= WARM * patience
            && (width > 0.0 && beyond > f64::from(margin) * VALUE_MARGIN * width
                || residual_width > 0.0 && residual_beyond > margin * RESIDUAL_MARGIN * residual_width)
            || n >= LONG_WARM * patience
                && self.week_far > 0.0
                && week_distance - self.week_far > margin * WEEK_MARGIN * self.week_far;
        self.records *= 1.0 - 1.0 / MEMORY;
        self.since_record = self.since_record.saturating_add(1);
        if is_record {
            self.records += f32::from(u8::from(self.since_record > RECORD_QUIET));
            self.since_record = 0;
        }
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        self.residual_low = self.residual_low.min(residual);
        self.residual_high = self.residual_high.max(residual);
        self.week_far = self.week_far.max(week_distance);
        self.slow += rate(n, 0.01) * difference(clipped, self.slow);
        is_record
    }

    /// How far a slow level is from a slower one, beyond the distance that it reaches too often.
    fn level(&mut self, sample: Sample, how: Excursions) -> f32 {
        let Sample { n, clipped, .. } = sample;
        let deviation = difference(clipped, self.week_level);
        learn_scale(&mut self.level_scale, n, deviation.abs() as f32);
        self.day_level += rate(n, 0.05) * difference(clipped, self.day_level);
        self.week_level += rate(n, 0.002) * deviation;
        let apart = difference(self.day_level, self.week_level).abs() as f32;
        excess(&mut self.level_return, n, (apart + 0.1 * self.level_scale + 1e-9).ln(), how)
    }

    /// The same of spreads, as a ratio.
    fn spread(&mut self, sample: Sample, how: Excursions) -> f32 {
        let Sample { n, clipped, .. } = sample;
        let deviation = difference(clipped, self.spread_level);
        let size = deviation.abs() as f32;
        learn_scale(&mut self.spread_scale, n, size);
        self.spread_level += rate(n, 0.1) * deviation;
        self.fast_spread += rate(n, 0.02) as f32 * (size - self.fast_spread);
        self.slow_spread += rate(n, 0.002) as f32 * (size - self.slow_spread);
        let floor = 0.1 * self.spread_scale + 1e-12;
        let ratio = ((self.fast_spread + floor) / (self.slow_spread + floor)).ln().abs() + 1e-3;
        excess(&mut self.spread_return, n, ratio.ln(), how)
    }
}

/// By how much the warm-up of records is longer than at 300 s a row. The nth value of pure noise is a
/// record with a chance of 2 / n, so at fast cadences a hundred values would let a fleet of quiet rows
/// break a record each within the hour; up to thirty times as many are awaited, about eight hours.
fn record_patience(cadence_secs: f32) -> u32 {
    (BUDGET_CADENCE_SECS / cadence_secs.max(1.0)).clamp(1.0, 30.0) as u32
}

fn budget_share(cadence_secs: f32) -> f32 {
    (cadence_secs / BUDGET_CADENCE_SECS).clamp(0.1, 1.0)
}

fn excess(level: &mut ReturnLevel, n: u32, z: f32, how: Excursions) -> f32 {
    let excess = z - level.limit(n, how.warm);
    level.learn(n, z, how);
    excess
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows at which a stream of values changes its context.
    fn changes(values: impl Iterator<Item = f64>) -> Vec<u32> {
        let mut context = Context::default();
        let mut rows = Vec::new();
        for (n, value) in values.enumerate() {
            let n = n as u32;
            if n == 0 {
                context = Context::at(value);
            }
            let sample = Sample { n, value, clipped: value, week_distance: 0.0, cadence_secs: 300.0 };
            if context.observe(sample).0 > 1.0 {
                rows.push(n);
            }
        }
        rows
    }

    fn noise(n: u32) -> f64 {
        (f64::from(n) * 0.618_033_988_749_894_9).fract()
    }

    #[test]
    fn a_quiet_row_has_no_news() {
        let found = changes((0..5000).map(noise));
        assert!(found.iter().all(|n| *n < LONG_WARM), "{found:?}");
    }

    /// Guarantee: a value beyond all before is a record at once, and is told quietly.
    #[test]
    fn a_record_is_told() {
        let found = changes((0..1000).map(|n| if n == 700 { 1.3 } else { noise(n) }));
        assert!(found.contains(&700), "{found:?}");
    }

    /// Guarantee: a step of the level well inside the range is told once the slow level has followed.
    #[test]
    fn a_shift_of_the_level_is_told() {
        let found = changes((0..2000).map(|n| {
            let base = if n % 400 == 0 { 4.0 } else { 0.0 };
            base + noise(n) + if n >= 1500 { 1.0 } else { 0.0 }
        }));
        assert!(found.iter().any(|n| (1500..1600).contains(n)), "{found:?}");
    }

    /// Scenario: a staircase that rises by 3 % every 40 values, for ever: 250 records in the second half.
    /// Guarantee: it is told a few times, not for ever.
    #[test]
    fn a_drift_does_not_page_for_ever() {
        let found = changes((0..20_000).map(|n| 1.03_f64.powi((n / 40) as i32) * (1.0 + 1e-3 * noise(n))));
        let late = found.iter().filter(|n| **n > 10_000).count();
        assert!(late < 60, "{late} late records");
    }
}
