//! The responder contract: what carries an action out.
//!
//! Deduplication, retry, gates, timeouts, journal and metrics are not an author's business; they
//! are stages around [`Responder`]. No runtime is named here: futures are plain.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::detector::ConfigError;
use crate::incident::{Action, Incident};
use crate::time::{Span, Timestamp};

/// What kind of effect an action has on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Sending it twice is the same as once.
    Idempotent,
    /// Whether it happened can be asked for.
    Observable,
    /// Neither: never sent again when in doubt.
    FireOnce,
}

/// Whether an action only tells somebody, or changes the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Tells somebody.
    Notify,
    /// Changes the world. What a responder is taken for unless it says otherwise.
    #[default]
    Mutate,
}

/// What a responder can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Kind of its effect.
    pub effect: EffectKind,
    /// Its reach.
    pub reach: Reach,
    /// `observe` can tell whether an action happened.
    pub observes: bool,
    /// `revert` can undo one.
    pub reverts: bool,
}

/// A text that must not be shown. In settings it is read like any text; the config also takes it from the
/// file that `NAME_file` names.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only where it leaves for its target.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The mark by which the config tells a secret from other texts.
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Secrets by name, resolved by the config.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// From names and values.
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// The same with some of them replaced.
    #[must_use]
    pub fn renewed(&self, newer: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let mut secrets = self.0.clone();
        secrets.extend(newer);
        Self(secrets)
    }

    /// A secret by its name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

/// What a responder is asked to do: one action about one incident.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The action: verb, arguments, ids.
    pub action: &'a Action,
    /// The incident it is about.
    pub incident: &'a Incident,
}

/// What will be done, spelled out: journalled first, and what dry runs and replay print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One line for people.
    pub summary: String,
    /// What is sent, without secrets.
    pub body: serde_json::Value,
}

/// One try of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// The same on every attempt of one action.
    pub idempotency_key: String,
    /// When it is made.
    pub at: Timestamp,
}

/// What the target answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// One line for people.
    pub summary: String,
}

/// Whether an action happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It did.
    Done,
    /// It did not.
    NotDone,
    /// Cannot be told.
    Unknown,
}

/// Why no plan can be made: the request makes no sense for this responder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

/// Why an action was not sent. Its word stands in the ledger and in `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotSent {
    /// The responder cannot make a request of it: an argument that it refuses, a template that fails.
    Request,
    /// The egress policy refuses the target's address.
    Egress,
    /// No connection to the target.
    Connect,
    /// The program cannot be started.
    Start,
    /// No responder has this name any more.
    Responder,
    /// Another relight acts.
    Standby,
    /// The ledger cannot be written.
    Ledger,
}

impl NotSent {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Egress => "egress",
            Self::Connect => "connect",
            Self::Start => "start",
            Self::Responder => "responder",
            Self::Standby => "standby",
            Self::Ledger => "ledger",
        }
    }
}

/// What to do after a failure. An error carries its decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The target has not done it. Try again, after this long if the target said so.
    After(Option<Span>),
    /// Nothing has left for the target. Try again.
    Unreached(NotSent),
    /// Nothing has left for the target, and another attempt would end the same way.
    Unsent(NotSent),
    /// It was sent, and will never work.
    Never,
    /// It may have happened.
    Unknown,
}

/// A failed attempt. Carries no URL and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResponderError {
    /// What went wrong.
    pub message: String,
    /// What to do now.
    pub retry: Retry,
}

/// What a responder's author writes.
pub trait Responder: Sized + Send + Sync + 'static {
    /// The `type` in config.
    const NAME: &'static str;
    /// The page that `relight explain` prints.
    const DOC: &'static str;
    /// Its settings. Not `Serialize`: it holds secrets.
    type Config: DeserializeOwned + JsonSchema;

    /// Settings that show a typical use; they must build.
    fn example() -> serde_json::Value;
    /// Checks the settings.
    fn new(config: Self::Config, secrets: &Secrets) -> Result<Self, ConfigError>;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// What it would do. Pure.
    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError>;
    /// Asks the target for permission and existence, without effect.
    fn preflight(&self, plan: &Plan) -> impl Future<Output = Result<(), ResponderError>> + Send;
    /// Whether the plan has happened.
    fn observe(&self, plan: &Plan) -> impl Future<Output = Result<Observation, ResponderError>> + Send;
    /// Does it.
    fn apply(
        &self,
        attempt: Attempt,
        plan: &Plan,
    ) -> impl Future<Output = Result<Receipt, ResponderError>> + Send;
    /// Undoes it.
    fn revert(
        &self,
        attempt: Attempt,
        plan: &Plan,
        receipt: &Receipt,
    ) -> impl Future<Output = Result<Receipt, ResponderError>> + Send;
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ResponderError>> + Send + 'a>>;

/// A [`Responder`] whose type is erased; every responder is one.
pub trait AnyResponder: Send + Sync {
    /// See [`Responder::capabilities`].
    fn capabilities(&self) -> Capabilities;
    /// See [`Responder::plan`].
    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError>;
    /// See [`Responder::preflight`].
    fn preflight<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()>;
    /// See [`Responder::observe`].
    fn observe<'a>(&'a self, plan: &'a Plan) -> Answer<'a, Observation>;
    /// See [`Responder::apply`].
    fn apply<'a>(&'a self, attempt: Attempt, plan: &'a Plan) -> Answer<'a, Receipt>;
    /// See [`Responder::revert`].
    fn revert<'a>(&'a self, attempt: Attempt, plan: &'a Plan, receipt: &'a Receipt) -> Answer<'a, Receipt>;
}

impl<R: Responder> AnyResponder for R {
    fn capabilities(&self) -> Capabilities {
        Responder::capabilities(self)
    }
    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        Responder::plan(self, request)
    }
    fn preflight<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()> {
        Box::pin(Responder::preflight(self, plan))
    }
    fn observe<'a>(&'a self, plan: &'a Plan) -> Answer<'a, Observation> {
        Box::pin(Responder::observe(self, plan))
    }
    fn apply<'a>(&'a self, attempt: Attempt, plan: &'a Plan) -> Answer<'a, Receipt> {
        Box::pin(Responder::apply(self, attempt, plan))
    }
    fn revert<'a>(&'a self, attempt: Attempt, plan: &'a Plan, receipt: &'a Receipt) -> Answer<'a, Receipt> {
        Box::pin(Responder::revert(self, attempt, plan, receipt))
    }
}

/// Checks settings and makes a responder.
pub type BuildResponder = fn(&serde_json::Value, &Secrets) -> Result<Arc<dyn AnyResponder>, ConfigError>;

/// One entry of the registry in `responders/lib.rs`.
#[derive(Clone, Copy)]
pub struct ResponderSpec {
    /// The `type` in config.
    pub name: &'static str,
    /// Its page.
    pub doc: &'static str,
    /// JSON Schema of its settings.
    pub schema: fn() -> serde_json::Value,
    /// Settings that show a typical use.
    pub example: fn() -> serde_json::Value,
    /// Checks settings and makes it.
    pub build: BuildResponder,
}

/// The registry entry of a responder.
pub const fn spec_of<R: Responder>() -> ResponderSpec {
    ResponderSpec {
        name: R::NAME,
        doc: R::DOC,
        schema: || schemars::schema_for!(R::Config).to_value(),
        example: R::example,
        build: |config, secrets| {
            let config: R::Config =
                serde_json::from_value(config.clone()).map_err(|e| ConfigError::at("", e.to_string()))?;
            Ok(Arc::new(R::new(config, secrets)?))
        },
    }
}
