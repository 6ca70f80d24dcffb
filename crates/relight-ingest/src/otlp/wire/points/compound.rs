//! Histograms and summaries: points that hold more than one number.

use relight_core::Timestamp;
use relight_core::record::{Kind, Reason};

use super::{Common, EXPONENTIAL, HISTOGRAM, Layout, Points, SUMMARY, Series};
use crate::otlp::histogram;
use crate::otlp::model::{Buckets, HistogramPoint};
use crate::otlp::value::{Float, Small, Unsigned};
use crate::otlp::wire::WireError;
use crate::otlp::wire::memo::Hash;
use crate::otlp::wire::reader::{BYTES, Reader};

impl<'a> Points<'_, '_, 'a> {
    pub(super) fn histogram(&mut self, whole: Reader<'a>) -> Result<(), WireError> {
        let (mut point, mut common, mut read) = (whole, Common::default(), HistogramPoint::default());
        while let Some((field, wire)) = point.key()? {
            match field {
                4 => read.count = Unsigned(point.eight(wire)?),
                6 => self.eights(&mut point, wire, |n| read.bucket_counts.push(Unsigned(n)))?,
                7 => {
                    self.eights(&mut point, wire, |n| read.explicit_bounds.push(Float(f64::from_bits(n))))?;
                }
                _ => self.common(HISTOGRAM, (field, wire), &mut point, &mut common)?,
            }
        }
        self.bucketed(whole, HISTOGRAM, &common, &read)
    }

    pub(super) fn exponential(&mut self, whole: Reader<'a>) -> Result<(), WireError> {
        let (mut point, mut common, mut read) = (whole, Common::default(), HistogramPoint::default());
        while let Some((field, wire)) = point.key()? {
            match field {
                4 => read.count = Unsigned(point.eight(wire)?),
                6 => read.scale = Some(Small(zigzag(point.integer(wire)?))),
                7 => read.zero_count = Unsigned(point.eight(wire)?),
                8 => self.side(point.message(wire)?, read.positive.get_or_insert_default())?,
                9 => self.side(point.message(wire)?, read.negative.get_or_insert_default())?,
                14 => read.zero_threshold = Float(point.double(wire)?),
                _ => self.common(EXPONENTIAL, (field, wire), &mut point, &mut common)?,
            }
        }
        // The explicit form has its own number of buckets, whatever the point came with.
        self.walk.budget.buckets(crate::otlp::exponential::size(&read))?;
        self.bucketed(whole, EXPONENTIAL, &common, &read)
    }

    fn bucketed(
        &mut self,
        whole: Reader<'a>,
        layout: Layout,
        common: &Common,
        read: &HistogramPoint<'_>,
    ) -> Result<(), WireError> {
        let series = self.series(whole, layout, common)?;
        let (kind, at) = match self.admit(common) {
            Ok(admitted) => admitted,
            Err(end) => return self.end(series, "", end),
        };
        let histogram = match histogram::of(read, layout.attributes == EXPONENTIAL.attributes) {
            Ok(histogram) => histogram,
            Err(why) => {
                self.refuse((Reason::BadHistogram, why));
                return Ok(());
            }
        };
        let ix = self.walk.record.histograms.len() as f64;
        if self.place(series, ("", None), (at, common.start.start()), kind, ix)? {
            self.walk.record.histograms.push(histogram);
        }
        Ok(())
    }

    /// Repeated words of eight bytes, packed or one by one.
    fn eights(
        &mut self,
        point: &mut Reader<'a>,
        wire: u8,
        mut push: impl FnMut(u64),
    ) -> Result<(), WireError> {
        if wire != BYTES {
            self.walk.budget.buckets(1)?;
            push(point.eight(wire)?);
            return Ok(());
        }
        let mut packed = point.packed()?;
        self.walk.budget.buckets(packed.rest().len() / 8)?;
        while !packed.rest().is_empty() {
            push(packed.fixed64()?);
        }
        Ok(())
    }

    /// One side of an exponential histogram.
    fn side(&mut self, mut message: Reader<'a>, out: &mut Buckets) -> Result<(), WireError> {
        while let Some((field, wire)) = message.key()? {
            match field {
                1 => out.offset = Small(zigzag(message.integer(wire)?)),
                2 if wire == BYTES => {
                    let mut packed = message.packed()?;
                    while !packed.rest().is_empty() {
                        self.walk.budget.buckets(1)?;
                        out.bucket_counts.push(Unsigned(packed.varint()?));
                    }
                }
                2 => {
                    self.walk.budget.buckets(1)?;
                    out.bucket_counts.push(Unsigned(message.integer(wire)?));
                }
                _ => message.skip(field, wire)?,
            }
        }
        Ok(())
    }

    /// Gauges by quantile and two counters, each a series of its own.
    pub(super) fn summary(&mut self, whole: Reader<'a>) -> Result<(), WireError> {
        // One is counted already: a summary is two counters, and a gauge for each quantile.
        self.walk.budget.points(1)?;
        let (mut point, mut common, mut count, mut sum) = (whole, Common::default(), 0, 0.0);
        let mut quantiles = std::mem::take(&mut self.walk.decoder.quantiles);
        quantiles.clear();
        while let Some((field, wire)) = point.key()? {
            match field {
                4 => count = point.eight(wire)?,
                5 => sum = point.double(wire)?,
                6 => {
                    self.walk.budget.points(1)?;
                    quantiles.push(quantile(point.message(wire)?)?);
                }
                _ => self.common(SUMMARY, (field, wire), &mut point, &mut common)?,
            }
        }
        let series = self.series(whole, SUMMARY, &common)?;
        let admitted = self.admit(&common);
        for (quantile, value) in &quantiles {
            let Ok((kind, at)) = admitted else { break };
            let series = self.part_of(series, &common, [quantile.to_bits(), 1]);
            self.scalar(series, ("", Some(*quantile)), (at, Timestamp::MIN), kind, *value)?;
        }
        self.walk.decoder.quantiles = quantiles;
        for (series, part, value) in
            [(series, "_count", count as f64), (self.part_of(series, &common, [0, 2]), "_sum", sum)]
        {
            match admitted {
                Ok((_, at)) => {
                    let times = (at, common.start.start());
                    self.scalar(series, (part, None), times, Kind::Cumulative, value)?;
                }
                Err(end) => self.end(series, part, end)?,
            }
        }
        Ok(())
    }

    /// Another series of the same attributes, which are checked already.
    fn part_of(&mut self, series: Series<'a>, common: &Common, part: Hash) -> Series<'a> {
        let memo = &mut self.walk.decoder.memo;
        let hash = memo.join(memo.join(self.hash, common.attributes.unwrap_or_default()), part);
        Series { alias: memo.find(hash).unwrap_or_else(|| memo.insert(hash, 0)), ..series }
    }
}

fn quantile(mut message: Reader<'_>) -> Result<(f64, f64), WireError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    while let Some((field, wire)) = message.key()? {
        match field {
            1 => quantile = message.double(wire)?,
            2 => value = message.double(wire)?,
            _ => message.skip(field, wire)?,
        }
    }
    Ok((quantile, value))
}

/// A signed number whose sign is its lowest bit.
const fn zigzag(word: u64) -> i32 {
    let word = word as u32;
    (word >> 1) as i32 ^ -((word & 1) as i32)
}
