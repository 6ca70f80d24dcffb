//! What `adaptive` remembers of a row, and what it makes of a value.
//!
//! Judges and learns one row; knows nothing of columns, guards or policies, whose order is the bank's.

use relight_core::Timestamp;
use relight_core::codec_struct;
use relight_core::detector::{Band, Learn, Reading};

use crate::arithmetic::{difference, learn_scale, rate};
use crate::calendar::{DAY, WEEK};
use crate::calibration::{Excursions, MAX_SCORE, ReturnLevel, Tail, WARM};
use crate::context::Context;
use crate::elapsed::secs;
use crate::slots::Slots;

/// New excursions a row that the residual's return level lets through.
const RETURN: Excursions = Excursions { rate: 1e-3, quiet: 30, warm: WARM };
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
pub(crate) struct Row {
    /// Slots are relative to this.
    origin: f64,
    level: f64,
    robust: f64,
    previous: f64,
    /// The band at onset, while the guard holds the row.
    held: f64,
    pub(crate) context: Context,
    residual_tail: Tail,
    jump_tail: Tail,
    residual_return: ReturnLevel,
    jump_return: ReturnLevel,
    noise: f32,
    robust_scale: f32,
    held_radius: f32,
    pub(crate) cadence_secs: f32,
    /// What this hour of the week and of the day are worth, less `origin`; NaN if not visited yet.
    week: f32,
    day: f32,
    pub(crate) seen: u32,
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
pub(crate) struct View {
    nearest: f64,
    /// Log of the distance to the nearest model.
    residual: f64,
    /// Log of the smaller of the distances to the robust level and to the previous value.
    jump: f64,
    floor: f64,
    pub(crate) week_distance: f32,
}

impl Row {
    pub(crate) fn new() -> Self {
        Self { week: f32::NAN, day: f32::NAN, hour: NO_HOUR, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, value: f64) {
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

    pub(crate) fn tick(&mut self, at: Timestamp) {
        let secs = secs(at);
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

    pub(crate) fn view(&self, value: f64) -> View {
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
        let residual = weigh(&self.residual_tail, self.residual_return, self.seen, view.residual);
        let jump = weigh(&self.jump_tail, self.jump_return, self.seen, view.jump);
        residual.max((jump - JUMP_DISCOUNT).min(JUMP_CAP))
    }

    /// The verdict on a value by the models.
    pub(crate) fn judge(&self, view: &View) -> Reading {
        let radius = self.radius(view);
        let band = if radius.is_finite() && self.seen >= WARM {
            Band { expected: view.nearest, lower: view.nearest - radius, upper: view.nearest + radius }
        } else {
            Band { expected: view.nearest, ..Band::UNKNOWN }
        };
        Reading::new(self.outlier(view).min(MAX_SCORE), band)
    }

    /// The verdict on a value by the band at onset. Levels follow the excursion meanwhile; hours do
    /// not learn, so a row that is back on its weekly curve is back.
    pub(crate) fn judge_held(&self, value: f64) -> Reading {
        let radius = f64::from(self.held_radius);
        let mut nearest = (difference(value, self.held).abs(), self.held);
        for model in self.seasonal_distances(value) {
            if model.0 < nearest.0 {
                nearest = model;
            }
        }
        let score = if nearest.0 > radius { 1.0 + (nearest.0 / radius).ln() } else { nearest.0 / radius };
        let band = Band { expected: nearest.1, lower: nearest.1 - radius, upper: nearest.1 + radius };
        Reading::new(score.min(MAX_SCORE), band)
    }

    /// Holds the band as it is. The least radius keeps `score > 1` and `outside` the same thing.
    pub(crate) fn hold(&mut self, reading: &Reading) {
        let Band { expected, lower, upper } = reading.band;
        // A policy that looks at one side leaves the other open; both are as far away.
        let radius = if upper.is_finite() { upper - expected } else { expected - lower };
        self.held = expected;
        self.held_radius = (radius as f32).clamp(1e-12, 1e30);
    }

    pub(crate) fn learn(&mut self, value: f64, view: &View, learn: Learn) {
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
    pub(crate) fn clip(&self, value: f64) -> f64 {
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
        let clipped = if self.seen > 20 { deviation.clamp(-most, most) } else { deviation };
        self.robust += rate(self.seen + 1, 0.1) * clipped;
        self.robust_scale += rate(self.seen + 1, 0.01) as f32 * (clipped.abs() as f32 - self.robust_scale);
        if deviation.abs() > most {
            self.robust_scale = (self.robust_scale * 1.003).min(1e30);
        }
    }

    fn learn_hours(&mut self, value: f64) {
        let offset = difference(value, self.origin) as f32;
        let rate = (self.cadence_secs / SLOT_MEMORY_SECS).min(SLOT_RATE);
        for (slot, seen) in [(&mut self.week, &mut self.week_seen), (&mut self.day, &mut self.day_seen)] {
            *seen = seen.saturating_add(1);
            let step = rate.max(1.0 / f32::from(*seen));
            *slot = if slot.is_nan() { offset } else { *slot + step * (offset - *slot) };
        }
    }

    /// Goes over to another hour: what was learned of the last one goes to the tables, what they
    /// know of this one comes out.
    pub(crate) fn turn(&mut self, slots: &mut Slots, ix: usize, hour: u8) {
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
            if slot.is_nan() { 0 } else { (self.seen / of as u32).clamp(1, 60_000) as u16 }
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
    if beyond > 0.0 { severity } else { (0.7 * severity).min(0.8) * (0.5 * beyond.max(-5.0)).exp() }
}

/// The first value gave the tables their origin. If it was a wild one they are useless: begin them anew.
pub(crate) fn recentre(row: &mut Row, slots: &mut Slots, ix: usize) {
    if difference(row.origin, row.robust).abs() > 100.0 * f64::from(row.noise) {
        row.origin = row.robust;
        row.week = f32::NAN;
        row.day = f32::NAN;
        slots.clear(ix);
    }
}
