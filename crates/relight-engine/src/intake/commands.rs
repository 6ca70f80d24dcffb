//! Commands of a stream: what people asked for, waiting for the turn of the bin they fall into.
//!
//! They lie beside the bins of data, never in them: a bin in which somebody only spoke must not step
//! Detect. Knows no verb, and does not ask whether a command came before: Control's time says that.

use std::collections::BTreeMap;

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::signal::Binning;
use relight_core::{Span, Timestamp};

use super::Intake;

/// What a person asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// When it takes effect: later than every turn before its bin's, and no two at the same instant.
    pub at: Timestamp,
    /// Verb.
    pub verb: String,
    /// The incident, action or rule it is about.
    pub target: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenCommand {
    pub(super) partition: u16,
    pub(super) offset: u64,
    pub(super) index: u32,
    pub(super) command: Command,
}

/// By bin.
pub(super) type OpenCommands = BTreeMap<Timestamp, Vec<OpenCommand>>;

const INSTANT: Span = Span::from_ns(1);

impl Intake {
    /// A late command was still given: it takes effect where its partition has come to, whose bin no
    /// pace of the others can have closed.
    pub(super) fn take_command(&mut self, mut open: OpenCommand, stamp: Timestamp) {
        open.command.at = open.command.at.max(stamp);
        let at = open.command.at;
        let bin = match self.binning {
            Binning::Interval(interval) => at.bin_start(interval),
            // Each has a turn of its own, as each sample has.
            Binning::Sample => {
                let last = self.commands.last_key_value().map_or(self.closed_through, |(bin, _)| *bin);
                at.max(last.max(self.closed_through).plus(INSTANT))
            }
        };
        self.commands.entry(bin).or_default().push(open);
    }

    /// The commands of a bin that closes, by (time, partition, offset, index).
    ///
    /// Control time is how Control knows, after a crash, which of them it has obeyed. So each has an
    /// instant of its own in (start, end], where `start` is the end of the bin before: those that share
    /// one are moved on by a nanosecond each.
    pub(super) fn release_commands(&mut self, bin: Timestamp, end: Timestamp) -> Vec<Command> {
        let Some(mut open) = self.commands.remove(&bin) else { return Vec::new() };
        let start = match self.binning {
            Binning::Interval(_) => bin,
            Binning::Sample => self.closed_through,
        };
        let ranks = self.ranks();
        open.sort_by_key(|c| (c.command.at, ranks[c.partition as usize], c.offset, c.index));
        let mut commands: Vec<Command> = open.into_iter().map(|c| c.command).collect();
        let mut after = start;
        for command in &mut commands {
            command.at = command.at.max(after.plus(INSTANT));
            after = command.at;
        }
        let mut until = end;
        for command in commands.iter_mut().rev() {
            command.at = command.at.min(until);
            until = command.at.minus(INSTANT);
        }
        commands
    }
}

pub(super) fn save(commands: &OpenCommands, ranks: &[u16], out: &mut Vec<u8>) {
    (commands.len() as u32).encode(out);
    for (bin, open) in commands {
        bin.encode(out);
        let mut open: Vec<_> = open.iter().collect();
        open.sort_by_key(|c| (ranks[c.partition as usize], c.offset, c.index));
        (open.len() as u32).encode(out);
        for c in open {
            ranks[c.partition as usize].encode(out);
            c.offset.encode(out);
            c.index.encode(out);
            c.command.at.encode(out);
            c.command.verb.encode(out);
            c.command.target.encode(out);
        }
    }
}

pub(super) fn load(reader: &mut Reader<'_>, partitions: usize) -> Result<OpenCommands, Corrupt> {
    let mut commands = BTreeMap::new();
    for _ in 0..reader.len(12, "open commands")? {
        let bin = Timestamp::decode(reader)?;
        let mut open = Vec::new();
        for _ in 0..reader.len(30, "commands")? {
            let partition = u16::decode(reader)?;
            if partition as usize >= partitions {
                return Err(Corrupt::Value("partition"));
            }
            let (offset, index) = (u64::decode(reader)?, u32::decode(reader)?);
            let at = Timestamp::decode(reader)?;
            let command = Command { at, verb: String::decode(reader)?, target: String::decode(reader)? };
            open.push(OpenCommand { partition, offset, index, command });
        }
        commands.insert(bin, open);
    }
    Ok(commands)
}
