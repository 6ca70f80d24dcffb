//! Takes records in, one at a time and in the order of their partitions: is the offset known, what
//! does the partition's watermark say, may the point come in, and where does it go?
//!
//! Holds no values: points go on to Fold at once. Events and commands wait here for their bin. There is no clock:
//! time moves by records and by recorded advances.

#[cfg(test)]
mod aliased;
mod commands;
mod ends;
mod named;
mod overflow;
mod pace;
mod partition;
mod recent;
mod routed;
mod sources;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use relight_core::aliases::Aliases;
use relight_core::record::{ControlRecord, Event, Histogram, Point, Reason, Record};
use relight_core::rule::{Settings, SourceBound};
use relight_core::series::encode_key;
use relight_core::signal::Binning;
use relight_core::{KeyView, Span, Timestamp};

use crate::counters::Counters;
use crate::directory::{Directory, RowAddr, SeriesAddr};

pub use commands::Command;
pub use overflow::Overflow;
pub use partition::PartitionState;
pub use recent::Recent;
pub use routed::{Routed, RoutedPoint, Run};

use commands::{OpenCommand, OpenCommands};
use ends::OpenEnds;
use named::Named;
use partition::{Jump, Partition, with_keys};

/// An event's kind is a name, and as long as one at most: it is kept for a day.
const MAX_KIND_BYTES: usize = 1_024;
/// How far ahead of `received` a point may be, and how far a partition may jump unconfirmed, where its data are dense.
pub const MAX_AHEAD: Span = Span::from_secs(600);

#[derive(Debug, Clone, PartialEq)]
struct OpenEvent {
    partition: u16,
    offset: u64,
    index: u32,
    event: Event,
}

#[derive(Debug, Clone, PartialEq)]
struct OpenBin {
    /// The time that detectors and people see: the bin's start, or the sample's own time.
    at: Timestamp,
    /// The record that made it, if bins are samples.
    offset: u64,
    events: Vec<OpenEvent>,
}

/// A bin whose turn has come.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyBin {
    /// Key of the bin.
    pub bin: Timestamp,
    /// The time of its values.
    pub at: Timestamp,
    /// Its end: the time of the turn.
    pub end: Timestamp,
    /// The record it stands for, if bins are samples.
    pub offset: u64,
    /// Its events, by (time, partition, offset).
    pub events: Vec<Event>,
    /// Rows that those events feed, one entry an event.
    pub event_rows: Vec<RowAddr>,
    /// What people asked for in it, in the order in which it is obeyed, before the bin is judged.
    pub commands: Vec<Command>,
}

/// The first of the four parts.
pub struct Intake {
    binning: Binning,
    lateness: Span,
    partitions: Vec<Partition>,
    by_name: BTreeMap<String, u32>,
    sources: Vec<SourceBound>,
    directory: Directory,
    counters: Counters,
    overflow: Overflow,
    named: Named,
    open: BTreeMap<Timestamp, OpenBin>,
    commands: OpenCommands,
    ends: OpenEnds,
    recent: Recent,
    /// The bin that the last point fell into, while it is open: nearly always also the next one's.
    newest: Option<(Timestamp, Timestamp)>,
    /// End of the last bin that was closed.
    closed_through: Timestamp,
}

impl Intake {
    /// An intake that has seen nothing.
    pub fn new(settings: &Settings) -> Self {
        Self {
            binning: settings.binning,
            lateness: settings.allowed_lateness,
            partitions: Vec::new(),
            by_name: BTreeMap::new(),
            sources: settings.sources.clone(),
            directory: Directory::new(settings),
            counters: Counters::default(),
            overflow: Overflow::default(),
            named: Named::default(),
            open: BTreeMap::new(),
            commands: BTreeMap::new(),
            ends: OpenEnds::new(),
            recent: Recent::default(),
            newest: None,
            closed_through: Timestamp::MIN,
        }
    }

    /// Names and look-up tables.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Names and look-up tables, to link restored images to.
    pub const fn directory_mut(&mut self) -> &mut Directory {
        &mut self.directory
    }

