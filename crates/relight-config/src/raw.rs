//! The file as it is written, before names are resolved. These types are the file's schema, and
//! their comments are what the schema says of each key.
//!
//! Signals, detectors, rules and responders are read entry by entry, so that a faulty one hides no other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use relight_core::Span;
use relight_core::rule::{Mode, OnInconclusive};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// relight's configuration. Every key may be left out; `config/default.yaml` shows all of them.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    /// Length of a bin of event time, such as `10s`; or `sample`, where each sample is a bin of its own:
    /// for a single series.
    #[schemars(example = "10s")]
    pub(crate) interval: String,
    /// How far behind the newest of its partition a point may be and still count.
    pub(crate) allowed_lateness: Span,
    /// How far one partition may run ahead of the slowest, and how long a stalled one is waited for.
    pub(crate) max_skew: Span,
    /// Series beyond this number are refused and counted.
    #[schemars(range(min = 1))]
    pub(crate) max_series: usize,
    /// A series without a point for so long is forgotten, with what was learned of it, and leaves its place to another.
    /// `0s` keeps all.
    pub(crate) series_ttl: Span,
    /// How far relight may go; the lowest of this, the rule's and the responder's wins.
    pub(crate) mode: Mode,
    /// The folder that `relight run` keeps its state in.
    pub(crate) state: String,
    /// Time between two snapshots of `relight run`: what a crash would have to read again.
    pub(crate) snapshot_every: Span,
    /// A partition without records for this long is idle, if it is caught up.
    pub(crate) idle_after: Span,
    /// How long a listener's watermark stays after a start where the snapshot or its journal left it, so that batches
    /// which are sent again are not late.
    pub(crate) catch_up: Span,
    /// After a start without learned state nothing is changed for so long; people are told all the same.
    pub(crate) warm_up: Span,
    /// How much memory may be resident. Left out: four fifths and nine tenths of what the process may use by its cgroups,
    /// or of the machine's memory.
    #[schemars(with = "Option<Memory>")]
    pub(crate) memory: Option<Value>,
    /// Where `relight run` shows /metrics, /healthz and /readyz: a loopback `ADDRESS:PORT`, or `off`.
    pub(crate) admin: String,
    /// Names under which `admin` may be asked, beside those of loopback and its own address: what a proxy in front of it
    /// sends as `Host`.
    pub(crate) admin_hosts: Vec<String>,
    /// A sign of life, sent while bins close and the ledger commits: whoever gets it notices when relight is dead.
    #[schemars(with = "Option<Heartbeat>")]
    pub(crate) heartbeat: Option<Value>,
    /// Who is told of trouble with relight itself and with what it reads; left out, only the log.
    #[schemars(with = "Option<Trouble>")]
    pub(crate) trouble: Option<Value>,
    /// How much may be changed before a human has to look, or `off`. Left out: the defaults of its keys.
    #[schemars(with = "FleetLimitOrOff")]
    pub(crate) fleet_limit: Value,
    /// Secrets by name. A name that ends in `_file` gives the file that holds the secret.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) secrets: BTreeMap<String, Value>,
    /// Where data comes from, by name. Left out: OTLP, on this machine's ports 4317 (gRPC) and 4318 (HTTP).
    pub(crate) sources: Option<BTreeMap<String, Value>>,
    /// What is watched, by name. Left out: every series by itself, under the name `every_series`.
    #[schemars(with = "Option<BTreeMap<String, Signal>>")]
    pub(crate) signals: Option<BTreeMap<String, Value>>,
    /// What judges the signals, by name. Left out: `adaptive` on each signal.
    pub(crate) detectors: Option<BTreeMap<String, Value>>,
    /// What is made of it. Left out: one incident per service, when at least 3 findings last 3 bins; nothing is done.
    #[schemars(with = "Option<Vec<Rule>>")]
    pub(crate) rules: Option<Vec<Value>>,
    /// What carries actions out, by name.
    pub(crate) responders: BTreeMap<String, Value>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            interval: "10s".to_owned(),
            allowed_lateness: Span::from_secs(10),
            max_skew: Span::from_secs(120),
            max_series: 1_000_000,
            series_ttl: Span::from_secs(24 * 3600),
            mode: Mode::Suggest,
            state: "relight-state".to_owned(),
            snapshot_every: Span::from_secs(60),
            idle_after: Span::from_secs(60),
            catch_up: Span::from_secs(30),
            // The slowest detectors speak after 100 values: 1,000 s in bins of 10 s.
            warm_up: Span::from_secs(1_200),
            memory: None,
            admin: "127.0.0.1:9777".to_owned(),
            admin_hosts: Vec::new(),
            heartbeat: None,
            trouble: None,
            fleet_limit: Value::Object(serde_json::Map::new()),
            secrets: BTreeMap::new(),
            sources: None,
            signals: None,
            detectors: None,
            rules: None,
            responders: BTreeMap::new(),
        }
    }
}

