//! The default detector: a value that any of its models explains is no news.
//!
//! Four models of a row (a level, a robust level, the hour of the week, the hour of the day) each
//! expect a value, and the residual is the distance to the nearest. [`Tail`] and [`ReturnLevel`]
//! make a score of it, [`Context`] adds what single values cannot show. A [`Bank`] of its own,
//! because its tables are slot-major and its states compact. Knows nothing of alerts: its score is
//! how bad a row is now; see [`crate::Emission`].

use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::codec_struct;
use relight_core::detector::{
    Band, Bank, BankSource, BinColumn, DetectorSpec, Guard, Learn, Policy, Reading, Readings, RowReading,
};
use relight_core::signal::SignalInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, DAY, WEEK};
use crate::calibration::{Excursions, MAX_SCORE, ReturnLevel, Tail, WARM};
use crate::context::{Context, Sample, difference, learn_scale, rate};
use crate::slots::{Slots, extend};
use crate::spec;

/// The registry's entry.
pub(crate) const SPEC: DetectorSpec = DetectorSpec {
    name: "adaptive",
    doc: include_str!("adaptive.md"),
    state_version: 1,
    schema: spec::schema::<Config>,
    defaults: spec::defaults::<Config>,
    build: |config, policy, _: &SignalInfo| {
        let config: Config = spec::parse(config)?;
        Ok(Arc::new(Source {
            calendar: Calendar::new(&config.zone)?,
            policy: policy.clone(),
        }))
    },
    state_shape: |config| spec::shape::<Config>(config, &["zone"]),
};

/// Parameters of `adaptive`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// IANA time zone of its hours, such as `Europe/Berlin`.
    zone: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zone: "UTC".to_owned(),
        }
    }
}

/// New excursions a row that the residual's return level lets through.
const RETURN: Excursions = Excursions {
    rate: 1e-3,
    quiet: 30,
    warm: WARM,
};
/// A value moves no model further than this many noise scales would.
const INFLUENCE: f64 = 20.0;
/// Residuals below this share of the noise scale, and of the value itself, are alike: a constant row
/// that moves in its seventh digit is no incident.
const NOISE_FLOOR: f64 = 0.1;
const RELATIVE_FLOOR: f64 = 1e-6;
const ABSOLUTE_FLOOR: f64 = 1e-12;
/// A slot remembers ten minutes of its hour, or ten values, whichever is longer. (The whole hour at
/// 60 s a value cost 0.02 of recall on one-minute web metrics.)
const SLOT_MEMORY_SECS: f32 = 600.0;
const SLOT_RATE: f32 = 0.1;
/// The second stream, jumps, is less sure: it scores this much less, and never above 0.97 alone.
const JUMP_DISCOUNT: f64 = 0.3;
const JUMP_CAP: f64 = 0.97;

/// One row, tables apart.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Slots are relative to this.
    origin: f64,
    level: f64,
    robust: f64,
    previous: f64,
    /// The band at onset, while the guard holds the row.
    held: f64,
    context: Context,
    residual_tail: Tail,
    jump_tail: Tail,
    residual_return: ReturnLevel,
    jump_return: ReturnLevel,
    noise: f32,
    robust_scale: f32,
    held_radius: f32,
    cadence_secs: f32,
    /// What this hour of the week and of the day are worth, less `origin`; NaN if not visited yet.
    week: f32,
    day: f32,
    seen: u32,
    last_secs: u32,
    week_seen: u16,
    day_seen: u16,
    /// The hour that `week` and `day` are of; [`NO_HOUR`] at first.
    hour: u8,
}
codec_struct!(Row {
    origin,
    level,
    robust,
    previous,
    held,
    context,
    residual_tail,
    jump_tail,
    residual_return,
    jump_return,
    noise,
    robust_scale,
    held_radius,
    cadence_secs,
    week,
    day,
    seen,
    last_secs,
    week_seen,
    day_seen,
    hour,
});

const NO_HOUR: u8 = u8::MAX;

/// What a value looks like to the models, before any of them has learned it.
#[derive(Debug, Clone, Copy)]
struct View {
    nearest: f64,
    /// Log of the distance to the nearest model.
    residual: f64,
    /// Log of the smaller of the distances to the robust level and to the previous value.
    jump: f64,
    floor: f64,
    week_distance: f32,
}

