//! A model of one true counter, and what senders make of it: the sum of what Fold counts stays within bounds of the truth.

use proptest::prelude::*;
use relight_core::record::{Histogram, Kind, exponential_bound};

use super::{Outcome, Sample, fold, since, total};

/// SplitMix64: each case is its seed.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.bits() % all.len() as u64) as usize]
    }
}

/// One process after the other, each of which counts from zero.
struct Lives {
    /// When each began, and its total then, which is 0 but for the first.
    starts: Vec<(f64, f64)>,
    rate: f64,
    wobble: f64,
}

impl Lives {
    /// The life at a time, and its total: about `rate` a second, faster and slower in turns of a few minutes.
    fn at(&self, at: f64) -> (usize, f64) {
        let life = self.starts.iter().rposition(|(start, _)| *start <= at).unwrap_or(0);
        let (start, base) = self.starts[life];
        let wave = |at: f64| at - self.wobble * 40.0 * (at / 50.0).cos();
        (life, (base + self.rate * (wave(at) - wave(start))).floor())
    }
}

/// What a sender makes of the counter.
struct Sent {
    lives: Lives,
    samples: Vec<Sample>,
    /// What a reader that knows all can find in the samples: from each to the next, or since the start of its life.
    truth: f64,
    /// The most that comes between two points.
    step: f64,
}

#[derive(Clone, Copy)]
struct Sender {
    has_starts: bool,
    rounds: bool,
    loss: f64,
    restarts: bool,
}

fn sent(random: &mut Random, sender: Sender) -> Sent {
    let cadence = random.one_of(&[1.0, 5.0, 10.0, 15.0, 60.0, 300.0]);
    let rate = 10_f64.powf(random.unit() * 7.0 - 1.0);
    let base = random.one_of(&[0.0, 20.0, 1e4, 1e6]) * cadence * rate;
    let n = 120;
    let mut starts = vec![(-base / rate - 40.0 * cadence, 0.0)];
    let end = if sender.restarts { cadence * f64::from(n) } else { 0.0 };
    let mut next = cadence * (12.0 + 60.0 * random.unit());
    while next <= end {
        starts.push((next, 0.0));
        next += cadence * (12.0 + 60.0 * random.unit());
    }
    let lives = Lives { starts, rate, wobble: random.unit() * 0.8 };
    let (mut samples, mut truth, mut before) = (Vec::new(), 0.0, None);
    for i in 0..n {
        let at = f64::from(i) * cadence + cadence * 0.05 * random.unit();
        let (life, mut value) = lives.at(at);
        if random.unit() < sender.loss {
            continue;
        }
        if sender.rounds {
            value = f64::from(value as f32);
        }
        truth += match before {
            Some((of, _)) if of != life => value,
            Some((_, earlier)) => value - earlier,
            None => 0.0,
        };
        before = Some((life, value));
        samples.push(if sender.has_starts {
            since(lives.starts[life].0, at, value)
        } else {
            total(at, value)
        });
    }
    let gap = samples.windows(2).map(|w| w[1].at - w[0].at).fold(cadence, f64::max);
    Sent { step: rate * 1.8 * gap + 1.0, lives, samples, truth }
}

fn interval(random: &mut Random) -> f64 {
    random.one_of(&[5.0, 10.0, 60.0])
}

/// What the first point counts, since its start.
fn first(samples: &[Sample], interval: f64) -> f64 {
    let age = samples[0].start.map_or(f64::MAX, |start| samples[0].at - start);
    let gap = samples[1].at - samples[0].at;
    if age <= 3.0 * interval || (age <= 900.0 && age <= 3.0 * gap) { samples[0].value } else { 0.0 }
}

