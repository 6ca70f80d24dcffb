//! Rules as the engine sees them: resolved, with conditions behind a trait.
//!
//! The expression language is not known here; the config implements [`Condition`] over it.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::detector::BankSource;
use crate::responder::EffectKind;
use crate::series::{KeyView, Labels};
use crate::signal::{Binning, SignalSpec};
use crate::time::{Span, Timestamp};

/// What one detector says about one group of a rule, at this turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorView {
    /// Largest score of the group's rows.
    pub score: f64,
    /// How many rows the group has.
    pub rows: u32,
    /// How many of them score above 1.
    pub anomalous: u32,
    /// How many had data in this turn.
    pub with_data: u32,
    /// How many have none in this turn, are not late, and were out of their band when they last had some.
    pub left: u32,
    /// When any of them last had data.
    pub last: Timestamp,
    /// Until when that counts as current: two intervals of its row's cadence.
    pub fresh_until: Timestamp,
    /// No row has had data for two intervals of its cadence.
    pub stale: bool,
}

impl Default for DetectorView {
    /// A group without rows.
    fn default() -> Self {
        let (score, last) = (0.0, Timestamp::MIN);
        Self { score, rows: 0, anomalous: 0, with_data: 0, left: 0, last, fresh_until: last, stale: false }
    }
}

impl DetectorView {
    /// Whether the group has data and none of it is anomalous. Between two of its values, as they are due, a row is as it was.
    pub const fn in_band(&self) -> bool {
        let has_data = self.with_data > 0 || self.rows > 0 && !self.stale;
        has_data && self.anomalous == 0 && self.left == 0
    }

    /// The same, with nothing known of what was before `at`.
    #[must_use]
    pub fn since(self, at: Timestamp) -> Self {
        if self.last >= at { self } else { Self { with_data: 0, stale: true, ..self } }
    }

    /// Both views as one, for rows that live in different row groups.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            score: self.score.max(other.score),
            rows: self.rows + other.rows,
            anomalous: self.anomalous + other.anomalous,
            with_data: self.with_data + other.with_data,
            left: self.left + other.left,
            last: self.last.max(other.last),
            fresh_until: self.fresh_until.max(other.fresh_until),
            stale: match (self.rows, other.rows) {
                (0, _) => other.stale,
                (_, 0) => self.stale,
                _ => self.stale && other.stale,
            },
        }
    }
}

/// The longest window of [`RuleView::changed`]: for so long changes are remembered.
pub const CHANGES_FOR: Span = Span::from_secs(24 * 3600);

/// What a condition may look at.
pub struct RuleView<'a> {
    /// The rule's detectors, in the order of [`RuleSpec::detectors`].
    pub detectors: &'a [DetectorView],
    /// The group's labels.
    pub group: &'a Labels,
    /// Whether an event of a kind, agreeing with the group on the labels they share, happened in
    /// `[now - window, now)`; the window is at most [`CHANGES_FOR`].
    pub changed: &'a dyn Fn(&str, Span) -> bool,
}

/// A condition that could not be evaluated. Counts as false, is counted and shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConditionError(pub String);

/// A yes-or-no question about one group at one turn.
pub trait Condition: Send + Sync {
    /// Evaluates it.
    fn holds(&self, view: &RuleView<'_>) -> Result<bool, ConditionError>;
    /// The expression as the user wrote it.
    fn text(&self) -> &str;
}

/// How far a rule, a responder or the whole of relight may go; the lowest of the three wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not evaluated.
    Off,
    /// Incidents are opened; nothing is sent.
    Observe,
    /// Notifies; what would mutate is only suggested.
    Suggest,
    /// What mutates waits for a human's approval.
    Approve,
    /// Acts by itself.
    Auto,
}

/// How findings fall into incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// By these labels.
    Labels(Vec<String>),
    /// By the first of these labels that a row has, else by its metric's name under `metric`.
    FirstOf(Vec<String>),
}

