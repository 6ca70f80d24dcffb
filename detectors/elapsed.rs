//! Forgetting by time rather than by count.
//!
//! A row's values may come slower than its bins, and of a stream of samples the interval is only
//! nominal; so the time since the row's last value decides.

use relight_core::detector::ConfigError;
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp};

/// The largest share that a single value can have, however long the silence before it: a half-life is
/// at least seven values. Of three values no spread can be told; at 0.3, 1.2 % of normal noise were
/// beyond four sigmas.
const MOST: f64 = 0.1;

/// Seconds since the epoch, kept in 32 bits.
#[inline]
pub(crate) fn secs(at: Timestamp) -> u32 {
    u32::try_from(at.secs().max(0)).unwrap_or(u32::MAX)
}

/// How fast an exponential memory of a given half-life forgets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forgetting {
    half_life_secs: f64,
    interval_secs: f64,
    /// The rate of a value that comes one interval after the last: nearly all of them.
    usual: f64,
}

impl Forgetting {
    /// Checks the half-life that the config's `key` gives.
    pub(crate) fn new(key: &str, half_life: Span, signal: &SignalInfo) -> Result<Self, ConfigError> {
        if half_life <= Span::ZERO {
            return Err(ConfigError::at(key, format!("{half_life} is not longer than 0s")));
        }
        let half_life_secs = half_life.secs_f64();
        let interval_secs = signal.interval.secs_f64();
        let usual = rate(interval_secs, half_life_secs);
        Ok(Self { half_life_secs, interval_secs, usual })
    }

    /// The share of a value at `at`, whose predecessor came at second `last`.
    #[inline]
    pub(crate) fn rate(&self, last: u32, at: Timestamp) -> f64 {
        let elapsed = f64::from(secs(at).saturating_sub(last));
        if elapsed <= self.interval_secs { self.usual } else { self.rate_after(elapsed) }
    }

    // Nearly never: an exponential and a division, kept out of the loops over rows.
    #[cold]
    #[inline(never)]
    fn rate_after(&self, elapsed: f64) -> f64 {
        rate(elapsed, self.half_life_secs)
    }
}

fn rate(elapsed: f64, half_life: f64) -> f64 {
    (1.0 - (-elapsed / half_life).exp2()).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgetting(half_life: i64) -> Result<Forgetting, ConfigError> {
        let signal = SignalInfo { name: "s".into(), interval: Span::from_secs(10) };
        Forgetting::new("half_life", Span::from_secs(half_life), &signal)
    }

    /// Guarantee: values at half the pace forget twice as much each; a gap never forgets everything.
    #[test]
    fn time_decides_not_count() {
        let forgetting = forgetting(600).expect("a half-life");
        let twice = 1.0 - (1.0 - forgetting.rate(0, Timestamp::from_secs(10))).powi(2);
        assert!((forgetting.rate(0, Timestamp::from_secs(20)) - twice).abs() < 1e-12);
        assert_eq!(forgetting.rate(0, Timestamp::from_secs(1_000_000)), MOST);
        assert_eq!(forgetting.rate(100, Timestamp::from_secs(50)), forgetting.usual);
    }

    #[test]
    fn a_half_life_of_nothing_is_refused() {
        assert_eq!(forgetting(0).expect_err("nothing").path, "half_life");
    }
}
