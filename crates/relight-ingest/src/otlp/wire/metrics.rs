//! From a request down to the points of each metric.
//!
//! Fields may come in any order and a message in several parts, so each level is gone over twice: first
//! for what holds for all of it (resource, scope, name, temporality), then for what it contains. The first
//! time costs a key and a length for each entry, and checks what the second does not read.
//!
//! A message that cannot be read is refused alone ([`Walk::contain`]): its length is known, so its neighbours can be.

use relight_core::record::{Kind, Reason, Record};
use relight_core::refusal::Origin;

use super::memo::{Hash, Memo};
use super::names::Names;
use super::points::{Number, Points};
use super::reader::Reader;
use super::schema::{RESOURCE, SCOPE, Schema};
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
    /// Why the first message that cannot be read cannot.
    pub(super) unread: Option<WireError>,
}

/// A metric's points, whose messages may come in parts.
type Parts<'a> = (Reader<'a>, Vec<Reader<'a>>);

impl<'d, 'a> Walk<'d, 'a> {
    pub(super) fn new(decoder: &'d mut OtlpMetrics, record: &'d mut Record) -> Self {
        Self {
            decoder,
            record,
            budget: Budget::full(),
            names: Names::default(),
            pending: Vec::new(),
            unread: None,
        }
    }

    /// Takes what can be read. A request of which that is nothing is an error.
    pub(super) fn request(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        match self.resources(&mut message) {
            Err(error @ WireError::Malformed { what, .. }) => {
                let why = format!("malformed protobuf: {what}; the rest of the request cannot be read");
                self.record.refuse_named(Reason::Malformed, Origin::default(), &why, 1);
                self.unread.get_or_insert(error);
            }
            read => read?,
        }
        match self.unread {
            Some(error) if is_unread(self.record) => Err(error),
            _ => Ok(()),
        }
    }

    fn resources(&mut self, message: &mut Reader<'a>) -> Result<(), WireError> {
        while let Some((field, wire)) = message.key()? {
            if field != 1 {
                message.skip(field, wire)?;
                continue;
            }
            let whole = message.message(wire)?;
            let read = self.resource_metrics(whole);
            self.contain(read, (whole, Level::Resource))?;
        }
        Ok(())
    }

    fn resource_metrics(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        let with = (&self.decoder.memo, &mut self.budget);
        let hash = origin(message, &RESOURCE, with, self.names.resource())?;
        while let Some((field, wire)) = message.key()? {
            if field != 2 {
                message.skip(field, wire)?;
                continue;
            }
            let whole = message.message(wire)?;
            let read = self.scope_metrics(whole, hash);
            self.contain(read, (whole, Level::Scope))?;
        }
        Ok(())
    }

    fn scope_metrics(&mut self, mut message: Reader<'a>, resource: Hash) -> Result<(), WireError> {
        let with = (&self.decoder.memo, &mut self.budget);
        let scope = origin(message, &SCOPE, with, self.names.scope())?;
        let hash = self.decoder.memo.join(resource, scope);
        while let Some((field, wire)) = message.key()? {
            if field != 2 {
                message.skip(field, wire)?;
                continue;
            }
            let whole = message.message(wire)?;
            let read = self.metric(whole, hash);
            self.contain(read, (whole, Level::Metric))?;
        }
        Ok(())
    }

    fn metric(&mut self, mut message: Reader<'a>, scope: Hash) -> Result<(), WireError> {
        let mut name = "";
        let mut data: Option<(u32, Parts<'a>)> = None;
        while let Some((field, wire)) = message.key()? {
            match field {
                1 => name = message.text(wire)?,
                5 | 7 | 9 | 10 | 11 => {
                    let part = message.message(wire)?;
                    match &mut data {
                        Some((before, (_, more))) if *before == field => {
                            self.budget.part()?;
                            more.push(part);
                        }
                        // A kind of data that another one follows does not count.
                        _ => data = Some((field, (part, Vec::new()))),
                    }
                }
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

    /// Refuses a message alone that cannot be read, with all points in it. Errors that concern the request go on.
    #[inline]
    fn contain(
        &mut self,
        read: Result<(), WireError>,
        message: (Reader<'a>, Level),
    ) -> Result<(), WireError> {
        match read {
            Ok(()) => Ok(()),
            Err(error) => self.refuse_message(error, message),
        }
    }

    #[cold]
    fn refuse_message(
        &mut self,
        error: WireError,
        (message, level): (Reader<'a>, Level),
    ) -> Result<(), WireError> {
        let WireError::Malformed { what, .. } = error else { return Err(error) };
        self.unread.get_or_insert(error);
        self.budget.points(1)?;
        let (metric, level_name) = match level {
            Level::Metric => (name_of(message), "metric"),
            Level::Scope => ("", "scope"),
            _ => ("", "resource"),
        };
        let service = if level == Level::Resource { "" } else { self.names.service() };
        let why = format!("malformed {level_name}: {what}");
        let points = points_in(message, level).max(1);
        self.record.refuse_named(Reason::Malformed, Origin { metric, service }, &why, points);
        Ok(())
    }

    /// Refuses points of a metric, by name.
    #[cold]
    pub(super) fn refuse_points(&mut self, reason: Reason, metric: &str, why: &str) {
        let service = self.names.service();
        self.record.refuse_named(reason, Origin { metric, service }, why, 1);
    }
}

/// Whether nothing came of a request but what is malformed.
pub(crate) fn is_unread(record: &Record) -> bool {
    let is_empty = record.points.is_empty() && record.events.is_empty();
    is_empty && record.refused.iter().all(|(reason, _)| *reason == Reason::Malformed)
}

/// What kind of message a reader is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Resource,
    Scope,
    Metric,
    Data,
}

/// How many points lie in a message, as far as it can be walked.
fn points_in(mut message: Reader<'_>, level: Level) -> u32 {
    let mut points = 0_u32;
    while let Ok(Some((field, wire))) = message.key() {
        let below = match (level, field) {
            (Level::Resource, 2) => Some(Level::Scope),
            (Level::Scope, 2) => Some(Level::Metric),
            (Level::Metric, 5 | 7 | 9 | 10 | 11) => Some(Level::Data),
            _ => None,
        };
        let begin = message;
        if message.skip(field, wire).is_err() {
            break;
        }
        points = match below {
            Some(below) => match { begin }.message(wire) {
                Ok(inner) => points.saturating_add(points_in(inner, below)),
                Err(_) => points,
            },
            None => points.saturating_add(u32::from(level == Level::Data && field == 1)),
        };
    }
    points
}

/// The name of a metric that cannot be read, if that can.
fn name_of(mut message: Reader<'_>) -> &str {
    let mut name = "";
    while let Ok(Some((field, wire))) = message.key() {
        let begin = message;
        if message.skip(field, wire).is_err() {
            break;
        }
        if field == 1 {
            name = { begin }.text(wire).unwrap_or(name);
        }
    }
    name
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
            _ => message.skip(field, wire)?,
        }
    }
    Ok(hash)
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
