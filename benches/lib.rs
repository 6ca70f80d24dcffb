//! What the benchmarks share: a fleet of series in the order of its exporters, and an engine without
//! Control, stores or threads.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

pub mod fleet;

use relight_core::aliases::Aliases;
use relight_core::detector::Policy;
use relight_core::record::{Kind, Record};
use relight_core::rule::Settings;
use relight_core::series::{Labels, key_of};
use relight_core::signal::{Binning, By, SignalKind, SignalSpec};
use relight_core::{KeyGroup, Span, Timestamp};
use relight_engine::detect::{Detect, Verdicts};
use relight_engine::directory::key_groups;
use relight_engine::fold::{Closing, Fold, Partials};
use relight_engine::intake::{Intake, Routed};
use relight_testkit::rng::Rng;
use relight_testkit::rules;

/// Length of a bin.
pub const INTERVAL: Span = Span::from_secs(10);
/// Points in a record, as an exporter's request has them.
pub const POINTS_PER_RECORD: usize = 1_000;
/// The first bin.
pub const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// Settings with every series a signal and these detectors on it.
///
/// # Panics
///
/// If a detector is not registered.
pub fn settings(detectors: &[&str]) -> Settings {
    let signals =
        vec![SignalSpec { name: "every_series".to_owned(), kind: SignalKind::EverySeries, by: By::All }];
    let detector = |kind: &&str| {
        let policy = Policy::default();
        rules::detector(kind, kind, &serde_json::json!({}), &policy, (0, &signals[0]), INTERVAL)
    };
    Settings {
        binning: Binning::Interval(INTERVAL),
        allowed_lateness: Span::ZERO,
        max_skew: Span::from_secs(120),
        max_series: 4_000_000,
        series_ttl: Span::ZERO,
        sources: Vec::new(),
        detectors: detectors.iter().map(detector).collect(),
        signals,
        rules: Vec::new(),
        trouble: None,
        fleet_limit: None,
        fingerprint: Vec::new(),
    }
}

/// Canonical key of the `i`th series: 50 series an instance, five labels, about 105 bytes.
pub fn series_key(i: usize) -> Vec<u8> {
    let (instance, series) = (i / 50, i % 50);
    let label = |k: &str, v: String| (k.to_owned(), v);
    let labels = Labels::new([
        label("cluster", format!("eu-{}", instance % 4)),
        label("service", format!("service-{:03}", instance % 200)),
        label("instance", format!("10.{}.{}.7:9100", instance / 250, instance % 250)),
        label("route", format!("/api/v1/{}", series % 10)),
        label("code", format!("{}", 200 + series / 10)),
    ]);
    key_of("http_requests_in_flight", &labels)
}

/// A fleet's scrape: one record per exporter, in the order in which exporters repeat themselves.
pub fn scrape(series: std::ops::Range<usize>) -> Vec<Record> {
    let keys: Vec<Vec<u8>> = series.map(series_key).collect();
    keys.chunks(POINTS_PER_RECORD)
        .map(|keys| {
            let mut record = Record::default();
            for key in keys {
                record.push_point(key, START, Timestamp::MIN, Kind::Gauge, 0.0);
            }
            record
        })
        .collect()
}

/// Moves a scrape to `after` the start: new times and values.
pub fn refresh(records: &mut [Record], after: Span, rng: &mut Rng) {
    let at = START.plus(after).plus(Span::from_secs(7));
    for record in records {
        record.received = Some(at);
        for point in &mut record.points {
            point.at = at;
            point.value = 100.0 + 10.0 * rng.unit();
        }
    }
}

/// Intake, Fold and Detect, in one thread and nothing else.
pub struct Engine {
    intake: Intake,
    fold: Fold,
    detect: Detect,
    routed: Routed,
    partials: Partials,
    partition: u32,
    next_offset: u64,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(settings: &Settings) -> Self {
        let mut intake = Intake::new(settings);
        let partition = intake.partition("fleet");
        Self {
            intake,
            fold: Fold::new(settings.interval()),
            detect: Detect::new(settings),
            routed: Routed::default(),
            partials: Partials::default(),
            partition,
            next_offset: 0,
        }
    }

    /// Takes a scrape, and steps every bin that is over. Returns the findings.
    pub fn take(&mut self, records: &mut [Record]) -> usize {
        let mut findings = 0;
        for record in records {
            record.offset = self.next_offset;
            self.next_offset += 1;
            self.intake.handle(self.partition, record, &mut Aliases::default(), &mut self.routed);
            let full = self.routed.points.len() >= 16 * POINTS_PER_RECORD;
            if full || self.intake.next_bin(None).is_some() {
                self.flush();
                findings += self.step();
            }
        }
        findings
    }

    fn flush(&mut self) {
        for series in self.routed.series.drain(..) {
            self.fold.add_series(&series);
        }
        for row in self.routed.rows.drain(..) {
            self.detect.add_row(&row);
        }
        self.fold.push(&self.routed);
        self.routed.clear_points();
    }

    fn step(&mut self) -> usize {
        let mut findings = 0;
        while let Some(bin) = self.intake.next_bin(None) {
            let ready = self.intake.close(bin, &mut Routed::default());
            let ranks = self.intake.ranks();
            for group in key_groups() {
                self.partials.scalars.clear();
                let closing = Closing { bin, interval: INTERVAL, ranks: &ranks };
                self.fold.close(group, &closing, &mut self.partials);
                self.detect.take(&self.partials.scalars, &self.partials.buckets);
            }
            let mut verdicts = Verdicts::default();
            self.detect.step(ready.at, &mut verdicts);
            findings += verdicts.findings.len();
        }
        findings
    }

    /// Bytes that the parts say they hold: names, series and open bins, rows and states.
    pub fn state_bytes(&self) -> [usize; 3] {
        [self.intake.directory().state_bytes(), self.fold.state_bytes(), self.detect.state_bytes()]
    }

    /// Writes the image of a key group and returns its size.
    pub fn save(&mut self, group: KeyGroup) -> usize {
        let mut out = Vec::new();
        let order = self.intake.directory().series_order(group);
        self.fold.save(group, &order, &[0], &mut out);
        let rows = self.intake.directory().row_order(0, group);
        self.detect.save(0, group, &rows, &mut out);
        out.len()
    }
}

/// Resident memory of this process in bytes, as the kernel counts it.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4_096
}

/// Prints one result: what, figure, unit, and what it is held against.
pub fn say(what: &str, figure: f64, unit: &str, against: &str) {
    println!("{what:<58} {figure:>10.2} {unit:<12} {against}");
}
