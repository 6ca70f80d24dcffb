//! Seeding: the names and values of a [`History`] become rows with a past.
//!
//! All of it happens before the first record. A row that were seeded only when a record names it would
//! be unseeded in the snapshots before that, and a run that goes on from one of those would judge it
//! otherwise.

use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::record::Kind;
use relight_core::signal::SignalKind;
use relight_engine::directory::{RowAddr, SeriesAddr, key_groups};

use super::Pipeline;
use crate::error::RuntimeError;
use crate::seed::{History, RowName, Values};
use crate::shards::Shard;

impl Pipeline {
    /// Makes the series and rows of a history known and seeds the rows' detectors with it. Only an
    /// engine that has seen nothing can be seeded. The values are taken out of the history.
    pub fn seed(&mut self, history: &mut History) -> Result<(), RuntimeError> {
        if self.generation > 0 || self.control.applied_through().is_some() {
            return Err(RuntimeError::SeedTwice);
        }
        let Some((_, effective)) = history.span() else { return Ok(()) };
        let directory = self.intake.directory_mut();
        for (key, kind) in history.series.drain(..) {
            // What has no room now would have none when it comes.
            let _ = directory.add(&key, kind, None, (&mut self.routed.series, &mut self.routed.rows));
        }
        // What counts events has no series to bring it.
        for (signal, key, stat) in history.rows.keys() {
            if matches!(self.settings.signals[*signal].kind, SignalKind::EventCount { .. }) {
                directory.restore_row(*signal, key, *stat, &mut self.routed.rows);
            }
        }
        self.shards.route(&mut self.routed)?;
        self.plant(history, effective)
    }

    /// Each shard seeds its own rows, all shards at a time.
    fn plant(&mut self, history: &mut History, effective: Timestamp) -> Result<(), RuntimeError> {
        let mut rows: Vec<(usize, RowAddr, Values)> = Vec::new();
        for signal in 0..self.settings.signals.len() {
            for group in key_groups() {
                for row in self.intake.directory().row_order(signal, group) {
                    let at = RowAddr { signal: signal as u16, group, row };
                    if let Some(values) = history.rows.remove(&self.row_name(at)) {
                        rows.push((self.shards.owner(group), at, values));
                    }
                }
            }
        }
        let rows = Arc::new(rows);
        self.shards.each(|me| {
            let rows = Arc::clone(&rows);
            move |shard: &mut Shard| {
                for (_, row, values) in rows.iter().filter(|(owner, ..)| *owner == me) {
                    shard.detect.seed(*row, effective, values);
                }
            }
        })?;
        Ok(())
    }

    /// What tells a row apart from all others, wherever it lives.
    pub(crate) fn row_name(&self, row: RowAddr) -> RowName {
        let (key, stat) = self.intake.directory().row_identity(row);
        (row.signal.into(), key.to_vec(), stat)
    }

    /// Every series, in an order of names.
    pub(crate) fn series_names(&self) -> Vec<(Vec<u8>, Kind)> {
        let directory = self.intake.directory();
        let of_group = |group| {
            let slots = directory.series_order(group).into_iter();
            slots.map(move |slot| {
                let at = SeriesAddr { group, slot };
                (directory.series_key(at).to_vec(), directory.series_kind(at))
            })
        };
        key_groups().flat_map(of_group).collect()
    }
}
