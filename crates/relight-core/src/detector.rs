//! The detector contract: [`Bank`] is what the engine runs, [`Detector`] the easy way to write one.
//!
//! Nothing here knows a clock, an incident or a thread. A bank sees one row group of one signal, a
//! bin at a time, and nothing else.

mod column;
mod silence;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use column::{Column, Decision, Guard, source, source_of};
pub use silence::{Rhythm, with_silence};

use crate::codec::{Codec, Corrupt, Reader};
use crate::signal::SignalInfo;
use crate::time::{Span, Timestamp};

/// What was expected of a value when it was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// The value that the detector expected; NaN if it expects none in particular.
    pub expected: f64,
    /// Below this is anomalous; -inf if nothing is too low.
    pub lower: f64,
    /// Above this is anomalous; +inf if nothing is too high.
    pub upper: f64,
}

impl Band {
    /// No expectation at all.
    pub const UNKNOWN: Self = Self { expected: f64::NAN, lower: f64::NEG_INFINITY, upper: f64::INFINITY };

    /// Whether a value lies inside, bounds included.
    #[inline]
    pub fn holds(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }
}

/// A verdict on one row: the score (0 = unremarkable, above 1.0 = anomalous) and the band behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Unit-free; comparable across detectors.
    pub score: f64,
    /// The band as it was before the value was learned.
    pub band: Band,
}

impl Reading {
    /// Nothing can be said: warming up, or no model yet.
    pub const UNKNOWN: Self = Self { score: 0.0, band: Band::UNKNOWN };

    /// A reading; a NaN score counts as 0, so that a detector's arithmetic cannot poison a rule.
    #[inline]
    pub fn new(score: f64, band: Band) -> Self {
        // One comparison serves NaN and negative scores alike.
        Self { score: if score > 0.0 { score } else { 0.0 }, band }
    }

    /// Whether the score is above 1.0.
    #[inline]
    pub fn is_anomalous(&self) -> bool {
        self.score > 1.0
    }
}

/// How a detector is to learn a value that it has just judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learn {
    /// In band: learn it.
    Value,
    /// Anomalous, or not yet calm again: hold what was learned. Bookkeeping such as the previous
    /// value may go on; level, spread, slots and tails may not move.
    Hold,
    /// The new values have stayed for `relearn_after`: this is the new normal. State was made anew
    /// by `init` just before.
    Relearn,
}

/// Which side of the band matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Only values that are too high.
    Above,
    /// Only values that are too low.
    Below,
    /// Both.
    #[default]
    Both,
}

/// What every detector understands beside its own parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Which side of the band matters: `above`, `below` or `both`.
    pub direction: Direction,
    /// A deviation from the expected value smaller than this is never anomalous. In the signal's unit.
    #[schemars(range(min = 0.0))]
    pub min_deviation: f64,
    /// The same as a fraction of the expected value (0.1 = 10 %).
    #[schemars(range(min = 0.0))]
    pub min_relative_deviation: f64,
    /// Values that a row must have seen before it may score above 1. 0 takes the detector's own figure.
    #[schemars(range(max = 65_535))]
    pub warm_up: u32,
    /// Consecutive values in band before a row that was anomalous learns again.
    #[schemars(range(max = 65_535))]
    pub calm_bins: u32,
    /// After this long outside the band, silence not counted, the row starts anew: what it sees is the new normal.
    pub relearn_after: Span,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            direction: Direction::Both,
            min_deviation: 0.0,
            min_relative_deviation: 0.0,
            warm_up: 0,
            calm_bins: 5,
            relearn_after: Span::from_secs(6 * 3600),
        }
    }
}

impl Policy {
    /// Values that every row counts, however short its warm-up is: a raised one asks for as many at least.
    pub const COUNTED: u16 = 256;

    /// How many values a row must have seen to be warm for good.
    #[inline]
    pub fn enough(&self) -> u16 {
        u16::try_from(self.warm_up).unwrap_or(u16::MAX).max(Self::COUNTED)
    }

    /// Narrows a reading to what the user cares about: one side only, and never a deviation that is
    /// too small. The band widens with it, so that chart and score agree.
    #[must_use]
    #[inline]
    pub fn mask(&self, value: f64, reading: Reading) -> Reading {
        let Band { expected, mut lower, mut upper } = reading.band;
        if expected.is_finite() {
            let least = self.least(expected);
            lower = lower.min(expected - least);
            upper = upper.max(expected + least);
            if !self.admits(value, expected) {
                return self.one_sided(reading.score.min(1.0), expected, lower, upper);
            }
        }
        self.one_sided(reading.score, expected, lower, upper)
    }

