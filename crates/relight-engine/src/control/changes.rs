//! The memory behind `changed(kind, window)`: what happened lately, and where.
//!
//! Keeps neither bodies nor duplicates, and nothing of the kind `log`: log records are counted by
//! signals, and there may be millions of them.

use std::collections::BTreeSet;

use relight_core::incident::LedgerWrite;
use relight_core::record::Event;
use relight_core::rule::CHANGES_FOR;
use relight_core::{Labels, Span, Timestamp};

/// How many events are remembered at most; the oldest go first.
pub(super) const MAX_CHANGES: usize = 10_000;

/// Change events of the last [`CHANGES_FOR`], and of as long before the oldest live incident, by (time, kind, labels).
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeSet<(Timestamp, String, Labels)>);

impl Changes {
    /// As the ledger holds them, in any order.
    pub(super) fn new(events: &[Event]) -> Self {
        Self(events.iter().map(key).collect())
    }

    /// Takes note of an event that came before the turn of the bin from `start` to `end`.
    ///
    /// An alert that still fires may be heard of long after it began: its sender waits, groups and comes back after an
    /// outage. It then counts at its own time and, the first time that it comes, in the bin that it came in, by event
    /// time, as a replay sees it.
    pub(super) fn remember(
        &mut self,
        event: &Event,
        (start, end): (Timestamp, Timestamp),
        log: &mut Vec<LedgerWrite>,
    ) {
        if event.is_log() {
            return;
        }
        let too_old = event.at < end.minus(CHANGES_FOR);
        let is_new = !self.0.contains(&key(event));
        if is_new && !too_old {
            self.insert(event.clone(), log);
        }
        if is_new && event.at < start && still_fires(event) {
            self.insert(Event { at: end.minus(Span::from_ns(1)), ..event.clone() }, log);
        }
    }

    fn insert(&mut self, event: Event, log: &mut Vec<LedgerWrite>) {
        if self.0.insert(key(&event)) {
            log.push(LedgerWrite::Change(event));
        }
    }

    /// Drops what is too old for whoever looks back from `end`, or too much. Whole instants go, so that the ledger, which is
    /// told a time, drops the same.
    pub(super) fn forget(&mut self, end: Timestamp, log: &mut Vec<LedgerWrite>) {
        let mut before = end.minus(CHANGES_FOR);
        if let Some(excess) = self.0.len().checked_sub(MAX_CHANGES + 1) {
            let last_out = self.0.iter().nth(excess).map_or(before, |(at, ..)| *at);
            before = before.max(last_out.plus(Span::from_ns(1)));
        }
        let kept = self.0.split_off(&(before, String::new(), Labels::default()));
        let dropped = std::mem::replace(&mut self.0, kept);
        if !dropped.is_empty() {
            log.push(LedgerWrite::ForgetChanges(before));
        }
    }

    /// Whether an event of `kind` in `[now - window, now)` shares at least one label key with the group
    /// and agrees on all that it shares.
    pub(super) fn changed(&self, kind: &str, window: Span, now: Timestamp, group: &Labels) -> bool {
        let from = (now.minus(window), String::new(), Labels::default());
        let until = (now, String::new(), Labels::default());
        from < until && self.0.range(from..until).any(|(_, k, labels)| k == kind && agrees(labels, group))
    }
}

/// Whether it is an alert that had not ended when it was sent.
fn still_fires(event: &Event) -> bool {
    event.kind == "alert" && event.labels.get("status") == Some("firing")
}

fn key(event: &Event) -> (Timestamp, String, Labels) {
    (event.at, event.kind.clone(), event.labels.clone())
}

