//! What happened about an incident's onset, for whoever is paged: a deploy, the errors in the log.
//!
//! A choice for people: no rule, gate or step looks at it, and it is short enough for every page.

use relight_core::incident::MAX_CONTEXT;
use relight_core::record::Event;
use relight_core::{Labels, Span, Timestamp};

use super::GroupQuery;
use super::changes::agrees;

/// How long before the onset something may have happened and still be told.
const BEFORE: Span = Span::from_secs(600);
/// Changes of one kind that come before all log records; a client's thousand named events are no thousand deploys.
const MAX_ALIKE: usize = 4;
/// Bytes that all events of an incident may take, written as JSON; a page has room for four times as many.
const MAX_BYTES: usize = 16 << 10;
/// An event's kind, its labels' keys and their values are told up to this, and so many labels: those of the group, the
/// severity, then the others by their names.
const MAX_NAME: usize = 128;
const MAX_LABELS: usize = 16;

/// The events to tell of a group whose trouble began at `onset`, oldest first. Of too many: changes before log records, of
/// these the severe ones, of equals the last. All of a group without labels; else those that agree with it.
pub(super) fn context<'a>(
    recent: impl Iterator<Item = &'a Event>,
    query: &GroupQuery,
    onset: Timestamp,
) -> Vec<Event> {
    let group = &query.group;
    let is_everything = group.iter().next().is_none();
    let from = onset.minus(BEFORE);
    let belongs = |event: &&Event| event.at >= from && (is_everything || agrees(&event.labels, group));
    let mut all: Vec<&Event> = recent.filter(belongs).collect();
    all.sort_by_key(|event| std::cmp::Reverse(event.at));
    let mut kinds: Vec<&str> = Vec::new();
    let mut ranked: Vec<(u8, &Event)> = Vec::new();
    for event in all {
        let alike = kinds.iter().filter(|kind| **kind == event.kind).count();
        if !event.is_log() {
            kinds.push(&event.kind);
        }
        ranked.push((if alike < MAX_ALIKE { weight(event) } else { 0 }, event));
    }
    ranked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let mut left = MAX_BYTES;
    let mut told: Vec<Event> = Vec::new();
    for event in ranked.into_iter().take(MAX_CONTEXT).map(|(_, event)| told_of(event, group)) {
        let Some(rest) = left.checked_sub(bytes(&event)) else { break };
        left = rest;
        told.push(event);
    }
    told.sort_by_key(|event| event.at);
    told
}

/// An event without what is too long to be told.
fn told_of(event: &Event, group: &Labels) -> Event {
    let is_short = |(key, value): &(&str, &str)| key.len() <= MAX_NAME && value.len() <= MAX_NAME;
    let mut labels: Vec<(&str, &str)> = event.labels.iter().filter(is_short).collect();
    labels.sort_by_key(|(key, _)| (group.get(key).is_none(), *key != "severity"));
    let labels = Labels::new(
        labels.into_iter().take(MAX_LABELS).map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let kind = event.kind[..event.kind.floor_char_boundary(MAX_NAME)].to_owned();
    Event { at: event.at, kind, labels, body: event.body.clone() }
}

/// About what it takes as JSON, where a control character takes six bytes.
fn bytes(event: &Event) -> usize {
    let text = |text: &str| {
        text.bytes()
            .map(|b| if b < b' ' { 6 } else { 1 + usize::from(b == b'"' || b == b'\\') })
            .sum::<usize>()
            + 6
    };
    let labels = event.labels.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>();
    64 + text(&event.kind) + labels + text(&event.body)
}

/// How much an event may explain. Severities as OpenTelemetry's log data model names them, and syslog's above them.
fn weight(event: &Event) -> u8 {
    if !event.is_log() {
        return 3;
    }
    let severity = event.labels.get("severity").unwrap_or_default().to_ascii_lowercase();
    match severity.get(..4).unwrap_or(&severity) {
        "fata" | "emer" | "aler" | "crit" | "erro" | "err" | "pani" | "seve" => 2,
        "warn" => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    fn event(at: i64, kind: &str, pairs: &[(&str, &str)]) -> Event {
        Event {
            at: Timestamp::from_secs(at),
            kind: kind.to_owned(),
            labels: labels(pairs),
            body: String::new(),
        }
    }

    fn times(recent: &[Event], group: &[(&str, &str)]) -> Vec<i64> {
        let query = GroupQuery { rule: 0, group: labels(group) };
        context(recent.iter(), &query, Timestamp::from_secs(1_000))
            .iter()
            .map(|event| event.at.secs())
            .collect()
    }

    /// Scenario: a deploy, errors and warnings among a hundred chatty lines, of this service and of another one.
    /// Guarantee: the deploy and what is severe of this service are told, then the last lines; in order of time.
    #[test]
    fn what_may_explain_it_comes_first() {
        let shop = ("service", "shop");
        let mut recent = vec![
            event(399, "deploy", &[shop]),
            event(400, "deploy", &[shop]),
            event(410, "log", &[shop, ("severity", "ERROR")]),
            event(411, "log", &[shop, ("severity", "Warning")]),
            event(412, "log", &[("service", "cart"), ("severity", "ERROR")]),
            event(413, "log", &[("severity", "ERROR")]),
        ];
        recent.extend((900..1_000).map(|at| event(at, "log", &[shop, ("severity", "info")])));
        let mut expected = vec![400, 410, 411];
        expected.extend(987..1_000);
        assert_eq!(times(&recent, &[shop, ("zone", "b")]), expected);
        assert_eq!(times(&recent[..6], &[]), [400, 410, 411, 412, 413]);
        assert_eq!(times(&recent, &[("zone", "b")]), [0_i64; 0]);
    }

    /// Scenario: a client's named events, a hundred of them, after an error and a deploy; then events with more labels, and
    /// longer ones, than a page has room for.
    /// Guarantee: the deploy and the error are told all the same; what is told has a bound, however it is escaped.
    #[test]
    fn what_is_told_is_short() {
        let shop = ("service", "shop");
        let mut recent =
            vec![event(410, "deploy", &[shop]), event(411, "log", &[shop, ("severity", "ERROR")])];
        recent.extend((900..1_000).map(|at| event(at, "browser.click", &[shop])));
        let told = times(&recent, &[shop]);
        assert_eq!((told.len(), &told[..2]), (MAX_CONTEXT, &[410, 411][..]));

        let label = |n: usize| (format!("k{n:02}"), "\u{1}".repeat(if n == 7 { MAX_NAME + 1 } else { 20 }));
        let labels = Labels::new((0..40).map(label).chain([("service".to_owned(), "shop".to_owned())]));
        let wide = Event { kind: "k".repeat(MAX_NAME + 1), labels, ..event(999, "", &[]) };
        let of_shop = GroupQuery { rule: 0, group: Labels::new([("service".to_owned(), "shop".to_owned())]) };
        let told = context([wide.clone()].iter(), &of_shop, Timestamp::from_secs(1_000));
        assert_eq!(
            told[0].labels.get("service"),
            Some("shop"),
            "what it shares with the group is told first"
        );
        let query = GroupQuery { rule: 0, group: Labels::default() };
        let told = context(vec![wide; 30].iter(), &query, Timestamp::from_secs(1_000));
        assert!(
            told.iter()
                .all(|event| event.kind.len() == MAX_NAME && event.labels.iter().count() == MAX_LABELS)
        );
        assert!(told.iter().all(|event| event.labels.get("k07").is_none()));
        assert!(!told.is_empty() && told.iter().map(bytes).sum::<usize>() <= MAX_BYTES, "{}", told.len());
    }
}