impl Row {
    fn new() -> Self {
        Self {
            week: f32::NAN,
            day: f32::NAN,
            hour: NO_HOUR,
            ..Self::default()
        }
    }

    fn begin(&mut self, value: f64) {
        self.origin = value;
        self.settle(value);
        self.previous = value;
        self.context = Context::at(value);
    }

    /// This is where the row is now.
    fn settle(&mut self, value: f64) {
        self.level = value;
        self.robust = value;
    }

    fn tick(&mut self, at: Timestamp) {
        let secs = u32::try_from(at.secs().max(0)).unwrap_or(u32::MAX);
        if self.seen > 0 && secs > self.last_secs {
            let step = (secs - self.last_secs) as f32;
            // A running median: gaps do not move it.
            self.cadence_secs = if self.cadence_secs == 0.0 {
                step
            } else {
                let sign = f32::from(i8::from(step > self.cadence_secs) - i8::from(step < self.cadence_secs));
                self.cadence_secs * (1.0 + rate(self.seen, 0.01) as f32 * sign)
            };
        }
        self.last_secs = secs;
    }

    /// Distances to the hour of the week and of the day; infinite while unknown.
    fn seasonal_distances(&self, value: f64) -> [(f64, f64); 2] {
        [self.week, self.day].map(|offset| {
            let expected = self.origin + f64::from(offset);
            if offset.is_nan() {
                (f64::INFINITY, value)
            } else {
                (difference(value, expected).abs(), expected)
            }
        })
    }

    fn view(&self, value: f64) -> View {
        let to_robust = difference(value, self.robust).abs();
        let to_previous = difference(value, self.previous).abs();
        let [week, day] = self.seasonal_distances(value);
        let mut nearest = (difference(value, self.level).abs(), self.level);
        for model in [(to_robust, self.robust), week, day] {
            if model.0 < nearest.0 {
                nearest = model;
            }
        }
        let floor = NOISE_FLOOR * f64::from(self.noise)
            + (RELATIVE_FLOOR * self.robust.abs()).min(1e30)
            + ABSOLUTE_FLOOR;
        View {
            nearest: nearest.1,
            residual: (nearest.0 + floor).ln(),
            jump: (to_robust.min(to_previous) + floor).ln(),
            floor,
            week_distance: if week.0.is_finite() { week.0 as f32 } else { 0.0 },
        }
    }

    /// The distance at which the residual's score is 1.
    fn radius(&self, view: &View) -> f64 {
        let usual = self.residual_tail.limit();
        let rare = f64::from(self.residual_return.limit(self.seen, WARM));
        (usual.max(rare).exp() - view.floor).max(0.0)
    }

    fn outlier(&self, view: &View) -> f64 {
        let residual = weigh(
            &self.residual_tail,
            self.residual_return,
            self.seen,
            view.residual,
        );
        let jump = weigh(&self.jump_tail, self.jump_return, self.seen, view.jump);
        residual.max((jump - JUMP_DISCOUNT).min(JUMP_CAP))
    }

    /// The verdict on a value by the models.
    fn judge(&self, view: &View) -> Reading {
        let radius = self.radius(view);
        let band = if radius.is_finite() && self.seen >= WARM {
            Band {
                expected: view.nearest,
                lower: view.nearest - radius,
                upper: view.nearest + radius,
            }
        } else {
            Band {
                expected: view.nearest,
                ..Band::UNKNOWN
            }
        };
        Reading::new(self.outlier(view).min(MAX_SCORE), band)
    }

    /// The verdict on a value by the band at onset. Levels follow the excursion meanwhile; hours do
    /// not learn, so a row that is back on its weekly curve is back.
    fn judge_held(&self, value: f64) -> Reading {
        let radius = f64::from(self.held_radius);
        let mut nearest = (difference(value, self.held).abs(), self.held);
        for model in self.seasonal_distances(value) {
            if model.0 < nearest.0 {
                nearest = model;
            }
        }
        let score = if nearest.0 > radius {
            1.0 + (nearest.0 / radius).ln()
        } else {
            nearest.0 / radius
        };
        let band = Band {
            expected: nearest.1,
            lower: nearest.1 - radius,
            upper: nearest.1 + radius,
        };
        Reading::new(score.min(MAX_SCORE), band)
    }

