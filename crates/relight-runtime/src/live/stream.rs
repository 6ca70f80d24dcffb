//! One partition that is read live: its queue, and what its decoder remembers.

use relight_core::Timestamp;
use relight_core::record::{Reason, Record};
use relight_ingest::live::{Load, Outlet, Verdict};
use relight_ingest::otlp::wire::OtlpMetrics;

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
    /// Made at the first request that needs it.
    decoder: Option<Box<OtlpMetrics>>,
}

impl Stream {
    pub(super) fn new(ix: u32, outlet: Outlet) -> Self {
        Self { ix, outlet, held: false, closed: false, decoder: None }
    }

    /// Decodes a delivery into `record` and takes it in.
    pub(super) fn take(
        &mut self,
        pipeline: &mut Pipeline,
        record: &mut Record,
        offset: u64,
        received: Timestamp,
        load: Load,
    ) -> Result<Verdict, RuntimeError> {
        let before = pipeline.refused();
        match load {
            Load::Metrics(body) => {
                let decoder = self.decoder.get_or_insert_default();
                decoder.aliases().renew(pipeline.names_generation());
                if let Err(error) = decoder.decode(&body, offset, Some(received), record) {
                    // Its place in the partition is taken all the same, and that it was refused is counted.
                    record.clear(offset, Some(received));
                    record.refuse(Reason::Malformed);
                    pipeline.handle(self.ix, record)?;
                    return Ok(Verdict::Malformed(error.to_string()));
                }
                pipeline.handle_aliased(self.ix, record, decoder.aliases())?;
            }
            Load::Record(mut decoded) => {
                decoded.offset = offset;
                decoded.received = Some(received);
                std::mem::swap(record, &mut *decoded);
                pipeline.handle(self.ix, record)?;
            }
            Load::Nothing | Load::CaughtUp | Load::Unreachable(_) => {
                record.clear(offset, Some(received));
                pipeline.handle(self.ix, record)?;
            }
        }
        let after = pipeline.refused();
        let refused = Reason::ALL.iter().zip(before.iter().zip(after));
        let refused = refused.map(|(reason, (before, after))| (*reason, (after - before) as u32));
        Ok(Verdict::Taken(refused.filter(|(_, n)| *n > 0).collect()))
    }
}
