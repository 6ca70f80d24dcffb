//! The engine's first three parts with four signals by service, and what their rows come to in every bin.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::aliases::Aliases;
use relight_core::detector::{ConfigError, Detector, Learn, Policy, Reading, source};
use relight_core::record::Record;
use relight_core::rule::{
    Condition, ConditionError, DetectorUse, DetectorView, GroupBy, RuleSpec, RuleView, Settings,
};
use relight_core::series::KeyView;
use relight_core::signal::{Aggregate, Binning, By, Select, Selector, SignalInfo, SignalKind, SignalSpec};
use relight_core::{Span, Timestamp};
use relight_engine::detect::{Detect, Verdicts};
use relight_engine::directory::key_groups;
use relight_engine::fold::{Closing, Fold, Partials};
use relight_engine::intake::{Intake, Routed};

use crate::pods::{PARTITIONS, START};
use crate::rng::Rng;

#[derive(Debug)]
struct Named(&'static str);

impl Select for Named {
    fn selects(&self, key: KeyView<'_>) -> bool {
        key.name() == self.0
    }

    fn text(&self) -> &'static str {
        self.0
    }
}

/// A detector without an opinion: values are what these tests are about.
struct Silent;

impl Detector for Silent {
    const NAME: &'static str = "silent";
    const DOC: &'static str = "";
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 0;
    type Config = ();
    type State = u8;

    fn new((): (), _: &SignalInfo) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn init(&self) -> u8 {
        0
    }

    fn judge(&self, _: &u8, _: Timestamp, _: f64) -> Reading {
        Reading::UNKNOWN
    }

    fn absorb(&self, _: &mut u8, _: Timestamp, _: f64, _: &Reading, _: Learn) {}
}

fn settings(interval: i64) -> Settings {
    let of = |name| -> Selector { Arc::new(Named(name)) };
    let signal = |name: &str, kind| {
        let by = By::Labels(vec!["service".to_owned()]);
        SignalSpec { name: name.to_owned(), kind, by }
    };
    let ratio = SignalKind::Ratio {
        of: of("errors"),
        to: of("requests"),
        min_denominator: 1.0,
        missing_is_zero: true,
    };
    let signals = vec![
        signal("rate", SignalKind::Rate { of: of("requests") }),
        signal("sum", SignalKind::Value { of: of("open"), aggregate: Aggregate::Sum }),
        signal("ratio", ratio),
        signal("quantile", SignalKind::Quantile { of: of("latency"), q: 0.7 }),
    ];
    let detector = |signal| DetectorUse {
        name: format!("d{signal}"),
        kind: "silent",
        state_version: 1,
        state_shape: String::new(),
        signal,
        source: source(Silent, Policy::default()),
    };
    Settings {
        binning: Binning::Interval(Span::from_secs(interval)),
        allowed_lateness: Span::from_secs(10),
        max_skew: Span::from_secs(120),
        max_series: 10_000,
        series_ttl: Span::ZERO,
        sources: Vec::new(),
        detectors: (0..signals.len()).map(detector).collect(),
        signals,
        rules: vec![rule()],
        trouble: None,
        fleet_limit: None,
        fingerprint: Vec::new(),
    }
}

#[derive(Debug)]
struct Never;

impl Condition for Never {
    fn holds(&self, _: &RuleView<'_>) -> Result<bool, ConditionError> {
        Ok(false)
    }

    fn text(&self) -> &'static str {
        "never"
    }
}

/// A rule that looks at the sum.
fn rule() -> RuleSpec {
    RuleSpec {
        name: "sum".to_owned(),
        detectors: vec![1],
        when: Arc::new(Never),
        hold: Span::ZERO,
        hold_turns: 1,
        keep_firing: Span::ZERO,
        reopen_within: Span::ZERO,
        max_flaps: 1,
        group_by: GroupBy::Labels(vec!["service".to_owned()]),
        respond: Vec::new(),
        breaker_after: 1,
    }
}

/// By the end of the bin, the four rows; NaN where there is no value. And which of them were judged.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) values: BTreeMap<i64, [u64; 4]>,
    pub(crate) judged: BTreeMap<i64, [bool; 4]>,
    /// What the rule sees of the sum.
    pub(crate) views: Vec<(i64, DetectorView)>,
}

