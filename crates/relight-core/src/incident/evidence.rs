//! What a row showed when an incident began, and how that is said. Knows nothing of what is done about it.

use serde::{Deserialize, Serialize};

use crate::detector::Band;
use crate::rule::{Finding, Settings};
use crate::series::{KeyView, Labels};
use crate::time::Timestamp;

/// The row that speaks for an incident, with the band that was left. Copied at the onset, so that
/// verification compares with what was normal before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Detector's name.
    pub detector: String,
    /// Signal's name.
    pub signal: String,
    /// Row's labels.
    pub labels: Labels,
    /// Bin of the finding.
    pub at: Timestamp,
    /// Value that was seen.
    #[serde(with = "super::bits")]
    pub value: f64,
    /// Its score.
    #[serde(with = "super::bits")]
    pub score: f64,
    /// What was expected; NaN for nothing in particular.
    #[serde(with = "super::bits")]
    pub expected: f64,
    /// Lower edge of the band.
    #[serde(with = "super::bits")]
    pub lower: f64,
    /// Upper edge of the band.
    #[serde(with = "super::bits")]
    pub upper: f64,
}

impl Evidence {
    /// What a finding shows. `settings` are those of its run.
    pub fn of(finding: &Finding, settings: &Settings) -> Self {
        let row = KeyView::new(&finding.row);
        let Band { expected, lower, upper } = finding.reading.band;
        Self {
            detector: settings.detectors[finding.detector].name.clone(),
            signal: row.name().to_owned(),
            labels: row.to_labels(),
            at: finding.at,
            value: finding.value,
            score: finding.reading.score,
            expected,
            lower,
            upper,
        }
    }

    /// How the value stands to the band, in words: `above 30`, `outside 10 .. 30`. `number` writes a finite number.
    pub fn in_words(&self, number: impl Fn(f64) -> String) -> String {
        let Self { value, lower, upper, .. } = self;
        if value.is_nan() {
            return "missing".to_owned();
        }
        let band = match (lower.is_finite(), upper.is_finite()) {
            (true, true) => format!("{} .. {}", number(*lower), number(*upper)),
            (true, false) => format!("{} ..", number(*lower)),
            (false, true) => format!(".. {}", number(*upper)),
            (false, false) => return "anomalous".to_owned(),
        };
        // A change of context: no single value is to blame, but where and how widely they lie.
        if self.band().holds(*value) {
            return format!("in its band {band}, but level or spread has moved");
        }
        match (lower.is_finite(), upper.is_finite()) {
            (true, true) => format!("outside {band}"),
            (true, false) => format!("below {}", number(*lower)),
            _ => format!("above {}", number(*upper)),
        }
    }

    /// The band that was left.
    pub const fn band(&self) -> Band {
        Band { expected: self.expected, lower: self.lower, upper: self.upper }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what a page says of a value is true of it and its band, whichever bounds there are.
    #[test]
    fn evidence_in_words() {
        const NONE: f64 = f64::INFINITY;
        for (value, lower, upper, words) in [
            (9.0, 1.0, 5.0, "outside 1 .. 5"),
            (9.0, -NONE, 5.0, "above 5"),
            (0.0, 1.0, NONE, "below 1"),
            (3.0, 1.0, 5.0, "in its band 1 .. 5, but level or spread has moved"),
            (3.0, -NONE, 5.0, "in its band .. 5, but level or spread has moved"),
            (3.0, -NONE, NONE, "anomalous"),
            (f64::NAN, 1.0, 5.0, "missing"),
        ] {
            let evidence = Evidence {
                detector: "d".to_owned(),
                signal: "s".to_owned(),
                labels: Labels::default(),
                at: Timestamp::from_secs(0),
                value,
                score: 2.0,
                expected: 3.0,
                lower,
                upper,
            };
            assert_eq!(evidence.in_words(|bound| bound.to_string()), words);
        }
    }
}
