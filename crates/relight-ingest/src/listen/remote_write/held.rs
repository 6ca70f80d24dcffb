//! Samples of families that wait for metadata: kept for a bounded time, in bounded memory, and then given out.
//!
//! A family waits until metadata or the clock settles what it is: [`WAIT`] after the first sample was heard, or once
//! its own samples span as much, so that a backlog that is sent faster than time goes by waits no longer than it
//! would have. Samples that would be late by then, because other families of the source moved on, are dropped and
//! counted: they are at most `allowed_lateness` old in a stream that flows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use relight_core::{KeyView, Span, Timestamp};

/// How long a family waits. Prometheus sends metadata once a minute.
pub(super) const WAIT: Span = Span::from_secs(90);
/// Families that wait at a time; others are guessed at once.
pub(super) const MAX_WAITING: usize = 10_000;
/// Memory for samples; the oldest go first.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// What a sample takes beside its key.
const SAMPLE_BYTES: usize = 64;

/// A sample whose kind is not known yet.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) key: Arc<[u8]>,
    pub(super) at: Timestamp,
    pub(super) value: f64,
}

impl Sample {
    /// Its metric, which is its family: a name with a suffix tells by itself.
    pub(super) fn name(&self) -> &str {
        KeyView::new(&self.key).name()
    }

    fn bytes(&self) -> usize {
        self.key.len() + SAMPLE_BYTES
    }
}

/// Since when a family waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    heard: Timestamp,
    /// The times of its oldest and newest sample.
    first: Timestamp,
    newest: Timestamp,
}

/// Families that wait, and their samples.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: HashMap<Box<str>, Waiting>,
    /// Who began to wait when, the earliest first. A family that waits no more may still be here.
    order: VecDeque<(Timestamp, Box<str>)>,
    samples: VecDeque<Sample>,
    bytes: usize,
    /// The newest sample of the source that was taken.
    newest: Timestamp,
}

impl Held {
    /// A sample of a family came whose kind is not known. Returns whether the family has waited long enough, or there is
    /// no more room to wait.
    pub(super) fn wait(&mut self, name: &str, at: Timestamp, now: Timestamp) -> bool {
        let Some(known) = self.waiting.get_mut(name) else {
            if self.waiting.len() >= MAX_WAITING {
                return true;
            }
            self.waiting.insert(name.into(), Waiting { heard: now, first: at, newest: at });
            self.order.push_back((now, name.into()));
            return false;
        };
        known.first = known.first.min(at);
        known.newest = known.newest.max(at);
        // A clock that was set back must not make it wait again.
        known.heard = known.heard.min(now);
        known.newest.since(known.first) >= WAIT || now.since(known.heard) >= WAIT
    }

    /// Families that have waited long enough by the clock: they wait no more.
    pub(super) fn expired(&mut self, now: Timestamp) -> Vec<Box<str>> {
        let mut expired = Vec::new();
        while let Some((since, _)) = self.order.front()
            && (now.since(*since) >= WAIT || *since > now)
        {
            let Some((since, name)) = self.order.pop_front() else { break };
            if since > now {
                // The clock was set back: waited for from here on.
                self.order.push_back((now, name));
                break;
            }
            if self.waiting.remove(&name).is_some() {
                expired.push(name);
            }
        }
        expired
    }