impl Rows {
    fn take(&mut self, end: Timestamp, verdicts: &Verdicts) {
        let judged = verdicts.all.iter().flatten().map(|found| (found.row, found.reading.value));
        let (mut rows, mut are_judged) = ([f64::NAN.to_bits(); 4], [false; 4]);
        for (row, value) in judged.clone().chain(verdicts.carried.iter().copied()) {
            rows[row.signal as usize] = value.to_bits();
        }
        judged.for_each(|(row, _)| are_judged[row.signal as usize] = true);
        self.values.insert(end.secs() - START, rows);
        self.judged.insert(end.secs() - START, are_judged);
    }

    /// A signal's value in each turn, and whether it was judged.
    pub(crate) fn of(&self, signal: usize) -> Vec<(i64, f64, bool)> {
        let all = self.values.iter().zip(self.judged.values());
        let known = all.filter(|((_, row), _)| !f64::from_bits(row[signal]).is_nan());
        known.map(|((end, row), judged)| (*end, f64::from_bits(row[signal]), judged[signal])).collect()
    }
}

/// The engine's first three parts, as a driver has them.
struct Engine {
    intake: Intake,
    fold: Fold,
    detect: Detect,
    interval: Span,
    routed: Routed,
    rows: Rows,
}

impl Engine {
    fn new(interval: i64) -> Self {
        let settings = settings(interval);
        let interval = Span::from_secs(interval);
        let (intake, detect) = (Intake::new(&settings), Detect::new(&settings));
        let (routed, rows) = (Routed::default(), Rows::default());
        Self { intake, fold: Fold::new(interval), detect, interval, routed, rows }
    }

    fn route(&mut self) {
        self.routed.series.drain(..).for_each(|series| self.fold.add_series(&series));
        self.routed.rows.drain(..).for_each(|row| self.detect.add_row(&row));
        self.fold.push(&self.routed);
        self.routed.clear_points();
    }

    fn turn(&mut self) {
        self.route();
        while let Some(bin) = self.intake.next_bin(None) {
            let ready = self.intake.close(bin, &mut self.routed);
            self.route();
            let (ranks, mut partials) = (self.intake.ranks(), Partials::default());
            let closing = Closing { bin, interval: self.interval, ranks: &ranks };
            key_groups().for_each(|group| self.fold.close(group, &closing, &mut partials));
            self.detect.take(&partials.scalars, &partials.buckets);
            self.detect.take_shared(&partials.shared);
            let mut verdicts = Verdicts { all: Some(Vec::new()), ..Verdicts::default() };
            self.detect.step(ready.at, &mut verdicts);
            self.rows.take(ready.end, &verdicts);
            let view = self.detect.views(0, 0, ready.at)[0];
            self.rows.views.push((ready.end.secs() - START, view));
        }
    }
}

/// Reads the partitions in an order that the seed chooses.
pub(crate) fn run(interval: i64, partitions: &[Vec<Record>], seed: u64) -> Rows {
    let (mut engine, mut rng) = (Engine::new(interval), Rng::new(seed));
    let sources: Vec<u32> = (0..PARTITIONS).map(|i| engine.intake.partition(&format!("p{i}"))).collect();
    let mut next = [0; PARTITIONS];
    let end = |engine: &mut Engine, i: usize| engine.intake.end_source(sources[i], &mut engine.routed);
    (0..PARTITIONS).filter(|i| partitions[*i].is_empty()).for_each(|i| end(&mut engine, i));
    loop {
        let open: Vec<usize> = (0..PARTITIONS).filter(|i| next[*i] < partitions[*i].len()).collect();
        if open.is_empty() {
            return engine.rows;
        }
        let i = open[rng.below(open.len() as u64) as usize];
        let record = &partitions[i][next[i]];
        engine.intake.handle(sources[i], record, &mut Aliases::default(), &mut engine.routed);
        next[i] += 1;
        if next[i] == partitions[i].len() {
            end(&mut engine, i);
        }
        engine.turn();
    }
}
