//! One closed bin of one row group: contributions become a column of values, NaN = no data.
//!
//! A row adds up its contributions in ascending order of value. That needs no name of a series, and
//! floating-point sums then do not depend on who came first or on how series are spread over threads.

use relight_core::detector::Readings;
use relight_core::growth;
use relight_core::record::Histogram;
use relight_core::signal::{Aggregate, SignalKind};

use super::shared::Buffers;
use crate::directory::Channel;
use crate::fold::Partial;

/// One contribution, within its row group.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    row: u32,
    channel: Channel,
    value: f64,
}

/// The contributions of an open bin to the rows of a group.
///
/// A steady scrape contributes once to each row and in order of rows: that is a column of values as it
/// stands, half as large as a list of parts, with nothing to sort or add up.
#[derive(Default)]
pub(super) struct Parts {
    /// By row, NaN = nothing; of no use once there is a `rest`.
    column: Vec<f64>,
    rest: Vec<Part>,
    /// Whether the column is where [`Parts::take`] moved it.
    is_lent: bool,
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.column.is_empty() && self.rest.is_empty()
    }

    /// Contributions to rows of the group; those of a steady scrape go into the column at once.
    pub(super) fn extend(&mut self, partials: &[Partial]) {
        let next = self.column.len();
        let fits = |(i, p): &(usize, &Partial)| p.row.row as usize == next + i && !is_side(p.channel);
        let steady =
            if self.rest.is_empty() { partials.iter().enumerate().take_while(fits).count() } else { 0 };
        growth::reserve(&mut self.column, steady);
        self.column.extend(partials[..steady].iter().map(|p| p.value));
        for p in &partials[steady..] {
            self.push(p.row.row, p.channel, p.value);
        }
    }

    pub(super) fn push(&mut self, row: u32, channel: Channel, value: f64) {
        let ix = row as usize;
        if ix == self.column.len() && self.rest.is_empty() && !is_side(channel) {
            self.column.push(value);
        } else {
            self.push_part(ix, Part { row, channel: side(channel), value });
        }
    }

    #[inline(never)]
    fn push_part(&mut self, ix: usize, part: Part) {
        if ix > self.column.len() && self.rest.is_empty() && part.channel == Channel::Every {
            self.column.resize(ix, f64::NAN);
            self.column.push(part.value);
            return;
        }
        let column = self.column.drain(..).enumerate().filter(|(_, value)| !value.is_nan());
        self.rest.extend(column.map(|(row, value)| Part { row: row as u32, channel: Channel::Every, value }));
        self.rest.push(part);
    }

    /// Moves the rows' values to `values`: one a row, NaN where there is nothing. To be followed by [`Parts::give_back`].
    pub(super) fn take(&mut self, kind: &SignalKind, rows: usize, values: &mut Vec<f64>) {
        values.clear();
        // The column itself, if there is one: no copy.
        self.is_lent = !self.column.is_empty();
        if self.is_lent {
            std::mem::swap(values, &mut self.column);
        }
        growth::reserve(values, rows.saturating_sub(values.len()));
        values.resize(rows, f64::NAN);
        assemble(kind, &mut self.rest, values);
        self.rest.clear();
    }

    /// Takes the column back, if it was lent: it is of this group's size and no other's.
    pub(super) fn give_back(&mut self, values: &mut Vec<f64>) {
        if std::mem::take(&mut self.is_lent) {
            std::mem::swap(values, &mut self.column);
            self.column.clear();
        }
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.column.capacity() * size_of::<f64>() + self.rest.capacity() * size_of::<Part>()
    }
}

/// Whether a channel is one of the two that a ratio has.
const fn is_side(channel: Channel) -> bool {
    matches!(channel, Channel::Of | Channel::To)
}

/// Which side of a ratio a channel is: all that matters, since other rows have one channel each.
const fn side(channel: Channel) -> Channel {
    if is_side(channel) { channel } else { Channel::Every }
}

