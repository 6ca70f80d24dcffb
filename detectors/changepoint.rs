//! A lasting change of level, and when it began.
//!
//! Two cumulative sums (Page 1954), one a side, of standardised deviations from a slow level. Looks
//! at no single value: each counts at most a few sigmas, so a lone spike is no change.

use relight_core::detector::{
    Band, ConfigError, Detector, DetectorSpec, Direction, Learn, Policy, Reading, source,
};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp, codec_struct};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arithmetic::{
    SIGMA_PER_MEAN_DEVIATION, at_least, at_most, difference, rate, spread_floor, within,
};
use crate::elapsed::{Forgetting, secs};
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec = DetectorSpec {
    // A sum is evidence of its side wherever the next value lies, so the detector heeds `direction` itself.
    build: |config, policy, signal| {
        let detector = Changepoint::new(spec::parse(config)?, signal)?.facing(policy.direction);
        Ok(source(detector, Policy { direction: Direction::Both, ..policy.clone() }))
    },
    ..spec::of::<Changepoint>(|config| spec::shape::<Config>(config, &["half_life"]))
};

/// Sigmas that one value adds at most: a change takes at least `threshold` / 3.5 values to be told.
const MOST_SIGMAS: f64 = 4.0;
/// A sum stops at this many thresholds, so that a row that has come back is not held for long.
const TOP: f64 = 1.5;

/// Parameters of `changepoint`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The smallest lasting shift worth telling, in robust standard deviations.
    min_shift: f64,
    /// Evidence that is needed, in sigmas beyond half of `min_shift`, summed over values.
    threshold: f64,
    /// How long until a value counts half in the level that changes are measured against.
    half_life: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_shift: 1.0, threshold: 15.0, half_life: Span::from_secs(4 * 3600) }
    }
}

/// The detector.
pub struct Changepoint {
    /// Sigmas of each value that are no evidence, on either side; infinite on one that nobody looks at.
    slack_up: f64,
    slack_down: f64,
    threshold: f64,
    forgetting: Forgetting,
}

/// One side's sum, and when its present run began.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    sum: f32,
    began: u32,
}
codec_struct!(Run { sum, began });

/// What it remembers of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChangeState {
    level: f64,
    sigma: f32,
    up: Run,
    down: Run,
    seen: u32,
    last_secs: u32,
}
codec_struct!(ChangeState { level, sigma, up, down, seen, last_secs });

impl Run {
    /// The sum with one more deviation, in sigmas towards this side.
    #[inline]
    fn plus(self, sigmas: f64, slack: f64) -> f64 {
        // Not `at_least`: both sides are compared at once, and what its choice then becomes is a branch a side that nobody
        // can predict, since whether a quiet row's sum is zero is a toss (14 ns a row).
        (f64::from(self.sum) + at_most(sigmas, MOST_SIGMAS) - slack).max(0.0)
    }

    #[inline]
    fn add(&mut self, sigmas: f64, slack: f64, most: f64, at: u32) {
        // A choice, not a branch: whether a quiet row's sum is zero is a toss that nobody can predict.
        self.began = if self.sum == 0.0 { at } else { self.began };
        self.sum = at_most(self.plus(sigmas, slack), most) as f32;
    }

    /// The deviation at which the sum would just reach the threshold; infinite if no single value can.
    #[inline]
    fn reach(self, slack: f64, threshold: f64) -> f64 {
        let needed = threshold + slack - f64::from(self.sum);
        if needed > MOST_SIGMAS { f64::INFINITY } else { needed }
    }
}

impl Changepoint {
    /// The same, gathering evidence on one side only, or on both.
    fn facing(self, direction: Direction) -> Self {
        match direction {
            Direction::Above => Self { slack_down: f64::INFINITY, ..self },
            Direction::Below => Self { slack_up: f64::INFINITY, ..self },
            Direction::Both => self,
        }
    }

