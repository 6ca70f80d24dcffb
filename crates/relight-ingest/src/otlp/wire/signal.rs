//! Which signal an export request is of, by the types of its first entries' fields.
//!
//! All three have resources with scopes with entries in the same fields. Log records have their times in fields 1 and 11 as
//! eight bytes, spans theirs in 7 and 8; in a metric these are texts and messages.

use super::WireError;
use super::reader::{FIXED64, Reader};

/// What an export request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Metrics,
    Logs,
    Spans,
}

/// The signal of a request; of one that has no entry, or cannot be read, metrics.
pub(crate) fn signal_of(body: &[u8]) -> Signal {
    below(Reader::new(body), &[1, 2, 2]).ok().flatten().unwrap_or(Signal::Metrics)
}

/// Follows fields of these numbers down to the entries.
fn below(mut message: Reader<'_>, path: &[u32]) -> Result<Option<Signal>, WireError> {
    let [number, path @ ..] = path else { return entry(message) };
    while let Some((field, wire)) = message.key()? {
        if field != *number {
            message.skip(field, wire)?;
        } else if let Some(signal) = below(message.message(wire)?, path)? {
            return Ok(Some(signal));
        }
    }
    Ok(None)
}

fn entry(mut message: Reader<'_>) -> Result<Option<Signal>, WireError> {
    let mut has_fields = false;
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1 | 11, FIXED64) => return Ok(Some(Signal::Logs)),
            (7 | 8, FIXED64) => return Ok(Some(Signal::Spans)),
            _ => message.skip(field, wire)?,
        }
        has_fields = true;
    }
    Ok(has_fields.then_some(Signal::Metrics))
}
