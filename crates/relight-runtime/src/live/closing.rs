//! Whether bins close: a relight whose bins do not is blind, and not ready, whatever the reason.

use relight_core::telemetry::Posted;
use relight_core::{Span, Timestamp};

use super::Live;
use super::clock::MAX_STEP;

/// How far bins have closed, and since when they stand there.
pub(super) struct Closing {
    closed: Timestamp,
    since: Timestamp,
    /// A step of the wall clock, in words, and how far bins had closed when it was seen.
    step: Option<(String, Timestamp)>,
}

impl Closing {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { closed: Timestamp::MIN, since: now, step: None }
    }

    fn stepped(&mut self, why: String, closed: Timestamp) {
        self.step = closed.is_known().then_some((why, closed));
    }

    /// Why bins do not close, if they do not. `patience` is longer than any silence lasts that is waited for.
    fn look(&mut self, closed: Timestamp, now: Timestamp, patience: Span) -> Option<String> {
        if closed != self.closed {
            (self.closed, self.since) = (closed, now);
        }
        self.step = self.step.take().filter(|(_, before)| closed <= *before);
        // Of what has never come, and of what has ended, no bin closes.
        let is_going = closed.is_known() && closed <= now.plus(MAX_STEP);
        let stands = now.since(self.since);
        match &self.step {
            Some((why, _)) => Some(format!("no bin has closed since {why}")),
            None if is_going && stands > patience => Some(format!("no bin has closed for {stands}")),
            None => None,
        }
    }
}

impl Live {
    /// Tells at once of a step of the wall clock by more than a bin, or of a second where bins are shorter.
    pub(super) fn tell_step(&mut self, now: Timestamp) {
        let least = self.settings.interval().max(Span::from_secs(1));
        let Some(step) = self.clock.received().take_step(least) else { return };
        let by = Span::from_ns(step.saturating_abs());
        let (where_to, then) = if step < 0 {
            ("back", "records are received by the monotonic clock, which approaches it")
        } else {
            ("ahead", "records are received by it from now on")
        };
        let why = format!("the wall clock was set {where_to} by {by}");
        self.notice(&format!("clock: {why}: {then}"));
        self.closing.stepped(why, self.pipeline.bins_closed_through());
        // `/readyz` says so at once.
        self.next_post = now;
    }

    pub(super) fn show_closing(&mut self, posted: &mut Posted, now: Timestamp) {
        let interval = self.settings.interval();
        let silence = self.how.idle_after.ns().saturating_add(self.how.catch_up.ns());
        let bins = interval.times(3).ns().saturating_add(self.settings.allowed_lateness.ns());
        let patience = Span::from_ns(silence.saturating_add(bins));
        let closed = self.pipeline.bins_closed_through();
        posted.unready.extend(self.closing.look(closed, now, patience));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_764_000_000 + secs)
    }

    /// Guarantee: bins that stand still for longer than any silence are told, and a step of the clock at once, until a bin
    /// closes; of what has never come, or has ended, nothing is said.
    #[test]
    fn bins_that_stand_still_are_told() {
        let mut closing = Closing::new(at(0));
        let look = |closing: &mut Closing, closed, secs| closing.look(closed, at(secs), Span::from_secs(100));
        assert_eq!(look(&mut closing, Timestamp::MIN, 1_000), None);
        assert_eq!(look(&mut closing, at(0), 1_000), None);
        assert_eq!(look(&mut closing, at(0), 1_100), None);
        assert_eq!(look(&mut closing, at(0), 1_101).as_deref(), Some("no bin has closed for 1m41s"));
        assert_eq!(look(&mut closing, at(10), 1_102), None);
        closing.stepped("a step".to_owned(), at(10));
        assert_eq!(look(&mut closing, at(10), 1_103).as_deref(), Some("no bin has closed since a step"));
        assert_eq!(look(&mut closing, at(20), 1_104), None);
        assert_eq!(look(&mut closing, at(20), 1_105), None);
        assert_eq!(look(&mut closing, Timestamp::MAX, 9_999), None);
        assert_eq!(look(&mut closing, Timestamp::MAX, 99_999), None);
        closing.stepped("a step".to_owned(), Timestamp::MIN);
        assert_eq!(look(&mut closing, Timestamp::MIN, 99_999), None);
    }
}
