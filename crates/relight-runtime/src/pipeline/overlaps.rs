//! Which series have deltas whose times overlap, so that their writers can be found.
//!
//! For people, and bounded: Fold remembers one series of each key group, and the first few are named. No part of a snapshot.

use relight_core::KeyView;

use super::Pipeline;
use crate::error::RuntimeError;
use crate::shards::Shard;

/// Series that are named.
const SHOWN: usize = 3;
/// Characters that are shown of each.
const SHOWN_CHARS: usize = 200;

impl Pipeline {
    /// What is to be told of the deltas that overlapped since this was last asked, if any did.
    pub fn take_overlaps(&mut self) -> Result<Option<String>, RuntimeError> {
        let found = self.shards.each(|_| |shard: &mut Shard| shard.fold.take_overlaps())?;
        let directory = self.intake.directory();
        let mut keys: Vec<&[u8]> = found.into_iter().flatten().map(|at| directory.series_key(at)).collect();
        keys.sort_unstable();
        let shown: Vec<String> = keys.into_iter().take(SHOWN).map(shown).collect();
        let told = format!(
            "delta_overlap: deltas whose times overlap, such as those of {}: the first one counts; if two writers share the \
             name, a label has to tell them apart",
            shown.join(", ")
        );
        Ok((!shown.is_empty()).then_some(told))
    }
}

/// A series' name and labels. Foreign text: what could move a terminal's cursor is escaped.
fn shown(key: &[u8]) -> String {
    let key = KeyView::new(key);
    let whole = format!("{}{}", key.name().escape_debug(), key.to_labels());
    let rest = if whole.chars().nth(SHOWN_CHARS).is_some() { "..." } else { "" };
    whole.chars().take(SHOWN_CHARS).chain(rest.chars()).collect()
}
