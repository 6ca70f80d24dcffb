//! One million series: rate against the same work one point at a time, and memory a series.
//!
//! Both sides run in this process, on the same points, one after the other: read the ratio. `-- 200000`
//! sets another number of series.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relight_benches::{Engine, INTERVAL, refresh, resident_bytes, say, scrape, series_key, settings};
use relight_core::detector::{Detector, Guard, Policy};
use relight_core::record::Record;
use relight_core::signal::SignalInfo;
use relight_core::{KeyView, Span, Timestamp};
use relight_detectors::{Changepoint, Ewma};
use relight_testkit::rng::Rng;

const HOUR: Span = Span::from_secs(3_600);
/// Hours in a week: after a bin in each them every slot of a seasonal table has been touched, and paid for in memory.
const WEEK: usize = 168;
/// Bins that are timed, after those that build the tables.
const TIMED: usize = 12;

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    println!("{series} series, one point each a bin, steady order, one thread");
    if std::env::args().any(|arg| arg == "only=naive") {
        say("naive", one_point_at_a_time(series) * 1e9, "ns/point", "");
        return;
    }
    if let Some(only) = std::env::args().find_map(|arg| arg.strip_prefix("only=").map(str::to_owned)) {
        let detectors: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
        say(&only, fleet(series, &detectors, 2).0 * 1e9, "ns/point", "");
        return;
    }
    // Memory first: what a side frees, the allocator keeps, and the next one would seem to need less.
    let trio = fleet(series, &["ewma", "seasonal", "changepoint"], WEEK);
    let adaptive = fleet(series, &["adaptive"], WEEK);
    for alone in [&[][..], &["ewma"], &["seasonal"], &["changepoint"]] {
        say(&format!("fold + {alone:?}"), fleet(series, alone, 6).0 * 1e9, "ns/point", "where the time goes");
    }
    let naive = one_point_at_a_time(series);
    say("one point at a time, map of boxed detectors", naive * 1e9, "ns/point", "");
    say("fold + ewma + seasonal + changepoint", trio.0 * 1e9, "ns/point", "");
    say("  ratio", naive / trio.0, "times", "at least 8");
    say("  resident memory, all weekly slots touched", trio.1, "bytes/series", "at most 480");
    say("fold + adaptive", adaptive.0 * 1e9, "ns/point", "at most 1000");
    say("  resident memory, all weekly slots touched", adaptive.1, "bytes/series", "at most 720");
}

/// Seconds a point, and resident bytes a series between the first fifth of the fleet and all of it.
fn fleet(series: usize, detectors: &[&str], hours: usize) -> (f64, f64) {
    let first = series / 5;
    let mut rng = Rng::new(1);
    let mut some = scrape(0..first);
    let mut all = scrape(0..series);
    let settings = settings(detectors);
    let mut engine = Engine::new(&settings);
    let mut clock = Span::ZERO;
    run(&mut engine, &mut some, &mut clock, hours, HOUR, &mut rng);
    let before = resident_bytes();
    run(&mut engine, &mut all, &mut clock, hours, HOUR, &mut rng);
    let after = resident_bytes();
    // The first bin after a gap goes over to another hour's slots, as one in 180 does: not timed.
    run(&mut engine, &mut all, &mut clock, 2, INTERVAL, &mut rng);
    let timed = run(&mut engine, &mut all, &mut clock, TIMED, INTERVAL, &mut rng);
    let [names, fold, detect] = engine.state_bytes().map(|bytes| bytes / series);
    println!("{detectors:?}: names {names}, series {fold}, rows {detect} bytes/series by their own count");
    let seconds = timed.as_secs_f64() / (TIMED * series) as f64;
    (seconds, after.saturating_sub(before) as f64 / (series - first) as f64)
}

/// Time spent in the engine over `bins` bins that are `apart`.
fn run(
    engine: &mut Engine,
    records: &mut [Record],
    clock: &mut Span,
    bins: usize,
    apart: Span,
    rng: &mut Rng,
) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..bins {
        refresh(records, *clock, rng);
        *clock = Span::from_ns(clock.ns() + apart.ns());
        let begin = Instant::now();
        std::hint::black_box(engine.take(records));
        spent += begin.elapsed();
    }
    spent
}

