//! Logs as events, and how many spans a request of traces holds.
//!
//! Logs are read into the form that the JSON decoder has them in: there are few of them beside points, and
//! each becomes an event of its own whatever way it came. A log record, scope or resource that cannot be read is refused
//! alone.

use std::borrow::Cow;

use relight_core::Timestamp;
use relight_core::record::{Reason, Record};
use relight_core::refusal::Origin;

use super::metrics::is_unread;
use super::reader::Reader;
use super::schema::{LOG_RECORD, RESOURCE, SCOPE, SPAN, Schema};
use super::{WireError, attributes};
use crate::key::{Level, Shared};
use crate::ndjson::Text;
use crate::otlp::budget::Budget;
use crate::otlp::model::LogRecord;
use crate::otlp::severity::Number;
use crate::otlp::value::{AnyValue, Nanos, Unsigned};
use crate::otlp::{SERVICE, event};

/// Reads an `ExportLogsServiceRequest` into `out`. What cannot be read of it is refused in `out`. An error is a request of
/// which nothing can be read or that is over a limit; the record has nothing but [`Record::refusals`] then.
pub fn decode_logs(
    body: &[u8],
    offset: u64,
    received: Option<Timestamp>,
    out: &mut Record,
) -> Result<(), WireError> {
    out.clear(offset, received);
    let mut logs = Logs { out, budget: Budget::full(), unread: None };
    let read = each(Reader::new(body), &LOG_RECORD, &mut logs);
    let read = read.or_else(|error| logs.refuse(error, "", 1));
    let read = match logs.unread {
        Some(error) if is_unread(logs.out) => Err(error),
        _ => read,
    };
    if read.is_err() {
        super::empty(out);
    }
    read
}

/// How many spans an `ExportTraceServiceRequest` holds. Nothing else is asked of traces.
pub fn count_spans(body: &[u8]) -> Result<u64, WireError> {
    let mut spans = Spans(0);
    each(Reader::new(body), &SPAN, &mut spans)?;
    Ok(spans.0)
}

/// Where log records or spans go.
trait Entries<'a> {
    /// Takes one that is well formed.
    fn take(&mut self, entry: Reader<'a>, shared: &Shared<'_>, service: &str) -> Result<(), WireError>;
    /// Refuses what cannot be read: so many entries of a service.
    fn refuse(&mut self, error: WireError, service: &str, count: u32) -> Result<(), WireError>;
}

struct Logs<'o> {
    out: &'o mut Record,
    budget: Budget,
    /// Why the first message that cannot be read cannot.
    unread: Option<WireError>,
}

impl<'a> Entries<'a> for Logs<'_> {
    fn take(&mut self, entry: Reader<'a>, shared: &Shared<'_>, service: &str) -> Result<(), WireError> {
        self.budget.log()?;
        match event(&log_record(entry)?, shared, &mut self.budget) {
            Ok(event) => self.out.events.push(event),
            Err((reason, why)) => self.out.refuse_named(reason, Origin { metric: "", service }, &why, 1),
        }
        Ok(())
    }

    fn refuse(&mut self, error: WireError, service: &str, count: u32) -> Result<(), WireError> {
        let WireError::Malformed { what, .. } = error else { return Err(error) };
        self.unread.get_or_insert(error);
        self.budget.log()?;
        let why = format!("malformed log record: {what}");
        self.out.refuse_named(Reason::Malformed, Origin { metric: "", service }, &why, count);
        Ok(())
    }
}

struct Spans(u64);

impl<'a> Entries<'a> for Spans {
    fn take(&mut self, _: Reader<'a>, _: &Shared<'_>, _: &str) -> Result<(), WireError> {
        self.0 += 1;
        Ok(())
    }

    fn refuse(&mut self, error: WireError, _: &str, _: u32) -> Result<(), WireError> {
        Err(error)
    }
}

