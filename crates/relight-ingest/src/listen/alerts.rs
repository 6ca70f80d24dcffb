//! Alertmanager's webhook, version 4, and Grafana's, version 1: each alert is an event of kind `alert`.
//!
//! Its labels are the alert's and its `status`; its text is the `summary` annotation, else the `description`;
//! its time is that of the change: `startsAt` of a firing alert, `endsAt` of a resolved one. Both senders
//! repeat what still fires, and such a repetition is not taken again. An alert that cannot be taken is refused by
//! itself; what the sender left out (`truncatedAlerts`) is counted and told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use relight_core::record::{Event, Reason, Record};
use relight_core::refusal::Origin;
use relight_core::{Span, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Tell;
use super::front::{Fault, Front, cut};
use super::http::{nothing_at, plain_body, post_or, refuse, respond};
use super::reply::{Form, Payload, Taken};
use super::seen::{Fresh, Seen};
use super::signal::MAX_ENTRIES;
use super::stats::{Outcome, add};
use crate::{json, key};

/// The kind of these events.
const KIND: &str = "alert";
const MAX_TEXT_BYTES: usize = 4 << 10;
/// What a sender left out is told at most this often.
const TELL_EVERY: Span = Span::from_secs(60);
/// Labels that name a service, the most telling first.
const SERVICES: [&str; 4] = ["service.name", "service_name", "service", "job"];

/// What the listener remembers.
pub(super) struct Alerts {
    seen: Arc<Seen>,
    tell: Tell,
    told: Mutex<Option<Timestamp>>,
}

impl Alerts {
    pub(super) fn new(tell: Tell) -> Self {
        Self { seen: Arc::default(), tell, told: Mutex::new(None) }
    }

    /// Tells that alerts were left out by their sender.
    fn truncated(&self, front: &Front, n: u64) {
        if n == 0 {
            return;
        }
        add(&front.stats.truncated_alerts, n);
        let now = front.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| now.since(at) >= TELL_EVERY) {
            *told = Some(now);
            (self.tell)(&format!(
                "{}: the sender left {n} alerts out of a notification (`truncatedAlerts`): raise or remove the limit on alerts of its webhook",
                front.name()
            ));
        }
    }
}

/// A notification of either sender. Grafana's has `orgId`, `title` and `state` beside these.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(default)]
    version: Value,
    #[serde(default, deserialize_with = "or_default")]
    alerts: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    truncated_alerts: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: String,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, Text>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, Text>,
    starts_at: Timestamp,
    /// Of a firing alert the year 1, which no timestamp of ours holds: only read where it means something.
    #[serde(default, deserialize_with = "or_default")]
    ends_at: String,
    #[serde(default, deserialize_with = "or_default")]
    fingerprint: String,
}

/// A text; templates make numbers and truth values of some.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        }))
    }
}

/// Go writes an empty list or map as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Answers one notification.
pub(super) async fn handle(
    front: &Arc<Front>,
    (path, alerts): (&str, &Arc<Alerts>),
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    match take(front, path, alerts, request).await {
        Ok(taken) if taken.rejected > 0 => {
            let message = format!("some alerts were refused, the others are in: {}\n", taken.message);
            (Outcome::Partial, respond(StatusCode::OK, "text/plain", message))
        }
        Ok(_) => (Outcome::Taken, respond(StatusCode::OK, "text/plain", "")),
        Err(fault) => refuse(front, Form::Json, &fault),
    }
}

async fn take(
    front: &Arc<Front>,
    path: &str,
    alerts: &Arc<Alerts>,
    request: Request<Incoming>,
) -> Result<Taken, Fault> {
    if request.uri().path() != path {
        return Err(nothing_at(request.uri().path()));
    }
    // Grafana may be set to PUT.
    let admitted = post_or(&Method::PUT, front, &request)?;
    let (body, _admitted) = plain_body(front, request, true, admitted).await?;
    let mut fresh = Fresh::new(&alerts.seen);
    let mut record = Record::default();
    let Read { repeated, truncated } = read(&body, &mut fresh, &mut record)?;
    let refused = front.deliver_events(record, fresh).await?;
    add(&front.stats.repeated_events, repeated);
    alerts.truncated(front, truncated);
    Ok(Taken::new(&refused.counts, &refused.texts()))
}

/// What a notification had beside new alerts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    repeated: u64,
    truncated: u64,
}

/// Reads a notification into a record.
fn read(body: &[u8], fresh: &mut Fresh, record: &mut Record) -> Result<Read, Fault> {
    let body = json::without_bom(body);
    json::bounded_tree(body).map_err(Fault::malformed)?;
    let message: Message = serde_json::from_slice(body)
        .map_err(|error| Fault::malformed(format!("no notification: {error}")))?;
    let version = message.version.as_str().map_or_else(|| message.version.to_string(), str::to_owned);
    if !matches!(version.as_str(), "4" | "1") {
        let shown: String = version.chars().take(40).collect();
        return Err(Fault::malformed(format!(
            "webhook version `{shown}` (have: 4 of Alertmanager, 1 of Grafana's alerting)"
        )));
    }
    if message.alerts.len() > MAX_ENTRIES {
        return Err(Fault::malformed(format!("{} alerts (at most {MAX_ENTRIES})", message.alerts.len())));
    }
    let mut repeated = 0;
    for alert in message.alerts {
        let name = alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
        let service = SERVICES.iter().find_map(|label| alert["labels"][label].as_str());
        let service = service.unwrap_or_default().to_owned();
        let read = serde_json::from_value::<Alert>(alert).map_err(|why| (Reason::Malformed, why.to_string()));
        match read.and_then(|alert| event(&alert).map(|event| (identity(&alert, &event), event))) {
            Ok((identity, event)) => {
                if fresh.insert(identity)? {
                    record.events.push(event);
                } else {
                    repeated += 1;
                }
            }
            Err((reason, why)) => {
                record.refuse_named(reason, Origin { metric: &name, service: &service }, &why, 1);
            }
        }
    }
    Ok(Read { repeated, truncated: message.truncated_alerts })
}

