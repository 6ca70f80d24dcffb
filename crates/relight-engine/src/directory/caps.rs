//! How many series each source may bring, and which it has brought.
//!
//! Only of sources that have a bound of their own: of the others nothing is kept, so that who came first with a
//! series that two of them send is in nobody's state.

use relight_core::rule::SourceBound;

/// A source with a bound of its own, as an index into [`relight_core::rule::Settings::sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceIx(pub u16);

/// Of a series that none of them has brought.
const NOBODY: u16 = u16::MAX;

pub(super) struct Caps {
    bounds: Vec<SourceBound>,
    count: Vec<usize>,
    /// By the number of a series.
    owners: Vec<u16>,
}

impl Caps {
    pub(super) fn new(bounds: &[SourceBound]) -> Self {
        Self { bounds: bounds.to_vec(), count: vec![0; bounds.len()], owners: Vec::new() }
    }

    pub(super) fn of(&self, partition: &str) -> Option<SourceIx> {
        let ix = self.bounds.iter().position(|bound| bound.has(partition))?;
        self.bounds[ix].max_series.map(|_| SourceIx(ix as u16))
    }

    pub(super) fn has_room(&self, source: Option<SourceIx>) -> bool {
        let Some(SourceIx(ix)) = source else { return true };
        let bound = self.bounds.get(ix as usize).and_then(|bound| bound.max_series);
        bound.is_none_or(|max| self.count[ix as usize] < max)
    }

    pub(super) fn own(&mut self, series: u32, source: Option<SourceIx>) {
        let Some(SourceIx(ix)) = source else { return };
        let series = series as usize;
        if series >= self.owners.len() {
            self.owners.resize(series + 1, NOBODY);
        }
        self.owners[series] = ix;
        self.count[ix as usize] += 1;
    }

    pub(super) fn owner(&self, series: u32) -> Option<SourceIx> {
        self.owners.get(series as usize).filter(|ix| **ix != NOBODY).map(|ix| SourceIx(*ix))
    }

    pub(super) fn release(&mut self, series: u32) {
        if let Some(SourceIx(ix)) = self.owner(series) {
            self.owners[series as usize] = NOBODY;
            self.count[ix as usize] -= 1;
        }
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.owners.capacity() * 2
    }
}
