//! Takes series out, and with them the rows that nothing else feeds.
//!
//! Which series go is decided elsewhere, by turn. Here it is made sure that nothing still points to them: their
//! dense indices are given away again, so every number that a source has learned is void from then on.

use std::collections::BTreeMap;

use relight_core::Timestamp;
use relight_core::record::Kind;

use super::{Directory, GoneRow, NewRow, NewSeries, RowAddr, SeriesAddr};

/// A series that has been silent for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleSeries {
    /// Where it lives.
    pub at: SeriesAddr,
    /// The time of its last point that a bin has seen.
    pub last: Timestamp,
    /// The rows that it feeds, one entry a feed.
    pub rows: Vec<RowAddr>,
    /// It has spoken again, in a bin that is still open, with a point of this kind.
    pub waiting: Option<Kind>,
}

impl Directory {
    /// Evicts series. `unseen` counts, by row, the feeds of series that no bin has seen: a row that has no others is
    /// as good as new, whether or not those happen to have arrived. One that has spoken again is as good as new,
    /// too, and is appended to `series`. Returns the rows whose history is gone.
    pub fn evict(
        &mut self,
        gone: &[IdleSeries],
        unseen: &BTreeMap<RowAddr, u32>,
        (series, rows): (&mut Vec<NewSeries>, &mut Vec<NewRow>),
    ) -> Vec<GoneRow> {
        let mut feeds: BTreeMap<RowAddr, u32> = BTreeMap::new();
        for row in gone.iter().flat_map(|series| &series.rows) {
            *feeds.entry(*row).or_default() += 1;
        }
        let mut gone_rows = Vec::new();
        for (row, taken) in feeds {
            let others = self.rows.feeds(row).saturating_sub(taken);
            let is_gone = others <= unseen.get(&row).copied().unwrap_or(0);
            gone_rows.extend(self.rows.unfeed(row, taken, is_gone, &self.arena));
        }
        self.rows.tidy();
        for one in gone {
            let ix = self.arena.number(one.at);
            if let Some(kind) = one.waiting {
                self.arena.set_kind(ix, kind);
                let key = self.arena.key(ix).to_vec();
                let feeds = self.feeds(ix, &key, kind, rows);
                series.push(NewSeries { at: one.at, feeds });
            } else {
                self.arena.remove(one.at);
                self.caps.release(ix);
            }
        }
        self.arena.tidy();
        self.generation += 1;
        gone_rows
    }
}
