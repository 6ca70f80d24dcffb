//! `log`: does nothing but say what was asked of it.
//!
//! One structured line for whatever collector the process has, and the same in the receipt, which the ledger
//! keeps.

use relight_core::detector::ConfigError;
use relight_core::responder::{
    Attempt, Capabilities, EffectKind, Observation, Plan, PlanError, Reach, Receipt, Request, Responder,
    ResponderError, Secrets,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::document::one_line;

/// Settings of `log`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// What it stands in for: `notify` for what tells somebody, `mutate` for what changes the world.
    #[serde(default = "notify")]
    reach: Reach,
}

// Not the default of `Reach`: that one is for responders that say nothing of themselves.
fn notify() -> Reach {
    Reach::Notify
}

/// Stands in for a real responder, and does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    reach: Reach,
}

impl Responder for Log {
    const NAME: &'static str = "log";
    const DOC: &'static str = include_str!("log.md");
    type Config = LogConfig;

    fn example() -> Value {
        json!({ "reach": "mutate" })
    }

    fn new(config: LogConfig, _secrets: &Secrets) -> Result<Self, ConfigError> {
        Ok(Self { reach: config.reach })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { effect: EffectKind::Idempotent, reach: self.reach, observes: false, reverts: true }
    }

    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        let Request { action, incident } = request;
        let summary = one_line(&format!("{} {} about {}", action.action, incident.group, incident.rule));
        let body = json!({ "do": action.action, "args": action.args, "incident": incident.external_key() });
        Ok(Plan { summary, body })
    }

    async fn preflight(&self, _plan: &Plan) -> Result<(), ResponderError> {
        Ok(())
    }

    async fn observe(&self, _plan: &Plan) -> Result<Observation, ResponderError> {
        Ok(Observation::Unknown)
    }

    async fn apply(&self, attempt: Attempt, plan: &Plan) -> Result<Receipt, ResponderError> {
        let (action, number) = (attempt.idempotency_key, attempt.number);
        tracing::info!(target: "relight::log", action, attempt = number, body = %plan.body, "{}", plan.summary);
        Ok(Receipt { summary: format!("would {}", plan.summary) })
    }

    async fn revert(
        &self,
        _attempt: Attempt,
        plan: &Plan,
        _receipt: &Receipt,
    ) -> Result<Receipt, ResponderError> {
        Ok(Receipt { summary: format!("would undo: {}", plan.summary) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: it is taken for harmless unless it says that it stands in for something that is not.
    #[test]
    fn reach_is_what_it_stands_in_for() {
        for (settings, reach) in [(json!({}), Reach::Notify), (json!({ "reach": "mutate" }), Reach::Mutate)] {
            let config = serde_json::from_value(settings).expect("settings");
            let log = Log::new(config, &Secrets::default()).expect("builds");
            assert_eq!(Responder::capabilities(&log).reach, reach);
        }
    }
}
