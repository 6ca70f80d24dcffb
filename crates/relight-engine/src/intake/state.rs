//! Intake's part of a snapshot: partitions, counters, and the events of open bins.

use std::collections::BTreeMap;

use relight_core::codec::{Codec, Corrupt, Reader};

use relight_core::Timestamp;
use relight_core::record::{decode_event, encode_event};

use super::{Intake, OpenBin, OpenEvent, Partition, PartitionState};
use crate::counters::Counters;

impl Intake {
    /// Partitions by name.
    pub fn partitions(&self) -> Vec<PartitionState> {
        self.by_name.values().map(|ix| self.partitions[*ix as usize].state()).collect()
    }

    /// Everything that is neither series nor row nor partition.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.counters.encode(out);
        self.closed_through.encode(out);
        let ranks = self.ranks();
        (self.open.len() as u32).encode(out);
        for (bin, open) in &self.open {
            bin.encode(out);
            open.at.encode(out);
            open.offset.encode(out);
            let mut events: Vec<_> = open.events.iter().collect();
            events.sort_by_key(|e| (ranks[e.partition as usize], e.offset, e.index));
            (events.len() as u32).encode(out);
            for e in events {
                ranks[e.partition as usize].encode(out);
                e.offset.encode(out);
                e.index.encode(out);
                encode_event(&e.event, out);
            }
        }
    }

    /// Reads what [`Intake::save`] wrote, into an intake that has seen nothing.
    pub fn load(&mut self, partitions: Vec<PartitionState>, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.counters = Counters::decode(reader)?;
        self.closed_through = Timestamp::decode(reader)?;
        for state in partitions {
            self.by_name.insert(state.name.clone(), self.partitions.len() as u32);
            self.partitions.push(Partition::restore(state));
        }
        self.open = load_bins(reader, self.partitions.len())?;
        Ok(())
    }
}

fn load_bins(reader: &mut Reader<'_>, partitions: usize) -> Result<BTreeMap<Timestamp, OpenBin>, Corrupt> {
    let mut bins = BTreeMap::new();
    for _ in 0..reader.len(28, "open bins")? {
        let bin = Timestamp::decode(reader)?;
        let at = Timestamp::decode(reader)?;
        let offset = u64::decode(reader)?;
        let mut events = Vec::new();
        for _ in 0..reader.len(14, "open events")? {
            let partition = u16::decode(reader)?;
            if partition as usize >= partitions {
                return Err(Corrupt::Value("partition"));
            }
            let offset = u64::decode(reader)?;
            let index = u32::decode(reader)?;
            events.push(OpenEvent { partition, offset, index, event: decode_event(reader)? });
        }
        bins.insert(bin, OpenBin { at, offset, events });
    }
    Ok(bins)
}
