//! Sources and their partitions: who may still bring something, and from when on.
//!
//! A source is a stream that is read from its front, such as a file. It has a partition of its own, and
//! its records may name others. Where one of those begins is told by what stands before it in its source,
//! never by what is closed already, which depends on how far the other sources have been read.

use relight_core::Timestamp;

use super::partition::Partition;
use super::{Intake, Routed};

impl Intake {
    /// A source, by its own partition, which joins if it is new. One that joins late, or comes back after
    /// it had ended, starts at what is closed already: everything older would not find its bin.
    ///
    /// All sources of a run are to join before the first record, so that this is no matter of pace.
    pub fn partition(&mut self, name: &str) -> u32 {
        let Some(ix) = self.by_name.get(name).copied() else {
            let source = self.partitions.len() as u32;
            return self.join(name, source, self.closed_through);
        };
        // After a start from a snapshot within the source its own partition may have ended for good.
        if self.source_partitions(ix).all(|p| self.partitions[p as usize].has_ended()) {
            self.partitions[ix as usize].rejoin(self.closed_through);
        }
        ix
    }

    /// The partition that a record of a source names. A new one starts where its source has come to: at
    /// the lowest watermark of the source's partitions as they stood before this record. That is a matter
    /// of the source's records alone; and since those partitions hold time back, nothing later is closed.
    pub fn partition_of(&mut self, source: u32, name: &str) -> u32 {
        let start = self.source_watermark(source);
        let known = self.by_name.get(name).copied();
        let ix = known.unwrap_or_else(|| self.join(name, source, start));
        self.partitions[ix as usize].rejoin(start);
        let own = &mut self.partitions[source as usize];
        if ix != source && own.is_unused {
            // No record of the source is its own so far, so its own partition must not hold time back.
            own.watermark = Timestamp::MAX;
        }
        ix
    }

    /// How far a source has come: the lowest watermark of its partitions that have not ended.
    pub fn source_watermark(&self, source: u32) -> Timestamp {
        let active = self.source_partitions(source).map(|ix| &self.partitions[ix as usize]);
        active.filter(|p| !p.has_ended()).map(|p| p.watermark).min().unwrap_or(self.closed_through)
    }

    /// A source has been read to its end: all its partitions end.
    pub fn end_source(&mut self, source: u32, out: &mut Routed) {
        let ending: Vec<u32> = self.source_partitions(source).collect();
        for ix in ending {
            self.advance(ix, Timestamp::MAX, out);
        }
    }

    /// Ends every source but these: what a snapshot knows of and nobody reads any more must not be
    /// waited for.
    pub fn end_others(&mut self, sources: &[u32], out: &mut Routed) {
        let others = |p: &Partition| !sources.contains(&p.source) && !p.has_ended();
        let ending: Vec<usize> =
            (0..self.partitions.len()).filter(|ix| others(&self.partitions[*ix])).collect();
        for ix in ending {
            self.advance(ix as u32, Timestamp::MAX, out);
        }
    }

    /// The next offset that is not known yet.
    pub fn next_offset(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(0, |ix| self.partitions[*ix as usize].next_offset)
    }

    /// A partition's watermark.
    pub fn partition_watermark(&self, partition: u32) -> Timestamp {
        self.partitions[partition as usize].watermark
    }

    /// The highest event time of a partition that counted.
    pub fn partition_newest(&self, partition: u32) -> Timestamp {
        self.partitions[partition as usize].highest
    }

    /// From now on a partition's records do not move its watermark, until it is advanced.
    pub fn keep_watermark(&mut self, partition: u32) {
        self.partitions[partition as usize].kept = true;
    }

    /// The mark of a start, which has a place in the partition and is no record. Behind it the watermark is kept, in the run
    /// that was started and in each that reads the mark again. A partition that has brought nothing before has nobody
    /// who would send it again.
    pub fn start(&mut self, partition: u32, offset: u64) {
        let p = &mut self.partitions[partition as usize];
        if offset >= p.next_offset {
            p.next_offset = offset.saturating_add(1);
            p.kept |= p.highest.is_known();
        }
    }

    /// Whether a partition's watermark stays until it is advanced.
    pub fn is_kept(&self, partition: u32) -> bool {
        self.partitions[partition as usize].kept
    }

    /// Where a partition's watermark would be by its records alone.
    pub fn record_watermark(&self, partition: u32) -> Timestamp {
        let p = &self.partitions[partition as usize];
        if p.highest.is_known() { p.watermark.max(p.highest.minus(self.lateness)) } else { p.watermark }
    }

    /// A partition's name.
    pub fn partition_name(&self, partition: u32) -> &str {
        &self.partitions[partition as usize].name
    }

    /// The first offset of a partition that is not known yet, by its index.
    pub fn next_offset_of(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].next_offset
    }

    fn source_partitions(&self, source: u32) -> impl Iterator<Item = u32> {
        let indexed = (0..).zip(&self.partitions);
        indexed.filter(move |(_, p)| p.source == source).map(|(ix, _)| ix)
    }

    pub(super) fn add_partition(&mut self, mut partition: Partition) {
        if let Some(bound) = self.sources.iter().find(|bound| bound.has(&partition.name)) {
            partition.origin.clone_from(&bound.name);
        }
        partition.capped = self.directory.capped_source(&partition.name);
        self.partitions.push(partition);
    }

    fn join(&mut self, name: &str, source: u32, watermark: Timestamp) -> u32 {
        let ix = self.partitions.len() as u32;
        let partition = Partition::new(name, source, watermark);
        self.add_partition(partition);
        self.by_name.insert(name.to_owned(), ix);
        ix
    }
}
