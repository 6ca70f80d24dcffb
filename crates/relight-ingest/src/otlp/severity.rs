//! How severe a log record is: what its sender calls it, or the name of its number.

use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::value::RawValue;

/// Names of four numbers each, from 1 on, in the writing of OpenTelemetry's log data model.
const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const NUMBERS_EACH: i32 = 4;

/// The label that tells it. The text wins; without one, numbers beyond 1 to 24 tell nothing.
pub(crate) fn label(text: &str, number: i32) -> Option<(&'static str, &str)> {
    let text = if text.is_empty() { name(number)? } else { text };
    Some(("severity", text))
}

fn name(number: i32) -> Option<&'static str> {
    let from_zero = usize::try_from(number.checked_sub(1)?).ok()?;
    NAMES.get(from_zero / NUMBERS_EACH as usize).copied()
}

/// A severity's number; 0 where it is not told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Number(pub(super) i32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // OTLP has numbers only, but protobuf's own JSON writes names, and a Collector reads both. Neither is worth a request
        // that would be refused: what is no severity tells none.
        let told = <&RawValue>::deserialize(deserializer)?.get().trim_matches('"');
        Ok(Self(told.parse().ok().or_else(|| named(told)).unwrap_or_default()))
    }
}

/// The number of `SEVERITY_NUMBER_ERROR`, `SEVERITY_NUMBER_ERROR2` and their like.
fn named(told: &str) -> Option<i32> {
    let told = told.strip_prefix("SEVERITY_NUMBER_")?;
    let (name, nth) = match told.as_bytes().last()? {
        nth @ b'2'..=b'4' => (&told[..told.len() - 1], i32::from(nth - b'1')),
        _ => (told, 0),
    };
    let first = (1..).step_by(NUMBERS_EACH as usize);
    NAMES.iter().zip(first).find(|(known, _)| **known == name).map(|(_, first)| first + nth)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: each number of the protocol has its name, any other none, and a text wins over both.
    #[test]
    fn numbers_have_names() {
        for (number, expected) in [
            (i32::MIN, None),
            (-1, None),
            (0, None),
            (1, Some("TRACE")),
            (4, Some("TRACE")),
            (5, Some("DEBUG")),
            (8, Some("DEBUG")),
            (9, Some("INFO")),
            (12, Some("INFO")),
            (13, Some("WARN")),
            (16, Some("WARN")),
            (17, Some("ERROR")),
            (20, Some("ERROR")),
            (21, Some("FATAL")),
            (24, Some("FATAL")),
            (25, None),
            (i32::MAX, None),
        ] {
            assert_eq!(label("", number), expected.map(|name| ("severity", name)), "{number}");
            assert_eq!(label("Warning", number), Some(("severity", "Warning")));
        }
    }

    /// Guarantee: a number is read as such and by its name, and what is neither is no error.
    #[test]
    fn numbers_are_read_from_json() {
        for (json, expected) in [
            ("17", 17),
            (r#""17""#, 17),
            ("-3", -3),
            (r#""SEVERITY_NUMBER_TRACE""#, 1),
            (r#""SEVERITY_NUMBER_ERROR""#, 17),
            (r#""SEVERITY_NUMBER_ERROR2""#, 18),
            (r#""SEVERITY_NUMBER_FATAL4""#, 24),
            (r#""SEVERITY_NUMBER_FATAL5""#, 0),
            (r#""SEVERITY_NUMBER_UNSPECIFIED""#, 0),
            (r#""SEVERITY_NUMBER_""#, 0),
            (r#""SEVERITY_NUMBER_ü""#, 0),
            (r#""ERROR""#, 0),
            ("null", 0),
            ("1e1", 0),
            ("99999999999", 0),
            (r#"{"a":[1]}"#, 0),
        ] {
            let read = serde_json::from_str::<Number>(json).map(|number| number.0);
            assert_eq!(read.map_err(|error| error.to_string()), Ok(expected), "{json}");
        }
    }
}
