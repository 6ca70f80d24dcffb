//! What every registry entry needs and no detector should spell out.

use relight_core::detector::{ConfigError, Detector, DetectorSpec};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The JSON Schema of a config.
pub(crate) fn schema<C: JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(C).to_value()
}

/// The defaults of a config.
pub(crate) fn defaults<C: Serialize + Default>() -> serde_json::Value {
    serde_json::to_value(C::default()).expect("a config of plain fields is JSON")
}

/// Reads a config.
pub(crate) fn parse<C: DeserializeOwned>(config: &serde_json::Value) -> Result<C, ConfigError> {
    serde_json::from_value(config.clone()).map_err(|e| ConfigError::at("", e.to_string()))
}

/// One `key=value` line for each of the parameters that shape the state. A default that is written out
/// has the same shape as one that is not; a config that is wrong has none.
pub(crate) fn shape<C: Serialize + DeserializeOwned>(config: &serde_json::Value, keys: &[&str]) -> String {
    let Some(config) = parse::<C>(config).ok().and_then(|config| serde_json::to_value(config).ok()) else {
        return String::new();
    };
    keys.iter().fold(String::new(), |lines, key| lines + key + "=" + &config[key].to_string() + "\n")
}

/// Fails unless a parameter is a positive number.
pub(crate) fn positive(key: &str, value: f64) -> Result<(), ConfigError> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(ConfigError::at(key, format!("{value} is no positive number")))
    }
}

/// The entry of a detector that is a [`Detector`].
pub(crate) const fn of<D: Detector>(state_shape: fn(&serde_json::Value) -> String) -> DetectorSpec {
    DetectorSpec {
        name: D::NAME,
        doc: D::DOC,
        state_version: D::STATE_VERSION,
        schema: schema::<D::Config>,
        defaults: defaults::<D::Config>,
        build: relight_core::detector::source_of::<D>,
        state_shape,
    }
}
