//! Other settings for an engine that runs: between two turns, all at once or not at all.
//!
//! What was learned goes over as at a start from a snapshot, but in memory; partitions, incidents and what is under way stay where
//! they are. Whoever drives cuts a snapshot before it, so that no rewind crosses it.

use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::rule::Settings;
use relight_engine::directory::Directory;

use super::{Outbox, Pipeline};
use crate::error::RuntimeError;
use crate::image;
use crate::shards::Shards;

impl Pipeline {
    /// The next turn goes by other settings, and what it wants done goes to `outbox`; without one, to the same as before. On an
    /// error everything is as it was.
    pub fn reload(
        &mut self,
        settings: Arc<Settings>,
        outbox: Option<Box<dyn Outbox>>,
    ) -> Result<(), RuntimeError> {
        let (was, is) = (self.settings.interval(), settings.interval());
        if self.settings.binning != settings.binning {
            return Err(RuntimeError::Interval { was, is });
        }
        // Partitions keep the numbers by which open points know them.
        let same: Vec<u16> = (0..self.intake.ranks().len() as u16).collect();
        let images = image::save(&self.settings, self.intake.directory(), &same, &mut self.shards)?;
        let mut directory = Directory::new(&settings);
        let mut shards = Shards::new(&settings, self.shards.len());
        image::load(&settings, &mut directory, &images, &mut shards)?;
        self.intake.reload(&settings, directory);
        self.shards = shards;
        self.judges_silence = settings.detectors.iter().any(|d| d.source.bank().patience().is_some());
        self.settings = Arc::clone(&settings);
        if let Some(outbox) = outbox {
            self.outbox = outbox;
        }
        self.evict_extra()?;
        self.silence_due = if self.judges_silence { self.poll_silence()? } else { None };
        self.reload_control(settings)
    }

    fn reload_control(&mut self, settings: Arc<Settings>) -> Result<(), RuntimeError> {
        let applied = self.control.applied_through().map(|applied| applied.control);
        let now = self.now.max(applied).unwrap_or(Timestamp::MIN);
        let mut effects = Vec::new();
        let from = self.writes.len();
        self.control.reload(settings, now, &mut self.writes, &mut effects);
        self.untold.gather(&self.writes[from..], None);
        self.answer(effects, now)
    }
}
