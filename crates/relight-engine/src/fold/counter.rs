//! The increase of one running total from one point to the next: what a fall means, and what a first point counts.
//!
//! The rules and their reasons are in `docs/design/counters.md`. Knows no histogram: the running total of one is its
//! count. Looks at the points of one series in order of time and at nothing else, so that a result depends on closed
//! bins alone.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::{Span, Timestamp};

use super::last::{Last, Pace, rate};
use crate::counters::Fall;

/// A fall of less than this part of the total is no reset: VictoriaMetrics draws the same line (issue 2787 there).
const CORRECTION: f64 = 8.0;
/// A total that falls to at most this part of what it was is near zero, where no pace is known to measure it by.
const NEAR_ZERO: f64 = 1e6;
/// A fall by less than this part is no sign of several writers, unless they alternate.
const NOTABLE: f64 = 1_000.0;
/// A fall by less than this part (four steps of a 32-bit float) is rounding, unless the total grows by as much.
const ROUNDING: f64 = 1_048_576.0;
/// A first point counts since its start, if that is at most this many bins or points ago.
const FEW: i64 = 3;
/// The longest that the second point is waited for to learn how far apart points are: `FEW` points of 5 minutes.
const LONGEST_START: Span = Span::from_secs(900);
/// Points without another fall after which an unexplained fall is decided, and after which they show a pace that was not
/// known. Three writers in turn never rise so often.
const DECIDED_AFTER: u8 = 3;
/// Points without another fall after which a fall is forgotten.
const FORGOTTEN_AFTER: u8 = 8;
/// Points of one writer after which the other is taken to be gone, and those after which it is forgotten.
const SINGLE_AFTER: u8 = 16;
const SINGLE_FORGOTTEN_AFTER: u8 = 64;
/// Signs of several writers, each worth so much; each point that goes on from the last one takes 1 away.
const SIGN_ALTERNATES: u8 = 4;
const SIGN_FELL: u8 = 2;
const SEVERAL_WRITERS: u8 = 12;
/// A total that jumped and grew by at most this part of the jump is where it was before.
const REPETITION: f64 = 64.0;
/// Signs from which on a jump that no writer's pace explains is another writer.
const LIKELY_WRITERS: u8 = 8;

/// Why a series is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Its first point has a start whose distance is measured by the second one.
    Young = 0,
    /// Its total fell, and the fall counted as a reset.
    Reset = 1,
    /// Its total fell, and the next points go on from before or from after the fall.
    Corrected = 2,
    /// Its total fell, neither by little nor to about zero.
    Unexplained = 3,
    /// Several writers share the series.
    SeveralWriters = 4,
    /// Several writers shared the series a while ago.
    HadWriters = 5,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Young,
        Self::Reset,
        Self::Corrected,
        Self::Unexplained,
        Self::SeveralWriters,
        Self::HadWriters,
    ];
}

/// What is kept of the few series whose total fell lately, 19 bytes each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, packed)]
pub(super) struct Watch {
    state: State,
    /// Points since the last fall or return.
    calm: u8,
    /// Signs of several writers.
    signs: u8,
    /// Another point from which the next one may go on: the one before the fall, or the last one of another writer. Of a
    /// young series its start.
    other_at: Timestamp,
    other: f64,
}

impl Watch {
    const fn new(state: State, (other_at, other): (Timestamp, f64), signs: u8) -> Self {
        Self { state, calm: 0, signs, other_at, other }
    }

    const fn is_over(&self) -> bool {
        match self.state {
            State::Young | State::Reset | State::Corrected | State::Unexplained => {
                self.calm >= FORGOTTEN_AFTER
            }
            State::SeveralWriters | State::HadWriters => self.calm >= SINGLE_FORGOTTEN_AFTER,
        }
    }

    /// Whether several writers share the series, or shared it a while ago.
    pub(super) const fn has_writers(&self) -> bool {
        matches!(self.state, State::SeveralWriters | State::HadWriters)
    }

    /// Takes the signs into account.
    const fn judged(mut self) -> Self {
        if self.signs >= SEVERAL_WRITERS {
            self.state = State::SeveralWriters;
        }
        self
    }
}

impl Codec for Watch {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.state as u8).encode(out);
        self.calm.encode(out);
        self.signs.encode(out);
        { self.other_at }.encode(out);
        { self.other }.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let state = State::ALL.get(u8::decode(reader)? as usize).copied();
        Ok(Self {
            state: state.ok_or(Corrupt::Value("watch"))?,
            calm: u8::decode(reader)?,
            signs: u8::decode(reader)?,
            other_at: Codec::decode(reader)?,
            other: Codec::decode(reader)?,
        })
    }
}

