//! Bodies from templates: minijinja, with a bound on everything.
//!
//! A JSON template's values are serialised where they stand (`{"text": {{ summary }}}`), so a label can end no
//! string and begin no field; the result is parsed before it is sent.

use std::error::Error;
use std::io;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

/// Steps of the template's machine; one loop over a page of labels takes some thousand.
const FUEL: u64 = 50_000;
const MAX_DEPTH: usize = 64;
/// Bytes of a body. Targets of webhooks take at least this much.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// A template that was parsed once and can be parsed again.
pub(crate) struct Template {
    text: String,
    is_json: bool,
}

impl Template {
    /// Fails with what is wrong, for people.
    pub(crate) fn new(text: String, content_type: &str) -> Result<Self, String> {
        let template = Self { text, is_json: is_json(content_type) };
        let environment = environment(template.is_json);
        environment.template_from_str(&template.text).map_err(|e| e.to_string())?;
        Ok(template)
    }

    /// The body for a document: of a JSON template the value, of any other the text.
    pub(crate) fn render(&self, document: &Value) -> Result<Value, String> {
        let environment = environment(self.is_json);
        let template = environment.template_from_str(&self.text).map_err(|e| e.to_string())?;
        let mut body = Capped(Vec::new());
        let context = minijinja::value::Serde(document);
        template.render_captured_to(context, &mut body).map_err(|e| with_causes(&e))?;
        let text = String::from_utf8(body.0).map_err(|e| e.to_string())?;
        if !self.is_json {
            return Ok(Value::String(text));
        }
        let hint = "values are put in without quotes: {\"text\": {{ summary }}}";
        serde_json::from_str(&text).map_err(|e| format!("is not JSON when filled in: {e}; {hint}"))
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.ends_with("/json") || kind.ends_with("+json")
}

fn environment(is_json: bool) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(move |_| if is_json { AutoEscape::Json } else { AutoEscape::None });
    environment
}

struct Capped(Vec<u8>);

impl io::Write for &mut Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BODY {
            return Err(io::Error::other(format!("is longer than {MAX_BODY} bytes when filled in")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Result<Value, &str>) {
        let document = json!({ "summary": "\",\"severity\":\"critical\n\\", "group": { "a": 1 } });
        let found = Template::new(text.to_owned(), "application/json").and_then(|t| t.render(&document));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(part)) => assert!(found.contains(part), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    /// Guarantee: a value is one JSON value wherever it is put, and what is no JSON is not sent.
    #[test]
    fn f28_json_template_injection() {
        check(r#"{"text": {{ summary }}}"#, Ok(json!({ "text": "\",\"severity\":\"critical\n\\" })));
        check(r#"{"g": {{ group }}}"#, Ok(json!({ "g": { "a": 1 } })));
        check(r#"{"text": "{{ summary }}"}"#, Err("is not JSON"));
        check(r#"{"text": "{{ summary|safe }}"}"#, Err("is not JSON"));
        check(r#"{"text": {{ nothing }}}"#, Err("undefined"));
        check("{{", Err("syntax error"));
    }

    /// Guarantee: no template takes for ever, takes all memory, or fills a body.
    #[test]
    fn d09_template_bombs() {
        check(
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            Err("fuel"),
        );
        check("{{ 'a' * 100000000 }}", Err(""));
        check("{% for i in range(9000) %}0123456789{% endfor %}", Err("longer than"));
        check(&format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000)), Err(""));
        check(&format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000)), Err(""));
    }
}
