//! Logs as events, and how many spans a request of traces holds.
//!
//! Logs are read into the form that the JSON decoder has them in: there are few of them beside points, and
//! each becomes an event of its own whatever way it came.

use std::borrow::Cow;

use relight_core::Timestamp;
use relight_core::record::Record;

use super::reader::Reader;
use super::schema::{LOG_RECORD, RESOURCE, SCOPE, SPAN, Schema};
use super::{WireError, attributes};
use crate::key::{Level, Shared};
use crate::ndjson::Text;
use crate::otlp::budget::Budget;
use crate::otlp::event;
use crate::otlp::model::LogRecord;
use crate::otlp::severity::Number;
use crate::otlp::value::{AnyValue, Nanos, Unsigned};

/// Reads an `ExportLogsServiceRequest` into `out`. After an error the record is empty.
pub fn decode_logs(
    body: &[u8],
    offset: u64,
    received: Option<Timestamp>,
    out: &mut Record,
) -> Result<(), WireError> {
    out.clear(offset, received);
    let mut budget = Budget::FULL;
    let read = each(Reader::new(body), &LOG_RECORD, &mut |log, shared| {
        budget.log()?;
        match event(&log_record(log)?, shared, &mut budget) {
            Ok(event) => out.events.push(event),
            Err((reason, _)) => out.refuse(reason),
        }
        Ok(())
    });
    if read.is_err() {
        out.clear(offset, received);
    }
    read
}

/// How many spans an `ExportTraceServiceRequest` holds. Nothing else is asked of traces.
pub fn count_spans(body: &[u8]) -> Result<u64, WireError> {
    let mut spans = 0;
    each(Reader::new(body), &SPAN, &mut |_, _| {
        spans += 1;
        Ok(())
    })?;
    Ok(spans)
}

type Take<'t, 'a> = &'t mut dyn FnMut(Reader<'a>, &Shared<'_>) -> Result<(), WireError>;

/// Calls `take` with every log record or span, checked, and what its resource and scope say.
fn each<'a>(mut request: Reader<'a>, schema: &Schema, take: Take<'_, 'a>) -> Result<(), WireError> {
    while let Some((field, wire)) = request.key()? {
        if field != 1 {
            request.skip(field, wire)?;
            continue;
        }
        let mut group = request.message(wire)?;
        let resource = origin(group, &RESOURCE, 1)?;
        while let Some((field, wire)) = group.key()? {
            match field {
                2 => of_scope(group.message(wire)?, schema, &resource, take)?,
                _ => group.skip(field, wire)?,
            }
        }
    }
    Ok(())
}

fn of_scope<'a>(
    mut scope: Reader<'a>,
    schema: &Schema,
    resource: &Level<'a>,
    take: Take<'_, 'a>,
) -> Result<(), WireError> {
    let own = origin(scope, &SCOPE, 3)?;
    let shared = Shared::new(resource, &own);
    while let Some((field, wire)) = scope.key()? {
        if field == 2 {
            let entry = scope.message(wire)?;
            entry.check(schema)?;
            take(entry, &shared)?;
        } else {
            scope.skip(field, wire)?;
        }
    }
    Ok(())
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
            2 => message.message(wire).map(drop)?,
            3 => message.text(wire).map(drop)?,
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
