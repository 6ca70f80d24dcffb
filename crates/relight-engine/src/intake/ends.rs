//! Markers that series have ended: which of them reach Fold. Holds nothing.

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::Record;

use super::{Intake, Routed};

impl Intake {
    /// Markers that series have ended. They make no series known, open no bin and move no time.
    pub(super) fn take_ends(
        &mut self,
        partition: u32,
        record: &Record,
        aliases: &Aliases,
        (stamp, limit): (Timestamp, Timestamp),
        out: &mut Routed,
    ) {
        for end in record.ends.iter().filter(|end| stamp <= end.at && end.at <= limit) {
            let hint = &mut self.partitions[partition as usize].hint;
            let series = match aliases.get(end.alias) {
                Some(ix) => Some(self.directory.series_at(ix)),
                None => self.directory.find(record.key(end), hint),
            };
            out.ends.extend(series.map(|series| (series, end.at)));
        }
    }
}
