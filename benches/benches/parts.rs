//! The parts by themselves, through criterion: fold, each detector, a checkpoint's images.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relight_benches::{Engine, INTERVAL, refresh, scrape, settings};
use relight_core::record::Record;
use relight_core::{KeyGroup, Span};
use relight_engine::directory::key_groups;
use relight_testkit::rng::Rng;

const SERIES: usize = 20_000;

/// An engine that has seen an hour, and its scrape.
fn warm(detectors: &[&str]) -> (Engine, Vec<Record>, Rng, Span) {
    let (mut rng, mut records) = (Rng::new(1), scrape(0..SERIES));
    let mut engine = Engine::new(&settings(detectors));
    let mut clock = Span::ZERO;
    for _ in 0..360 {
        refresh(&mut records, clock, &mut rng);
        engine.take(&mut records);
        clock = Span::from_ns(clock.ns() + INTERVAL.ns());
    }
    (engine, records, rng, clock)
}

/// One bin of the fleet: fold alone, then fold with each detector.
fn bins(c: &mut Criterion) {
    let mut group = c.benchmark_group("bin");
    group.throughput(Throughput::Elements(SERIES as u64)).sample_size(20);
    group.bench_function("fold", |b| bin(b, &[]));
    for spec in relight_detectors::ALL {
        group.bench_function(format!("fold+{}", spec.name), |b| bin(b, &[spec.name]));
    }
    group.finish();
}

fn bin(b: &mut criterion::Bencher<'_>, detectors: &[&str]) {
    let (mut engine, mut records, mut rng, mut clock) = warm(detectors);
    b.iter_custom(|iterations| {
        let mut spent = Duration::ZERO;
        for _ in 0..iterations {
            clock = Span::from_ns(clock.ns() + INTERVAL.ns());
            refresh(&mut records, clock, &mut rng);
            let begin = Instant::now();
            engine.take(&mut records);
            spent += begin.elapsed();
        }
        spent
    });
}

/// All images of a checkpoint, encoded in memory: what the hot path pays.
fn checkpoint(c: &mut Criterion) {
    let (mut engine, ..) = warm(&["adaptive"]);
    let mut group = c.benchmark_group("checkpoint");
    group.throughput(Throughput::Elements(SERIES as u64)).sample_size(20);
    group.bench_function("images of adaptive", |b| {
        b.iter(|| key_groups().map(|group: KeyGroup| engine.save(group)).sum::<usize>());
    });
    group.finish();
}

criterion_group!(benches, bins, checkpoint);
criterion_main!(benches);
