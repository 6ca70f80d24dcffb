//! Evicting series: asks Fold and Detect, lets the engine's rule choose, and tells all who know the series.

use std::collections::{BTreeMap, BTreeSet};

use relight_core::Timestamp;
use relight_engine::directory::{GoneRow, IdleSeries, RowAddr, SeriesAddr};
use relight_engine::fold::Survey;
use relight_engine::sweep::{Sweep, Swept};

use super::Pipeline;
use crate::error::RuntimeError;
use crate::shards::Shard;

impl Pipeline {
    /// Looks for silent series, if this turn is one to look in. Only after a turn that Detect has seen: whether there
    /// are others is a matter of Control.
    pub(super) fn evict_idle(&mut self, end: Timestamp) -> Result<(), RuntimeError> {
        let sweep = Sweep::new(&self.settings);
        if !sweep.is_due(end, &mut self.swept) {
            return Ok(());
        }
        let seen = self.shards.each(|_| |shard: &mut Shard| shard.fold.seen())?.into_iter().sum();
        let survey = self.survey(sweep.until(end, seen))?;
        let needed = self.needed(&survey.idle, end)?;
        let (directory, mut swept) = (self.intake.directory(), self.swept);
        let key = |series: &IdleSeries| directory.series_key(series.at);
        let gone = sweep.choose((end, seen), survey.idle, &needed, &key, &mut swept);
        self.swept = swept;
        self.shards.each(|_| move |shard: &mut Shard| shard.detect.calm_down(end))?;
        self.evict(&gone, &survey.unseen)
    }

    /// What a state holds beyond the limit of the config is not kept. Returns how many series that were.
    pub(super) fn evict_extra(&mut self) -> Result<usize, RuntimeError> {
        let known = self.intake.directory().series_len();
        if known <= self.settings.max_series {
            return Ok(0);
        }
        let survey = self.survey(Timestamp::MAX)?;
        let needed = self.needed(&survey.idle, self.last_turn.unwrap_or(Timestamp::MIN))?;
        let (directory, mut swept) = (self.intake.directory(), self.swept);
        let key = |series: &IdleSeries| directory.series_key(series.at);
        let gone = Sweep::new(&self.settings).over_limit(known, survey.idle, &needed, &key, &mut swept);
        self.swept = swept;
        self.evict(&gone, &survey.unseen)?;
        Ok(gone.len())
    }

    /// Bytes that series and rows hold, by their own count: names, last points and open bins, states.
    pub fn state_bytes(&mut self) -> Result<usize, RuntimeError> {
        let held = |shard: &mut Shard| shard.fold.state_bytes() + shard.detect.state_bytes();
        let held: usize = self.shards.each(|_| held)?.into_iter().sum();
        Ok(self.intake.directory().state_bytes() + held)
    }

    /// What was evicted so far.
    pub const fn swept(&self) -> Swept {
        self.swept
    }

    fn survey(&mut self, until: Timestamp) -> Result<Survey, RuntimeError> {
        let mut all = Survey::default();
        for mut survey in self.shards.each(|_| move |shard: &mut Shard| shard.fold.survey(until))? {
            all.idle.append(&mut survey.idle);
            all.unseen.append(&mut survey.unseen);
        }
        Ok(all)
    }

    fn needed(&mut self, idle: &[IdleSeries], at: Timestamp) -> Result<BTreeSet<RowAddr>, RuntimeError> {
        let rows: BTreeSet<RowAddr> = idle.iter().flat_map(|series| series.rows.iter().copied()).collect();
        let by_shard = self.shards.by_owner(rows, |row| row.group);
        let needed = self.shards.each(|me| {
            let mine = by_shard[me].clone();
            move |shard: &mut Shard| shard.detect.needed(&mine, at)
        })?;
        Ok(needed.into_iter().flatten().collect())
    }

    fn evict(&mut self, gone: &[IdleSeries], unseen: &[RowAddr]) -> Result<(), RuntimeError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut feeds: BTreeMap<RowAddr, u32> = BTreeMap::new();
        for row in unseen {
            *feeds.entry(*row).or_default() += 1;
        }
        let new = (&mut self.routed.series, &mut self.routed.rows);
        let rows = self.intake.directory_mut().evict(gone, &feeds, new);
        let series = self.shards.by_owner(gone.iter().map(|series| series.at), |at: &SeriesAddr| at.group);
        let rows = self.shards.by_owner(rows, |row: &GoneRow| row.at.group);
        self.shards.each(|me| {
            let (series, rows) = (series[me].clone(), rows[me].clone());
            move |shard: &mut Shard| {
                shard.fold.forget(&series);
                shard.detect.forget(&rows);
            }
        })?;
        // Those that have spoken again are new, and are told after the old ones are forgotten.
        self.shards.route(&mut self.routed)
    }
}