impl GroupBy {
    /// The group that a row falls into.
    pub fn group(&self, row: KeyView<'_>) -> Labels {
        match self {
            Self::Labels(keys) => {
                Labels::new(row.labels().filter(|(k, _)| keys.iter().any(|key| key == k)).map(own))
            }
            Self::FirstOf(keys) => {
                let found = keys.iter().find_map(|key| row.get(key).map(|value| (key.as_str(), value)));
                Labels::new([own(found.unwrap_or(("metric", row.name())))])
            }
        }
    }
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// One configured detector on one signal.
#[derive(Clone)]
pub struct DetectorUse {
    /// Its name in config.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Version of its state's bytes.
    pub state_version: u16,
    /// The parameters that shape its state, as one text: a change makes rows start cold.
    pub state_shape: String,
    /// Index of its signal in [`Settings::signals`].
    pub signal: usize,
    /// Makes its banks.
    pub source: Arc<dyn BankSource>,
}

/// What to do when a verification cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Hand on to the next step of the ladder.
    #[default]
    Escalate,
    /// Go on waiting until `within` is over once more.
    Wait,
}

/// When a step of the ladder counts as having helped.
#[derive(Clone)]
pub struct Verify {
    /// Samples younger than this after the action's end are not looked at. Event time.
    pub settle: Span,
    /// The time it has to help, from the action's end. Control time.
    pub within: Span,
    /// What must hold.
    pub require: Arc<dyn Condition>,
    /// For how long it must hold. Event time.
    pub hold: Span,
    /// What to do when data is missing.
    pub on_inconclusive: OnInconclusive,
}

/// Bounds of one step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// From the end of an action on this target until the next may start. Control time.
    pub cooldown: Span,
    /// At most this many in 24 h; `None` is without a bound.
    pub max_per_day: Option<u32>,
    /// The target's lock: one action at a time on it. Empty means the rule and its group.
    pub lock: String,
}

/// How much may be changed in the whole fleet before a human has to look. Counted as after the action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetLimit {
    /// At most this many actions that change the world are started `within`.
    pub actions: u32,
    /// The window. Control time, at most a day.
    pub within: Span,
    /// At most this part of the groups that a rule knows is changed `within`; in percent, above 0.
    pub share_percent: f64,
    /// That part is never less than this many groups.
    pub minimum: u32,
}

impl FleetLimit {
    /// How many groups may be changed where a rule knows `known`.
    pub fn groups(&self, known: u64) -> u64 {
        // 7 % of 100 is 7.000000000000001 in one order and 6.999999999999999 in another: whole groups must not hang on
        // the last bit.
        let share = (known as f64 * self.share_percent / 100.0 + 1e-9).floor();
        (share as u64).max(u64::from(self.minimum))
    }

    /// Beyond this many groups the share allows more than `actions` does: nobody has to count further.
    pub fn groups_enough(&self) -> usize {
        (f64::from(self.actions) / self.share_percent * 100.0).ceil() as usize + 1
    }
}

/// One step of the response ladder.
#[derive(Clone)]
pub struct Step {
    /// The verb: `notify`, `rollback`, `page`, ...
    pub action: String,
    /// The responder's name.
    pub with: String,
    /// Whether that responder changes the world (as its capabilities say).
    pub mutates: bool,
    /// What sending it twice would mean (as its capabilities say).
    pub effect: EffectKind,
    /// The lowest mode among global, rule and responder.
    pub mode: Mode,
    /// Arguments, as written.
    pub args: serde_json::Value,
    /// Bounds.
    pub limits: Limits,
    /// How to tell whether it helped; without it the step hands on once sent.
    pub verify: Option<Verify>,
}

/// The `rule` of what relight has to tell of itself. No rule may have this name.
pub const ITSELF: &str = "relight";

