//! What a run has taken in so far, and what of its config that has met. Reads, and changes nothing.

use relight_engine::detect::Warming;
use relight_engine::directory::Unmatched;

use super::Pipeline;
use crate::error::RuntimeError;
use crate::report::Totals;
use crate::shards::Shard;

impl Pipeline {
    /// What has come in and out so far. Of a state that was continued, all of it.
    pub fn totals(&mut self) -> Result<Totals, RuntimeError> {
        let mut refused = self.intake.counters().clone();
        let counters = self.shards.each(|_| |shard: &mut Shard| shard.fold.counters())?;
        for c in &counters {
            refused.add(c);
        }
        let directory = self.intake.directory();
        let evicted = self.swept.evicted();
        let totals = self.totals.complete(&refused, directory, self.intake.partitions().len() as u64);
        Ok(Totals { evicted, ..totals })
    }

    /// What of the signals has met nothing so far.
    pub fn unmatched(&self) -> Vec<Unmatched> {
        self.intake.directory().unmatched(&self.settings.signals)
    }

    /// Of each detector, which rows are still warming up.
    pub fn warming(&mut self) -> Result<Vec<Warming>, RuntimeError> {
        let detectors = self.settings.detectors.len();
        let mut sum = vec![Warming::default(); detectors];
        for one in self.shards.each(|_| {
            move |shard: &mut Shard| {
                let mut own = vec![Warming::default(); detectors];
                shard.detect.warming(&mut own);
                own
            }
        })? {
            sum.iter_mut().zip(one).for_each(|(sum, one)| sum.add(one));
        }
        Ok(sum)
    }
}
