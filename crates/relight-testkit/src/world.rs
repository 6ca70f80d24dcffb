//! Worlds: what a few services, their exporters and their operators might send, from a seed.
//!
//! Made to be awkward: series of one row lie in different partitions, series hop partitions, sums have
//! many contributors with full mantissas that share key groups, counters reset, scrapes are longer than the bin, points come
//! out of order, twice, late and wrong, series end and some of them come back, partitions fall idle, stall, end early, and appear in the middle
//! of the file that names them.

use relight_core::aliases::Aliases;
use relight_core::record::{ControlRecord, Event, Histogram, Kind, Record};
use relight_core::series::{Labels, key_of};
use relight_core::{KeyGroup, Span, Timestamp};

use crate::rng::Rng;

/// One log per partition, in the order of its offsets.
#[derive(Debug, Clone)]
pub struct World {
    /// Partitions: name and records.
    pub partitions: Vec<(String, Vec<Record>)>,
    /// The files they are read from.
    pub files: Vec<File>,
    /// For each partition, the step in which each record was begun.
    begun: Vec<Vec<i64>>,
}

/// What is read from its front: the records of one or more partitions, interleaved.
#[derive(Debug, Clone)]
pub struct File {
    /// The name of the file, and of its own partition.
    pub name: String,
    /// A line each: partition, and place among its records.
    pub lines: Vec<(usize, usize)>,
}

const SERVICES: [&str; 3] = ["cart", "checkout", "search"];
const NODES: usize = 4;
/// Steps of 5 s: twice as fine as the simulated bin.
const STEP_SECS: i64 = 5;
const STEPS: i64 = 900;
const START_SECS: i64 = 1_763_900_000;
const FILES: usize = 2;
/// Where the last partition of a file begins, and how far it is behind the others, in steps. Further than
/// the allowed lateness, so that where it starts decides what of it counts.
const NEWCOMER_STEP: i64 = 300;
const NEWCOMER_BEHIND: i64 = 4;
/// Contributors to one sum, and the key groups that they share. Groups are folded in the order of their
/// numbers and the series of one group in that of their first sight, so only contributors of one group can
/// reach a sum in the order in which partitions happen to be read.
const QUEUES: usize = 48;
const QUEUE_GROUPS: usize = 4;
/// Steps that a pod lives, and how many names there are for pods: a name comes back when its last bearer has been
/// gone for far longer than series are kept.
const POD_STEPS: i64 = 60;
const POD_NAMES: i64 = 7;
/// Steps between two runs of a job: a bin more than series are kept, so that what a run says may have arrived when the
/// one before it is forgotten, or not.
const JOB_STEPS: i64 = 50;
/// Bounds of a service's latency histograms, all in one key group: some are finer than others, and of those
/// that are as fine some are different.
const BOUNDS: [&[f64]; 4] = [&[0.05, 0.5], &[0.01, 0.05, 0.1, 0.5], &[0.02, 0.05, 0.2, 0.5], &[0.1]];

struct Maker {
    rng: Rng,
    partitions: Vec<Vec<Record>>,
    begun: Vec<Vec<i64>>,
    step: i64,
    /// Running totals: (service, node, code) and of histograms.
    totals: Vec<f64>,
    buckets: Vec<Vec<u64>>,
    queues: Vec<Vec<u8>>,
    /// Of each service, one for each of `BOUNDS`.
    latencies: Vec<Vec<Vec<u8>>>,
}