    /// Holds the band as it is. The least radius keeps `score > 1` and `outside` the same thing.
    fn hold(&mut self, reading: &Reading) {
        self.held = reading.band.expected;
        self.held_radius = ((reading.band.upper - reading.band.expected) as f32).clamp(1e-12, 1e30);
    }

    fn learn(&mut self, value: f64, view: &View, learn: Learn) {
        let n = self.seen;
        let deviation = difference(value, self.level);
        learn_scale(&mut self.noise, n, deviation.abs() as f32);
        self.residual_tail.learn(n, view.residual);
        self.jump_tail.learn(n, view.jump);
        self.residual_return.learn(n, view.residual as f32, RETURN);
        self.jump_return.learn(n, view.jump as f32, RETURN);
        let clipped = self.clip(value);
        if learn == Learn::Relearn {
            self.settle(value);
        }
        if learn != Learn::Hold {
            self.learn_hours(clipped);
        }
        self.level += rate(n + 1, 0.02) * difference(clipped, self.level);
        self.learn_robust(value);
        self.previous = value;
        self.seen = n.saturating_add(1);
    }

    /// The value, its influence bounded: no further from the level than 20 noise scales.
    fn clip(&self, value: f64) -> f64 {
        if self.seen <= 50 {
            return value;
        }
        let most = INFLUENCE * f64::from(self.noise);
        self.level + difference(value, self.level).clamp(-most, most)
    }

    /// Huber's location: steps are clipped at three times the scale, which widens when that happens.
    fn learn_robust(&mut self, value: f64) {
        let deviation = difference(value, self.robust);
        let most = 3.0 * f64::from(self.robust_scale);
        let clipped = if self.seen > 20 {
            deviation.clamp(-most, most)
        } else {
            deviation
        };
        self.robust += rate(self.seen + 1, 0.1) * clipped;
        self.robust_scale += rate(self.seen + 1, 0.01) as f32 * (clipped.abs() as f32 - self.robust_scale);
        if deviation.abs() > most {
            self.robust_scale = (self.robust_scale * 1.003).min(1e30);
        }
    }

    fn learn_hours(&mut self, value: f64) {
        let offset = difference(value, self.origin) as f32;
        let rate = (self.cadence_secs / SLOT_MEMORY_SECS).min(SLOT_RATE);
        for (slot, seen) in [
            (&mut self.week, &mut self.week_seen),
            (&mut self.day, &mut self.day_seen),
        ] {
            *seen = seen.saturating_add(1);
            let step = rate.max(1.0 / f32::from(*seen));
            *slot = if slot.is_nan() {
                offset
            } else {
                *slot + step * (offset - *slot)
            };
        }
    }

    /// Goes over to another hour: what was learned of the last one goes to the tables, what they
    /// know of this one comes out.
    fn turn(&mut self, slots: &mut Slots, ix: usize, hour: u8) {
        if self.hour == hour {
            return;
        }
        if self.hour != NO_HOUR {
            for (slot, value) in places(self.hour).into_iter().zip([self.week, self.day]) {
                if !value.is_nan() {
                    slots.set(slot, ix, value);
                }
            }
        }
        self.hour = hour;
        let [week, day] = places(hour);
        self.week = slots.get(week, ix).unwrap_or(f32::NAN);
        self.day = slots.get(day, ix).unwrap_or(f32::NAN);
        // How often a slot was learned is not kept: hours come round alike, so a row that has seen n
        // values has given each its share.
        let share = |slot: f32, of: usize| {
            if slot.is_nan() {
                0
            } else {
                (self.seen / of as u32).clamp(1, 60_000) as u16
            }
        };
        (self.week_seen, self.day_seen) = (share(self.week, WEEK), share(self.day, DAY));
    }
}

/// The slots of an hour: one of the week's, one of the day's.
fn places(hour: u8) -> [usize; 2] {
    let hour = usize::from(hour);
    [hour, WEEK + hour % DAY]
}

