//! One row group of one signal: its rows' cadences and the banks of its detectors.

use std::collections::BTreeMap;

use relight_core::codec::{Codec, Corrupt, Reader, decode_bytes, encode_bytes};
use relight_core::detector::{Bank, BinColumn, Reading, Rhythm, RowReading};
use relight_core::record::Histogram;
use relight_core::rule::DetectorView;
use relight_core::signal::SignalKind;
use relight_core::{Span, Timestamp};

use super::fault::{self, Fault, Faults};
use super::frame::{Parts, Scratch, quantile};
use super::shared::{Shared, combine_shared};
use super::{RowFinding, Signal, Use, Verdicts};
use crate::directory::{Channel, RowAddr};
use crate::fold::{Contribution, Partial};

/// How fast a row's learned cadence follows: 5 % a sample towards the median of its gaps, so that one
/// outage does not make the row look slow.
const CADENCE_STEP: f32 = 0.05;
/// A sample that is half a cadence late is missing, but a weekly job's need not be late for days: the lateness that is allowed is
/// at most this long, or an eighth of the cadence where that is longer, since days of a month differ.
const LATE: Span = Span::from_secs(12 * 3_600);
/// After this many missing samples silence sets no more deadlines: the row is gone, not late.
const MAX_MISSING: u32 = 1_000;

#[derive(Default)]
pub(super) struct RowGroup {
    /// Time of the last value; [`Timestamp::MIN`] for a row that has had none: it does not count yet,
    /// since when a name is first met depends on how partitions interleave.
    last: Vec<Timestamp>,
    /// Seconds between values, learned; 0 until there were two.
    cadence: Vec<f32>,
    banks: Vec<Box<dyn Bank>>,
    /// By row, the bin of its last finding: whether it was in band when it last had a value, and whether an incident may be
    /// open about it.
    found: BTreeMap<u32, Timestamp>,
    faults: Faults,
    parts: Parts,
    buckets: Vec<(u32, Histogram)>,
    /// Contributions of an open bin to rows that several series may feed.
    contributions: Vec<Contribution>,
    /// By row, what those came to in the bin of `seen`, whether or not any of it was new.
    shared: Vec<Shared>,
    seen: Option<Timestamp>,
    stepped: Option<Timestamp>,
    pub(super) silence_due: Option<Timestamp>,
}

impl RowGroup {
    pub(super) fn add(&mut self, signal: &Signal, row: u32) {
        if self.banks.is_empty() {
            self.banks = signal.uses.iter().map(|u| u.source.bank()).collect();
        }
        // One that was evicted left its number, and nothing else.
        if row as usize == self.last.len() {
            self.last.push(Timestamp::MIN);
            self.cadence.push(0.0);
        }
    }

    /// Makes a row one that has had no value.
    pub(super) fn forget(&mut self, row: u32) {
        self.last[row as usize] = Timestamp::MIN;
        self.cadence[row as usize] = 0.0;
        self.found.remove(&row);
        self.faults.forget(row);
        self.banks.iter_mut().for_each(|bank| bank.forget(row));
    }

    /// Whether a row must stay although it is silent: its silence is judged, or an incident may be open about it.
    // By the row's own values alone, since Detect hears nothing of Control: an incident that a finding opened is over
    // once the row has brought values for `calm` without another one, or has been silent for very long.
    pub(super) fn is_needed(&self, signal: &Signal, row: u32, at: Timestamp) -> bool {
        let (last, cadence) = (self.last[row as usize], self.cadence[row as usize]);
        // A row with one value has no cadence yet: it must live to see the second one of a weekly job.
        let is_expected = || cadence > 0.0 || (last.is_known() && at < last.plus(signal.gone_after));
        (self.is_patient() && is_expected())
            || self.found.get(&row).is_some_and(|found| is_open(signal, (last, *found), at))
    }

    /// Lets go of findings that no incident can be open for any more.
    pub(super) fn calm_down(&mut self, signal: &Signal, at: Timestamp) {
        let Self { found, last, .. } = self;
        found.retain(|row, found| is_open(signal, (last[*row as usize], *found), at));
    }

    /// Contributions to rows of this group.
    pub(super) fn take(&mut self, partials: &[Partial]) {
        self.parts.extend(partials);
    }

    /// Contributions to rows of this group that several series may feed.
    pub(super) fn take_shared(&mut self, contributions: &[Contribution]) {
        self.contributions.extend_from_slice(contributions);
    }

    /// What rows come to in the bin that was stepped last, where that was not judged.
    pub(super) fn carried(&self) -> impl Iterator<Item = (u32, f64)> {
        self.shared.iter().filter(|one| !one.is_new || one.is_partial).map(|one| (one.row, one.value))
    }

