//! OTLP log records in protobuf, read into events: the same that the JSON of the same request gives.
//!
//! What no event has (trace ids, flags, schema URLs) is passed over unread.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relight_core::Timestamp;
use relight_core::record::{Event, Reason, Record};
use relight_core::refusal::Origin;
use serde_json::Value as Json;

use super::proto::{Fields, each};
use crate::key::{CUT, Level, Shared, cut};
use crate::otlp::budget::Budget;
use crate::otlp::wire::{WireError, is_unread};
use crate::otlp::{DROPPED, SERVICE, severity};

/// Nested lists and maps in one attribute.
const MAX_DEPTH: u32 = 64;
/// A list or a map that is longer is not told: as objects it would take sixteen times as much.
const MAX_NESTED_BYTES: usize = 1 << 20;

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("not an ExportLogsServiceRequest: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    TooMany(#[from] WireError),
}

impl From<&'static str> for Unread {
    fn from(why: &'static str) -> Self {
        Self::Malformed(why)
    }
}

/// Reads an `ExportLogsServiceRequest`. A log record, scope or resource that cannot be read is refused alone.
pub(super) fn decode(request: &[u8], record: &mut Record) -> Result<(), Unread> {
    let mut logs = Logs { record, budget: Budget::full(), unread: None };
    let read = each(request, 1, &mut |resource| match of_resource(resource, &mut logs) {
        Err(Unread::Malformed(why)) => logs.refuse("", "resource", why),
        read => read,
    });
    match read {
        Err(Unread::Malformed(why)) => logs.refuse("", "rest of the request", why)?,
        read => read?,
    }
    match logs.unread {
        Some(why) if is_unread(logs.record) => Err(Unread::Malformed(why)),
        _ => Ok(()),
    }
}

/// Log records on their way into a record.
struct Logs<'r> {
    record: &'r mut Record,
    budget: Budget,
    /// Why the first message that cannot be read cannot.
    unread: Option<&'static str>,
}

impl Logs<'_> {
    fn refuse(&mut self, service: &str, part: &str, why: &'static str) -> Result<(), Unread> {
        self.unread.get_or_insert(why);
        self.budget.log()?;
        let why = format!("malformed {part}: {why}");
        self.record.refuse_named(Reason::Malformed, Origin { metric: "", service }, &why, 1);
        Ok(())
    }

    fn take(&mut self, log: &[u8], shared: &Shared<'_>, service: &str) -> Result<(), Unread> {
        let log = match log_record(log) {
            Ok(log) => log,
            Err(why) => return self.refuse(service, "log record", why),
        };
        self.budget.log()?;
        match event(log, shared, &mut self.budget) {
            Ok(event) => self.record.events.push(event),
            Err((reason, why)) => self.record.refuse_named(reason, Origin { metric: "", service }, why, 1),
        }
        Ok(())
    }
}

fn of_resource(resource: &[u8], logs: &mut Logs<'_>) -> Result<(), Unread> {
    let mut of_resource = Level::default();
    // An attribute may lie behind what it is about.
    each(resource, 1, &mut |own| each(own, 1, &mut |pair| attribute(pair, &mut of_resource)))?;
    let service = of_resource.get(SERVICE).unwrap_or_default();
    each(resource, 2, &mut |scope| match of_scope(scope, (&of_resource, service), logs) {
        Err(Unread::Malformed(why)) => logs.refuse(service, "scope", why),
        read => read,
    })
}

fn of_scope(
    scope: &[u8],
    (resource, service): (&Level<'_>, &str),
    logs: &mut Logs<'_>,
) -> Result<(), Unread> {
    let mut of_scope = Level::default();
    each(scope, 1, &mut |own| each(own, 3, &mut |pair| attribute(pair, &mut of_scope)))?;
    let shared = Shared::new(resource, &of_scope);
    each(scope, 2, &mut |log| logs.take(log, &shared, service))
}

#[derive(Default)]
struct Log<'a> {
    time_ns: u64,
    observed_ns: u64,
    severity_number: i32,
    severity_text: &'a str,
    name: &'a str,
    body: Cow<'a, str>,
    attributes: Level<'a>,
}