/// Rates that are more than the counter was ever as fast as.
fn absurd(outcome: &Outcome, sent: &Sent, times: f64) -> Vec<(i64, f64)> {
    let most = sent.lives.rate * 1.8 * times + 1.0;
    outcome.rates().into_iter().filter(|(_, rate)| *rate > most).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Scenario: restarts, with or without start times, every 12th to 72nd point; up to half of the points are lost, or the
    /// totals are rounded to 32 bits.
    /// Guarantee: what counts is the truth within the first two steps and, per fall, two more; with starts and without
    /// rounding it is exact. No rate is faster than the counter, but for twice after a fall.
    #[test]
    fn restarts_and_losses(seed: u64, has_starts: bool, rounds: bool, loss in 0.0..0.5_f64) {
        let random = &mut Random(seed);
        let sent = sent(random, Sender { has_starts, rounds, loss, restarts: true });
        let interval = interval(random);
        let outcome = fold(&sent.samples, interval);
        let falls: u64 = outcome.falls().iter().sum();
        let bound = if has_starts && !rounds { 0.5 } else { (2 + 2 * falls) as f64 * sent.step + sent.truth * 1e-6 };
        let error = outcome.sum() - sent.truth - first(&sent.samples, interval);
        prop_assert!(error.abs() <= bound, "seed {seed}: {error} of {}, at most {bound}", sent.truth);
        prop_assert_eq!(outcome.shared(), 0, "seed {}: restarts are no second writer", seed);
        let absurd = absurd(&outcome, &sent, 2.0);
        prop_assert!(absurd.is_empty(), "seed {seed}: {absurd:?}, true {}", sent.lives.rate);
    }

    /// Scenario: one counter behind two or three replicas that lag by up to 1.5 points, of which any answers.
    /// Guarantee: never more than the truth, within a step a fall; as much, if no second writer was found; no rate is more
    /// than four times as fast as the counter.
    #[test]
    fn replicas(seed: u64, has_starts: bool, lag in 0.0..1.5_f64, n in 2..4_usize) {
        let random = &mut Random(seed);
        let Sent { lives, mut samples, step, .. } =
            sent(random, Sender { has_starts, rounds: false, loss: 0.0, restarts: false });
        let cadence = samples[1].at - samples[0].at;
        for sample in &mut samples {
            let replica = (random.bits() % n as u64) as f64;
            sample.value = lives.at(sample.at - replica * lag * cadence / (n - 1) as f64).1;
        }
        let interval = interval(random);
        let truth = samples[samples.len() - 1].value - samples[0].value + first(&samples, interval);
        let outcome = fold(&samples, interval);
        let falls: u64 = outcome.falls().iter().sum();
        let (error, bound) = (outcome.sum() - truth, (3 + falls) as f64 * 2.5 * step);
        prop_assert!(error <= bound, "seed {seed}: {error} more than {truth}, at most {bound}");
        if outcome.shared() == 0 {
            prop_assert!(error >= -bound, "seed {seed}: {error} of {truth}, at least {bound}");
        }
        let sent = Sent { lives, samples, truth, step };
        let absurd = absurd(&outcome, &sent, 4.0);
        prop_assert!(absurd.is_empty(), "seed {seed}: {absurd:?}, true {}", sent.lives.rate);
    }

    /// Scenario: two processes under one name that count for themselves, far apart or close, at any phase.
    /// Guarantee: they are noticed, and no rate is more than four times as fast as either.
    #[test]
    fn two_processes(seed: u64, has_starts: bool, phase in 0.02..0.98_f64, head in 0.0..4.0_f64) {
        let random = &mut Random(seed);
        let (cadence, rate) = (random.one_of(&[5.0, 10.0, 15.0, 60.0]), 10_f64.powf(random.unit() * 5.0));
        let ahead = 10_f64.powf(head);
        let of = |i: u32| {
            let at = (f64::from(i / 2) + f64::from(i % 2) * phase) * cadence;
            let age = if i.is_multiple_of(2) { 3_000.0 * ahead } else { 3_000.0 };
            let sample = total(at, (rate * (at + age * cadence)).floor());
            Sample { start: has_starts.then_some(-age * cadence), ..sample }
        };
        let samples: Vec<Sample> = (0..100).map(of).collect();
        let outcome = fold(&samples, interval(random));
        let alternates = samples.windows(2).any(|w| w[1].value < w[0].value);
        prop_assert!(outcome.is_named == alternates, "seed {seed}");
        let absurd: Vec<_> = outcome.rates().into_iter().filter(|(_, found)| *found > 4.0 * rate + 1.0).collect();
        prop_assert!(absurd.is_empty() || !alternates, "seed {seed}: {absurd:?}, true {rate}");
    }

    /// Scenario: an exponential histogram that is sent at another scale and with another zero bucket at each point.
    /// Guarantee: the count is exact, and each bin has as many observations, none of them where none came.
    #[test]
    fn rescaling(seed: u64, has_start: bool) {
        let random = &mut Random(seed);
        let mut observed = vec![0_u64; 81];
        let (mut samples, mut news) = (Vec::new(), Vec::new());
        for i in 0..40 {
            let middle = random.bits() % 60;
            let new: Vec<u64> = (0..random.bits() % 50).map(|_| middle + random.bits() % 20).collect();
            for at in &new {
                observed[*at as usize] += 1;
            }
            news.push(new);
            let (scale, zero) = (random.one_of(&[1_i64, 2, 4, 8]), random.one_of(&[0, 0, 8, 24]));
            let mut histogram = Histogram { bounds: vec![0.0], counts: vec![0; 2] };
            histogram.bounds.extend((0..80).map(|q| exponential_bound(q - 40)));
            histogram.counts = [&[0][..], &observed].concat();
            let is_kept = |q: &i64| *q % scale == 0 && *q >= zero;
            let zero_bound = (zero == 0).then_some(0.0);
            let bounds: Vec<f64> =
                zero_bound.into_iter().chain((0..80).filter(is_kept).map(|q| exponential_bound(q - 40))).collect();
            let (at, start) = (f64::from(i) * 10.0, has_start.then_some(-9e4));
            let kind = Kind::CumulativeHistogram;
            samples.push(Sample { at, start, kind, value: 0.0, histogram: Some(histogram.merged(&bounds)) });
        }
        let outcome = fold(&samples, 10.0);
        prop_assert_eq!(outcome.falls(), [0, 0, 0], "seed {}", seed);
        for (bin, new) in outcome.bins.iter().zip(&news).skip(1) {
            prop_assert_eq!(bin.increase, Some(new.len() as f64), "seed {}", seed);
            let buckets = bin.buckets.as_ref().expect("it has buckets");
            let mut expected = vec![0_u64; buckets.counts.len()];
            for at in new {
                // Bucket `at` ends at the bound of that number.
                let end = exponential_bound(*at as i64 - 40);
                expected[buckets.bounds.iter().filter(|bound| **bound < end).count()] += 1;
            }
            prop_assert_eq!(&buckets.counts, &expected, "seed {}", seed);
        }
    }
}
