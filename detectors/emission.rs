//! Turns a row's continuing severity into alerts: one for each excursion.
//!
//! A score says how bad a row is now and stays above 1 for as long as it is bad; rules want that. A
//! file of scores that is compared with labels wants to know when somebody would have been called.
//! Nothing here learns, and nothing here is part of a detector: scores are emitted when they are
//! written out, never before a rule has seen them.

/// Rows at or below 1 that end an excursion.
const QUIET_ROWS: u32 = 5;
/// Rows between two alerts of which the second says only that the context has changed.
const REFRACTORY_ROWS: u32 = 30;
/// The largest score of a change of context (see `adaptive`); above it is a point outlier.
pub(crate) const CONTEXT_CAP: f64 = 1.02;
/// What a row that raises no alert is capped at.
const SILENT: f64 = 0.99;

/// Where one row stands between two alerts. Lives for one run and is on no disk.
#[derive(Debug, Clone, Copy)]
pub struct Emission {
    since_high: u32,
    since_alert: u32,
}

impl Default for Emission {
    fn default() -> Self {
        Self { since_high: u32::MAX, since_alert: u32::MAX }
    }
}

impl Emission {
    /// The score to write for a row's next score: the score itself for the first row of an
    /// excursion, at most 0.99 for the rest. Scores at or below 1 pass, capped alike. A change of
    /// context alerts at most once in 30 rows.
    pub fn emit(&mut self, score: f64) -> f64 {
        self.since_high = self.since_high.saturating_add(1);
        self.since_alert = self.since_alert.saturating_add(1);
        if score.is_nan() || score <= 1.0 {
            return score.min(SILENT);
        }
        let is_start = self.since_high > QUIET_ROWS;
        self.since_high = 0;
        if is_start && (score > CONTEXT_CAP || self.since_alert > REFRACTORY_ROWS) {
            self.since_alert = 0;
            return score;
        }
        SILENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scores: &[(f64, usize)], alerts: &[usize]) {
        let mut emission = Emission::default();
        let flat = scores.iter().flat_map(|(score, n)| std::iter::repeat_n(*score, *n));
        let found: Vec<usize> =
            flat.enumerate().filter(|(_, s)| emission.emit(*s) > 1.0).map(|(row, _)| row).collect();
        assert_eq!(found, alerts);
    }

    /// Guarantee: an excursion alerts once however long it lasts; short dips do not end it.
    #[test]
    fn one_alert_an_excursion() {
        check(&[(0.2, 3), (4.0, 100), (0.2, 4), (9.0, 2), (0.0, 6), (3.0, 2)], &[3, 115]);
    }

    /// Guarantee: a change of context does not alert within 30 rows of another alert; an outlier does.
    #[test]
    fn context_waits_and_outliers_do_not() {
        check(&[(1.02, 1), (0.0, 9), (1.02, 1), (0.0, 9), (1.5, 1), (0.0, 31), (1.02, 1)], &[0, 20, 52]);
    }

    #[test]
    fn quiet_scores_keep_their_rank() {
        let mut emission = Emission::default();
        assert_eq!(emission.emit(0.5), 0.5);
        assert_eq!(emission.emit(1.0), 0.99);
    }
}
