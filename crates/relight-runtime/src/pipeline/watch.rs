//! The result of one turn, for those who look on: a replay's report, tests.

use relight_core::Timestamp;
use relight_core::rule::Finding;
use relight_engine::detect::RowFinding;
use relight_engine::directory::RowAddr;
use relight_engine::intake::ReadyBin;

use crate::report::ScoredRow;

/// The result of one turn.
pub struct Turn<'a> {
    /// The bin's end.
    pub end: Timestamp,
    /// Its findings, in their order.
    pub findings: &'a [Finding],
    /// Every verdict, if [`Watch::wants_readings`].
    pub readings: &'a [ScoredRow],
    /// Values of rows that were not judged; if [`Watch::wants_readings`].
    pub carried: &'a [(RowAddr, f64)],
}

/// Watches turns go by.
pub trait Watch {
    /// Whether every verdict is to be handed out.
    fn wants_readings(&self) -> bool {
        false
    }
    /// A turn is over.
    fn turn(&mut self, turn: &Turn<'_>);
}

impl Watch for () {
    fn turn(&mut self, _: &Turn<'_>) {}
}

/// Returns verdicts with the time and record that they belong to.
pub(super) fn scored(ready: &ReadyBin, all: &[RowFinding]) -> Vec<ScoredRow> {
    let scored = |f: &RowFinding| ScoredRow {
        offset: ready.offset,
        at: ready.at,
        row: f.row,
        detector: f.detector,
        value: f.reading.value,
        reading: f.reading.reading,
    };
    all.iter().map(scored).collect()
}