    /// What came in so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes one record of a partition. `aliases` are its source's, renewed ([`Aliases::renew`]) with the
    /// directory's generation before the record was decoded; a capture has none.
    pub fn handle(&mut self, partition: u32, record: &Record, aliases: &mut Aliases, out: &mut Routed) {
        debug_assert!(
            aliases.generation() == self.directory.generation()
                || record.points.iter().all(|p| p.key_len > 0),
            "a record without keys was decoded before its aliases were renewed"
        );
        let p = &mut self.partitions[partition as usize];
        if record.offset < p.next_offset {
            self.counters.repeated += 1;
            return;
        }
        p.is_unused = false;
        if self.binning == Binning::Sample {
            p.next_offset = record.offset.saturating_add(1);
            self.take(partition, record, aliases, Timestamp::MAX, out);
            return;
        }
        match p.jump(record) {
            Jump::None => self.take(partition, record, aliases, Timestamp::MAX, out),
            // The record itself is held, not its time alone: a lone wild clock must not leave a point
            // in a bin that closes years later. Its offset stays unknown, so a snapshot re-reads it.
            Jump::Unconfirmed => p.hold(with_keys(record, aliases, &self.directory)),
            Jump::Waiting => {}
            Jump::Confirmed(held) => {
                self.take(partition, &held, &mut Aliases::default(), Timestamp::MAX, out);
                // That the held one was right says nothing of this one, which may jump in its turn.
                self.handle(partition, record, aliases, out);
            }
            Jump::Refuted(held, limit) => {
                self.take(partition, &held, &mut Aliases::default(), limit, out);
                // The record that refuted the held one may itself be a jump, from where things were.
                self.handle(partition, record, aliases, out);
            }
        }
    }

    /// The partition is idle up to `to`; or has ended, with [`Timestamp::MAX`].
    pub fn advance(&mut self, partition: u32, to: Timestamp, out: &mut Routed) {
        let p = &mut self.partitions[partition as usize];
        if let Some((held, limit)) = p.release(to) {
            self.take(partition, &held, &mut Aliases::default(), limit, out);
        }
        let p = &mut self.partitions[partition as usize];
        p.watermark = p.watermark.max(to);
        p.kept = false;
    }

    fn take(
        &mut self,
        partition: u32,
        record: &Record,
        aliases: &mut Aliases,
        limit: Timestamp,
        out: &mut Routed,
    ) {
        let p = &mut self.partitions[partition as usize];
        p.next_offset = record.offset.saturating_add(1).max(p.held_through);
        self.counters.records += 1;
        self.named.begin();
        for (reason, n) in &record.refused {
            self.counters.refuse(*reason, u64::from(*n));
        }
        let ahead = p.pace.ahead_of_arrival(p.highest);
        let limit = record.received.map_or(limit, |received| limit.min(received.plus(ahead)));
        // Lateness is judged by the partition's own watermark as it stood before this record, never by
        // whether the bin happens to be open: that would depend on the other partitions' pace.
        let stamp = self.partitions[partition as usize].watermark;
        let points = self.take_points(partition, record, aliases, (stamp, limit), out);
        self.take_ends(partition, record, aliases, (stamp, limit));
        let mut highest = points.max(self.partitions[partition as usize].highest);
        for (index, event) in record.events.iter().enumerate() {
            if let Some(at) = self.take_event(partition, record.offset, index, event, (stamp, limit)) {
                highest = highest.max(at);
            }
        }
        for (index, control) in record.controls.iter().enumerate() {
            match control {
                // The end of all time is the end of a partition, which only its reader can tell.
                ControlRecord::Advance { to: at } | ControlRecord::Command { at, .. }
                    if *at > limit || *at == Timestamp::MAX =>
                {
                    self.counters.refuse(Reason::Future, 1);
                }
                ControlRecord::Advance { to } => self.advance(partition, *to, out),
                ControlRecord::Command { at, verb, target } => {
                    let command = Command { at: *at, verb: verb.clone(), target: target.clone() };
                    let (index, offset) = (index as u32, record.offset);
                    let open = OpenCommand { partition: partition as u16, offset, index, command };
                    self.take_command(open, stamp);
                }
                // How actions ended is the responders' to say: it is known before the first record.
                ControlRecord::Outcome { .. } => {}
            }
        }
        self.partitions[partition as usize].move_to(highest, record.received, self.lateness);
    }

