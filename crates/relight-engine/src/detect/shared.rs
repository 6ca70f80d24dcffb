//! One bin of rows that several series feed: which contributions count, and what they come to.
//!
//! A series counts with its latest value while it lives, so a row's value is that of all of its series in every bin, whichever of
//! them have a point in it. Knows no series by name: what came after what is all that tells a successor.

use relight_core::record::Histogram;
use relight_core::signal::{Aggregate, SignalKind};
use relight_core::{Span, Timestamp};

use super::frame::quantile_of;
use crate::directory::Channel;
use crate::fold::{Contribution, LIFE, Presence};

/// A newcomer takes over from a series whose rate is at most so many times its own, and at least as small a share of it.
const ALIKE: f64 = 2.0;
/// A series that has reported for so many of its periods is not itself a newcomer.
const SETTLED: i64 = 10;

/// For so many periods of its eldest series a row of counters waits for the others' second points: of two that report right
/// after and right before each other, the latter brings its second point nearly two periods after the former's first one.
const SETTLING: i64 = 2;

/// What the contributions of one row come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shared {
    pub(super) row: u32,
    pub(super) value: f64,
    /// Whether any of it is new in this bin.
    pub(super) is_new: bool,
    /// Whether some of its series have not been met yet, as far as can be seen: not a value to be judged.
    pub(super) is_partial: bool,
    /// Whether one of its series is between two of its points, and not late.
    pub(super) is_regular: bool,
    /// The bin of the oldest point that it rests on.
    pub(super) oldest: Timestamp,
}

/// Buffers that are kept for their memory.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    counts: Vec<bool>,
    waiting: Vec<usize>,
    newcomers: Vec<(Timestamp, usize)>,
}

/// Appends the values of the rows that have one to `out`, by row. Empties `all`.
pub(super) fn combine_shared(
    kind: &SignalKind,
    (bin, interval): (Timestamp, Span),
    all: &mut Vec<Contribution>,
    buffers: &mut Buffers,
    out: &mut Vec<Shared>,
) {
    all.sort_unstable_by(order);
    for of_row in all.chunk_by(|a, b| a.row == b.row) {
        buffers.counts.clear();
        for of_channel in of_row.chunk_by(|a, b| a.channel == b.channel) {
            settle(of_channel, bin.plus(interval), buffers);
        }
        let counted = of_row.iter().zip(&buffers.counts).filter(|(_, counts)| **counts).map(|(one, _)| one);
        let Some(oldest) = counted.clone().map(|one| one.at.min(bin)).min() else { continue };
        let value = value_of(kind, counted.clone());
        if value.is_finite() {
            let is_new = counted.clone().any(|one| one.presence == Presence::New);
            let is_partial = is_partial(kind, of_row, bin.plus(interval));
            let is_regular = counted.clone().any(|one| !is_overdue(one, bin.plus(interval)));
            let (row, oldest) = (of_row[0].row.row, oldest.bin_start(interval));
            out.push(Shared { row, value, is_new, is_partial, is_regular, oldest });
        }
    }
    all.clear();
}

/// By row and channel, then in ascending order of value: an order of contents alone.
fn order(a: &Contribution, b: &Contribution) -> std::cmp::Ordering {
    let key = |one: &Contribution| (one.covered, one.is_initial, one.at, one.first, one.period, one.presence);
    (a.row, a.channel)
        .cmp(&(b.row, b.channel))
        .then_with(|| a.value.total_cmp(&b.value))
        .then_with(|| key(a).cmp(&key(b)))
        .then_with(|| buckets(a).cmp(&buckets(b)))
}

/// Orders histograms by how finely they count, then by their bounds and counts.
fn buckets(one: &Contribution) -> Option<(std::cmp::Reverse<usize>, Vec<u64>, &[u64])> {
    let counts = one.counts.as_ref()?;
    let bounds = counts.bounds.iter().map(|bound| bound.to_bits()).collect();
    Some((std::cmp::Reverse(counts.bounds.len()), bounds, &counts.counts))
}

