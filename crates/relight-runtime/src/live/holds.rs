//! What a live run holds back of its own accord: doubt about what was learned, what was done, and the time.
//!
//! Pages are never held. A hold without an end waits for `relight resume`.

use relight_core::{Span, Timestamp};
use relight_engine::control::{ControlInput, SOURCE_DOWN};

use crate::pipeline::Doubts;

/// Steps of the wall clock below this are what time services make in ordinary operation: chrony steps at a
/// start, and by tenths of a second.
const ORDINARY_STEP: Span = Span::from_secs(10);

/// What is held after a start. `behind` is how far the wall clock is behind the ledger's time.
pub(super) fn after_start(
    doubts: &Doubts,
    behind: Option<Span>,
    warm_up: Span,
    now: Timestamp,
) -> Vec<ControlInput> {
    let warm = doubts.cold.as_ref().filter(|_| warm_up > Span::ZERO);
    let warm = warm.map(|why| hold("warm_up", Some(now.plus(warm_up)), why.clone()));
    let lost = doubts.ledger_lost.as_ref();
    let lost = lost.map(|why| hold("ledger_lost", None, format!("what was done before is not known: {why}")));
    let back = behind.filter(|behind| *behind > ORDINARY_STEP).map(clock_jump);
    [warm, lost, back].into_iter().flatten().collect()
}

/// The state folder cannot be opened: what was learned and done is not known.
pub(super) fn no_state(why: &str) -> ControlInput {
    hold("no_state", None, format!("the state folder {why}"))
}

/// Data is missing: what was learned is stale until it is warm again.
pub(super) fn stale(kind: &str, warm_up: Span, now: Timestamp, why: String) -> Option<ControlInput> {
    (warm_up > Span::ZERO).then(|| hold(kind, Some(now.plus(warm_up)), why))
}

/// How often what is held for a source that is down is held on.
const HOLD_ON: Span = Span::from_secs(60);

/// A source is down: missing data says nothing, and there is no ground to act on. Held on while that lasts, and then for
/// as long as a stalled partition is waited for, since not every series comes back with the first record. Also says when
/// it is to be held on.
pub(super) fn blind(max_skew: Span, now: Timestamp, why: String) -> (ControlInput, Timestamp) {
    let next = now.plus(HOLD_ON);
    (hold(SOURCE_DOWN, Some(next.plus(max_skew)), why), next)
}

/// The wall clock and control time are apart.
pub(super) fn clock_jump(away: Span) -> ControlInput {
    hold("clock_jump", None, format!("the wall clock is {away} away from what it should be"))
}

fn hold(name: &str, until: Option<Timestamp>, why: String) -> ControlInput {
    ControlInput::Hold { name: name.to_owned(), until, why }
}
