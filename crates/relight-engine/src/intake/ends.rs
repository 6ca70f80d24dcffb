//! Markers that series have ended. They make no series known, open no bin and move no time.
//!
//! A marker waits by name until its bin closes. Which series has the name by then follows from closed bins; whether one is known
//! when the marker arrives does not.

use std::collections::BTreeSet;

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::codec::{Codec, Corrupt, Reader, decode_bytes, encode_bytes};
use relight_core::record::{Reason, Record};

use super::Intake;
use crate::directory::SeriesAddr;

/// Markers that may wait in open bins.
const MAX_ENDS: usize = 65_536;

/// Markers in open bins: the time and name of each.
pub(super) type OpenEnds = BTreeSet<(Timestamp, Vec<u8>)>;

impl Intake {
    pub(super) fn take_ends(
        &mut self,
        partition: u32,
        record: &Record,
        aliases: &Aliases,
        (stamp, limit): (Timestamp, Timestamp),
    ) {
        for end in record.ends.iter().filter(|end| stamp <= end.at && end.at <= limit) {
            let key = match aliases.get(end.alias) {
                Some(ix) => self.directory.key_at(ix).to_vec(),
                None => record.key(end).to_vec(),
            };
            if self.ends.len() < MAX_ENDS {
                self.ends.insert((end.at, key));
            } else {
                self.refuse_series(partition, &key, Reason::MemoryLimit, 1);
            }
        }
    }

    /// Hands on the markers of a bin that closes.
    pub(super) fn release_ends(&mut self, end: Timestamp, out: &mut Vec<(SeriesAddr, Timestamp)>) {
        while self.ends.first().is_some_and(|(at, _)| *at < end) {
            let Some((at, key)) = self.ends.pop_first() else { return };
            let mut hint = u32::MAX;
            out.extend(self.directory.find(&key, &mut hint).map(|series| (series, at)));
        }
    }
}

pub(super) fn save(ends: &OpenEnds, out: &mut Vec<u8>) {
    (ends.len() as u32).encode(out);
    for (at, key) in ends {
        at.encode(out);
        encode_bytes(key, out);
    }
}

pub(super) fn load(reader: &mut Reader<'_>) -> Result<OpenEnds, Corrupt> {
    let count = reader.len(12, "markers")?;
    (0..count).map(|_| Ok((Timestamp::decode(reader)?, decode_bytes(reader, "marker")?.to_vec()))).collect()
}