/// Hands on every log record or span with what its resource and scope say.
fn each<'a>(
    mut request: Reader<'a>,
    schema: &Schema,
    entries: &mut dyn Entries<'a>,
) -> Result<(), WireError> {
    while let Some((field, wire)) = request.key()? {
        if field != 1 {
            request.skip(field, wire)?;
            continue;
        }
        let group = request.message(wire)?;
        if let Err(error) = of_resource(group, schema, entries) {
            entries.refuse(error, "", entries_in(group, 2).max(1))?;
        }
    }
    Ok(())
}

fn of_resource<'a>(
    mut group: Reader<'a>,
    schema: &Schema,
    entries: &mut dyn Entries<'a>,
) -> Result<(), WireError> {
    let resource = origin(group, &RESOURCE, 1)?;
    let service = resource.get(SERVICE).unwrap_or_default().to_owned();
    while let Some((field, wire)) = group.key()? {
        if field != 2 {
            group.skip(field, wire)?;
            continue;
        }
        let scope = group.message(wire)?;
        if let Err(error) = of_scope(scope, schema, (&resource, &service), entries) {
            entries.refuse(error, &service, entries_in(scope, 1).max(1))?;
        }
    }
    Ok(())
}

fn of_scope<'a>(
    mut scope: Reader<'a>,
    schema: &Schema,
    (resource, service): (&Level<'a>, &str),
    entries: &mut dyn Entries<'a>,
) -> Result<(), WireError> {
    let own = origin(scope, &SCOPE, 3)?;
    let shared = Shared::new(resource, &own);
    while let Some((field, wire)) = scope.key()? {
        if field != 2 {
            scope.skip(field, wire)?;
            continue;
        }
        let entry = scope.message(wire)?;
        if let Err(error) = entry.check(schema).and_then(|()| entries.take(entry, &shared, service)) {
            entries.refuse(error, service, 1)?;
        }
    }
    Ok(())
}

/// How many messages lie so many levels deep in field 2 of a message, as far as it can be walked.
fn entries_in(mut message: Reader<'_>, levels: u8) -> u32 {
    let mut entries = 0_u32;
    while let Ok(Some((field, wire))) = message.key() {
        let begin = message;
        if message.skip(field, wire).is_err() {
            break;
        }
        if field == 2 {
            let below = match levels {
                0 | 1 => 1,
                _ => { begin }.message(wire).map_or(1, |inner| entries_in(inner, levels - 1)),
            };
            entries = entries.saturating_add(below);
        }
    }
    entries
}

/// Attributes of the resource or scope in field 1 of what it belongs to.
fn origin<'a>(mut message: Reader<'a>, schema: &Schema, number: u32) -> Result<Level<'a>, WireError> {
    let mut level = Level::default();
    while let Some((field, wire)) = message.key()? {
        match field {
            1 => {
                let part = message.message(wire)?;
                part.check(schema)?;
                attributes::put(part, number, &mut level)?;
            }
            _ => message.skip(field, wire)?,
        }
    }
    Ok(level)
}

fn log_record(whole: Reader<'_>) -> Result<LogRecord<'_>, WireError> {
    let mut log = LogRecord::default();
    let mut message = whole;
    while let Some((field, wire)) = message.key()? {
        match field {
            1 => log.time_unix_nano = Nanos(Unsigned(message.eight(wire)?)),
            2 => log.severity_number = Number(message.integer(wire)? as i32),
            3 => log.severity_text = Text(Cow::Borrowed(message.text(wire)?)),
            5 => attributes::merge(log.body.get_or_insert_with(AnyValue::default), message.message(wire)?)?,
            11 => log.observed_time_unix_nano = Nanos(Unsigned(message.eight(wire)?)),
            12 => log.event_name = Text(Cow::Borrowed(message.text(wire)?)),
            _ => message.skip(field, wire)?,
        }
    }
    attributes::of(whole, 6, &mut log.attributes)?;
    Ok(log)
}
