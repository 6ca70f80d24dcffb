//! relight's own capture format: one JSON object a line.
//!
//! | line | keys |
//! |---|---|
//! | point | `t`, `metric`, `labels`, `value`; optional `kind` (`gauge`, `cumulative`, `delta`), `start` |
//! | histogram | `t`, `metric`, `labels`, `kind` (`histogram` counts up from `start`, `delta_histogram` since the point before), `bounds`, `counts` (one more than bounds; not running totals) |
//! | event | `t`, `event`, `labels`, `body` |
//! | advance | `advance: {to}`: the partition is idle, its watermark moves to `to` |
//! | outcome | `t`, `outcome: {action, ok, detail}`: how an action of the live run ended |
//! | command | `t`, `command: {verb, target}`: what a human asked for |
//!
//! Each may also have `received` and `partition`; `labels`, `body` and `detail` may be left out.
//! Times are RFC 3339 or whole seconds, milliseconds, microseconds or nanoseconds since the epoch, told
//! apart by their size (below 1e11, 1e14, 1e17, and above). A value is a number, or a string such as
//! `"NaN"` that JSON has no number for. An unknown key makes a line bad: a misspelt `kind` must not
//! turn a counter into a gauge.

mod form;
mod labels;
pub(crate) mod write;

use std::borrow::Cow;

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::{ControlRecord, Event, Histogram, Kind, Reason};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::form::{Filled, Form, Hole};
use self::labels::Pairs;
pub(crate) use self::labels::Text;
use crate::key;
use crate::memo::Memo;
use crate::scan::{json_number, json_time};
use crate::source::{Decoder, Sink};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    t: Option<&'a RawValue>,
    #[serde(borrow)]
    metric: Option<&'a RawValue>,
    #[serde(borrow)]
    labels: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    received: Option<&'a RawValue>,
    #[serde(borrow)]
    partition: Option<Text<'a>>,
    bounds: Option<Vec<f64>>,
    counts: Option<Vec<u64>>,
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    body: Option<Text<'a>>,
    #[serde(borrow)]
    advance: Option<Advance<'a>>,
    #[serde(borrow)]
    outcome: Option<Outcome<'a>>,
    #[serde(borrow)]
    command: Option<Command<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance<'a> {
    #[serde(borrow)]
    to: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome<'a> {
    #[serde(borrow)]
    action: Text<'a>,
    ok: bool,
    #[serde(borrow, default)]
    detail: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command<'a> {
    #[serde(borrow)]
    verb: Text<'a>,
    #[serde(borrow)]
    target: Text<'a>,
}

