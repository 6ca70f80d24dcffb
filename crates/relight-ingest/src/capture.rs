//! Writes a capture as it comes in: a file that `relight replay` reads.
//!
//! Lines gather in a block, which goes to the file in one write once it is large or a second old; with compression
//! each block is a gzip member or a zstd frame of its own. So the file always ends with a whole block: a kill costs
//! at most the last second, and a full disk what did not fit. Nothing here knows a stream or decides what is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relight_core::record::Record;
use relight_core::{Span, Timestamp};

use crate::error::IngestError;
use crate::ndjson::write;

/// A block of this size is written. Beyond it zstd gains a few per cent and memory is what it costs.
const BLOCK_BYTES: usize = 1 << 20;
/// A block of this age is written.
const BLOCK_AGE: Span = Span::from_secs(1);
/// Where a partition's watermark lies that nothing has moved yet: before all that is recorded.
const NOWHERE: Timestamp = Timestamp::from_secs(0);

/// How a capture is compressed: by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|end| end.to_str()).unwrap_or_default() {
            "gz" => Self::Gzip,
            "zst" | "zstd" => Self::Zstd,
            _ => Self::Plain,
        }
    }

    fn pack(self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(block.to_vec()),
            Self::Gzip => {
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packed.write_all(block)?;
                packed.finish()
            }
            Self::Zstd => zstd::encode_all(block, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }
}

/// What a capture holds so far, to be read while it is written.
#[derive(Debug, Default)]
pub struct Captured {
    /// Points.
    pub points: AtomicU64,
    /// Events.
    pub events: AtomicU64,
    /// Bytes of the file.
    pub bytes: AtomicU64,
}

/// A capture that is being written.
pub struct CaptureFile {
    path: PathBuf,
    file: File,
    packing: Packing,
    block: Vec<u8>,
    /// When the block's first line came.
    since: Option<Timestamp>,
    captured: Arc<Captured>,
}

impl CaptureFile {
    /// Creates the file, compressed if its name ends in `.gz` or `.zst`. One that is there already is an error, unless
    /// it may be replaced.
    pub fn create(path: &Path, replace: bool) -> Result<Self, IngestError> {
        let mut how = OpenOptions::new();
        how.write(true);
        if replace {
            how.create(true).truncate(true)
        } else {
            how.create_new(true)
        };
        let file = how.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IngestError::Exists { path: path.to_owned() },
            _ => IngestError::Open { path: path.to_owned(), source },
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            packing: Packing::of(path),
            block: Vec::with_capacity(BLOCK_BYTES),
            since: None,
            captured: Arc::default(),
        })
    }

    /// What it holds so far.
    pub fn captured(&self) -> Arc<Captured> {
        Arc::clone(&self.captured)
    }

    /// A partition is read from now on: from its first line on a replay waits for it, as the live run does.
    pub fn opened(&mut self, partition: &str, now: Timestamp) -> Result<(), IngestError> {
        self.advanced(partition, NOWHERE, now)
    }

    /// A record came. Its points have their keys.
    pub fn record(&mut self, partition: &str, record: &Record) -> Result<(), IngestError> {
        write::record(partition, record, &mut self.block);
        self.captured.points.fetch_add(record.points.len() as u64, Ordering::Relaxed);
        self.captured.events.fetch_add(record.events.len() as u64, Ordering::Relaxed);
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// A silent partition's watermark moved.
    pub fn advanced(&mut self, partition: &str, to: Timestamp, now: Timestamp) -> Result<(), IngestError> {
        write::advance(partition, to, now, &mut self.block);
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Time goes on: a block that is old enough is written.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), IngestError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        if now >= since.plus(BLOCK_AGE) { self.flush() } else { Ok(()) }
    }

    /// Writes what is left, and has the disk take it.
    pub fn finish(mut self) -> Result<(), IngestError> {
        self.flush()?;
        let synced = self.file.sync_all();
        synced.map_err(|source| IngestError::Write { path: self.path, source })
    }

    fn flush(&mut self) -> Result<(), IngestError> {
        let whole = self.captured.bytes.load(Ordering::Relaxed);
        let written = self.packing.pack(&self.block).and_then(|packed| {
            self.file.write_all(&packed)?;
            Ok(whole + packed.len() as u64)
        });
        self.block.clear();
        self.since = None;
        match written {
            Ok(bytes) => self.captured.bytes.store(bytes, Ordering::Relaxed),
            Err(source) => {
                // What is left of the block is no line. If that fails too, a plain file ends with half a line.
                let _ = self.file.set_len(whole);
                return Err(IngestError::Write { path: self.path.clone(), source });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
