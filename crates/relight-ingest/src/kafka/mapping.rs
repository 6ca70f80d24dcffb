//! Records of format `json`: points from JSON objects, by the paths that a mapping names.
//!
//! The document is never built: a visitor walks it once, keeps the values at the paths that are wanted, and passes
//! over the rest. No nesting is limited here beyond serde_json's own 128.

use std::borrow::Cow;
use std::fmt;

use relight_core::Timestamp;
use relight_core::record::{Kind, Reason, Record};
use relight_core::source::kafka::{Mapping, PointKind, TimeUnit};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{key, scan};

/// Labels that an object of labels may bring; more are refused with the limit on labels.
const MAX_FREE_LABELS: usize = 256;

/// Where a value of a document goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Metric,
    Value,
    Time,
    /// The label of this index.
    Label(usize),
    /// All scalar members are labels.
    Labels,
}

/// The wanted paths as a tree: what is at this place, and what is below it.
#[derive(Debug, Default)]
struct Node {
    slots: Vec<Slot>,
    below: Vec<(String, Node)>,
}

impl Node {
    fn add(&mut self, path: &str, slot: Slot) {
        // A whole path may also be one key with dots in it, as OpenTelemetry's attributes are.
        self.at(path).slots.push(slot);
        if path.contains('.') {
            path.split('.').fold(self, |node, part| node.at(part)).slots.push(slot);
        }
    }

    fn at(&mut self, key: &str) -> &mut Self {
        let ix = self.below.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.below.push((key.to_owned(), Self::default()));
            self.below.len() - 1
        });
        &mut self.below[ix].1
    }

    fn get(&self, key: &str) -> Option<&Self> {
        self.below.iter().find(|(known, _)| known == key).map(|(_, node)| node)
    }
}

/// A mapping, ready to read documents.
#[derive(Debug)]
pub(super) struct Mapper {
    root: Node,
    metric: Option<String>,
    labels: Vec<String>,
    unit: Option<TimeUnit>,
    has_time: bool,
    kind: Kind,
    key: Vec<u8>,
}

impl Mapper {
    pub(super) fn new(mapping: &Mapping) -> Self {
        let mut root = Node::default();
        root.add(&mapping.value_field, Slot::Value);
        for (path, slot) in [(&mapping.metric_field, Slot::Metric), (&mapping.time_field, Slot::Time)] {
            if let Some(path) = path {
                root.add(path, slot);
            }
        }
        if let Some(path) = &mapping.labels_field {
            root.add(path, Slot::Labels);
        }
        for (ix, path) in mapping.labels.values().enumerate() {
            root.add(path, Slot::Label(ix));
        }
        Self {
            root,
            metric: mapping.metric.clone(),
            labels: mapping.labels.keys().cloned().collect(),
            unit: mapping.time_unit,
            has_time: mapping.time_field.is_some(),
            kind: match mapping.kind {
                PointKind::Gauge => Kind::Gauge,
                PointKind::Cumulative => Kind::Cumulative,
                PointKind::Delta => Kind::Delta,
            },
            key: Vec::new(),
        }
    }