/// The next point of a running total.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) at: Timestamp,
    /// When the total was zero; [`Timestamp::MIN`] if the sender does not say.
    pub(super) start: Timestamp,
    pub(super) total: f64,
}

impl Next {
    /// A start at the point's own time or behind it says nothing.
    pub(super) fn new(at: Timestamp, start: Timestamp, total: f64) -> Self {
        Self { at, start: if start < at { start } else { Timestamp::MIN }, total }
    }
}

/// What buckets of a histogram are a difference to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The last point.
    Last,
    /// Zero.
    Start,
    /// A point whose buckets are not kept.
    Other,
}

/// An increase that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Increase {
    pub(super) from: Timestamp,
    pub(super) amount: f64,
    pub(super) basis: Basis,
}

/// What comes of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) increase: Option<Increase>,
    pub(super) pace: Pace,
    pub(super) fall: Option<Fall>,
    /// Several writers share the series: the point counts for nothing.
    pub(super) has_writers: bool,
    pub(super) watch: Option<Watch>,
}

impl Step {
    const fn nothing(pace: Pace) -> Self {
        Self { increase: None, pace, fall: None, has_writers: false, watch: None }
    }

    fn counts(self, from: Timestamp, amount: f64, basis: Basis) -> Self {
        Self { increase: Some(Increase { from, amount, basis }), ..self }
    }
}

/// Takes the next point of a running total. The caller puts it in the place of the last one.
pub(super) fn step(last: Last, watch: Option<Watch>, next: Next, interval: Span) -> Step {
    if !{ last.at }.is_known() {
        return first(next, interval);
    }
    if next.start > { last.at } {
        return restarted(last, next);
    }
    let step = match watch {
        None => steady(last, next),
        Some(Watch { state: State::Young, other_at, .. }) => young(last, other_at, next),
        Some(watch) => watched(last, watch, next),
    };
    Step { watch: step.watch.filter(|watch| !watch.is_over()), ..step }
}

/// The first point counts since its start, if that is not long ago. Long is measured in bins, and else in points, as
/// soon as the second one shows how far they are apart.
fn first(next: Next, interval: Span) -> Step {
    let nothing = Step::nothing(Pace::UNKNOWN);
    let age = next.at.since(next.start);
    if !next.start.is_known() {
        nothing
    } else if age <= few(interval) {
        // Before its start the total was zero, so a start a moment ago is no reason to divide by a moment.
        let from = next.start.min(next.at.minus(interval));
        let pace = Pace::UNKNOWN.follow(rate(next.total, next.at.since(from)));
        Step { pace, ..nothing }.counts(from, next.total.max(0.0), Basis::Start)
    } else if age <= LONGEST_START {
        Step { watch: Some(Watch::new(State::Young, (next.start, 0.0), 0)), ..nothing }
    } else {
        nothing
    }
}

fn young(last: Last, start: Timestamp, next: Next) -> Step {
    if next.total < last.total || { last.at }.since(start) > few(next.at.since(last.at)) {
        return steady(last, next);
    }
    let pace = last.pace.follow(rate(next.total, next.at.since(start)));
    Step::nothing(pace).counts(start, next.total.max(0.0), Basis::Start)
}

const fn few(span: Span) -> Span {
    Span::from_ns(span.ns().saturating_mul(FEW))
}

/// A start behind the last point: all that there is came since.
fn restarted(last: Last, next: Next) -> Step {
    let mut step = Step::nothing(last.pace).counts(last.at, next.total.max(0.0), Basis::Start);
    step.fall = Some(Fall::Reset);
    if next.total < last.total {
        step.watch = Some(Watch::new(State::Reset, (last.at, last.total), 0));
    }
    step
}

fn steady(last: Last, next: Next) -> Step {
    if next.total < last.total {
        return fell(last, next);
    }
    let increase = next.total - last.total;
    let pace = last.pace.follow(rate(increase, next.at.since(last.at)));
    Step::nothing(pace).counts(last.at, increase, Basis::Last)
}

