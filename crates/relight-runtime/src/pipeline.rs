//! One engine: its four parts, its stores, and the order between them.
//!
//! The order is DESIGN's: the ledger first, then the images, then the manifest. Effects leave only
//! after the ledger has the writes of the turn that wanted them. Reads no clock: control time is what
//! the driver says, and without that the last bin turn's end.

mod advances;
mod cut;
mod doubts;
mod evict;
mod faults;
mod figures;
mod ledger;
mod news;
mod open;
mod reload;
mod responders;
mod seeding;
mod watch;
mod writers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use relight_core::aliases::Aliases;
use relight_core::incident::{Action, Incident, LedgerWrite, RecordedAdvance};
use relight_core::record::{Reason, Record};
use relight_core::refusal::Refusals;
use relight_core::rule::{DetectorView, Finding, Settings};
use relight_core::{Span, Timestamp};
use relight_engine::control::{BinTurn, Control, ControlInput, Effect, GroupQuery};
use relight_engine::detect::{RowFinding, Verdicts};
use relight_engine::intake::{Command, Intake, Overflow, ReadyBin, Routed};
use relight_engine::sweep::Swept;
use relight_store::{Baselines, Ledger};

use crate::error::RuntimeError;
use crate::report::Totals;
use crate::shards::{Shard, Shards};

pub use cut::{Cut, Written};
pub use doubts::Doubts;
pub use faults::Panicked;
use ledger::Commits;
use news::Untold;
pub use news::{MoreNews, News};
pub use responders::{Responders, SimulatedOutcome};
use watch::scored;
pub use watch::{Turn, Watch};

/// The two stores of one engine.
pub struct Stores {
    /// Learned state.
    pub baselines: Box<dyn Baselines>,
    /// Incidents and actions.
    pub ledger: Box<dyn Ledger>,
}

/// When the ledger is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// With every turn that changes something, and before each manifest. What a daemon does.
    EveryTurn,
    /// Before each manifest only: nothing leaves a replay, so nothing is lost with the turns between.
    AtSnapshots,
}

/// What carries actions out, as the pipeline sees it.
pub trait Outbox: Send {
    /// An action is to be carried out; its intent is in the ledger.
    fn start(&mut self, effect: Effect, now: Timestamp);
    /// After a start: an action whose intent is in the ledger and whose outcome is not.
    fn resume(&mut self, action: &Action, incident: &Incident, now: Timestamp);
    /// When there will be something to tell Control, where that is known.
    fn poll_timeout(&self) -> Option<Timestamp>;
    /// What there is to tell Control at `now`.
    fn next(&mut self, now: Timestamp) -> Option<ControlInput>;
}

/// Intake, Fold, Detect and Control with their stores.
pub struct Pipeline {
    settings: Arc<Settings>,
    intake: Intake,
    shards: Shards,
    control: Control,
    ledger: Box<dyn Ledger>,
    /// `None` while a cut is being written.
    baselines: Option<Box<dyn Baselines>>,
    outbox: Box<dyn Outbox>,
    commit: Commit,
    /// Control time of a live run; a replay goes by the bins.
    now: Option<Timestamp>,
    /// Advances that an earlier run made beyond the snapshot, by partition.
    rewound: BTreeMap<u32, VecDeque<RecordedAdvance>>,
    /// Partitions of which the ledger has advances.
    advanced: BTreeSet<String>,
    /// Of each partition the first offset that the newest snapshot does not hold.
    covered: BTreeMap<String, u64>,
    routed: Routed,
    writes: Vec<LedgerWrite>,
    generation: u64,
    last_turn: Option<Timestamp>,
    totals: Totals,
    swept: Swept,
    silence_due: Option<Timestamp>,
    /// Some detector judges silence, so turns may be due without data.
    judges_silence: bool,
    /// Records with new series are to be brought again later.
    defers_new: bool,
    doubts: Doubts,
    commits: Commits,
    panics: faults::Panics,
    untold: Untold,
}

impl Pipeline {
    /// The index of a source's own partition, which joins if it is new. All sources are to join before the
    /// first record.
    pub fn partition(&mut self, name: &str) -> u32 {
        self.intake.partition(name)
    }

    /// The index of a partition that a record of a source names; see [`Intake::partition_of`].
    pub fn partition_of(&mut self, source: u32, name: &str) -> u32 {
        self.intake.partition_of(source, name)
    }

    /// The first offset of a partition that is not in the state.
    pub fn next_offset(&self, name: &str) -> u64 {
        self.intake.next_offset(name)
    }

    /// A partition's watermark.
    pub fn partition_watermark(&self, partition: u32) -> Timestamp {
        self.intake.partition_watermark(partition)
    }