/// What one would write first: a map from series to a boxed object that is handed each point. The same
/// detectors, the same mask and guard; the seasonal table lies in the object.
trait PointDetector {
    fn push(&mut self, at: Timestamp, value: f64) -> f64;
}

/// A series as one would write it down.
#[derive(PartialEq, Eq, Hash, Clone)]
struct SeriesKey {
    metric: String,
    labels: Vec<(String, String)>,
}

struct One<D: Detector> {
    detector: Arc<D>,
    policy: Policy,
    state: D::State,
    guard: Guard,
}

impl<D: Detector> One<D> {
    fn new(detector: &Arc<D>) -> Self {
        let state = detector.init();
        Self { detector: Arc::clone(detector), policy: Policy::default(), state, guard: Guard::default() }
    }

    fn push(&mut self, at: Timestamp, value: f64) -> f64 {
        let reading = self.policy.mask(value, self.detector.judge(&self.state, at, value));
        let warm = self.guard.is_warm(D::WARM_UP);
        let score = if warm { reading.score } else { reading.score.min(1.0) };
        let decision = self.guard.decide(&self.policy, at, score > 1.0);
        if decision.relearn {
            self.state = self.detector.init();
        }
        self.detector.absorb(&mut self.state, at, value, &reading, decision.learn);
        score
    }
}

struct Trio {
    ewma: One<Ewma>,
    changepoint: One<Changepoint>,
    slots: [f32; 24 + WEEK],
    error: f32,
}

impl PointDetector for Trio {
    fn push(&mut self, at: Timestamp, value: f64) -> f64 {
        let hour = at.secs() / 3_600;
        let (day, week) = ((hour % 24) as usize, 24 + (hour % 168) as usize);
        let value_f32 = value as f32;
        let error = (value_f32 - self.slots[week]).abs().min((value_f32 - self.slots[day]).abs());
        for slot in [day, week] {
            self.slots[slot] += 0.1 * (value_f32 - self.slots[slot]);
        }
        let seasonal = f64::from(error / (4.0 * self.error + 1e-6));
        self.error += 0.05 * (error - self.error);
        self.ewma.push(at, value).max(self.changepoint.push(at, value)).max(seasonal)
    }
}

type Fleet = HashMap<SeriesKey, Box<dyn PointDetector>>;

/// Seconds a point.
fn one_point_at_a_time(series: usize) -> f64 {
    let mut rng = Rng::new(1);
    let mut records = scrape(0..series);
    let keys: Vec<SeriesKey> = (0..series).map(written_down).collect();
    let mut fleet = boxed(&keys);
    let mut spent = Duration::ZERO;
    for bin in 0..2 + TIMED {
        refresh(&mut records, INTERVAL.times(bin as i64), &mut rng);
        let begin = Instant::now();
        let points = records.iter().flat_map(|record| &record.points);
        for (key, point) in keys.iter().zip(points) {
            let detector = fleet.get_mut(key).expect("every series is in it");
            std::hint::black_box(detector.push(point.at, point.value));
        }
        if bin >= 2 {
            spent += begin.elapsed();
        }
    }
    spent.as_secs_f64() / (TIMED * series) as f64
}

fn written_down(i: usize) -> SeriesKey {
    let key = series_key(i);
    let view = KeyView::new(&key);
    let labels = view.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    SeriesKey { metric: view.name().to_owned(), labels }
}

fn boxed(keys: &[SeriesKey]) -> Fleet {
    let signal = SignalInfo { name: "every_series".to_owned(), interval: INTERVAL };
    let ewma =
        Arc::new(Ewma::new(<Ewma as Detector>::Config::default(), &signal).expect("defaults are right"));
    let changepoint = Arc::new(
        Changepoint::new(<Changepoint as Detector>::Config::default(), &signal).expect("defaults are right"),
    );
    let fresh = || Trio {
        ewma: One::new(&ewma),
        changepoint: One::new(&changepoint),
        slots: [0.0; 24 + WEEK],
        error: 0.0,
    };
    keys.iter().map(|key| (key.clone(), Box::new(fresh()) as Box<dyn PointDetector>)).collect()
}
