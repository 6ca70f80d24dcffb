//! A YAML file as a tree that keeps what serde would lose: where each key stands, and duplicates.
//!
//! Knows nothing of relight's keys. Aliases, nesting and size are bounded here, so that whatever
//! reads the tree may recurse.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, Options, Spanned};

use crate::errors::Problem;

/// The largest config: a thousand rules are half of it.
const MAX_BYTES: usize = 1 << 20;
/// Nodes after the expansion of aliases.
const MAX_NODES: usize = 50_000;
/// relight's own keys nest eight deep; `args` may nest further.
const MAX_DEPTH: usize = 64;

/// Line and column, from 1.
pub(crate) type Place = (u64, u64);

/// A value and where it stands; in a map that is where its key stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) kind: Kind,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    /// A number that JSON has no word for: `.nan`, `.inf`.
    Unbounded,
    Text(String),
    Seq(Vec<Node>),
    /// In the order of the file; a key may stand in it twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads a YAML document. Fails only on what is no YAML, or too much of it.
    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let problem =
            |(line, column): Place, message: String| Problem { line, column, path: String::new(), message };
        if text.len() > MAX_BYTES {
            return Err(problem((1, 1), format!("{} bytes; a config has at most {MAX_BYTES}", text.len())));
        }
        let root: Option<Spanned<Kind>> =
            serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
                let error = error.without_snippet();
                let at = error.location().map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
                let message = one_line(&error.to_string());
                let hint = if message.contains("mapping values are not allowed") {
                    ": put a text that has `: ` in it, such as a condition with `? :`, in quotes"
                } else {
                    ""
                };
                problem(at, format!("not valid YAML: {message}{hint}"))
            })?;
        Ok(root.map_or(Self { at: (1, 1), kind: Kind::Null }, Self::of))
    }

    fn of(spanned: Spanned<Kind>) -> Self {
        Self { at: place(&spanned), kind: spanned.value }
    }

    /// Calls `f` for this node and all below it, with their paths.
    pub(crate) fn for_each(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Self)) {
        f(path, self);
        match &mut self.kind {
            Kind::Seq(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.for_each(&format!("{path}[{i}]"), f);
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    value.for_each(&join(path, key), f);
                }
            }
            _ => {}
        }
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        entries.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Number(value) => format!("the number {value}"),
            Kind::Unbounded => "a number without bounds".to_owned(),
            Kind::Text(text) if text.chars().count() > 40 => "a text".to_owned(),
            Kind::Text(text) => format!("the text `{text}`"),
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }

    /// The same as JSON; of equal keys the first one stays.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null | Kind::Unbounded => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::Seq(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().rev().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            ),
        }
    }
}

/// `rules[2].respond` and `with` make `rules[2].respond.with`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Merge,
        // YAML 1.2: `no` and `y` are texts. By default only typed fields are read so.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    (spanned.referenced.line().max(1), spanned.referenced.column().max(1))
}

/// The parser's messages span lines; ours do not.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
        Ok(Number::from_f64(value).map_or(Kind::Unbounded, Kind::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Kind>>()? {
            items.push(Node::of(item));
        }
        Ok(Kind::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = place(&key);
            let value = map.next_value::<Kind>()?;
            entries.push((key.value, Node { at, kind: value }));
        }
        Ok(Kind::Map(entries))
    }
}
