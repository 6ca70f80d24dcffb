//! What an hour of the week is usually worth, from a recorded history.
//!
//! For seeding only, offline and synchronous: MSTL (Bandara et al. 2021) separates season from
//! trend over the whole history at once, which no online table can. Never sees the stream that is
//! being judged.

use augurs::Fit;
use augurs::mstl::MSTLModel;
use relight_core::Timestamp;

use crate::calendar::{Calendar, DAY, WEEK};

const HOUR_SECS: i64 = 3600;
/// Older hours of a history are not looked at: eight weeks are plenty, and bound the work.
const MOST_HOURS: usize = 8 * WEEK;
/// Median absolute deviations per standard deviation of a normal distribution.
const SIGMA_PER_MAD: f64 = 1.4826;

/// A weekly curve.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// By hour of the local week; `None` where the history has no such hour.
    pub(crate) hours: Vec<Option<f64>>,
    /// Robust standard deviation of the history around the curve.
    pub(crate) sigma: f64,
    /// Weeks of history behind it, at least 1.
    pub(crate) weeks: u16,
}

/// The curve of a history, oldest first; `None` if it is shorter than two days.
pub(crate) fn learn(calendar: &mut Calendar, history: &[(Timestamp, f64)]) -> Option<Profile> {
    let (first, series) = hourly(history)?;
    let periods: &[usize] = if series.len() >= 2 * WEEK { &[DAY, WEEK] } else { &[DAY] };
    if series.len() < 2 * periods[0] {
        return None;
    }
    // MSTL works in f32: without the median taken off, an offset of 1e9 costs four digits.
    let centre = median(series.clone());
    let reach = 20.0 * median(series.iter().map(|v| (v - centre).abs()).collect()).max(1e-12);
    let centred: Vec<f64> = series.iter().map(|v| (v - centre).clamp(-reach, reach)).collect();
    let fitted = MSTLModel::naive(periods.to_vec()).fit(&centred).ok()?;
    let parts = fitted.fit();
    let recent = parts.trend().iter().rev().take(DAY).map(|t| f64::from(*t)).sum::<f64>() / DAY as f64;
    let season = |ix: usize| parts.seasonal().iter().map(|s| f64::from(s[ix])).sum::<f64>();
    let mut sums = vec![(0.0, 0_u32); WEEK];
    for ix in 0..series.len() {
        let at = Timestamp::from_secs((first + ix as i64) * HOUR_SECS);
        let sum = &mut sums[usize::from(calendar.place(at).hour)];
        *sum = (sum.0 + season(ix), sum.1 + 1);
    }
    let hours: Vec<Option<f64>> = sums
        .into_iter()
        .map(|(sum, n)| (n > 0).then(|| centre + recent + sum / f64::from(n)).filter(|v| v.is_finite()))
        .collect();
    let deviations = history
        .iter()
        .filter(|(_, value)| value.is_finite())
        .filter_map(|(at, value)| Some((value - hours[usize::from(calendar.place(*at).hour)]?).abs()));
    let sigma = SIGMA_PER_MAD * median(deviations.collect());
    Some(Profile { hours, sigma, weeks: (series.len() / WEEK).max(1) as u16 })
}

/// Hourly means and the number of the first hour; gaps are bridged by straight lines, since MSTL
/// turns a single missing value into nothing but missing values.
fn hourly(history: &[(Timestamp, f64)]) -> Option<(i64, Vec<f64>)> {
    let hour_of = |at: &Timestamp| at.secs().div_euclid(HOUR_SECS);
    let last = hour_of(&history.last()?.0);
    let first = hour_of(&history.first()?.0).max(last - MOST_HOURS as i64 + 1);
    let mut means = vec![(0.0, 0.0); usize::try_from(last - first + 1).ok()?];
    for (at, value) in history.iter().filter(|(at, value)| hour_of(at) >= first && value.is_finite()) {
        let Some(mean) = usize::try_from(hour_of(at) - first).ok().and_then(|ix| means.get_mut(ix)) else {
            continue;
        };
        mean.1 += 1.0;
        mean.0 += value / mean.1 - mean.0 / mean.1;
    }
    let known: Vec<(usize, f64)> =
        means.iter().enumerate().filter(|(_, m)| m.1 > 0.0).map(|(ix, m)| (ix, m.0)).collect();
    let mut series = Vec::with_capacity(means.len());
    for pair in known.windows(2) {
        let ((from, a), (to, b)) = (pair[0], pair[1]);
        let steps = (to - from) as f64;
        series.extend((0..to - from).map(|i| a + (b / steps - a / steps) * i as f64));
    }
    series.push(known.last()?.1);
    Some((first + known[0].0 as i64, series))
}

/// 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday.
    const START: i64 = 1_763_942_400;

    fn history(days: i64, value: impl Fn(i64) -> f64) -> Vec<(Timestamp, f64)> {
        (0..days * 96).map(|i| (Timestamp::from_secs(START + i * 900), value(i / 4))).collect()
    }

    fn check(days: i64, offset: f64) {
        let curve = |hour: i64| {
            let weekend = if hour % WEEK as i64 >= 5 * 24 { 0.5 } else { 1.0 };
            offset + 100.0 * weekend * (hour as f64 / 24.0 * std::f64::consts::TAU).sin()
        };
        let mut calendar = Calendar::new("UTC").expect("a zone");
        let profile = learn(&mut calendar, &history(days, curve)).expect("long enough");
        for (hour, found) in profile.hours.iter().enumerate() {
            let error = (found.expect("every hour was seen") - curve(hour as i64)).abs();
            assert!(error < 15.0, "hour {hour} of {days} days: off by {error}");
        }
    }

    /// Guarantee: the weekly curve is found, also of values a billion away from zero (MSTL is f32).
    #[test]
    fn finds_the_weekly_curve() {
        check(21, 0.0);
        check(21, 1e9);
    }

    /// Guarantee: gaps, NaN and spikes in a history do not spoil the rest of it.
    #[test]
    fn gaps_and_spikes_are_bridged() {
        let mut spoilt = history(21, |hour| (hour % 24) as f64);
        for i in (0..spoilt.len()).step_by(97) {
            spoilt[i].1 = if i % 2 == 0 { f64::NAN } else { 1e12 };
        }
        spoilt.drain(300..420);
        let mut calendar = Calendar::new("UTC").expect("a zone");
        let profile = learn(&mut calendar, &spoilt).expect("long enough");
        assert!(profile.hours.iter().flatten().all(|v| v.is_finite()));
        assert!(profile.sigma < 20.0, "{}", profile.sigma);
    }

    #[test]
    fn a_day_is_no_history() {
        let mut calendar = Calendar::new("UTC").expect("a zone");
        assert!(learn(&mut calendar, &history(1, |_| 1.0)).is_none());
        assert!(learn(&mut calendar, &[]).is_none());
        assert!(learn(&mut calendar, &[(Timestamp::from_secs(0), f64::NAN)]).is_none());
    }
}
