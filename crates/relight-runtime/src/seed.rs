//! What rows were worth in captures that were recorded before the one that is judged.
//!
//! A [`History`] is gathered by the same engine that judges, without rules, so that a row's values are
//! those which its detectors would have seen. Rows are told apart by name, never by where they lived:
//! the engine that is seeded numbers them anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::record::Kind;
use relight_core::rule::Settings;
use relight_core::{Span, Timestamp};
use relight_engine::directory::{RowAddr, Stat};
use relight_ingest::CaptureSource;
use relight_store::{MemoryBaselines, MemoryLedger};

use crate::error::RuntimeError;
use crate::pipeline::{Commit, Pipeline, Responders, Stores, Turn, Watch};
use crate::replay::{Inputs, ReplayObserver};

/// Values that are kept of one row, 16 bytes each: eight weeks at five minutes, which is as far back as
/// any detector looks.
const MAX_VALUES: usize = 16_384;

/// A row's name: its signal, its canonical bytes, and which figure of a series it shows.
pub(crate) type RowName = (usize, Vec<u8>, Stat);
/// A row's values, oldest first.
pub(crate) type Values = Vec<(Timestamp, f64)>;

/// What earlier captures hold of each row.
///
/// At most 16,384 values a row: of a longer history every second, fourth, .. value is kept, so that it
/// reaches back as far as the captures do.
pub struct History {
    pub(crate) series: Vec<(Vec<u8>, Kind)>,
    /// Taken out when they are planted: by then they are the largest thing in memory.
    pub(crate) rows: BTreeMap<RowName, Values>,
    count: usize,
    points: u64,
    span: Option<(Timestamp, Timestamp)>,
    notices: Vec<String>,
}

impl History {
    /// Reads earlier captures to their end. The result does not depend on the number of threads.
    pub fn read(
        settings: &Settings,
        sources: Vec<Box<dyn CaptureSource>>,
        threads: usize,
        observer: &mut dyn ReplayObserver,
    ) -> Result<Self, RuntimeError> {
        let stores = Stores {
            baselines: Box::new(MemoryBaselines::default()),
            ledger: Box::new(MemoryLedger::default()),
        };
        let settings = Arc::new(without_rules(settings));
        let responders = Box::new(Responders::new(BTreeMap::new()));
        let mut notices = Vec::new();
        let mut pipeline =
            Pipeline::open(settings, threads, stores, responders, Commit::AtSnapshots, &mut notices)?;
        let mut inputs = Inputs::new(sources, &mut pipeline)?;
        let mut recorder = Recorder::default();
        while inputs.read(&mut pipeline, &mut recorder)? {
            let (done, total) = inputs.progress();
            observer.progress(done, total, pipeline.points());
        }
        pipeline.run(&mut recorder)?;
        notices.extend(inputs.complaints());
        Ok(recorder.finish(&pipeline, notices))
    }

    /// How many rows have values.
    pub const fn rows(&self) -> usize {
        self.count
    }

    /// How many points there were to learn from.
    pub const fn points(&self) -> u64 {
        self.points
    }

    /// The first bin with a value, and the bin from which on the history holds; `None` if it is empty.
    ///
    /// The latter is the last bin of the captures. Its values are left out: the captures end somewhere
    /// within it, and those that are judged may begin in it.
    pub const fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    /// What a person should know: bad lines.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

/// The first detector of each signal is enough to have every row's values handed out.
fn without_rules(settings: &Settings) -> Settings {
    let mut detectors = settings.detectors.clone();
    let mut watched = vec![false; settings.signals.len()];
    detectors.retain(|detector| !std::mem::replace(&mut watched[detector.signal], true));
    // Rows are told apart by where they live until the end, so none may leave its place to another.
    Settings { detectors, rules: Vec::new(), series_ttl: Span::ZERO, ..settings.clone() }
}

/// Values of one row, thinned evenly when there are too many.
#[derive(Debug, Default)]
struct Thinned {
    values: Values,
    seen: u64,
    /// Every 2^`halvings`th value is kept.
    halvings: u32,
}

impl Thinned {
    fn push(&mut self, at: Timestamp, value: f64) {
        if self.seen & ((1 << self.halvings) - 1) == 0 {
            if self.values.len() == MAX_VALUES {
                let mut ix = 0;
                self.values.retain(|_| {
                    ix += 1;
                    ix % 2 == 1
                });
                // MAX_VALUES is even, so this value is one of those that are still wanted.
                self.halvings += 1;
            }
            self.values.push((at, value));
        }
        self.seen += 1;
    }
}

/// Takes down every value of every row.
#[derive(Default)]
struct Recorder {
    rows: BTreeMap<RowAddr, Thinned>,
    span: Option<(Timestamp, Timestamp)>,
}

impl Watch for Recorder {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        // Silence is judged, too, and has no value.
        for reading in turn.readings.iter().filter(|reading| !reading.value.is_nan()) {
            self.rows.entry(reading.row).or_default().push(reading.at, reading.value);
            let (first, last) = self.span.unwrap_or((reading.at, reading.at));
            self.span = Some((first.min(reading.at), last.max(reading.at)));
        }
    }
}

impl Recorder {
    fn finish(self, pipeline: &Pipeline, notices: Vec<String>) -> History {
        let effective = self.span.map_or(Timestamp::MAX, |(_, last)| last);
        let named = self.rows.into_iter().map(|(row, mut thinned)| {
            thinned.values.retain(|(at, _)| *at < effective);
            (pipeline.row_name(row), thinned.values)
        });
        let rows: BTreeMap<_, _> = named.filter(|(_, values)| !values.is_empty()).collect();
        let span = self.span.filter(|_| !rows.is_empty());
        History {
            series: pipeline.series_names(),
            count: rows.len(),
            points: pipeline.points(),
            rows,
            span,
            notices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: usize, kept: usize, stride: i64) {
        let mut thinned = Thinned::default();
        (0..count).for_each(|i| thinned.push(Timestamp::from_secs(i as i64), i as f64));
        let times: Vec<i64> = thinned.values.iter().map(|(at, _)| at.secs()).collect();
        assert_eq!(times.len(), kept, "of {count}");
        assert!(times.iter().enumerate().all(|(i, secs)| *secs == i as i64 * stride), "of {count}");
    }

    /// Guarantee: however long a history is, it is bounded, evenly spaced, and begins where it began.
    #[test]
    fn long_histories_are_thinned_evenly() {
        check(0, 0, 1);
        check(MAX_VALUES, MAX_VALUES, 1);
        check(MAX_VALUES + 1, MAX_VALUES / 2 + 1, 2);
        check(2 * MAX_VALUES, MAX_VALUES, 2);
        check(2 * MAX_VALUES + 1, MAX_VALUES / 2 + 1, 4);
        check(7 * MAX_VALUES, 7 * MAX_VALUES / 8, 8);
    }
}