    /// The highest time of the points that were not refused for what they are.
    #[inline(never)]
    fn take_points(
        &mut self,
        partition: u32,
        record: &Record,
        aliases: &mut Aliases,
        (stamp, limit): (Timestamp, Timestamp),
        out: &mut Routed,
    ) -> Timestamp {
        let stamp = if self.binning == Binning::Sample { Timestamp::MIN } else { stamp };
        let (mut highest, mut taken) = (Timestamp::MIN, 0);
        // What the last point that was taken shares with those behind it.
        let mut shared = None;
        for point in &record.points {
            if let Some(reason) = refusal(point, record, stamp, limit) {
                self.counters.refuse(reason, 1);
                if self.named.has_room() {
                    self.name_refusal(reason, point, record.key(point), aliases);
                }
                // A refused point says nothing about time, and its name is not kept: names are memory.
                continue;
            }
            let Point { at, start, kind, .. } = *point;
            highest = highest.max(at);
            let series = match self.series(partition, point, record.key(point), aliases, out) {
                Ok(series) => series,
                Err(reason) => {
                    self.refuse_series(partition, record.key(point), reason, 1);
                    continue;
                }
            };
            if shared != Some((at, start, kind)) {
                shared = Some((at, start, kind));
                let (bin, offset) = (self.open_bin(at, record.offset), record.offset);
                out.begin(&Run { bin, at, start, offset, partition: partition as u16, kind });
            }
            // Whether a sum of negative zeros keeps its sign depends on how it is added up: here there is one zero.
            let mut value = point.value + 0.0;
            if kind.is_histogram() {
                value = out.histograms.len() as f64;
                out.histograms.push(record.histograms[point.value as usize].clone());
            }
            out.push(series, value);
            taken += 1;
        }
        self.counters.points += taken;
        highest
    }

    #[cold]
    fn name_refusal(&mut self, reason: Reason, point: &Point, key: &[u8], aliases: &Aliases) {
        let known = if key.is_empty() { aliases.get(point.alias) } else { None };
        self.named.add(reason, known.map_or(key, |ix| self.directory.key_at(ix)));
    }

    #[inline]
    fn series(
        &mut self,
        partition: u32,
        point: &Point,
        key: &[u8],
        aliases: &mut Aliases,
        out: &mut Routed,
    ) -> Result<SeriesAddr, Reason> {
        if let Some(ix) = aliases.get(point.alias) {
            return Ok(self.directory.series_at(ix));
        }
        if key.is_empty() && point.alias != Aliases::NONE {
            return Err(Reason::SeriesLimit);
        }
        let from = &mut self.partitions[partition as usize];
        if let Some(known) = self.directory.find(key, &mut from.hint) {
            aliases.set(point.alias, from.hint);
            return Ok(known);
        }
        self.new_series(partition, point, key, aliases, out)
    }

    // A series that is refused stays unknown to its source, so its key comes with every request and each
    // refusal is counted.
    #[cold]
    fn new_series(
        &mut self,
        partition: u32,
        point: &Point,
        key: &[u8],
        aliases: &mut Aliases,
        out: &mut Routed,
    ) -> Result<SeriesAddr, Reason> {
        let capped = self.partitions[partition as usize].capped;
        let ix = self.directory.add(key, point.kind, capped, (&mut out.series, &mut out.rows))?;
        aliases.set(point.alias, ix);
        Ok(self.directory.series_at(ix))
    }

    fn take_event(
        &mut self,
        partition: u32,
        offset: u64,
        index: usize,
        event: &Event,
        (stamp, limit): (Timestamp, Timestamp),
    ) -> Option<Timestamp> {
        if event.kind.len() > MAX_KIND_BYTES {
            self.counters.refuse(Reason::LabelLimit, 1);
            return None;
        }
        if event.at > limit {
            self.counters.refuse(Reason::Future, 1);
            return None;
        }
        let late = event.at < stamp && self.binning != Binning::Sample;
        self.counters.events += 1;
        self.counters.late_events += u64::from(late);
        // A late event still happened: it joins the bin that its partition has come to.
        let bin = self.open_bin(if late { stamp } else { event.at }, offset);
        let open = self.open.get_mut(&bin).expect("open_bin has just made it");
        let (partition, index) = (partition as u16, index as u32);
        open.events.push(OpenEvent { partition, offset, index, event: event.clone() });
        (!late).then_some(event.at)
    }

    fn open_bin(&mut self, at: Timestamp, offset: u64) -> Timestamp {
        if let Some((start, end)) = self.newest
            && start <= at
            && at < end
        {
            return start;
        }
        let bin = match self.binning {
            Binning::Interval(interval) => at.bin_start(interval),
            Binning::Sample => {
                // Samples keep their order even where their times do not ascend.
                let last = self.open.last_key_value().map_or(self.closed_through, |(bin, _)| *bin);
                match self.open.get(&last) {
                    Some(open) if open.offset == offset => return last,
                    _ => at.max(last.plus(Span::from_ns(1))),
                }
            }
        };
        let shown = if self.binning == Binning::Sample { at } else { bin };
        self.open.entry(bin).or_insert_with(|| OpenBin { at: shown, offset, events: Vec::new() });
        if let Binning::Interval(interval) = self.binning {
            self.newest = Some((bin, bin.plus(interval)));
        }
        bin
    }

