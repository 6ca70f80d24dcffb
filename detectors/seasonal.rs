//! Each hour of the day or week has its own normal.
//!
//! Expects the mean of the same hour of earlier weeks, interpolated between the middles of two
//! hours, so that a slope is no staircase. A [`Bank`] of its own for the sake of its slot-major
//! tables. Knows no trend: what moves by the week is followed by the tables themselves.

use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::detector::{
    Bank, BankSource, BinColumn, ConfigError, DetectorSpec, Guard, Learn, Policy, Readings, RowReading,
};
use relight_core::signal::SignalInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arithmetic::{Pace, difference};
use crate::calendar::{Calendar, DAY, Place, WEEK};
use crate::calibration::WARM;
use crate::curve::{NOWHERE, Row};
use crate::profile;
use crate::slots::{Slots, extend};
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec = DetectorSpec {
    name: "seasonal",
    doc: include_str!("seasonal.md"),
    state_version: 1,
    schema: spec::schema::<Config>,
    defaults: spec::defaults::<Config>,
    build,
    state_shape: |config| spec::shape::<Config>(config, &["zone", "period"]),
};

/// How often the curve repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Period {
    /// All days are alike.
    Day,
    /// Mondays differ from Sundays.
    #[default]
    Week,
}

/// Parameters of `seasonal`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// IANA time zone of its hours, such as `Europe/Berlin`.
    zone: String,
    /// How often the curve repeats: `day` or `week`.
    period: Period,
    /// Half width of the band, in robust standard deviations.
    threshold: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { zone: "UTC".to_owned(), period: Period::Week, threshold: 4.0 }
    }
}

/// The share that the latest visit of an hour has in its slot, once there were several.
const VISIT_RATE: f32 = 0.25;

/// A column of rows.
struct SeasonalBank {
    policy: Policy,
    threshold: f64,
    warm_up: u32,
    period: Period,
    calendar: Calendar,
    rows: Vec<Row>,
    guards: Vec<Guard>,
    last: Vec<f32>,
    slots: Slots,
}

struct Source {
    config: Config,
    calendar: Calendar,
    policy: Policy,
}

fn build(
    config: &serde_json::Value,
    policy: &Policy,
    _: &SignalInfo,
) -> Result<Arc<dyn BankSource>, ConfigError> {
    let config: Config = spec::parse(config)?;
    spec::positive("threshold", config.threshold)?;
    let calendar = Calendar::new(&config.zone)?;
    Ok(Arc::new(Source { config, calendar, policy: policy.clone() }))
}

impl Period {
    fn slots(self) -> usize {
        match self {
            Self::Day => DAY,
            Self::Week => WEEK,
        }
    }
}

impl BankSource for Source {
    fn bank(&self) -> Box<dyn Bank> {
        Box::new(SeasonalBank {
            policy: self.policy.clone(),
            threshold: self.config.threshold,
            warm_up: if self.policy.warm_up > 0 { self.policy.warm_up } else { WARM },
            period: self.config.period,
            calendar: self.calendar.clone(),
            rows: Vec::new(),
            guards: Vec::new(),
            last: Vec::new(),
            slots: Slots::new(self.config.period.slots()),
        })
    }
}

impl SeasonalBank {
    /// An hour's slot; of a weekday not seen yet, the mean of the days that were.
    fn look_up(&self, ix: usize, hour: usize) -> f32 {
        let slots = self.period.slots();
        if let Some(value) = self.slots.get(hour % slots, ix) {
            return value;
        }
        let mut sum = 0.0;
        let mut days = 0.0;
        for slot in (hour % DAY..slots).step_by(DAY) {
            if let Some(value) = self.slots.get(slot, ix) {
                sum += value;
                days += 1.0;
            }
        }
        if days > 0.0 { sum / days } else { f32::NAN }
    }

    /// Goes over to the half-hour of `place`: an hour that is over goes to its slot, the slots that
    /// this half-hour lies between come out.
    fn turn(&mut self, ix: usize, place: Place) {
        let half = place.half();
        let row = self.rows[ix];
        if row.half == half {
            return;
        }
        let hour = usize::from(place.hour);
        if row.half != NOWHERE && row.half / 2 != u16::from(place.hour) {
            self.close_hour(ix);
        }
        let neighbour = if place.over >= 0.5 { hour + 1 } else { hour + WEEK - 1 } % WEEK;
        let (here, beside) = (self.look_up(ix, hour), self.look_up(ix, neighbour));
        let row = &mut self.rows[ix];
        (row.here, row.beside, row.half) = (here, beside, half);
    }