fn log_record(bytes: &[u8]) -> Result<Log<'_>, &'static str> {
    let mut log = Log::default();
    for field in Fields::new(bytes) {
        let (number, value) = field?;
        match number {
            1 => log.time_ns = value.fixed64()?,
            2 => log.severity_number = value.varint()? as i32,
            3 => log.severity_text = value.text()?,
            5 => log.body = text(value.bytes()?)?,
            6 => attribute(value.bytes()?, &mut log.attributes)?,
            11 => log.observed_ns = value.fixed64()?,
            12 => log.name = value.text()?,
            _ => {}
        }
    }
    Ok(log)
}

fn event(log: Log<'_>, shared: &Shared<'_>, budget: &mut Budget) -> Result<Event, (Reason, &'static str)> {
    const TOO_MANY: (Reason, &str) = (Reason::LabelLimit, "too many bytes of events in one request");
    let ns = if log.time_ns == 0 { log.observed_ns } else { log.time_ns };
    if ns == 0 {
        return Err((Reason::Malformed, "a log record without a time"));
    }
    let at = i64::try_from(ns).map(Timestamp::from_ns);
    let at = at.map_err(|_| (Reason::Future, "a log record's time is beyond the year 2262"))?;
    if !budget.has_events() {
        return Err(TOO_MANY);
    }
    // First, so that an attribute of that name wins.
    let severity = severity::label(log.severity_text, log.severity_number);
    let labels = shared
        .labels(severity, &log.attributes)
        .map_err(|_| (Reason::LabelLimit, "the labels of a log record are over a limit"))?;
    let kind = if log.name.is_empty() { "log" } else { log.name };
    let event = Event { at, kind: kind.to_owned(), labels, body: log.body.into_owned() };
    if budget.event(event.bytes()) { Ok(event) } else { Err(TOO_MANY) }
}

/// A `KeyValue`, unless it is one that churns.
fn attribute<'a>(pair: &'a [u8], out: &mut Level<'a>) -> Result<(), &'static str> {
    let (key, value) = key_value(pair)?;
    if !DROPPED.contains(&key) {
        out.put(key, cut(text(value)?));
    }
    Ok(())
}

fn key_value(pair: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let (mut key, mut found) = ("", &[][..]);
    for field in Fields::new(pair) {
        match field? {
            (1, value) => key = value.text()?,
            (2, value) => found = value.bytes()?,
            _ => {}
        }
    }
    Ok((key, found))
}

/// An `AnyValue` as text: of lists and maps as JSON, of bytes in base 64, of nothing empty. Of a very long one that is no
/// text it is told that it is one.
fn text(value: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    // A text, which nearly every attribute is, is borrowed.
    let mut fields = Fields::new(value);
    if let (Some(Ok((1, only))), None) = (fields.next(), fields.next()) {
        return only.text().map(Cow::Borrowed);
    }
    if value.len() > MAX_NESTED_BYTES {
        return Ok(Cow::Borrowed(CUT));
    }
    Ok(match json(value, 0)? {
        Json::Null => Cow::Borrowed(""),
        Json::String(text) => Cow::Owned(text),
        Json::Number(number) if number.is_f64() => {
            Cow::Owned(number.as_f64().unwrap_or_default().to_string())
        }
        other => Cow::Owned(other.to_string()),
    })
}

fn json(value: &[u8], depth: u32) -> Result<Json, &'static str> {
    if depth > MAX_DEPTH {
        return Err("values nested too deeply");
    }
    let mut found = Json::Null;
    for field in Fields::new(value) {
        let (number, value) = field?;
        found = match number {
            1 => Json::from(value.text()?),
            2 => Json::from(value.varint()? != 0),
            3 => Json::from(value.varint()?.cast_signed()),
            4 => double(f64::from_bits(value.fixed64()?)),
            5 => {
                let mut list = Vec::new();
                each::<&str>(value.bytes()?, 1, &mut |item| {
                    json(item, depth + 1).map(|item| list.push(item))
                })?;
                Json::Array(list)
            }
            6 => {
                let mut map = serde_json::Map::new();
                each::<&str>(value.bytes()?, 1, &mut |pair| {
                    let (key, value) = key_value(pair)?;
                    map.insert(key.to_owned(), json(value, depth + 1)?);
                    Ok(())
                })?;
                Json::Object(map)
            }
            7 => Json::from(STANDARD.encode(value.bytes()?)),
            _ => found,
        };
    }
    Ok(found)
}

