//! Holds a tree against a JSON Schema: the very one that `relight schema` publishes.
//!
//! Only what schemas of relight's own types use is understood, and every mismatch is reported, not
//! the first alone. What comes back is the tree without its faulty parts, as JSON, so that the rest
//! can be checked further. The schema is relight's own and therefore trusted; the tree is not.

use std::collections::BTreeSet;

use relight_core::Span;
use serde_json::{Map, Number, Value};

use crate::errors::unknown;
use crate::report::Report;
use crate::schema::DURATION;
use crate::tree::{Kind, Node, join};

/// Reports each mismatch; gives what is left, or nothing if nothing is.
pub(crate) fn check(root: &Value, node: &Node, report: &mut Report) -> Option<Value> {
    Checker { defs: root.get("$defs").unwrap_or(&Value::Null), report }.check(root, node, "")
}

struct Checker<'a> {
    defs: &'a Value,
    report: &'a mut Report,
}

impl<'a> Checker<'a> {
    fn check(&mut self, schema: &'a Value, node: &Node, path: &str) -> Option<Value> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            if name == DURATION {
                return self.duration(node, path);
            }
            return self.check(&self.defs[name], node, path);
        }
        if let Some(words) = words(schema) {
            return self.word(&words, node, path);
        }
        if let Some(branches) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
            return self.branch(branches, node, path);
        }
        if !self.fits(schema, node) {
            return self.mismatch(&expected(schema), node, path);
        }
        match &node.kind {
            Kind::Map(entries) => Some(Value::Object(self.object(schema, entries, node, path))),
            Kind::Seq(items) => Some(Value::Array(self.array(schema, items, path))),
            Kind::Number(number) => self.number(schema, number.as_f64(), node, path),
            Kind::Unbounded => self.mismatch("a finite number", node, path),
            _ => Some(node.to_json()),
        }
    }

    fn mismatch(&mut self, expected: &str, node: &Node, path: &str) -> Option<Value> {
        self.report.error_at(node.at, path, format!("expected {expected}, found {}", node.describe()));
        None
    }

    fn duration(&mut self, node: &Node, path: &str) -> Option<Value> {
        let Kind::Text(text) = &node.kind else {
            return self.mismatch("a duration such as `10s`, `1m30s` or `250ms`", node, path);
        };
        match text.parse::<Span>() {
            // In one spelling: what depends on parameters must not change with `600s` for `10m`.
            Ok(span) => Some(Value::String(span.to_string())),
            Err(error) => {
                self.report.error_at(node.at, path, error.to_string());
                None
            }
        }
    }

    fn word(&mut self, words: &[&str], node: &Node, path: &str) -> Option<Value> {
        match &node.kind {
            Kind::Text(text) if words.contains(&text.as_str()) => Some(node.to_json()),
            Kind::Text(text) => {
                let message = unknown("word", text, words.iter().copied());
                self.report.error_at(node.at, path, format!("`{text}`: {message}"));
                None
            }
            _ => self.mismatch(&format!("one of {}", words.join(", ")), node, path),
        }
    }

    /// Several schemas: told apart by their `type` key, else by the kind of the value.
    fn branch(&mut self, branches: &'a [Value], node: &Node, path: &str) -> Option<Value> {
        let tags: Vec<(&str, &Value)> = branches.iter().filter_map(|b| Some((tag(b)?, b))).collect();
        if tags.is_empty() {
            let Some(branch) = branches.iter().find(|branch| self.fits(branch, node)) else {
                let expected: Vec<String> = branches.iter().map(expected).collect();
                return self.mismatch(&expected.join(" or "), node, path);
            };
            return self.check(branch, node, path);
        }
        if !matches!(node.kind, Kind::Map(_)) {
            return self.mismatch("a map", node, path);
        }
        let names = tags.iter().map(|(name, _)| *name);
        let Some(given) = node.get("type") else {
            let have = names.collect::<Vec<_>>().join(", ");
            self.report.error_at(node.at, path, format!("`type` is missing (have: {have})"));
            return None;
        };
        let Kind::Text(name) = &given.kind else {
            return self.mismatch("a text", given, &join(path, "type"));
        };
        let Some((_, branch)) = tags.iter().find(|(tag, _)| tag == name) else {
            self.report.error_at(
                given.at,
                &join(path, "type"),
                format!("`{name}`: {}", unknown("type", name, names)),
            );
            return None;
        };
        self.check(branch, node, path)
    }

    /// Whether the value is of a kind that the schema allows; says nothing about what is inside.
    fn fits(&self, schema: &Value, node: &Node) -> bool {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            return self.fits(&self.defs[name], node);
        }
        let types = types(schema);
        if types.is_empty() {
            return true;
        }
        types.iter().any(|name| match &node.kind {
            Kind::Null => *name == "null",
            Kind::Bool(_) => *name == "boolean",
            Kind::Number(n) => *name == "number" || *name == "integer" && (n.is_i64() || n.is_u64()),
            Kind::Unbounded => *name == "number",
            Kind::Text(_) => *name == "string",
            Kind::Seq(_) => *name == "array",
            Kind::Map(_) => *name == "object",
        })
    }

    fn object(
        &mut self,
        schema: &'a Value,
        entries: &[(String, Node)],
        node: &Node,
        path: &str,
    ) -> Map<String, Value> {
        let mut seen = BTreeSet::new();
        let mut kept = Map::new();
        for (key, value) in entries {
            let path = join(path, key);
            if !seen.insert(key.as_str()) {
                self.report.error_at(value.at, &path, "duplicate key; its first value stands above");
            } else if let Some(value) = self.entry(schema, key, value, &path) {
                kept.insert(key.clone(), value);
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for key in required {
            // A key without a value is as good as none.
            if node.get(key).is_none_or(|value| value.kind == Kind::Null) {
                self.report.error_at(node.at, path, format!("`{key}` is missing"));
            }
        }
        kept
    }

    fn entry(&mut self, schema: &'a Value, key: &str, value: &Node, path: &str) -> Option<Value> {
        let properties = schema["properties"].as_object();
        let Some(known) = properties.and_then(|known| known.get(key)) else {
            let names = properties.into_iter().flat_map(Map::keys).map(String::as_str);
            return match &schema["additionalProperties"] {
                Value::Bool(false) => {
                    self.report.error_at(value.at, path, unknown("key", key, names));
                    None
                }
                // A faulty entry stays as null, so that its name stays known.
                Value::Object(_) => {
                    Some(self.check(&schema["additionalProperties"], value, path).unwrap_or(Value::Null))
                }
                _ => Some(value.to_json()),
            };
        };
        if value.kind == Kind::Null {
            return None;
        }
        self.check(known, value, path)
    }

    fn array(&mut self, schema: &'a Value, items: &[Node], path: &str) -> Vec<Value> {
        let item = schema.get("items");
        let each = items.iter().enumerate().map(|(i, value)| match item {
            // A faulty item stays as null, so that those after it keep their numbers.
            Some(item) => self.check(item, value, &format!("{path}[{i}]")).unwrap_or(Value::Null),
            None => value.to_json(),
        });
        each.collect()
    }

    fn number(&mut self, schema: &Value, value: Option<f64>, node: &Node, path: &str) -> Option<Value> {
        let value = value.unwrap_or(f64::NAN);
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let fault = if let Some(least) = bound("minimum").filter(|least| value < *least) {
            format!("is below {least}")
        } else if let Some(most) = bound("maximum").filter(|most| value > *most) {
            format!("is above {most}")
        } else if let Some(least) = bound("exclusiveMinimum").filter(|least| value <= *least) {
            format!("must be above {least}")
        } else if let Some(most) = bound("exclusiveMaximum").filter(|most| value >= *most) {
            format!("must be below {most}")
        } else {
            let float = Number::from_f64(value).filter(|_| types(schema).contains(&"number"));
            return Some(float.map_or_else(|| node.to_json(), Value::Number));
        };
        self.report.error_at(node.at, path, format!("{value} {fault}"));
        None
    }
}

/// The kinds of values that a schema allows; none if it does not say.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The words of an enumeration, if the schema is one.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.as_str()?]);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(Value::as_str).collect();
    }
    let branches = schema.get("oneOf")?.as_array()?;
    let each: Option<Vec<Vec<&str>>> = branches.iter().map(words).collect();
    each.map(|each| each.concat())
}

/// The `type` that tells this branch from the others.
fn tag(branch: &Value) -> Option<&str> {
    branch["properties"]["type"]["const"].as_str()
}

/// What a schema wants, for people.
fn expected(schema: &Value) -> String {
    let name = |name: &str| match name {
        "string" => "a text",
        "number" => "a number",
        "integer" => "a whole number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "null" => "nothing",
        _ => "a map",
    };
    let names: Vec<&str> = types(schema).into_iter().filter(|name| *name != "null").map(name).collect();
    let example = schema["examples"].get(0).and_then(Value::as_str);
    let example = example.map(|example| format!(" such as `{example}`")).unwrap_or_default();
    if names.is_empty() { "a map".to_owned() } else { names.join(" or ") + &example }
}
