//! One million series: rate against the same work one point at a time, and memory a series.
//!
//! Both sides run in this process, on the same points, taking turns a bin at a time, so that a machine's other work hits
//! both; the median bin of each counts: read the ratio. `-- 200000` sets another number of series.
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
const TIMED: usize = 13;
/// Bins after which the naive side's detectors do all of their work.
const NAIVE_WARM: usize = 110;

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    println!("{series} series, one point each a bin, steady order, one thread");
    // Memory first: what a side frees, the allocator keeps, and the next one would seem to need less.
    let mut trio = Ours::new(series, &["ewma", "seasonal", "changepoint"], WEEK);
    let mut adaptive = Ours::new(series, &["adaptive"], WEEK);
    say("fold + adaptive", median(adaptive.bins().take(TIMED)), "ns/point", "at most 1000");
    say("  resident memory, all weekly slots touched", adaptive.bytes, "bytes/series", "at most 720");
    drop(adaptive);
    let mut naive = Naive::new(series);
    let (ours, theirs): (Vec<f64>, Vec<f64>) = trio.bins().zip(naive.bins()).take(TIMED).unzip();
    let (ours, theirs) = (median(ours), median(theirs));
    drop(naive);
    say("one point at a time, map of boxed detectors", theirs, "ns/point", "");
    say("fold + ewma + seasonal + changepoint", ours, "ns/point", "");
    say("  ratio", theirs / ours, "times", "at least 8");
    say("  resident memory, all weekly slots touched", trio.bytes, "bytes/series", "at most 480");
    drop(trio);
    for alone in [&[][..], &["ewma"], &["seasonal"], &["changepoint"]] {
        let ns = median(Ours::new(series, alone, 6).bins().take(TIMED));
        say(&format!("fold + {alone:?}"), ns, "ns/point", "where the time goes");
    }
}

fn median(bins: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = bins.into_iter().collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// relight's side.
struct Ours {
    engine: Engine,
    records: Vec<Record>,
    clock: Span,
    rng: Rng,
    /// Resident bytes a series between the first fifth of the fleet and all of it.
    bytes: f64,
}

impl Ours {
    /// A fleet that has seen so many bins, an hour apart, so that as many hours' slots are touched.
    fn new(series: usize, detectors: &[&str], hours: usize) -> Self {
        let first = series / 5;
        let (engine, rng) = (Engine::new(&settings(detectors)), Rng::new(1));
        let mut ours = Self { engine, records: scrape(0..first), clock: Span::ZERO, rng, bytes: 0.0 };
        let all = scrape(0..series);
        for _ in 0..hours {
            ours.bin(HOUR);
        }
        let before = resident_bytes();
        // Kept until all is measured: what is freed here would be taken again, and not be seen to grow.
        let some = std::mem::replace(&mut ours.records, all);
        for _ in 0..hours {
            ours.bin(HOUR);
        }
        ours.bytes = resident_bytes().saturating_sub(before) as f64 / (series - first) as f64;
        drop(some);
        // The first bin after a gap goes over to another hour's slots, as one in 180 does: not timed.
        for _ in 0..2 {
            ours.bin(INTERVAL);
        }
        let [names, fold, detect] = ours.engine.state_bytes().map(|bytes| bytes / series);
        println!(
            "{detectors:?}: names {names}, series {fold}, rows {detect} bytes/series by their own count"
        );
        ours
    }

    /// One bin, `apart` from the next; the time that the engine took.
    fn bin(&mut self, apart: Span) -> Duration {
        refresh(&mut self.records, self.clock, &mut self.rng);
        self.clock = Span::from_ns(self.clock.ns() + apart.ns());
        let begin = Instant::now();
        std::hint::black_box(self.engine.take(&mut self.records));
        begin.elapsed()
    }

    /// Nanoseconds a point, bin by bin.
    fn bins(&mut self) -> impl Iterator<Item = f64> {
        let series = self.records.iter().map(|record| record.points.len()).sum::<usize>() as f64;
        std::iter::repeat_with(move || self.bin(INTERVAL).as_secs_f64() * 1e9 / series)
    }
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

/// The naive side.
struct Naive {
    fleet: Fleet,
    keys: Vec<SeriesKey>,
    records: Vec<Record>,
    clock: Span,
    rng: Rng,
}

impl Naive {
    /// A fleet that is as warm as the other side's.
    fn new(series: usize) -> Self {
        let keys: Vec<SeriesKey> = (0..series).map(written_down).collect();
        let (fleet, records) = (boxed(&keys), scrape(0..series));
        let mut naive = Self { fleet, keys, records, clock: Span::ZERO, rng: Rng::new(1) };
        for _ in 0..NAIVE_WARM {
            naive.bin();
        }
        naive
    }

    fn bin(&mut self) -> Duration {
        refresh(&mut self.records, self.clock, &mut self.rng);
        self.clock = Span::from_ns(self.clock.ns() + INTERVAL.ns());
        let begin = Instant::now();
        let points = self.records.iter().flat_map(|record| &record.points);
        for (key, point) in self.keys.iter().zip(points) {
            let detector = self.fleet.get_mut(key).expect("every series is in it");
            std::hint::black_box(detector.push(point.at, point.value));
        }
        begin.elapsed()
    }

    /// Nanoseconds a point, bin by bin.
    fn bins(&mut self) -> impl Iterator<Item = f64> {
        let series = self.keys.len() as f64;
        std::iter::repeat_with(move || self.bin().as_secs_f64() * 1e9 / series)
    }
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
