//! `--fail-if`: one figure compared with one number or length of time.

use std::str::FromStr;

use relight_core::Span;

use super::figures::{Figures, NAMES};
use crate::failure::Failure;

type Compare = fn(&f64, &f64) -> bool;

/// The longer operators first: `<=` starts with `<`.
const OPERATORS: [(&str, Compare); 6] =
    [("<=", f64::le), (">=", f64::ge), ("==", f64::eq), ("!=", f64::ne), ("<", f64::lt), (">", f64::gt)];

/// A comparison that must not hold.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    text: String,
    name: &'static str,
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
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let (name, needs_labels) = *known.ok_or_else(|| {
            let have: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("no figure is named `{name}` (have: {})", have.join(", "))
        })?;
        let number = limit.parse().ok().filter(|n: &f64| !n.is_nan());
        let limit = number.or_else(|| limit.parse::<Span>().ok().map(Span::secs_f64));
        let limit =
            limit.ok_or_else(|| format!("`{text}` compares with neither a number nor a time such as 90s"))?;
        Ok(Self { text: text.trim().to_owned(), name, needs_labels, compare, limit })
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
        .map(|e| {
            format!("--fail-if '{}' holds: {} is {}", e.text, e.name, figures.get(e.name).unwrap_or(f64::NAN))
        })
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
            ("incidents > many", "neither a number nor a time"),
            ("incidents > NaN", "neither a number nor a time"),
        ] {
            assert!(text.parse::<Expectation>().expect_err(text).contains(why), "{text}");
        }
    }
}
