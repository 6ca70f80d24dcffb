//! What every responder can tell its target: one action and its incident, as JSON.
//!
//! Built as values and serialised, never put together from texts. Holds no secret.

use relight_core::incident::Evidence;
use relight_core::record::Event;
use relight_core::responder::Request;
use relight_core::text;
use serde_json::{Map, Value, json};

/// The version of the document's form; a field is added without a new one, never taken away.
const VERSION: u32 = 1;

/// The action and its incident. `webhook.md` says what each field is.
pub(crate) fn document(request: &Request<'_>) -> Value {
    let Request { action, incident } = request;
    json!({
        "version": VERSION,
        "summary": summary(request),
        "rule": incident.rule,
        "group": labels(&incident.group),
        "incident": {
            "id": incident.id,
            "key": incident.external_key(),
            "episode": incident.episode,
            "state": incident.state,
            "stale": incident.stale,
            "onset": incident.onset,
            "first_finding": incident.first_finding,
            "detected": incident.detected,
            "resolved": incident.resolved,
            "worst_score": number(incident.worst_score),
        },
        "evidence": incident.evidence.iter().map(evidence).collect::<Vec<_>>(),
        "context": incident.context.iter().map(event).collect::<Vec<_>>(),
        "action": {
            "id": action.id,
            "do": action.action,
            "args": action.args,
            "step": action.step,
            "planned": action.planned,
        },
    })
}

/// One line for people.
pub(crate) fn summary(request: &Request<'_>) -> String {
    let Request { action, incident } = request;
    let what = incident.evidence.first().map(band).unwrap_or_default();
    one_line(&format!("{} about {} {}{what}", action.action, incident.rule, incident.group))
}

fn band(evidence: &Evidence) -> String {
    let Evidence { signal, value, .. } = evidence;
    format!(": {signal} {value:.4}, {}", evidence.in_words(|number| format!("{number:.4}")))
}

fn evidence(evidence: &Evidence) -> Value {
    json!({
        "detector": evidence.detector,
        "signal": evidence.signal,
        "labels": labels(&evidence.labels),
        "at": evidence.at,
        "value": number(evidence.value),
        "score": number(evidence.score),
        "expected": number(evidence.expected),
        "lower": number(evidence.lower),
        "upper": number(evidence.upper),
    })
}

fn event(event: &Event) -> Value {
    json!({"at": event.at, "kind": event.kind, "labels": labels(&event.labels), "body": event.body})
}

fn labels(labels: &relight_core::Labels) -> Value {
    Value::Object(labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>())
}

/// JSON has no infinities: what is no number is nothing.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Foreign text on one line of a log or a page: control characters made visible, at most 300 characters.
pub(crate) fn one_line(text: &str) -> String {
    text::shortened(text, 300)
}

/// Takes secrets out of foreign text: a target may say back what it was sent.
pub(crate) fn redacted<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    secrets
        .filter(|secret| secret.len() >= 4)
        .fold(text.to_owned(), |text, secret| text.replace(secret, "<secret>"))
}
