//! What decoders hand to the engine: points, events and control records, a record at a time.
//!
//! A [`Record`] is a reusable buffer, so that a steady stream decodes without allocating.

mod histogram;

use serde::{Deserialize, Serialize};

use crate::aliases::Aliases;
use crate::codec::{Codec, Corrupt, Reader, decode_bytes, encode_bytes};
use crate::refusal::{Origin, Refusals};
use crate::series::Labels;
use crate::time::Timestamp;

pub use histogram::{Histogram, exponential_bound};

/// Two strings, and what their allocations have beside the text.
const LABEL_BYTES: usize = 2 * size_of::<String>() + 16;
/// Room that an emptied record keeps of each kind of content: the keys of some 50,000 new series. A record that was
/// larger comes from a sender whose series do not stay, or will not come again.
const KEPT_BYTES: usize = 16 << 20;

/// How a point's value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The value now; also every sum that may fall.
    Gauge = 0,
    /// A monotonic sum since its start.
    Cumulative = 1,
    /// An increase since the point before.
    Delta = 2,
    /// Bucket counts since their start.
    CumulativeHistogram = 3,
    /// Bucket counts since the point before.
    DeltaHistogram = 4,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 5] =
        [Self::Gauge, Self::Cumulative, Self::Delta, Self::CumulativeHistogram, Self::DeltaHistogram];

    /// Whether points of this kind carry a [`Histogram`].
    pub const fn is_histogram(self) -> bool {
        matches!(self, Self::CumulativeHistogram | Self::DeltaHistogram)
    }

    /// Whether the value counts up from a start, so that only differences mean something.
    pub const fn is_cumulative(self) -> bool {
        matches!(self, Self::Cumulative | Self::CumulativeHistogram)
    }

    /// Whether the value is what was counted since the point before.
    pub const fn is_delta(self) -> bool {
        matches!(self, Self::Delta | Self::DeltaHistogram)
    }
}

/// One sample of one series. Its key lies in the record's arena, unless Intake knows its alias already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where the series' canonical bytes start in [`Record::keys`].
    pub key_start: u32,
    /// How long they are; 0 if Intake knows the alias.
    pub key_len: u32,
    /// The source's own dense number of the series, or [`Aliases::NONE`].
    pub alias: u32,
    /// Event time.
    pub at: Timestamp,
    /// When the sum started, or [`Timestamp::MIN`] if the sender did not say.
    pub start: Timestamp,
    /// How the value is meant.
    pub kind: Kind,
    /// The value; of a histogram, its index in [`Record::histograms`].
    pub value: f64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Event time.
    pub at: Timestamp,
    /// What happened: `deploy`, `flag`, `log`, ...
    pub kind: String,
    /// Where it happened.
    pub labels: Labels,
    /// The text, for people.
    pub body: String,
}

impl Event {
    /// Whether it is a line of a log, of which there may be millions, and no change.
    pub fn is_log(&self) -> bool {
        self.kind == "log"
    }

    /// Bytes of memory that it holds, roughly.
    pub fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| LABEL_BYTES + key.len() + value.len());
        size_of::<Self>() + self.kind.len() + self.body.len() + labels.sum::<usize>()
    }
}

/// What a capture says beside points and events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRecord {
    /// The partition is idle: its watermark moves to `to`.
    Advance {
        /// The new watermark.
        to: Timestamp,
    },
    /// How an action of the live run ended; replay answers with it instead of simulating.
    Outcome {
        /// When it was known.
        at: Timestamp,
        /// The action's id.
        action: String,
        /// Whether it was carried out.
        ok: bool,
        /// What the responder said.
        detail: String,
    },
    /// What a human asked for: `ack`, `learn`, ... on an incident.
    Command {
        /// When.
        at: Timestamp,
        /// Verb.
        verb: String,
        /// The incident or action it is about.
        target: String,
    },
}