fn fell(last: Last, next: Next) -> Step {
    let fall = fall(last, next);
    let state = match fall {
        Fall::Reset => State::Reset,
        Fall::Correction => State::Corrected,
        Fall::Unexplained => State::Unexplained,
    };
    // A process that lived for two points at least begins again at less than half of its total.
    let is_sign = match fall {
        Fall::Reset => next.total > last.total / 2.0,
        Fall::Correction | Fall::Unexplained => last.total - next.total > last.total / NOTABLE,
    };
    let signs = if is_sign { SIGN_FELL } else { 0 };
    let watch = Some(Watch::new(state, (last.at, last.total), signs));
    let step = Step { fall: Some(fall), watch, ..Step::nothing(last.pace) };
    if fall == Fall::Reset { step.counts(last.at, next.total.max(0.0), Basis::Start) } else { step }
}

fn fall(last: Last, next: Next) -> Fall {
    // What counts has no value below zero: one that is sent is no decrease either.
    if next.total <= 0.0 {
        return Fall::Reset;
    }
    let by_pace = last.pace.explains(rate(next.total, next.at.since(last.at)));
    if next.start.is_known() {
        // Clocks of a process and of who scrapes it may differ: a start before the last point is a new one all the same
        // if the total could not have come to what it was since then.
        let since_start = rate(last.total, { last.at }.since(next.start));
        let is_new = next.total <= last.total / CORRECTION && by_pace && !last.pace.explains(since_start);
        return if is_new { Fall::Reset } else { Fall::Correction };
    }
    if last.total - next.total < last.total / CORRECTION {
        Fall::Correction
    } else if by_pace || (!last.pace.is_known() && next.total <= last.total / NEAR_ZERO) {
        Fall::Reset
    } else {
        Fall::Unexplained
    }
}

/// A point of a series whose total fell lately: it goes on from the last point, or from the one before the fall, or
/// falls again.
fn watched(last: Last, watch: Watch, next: Next) -> Step {
    let on = rate(next.total - last.total, next.at.since(last.at));
    let back = rate(next.total - watch.other, next.at.since(watch.other_at));
    match (next.total >= last.total, next.total >= watch.other) {
        (true, false) => go_on(last, watch, next, on),
        (true, true) if watch.other <= last.total => go_on(last, watch, next, on),
        (true, true) if is_return(last, watch, next, (on, back)) => come_back(last, watch, next, back),
        (true, true) => pass(last, watch, next, on),
        (false, true) => alternate(last, watch, next),
        (false, false) => fell_again(last, watch, next),
    }
}

/// Whether a point that could go on from both is rather one of those from before the fall: the pace decides, or that an
/// unexplained fall was taken back to where it was.
fn is_return(last: Last, watch: Watch, next: Next, (on, back): (f32, f32)) -> bool {
    let pace = last.pace;
    let is_closer = pace.distance(back) < pace.distance(on);
    let is_back = watch.state == State::Unexplained
        && is_repetition(last, next.total - watch.other, next.total - last.total);
    !pace.is_known() || is_closer || is_back || (pace.explains(back) && !pace.explains(on))
}

/// A point that is above the one from before the fall by a pace that was seen before: a counter that is past its last
/// life, or the other one of two writers whose distance was taken for an increase.
fn pass(last: Last, mut watch: Watch, next: Next, on: f32) -> Step {
    if watch.state == State::Reset {
        let is_sign = is_repetition(last, next.total - watch.other, next.total - last.total);
        // One more for the one that going on takes away.
        watch.signs = if is_sign { watch.signs.saturating_add(SIGN_FELL + 1) } else { 0 };
    }
    if watch.state != State::Unexplained {
        (watch.other_at, watch.other) = (last.at, last.total);
    }
    go_on(last, watch.judged(), next, on)
}

/// Whether a total that jumped is where it was before, and a little on.
fn is_repetition(last: Last, growth: f64, jump: f64) -> bool {
    jump > last.total / NOTABLE && growth > 0.0 && growth <= jump / REPETITION
}

