//! One million series: rate against the same work one point at a time, and memory a series.
//!
//! Both sides run in this process, on the same points, one after the other: read the ratio. `-- 200000`
//! sets another number of series.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use relight_benches::{Engine, INTERVAL, refresh, resident_bytes, say, scrape, settings};
use relight_core::record::Record;
use relight_core::{Span, Timestamp};
use relight_testkit::rng::Rng;

const HOUR: Span = Span::from_secs(3_600);
/// Hours in a week: after a bin in each them every slot of a seasonal table has been touched, and paid for in memory.
const WEEK: usize = 168;
/// Bins that are timed, after those that build the tables.
const TIMED: usize = 10;

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    println!("{series} series, one point each a bin, steady order, one thread");
    if let Some(only) = std::env::args().find_map(|arg| arg.strip_prefix("only=").map(str::to_owned)) {
        let detectors: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
        say(&only, fleet(series, &detectors, WEEK).0 * 1e9, "ns/point", "");
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

/// What one would write first: a map from series to a boxed object that is handed each point.
trait PointDetector {
    fn push(&mut self, at: Timestamp, value: f64) -> f64;
}

struct Trio {
    level: f64,
    spread: f64,
    slots: Box<[f32; 24 + WEEK]>,
    error: f32,
    sums: [f64; 2],
    since: [Timestamp; 2],
    seen: u32,
}

impl PointDetector for Trio {
    fn push(&mut self, at: Timestamp, value: f64) -> f64 {
        self.seen += 1;
        let rate = (1.0 / f64::from(self.seen)).max(0.05);
        let deviation = value - self.level;
        let z = deviation / (self.spread + 1e-9);
        self.level += rate * deviation.clamp(-3.0 * self.spread - 1.0, 3.0 * self.spread + 1.0);
        self.spread += rate * (deviation.abs() - self.spread);
        let hour = at.secs() / 3_600;
        let (day, week) = ((hour % 24) as usize, 24 + (hour % 168) as usize);
        let seasonal = (value as f32 - self.slots[week]).abs().min((value as f32 - self.slots[day]).abs());
        for slot in [day, week] {
            self.slots[slot] += 0.1 * (value as f32 - self.slots[slot]);
        }
        let score = f64::from(seasonal / (self.error + 1e-6));
        self.error += 0.05 * (seasonal - self.error);
        let mut change = 0.0_f64;
        for (side, sign) in [1.0, -1.0].into_iter().enumerate() {
            self.sums[side] = (self.sums[side] + sign * z - 0.5).max(0.0);
            if self.sums[side] == 0.0 {
                self.since[side] = at;
            }
            change = change.max(self.sums[side] / 8.0);
        }
        z.abs().max(score).max(change)
    }
}

/// Seconds a point.
fn one_point_at_a_time(series: usize) -> f64 {
    let mut rng = Rng::new(1);
    let mut records = scrape(0..series);
    let mut detectors: HashMap<Vec<u8>, Box<dyn PointDetector>> = HashMap::new();
    let mut spent = Duration::ZERO;
    for bin in 0..2 + TIMED {
        refresh(&mut records, INTERVAL.times(bin as i64), &mut rng);
        let begin = Instant::now();
        for record in &records {
            for point in &record.points {
                push(&mut detectors, record.key(point), point.at, point.value);
            }
        }
        if bin >= 2 {
            spent += begin.elapsed();
        }
    }
    spent.as_secs_f64() / (TIMED * series) as f64
}

fn push(detectors: &mut HashMap<Vec<u8>, Box<dyn PointDetector>>, key: &[u8], at: Timestamp, value: f64) {
    // A look-up a point: the second one, for new series, is not in the timed bins.
    let Some(detector) = detectors.get_mut(key) else {
        let fresh = Trio {
            level: value,
            spread: 0.0,
            slots: Box::new([0.0; 24 + WEEK]),
            error: 0.0,
            sums: [0.0; 2],
            since: [at; 2],
            seen: 0,
        };
        detectors.insert(key.to_vec(), Box::new(fresh));
        return;
    };
    std::hint::black_box(detector.push(at, value));
}
