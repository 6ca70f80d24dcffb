//! Pods of one service and what they report: a counter, its errors, a gauge and a histogram, each pod at its own pace.

use relight_core::record::{Histogram, Kind, Record};
use relight_core::series::{Labels, key_of};
use relight_core::{Span, Timestamp};

use crate::rng::Rng;

pub(crate) const START: i64 = 1_767_225_600;
pub(crate) const PARTITIONS: usize = 3;
const BOUNDS: [f64; 3] = [0.1, 0.2, 0.4];

pub(crate) fn at(secs: f64) -> Timestamp {
    Timestamp::from_secs(START).plus(Span::from_ns((secs * 1e9) as i64))
}

/// A process, from its first second to its last, and what it does a second.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// Seconds between two reports, and the time of the first.
    pub(crate) cadence: f64,
    pub(crate) phase: f64,
    pub(crate) from: f64,
    pub(crate) until: f64,
    pub(crate) requests: f64,
    pub(crate) errors: f64,
    pub(crate) open: f64,
    pub(crate) buckets: [f64; 4],
    /// Reports that are lost.
    pub(crate) lost: Vec<u64>,
    /// Whether its counters say when they started.
    pub(crate) has_start: bool,
    /// What its counters had counted when it is first seen.
    pub(crate) before: f64,
}

impl Pod {
    pub(crate) fn random(name: &str, cadence: f64, rng: &mut Rng) -> Self {
        let requests = 500.0 + 2_000.0 * rng.unit();
        Self {
            name: name.to_owned(),
            cadence,
            phase: rng.unit() * cadence,
            from: 0.0,
            until: f64::INFINITY,
            requests,
            errors: requests * 0.2 * rng.unit(),
            open: 20.0 * rng.unit() + 1.0,
            buckets: [0; 4].map(|_| 500.0 + 3_000.0 * rng.unit()),
            lost: Vec::new(),
            has_start: false,
            before: 1e6,
        }
    }

    /// Times of its reports up to `end`.
    pub(crate) fn times(&self, end: f64) -> Vec<f64> {
        let all = (0..).map(|i| (i, self.phase + self.cadence * i as f64));
        let alive = all.take_while(|(_, t)| *t < end.min(self.until));
        alive.filter(|(i, t)| *t >= self.from && !self.lost.contains(i)).map(|(_, t)| t).collect()
    }

    pub(crate) fn report(&self, t: f64, record: &mut Record) {
        let labels = [("service", "api"), ("pod", &self.name)];
        let labels = Labels::new(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec());
        let start = if self.has_start { at(self.from) } else { Timestamp::MIN };
        let lived = t - self.from;
        for (metric, rate) in [("requests", self.requests), ("errors", self.errors)] {
            let total = self.before + rate * lived;
            record.push_point(&key_of(metric, &labels), at(t), start, Kind::Cumulative, total);
        }
        record.push_point(&key_of("open", &labels), at(t), Timestamp::MIN, Kind::Gauge, self.open);
        let counts = self.buckets.map(|rate| (rate * lived) as u64).to_vec();
        let histogram = Histogram { bounds: BOUNDS.to_vec(), counts };
        record.push_histogram(
            &key_of("latency", &labels),
            at(t),
            start,
            Kind::CumulativeHistogram,
            histogram,
        );
    }
}

/// Rate, sum, ratio and quantile of pods that are all alive.
pub(crate) fn truth(pods: &[Pod]) -> [f64; 4] {
    let sum = |of: &dyn Fn(&Pod) -> f64| pods.iter().map(of).sum::<f64>();
    let buckets: Vec<f64> = (0..4).map(|i| sum(&|pod| pod.buckets[i])).collect();
    let rank = 0.7 * buckets.iter().sum::<f64>();
    let (mut below, mut quantile) = (0.0, BOUNDS[2]);
    for (i, count) in buckets.iter().enumerate().take(3) {
        if below + count >= rank {
            let lower = if i == 0 { 0.0 } else { BOUNDS[i - 1] };
            quantile = lower + (BOUNDS[i] - lower) * (rank - below) / count;
            break;
        }
        below += count;
    }
    let (requests, errors) = (sum(&|pod| pod.requests), sum(&|pod| pod.errors));
    [requests, sum(&|pod| pod.open), errors / requests, quantile]
}

/// The records of each partition, in order.
pub(crate) fn records(pods: &[Pod], end: f64) -> Vec<Vec<Record>> {
    let mut partitions = vec![Vec::new(); PARTITIONS];
    for (partition, records) in partitions.iter_mut().enumerate() {
        let mine = pods.iter().enumerate().filter(|(i, _)| i % PARTITIONS == partition);
        let mut reports: Vec<(f64, usize)> =
            mine.flat_map(|(i, pod)| pod.times(end).into_iter().map(move |t| (t, i))).collect();
        reports.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (offset, (t, pod)) in (0..).zip(reports) {
            let mut record = Record { offset, received: Some(at(t)), ..Record::default() };
            pods[pod].report(t, &mut record);
            records.push(record);
        }
    }
    partitions
}