    /// What a row came to in the bin at `at`, if several series may feed it.
    fn shared_at(&self, row: u32, at: Timestamp) -> Option<&Shared> {
        let found = self.shared.binary_search_by_key(&row, |one| one.row).ok()?;
        (self.seen == Some(at)).then(|| &self.shared[found])
    }

    pub(super) fn take_event(&mut self, row: u32) {
        self.parts.push(row, Channel::Event, 1.0);
    }

    pub(super) fn take_buckets(&mut self, row: u32, counts: Histogram) {
        self.buckets.push((row, counts));
    }

    /// Of each use, how many rows are warming up, how many there are, and how many values it takes.
    pub(super) fn warming(&self) -> impl Iterator<Item = (usize, usize, u32)> {
        self.banks.iter().map(|bank| {
            let (warming, needs) = bank.warming();
            (warming, bank.rows(), needs)
        })
    }

    fn is_patient(&self) -> bool {
        self.banks.iter().any(|bank| bank.patience().is_some())
    }

    pub(super) fn step(
        &mut self,
        signal: &Signal,
        at: Timestamp,
        address: RowAddr,
        scratch: &mut Scratch,
        out: &mut Verdicts,
    ) {
        let counts_events = matches!(signal.kind, SignalKind::EventCount { .. });
        self.combine(signal, at, scratch);
        let has_shared = self.shared.iter().any(|one| one.is_new);
        let idle = self.parts.is_empty() && self.buckets.is_empty() && !has_shared;
        if self.last.is_empty() || (idle && !counts_events && !self.is_patient()) {
            return;
        }
        self.stepped = Some(at);
        self.fill(signal, counts_events, scratch);
        self.count_missing(at, &mut scratch.missing, &scratch.values);
        for (ix, of) in signal.uses.iter().enumerate() {
            self.step_bank((ix, of), (at, address), scratch, out);
        }
        if signal.calm.is_none() {
            // Nothing is evicted, so nothing lets go of them later.
            self.found.retain(|row, found| *found == at || scratch.values[*row as usize].is_nan());
        }
        for one in self.shared.iter().filter(|one| one.is_new) {
            // What is not judged is heard all the same.
            scratch.values[one.row as usize] = one.value;
        }
        self.learn_cadence(at, &scratch.values);
        self.parts.give_back(&mut scratch.values);
        self.silence_due = if self.is_patient() { self.next_silence(signal, at) } else { None };
    }

    /// Makes the contributions of the bin at `at` values of rows.
    fn combine(&mut self, signal: &Signal, at: Timestamp, scratch: &mut Scratch) {
        self.seen = Some(at);
        self.shared.clear();
        if !self.contributions.is_empty() {
            let (bin, all) = ((at, signal.interval), &mut self.contributions);
            combine_shared(&signal.kind, bin, all, &mut scratch.buffers, &mut self.shared);
        }
    }

    fn step_bank(
        &mut self,
        (ix, of): (usize, &Use),
        (at, address): (Timestamp, RowAddr),
        Scratch { values, missing, readings, .. }: &mut Scratch,
        out: &mut Verdicts,
    ) {
        let bank = &mut *self.banks[ix];
        bank.grow(self.last.len());
        readings.findings.clear();
        readings.all = out.all.is_some().then(Vec::new);
        let hidden = self.faults.hide(ix, values, missing);
        let rhythm = Rhythm { last: &self.last, cadence: &self.cadence };
        let panicked = self.faults.step(ix, bank, BinColumn { at, values, missing, rhythm }, readings);
        Faults::unhide(hidden, values, missing);
        let place = |row| RowAddr { row, ..address };
        let found = |r: &RowReading| RowFinding { detector: of.index, row: place(r.row), reading: *r };
        out.findings.extend(readings.findings.iter().map(found));
        self.found.extend(readings.findings.iter().map(|r| (r.row, at)));
        if let (Some(all), Some(mine)) = (&mut out.all, &readings.all) {
            all.extend(mine.iter().map(found));
        }
        let fault = |(row, times, why)| Fault { detector: of.index, row: place(row), times, why };
        out.faults.extend(panicked.into_iter().map(fault));
    }

