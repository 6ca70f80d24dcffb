//! A small registry: the real one links here only above this crate.

use std::sync::Arc;

use relight_config::Registry;
use relight_core::detector::{ConfigError, Detector, DetectorSpec, Learn, Reading, source_of};
use relight_core::responder::{
    Attempt, Capabilities, EffectKind, Observation, Plan, PlanError, Reach, Receipt, Request, Responder,
    ResponderError, ResponderSpec, Secrets, spec_of,
};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DETECTORS: &[DetectorSpec] = &[detector("adaptive"), detector("ewma"), detector("threshold")];

/// Stands in for the `log` of the files in `config/`.
const LOG: ResponderSpec = ResponderSpec {
    name: "log",
    doc: "",
    schema: || json!({ "properties": { "reach": { "enum": ["notify", "mutate"] } } }),
    example: || json!({}),
    build: |settings, _| {
        Ok(Arc::new(Post(if settings["reach"] == "mutate" { Reach::Mutate } else { Reach::Notify })))
    },
};

/// Three detectors with the same parameters, `log`, and a responder with a required `to` and a `secret`.
pub(crate) const REGISTRY: Registry =
    Registry { detectors: DETECTORS, responders: &[LOG, spec_of::<Post>()] };

const fn detector(name: &'static str) -> DetectorSpec {
    DetectorSpec {
        name,
        doc: "",
        state_version: 1,
        schema: || schemars::schema_for!(Parameters).to_value(),
        defaults: || serde_json::to_value(Parameters::default()).expect("parameters are JSON"),
        build: source_of::<Ewma>,
        state_shape: |parameters| format!("half_life={}", parameters["half_life"]),
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    half_life: Span,
    threshold: f64,
    below: Option<f64>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { half_life: Span::from_secs(600), threshold: 4.0, below: None }
    }
}

struct Ewma;

impl Detector for Ewma {
    const NAME: &'static str = "ewma";
    const DOC: &'static str = "";
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 1;
    type Config = Parameters;
    type State = u8;

    fn new(config: Parameters, signal: &SignalInfo) -> Result<Self, ConfigError> {
        if config.half_life < signal.interval {
            return Err(ConfigError::at("half_life", "shorter than the interval"));
        }
        Ok(Self)
    }
    fn init(&self) -> u8 {
        0
    }
    fn judge(&self, _: &u8, _: Timestamp, _: f64) -> Reading {
        Reading::UNKNOWN
    }
    fn absorb(&self, _: &mut u8, _: Timestamp, _: f64, _: &Reading, _: Learn) {}
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostConfig {
    /// Where to.
    to: String,
    /// Name of a secret.
    secret: Option<String>,
    /// Whether it changes the world.
    #[serde(default)]
    reach: Reach,
}

struct Post(Reach);

impl Responder for Post {
    const NAME: &'static str = "post";
    const DOC: &'static str = "";
    type Config = PostConfig;

    fn example() -> Value {
        json!({ "to": "example.org" })
    }
    fn new(config: PostConfig, secrets: &Secrets) -> Result<Self, ConfigError> {
        match config.secret {
            Some(name) if secrets.get(&name).is_none() => {
                Err(ConfigError::at("secret", format!("no secret `{name}`")))
            }
            _ if config.to.is_empty() => Err(ConfigError::at("to", "is empty")),
            _ => Ok(Self(config.reach)),
        }
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { effect: EffectKind::FireOnce, reach: self.0, observes: false, reverts: false }
    }
    fn plan(&self, _: &Request<'_>) -> Result<Plan, PlanError> {
        Err(PlanError("not asked for".to_owned()))
    }
    async fn preflight(&self, _: &Plan) -> Result<(), ResponderError> {
        Ok(())
    }
    async fn observe(&self, _: &Plan) -> Result<Observation, ResponderError> {
        Ok(Observation::Unknown)
    }
    async fn apply(&self, _: Attempt, _: &Plan) -> Result<Receipt, ResponderError> {
        Ok(Receipt { summary: String::new() })
    }
    async fn revert(&self, _: Attempt, _: &Plan, _: &Receipt) -> Result<Receipt, ResponderError> {
        Ok(Receipt { summary: String::new() })
    }
}
