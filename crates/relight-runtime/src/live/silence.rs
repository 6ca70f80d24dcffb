//! Turns the silence of partitions into advances of their watermarks, which are journalled.

use std::sync::Arc;

use relight_core::Timestamp;

use super::Live;
use super::liveness::Silence;
use crate::error::RuntimeError;
use crate::pipeline::Watch;

impl Live {
    /// Moves time on where nothing comes.
    pub(super) fn silence(&mut self, now: Timestamp, watch: &mut dyn Watch) -> Result<(), RuntimeError> {
        if self.settle_at.is_some_and(|at| now >= at) {
            self.settle_at = None;
            let read: Vec<u32> = self.streams.iter().map(|stream| stream.ix).collect();
            let besides = self.pipeline.partitions_besides(&read);
            self.pipeline.end_others(&read)?;
            for gone in besides {
                self.notice(&format!(
                    "{gone} is in the state, and no source reads it any more: it has ended"
                ));
            }
        }
        let heard = self.clock.heard();
        let pipeline = &self.pipeline;
        let (watermark, is_kept) = (|ix| pipeline.partition_watermark(ix), |ix| pipeline.is_kept(ix));
        let silences = self.liveness.poll(now, heard, &watermark, &is_kept);
        for (ix, silence) in silences {
            let Some(stream) = self.streams.iter().find(|stream| stream.ix == ix) else { continue };
            let name = Arc::clone(&stream.outlet.partition);
            match silence {
                // A watermark that stays within its bin closes nothing: it would be journalled in vain.
                Silence::Advance(to) if !self.closes_a_bin(ix, to) => {}
                Silence::Advance(to) => self.advance(ix, &name, to, now)?,
                Silence::Release => {
                    let at_most = heard.minus(self.settings.allowed_lateness);
                    self.pipeline.release_watermark(ix, &name, at_most)?;
                }
            }
        }
        self.pipeline.run(watch)
    }

    fn closes_a_bin(&self, ix: u32, to: Timestamp) -> bool {
        let interval = self.settings.interval();
        to.bin_start(interval) > self.pipeline.partition_watermark(ix).bin_start(interval)
    }
}