    fn fill(&mut self, signal: &Signal, counts_events: bool, scratch: &mut Scratch) {
        let values = &mut scratch.values;
        self.parts.take(&signal.kind, self.last.len(), values);
        // Of series with other bounds the finest set wins, whoever came first; exponential ones meet in the coarsest.
        self.buckets.sort_by_cached_key(|(row, counts)| (*row, finest(counts)));
        for of_row in self.buckets.chunk_by(|a, b| a.0 == b.0) {
            let mut sum = of_row[0].1.clone();
            of_row[1..].iter().for_each(|(_, more)| sum.add(more));
            let q = if let SignalKind::Quantile { q, .. } = signal.kind { q } else { 0.99 };
            values[of_row[0].0 as usize] = quantile(&sum, q);
        }
        self.buckets.clear();
        // A row without anything new learns nothing: one value must not count for as many bins as it lasts.
        for one in self.shared.iter().filter(|one| one.is_new && !one.is_partial) {
            values[one.row as usize] = one.value;
        }
        if counts_events {
            for (value, last) in values.iter_mut().zip(&self.last) {
                if value.is_nan() && last.is_known() {
                    *value = 0.0;
                }
            }
        }
        for value in values.iter_mut().filter(|value| value.is_infinite()) {
            // Finite points can add up to infinity; a baseline would never recover from it.
            *value = f64::NAN;
        }
    }

    fn count_missing(&self, at: Timestamp, missing: &mut Vec<u32>, values: &[f64]) {
        missing.clear();
        if self.is_patient() {
            missing.extend(
                (0..values.len()).map(|row| if values[row].is_nan() { self.missing(row, at) } else { 0 }),
            );
            // Nothing is missing while one of a row's series is between two of its points.
            let regular = self.shared.iter().filter(|one| one.is_regular);
            regular.for_each(|one| missing[one.row as usize] = 0);
        }
    }

    /// Expected samples that have not come.
    fn missing(&self, row: usize, at: Timestamp) -> u32 {
        if !self.last[row].is_known() || self.cadence[row] <= 0.0 {
            return 0;
        }
        let elapsed = at.since(self.last[row]).secs_f64();
        let cadence = f64::from(self.cadence[row]);
        ((elapsed - lateness(cadence)) / cadence).floor().clamp(0.0, f64::from(u32::MAX)) as u32
    }

    fn learn_cadence(&mut self, at: Timestamp, values: &[f64]) {
        // Rows of one group mostly came last in the same bin: the division is paid where that changes.
        let gap_since = |last: Timestamp| at.since(last).secs_f64() as f32;
        let mut known = (at, gap_since(at));
        for ((value, last), cadence) in values.iter().zip(&mut self.last).zip(&mut self.cadence) {
            if value.is_nan() {
                continue;
            }
            if last.is_known() {
                if *last != known.0 {
                    known = (*last, gap_since(*last));
                }
                let gap = known.1;
                if gap > 0.0 && gap != *cadence {
                    *cadence = if *cadence <= 0.0 {
                        gap
                    } else {
                        gap.clamp(*cadence * (1.0 - CADENCE_STEP), *cadence * (1.0 + CADENCE_STEP))
                    };
                }
            }
            *last = at;
        }
    }

    fn next_silence(&self, signal: &Signal, at: Timestamp) -> Option<Timestamp> {
        let patience = self.banks.iter().filter_map(|bank| bank.patience()).min()?;
        let due = |row: usize| {
            let cadence = f64::from(self.cadence[row]);
            let next = patience.max(self.missing(row, at).saturating_add(1));
            if cadence <= 0.0 || next > MAX_MISSING {
                return None;
            }
            let silence = f64::from(next) * cadence + lateness(cadence);
            let silence = Span::from_ns((silence * 1e9).ceil() as i64);
            let end = self.last[row].plus(silence);
            Some(if signal.samples { end } else { end.plus(signal.interval) })
        };
        (0..self.last.len()).filter_map(due).min()
    }

    /// Whether a row has had a value in a closed bin.
    pub(super) fn has_history(&self, row: u32) -> bool {
        self.last.get(row as usize).is_some_and(|last| last.is_known())
    }

    /// What one detector says of one row, as of the step at `at`; `None` for a row without history.
    pub(super) fn view(&self, signal: &Signal, row: u32, bank: usize, at: Timestamp) -> Option<DetectorView> {
        let last = *self.last.get(row as usize)?;
        if !last.is_known() {
            return None;
        }
        let score = if self.stepped == Some(at) { self.banks[bank].last_score(row) } else { f32::NAN };
        let cadence = f64::from(self.cadence[row as usize]).max(signal.interval.secs_f64());
        // A score of silence is a verdict, and no data.
        let has_data = last == at && !score.is_nan();
        let shared = self.shared_at(row, at);
        let own = last.plus(Span::from_ns((2.0e9 * cadence) as i64));
        let is_silent = shared.is_none() && at > own;
        let stale = !has_data && (is_silent || self.faults.is_quarantined(bank, row));
        // A shared row is current while its series count, which their cadence decides.
        let counts = shared.is_some_and(|shared| !shared.value.is_nan());
        let fresh_until = if counts { own.max(at.plus(signal.interval.times(2))) } else { own };
        // Of any detector of its signal: between two values nobody else can tell.
        let had_left = self.found.get(&row).is_some_and(|found| *found >= last);
        let reading = Reading::new(f64::from(score), relight_core::detector::Band::UNKNOWN);
        Some(DetectorView {
            score: reading.score,
            rows: 1,
            anomalous: u32::from(reading.is_anomalous()),
            with_data: u32::from(has_data),
            left: u32::from(had_left && !has_data && !stale),
            // A value is as old as the oldest point that it rests on.
            last: shared.map_or(last, |shared| shared.oldest),
            fresh_until,
            stale,
        })
    }

