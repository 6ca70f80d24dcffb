//! Sources: captures (recorded streams, read a record at a time, and written) and [`listen`]ers, with [`live`] the way
//! from these to the engine; OTLP's protobuf is read as it lies in a request ([`otlp::wire`]).
//!
//! A capture is a file (or standard input) of newline-delimited JSON, OTLP JSON lines, OTLP messages behind their lengths,
//! Prometheus text with timestamps, or `timestamp,value` rows; each plain, gzip or zstd, told apart by what they hold. One
//! line or message is one record, and its number, from 0, is the record's offset.
//!
//! No bin, no watermark and no clock in here. A line that cannot be read is never an error: it is
//! counted in its record, the first few are kept as messages, and the rest of the file goes on.

mod capture;
#[cfg(feature = "kafka")]
mod cloudevents;
mod complaints;
mod csv;
mod error;
mod file;
mod journal;
mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
mod key;
mod lines;
pub mod listen;
pub mod live;
mod memo;
pub mod memory;
mod ndjson;
pub mod otlp;
mod prometheus;
mod scan;
mod sniff;
mod source;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};

use relight_core::record::{ControlRecord, Record};

pub use crate::capture::{CaptureFile, Captured};
pub use crate::csv::{SampleRow, SampleRows, sample_rows};
pub use crate::error::IngestError;
pub use crate::journal::JournalError;
pub use crate::lines::MAX_LINE_BYTES;

const MAX_TEXT_BYTES: u64 = 64 << 20;

/// One capture, read in order.
pub trait CaptureSource: Send {
    /// The partitions seen so far. `next` answers with an index into this; the first is the file
    /// itself, the others are those that its records name.
    fn partitions(&self) -> &[String];
    /// Reads the next record into `record` and says whose it is; `None` at the end of the file.
    ///
    /// A bad line gives a record that has refused it. An error means that the file can be read no
    /// further: the disk failed, or a compressed stream is damaged.
    fn next(&mut self, record: &mut Record) -> Result<Option<u32>, IngestError>;
    /// Passes over the records at the front of the file whose offsets lie below their partition's
    /// `next_offset`, without decoding them. To be called before the first `next`.
    fn skip_to(&mut self, next_offset: &dyn Fn(&str) -> u64) -> Result<(), IngestError>;
    /// Bytes of the file on disk that were consumed, and how many it has (0 = not known).
    fn progress(&self) -> (u64, u64);
    /// The first bad lines, as `file:line: reason`, lines counted from 1; and, at the end of a table, what of
    /// it was left alone or stands in no order.
    fn complaints(&self) -> &[String];
    /// Whether this is a single series of samples (a CSV), where each row is a bin of its own.
    fn is_samples(&self) -> bool;
    /// Whether no row of a table was older than the one before. Where each row is a bin of its own, times of
    /// others are made up.
    fn is_in_order(&self) -> bool {
        true
    }
}

/// Opens a capture: a file, a folder (its captures in name order, without its sub-folders), or `-`
/// for standard input.
pub fn open(path: &Path) -> Result<Vec<Box<dyn CaptureSource>>, IngestError> {
    if path.is_dir() {
        return open_folder(path);
    }
    Ok(vec![Box::new(source::open(path)?)])
}

/// The whole text of a file that lies beside captures, plain or compressed as they are; at most 64 MiB.
pub fn read_text(path: &Path) -> Result<String, IngestError> {
    let failed = |source| IngestError::Read { path: path.to_owned(), line: 0, source };
    let (mut text, mut bytes) = (String::new(), file::open(path)?.bytes.take(MAX_TEXT_BYTES + 1));
    let n = bytes.read_to_string(&mut text).map_err(failed)?;
    if n as u64 > MAX_TEXT_BYTES {
        return Err(failed(std::io::Error::other("it is larger than 64 MiB")));
    }
    Ok(text)
}

/// The outcomes of actions that a capture holds ([`ControlRecord::Outcome`]), of all the files that
/// [`open`] would give. They are wanted before the replay begins, so the files are read once more: at
/// a tenth of the cost of decoding. Standard input can be read once only and gives none.
pub fn recorded_outcomes(path: &Path) -> Result<Vec<ControlRecord>, IngestError> {
    if file::is_stdin(path) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for file in if path.is_dir() { captures_in(path)? } else { vec![path.to_owned()] } {
        match source::outcomes(&file) {
            Ok(outcomes) => found.extend(outcomes),
            Err(IngestError::Labels { .. }) if path.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn open_folder(path: &Path) -> Result<Vec<Box<dyn CaptureSource>>, IngestError> {
    let mut sources: Vec<Box<dyn CaptureSource>> = Vec::new();
    for file in captures_in(path)? {
        match source::open(&file) {
            Ok(source) => sources.push(Box::new(source)),
            // The labels of a capture often lie beside it.
            Err(IngestError::Labels { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if sources.is_empty() {
        return Err(IngestError::NoCaptures { path: path.to_owned() });
    }
    Ok(sources)
}

/// Files of a folder that are named like captures, in name order.
fn captures_in(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let failed = |source| IngestError::Open { path: path.to_owned(), source };
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let mut files = entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .filter(|file| file.as_ref().map_or(true, |file: &PathBuf| sniff::named_like_a_capture(file)))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}
