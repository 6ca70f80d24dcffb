//! OTLP's protobuf, read as it lies in the request: no message becomes an object.
//!
//! What a request means is the JSON decoder's business ([`super`]); here is how it is found in the bytes. A
//! series is known by a hash of its raw attributes, its resource, its scope and its metric's name, so that a
//! steady point costs that hash and one comparison. Only a series that Intake does not know yet has its
//! attributes read, checked, sorted and written into the record.
//!
//! A request that prost reads is read the same. Of one that prost refuses, each message that cannot be read (a point, a
//! metric, a scope, a resource) is refused alone and by name, since its length is known; what is not read at all
//! (exemplars, metadata) is not checked. A hash that was met before stands for bytes that were checked then, so they are
//! not checked again.

mod attributes;
mod logs;
mod memo;
mod metrics;
mod names;
mod points;
mod reader;
mod schema;
mod signal;

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::Record;

use self::memo::Memo;
use self::metrics::Walk;
use self::reader::Reader;

pub use self::logs::{count_spans, decode_logs};
pub(crate) use self::metrics::is_unread;
pub(crate) use self::signal::{Signal, signal_of};
use super::budget::max_remembered;
pub use super::budget::{MAX_BUCKETS, MAX_POINTS};

/// Series that a decoder remembers, at about 40 bytes each; beyond them it forgets all and learns anew,
/// which also rids it of series that have ended.
const MAX_REMEMBERED: usize = 4 << 20;

/// Why a request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is no protobuf of this kind.
    #[error("malformed protobuf at byte {at}: {what}")]
    Malformed {
        /// Position in the request.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It holds more than one request may.
    #[error("more than {limit} {what} in one request")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// Reads metrics of one source. Its memory is of that source's series and of one Intake.
pub struct OtlpMetrics {
    memo: Memo,
    aliases: Aliases,
    max_remembered: usize,
    key: Vec<u8>,
    quantiles: Vec<(f64, f64)>,
}

impl Default for OtlpMetrics {
    fn default() -> Self {
        Self::remembering(MAX_REMEMBERED)
    }
}

impl OtlpMetrics {
    /// For an engine that knows at most so many series: more than twice as many are not worth remembering, since those
    /// that were refused are remembered, too.
    pub fn for_series(max_series: usize) -> Self {
        let worth = max_series.saturating_mul(2).saturating_add(MAX_POINTS);
        Self::remembering(worth.min(MAX_REMEMBERED).min(max_remembered()))
    }

    fn remembering(max_remembered: usize) -> Self {
        let (key, quantiles) = (Vec::new(), Vec::new());
        Self { memo: Memo::new(), aliases: Aliases::default(), max_remembered, key, quantiles }
    }

    /// Forgets everything if the directory has numbered its series anew since: those that it has evicted would be
    /// remembered for ever. To be called before each request, as [`Aliases::renew`].
    pub fn renew(&mut self, generation: u64) {
        if self.aliases.generation() != generation {
            self.memo.clear();
        }
        self.aliases.renew(generation);
    }

    /// What Intake learns and this decoder asks: to be renewed before each request
    /// ([`OtlpMetrics::renew`]) and handed to Intake with its record.
    pub const fn aliases(&mut self) -> &mut Aliases {
        &mut self.aliases
    }

    /// Reads an `ExportMetricsServiceRequest` into `out`. Points whose series Intake knows have no key. What cannot be read of
    /// it is refused in `out`. An error is a request of which nothing can be read or that is over a limit; the record has
    /// nothing but [`Record::refusals`] then.
    pub fn decode(
        &mut self,
        body: &[u8],
        offset: u64,
        received: Option<Timestamp>,
        out: &mut Record,
    ) -> Result<(), WireError> {
        // Between two requests, since points of one request must not share a number.
        if self.memo.len() + MAX_POINTS > self.max_remembered {
            self.memo.clear();
            self.aliases.clear();
        }
        out.clear(offset, received);
        let read = Walk::new(self, out).request(Reader::new(body));
        if read.is_err() {
            empty(out);
        }
        read
    }
}

/// Leaves nothing of a record but the names of what was refused, for people.
fn empty(record: &mut Record) {
    let refusals = std::mem::take(&mut record.refusals);
    record.clear(record.offset, record.received);
    record.refusals = refusals;
}

#[cfg(test)]
pub(crate) mod tests;