/// Buffers that all row groups share.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) values: Vec<f64>,
    pub(super) missing: Vec<u32>,
    pub(super) readings: Readings,
    pub(super) buffers: Buffers,
}

/// Writes the values of the rows that have parts into `values`.
fn assemble(kind: &SignalKind, parts: &mut [Part], values: &mut [f64]) {
    parts.sort_unstable_by(|a, b| {
        (a.row, a.channel).cmp(&(b.row, b.channel)).then(a.value.total_cmp(&b.value))
    });
    for of_row in parts.chunk_by(|a, b| a.row == b.row) {
        values[of_row[0].row as usize] = combine(kind, of_row);
    }
}

fn combine(kind: &SignalKind, parts: &[Part]) -> f64 {
    let sum = |channel| parts.iter().filter(|p| p.channel == channel).fold(0.0, |sum, p| sum + p.value);
    match kind {
        SignalKind::Value { aggregate, .. } => aggregated(*aggregate, parts),
        SignalKind::Ratio { min_denominator, missing_is_zero, .. } => {
            let to = sum(Channel::To);
            let is_silent = !missing_is_zero && parts.iter().all(|part| part.channel != Channel::Of);
            // Too few to tell: no data, which is neither healthy nor broken.
            if to < *min_denominator || to <= 0.0 || is_silent { f64::NAN } else { sum(Channel::Of) / to }
        }
        _ => sum(parts[0].channel),
    }
}

fn aggregated(aggregate: Aggregate, parts: &[Part]) -> f64 {
    let (first, last) = (parts[0].value, parts[parts.len() - 1].value);
    let sum = parts.iter().fold(0.0, |sum, p| sum + p.value);
    match aggregate {
        Aggregate::Sum => sum,
        Aggregate::Mean => sum / parts.len() as f64,
        Aggregate::Min => first,
        Aggregate::Max => last,
    }
}

/// The `q` quantile of a histogram.
pub(super) fn quantile(histogram: &Histogram, q: f64) -> f64 {
    quantile_of(&histogram.bounds, histogram.counts.iter().map(|count| *count as f64), q)
}

