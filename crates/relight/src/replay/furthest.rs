//! Which rows went furthest out of their bands: what there is to see where no rule made an incident of it.

use relight_core::rule::Finding;

/// Rows that are told.
const SHOWN: usize = 5;

/// The strongest finding of each of the rows that had the strongest, in their order.
#[derive(Debug, Default)]
pub(super) struct Furthest(Vec<Finding>);

impl Furthest {
    /// Of equals the first stays.
    pub(super) fn take(&mut self, findings: &[Finding]) {
        for finding in findings {
            self.take_one(finding);
        }
    }

    fn take_one(&mut self, finding: &Finding) {
        let score = |finding: &Finding| finding.reading.score;
        let rank = self.0.partition_point(|known| score(known) >= score(finding));
        if rank == SHOWN {
            return;
        }
        let is_same = |known: &Finding| (known.detector, &known.row) == (finding.detector, &finding.row);
        match self.0.iter().position(is_same) {
            Some(known) if known < rank => return,
            Some(known) => drop(self.0.remove(known)),
            None => self.0.truncate(SHOWN - 1),
        }
        self.0.insert(rank, finding.clone());
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use relight_core::Timestamp;
    use relight_core::detector::{Band, Reading};

    use super::*;

    fn finding(row: u8, score: f64) -> Finding {
        let band = Band { expected: 0.0, lower: -1.0, upper: 1.0 };
        let at = Timestamp::from_secs(0);
        let reading = Reading { score, band };
        Finding { at, detector: 0, row: vec![row], value: score, reading, relearned: false, onset: None }
    }

    /// Scenario: findings of seven rows, one of which comes again, weaker and stronger.
    /// Guarantee: the five strongest rows are told in their order, each with its strongest finding.
    #[test]
    fn the_strongest_rows_are_told_once_each() {
        let mut furthest = Furthest::default();
        let scores =
            [(1, 3.0), (2, 2.0), (3, 9.0), (1, 2.5), (4, 4.0), (2, 5.0), (5, 1.5), (6, 6.0), (7, 1.2)];
        for (row, score) in scores {
            furthest.take(&[finding(row, score)]);
        }
        let told: Vec<(u8, f64)> =
            furthest.into_findings().iter().map(|one| (one.row[0], one.reading.score)).collect();
        assert_eq!(told, [(3, 9.0), (6, 6.0), (2, 5.0), (4, 4.0), (1, 3.0)]);
    }
}
