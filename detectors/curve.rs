//! One row of a curve by the hour: what it expects at a place, and how a value changes that. The table of hours lies apart.

use relight_core::codec_struct;
use relight_core::detector::{Band, Reading};

use crate::arithmetic::{
    Pace, SIGMA_PER_MEAN_DEVIATION, at_least, at_most, difference, spread_floor, within,
};
use crate::calendar::Place;
use crate::calibration::MAX_SCORE;

/// No value moves a mean or the spread by more than one of this many sigmas would.
const INFLUENCE: f64 = 3.0;
/// Values over which the spread forgets.
const SPREAD_RATE: f64 = 1e-3;
/// No half-hour: the row has not been visited.
pub(crate) const NOWHERE: u16 = u16::MAX;

/// One row, table apart. What it knows of the present half-hour is kept at hand, so that the table
/// is touched twice an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// All else is relative to this.
    pub(crate) origin: f64,
    /// The slot of this hour and of the nearer neighbour; NaN if unknown.
    pub(crate) here: f32,
    pub(crate) beside: f32,
    /// Mean of this visit of the hour.
    pub(crate) mean: f32,
    pub(crate) sigma: f32,
    /// Values in that mean.
    pub(crate) count: u16,
    /// Values learned, saturating.
    pub(crate) seen: u16,
    /// Hours completed, saturating.
    pub(crate) visits: u16,
    /// Half-hour of the week, or [`NOWHERE`].
    pub(crate) half: u16,
}
codec_struct!(Row { origin, here, beside, mean, sigma, count, seen, visits, half });

impl Row {
    pub(crate) fn new() -> Self {
        Self {
            origin: 0.0,
            here: f32::NAN,
            beside: f32::NAN,
            mean: 0.0,
            sigma: 0.0,
            count: 0,
            seen: 0,
            visits: 0,
            half: NOWHERE,
        }
    }

    #[inline]
    pub(crate) fn sigma(&self) -> f64 {
        at_least(f64::from(self.sigma), spread_floor(self.origin + f64::from(self.mean)))
    }

    #[inline]
    pub(crate) fn outlook(&self, place: Place) -> Outlook {
        // 1 in the middle of the hour, 1/2 at its ends.
        let weight = 1.0 - (place.over - 0.5).abs();
        let beside = if self.beside.is_nan() { self.here } else { self.beside };
        let expected = self.origin + f64::from(weight * self.here + (1.0 - weight) * beside);
        Outlook { expected, sigma: self.sigma() }
    }

    /// Learns a value of which this was the outlook.
    #[expect(clippy::inline_always, reason = "as large as it is, it would be called a row at a time")]
    #[inline(always)]
    pub(crate) fn learn(&mut self, outlook: Outlook, value: f64, pace: &mut Pace) {
        let Outlook { expected, sigma } = outlook;
        let (mean, is_known) = (f64::from(self.mean), !self.here.is_nan());
        let offset = difference(value, self.origin);
        let centre = if is_known { expected - self.origin } else { mean };
        let deviation = offset - centre;
        let most = if self.seen < 5 { f64::INFINITY } else { INFLUENCE * sigma };
        let clipped = within(deviation, most);
        if self.seen > 0 {
            let sigma = SIGMA_PER_MEAN_DEVIATION * clipped.abs();
            self.sigma +=
                (pace.rate(u32::from(self.seen), SPREAD_RATE) * (sigma - f64::from(self.sigma))) as f32;
        }
        self.seen = self.seen.saturating_add(1);
        self.count = self.count.saturating_add(1);
        // What the value says of the whole hour: its deviation, in the middle of it.
        let typical = if is_known { f64::from(self.here) } else { centre };
        self.mean += ((typical + clipped - mean) / f64::from(self.count)) as f32;
    }
}

/// What a row expects at a place: worked out once, to judge a value and to learn it.
#[derive(Clone, Copy)]
pub(crate) struct Outlook {
    /// The value that the curve has; NaN before the hour was ever seen.
    expected: f64,
    sigma: f64,
}

impl Outlook {
    #[inline]
    pub(crate) fn judge(self, value: f64, threshold: f64) -> Reading {
        let Self { expected, sigma } = self;
        if expected.is_nan() {
            return Reading::UNKNOWN;
        }
        let width = threshold * sigma;
        let score = difference(value, expected).abs() / width;
        Reading::new(
            at_most(score, MAX_SCORE),
            Band { expected, lower: expected - width, upper: expected + width },
        )
    }
}
