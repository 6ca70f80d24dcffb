//! One series through Fold, bin by bin, as the engine drives it. Every run is repeated with a snapshot after each bin.

mod counters;
mod histograms;
mod properties;

use relight_core::codec::Reader;
use relight_core::record::{Histogram, Kind, Reason};
use relight_core::{KeyGroup, Span, Timestamp};

use super::{Closing, Fold, Partials};
use crate::counters::{Counters, Fall};
use crate::directory::{Channel, Feed, NewSeries, RowAddr, SeriesAddr};
use crate::intake::{Routed, Run};

const GROUP: usize = 3;
const EPOCH: i64 = 1_700_000_000;

fn secs(secs: f64) -> Timestamp {
    Timestamp::from_secs(EPOCH).plus(Span::from_ns((secs * 1e9).round() as i64))
}

/// A point: seconds, and what was sent then.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    at: f64,
    /// In seconds, too.
    start: Option<f64>,
    kind: Kind,
    value: f64,
    histogram: Option<Histogram>,
}

/// A point of a running total without a start.
fn total(at: f64, value: f64) -> Sample {
    Sample { at, start: None, kind: Kind::Cumulative, value, histogram: None }
}

/// The same with a start.
fn since(start: f64, at: f64, value: f64) -> Sample {
    Sample { start: Some(start), ..total(at, value) }
}

/// What one bin said.
#[derive(Debug, Clone, PartialEq, Default)]
struct Bin {
    /// Start of the bin in seconds.
    at: i64,
    increase: Option<f64>,
    rate: Option<f64>,
    buckets: Option<Histogram>,
}

/// What all bins said, and what was counted.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    bins: Vec<Bin>,
    counters: Counters,
    is_named: bool,
}

impl Outcome {
    fn sum(&self) -> f64 {
        self.bins.iter().filter_map(|bin| bin.increase).sum()
    }

    fn rates(&self) -> Vec<(i64, f64)> {
        self.bins.iter().filter_map(|bin| Some((bin.at, bin.rate?))).collect()
    }

    fn falls(&self) -> [u64; 3] {
        Fall::ALL.map(|fall| self.counters.falls(fall))
    }

    fn shared(&self) -> u64 {
        self.counters.refused(Reason::SharedCounter)
    }
}

struct Stage {
    fold: Fold,
    interval: Span,
    is_named: bool,
}

impl Stage {
    fn new(interval: Span) -> Self {
        let mut stage = Self { fold: Fold::new(interval), interval, is_named: false };
        stage.add();
        stage
    }

    fn add(&mut self) {
        let group = KeyGroup::nth(GROUP);
        let row = |row| RowAddr { signal: 0, group, row };
        let feeds = [Channel::Of, Channel::Rate, Channel::Buckets];
        let feeds =
            (0..).zip(feeds).map(|(ix, channel)| Feed { row: row(ix), channel, is_shared: false }).collect();
        self.fold.add_series(&NewSeries { at: SeriesAddr { group, slot: 0 }, feeds });
    }

    fn push(&mut self, offset: u64, sample: &Sample) {
        let (at, start) = (secs(sample.at), sample.start.map_or(Timestamp::MIN, secs));
        let bin = at.bin_start(self.interval);
        let mut routed = Routed::default();
        routed.begin(&Run { bin, at, start, offset, partition: 0, kind: sample.kind });
        let value = if sample.histogram.is_some() { 0.0 } else { sample.value };
        routed.histograms.extend(sample.histogram.clone());
        routed.push(SeriesAddr { group: KeyGroup::nth(GROUP), slot: 0 }, value);
        self.fold.push(&routed);
    }

    fn close(&mut self, bin: Timestamp) -> Bin {
        let mut out = Partials::default();
        self.fold.close(
            KeyGroup::nth(GROUP),
            &Closing { bin, interval: self.interval, ranks: &[0] },
            &mut out,
        );
        let of = |channel| out.scalars.iter().find(|p| p.channel == channel).map(|p| p.value);
        self.is_named |= !self.fold.take_writer_conflicts().is_empty();
        Bin {
            at: bin.ns() / 1_000_000_000 - EPOCH,
            increase: of(Channel::Of),
            rate: of(Channel::Rate),
            buckets: out.buckets.pop().map(|buckets| buckets.counts),
        }
    }

    /// Goes on from a snapshot.
    fn restore(&mut self) {
        let (mut bytes, group) = (Vec::new(), KeyGroup::nth(GROUP));
        self.fold.save(group, &[0], &[0], &mut bytes);
        self.fold = Fold::new(self.interval);
        self.add();
        let mut reader = Reader::new(&bytes);
        self.fold.load(group, &mut reader).expect("it was saved");
        reader.finish().expect("nothing is left");
    }
}

/// Samples in order of time, in bins of so many seconds.
fn fold(samples: &[Sample], interval: f64) -> Outcome {
    let interval = Span::from_ns((interval * 1e9) as i64);
    let run = |restores: bool| {
        let mut stage = Stage::new(interval);
        let mut bins = Vec::new();
        let bin_of = |sample: &Sample| secs(sample.at).bin_start(interval);
        for of_bin in samples.chunk_by(|a, b| bin_of(a) == bin_of(b)) {
            let half = of_bin.len() / 2;
            for (offset, sample) in (0..).zip(of_bin) {
                if restores && offset == half as u64 {
                    stage.restore();
                }
                stage.push(offset, sample);
            }
            bins.push(stage.close(bin_of(&of_bin[0])));
        }
        Outcome { bins, counters: stage.fold.counters(), is_named: stage.is_named }
    };
    let calm = run(false);
    assert_eq!(run(true), calm, "a snapshot changed the result");
    calm
}