// By the labels as they came: an event's are cut.
fn identity(alert: &Alert, event: &Event) -> String {
    let labels = || alert.labels.iter().map(|(key, Text(value))| (key, value)).collect::<BTreeMap<_, _>>();
    let who =
        if alert.fingerprint.is_empty() { format!("{:?}", labels()) } else { alert.fingerprint.clone() };
    format!("{} {} {who}", alert.status, event.at.ns())
}

fn event(alert: &Alert) -> Result<Event, (Reason, String)> {
    let malformed = |why: &str| (Reason::Malformed, why.to_owned());
    let at = match alert.status.as_str() {
        "firing" => alert.starts_at,
        "resolved" => {
            alert.ends_at.parse().map_err(|_| malformed("a resolved alert whose `endsAt` is no time"))?
        }
        _ => return Err(malformed("`status` must be firing or resolved")),
    };
    let mut all: Vec<(&str, &str)> =
        alert.labels.iter().map(|(key, Text(value))| (key.as_str(), value.as_str())).collect();
    all.push(("status", &alert.status));
    let labels = key::labels(&mut all).map_err(|why| (Reason::LabelLimit, why))?;
    let text = ["summary", "description"].into_iter().find_map(|name| alert.annotations.get(name));
    let mut body = text.map(|Text(text)| text.clone()).unwrap_or_default();
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
            .map(|read| read.map(|read| read.repeated))
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

    /// A notification as Grafana's alerting sends it.
    const GRAFANA: &str = r#"{"receiver":"relight","status":"firing","orgId":1,"version":"1",
        "groupKey":"{}:{}","truncatedAlerts":3,"title":"[FIRING:1] Slow","state":"alerting","message":"**Firing**",
        "groupLabels":{},"commonLabels":{"alertname":"Slow"},"commonAnnotations":{},"externalURL":"http://g/",
        "alerts":[{"status":"firing","labels":{"alertname":"Slow","service":"shop","grafana_folder":"a b"},
            "annotations":null,"startsAt":"1970-01-01T02:00:05+02:00","endsAt":"0001-01-01T00:00:00Z",
            "generatorURL":"http://g/alerting/1","fingerprint":"ab","silenceURL":"","dashboardURL":"","panelURL":"",
            "values":{"A":null,"B":44.2},"valueString":"[ var='B' labels={} value=44.2 ]","orgId":1}]}"#;

    /// Guarantee: a notification of Grafana's is taken, and how many alerts it left out is known.
    #[test]
    fn a12_grafana_is_understood() {
        let (mut record, mut fresh) = (Record::default(), Fresh::new(&Arc::default()));
        for (body, repeated) in [(GRAFANA.to_owned(), 0), (format!("\u{feff}{GRAFANA}"), 1)] {
            let read = read(body.as_bytes(), &mut fresh, &mut record).expect("a notification");
            assert_eq!(read, Read { repeated, truncated: 3 });
        }
        let [event] = &record.events[..] else { panic!("{:?}", record.events) };
        let expected = r#"{alertname="Slow",grafana_folder="a b",service="shop",status="firing"}"#;
        assert_eq!((event.at.secs(), event.labels.to_string().as_str()), (5, expected));
    }

    /// Scenario: alerts that cannot be taken among ones that can: no status, no time, too long a label name, a number as a
    /// label, `null` for labels.
    /// Guarantee: each is refused by itself and by name; the others are in.
    #[test]
    fn an_alert_is_refused_alone() {
        let long = format!(
            r#"{{"status":"firing","labels":{{"{}":""}},"startsAt":"1970-01-01T00:00:05Z"}}"#,
            "k".repeat(999)
        );
        let no_status = r#"{"labels":{"alertname":"Odd","job":"shop"},"startsAt":"1970-01-01T00:00:05Z"}"#;
        let numbered = r#"{"status":"firing","labels":{"code":500},"startsAt":"1970-01-01T00:00:06Z"}"#;
        let bare = r#"{"status":"firing","labels":null,"startsAt":"1970-01-01T00:00:07Z"}"#;
        let alerts = [FIRING, "{}", no_status, &long, "7", numbered, bare, RESOLVED];
        let (mut record, mut fresh) = (Record::default(), Fresh::new(&Arc::default()));
        read(message("4", &alerts).as_bytes(), &mut fresh, &mut record).expect("a notification");
        assert_eq!(record.events.len(), 4);
        assert_eq!(record.refused, [(Reason::Malformed, 3), (Reason::LabelLimit, 1)]);
        let named = record.refusals.kinds().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(named.contains("`Odd` of service `shop`: malformed 1 (missing field `status`)"), "{named}");
    }

    #[test]
    fn what_is_no_notification_is_malformed() {
        for body in
            ["", "[]", "{}", r#"{"version":5}"#, &message("3", &[FIRING]), r#"{"title":"old","state":"ok"}"#]
        {
            let mut fresh = Fresh::new(&Arc::default());
            let read = read(body.as_bytes(), &mut fresh, &mut Record::default());
            assert_eq!(read.map_err(|fault| fault.outcome), Err(Outcome::Malformed), "{body}");
        }
    }
}
