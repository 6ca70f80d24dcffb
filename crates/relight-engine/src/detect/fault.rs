//! Detectors that panic: their row is put out of harm's way, and everything else goes on.
//!
//! Rows before the one that panicked are done, those behind it are stepped next, and the row itself starts anew, since
//! what it has learned may be half written: so a row's state depends on its own values alone, panic or not. How often a
//! row panicked is part of its state, and after [`MAX_PANICS`] it is quarantined: that detector sees it no more until it
//! is another one, by its version or by the parameters that shape its state. Costs nothing where nothing panics: one
//! landing pad a chunk.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use relight_core::Timestamp;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::detector::{Bank, BinColumn, Readings};

use super::Signal;
use crate::directory::RowAddr;

/// After so many panics a row is quarantined.
pub const MAX_PANICS: u8 = 3;

/// A detector panicked on a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Index of the detector in the settings.
    pub detector: usize,
    /// The row.
    pub row: RowAddr,
    /// How often it has by now.
    pub times: u8,
    /// What the panic said.
    pub why: String,
}

impl Fault {
    /// Whether the row is quarantined by this.
    pub const fn quarantines(&self) -> bool {
        self.times == MAX_PANICS
    }
}

/// The panics of one row group.
#[derive(Default)]
pub(super) struct Faults {
    /// By bank and row.
    times: BTreeMap<(usize, u32), u8>,
}

/// What quarantined rows would have shown.
pub(super) type Hidden = Vec<(usize, f64, Option<u32>)>;

impl Faults {
    pub(super) fn is_quarantined(&self, bank: usize, row: u32) -> bool {
        self.times.get(&(bank, row)).is_some_and(|times| *times >= MAX_PANICS)
    }

    /// The row was evicted, with what is known of it.
    pub(super) fn forget(&mut self, row: u32) {
        self.times.retain(|(_, of), _| *of != row);
    }

    /// Hides the values of the bank's quarantined rows from it.
    pub(super) fn hide(&self, bank: usize, values: &mut [f64], missing: &mut [u32]) -> Hidden {
        let mut hidden = Hidden::new();
        for ((_, row), _) in self.times.range((bank, 0)..(bank + 1, 0)).filter(|(_, n)| **n >= MAX_PANICS) {
            let row = *row as usize;
            let value = std::mem::replace(&mut values[row], f64::NAN);
            hidden.push((row, value, missing.get_mut(row).map(std::mem::take)));
        }
        hidden
    }

    /// Takes back what [`Faults::hide`] did.
    pub(super) fn unhide(hidden: Hidden, values: &mut [f64], missing: &mut [u32]) {
        for (row, value, count) in hidden {
            values[row] = value;
            if let (Some(missing), Some(count)) = (missing.get_mut(row), count) {
                *missing = count;
            }
        }
    }

    /// Steps a bank, whatever its detector does. Returns the rows on which it panicked.
    pub(super) fn step(
        &mut self,
        ix: usize,
        bank: &mut dyn Bank,
        bin: BinColumn<'_>,
        out: &mut Readings,
    ) -> Vec<(u32, u8, String)> {
        let mut panicked = Vec::new();
        out.row = 0;
        // Each panic takes this one row on, so it ends.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| bank.step(bin, out))) {
            if out.row >= bin.values.len() {
                break;
            }
            let row = out.row as u32;
            bank.forget(row);
            let times = self.times.entry((ix, row)).or_default();
            *times += 1;
            panicked.push((row, *times, said(&*panic)));
            out.row += 1;
        }
        panicked
    }

    /// Appends the counts, by bank and by place in `order`; nothing where nothing panicked.
    pub(super) fn save(&self, signal: &Signal, order: &[u32], out: &mut Vec<u8>) {
        if self.times.is_empty() {
            return;
        }
        let mut all = Vec::new();
        for (place, row) in (0_u32..).zip(order) {
            let of_row = |ix| Some((ix, place, *self.times.get(&(ix, *row))?));
            all.extend((0..signal.uses.len()).filter_map(of_row));
        }
        (all.len() as u32).encode(out);
        for (ix, place, times) in all {
            signal.uses[ix].name.encode(out);
            place.encode(out);
            times.encode(out);
        }
    }

    /// Reads what [`Faults::save`] wrote. Only banks whose state is `kept` still have their quarantine.
    pub(super) fn load(
        &mut self,
        signal: &Signal,
        rows: usize,
        kept: &[usize],
        reader: &mut Reader<'_>,
    ) -> Result<(), Corrupt> {
        if reader.left() == 0 {
            return Ok(());
        }
        for _ in 0..reader.len(9, "panics")? {
            let (name, row, times) = (String::decode(reader)?, u32::decode(reader)?, u8::decode(reader)?);
            if row as usize >= rows {
                return Err(Corrupt::Value("row of a panic"));
            }
            let ix = kept.iter().find(|ix| signal.uses[**ix].name == name);
            if let Some(ix) = ix {
                self.times.insert((*ix, row), times);
            }
        }
        Ok(())
    }
}

/// Seeds a row. One on whose history its detector panics starts without any.
pub(super) fn seed(bank: &mut dyn Bank, row: u32, at: Timestamp, history: &[(Timestamp, f64)]) {
    if catch_unwind(AssertUnwindSafe(|| bank.seed(row, at, history))).is_err() {
        bank.forget(row);
    }
}

/// What a panic said, if it said something.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