/// The edges of resident memory.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// At this sources are held back: listeners answer that they are busy, topics are paused. Where that does not help
    /// within 10 s they go on, and new series are refused.
    #[schemars(range(min = 1))]
    pub(crate) soft_bytes: u64,
    /// At this sources are held back and new series are refused, for as long as it lasts.
    #[schemars(range(min = 1))]
    pub(crate) hard_bytes: u64,
}

/// A sign of life.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Heartbeat {
    /// Name of a responder that only tells somebody: `reach: notify`.
    pub(crate) with: String,
    /// The time between two.
    #[serde(default = "a_minute")]
    pub(crate) every: Span,
}

/// Whom relight tells of its own troubles.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trouble {
    /// Name of a responder that only tells somebody: `reach: notify`.
    pub(crate) with: String,
}

/// How much may be changed in all before a human has to look.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FleetLimit {
    /// At most this many actions that change the world, `within`.
    #[schemars(range(min = 1))]
    pub(crate) actions: u32,
    /// The window: at most `1d`.
    pub(crate) within: Span,
    /// At most this part of the groups that a rule knows, `within`: a percentage above 0, such as `20%`.
    pub(crate) share: String,
    /// That part is never less than this many groups.
    #[schemars(range(min = 1))]
    pub(crate) minimum: u32,
}

impl Default for FleetLimit {
    fn default() -> Self {
        Self { actions: 5, within: Span::from_secs(600), share: "20%".to_owned(), minimum: 1 }
    }
}

/// The limit's keys, or `off`.
pub(crate) struct FleetLimitOrOff;

impl JsonSchema for FleetLimitOrOff {
    fn schema_name() -> Cow<'static, str> {
        "FleetLimitOrOff".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<FleetLimit>();
        json_schema!({ "anyOf": [{ "type": "string", "const": "off", "description": "without a limit" }, map] })
    }
}

fn a_minute() -> Span {
    Span::from_secs(60)
}

/// A signal: exactly one of `value`, `rate`, `ratio`, `quantile`, `events` and `every_series`.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Signal {
    /// Mean of each gauge in the bin, aggregated over the series of a row.
    pub(crate) value: Option<OrText<Gauge>>,
    /// Increase per second, summed over the series of a row.
    pub(crate) rate: Option<OrText<Series>>,
    /// Increase of `of` divided by the increase of `to`.
    pub(crate) ratio: Option<Ratio>,
    /// A quantile of histograms, merged over the series of a row.
    pub(crate) quantile: Option<Quantile>,
    /// Number of events in the bin. The event's kind is the selector's name: `deploy{service="shop"}`.
    pub(crate) events: Option<OrText<Series>>,
    /// Every series by itself: a gauge its mean, a counter its rate, a histogram its p99 and its rate.
    pub(crate) every_series: Option<bool>,
    /// The labels that tell rows apart. Left out: all labels of the series.
    pub(crate) by: Option<Vec<String>>,
    /// Of a `ratio`: below this increase of `to` in a bin there is no data.
    #[schemars(range(min = 0.0))]
    pub(crate) min_denominator: Option<f64>,
    /// Of a `ratio`: what a bin means in which `to` has data and `of` has none.
    pub(crate) missing_of: Option<MissingOf>,
}

/// What a ratio is where its part has no data and its whole has.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MissingOf {
    /// 0: a counter of errors that comes into being with the first error.
    #[default]
    Zero,
    /// No data: a part that is always reported, so that its silence says nothing.
    NoData,
}

/// A map with `of`, or the selector alone.
pub(crate) struct OrText<T>(pub(crate) T);

impl<'de, T: DeserializeOwned + From<String>> Deserialize<'de> for OrText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text.into())),
            other => serde_json::from_value(other).map(Self).map_err(D::Error::custom),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OrText<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrText", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string", "description": "a PromQL selector" }, map] })
    }
}

/// Series.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Series {
    /// A PromQL selector.
    pub(crate) of: String,
}

impl From<String> for Series {
    fn from(of: String) -> Self {
        Self { of }
    }
}

/// Gauges.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gauge {
    /// A PromQL selector.
    pub(crate) of: String,
    /// How several series become one row.
    #[serde(default)]
    pub(crate) aggregate: Aggregate,
}

impl From<String> for Gauge {
    fn from(of: String) -> Self {
        Self { of, aggregate: Aggregate::default() }
    }
}

