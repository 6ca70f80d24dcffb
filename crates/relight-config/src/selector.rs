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
            let hint = quoted_hint(text);
            return Err(format!("`{text}` is more than a selector such as `up{{job=\"shop\"}}`{hint}"));
        }
        Err(message) => {
            let hint = quoted_hint(text);
            return Err(format!("`{text}` is no PromQL selector: {message}{hint}"));
        }
    };
    Ok(Arc::new(PromQl {
        text: text.to_owned(),
        name: parsed.name,
        all: parsed.matchers.matchers,
        any: parsed.matchers.or_matchers,
    }))
}

fn quoted_hint(text: &str) -> String {
    quoted_name(text).map_or_else(String::new, |quoted| {
        format!("; a name with other characters than letters, digits, `_` and `:` is quoted: '{quoted}'")
    })
}

/// The selector that a name of OpenTelemetry's, which PromQL takes in quotes only, was meant as: `{"payload.size"}` for
/// `payload.size`. Only if that is one.
fn quoted_name(text: &str) -> Option<String> {
    let (name, matchers) = text.split_once('{').map_or((text, ""), |(name, rest)| (name, rest));
    let name = name.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || "_:.-/".contains(c))
        && !name.chars().all(is_plain);
    let matchers = matchers.trim().strip_suffix('}').unwrap_or(matchers).trim();
    let comma = if matchers.is_empty() { "" } else { ", " };
    let quoted = format!("{{\"{name}\"{comma}{matchers}}}");
    (is_name && parser::parse(&quoted).is_ok()).then_some(quoted)
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

    /// Scenario: names as OpenTelemetry has them, alone and with labels; and what is no name.
    /// Guarantee: the message gives the selector that was meant, which selects that name; of others it guesses nothing.
    #[test]
    fn a_name_with_dots_is_told_in_quotes() {
        for (text, quoted) in [
            ("payload.size", r#"{"payload.size"}"#),
            ("http.server.request.duration", r#"{"http.server.request.duration"}"#),
            ("queue-length", r#"{"queue-length"}"#),
            (r#"payload.size{service="shop"}"#, r#"{"payload.size", service="shop"}"#),
        ] {
            let error = selector(text).err().expect("no selector");
            assert!(error.ends_with(&format!("is quoted: '{quoted}'")), "{error}");
            let name = text.split('{').next().expect("there is one");
            let labels = Labels::new([("service".to_owned(), "shop".to_owned())]);
            let select = selector(quoted).expect("a selector");
            assert!(select.selects(KeyView::new(&key_of(name, &labels))), "{quoted}");
        }
        for text in ["x{", "rate(x.y[5m])", "a b", ".", "x{a=}"] {
            let error = selector(text).err().unwrap_or_default();
            assert!(!error.contains("is quoted"), "{text}: {error}");
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
