//! Memory over time: a live run at a steady rate, and a flood of new series against a full table.
//!
//! `-- 600` runs the first for so many seconds (50,000 series, 20,000 points/s, a snapshot a minute) and passes if
//! resident memory is flat after the first fifth. `-- flood 1000000 100000` sends so many new series against a limit and
//! passes if all are counted, memory is bounded, and the verdicts on the first ones are those of a run without it.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, number_data_point,
};
use prost::Message;
use relight_benches::{INTERVAL, POINTS_PER_RECORD, refresh, resident_bytes, scrape, settings};
use relight_core::record::{Kind, Reason, Record};
use relight_core::rule::{Settings, SourceBound};
use relight_core::series::{Labels, hash, key_of};
use relight_core::telemetry::Board;
use relight_core::{Span, Timestamp};
use relight_ingest::live::{Budget, Delivery, Hub, Load, Reads};
use relight_runtime::{
    Clock as _, Commit, Live, LiveInput, LiveSettings, Pipeline, Responders, Stores, SystemClock, Turn, Watch,
};
use relight_store::{MemoryBaselines, MemoryLedger, StateDir};
use relight_testkit::rng::Rng;

const SERIES: usize = 50_000;
const REQUESTS_PER_SEC: u32 = 20;
/// Points of the first so many bins are sent before the flood begins.
const CALM_BINS: i64 = 40;
const FLOOD_BINS: i64 = 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |i: usize, or: usize| args.get(i).and_then(|arg| arg.parse().ok()).unwrap_or(or);
    let passed = if args.first().is_some_and(|arg| arg == "flood") {
        flood(number(1, 1_000_000), number(2, 100_000))
    } else {
        soak(number(0, 600))
    };
    println!("{}", if passed { "passed" } else { "FAILED" });
    std::process::exit(i32::from(!passed));
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A live run, its state on the disk, fed in real time.
fn soak(secs: usize) -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let (baselines, ledger) = StateDir::open(dir.path()).expect("it is new");
    let how = LiveSettings {
        idle_after: Span::from_secs(60),
        catch_up: Span::ZERO,
        snapshot_every: Span::from_secs(60),
        was_killed: false,
        warm_up: Span::ZERO,
    };
    let settings = Arc::new(Settings { max_series: 2 * SERIES, ..settings(&["adaptive"]) });
    let board = Board::default();
    let mut live = Live::open(
        settings,
        how,
        2,
        Stores { baselines, ledger },
        Box::new(Responders::default()),
        Box::new(SystemClock::default()),
        (board.clone(), Box::new(|notice: &str| println!("  {notice}"))),
    )
    .expect("it opens");
    let (hub, opened) = Hub::new(live.resume());
    let (stop, inputs) = bounded(1);
    let engine = std::thread::spawn(move || live.run(&opened, &inputs, &mut ()));
    let samples = feed(&hub, &board, secs);
    stop.send(LiveInput::Stop).expect("it runs");
    engine.join().expect("no panic").expect("it ends well");
    is_flat(&samples)
}

/// Sends for so many seconds and looks at memory every ten.
#[expect(clippy::disallowed_methods, reason = "a steady rate is what the memory is watched under")]
fn feed(hub: &Hub, board: &Board, secs: usize) -> Vec<(f64, f64)> {
    let inlet = hub.open("otlp", Reads::Push, &Budget::new(64 << 20));
    let clock = SystemClock::default();
    let mut requests: Vec<_> = (0..SERIES / POINTS_PER_RECORD).map(request).collect();
    let (mut rng, began, mut samples, mut late) = (Rng::new(1), Instant::now(), Vec::new(), 0_u64);
    println!("  secs  resident MiB   series    points   sent late");
    for turn in 0_u32.. {
        let due = Duration::from_secs(1) * turn / REQUESTS_PER_SEC;
        let elapsed = began.elapsed();
        if elapsed.as_secs_f64() >= secs as f64 {
            break;
        }
        std::thread::sleep(due.saturating_sub(elapsed));
        late += u64::from(elapsed > due + Duration::from_secs(1));
        let ix = turn as usize % requests.len();
        let body = renewed(&mut requests[ix], clock.wall(), &mut rng);
        let load = Load::Metrics(body.into());
        // A full queue sheds, as a listener does.
        let _ = inlet.offer(Delivery { offset: None, received: clock.wall(), load, answer: None });
        if turn % (10 * REQUESTS_PER_SEC) == 0 {
            let (at, resident) = (elapsed.as_secs_f64(), mib(resident_bytes()));
            let posted = board.read().samples;
            let figure = |name| posted.iter().find(|s| s.metric.name == name).map_or(0.0, |s| s.value);
            let (series, points) = (figure("relight_series"), figure("relight_points_total"));
            println!("{at:>6.0} {resident:>13.1} {series:>8} {points:>9} {late:>9}");
            samples.push((at, resident));
        }
    }
    samples
}

/// The slope by least squares of what lies behind the first fifth, which learns the series.
fn is_flat(samples: &[(f64, f64)]) -> bool {
    let settled = &samples[samples.len() / 5..];
    let n = settled.len() as f64;
    let (sum_t, sum_m) = settled.iter().fold((0.0, 0.0), |(t, m), s| (t + s.0, m + s.1));
    let (mean_t, mean_m) = (sum_t / n, sum_m / n);
    let (over, under) = settled.iter().fold((0.0, 0.0), |(over, under), (t, m)| {
        (over + (t - mean_t) * (m - mean_m), under + (t - mean_t).powi(2))
    });
    let per_minute = 60.0 * over / under;
    let span = settled.last().map_or(0.0, |last| last.0) - settled.first().map_or(0.0, |first| first.0);
    let drift = per_minute * span / 60.0 / mean_m;
    println!(
        "mean {mean_m:.1} MiB, slope {per_minute:+.3} MiB a minute, {:+.2} % over {span:.0} s (at most 3)",
        drift * 100.0
    );
    drift < 0.03
}

