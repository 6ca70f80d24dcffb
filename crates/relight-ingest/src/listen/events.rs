//! Change events as CloudEvents 1.0: a deploy, a flag flip, a scaling. Structured, batched and binary.
//!
//! The mapping: an event's kind is the extension attribute `kind`, else `data.kind`, else its `type` as it
//! is, so that `"type": "deploy"` is what `changed("deploy", "30m")` asks for. Its labels are the texts,
//! numbers and truth values of `data.labels`, and the attributes `source` and `subject`. Its text is
//! `data.message`, else `data` if that is a text. Its time is `time`, else that of arrival. One with the
//! `source` and `id` of one that was taken lately is a repetition: answered with success and not taken again.

use std::sync::Arc;

use hyper::HeaderMap;
use relight_core::record::{Event, Reason, Record};
use relight_core::refusal::Origin;
use relight_core::{Labels, Timestamp};
use serde_json::{Map, Value};

use super::front::{Fault, Front};
use super::http::media_type;
use super::seen::{Fresh, Seen};
use super::signal::MAX_ENTRIES;
use super::stats::{Outcome, add};
use crate::{json, key, scan};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
/// A kind is a word, and a text is for people.
const MAX_KIND_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 4 << 10;

/// What the listener remembers of the events that it took.
#[derive(Default)]
pub(super) struct Events {
    seen: Arc<Seen>,
}

impl Events {
    /// Takes the events of one request; gives the answer's text.
    pub(super) async fn take(
        &self,
        front: &Front,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Outcome, String), Fault> {
        let body = json::without_bom(body);
        json::bounded_tree(body).map_err(Fault::malformed)?;
        let events = read(headers, body)?;
        let mut record = Record::default();
        let mut fresh = Fresh::new(&self.seen);
        let mut repeated = 0;
        for event in &events {
            let (identity, event) = event_of(event, front.now())?;
            if !fresh.insert(identity)? {
                repeated += 1;
                continue;
            }
            match event {
                Ok(event) => record.events.push(event),
                Err((reason, kind, why)) => {
                    record.refuse_named(reason, Origin { metric: &kind, service: "" }, &why, 1);
                }
            }
        }
        let taken = record.events.len();
        let refused = front.deliver_events(record, fresh).await?;
        add(&front.stats.repeated_events, repeated);
        let outcome = if refused.counts.is_empty() { Outcome::Taken } else { Outcome::Partial };
        let reasons = refused.texts();
        let refused: Map<String, Value> =
            refused.counts.into_iter().map(|(reason, n)| (reason.name().to_owned(), n.into())).collect();
        let mut answer = serde_json::json!({ "taken": taken, "repeated": repeated, "refused": refused });
        if !reasons.is_empty() {
            answer["reasons"] = reasons.into();
        }
        Ok((outcome, answer.to_string()))
    }
}

type Attributes = Map<String, Value>;

/// The events of a request, each as its attributes with `data` among them.
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Attributes>, Fault> {
    let json =
        |what| serde_json::from_slice(body).map_err(|error| Fault::malformed(format!("{what}: {error}")));
    let events = match media_type(headers).as_deref() {
        Some(STRUCTURED) => vec![object(json("no event")?)?],
        Some(BATCH) => match json("no list of events")? {
            Value::Array(events) => events.into_iter().map(object).collect::<Result<_, _>>()?,
            _ => return Err(Fault::malformed("a batch is a list of events")),
        },
        _ if headers.contains_key("ce-specversion") => vec![binary(headers, body)?],
        _ => {
            let message = format!("an event is {STRUCTURED}, {BATCH}, or has its attributes in ce- headers");
            return Err(Fault::new(Outcome::Unsupported, message));
        }
    };
    if events.len() > MAX_ENTRIES {
        return Err(Fault::malformed(format!("{} events (at most {MAX_ENTRIES})", events.len())));
    }
    Ok(events)
}

fn object(value: Value) -> Result<Attributes, Fault> {
    match value {
        Value::Object(attributes) => Ok(attributes),
        _ => Err(Fault::malformed("an event is a map of attributes")),
    }
}

/// Attributes in headers, the body is `data`.
fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Attributes, Fault> {
    let mut attributes = Attributes::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix("ce-") {
            let text = value.to_str().map_err(|_| Fault::malformed(format!("`ce-{name}` is no text")))?;
            attributes.insert(name.to_owned(), unpercent(text)?.into());
        }
    }
    let is_json =
        media_type(headers).is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
    let data = match is_json {
        _ if body.is_empty() => Value::Null,
        true => serde_json::from_slice(body).map_err(|error| Fault::malformed(format!("data: {error}")))?,
        false => String::from_utf8_lossy(body).into(),
    };
    attributes.insert("data".to_owned(), data);
    Ok(attributes)
}

