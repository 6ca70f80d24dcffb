//! A row that has stopped speaking.
//!
//! Judges no value. Missing samples are counted by the engine in the row's own learned cadence, so
//! an exporter that reports every minute is not five sixths missing in bins of ten seconds.

use relight_core::detector::{Band, ConfigError, Detector, DetectorSpec, Learn, Reading};
use relight_core::signal::SignalInfo;
use relight_core::{Timestamp, codec_struct};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calibration::MAX_SCORE;
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec = spec::of::<Absence>(|_| String::new());

/// Parameters of `absence`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Missing samples in a row that are anomalous.
    patience: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { patience: 5 }
    }
}

/// The detector.
pub(crate) struct Absence {
    patience: u32,
}

/// When the row last spoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastSeen {
    at: Timestamp,
}
codec_struct!(LastSeen { at });

impl Detector for Absence {
    const NAME: &'static str = "absence";
    const DOC: &'static str = include_str!("absence.md");
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 0;
    const JUDGES_SILENCE: bool = true;
    type Config = Config;
    type State = LastSeen;

    fn new(config: Config, _: &SignalInfo) -> Result<Self, ConfigError> {
        if config.patience == 0 {
            return Err(ConfigError::at("patience", "must be at least 1 sample"));
        }
        Ok(Self { patience: config.patience })
    }

    fn init(&self) -> LastSeen {
        LastSeen { at: Timestamp::MIN }
    }

    fn judge(&self, _: &LastSeen, _: Timestamp, _: f64) -> Reading {
        Reading::UNKNOWN
    }

    fn absorb(&self, state: &mut LastSeen, at: Timestamp, _: f64, _: &Reading, _: Learn) {
        state.at = at;
    }

    fn gap(&self, state: &mut LastSeen, _: Timestamp, bins: u32) -> Reading {
        if !state.at.is_known() {
            return Reading::UNKNOWN;
        }
        // A sample is missing half a cadence after it was due, so `bins` of them are a silence of half a cadence more. The
        // half puts `patience` missing samples above 1 and one fewer below it.
        let score = (f64::from(bins) + 0.5) / f64::from(self.patience);
        Reading::new(score.min(MAX_SCORE), Band::UNKNOWN)
    }

    fn patience(&self) -> u32 {
        self.patience
    }

    fn onset(&self, state: &LastSeen) -> Option<Timestamp> {
        state.at.is_known().then_some(state.at)
    }
}