/// A residual's severity, which counts fully only beyond the return level.
fn weigh(tail: &Tail, level: ReturnLevel, n: u32, z: f64) -> f64 {
    let severity = tail.severity(n, z);
    let beyond = z - f64::from(level.limit(n, WARM));
    if beyond > 0.0 {
        severity
    } else {
        (0.7 * severity).min(0.8) * (0.5 * beyond.max(-5.0)).exp()
    }
}

/// A column of rows.
struct AdaptiveBank {
    policy: Policy,
    calendar: Calendar,
    rows: Vec<Row>,
    guards: Vec<Guard>,
    last: Vec<f32>,
    slots: Slots,
}

struct Source {
    calendar: Calendar,
    policy: Policy,
}

impl BankSource for Source {
    fn bank(&self) -> Box<dyn Bank> {
        Box::new(AdaptiveBank {
            policy: self.policy.clone(),
            calendar: self.calendar.clone(),
            rows: Vec::new(),
            guards: Vec::new(),
            last: Vec::new(),
            slots: Slots::new(WEEK + DAY),
        })
    }
}

impl AdaptiveBank {
    fn judge_row(&mut self, ix: usize, at: Timestamp, hour: u8, value: f64) -> RowReading {
        let row = &mut self.rows[ix];
        let guard = &mut self.guards[ix];
        if row.seen == 0 {
            row.begin(value);
        }
        row.tick(at);
        row.turn(&mut self.slots, ix, hour);
        let view = row.view(value);
        let was_held = guard.is_held();
        let mut reading = if was_held {
            row.judge_held(value)
        } else {
            row.judge(&view)
        };
        reading = self.policy.mask(value, reading);
        if row.seen < self.policy.warm_up.max(WARM) {
            reading.score = reading.score.min(1.0);
        }
        let decision = guard.decide(&self.policy, at, reading.is_anomalous());
        if guard.is_held() && !was_held {
            row.hold(&reading);
        }
        let sample = Sample {
            n: row.seen,
            value,
            clipped: row.clip(value),
            week_distance: view.week_distance,
            cadence_secs: row.cadence_secs,
        };
        let context = row.context.observe(sample);
        // An outlier shakes level and spread as well; it has been told already.
        if !guard.is_held() {
            reading.score = reading.score.max(context);
        }
        row.learn(value, &view, decision.learn);
        if row.seen == WARM {
            recentre(row, &mut self.slots, ix);
        }
        RowReading {
            row: ix as u32,
            value,
            reading,
            relearned: decision.relearn,
            onset: None,
        }
    }
}

/// The first value gave the tables their origin. If it was a wild one they are useless: begin them anew.
fn recentre(row: &mut Row, slots: &mut Slots, ix: usize) {
    if difference(row.origin, row.robust).abs() > 100.0 * f64::from(row.noise) {
        row.origin = row.robust;
        row.week = f32::NAN;
        row.day = f32::NAN;
        slots.clear(ix);
    }
}

impl Bank for AdaptiveBank {
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
        let hour = self.calendar.place(bin.at).hour;
        for (ix, value) in bin.values.iter().enumerate() {
            if value.is_nan() {
                self.last[ix] = f32::NAN;
                continue;
            }
            let verdict = self.judge_row(ix, bin.at, hour, *value);
            self.last[ix] = verdict.reading.score as f32;
            out.push(verdict);
        }
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
        self.slots = Slots::new(WEEK + DAY);
        self.last = vec![f32::NAN; rows];
        for _ in 0..rows {
            self.guards.push(Guard::decode(reader)?);
            self.rows.push(Row::decode(reader)?);
            self.slots.decode(reader)?;
        }
        Ok(())
    }

    /// Lives through the history: what it would have learned is what it learns.
    fn seed(&mut self, row: u32, _: Timestamp, history: &[(Timestamp, f64)]) {
        let ix = row as usize;
        self.rows[ix] = Row::new();
        self.guards[ix] = Guard::default();
        self.slots.clear(ix);
        for (at, value) in history.iter().filter(|(_, value)| value.is_finite()) {
            let hour = self.calendar.place(*at).hour;
            self.judge_row(ix, *at, hour, *value);
        }
        self.guards[ix] = Guard::default();
    }

    fn state_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.guards.capacity() * size_of::<Guard>()
            + self.last.capacity() * size_of::<f32>()
            + self.slots.bytes()
    }
}
