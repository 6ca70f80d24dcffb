//! Cumulative, delta and gauge semantics of one series.
//!
//! The increase of a running total is worked out in `counter`. An increase belongs to the bin of its later point; a rate
//! is increase over the time between the two points.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind};
use relight_core::{Span, Timestamp};

use super::counter::{Basis, Increase, Next, Watch, step};
use super::last::{Last, Pace, rate};
use super::log::Waiting;
use crate::counters::Fall;

/// What came of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Taken,
    /// Taken: a running total that fell.
    Fell(Fall),
    /// Several writers share the running total.
    WriterConflict,
    Duplicate,
    Conflict,
    /// Older than a total that was folded early; the difference is counted already.
    Superseded,
    /// A delta over a time that is counted already, in part at least.
    Overlap,
}

/// How much a series sent in one bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// Points that are no histograms.
    pub(super) points: u32,
    /// Points that brought an increase.
    pub(super) increments: u32,
    /// The time that the increases cover.
    pub(super) covered: Span,
}

/// What one series did in one bin.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tally {
    /// Points taken, and their sum in order of time.
    n: u32,
    sum: f64,
    /// Increase of a counter, or of all buckets; counted only if there was something to differ from.
    increase: f64,
    increments: u32,
    /// Observations by bucket.
    pub(super) buckets: Option<Histogram>,
    /// The time that the increase covers, without the gaps between deltas.
    covered: Span,
    /// The point taken last, to recognise its copies.
    newest: Option<(Timestamp, f64)>,
    /// Several writers share the running total, so its last increase says nothing of the present.
    has_writers: bool,
}

impl Tally {
    /// Ready for the next series.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Mean of the points in the bin.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / f64::from(self.n))
    }

    /// Time of the last point that was taken.
    pub(super) fn newest_at(&self) -> Option<Timestamp> {
        self.newest.map(|(at, _)| at)
    }

    pub(super) const fn summary(&self) -> Summary {
        Summary { points: self.n, increments: self.increments, covered: self.covered }
    }

    /// Whether the last increase of a running total still stands: a point came that brought none, since it was corrected, and
    /// not because several writers share it.
    pub(super) const fn keeps_increase(&self, kind: Kind) -> bool {
        kind.is_cumulative() && self.increments == 0 && !self.has_writers
    }

    /// Increase in the bin.
    pub(super) fn increase(&self) -> Option<f64> {
        (self.increments > 0).then_some(self.increase)
    }

    /// Increase per second of the time that it covers: of a running total, since the point before the bin.
    pub(super) fn rate(&self, interval: Span) -> Option<f64> {
        let increase = self.increase()?;
        let covered = if self.covered > Span::ZERO { self.covered } else { interval };
        Some(increase / covered.secs_f64())
    }

    /// Takes the next point of a running total, if nothing about it is unusual: most points of most streams.
    #[inline]
    pub(super) fn take_steady(&mut self, last: &mut Last, point: Waiting<'_>) -> bool {
        let Waiting { kind, at, start, value, .. } = point;
        let (before, total) = (last.at, last.total);
        let is_next = kind == Kind::Cumulative && last.is_calm(kind) && before.is_known();
        if !is_next || at <= before || start > before || value < total {
            return false;
        }
        let increase = value - total;
        last.pace = last.pace.follow(rate(increase, at.since(before)));
        (last.at, last.total) = (at, value);
        self.add(before, at, increase);
        self.n += 1;
        self.sum += value;
        self.newest = Some((at, value));
        true
    }

    /// Takes the next point of the series in order of time.
    pub(super) fn take(
        &mut self,
        last: &mut Last,
        (watch, totals): (&mut Option<Watch>, &mut Option<Histogram>),
        point: Waiting<'_>,
        interval: Span,
    ) -> Fate {
        let Waiting { at, kind, .. } = point;
        if let Some((newest, value)) = self.newest
            && newest == at
        {
            let same = point.histogram.is_some() || value == point.value;
            return if same { Fate::Duplicate } else { Fate::Conflict };
        }
        let before = last.at;
        if last.kind() == kind && kind.is_cumulative() && at < before {
            // Only where points were folded early: a total from before the last one is no reset.
            return Fate::Superseded;
        }
        let start = told_start(last, point);
        if last.kind() == kind && kind.is_delta() && start.is_known() && start < before && before <= at {
            // Two writers under one name, or a time sent again: added up, it would count twice. Behind a point that was
            // folded early nobody knows.
            return Fate::Overlap;
        }
        // A histogram's value is its place in the bin's log, which tells who came first: none of it is kept.
        let value = if kind.is_histogram() { 0.0 } else { point.value };
        self.newest = Some((at, value));
        if last.kind() != kind {
            // Another kind is another stream: nothing before it can be subtracted from it.
            *last = Last::new(kind, Timestamp::MIN, 0.0);
            (*watch, *totals) = (None, None);
        }
        if point.histogram.is_none() {
            self.n += 1;
            self.sum += value;
        }
        let fate = match (kind, point.histogram) {
            (Kind::Cumulative, _) => self.running(last, watch, Next::new(at, point.start, value), interval).0,
            (Kind::CumulativeHistogram, Some(h)) => {
                self.buckets_of(last, (watch, totals), point, h, interval)
            }
            (Kind::Delta, _) => self.count(last, (start, at), value, interval),
            (Kind::DeltaHistogram, Some(h)) => {
                self.collect(h.clone());
                self.count(last, (start, at), h.total() as f64, interval)
            }
            (Kind::Gauge | Kind::CumulativeHistogram | Kind::DeltaHistogram, _) => Fate::Taken,
        };
        last.at = at;
        if !kind.is_cumulative() {
            last.total =
                if kind.is_delta() { f64::from_bits(point.start.ns().cast_unsigned()) } else { value };
        }
        fate
    }

    /// The next point of a running total, and what it counts.
    fn running(
        &mut self,
        last: &mut Last,
        watch: &mut Option<Watch>,
        next: Next,
        interval: Span,
    ) -> (Fate, Option<Basis>) {
        let step = step(*last, *watch, next, interval);
        *watch = step.watch;
        self.has_writers |= step.has_writers || step.watch.is_some_and(|watch| watch.has_writers());
        (last.pace, last.total) = (step.pace, next.total);
        if let Some(Increase { from, amount, .. }) = step.increase {
            self.add(from, next.at, amount);
        }
        let fate = match step.fall {
            _ if step.has_writers => Fate::WriterConflict,
            Some(fall) => Fate::Fell(fall),
            None => Fate::Taken,
        };
        (fate, step.increase.map(|increase| increase.basis))
    }

    /// The next point of a running histogram. That its count fell is what makes it a reset or a correction: a bucket that
    /// fell while the count rose was corrected.
    fn buckets_of(
        &mut self,
        last: &mut Last,
        (watch, totals): (&mut Option<Watch>, &mut Option<Histogram>),
        point: Waiting<'_>,
        now: &Histogram,
        interval: Span,
    ) -> Fate {
        let next = Next::new(point.at, point.start, now.total() as f64);
        let before = totals.replace(now.clone());
        let since = before.map(|before| since(now, &before));
        let is_restart = next.start > { last.at };
        if matches!(since, Some(None)) && !is_restart {
            // Other bounds are another stream: its total is no difference to the one before.
            *watch = None;
            (last.pace, last.total) = (Pace::UNKNOWN, next.total);
            return Fate::Taken;
        }
        let (fate, basis) = self.running(last, watch, next, interval);
        match (basis, since.flatten()) {
            (Some(Basis::Start), _) => self.collect(now.clone()),
            (Some(Basis::Last), Some((observed, fell))) => {
                self.collect(observed);
                if fell && fate == Fate::Taken {
                    return Fate::Fell(Fall::Correction);
                }
            }
            _ => {}
        }
        fate
    }

    /// Adds observations to those of the bin.
    fn collect(&mut self, observed: Histogram) {
        match &mut self.buckets {
            Some(sum) => sum.add(&observed),
            None => self.buckets = Some(observed),
        }
    }

    fn count(
        &mut self,
        last: &Last,
        (start, at): (Timestamp, Timestamp),
        increase: f64,
        interval: Span,
    ) -> Fate {
        // A start after the point before is a gap: of its time nothing is known.
        let from = { last.at }.max(start).min(at);
        self.add(if from.is_known() { from } else { at.minus(interval) }, at, increase);
        Fate::Taken
    }

    #[inline]
    fn add(&mut self, from: Timestamp, to: Timestamp, increase: f64) {
        self.increase += increase;
        self.increments += 1;
        self.covered = Span::from_ns(self.covered.ns().saturating_add(to.since(from).ns()));
    }
}

