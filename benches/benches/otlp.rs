//! OTLP metrics from a request's bytes to folded points, beside prost decoding the same bytes and nothing else.
//!
//! Both sides run in this process, on the same requests, one after the other: read the ratio. `-- 100000`
//! sets another number of series.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use relight_benches::fleet::{Fleet, OtlpEngine};
use relight_benches::{POINTS_PER_RECORD, say};
use relight_core::KEY_GROUPS;

/// Bins before those that are timed: in them every series is new, and then in its usual order.
const WARM: usize = 2;
const TIMED: usize = 4;

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let mut fleet = Fleet::new(series);
    let bytes = fleet.bodies.iter().map(Vec::len).sum::<usize>() / series;
    println!(
        "{series} series, {POINTS_PER_RECORD} points a request, 10 attributes, {bytes} bytes a point, one thread"
    );
    let prost = prost_alone(&fleet);
    say("prost: bytes to objects, and nothing else", prost, "ns/point", "");
    let steady = run("steady order", &mut fleet, Shuffle::Nothing, "");
    say("  ratio", prost / steady, "times", "at least 8");
    let requests = run("requests in any order", &mut fleet, Shuffle::Requests, "");
    say("  slower than steady", requests / steady, "times", "at most 2");
    let points = run("requests, and points within each, in any order", &mut fleet, Shuffle::Within, "");
    say("  slower than steady", points / steady, "times", "at most 2");
    let all = run("every point in any request", &mut fleet, Shuffle::Everything, "");
    say("  slower than steady", all / steady, "times", "no exporter does so");
}

/// What is put into another order before each bin.
#[derive(Clone, Copy, PartialEq)]
enum Shuffle {
    Nothing,
    Requests,
    Within,
    Everything,
}

/// Puts requests, or their points, into another order.
fn shuffle(fleet: &mut Fleet, how: Shuffle) {
    let requests = fleet.bodies.len();
    if how == Shuffle::Requests || how == Shuffle::Within {
        for i in (1..requests).rev() {
            let other = fleet.rng.below(i as u64 + 1) as usize;
            fleet.bodies.swap(i, other);
        }
    }
    let half = POINTS_PER_RECORD / 2;
    for request in 0..requests {
        for i in 0..POINTS_PER_RECORD {
            let other = (fleet.rng.below(half as u64) as usize) + i / half * half;
            match how {
                Shuffle::Within => swap(fleet, (request, i), (request, other)),
                Shuffle::Everything => {
                    let to = fleet.rng.below(requests as u64) as usize;
                    swap(fleet, (request, i), (to, other));
                }
                Shuffle::Nothing | Shuffle::Requests => {}
            }
        }
    }
}

fn swap(fleet: &mut Fleet, a: (usize, usize), b: (usize, usize)) {
    let (at, to) = (fleet.point(a.1), fleet.point(b.1));
    let first = fleet.bodies[a.0][at.clone()].to_vec();
    let second = fleet.bodies[b.0][to.clone()].to_vec();
    fleet.bodies[b.0][to].copy_from_slice(&first);
    fleet.bodies[a.0][at].copy_from_slice(&second);
}

/// The slowest of the fastest tenth, in nanoseconds: what a machine's other work interrupts does not count. It
/// would count for more in prost's samples, which are longer.
fn undisturbed(samples: &mut [Duration]) -> f64 {
    let tenth = samples.len() / 10;
    samples.select_nth_unstable(tenth).1.as_secs_f64() * 1e9
}

/// Nanoseconds a point; freeing the objects is not counted.
fn prost_alone(fleet: &Fleet) -> f64 {
    let mut spent = Vec::new();
    let some = fleet.bodies.len().min(300);
    for body in &fleet.bodies[..some] {
        let begin = Instant::now();
        let request = ExportMetricsServiceRequest::decode(&body[..]).expect("prost wrote it");
        spent.push(begin.elapsed());
        drop(std::hint::black_box(request));
    }
    undisturbed(&mut spent) / POINTS_PER_RECORD as f64
}

/// Nanoseconds a point from bytes to folded points, with where they go.
fn run(what: &str, fleet: &mut Fleet, how: Shuffle, against: &str) -> f64 {
    let mut engine = OtlpEngine::default();
    let (partition, mut offset) = (engine.intake.partition("otlp"), 0);
    for bin in 0..WARM + TIMED {
        if bin == WARM {
            engine.spent = Default::default();
        }
        if bin >= WARM {
            shuffle(fleet, how);
        }
        let at = fleet.refresh(bin);
        for body in &fleet.bodies {
            engine.take(partition, offset, at, body);
            offset += 1;
        }
    }
    let series = fleet.bodies.len() * POINTS_PER_RECORD;
    verify(&engine, series);
    let [decode, intake, push, close] = engine.spent.map(|mut samples| undisturbed(&mut samples));
    let [decode, intake, push] = [decode, intake, push].map(|ns| ns / POINTS_PER_RECORD as f64);
    let close = close * KEY_GROUPS as f64 / series as f64;
    let all = decode + intake + push + close;
    say(what, all, "ns/point", against);
    println!(
        "    decode and identity {decode:.1}, intake {intake:.1}, fold {push:.1}, close of bins {close:.1}"
    );
    all
}

/// Whether every point arrived, and every series in every bin that is closed.
fn verify(engine: &OtlpEngine, series: usize) {
    let bins = WARM + TIMED;
    assert_eq!(engine.intake.counters().points, (bins * series) as u64);
    assert_eq!(engine.intake.directory().series_len(), series);
    // A sum says nothing in its first bin.
    assert_eq!(engine.folded, ((bins - 1) * series - series / 2) as u64);
}
