//! relight's own troubles: told in the log, and to people by whom the config names.
//!
//! Says what happened and what follows from it; when people are told is Control's.

use relight_core::{Span, Timestamp};
use relight_engine::control::{ControlInput, FLEET_LIMIT, SOURCE_DOWN};

use super::{Live, holds};
use crate::error::RuntimeError;

/// How often it is asked whether deltas overlap, and after they did: whoever writes them goes on.
const SHARED_ASKED: Span = Span::from_secs(1);
const SHARED_TOLD: Span = Span::from_secs(3_600);

/// Something is wrong with relight, or with what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A stable word: `source_down`, `gap` and the like.
    pub kind: &'static str,
    /// A source, a detector: what is told about seldom, if it is told often.
    pub about: String,
    /// The rest, for people.
    pub why: String,
    /// Data is missing, so what was learned is no ground to act on until it is warm again.
    pub is_loss: bool,
}

impl Trouble {
    pub(super) fn new(kind: &'static str, about: &str, why: String) -> Self {
        Self { kind, about: about.to_owned(), why, is_loss: false }
    }
}

/// The source that a partition belongs to.
fn source_of(partition: &str) -> &str {
    partition.split_once('/').map_or(partition, |(source, _)| source)
}

impl Live {
    /// Tells of it, and holds back what it is no ground for.
    pub(super) fn trouble(&mut self, trouble: Trouble, now: Timestamp) -> Result<(), RuntimeError> {
        let Trouble { kind, about, why, is_loss } = trouble;
        self.notice(&format!("{kind}: {about}: {why}"));
        if is_loss {
            let hold = holds::stale(kind, self.how.warm_up, now, format!("{about}: {why}"));
            hold.map_or(Ok(()), |hold| self.pipeline.control(hold, now))?;
        }
        self.pipeline.control(ControlInput::Trouble { kind: kind.to_owned(), about, why }, now)
    }

    /// What the start found damaged.
    pub(super) fn tell_doubts(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        let doubts = self.pipeline.doubts().clone();
        let lost = [
            ("baselines_quarantined", "the baselines", doubts.damaged),
            ("ledger_quarantined", "the ledger", doubts.ledger_lost),
        ];
        for (kind, about, why) in lost {
            if let Some(why) = why {
                self.trouble(Trouble::new(kind, about, why), now)?;
            }
        }
        Ok(())
    }

    /// One partition of a source cannot be reached. Of several, people are told of the first.
    pub(super) fn source_down(
        &mut self,
        (ix, partition): (u32, &str),
        why: &str,
        now: Timestamp,
    ) -> Result<(), RuntimeError> {
        let source = source_of(partition);
        let why = format!("{partition} cannot be reached: {why}");
        let is_down = self.streams.iter().any(|stream| {
            stream.ix != ix
                && source_of(&stream.outlet.partition) == source
                && self.liveness.is_stalled(stream.ix)
        });
        if is_down {
            self.notice(&format!("source_down: {source}: {why}"));
            return Ok(());
        }
        self.trouble(Trouble::new(SOURCE_DOWN, source, why), now)
    }

    /// While a source is down, what its silence sets off is held back.
    pub(super) fn hold_blind(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        if now < self.next_blind {
            return Ok(());
        }
        let Some(down) = self.streams.iter().find(|stream| self.liveness.is_stalled(stream.ix)) else {
            // A stalled partition is waited for for much longer before its silence can be seen.
            self.next_blind = now.plus(Span::from_secs(1));
            return Ok(());
        };
        let why = format!("{} cannot be reached", down.outlet.partition);
        let (hold, next) = holds::blind(self.settings.max_skew, now, why);
        self.next_blind = next;
        self.pipeline.control(hold, now)
    }

    /// A wall clock that jumped: nothing is changed until a human has looked.
    pub(super) fn watch_clock(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        let Some(away) = self.clock.step().filter(|_| !self.figures.stepped) else { return Ok(()) };
        self.figures.stepped = true;
        let why = format!(
            "the wall clock is {away} away from control time, which goes on by the monotonic clock; \
             nothing is changed until `relight resume`"
        );
        self.pipeline.control(holds::clock_jump(away), now)?;
        self.trouble(Trouble::new("clock_jump", "the wall clock", why), now)
    }

    /// The fleet limit engages in a turn of Control, which pages people itself: here it is logged.
    pub(super) fn watch_fleet_limit(&mut self) {
        let why = {
            let mut holds = self.pipeline.control_state().holds();
            holds.find(|(name, _)| *name == FLEET_LIMIT).map(|(_, hold)| hold.why.clone())
        };
        let was_logged = std::mem::replace(&mut self.figures.limited, why.is_some());
        if let Some(why) = why.filter(|_| !was_logged) {
            self.notice(&format!(
                "{FLEET_LIMIT}: engaged: {why}; nothing is changed until `relight resume`, people are still paged"
            ));
        }
    }

    /// Detectors that panicked in the turns so far.
    pub(super) fn tell_panics(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        for panicked in self.pipeline.take_panics() {
            if panicked.quarantined > 0 {
                let trouble = Trouble::new("detector_quarantined", &panicked.detector, panicked.to_string());
                self.trouble(trouble, now)?;
            } else {
                self.notice(&format!("detector {}: {panicked}", panicked.detector));
            }
        }
        Ok(())
    }

    /// Series that several writers share: in the log, at once and then hourly.
    pub(super) fn report_writer_conflicts(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        if now < self.next_shared {
            return Ok(());
        }
        self.next_shared = now.plus(SHARED_ASKED);
        for notice in self.pipeline.take_writer_conflicts()? {
            self.next_shared = now.plus(SHARED_TOLD);
            self.notice(&notice);
        }
        Ok(())
    }
}
