//! One partition that is read live: its queue, and what its decoder remembers.

use relight_core::aliases::Aliases;
use relight_core::record::{Point, Reason, Record};
use relight_core::{Span, Timestamp};
use relight_ingest::live::{Load, Outlet, Reads, Verdict};
use relight_ingest::otlp::wire::OtlpMetrics;

use super::lateness::Lateness;
use super::recording::Recording;
use crate::error::RuntimeError;
use crate::pipeline::Pipeline;

pub(super) struct Stream {
    /// Its index in Intake.
    pub(super) ix: u32,
    pub(super) outlet: Outlet,
    /// Too far ahead of the others to be read.
    pub(super) held: bool,
    /// The source has let go of it.
    pub(super) closed: bool,
    pub(super) lateness: Lateness,
    /// Made at the first request that needs it.
    decoder: Option<Box<OtlpMetrics>>,
}

impl Stream {
    pub(super) fn new(ix: u32, outlet: Outlet, allowed: Span) -> Self {
        let lateness = Lateness::new(allowed);
        Self { ix, outlet, held: false, closed: false, lateness, decoder: None }
    }

    /// That its points come too late to count, in words, while they do.
    pub(super) fn late(&self) -> Option<String> {
        let p99 = self.lateness.p99()?;
        let partition = &self.outlet.partition;
        let late = format!(
            "{partition}: more than 1 % of its points are older than `allowed_lateness` lets them be, and do not count; "
        );
        let example = self.lateness.example();
        let sender = example.map(|example| example.sender.as_str()).filter(|sender| !sender.is_empty());
        let more = match (example.and_then(|example| example.unit), sender) {
            (Some(unit), Some(sender)) => format!("those of {sender} have their times in {unit}"),
            (Some(unit), None) => format!("their times are in {unit}"),
            (None, Some(sender)) => format!("99 % come within {p99}, late ones are of {sender}"),
            (None, None) => format!("99 % come within {p99}"),
        };
        Some(late + &more)
    }

    /// Decodes a delivery into `record` and takes it in, once it is written down.
    pub(super) fn take(
        &mut self,
        (pipeline, recording): (&mut Pipeline, &mut Recording),
        record: &mut Record,
        offset: u64,
        received: Timestamp,
        load: Load,
    ) -> Result<Verdict, RuntimeError> {
        let (before, watermark) = (pipeline.refused(), pipeline.partition_watermark(self.ix));
        match load {
            Load::Metrics(body) => {
                let new = || Box::new(OtlpMetrics::for_series(pipeline.max_series()));
                let decoder = self.decoder.get_or_insert_with(new);
                decoder.renew(pipeline.names_generation());
                if let Err(error) = decoder.decode(&body, offset, Some(received), record) {
                    // Its place in the partition is taken all the same, and that it was refused is counted.
                    record.clear(offset, Some(received));
                    record.refuse(Reason::Malformed);
                    pipeline.handle(self.ix, record)?;
                    return Ok(Verdict::Malformed(error.to_string()));
                }
                if self.outlet.reads == Reads::Push && pipeline.defers(record, Some(decoder.aliases())) {
                    return Ok(deferred(record));
                }
                if recording.is_on() {
                    // What a number stands for is not learned, so that every series of every request is named.
                    let named = record.points.iter_mut().chain(&mut record.ends);
                    named.for_each(|point| point.alias = Aliases::NONE);
                    recording.record(&self.outlet.partition, record)?;
                }
                pipeline.handle_aliased(self.ix, record, decoder.aliases())?;
            }
            Load::Record(mut decoded) => {
                decoded.offset = offset;
                decoded.received = Some(received);
                std::mem::swap(record, &mut *decoded);
                if self.outlet.reads == Reads::Push && pipeline.defers(record, None) {
                    return Ok(deferred(record));
                }
                recording.record(&self.outlet.partition, record)?;
                pipeline.handle(self.ix, record)?;
            }
            Load::Started => {
                record.clear(offset, Some(received));
                pipeline.start(self.ix, offset);
            }
            Load::Nothing | Load::CaughtUp | Load::Unreachable(_) => {
                record.clear(offset, Some(received));
                pipeline.handle(self.ix, record)?;
            }
        }
        let after = pipeline.refused();
        let refused = Reason::ALL.iter().zip(before.iter().zip(after));
        let refused = refused.map(|(reason, (before, after))| (*reason, (after - before) as u32));
        let refused: Vec<_> = refused.filter(|(_, n)| *n > 0).collect();
        let late = refused.iter().find(|(reason, _)| *reason == Reason::Late);
        let mut names = record.refusals.clone();
        names.merge(&pipeline.take_refusals());
        let known = self.decoder.as_mut().map(|decoder| &*decoder.aliases());
        let (record, pipeline) = (&*record, &*pipeline);
        let key = |point: &Point| match known.and_then(|aliases| aliases.get(point.alias)) {
            Some(ix) if point.key_len == 0 => pipeline.series_key(ix),
            _ => record.key(point),
        };
        self.lateness.count(record, late.map_or(0, |(_, n)| *n), watermark, key);
        Ok(if names.is_empty() { Verdict::Taken(refused) } else { Verdict::TakenInPart { refused, names } })
    }
}

/// Nothing of it is in, and its place in the partition is not taken.
fn deferred(record: &mut Record) -> Verdict {
    record.clear(record.offset, record.received);
    Verdict::Busy("relight is short of memory, and this brings new series".to_owned())
}
