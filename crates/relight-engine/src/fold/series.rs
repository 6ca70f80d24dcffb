//! Cumulative, delta and gauge semantics of one series.
//!
//! The first point of a cumulative series contributes nothing; a reset counts from zero; an increase
//! belongs to the bin of its later point; a rate is increase over the time between the two points.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind};
use relight_core::{Span, Timestamp};

use super::log::Waiting;

/// The last point of a series: what the next one is a difference to. Packed, since there is one a
/// series and alignment would cost seven bytes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, packed)]
pub(super) struct Last {
    pub(super) kind: Kind,
    /// [`Timestamp::MIN`] before the first point.
    pub(super) at: Timestamp,
    /// The running total; 0 of histograms, whose totals lie elsewhere; of deltas the bits of [`Last::start`].
    pub(super) total: f64,
}

impl Last {
    pub(super) const NEVER: Self = Self { kind: Kind::Gauge, at: Timestamp::MIN, total: 0.0 };

    /// Of a delta, the start that was sent with it: there is no total, and a field of its own would be 8 bytes a series.
    const fn start(self) -> Timestamp {
        Timestamp::from_ns(self.total.to_bits().cast_signed())
    }
}

/// What came of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Taken,
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

    /// Takes the next point of the series in order of time.
    pub(super) fn take(
        &mut self,
        last: &mut Last,
        totals: &mut Option<Histogram>,
        point: Waiting<'_>,
        interval: Span,
    ) -> Fate {
        let at = point.at;
        if let Some((newest, value)) = self.newest
            && newest == at
        {
            let same = point.histogram.is_some() || value == point.value;
            return if same { Fate::Duplicate } else { Fate::Conflict };
        }
        let kind = point.kind;
        let before = last.at;
        if last.kind == kind && kind.is_cumulative() && at < before {
            // Only where points were folded early: a total from before the last one is no reset.
            return Fate::Superseded;
        }
        let start = told_start(last, point);
        if last.kind == kind && kind.is_delta() && start.is_known() && start < before && before <= at {
            // Two writers under one name, or a time sent again: added up, it would count twice. Behind a point that was
            // folded early nobody knows.
            return Fate::Overlap;
        }
        // A histogram's value is its place in the bin's log, which tells who came first: none of it is kept.
        let value = if kind.is_histogram() { 0.0 } else { point.value };
        self.newest = Some((at, value));
        if last.kind != kind {
            // Another kind is another stream: nothing before it can be subtracted from it.
            *last = Last { kind, ..Last::NEVER };
            *totals = None;
        }
        match (kind, point.histogram) {
            (Kind::Gauge, _) => {}
            (Kind::Cumulative, _) => self.cumulative(last, point),
            (Kind::Delta, _) => self.count(last, (start, at), value, interval),
            (_, Some(h)) => self.histogram(last, totals, (start, point), h, interval),
            (_, None) => {}
        }
        if point.histogram.is_none() {
            self.n += 1;
            self.sum += value;
        }
        last.at = at;
        last.total = if kind.is_delta() { f64::from_bits(point.start.ns().cast_unsigned()) } else { value };
        Fate::Taken
    }

    fn cumulative(&mut self, last: &Last, point: Waiting<'_>) {
        if last.at.is_known() {
            let value = point.value;
            // What counts has no value below zero: one that is sent is no decrease either.
            let increase =
                if is_reset(last, point, value < last.total) { value.max(0.0) } else { value - last.total };
            self.add(last.at, point.at, increase);
        }
    }

    fn count(&mut self, last: &Last, (start, at): (Timestamp, Timestamp), increase: f64, interval: Span) {
        // A start after the point before is a gap: of its time nothing is known.
        let from = last.at.max(start).min(at);
        self.add(if from.is_known() { from } else { at.minus(interval) }, at, increase);
    }

    fn histogram(
        &mut self,
        last: &Last,
        totals: &mut Option<Histogram>,
        (start, point): (Timestamp, Waiting<'_>),
        now: &Histogram,
        interval: Span,
    ) {
        let observed = if point.kind == Kind::DeltaHistogram {
            self.count(last, (start, point.at), now.total() as f64, interval);
            now.clone()
        } else {
            let before = totals.replace(now.clone());
            let Some(before) = before else { return };
            let shrunk =
                before.bounds != now.bounds || now.counts.iter().zip(&before.counts).any(|(a, b)| a < b);
            let observed = if is_reset(last, point, shrunk) { now.clone() } else { minus(now, &before) };
            self.add(last.at, point.at, observed.total() as f64);
            observed
        };
        match &mut self.buckets {
            Some(sum) if sum.bounds == observed.bounds => plus(sum, &observed),
            buckets => *buckets = Some(observed),
        }
    }

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
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (n, sum) = (u32::decode(reader)?, f64::decode(reader)?);
        let (increase, increments) = (f64::decode(reader)?, u32::decode(reader)?);
        let bounds: Option<Vec<f64>> = Codec::decode(reader)?;
        let counts: Option<Vec<u64>> = Codec::decode(reader)?;
        let buckets = bounds.zip(counts).map(|(bounds, counts)| Histogram { bounds, counts });
        let covered = Codec::decode(reader)?;
        let newest = Option::<Timestamp>::decode(reader)?.zip(Option::<f64>::decode(reader)?);
        Ok(Self { n, sum, increase, increments, buckets, covered, newest })
    }
}

/// When what a delta counts began. Not known, too, where its start says nothing: one at its end or behind it, and one that
/// the point before had already, of senders that tell when they themselves started.
fn told_start(last: &Last, point: Waiting<'_>) -> Timestamp {
    let Waiting { kind, at, start, .. } = point;
    let before = last.at;
    let is_old = last.kind == kind && before.is_known() && last.start() == start;
    if start < at && !is_old { start } else { Timestamp::MIN }
}

fn is_reset(last: &Last, point: Waiting<'_>, shrunk: bool) -> bool {
    let before = last.at;
    shrunk || (point.start.is_known() && point.start > before)
}

fn minus(now: &Histogram, before: &Histogram) -> Histogram {
    let counts = now.counts.iter().zip(&before.counts).map(|(a, b)| a - b).collect();
    Histogram { bounds: now.bounds.clone(), counts }
}

fn plus(sum: &mut Histogram, more: &Histogram) {
    for (a, b) in sum.counts.iter_mut().zip(&more.counts) {
        *a = a.saturating_add(*b);
    }
}
