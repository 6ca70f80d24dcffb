//! What happened lately, for people: change events and log records of closed bins.
//!
//! Decides nothing. A part of the snapshot and not of the ledger, since log records may be millions: what a
//! crash takes comes again with the records behind the snapshot.

use std::collections::{BTreeMap, VecDeque};

use relight_core::Labels;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Event, decode_event, encode_event};

/// Log records that are kept at most, and events of other kinds; the oldest go first. Apart, so that no storm in the log
/// pushes out the deploy before it.
const MAX_LOGS: usize = 768;
const MAX_CHANGES: usize = 256;
/// How many of one kind, severity and service are kept of a bin, the last ones.
const MAX_ALIKE: usize = 4;
/// Bytes kept of an event's text.
const MAX_BODY: usize = 512;
/// Bytes kept of an event's labels, the shortest first: all together are thus 6 MiB at most.
const MAX_NAMED: usize = 4 << 10;

/// The last events of closed bins: by bin, and within one as the bin has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    logs: VecDeque<Event>,
    changes: VecDeque<Event>,
}

impl Recent {
    /// Takes note of the events of a bin, in their order.
    pub fn remember(&mut self, events: &[Event]) {
        let mut alike = BTreeMap::new();
        let (mut logs, mut changes) = (Vec::new(), Vec::new());
        for event in events.iter().rev() {
            let (kept, most) =
                if event.is_log() { (&mut logs, MAX_LOGS) } else { (&mut changes, MAX_CHANGES) };
            if kept.len() == most {
                continue;
            }
            let n = alike.entry(voice(event)).or_insert(0);
            *n += 1;
            if *n <= MAX_ALIKE {
                kept.push(shortened(event));
            }
        }
        for (all, kept, most) in [(&mut self.logs, logs, MAX_LOGS), (&mut self.changes, changes, MAX_CHANGES)]
        {
            all.extend(kept.into_iter().rev());
            all.drain(..all.len().saturating_sub(most));
        }
    }

    /// Changes, then log records; each the oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.changes.iter().chain(&self.logs)
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        for events in [&self.logs, &self.changes] {
            (events.len() as u32).encode(out);
            for event in events {
                encode_event(event, out);
            }
        }
    }

    pub(super) fn load(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { logs: load(reader)?, changes: load(reader)? })
    }
}

fn load(reader: &mut Reader<'_>) -> Result<VecDeque<Event>, Corrupt> {
    (0..reader.len(20, "recent events")?).map(|_| decode_event(reader)).collect()
}

/// Who says it: its labels may have a request's number, and then no two are alike.
fn voice(event: &Event) -> [&str; 3] {
    let service = ["service.name", "service", "job"].into_iter().find_map(|key| event.labels.get(key));
    [&event.kind, event.labels.get("severity").unwrap_or_default(), service.unwrap_or_default()]
}

fn shortened(event: &Event) -> Event {
    let Event { at, kind, labels, body } = event;
    let body = body[..body.floor_char_boundary(MAX_BODY)].to_owned();
    let size = |(key, value): &(&str, &str)| key.len() + value.len();
    let labels = if labels.iter().map(|label| size(&label)).sum::<usize>() <= MAX_NAMED {
        labels.clone()
    } else {
        let mut shortest: Vec<(&str, &str)> = labels.iter().collect();
        shortest.sort_by_key(size);
        let mut left = MAX_NAMED;
        let fits =
            |label: &(&str, &str)| left.checked_sub(size(label)).inspect(|rest| left = *rest).is_some();
        let kept = shortest.into_iter().take_while(fits);
        Labels::new(kept.map(|(key, value)| (key.to_owned(), value.to_owned())))
    };
    Event { at: *at, kind: kind.clone(), labels, body }
}

#[cfg(test)]
mod tests {
    use relight_core::Timestamp;

    use super::*;

    fn event(kind: &str, n: usize, who: &str) -> Event {
        let label = |key: &str, value: String| (key.to_owned(), value);
        let labels = Labels::new([label("service", who.to_owned()), label("request", n.to_string())]);
        Event { at: Timestamp::from_secs(n as i64), kind: kind.to_owned(), labels, body: n.to_string() }
    }

    fn bodies(recent: &Recent) -> Vec<&str> {
        recent.events().map(|event| event.body.as_str()).collect()
    }

    /// Scenario: a deploy; then one service logs a hundred thousand times in a bin, each line with labels of its own, and
    /// another once, before it.
    /// Guarantee: of each the last are kept, in their order.
    #[test]
    fn who_talks_most_in_a_bin_pushes_nobody_out() {
        let mut events = vec![event("deploy", 7, "loud"), event("log", 8, "quiet")];
        events.extend((9..100_000).map(|n| event("log", n, "loud")));
        let mut recent = Recent::default();
        recent.remember(&events);
        assert_eq!(bodies(&recent), ["7", "8", "99996", "99997", "99998", "99999"]);
    }

    /// Scenario: more log records than are kept, of a thousand services, in one bin and in several, with a deploy before;
    /// texts and labels that are too long.
    /// Guarantee: the oldest log records go, and the deploy stays; a text is cut between two characters; of labels the
    /// shortest stay.
    #[test]
    fn memory_is_bounded() {
        let everybody =
            |from: usize| (from..from + 1_000).map(|n| event("log", n, &n.to_string())).collect::<Vec<_>>();
        let mut recent = Recent::default();
        recent.remember(&[event("deploy", 1, "shop")]);
        recent.remember(&everybody(0));
        recent.remember(&everybody(5_000));
        assert_eq!((recent.logs.len(), bodies(&recent)[..2].to_vec()), (MAX_LOGS, vec!["1", "5232"]));
        recent.remember(&[everybody(0), everybody(5_000)].concat());
        assert_eq!((recent.logs.len(), bodies(&recent)[..2].to_vec()), (MAX_LOGS, vec!["1", "5232"]));
        recent.remember(&(0..1_000).map(|n| event(&n.to_string(), n, "shop")).collect::<Vec<_>>());
        assert_eq!((recent.changes.len(), bodies(&recent)[0]), (MAX_CHANGES, "744"));

        let mut recent = Recent::default();
        let texts = ["ü".repeat(1_000), "x".to_owned() + &"ü".repeat(1_000)];
        let mut long = texts.map(|body| Event { body, ..event("log", 1, "shop") }).to_vec();
        let many = (0..60)
            .map(|n| (format!("k{n:02}"), "v".repeat(100 + n)))
            .chain([("service".to_owned(), "shop".to_owned())]);
        long.push(Event { labels: Labels::new(many), ..event("log", 1, "shop") });
        recent.remember(&long);
        let lengths: Vec<usize> = recent.events().map(|event| event.body.len()).collect();
        assert_eq!(lengths, [MAX_BODY, MAX_BODY - 1, 1]);
        let labels = &recent.logs[2].labels;
        assert_eq!(
            (labels.get("service"), labels.get("k00").map(str::len), labels.get("k59")),
            (Some("shop"), Some(100), None)
        );
    }
}
