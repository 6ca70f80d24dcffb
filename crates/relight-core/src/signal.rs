//! What a user watches: which series make up a signal, and how.

use std::fmt;
use std::sync::Arc;

use crate::series::KeyView;
use crate::time::Span;

/// Chooses series (or events) by name and labels. Implemented by the config over PromQL matchers.
pub trait Select: Send + Sync {
    /// Whether a series is chosen.
    fn selects(&self, key: KeyView<'_>) -> bool;
    /// The selector as the user wrote it.
    fn text(&self) -> &str;
}

/// A shared selector.
pub type Selector = Arc<dyn Select>;

/// How the contributions of several gauge series become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregate {
    /// Arithmetic mean.
    Mean,
    /// Sum.
    Sum,
    /// Smallest.
    Min,
    /// Largest.
    Max,
}

/// What is computed of the chosen series.
#[derive(Clone)]
pub enum SignalKind {
    /// Every series by itself, as DESIGN's defaults have it: a gauge its mean, a monotonic sum its
    /// rate, a histogram its p99 and its rate.
    EverySeries,
    /// Mean of each gauge in the bin, aggregated over the series of the row.
    Value {
        /// Series.
        of: Selector,
        /// How series become one row.
        aggregate: Aggregate,
    },
    /// Increase per second, summed over the series of the row.
    Rate {
        /// Series.
        of: Selector,
    },
    /// Increase of `of` divided by the increase of `to`.
    Ratio {
        /// Numerator.
        of: Selector,
        /// Denominator.
        to: Selector,
        /// Below this increase in a bin the ratio is no data.
        min_denominator: f64,
        /// Where `to` has data and `of` has none the ratio is 0, as of errors that have no counter before the first
        /// one; else no data.
        missing_is_zero: bool,
    },
    /// A quantile of histograms, merged over the series of the row.
    Quantile {
        /// Histogram series.
        of: Selector,
        /// Between 0 and 1.
        q: f64,
    },
    /// Events in the bin; a bin without any counts as 0 once the row exists. The event's kind is the
    /// name that the selector sees.
    EventCount {
        /// Events.
        of: Selector,
    },
}

/// Which labels tell the rows of a signal apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// All labels of the series.
    All,
    /// These labels; a series that lacks one falls into the row without it.
    Labels(Vec<String>),
}

/// A signal, resolved.
#[derive(Clone)]
pub struct SignalSpec {
    /// Its name; of [`SignalKind::EverySeries`] rows are named after their series instead.
    pub name: String,
    /// What is computed.
    pub kind: SignalKind,
    /// The labels of a row.
    pub by: By,
}

impl SignalSpec {
    /// Whether several series may feed one of its rows, by what the signal is and never by which series there are.
    pub const fn has_shared_rows(&self, binning: Binning) -> bool {
        matches!(binning, Binning::Interval(_))
            && match self.kind {
                SignalKind::EverySeries | SignalKind::EventCount { .. } => false,
                SignalKind::Ratio { .. } => true,
                SignalKind::Value { .. } | SignalKind::Rate { .. } | SignalKind::Quantile { .. } => {
                    matches!(self.by, By::Labels(_))
                }
            }
    }

    /// Everything that its rows' labels and values depend on, on one line: while it is unchanged, rows are kept.
    pub fn meaning(&self) -> String {
        let kind = match &self.kind {
            SignalKind::EverySeries => "every_series".to_owned(),
            SignalKind::Value { of, aggregate } => format!("value {aggregate:?} {:?}", of.text()),
            SignalKind::Rate { of } => format!("rate {:?}", of.text()),
            SignalKind::Ratio { of, to, min_denominator, missing_is_zero } => {
                format!("ratio {:?} {:?} {min_denominator:?} {missing_is_zero}", of.text(), to.text())
            }
            SignalKind::Quantile { of, q } => format!("quantile {q:?} {:?}", of.text()),
            SignalKind::EventCount { of } => format!("events {:?}", of.text()),
        };
        format!("{kind} {:?}", self.by)
    }
}

impl fmt::Debug for SignalSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignalSpec({} by {:?})", self.name, self.by)
    }
}

/// What a detector may know of its signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalInfo {
    /// Its name.
    pub name: String,
    /// Length of a bin; of a stream whose samples are bins of their own ([`Binning::Sample`]), the
    /// nominal one.
    pub interval: Span,
}

/// How points are put into bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binning {
    /// Fixed slots of event time.
    Interval(Span),
    /// Each record is a bin of its own, in order, without deduplication or watermark. For a single
    /// series of samples.
    Sample,
}
