//! The figures of a replay by name, for `--fail-if`.

use relight_core::Span;
use relight_core::incident::IncidentState;
use relight_runtime::Report;

use super::labels::Verdict;

/// What a figure is a figure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Number,
    Time,
}

use Unit::{Number, Time};

/// Names that `--fail-if` knows, what they are figures of, and whether they need `--labels`.
pub(super) const NAMES: [(&str, Unit, bool); 17] = [
    ("incidents", Number, false),
    ("unresolved", Number, false),
    ("escalated", Number, false),
    ("actions", Number, false),
    ("findings", Number, false),
    ("refused", Number, false),
    ("points", Number, false),
    ("series", Number, false),
    ("time_to_detect_p50", Time, false),
    ("time_to_detect_p90", Time, false),
    ("time_to_recover_p50", Time, false),
    ("time_to_recover_p90", Time, false),
    ("recall", Number, true),
    ("missed", Number, true),
    ("false_alerts", Number, true),
    ("delay_p50", Time, true),
    ("delay_p90", Time, true),
];

/// Figures by name; times are in seconds. A figure that there is none of is not in it.
pub(super) struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub(super) fn of(report: &Report, verdict: Option<&Verdict>) -> Self {
        let incidents = || report.incidents.iter().filter(|incident| incident.detected.is_some());
        let in_state = |f: &dyn Fn(IncidentState) -> bool| incidents().filter(|i| f(i.state)).count() as f64;
        let totals = &report.totals;
        let mut figures = Self(vec![
            ("incidents", incidents().count() as f64),
            ("unresolved", in_state(&|state| state != IncidentState::Resolved)),
            ("escalated", in_state(&|state| state == IncidentState::Escalated)),
            ("actions", report.actions.len() as f64),
            ("findings", totals.findings as f64),
            ("refused", totals.refused.iter().map(|(_, n)| *n).sum::<u64>() as f64),
            ("points", totals.points as f64),
            ("series", totals.series as f64),
        ]);
        if !report.times_known {
            return figures;
        }
        let detect = incidents().filter_map(|i| Some(i.detected?.since(i.onset))).collect();
        figures.percentiles(["time_to_detect_p50", "time_to_detect_p90"], detect);
        let recover = incidents().filter_map(|i| Some(i.recovered?.since(i.onset))).collect();
        figures.percentiles(["time_to_recover_p50", "time_to_recover_p90"], recover);
        if let Some(verdict) = verdict {
            figures.0.extend(verdict.recall().map(|recall| ("recall", recall)));
            figures.0.push(("missed", (verdict.faults.len() - verdict.caught()) as f64));
            figures.0.push(("false_alerts", verdict.false_alerts.len() as f64));
            figures.percentiles(["delay_p50", "delay_p90"], verdict.delays());
        }
        figures
    }

    fn percentiles(&mut self, names: [&'static str; 2], spans: Vec<Span>) {
        if let Some((p50, p90)) = percentiles(spans) {
            self.0.extend([(names[0], p50.secs_f64()), (names[1], p90.secs_f64())]);
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The 50th and 90th percentile by nearest rank; `None` of nothing.
pub(super) fn percentiles(mut spans: Vec<Span>) -> Option<(Span, Span)> {
    spans.sort_unstable();
    let rank = |percent: usize| spans.get((spans.len() * percent).div_ceil(100).max(1) - 1).copied();
    Some((rank(50)?, rank(90)?))
}