/// Whether labels share a key with a group, and agree with it on all that they share.
pub(super) fn agrees(event: &Labels, group: &Labels) -> bool {
    let mut shared = event.iter().filter_map(|(key, value)| Some((value, group.get(key)?))).peekable();
    shared.peek().is_some() && shared.all(|(theirs, ours)| theirs == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        Labels::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
    }

    fn event(at: i64, kind: &str, on: &str) -> Event {
        let body = String::new();
        Event { at: Timestamp::from_secs(at), kind: kind.to_owned(), labels: labels(on), body }
    }

    fn check(at: i64, kind: &str, on: &str, group: &str, expected: bool) {
        let mut changes = Changes::default();
        let now = Timestamp::from_secs(1_000);
        changes.remember(&event(at, kind, on), (now, now), &mut Vec::new());
        let found = changes.changed("deploy", Span::from_secs(100), now, &labels(group));
        assert_eq!(found, expected, "{kind} at {at} on {on:?}, asked for {group:?}");
    }

    /// Guarantee: the window is [T - w, T), and labels must agree wherever both have them.
    #[test]
    fn a_change_is_joined_by_window_and_shared_labels() {
        check(950, "deploy", "service=shop", "service=shop", true);
        check(900, "deploy", "service=shop", "service=shop", true);
        check(899, "deploy", "service=shop", "service=shop", false);
        check(1_000, "deploy", "service=shop", "service=shop", false);
        check(950, "flag", "service=shop", "service=shop", false);
        check(950, "log", "service=shop", "service=shop", false);
        check(950, "deploy", "service=cart", "service=shop", false);
        check(950, "deploy", "service=shop version=7", "service=shop cluster=eu", true);
        check(950, "deploy", "service=shop cluster=us", "service=shop cluster=eu", false);
        check(950, "deploy", "version=7", "service=shop", false);
        check(950, "deploy", "", "service=shop", false);
        check(950, "deploy", "service=shop", "", false);
    }

    /// Scenario: more events than are kept, several of them at the same instant, then a day goes by.
    /// Guarantee: memory stays bounded, and the time told to the ledger drops the same events there.
    #[test]
    fn memory_is_bounded_and_the_ledger_drops_the_same() {
        let mut changes = Changes::default();
        let mut ledger: Vec<Event> = Vec::new();
        for n in 0..(MAX_CHANGES as i64 + 500) {
            let mut log = Vec::new();
            let now = Timestamp::from_secs(n / 3 + 1);
            changes.remember(&event(n / 3, "deploy", &format!("n={n}")), (now, now), &mut log);
            changes.forget(now, &mut log);
            for write in log {
                match write {
                    LedgerWrite::Change(event) => ledger.push(event),
                    LedgerWrite::ForgetChanges(before) => ledger.retain(|event| event.at >= before),
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(changes.0.len() <= MAX_CHANGES);
            assert_eq!(changes.0.len(), ledger.len());
        }
        changes.forget(Timestamp::from_secs(1_000_000), &mut Vec::new());
        assert!(changes.0.is_empty());
    }

    /// Guarantee: the same event twice (a retried batch, a rewind) is remembered once.
    #[test]
    fn duplicates_are_not_written_twice() {
        let (mut changes, mut log) = (Changes::default(), Vec::new());
        for _ in 0..3 {
            let now = Timestamp::from_secs(9);
            changes.remember(&event(5, "deploy", "a=1"), (now, now), &mut log);
        }
        assert_eq!(log.len(), 1);
    }

    /// Scenario: an alert comes 40 min after it began, or two days; a resolved alert and a deploy come as late; then the
    /// same alert comes again, after a restart, an hour later.
    /// Guarantee: the alert that still fires counts from when it was heard of, once, and the ledger has it; what is over
    /// counts at its own time alone.
    #[test]
    fn a13_an_alert_that_still_fires_counts_when_it_is_heard_of() {
        let (bin, day) = (Span::from_secs(10), 86_400);
        let now = Timestamp::from_secs(10 * day);
        let group = labels("service=shop");
        let (hour, half_hour) = (Span::from_secs(3_600), Span::from_secs(1_800));
        for (kind, on, began, is_heard) in [
            ("alert", "service=shop status=firing", 10 * day - 2_400, true),
            ("alert", "service=shop status=firing", 8 * day, true),
            ("alert", "service=shop status=resolved", 10 * day - 2_400, false),
            ("alert", "service=cart status=firing", 10 * day - 2_400, false),
            ("deploy", "service=shop status=firing", 10 * day - 2_400, false),
        ] {
            let (mut changes, mut log) = (Changes::default(), Vec::new());
            changes.remember(&event(began, kind, on), (now.minus(bin), now), &mut log);
            assert_eq!(changes.changed(kind, half_hour, now, &group), is_heard, "{kind} {on}");
            let events: Vec<Event> = log
                .drain(..)
                .map(|write| match write {
                    LedgerWrite::Change(event) => event,
                    other => panic!("unexpected {other:?}"),
                })
                .collect();
            let mut again = Changes::new(&events);
            assert_eq!(again.0, changes.0);
            let later = now.plus(hour);
            again.remember(&event(began, kind, on), (later.minus(bin), later), &mut log);
            let is_remembered = began > 9 * day;
            assert_eq!(
                again.changed(kind, half_hour, later, &group),
                is_heard && !is_remembered,
                "{kind} {on}"
            );
        }
    }
}