    /// Reads a document: an object, or a list of them. What is wrong with single objects of a list is counted in
    /// the record; fails if nothing of the document can be used.
    pub(super) fn read(
        &mut self,
        json: &[u8],
        received: Timestamp,
        record: &mut Record,
    ) -> Result<(), String> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let found = Document(&self.root).deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        deserializer.end().map_err(|error| error.to_string())?;
        let mut first_error = None;
        for found in found {
            if let Err((reason, why)) = self.point(&found, received, record) {
                record.refuse(reason);
                first_error.get_or_insert(why);
            }
        }
        let nothing =
            record.points.is_empty() && record.refused.iter().all(|(reason, _)| *reason == Reason::Malformed);
        match first_error {
            Some(why) if nothing => Err(why),
            _ => Ok(()),
        }
    }

    fn point(
        &mut self,
        found: &Found<'_>,
        received: Timestamp,
        out: &mut Record,
    ) -> Result<(), (Reason, String)> {
        let malformed = |why: &str| (Reason::Malformed, why.to_owned());
        let name = match (&self.metric, &found.metric) {
            (Some(name), _) => name,
            (None, Some(Scalar::Text(name))) if !name.is_empty() => &**name,
            _ => return Err(malformed("no text at the path of the metric")),
        };
        let value = match &found.value {
            Some(Scalar::Number(value)) => *value,
            Some(Scalar::Int(value)) => *value as f64,
            Some(Scalar::Text(text)) => {
                text.trim().parse().map_err(|_| malformed("a value that is no number"))?
            }
            Some(Scalar::Flag(value)) => f64::from(u8::from(*value)),
            None => return Err(malformed("no number at the path of the value")),
        };
        if !value.is_finite() {
            return Err((Reason::NonFinite, "a value that is not finite".to_owned()));
        }
        let at = match &found.time {
            None if self.has_time => return Err(malformed("no time at its path")),
            None => received,
            Some(time) => self.time(time).ok_or_else(|| malformed("a time that cannot be read"))?,
        };
        let texts: Vec<(&str, Cow<'_, str>)> = found
            .free
            .iter()
            .map(|(key, value)| (&**key, value.text()))
            .chain(found.labels.iter().map(|(ix, value)| (self.labels[*ix].as_str(), value.text())))
            .collect();
        let mut pairs: Vec<(&str, &str)> = texts.iter().map(|(key, value)| (*key, &**value)).collect();
        key::encode(name, &mut pairs, &mut self.key).map_err(|why| (Reason::LabelLimit, why))?;
        out.push_point(&self.key, at, Timestamp::MIN, self.kind, value);
        Ok(())
    }

    fn time(&self, found: &Scalar<'_>) -> Option<Timestamp> {
        match (found, self.unit) {
            (Scalar::Int(n), Some(unit)) => n.checked_mul(unit.ns()).map(Timestamp::from_ns),
            (Scalar::Number(n), Some(unit)) => {
                let ns = n * unit.ns() as f64;
                (ns.abs() < i64::MAX as f64).then_some(Timestamp::from_ns(ns as i64))
            }
            (Scalar::Int(n), None) => scan::epoch(n.to_string().as_bytes()),
            (Scalar::Number(n), None) => scan::epoch(n.to_string().as_bytes()),
            (Scalar::Text(text), Some(unit)) => match text.parse() {
                Ok(n) => self.time(&Scalar::Int(n)),
                Err(_) => scan::rfc3339(text.as_bytes()).filter(|_| unit.ns() > 0),
            },
            (Scalar::Text(text), None) => scan::table_time(text.as_bytes()),
            (Scalar::Flag(_), _) => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Int(i64),
    Flag(bool),
}

impl Scalar<'_> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(n) => n.to_string().into(),
            Self::Int(n) => n.to_string().into(),
            Self::Flag(flag) => flag.to_string().into(),
        }
    }
}

/// What was found in one object.
#[derive(Debug, Default)]
struct Found<'a> {
    metric: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
    time: Option<Scalar<'a>>,
    labels: Vec<(usize, Scalar<'a>)>,
    free: Vec<(Cow<'a, str>, Scalar<'a>)>,
}

impl<'a> Found<'a> {
    fn put(&mut self, slot: Slot, scalar: &Scalar<'a>) {
        match slot {
            Slot::Metric => self.metric = Some(scalar.clone()),
            Slot::Value => self.value = Some(scalar.clone()),
            Slot::Time => self.time = Some(scalar.clone()),
            Slot::Label(ix) => self.labels.push((ix, scalar.clone())),
            Slot::Labels => {}
        }
    }
}

/// A document: one object, or a list of them.
struct Document<'n>(&'n Node);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Vec<Found<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Vec<Found<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        Walk { node: self.0, found: &mut found, free: None }.visit_map(map)?;
        Ok(vec![found])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element_seed(Document(self.0))? {
            all.extend(one);
        }
        Ok(all)
    }
}

/// A value at a place that is wanted, or above one.
struct Walk<'n, 'f, 'de> {
    node: &'n Node,
    found: &'f mut Found<'de>,
    /// The member of an object of labels that this is.
    free: Option<Cow<'de, str>>,
}

/// The node of a place below which nothing is wanted.
const NOTHING: &Node = &Node { slots: Vec::new(), below: Vec::new() };

