//! What happened about an incident's onset, for whoever is paged: a deploy, the errors in the log.
//!
//! A choice for people: no rule, gate or step looks at it.

use relight_core::incident::MAX_CONTEXT;
use relight_core::record::Event;
use relight_core::{Span, Timestamp};

use super::GroupQuery;
use super::changes::agrees;

/// How long before the onset something may have happened and still be told.
const BEFORE: Span = Span::from_secs(600);

/// The events to tell of a group whose trouble began at `onset`: changes before log records, of these the severe
/// ones first, of equals the last; in order of time. All of a group without labels; else those that agree with it.
pub(super) fn context(recent: &[Event], query: &GroupQuery, onset: Timestamp) -> Vec<Event> {
    let group = &query.group;
    let is_everything = group.iter().next().is_none();
    let from = onset.minus(BEFORE);
    let belongs = |event: &&Event| event.at >= from && (is_everything || agrees(&event.labels, group));
    let mut told: Vec<&Event> = recent.iter().rev().filter(belongs).collect();
    told.sort_by_key(|event| std::cmp::Reverse((weight(event), event.at)));
    told.truncate(MAX_CONTEXT);
    told.sort_by_key(|event| event.at);
    told.into_iter().cloned().collect()
}

/// How much an event may explain. Severities as OpenTelemetry's log data model names them, and syslog's above them.
fn weight(event: &Event) -> u8 {
    if event.kind != "log" {
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
        context(recent, &query, Timestamp::from_secs(1_000)).iter().map(|event| event.at.secs()).collect()
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
}