/// How several series become one row.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aggregate {
    /// Arithmetic mean.
    #[default]
    Mean,
    /// Sum.
    Sum,
    /// Smallest.
    Min,
    /// Largest.
    Max,
}

/// A part of a whole.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ratio {
    /// A PromQL selector: the part.
    pub(crate) of: String,
    /// A PromQL selector: the whole.
    pub(crate) to: String,
}

/// A quantile of histograms.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quantile {
    /// A PromQL selector.
    pub(crate) of: String,
    /// Which quantile, such as 0.99.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) q: f64,
}

/// What the responders of every type have in common.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ResponderHead {
    /// How far this responder may go.
    #[serde(default = "no_limit")]
    pub(crate) mode: Mode,
}

/// A rule: when an incident begins, how long it lasts, and what is done about it.
///
/// What is required and missing, or faulty, is `None` here: the schema has said so, and the rest is checked all the same.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Its name: the `rule` of its incidents.
    #[schemars(required)]
    pub(crate) name: Option<String>,
    /// A CEL expression over `DETECTOR.score`, `.rows`, `.anomalous`, `.in_band` and `.stale`, `group.LABEL` and
    /// `changed("KIND", "WINDOW")`, whose window is at most 24h.
    #[schemars(required)]
    pub(crate) when: Option<String>,
    /// How long `when` must hold before the incident opens.
    #[serde(default)]
    pub(crate) r#for: Span,
    /// How long `when` must be false before the incident is over.
    #[serde(default = "three_minutes")]
    pub(crate) keep_firing_for: Span,
    /// Within this after its end, the same incident is opened again.
    #[serde(default = "half_an_hour")]
    pub(crate) reopen_within: Span,
    /// More reopenings than this call a human.
    #[serde(default = "three")]
    pub(crate) max_flaps: u32,
    /// The labels that findings of one incident share. Left out: those that all of the rule's detectors have.
    pub(crate) group_by: Option<Vec<String>>,
    /// How far this rule may go.
    #[serde(default = "no_limit")]
    pub(crate) mode: Mode,
    /// A ladder: the next step starts when the one before is not verified.
    #[serde(default)]
    #[schemars(with = "Vec<Step>")]
    pub(crate) respond: Vec<Option<Step>>,
    /// Stops what keeps failing.
    #[serde(default)]
    pub(crate) circuit_breaker: CircuitBreaker,
}

/// A step of the ladder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// The verb: `notify`, `rollback`, `page`.
    #[schemars(required)]
    pub(crate) r#do: Option<String>,
    /// Name of a responder.
    #[schemars(required)]
    pub(crate) with: Option<String>,
    /// What the responder is told.
    #[serde(default = "nothing")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) args: Value,
    /// Bounds.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How to tell whether it helped. Left out: the step hands on once sent.
    pub(crate) verify: Option<Verify>,
}

/// Bounds of a step.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// From the end of an action until the next on the same target. Left out: 10 minutes for what changes the
    /// world, nothing for what only tells somebody.
    pub(crate) cooldown: Option<Span>,
    /// At most this many in 24 hours.
    #[schemars(range(min = 1))]
    pub(crate) max_per_day: Option<u32>,
    /// The target's lock: one action at a time. Left out: the rule and its group.
    pub(crate) lock: String,
}

/// How to tell whether a step helped.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    /// Samples from before this after the action's end are not looked at.
    #[serde(default)]
    pub(crate) settle: Span,
    /// The time it has to help.
    #[schemars(required)]
    pub(crate) within: Option<Span>,
    /// A CEL expression, as in `when`.
    #[schemars(required)]
    pub(crate) require: Option<String>,
    /// For how long that must hold.
    #[serde(default)]
    pub(crate) r#for: Span,
    /// What to do when data is missing.
    #[serde(default)]
    pub(crate) on_inconclusive: OnInconclusive,
}

/// Stops what keeps failing.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CircuitBreaker {
    /// After this many actions in a row that did not help, steps that change the world are blocked.
    #[schemars(range(min = 1))]
    pub(crate) open_after: u32,
    /// Who closes it again: a human.
    pub(crate) reset: Reset,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { open_after: 2, reset: Reset::Manual }
    }
}

/// Who closes a circuit breaker.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reset {
    /// A human, by `relight reset RULE`.
    Manual,
}

fn no_limit() -> Mode {
    Mode::Auto
}

fn three() -> u32 {
    3
}

fn three_minutes() -> Span {
    Span::from_secs(180)
}

fn half_an_hour() -> Span {
    Span::from_secs(1800)
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}