    #[inline]
    fn sigma(state: &ChangeState) -> f64 {
        at_least(f64::from(state.sigma), spread_floor(state.level))
    }

    /// Learns a value that deviates so much from a level whose spread is `sigma`.
    #[inline]
    fn learn_level(&self, state: &mut ChangeState, at: Timestamp, deviation: f64, sigma: f64) {
        let rate = rate(state.seen, self.forgetting.rate(state.last_secs, at));
        let most = if state.seen < 5 { f64::INFINITY } else { 3.0 * sigma };
        let clipped = within(deviation, most);
        state.level += rate * clipped;
        let sigma = SIGMA_PER_MEAN_DEVIATION * clipped.abs();
        state.sigma += (rate * (sigma - f64::from(state.sigma))) as f32;
    }
}

impl Detector for Changepoint {
    const NAME: &'static str = "changepoint";
    const DOC: &'static str = include_str!("changepoint.md");
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 100;
    type Config = Config;
    type State = ChangeState;

    fn new(config: Config, signal: &SignalInfo) -> Result<Self, ConfigError> {
        spec::positive("min_shift", config.min_shift)?;
        spec::positive("threshold", config.threshold)?;
        if config.min_shift >= 2.0 * MOST_SIGMAS {
            return Err(ConfigError::at("min_shift", format!("must be below {}", 2.0 * MOST_SIGMAS)));
        }
        let forgetting = Forgetting::new("half_life", config.half_life, signal)?;
        let slack = config.min_shift / 2.0;
        Ok(Self { slack_up: slack, slack_down: slack, threshold: config.threshold, forgetting })
    }

    fn init(&self) -> ChangeState {
        ChangeState::default()
    }

    // The deviation comes before anything is asked of the row, and whole into the loop over rows: else the compiler works
    // it out again for `absorb`, with a division and both sums (48 of 244 instructions a row).
    #[expect(clippy::inline_always, reason = "inlined late, it shares nothing with `absorb`")]
    #[inline(always)]
    fn judge(&self, state: &ChangeState, _: Timestamp, value: f64) -> Reading {
        let sigma = Self::sigma(state);
        let sigmas = difference(value, state.level) / sigma;
        let sum = at_least(state.up.plus(sigmas, self.slack_up), state.down.plus(-sigmas, self.slack_down));
        if state.seen < 2 {
            return Reading::UNKNOWN;
        }
        let band = Band {
            expected: state.level,
            lower: state.level - state.down.reach(self.slack_down, self.threshold) * sigma,
            upper: state.level + state.up.reach(self.slack_up, self.threshold) * sigma,
        };
        Reading::new(sum / self.threshold, band)
    }

    #[expect(clippy::inline_always, reason = "as large as it is, it would be called a row at a time")]
    #[inline(always)]
    fn absorb(&self, state: &mut ChangeState, at: Timestamp, value: f64, _: &Reading, learn: Learn) {
        let (deviation, sigma) = (difference(value, state.level), Self::sigma(state));
        let sigmas = deviation / sigma;
        if state.seen == 0 {
            state.level = value;
        } else {
            // While the level settles its errors are its own, not the row's.
            if state.seen >= Self::WARM_UP / 2 {
                let most = TOP * self.threshold;
                state.up.add(sigmas, self.slack_up, most, secs(at));
                state.down.add(-sigmas, self.slack_down, most, secs(at));
            }
            if learn != Learn::Hold {
                self.learn_level(state, at, deviation, sigma);
            }
        }
        state.seen = state.seen.saturating_add(1);
        state.last_secs = secs(at);
    }

    /// The begin of the run that has gathered the most evidence: the estimate of Page's test.
    fn onset(&self, state: &ChangeState) -> Option<Timestamp> {
        let run = if state.up.sum >= state.down.sum { state.up } else { state.down };
        (run.sum > 0.0).then(|| Timestamp::from_secs(i64::from(run.began)))
    }
}
