//! A bank made of a [`Detector`]: judge, mask, guard, absorb, in this order and for every author.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{
    Bank, BankSource, BinColumn, ConfigError, Detector, Learn, Policy, Reading, Readings, RowReading,
    with_silence,
};
use crate::codec::{Codec, Corrupt, Reader};
use crate::codec_struct;
use crate::growth;
use crate::signal::SignalInfo;
use crate::time::Timestamp;

/// The guard of one row: whether it may learn. Compact, since there is one per row and detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// Values seen, compared with the warm-up; once there were [`Policy::enough`], the most that it can hold.
    seen: u16,
    /// Consecutive values in band since the last one outside.
    calm: u16,
    /// Second since the epoch at which the present excursion began, plus one, later by each silence since; 0 = none.
    held_since: u32,
}
codec_struct!(Guard { seen, calm, held_since });

/// What the guard decided about one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How to learn it.
    pub learn: Learn,
    /// The row starts anew: its state must be made by `init` before `absorb`.
    pub relearn: bool,
}

impl Guard {
    /// Whether the row has seen enough to speak.
    #[inline]
    pub fn is_warm(&self, warm_up: u32) -> bool {
        u32::from(self.seen) >= warm_up
    }

    /// Whether the row is in or just after an excursion.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.held_since != 0
    }

    /// Takes note of a value in band of a row that is not held: what [`Guard::decide`] does with it. `enough` is
    /// [`Policy::enough`], worked out once for all rows.
    #[inline]
    pub fn pass(&mut self, enough: u16) {
        debug_assert!(!self.is_held());
        self.count(enough);
    }

    // Not for ever: what is not written to need not go back to memory, bin after bin. A row that is warm stays warm,
    // whatever a reload makes of the warm-up.
    #[inline]
    const fn count(&mut self, enough: u16) {
        if self.seen < enough {
            self.seen += 1;
            if self.seen == enough {
                self.seen = u16::MAX;
            }
        }
    }

    /// The row was silent for so long: that is no time outside the band, since nobody knows where it was.
    #[inline]
    pub fn skip(&mut self, silence_secs: u32) {
        if self.is_held() {
            self.held_since = self.held_since.saturating_add(silence_secs);
        }
    }

    /// The excursion, if there is one, is over.
    fn release(&mut self) {
        (self.calm, self.held_since) = (0, 0);
    }

    /// Judges whether a value with this score may be learned. Event time only.
    #[inline]
    pub fn decide(&mut self, policy: &Policy, at: Timestamp, anomalous: bool) -> Decision {
        self.count(policy.enough());
        let now = at.secs().clamp(0, i64::from(u32::MAX - 1)) as u32;
        if anomalous {
            self.calm = 0;
            if self.held_since == 0 {
                self.held_since = now + 1;
            }
            let held_secs = i64::from(now) + 1 - i64::from(self.held_since);
            if held_secs >= policy.relearn_after.ns() / 1_000_000_000 {
                *self = Self { seen: 1, ..Self::default() };
                return Decision { learn: Learn::Relearn, relearn: true };
            }
            return Decision { learn: Learn::Hold, relearn: false };
        }
        if self.held_since != 0 {
            self.calm = self.calm.saturating_add(1);
            if u32::from(self.calm) < policy.calm_bins {
                return Decision { learn: Learn::Hold, relearn: false };
            }
            self.release();
        }
        Decision { learn: Learn::Value, relearn: false }
    }
}

/// One row group of one configured detector.
pub struct Column<D: Detector> {
    detector: Arc<D>,
    policy: Policy,
    warm_up: u32,
    states: Vec<D::State>,
    guards: Vec<Guard>,
    last: Vec<f32>,
}

impl<D: Detector> Column<D> {
    /// A row must be able to count as far as its detector asks.
    const WARMS_UP: () = assert!(D::WARM_UP <= Policy::COUNTED as u32, "WARM_UP is at most Policy::COUNTED");

