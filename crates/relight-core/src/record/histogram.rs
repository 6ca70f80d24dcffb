//! Bucket counts, and how those with other bounds are compared and added. Knows no series and no time.

/// Bucket counts with explicit upper bounds. `counts` has one entry more than `bounds`: the last
/// bucket is open to infinity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Upper bounds, strictly ascending and finite.
    pub bounds: Vec<f64>,
    /// Observations in each bucket (not running totals).
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Whether bounds ascend, are finite, and match the counts.
    pub fn is_valid(&self) -> bool {
        self.counts.len() == self.bounds.len() + 1
            && self.bounds.iter().all(|b| b.is_finite())
            && self.bounds.windows(2).all(|w| w[0] < w[1])
    }

    /// All observations.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The bounds in which both can be compared: those of both if they are the same; of exponential histograms (see
    /// [`exponential_bound`]) those that both have, which are the coarser scale's above the wider zero bucket. `None` if
    /// the bounds are other ones.
    pub fn common_bounds(&self, other: &Self) -> Option<Vec<f64>> {
        if self.bounds == other.bounds {
            return Some(self.bounds.clone());
        }
        if !self.is_exponential() || !other.is_exponential() {
            return None;
        }
        let is_there = |bound: &f64| other.bounds.binary_search_by(|b| b.total_cmp(bound)).is_ok();
        Some(self.bounds.iter().copied().filter(is_there).collect())
    }

    fn is_exponential(&self) -> bool {
        self.bounds.iter().all(|bound| {
            let quarters = (bound.abs().log2() * 4.0).round();
            *bound == 0.0 || exponential_bound(quarters as i64) == bound.abs()
        })
    }

    /// The same observations in these bounds, each of which is one of its own.
    #[must_use]
    pub fn merged(&self, bounds: &[f64]) -> Self {
        if self.bounds == bounds {
            return self.clone();
        }
        let mut counts = vec![0_u64; bounds.len() + 1];
        let mut at = 0;
        for (i, n) in self.counts.iter().enumerate() {
            counts[at] = counts[at].saturating_add(*n);
            if at < bounds.len() && self.bounds.get(i) == Some(&bounds[at]) {
                at += 1;
            }
        }
        Self { bounds: bounds.to_vec(), counts }
    }

    /// Adds observations, in bounds that both have. Those in other bounds cannot be added: its own stay.
    pub fn add(&mut self, more: &Self) {
        if self.bounds != more.bounds {
            let Some(bounds) = self.common_bounds(more) else { return };
            *self = self.merged(&bounds);
            return self.add(&more.merged(&bounds));
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&more.counts) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// Bytes of memory that it holds.
    pub const fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.bounds.as_slice()) + size_of_val(self.counts.as_slice())
    }
}

/// A bound of an exponential histogram, by quarters of a doubling: 2^(quarters / 4).
pub fn exponential_bound(quarters: i64) -> f64 {
    (quarters as f64 / 4.0).exp2()
}
