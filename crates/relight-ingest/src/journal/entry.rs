//! One delivery as it lies in a journal: `length: u32, CRC32C: u32, offset: u64, received: i64, kind: u8`, and
//! then what was delivered. Length and checksum are of what follows them.
//!
//! Metrics lie there as they were sent, everything else decoded. Who waits for an answer does not.

use bytes::Bytes;
use relight_core::Timestamp;
use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::{decode_record, encode_record};

use crate::live::{Delivery, Load};

/// Bytes before what is checked.
pub(super) const HEAD: usize = 8;

/// Bytes of a frame that delivers nothing.
const LEAST: usize = HEAD + 8 + 8 + 1;

const METRICS: u8 = 0;
const RECORD: u8 = 1;
const NOTHING: u8 = 2;
/// A release that does not know it passes it over, as one that nothing was kept by.
const STARTED: u8 = 3;

/// Appends a delivery as a frame.
pub(super) fn encode(offset: u64, delivery: &Delivery, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    offset.encode(out);
    delivery.received.encode(out);
    match &delivery.load {
        Load::Metrics(body) => {
            METRICS.encode(out);
            out.extend_from_slice(body);
        }
        Load::Record(record) => {
            RECORD.encode(out);
            encode_record(record, out);
        }
        Load::Started => STARTED.encode(out),
        // No listener brings these; an offset is an offset.
        Load::Nothing | Load::CaughtUp | Load::Unreachable(_) => NOTHING.encode(out),
    }
    let body = &out[start + HEAD..];
    let (len, crc) = (body.len() as u32, crc32c::crc32c(body));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// An offset, and the body that it begins.
pub(super) type Frame<'a> = (u64, &'a [u8]);

/// The first frame of `bytes` and what follows it: its offset and its body. An error is a frame that was not
/// written to its end, or is damaged.
pub(super) fn split(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), Corrupt> {
    let mut reader = Reader::new(bytes);
    let len = u32::decode(&mut reader)? as usize;
    let crc = u32::decode(&mut reader)?;
    let body = reader.take(len, "journal entry")?;
    if crc32c::crc32c(body) != crc {
        return Err(Corrupt::Checksum);
    }
    Ok(((offset_of(body)?, body), &bytes[HEAD + len..]))
}

/// Whether the bad frame that `bytes` begin with, which should have this offset, was written to its end and has changed
/// since: all its bytes are there, or a whole frame lies behind it. A write that a kill broke off leaves neither.
pub(super) fn is_damaged(bytes: &[u8], offset: u64) -> bool {
    if body(bytes).is_some() {
        return true;
    }
    // What a sender sent lies in here. Without bounds on the offsets that may follow, and on the work, a body that is made
    // of heads of frames would be searched for hours; who makes one is told of as damage.
    let offsets = offset.saturating_add(1)..=offset.saturating_add((bytes.len() / LEAST) as u64);
    let mut work = 16 * bytes.len();
    for at in 1..bytes.len() {
        let frame = &bytes[at..];
        let Some(body) = body(frame).filter(|body| offset_of(body).is_ok_and(|at| offsets.contains(&at)))
        else {
            continue;
        };
        if work < body.len() || split(frame).is_ok() {
            return true;
        }
        work -= body.len();
    }
    false
}

/// The body of a frame that has all its bytes, whatever they are.
fn body(frame: &[u8]) -> Option<&[u8]> {
    let len = u32::decode(&mut Reader::new(frame)).ok()? as usize;
    frame.get(HEAD..HEAD + len).filter(|body| body.len() >= LEAST - HEAD)
}

fn offset_of(body: &[u8]) -> Result<u64, Corrupt> {
    u64::decode(&mut Reader::new(body))
}

/// Reads the body of a frame.
pub(super) fn decode(body: &[u8]) -> Result<Delivery, Corrupt> {
    let mut reader = Reader::new(body);
    let (offset, received) = (u64::decode(&mut reader)?, Timestamp::decode(&mut reader)?);
    let load = match u8::decode(&mut reader)? {
        METRICS => {
            let left = reader.left();
            Load::Metrics(Bytes::copy_from_slice(reader.take(left, "metrics")?))
        }
        RECORD => Load::Record(Box::new(decode_record(&mut reader)?)),
        NOTHING => Load::Nothing,
        STARTED => Load::Started,
        _ => return Err(Corrupt::Value("kind of a journal entry")),
    };
    reader.finish()?;
    Ok(Delivery { offset: Some(offset), received, load, answer: None })
}