/// Why a line is refused.
struct Bad(Reason, Cow<'static, str>);

fn malformed(why: impl Into<Cow<'static, str>>) -> Bad {
    Bad(Reason::Malformed, why.into())
}

/// A series as this capture writes it: its canonical key, and the form of its lines.
struct Known {
    key: Vec<u8>,
    form: Option<Form>,
}

/// Decoder of relight's own format.
pub(crate) struct Ndjson {
    memo: Memo<Known>,
    raw: Vec<u8>,
    key: Vec<u8>,
}

impl Ndjson {
    pub(crate) fn new() -> Self {
        Self { memo: Memo::new(), raw: Vec::new(), key: Vec::new() }
    }

    /// The whole line from the form of the series that is expected now: two numbers are read, the rest
    /// is compared. It took a line of six labels from 0.6 us to 0.1 us.
    fn expected(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        let ix = self.memo.guess()?;
        let known = self.memo.get(ix);
        let form = known.form.as_ref()?;
        let Filled { t, received, value } = form.fill(line)?;
        out.record.received = received;
        if value.is_finite() {
            out.record.push_point(&known.key, t, form.start, form.kind, value);
        } else {
            out.record.refuse(Reason::NonFinite);
        }
        let partition = form.partition;
        self.memo.visit(ix);
        Some(partition)
    }

    fn any(&mut self, line: &[u8], out: &mut Sink<'_>) -> Result<u32, Bad> {
        let text = std::str::from_utf8(line).map_err(|e| malformed(format!("not UTF-8: {e}")))?;
        // serde would take a list for an object, by position.
        if !text.trim_start().starts_with('{') {
            return Err(malformed("not a JSON object"));
        }
        let object: Object<'_> = serde_json::from_str(text).map_err(|e| malformed(json_error(&e)))?;
        let partition = match &object.partition {
            None => 0,
            // The sink has told why, and counted it.
            Some(Text(name)) => match out.partition(name) {
                Some(ix) => ix,
                None => return Ok(0),
            },
        };
        out.record.received = object.received.map(time).transpose()?;
        match &object {
            Object { metric: Some(_), event: None, advance: None, outcome: None, command: None, .. } => {
                self.point(line, &object, partition, out)?;
            }
            Object { metric: None, event: Some(_), advance: None, outcome: None, command: None, .. } => {
                out.record.events.push(event(&object)?);
            }
            _ => out.record.controls.push(control(&object)?),
        }
        Ok(partition)
    }

    fn point(&mut self, line: &[u8], object: &Object<'_>, part: u32, out: &mut Sink<'_>) -> Result<(), Bad> {
        let at = required_time(object)?;
        if object.kind.as_ref().is_some_and(|kind| kind.0 == "end") {
            let ix = self.series(object)?;
            self.memo.visit(ix);
            let key = out.record.push_key(&self.memo.get(ix).key);
            out.record.push_end(key, Aliases::NONE, at);
            return Ok(());
        }
        let kind = kind_of(object.kind.as_ref())?;
        let start = object.start.map(time).transpose()?.unwrap_or(Timestamp::MIN);
        let ix = self.series(object)?;
        self.memo.visit(ix);
        if kind.is_histogram() {
            let (Some(bounds), Some(counts)) = (&object.bounds, &object.counts) else {
                return Err(malformed("a histogram needs `bounds` and `counts`"));
            };
            let histogram = Histogram { bounds: bounds.clone(), counts: counts.clone() };
            if !histogram.is_valid() {
                let why = "histogram bounds must ascend, with one more count than bounds";
                return Err(Bad(Reason::BadHistogram, why.into()));
            }
            out.record.push_histogram(&self.memo.get(ix).key, at, start, kind, histogram);
            return Ok(());
        }
        if object.bounds.is_some() || object.counts.is_some() {
            return Err(malformed("`bounds` and `counts` need `kind` \"histogram\" or \"delta_histogram\""));
        }
        let raw = object.value.ok_or_else(|| malformed("a point needs a `value`"))?;
        let value = number(raw)?;
        if value.is_finite() {
            out.record.push_point(&self.memo.get(ix).key, at, start, kind, value);
        } else {
            out.record.refuse(Reason::NonFinite);
        }
        self.learn_form(ix, line, object, (start, kind, part));
        Ok(())
    }

    /// The series of a point, from the memo or worked out and put there.
    fn series(&mut self, object: &Object<'_>) -> Result<u32, Bad> {
        let metric = object.metric.map_or("", RawValue::get);
        let labels = object.labels.map_or("{}", RawValue::get);
        self.raw.clear();
        self.raw.extend_from_slice(metric.as_bytes());
        self.raw.extend_from_slice(labels.as_bytes());
        if let Some(ix) = self.memo.find(&self.raw) {
            return Ok(ix);
        }
        let Text(name) = serde_json::from_str(metric).map_err(|_| malformed("`metric` must be a string"))?;
        if name.is_empty() {
            return Err(malformed("`metric` must not be empty"));
        }
        let pairs = pairs(labels)?;
        key::encode(&name, &mut pairs.as_strs(), &mut self.key)
            .map_err(|why| Bad(Reason::LabelLimit, why.into()))?;
        let known = Known { key: self.key.clone(), form: None };
        Ok(self.memo.insert(&self.raw, known, self.key.len()))
    }

    fn learn_form(&mut self, ix: u32, line: &[u8], object: &Object<'_>, fixed: (Timestamp, Kind, u32)) {
        let holes = [(Hole::T, object.t), (Hole::Received, object.received), (Hole::Value, object.value)];
        let form = Form::learn(line, holes, fixed);
        let (old, new) = (form_bytes(self.memo.get(ix).form.as_ref()), form_bytes(form.as_ref()));
        if self.memo.grow(old, new) {
            self.memo.get_mut(ix).form = form;
        }
    }
}

fn form_bytes(form: Option<&Form>) -> usize {
    form.map_or(0, Form::bytes)
}

impl Decoder for Ndjson {
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        if let Some(partition) = self.expected(line, out) {
            return Some(partition);
        }
        Some(self.any(line, out).unwrap_or_else(|Bad(reason, why)| {
            out.refuse(reason, why);
            0
        }))
    }

    fn has_outcomes(&self) -> bool {
        true
    }

    fn partition_of(&self, line: &[u8]) -> Option<String> {
        // Nearly no capture names partitions: a search costs a tenth of a parse.
        let text = std::str::from_utf8(line).ok().filter(|text| text.contains("\"partition\""))?;
        let object: Object<'_> = serde_json::from_str(text).ok()?;
        object.partition.map(|name| name.0.into_owned())
    }
}

