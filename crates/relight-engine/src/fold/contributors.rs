//! The latest contribution of each series that shares a row with others.
//!
//! Exporters report at times of their own, so a bin that is shorter than their cadence holds the points of some of them
//! only. Each series therefore counts with its latest value until its own cadence says that it is gone. All of it follows from
//! the event times and values of closed bins, never from arrival. Knows no row's value: which contributions count
//! is Detect's to decide. Holds nothing of series whose rows are theirs alone.

use std::sync::Arc;

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{Histogram, Kind};
use relight_core::{Span, Timestamp};

use super::series::Tally;
use super::{Closing, Contribution, Presence};
use crate::directory::{Channel, Feed};

/// The cadence of a series that has sent one point: it then lives for 5 minutes, for which Prometheus looks back for a value.
const ASSUMED_CADENCE: Span = Span::from_secs(150);
/// For so long a counter's second point is waited for: twice the slowest cadence that exporters commonly have.
const AWAITED_FOR: Span = Span::from_secs(600);
/// A series lives for so many cadences behind its last point: one lost scrape is bridged, two are not.
pub(crate) const LIFE: i64 = 2;
/// For so many cadences a series that is gone may stand in for its successor, whose first rate takes two points.
const BRIDGE: i64 = 4;
/// Gaps between points that the cadence is learned from.
const GAPS: usize = 4;
/// A cadence is at most so many times its second shortest gap: what comes in bursts is not waited for until the next one.
const MAX_SPREAD: f32 = 8.0;
/// No contributor: the slot's series has rows of its own only.
const NONE: u32 = u32::MAX;

/// What is remembered of one series.
#[derive(Debug, Clone, PartialEq)]
struct Contributor {
    slot: u32,
    kind: Kind,
    /// A marker said that the series has ended, and no point came since.
    has_ended: bool,
    /// Its last point in a closed bin; [`Timestamp::MIN`] before the first.
    at: Timestamp,
    /// Its first one; not known of a series that is older than its sharing a row.
    first: Timestamp,
    /// Seconds between points, the newest first; 0 = not known.
    gaps: [f32; GAPS],
    /// Mean of the last bin that had points of it; NaN of histograms.
    mean: f64,
    /// Increase that the last points brought; NaN while there was nothing to differ from.
    increase: f64,
    /// The time that the increase covers.
    covered: Span,
    /// The increase is the first delta of the series.
    is_initial: bool,
    /// Of a delta, the time that one point covers.
    own_period: Span,
    /// Bucket counts of the increase.
    counts: Option<Arc<Histogram>>,
}

impl Contributor {
    const fn new(slot: u32) -> Self {
        Self {
            slot,
            kind: Kind::Gauge,
            has_ended: false,
            at: Timestamp::MIN,
            first: Timestamp::MIN,
            gaps: [0.0; GAPS],
            mean: f64::NAN,
            increase: f64::NAN,
            covered: Span::ZERO,
            is_initial: false,
            own_period: Span::ZERO,
            counts: None,
        }
    }

    /// Takes what the series did in a bin.
    fn take(&mut self, kind: Kind, tally: &Tally, interval: Span) {
        let Some(at) = tally.newest_at() else { return };
        let summary = tally.summary();
        let points = i64::from(summary.points.max(summary.increments).max(1));
        let gap = if self.at.is_known() {
            Span::from_ns(at.since(self.at).ns() / points)
        } else {
            self.first = at;
            match (summary.increments, summary.points) {
                (n @ 2.., _) => Span::from_ns(summary.covered.ns() / i64::from(n)),
                (_, n @ 2..) => Span::from_ns(interval.ns() / i64::from(n)),
                _ => Span::ZERO,
            }
        };
        self.learn(gap);
        (self.kind, self.at, self.has_ended) = (kind, at, false);
        self.mean = tally.mean().unwrap_or(f64::NAN);
        if tally.keeps_increase(kind) {
            return;
        }
        self.increase = tally.increase().unwrap_or(f64::NAN);
        self.covered = if summary.covered > Span::ZERO { summary.covered } else { interval };
        self.is_initial = self.first == at && kind.is_delta() && summary.increments == 1;
        if self.is_initial {
            // The time since the start of a new series may be milliseconds: a rate over it says nothing.
            self.covered = self.covered.max(interval);
        }
        self.own_period = Span::from_ns(self.covered.ns() / i64::from(summary.increments.max(1)));
        self.counts = tally.buckets.clone().map(Arc::new);
    }