    /// Whether a value is far enough from what was expected, on a side that matters, to be anomalous at all.
    #[inline]
    pub fn admits(&self, value: f64, expected: f64) -> bool {
        let side = match self.direction {
            Direction::Above => value > expected,
            Direction::Below => value < expected,
            Direction::Both => true,
        };
        side && (value - expected).abs() >= self.least(expected)
    }

    fn least(&self, expected: f64) -> f64 {
        self.min_deviation.max(self.min_relative_deviation * expected.abs())
    }

    /// Whether [`Policy::mask`] leaves every score as it is.
    pub fn is_open(&self) -> bool {
        self.direction == Direction::Both && self.min_deviation == 0.0 && self.min_relative_deviation == 0.0
    }

    #[inline]
    fn one_sided(&self, score: f64, expected: f64, lower: f64, upper: f64) -> Reading {
        let lower = if self.direction == Direction::Above { f64::NEG_INFINITY } else { lower };
        let upper = if self.direction == Direction::Below { f64::INFINITY } else { upper };
        Reading::new(score, Band { expected, lower, upper })
    }
}

/// Why a detector or responder cannot be made of a config. `path` is the key inside its own section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The offending key, or empty for the whole section.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ConfigError {
    /// An error about one key.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// What a detector's author writes. Pure: no clock, no I/O, no randomness; total on every finite f64.
///
/// Config is shared by all rows; state is per row and small.
pub trait Detector: Sized + Send + Sync + 'static {
    /// The `type` in config.
    const NAME: &'static str;
    /// The page that `relight explain` prints.
    const DOC: &'static str;
    /// Moves when the bytes of `State` change their meaning.
    const STATE_VERSION: u16;
    /// Values a row must have seen before it may score above 1; at most [`Policy::COUNTED`].
    const WARM_UP: u32;
    /// Its parameters.
    type Config: Serialize + DeserializeOwned + Default + JsonSchema;
    /// What it remembers of a row.
    type State: Clone + Send + Codec + 'static;

    /// Checks the parameters; nothing fails after this.
    fn new(config: Self::Config, signal: &SignalInfo) -> Result<Self, ConfigError>;
    /// The state of a row that has seen nothing.
    fn init(&self) -> Self::State;
    /// The verdict on a value by the state as it was before it.
    fn judge(&self, state: &Self::State, at: Timestamp, value: f64) -> Reading;
    /// Learns the value just judged.
    fn absorb(&self, state: &mut Self::State, at: Timestamp, value: f64, reading: &Reading, learn: Learn);
    /// `bins` expected samples of the row are missing so far. Called once a turn while they are; the
    /// count is in the row's own learned cadence.
    fn gap(&self, _state: &mut Self::State, _at: Timestamp, _bins: u32) -> Reading {
        Reading::UNKNOWN
    }
    /// Whether [`Detector::gap`] may score, so that silence alone must make turns happen. Costs a scan
    /// of silent rows a turn.
    const JUDGES_SILENCE: bool = false;
    /// After how many missing samples [`Detector::gap`] would first score; asked only if
    /// [`Detector::JUDGES_SILENCE`].
    fn patience(&self) -> u32 {
        u32::MAX
    }
    /// When the present anomaly began, if the detector can tell better than "now". Asked only for findings.
    fn onset(&self, _state: &Self::State) -> Option<Timestamp> {
        None
    }
    /// Reads the state of version N-1.
    fn migrate(&self, _version: u16, _bytes: &mut Reader<'_>) -> Result<Self::State, Corrupt> {
        Err(Corrupt::Value("state version"))
    }
}

/// A row's verdict in one turn, as a bank hands it on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowReading {
    /// Row within the group.
    pub row: u32,
    /// The value that was judged; NaN for a missing one.
    pub value: f64,
    /// The verdict, masked.
    pub reading: Reading,
    /// The row gave up on its old normal in this turn and learns anew.
    pub relearned: bool,
    /// Estimated begin of the anomaly; only of findings.
    pub onset: Option<Timestamp>,
}

