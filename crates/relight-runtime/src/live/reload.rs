//! Another config for a run that goes on: a snapshot, the swap, and the next turn goes by it.
//!
//! Nothing of a start happens here: no hold, no catching up, no action that is taken up again. What was queued, planned or under way
//! stays, and streams, clock and figures do not notice. What a config says, and which may follow which, is known outside.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Sender;
use relight_core::rule::Settings;
use relight_core::{Span, Timestamp};

use super::heart::Heart;
use super::liveness::Patience;
use super::{Live, LiveSettings, Pulse};
use crate::error::RuntimeError;
use crate::pipeline::Outbox;

/// What a run goes over to.
pub struct Reload {
    /// What the engine has to know.
    pub settings: Arc<Settings>,
    /// How the run goes about it.
    pub live: LiveSettings,
    /// What carries actions out; `None` leaves that as it is.
    pub outbox: Option<Box<dyn Outbox>>,
    /// A sign of life, and how often.
    pub heartbeat: Option<(Span, Pulse)>,
    /// Called when it takes effect, between two turns; must not wait.
    pub swapped: Box<dyn FnOnce() + Send>,
    /// Told whether it took effect or, if everything is as it was, why not.
    pub done: Sender<Result<(), String>>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

impl Live {
    pub(super) fn reload(&mut self, reload: Reload, now: Timestamp) -> Result<(), RuntimeError> {
        let Reload { settings, live, outbox, heartbeat, swapped, done } = reload;
        // So that no rewind crosses it.
        let swap = if self.cut_now(now)? {
            self.pipeline.reload(Arc::clone(&settings), outbox)
        } else {
            // Whoever waits may be gone.
            let _ = done.send(Err("no snapshot could be written, and none may lie before it".to_owned()));
            return Ok(());
        };
        match swap {
            Ok(()) => {}
            Err(error @ (RuntimeError::State(_) | RuntimeError::Interval { .. })) => {
                let _ = done.send(Err(error.to_string()));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        swapped();
        self.streams.iter_mut().for_each(|stream| stream.lateness.allow(settings.allowed_lateness));
        self.liveness.patience(patience(&live, &settings));
        self.next_cut = self.next_cut.min(now.plus(live.snapshot_every));
        // The age of a gap is that of the start.
        self.how = LiveSettings { was_killed: self.how.was_killed, ..live };
        self.settings = settings;
        let (next, closed) = self
            .heart
            .as_ref()
            .map_or_else(|| (now, self.pipeline.bins_closed_through()), |heart| (heart.next, heart.closed));
        self.heart = heartbeat.map(|(every, pulse)| Heart { pulse, every, next, closed });
        let _ = done.send(Ok(()));
        Ok(())
    }
}

/// How long silence is waited for.
pub(super) fn patience(live: &LiveSettings, settings: &Settings) -> Patience {
    Patience {
        idle_after: live.idle_after,
        max_skew: settings.max_skew,
        catch_up: live.catch_up,
        lateness: settings.allowed_lateness,
    }
}