    fn close_hour(&mut self, ix: usize) {
        let row = &mut self.rows[ix];
        if row.count == 0 {
            return;
        }
        let slots = self.period.slots();
        let slot = usize::from(row.half / 2) % slots;
        let visits = f32::from(row.visits) / slots as f32 + 1.0;
        let value = match self.slots.get(slot, ix) {
            Some(old) => old + VISIT_RATE.max(1.0 / visits) * (row.mean - old),
            None => row.mean,
        };
        row.count = 0;
        row.visits = row.visits.saturating_add(1);
        self.slots.set(slot, ix, value);
    }

    /// A row that is not the usual one: in a new half-hour, outside its band, held or asked for.
    #[inline(never)]
    fn step_row(&mut self, ix: usize, bin: BinColumn<'_>, place: Place, out: &mut Readings) {
        let value = bin.values[ix];
        if value.is_nan() {
            self.last[ix] = f32::NAN;
            return;
        }
        let silence_secs = bin.rhythm.silence_before(ix, bin.at);
        let verdict = self.judge_row(ix, bin.at, place, value, silence_secs);
        self.last[ix] = verdict.reading.score as f32;
        out.push(verdict);
    }

    fn judge_row(
        &mut self,
        ix: usize,
        at: Timestamp,
        place: Place,
        value: f64,
        silence_secs: u32,
    ) -> RowReading {
        self.turn(ix, place);
        let row = &mut self.rows[ix];
        let judged = row.outlook(place).judge(value, self.threshold);
        let mut reading = self.policy.mask(value, judged);
        if u32::from(row.seen) < self.warm_up {
            reading.score = reading.score.min(1.0);
        }
        let guard = &mut self.guards[ix];
        guard.skip(silence_secs);
        let decision = guard.decide(&self.policy, at, reading.is_anomalous());
        if decision.relearn {
            *row = Row::new();
            self.slots.clear(ix);
            self.turn(ix, place);
        }
        let row = &mut self.rows[ix];
        if row.seen == 0 {
            row.origin = value;
        }
        if decision.learn != Learn::Hold {
            row.learn(row.outlook(place), value, &mut Pace::default());
        }
        if u32::from(row.seen) == WARM && f64::from(row.mean).abs() > 1e4 * row.sigma() {
            self.recentre(ix);
        }
        RowReading { row: ix as u32, value, reading, relearned: decision.relearn, onset: None }
    }

    /// The first value gave the table its origin. If it was a wild one the table is useless: begin it anew.
    fn recentre(&mut self, ix: usize) {
        let row = &mut self.rows[ix];
        row.origin += f64::from(row.mean);
        row.mean = 0.0;
        row.here = f32::NAN;
        row.beside = f32::NAN;
        self.slots.clear(ix);
    }
}

/// What is the same for all rows of a bin.
struct How<'a> {
    policy: &'a Policy,
    threshold: f64,
    warm_up: u32,
    place: Place,
}

/// Judges and learns rows while they are the usual ones: in the half-hour that they were in before, in
/// band and not held, or without data. `at_row` goes along.
// The same as `judge_row` without a whole verdict and without the questions that are answered above.
fn step_usual<const OPEN: bool>(
    how: &How<'_>,
    values: &[f64],
    rows: &mut [Row],
    guards: &mut [Guard],
    last: &mut [f32],
    at_row: &mut usize,
) {
    let (half, enough) = (how.place.half(), how.policy.enough());
    let mut pace = Pace::default();
    let columns = values.iter().zip(rows).zip(guards.iter_mut().zip(last));
    for ((value, row), (guard, last)) in columns {
        let value = *value;
        if value.is_nan() {
            *last = f32::NAN;
            *at_row += 1;
            continue;
        }
        // A row's first value and the one that may recentre it are left to `judge_row`.
        let seen = u32::from(row.seen);
        if row.half != half || seen == 0 || seen + 1 == WARM {
            return;
        }
        let outlook = row.outlook(how.place);
        let judged = outlook.judge(value, how.threshold);
        let mut score = if OPEN { judged.score } else { how.policy.mask(value, judged).score };
        if seen < how.warm_up {
            score = score.min(1.0);
        }
        if score > 1.0 || guard.is_held() {
            return;
        }
        row.learn(outlook, value, &mut pace);
        guard.pass(enough);
        *last = score as f32;
        *at_row += 1;
    }
}

