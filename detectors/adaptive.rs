//! The default detector: a value that any of its models explains is no news.
//!
//! Four models of a row (a level, a robust level, the hour of the week, the hour of the day) each
//! expect a value, and the residual is the distance to the nearest. `calibration`
//! makes a score of it, `context` adds what single values cannot show. A [`Bank`] of its own,
//! because its tables are slot-major and its states compact. Knows nothing of alerts: its score is
//! how bad a row is now; see [`crate::Emission`].

use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::detector::{
    Bank, BankSource, BinColumn, DetectorSpec, Guard, Policy, Readings, RowReading, with_silence,
};
use relight_core::signal::SignalInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, DAY, WEEK};
use crate::calibration::WARM;
use crate::context::Sample;
use crate::models::{Row, recentre};
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
        Ok(Arc::new(Source { calendar: Calendar::new(&config.zone)?, policy: policy.clone() }))
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
        Self { zone: "UTC".to_owned() }
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
    fn warm_up(&self) -> u32 {
        self.policy.warm_up.max(WARM)
    }

    fn judge_row(&mut self, ix: usize, at: Timestamp, hour: u8, value: f64, silence_secs: u32) -> RowReading {
        let warm_up = self.warm_up();
        let row = &mut self.rows[ix];
        let guard = &mut self.guards[ix];
        if row.seen == 0 {
            row.begin(value);
        }
        row.tick(at);
        row.turn(&mut self.slots, ix, hour);
        let view = row.view(value);
        let was_held = guard.is_held();
        let mut reading = if was_held { row.judge_held(value) } else { row.judge(&view) };
        reading = self.policy.mask(value, reading);
        let is_warm = row.seen >= warm_up;
        if !is_warm {
            reading.score = reading.score.min(1.0);
        }
        guard.skip(silence_secs);
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
        let (context, slow) = row.context.observe(sample);
        // An outlier shakes level and spread as well; it has been told already.
        if context > 1.0 && is_warm && !guard.is_held() && self.policy.admits(value, slow) {
            reading.score = reading.score.max(context);
        }
        row.learn(value, &view, decision.learn);
        if row.seen == WARM {
            recentre(row, &mut self.slots, ix);
        }
        RowReading { row: ix as u32, value, reading, relearned: decision.relearn, onset: None }
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
        for (ix, value) in bin.values.iter().enumerate().skip(out.row) {
            out.row = ix;
            if value.is_nan() {
                self.last[ix] = f32::NAN;
                continue;
            }
            let is_held = self.guards[ix].is_held();
            let silence_secs = if is_held { bin.rhythm.silence_before(ix, bin.at) } else { 0 };
            let verdict = self.judge_row(ix, bin.at, hour, *value, silence_secs);
            self.last[ix] = verdict.reading.score as f32;
            out.push(verdict);
        }
        out.row = 0;
    }

    fn last_score(&self, row: u32) -> f32 {
        self.last.get(row as usize).copied().unwrap_or(f32::NAN)
    }

    fn warming(&self) -> (usize, u32) {
        let warm_up = self.warm_up();
        (self.rows.iter().filter(|row| row.seen > 0 && row.seen < warm_up).count(), warm_up)
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
        self.forget(row);
        let ix = row as usize;
        for (at, value, silence_secs) in with_silence(history).filter(|(_, value, _)| value.is_finite()) {
            let hour = self.calendar.place(at).hour;
            self.judge_row(ix, at, hour, value, silence_secs);
        }
        self.guards[ix] = Guard::default();
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
