//! Prometheus text (and OpenMetrics) with timestamps: one sample a line.
//!
//! `# TYPE` decides what a sample is. Without it, or where it says `untyped` as all of `/federate` does, the name does, as by
//! remote write: `_total`, `_count`, `_sum` and `_bucket` count up, everything else is a gauge. A histogram's buckets become one
//! histogram point, made by its `+Inf` bucket, which the format requires; other families may lie between them. Its `_sum` and
//! `_count` are left out, since the point holds the count. A summary's quantiles are gauges, its `_sum` and `_count` counters.
//! Timestamps are milliseconds, or seconds if they are too small for that.
//!
//! Also what `promtool tsdb dump` writes, one series after the other with the name among the labels; see [`order`].

pub(crate) mod order;
mod sample;

use std::collections::{HashMap, VecDeque};

use relight_core::Timestamp;
use relight_core::record::{Histogram, Kind, Reason, Record};

pub(crate) use self::sample::Quotes;
use self::sample::{Series, series_text, split_series};
use crate::complaints::Complaints;
use crate::key;
use crate::memo::Memo;
use crate::scan::epoch;
use crate::source::{Decoder, Sink};

/// Metrics whose type is remembered; more are taken as untyped.
const MAX_TYPES: usize = 100_000;
/// Buckets of one histogram.
const MAX_BUCKETS: usize = 4_096;
/// Histograms whose buckets are being read.
const MAX_PENDING: usize = 1_024;
/// Suffixes of series that count up where nothing else says what they are.
const COUNTING: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

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

/// A histogram whose buckets are being read.
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
    /// In the order in which they began.
    pending: VecDeque<Pending>,
    quotes: Quotes,
    /// Told once: that lines are counted in the order of time; that names decide.
    is_sorted: bool,
    /// The first series that counts by a name that leaves room for doubt.
    by_name: Option<String>,
    said_by_name: bool,
}

/// Why a line is refused.
struct Bad(Reason, String);

fn malformed(why: impl Into<String>) -> Bad {
    Bad(Reason::Malformed, why.into())
}

impl Prometheus {
    pub(crate) fn new() -> Self {
        Self {
            types: HashMap::new(),
            memo: Memo::new(),
            pending: VecDeque::new(),
            quotes: Quotes::Text,
            is_sorted: false,
            by_name: None,
            said_by_name: false,
        }
    }

    /// For a file with one series after the other, whose lines come by time ([`order`]).
    pub(crate) fn of_series() -> Self {
        Self { quotes: Quotes::Go, is_sorted: true, ..Self::new() }
    }