    /// The same for the one point of a gauge.
    fn take_gauge(&mut self, at: Timestamp, value: f64) {
        if self.at.is_known() {
            self.learn(at.since(self.at));
        } else {
            self.first = at;
        }
        (self.kind, self.at, self.has_ended) = (Kind::Gauge, at, false);
        (self.mean, self.increase, self.counts) = (value, f64::NAN, None);
    }

    fn learn(&mut self, gap: Span) {
        if gap > Span::ZERO {
            self.gaps.rotate_right(1);
            self.gaps[0] = gap.secs_f64() as f32;
        }
    }

    /// Time between its points, learned: the second longest of the last gaps, so that one outage does not make it look slow, and
    /// taking turns between two gaps does not make it look fast. `None` before there are two points.
    fn cadence(&self) -> Option<Span> {
        let mut gaps = self.gaps;
        gaps.sort_unstable_by(|a, b| b.total_cmp(a));
        let known = gaps.iter().take_while(|gap| **gap > 0.0).count();
        let seconds = match known {
            0 => return None,
            1 => gaps[0],
            n => gaps[1].min(MAX_SPREAD * gaps[n - 2]),
        };
        Some(Span::from_ns((f64::from(seconds) * 1e9) as i64))
    }

    /// How long after its last point the next one is due.
    fn period(&self) -> Span {
        let cadence = self.cadence();
        if self.kind.is_delta() {
            // What is sent only when there is something has no cadence: a delta says itself for how long it stands.
            return cadence.map_or(self.own_period, |cadence| cadence.min(self.own_period));
        }
        cadence.unwrap_or(ASSUMED_CADENCE)
    }

    /// How it takes part in the bin that ends at `end`; `None` if it is gone.
    fn presence(&self, bin: Timestamp, end: Timestamp) -> Option<Presence> {
        if self.at >= bin {
            return Some(Presence::New);
        }
        let silent = end.since(self.at);
        let period = self.period();
        let life = if self.kind.is_delta() {
            Span::from_ns(period.ns().saturating_add(period.ns() / 10))
        } else {
            period.times(LIFE)
        };
        if silent <= life && !self.has_ended {
            return Some(Presence::Carried);
        }
        let may_bridge = self.kind.is_cumulative() && silent <= period.times(BRIDGE);
        may_bridge.then_some(Presence::Lapsed)
    }

    fn contribute(&self, feed: &Feed, (presence, end): (Presence, Timestamp), out: &mut Vec<Contribution>) {
        let (value, covered, counts) = match feed.channel {
            Channel::Every | Channel::Value => (self.mean, Span::ZERO, None),
            Channel::Rate | Channel::Of | Channel::To => (self.increase, self.covered, None),
            Channel::Buckets => (self.increase, self.covered, self.counts.clone()),
            Channel::Event => return,
        };
        let is_gauge = covered == Span::ZERO;
        let presence = if !value.is_nan() && (counts.is_some() || feed.channel != Channel::Buckets) {
            if presence == Presence::Lapsed && is_gauge {
                return;
            }
            presence
        } else if self.awaits_more(feed.channel, end) {
            Presence::Awaited
        } else {
            return;
        };
        let (at, first, period) = (self.at, self.first, self.period());
        out.push(Contribution {
            row: feed.row,
            channel: feed.channel,
            presence,
            value,
            covered,
            is_initial: self.is_initial,
            counts,
            at,
            first,
            period,
        });
    }

    /// Whether it has sent the first point of a counter, and the second one is due.
    fn awaits_more(&self, channel: Channel, end: Timestamp) -> bool {
        let is_kind = if channel == Channel::Buckets {
            self.kind == Kind::CumulativeHistogram
        } else {
            self.kind.is_cumulative() && channel != Channel::Value
        };
        is_kind && !self.has_ended && end.since(self.at) <= AWAITED_FOR
    }
}

impl Codec for Contributor {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.kind as u8).encode(out);
        self.has_ended.encode(out);
        self.at.encode(out);
        self.first.encode(out);
        self.gaps.iter().for_each(|gap| gap.encode(out));
        self.mean.encode(out);
        self.increase.encode(out);
        self.covered.encode(out);
        self.is_initial.encode(out);
        self.own_period.encode(out);
        self.counts.is_some().encode(out);
        if let Some(counts) = &self.counts {
            counts.bounds.encode(out);
            counts.counts.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let kind = *Kind::ALL.get(u8::decode(reader)? as usize).ok_or(Corrupt::Value("kind"))?;
        let (has_ended, at, first) = (bool::decode(reader)?, Codec::decode(reader)?, Codec::decode(reader)?);
        let mut gaps = [0.0; GAPS];
        for gap in &mut gaps {
            *gap = f32::decode(reader)?;
            if !gap.is_finite() || *gap < 0.0 {
                return Err(Corrupt::Value("gap between points"));
            }
        }
        let (mean, increase) = (f64::decode(reader)?, f64::decode(reader)?);
        let covered = Codec::decode(reader)?;
        let (is_initial, own_period) = (bool::decode(reader)?, Codec::decode(reader)?);
        let counts = if bool::decode(reader)? {
            Some(Arc::new(Histogram { bounds: Codec::decode(reader)?, counts: Codec::decode(reader)? }))
        } else {
            None
        };
        let slot = NONE;
        Ok(Self {
            slot,
            kind,
            has_ended,
            at,
            first,
            gaps,
            mean,
            increase,
            covered,
            is_initial,
            own_period,
            counts,
        })
    }
}