    #[inline]
    fn judge_row(&mut self, row: usize, at: Timestamp, value: f64, silence_secs: u32) -> RowReading {
        let state = &mut self.states[row];
        let guard = &mut self.guards[row];
        // The verdict comes from the state as it was before this value: learning first would let an
        // outlier widen the band that judges it.
        let mut reading = self.policy.mask(value, self.detector.judge(state, at, value));
        if !guard.is_warm(self.warm_up) {
            reading.score = reading.score.min(1.0);
        }
        guard.skip(silence_secs);
        let decision = guard.decide(&self.policy, at, reading.is_anomalous());
        if decision.relearn {
            *state = self.detector.init();
        }
        self.detector.absorb(state, at, value, &reading, decision.learn);
        let onset = if reading.is_anomalous() { self.detector.onset(state) } else { None };
        RowReading { row: row as u32, value, reading, relearned: decision.relearn, onset }
    }

    /// A row that is not the usual one: silent, outside its band, held or asked for.
    #[cold]
    #[inline(never)]
    fn step_row(&mut self, row: usize, bin: BinColumn<'_>, out: &mut Readings) {
        let value = bin.values[row];
        let verdict = if value.is_nan() {
            let missing = bin.missing.get(row).copied().unwrap_or(0);
            self.silent_row(row, bin.at, missing)
        } else {
            Some(self.judge_row(row, bin.at, value, bin.rhythm.silence_before(row, bin.at)))
        };
        self.last[row] = verdict.map_or(f32::NAN, |v| v.reading.score as f32);
        if let Some(verdict) = verdict {
            out.push(verdict);
        }
    }

    fn silent_row(&mut self, row: usize, at: Timestamp, missing: u32) -> Option<RowReading> {
        if !D::JUDGES_SILENCE || missing == 0 {
            return None;
        }
        let reading: Reading = self.detector.gap(&mut self.states[row], at, missing);
        let onset = self.detector.onset(&self.states[row]);
        Some(RowReading { row: row as u32, value: f64::NAN, reading, relearned: false, onset })
    }
}

impl<D: Detector> Bank for Column<D> {
    fn grow(&mut self, rows: usize) {
        let (detector, more) = (&self.detector, rows.saturating_sub(self.states.len()));
        growth::reserve(&mut self.states, more);
        growth::reserve(&mut self.guards, more);
        growth::reserve(&mut self.last, more);
        self.states.resize_with(rows, || detector.init());
        self.guards.resize(rows, Guard::default());
        self.last.resize(rows, f32::NAN);
    }

    fn rows(&self) -> usize {
        self.states.len()
    }

    fn step(&mut self, bin: BinColumn<'_>, out: &mut Readings) {
        let rows = bin.values.len();
        let usual = if self.policy.is_open() { step_usual::<D, true> } else { step_usual::<D, false> };
        while out.row < rows {
            let row = out.row;
            if out.all.is_none() {
                let rest = Rest {
                    values: &bin.values[row..],
                    states: &mut self.states[row..rows],
                    guards: &mut self.guards[row..rows],
                    last: &mut self.last[row..rows],
                };
                usual(&self.detector, &self.policy, self.warm_up, bin.at, rest, &mut out.row);
            }
            if out.row < rows {
                self.step_row(out.row, bin, out);
                out.row += 1;
            }
        }
        out.row = 0;
    }

    fn last_score(&self, row: u32) -> f32 {
        self.last.get(row as usize).copied().unwrap_or(f32::NAN)
    }

    fn warming(&self) -> (usize, u32) {
        let warming = self.guards.iter().filter(|guard| guard.seen > 0 && !guard.is_warm(self.warm_up));
        (warming.count(), self.warm_up)
    }

    fn patience(&self) -> Option<u32> {
        D::JUDGES_SILENCE.then(|| self.detector.patience())
    }

    fn save(&self, rows: &[u32], out: &mut Vec<u8>) {
        for row in rows {
            self.guards[*row as usize].encode(out);
            self.states[*row as usize].encode(out);
        }
    }

    fn load(&mut self, version: u16, rows: usize, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.states.clear();
        self.guards.clear();
        self.last = vec![f32::NAN; rows];
        for _ in 0..rows {
            self.guards.push(Guard::decode(reader)?);
            self.states.push(if version == D::STATE_VERSION {
                D::State::decode(reader)?
            } else {
                self.detector.migrate(version, reader)?
            });
        }
        Ok(())
    }

