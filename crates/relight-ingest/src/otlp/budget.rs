//! How much one request may come to.
//!
//! Its size bounds none of this: what points share is sent once and kept with each of them, and a point of two bytes
//! takes a hundred when it is read.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::wire::WireError;

/// Data points, quantiles or log records of one request. What is more is refused as it is met, so that two
/// million points of four bytes cost nothing.
pub const MAX_POINTS: usize = 100_000;
/// Histogram buckets of one request: 64 MiB as they are kept, which 17,000 exponential histograms need.
pub const MAX_BUCKETS: usize = 4 << 20;
/// Messages that come in parts, each beyond the first. Nobody writes them so, but protobuf has it.
const MAX_PARTS: usize = 100_000;
/// Bytes of the names of series: 16 KiB each in a Collector's batch of 8,192 points. In protobuf only a series that is
/// new brings its name, in JSON every point.
pub(crate) const MAX_NAMED_BYTES: usize = 128 << 20;
/// Bytes of events: 32 KiB each in a batch of 8,192 log records.
pub(crate) const MAX_EVENT_BYTES: usize = 256 << 20;

/// What memory leaves of the two, for every decoder of the process.
static NAMED_BYTES: AtomicUsize = AtomicUsize::new(MAX_NAMED_BYTES);
static EVENT_BYTES: AtomicUsize = AtomicUsize::new(MAX_EVENT_BYTES);
/// Series that a decoder of metrics remembers beside those of one request, at about 64 bytes each.
static REMEMBERED: AtomicUsize = AtomicUsize::new(usize::MAX);
const REMEMBERED_BYTES: usize = 64;

/// Bounds what the names, and what the events, of one request may come to in this process, and twice as much what a decoder
/// remembers of earlier ones. To be called before anything is decoded.
pub fn limit_decoded(bytes: usize) {
    NAMED_BYTES.store(bytes.min(MAX_NAMED_BYTES), Ordering::Relaxed);
    EVENT_BYTES.store(bytes.min(MAX_EVENT_BYTES), Ordering::Relaxed);
    REMEMBERED.store(bytes / REMEMBERED_BYTES * 2, Ordering::Relaxed);
}

/// Series that a decoder may remember.
pub(super) fn max_remembered() -> usize {
    REMEMBERED.load(Ordering::Relaxed).saturating_add(MAX_POINTS)
}

/// Bytes of names of one request.
pub(crate) fn max_named_bytes() -> usize {
    NAMED_BYTES.load(Ordering::Relaxed)
}

/// Bytes of events of one request.
pub(crate) fn max_event_bytes() -> usize {
    EVENT_BYTES.load(Ordering::Relaxed)
}

/// How much of a request may still come.
pub(crate) struct Budget {
    points: usize,
    buckets: usize,
    parts: usize,
    named_bytes: usize,
    event_bytes: usize,
}

impl Budget {
    /// That of a request of which nothing was read yet.
    pub(crate) fn full() -> Self {
        Self {
            points: MAX_POINTS,
            buckets: MAX_BUCKETS,
            parts: MAX_PARTS,
            named_bytes: max_named_bytes(),
            event_bytes: max_event_bytes(),
        }
    }

    pub(super) fn points(&mut self, n: usize) -> Result<(), WireError> {
        take(&mut self.points, n, "points", MAX_POINTS)
    }

    pub(crate) fn log(&mut self) -> Result<(), WireError> {
        take(&mut self.points, 1, "log records", MAX_POINTS)
    }

    pub(super) fn buckets(&mut self, n: usize) -> Result<(), WireError> {
        take(&mut self.buckets, n, "histogram buckets", MAX_BUCKETS)
    }

    pub(super) fn part(&mut self) -> Result<(), WireError> {
        take(&mut self.parts, 1, "parts of messages", MAX_PARTS)
    }

    /// Whether there is room for another name. Once there was none, what needs one is refused unread; series that are known
    /// are taken.
    pub(super) const fn name(&mut self, bytes: usize) -> bool {
        fits(&mut self.named_bytes, bytes)
    }

    /// Whether a name is worth working out.
    pub(super) const fn has_names(&self) -> bool {
        self.named_bytes > 0
    }

    /// Whether there is room for an event. Once there was none the rest are refused.
    pub(crate) const fn event(&mut self, bytes: usize) -> bool {
        fits(&mut self.event_bytes, bytes)
    }

    /// Whether an event is worth making.
    pub(crate) const fn has_events(&self) -> bool {
        self.event_bytes > 0
    }
}

fn take(left: &mut usize, n: usize, what: &'static str, limit: usize) -> Result<(), WireError> {
    *left = left.checked_sub(n).ok_or(WireError::TooMany { what, limit })?;
    Ok(())
}

const fn fits(left: &mut usize, bytes: usize) -> bool {
    let fits = bytes <= *left;
    *left = if fits { *left - bytes } else { 0 };
    fits
}
