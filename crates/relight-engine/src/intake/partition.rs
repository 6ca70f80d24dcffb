//! One partition: what is known of its offsets and of its time.

use relight_core::aliases::Aliases;
use relight_core::record::{ControlRecord, Point, Record};
use relight_core::{Span, Timestamp};

use super::MAX_AHEAD;
use super::pace::Pace;
use crate::directory::{Directory, SourceIx};

/// What a checkpoint keeps of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// Its name.
    pub name: String,
    /// The first offset that is not in the state.
    pub next_offset: u64,
    /// The highest event time that counted.
    pub highest: Timestamp,
    /// Its watermark; [`Timestamp::MAX`] once it has ended.
    pub watermark: Timestamp,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) name: String,
    /// Index of its source's own partition.
    pub(super) source: u32,
    /// The source's name in the config; its own, where it is of none.
    pub(super) origin: String,
    /// That source, if it has a bound of its own on series.
    pub(super) capped: Option<SourceIx>,
    /// It has had no record since it joined.
    pub(super) is_unused: bool,
    pub(super) next_offset: u64,
    pub(super) highest: Timestamp,
    pub(super) watermark: Timestamp,
    pub(super) pace: Pace,
    /// A record whose time jumped ahead and that the next one must confirm.
    held: Option<Box<Record>>,
    /// Its watermark stays until it is advanced.
    pub(super) kept: bool,
    /// The first offset behind the lines that waited with it: they are known when it is.
    pub(super) held_through: u64,
    /// The series met last: where to guess from.
    pub(super) hint: u32,
}

/// What a record's time says about the one held before it.
#[derive(Debug)]
pub(super) enum Jump {
    /// Nothing is held, and this is no jump.
    None,
    /// A jump that nothing confirms yet.
    Unconfirmed,
    /// The record had no time of its own and waits with the one held.
    Waiting,
    /// The held record was right.
    Confirmed(Box<Record>),
    /// The held record was wrong about everything later than this.
    Refuted(Box<Record>, Timestamp),
}

impl Partition {
    pub(super) fn new(name: &str, source: u32, watermark: Timestamp) -> Self {
        let state =
            PartitionState { name: name.to_owned(), next_offset: 0, highest: Timestamp::MIN, watermark };
        Self::restore(state, source, true)
    }

    pub(super) fn restore(state: PartitionState, source: u32, is_unused: bool) -> Self {
        let PartitionState { name, next_offset, highest, watermark } = state;
        Self {
            origin: name.clone(),
            capped: None,
            name,
            source,
            is_unused,
            next_offset,
            highest,
            watermark,
            pace: Pace::default(),
            held: None,
            kept: false,
            held_through: 0,
            hint: u32::MAX,
        }
    }