    /// Lives through the history, as if it had come in.
    fn seed(&mut self, row: u32, _: Timestamp, history: &[(Timestamp, f64)]) {
        for (at, value, silence_secs) in with_silence(history) {
            self.judge_row(row as usize, at, value, silence_secs);
        }
        // What it learned holds; that it ended in an excursion is no news of the stream to come.
        self.guards[row as usize].release();
    }

    fn forget(&mut self, row: u32) {
        let row = row as usize;
        if row < self.states.len() {
            self.states[row] = self.detector.init();
            self.guards[row] = Guard::default();
            self.last[row] = f32::NAN;
        }
    }

    fn state_bytes(&self) -> usize {
        self.states.capacity() * size_of::<D::State>() + self.guards.capacity() * 8 + self.last.capacity() * 4
    }
}

/// The rows that are still to be stepped.
struct Rest<'a, S> {
    values: &'a [f64],
    states: &'a mut [S],
    guards: &'a mut [Guard],
    last: &'a mut [f32],
}

/// Judges and learns rows while they are the usual ones: in band and not held, or without data. `at_row` goes along.
// The same as `judge_row`, which would put together a whole verdict for each of them and decide at
// run time what is known here: that the row learns. A function over slices, so that what is the same
// for all rows stays in registers.
fn step_usual<D: Detector, const OPEN: bool>(
    detector: &D,
    policy: &Policy,
    warm_up: u32,
    at: Timestamp,
    rest: Rest<'_, D::State>,
    at_row: &mut usize,
) {
    let enough = policy.enough();
    let rows = rest.values.iter().zip(rest.states).zip(rest.guards.iter_mut().zip(rest.last));
    for ((value, state), (guard, last)) in rows {
        let value = *value;
        if value.is_nan() {
            if D::JUDGES_SILENCE {
                return;
            }
            *last = f32::NAN;
            *at_row += 1;
            continue;
        }
        let judged = detector.judge(state, at, value);
        let mut reading = policy.mask(value, judged);
        if OPEN {
            // An open policy leaves the score as it is; that spares working out the band for a
            // detector that learns without it.
            reading.score = Reading::new(judged.score, judged.band).score;
        }
        if !guard.is_warm(warm_up) {
            reading.score = reading.score.min(1.0);
        }
        if reading.is_anomalous() || guard.is_held() {
            return;
        }
        // Nothing is written between the two that share what they work out.
        detector.absorb(state, at, value, &reading, Learn::Value);
        guard.pass(enough);
        *last = reading.score as f32;
        *at_row += 1;
    }
}

struct Source<D: Detector> {
    detector: Arc<D>,
    policy: Policy,
}

impl<D: Detector> BankSource for Source<D> {
    fn bank(&self) -> Box<dyn Bank> {
        let () = Column::<D>::WARMS_UP;
        let warm_up = if self.policy.warm_up > 0 { self.policy.warm_up } else { D::WARM_UP };
        Box::new(Column {
            detector: Arc::clone(&self.detector),
            policy: self.policy.clone(),
            warm_up,
            states: Vec::new(),
            guards: Vec::new(),
            last: Vec::new(),
        })
    }
}

/// Makes a source of [`Column`] banks: what a [`Detector`]'s registry entry calls.
pub fn source_of<D: Detector>(
    config: &serde_json::Value,
    policy: &Policy,
    signal: &SignalInfo,
) -> Result<Arc<dyn BankSource>, ConfigError> {
    let config: D::Config =
        serde_json::from_value(config.clone()).map_err(|e| ConfigError::at("", e.to_string()))?;
    Ok(source(D::new(config, signal)?, policy.clone()))
}

/// Makes a source of [`Column`] banks of a detector, under a policy that need not be the one that was written.
pub fn source<D: Detector>(detector: D, policy: Policy) -> Arc<dyn BankSource> {
    Arc::new(Source { detector: Arc::new(detector), policy })
}
