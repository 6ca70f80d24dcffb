//! Prometheus text (and OpenMetrics) with timestamps: one sample a line.
//!
//! `# TYPE` decides what a sample is; without it, names ending in `_total` are counters and all
//! others gauges. A histogram's buckets become one histogram point, made by its `+Inf` bucket, which
//! the format requires and every exporter writes last; its `_sum` and `_count` are left out, since
//! the point holds the count. A summary's quantiles are gauges, its `_sum` and `_count` counters.
//! Timestamps are milliseconds, or seconds if they are too small for that.

mod sample;

use std::collections::HashMap;

use relight_core::Timestamp;
use relight_core::record::{Histogram, Kind, Reason};

use self::sample::{Series, series_text, split_series};
use crate::key;
use crate::memo::Memo;
use crate::scan::epoch;
use crate::source::{Decoder, Sink};

/// Metrics whose type is remembered; more are taken as untyped.
const MAX_TYPES: usize = 100_000;
/// Buckets of one histogram.
const MAX_BUCKETS: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// What a series' samples are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Scalar(Kind),
    /// Observations at or below this.
    Bucket(f64),
    /// Holds nothing that another series does not hold.
    Redundant,
}

/// A series as this capture writes it.
struct Known {
    key: Vec<u8>,
    role: Role,
}

/// The histogram whose buckets are being read.
struct Pending {
    key: Vec<u8>,
    at: Timestamp,
    /// Upper bound and running total.
    buckets: Vec<(f64, f64)>,
}

/// Decoder of Prometheus text.
pub(crate) struct Prometheus {
    types: HashMap<String, Type>,
    memo: Memo<Known>,
    pending: Option<Pending>,
}

/// Why a line is refused.
struct Bad(Reason, String);

fn malformed(why: impl Into<String>) -> Bad {
    Bad(Reason::Malformed, why.into())
}

impl Prometheus {
    pub(crate) fn new() -> Self {
        Self { types: HashMap::new(), memo: Memo::new(), pending: None }
    }

    /// Whether a line could be of this format: for telling formats apart.
    pub(crate) fn could_be(line: &str) -> bool {
        let is_meta = ["# HELP ", "# TYPE ", "# UNIT ", "# EOF"].iter().any(|start| line.starts_with(start));
        is_meta || split_series(line).is_some_and(|(_, rest)| value_and_time(rest).is_ok())
    }

    fn meta(&mut self, line: &str) {
        let mut words = line.trim_start_matches('#').split_ascii_whitespace();
        let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let name = name.trim_matches('"').to_owned();
        let kind = match kind {
            "counter" => Some(Type::Counter),
            "histogram" => Some(Type::Histogram),
            "summary" => Some(Type::Summary),
            "gauge" | "gaugehistogram" | "stateset" | "info" => Some(Type::Gauge),
            _ => None,
        };
        let old = match kind {
            Some(kind) if self.types.len() < MAX_TYPES || self.types.contains_key(&name) => {
                self.types.insert(name, kind)
            }
            _ => self.types.remove(&name),
        };
        // Every scrape repeats the types. What was remembered of series holds unless one changes, or
        // comes after samples of its metric.
        if old != kind {
            self.memo.clear();
        }
    }

    fn sample(&mut self, line: &str, out: &mut Sink<'_>) -> Result<bool, Bad> {
        let (ix, rest) = self.series(line)?;
        self.memo.visit(ix);
        let (value, at) = value_and_time(rest)?;
        let role = self.memo.get(ix).role;
        if let Role::Bucket(le) = role {
            return self.bucket(ix, at, (le, value), out);
        }
        self.abandon(out);
        match role {
            Role::Scalar(kind) if value.is_finite() => {
                out.record.push_point(&self.memo.get(ix).key, at, Timestamp::MIN, kind, value);
            }
            Role::Scalar(_) => out.record.refuse(Reason::NonFinite),
            Role::Bucket(_) | Role::Redundant => return Ok(!out.record.refused.is_empty()),
        }
        Ok(true)
    }

