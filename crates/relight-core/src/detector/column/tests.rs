//! Columns against a model of one row that shares no code with them.

use proptest::prelude::*;
use schemars::JsonSchema;

use super::*;
use crate::detector::{Band, Direction, Learn, Rhythm};
use crate::time::Span;

const BIN_SECS: i64 = 60;
const WARM_UP: u32 = 4;
const WIDTH: f64 = 10.0;
const CALM_BINS: u32 = 3;
const RELEARN_SECS: i64 = 12 * BIN_SECS;
const ROWS: usize = 6;

/// Expects the mean of all values that it learned. Whole numbers, so that no order of additions matters.
struct Mean;

#[derive(Clone, Debug, Default, PartialEq)]
struct MeanState {
    sum: f64,
    learned: u32,
    held: u32,
}
codec_struct!(MeanState { sum, learned, held });

#[derive(Default, serde::Serialize, serde::Deserialize, JsonSchema)]
struct Nothing {}

impl Detector for Mean {
    const NAME: &'static str = "mean";
    const DOC: &'static str = "";
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = WARM_UP;
    type Config = Nothing;
    type State = MeanState;

    fn new(_: Nothing, _: &SignalInfo) -> Result<Self, ConfigError> {
        Ok(Self)
    }
    fn init(&self) -> MeanState {
        MeanState::default()
    }
    fn judge(&self, state: &MeanState, _: Timestamp, value: f64) -> Reading {
        if state.learned == 0 {
            return Reading::UNKNOWN;
        }
        let expected = state.sum / f64::from(state.learned);
        let band = Band { expected, lower: expected - WIDTH, upper: expected + WIDTH };
        Reading::new((value - expected).abs() / WIDTH, band)
    }
    fn absorb(&self, state: &mut MeanState, _: Timestamp, value: f64, _: &Reading, learn: Learn) {
        if learn == Learn::Hold {
            state.held += 1;
        } else {
            state.sum += value;
            state.learned += 1;
        }
    }
}

/// The independent model of one row: the values that it learned, and the reading of each value.
#[derive(Default)]
struct Model {
    learned: Vec<f64>,
    held: u32,
    seen: u32,
    /// Values in band since the last one outside; `None` while nothing is held.
    calm: Option<u32>,
    outside_since: i64,
}

/// Score, expected value, whether the row starts anew.
type Said = (f64, Option<f64>, bool);

impl Model {
    fn says(&mut self, bin: i64, value: f64, direction: Direction) -> Said {
        let expected =
            (!self.learned.is_empty()).then(|| self.learned.iter().sum::<f64>() / self.learned.len() as f64);
        let away = expected.map_or(0.0, |expected| (value - expected).abs() / WIDTH);
        let is_other_side =
            direction == Direction::Above && expected.is_some_and(|expected| value <= expected);
        let is_quiet = self.seen < WARM_UP || is_other_side;
        let score = if is_quiet && away > 1.0 { 1.0 } else { away };
        self.seen += 1;
        if score > 1.0 {
            let at = bin * BIN_SECS;
            if self.calm.is_none() {
                self.outside_since = at;
            }
            if at - self.outside_since >= RELEARN_SECS {
                *self = Self { learned: vec![value], seen: 1, ..Self::default() };
                return (score, expected, true);
            }
            self.calm = Some(0);
            self.held += 1;
            return (score, expected, false);
        }
        match self.calm {
            Some(calm) if calm + 1 < CALM_BINS => {
                self.calm = Some(calm + 1);
                self.held += 1;
            }
            _ => {
                self.calm = None;
                self.learned.push(value);
            }
        }
        (score, expected, false)
    }

    fn state(&self) -> MeanState {
        MeanState { sum: self.learned.iter().sum(), learned: self.learned.len() as u32, held: self.held }
    }
}

/// The reading of a column for one row.
fn said(reading: &RowReading) -> Said {
    let expected = reading.reading.band.expected;
    (reading.reading.score, (!expected.is_nan()).then_some(expected), reading.relearned)
}

fn value_of(draw: u8) -> f64 {
    match draw {
        0..=8 => 100.0 + f64::from(draw),
        9 | 10 => 200.0 + f64::from(draw),
        11 => 20.0,
        _ => f64::NAN,
    }
}

fn states(bank: &dyn Bank) -> Vec<MeanState> {
    let (order, mut bytes): (Vec<u32>, _) = ((0..ROWS as u32).collect(), Vec::new());
    bank.save(&order, &mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut state = |_| {
        Guard::decode(&mut reader).expect("a guard");
        MeanState::decode(&mut reader).expect("a state")
    };
    order.iter().map(&mut state).collect()
}

fn check(bins: &[[u8; ROWS]], direction: Direction, is_asked: bool) {
    let relearn_after = Span::from_secs(RELEARN_SECS);
    let policy = Policy { direction, calm_bins: CALM_BINS, relearn_after, ..Policy::default() };
    let mut bank = source(Mean, policy).bank();
    bank.grow(ROWS);
    let mut models: [Model; ROWS] = Default::default();
    for (bin, draws) in (0..).zip(bins) {
        let values = draws.map(value_of);
        let at = Timestamp::from_secs(1_000_000_000 + bin * BIN_SECS);
        let mut out = Readings { all: is_asked.then(Vec::new), ..Readings::default() };
        bank.step(BinColumn { at, values: &values, missing: &[], rhythm: Rhythm::default() }, &mut out);
        let mut expected: Vec<(u32, Said)> = Vec::new();
        for (row, (model, value)) in (0..).zip(models.iter_mut().zip(values)) {
            let score = bank.last_score(row);
            if value.is_nan() {
                assert!(score.is_nan(), "bin {bin}, row {row}");
                continue;
            }
            let says = model.says(bin, value, direction);
            assert_eq!(score.to_bits(), (says.0 as f32).to_bits(), "bin {bin}, row {row}");
            expected.push((row, says));
        }
        if let Some(all) = &out.all {
            let all: Vec<_> = all.iter().map(|reading| (reading.row, said(reading))).collect();
            assert_eq!(all, expected, "bin {bin}");
        }
        expected.retain(|(_, (score, _, relearned))| *score > 1.0 || *relearned);
        let found: Vec<_> = out.findings.iter().map(|reading| (reading.row, said(reading))).collect();
        assert_eq!(found, expected, "bin {bin}");
        let wanted: Vec<MeanState> = models.iter().map(Model::state).collect();
        assert_eq!(states(&*bank), wanted, "bin {bin}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Guarantee: each value is judged by what was learned before it; what is outside the band, and the values of `calm_bins`
    /// after it, are not learned; and after `relearn_after` the row starts anew. Whole columns say so, and rows by themselves.
    #[test]
    fn a_column_is_as_its_model(
        bins in prop::collection::vec(prop::array::uniform6(0..13_u8), 1..80),
        above: bool,
        is_asked: bool,
    ) {
        check(&bins, if above { Direction::Above } else { Direction::Both }, is_asked);
    }
}

/// Guarantee: the model is asked about all that it is for: spikes, calm, silence and a new normal.
#[test]
fn a_story_of_every_kind_is_as_its_model() {
    let row =
        [[0; 8].as_slice(), &[9], &[1, 2, 3, 4], &[9; 20], &[12, 12], &[9, 0, 0, 9, 0, 0, 0, 0, 0]].concat();
    let bins: Vec<[u8; ROWS]> = row.iter().map(|draw| [*draw; ROWS]).collect();
    for direction in [Direction::Both, Direction::Above] {
        for is_asked in [false, true] {
            check(&bins, direction, is_asked);
        }
    }
}