/// JSON has no number for some.
fn double(value: f64) -> Json {
    serde_json::Number::from_f64(value).map_or_else(|| Json::from(value.to_string()), Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaints::Complaints;
    use crate::listen::reply::put_bytes;

    fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in fields {
            put_bytes(*number, bytes, &mut out);
        }
        out
    }

    fn pair(key: &str, value: &[u8]) -> Vec<u8> {
        message(&[(1, key.as_bytes()), (2, value)])
    }

    fn request(log: &[u8]) -> Vec<u8> {
        let resource = message(&[
            (1, &pair("service.name", &message(&[(1, b"shop")]))),
            (1, &pair("process.pid", b"\x18\x07")),
        ]);
        let scope = message(&[(2, log), (1, &message(&[(3, &pair("lib", &message(&[(1, b"x")])))]))]);
        message(&[(1, &message(&[(2, &scope), (1, &resource)]))])
    }

    /// Scenario: a log record with an attribute of each type, its resource and scope behind it.
    /// Guarantee: it is the event that the same record in JSON is.
    #[test]
    fn a_log_record_is_the_event_that_its_json_is() {
        let nested = message(&[(5, &message(&[(1, b"\x18\x01"), (1, &message(&[(1, b"t")]))]))]);
        let map = message(&[(6, &message(&[(1, &pair("k", b"\x10\x01"))]))]);
        let double = [&b"\x21"[..], &0.5_f64.to_le_bytes()].concat();
        let log = [
            b"\x09\x07\0\0\0\0\0\0\0".to_vec(),
            message(&[(3, b"ERROR"), (5, &message(&[(1, b"it broke")]))]),
            message(&[(6, &pair("b", b"\x10\x01")), (6, &pair("i", b"\x18\x07")), (6, &pair("d", &double))]),
            message(&[(6, &pair("l", &nested)), (6, &pair("m", &map)), (6, &pair("y", b"\x3a\x02\x01\x02"))]),
            message(&[(6, &pair("n", b"")), (12, b"deploy")]),
        ]
        .concat();
        let mut record = Record::default();
        decode(&request(&log), &mut record).expect("it is valid");
        let json = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "scopeLogs":[{"scope":{"attributes":[{"key":"lib","value":{"stringValue":"x"}}]},"logRecords":[{"timeUnixNano":"7",
            "severityText":"ERROR","eventName":"deploy","body":{"stringValue":"it broke"},"attributes":[
            {"key":"b","value":{"boolValue":true}},{"key":"i","value":{"intValue":"7"}},{"key":"d","value":{"doubleValue":0.5}},
            {"key":"l","value":{"arrayValue":{"values":[{"intValue":1},{"stringValue":"t"}]}}},
            {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}},
            {"key":"y","value":{"bytesValue":"AQI="}},{"key":"n","value":{}}]}]}]}]}"#;
        let (mut same, mut names, mut complaints) =
            (Record::default(), vec![String::new()], Complaints::default());
        let out = &mut crate::source::Sink::new(&mut same, &mut names, &mut complaints, 0);
        crate::otlp::export::logs(json, out).expect("it is valid");
        assert_eq!((record.events.len(), complaints.texts().len()), (1, 0));
        assert_eq!(record, same);
    }

    /// Scenario: severities by number (as an enumeration is sent, one below zero in ten bytes), one with a text.
    /// Guarantee: the text is told, else the number's name; another type in its place is malformed.
    #[test]
    fn severities_are_told() {
        for (told, expected) in [
            (&b"\x10\x11"[..], Some("ERROR")),
            (b"\x10\x18", Some("FATAL")),
            (b"\x10\x19", None),
            (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            (b"\x10\x11\x1a\x02hm", Some("hm")),
            (b"", None),
        ] {
            let mut record = Record::default();
            let log = [&b"\x09\x07\0\0\0\0\0\0\0"[..], told].concat();
            decode(&request(&log), &mut record).expect("it is valid");
            assert_eq!(record.events[0].labels.get("severity"), expected, "{told:?}");
        }
        assert!(decode(&request(b"\x12\x01x"), &mut Record::default()).is_err());
    }

    #[test]
    fn what_cannot_be_an_event_is_refused_by_reason() {
        for (log, reason) in [
            (b"".to_vec(), Reason::Malformed),
            (b"\x09\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), Reason::Future),
            (
                [&b"\x09\x01\0\0\0\0\0\0\0"[..], &message(&[(6, &pair(&"k".repeat(300), b""))])].concat(),
                Reason::LabelLimit,
            ),
        ] {
            let mut record = Record::default();
            decode(&request(&log), &mut record).expect("the rest is valid");
            assert_eq!((record.events.len(), record.refused), (0, vec![(reason, 1)]));
        }
    }

    /// Guarantee: nesting that would overflow the stack is refused.
    #[test]
    fn depth_is_bounded() {
        let mut value = message(&[(1, b"x")]);
        for _ in 0..1_000 {
            value = message(&[(5, &message(&[(1, &value)]))]);
        }
        assert!(decode(&request(&message(&[(5, &value)])), &mut Record::default()).is_err());
    }

    /// A request of one resource with `scopes` scopes of `n` log records each, which have a time and nothing else.
    fn logs(resource: &[u8], scopes: usize, n: usize) -> Vec<u8> {
        let log = message(&[(2, b"\x09\x07\0\0\0\0\0\0\0")]);
        let scopes = message(&[(2, &log.repeat(n))]).repeat(scopes);
        message(&[(1, &[message(&[(1, resource)]), scopes].concat())])
    }

    /// So many attributes of a resource, with keys of their own or all with the same.
    fn attributes(n: usize, is_one: bool) -> Vec<u8> {
        let key = |i: usize| if is_one { "k".to_owned() } else { i.to_string() };
        (0..n).flat_map(|i| message(&[(1, &pair(&key(i), &message(&[(1, b"v")])))])).collect()
    }

    /// Scenario: one log record more than a request may have, of a few bytes each.
    /// Guarantee: refused as they are met, and what is refused for its own sake counts as well.
    #[test]
    fn a11_huge_repeated() {
        let read = |n| decode(&logs(b"", 1, n), &mut Record::default()).map_err(|why| why.to_string());
        assert_eq!(read(100_000), Ok(()));
        assert_eq!(read(100_001), Err("more than 100000 log records in one request".to_owned()));
        let without_time = request(b"").repeat(100_001);
        assert!(decode(&without_time, &mut Record::default()).is_err());
    }

    /// Scenario: a resource with attributes beyond counting, and as many log records as a request may have, in one scope
    /// or in as many; then a million scopes without any.
    /// Guarantee: what they share is read once; it refuses them all, or is one label of each. None of it is timed: read
    /// for each, it takes hours.
    #[test]
    fn a12_wide_resource() {
        for (is_one, taken) in [(false, 0), (true, 100_000)] {
            let wide = attributes(300_000, is_one);
            for (scopes, n) in [(1, 100_000), (100_000, 1), (1_000_000, 0)] {
                let mut record = Record::default();
                decode(&logs(&wide, scopes, n), &mut record).expect("it is valid");
                let expected = if n == 0 { 0 } else { taken };
                assert_eq!(record.events.len(), expected);
                assert_eq!(record.refused.is_empty(), is_one || n == 0, "{:?}", record.refused);
            }
        }
    }

    /// Scenario: log records with 60 KiB of labels on their resource, which would make a gigabyte of events.
    /// Guarantee: what the record holds is bounded, and the rest is refused for its labels.
    #[test]
    fn d01_events_of_a_request_are_bounded() {
        let value = message(&[(1, "v".repeat(1 << 10).as_bytes())]);
        let broad = (0..60).flat_map(|i| message(&[(1, &pair(&i.to_string(), &value))])).collect::<Vec<u8>>();
        let mut record = Record::default();
        decode(&logs(&broad, 1, 20_000), &mut record).expect("it is valid");
        let taken = record.events.len();
        assert!(record.bytes() <= 256 << 20 && taken > 3_000, "{taken} events");
        assert_eq!(record.refused, [(Reason::LabelLimit, 20_000 - taken as u32)]);
    }

    /// Scenario: an attribute and a body that are lists of a million values.
    /// Guarantee: they are not told, the rest of the record is.
    #[test]
    fn a_list_that_is_too_long_is_not_told() {
        let list = message(&[(5, &message(&[(1, b"")]).repeat(1_000_000))]);
        let log = [
            b"\x09\x07\0\0\0\0\0\0\0".to_vec(),
            message(&[(5, &list), (6, &pair("list", &list)), (6, &pair("k", &message(&[(1, b"v")])))]),
        ];
        let mut record = Record::default();
        decode(&request(&log.concat()), &mut record).expect("it is valid");
        let Event { labels, body, .. } = &record.events[0];
        assert_eq!((labels.get("list"), labels.get("k"), &**body), (Some(CUT), Some("v"), CUT));
    }
}