/// Header values are percent-encoded where they are not printable ASCII.
fn unpercent(text: &str) -> Result<String, Fault> {
    let bad = || Fault::malformed("a ce- header with a broken percent-encoding");
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
            out.push((digit()? << 4 | digit()?) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// Why an event is refused: reason, kind and cause.
type NamedRefusal = (Reason, String, String);

/// An event's identity, and what it comes to.
fn event_of(attributes: &Attributes, now: Timestamp) -> Result<(String, Result<Event, NamedRefusal>), Fault> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let required =
        |name: &str| text(name).ok_or_else(|| Fault::malformed(format!("`{name}` is missing or no text")));
    let version = required("specversion")?;
    if version != "1.0" {
        return Err(Fault::malformed(format!("specversion `{version}` is not known (have: 1.0)")));
    }
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    let at = match text("time") {
        None => now,
        Some(time) => scan::rfc3339(time.as_bytes())
            .ok_or_else(|| Fault::malformed(format!("`time` is no RFC 3339 time: `{time}`")))?,
    };
    let data = attributes.get("data").unwrap_or(&Value::Null);
    let kind = text("kind").or_else(|| data["kind"].as_str()).unwrap_or(kind);
    if kind.len() > MAX_KIND_BYTES {
        return Err(Fault::malformed(format!("a kind of {} bytes (at most {MAX_KIND_BYTES})", kind.len())));
    }
    let mut body = data["message"].as_str().or_else(|| data.as_str()).unwrap_or_default().to_owned();
    super::front::cut(&mut body, MAX_TEXT_BYTES);
    let own = [Some(("source", source)), text("subject").map(|subject| ("subject", subject))];
    let labels = labels(own.into_iter().flatten(), &data["labels"]);
    // The length keeps `a` of `b/c` apart from `a/b` of `c`.
    let identity = format!("{} {source} {id}", source.len());
    let refused = |why| (Reason::LabelLimit, kind.to_owned(), why);
    let event = labels.map(|labels| Event { at, kind: kind.to_owned(), labels, body }).map_err(refused);
    Ok((identity, event))
}

fn labels<'a>(own: impl Iterator<Item = (&'a str, &'a str)>, given: &Value) -> Result<Labels, String> {
    let texts: Vec<(&str, String)> = given
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match value {
            Value::String(text) => Some((key.as_str(), text.clone())),
            Value::Number(_) | Value::Bool(_) => Some((key.as_str(), value.to_string())),
            _ => None,
        })
        .collect();
    // The later wins: what the sender calls `source` in its labels is its own affair.
    let mut all: Vec<(&str, &str)> = own.collect();
    all.extend(texts.iter().map(|(key, value)| (*key, value.as_str())));
    key::labels(&mut all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().expect("a name"), HeaderValue::from_static(v))).collect()
    }

    /// The kinds, labels, times (s) and texts of a request's events.
    fn check(kind: &'static str, more: &[(&'static str, &'static str)], body: &str, expected: &[&str]) {
        let headers = headers(&[&[("content-type", kind)], more].concat());
        let events = read(&headers, body.as_bytes()).expect("events");
        let shown: Vec<String> = events
            .iter()
            .map(|event| {
                let event =
                    event_of(event, Timestamp::from_secs(9)).expect("valid").1.expect("within limits");
                format!("{} {} {} {}", event.kind, event.labels, event.at.secs(), event.body)
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn events_are_mapped_as_documented() {
        let plain = r#"{"specversion":"1.0","id":"1","source":"ci","type":"deploy"}"#;
        let full = r#"{"specversion":"1.0","id":"2","source":"/ci","type":"dev.x.deployed","subject":"shop",
            "time":"1970-01-01T00:00:05Z","data":{"kind":"deploy","message":"v2","labels":
            {"service":"shop","replicas":3,"canary":true,"odd":{},"source":"mine"}}}"#;
        check(STRUCTURED, &[], plain, &[r#"deploy {source="ci"} 9 "#]);
        let mapped =
            r#"deploy {canary="true",replicas="3",service="shop",source="mine",subject="shop"} 5 v2"#;
        check("application/cloudevents+json; charset=utf-8", &[], full, &[mapped]);
        check(BATCH, &[], &format!("[{plain},{full}]"), &[r#"deploy {source="ci"} 9 "#, mapped]);
        check(BATCH, &[], "[]", &[]);
        let ce = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/%C3%A4"), ("ce-type", "flag")];
        check("application/json", &ce, r#"{"labels":{"a":"b"}}"#, &["flag {a=\"b\",source=\"/ä\"} 9 "]);
        let kind = [&ce[..], &[("ce-kind", "deploy")]].concat();
        check("text/plain", &kind, "done", &["deploy {source=\"/ä\"} 9 done"]);
        check("text/plain", &kind, "", &["deploy {source=\"/ä\"} 9 "]);
    }

    #[test]
    fn what_is_no_event_is_malformed() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"specversion":"0.3","id":"1","source":"ci","type":"deploy"}"#,
            r#"{"specversion":"1.0","id":"","source":"ci","type":"deploy"}"#,
            r#"{"specversion":"1.0","id":1,"source":"ci","type":"deploy"}"#,
            r#"{"specversion":"1.0","id":"1","source":"ci","type":"deploy","time":"today"}"#,
            r#"{"specversion":"1.0","id":"1","source":"ci"}"#,
        ] {
            let headers = headers(&[("content-type", STRUCTURED)]);
            let read = read(&headers, body.as_bytes());
            let outcome = read.and_then(|events| event_of(&events[0], Timestamp::from_secs(9)).map(drop));
            assert_eq!(outcome.map_err(|fault| fault.outcome), Err(Outcome::Malformed), "{body}");
        }
    }
}
