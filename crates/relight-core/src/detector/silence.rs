//! Silence of a row: the part of the time between two values that its cadence does not explain.
//!
//! Nothing is known of that time, so nothing may be made of how long it was. A row that is merely
//! slow is not silent.

use crate::time::Timestamp;

/// After as many cadences without a value a row is stale: from then on it is silent.
const PATIENCE: f64 = 2.0;

/// When each row of a group last spoke and how often it does; empty if nobody knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rhythm<'a> {
    /// Time of the row's last value before this bin; [`Timestamp::MIN`] if there was none.
    pub last: &'a [Timestamp],
    /// Seconds between two values of the row, learned; 0 until it is known.
    pub cadence: &'a [f32],
}

impl Rhythm<'_> {
    /// Whole seconds of silence that a value of the row at `at` ends; 0 if nothing is known of the row.
    pub fn silence_before(&self, row: usize, at: Timestamp) -> u32 {
        match (self.last.get(row), self.cadence.get(row)) {
            (Some(last), Some(cadence)) => between(*last, at, *cadence),
            _ => 0,
        }
    }
}

/// The values of a history, oldest first, each with the whole seconds of silence before it. The cadence is the median of
/// its gaps.
pub fn with_silence(history: &[(Timestamp, f64)]) -> impl Iterator<Item = (Timestamp, f64, u32)> {
    let mut gaps: Vec<i64> = history.windows(2).map(|two| two[1].0.since(two[0].0).ns()).collect();
    let middle = gaps.len() / 2;
    let cadence = if gaps.is_empty() { 0 } else { *gaps.select_nth_unstable(middle).1 };
    let cadence = (cadence as f64 / 1e9) as f32;
    let before = std::iter::once(Timestamp::MIN).chain(history.iter().map(|(at, _)| *at));
    history.iter().zip(before).map(move |((at, value), last)| (*at, *value, between(last, *at, cadence)))
}

fn between(last: Timestamp, at: Timestamp, cadence: f32) -> u32 {
    if !last.is_known() || cadence <= 0.0 {
        return 0;
    }
    // What is below zero becomes zero.
    (at.since(last).secs_f64() - PATIENCE * f64::from(cadence)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cadence: f32, gap: i64, expected: u32) {
        let at = Timestamp::from_secs(1_000_000);
        let last = Timestamp::from_secs(1_000_000 - gap);
        let rhythm = Rhythm { last: &[last], cadence: &[cadence] };
        assert_eq!(rhythm.silence_before(0, at), expected, "{gap} s at a value every {cadence} s");
    }

    /// Guarantee: a row is silent from two cadences on, whatever its cadence; what is not known is no silence.
    #[test]
    fn silence_is_what_the_cadence_does_not_explain() {
        check(10.0, 10, 0);
        check(10.0, 20, 0);
        check(10.0, 3_600, 3_580);
        check(3_600.0, 3_600, 0);
        check(0.0, 3_600, 0);
        check(10.0, -3_600, 0);
        let never = Rhythm { last: &[Timestamp::MIN], cadence: &[10.0] };
        for rhythm in [never, Rhythm::default()] {
            assert_eq!(rhythm.silence_before(0, Timestamp::from_secs(1_000_000)), 0);
        }
    }

    /// Guarantee: of a history the usual gap is the cadence, however long it was silent.
    #[test]
    fn a_history_has_its_own_cadence() {
        let silences = |times: &[i64]| -> Vec<u32> {
            let history: Vec<(Timestamp, f64)> =
                times.iter().map(|at| (Timestamp::from_secs(*at), 1.0)).collect();
            with_silence(&history).map(|(.., silence)| silence).collect()
        };
        assert_eq!(silences(&[]), [0; 0]);
        assert_eq!(silences(&[5]), [0]);
        assert_eq!(silences(&[0, 10, 20, 7_220, 7_230]), [0, 0, 0, 7_180, 0]);
    }
}