/// A rule, resolved.
#[derive(Clone)]
pub struct RuleSpec {
    /// Its name: the `rule` of its incidents.
    pub name: String,
    /// Indices into [`Settings::detectors`]; the order of [`RuleView::detectors`].
    pub detectors: Vec<usize>,
    /// When an incident begins.
    pub when: Arc<dyn Condition>,
    /// How long `when` must hold. Event time, counted over turns with data.
    pub hold: Span,
    /// In how many turns with data it must hold, at the least.
    pub hold_turns: u32,
    /// How long `when` must be false before an incident resolves. Event time, turns with data.
    pub keep_firing: Span,
    /// Within this after its resolution, the same incident is reopened. Event time.
    pub reopen_within: Span,
    /// More reopenings than this escalate.
    pub max_flaps: u32,
    /// How findings fall into incidents.
    pub group_by: GroupBy,
    /// The ladder.
    pub respond: Vec<Step>,
    /// After this many actions in a row that did not help, mutating steps are blocked until a human
    /// resets it.
    pub breaker_after: u32,
}

impl fmt::Debug for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleSpec({}: {})", self.name, self.when.text())
    }
}

/// A source, as far as the engine has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceBound {
    /// Its name: that of its partition, or what stands before the `/` in the names of its partitions.
    pub name: String,
    /// Series beyond this number are refused, so that the others find room. `None` is without a bound of its own.
    pub max_series: Option<usize>,
}

impl SourceBound {
    /// Whether a partition is one of this source.
    pub fn has(&self, partition: &str) -> bool {
        partition.strip_prefix(&*self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Everything the engine has to know, resolved from the config.
#[derive(Clone)]
pub struct Settings {
    /// How points are put into bins.
    pub binning: Binning,
    /// How far behind its partition's newest a point may be. Event time.
    pub allowed_lateness: Span,
    /// How far one partition may run ahead of the slowest, and how long a stalled one is waited for.
    pub max_skew: Span,
    /// At most this many series.
    pub max_series: usize,
    /// A series without a point for so long is forgotten, with the rows that nothing else feeds. Event time;
    /// [`Span::ZERO`] keeps all.
    pub series_ttl: Span,
    /// The sources by name, and how many series each may bring.
    pub sources: Vec<SourceBound>,
    /// Signals.
    pub signals: Vec<SignalSpec>,
    /// Detectors.
    pub detectors: Vec<DetectorUse>,
    /// Rules.
    pub rules: Vec<RuleSpec>,
    /// How people are told of trouble with relight itself and with what it reads; `None` leaves it to the log.
    pub trouble: Option<Step>,
    /// How much may be changed before a human has to look; `None` is without a bound.
    pub fleet_limit: Option<FleetLimit>,
    /// Bytes that name this configuration: what state depends on. Hashed into manifests.
    pub fingerprint: Vec<u8>,
}

/// What left its band and fell silent is kept for so many times [`Settings::series_ttl`].
const LEFT_TTLS: i64 = 30;

impl Settings {
    /// How long a row that left its band is waited for although it is silent, and its incident with it. `None`: for ever.
    pub fn gone_after(&self) -> Option<Span> {
        (self.series_ttl > Span::ZERO).then(|| self.series_ttl.times(LEFT_TTLS))
    }

    /// Nominal length of a bin.
    pub const fn interval(&self) -> Span {
        match self.binning {
            Binning::Interval(interval) => interval,
            Binning::Sample => Span::from_secs(1),
        }
    }
}

/// A finding: a row whose score is above 1.0, with its band and its detector.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Start of the bin.
    pub at: Timestamp,
    /// Index of the detector in [`Settings::detectors`].
    pub detector: usize,
    /// Canonical bytes of the row: signal and labels.
    pub row: Vec<u8>,
    /// The value; NaN if its absence is the finding.
    pub value: f64,
    /// Score and band.
    pub reading: crate::detector::Reading,
    /// The row gave up on its old normal.
    pub relearned: bool,
    /// Where the anomaly began, if the detector can tell.
    pub onset: Option<Timestamp>,
}
