//! What intake hands on to Fold and Detect.

use relight_core::Timestamp;
use relight_core::record::{Histogram, Kind};

use crate::directory::{NewRow, NewSeries, SeriesAddr};

/// A point on its way to Fold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoutedPoint {
    /// Its series.
    pub series: SeriesAddr,
    /// Key of its bin.
    pub bin: Timestamp,
    /// Event time.
    pub at: Timestamp,
    /// Start of the sum, [`Timestamp::MIN`] if unknown.
    pub start: Timestamp,
    /// Value, or index of its histogram in [`Routed::histograms`].
    pub value: f64,
    /// Offset of its record.
    pub offset: u64,
    /// Its partition.
    pub partition: u16,
    /// How the value is meant.
    pub kind: Kind,
}

/// What intake hands on. New series and rows come before the points that need them.
#[derive(Debug, Default)]
pub struct Routed {
    /// Points, those of one record in their order in it.
    pub points: Vec<RoutedPoint>,
    /// Histograms of points.
    pub histograms: Vec<Histogram>,
    /// Series met for the first time.
    pub series: Vec<NewSeries>,
    /// Rows met for the first time.
    pub rows: Vec<NewRow>,
}

impl Routed {
    /// Whether there is nothing to hand on.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.series.is_empty() && self.rows.is_empty()
    }

    /// Moves everything of `more` behind what is here.
    pub fn append(&mut self, more: &mut Self) {
        let base = self.histograms.len() as f64;
        self.histograms.append(&mut more.histograms);
        let moved = more.points.drain(..).map(|mut point| {
            if point.kind.is_histogram() {
                point.value += base;
            }
            point
        });
        self.points.extend(moved);
        self.series.append(&mut more.series);
        self.rows.append(&mut more.rows);
    }
}
