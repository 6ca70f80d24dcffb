//! What live sources had refused, by name: a line in the log for each kind, seldom, and a list for `/readyz`.
//!
//! Bounded in kinds and in lines. Decides nothing.

use relight_core::record::Reason;
use relight_core::refusal::{Origin, Refusal, Refusals};
use relight_core::{Span, Timestamp};
use relight_ingest::live::Verdict;

use super::Live;

/// Kinds that are told apart, over all sources.
const MAX_KINDS: usize = 100;
/// A kind that goes on is told again after this, and shown for as long after it came last.
const TOLD_EVERY: Span = Span::from_secs(3_600);
/// Lines in a minute, so that a sender of many kinds does not fill the log.
const LINES_A_MINUTE: u32 = 5;

/// Refusals of one metric of one service by one source for one reason.
#[derive(Debug)]
struct Kind {
    source: String,
    refusal: Refusal,
    count: u64,
    last: Timestamp,
    told: Option<Timestamp>,
}

/// The refusals of the last hour.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    kinds: Vec<Kind>,
    /// The minute that lines are counted in, and how many there were.
    minute: Option<Timestamp>,
    lines: u32,
}

impl RefusalLog {
    /// Takes note of what was refused of a record. Returns the lines that are to be told now.
    pub(super) fn note(&mut self, source: &str, refusals: &Refusals, now: Timestamp) -> Vec<String> {
        refusals.kinds().iter().filter_map(|refusal| self.note_one(source, refusal, now)).collect()
    }

    /// The same of a request that could not be read at all.
    pub(super) fn note_malformed(&mut self, source: &str, why: &str, now: Timestamp) -> Vec<String> {
        let mut one = Refusals::default();
        one.add(Reason::Malformed, Origin::default(), why, 1);
        self.note(source, &one, now)
    }

    fn note_one(&mut self, source: &str, refusal: &Refusal, now: Timestamp) -> Option<String> {
        let is_it = |kind: &Kind| {
            let known = &kind.refusal;
            kind.source == source
                && (known.reason, &known.metric, &known.service)
                    == (refusal.reason, &refusal.metric, &refusal.service)
        };
        let at = match self.kinds.iter().position(is_it) {
            Some(at) => at,
            None => self.begin(source, refusal, now)?,
        };
        let kind = &mut self.kinds[at];
        kind.count += u64::from(refusal.count);
        kind.last = now;
        if kind.told.is_some_and(|told| now.since(told) < TOLD_EVERY) || !self.has_line(now) {
            return None;
        }
        let kind = &mut self.kinds[at];
        kind.told = Some(now);
        Some(format!("refused: {}", kind.text()))
    }

    /// The place of a new kind; `None` while all are of the last hour.
    fn begin(&mut self, source: &str, refusal: &Refusal, now: Timestamp) -> Option<usize> {
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.retain(|kind| now.since(kind.last) < TOLD_EVERY);
        }
        if self.kinds.len() >= MAX_KINDS {
            return None;
        }
        let (source, refusal) = (source.to_owned(), refusal.clone());
        self.kinds.push(Kind { source, refusal, count: 0, last: now, told: None });
        Some(self.kinds.len() - 1)
    }

    fn has_line(&mut self, now: Timestamp) -> bool {
        let minute = now.bin_start(Span::from_secs(60));
        if self.minute.replace(minute) != Some(minute) {
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES_A_MINUTE
    }

    /// What was refused in the last hour, the oldest kind first.
    pub(super) fn shown(&self, now: Timestamp) -> Vec<String> {
        let recent = self.kinds.iter().filter(|kind| now.since(kind.last) < TOLD_EVERY);
        recent.map(|kind| format!("{}, last at {}", kind.text(), kind.last)).collect()
    }
}

impl Live {
    /// Logs what was refused of a delivery, seldom. It is no notice: `/readyz` has a list of its own for these.
    pub(super) fn tell_refused(&mut self, stream: usize, verdict: &Verdict, now: Timestamp) {
        let partition = &*self.streams[stream].outlet.partition;
        let refused = &mut self.figures.refused;
        let lines = match verdict {
            Verdict::TakenInPart { names, .. } => refused.note(partition, names, now),
            Verdict::Malformed(why) => refused.note_malformed(partition, why, now),
            Verdict::Taken(_) | Verdict::Busy(_) => Vec::new(),
        };
        for line in &lines {
            (self.tell)(line);
        }
    }
}

impl Kind {
    /// As in `` prom: `rpc_seconds` of service `shop`: bad_histogram 3 (bounds do not ascend) ``.
    fn text(&self) -> String {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        format!("{}: {}", self.source, Refusal { count, ..self.refusal.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(metric: &str) -> Refusals {
        let mut refusals = Refusals::default();
        let origin = Origin { metric, service: "shop" };
        refusals.add(Reason::BadHistogram, origin, "bounds do not ascend", 2);
        refusals
    }

    /// Scenario: a sender whose histograms are refused twice a minute for two hours and a bit.
    /// Guarantee: told at once and then hourly, with the sum; shown for an hour after the last.
    #[test]
    fn a_kind_is_told_at_once_and_then_hourly() {
        let mut log = RefusalLog::default();
        let lines: Vec<String> =
            (0..250).flat_map(|i| log.note("prom", &refusals("rpc"), Timestamp::from_secs(30 * i))).collect();
        let text = |n: u32| {
            format!("refused: prom: `rpc` of service `shop`: bad_histogram {n} (bounds do not ascend)")
        };
        assert_eq!(lines, [text(2), text(242), text(482)]);
        let last = Timestamp::from_secs(30 * 249);
        let shown = log.shown(last.plus(Span::from_secs(3_599)));
        assert_eq!(shown, [format!("{}, last at {last}", &text(500)["refused: ".len()..])]);
        assert_eq!(log.shown(last.plus(TOLD_EVERY)).len(), 0);
    }

    /// Scenario: a sender with a thousand metrics that are refused, in one minute and the next.
    /// Guarantee: lines and memory are bounded; after an hour others are told apart.
    #[test]
    fn lines_and_kinds_are_bounded() {
        let mut log = RefusalLog::default();
        let mut lines = |from: usize, secs: i64| {
            let now = Timestamp::from_secs(secs);
            let of = |i: usize| log.note("prom", &refusals(&i.to_string()), now).len();
            let lines: usize = (from..from + 1_000).map(of).sum();
            (lines, log.kinds.len())
        };
        assert_eq!([lines(0, 0), lines(0, 59), lines(0, 60)], [(5, 100), (0, 100), (5, 100)]);
        assert_eq!(lines(5_000, 4_000), (5, 100));
        assert_eq!(
            log.note_malformed("otlp", "it ends within a field", Timestamp::from_secs(9_000)),
            ["refused: otlp: malformed 1 (it ends within a field)"]
        );
    }
}