/// Appends for each contribution whether it counts.
///
/// A series that reports counts, and so does one that is between two of its points. Where processes are replaced the old one
/// cannot say that it is gone, and the new one has no rate before its second point: of each pair exactly one counts.
fn settle(all: &[Contribution], end: Timestamp, buffers: &mut Buffers) {
    let from = buffers.counts.len();
    let lives = |one: &Contribution| matches!(one.presence, Presence::New | Presence::Carried);
    buffers.counts.extend(all.iter().map(lives));
    let is_silent = |one: &Contribution| match one.presence {
        Presence::New => is_overdue(one, end),
        Presence::Carried | Presence::Lapsed => true,
        Presence::Awaited => false,
    };
    let Buffers { counts, waiting, newcomers } = buffers;
    waiting.clear();
    waiting.extend((0..all.len()).filter(|i| is_silent(&all[*i])));
    if waiting.is_empty() {
        return;
    }
    // The one that is most overdue is most likely gone.
    waiting.sort_by_key(|i| all[*i].at.plus(all[*i].period));
    for awaited in [false, true] {
        let is_newcomer = |one: &Contribution| (one.presence == Presence::Awaited) == awaited;
        newcomers.clear();
        newcomers.extend(
            all.iter().enumerate().filter(|(_, one)| is_newcomer(one)).map(|(i, one)| (one.first, i)),
        );
        newcomers.sort_unstable();
        waiting.retain(|gone| match successor(all, *gone, newcomers, end) {
            Some(place) => {
                newcomers.remove(place);
                counts[from + gone] = awaited;
                false
            }
            None => true,
        });
    }
}

/// The place of the newcomer that a silent series gives way to: the first that came after its last point.
fn successor(
    all: &[Contribution],
    gone: usize,
    newcomers: &[(Timestamp, usize)],
    end: Timestamp,
) -> Option<usize> {
    let old = &all[gone];
    let from = newcomers.partition_point(|(first, _)| *first < old.at);
    let fits = |(_, new): &(Timestamp, usize)| *new != gone && replaces(&all[*new], old, end);
    newcomers[from..].iter().position(fits).map(|place| from + place)
}

/// Whether one that came after the last point of another may be its successor.
fn replaces(new: &Contribution, old: &Contribution, end: Timestamp) -> bool {
    if new.presence == Presence::Awaited {
        return is_overdue(old, end);
    }
    let (a, b) = (level(new), level(old));
    let are_alike = a <= b * ALIKE && b <= a * ALIKE;
    // Of one that has reported once nobody knows when the next point is due.
    let has_pace = old.first < old.at;
    are_alike && has_pace && (is_overdue(old, end) || may_be_gone(new, old))
}

/// Whether its next point was due before the end of the bin.
fn is_overdue(one: &Contribution, end: Timestamp) -> bool {
    end > one.at.plus(one.period)
}

/// Whether one that is not overdue yet has gone nevertheless: nothing was heard of it since a newcomer of its kind came, and
/// that one took over what it had.
fn may_be_gone(new: &Contribution, old: &Contribution) -> bool {
    let is_settled = old.at.since(old.first) >= old.period.times(SETTLED);
    let has_its_pace = new.first == new.at || new.period.times(2) >= old.period;
    old.presence != Presence::New && old.channel != Channel::Value && is_settled && has_its_pace
}

/// Whether a row is so young that its sum is of a part of its series only: what is added up is low until each has reported.
///
/// Of gauges it takes one cadence until all have; of counters two points each. Not for longer than that, since new series may
/// come for ever, and not where nothing is added up.
fn is_partial(kind: &SignalKind, of_row: &[Contribution], end: Timestamp) -> bool {
    let Some(eldest) = of_row.iter().min_by_key(|one| (one.first, one.period)) else { return false };
    let is_within =
        |periods| eldest.first.is_known() && end < eldest.first.plus(eldest.period.times(periods));
    match kind {
        // While its cadence is not known, a series is waited for as long as it lives.
        SignalKind::Value { aggregate: Aggregate::Sum, .. } => {
            is_within(if eldest.at == eldest.first { LIFE } else { 1 })
        }
        SignalKind::Rate { .. } => {
            is_within(SETTLING) && of_row.iter().any(|one| one.presence == Presence::Awaited)
        }
        _ => false,
    }
}

/// The value of a gauge, the rate of everything else.
fn level(one: &Contribution) -> f64 {
    if one.channel == Channel::Value { one.value } else { one.value / one.covered.secs_f64() }
}

