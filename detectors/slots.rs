//! Tables of learned values by hour, one byte a slot, for a whole column of rows.
//!
//! Slot-major (`slot[row]`): a bin touches the same slot of all rows, which then lie side by side. A
//! column of whole tables would cost a cache miss a row. Knows nothing of time; a slot is a number.
//!
//! A cell holds a multiple of its row's step, a power of two. A value out of range doubles the step
//! as often as it must and rounds the row's cells, so a table needs no range in advance; what a row
//! learns is clipped by its owner, or a single spike would coarsen the table for good.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::growth;

/// A cell that was never written.
const EMPTY: i8 = i8::MIN;
/// Largest magnitude of a cell.
const TOP: f32 = 127.0;
/// The finest step is 2^-60: differences of 1e-18 are nobody's season.
const FINEST: i8 = -60;
/// The coarsest step is 2^120; 127 of them is just under the largest `f32`.
const COARSEST: i8 = 120;

/// The tables of a column of rows.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    /// `cells[slot][row]`.
    cells: Vec<Vec<i8>>,
    /// Per row, the binary exponent of its step.
    exponents: Vec<i8>,
}

impl Slots {
    /// Empty tables of `slots` slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self { cells: vec![Vec::new(); slots], exponents: Vec::new() }
    }

    /// Appends rows until there are `rows`.
    pub(crate) fn grow(&mut self, rows: usize) {
        for column in &mut self.cells {
            extend(column, rows, EMPTY);
        }
        extend(&mut self.exponents, rows, FINEST);
    }

    /// What a slot holds, to within half a step; `None` if it was never written.
    pub(crate) fn get(&self, slot: usize, row: usize) -> Option<f32> {
        let cell = self.cells[slot][row];
        (cell != EMPTY).then(|| f32::from(cell) * self.step(row))
    }

    /// Sets a slot. `value` is finite.
    pub(crate) fn set(&mut self, slot: usize, row: usize, value: f32) {
        while value.abs() > TOP * self.step(row) && self.exponents[row] < COARSEST {
            self.coarsen(row, value);
        }
        self.cells[slot][row] = (value / self.step(row)).round().clamp(-TOP, TOP) as i8;
    }

    /// Forgets a row's table.
    pub(crate) fn clear(&mut self, row: usize) {
        for column in &mut self.cells {
            column[row] = EMPTY;
        }
        self.exponents[row] = FINEST;
    }

    /// Appends one row's exponent and cells.
    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        self.exponents[row].encode(out);
        out.extend(self.cells.iter().map(|column| column[row].cast_unsigned()));
    }

    /// Appends a row of what [`Slots::encode`] wrote.
    pub(crate) fn decode(&mut self, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        let exponent = i8::decode(reader)?;
        if !(FINEST..=COARSEST).contains(&exponent) {
            return Err(Corrupt::Value("step of a slot table"));
        }
        let cells = reader.take(self.cells.len(), "slot table")?;
        let rows = self.exponents.len() + 1;
        extend(&mut self.exponents, rows, exponent);
        for (column, cell) in self.cells.iter_mut().zip(cells) {
            extend(column, rows, cell.cast_signed());
        }
        Ok(())
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.iter().map(|column| column.capacity() + size_of::<Vec<i8>>()).sum::<usize>()
            + self.exponents.capacity()
    }

    fn step(&self, row: usize) -> f32 {
        f32::from(self.exponents[row]).exp2()
    }

    /// Doubles the step until `value` fits, at once rather than bit by bit: each rounding costs half a step.
    fn coarsen(&mut self, row: usize, value: f32) {
        let needed = (value.abs() / TOP).log2().ceil().clamp(f32::from(FINEST), f32::from(COARSEST)) as i8;
        let needed = needed.max(self.exponents[row].saturating_add(1));
        let shrink = (f32::from(needed) - f32::from(self.exponents[row])).exp2();
        for column in &mut self.cells {
            if column[row] != EMPTY {
                column[row] = (f32::from(column[row]) / shrink).round() as i8;
            }
        }
        self.exponents[row] = needed;
    }
}

/// Appends copies of `fill` until there are `len`.
pub(crate) fn extend<T: Clone>(column: &mut Vec<T>, len: usize, fill: T) {
    growth::reserve(column, len.saturating_sub(column.len()));
    column.resize(len.max(column.len()), fill);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[f32]) -> Slots {
        let mut slots = Slots::new(values.len());
        slots.grow(1);
        for (slot, value) in values.iter().enumerate() {
            slots.set(slot, 0, *value);
        }
        slots
    }

    /// Guarantee: a table never set reads as empty, not as zero.
    #[test]
    fn empty_is_not_zero() {
        let mut slots = Slots::new(2);
        slots.grow(1);
        slots.set(1, 0, 0.0);
        assert_eq!((slots.get(0, 0), slots.get(1, 0)), (None, Some(0.0)));
        slots.clear(0);
        assert_eq!(slots.get(1, 0), None);
    }

    /// Guarantee: whatever order values come in, each reads back to within 1.2 % of the largest.
    #[test]
    fn range_grows_without_losing_the_table() {
        for values in
            [[1.0, 2.0, 1e6], [1e6, 1.0, 2.0], [-3.0, 0.5, 7.25], [1e-9, -2e-9, 0.0], [1e30, -1e30, 0.0]]
        {
            let slots = table(&values);
            let largest = values.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            for (slot, value) in values.iter().enumerate() {
                let read = slots.get(slot, 0).expect("was set");
                assert!((read - value).abs() <= largest * 0.012, "{values:?}: {value} read as {read}");
            }
        }
    }

    #[test]
    fn rows_read_back_as_written() {
        let slots = table(&[3.0, -7.0, 1e12]);
        let mut bytes = Vec::new();
        slots.encode(0, &mut bytes);
        let mut read = Slots::new(3);
        read.decode(&mut Reader::new(&bytes)).expect("reads back");
        for slot in 0..3 {
            assert_eq!(slots.get(slot, 0), read.get(slot, 0));
        }
        bytes[0] = 127;
        assert!(Slots::new(3).decode(&mut Reader::new(&bytes)).is_err());
    }
}