    /// The highest event time that a partition has brought; not known before there is one.
    pub fn partition_newest(&self, partition: u32) -> Timestamp {
        self.intake.partition_newest(partition)
    }

    /// Up to where bins have closed, or may: with or without data in them.
    pub fn bins_closed_through(&self) -> Timestamp {
        self.intake.watermark().bin_start(self.settings.interval())
    }

    /// How far a source has come: the one that is furthest behind is read next.
    pub fn source_watermark(&self, source: u32) -> Timestamp {
        self.intake.source_watermark(source)
    }

    /// Takes one record that names all of its series.
    pub fn handle(&mut self, partition: u32, record: &Record) -> Result<(), RuntimeError> {
        self.handle_aliased(partition, record, &mut Aliases::default())
    }

    /// Takes one record whose source has numbers of its own for its series. They were renewed
    /// ([`Pipeline::names_generation`]) before it was decoded.
    pub fn handle_aliased(
        &mut self,
        partition: u32,
        record: &Record,
        aliases: &mut Aliases,
    ) -> Result<(), RuntimeError> {
        self.repeat_advances(partition, record.offset);
        self.intake.handle(partition, record, aliases, &mut self.routed);
        self.shards.route(&mut self.routed)
    }

    /// Moves when series are numbered anew: aliases of an earlier generation mean nothing.
    pub fn names_generation(&self) -> u64 {
        self.intake.directory().generation()
    }

    /// The key of a series, by Intake's number of it.
    pub fn series_key(&self, ix: u32) -> &[u8] {
        self.intake.directory().key_at(ix)
    }

    /// How many series there may be.
    pub fn max_series(&self) -> usize {
        self.settings.max_series
    }

    /// Whether new series are refused, whatever room the table has: there is no memory for them.
    pub fn shut(&mut self, is_shut: bool) {
        self.intake.directory_mut().shut(is_shut);
    }

    /// Whether records with new series are to be brought again later: memory is short, and it may pass.
    pub const fn defer_new(&mut self, defers: bool) {
        self.defers_new = defers;
    }

    /// Whether a record has to be brought again: it has a series that is not known. `aliases`: those of its source, renewed
    /// before it was decoded.
    pub fn defers(&mut self, record: &Record, aliases: Option<&Aliases>) -> bool {
        let directory = self.intake.directory_mut();
        let mut hint = 0;
        self.defers_new
            && record.points.iter().any(|point| {
                !aliases.is_some_and(|aliases| aliases.knows(point.alias))
                    && directory.find(record.key(point), &mut hint).is_none()
            })
    }

    /// New series that were refused, by source and metric: one for each of their points.
    pub const fn overflow(&self) -> &Overflow {
        self.intake.overflow()
    }

    /// What was refused so far by Intake, to tell what one record came to.
    pub fn refused(&self) -> [u64; Reason::ALL.len()] {
        Reason::ALL.map(|reason| self.intake.counters().refused(reason))
    }

    /// What was refused since this was last asked, by name.
    pub fn take_refusals(&mut self) -> Refusals {
        self.intake.take_refusals()
    }

    /// Partitions that the state knows and that have not ended, but for these.
    pub fn partitions_besides(&self, read: &[u32]) -> Vec<String> {
        let open = self.intake.partitions().into_iter().filter(|p| p.watermark != Timestamp::MAX);
        let read: Vec<&str> = read.iter().map(|ix| self.intake.partition_name(*ix)).collect();
        open.map(|p| p.name).filter(|name| !read.contains(&&**name)).collect()
    }

    /// Of each partition the first offset that the newest snapshot does not hold.
    pub const fn covered(&self) -> &BTreeMap<String, u64> {
        &self.covered
    }

    /// A source has been read to its end.
    pub fn end_source(&mut self, source: u32) -> Result<(), RuntimeError> {
        self.intake.end_source(source, &mut self.routed);
        self.shards.route(&mut self.routed)
    }

    /// No sources but these are read in this run.
    pub fn end_others(&mut self, sources: &[u32]) -> Result<(), RuntimeError> {
        self.intake.end_others(sources, &mut self.routed);
        self.shards.route(&mut self.routed)
    }

    /// Runs every turn that the watermarks allow.
    pub fn run(&mut self, watch: &mut dyn Watch) -> Result<(), RuntimeError> {
        loop {
            let due = [self.control_due(), self.silence_due].into_iter().flatten().min();
            let Some(bin) = self.intake.next_bin(due) else { return Ok(()) };
            self.turn(bin, watch)?;
        }
    }

    /// The next deadline of Control or of the outbox, where time goes by the bins: a live driver has a clock
    /// for those.
    fn control_due(&self) -> Option<Timestamp> {
        let own = self.control.poll_timeout().map(|(at, _)| at);
        let due = [own, self.outbox.poll_timeout()].into_iter().flatten().min();
        due.filter(|_| self.now.is_none())
    }

