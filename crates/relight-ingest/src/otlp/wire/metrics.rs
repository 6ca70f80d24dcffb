//! From a request down to the points of each metric.
//!
//! Fields may come in any order and a message in several parts, so each level is gone over twice: first
//! for what holds for all of it (resource, scope, name, temporality), then for what it contains. The first
//! time costs a key and a length for each entry, and checks what the second does not read.

use relight_core::record::{Kind, Record};

use super::memo::{Hash, Memo};
use super::names::Names;
use super::points::{Number, Points};
use super::reader::Reader;
use super::schema::{EXPONENTIAL, GAUGE, HISTOGRAM, KEY_VALUE, RESOURCE, SCOPE, SUM, SUMMARY, Schema};
use super::{OtlpMetrics, WireError};
use crate::otlp::budget::Budget;
use crate::otlp::{Refusal, histogram_kind, sum_kind};

/// One request on its way into a record.
pub(super) struct Walk<'d, 'a> {
    pub(super) decoder: &'d mut OtlpMetrics,
    pub(super) record: &'d mut Record,
    pub(super) budget: Budget,
    pub(super) names: Names<'a>,
    /// Points whose series are looked up together.
    pub(super) pending: Vec<Number<'a>>,
}

/// A metric's points, whose messages may come in parts.
type Parts<'a> = (Reader<'a>, Vec<Reader<'a>>);

impl<'d, 'a> Walk<'d, 'a> {
    pub(super) fn new(decoder: &'d mut OtlpMetrics, record: &'d mut Record) -> Self {
        Self { decoder, record, budget: Budget::FULL, names: Names::default(), pending: Vec::new() }
    }

    pub(super) fn request(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        while let Some((field, wire)) = message.key()? {
            match field {
                1 => self.resource_metrics(message.message(wire)?)?,
                _ => message.skip(field, wire)?,
            }
        }
        Ok(())
    }

    fn resource_metrics(&mut self, message: Reader<'a>) -> Result<(), WireError> {
        let with = (&self.decoder.memo, &mut self.budget);
        let hash = origin(message, &RESOURCE, with, self.names.resource())?;
        let mut message = message;
        while let Some((field, wire)) = message.key()? {
            match field {
                2 => self.scope_metrics(message.message(wire)?, hash)?,
                _ => message.skip(field, wire)?,
            }
        }
        Ok(())
    }

    fn scope_metrics(&mut self, message: Reader<'a>, resource: Hash) -> Result<(), WireError> {
        let with = (&self.decoder.memo, &mut self.budget);
        let scope = origin(message, &SCOPE, with, self.names.scope())?;
        let hash = self.decoder.memo.join(resource, scope);
        let mut message = message;
        while let Some((field, wire)) = message.key()? {
            match field {
                2 => self.metric(message.message(wire)?, hash)?,
                _ => message.skip(field, wire)?,
            }
        }
        Ok(())
    }

    fn metric(&mut self, mut message: Reader<'a>, scope: Hash) -> Result<(), WireError> {
        let mut name = "";
        let mut data: Option<(u32, Parts<'a>)> = None;
        while let Some((field, wire)) = message.key()? {
            match field {
                1 => name = message.text(wire)?,
                2 | 3 => message.text(wire).map(drop)?,
                5 | 7 | 9 | 10 | 11 => {
                    let part = message.message(wire)?;
                    match &mut data {
                        Some((before, (_, more))) if *before == field => {
                            self.budget.part()?;
                            more.push(part);
                        }
                        _ => {
                            if let Some((before, parts)) = data.replace((field, (part, Vec::new()))) {
                                check_all(&parts, before)?;
                            }
                        }
                    }
                }
                12 => message.message(wire)?.check(&KEY_VALUE)?,
                _ => message.skip(field, wire)?,
            }
        }
        let Some((field, parts)) = data else { return Ok(()) };
        let memo = &self.decoder.memo;
        // The kind too: of one name a summary has other series than a gauge.
        let own = memo.hash(name.as_bytes());
        let hash = memo.join(scope, [own[0], own[1].wrapping_add(u64::from(field))]);
        let kind = kind_of(&parts, field)?;
        let mut points = Points { walk: self, name, hash, kind };
        for part in std::iter::once(parts.0).chain(parts.1) {
            points.each(part, field)?;
        }
        Ok(())
    }
}

/// The parts of a resource or a scope, in field 1 of what it belongs to, and their hash.
fn origin<'a>(
    mut message: Reader<'a>,
    schema: &Schema,
    (memo, budget): (&Memo, &mut Budget),
    parts: &mut Vec<Reader<'a>>,
) -> Result<Hash, WireError> {
    let mut hash = [0, 0];
    while let Some((field, wire)) = message.key()? {
        match field {
            1 => {
                let part = message.message(wire)?;
                part.check(schema)?;
                hash = memo.join(hash, memo.hash(part.rest()));
                if !parts.is_empty() {
                    budget.part()?;
                }
                parts.push(part);
            }
            2 => message.message(wire).map(drop)?,
            3 => message.text(wire).map(drop)?,
            _ => message.skip(field, wire)?,
        }
    }
    Ok(hash)
}

/// A kind of data that another one follows does not count, but must be well formed.
fn check_all((first, more): &Parts<'_>, field: u32) -> Result<(), WireError> {
    let schema = match field {
        5 => &GAUGE,
        7 => &SUM,
        9 => &HISTOGRAM,
        10 => &EXPONENTIAL,
        _ => &SUMMARY,
    };
    std::iter::once(first).chain(more).try_for_each(|part| part.check(schema))
}

/// How the values of a metric are meant. Writers put it behind the points.
fn kind_of((first, more): &Parts<'_>, field: u32) -> Result<Result<Kind, Refusal>, WireError> {
    let (mut temporality, mut is_monotonic) = (0, false);
    if matches!(field, 7 | 9 | 10) {
        for part in std::iter::once(first).chain(more) {
            let mut part = *part;
            while let Some((entry, wire)) = part.key()? {
                match entry {
                    2 => temporality = part.integer(wire)? as i32,
                    3 if field == 7 => is_monotonic = part.integer(wire)? != 0,
                    _ => part.skip(entry, wire)?,
                }
            }
        }
    }
    Ok(match field {
        5 | 11 => Ok(Kind::Gauge),
        7 => sum_kind(is_monotonic, temporality),
        _ => histogram_kind(temporality),
    })
}