/// Why a decoder or intake refused something. Each has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The line or message could not be read.
    Malformed,
    /// NaN or infinite.
    NonFinite,
    /// Over 10 minutes ahead of `received` (sparse data: over one cadence), or an unconfirmed jump.
    Future,
    /// Older than its partition's watermark as it stood before its record.
    Late,
    /// Same series, time and value as a point already there.
    Duplicate,
    /// Same series and time, another value: the first was kept.
    DuplicateConflict,
    /// Bounds or counts of a histogram make no sense.
    BadHistogram,
    /// Too many labels, or one too long; or, with those before it in its request, too many bytes of them.
    LabelLimit,
    /// The series table is full.
    SeriesLimit,
    /// More than 4,096 points of one series in one bin: folded in arrival order.
    FoldedEarly,
    /// A marker that a series ended (staleness), not a value.
    NoRecordedValue,
    /// The source has as many series as it may bring.
    SourceSeriesLimit,
    /// A new series, while there is no memory for it.
    MemoryLimit,
    /// A delta whose time begins before that of the last one is over: counted already, in part at least.
    DeltaOverlap,
    /// A running total that several writers share, which go up and down past each other: none of them can be told from
    /// the others.
    SharedCounter,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::NonFinite,
        Self::Future,
        Self::Late,
        Self::Duplicate,
        Self::DuplicateConflict,
        Self::BadHistogram,
        Self::LabelLimit,
        Self::SeriesLimit,
        Self::FoldedEarly,
        Self::NoRecordedValue,
        Self::SourceSeriesLimit,
        Self::MemoryLimit,
        Self::DeltaOverlap,
        Self::SharedCounter,
    ];

    /// The name in counters and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NonFinite => "non_finite",
            Self::Future => "too_far_future",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::DuplicateConflict => "dup_conflict",
            Self::BadHistogram => "bad_histogram",
            Self::LabelLimit => "label_limit",
            Self::SeriesLimit => "series_limit",
            Self::FoldedEarly => "folded_early",
            Self::NoRecordedValue => "no_recorded_value",
            Self::SourceSeriesLimit => "source_series_limit",
            Self::MemoryLimit => "memory_limit",
            Self::DeltaOverlap => "delta_overlap",
            Self::SharedCounter => "shared_counter",
        }
    }
}

/// One entry of a partition: an offset, a request, a line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Position in its partition; strictly ascending, gaps allowed.
    pub offset: u64,
    /// When it arrived, where that is known.
    pub received: Option<Timestamp>,
    /// Its points.
    pub points: Vec<Point>,
    /// Markers that a series has ended, at a time behind its last point; kind and value say nothing.
    pub ends: Vec<Point>,
    /// Canonical series keys, back to back.
    pub keys: Vec<u8>,
    /// Histograms that points refer to.
    pub histograms: Vec<Histogram>,
    /// Its events.
    pub events: Vec<Event>,
    /// Its control records.
    pub controls: Vec<ControlRecord>,
    /// What the decoder refused, by reason.
    pub refused: Vec<(Reason, u32)>,
    /// The same with names, for people: bounded, and in no image.
    pub refusals: Refusals,
}

impl Record {
    /// Empties the record for the next entry and keeps its memory, up to 16 MiB of each kind of content.
    pub fn clear(&mut self, offset: u64, received: Option<Timestamp>) {
        self.offset = offset;
        self.received = received;
        empty(&mut self.points);
        empty(&mut self.ends);
        empty(&mut self.keys);
        empty(&mut self.histograms);
        empty(&mut self.events);
        empty(&mut self.controls);
        empty(&mut self.refused);
        self.refusals.clear();
    }

    /// Bytes of memory that its content holds, roughly.
    pub fn bytes(&self) -> usize {
        let histograms = self.histograms.iter().map(Histogram::bytes).sum::<usize>();
        let events = self.events.iter().map(Event::bytes).sum::<usize>();
        let points = size_of_val(self.points.as_slice()) + size_of_val(self.ends.as_slice());
        self.keys.len() + points + histograms + events
    }

    /// Canonical bytes of a point's series.
    pub fn key(&self, point: &Point) -> &[u8] {
        let start = point.key_start as usize;
        self.keys.get(start..start + point.key_len as usize).unwrap_or_default()
    }

    /// Adds a scalar point; `key` is canonical ([`crate::series::encode_key`]).
    pub fn push_point(&mut self, key: &[u8], at: Timestamp, start: Timestamp, kind: Kind, value: f64) {
        let key = self.push_key(key);
        self.push_point_of(key, at, start, kind, value);
    }

    /// Adds a scalar point of a series whose key lies in the arena already, as [`Record::push_key`] said.
    pub fn push_point_of(
        &mut self,
        (key_start, key_len): (u32, u32),
        at: Timestamp,
        start: Timestamp,
        kind: Kind,
        value: f64,
    ) {
        let alias = Aliases::NONE;
        self.points.push(Point { key_start, key_len, alias, at, start, kind, value });
    }

    /// Adds a marker that a series has ended; its key lies in the arena already.
    pub fn push_end(&mut self, (key_start, key_len): (u32, u32), alias: u32, at: Timestamp) {
        let (start, kind, value) = (Timestamp::MIN, Kind::Gauge, 0.0);
        self.ends.push(Point { key_start, key_len, alias, at, start, kind, value });
    }

    /// Puts a canonical key into the arena and says where it lies and how long it is.
    pub fn push_key(&mut self, key: &[u8]) -> (u32, u32) {
        let key_start = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        (key_start, key.len() as u32)
    }

    /// Adds a histogram point.
    pub fn push_histogram(&mut self, key: &[u8], at: Timestamp, start: Timestamp, kind: Kind, h: Histogram) {
        let value = self.histograms.len() as f64;
        self.histograms.push(h);
        self.push_point(key, at, start, kind, value);
    }

    /// Counts something that the decoder refused.
    pub fn refuse(&mut self, reason: Reason) {
        self.count_refused(reason, 1);
    }

