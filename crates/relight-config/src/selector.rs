//! Series by PromQL label matchers.
//!
//! Only a plain selector is taken: functions, ranges and offsets have no meaning on a stream. A label
//! that a series lacks matches as the empty text, as in Prometheus.

use std::sync::Arc;

use promql_parser::label::{METRIC_NAME, Matcher};
use promql_parser::parser::{self, Expr};
use relight_core::series::KeyView;
use relight_core::signal::{Select, Selector};

/// The longest selector. Matching is linear in the label whatever the pattern; this bounds what a pattern
/// may compile to (the regex crate itself stops at 10 MiB each).
const MAX_BYTES: usize = 4096;

/// Reads a selector such as `http_requests_total{service="shop",code=~"5.."}`.
pub(crate) fn selector(text: &str) -> Result<Selector, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("a selector of {} bytes; at most {MAX_BYTES} are allowed", text.len()));
    }
    let parsed = match parser::parse(text) {
        Ok(Expr::VectorSelector(parsed)) if parsed.offset.is_none() && parsed.at.is_none() => parsed,
        Ok(_) => {
            return Err(format!("`{text}` is more than a selector such as `up{{job=\"shop\"}}`"));
        }
        Err(message) => return Err(format!("`{text}` is no PromQL selector: {message}")),
    };
    Ok(Arc::new(PromQl {
        text: text.to_owned(),
        name: parsed.name,
        all: parsed.matchers.matchers,
        any: parsed.matchers.or_matchers,
    }))
}

struct PromQl {
    text: String,
    name: Option<String>,
    all: Vec<Matcher>,
    /// Alternatives, if there are any: one of them must match as a whole.
    any: Vec<Vec<Matcher>>,
}

impl Select for PromQl {
    fn selects(&self, key: KeyView<'_>) -> bool {
        self.name.as_deref().is_none_or(|name| name == key.name())
            && self.all.iter().all(|matcher| is_match(matcher, key))
            && (self.any.is_empty() || self.any.iter().any(|all| all.iter().all(|m| is_match(m, key))))
    }

    fn text(&self) -> &str {
        &self.text
    }
}

fn is_match(matcher: &Matcher, key: KeyView<'_>) -> bool {
    let value = if matcher.name == METRIC_NAME { Some(key.name()) } else { key.get(&matcher.name) };
    matcher.is_match(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;
    use relight_core::series::key_of;

    use super::*;

    fn selects(text: &str) -> bool {
        let labels = [("code", "503"), ("service.name", "shop")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let key = key_of("http.requests", &Labels::new(labels));
        selector(text).expect("a selector").selects(KeyView::new(&key))
    }

    #[test]
    fn every_operator_matches_as_in_prometheus() {
        for (text, expected) in [
            (r#"{"http.requests"}"#, true),
            (r#"{"http.requests",code="503"}"#, true),
            (r#"{"http.requests",code!="503"}"#, false),
            (r#"{__name__=~"http.+",code=~"5.."}"#, true),
            (r#"{__name__=~"http"}"#, false),
            (r#"{"http.requests",code!~"4..|5.."}"#, false),
            (r#"{"http.requests","service.name"="shop"}"#, true),
            (r#"{"http.requests",absent=""}"#, true),
            (r#"{"http.requests",absent!=""}"#, false),
            (r#"{"http.requests",code="200" or code="503"}"#, true),
            ("up", false),
        ] {
            assert_eq!(selects(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            "rate(x[5m])",
            "x[5m]",
            "x offset 5m",
            "x @ 5",
            "x{",
            r#"x{a=~"("}"#,
            r#"{a=~".*"}"#,
            "1",
            &"x".repeat(5000),
            r#"x{a=~"(((\\w{1000}){1000}){1000})"}"#,
        ] {
            assert!(selector(text).is_err(), "{text}");
        }
    }

    /// Scenario: a pattern that makes backtracking engines hang, on a label of 1 MiB.
    /// Guarantee: matching is linear in the label (`cargo test` would not come back otherwise), and a pattern that would
    /// compile to more than memory has room for is refused when the config is read.
    #[test]
    fn d08_regex_blowup() {
        for pattern in ["(a+)+$", "(a+)+b"] {
            let select = selector(&format!("x{{a=~\"{pattern}\"}}")).expect("a selector");
            let labels = Labels::new([("a".to_owned(), "a".repeat(1 << 20))]);
            assert_eq!(select.selects(KeyView::new(&key_of("x", &labels))), pattern.ends_with('$'));
        }
        assert!(selector(r#"x{a=~"(((\\w{1000}){1000}){1000})"}"#).is_err());
    }
}
