//! Intake's part of a snapshot: partitions, counters, and the events and commands of open bins.

use std::collections::BTreeMap;

use relight_core::codec::{Codec, Corrupt, Reader};

use relight_core::Timestamp;
use relight_core::record::{decode_event, encode_event};
use relight_core::rule::Settings;

use super::recent::Recent;
use super::{Intake, OpenBin, OpenEvent, Partition, PartitionState, commands, ends};
use crate::counters::Counters;
use crate::directory::Directory;

/// Version of what [`Intake::save`] writes, and of what Fold and the counters do: it is read first.
const VERSION: u16 = 9;

impl Intake {
    /// Other settings and names from now on. Partitions, held records, open bins and what was counted stay.
    pub fn reload(&mut self, settings: &Settings, mut directory: Directory) {
        debug_assert_eq!(self.binning, settings.binning, "open bins are of this length");
        directory.supersede(&self.directory);
        self.directory = directory;
        self.lateness = settings.allowed_lateness;
        // Guesses are numbers of the directory before.
        self.partitions.iter_mut().for_each(|p| p.hint = u32::MAX);
    }

    /// Partitions by name.
    pub fn partitions(&self) -> Vec<PartitionState> {
        self.by_name.values().map(|ix| self.partitions[*ix as usize].state()).collect()
    }

    /// Everything that is neither series nor row, and of partitions what their states do not say.
    pub fn save(&self, out: &mut Vec<u8>) {
        VERSION.encode(out);
        self.counters.encode(out);
        self.overflow.encode(out);
        self.closed_through.encode(out);
        let ranks = self.ranks();
        for ix in self.by_name.values() {
            let p = &self.partitions[*ix as usize];
            ranks[p.source as usize].encode(out);
            // Of one that has ended it means nothing: joining again decides it anew.
            (p.is_unused && !p.has_ended()).encode(out);
            (p.kept && !p.has_ended()).encode(out);
            p.pace.encode(out);
        }
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
        commands::save(&self.commands, &ranks, out);
        ends::save(&self.ends, out);
        self.recent.save(out);
    }

    /// Reads what [`Intake::save`] wrote, into an intake that has seen nothing.
    pub fn load(&mut self, partitions: Vec<PartitionState>, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
        match u16::decode(reader)? {
            VERSION => {}
            found if found > VERSION => return Err(Corrupt::Future { found, known: VERSION }),
            _ => return Err(Corrupt::Value("intake's version")),
        }
        self.counters = Counters::decode(reader)?;
        self.overflow = Codec::decode(reader)?;
        self.closed_through = Timestamp::decode(reader)?;
        let count = partitions.len();
        for state in partitions {
            let source = u16::decode(reader)?;
            if source as usize >= count {
                return Err(Corrupt::Value("source"));
            }
            self.by_name.insert(state.name.clone(), self.partitions.len() as u32);
            let (is_unused, kept) = (bool::decode(reader)?, bool::decode(reader)?);
            let mut partition = Partition::restore(state, source.into(), is_unused);
            partition.kept = kept;
            partition.pace = Codec::decode(reader)?;
            self.add_partition(partition);
        }
        self.open = load_bins(reader, self.partitions.len())?;
        self.commands = commands::load(reader, self.partitions.len())?;
        self.ends = ends::load(reader)?;
        self.recent = Recent::load(reader)?;
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