    /// A family waits no more. Returns whether it did.
    pub(super) fn settle(&mut self, name: &str) -> bool {
        let did_wait = self.waiting.remove(name).is_some();
        if self.order.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.order.retain(|(_, name)| waiting.contains_key(name));
        }
        did_wait
    }

    /// Keeps samples. Returns how many of the oldest were dropped: for want of room, or because they would be late.
    pub(super) fn keep(&mut self, samples: Vec<Sample>, lateness: Span) -> u64 {
        for sample in samples {
            self.bytes += sample.bytes();
            self.samples.push_back(sample);
        }
        let (since, mut dropped) = (self.since(lateness), 0);
        while self.bytes > MAX_BYTES || self.samples.front().is_some_and(|oldest| oldest.at < since) {
            let Some(oldest) = self.samples.pop_front() else { break };
            self.bytes -= oldest.bytes();
            dropped += 1;
        }
        dropped
    }

    /// What is older would be late.
    fn since(&self, lateness: Span) -> Timestamp {
        if self.newest.is_known() { self.newest.minus(lateness) } else { Timestamp::MIN }
    }

    /// Gives out the samples whose family waits no more: those from `since` on, and how many were older.
    pub(super) fn release(&mut self, lateness: Span) -> (Vec<Sample>, u64) {
        let since = self.since(lateness);
        let (mut out, mut dropped) = (Vec::new(), 0);
        for sample in std::mem::take(&mut self.samples) {
            let is_late = sample.at < since;
            if !is_late && self.waiting.contains_key(sample.name()) {
                self.samples.push_back(sample);
                continue;
            }
            self.bytes -= sample.bytes();
            if is_late {
                dropped += 1;
            } else {
                out.push(sample);
            }
        }
        (out, dropped)
    }

    /// Points up to this time were taken.
    pub(super) fn moved_to(&mut self, newest: Timestamp) {
        self.newest = self.newest.max(newest);
    }

    pub(super) fn families(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use relight_core::series::encode_key;

    use super::*;

    const LATENESS: Span = Span::from_secs(10);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn sample(name: &str, secs: i64) -> Sample {
        let mut key = Vec::new();
        encode_key(name, [("job", "shop")].into_iter(), &mut key);
        Sample { key: key.into(), at: at(secs), value: 1.0 }
    }

    fn shown(samples: &[Sample]) -> Vec<(&str, i64)> {
        samples.iter().map(|sample| (sample.name(), sample.at.secs())).collect()
    }

    /// Scenario: a family whose samples come as time goes by; one of a backlog that comes at once; a clock that is set
    /// back by an hour.
    /// Guarantee: each waits for 90 s of its own time or of the clock's, and never for ever.
    #[test]
    fn a_family_waits_for_a_bounded_time() {
        let mut held = Held::default();
        let waits = |held: &mut Held, at_secs, now| !held.wait("jobs", at(at_secs), at(now));
        assert!(waits(&mut held, 0, 1_000) && waits(&mut held, 89, 1_089));
        assert!(!waits(&mut held, 89, 1_090));
        assert_eq!(held.expired(at(1_089)).len(), 0);
        assert_eq!(held.expired(at(1_090)), ["jobs".into()]);
        assert!(waits(&mut held, 0, 2_000) && waits(&mut held, 89, 2_000) && !waits(&mut held, 90, 2_000));
        let mut held = Held::default();
        assert!(waits(&mut held, 0, 3_600));
        assert_eq!(held.expired(at(0)).len(), 0);
        assert_eq!(held.expired(at(90)), ["jobs".into()]);
    }

    /// Scenario: two families wait, one is settled; the source's other families have moved on by 20 s.
    /// Guarantee: the samples of the settled one come out in their order, without those that would be late; the other's
    /// stay.
    #[test]
    fn what_is_settled_comes_out() {
        let mut held = Held::default();
        for (name, secs) in [("jobs", 1), ("mails", 2), ("jobs", 15), ("jobs", 20), ("mails", 20)] {
            assert!(!held.wait(name, at(secs), at(0)));
            assert_eq!(held.keep(vec![sample(name, secs)], LATENESS), 0);
        }
        held.settle("jobs");
        held.moved_to(at(20));
        let (out, dropped) = held.release(LATENESS);
        assert_eq!((shown(&out), dropped), (vec![("jobs", 15), ("jobs", 20)], 2));
        assert_eq!((held.families(), shown(held.samples.make_contiguous())), (1, vec![("mails", 20)]));
        assert_eq!(held.bytes(), sample("mails", 20).bytes());
    }

    /// Guarantee: neither families nor samples go beyond their bounds; the oldest samples go first, and are counted.
    #[test]
    fn memory_is_bounded() {
        let mut held = Held::default();
        let over = (0..MAX_WAITING + 5).filter(|i| held.wait(&i.to_string(), at(0), at(0))).count();
        assert_eq!((over, held.families()), (5, MAX_WAITING));
        for i in 0..MAX_WAITING {
            held.settle(&i.to_string());
        }
        assert!(held.order.len() <= 64, "{} of nobody", held.order.len());
        let room = MAX_BYTES / sample("jobs", 0).bytes();
        assert_eq!(held.keep(vec![sample("jobs", 0); room], LATENESS), 0);
        assert_eq!(held.keep(vec![sample("jobs", 9); 3], LATENESS), 3);
        assert!(held.bytes() <= MAX_BYTES && held.samples.back().is_some_and(|last| last.at == at(9)));
    }
}