/// serde_json ends its messages with a line and column of its own; the line is always 1.
fn json_error(error: &serde_json::Error) -> String {
    error.to_string().replace("at line 1 column", "at column")
}

fn kind_of(kind: Option<&Text<'_>>) -> Result<Kind, Bad> {
    match kind.map_or("gauge", |text| &*text.0) {
        "gauge" => Ok(Kind::Gauge),
        "cumulative" => Ok(Kind::Cumulative),
        "delta" => Ok(Kind::Delta),
        "histogram" => Ok(Kind::CumulativeHistogram),
        "delta_histogram" => Ok(Kind::DeltaHistogram),
        _ => Err(malformed("`kind` must be gauge, cumulative, delta, histogram or delta_histogram")),
    }
}

fn time(raw: &RawValue) -> Result<Timestamp, Bad> {
    let text = raw.get();
    if let Some((at, [])) = json_time(text.as_bytes()) {
        return Ok(at);
    }
    // Escapes in a time are odd, but they are JSON.
    let unescaped = serde_json::from_str::<Text<'_>>(text).ok();
    unescaped.and_then(|text| text.0.parse().ok()).ok_or_else(|| {
        malformed("a time must be RFC 3339 or a whole number of seconds, ms, us or ns since the epoch")
    })
}

fn required_time(object: &Object<'_>) -> Result<Timestamp, Bad> {
    time(object.t.ok_or_else(|| malformed("there is no `t`"))?)
}

fn number(raw: &RawValue) -> Result<f64, Bad> {
    if let Some((value, [])) = json_number(raw.get().as_bytes()) {
        return Ok(value);
    }
    match serde_json::from_str::<Text<'_>>(raw.get()).as_ref().map(|text| &*text.0) {
        Ok("NaN" | "nan" | "Infinity" | "+Inf" | "Inf" | "-Infinity" | "-Inf") => Ok(f64::NAN),
        _ => Err(malformed("`value` must be a number")),
    }
}

fn pairs(labels: &str) -> Result<Pairs<'_>, Bad> {
    serde_json::from_str(labels)
        .map_err(|_| malformed("`labels` must be an object of strings, numbers and booleans"))
}

fn event(object: &Object<'_>) -> Result<Event, Bad> {
    let text = |text: &Option<Text<'_>>| text.as_ref().map_or_else(String::new, |t| t.0.to_string());
    let pairs = pairs(object.labels.map_or("{}", RawValue::get))?;
    let labels = key::labels(&mut pairs.as_strs()).map_err(|why| Bad(Reason::LabelLimit, why.into()))?;
    let kind = text(&object.event);
    if kind.is_empty() {
        return Err(malformed("`event` must say what happened"));
    }
    Ok(Event { at: required_time(object)?, kind, labels, body: text(&object.body) })
}

fn control(object: &Object<'_>) -> Result<ControlRecord, Bad> {
    match object {
        Object {
            metric: None, event: None, advance: Some(advance), outcome: None, command: None, ..
        } => Ok(ControlRecord::Advance { to: time(advance.to)? }),
        Object {
            metric: None, event: None, advance: None, outcome: Some(outcome), command: None, ..
        } => Ok(ControlRecord::Outcome {
            at: required_time(object)?,
            action: outcome.action.0.to_string(),
            ok: outcome.ok,
            detail: outcome.detail.0.to_string(),
        }),
        Object {
            metric: None, event: None, advance: None, outcome: None, command: Some(command), ..
        } => Ok(ControlRecord::Command {
            at: required_time(object)?,
            verb: command.verb.0.to_string(),
            target: command.target.0.to_string(),
        }),
        _ => Err(malformed("a line needs one of `metric`, `event`, `advance`, `outcome` and `command`")),
    }
}

#[cfg(test)]
mod tests;
