//! `--fail-if`: one figure compared with one number or length of time.

use std::str::FromStr;

use relight_core::Span;

use super::figures::{Figures, NAMES, Unit};
use crate::failure::Failure;
use crate::words::rough;

type Compare = fn(&f64, &f64) -> bool;

/// The longer operators first: `<=` starts with `<`.
const OPERATORS: [(&str, Compare); 6] =
    [("<=", f64::le), (">=", f64::ge), ("==", f64::eq), ("!=", f64::ne), ("<", f64::lt), (">", f64::gt)];

/// A comparison that must not hold.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    text: String,
    name: &'static str,
    unit: Unit,
    needs_labels: bool,
    compare: Compare,
    /// The number, or the length of time in seconds.
    limit: f64,
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = |(op, compare): &(&str, Compare)| {
            let (name, limit) = text.split_once(op)?;
            Some((name.trim().to_owned(), limit.trim().to_owned(), *compare))
        };
        let (name, limit, compare) =
            OPERATORS.iter().find_map(split).ok_or("write it as `incidents > 0` or `delay_p90 > 1m`")?;
        let known = NAMES.iter().find(|(known, ..)| *known == name);
        let (name, unit, needs_labels) = *known.ok_or_else(|| {
            let have: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
            format!("no figure is named `{name}` (have: {})", have.join(", "))
        })?;
        let number = limit.parse().ok().filter(|n: &f64| !n.is_nan());
        let span = || limit.parse::<Span>().ok().map(Span::secs_f64);
        let limit = match (number, unit) {
            (Some(number), _) => number,
            (None, Unit::Time) => {
                span().ok_or_else(|| format!("`{text}` compares with no time such as 90s or 5m"))?
            }
            (None, Unit::Number) if span().is_some() => {
                return Err(format!(
                    "`{name}` is a number and `{limit}` a time: write `{name} > 0`, or name a time"
                ));
            }
            (None, Unit::Number) => return Err(format!("`{text}` compares with no number")),
        };
        Ok(Self { text: text.trim().to_owned(), name, unit, needs_labels, compare, limit })
    }
}

impl Expectation {
    /// The figure as it is compared, with its unit.
    fn shown(&self, figures: &Figures) -> String {
        match (figures.get(self.name), self.unit) {
            (Some(value), Unit::Number) => value.to_string(),
            (Some(secs), Unit::Time) => rough(Span::from_ns((secs * 1e9) as i64)),
            (None, _) => "not known".to_owned(),
        }
    }
}

/// Fails if an expectation needs labels and there are none.
pub(super) fn check(expectations: &[Expectation], has_labels: bool) -> Result<(), Failure> {
    match expectations.iter().find(|e| e.needs_labels && !has_labels) {
        Some(e) => Err(Failure::usage(format_args!("--fail-if '{}' needs --labels", e.text))),
        None => Ok(()),
    }
}

/// Fails if any of them holds; all that do are named.
pub(super) fn judge(expectations: &[Expectation], figures: &Figures) -> Result<(), Failure> {
    let holds = |e: &&Expectation| figures.get(e.name).is_some_and(|value| (e.compare)(&value, &e.limit));
    let failed: Vec<String> = expectations
        .iter()
        .filter(holds)
        .map(|e| format!("--fail-if '{}' holds: {} is {}", e.text, e.name, e.shown(figures)))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::Expectation(failed.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_or_explained() {
        for (text, name, limit) in [
            ("incidents>0", "incidents", 0.0),
            (" recall <= 0.9 ", "recall", 0.9),
            ("time_to_recover_p90 > 1m30s", "time_to_recover_p90", 90.0),
            ("missed != 0", "missed", 0.0),
        ] {
            let e: Expectation = text.parse().expect(text);
            assert_eq!((e.name, e.limit), (name, limit));
        }
        for (text, why) in [
            ("incidents", "write it as"),
            ("incident > 0", "no figure is named `incident`"),
            ("incidents > many", "no number"),
            ("incidents > NaN", "no number"),
            ("incidents > 5m", "`incidents` is a number and `5m` a time: write `incidents > 0`"),
            ("delay_p50 > soon", "no time such as 90s"),
        ] {
            assert!(text.parse::<Expectation>().expect_err(text).contains(why), "{text}");
        }
    }
}
