//! Panics of detectors, gathered by detector until somebody tells people.
//!
//! Decides nothing: Detect has put the rows out of harm's way by the time they are noted here.

use std::collections::BTreeMap;

use relight_core::{KeyView, Timestamp};
use relight_engine::detect::Fault;

use super::Pipeline;

/// The panics of one detector since they were last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// The detector.
    pub detector: String,
    /// How often it panicked.
    pub panics: u64,
    /// How many of its rows were quarantined for it.
    pub quarantined: u64,
    /// One of the rows, and one that was quarantined if any was: signal and labels.
    pub row: String,
    /// What the panic on that row said.
    pub why: String,
    /// The bin of it.
    pub at: Timestamp,
}

/// What has come up so far.
#[derive(Debug, Default)]
pub(super) struct Panics {
    /// By detector, as in the settings.
    untold: BTreeMap<usize, Panicked>,
    total: u64,
}

impl Pipeline {
    pub(super) fn note_faults(&mut self, at: Timestamp, faults: Vec<Fault>) {
        let directory = self.intake.directory();
        let mut named: Vec<_> =
            faults.into_iter().map(|fault| (directory.row_key(fault.row), fault)).collect();
        // Which row is told as an example shall not depend on how rows are spread over threads.
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, fault) in named {
            self.panics.total += 1;
            let key = KeyView::new(&key);
            let new = Panicked {
                detector: self.settings.detectors[fault.detector].name.clone(),
                panics: 0,
                quarantined: 0,
                row: format!("{}{}", key.name(), key.to_labels()),
                why: fault.why.clone(),
                at,
            };
            let known = self.panics.untold.entry(fault.detector).or_insert_with(|| new.clone());
            if fault.quarantines() && known.quarantined == 0 {
                (known.row, known.why, known.at) = (new.row, new.why, at);
            }
            known.panics += 1;
            known.quarantined += u64::from(fault.quarantines());
        }
    }

    /// Detectors that panicked since this was last asked, by their order in the config.
    pub fn take_panics(&mut self) -> Vec<Panicked> {
        std::mem::take(&mut self.panics.untold).into_values().collect()
    }

    /// Panics of detectors since the start.
    pub const fn panics(&self) -> u64 {
        self.panics.total
    }
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { panics, quarantined, row, why, at, .. } = self;
        write!(f, "panicked {panics} times, such as on {row} at {at}: {why}")?;
        if *quarantined > 0 {
            write!(f, "; it sees {quarantined} of its rows no more, that one among them")?;
        }
        Ok(())
    }
}