impl Bank for SeasonalBank {
    fn grow(&mut self, rows: usize) {
        extend(&mut self.rows, rows, Row::new());
        extend(&mut self.guards, rows, Guard::default());
        extend(&mut self.last, rows, f32::NAN);
        self.slots.grow(rows);
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn step(&mut self, bin: BinColumn<'_>, out: &mut Readings) {
        let place = self.calendar.place(bin.at);
        let usual = if self.policy.is_open() { step_usual::<true> } else { step_usual::<false> };
        let rows = bin.values.len();
        while out.row < rows {
            let ix = out.row;
            if out.all.is_none() {
                let how =
                    How { policy: &self.policy, threshold: self.threshold, warm_up: self.warm_up, place };
                usual(
                    &how,
                    &bin.values[ix..],
                    &mut self.rows[ix..rows],
                    &mut self.guards[ix..rows],
                    &mut self.last[ix..rows],
                    &mut out.row,
                );
            }
            if out.row < rows {
                self.step_row(out.row, bin, place, out);
                out.row += 1;
            }
        }
        out.row = 0;
    }

    fn warming(&self) -> (usize, u32) {
        let is_warming = |row: &&Row| row.seen > 0 && u32::from(row.seen) < self.warm_up;
        (self.rows.iter().filter(is_warming).count(), self.warm_up)
    }

    fn last_score(&self, row: u32) -> f32 {
        self.last.get(row as usize).copied().unwrap_or(f32::NAN)
    }

    fn save(&self, rows: &[u32], out: &mut Vec<u8>) {
        for row in rows {
            let ix = *row as usize;
            self.guards[ix].encode(out);
            self.rows[ix].encode(out);
            self.slots.encode(ix, out);
        }
    }

    fn load(&mut self, version: u16, rows: usize, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        if version != SPEC.state_version {
            return Err(Corrupt::Value("state version"));
        }
        self.rows.clear();
        self.guards.clear();
        self.slots = Slots::new(self.period.slots());
        self.last = vec![f32::NAN; rows];
        for _ in 0..rows {
            self.guards.push(Guard::decode(reader)?);
            let row = Row::decode(reader)?;
            if row.half != NOWHERE && usize::from(row.half) >= 2 * WEEK {
                return Err(Corrupt::Value("half-hour"));
            }
            self.rows.push(row);
            self.slots.decode(reader)?;
        }
        Ok(())
    }

    /// Fills the table from a decomposition of the whole history. Less than two days of it say nothing.
    fn seed(&mut self, row: u32, _: Timestamp, history: &[(Timestamp, f64)]) {
        let ix = row as usize;
        let Some(profile) = profile::learn(&mut self.calendar, history) else {
            return;
        };
        let slots = self.period.slots();
        let origin = profile.hours.iter().flatten().copied().next().unwrap_or(0.0);
        self.slots.clear(ix);
        for slot in 0..slots {
            let hours = (slot..WEEK).step_by(slots).filter_map(|hour| profile.hours[hour]);
            let (sum, n) =
                hours.fold((0.0, 0.0), |(sum, n), value| (sum + difference(value, origin), n + 1.0));
            if n > 0.0 {
                self.slots.set(slot, ix, (sum / n) as f32);
            }
        }
        self.guards[ix] = Guard::default();
        self.rows[ix] = Row {
            origin,
            sigma: profile.sigma.min(1e30) as f32,
            seen: u16::try_from(history.len()).unwrap_or(u16::MAX).max(WARM as u16 + 1),
            visits: profile.weeks.saturating_mul(WEEK as u16),
            ..Row::new()
        };
    }

    fn forget(&mut self, row: u32) {
        let ix = row as usize;
        if ix < self.rows.len() {
            self.rows[ix] = Row::new();
            self.guards[ix] = Guard::default();
            self.last[ix] = f32::NAN;
            self.slots.clear(ix);
        }
    }

    fn state_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.guards.capacity() * size_of::<Guard>()
            + self.last.capacity() * size_of::<f32>()
            + self.slots.bytes()
    }
}
