//! A live run that writes down what it takes in. Decides nothing: without a file, nothing happens here.

use relight_core::Timestamp;
use relight_core::record::Record;
use relight_ingest::{CaptureFile, IngestError};

use super::Live;
use crate::error::RuntimeError;

impl Live {
    /// Writes down all that is taken in, and how silence moves time: a replay of it comes to the same.
    pub fn capture(&mut self, file: CaptureFile) {
        self.recording = Recording(Some(file));
    }

    /// Tells what was lost because nothing wrote it down.
    pub(super) fn gap(&mut self, ix: u32, partition: &str, now: Timestamp) {
        let newest = self.pipeline.partition_newest(ix);
        if newest.is_known() {
            self.figures.gaps.insert(partition.to_owned(), now.since(newest).secs_f64());
            self.notice(&format!(
                "gap: {partition}: what came after {newest} is missing unless it is sent again: the process was killed after its last snapshot (`journal: fsync` keeps what was answered)"
            ));
        }
    }

    /// A silent partition's watermark moves.
    pub(super) fn advance(
        &mut self,
        ix: u32,
        partition: &str,
        to: Timestamp,
        now: Timestamp,
    ) -> Result<(), RuntimeError> {
        self.recording.advanced(partition, to, now)?;
        self.pipeline.record_advance(ix, partition, to)
    }
}

/// The file, if there is one.
#[derive(Default)]
pub(super) struct Recording(pub(super) Option<CaptureFile>);

impl Recording {
    pub(super) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn opened(&mut self, partition: &str, now: Timestamp) -> Result<(), IngestError> {
        self.0.as_mut().map_or(Ok(()), |file| file.opened(partition, now))
    }

    pub(super) fn record(&mut self, partition: &str, record: &Record) -> Result<(), IngestError> {
        self.0.as_mut().map_or(Ok(()), |file| file.record(partition, record))
    }

    fn advanced(&mut self, partition: &str, to: Timestamp, now: Timestamp) -> Result<(), IngestError> {
        self.0.as_mut().map_or(Ok(()), |file| file.advanced(partition, to, now))
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), IngestError> {
        self.0.as_mut().map_or(Ok(()), |file| file.tick(now))
    }

    pub(super) fn finish(&mut self) -> Result<(), IngestError> {
        self.0.take().map_or(Ok(()), CaptureFile::finish)
    }
}