/// The contributors of one key group. Without any it holds nothing.
#[derive(Debug, Default)]
pub(super) struct Contributors {
    all: Vec<Contributor>,
    /// By slot, its place in `all`; shorter than the table of series, or empty, where none of the rest contributes.
    places: Vec<u32>,
    /// Markers of the bin that closes next, handed on by Intake right before: time and slot.
    ends: Vec<(Timestamp, u32)>,
}

impl Contributors {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A slot has new feeds, and no history.
    pub(super) fn set(&mut self, slot: u32, feeds: &[Feed]) {
        self.forget(slot);
        if !feeds.iter().any(|feed| feed.is_shared) {
            return;
        }
        if slot as usize >= self.places.len() {
            self.places.resize(slot as usize + 1, NONE);
        }
        self.places[slot as usize] = self.all.len() as u32;
        self.all.push(Contributor::new(slot));
    }

    pub(super) fn forget(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        self.places[slot as usize] = NONE;
        self.all.swap_remove(place);
        if let Some(moved) = self.all.get(place) {
            self.places[moved.slot as usize] = place as u32;
        }
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.places.get(slot as usize).filter(|place| **place != NONE).map(|place| *place as usize)
    }

    /// A marker of the bin that closes next: the series has ended.
    pub(super) fn end(&mut self, slot: u32, at: Timestamp) {
        if self.place(slot).is_some() {
            self.ends.push((at, slot));
        }
    }

    /// What a series did in the bin that is being closed.
    pub(super) fn take(&mut self, slot: u32, kind: Kind, tally: &Tally, interval: Span) {
        if let Some(place) = self.place(slot) {
            self.all[place].take(kind, tally, interval);
        }
    }

    /// The one point of a gauge in the bin that is being closed.
    pub(super) fn take_gauge(&mut self, slot: u32, at: Timestamp, value: f64) {
        if let Some(place) = self.place(slot) {
            self.all[place].take_gauge(at, value);
        }
    }

    /// What all of them contribute to a bin, once its points were taken.
    pub(super) fn close<'a>(
        &mut self,
        closing: &Closing<'_>,
        feeds_of: impl Fn(u32) -> &'a [Feed],
        out: &mut Vec<Contribution>,
    ) {
        let end = closing.bin.plus(closing.interval);
        for (at, slot) in std::mem::take(&mut self.ends) {
            if let Some(place) = self.place(slot) {
                self.all[place].has_ended |= at >= self.all[place].at;
            }
        }
        for one in self.all.iter().filter(|one| one.at.is_known()) {
            let Some(presence) = one.presence(closing.bin, end) else { continue };
            let shared = feeds_of(one.slot).iter().filter(|feed| feed.is_shared);
            shared.for_each(|feed| one.contribute(feed, (presence, end), out));
        }
    }

    /// Appends those that have had points, with slots renumbered.
    pub(super) fn save(&self, rank_of_slot: &[u32], out: &mut Vec<u8>) {
        let known = self.all.iter().filter(|one| one.at.is_known());
        let mut known: Vec<_> = known.map(|one| (rank_of_slot[one.slot as usize], one)).collect();
        known.sort_unstable_by_key(|(rank, _)| *rank);
        (known.len() as u32).encode(out);
        for (rank, one) in known {
            rank.encode(out);
            one.encode(out);
        }
    }

    /// Reads what [`Contributors::save`] wrote. A series that shares no row any more is passed over.
    pub(super) fn load(&mut self, slots: usize, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        for _ in 0..reader.len(60, "contributors")? {
            let (slot, one) = (u32::decode(reader)?, Contributor::decode(reader)?);
            if slot as usize >= slots {
                return Err(Corrupt::Value("contributor"));
            }
            if let Some(place) = self.place(slot) {
                self.all[place] = Contributor { slot, ..one };
            }
        }
        Ok(())
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Contributor>() + self.places.capacity() * 4
    }
}