    /// The series at the start of a line, and what follows it.
    fn series<'a>(&mut self, line: &'a str) -> Result<(u32, &'a str), Bad> {
        if let Some(ix) = self.memo.guess() {
            let after = line.strip_prefix(self.memo.text(ix)).unwrap_or_default();
            // `name {..}` is the same as `name{..}`, so a name alone is not yet a series.
            if after.starts_with(' ') && !after.trim_start().starts_with('{') {
                return Ok((ix, after));
            }
        }
        let (text, rest) =
            series_text(line).ok_or_else(|| malformed("no sample: `name{labels} value timestamp`"))?;
        if let Some(ix) = self.memo.find(text.as_bytes()) {
            return Ok((ix, rest));
        }
        let known = self.known(text)?;
        let key_len = known.key.len();
        Ok((self.memo.insert(text.as_bytes(), known, key_len), rest))
    }

    fn known(&self, text: &str) -> Result<Known, Bad> {
        let (series, _) =
            split_series(text).ok_or_else(|| malformed("no sample: `name{labels} value timestamp`"))?;
        let Series { name, mut labels } = series;
        let (role, name) =
            self.role(&name, &labels).ok_or_else(|| malformed("a bucket's `le` must be a number"))?;
        if matches!(role, Role::Bucket(_)) {
            labels.retain(|(key, _)| key != "le");
        }
        let mut pairs: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (&**k, &**v)).collect();
        let mut key = Vec::new();
        key::encode(name, &mut pairs, &mut key).map_err(|why| Bad(Reason::LabelLimit, why))?;
        Ok(Known { key, role })
    }

    /// What a sample is, and the name of its series; `None` for a bucket without a bound.
    fn role<'n>(&self, name: &'n str, labels: &[(String, String)]) -> Option<(Role, &'n str)> {
        let typed =
            |suffix: &str| name.strip_suffix(suffix).and_then(|base| Some((base, *self.types.get(base)?)));
        if let Some((base, Type::Histogram)) = typed("_bucket") {
            let le = &labels.iter().find(|(key, _)| key == "le")?.1;
            return Some((Role::Bucket(number(le).filter(|le| !le.is_nan())?), base));
        }
        let role = match (
            self.types.get(name),
            typed("_total"),
            typed("_sum").or(typed("_count")),
            typed("_created"),
        ) {
            (Some(Type::Counter), ..) | (_, Some((_, Type::Counter)), ..) => Role::Scalar(Kind::Cumulative),
            (_, _, Some((_, Type::Histogram)), _) | (.., Some(_)) => Role::Redundant,
            (_, _, Some((_, Type::Summary)), _) => Role::Scalar(Kind::Cumulative),
            (None, ..) if name.ends_with("_total") => Role::Scalar(Kind::Cumulative),
            _ => Role::Scalar(Kind::Gauge),
        };
        Some((role, name))
    }

    /// Takes a bucket; the `+Inf` one completes its histogram.
    fn bucket(
        &mut self,
        ix: u32,
        at: Timestamp,
        bucket: (f64, f64),
        out: &mut Sink<'_>,
    ) -> Result<bool, Bad> {
        let key = &self.memo.get(ix).key;
        if self
            .pending
            .as_ref()
            .is_some_and(|p| p.key != *key || p.at != at || p.buckets.len() >= MAX_BUCKETS)
        {
            self.abandon(out);
        }
        let key = &self.memo.get(ix).key;
        let pending =
            self.pending.get_or_insert_with(|| Pending { key: key.clone(), at, buckets: Vec::new() });
        pending.buckets.push(bucket);
        if bucket.0 != f64::INFINITY {
            return Ok(!out.record.refused.is_empty());
        }
        let histogram = assemble(&pending.buckets);
        if let Some(histogram) = histogram {
            let kind = Kind::CumulativeHistogram;
            out.record.push_histogram(key, at, Timestamp::MIN, kind, histogram);
            self.pending = None;
            return Ok(true);
        }
        self.pending = None;
        Err(Bad(Reason::BadHistogram, "bucket bounds must ascend and their counts must not fall".to_owned()))
    }

    /// Gives up on buckets that no `+Inf` followed.
    fn abandon(&mut self, out: &mut Sink<'_>) {
        if self.pending.take().is_some() {
            out.refuse(Reason::BadHistogram, "the histogram before this line has no `+Inf` bucket");
        }
    }
}

/// Running totals to counts of each bucket.
fn assemble(buckets: &[(f64, f64)]) -> Option<Histogram> {
    let mut histogram = Histogram::default();
    let mut before = 0;
    for (le, total) in buckets {
        // Larger counts are no longer whole numbers in the format's floats.
        let whole = (0.0..=9_007_199_254_740_992.0).contains(total) && total.fract() == 0.0;
        let total = if whole { *total as u64 } else { return None };
        histogram.counts.push(total.checked_sub(before)?);
        before = total;
        if *le != f64::INFINITY {
            histogram.bounds.push(*le);
        }
    }
    histogram.is_valid().then_some(histogram)
}

fn number(text: &str) -> Option<f64> {
    // What `parse` takes beyond Go's grammar (`infinity`) does no harm; what Go takes beyond it
    // (hexadecimal floats, `1_000`) no exporter writes.
    text.parse().ok()
}

/// Value and time of a sample; an exemplar after them is left alone.
fn value_and_time(rest: &str) -> Result<(f64, Timestamp), Bad> {
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().and_then(number).ok_or_else(|| malformed("the value is no number"))?;
    let time = words.next().filter(|word| *word != "#");
    let time = time.ok_or_else(|| malformed("no timestamp: a capture's samples need one each"))?;
    let at = timestamp(time).ok_or_else(|| malformed("the timestamp is no number"))?;
    match words.next() {
        None | Some("#") => Ok((value, at)),
        Some(_) => Err(malformed("something follows the timestamp")),
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    // Milliseconds in Prometheus text; OpenMetrics has seconds, often with a fraction.
    epoch(text.as_bytes())
}

impl Decoder for Prometheus {
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        let text = std::str::from_utf8(line).map_err(|e| malformed(format!("not UTF-8: {e}")));
        let outcome = text.map(str::trim).and_then(|line| {
            if line.starts_with('#') {
                self.meta(line);
                return Ok(false);
            }
            self.sample(line, out)
        });
        let made = outcome.unwrap_or_else(|Bad(reason, why)| {
            out.refuse(reason, why);
            true
        });
        made.then_some(0)
    }

    fn pass(&mut self, line: &[u8]) {
        if let Ok(text) = std::str::from_utf8(line)
            && text.trim_start().starts_with('#')
        {
            self.meta(text.trim());
        }
    }
}

#[cfg(test)]
mod tests;
