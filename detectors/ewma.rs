//! Level and spread of a row, exponentially forgotten, with bounded influence of each value.
//!
//! Knows neither hours nor trends: a series with a daily curve belongs to `seasonal` or `adaptive`.

use relight_core::detector::{Band, ConfigError, Detector, DetectorSpec, Learn, Reading};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp, codec_struct};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arithmetic::{
    SIGMA_PER_MEAN_DEVIATION, at_least, at_most, difference, rate, spread_floor, within,
};
use crate::calibration::MAX_SCORE;
use crate::elapsed::{Forgetting, secs};
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec =
    spec::of::<Ewma>(|config| spec::shape::<Config>(config, &["half_life"]));

/// No value moves level or spread by more than one of this many sigmas would. At 3, a train of 1 %
/// spikes of any size widens the band by 3 % and moves the level by 0.03 sigma.
const INFLUENCE: f64 = 3.0;

/// Parameters of `ewma`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long until a value counts half.
    half_life: Span,
    /// Half width of the band, in robust standard deviations.
    threshold: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { half_life: Span::from_secs(600), threshold: 4.0 }
    }
}

/// The detector.
pub struct Ewma {
    forgetting: Forgetting,
    threshold: f64,
}

/// What it remembers of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct EwmaState {
    level: f64,
    sigma: f32,
    seen: u32,
    last_secs: u32,
}
codec_struct!(EwmaState { level, sigma, seen, last_secs });

impl Ewma {
    #[inline]
    fn sigma(state: &EwmaState) -> f64 {
        at_least(f64::from(state.sigma), spread_floor(state.level))
    }
}

impl Detector for Ewma {
    const NAME: &'static str = "ewma";
    const DOC: &'static str = include_str!("ewma.md");
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 30;
    type Config = Config;
    type State = EwmaState;

    fn new(config: Config, signal: &SignalInfo) -> Result<Self, ConfigError> {
        spec::positive("threshold", config.threshold)?;
        Ok(Self {
            forgetting: Forgetting::new("half_life", config.half_life, signal)?,
            threshold: config.threshold,
        })
    }

    fn init(&self) -> EwmaState {
        EwmaState::default()
    }

    // Deviation and spread come before anything is asked of the row, and whole into the loop over rows: else the compiler
    // works them out again for `absorb`.
    #[expect(clippy::inline_always, reason = "inlined late, it shares nothing with `absorb`")]
    #[inline(always)]
    fn judge(&self, state: &EwmaState, _: Timestamp, value: f64) -> Reading {
        let width = self.threshold * Self::sigma(state);
        let score = difference(value, state.level).abs() / width;
        if state.seen < 2 {
            return Reading::UNKNOWN;
        }
        Reading::new(
            at_most(score, MAX_SCORE),
            Band { expected: state.level, lower: state.level - width, upper: state.level + width },
        )
    }

    #[expect(clippy::inline_always, reason = "as large as it is, it would be called a row at a time")]
    #[inline(always)]
    fn absorb(&self, state: &mut EwmaState, at: Timestamp, value: f64, _: &Reading, learn: Learn) {
        if state.seen == 0 {
            state.level = value;
        } else if learn != Learn::Hold {
            let rate = rate(state.seen, self.forgetting.rate(state.last_secs, at));
            let deviation = difference(value, state.level);
            // The first few deviations are the scale: there is nothing to clip them by.
            let most = if state.seen < 5 { f64::INFINITY } else { INFLUENCE * Self::sigma(state) };
            let clipped = within(deviation, most);
            state.level += rate * clipped;
            let sigma = SIGMA_PER_MEAN_DEVIATION * clipped.abs();
            state.sigma += (rate * (sigma - f64::from(state.sigma))) as f32;
        }
        state.seen = state.seen.saturating_add(1);
        state.last_secs = secs(at);
    }
}
