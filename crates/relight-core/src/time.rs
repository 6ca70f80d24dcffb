//! Event time and spans of it: nanoseconds, UTC, one integer.
//!
//! There is no "now" here: every function that needs one takes it as an argument.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NS_PER_SECOND: i64 = 1_000_000_000;

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before everything; stands for "no time yet".
    pub const MIN: Self = Self(i64::MIN);
    /// After everything; the watermark of a partition that has ended.
    pub const MAX: Self = Self(i64::MAX);

    /// From nanoseconds since the epoch.
    #[inline]
    pub const fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// From whole seconds since the epoch, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(NS_PER_SECOND))
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub const fn ns(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[inline]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(NS_PER_SECOND)
    }

    /// Seconds since the epoch as a float; exact to about 0.2 us.
    #[inline]
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Start of the bin of length `interval` that holds this time. Bins are aligned to the epoch.
    #[must_use]
    pub const fn bin_start(self, interval: Span) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(interval.0)))
    }

    /// Whether this is a time rather than [`Timestamp::MIN`] or [`Timestamp::MAX`].
    #[inline]
    pub const fn is_known(self) -> bool {
        self.0 != i64::MIN && self.0 != i64::MAX
    }

    /// `self + span`, saturating.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// `self - span`, saturating.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The span from `earlier` to `self`, saturating; negative if `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

/// Why a text is no time or span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(String);

impl FromStr for Timestamp {
    type Err = TimeError;

    /// Reads RFC 3339 (`2026-11-23T08:00:10.5Z`, any offset).
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let bad = || TimeError(format!("`{text}` is no RFC 3339 time"));
        let t: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        i64::try_from(t.as_nanosecond()).map(Self).map_err(|_| bad())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_suffix("ns").and_then(|ns| ns.parse().ok()) {
            Some(ns) => Ok(Self(ns)),
            None => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// A length of time in nanoseconds. Written `90s`, `1m30s`, `250ms`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", NS_PER_SECOND),
    ("m", 60 * NS_PER_SECOND),
    ("h", 3_600 * NS_PER_SECOND),
    ("d", 86_400 * NS_PER_SECOND),
];

impl Span {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    #[inline]
    pub const fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// From seconds, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(NS_PER_SECOND))
    }

    /// Nanoseconds.
    #[inline]
    pub const fn ns(self) -> i64 {
        self.0
    }

    /// Seconds as a float.
    #[inline]
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// `self * n`, saturating.
    #[must_use]
    pub const fn times(self, n: i64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// How many whole bins of `interval` fit into this span.
    pub const fn bins(self, interval: Span) -> i64 {
        self.0 / interval.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (unit, ns) in UNITS.iter().rev() {
            let n = rest / ns.unsigned_abs();
            if n > 0 {
                write!(f, "{n}{unit}")?;
                rest %= ns.unsigned_abs();
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let bad =
            || TimeError(format!("`{text}` is no duration (write it as `10s`, `1m30s`, `250ms`, `7d`)"));
        let mut rest = text.trim();
        let mut total = 0_i64;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let n: i64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (_, ns) = UNITS.iter().find(|(unit, _)| *unit == &rest[..end]).ok_or_else(bad)?;
            rest = &rest[end..];
            total = n.checked_mul(*ns).and_then(|ns| total.checked_add(ns)).ok_or_else(bad)?;
        }
        Ok(Self(total))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ns|us|ms|s|m|h|d))+$",
            "description": "a length of time such as 10s, 1m30s, 250ms or 7d",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_written() {
        for text in ["10s", "1m30s", "250ms", "7d", "1d2h3m4s5ms6us7ns", "0s"] {
            let span: Span = text.parse().expect("a valid span");
            assert_eq!(span.to_string(), text);
        }
        for text in ["", "10", "s", "1.5s", "10 s", "5w", "99999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_read_back_as_written() {
        for ns in [0, 1, -1, 1_763_884_800_123_456_789, i64::MAX, i64::MIN] {
            let json = serde_json::to_string(&Timestamp::from_ns(ns)).expect("serialises");
            assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("reads back").ns(), ns);
        }
    }

    #[test]
    fn bins_are_aligned_below_zero_too() {
        let interval = Span::from_secs(10);
        assert_eq!(Timestamp::from_secs(19).bin_start(interval), Timestamp::from_secs(10));
        assert_eq!(Timestamp::from_secs(-1).bin_start(interval), Timestamp::from_secs(-10));
        assert_eq!(Timestamp::from_secs(20).bin_start(interval), Timestamp::from_secs(20));
    }
}