/// The `q` quantile of bucket counts, linear within a bucket, as Prometheus' `histogram_quantile` has
/// it: the lowest bucket begins at 0 if its bound is positive, and the open one gives its lower bound.
pub(super) fn quantile_of(bounds: &[f64], counts: impl Iterator<Item = f64> + Clone, q: f64) -> f64 {
    let total: f64 = counts.clone().sum();
    let Some(last_bound) = bounds.last() else { return f64::NAN };
    if total <= 0.0 {
        return f64::NAN;
    }
    let rank = q * total;
    let mut below = 0.0;
    for (i, count) in counts.enumerate() {
        if below + count >= rank && count > 0.0 {
            let Some(upper) = bounds.get(i) else { return *last_bound };
            let lower = if i > 0 { bounds[i - 1] } else { upper.min(0.0) };
            return lower + (upper - lower) * ((rank - below) / count);
        }
        below += count;
    }
    *last_bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(bounds: &[f64], counts: &[u64]) -> Histogram {
        Histogram { bounds: bounds.to_vec(), counts: counts.to_vec() }
    }

    #[test]
    fn quantiles_interpolate_within_their_bucket() {
        let h = histogram(&[1.0, 2.0, 4.0], &[10, 10, 0, 0]);
        assert_eq!(quantile(&h, 0.5), 1.0);
        assert_eq!(quantile(&h, 0.75), 1.5);
        assert_eq!(quantile(&histogram(&[1.0, 2.0], &[0, 0, 5]), 0.99), 2.0);
        assert!(quantile(&histogram(&[1.0], &[0, 0]), 0.5).is_nan());
        assert!(quantile(&histogram(&[], &[3]), 0.5).is_nan());
    }

    #[derive(Debug)]
    struct All;
    impl relight_core::signal::Select for All {
        fn selects(&self, _: relight_core::series::KeyView<'_>) -> bool {
            true
        }
        fn text(&self) -> &'static str {
            "all"
        }
    }

    /// Scenario: errors stop being counted while requests go on.
    /// Guarantee: the ratio is 0 or no data, as its policy says; without requests it is no data in any case.
    #[test]
    fn a_ratio_without_its_part_is_what_the_policy_says() {
        let of_to = |channel, value| Part { row: 0, channel, value };
        for (missing_is_zero, silent) in [(true, 0.0), (false, f64::NAN)] {
            let all = || -> relight_core::signal::Selector { std::sync::Arc::new(All) };
            let ratio = SignalKind::Ratio { of: all(), to: all(), min_denominator: 5.0, missing_is_zero };
            let whole = of_to(Channel::To, 10.0);
            for (parts, value) in [
                (vec![of_to(Channel::Of, 1.0), whole], 0.1),
                (vec![of_to(Channel::Of, 0.0), whole], 0.0),
                (vec![whole], silent),
                (vec![of_to(Channel::Of, 1.0), of_to(Channel::To, 4.0)], f64::NAN),
                (vec![of_to(Channel::Of, 1.0)], f64::NAN),
            ] {
                assert_eq!(combine(&ratio, &parts).to_bits(), value.to_bits(), "{missing_is_zero} {parts:?}");
            }
        }
    }

    /// Scenario: rows that come in order, with a gap, then with one that comes again, and with both sides of a ratio.
    /// Guarantee: many at once are what they would be one at a time; the buffers stay with their group.
    #[test]
    fn many_parts_at_once_are_as_good_as_one_at_a_time() {
        use relight_core::KeyGroup;

        let address = |row| crate::directory::RowAddr { signal: 0, group: KeyGroup::nth(0), row };
        let partial = |row, channel, value| Partial { row: address(row), channel, value };
        let every = |row, value| partial(row, Channel::Every, value);
        let steady: Vec<Partial> = (0..5).map(|row| every(row, f64::from(row))).collect();
        let gap = vec![every(0, 1.0), every(3, 2.0), every(4, 3.0)];
        let again = [&steady[..], &gap].concat();
        let sides =
            vec![every(0, 1.0), partial(1, Channel::Of, 2.0), partial(1, Channel::To, 4.0), every(2, 8.0)];
        let mut scratch = Vec::with_capacity(100);
        for partials in [steady, gap, again, sides] {
            let (mut whole, mut single) = (Parts::default(), Parts::default());
            whole.extend(&partials);
            for p in &partials {
                single.push(p.row.row, p.channel, p.value);
            }
            let mut values = [&mut whole, &mut single].map(|parts| {
                parts.take(&SignalKind::EverySeries, 6, &mut scratch);
                let values: Vec<u64> = scratch.iter().map(|value| value.to_bits()).collect();
                parts.give_back(&mut scratch);
                assert!(parts.is_empty() && scratch.capacity() == 100);
                values
            });
            assert_eq!(std::mem::take(&mut values[0]), values[1], "{partials:?}");
        }
    }

    /// Guarantee: a row's sum is the same whatever order its contributions come in, to the last bit.
    #[test]
    fn sums_do_not_depend_on_arrival() {
        let part = |value| Part { row: 0, channel: Channel::Rate, value };
        let numbers = [0.1, 1e16, -1e16, 0.7, 3.3e-9, 1.0 / 3.0];
        let sum = |order: &[usize]| {
            let mut parts: Vec<Part> = order.iter().map(|i| part(numbers[*i])).collect();
            let mut values = [f64::NAN];
            assemble(&SignalKind::EverySeries, &mut parts, &mut values);
            values[0].to_bits()
        };
        let expected = sum(&[0, 1, 2, 3, 4, 5]);
        for order in [[5, 4, 3, 2, 1, 0], [1, 0, 2, 5, 4, 3], [3, 1, 4, 0, 5, 2]] {
            assert_eq!(sum(&order), expected, "{order:?}");
        }
    }
}
