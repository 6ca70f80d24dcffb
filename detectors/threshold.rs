//! Fixed limits, for what has a right answer: a full disk, an error budget, a contract.
//!
//! Learns nothing. Its state is which limit is crossed, so that hysteresis can hold it there.

use relight_core::detector::{Band, ConfigError, Detector, DetectorSpec, Learn, Policy, Reading, source_of};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp, codec_struct};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calibration::MAX_SCORE;
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec = DetectorSpec {
    // A limit that was set by hand is never a new normal.
    build: |config, policy, signal| {
        let policy = Policy { relearn_after: Span::from_ns(i64::MAX), ..policy.clone() };
        source_of::<Threshold>(config, &policy, signal)
    },
    ..spec::of::<Threshold>(|_| String::new())
};

/// Parameters of `threshold`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Values above this are anomalous. In the signal's unit.
    above: Option<f64>,
    /// Values below this are anomalous. In the signal's unit.
    below: Option<f64>,
    /// How far a value must come back inside a limit that it had crossed. In the signal's unit.
    hysteresis: f64,
}

/// The detector.
pub(crate) struct Threshold {
    lower: f64,
    upper: f64,
    hysteresis: f64,
}

/// Which limit is crossed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Crossed {
    above: bool,
    below: bool,
}
codec_struct!(Crossed { above, below });

impl Detector for Threshold {
    const NAME: &'static str = "threshold";
    const DOC: &'static str = include_str!("threshold.md");
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 0;
    type Config = Config;
    type State = Crossed;

    fn new(config: Config, _: &SignalInfo) -> Result<Self, ConfigError> {
        let upper = config.above.unwrap_or(f64::INFINITY);
        let lower = config.below.unwrap_or(f64::NEG_INFINITY);
        if (lower, upper) == (f64::NEG_INFINITY, f64::INFINITY) {
            let message =
                "no limit: nothing is ever anomalous; set `above`, `below` or both, such as `above: 0.95`";
            return Err(ConfigError::at("above", message));
        }
        if upper.is_nan() || lower.is_nan() || lower > upper {
            return Err(ConfigError::at("below", format!("{lower} is above `above`, {upper}")));
        }
        if !(config.hysteresis >= 0.0
            && config.hysteresis.is_finite()
            && 2.0 * config.hysteresis <= upper - lower)
        {
            return Err(ConfigError::at(
                "hysteresis",
                "must be at least 0 and leave room between the limits",
            ));
        }
        Ok(Self { lower, upper, hysteresis: config.hysteresis })
    }

    fn init(&self) -> Crossed {
        Crossed::default()
    }

    fn judge(&self, state: &Crossed, _: Timestamp, value: f64) -> Reading {
        let upper = if state.above { self.upper - self.hysteresis } else { self.upper };
        let lower = if state.below { self.lower + self.hysteresis } else { self.lower };
        let beyond = (value - upper).max(lower - value);
        let limit = if value > upper { upper } else { lower };
        // 2 at twice the limit: how far beyond it, in units of the limit itself.
        let score = if beyond > 0.0 { 1.0 + (beyond / limit.abs().max(1e-9)).max(f64::EPSILON) } else { 0.0 };
        Reading::new(score.min(MAX_SCORE), Band { expected: f64::NAN, lower, upper })
    }

    fn absorb(&self, state: &mut Crossed, _: Timestamp, value: f64, reading: &Reading, _: Learn) {
        *state = Crossed { above: value > reading.band.upper, below: value < reading.band.lower };
    }
}