/// One bin of one row group, as banks see it.
#[derive(Debug, Clone, Copy)]
pub struct BinColumn<'a> {
    /// Start of the bin: the time that the values are of.
    pub at: Timestamp,
    /// One value per row; NaN where the row has no data in this bin.
    pub values: &'a [f64],
    /// Per row, how many expected samples have been missing so far (0 = none, or data came). Empty
    /// unless the bank judges silence.
    pub missing: &'a [u32],
    /// When rows last spoke, and how often they do.
    pub rhythm: Rhythm<'a>,
}

/// What a bank hands out in a turn.
#[derive(Debug, Default)]
pub struct Readings {
    /// Rows that scored above 1 or re-learned, ascending.
    pub findings: Vec<RowReading>,
    /// Every row that was judged, if asked for (`--scores`, charts).
    pub all: Option<Vec<RowReading>>,
    /// The row that is being stepped: 0 between steps, and the culprit after one that panicked.
    pub row: usize,
}

impl Readings {
    /// Takes note of one verdict.
    #[inline]
    pub fn push(&mut self, row: RowReading) {
        // Nearly every verdict is neither a finding nor asked for: it must not even be put together.
        if row.reading.is_anomalous() || row.relearned || self.all.is_some() {
            self.keep(row);
        }
    }

    #[cold]
    fn keep(&mut self, row: RowReading) {
        if row.reading.is_anomalous() || row.relearned {
            self.findings.push(row);
        }
        if let Some(all) = &mut self.all {
            all.push(row);
        }
    }
}

/// A column of detector states: one row group of one signal.
///
/// Works on whole chunks, so that a virtual call is paid per chunk and never per point. Judges
/// before it learns, masks, and guards, whatever the author wrote.
pub trait Bank: Send {
    /// Appends rows without history until there are `rows`.
    fn grow(&mut self, rows: usize);
    /// How many rows there are.
    fn rows(&self) -> usize;
    /// Judges and learns one bin, row by row, from [`Readings::row`] on.
    ///
    /// A panic is caught outside: [`Readings::row`] then tells whose it was. Rows before it are done, and the step is
    /// called again for those behind it, so nothing but the row itself may be left half done.
    fn step(&mut self, bin: BinColumn<'_>, out: &mut Readings);
    /// The row's score in the turn that was stepped last; NaN if it had no data in it.
    fn last_score(&self, row: u32) -> f32;
    /// How many rows have seen values, but too few to score above 1; and how many values that takes.
    fn warming(&self) -> (usize, u32) {
        (0, 0)
    }
    /// Whether [`Bank::step`] must be called even when no row has data, because silence is judged:
    /// after how many missing samples of its cadence a row would first score.
    fn patience(&self) -> Option<u32> {
        None
    }
    /// Appends the states of `rows`, in that order.
    fn save(&self, rows: &[u32], out: &mut Vec<u8>);
    /// Replaces everything by `rows` states that [`Bank::save`] of `version` wrote.
    fn load(&mut self, version: u16, rows: usize, reader: &mut Reader<'_>) -> Result<(), Corrupt>;
    /// Seeds one row with history that was recorded before, oldest first, from an earlier capture.
    /// `at` is the bin from which it holds.
    fn seed(&mut self, _row: u32, _at: Timestamp, _history: &[(Timestamp, f64)]) {}
    /// Makes a row one without history again, as [`Bank::grow`] makes them: it was evicted, or is half done.
    fn forget(&mut self, row: u32);
    /// Bytes of memory held, labels excluded.
    fn state_bytes(&self) -> usize;
}

/// Makes banks of one configured detector.
pub trait BankSource: Send + Sync {
    /// An empty bank.
    fn bank(&self) -> Box<dyn Bank>;
}

/// Checks parameters and makes a source of banks.
pub type BuildDetector =
    fn(&serde_json::Value, &Policy, &SignalInfo) -> Result<Arc<dyn BankSource>, ConfigError>;

/// One entry of the registry in `detectors/lib.rs`.
#[derive(Clone, Copy)]
pub struct DetectorSpec {
    /// The `type` in config.
    pub name: &'static str,
    /// Its page.
    pub doc: &'static str,
    /// Version of its state's bytes.
    pub state_version: u16,
    /// JSON Schema of its parameters.
    pub schema: fn() -> serde_json::Value,
    /// Its parameters' defaults.
    pub defaults: fn() -> serde_json::Value,
    /// Checks parameters and makes a source of banks.
    pub build: BuildDetector,
    /// One `key=value` line of the parameters that shape the state: while it is unchanged, state is
    /// kept across a reload.
    pub state_shape: fn(&serde_json::Value) -> String,
}