fn go_on(last: Last, mut watch: Watch, next: Next, on: f32) -> Step {
    watch.calm = watch.calm.saturating_add(1);
    watch.signs = watch.signs.saturating_sub(1);
    let is_known = last.pace.is_known();
    let is_early = !is_known && watch.state != State::Reset && watch.calm < DECIDED_AFTER;
    let is_jump = is_known && !last.pace.explains(on);
    let step = Step { watch: Some(watch), ..Step::nothing(last.pace.follow(on)) };
    // A jump is rather from one writer to another.
    let doubtful = Step { pace: last.pace, ..step };
    match watch.state {
        State::SeveralWriters => {
            if watch.calm >= SINGLE_AFTER {
                (watch.state, watch.signs) = (State::HadWriters, 0);
            }
            let pace = if is_jump || is_early { last.pace } else { step.pace };
            Step { watch: Some(watch), has_writers: true, pace, ..step }
        }
        State::Unexplained if watch.calm < DECIDED_AFTER => {
            if is_jump || is_early {
                doubtful
            } else {
                step
            }
        }
        State::Unexplained => decide(last, watch, next, step),
        _ if is_early || is_jump && watch.signs >= LIKELY_WRITERS => doubtful,
        _ => step.counts(last.at, next.total - last.total, Basis::Last),
    }
}

/// An unexplained fall after which the total went on from below: a reset, if the pace explains the total by now or it is
/// still small.
fn decide(last: Last, mut watch: Watch, next: Next, step: Step) -> Step {
    let whole = rate(next.total, next.at.since(watch.other_at));
    let is_reset = step.pace.explains(whole) || next.total <= watch.other / (CORRECTION / 2.0);
    watch.state = if is_reset { State::Reset } else { State::Corrected };
    let step = Step { watch: Some(watch), fall: is_reset.then_some(Fall::Reset), ..step };
    if is_reset {
        step.counts(watch.other_at, next.total, Basis::Start)
    } else {
        step.counts(last.at, next.total - last.total, Basis::Last)
    }
}

/// The total is back where it was before the fall: that was no reset.
fn come_back(last: Last, watch: Watch, next: Next, back: f32) -> Step {
    let was_reset = matches!(watch.state, State::Reset | State::Unexplained);
    let signs = watch.signs.saturating_add(if was_reset { SIGN_FELL } else { 0 });
    let state = if watch.state == State::SeveralWriters { State::SeveralWriters } else { State::Corrected };
    let now = Watch::new(state, (last.at, last.total), signs).judged();
    let has_writers = now.state == State::SeveralWriters;
    let step = Step { watch: Some(now), has_writers, ..Step::nothing(last.pace) };
    let is_jump = !last.pace.explains(back) && signs >= LIKELY_WRITERS;
    if has_writers || is_jump || !last.pace.is_known() {
        return step;
    }
    let step = Step { pace: last.pace.follow(back), ..step };
    step.counts(watch.other_at, next.total - watch.other, Basis::Other)
}

/// A fall to where another writer would be by now. Unless the pace makes it a reset, it counts for nothing: who of both has
/// the right total is not known.
fn alternate(last: Last, watch: Watch, next: Next) -> Step {
    let (fall, growth) = (last.total - next.total, next.total - watch.other);
    if watch.state != State::SeveralWriters && self::fall(last, next) == Fall::Reset {
        let step = fell(last, next);
        let more = if is_repetition(last, growth, fall) { SIGN_FELL } else { 0 };
        return signed(step, watch, more);
    }
    let is_sign = growth > 0.0 && (fall > last.total / ROUNDING || growth >= fall);
    let signs = watch.signs.saturating_add(if is_sign { SIGN_ALTERNATES } else { 0 });
    let state = if watch.state == State::SeveralWriters { State::SeveralWriters } else { State::Corrected };
    let now = Watch::new(state, (last.at, last.total), signs).judged();
    let has_writers = now.state == State::SeveralWriters;
    Step { watch: Some(now), fall: Some(Fall::Correction), has_writers, ..Step::nothing(last.pace) }
}

fn fell_again(last: Last, watch: Watch, next: Next) -> Step {
    let step = fell(last, next);
    if watch.state == State::SeveralWriters {
        let now = Watch::new(State::SeveralWriters, (last.at, last.total), watch.signs);
        return Step { increase: None, watch: Some(now), has_writers: true, ..step };
    }
    signed(step, watch, 0)
}

/// Another fall, with the signs so far. A reset to less than half of the total takes them back: totals that begin anew
/// again and again are no writers.
fn signed(step: Step, watch: Watch, more: u8) -> Step {
    let Some(mut now) = step.watch else { return step };
    let more = now.signs.saturating_add(more);
    now.signs = if more == 0 && now.state == State::Reset { 0 } else { watch.signs.saturating_add(more) };
    let now = now.judged();
    let has_writers = now.state == State::SeveralWriters;
    let increase = step.increase.filter(|_| !has_writers);
    Step { increase, watch: Some(now), has_writers, ..step }
}
