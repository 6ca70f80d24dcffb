//! CloudEvents 1.0 as change events: how a deploy or a flag flip that somebody announces becomes an [`Event`].
//!
//! | of relight's event | comes from |
//! |---|---|
//! | time | `time`; where it is left out, when it was received |
//! | kind | the extension attribute `kind`, else `data.kind`, else `type` as it is: `changed("deploy", "30m")` asks for `deploy` |
//! | labels | the attributes `source` and `subject`, then the texts, numbers and truth values of `data.labels`; the later wins |
//! | body | `data.message`, else `data` if that is a text |
//!
//! No transport is known here: who has headers hands them in as attributes.

use std::borrow::Cow;

use relight_core::Timestamp;
use relight_core::record::Event;
use serde_json::{Map, Value};

use crate::{key, scan};

/// A kind is a word, and a text is for people.
const MAX_KIND_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 4 << 10;

/// Reads events in structured mode: one, or a list of them.
pub(crate) fn structured(json: &[u8], received: Timestamp) -> Result<Vec<Event>, String> {
    match serde_json::from_slice(json).map_err(|error| error.to_string())? {
        Value::Array(all) => all.into_iter().map(|one| object(one, received)).collect(),
        one => object(one, received).map(|event| vec![event]),
    }
}

fn object(value: Value, received: Timestamp) -> Result<Event, String> {
    match value {
        Value::Object(attributes) => event(&attributes, received),
        _ => Err("a CloudEvent is a map of attributes".to_owned()),
    }
}

/// Reads an event in binary mode: attributes from headers (without their prefix), `data` from the body.
pub(crate) fn binary<'a>(
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
    received: Timestamp,
) -> Result<Event, String> {
    let mut all: Map<String, Value> =
        attributes.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let data = serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into());
    all.insert("data".to_owned(), data);
    event(&all, received)
}

/// Maps an event, given as its attributes with `data` among them.
pub(crate) fn event(attributes: &Map<String, Value>, received: Timestamp) -> Result<Event, String> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let required = |name: &str| text(name).ok_or_else(|| format!("`{name}` is missing or no text"));
    let version = required("specversion")?;
    if version != "1.0" {
        return Err(format!("specversion `{version}` is not known (have: 1.0)"));
    }
    let (_, source, kind) = (required("id")?, required("source")?, required("type")?);
    let at = match text("time") {
        None => received,
        Some(time) => scan::rfc3339(time.as_bytes()).ok_or("`time` is no RFC 3339 time")?,
    };
    let data = attributes.get("data").unwrap_or(&Value::Null);
    let kind = text("kind").or_else(|| data["kind"].as_str()).unwrap_or(kind);
    if kind.len() > MAX_KIND_BYTES {
        return Err(format!("a kind of {} bytes (at most {MAX_KIND_BYTES})", kind.len()));
    }
    let body = data["message"].as_str().or_else(|| data.as_str()).unwrap_or_default();
    let given = data["labels"].as_object().into_iter().flatten();
    let given: Vec<(&str, Cow<'_, str>)> =
        given.filter_map(|(key, value)| Some((key.as_str(), scalar(value)?))).collect();
    let own = [Some(("source", source)), text("subject").map(|subject| ("subject", subject))];
    let mut all: Vec<(&str, &str)> = own.into_iter().flatten().collect();
    all.extend(given.iter().map(|(key, value)| (*key, &**value)));
    Ok(Event { at, kind: kind.to_owned(), labels: key::labels(&mut all)?, body: cut(body) })
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(_) | Value::Bool(_) => Some(Cow::Owned(value.to_string())),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/ci""#;

    fn check(more: &str, expected: Result<&str, &str>) {
        let json = format!("{{{HEAD}{more}}}");
        let read = structured(json.as_bytes(), Timestamp::from_secs(9));
        let shown = read.map(|events| {
            let Event { at, kind, labels, body } = &events[0];
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} {kind} {} [{body}]", at.secs(), labels.join(","))
        });
        assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{json}");
    }

    /// Scenario: events as different senders write them.
    /// Guarantee: kind, time, labels and text are found where the module's head says, and what is no CloudEvent
    /// is refused with the reason.
    #[test]
    fn events_are_mapped() {
        check(r#","type":"deploy""#, Ok("9 deploy source=/ci []"));
        check(
            r#","type":"com.example.deployed","time":"1970-01-01T00:00:05Z","subject":"checkout"
              ,"data":{"kind":"deploy","labels":{"service":"a","build":7,"odd":{}},"message":"went out"}"#,
            Ok("5 deploy build=7,service=a,source=/ci,subject=checkout [went out]"),
        );
        check(r#","type":"x","kind":"flag","data":"on""#, Ok("9 flag source=/ci [on]"));
        check("", Err("`type` is missing or no text"));
        check(r#","type":"x","time":"yesterday""#, Err("`time` is no RFC 3339 time"));
        assert!(structured(b"7", Timestamp::MIN).is_err());
        assert!(
            structured(br#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, Timestamp::MIN).is_err()
        );
        let both = format!(r#"[{{{HEAD},"type":"a"}},{{{HEAD},"type":"b"}}]"#);
        assert_eq!(structured(both.as_bytes(), Timestamp::MIN).map(|all| all.len()), Ok(2));
    }

    #[test]
    fn binary_mode_has_its_attributes_in_headers() {
        let attributes = [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "deploy")];
        let event =
            binary(attributes, br#"{"labels":{"service":"a"}}"#, Timestamp::from_secs(3)).expect("an event");
        assert_eq!((event.at.secs(), &*event.kind, event.labels.get("service")), (3, "deploy", Some("a")));
        assert_eq!(binary(attributes, b"plain", Timestamp::from_secs(3)).expect("an event").body, "plain");
    }
}