impl<'de> Walk<'_, '_, 'de> {
    fn scalar(self, scalar: &Scalar<'de>) {
        for slot in &self.node.slots {
            self.found.put(*slot, scalar);
        }
        if let Some(key) = self.free
            && self.found.free.len() < MAX_FREE_LABELS
        {
            self.found.free.push((key, scalar.clone()));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let is_labels = self.node.slots.contains(&Slot::Labels);
        while let Some(crate::ndjson::Text(key)) = map.next_key()? {
            let below = self.node.get(&key);
            if below.is_none() && !is_labels {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let free = is_labels.then_some(key);
            map.next_value_seed(Walk { node: below.unwrap_or(NOTHING), found: &mut *self.found, free })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.scalar(&Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.scalar(&Scalar::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(&Scalar::Number(value));
        Ok(())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(&Scalar::Int(value));
        Ok(())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(&i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Int));
        Ok(())
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(&Scalar::Flag(value));
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use relight_core::KeyView;

    use super::*;

    fn check(mapping: &str, json: &str, expected: Result<&[&str], &str>) {
        let mapping: Mapping = serde_json::from_str(mapping).expect("a mapping");
        let mut record = Record::default();
        let read = Mapper::new(&mapping).read(json.as_bytes(), Timestamp::from_secs(9), &mut record);
        let shown: Vec<String> = record
            .points
            .iter()
            .map(|point| {
                let key = KeyView::new(record.key(point));
                let labels: Vec<String> = key.labels().map(|(key, value)| format!("{key}={value}")).collect();
                format!(
                    "{} {} {} {} {:?}",
                    point.at.ns(),
                    key.name(),
                    labels.join(","),
                    point.value,
                    point.kind
                )
            })
            .collect();
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        assert_eq!(read.as_ref().map(|()| &*shown).map_err(String::as_str), expected, "{json}");
    }

    /// Scenario: documents in the shapes that exporters write.
    /// Guarantee: each value is found at its path, whether its key holds dots or is nested.
    #[test]
    fn documents_are_mapped() {
        let fixed = r#"{"metric":"m","value_field":"v"}"#;
        check(fixed, r#"{"v":1.5,"x":[{"v":2}]}"#, Ok(&["9000000000 m  1.5 Gauge"]));
        check(
            fixed,
            r#"[{"v":1},{"v":"2.5"},{"v":true}]"#,
            Ok(&["9000000000 m  1 Gauge", "9000000000 m  2.5 Gauge", "9000000000 m  1 Gauge"]),
        );
        let full = r#"{"metric_field":"name","value_field":"fields.value","time_field":"ts","time_unit":"ms",
            "labels":{"service":"tags.service.name","zone":"zone"},"labels_field":"extra","kind":"cumulative"}"#;
        let json = r#"{"name":"req","fields":{"value":7},"ts":1500,"tags":{"service":{"name":"a"}},
            "extra":{"zone":"x","n":3,"deep":{"no":1}},"zone":"eu","unknown":{"name":"b"}}"#;
        check(full, json, Ok(&["1500000000 req n=3,service=a,zone=eu 7 Cumulative"]));
        let dotted = r#"{"metric":"m","value_field":"a.b","labels":{"s":"service.name"}}"#;
        check(dotted, r#"{"a.b":1,"service.name":"x"}"#, Ok(&["9000000000 m s=x 1 Gauge"]));
        check(dotted, r#"{"a":{"b":1}}"#, Ok(&["9000000000 m  1 Gauge"]));
        let timed = r#"{"metric":"m","value_field":"v","time_field":"t"}"#;
        for time in
            ["1700000000", "1700000000000", "1700000000.0", "\"2023-11-14T22:13:20Z\"", "\"1700000000\""]
        {
            check(timed, &format!(r#"{{"v":1,"t":{time}}}"#), Ok(&["1700000000000000000 m  1 Gauge"]));
        }
    }

    /// Scenario: documents that do not have what the mapping asks for.
    /// Guarantee: one of which nothing can be used is named with the reason; the good part of a list is kept.
    #[test]
    fn what_is_missing_is_named() {
        let timed = r#"{"metric":"m","value_field":"v","time_field":"t"}"#;
        check(timed, r#"{"t":1}"#, Err("no number at the path of the value"));
        check(timed, r#"{"v":1}"#, Err("no time at its path"));
        check(timed, r#"{"v":1,"t":"noon"}"#, Err("a time that cannot be read"));
        check(timed, r#"{"v":"many","t":1}"#, Err("a value that is no number"));
        check(timed, r#"{"v":{"x":1},"t":1}"#, Err("no number at the path of the value"));
        check(timed, r#"{"v":"NaN","t":1}"#, Ok(&[]));
        check(timed, r#"[{"v":1,"t":1},{"v":1}]"#, Ok(&["1000000000 m  1 Gauge"]));
        let named = r#"{"metric_field":"n","value_field":"v"}"#;
        check(named, r#"{"v":1,"n":""}"#, Err("no text at the path of the metric"));
        for broken in ["", "7", "{", r#"{"v":1}x"#] {
            let mut record = Record::default();
            let mapping: Mapping = serde_json::from_str(timed).expect("a mapping");
            assert!(
                Mapper::new(&mapping).read(broken.as_bytes(), Timestamp::MIN, &mut record).is_err(),
                "{broken}"
            );
        }
    }
}