impl Codec for Tally {
    fn encode(&self, out: &mut Vec<u8>) {
        self.n.encode(out);
        self.sum.encode(out);
        self.increase.encode(out);
        self.increments.encode(out);
        self.buckets.as_ref().map(|h| h.bounds.clone()).encode(out);
        self.buckets.as_ref().map(|h| h.counts.clone()).encode(out);
        self.covered.encode(out);
        self.newest.map(|(at, _)| at).encode(out);
        self.newest.map(|(_, value)| value).encode(out);
        self.has_writers.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (n, sum) = (u32::decode(reader)?, f64::decode(reader)?);
        let (increase, increments) = (f64::decode(reader)?, u32::decode(reader)?);
        let bounds: Option<Vec<f64>> = Codec::decode(reader)?;
        let counts: Option<Vec<u64>> = Codec::decode(reader)?;
        let buckets = bounds.zip(counts).map(|(bounds, counts)| Histogram { bounds, counts });
        let covered = Codec::decode(reader)?;
        let newest = Option::<Timestamp>::decode(reader)?.zip(Option::<f64>::decode(reader)?);
        let has_writers = Codec::decode(reader)?;
        Ok(Self { n, sum, increase, increments, buckets, covered, newest, has_writers })
    }
}

/// When what a delta counts began. Not known, too, where its start says nothing: one at its end or behind it, and one that
/// the point before had already, of senders that tell when they themselves started.
fn told_start(last: &Last, point: Waiting<'_>) -> Timestamp {
    let Waiting { kind, at, start, .. } = point;
    let before = last.at;
    let is_old = last.kind() == kind && before.is_known() && last.start() == start;
    if start < at && !is_old { start } else { Timestamp::MIN }
}

/// What came since, by bucket, and whether a bucket fell; `None` if the two cannot be compared.
fn since(now: &Histogram, before: &Histogram) -> Option<(Histogram, bool)> {
    if now.bounds == before.bounds {
        return Some(minus(now, before));
    }
    let bounds = now.common_bounds(before)?;
    Some(minus(&now.merged(&bounds), &before.merged(&bounds)))
}

fn minus(now: &Histogram, before: &Histogram) -> (Histogram, bool) {
    let pairs = now.counts.iter().zip(&before.counts);
    let fell = pairs.clone().any(|(now, before)| now < before);
    let counts = pairs.map(|(now, before)| now.saturating_sub(*before)).collect();
    (Histogram { bounds: now.bounds.clone(), counts }, fell)
}