    fn turn(&mut self, bin: Timestamp, watch: &mut dyn Watch) -> Result<(), RuntimeError> {
        let has_data = self.intake.has_bin(bin);
        let mut ready = self.intake.close(bin, &mut self.routed);
        self.shards.route(&mut self.routed)?;
        // A deadline of Control makes a turn of Control alone: Detect must not notice, or what is
        // learned would depend on what was done.
        let silent = self.silence_due.is_some_and(|due| due <= ready.end);
        let verdicts =
            if has_data || silent { self.step(&ready, watch.wants_readings())? } else { Verdicts::default() };
        self.note_faults(ready.at, verdicts.faults);
        let findings = self.findings(ready.at, &verdicts.findings);
        self.answer_until(ready.end, std::mem::take(&mut ready.commands))?;
        self.judge(&ready, &findings)?;
        self.totals.turn(&ready, has_data, findings.len());
        self.last_turn = Some(ready.end);
        let readings = verdicts.all.map(|all| scored(&ready, &all)).unwrap_or_default();
        let carried = &verdicts.carried;
        watch.turn(&Turn { end: ready.end, findings: &findings, readings: &readings, carried });
        if has_data || silent { self.evict_idle(ready.end) } else { Ok(()) }
    }

    fn step(&mut self, ready: &ReadyBin, want_all: bool) -> Result<Verdicts, RuntimeError> {
        let ranks = self.intake.ranks();
        let verdicts = self.shards.step(ready.bin, ready.at, ranks, ready.event_rows.clone(), want_all)?;
        self.silence_due = if self.judges_silence { self.poll_silence()? } else { None };
        Ok(verdicts)
    }

    fn poll_silence(&mut self) -> Result<Option<Timestamp>, RuntimeError> {
        let due = self.shards.each(|_| |shard: &mut Shard| shard.detect.poll_timeout())?;
        Ok(due.into_iter().flatten().min())
    }

    /// Findings by name, in the order of (signal, labels), then detector.
    fn findings(&self, at: Timestamp, found: &[RowFinding]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = found
            .iter()
            .map(|f| Finding {
                at,
                detector: f.detector,
                row: self.intake.directory().row_key(f.row),
                value: f.reading.value,
                reading: f.reading.reading,
                relearned: f.reading.relearned,
                onset: f.reading.onset,
            })
            .collect();
        let signal = |f: &Finding| self.settings.detectors[f.detector].signal;
        findings.sort_by(|a, b| (signal(a), &a.row, a.detector).cmp(&(signal(b), &b.row, b.detector)));
        findings
    }

    fn judge(&mut self, ready: &ReadyBin, findings: &[Finding]) -> Result<(), RuntimeError> {
        let mut views = Vec::new();
        for query in self.control.queries(findings) {
            let seen = self.view(&query, ready.at)?;
            views.push((query, seen));
        }
        let start = if ready.bin == ready.end { ready.at } else { ready.bin };
        let groups_known = &self.groups_known(&views)?;
        let (events, recent) = (&*ready.events, self.intake.recent());
        let turn = BinTurn { start, end: ready.end, events, recent, findings, views: &views, groups_known };
        let mut effects = Vec::new();
        let from = self.writes.len();
        self.control.bin_turn(&turn, &mut self.writes, &mut effects);
        self.untold.gather(&self.writes[from..], None);
        let now = self.now.map_or(ready.end, |now| now.max(ready.end));
        self.answer(effects, now)
    }

    fn view(&mut self, query: &GroupQuery, at: Timestamp) -> Result<Vec<DetectorView>, RuntimeError> {
        let none = || {
            vec![
                DetectorView { stale: true, ..Default::default() };
                self.settings.rules[query.rule].detectors.len()
            ]
        };
        let Some(group) = self.intake.directory().rule_group(query.rule, &query.group) else {
            return Ok(none());
        };
        let mut sum = none();
        let rule = query.rule;
        for views in self.shards.each(|_| move |shard: &mut Shard| shard.detect.views(rule, group, at))? {
            for (mine, theirs) in sum.iter_mut().zip(views) {
                *mine = mine.merge(theirs);
            }
        }
        Ok(sum)
    }

