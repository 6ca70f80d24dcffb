//! A capture file as a source: lines in, records out, by whichever decoder its format needs.

use std::fmt::Display;
use std::io;
use std::path::{Component, Path, PathBuf};

use relight_core::record::{ControlRecord, Reason, Record};
use relight_core::refusal::Origin;

use crate::CaptureSource;
use crate::complaints::Complaints;
use crate::error::IngestError;
use crate::file::{self, Consumed};
use crate::lines::{Line, Lines, MAX_LINE_BYTES};
use crate::ndjson::Ndjson;
use crate::sniff;

/// Partitions that one file may name.
const MAX_PARTITIONS: usize = 4_096;
/// What is shown of a partition's name, so that a message stays a line.
const SHOWN_CHARS: usize = 80;

/// Where a decoder puts what it reads.
pub(crate) struct Sink<'a> {
    pub(crate) record: &'a mut Record,
    partitions: &'a mut Vec<String>,
    complaints: &'a mut Complaints,
    line: u64,
}

impl<'a> Sink<'a> {
    /// `partitions` has the name of what is read; `line` is the one that complaints name.
    pub(crate) fn new(
        record: &'a mut Record,
        partitions: &'a mut Vec<String>,
        complaints: &'a mut Complaints,
        line: u64,
    ) -> Self {
        Self { record, partitions, complaints, line }
    }
}

impl Sink<'_> {
    /// Counts a refusal, and keeps the reason for people while enough was not told of its kind.
    pub(crate) fn refuse(&mut self, reason: Reason, why: impl Display) {
        self.record.refuse_named(reason, Origin::default(), &why.to_string(), 1);
        self.complaints.refused(&self.partitions[0], self.line, why);
    }

    /// The same of `count` points or log records of one origin.
    pub(crate) fn refuse_named(&mut self, reason: Reason, origin: Origin<'_>, why: &str, count: u32) {
        self.record.refuse_named(reason, origin, why, count);
        let colon = if origin == Origin::default() { "" } else { ": " };
        self.complaints.refused(&self.partitions[0], self.line, format_args!("{origin}{colon}{why}"));
    }

    /// Tells people of the refusals that the record names already.
    pub(crate) fn complain(&mut self) {
        for kind in self.record.refusals.kinds() {
            self.complaints.refused(&self.partitions[0], self.line, kind);
        }
    }

    /// The line that is read, counted from 1.
    pub(crate) const fn line(&self) -> u64 {
        self.line
    }

    /// Tells people something about this line that is no refusal.
    pub(crate) fn remark(&mut self, what: impl Display) {
        self.remark_at(self.line, what);
    }

    /// The same about another line. There is always room for these: a decoder has one or two a file.
    pub(crate) fn remark_at(&mut self, line: u64, what: impl Display) {
        self.complaints.remark(format!("{}:{line}: {what}", self.partitions[0]));
    }

    /// The index of a partition that a record names.
    pub(crate) fn partition(&mut self, name: &str) -> Option<u32> {
        let full = partition_name(&self.partitions[0], name);
        if let Some(ix) = self.partitions.iter().position(|known| *known == full) {
            return Some(ix as u32);
        }
        if self.partitions.len() >= MAX_PARTITIONS {
            let shown: String = name.chars().take(SHOWN_CHARS).collect();
            self.refuse(
                Reason::Malformed,
                format_args!("partition `{shown}` is one too many (at most {MAX_PARTITIONS})"),
            );
            return None;
        }
        self.partitions.push(full);
        Some(self.partitions.len() as u32 - 1)
    }
}

/// Offsets are line numbers of this file, so a partition's name must carry the file's.
fn partition_name(file: &str, name: &str) -> String {
    format!("{file}:{name}")
}

