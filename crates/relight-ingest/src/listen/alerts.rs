//! Alertmanager's webhook, version 4: each alert is an event of kind `alert`.
//!
//! Its labels are the alert's and its `status`; its text is the `summary` annotation, else the `description`;
//! its time is that of the change: `startsAt` of a firing alert, `endsAt` of a resolved one. Alertmanager
//! repeats what still fires, and such a repetition is not taken again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use relight_core::Timestamp;
use relight_core::record::{Event, Reason, Record};
use serde::Deserialize;

use super::front::{Fault, Front, cut};
use super::http::{nothing_at, plain_body, post, refuse, respond};
use super::reply::{Form, Payload};
use super::seen::{Fresh, Seen};
use super::signal::{MAX_ENTRIES, rejections};
use super::stats::{Outcome, add};
use crate::{json, key};

/// The kind of these events.
const KIND: &str = "alert";
const MAX_TEXT_BYTES: usize = 4 << 10;

#[derive(Deserialize)]
struct Message {
    version: String,
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    /// Of a firing alert the year 1, which no timestamp of ours holds: only read where it means something.
    #[serde(default)]
    ends_at: String,
    #[serde(default)]
    fingerprint: String,
}

/// Answers one notification.
pub(super) async fn handle(
    front: &Arc<Front>,
    (path, seen): (&str, &Arc<Seen>),
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    match take(front, path, seen, request).await {
        Ok(outcome) => (outcome, respond(StatusCode::OK, "text/plain", "")),
        Err(fault) => refuse(front, Form::Json, &fault),
    }
}

async fn take(
    front: &Arc<Front>,
    path: &str,
    seen: &Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Outcome, Fault> {
    if request.uri().path() != path {
        return Err(nothing_at(request.uri().path()));
    }
    let admitted = post(front, &request)?;
    let (body, _admitted) = plain_body(front, request, true, admitted).await?;
    let mut fresh = Fresh::new(seen);
    let mut record = Record::default();
    let repeated = read(&body, &mut fresh, &mut record)?;
    let refused = front.deliver_events(record, fresh).await?;
    add(&front.stats.repeated_events, repeated);
    Ok(if rejections(&refused).is_some() { Outcome::Partial } else { Outcome::Taken })
}

/// Reads a notification into a record; gives the number of repetitions.
fn read(body: &[u8], fresh: &mut Fresh, record: &mut Record) -> Result<u64, Fault> {
    json::bounded(body).map_err(Fault::malformed)?;
    let message: Message = serde_json::from_slice(body)
        .map_err(|error| Fault::malformed(format!("no notification: {error}")))?;
    if message.version != "4" {
        return Err(Fault::malformed(format!("webhook version `{}` (have: 4)", message.version)));
    }
    if message.alerts.len() > MAX_ENTRIES {
        return Err(Fault::malformed(format!("{} alerts (at most {MAX_ENTRIES})", message.alerts.len())));
    }
    let mut repeated = 0;
    for alert in &message.alerts {
        match event(alert) {
            Ok(event) if fresh.insert(identity(alert, &event))? => record.events.push(event),
            Ok(_) => repeated += 1,
            Err(reason) => record.refuse(reason),
        }
    }
    Ok(repeated)
}

// By the labels as they came: an event's are cut.
fn identity(alert: &Alert, event: &Event) -> String {
    let who =
        if alert.fingerprint.is_empty() { format!("{:?}", alert.labels) } else { alert.fingerprint.clone() };
    format!("{} {} {who}", alert.status, event.at.ns())
}

fn event(alert: &Alert) -> Result<Event, Reason> {
    let at = match alert.status.as_str() {
        "firing" => alert.starts_at,
        "resolved" => alert.ends_at.parse().map_err(|_| Reason::Malformed)?,
        _ => return Err(Reason::Malformed),
    };
    let mut all: Vec<(&str, &str)> = alert.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    all.push(("status", &alert.status));
    let labels = key::labels(&mut all).map_err(|_| Reason::LabelLimit)?;
    let text = ["summary", "description"].into_iter().find_map(|name| alert.annotations.get(name));
    let mut body = text.cloned().unwrap_or_default();
    cut(&mut body, MAX_TEXT_BYTES);
    Ok(Event { at, kind: KIND.to_owned(), labels, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRING: &str = r#"{"status":"firing","labels":{"alertname":"Slow","service":"shop"},
        "annotations":{"summary":"it is slow"},"startsAt":"1970-01-01T00:00:05.5Z","endsAt":"0001-01-01T00:00:00Z",
        "generatorURL":"http://x","fingerprint":"ab"}"#;
    const RESOLVED: &str = r#"{"status":"resolved","labels":{"alertname":"Slow","service":"shop"},
        "startsAt":"1970-01-01T00:00:05.5Z","endsAt":"1970-01-01T00:01:00Z","fingerprint":"ab"}"#;

    fn message(version: &str, alerts: &[&str]) -> String {
        let alerts = alerts.join(",");
        format!(r#"{{"version":"{version}","groupKey":"g","truncatedAlerts":0,"alerts":[{alerts}]}}"#)
    }

    /// Scenario: an alert fires, is repeated, and is resolved.
    /// Guarantee: two events, each at the time of its change.
    #[test]
    fn alerts_are_events() {
        let mut record = Record::default();
        let mut fresh = Fresh::new(&Arc::default());
        let repeated: Result<Vec<u64>, Fault> = [&[FIRING][..], &[FIRING, RESOLVED], &[]]
            .map(|alerts| read(message("4", alerts).as_bytes(), &mut fresh, &mut record))
            .into_iter()
            .collect();
        assert_eq!(repeated.expect("all are notifications"), [0, 1, 0]);
        let shown: Vec<String> =
            record.events.iter().map(|e| format!("{} {} {} {}", e.kind, e.labels, e.at, e.body)).collect();
        assert_eq!(
            shown,
            [
                "alert {alertname=\"Slow\",service=\"shop\",status=\"firing\"} 1970-01-01T00:00:05.5Z it is slow",
                "alert {alertname=\"Slow\",service=\"shop\",status=\"resolved\"} 1970-01-01T00:01:00Z ",
            ]
        );
    }

    #[test]
    fn what_is_no_notification_is_malformed() {
        for body in ["", "[]", "{}", r#"{"version":4}"#, &message("3", &[FIRING]), &message("4", &["{}"])] {
            let mut fresh = Fresh::new(&Arc::default());
            let read = read(body.as_bytes(), &mut fresh, &mut Record::default());
            assert_eq!(read.map_err(|fault| fault.outcome), Err(Outcome::Malformed), "{body}");
        }
    }
}
