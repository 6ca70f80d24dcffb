//! What a source calls its series, and which series of the directory each of those is.
//!
//! A decoder that meets the same series request after request numbers them densely and puts a series' key
//! into a record only until Intake knows the number. Holds no names: those are the directory's.

const UNKNOWN: u32 = u32::MAX;

/// Dense index of a series by the number that its source has for it: filled by Intake, kept by the source
/// beside the decoder's own memory, and worth nothing to another Intake.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    series: Vec<u32>,
    generation: u64,
}

impl Aliases {
    /// The alias of a point whose source has none: its key always lies in the record.
    pub const NONE: u32 = u32::MAX;

    /// The series of an alias.
    #[inline]
    pub fn get(&self, alias: u32) -> Option<u32> {
        self.series.get(alias as usize).copied().filter(|series| *series != UNKNOWN)
    }

    /// Whether Intake knows the series, so that a point needs no key.
    #[inline]
    pub fn knows(&self, alias: u32) -> bool {
        self.get(alias).is_some()
    }

    /// Learns a series. Aliases are dense, so the memory is that of the highest one; [`Self::NONE`] is not
    /// learned.
    pub fn set(&mut self, alias: u32, series: u32) {
        if alias == Self::NONE {
            return;
        }
        let alias = alias as usize;
        if alias >= self.series.len() {
            self.series.resize(alias + 1, UNKNOWN);
        }
        self.series[alias] = series;
    }

    /// Forgets everything: the source numbers its series anew.
    pub fn clear(&mut self) {
        self.series.clear();
    }

    /// Forgets everything if the directory has numbered its series anew since. To be called before a
    /// request is decoded, not between its decoding and Intake: points without keys would be lost.
    pub fn renew(&mut self, generation: u64) {
        if self.generation != generation {
            self.clear();
            self.generation = generation;
        }
    }

    /// The directory's generation that the numbers are of.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: aliases are learned out of order, then the directory numbers its series anew.
    /// Guarantee: only what was learned is known, and nothing of it afterwards.
    #[test]
    fn a_new_generation_knows_nothing() {
        let mut aliases = Aliases::default();
        aliases.set(7, 70);
        aliases.set(2, 20);
        aliases.set(Aliases::NONE, 1);
        aliases.renew(0);
        let known: Vec<_> = (0..10).filter_map(|alias| aliases.get(alias)).collect();
        assert_eq!(known, [20, 70]);
        assert!(!aliases.knows(Aliases::NONE));
        aliases.renew(1);
        assert!(!aliases.knows(2) && !aliases.knows(7));
        assert_eq!(aliases.generation(), 1);
    }
}