fn value_of<'a>(kind: &SignalKind, all: impl Iterator<Item = &'a Contribution> + Clone) -> f64 {
    match kind {
        SignalKind::Value { aggregate, .. } => aggregated(*aggregate, all.map(|one| one.value)),
        SignalKind::Ratio { min_denominator, missing_is_zero, .. } => {
            ratio(*min_denominator, *missing_is_zero, &all)
        }
        SignalKind::Quantile { q, .. } => quantile(*q, all),
        _ => {
            let mut rates: Vec<f64> = all.map(level).collect();
            rates.sort_unstable_by(f64::total_cmp);
            rates.iter().fold(0.0, |sum, rate| sum + rate)
        }
    }
}

/// Of values in ascending order.
fn aggregated(aggregate: Aggregate, values: impl Iterator<Item = f64> + Clone) -> f64 {
    let sum = values.clone().fold(0.0, |sum, value| sum + value);
    match aggregate {
        Aggregate::Sum => sum,
        Aggregate::Mean => sum / values.count() as f64,
        Aggregate::Min => values.fold(f64::INFINITY, f64::min),
        Aggregate::Max => values.fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Both sides as rates, so that each series weighs by its own cadence; where all have the same, the quotient of their increases.
fn ratio<'a>(
    min_denominator: f64,
    missing_is_zero: bool,
    all: &(impl Iterator<Item = &'a Contribution> + Clone),
) -> f64 {
    let weight = weights(all.clone());
    let of = |channel| all.clone().filter(move |one| one.channel == channel);
    let sum = |channel| of(channel).fold(0.0, |sum, one| sum + one.value * weight(one));
    let observed = of(Channel::To).fold(0.0, |sum, one| sum + one.value);
    let is_silent = !missing_is_zero && of(Channel::Of).next().is_none();
    // Too few to tell: no data, which is neither healthy nor broken.
    if observed < min_denominator || observed <= 0.0 || is_silent {
        return f64::NAN;
    }
    sum(Channel::Of) / sum(Channel::To)
}

/// In the bounds that the series have in common. Of series without common bounds the finest set wins, whoever came first.
fn quantile<'a>(q: f64, all: impl Iterator<Item = &'a Contribution> + Clone) -> f64 {
    let weight = weights(all.clone());
    let mut sets: Vec<_> = all.filter_map(|one| Some((one.counts.as_ref()?, weight(one)))).collect();
    let finest = |counts: &Histogram| {
        let bits: Vec<u64> = counts.bounds.iter().map(|bound| bound.to_bits()).collect();
        (std::cmp::Reverse(counts.bounds.len()), bits)
    };
    sets.sort_by_cached_key(|(counts, _)| finest(counts));
    let Some((first, _)) = sets.first() else { return f64::NAN };
    let mut common = Histogram::clone(first);
    sets.retain(|(counts, _)| match common.common_bounds(counts) {
        Some(bounds) => {
            common = common.merged(&bounds);
            true
        }
        None => false,
    });
    let mut sum = vec![0.0; common.bounds.len() + 1];
    for (counts, weight) in sets {
        let counts = counts.merged(&common.bounds).counts;
        sum.iter_mut().zip(&counts).for_each(|(sum, n)| *sum += *n as f64 * weight);
    }
    quantile_of(&common.bounds, sum.iter().copied(), q)
}

/// Times that differ by less than this share are one: instruments of one export start milliseconds apart, and scrapes jitter.
const JITTER: f64 = 1.0 / 128.0;

/// How much an increase weighs: 1 of those that cover the longest time, so that equal times leave counts as they are.
///
/// A series counted nothing before its first delta, which is that of the longest time as well, however short the time since its
/// start: an observable counter is created milliseconds before its first export.
fn weights<'a>(all: impl Iterator<Item = &'a Contribution>) -> impl Fn(&Contribution) -> f64 {
    let longest = all.map(|one| one.covered).max().unwrap_or(Span::ZERO).secs_f64();
    move |one| {
        let covered = one.covered.secs_f64();
        if one.is_initial || covered >= longest * (1.0 - JITTER) { 1.0 } else { longest / covered }
    }
}
