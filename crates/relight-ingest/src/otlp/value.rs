//! Scalars of OTLP's JSON: integers as strings or numbers, floats that may be `"NaN"`, enums by name or number,
//! and attributes of any type as their text.

use std::borrow::Cow;
use std::fmt;

use relight_core::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::Value;

use super::model::or_default;
use crate::ndjson::Text;

/// A signed 64-bit integer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Int(pub(super) i64);

/// An unsigned 64-bit integer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unsigned(pub(super) u64);

/// A signed 32-bit integer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Small(pub(super) i32);

/// How the points of a sum or histogram follow each other: the protocol's number, 0 if that is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Temporality(pub(super) i32);

/// A float; JSON has no number for some, so they may be strings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Float(pub(super) f64);

/// Nanoseconds since the epoch; 0 means that it is not known.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Nanos(pub(super) Unsigned);

impl Nanos {
    /// Whether the sender left it out.
    pub(super) const fn is_unset(self) -> bool {
        self.0.0 == 0
    }

    /// The time; `None` if it lies beyond what 63 bits hold, in the year 2262.
    pub(super) fn time(self) -> Option<Timestamp> {
        i64::try_from(self.0.0).ok().map(Timestamp::from_ns)
    }

    /// The same as the start of a sum, where [`Timestamp::MIN`] stands for not known.
    pub(super) fn start(self) -> Timestamp {
        self.time().filter(|_| !self.is_unset()).unwrap_or(Timestamp::MIN)
    }
}

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = deserializer.deserialize_any(Whole)?;
        i64::try_from(whole).map(Self).map_err(|_| D::Error::custom("an integer beyond 64 bits"))
    }
}

impl<'de> Deserialize<'de> for Unsigned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = deserializer.deserialize_any(Whole)?;
        u64::try_from(whole).map(Self).map_err(|_| D::Error::custom("not an unsigned 64-bit integer"))
    }
}

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = deserializer.deserialize_any(Whole)?;
        i32::try_from(whole).map(Self).map_err(|_| D::Error::custom("an integer beyond 32 bits"))
    }
}

impl<'de> Deserialize<'de> for Temporality {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Named).map(Self)
    }
}

/// Reads a temporality's number, or its name.
struct Named;

impl Visitor<'_> for Named {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an aggregation temporality, as a number or a name")
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<i32, E> {
        // Numbers that the protocol does not have yet are none that is known here.
        Ok(i32::try_from(value).unwrap_or_default())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<i32, E> {
        Ok(i32::try_from(value).unwrap_or_default())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<i32, E> {
        Whole.visit_f64(value).map(|whole| i32::try_from(whole).unwrap_or_default())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<i32, E> {
        match text {
            "AGGREGATION_TEMPORALITY_UNSPECIFIED" | "" => Ok(0),
            "AGGREGATION_TEMPORALITY_DELTA" => Ok(1),
            "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(2),
            _ => text
                .parse()
                .map_err(|_| E::custom(format_args!("`{}` is no aggregationTemporality", shown(text)))),
        }
    }
}

/// Reads a whole number, or a string of one.
struct Whole;

impl Visitor<'_> for Whole {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a 64-bit integer, as a number or a string")
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<i128, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<i128, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<i128, E> {
        // Some writers give `1.7e18`; a fraction is no integer.
        let is_whole = value.fract() == 0.0 && value.abs() < 1e20;
        if is_whole { Ok(value as i128) } else { Err(E::custom("a number with a fraction, for an integer")) }
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<i128, E> {
        // ProtoJSON has exponents in strings, too.
        let exponent = || text.parse::<f64>().ok().filter(|_| text.contains(['e', 'E', '.']));
        match text.parse() {
            Ok(whole) => Ok(whole),
            Err(_) => match exponent() {
                Some(value) => self.visit_f64(value),
                None => Err(E::custom(format_args!("`{}` is no integer", shown(text)))),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

/// Reads any number, or a string of one.
struct Any;

impl Visitor<'_> for Any {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(|_| E::custom(format_args!("`{}` is no number", shown(text))))
    }
}

/// The front of a text that may be long.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A resource's, scope's or point's attribute.
#[derive(Deserialize)]
pub(super) struct Attribute<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) key: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) value: AnyValue<'a>,
}

/// A value of any type; at most one field is set.
#[derive(Deserialize, Default)]
pub(super) struct AnyValue<'a> {
    #[serde(borrow, rename = "stringValue", alias = "string_value")]
    pub(super) string: Option<Text<'a>>,
    #[serde(rename = "boolValue", alias = "bool_value")]
    pub(super) boolean: Option<bool>,
    #[serde(rename = "intValue", alias = "int_value")]
    pub(super) int: Option<Int>,
    #[serde(rename = "doubleValue", alias = "double_value")]
    pub(super) double: Option<Float>,
    #[serde(borrow, rename = "arrayValue", alias = "array_value")]
    pub(super) list: Option<Box<Values<'a>>>,
    #[serde(borrow, rename = "kvlistValue", alias = "kvlist_value")]
    pub(super) map: Option<Box<Pairs<'a>>>,
    #[serde(borrow, rename = "bytesValue", alias = "bytes_value")]
    pub(super) bytes: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Values<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) values: Vec<AnyValue<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Pairs<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) values: Vec<Attribute<'a>>,
}

impl<'a> AnyValue<'a> {
    /// The same as [`AnyValue::text`], for as long as what it was read from.
    pub(super) fn into_text(mut self) -> Cow<'a, str> {
        match self.string.take() {
            Some(Text(text)) => text,
            None => Cow::Owned(self.text().into_owned()),
        }
    }

    /// Its text: of lists and maps as JSON, of bytes in base 64, of nothing empty.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self { string: Some(Text(text)), .. } => Cow::Borrowed(text),
            Self { bytes: Some(Text(text)), .. } => base64(text),
            Self { boolean: Some(value), .. } => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self { int: Some(Int(value)), .. } => Cow::Owned(value.to_string()),
            Self { double: Some(Float(value)), .. } => Cow::Owned(value.to_string()),
            Self { list: None, map: None, .. } => Cow::Borrowed(""),
            _ => Cow::Owned(self.json().to_string()),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self { boolean: Some(value), .. } => Value::Bool(*value),
            Self { int: Some(Int(value)), .. } => Value::from(*value),
            Self { double: Some(Float(value)), .. } => Value::from(*value),
            Self { list: Some(list), .. } => list.values.iter().map(Self::json).collect(),
            Self { map: Some(map), .. } => {
                map.values.iter().map(|pair| (pair.key.0.to_string(), pair.value.json())).collect()
            }
            Self { string: None, bytes: None, .. } => Value::Null,
            _ => Value::String(self.text().into_owned()),
        }
    }
}

/// Base 64 in the one writing that the protobuf decoder gives: ProtoJSON also takes the URL-safe alphabet, and either
/// without padding.
fn base64(text: &str) -> Cow<'_, str> {
    if text.len().is_multiple_of(4) && !text.contains(['-', '_']) {
        return Cow::Borrowed(text);
    }
    let digits = text.trim_end_matches('=');
    let mut same: String = digits
        .chars()
        .map(|digit| match digit {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    while !same.len().is_multiple_of(4) {
        same.push('=');
    }
    Cow::Owned(same)
}