    pub(super) fn save(&mut self, signal: &Signal, order: &[u32], out: &mut Vec<u8>) {
        for row in order {
            self.last[*row as usize].encode(out);
            self.cadence[*row as usize].encode(out);
        }
        self.silence_due.encode(out);
        let found = |(rank, row): (usize, &u32)| Some((rank as u32, *self.found.get(row)?));
        let found: Vec<(u32, Timestamp)> = order.iter().enumerate().filter_map(found).collect();
        (found.len() as u32).encode(out);
        for (rank, at) in found {
            rank.encode(out);
            at.encode(out);
        }
        (self.banks.len() as u32).encode(out);
        for (bank, of) in self.banks.iter_mut().zip(&signal.uses) {
            of.name.encode(out);
            of.version.encode(out);
            of.shape.encode(out);
            let mut states = Vec::new();
            // Rows that were named since the last step have no state yet.
            bank.grow(self.last.len());
            bank.save(order, &mut states);
            encode_bytes(&states, out);
        }
        self.faults.save(signal, order, out);
    }

    pub(super) fn load(&mut self, signal: &Signal, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        for row in 0..self.last.len() {
            self.last[row] = Timestamp::decode(reader)?;
            self.cadence[row] = f32::decode(reader)?;
            if !self.cadence[row].is_finite() || self.cadence[row] < 0.0 {
                return Err(Corrupt::Value("cadence"));
            }
        }
        self.silence_due = Option::<Timestamp>::decode(reader)?.filter(|_| self.is_patient());
        for _ in 0..reader.len(12, "rows with findings")? {
            let (row, at) = (u32::decode(reader)?, Timestamp::decode(reader)?);
            if row as usize >= self.last.len() {
                return Err(Corrupt::Value("row with a finding"));
            }
            self.found.insert(row, at);
        }
        let mut kept = Vec::new();
        for _ in 0..reader.len(14, "banks")? {
            let name = String::decode(reader)?;
            let version = u16::decode(reader)?;
            let shape = String::decode(reader)?;
            let states = decode_bytes(reader, "states")?;
            let found = signal.uses.iter().position(|u| u.name == name && u.shape == shape);
            if let Some(ix) = found {
                self.load_bank(ix, version, states)?;
                kept.extend(Some(ix).filter(|ix| signal.uses[*ix].version == version));
            }
        }
        self.faults.load(signal, self.last.len(), &kept, reader)
    }

    fn load_bank(&mut self, ix: usize, version: u16, states: &[u8]) -> Result<(), Corrupt> {
        let mut reader = Reader::new(states);
        let bank = self.banks.get_mut(ix).ok_or(Corrupt::Value("banks without rows"))?;
        bank.load(version, self.last.len(), &mut reader)?;
        reader.finish()
    }

    pub(super) fn seed(&mut self, row: u32, at: Timestamp, history: &[(Timestamp, f64)]) {
        for bank in &mut self.banks {
            bank.grow(self.last.len());
            fault::seed(&mut **bank, row, at, history);
        }
    }

    pub(super) fn state_bytes(&self) -> usize {
        let banks: usize = self.banks.iter().map(|bank| bank.state_bytes()).sum();
        let contributions = self.contributions.capacity() * size_of::<Contribution>();
        let shared = self.shared.capacity() * size_of::<Shared>() + contributions;
        self.last.capacity() * 8 + self.cadence.capacity() * 4 + self.parts.state_bytes() + shared + banks
    }
}

/// Seconds that a sample may be late before it is missing.
fn lateness(cadence: f64) -> f64 {
    (cadence / 2.0).min(LATE.secs_f64().max(cadence / 8.0))
}

/// Whether an incident may be open about a row with these last value and last finding.
fn is_open(signal: &Signal, (last, found): (Timestamp, Timestamp), at: Timestamp) -> bool {
    last < found.plus(signal.calm.unwrap_or(Span::ZERO)) && at < last.max(found).plus(signal.gone_after)
}

/// Orders histograms by how finely they count, then by their bounds: an order of contents alone.
fn finest(histogram: &Histogram) -> (std::cmp::Reverse<usize>, Vec<u64>) {
    let bits = histogram.bounds.iter().map(|bound| bound.to_bits()).collect();
    (std::cmp::Reverse(histogram.bounds.len()), bits)
}