fn request(block: usize) -> ExportMetricsServiceRequest {
    let label = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    let point = |i: usize| NumberDataPoint {
        attributes: vec![
            label("instance", format!("10.0.{}.{}:9100", block, i / 50)),
            label("route", format!("/{}", i % 50)),
        ],
        ..NumberDataPoint::default()
    };
    let data_points = (0..POINTS_PER_RECORD).map(point).collect();
    let metric = Metric {
        name: "in_flight".to_owned(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    };
    let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

/// New times and values, as bytes.
fn renewed(request: &mut ExportMetricsServiceRequest, now: Timestamp, rng: &mut Rng) -> Vec<u8> {
    let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
    if let Some(Data::Gauge(gauge)) = &mut metric.data {
        for point in &mut gauge.data_points {
            point.time_unix_nano = now.ns().cast_unsigned();
            point.value = Some(number_data_point::Value::AsDouble(100.0 + 10.0 * rng.unit()));
        }
    }
    request.encode_to_vec()
}

/// A digest of every verdict, to the last bit.
#[derive(Default)]
struct Verdicts(u64);

impl Watch for Verdicts {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        let mut bits: Vec<[u64; 2]> =
            turn.readings.iter().map(|r| [r.value, r.reading.score].map(f64::to_bits)).collect();
        bits.sort_unstable();
        let bytes: Vec<u8> = bits.into_iter().flatten().flat_map(u64::to_le_bytes).collect();
        self.0 = hash(&[self.0.to_le_bytes(), hash(&bytes).to_le_bytes()].concat());
    }
}

/// What came of a run with so many series, and of so many more that have no room.
struct Came {
    verdicts: u64,
    refused: u64,
    overflow: u64,
    series: u64,
    grown: usize,
}

fn flood(new: usize, limit: usize) -> bool {
    println!("a table for {limit} series, full; then {new} new ones in {FLOOD_BINS} bins");
    let (calm, flooded) = (run(0, limit), run(new, limit));
    let bound = 32 << 20;
    println!("refused {} points, by source and metric {} (both {new})", flooded.refused, flooded.overflow);
    println!("series {} (limit {limit})", flooded.series);
    println!(
        "resident memory grew by {:.1} MiB (calm {:.1}, at most {} more)",
        mib(flooded.grown),
        mib(calm.grown),
        bound >> 20
    );
    println!("verdicts {:016x}, without the flood {:016x}", flooded.verdicts, calm.verdicts);
    flooded.refused == new as u64
        && flooded.overflow == new as u64
        && flooded.series == limit as u64
        && flooded.verdicts == calm.verdicts
        && flooded.grown <= calm.grown + bound
}

fn run(new: usize, limit: usize) -> Came {
    let sources = vec![SourceBound { name: "otlp".to_owned(), max_series: None }];
    let settings = Arc::new(Settings { max_series: limit, sources, ..settings(&["ewma"]) });
    let stores =
        Stores { baselines: Box::new(MemoryBaselines::default()), ledger: Box::new(MemoryLedger::default()) };
    let responders = Box::new(Responders::default());
    let mut engine = Pipeline::open(settings, 2, stores, responders, Commit::AtSnapshots, &mut Vec::new())
        .expect("it opens");
    let partition = engine.partition("otlp");
    let (mut records, mut rng, mut verdicts) = (scrape(0..limit), Rng::new(1), Verdicts::default());
    let (mut offset, mut before, mut next) = (0, 0, 0);
    for bin in 0..CALM_BINS + FLOOD_BINS {
        if bin == CALM_BINS {
            before = resident_bytes();
        }
        refresh(&mut records, INTERVAL.times(bin), &mut rng);
        for record in &mut records {
            record.offset = offset;
            offset += 1;
            engine.handle(partition, record).expect("it works");
            engine.run(&mut verdicts).expect("it works");
        }
        let at = records[0].received;
        let until =
            if bin < CALM_BINS { 0 } else { new * (bin - CALM_BINS + 1) as usize / FLOOD_BINS as usize };
        while next < until {
            let count = POINTS_PER_RECORD.min(until - next);
            engine.handle(partition, &strangers(next..next + count, offset, at)).expect("it works");
            (offset, next) = (offset + 1, next + count);
        }
    }
    let totals = engine.totals().expect("it works");
    let refused =
        totals.refused.iter().find(|(reason, _)| *reason == Reason::SeriesLimit).map_or(0, |(_, n)| *n);
    Came {
        verdicts: verdicts.0,
        refused,
        overflow: engine.overflow().iter().map(|(.., n)| n).sum(),
        series: totals.series,
        grown: resident_bytes().saturating_sub(before),
    }
}

fn strangers(names: std::ops::Range<usize>, offset: u64, at: Option<Timestamp>) -> Record {
    let mut record = Record { offset, received: at, ..Record::default() };
    for name in names {
        let labels = Labels::new([("pod".to_owned(), format!("pod-{name:012x}"))]);
        let key = key_of(&format!("flood_{}", name % 200), &labels);
        record.push_point(&key, at.unwrap_or(Timestamp::MIN), Timestamp::MIN, Kind::Gauge, 1.0);
    }
    record
}