    /// How many groups with history the rules have that a fleet limit measures: as many as make a difference to it.
    fn groups_known(
        &mut self,
        views: &[(GroupQuery, Vec<DetectorView>)],
    ) -> Result<BTreeMap<usize, u64>, RuntimeError> {
        let rules: Vec<usize> =
            self.control.counted_rules(views.iter().map(|(query, _)| query.rule)).collect();
        let enough = self.settings.fleet_limit.map_or(0, |limit| limit.groups_enough());
        let mut known = BTreeMap::new();
        for rule in rules {
            // A group may have rows in several shards.
            let mut found = BTreeSet::new();
            let mut numbers = self.intake.directory().rule_groups(rule);
            while found.len() < enough {
                let some: Arc<[u32]> = numbers.by_ref().take(GROUPS_AT_A_TIME).collect();
                if some.is_empty() {
                    break;
                }
                let part = self.shards.each(|_| {
                    let some = Arc::clone(&some);
                    move |shard: &mut Shard| shard.detect.with_history(&some)
                })?;
                found.extend(part.into_iter().flatten());
            }
            known.insert(rule, found.len().min(enough) as u64);
        }
        Ok(known)
    }

    /// Sets control time: from now on a clock and not the bins drive Control's deadlines. It never runs
    /// backwards.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = Some(self.now.map_or(now, |before| before.max(now)));
    }

    /// Tells Control what came from outside, and lets out what follows.
    pub fn control(&mut self, input: ControlInput, now: Timestamp) -> Result<(), RuntimeError> {
        let mut effects = Vec::new();
        self.control_turn(input, now, &mut effects);
        self.answer(effects, now)
    }

    /// When Control's next deadline is due, in control time.
    pub fn control_timeout(&self) -> Option<Timestamp> {
        self.control.poll_timeout().map(|(at, _)| at)
    }

    /// The outbox asks before it sends: see [`Control::measure_when_sent`].
    pub const fn measure_when_sent(&mut self) {
        self.control.measure_when_sent();
    }

    /// The state of all incidents and actions, to read.
    pub const fn control_state(&self) -> &Control {
        &self.control
    }

    /// Commits the turn, lets its effects out, and takes what the responders answer at once.
    fn answer(&mut self, mut effects: Vec<Effect>, now: Timestamp) -> Result<(), RuntimeError> {
        let mut withheld = VecDeque::new();
        loop {
            if !self.commit_turn()? {
                withheld.extend(self.withhold(&mut effects, now));
            }
            for effect in effects.drain(..) {
                self.outbox.start(effect, now);
            }
            let Some(input) = withheld.pop_front().or_else(|| self.outbox.next(now)) else { return Ok(()) };
            self.control_turn(input, now, &mut effects);
        }
    }

    /// Commands, and the outcomes that fall before the bin turn, each at its own time in a turn of its
    /// own. A command goes before an outcome of the same instant: up to which command Control has come is
    /// told by its time alone, so nothing may move it there before the command does.
    fn answer_until(&mut self, end: Timestamp, commands: Vec<Command>) -> Result<(), RuntimeError> {
        let before = end.minus(Span::from_ns(1));
        let mut commands = commands.into_iter().peekable();
        loop {
            let applied = self.control.applied_through().map_or(Timestamp::MIN, |applied| applied.control);
            let due = self.outbox.poll_timeout().filter(|at| *at <= before);
            let (input, now) =
                if let Some(command) = commands.next_if(|command| due.is_none_or(|due| command.at <= due)) {
                    let Command { at, verb, target } = command;
                    if at <= applied {
                        // It was obeyed before a crash, and comes again with its bin.
                        continue;
                    }
                    (ControlInput::Command { at, verb, target }, at)
                } else {
                    let Some(now) = due.map(|at| at.max(applied)) else { return Ok(()) };
                    let Some(input) = self.outbox.next(now) else { return Ok(()) };
                    (input, now)
                };
            let mut effects = Vec::new();
            self.control_turn(input, now, &mut effects);
            self.answer(effects, now)?;
        }
    }

    /// Whether the turn is in the ledger, or may wait for the next commit.
    fn commit_turn(&mut self) -> Result<bool, RuntimeError> {
        // `applied_through` alone may wait: a turn that changed nothing can be applied again.
        let changed = self.writes.iter().any(|write| !matches!(write, LedgerWrite::Applied(_)));
        match self.commit {
            Commit::EveryTurn if changed => self.commit_if_due(),
            Commit::EveryTurn => Ok(true),
            Commit::AtSnapshots => self.bound_writes().map(|()| true),
        }
    }

    /// The ledger, to read what it holds.
    pub fn ledger(&mut self) -> &mut dyn Ledger {
        &mut *self.ledger
    }

    /// Start of the first bin with data; [`Timestamp::MAX`] before there was one.
    pub const fn first_bin(&self) -> Timestamp {
        self.totals.first
    }

    /// Points accepted so far.
    pub fn points(&self) -> u64 {
        self.intake.counters().points
    }
}

/// Groups that the shards are asked about at a time: more than any usual limit needs to see.
const GROUPS_AT_A_TIME: usize = 1_024;
