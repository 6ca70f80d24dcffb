//! What a reader does now and then: health, the ends of partitions, commits, new partitions, the watchdog.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::super::health::{Leader, Statistics};
use super::super::partition::Part;
use super::super::scout::Question;
use super::super::{News, count};
use super::{COMMIT_EVERY, Reader};

/// A partition whose leader is away for longer is told to be unreachable: leaders move, and brokers restart.
const AWAY_AFTER: Duration = Duration::from_secs(5);
/// How long a leader must have answered before silence means that there is nothing: what came meanwhile must have
/// had its chance to be fetched.
const WELL_FOR: Duration = Duration::from_secs(2);
/// How long nothing may come although there is more.
const STALL: Duration = Duration::from_mins(1);

impl Reader {
    pub(super) fn tick(&mut self, now: Duration) {
        if now >= self.next_commit && !self.is_committing {
            self.next_commit = now + COMMIT_EVERY;
            let may_commit = (self.shared.surroundings.may_commit)();
            let offsets = if may_commit { self.to_commit() } else { Vec::new() };
            if !offsets.is_empty() {
                self.is_committing = self.ask(Question::Commit(offsets));
            }
        }
        self.look(now);
        if let Some(statistics) = self.client.context().take_statistics() {
            self.pulse(&statistics, now);
        }
        // What the client complains of is told where nothing works yet; health is read from the statistics.
        for complaint in self.client.context().take_complaints() {
            if self.parts.values().all(|part| !part.is_assigned) {
                self.say(News::Client(complaint), now);
            }
        }
    }

    fn pulse(&mut self, statistics: &Statistics, now: Duration) {
        let wall = self.shared.surroundings.clock.wall();
        let (mut news, mut is_stuck) = (Vec::new(), false);
        for (id, part) in &mut self.parts {
            let is_fetching = part.is_assigned && part.paused.is_none();
            match statistics.leader(&self.topic, *id, is_fetching) {
                Leader::Away(why) => {
                    part.well_since = None;
                    let since = *part.away_since.get_or_insert(now);
                    if now >= since + AWAY_AFTER && part.tell_away(&why, wall) {
                        news.push((part.inlet.partition().to_owned(), why));
                    }
                }
                Leader::Quiet => part.away_since = None,
                Leader::Answers => {
                    part.away_since = None;
                    let since = *part.well_since.get_or_insert(now);
                    let is_at_end = part.is_at_end
                        && statistics.partition(&self.topic, *id).is_some_and(|p| p.is_at_end());
                    if is_at_end && now >= since + WELL_FOR {
                        part.tell_end(wall);
                    }
                    is_stuck |= is_fetching && is_stalled(part, statistics, (&self.topic, *id), now);
                }
            }
        }
        for (about, why) in news {
            self.say_about(Some(about), News::Unreachable(why), now);
        }
        if is_stuck {
            self.unstick(now);
        }
    }

    /// A client that does not go on is replaced, once a minute at most; if that did not help, nobody shall call
    /// this reader alive.
    fn unstick(&mut self, now: Duration) {
        if self.last_rebuild.is_some_and(|at| self.last_record <= at) {
            count(&self.shared.counters.stuck, 1);
        }
        self.rebuild(now);
    }
}

/// Whether nothing was fetched, or nothing taken of what was fetched, for too long although there is more.
fn is_stalled(part: &mut Part, statistics: &Statistics, (topic, id): (&str, i32), now: Duration) -> bool {
    let Some(found) = statistics.partition(topic, id).filter(|found| found.has_more() && !part.is_holding())
    else {
        part.stalled = None;
        return false;
    };
    // Each record that comes moves one of both.
    let place = found.fetched().wrapping_add(part.next.unwrap_or(0) as i64);
    match part.stalled {
        Some((since, before)) if before == place => now >= since + STALL,
        _ => {
            part.stalled = Some((now, place));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::dead_letter::Unwritten;
    use super::*;
    use crate::live::{Budget, Hub, Reads};

    fn statistics(next: i64, end: i64) -> Statistics {
        let json = format!(
            r#"{{"topics":{{"t":{{"partitions":{{"0":{{"leader":1,"next_offset":{next},"eof_offset":-1001,
            "ls_offset":{end},"fetchq_cnt":0}}}}}}}}}}"#
        );
        serde_json::from_str(&json).expect("statistics of the shape that librdkafka writes")
    }

    /// Scenario: a partition with more to read that does not move, one that moves, one at its end.
    /// Guarantee: only the first is stalled, and only after a minute.
    #[test]
    fn b12_consumer_stall() {
        let (hub, _opened) = Hub::new(BTreeMap::new());
        let mut part = Part::new(hub.open("s/t/0", Reads::Pull, &Budget::new(1)), 1, Unwritten::default());
        let mut check = |next, end, at_s| {
            is_stalled(&mut part, &statistics(next, end), ("t", 0), Duration::from_secs(at_s))
        };
        assert!(!check(5, 9, 0));
        assert!(!check(5, 9, 59));
        assert!(check(5, 9, 60));
        assert!(!check(6, 9, 61));
        assert!(!check(6, 9, 120));
        assert!(check(6, 10, 121));
        assert!(!check(10, 10, 200));
        assert!(!check(10, 11, 300));
    }
}
