//! What rules when nothing is configured: one incident per service, when at least three findings last
//! three bins. Nothing is done about it.

use std::sync::Arc;

use relight_core::Span;
use relight_core::rule::{Condition, ConditionError, GroupBy, RuleSpec, RuleView};

/// Name of the built-in rule.
const NAME: &str = "anomaly";
/// Findings and bins below which a deviation is taken for noise.
const FINDINGS: u32 = 3;

/// The built-in rule over all detectors.
pub(crate) fn rule(detectors: &[&str]) -> RuleSpec {
    RuleSpec {
        name: NAME.to_owned(),
        detectors: (0..detectors.len()).collect(),
        when: Arc::new(Several::of(detectors)),
        hold: Span::ZERO,
        hold_turns: FINDINGS,
        keep_firing: Span::from_secs(180),
        reopen_within: Span::from_secs(1800),
        max_flaps: 3,
        group_by: per_service(),
        respond: Vec::new(),
        breaker_after: 2,
    }
}

/// One incident per service, whatever the sender calls it.
pub(crate) fn per_service() -> GroupBy {
    GroupBy::FirstOf(["service.name", "service", "job"].map(str::to_owned).to_vec())
}

/// At least three findings; all rows where a group has fewer.
struct Several {
    text: String,
}

impl Several {
    fn of(detectors: &[&str]) -> Self {
        let sum = |field: &str| {
            let each: Vec<String> = detectors.iter().map(|name| format!("{name}.{field}")).collect();
            each.join(" + ")
        };
        Self { text: format!("{} >= min({FINDINGS}, {})", sum("anomalous"), sum("rows")) }
    }
}

impl Condition for Several {
    fn holds(&self, view: &RuleView<'_>) -> Result<bool, ConditionError> {
        let rows: u32 = view.detectors.iter().map(|detector| detector.rows).sum();
        let anomalous: u32 = view.detectors.iter().map(|detector| detector.anomalous).sum();
        Ok(anomalous > 0 && anomalous >= rows.min(FINDINGS))
    }

    fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;
    use relight_core::rule::DetectorView;

    use super::*;

    /// Guarantee: a lone series has a say, a lone finding among many has none.
    #[test]
    fn three_findings_or_all_of_a_small_group() {
        let several = Several::of(&["adaptive"]);
        assert_eq!(several.text(), "adaptive.anomalous >= min(3, adaptive.rows)");
        for (rows, anomalous, expected) in [
            (0, 0, false),
            (1, 0, false),
            (1, 1, true),
            (2, 1, false),
            (2, 2, true),
            (9, 2, false),
            (9, 3, true),
        ] {
            let detectors = [DetectorView { rows, anomalous, ..DetectorView::default() }];
            let view = RuleView { detectors: &detectors, group: &Labels::default(), changed: &|_, _| false };
            assert_eq!(several.holds(&view), Ok(expected), "{anomalous} of {rows}");
        }
    }
}