    /// Whether a file holds one series after the other: two samples of one series stand one behind the other, or names
    /// stand among the labels.
    pub(crate) fn is_by_series(head: &str) -> bool {
        let mut before: Option<&str> = None;
        for line in head.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with("{__name__=") {
                return true;
            }
            let Some((series, _)) = series_text(line, Quotes::Go) else { continue };
            if before.replace(series.trim_end()) == Some(series.trim_end()) {
                return true;
            }
        }
        false
    }

    /// Whether a line could be of this format: for telling formats apart.
    pub(crate) fn could_be(line: &str) -> bool {
        let is_meta = ["# HELP ", "# TYPE ", "# UNIT ", "# EOF"].iter().any(|start| line.starts_with(start));
        let is_sample =
            |(_, rest): (Series, &str)| rest.trim_start().starts_with('{') || value_and_time(rest).is_ok();
        is_meta || split_series(line, Quotes::Text).is_some_and(is_sample)
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
        match self.memo.get(ix).role {
            Role::Bucket(le) => return self.bucket(ix, at, (le, value), out),
            Role::Scalar(kind) if value.is_finite() => {
                out.record.push_point(&self.memo.get(ix).key, at, Timestamp::MIN, kind, value);
            }
            Role::Scalar(_) => out.record.refuse(Reason::NonFinite),
            Role::Redundant => return Ok(!out.record.refused.is_empty()),
        }
        Ok(true)
    }

    /// The series at the start of a line, and what follows it.
    fn series<'a>(&mut self, line: &'a str) -> Result<(u32, &'a str), Bad> {
        if let Some(ix) = self.memo.guess() {
            let after = line.strip_prefix(self.memo.text(ix)).unwrap_or_default();
            // `name {..}` is the same as `name{..}`, so a name alone is not yet a series.
            let is_whole = self.memo.text(ix).ends_with('}') || !after.trim_start().starts_with('{');
            if after.starts_with(' ') && is_whole {
                return Ok((ix, after));
            }
        }
        let (text, rest) = series_text(line, self.quotes)
            .ok_or_else(|| malformed("no sample: `name{labels} value timestamp`"))?;
        if let Some(ix) = self.memo.find(text.as_bytes()) {
            return Ok((ix, rest));
        }
        let known = self.known(text)?;
        let key_len = known.key.len();
        Ok((self.memo.insert(text.as_bytes(), known, key_len), rest))
    }

    fn known(&mut self, text: &str) -> Result<Known, Bad> {
        let (series, _) = split_series(text, self.quotes)
            .ok_or_else(|| malformed("no sample: `name{labels} value timestamp`"))?;
        let Series { name, mut labels } = series;
        let (role, name) =
            self.role(&name, &labels).ok_or_else(|| malformed("a bucket's `le` must be a number"))?;
        if role == Role::Scalar(Kind::Cumulative)
            && self.by_name.is_none()
            && !name.ends_with("_total")
            && self.is_untyped(name)
        {
            self.by_name = Some(name.to_owned());
        }
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
            (None, None, None, None) if COUNTING.iter().any(|suffix| name.ends_with(suffix)) => {
                Role::Scalar(Kind::Cumulative)
            }
            _ => Role::Scalar(Kind::Gauge),
        };
        Some((role, name))
    }

    /// Whether no type says what a series is, neither its own nor its family's.
    fn is_untyped(&self, name: &str) -> bool {
        let family = COUNTING.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        !self.types.contains_key(name) && !self.types.contains_key(family)
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
        let found = self.pending.iter().position(|pending| pending.key == *key);
        // Buckets of one histogram have one time, whatever lies between them.
        let mut pending = match found.and_then(|found| self.pending.remove(found)) {
            Some(pending) if pending.at == at && pending.buckets.len() < MAX_BUCKETS => pending,
            old => {
                if old.is_some() {
                    abandoned(out);
                }
                Pending { key: key.clone(), at, buckets: Vec::new() }
            }
        };
        pending.buckets.push(bucket);
        if bucket.0 != f64::INFINITY {
            if self.pending.len() == MAX_PENDING {
                self.pending.pop_front();
                abandoned(out);
            }
            self.pending.push_back(pending);
            return Ok(!out.record.refused.is_empty());
        }
        let Some(histogram) = assemble(&pending.buckets) else {
            let why = "bucket bounds must ascend and their counts must not fall";
            return Err(Bad(Reason::BadHistogram, why.to_owned()));
        };
        let key = &self.memo.get(ix).key;
        out.record.push_histogram(key, at, Timestamp::MIN, Kind::CumulativeHistogram, histogram);
        Ok(true)
    }

    /// Takes a bucket from a line that is passed over: a later line may complete its histogram.
    fn pass_bucket(&mut self, line: &str) {
        let Ok((ix, rest)) = self.series(line) else { return };
        if let (Role::Bucket(le), Ok((value, at))) = (self.memo.get(ix).role, value_and_time(rest)) {
            let (mut record, mut names) = (Record::default(), vec![String::new()]);
            let mut unsaid = Complaints::default();
            // What is refused here was counted when the line was read.
            let _ = self.bucket(ix, at, (le, value), &mut Sink::new(&mut record, &mut names, &mut unsaid, 0));
        }
    }

    /// What is told once of a file: how its lines are counted, and that names decided what counts up.
    fn remarks(&mut self, out: &mut Sink<'_>) {
        if std::mem::take(&mut self.is_sorted) {
            out.remark(
                "one series after the other, as `promtool tsdb dump` writes them: read in the order of time, in which \
                 lines are counted",
            );
        }
        if let Some(name) = self.by_name.take().filter(|_| !self.said_by_name) {
            self.said_by_name = true;
            out.remark(format_args!(
                "no `# TYPE` says what `{}` is: by its name it is a counter, as all that ends in _total, _count, _sum or \
                 _bucket; other untyped series are gauges",
                name.escape_debug()
            ));
        }
    }
}

/// Refuses a histogram that no `+Inf` bucket completed.
fn abandoned(out: &mut Sink<'_>) {
    out.refuse(Reason::BadHistogram, "a histogram before this line has no `+Inf` bucket");
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
    if rest.trim_start().starts_with('{') {
        let why = "a native histogram, which is not read: only samples with a number are";
        return Err(Bad(Reason::BadHistogram, why.to_owned()));
    }
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
        self.remarks(out);
        made.then_some(0)
    }

    fn pass(&mut self, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line).map(str::trim) else { return };
        if text.starts_with('#') {
            self.meta(text);
        } else if !self.types.is_empty() && text.contains("_bucket") {
            self.pass_bucket(text);
        }
    }

    fn end(&mut self, out: &mut Sink<'_>) {
        for _ in std::mem::take(&mut self.pending) {
            abandoned(out);
        }
    }
}

#[cfg(test)]
mod tests;