    /// The time up to which bins may close: the minimum over the partitions that have not ended, or,
    /// when all have, the end of the newest bin.
    pub fn watermark(&self) -> Timestamp {
        let active = self.partitions.iter().filter(|p| !p.has_ended()).map(|p| p.watermark).min();
        active.unwrap_or_else(|| {
            self.open.last_key_value().map_or(self.closed_through, |(bin, _)| self.end_of(*bin))
        })
    }

    /// The bin whose turn comes next, if the watermark allows it: the first with data or with a command
    /// or, if a deadline `due` falls earlier, the one in which it falls.
    pub fn next_bin(&self, due: Option<Timestamp>) -> Option<Timestamp> {
        let data = self.open.first_key_value().map(|(bin, _)| *bin);
        let said = self.commands.first_key_value().map(|(bin, _)| *bin);
        let due = due.map(|due| self.bin_ending_at_or_after(due));
        let bin = [data, said, due].into_iter().flatten().min()?;
        (self.end_of(bin) <= self.watermark()).then_some(bin)
    }

    /// The last events of closed bins: a bounded choice of them, with their texts cut, for people to read.
    pub const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Whether a bin holds points or events.
    pub fn has_bin(&self, bin: Timestamp) -> bool {
        self.open.contains_key(&bin)
    }

    fn bin_ending_at_or_after(&self, due: Timestamp) -> Timestamp {
        match self.binning {
            Binning::Interval(interval) => {
                let bin = due.minus(Span::from_ns(1)).bin_start(interval);
                if self.closed_through.is_known() { bin.max(self.closed_through) } else { bin }
            }
            Binning::Sample => due.max(self.closed_through.plus(Span::from_ns(1))),
        }
    }

    fn end_of(&self, bin: Timestamp) -> Timestamp {
        match self.binning {
            Binning::Interval(interval) => bin.plus(interval),
            Binning::Sample => bin,
        }
    }

    /// Closes a bin that [`Intake::next_bin`] named and hands out its events. New rows of event counts
    /// and markers that series have ended are appended to `out`.
    pub fn close(&mut self, bin: Timestamp, out: &mut Routed) -> ReadyBin {
        let end = self.end_of(bin);
        self.release_ends(end, &mut out.ends);
        self.newest = self.newest.filter(|(newest, _)| *newest != bin);
        let open = self.open.remove(&bin).unwrap_or(OpenBin { at: bin, offset: 0, events: Vec::new() });
        let commands = self.release_commands(bin, end);
        let ranks = self.ranks();
        let mut events = open.events;
        events.sort_by_key(|e| (e.event.at, ranks[e.partition as usize], e.offset, e.index));
        let mut event_rows = Vec::new();
        let mut key = Vec::new();
        for e in &events {
            key.clear();
            encode_key(&e.event.kind, e.event.labels.iter(), &mut key);
            let refused = self.directory.event_rows(KeyView::new(&key), &mut event_rows, &mut out.rows);
            if refused > 0 {
                self.refuse_series(e.partition.into(), &key, Reason::SeriesLimit, refused);
            }
        }
        self.closed_through = self.closed_through.max(end);
        let events: Vec<Event> = events.into_iter().map(|e| e.event).collect();
        self.recent.remember(&events);
        ReadyBin { bin, at: open.at, end, offset: open.offset, events, event_rows, commands }
    }

    /// For each partition its place in the order of names: the durable part of (time, partition, offset).
    pub fn ranks(&self) -> Vec<u16> {
        let mut ranks = vec![0; self.partitions.len()];
        for (rank, ix) in self.by_name.values().enumerate() {
            ranks[*ix as usize] = rank as u16;
        }
        ranks
    }
}

/// Why a point may not come in. `stamp` is its partition's watermark as it stood before the record.
fn refusal(point: &Point, record: &Record, stamp: Timestamp, limit: Timestamp) -> Option<Reason> {
    if point.kind.is_histogram() {
        let histogram = record.histograms.get(point.value as usize);
        if !histogram.is_some_and(Histogram::is_valid) {
            return Some(Reason::BadHistogram);
        }
    } else if !point.value.is_finite() {
        return Some(Reason::NonFinite);
    }
    if point.at > limit {
        return Some(Reason::Future);
    }
    (point.at < stamp).then_some(Reason::Late)
}
