//! What intake hands on to Fold and Detect.

use relight_core::Timestamp;
use relight_core::record::{Histogram, Kind};

use crate::directory::{NewRow, NewSeries, SeriesAddr};

/// A point on its way to Fold: what it does not share with the points around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoutedPoint {
    /// Its series.
    pub series: SeriesAddr,
    /// Value, or index of its histogram in [`Routed::histograms`].
    pub value: f64,
    /// Its place in [`Routed::runs`].
    pub run: u32,
}

/// What points that came one behind the other have in common: gauges of a scrape all of it, sums that each have a start
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Key of the bin.
    pub bin: Timestamp,
    /// Event time.
    pub at: Timestamp,
    /// Start of the sum, [`Timestamp::MIN`] if unknown.
    pub start: Timestamp,
    /// Offset of the record.
    pub offset: u64,
    /// The partition.
    pub partition: u16,
    /// How the values are meant.
    pub kind: Kind,
}

/// What intake hands on. New series and rows come before the points that need them.
#[derive(Debug, Default)]
pub struct Routed {
    /// Points, those of one record in their order in it.
    pub points: Vec<RoutedPoint>,
    /// What they share.
    pub runs: Vec<Run>,
    /// Histograms of points.
    pub histograms: Vec<Histogram>,
    /// Series that have ended, and when.
    pub ends: Vec<(SeriesAddr, Timestamp)>,
    /// Series met for the first time.
    pub series: Vec<NewSeries>,
    /// Rows met for the first time.
    pub rows: Vec<NewRow>,
}

impl Routed {
    /// Whether there is nothing to hand on.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ends.is_empty() && self.series.is_empty() && self.rows.is_empty()
    }

    /// Begins a run, unless it goes on.
    pub fn begin(&mut self, run: &Run) {
        if self.runs.last() != Some(run) {
            self.runs.push(*run);
        }
    }

    /// Takes a point of the run that was begun last.
    #[inline]
    pub fn push(&mut self, series: SeriesAddr, value: f64) {
        self.points.push(RoutedPoint { series, value, run: self.runs.len() as u32 - 1 });
    }

    /// Lets go of the points.
    pub fn clear_points(&mut self) {
        self.points.clear();
        self.ends.clear();
        self.runs.clear();
        self.histograms.clear();
    }

    /// Moves everything of `more` behind what is here.
    pub fn append(&mut self, more: &mut Self) {
        self.series.append(&mut more.series);
        self.rows.append(&mut more.rows);
        self.ends.append(&mut more.ends);
        let (base, first) = (self.histograms.len() as f64, self.runs.len() as u32);
        let moved = more.points.iter().map(|point| {
            let is_histogram = more.runs[point.run as usize].kind.is_histogram();
            let value = if is_histogram { point.value + base } else { point.value };
            RoutedPoint { run: first + point.run, value, ..*point }
        });
        self.points.extend(moved);
        self.runs.append(&mut more.runs);
        self.histograms.append(&mut more.histograms);
        more.clear_points();
    }
}
