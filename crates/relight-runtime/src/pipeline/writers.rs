//! Which series several writers share, so that the writers can be found: deltas whose times overlap, running totals that go
//! up and down past each other.
//!
//! For people, and bounded: Fold remembers one series of each kind and key group, and the first few are named. No part of a
//! snapshot.

use relight_core::KeyView;
use relight_engine::directory::SeriesAddr;
use relight_engine::fold::WriterConflict;

use super::Pipeline;
use crate::error::RuntimeError;
use crate::shards::Shard;

/// Series that are named.
const SHOWN: usize = 3;
/// Characters that are shown of each.
const SHOWN_CHARS: usize = 200;

impl Pipeline {
    /// A notice for each kind of series whose writers got into each other's way since this was last asked.
    pub fn take_writer_conflicts(&mut self) -> Result<Vec<String>, RuntimeError> {
        let found = self.shards.each(|_| |shard: &mut Shard| shard.fold.take_writer_conflicts())?;
        let (mut deltas, mut totals) = (Vec::new(), Vec::new());
        for series in found.into_iter().flatten() {
            match series {
                WriterConflict::Delta(at) => deltas.push(at),
                WriterConflict::Cumulative(at) => totals.push(at),
            }
        }
        let deltas = self.named(&deltas).map(|names| {
            format!(
                "delta_overlap: deltas whose times overlap, such as those of {names}: the first one counts; if two writers \
                 share the name, a label has to tell them apart"
            )
        });
        let totals = self.named(&totals).map(|names| {
            format!(
                "shared_counter: several writers share a counter, such as {names}: its values go up and down past each other, \
                 so it has no data until one writer is left; give each writer a label of its own"
            )
        });
        Ok(deltas.into_iter().chain(totals).collect())
    }

    /// The first few of these series by name, if there are any.
    fn named(&self, found: &[SeriesAddr]) -> Option<String> {
        let directory = self.intake.directory();
        let mut keys: Vec<&[u8]> = found.iter().map(|at| directory.series_key(*at)).collect();
        keys.sort_unstable();
        let shown: Vec<String> = keys.into_iter().take(SHOWN).map(shown).collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

/// A series' name and labels. Foreign text: what could move a terminal's cursor is escaped.
fn shown(key: &[u8]) -> String {
    let key = KeyView::new(key);
    let whole = format!("{}{}", key.name().escape_debug(), key.to_labels());
    let rest = if whole.chars().nth(SHOWN_CHARS).is_some() { "..." } else { "" };
    whole.chars().take(SHOWN_CHARS).chain(rest.chars()).collect()
}