/// One format: lines in, records out.
pub(crate) trait Decoder: Send {
    /// Reads one line into the sink's record. Answers with the partition, or with `None` if the line
    /// makes no record by itself (a comment, a header, part of what a later line completes).
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32>;
    /// The partition that a line names, if its format knows such a thing.
    fn partition_of(&self, _line: &[u8]) -> Option<String> {
        None
    }
    /// Takes from a line that is passed over what later lines depend on.
    fn pass(&mut self, _line: &[u8]) {}
    /// The file is at its end: what is to be said of it as a whole.
    fn end(&mut self, _out: &mut Sink<'_>) {}
    /// Whether its format knows outcomes of actions.
    fn has_outcomes(&self) -> bool {
        false
    }
    /// See [`CaptureSource::is_samples`].
    fn is_samples(&self) -> bool {
        false
    }
    /// See [`CaptureSource::is_in_order`].
    fn is_in_order(&self) -> bool {
        true
    }
}

/// A capture file.
pub(crate) struct FileSource {
    path: PathBuf,
    lines: Lines,
    decoder: Box<dyn Decoder>,
    consumed: Consumed,
    total: u64,
    partitions: Vec<String>,
    complaints: Complaints,
    is_ended: bool,
}

/// Opens one file, or standard input.
pub(crate) fn open(path: &Path) -> Result<FileSource, IngestError> {
    let opened = file::open(path)?;
    let mut complaints = Complaints::default();
    let (decoder, lines) = match sniff::decoder(path, opened.bytes) {
        // One of these among others stops nothing: it is a capture without records.
        Err(error @ (IngestError::Empty { .. } | IngestError::Spread { .. })) => {
            complaints.remark(error.to_string());
            let decoder: Box<dyn Decoder> = Box::new(Ndjson::new());
            (decoder, Lines::new(Box::new(io::empty())))
        }
        told => told?,
    };
    Ok(FileSource {
        path: path.to_owned(),
        lines,
        decoder,
        consumed: opened.consumed,
        total: opened.total,
        partitions: vec![name_of(path)],
        complaints,
        is_ended: false,
    })
}

/// The name of a file's own partition: its path as given, without `./` and doubled slashes.
fn name_of(path: &Path) -> String {
    if file::is_stdin(path) {
        return "stdin".to_owned();
    }
    let tidy: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    tidy.to_string_lossy().into_owned()
}

fn read_error(path: &Path, line: u64) -> impl FnOnce(io::Error) -> IngestError {
    move |source| IngestError::Read { path: path.to_owned(), line, source }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// The outcomes that a capture holds; see [`crate::recorded_outcomes`].
pub(crate) fn outcomes(path: &Path) -> Result<Vec<ControlRecord>, IngestError> {
    let mut source = open(path)?;
    let mut found = Vec::new();
    if !source.decoder.has_outcomes() {
        return Ok(found);
    }
    loop {
        let failed = read_error(&source.path, source.lines.count());
        let line = match source.lines.read().map_err(failed)?.1 {
            Line::End => return Ok(found),
            Line::Text(line) if std::str::from_utf8(line).is_ok_and(|text| text.contains("\"outcome\"")) => {
                line
            }
            _ => continue,
        };
        let mut record = Record::default();
        let (partitions, complaints) = (&mut source.partitions, &mut source.complaints);
        source.decoder.decode(line, &mut Sink { record: &mut record, partitions, complaints, line: 0 });
        found.extend(record.controls.into_iter().filter(|c| matches!(c, ControlRecord::Outcome { .. })));
    }
}

impl CaptureSource for FileSource {
    fn partitions(&self) -> &[String] {
        &self.partitions
    }

    fn next(&mut self, record: &mut Record) -> Result<Option<u32>, IngestError> {
        loop {
            let failed = read_error(&self.path, self.lines.count());
            let (offset, line) = self.lines.read().map_err(failed)?;
            record.clear(offset, None);
            let mut sink = Sink {
                record: &mut *record,
                partitions: &mut self.partitions,
                complaints: &mut self.complaints,
                line: offset + 1,
            };
            let partition = match line {
                Line::End => {
                    self.decoder.end(&mut sink);
                    // What was waiting for a line that never came is one more record.
                    if !record.refused.is_empty() && !std::mem::replace(&mut self.is_ended, true) {
                        return Ok(Some(0));
                    }
                    self.complaints.end(&self.partitions[0]);
                    return Ok(None);
                }
                Line::TooLong => {
                    let mib = MAX_LINE_BYTES >> 20;
                    sink.refuse(Reason::Malformed, format_args!("the line is longer than {mib} MiB"));
                    Some(0)
                }
                Line::Broken(why) => {
                    sink.refuse(Reason::Malformed, why);
                    Some(0)
                }
                Line::Text(text) if is_blank(text) => None,
                Line::Text(text) => self.decoder.decode(text, &mut sink),
            };
            if partition.is_some() {
                return Ok(partition);
            }
        }
    }

    fn skip_to(&mut self, next_offset: &dyn Fn(&str) -> u64) -> Result<(), IngestError> {
        let own = self.partitions[0].clone();
        let own_next = next_offset(&own);
        loop {
            let failed = read_error(&self.path, self.lines.count());
            let (offset, line) = self.lines.read().map_err(failed)?;
            let known = match line {
                Line::End => return Ok(()),
                Line::TooLong | Line::Broken(_) => offset < own_next,
                Line::Text(line) if is_blank(line) => offset < own_next,
                Line::Text(line) => {
                    let next = match self.decoder.partition_of(line) {
                        Some(name) => next_offset(&partition_name(&own, &name)),
                        None => own_next,
                    };
                    if offset < next {
                        self.decoder.pass(line);
                    }
                    offset < next
                }
            };
            if !known {
                self.lines.hold();
                return Ok(());
            }
        }
    }

    fn progress(&self) -> (u64, u64) {
        (self.consumed.bytes(), self.total)
    }

    fn complaints(&self) -> &[String] {
        self.complaints.texts()
    }

    fn is_samples(&self) -> bool {
        self.decoder.is_samples()
    }

    fn is_in_order(&self) -> bool {
        self.decoder.is_in_order()
    }
}

/// Runs lines through a decoder, as `next` does with those of a file.
#[cfg(test)]
pub(crate) fn decode_lines<L: AsRef<[u8]>>(
    decoder: &mut dyn Decoder,
    lines: &[L],
) -> (Vec<(u32, Record)>, Vec<String>) {
    let (mut partitions, mut complaints) = (vec!["test".to_owned()], Complaints::default());
    let mut records = Vec::new();
    for (offset, line) in lines.iter().enumerate() {
        let mut record = Record::default();
        record.clear(offset as u64, None);
        let mut sink = Sink {
            record: &mut record,
            partitions: &mut partitions,
            complaints: &mut complaints,
            line: offset as u64 + 1,
        };
        if let Some(partition) = decoder.decode(line.as_ref(), &mut sink) {
            records.push((partition, record));
        }
    }
    let (mut record, line) = (Record::default(), lines.len() as u64);
    let (names, said) = (&mut partitions, &mut complaints);
    decoder.end(&mut Sink { record: &mut record, partitions: names, complaints: said, line });
    if !record.refused.is_empty() {
        record.offset = lines.len() as u64;
        records.push((0, record));
    }
    complaints.end("test");
    (records, complaints.texts().to_vec())
}