    pub(super) fn state(&self) -> PartitionState {
        PartitionState {
            name: self.name.clone(),
            next_offset: self.next_offset,
            highest: self.highest,
            watermark: self.watermark,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.watermark == Timestamp::MAX
    }

    /// If it had ended, it goes on.
    pub(super) fn rejoin(&mut self, watermark: Timestamp) {
        if self.has_ended() {
            self.watermark = watermark;
            self.is_unused = true;
            self.kept = false;
        }
    }

    /// Whether a record without `received` is further ahead than the partition's pace explains, and what that means for
    /// the one held. "Ahead" is measured from the highest time that counted; before there is one, from where the
    /// partition starts. The first record of a partition that starts nowhere has nothing to be measured
    /// by but the second.
    pub(super) fn jump(&mut self, record: &Record) -> Jump {
        if record.received.is_some() && self.held.is_none() {
            return Jump::None;
        }
        let newest = newest(record);
        let limit = self.limit();
        let jumps = record.received.is_none() && newest > Some(limit.unwrap_or(Timestamp::MIN));
        let Some(held) = self.held.take() else {
            return if jumps { Jump::Unconfirmed } else { Jump::None };
        };
        if newest.is_none() {
            // A line that could not be read says nothing about time: it waits with the held record.
            let mut held = held;
            for (reason, n) in &record.refused {
                match held.refused.iter_mut().find(|(r, _)| r == reason) {
                    Some((_, sum)) => *sum = sum.saturating_add(*n),
                    None => held.refused.push((*reason, *n)),
                }
            }
            held.refusals.merge(&record.refusals);
            self.held = Some(held);
            self.held_through = record.offset.saturating_add(1);
            return Jump::Waiting;
        }
        let near = newest_of(&held).minus(MAX_AHEAD);
        let limit = limit.or_else(|| newest.map(|newest| newest.plus(MAX_AHEAD)));
        match limit.filter(|_| newest < Some(near)) {
            Some(limit) => Jump::Refuted(held, limit),
            None => Jump::Confirmed(held),
        }
    }

    pub(super) fn hold(&mut self, record: Record) {
        self.held = Some(Box::new(record));
    }

    /// The held record and up to when it counts, once an advance to `to` says how time went on.
    pub(super) fn release(&mut self, to: Timestamp) -> Option<(Box<Record>, Timestamp)> {
        let held = self.held.take()?;
        let confirmed = to.is_known() && to >= newest_of(&held).minus(MAX_AHEAD);
        let ahead = if to == Timestamp::MAX { Pace::at_the_end } else { Pace::unconfirmed };
        // An only record has nothing that speaks against it.
        let limit = self.limit_of(ahead).unwrap_or(to.plus(MAX_AHEAD));
        Some((held, if confirmed { Timestamp::MAX } else { limit }))
    }

    /// Up to when a time counts unconfirmed; `None` if there is nothing to measure it by.
    fn limit(&self) -> Option<Timestamp> {
        self.limit_of(Pace::unconfirmed)
    }

    fn limit_of(&self, ahead: fn(&Pace, Timestamp) -> Span) -> Option<Timestamp> {
        if self.highest.is_known() {
            return Some(self.highest.plus(ahead(&self.pace, self.highest)));
        }
        self.watermark.is_known().then(|| self.watermark.plus(MAX_AHEAD))
    }

    pub(super) fn move_to(&mut self, highest: Timestamp, received: Option<Timestamp>, lateness: Span) {
        self.pace.learn(self.highest, highest);
        self.highest = highest;
        if highest.is_known() && !self.kept {
            let newest = received.map_or(highest, |received| highest.min(received));
            self.watermark = self.watermark.max(newest.minus(lateness));
        }
    }
}

fn newest(record: &Record) -> Option<Timestamp> {
    let points = record.points.iter().map(|p| p.at);
    let advances = record.controls.iter().map(|c| match c {
        ControlRecord::Advance { to } => *to,
        ControlRecord::Outcome { at, .. } | ControlRecord::Command { at, .. } => *at,
    });
    points.chain(record.events.iter().map(|e| e.at)).chain(advances).max()
}

fn newest_of(held: &Record) -> Timestamp {
    newest(held).expect("only a record with a time is held")
}

/// A record that can wait: with the keys of all its points, since aliases may be forgotten meanwhile.
pub(super) fn with_keys(record: &Record, aliases: &Aliases, directory: &Directory) -> Record {
    let mut held = record.clone();
    for i in 0..held.ends.len() {
        let end = held.ends[i];
        if let Some(ix) = aliases.get(end.alias) {
            let (key_start, key_len) = held.push_key(directory.key_at(ix));
            held.ends[i] = Point { key_start, key_len, ..end };
        }
        held.ends[i].alias = Aliases::NONE;
    }
    for i in 0..held.points.len() {
        let point = held.points[i];
        if let Some(ix) = aliases.get(point.alias) {
            let (key_start, key_len) = held.push_key(directory.key_at(ix));
            held.points[i] = Point { key_start, key_len, ..point };
        }
        held.points[i].alias = Aliases::NONE;
    }
    held
}