impl World {
    /// The world of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let partitions = 3 + rng.below(3) as usize;
        let mut maker = Maker {
            rng,
            partitions: vec![Vec::new(); partitions],
            begun: vec![Vec::new(); partitions],
            step: 0,
            totals: vec![0.0; SERVICES.len() * NODES * 2],
            buckets: vec![vec![0; 5]; SERVICES.len() * BOUNDS.len()],
            queues: crowded("queue", SERVICES[0], QUEUE_GROUPS, QUEUES),
            latencies: SERVICES.iter().map(|name| crowded("latency", name, 1, BOUNDS.len())).collect(),
        };
        for step in 0..STEPS {
            maker.step(step);
        }
        let named = |(i, records)| (format!("world-{i}"), records);
        let partitions: Vec<_> = maker.partitions.into_iter().enumerate().map(named).collect();
        let file = |(i, (name, records)): (usize, &(String, Vec<Record>))| File {
            name: name.clone(),
            lines: (0..records.len()).map(|at| (i, at)).collect(),
        };
        let files = partitions.iter().enumerate().map(file).collect();
        Self { partitions, files, begun: maker.begun }
    }

    /// The same, read from two files whose records name their partitions. In each of them the last
    /// partition appears late, and behind: what it brings first is late by what the others have brought.
    #[must_use]
    pub fn in_files(mut self) -> Self {
        let count = self.partitions.len();
        let mut files = Vec::new();
        for file in 0..FILES {
            let mut lines = Vec::new();
            for i in (file..count).step_by(FILES) {
                self.partitions[i].0 = format!("file-{file}:{i}");
                let is_newcomer = i >= FILES && i + FILES >= count;
                let (from, behind) = if is_newcomer { (NEWCOMER_STEP, NEWCOMER_BEHIND) } else { (0, 0) };
                let begun = self.begun[i].iter().enumerate().filter(|(_, step)| **step >= from);
                lines.extend(begun.map(|(at, step)| (step + behind, i, at)));
            }
            lines.sort_unstable();
            for (offset, (_, i, at)) in lines.iter().enumerate() {
                self.partitions[*i].1[*at].offset = offset as u64;
            }
            let lines = lines.into_iter().map(|(_, i, at)| (i, at)).collect();
            files.push(File { name: format!("file-{file}"), lines });
        }
        self.files = files;
        self
    }

    /// The first record of a partition that was begun at a time or later; the last, if there is none.
    pub fn record_at(&mut self, partition: usize, at: Timestamp) -> Option<&mut Record> {
        let step = (at.secs() - START_SECS) / STEP_SECS;
        let ix = self.begun[partition].partition_point(|begun| *begun < step);
        let records = &mut self.partitions[partition].1;
        let ix = ix.min(records.len().checked_sub(1)?);
        records.get_mut(ix)
    }

    /// When a live source would have received a record: soon after it was begun.
    pub fn received(&self, partition: usize, record: usize) -> Timestamp {
        let step = self.begun[partition][record] + 1;
        Timestamp::from_secs(START_SECS + step * STEP_SECS)
    }

    /// All records.
    pub fn len(&self) -> usize {
        self.partitions.iter().map(|(_, records)| records.len()).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn labels(service: &str, more: &[(&str, &str)]) -> Labels {
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    Labels::new(more.iter().chain([&("service", service)]).map(pair))
}

/// Keys of a service's series that fall into so few key groups.
fn crowded(metric: &str, service: &str, groups: usize, count: usize) -> Vec<Vec<u8>> {
    let key = |i: usize| key_of(metric, &labels(service, &[("part", &format!("p{i}"))]));
    (0..).map(key).filter(|key| KeyGroup::of(key).ix() < groups).take(count).collect()
}

impl Maker {
    fn step(&mut self, step: i64) {
        self.step = step;
        let now = Timestamp::from_secs(START_SECS + step * STEP_SECS);
        for (service, name) in SERVICES.iter().enumerate() {
            let broken = (400..480).contains(&step) && service == 1;
            for node in 0..NODES {
                // Nodes scrape at different rates; the slowest every 30 s, which is three bins.
                if step % [1, 2, 3, 6][node] == 0 {
                    self.counters(now, service, name, node, broken);
                }
                if !(service == 2 && (600..700).contains(&step)) {
                    self.gauge(now, name, node, broken);
                }
            }
            if step % 2 == 0 {
                self.latency(now, service, broken);
            }
            self.events(now, name, broken);
        }
        if step % 12 == 0 {
            self.queues(now);
        }
        self.pods(now, step);
        if step % JOB_STEPS == 0 {
            self.jobs(now, step / JOB_STEPS);
        }
        if step == 395 {
            self.event(now, "deploy", SERVICES[1], "v2");
        }
        self.silence(step, now);
    }

    fn counters(&mut self, now: Timestamp, service: usize, name: &str, node: usize, broken: bool) {
        for (code, share) in [("2xx", 0.99), ("5xx", 0.01)] {
            let share = if broken { 0.5 } else { share };
            let ix = (service * NODES + node) * 2 + usize::from(code == "5xx");
            self.totals[ix] += share * (100.0 + 3.0 * self.rng.noise()) + self.rng.unit() / 3.0;
            if self.rng.one_in(700) {
                self.totals[ix] = self.rng.unit() * 10.0;
            }
            let node = format!("n{node}");
            let key = key_of("requests", &labels(name, &[("node", &node), ("code", code)]));
            let value = self.totals[ix];
            self.point(now, &key, Kind::Cumulative, value);
        }
    }

    fn gauge(&mut self, now: Timestamp, name: &str, node: usize, broken: bool) {
        let daily = (now.secs() as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let value = 1e9 / 3.0 + 1e6 * daily + 1e4 * self.rng.noise() + if broken { 1e7 } else { 0.0 };
        let node = format!("n{node}");
        self.point(now, &key_of("load", &labels(name, &[("node", &node)])), Kind::Gauge, value);
    }

    /// Of very different sizes and with full mantissas, so that the order of a sum shows in it.
    fn queues(&mut self, now: Timestamp) {
        for queue in 0..QUEUES {
            let key = self.queues[queue].clone();
            let value = 10_f64.powi(self.rng.below(7) as i32) * (1.0 + self.rng.unit());
            self.point(now, &key, Kind::Gauge, value);
        }
    }

    /// Two containers of a pod, in partitions of their own. Every other bearer of a name has another kind of series.
    fn pods(&mut self, now: Timestamp, step: i64) {
        let life = step / POD_STEPS;
        let pod = format!("pod-{}", life % POD_NAMES);
        let kind = if life / POD_NAMES % 2 == 0 { Kind::Gauge } else { Kind::Delta };
        for (service, container) in [(SERVICES[0], "app"), (SERVICES[1], "app"), (SERVICES[0], "proxy")] {
            let pod = format!("{service}-{pod}");
            let key = key_of("pod_load", &labels(service, &[("pod", &pod), ("container", container)]));
            let value = 10.0 + self.rng.noise() + if self.rng.one_in(40) { 100.0 } else { 0.0 };
            self.point(now, &key, kind, value);
            // Half of them say that they end, some of them before they do.
            if step % POD_STEPS >= POD_STEPS - 3 && life % 2 == 0 && container == "app" {
                let (at, partition) = (now.plus(Span::from_secs(4)), self.home(&key));
                let record = self.record(partition);
                let key = record.push_key(&key);
                record.push_end(key, Aliases::NONE, at);
            }
        }
    }

    /// A job that has a name of its own in each run, and one that keeps its name.
    fn jobs(&mut self, now: Timestamp, run: i64) {
        for service in SERVICES {
            for run in [format!("run-{}", run % 4), "always".to_owned()] {
                let value = 5.0 + self.rng.noise();
                self.point(now, &key_of("job", &labels(service, &[("run", &run)])), Kind::Gauge, value);
            }
        }
    }

    fn latency(&mut self, now: Timestamp, service: usize, broken: bool) {
        for (part, bounds) in BOUNDS.into_iter().enumerate() {
            let buckets = &mut self.buckets[service * BOUNDS.len() + part];
            for (i, weight) in [50, 30, 10, 3, u64::from(broken) * 200].into_iter().enumerate() {
                buckets[i.min(bounds.len())] += weight + self.rng.below(5);
            }
            let counts = buckets[..=bounds.len()].to_vec();
            let h = Histogram { bounds: bounds.to_vec(), counts };
            let key = self.latencies[service][part].clone();
            let partition = self.home(&key);
            let record = self.record(partition);
            record.push_histogram(&key, now, Timestamp::MIN, Kind::CumulativeHistogram, h);
        }
    }

    fn events(&mut self, now: Timestamp, name: &str, broken: bool) {
        for _ in 0..self.rng.below(3) + if broken { 8 } else { 0 } {
            self.event(now, "log", name, "something happened");
        }
    }

    fn event(&mut self, now: Timestamp, kind: &str, service: &str, body: &str) {
        let at = self.jitter(now);
        let partition = self.rng.below(self.partitions.len() as u64) as usize;
        let event = Event { at, kind: kind.to_owned(), labels: labels(service, &[]), body: body.to_owned() };
        self.record(partition).events.push(event);
    }

    /// A point at home in its series' partition, now and then in another, twice, or wrong.
    fn point(&mut self, now: Timestamp, key: &[u8], kind: Kind, value: f64) {
        let at = self.jitter(now);
        let hops = self.rng.one_in(15);
        let partition =
            if hops { self.rng.below(self.partitions.len() as u64) as usize } else { self.home(key) };
        let odd = self.rng.below(400);
        let value = if odd == 0 { f64::NAN } else { value };
        let start = Timestamp::MIN;
        self.record(partition).push_point(key, at, start, kind, value);
        if odd == 1 {
            self.record(partition).push_point(key, at, start, kind, value);
        }
        if odd == 2 {
            let other = (partition + 1) % self.partitions.len();
            self.record(other).push_point(key, at, start, kind, value + 1.0);
        }
        if odd == 3 {
            self.record(partition).push_point(key, at.plus(Span::from_secs(86_400)), start, kind, value);
        }
        if odd == 4 {
            self.record(partition).push_point(key, at.minus(Span::from_secs(300)), start, kind, value);
        }
    }

    fn home(&self, key: &[u8]) -> usize {
        relight_core::series::hash(key) as usize / 7 % self.partitions.len()
    }

    /// Up to 7 s early, which the lateness allows for, and with all digits of a nanosecond.
    fn jitter(&mut self, now: Timestamp) -> Timestamp {
        let early = if self.rng.one_in(3) { self.rng.below(7_000_000_000) as i64 } else { 0 };
        now.minus(Span::from_ns(early)).plus(Span::from_ns(self.rng.below(1_000_000_000) as i64))
    }

    /// The partition's newest record, or a new one behind it.
    fn record(&mut self, partition: usize) -> &mut Record {
        let begin = self.rng.one_in(4) || self.partitions[partition].is_empty();
        let records = &mut self.partitions[partition];
        if begin {
            let offset = records.last().map_or(0, |r| r.offset + 1);
            records.push(Record { offset, ..Record::default() });
            self.begun[partition].push(self.step);
        }
        records.last_mut().expect("there is one now")
    }

    /// The last partition falls idle once, and says so; once it stalls and is advanced by force, so
    /// that what it brings afterwards is late.
    fn silence(&mut self, step: i64, now: Timestamp) {
        let last = self.partitions.len() - 1;
        if step == 200 || step == 550 {
            let ahead = if step == 200 { 0 } else { 60 };
            let to = now.plus(Span::from_secs(ahead));
            let offset = self.partitions[last].last().map_or(0, |r| r.offset + 1);
            let controls = vec![ControlRecord::Advance { to }];
            self.partitions[last].push(Record { offset, controls, ..Record::default() });
            self.begun[last].push(step);
        }
    }
}