    /// Counts `count` refusals of one kind, and names them for people.
    pub fn refuse_named(&mut self, reason: Reason, origin: Origin<'_>, detail: &str, count: u32) {
        self.count_refused(reason, count);
        self.refusals.add(reason, origin, detail, count);
    }

    fn count_refused(&mut self, reason: Reason, count: u32) {
        match self.refused.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, n)) => *n = n.saturating_add(count),
            None => self.refused.push((reason, count)),
        }
    }
}

fn empty<T>(content: &mut Vec<T>) {
    content.clear();
    content.shrink_to(KEPT_BYTES / size_of::<T>());
}

/// Appends an event: time, kind, labels, body.
pub fn encode_event(event: &Event, out: &mut Vec<u8>) {
    event.at.encode(out);
    event.kind.encode(out);
    (event.labels.len() as u32).encode(out);
    for (key, value) in event.labels.iter() {
        encode_bytes(key.as_bytes(), out);
        encode_bytes(value.as_bytes(), out);
    }
    event.body.encode(out);
}

/// Reads what [`encode_event`] wrote.
pub fn decode_event(reader: &mut Reader<'_>) -> Result<Event, Corrupt> {
    let at = Timestamp::decode(reader)?;
    let kind = String::decode(reader)?;
    let mut labels = Vec::new();
    for _ in 0..reader.len(8, "labels")? {
        labels.push((String::decode(reader)?, String::decode(reader)?));
    }
    Ok(Event { at, kind, labels: Labels::new(labels), body: String::decode(reader)? })
}

/// Appends all of a record but its offset, the time of its arrival and the names of its refusals. Its points have keys, and
/// no aliases.
pub fn encode_record(record: &Record, out: &mut Vec<u8>) {
    encode_bytes(&record.keys, out);
    (record.points.len() as u32).encode(out);
    for point in &record.points {
        point.key_start.encode(out);
        point.key_len.encode(out);
        point.at.encode(out);
        point.start.encode(out);
        (point.kind as u8).encode(out);
        point.value.encode(out);
    }
    (record.histograms.len() as u32).encode(out);
    for histogram in &record.histograms {
        histogram.bounds.encode(out);
        histogram.counts.encode(out);
    }
    (record.events.len() as u32).encode(out);
    record.events.iter().for_each(|event| encode_event(event, out));
    (record.refused.len() as u32).encode(out);
    for (reason, n) in &record.refused {
        (*reason as u8).encode(out);
        n.encode(out);
    }
    // Records of before had none, and end here.
    if !record.ends.is_empty() {
        (record.ends.len() as u32).encode(out);
    }
    for end in &record.ends {
        end.key_start.encode(out);
        end.key_len.encode(out);
        end.at.encode(out);
    }
}

/// Reads what [`encode_record`] wrote.
pub fn decode_record(reader: &mut Reader<'_>) -> Result<Record, Corrupt> {
    let mut record = Record { keys: decode_bytes(reader, "keys")?.to_vec(), ..Record::default() };
    for _ in 0..reader.len(33, "points")? {
        let (key_start, key_len) = (u32::decode(reader)?, u32::decode(reader)?);
        let (at, start) = (Timestamp::decode(reader)?, Timestamp::decode(reader)?);
        let kind = Kind::ALL.get(u8::decode(reader)? as usize).copied().ok_or(Corrupt::Value("kind"))?;
        let value = f64::decode(reader)?;
        record.points.push(Point { key_start, key_len, alias: Aliases::NONE, at, start, kind, value });
    }
    for _ in 0..reader.len(8, "histograms")? {
        record.histograms.push(Histogram { bounds: Codec::decode(reader)?, counts: Codec::decode(reader)? });
    }
    for _ in 0..reader.len(20, "events")? {
        record.events.push(decode_event(reader)?);
    }
    for _ in 0..reader.len(5, "refused")? {
        let reason = Reason::ALL.get(u8::decode(reader)? as usize).copied();
        record.refused.push((reason.ok_or(Corrupt::Value("reason"))?, u32::decode(reader)?));
    }
    let ends = if reader.left() > 0 { reader.len(16, "ends")? } else { 0 };
    for _ in 0..ends {
        let key = (u32::decode(reader)?, u32::decode(reader)?);
        record.push_end(key, Aliases::NONE, Timestamp::decode(reader)?);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a record that was of ordinary size is emptied, and one that was a flood's.
    /// Guarantee: the first keeps its memory, so that a steady stream does not allocate; of the other no more is kept
    /// than is worth keeping.
    #[test]
    fn an_emptied_record_gives_back_what_a_flood_took() {
        for (bytes, kept) in [(1_000, 1_000), (100 << 20, KEPT_BYTES)] {
            let mut record = Record { keys: Vec::with_capacity(bytes), ..Record::default() };
            record.events.reserve_exact(bytes / size_of::<Event>());
            record.clear(1, None);
            assert!((kept..=kept + 100).contains(&record.keys.capacity()), "{}", record.keys.capacity());
            assert!(record.events.capacity() * size_of::<Event>() <= kept);
        }
    }
}
