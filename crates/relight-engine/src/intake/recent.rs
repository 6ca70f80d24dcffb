//! What happened lately, for people: change events and log records of closed bins.
//!
//! Decides nothing. A part of the snapshot and not of the ledger, since log records may be millions: what a
//! crash takes comes again with the records behind the snapshot.

use std::collections::BTreeMap;

use relight_core::Labels;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Event, decode_event, encode_event};

/// How many events are kept at most; the oldest go first.
pub(super) const MAX_RECENT: usize = 1_024;
/// How many of one kind and labels are kept of a bin, the last ones: who talks most must not push the others out.
const MAX_ALIKE: usize = 4;
/// Bytes kept of an event's text.
const MAX_BODY: usize = 512;

/// The last events of closed bins: by bin, and within one as the bin has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recent(Vec<Event>);

impl Recent {
    /// Takes note of the events of a bin, in their order.
    pub(super) fn remember(&mut self, events: &[Event]) {
        let mut alike: BTreeMap<(&str, &Labels), usize> = BTreeMap::new();
        let mut kept = Vec::new();
        for event in events.iter().rev() {
            let n = alike.entry((&event.kind, &event.labels)).or_default();
            *n += 1;
            if *n <= MAX_ALIKE && kept.len() < MAX_RECENT {
                kept.push(event);
            }
        }
        self.0.extend(kept.into_iter().rev().map(shortened));
        self.0.drain(..self.0.len().saturating_sub(MAX_RECENT));
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.0
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).encode(out);
        self.0.iter().for_each(|event| encode_event(event, out));
    }

    pub(super) fn load(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let events = (0..reader.len(20, "recent events")?).map(|_| decode_event(reader));
        Ok(Self(events.collect::<Result<_, _>>()?))
    }
}

fn shortened(event: &Event) -> Event {
    let mut event = event.clone();
    event.body.truncate(event.body.floor_char_boundary(MAX_BODY));
    event.body.shrink_to_fit();
    event
}

#[cfg(test)]
mod tests {
    use relight_core::Timestamp;

    use super::*;

    fn log(n: usize, who: &str) -> Event {
        let labels = Labels::new([("service".to_owned(), who.to_owned())]);
        Event { at: Timestamp::from_secs(n as i64), kind: "log".to_owned(), labels, body: format!("{n}") }
    }

    fn bodies(recent: &Recent) -> Vec<&str> {
        recent.events().iter().map(|event| event.body.as_str()).collect()
    }

    /// Scenario: one service logs a million times in a bin, another once, before it.
    /// Guarantee: of each the last are kept, in their order.
    #[test]
    fn who_talks_most_pushes_nobody_out() {
        let mut events = vec![log(0, "quiet")];
        events.extend((1..100_000).map(|n| log(n, "loud")));
        let mut recent = Recent::default();
        recent.remember(&events);
        assert_eq!(bodies(&recent), ["0", "99996", "99997", "99998", "99999"]);
    }

    /// Scenario: more events than are kept, in one bin and in several; one with a text of many bytes a character.
    /// Guarantee: the oldest go, and a text is cut between two characters.
    #[test]
    fn memory_is_bounded() {
        let everybody = |from: usize| -> Vec<Event> {
            (from..from + MAX_RECENT - 1).map(|n| log(n, &format!("{n}"))).collect()
        };
        let mut recent = Recent::default();
        recent.remember(&everybody(0));
        recent.remember(&everybody(5_000));
        assert_eq!((recent.events().len(), bodies(&recent)[0]), (MAX_RECENT, "1022"));
        recent.remember(&[everybody(0), everybody(5_000)].concat());
        assert_eq!((recent.events().len(), bodies(&recent)[0]), (MAX_RECENT, "1022"));
        recent.remember(&[
            Event { body: "ü".repeat(1_000) + "x", ..log(0, "long") },
            Event { body: "x".to_owned() + &"ü".repeat(1_000), ..log(0, "odd") },
        ]);
        let lengths: Vec<usize> =
            recent.events()[MAX_RECENT - 2..].iter().map(|event| event.body.len()).collect();
        assert_eq!(lengths, [MAX_BODY, MAX_BODY - 1]);
    }
}
