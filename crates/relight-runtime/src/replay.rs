//! Replay: the whole loop on recorded streams, on a virtual clock. Nothing is touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::incident::LedgerState;
use relight_core::record::Record;
use relight_core::rule::{Finding, Settings};
use relight_core::signal::Binning;
use relight_engine::control::summary::summarize;
use relight_ingest::CaptureSource;
use relight_store::{MemoryBaselines, MemoryLedger, StoreError};

use crate::error::RuntimeError;
pub use crate::pipeline::SimulatedOutcome;
use crate::pipeline::{Commit, Pipeline, Responders, Stores, Turn, Watch};
use crate::report::{Report, ScoredRow};
use crate::seed::History;

/// Records read from one source before the sources are looked at again.
const BATCH: usize = 256;

/// What to replay, and how.
pub struct ReplayRequest {
    /// The config, resolved.
    pub settings: Arc<Settings>,
    /// Captures.
    pub sources: Vec<Box<dyn CaptureSource>>,
    /// Threads for the engine; the result does not depend on it.
    pub threads: usize,
    /// Where to go on from and what to leave behind; `None` keeps everything in memory.
    pub stores: Option<Stores>,
    /// Accepted points between two snapshots; one is always cut at the end.
    pub snapshot_every: u64,
    /// How actions ended in the captures, by action id.
    pub outcomes: BTreeMap<String, SimulatedOutcome>,
    /// Whether the observer wants every verdict.
    pub want_readings: bool,
}

/// Watches a replay.
pub trait ReplayObserver {
    /// Bytes read, bytes there are (0 = not known), points so far.
    fn progress(&mut self, _done: u64, _total: u64, _points: u64) {}
    /// The findings of one turn.
    fn findings(&mut self, _findings: &[Finding]) {}
    /// Every verdict of one turn.
    fn readings(&mut self, _readings: &[ScoredRow]) {}
}

impl ReplayObserver for () {}

struct Observed<'a> {
    observer: &'a mut dyn ReplayObserver,
    want_readings: bool,
}

impl Watch for Observed<'_> {
    fn wants_readings(&self) -> bool {
        self.want_readings
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        self.observer.findings(turn.findings);
        if !turn.readings.is_empty() {
            self.observer.readings(turn.readings);
        }
    }
}

/// Replays captures and reports what came of them.
pub fn replay(request: ReplayRequest, observer: &mut dyn ReplayObserver) -> Result<Report, RuntimeError> {
    replay_seeded(request, None, observer)
}

/// Replays captures on rows that have a past.
pub fn replay_seeded(
    request: ReplayRequest,
    mut history: Option<&mut History>,
    observer: &mut dyn ReplayObserver,
) -> Result<Report, RuntimeError> {
    let mut notices = Vec::new();
    let keeps_state = request.stores.is_some();
    let stores = request.stores.unwrap_or_else(|| Stores {
        baselines: Box::new(MemoryBaselines::default()),
        ledger: Box::new(MemoryLedger::default()),
    });
    let responders = Box::new(Responders::new(request.outcomes));
    let settings = Arc::clone(&request.settings);
    let mut pipeline =
        Pipeline::open(settings, request.threads, stores, responders, Commit::AtSnapshots, &mut notices)?;
    let earlier = pipeline.totals()?;
    if let Some(history) = &mut history {
        pipeline.seed(history)?;
        if keeps_state {
            // From here on the folder is seeded: a run that dies any later is continued without the seed.
            notices.extend(unpruned(pipeline.snapshot()?));
        }
    }
    let mut inputs = Inputs::new(request.sources, &mut pipeline)?;
    let mut watch = Observed { observer, want_readings: request.want_readings };
    let mut next_snapshot = pipeline.points().saturating_add(request.snapshot_every);
    while inputs.read(&mut pipeline, &mut watch)? {
        check_earlier(history.as_deref(), &pipeline)?;
        let (done, total) = inputs.progress();
        watch.observer.progress(done, total, pipeline.points());
        if keeps_state && pipeline.points() >= next_snapshot {
            next_snapshot = pipeline.points().saturating_add(request.snapshot_every);
            notices.extend(unpruned(pipeline.snapshot()?));
        }
    }
    pipeline.run(&mut watch)?;
    check_earlier(history.as_deref(), &pipeline)?;
    // In memory, too: the ledger is what the report is read from.
    if keeps_state {
        notices.extend(unpruned(pipeline.snapshot()?));
    } else {
        pipeline.commit()?;
    }
    notices.extend(inputs.complaints());
    notices.extend(doubts(&pipeline));
    notices.extend(pipeline.take_panics().iter().map(|one| format!("detector {}: {one}", one.detector)));
    notices.extend(pipeline.take_writer_conflicts()?);
    let names = request.settings.detectors.iter().map(|detector| detector.name.clone());
    let warming = names.zip(pipeline.warming()?).filter(|(_, of)| of.warming > 0).collect();
    let times_known = request.settings.binning != Binning::Sample || inputs.are_in_order();
    Ok(Report { earlier, warming, times_known, notices, ..report(&mut pipeline)? })
}

fn unpruned(error: Option<StoreError>) -> Option<String> {
    error.map(|error| format!("an old snapshot is still on the disk: {error}"))
}

/// A seed must not know what is to be judged.
fn check_earlier(history: Option<&History>, pipeline: &Pipeline) -> Result<(), RuntimeError> {
    match history.and_then(History::span) {
        Some((_, seed)) if pipeline.first_bin() < seed => {
            Err(RuntimeError::SeedNotEarlier { seed, capture: pipeline.first_bin() })
        }
        _ => Ok(()),
    }
}

/// What the engine counted and would otherwise say to nobody.
fn doubts(pipeline: &Pipeline) -> Vec<String> {
    let control = pipeline.control_state();
    let counters = control.counters();
    let mut notices = Vec::new();
    if let Some(first) = control.condition_error_text() {
        notices.push(format!(
            "{} evaluations of conditions failed, and counted as false; the first: {first}",
            counters.condition_errors
        ));
    }
    if counters.digest_mismatches > 0 {
        notices.push(
            "the last turn of the run before came again with other findings: the capture or the config is not what it was"
                .to_owned(),
        );
    }
    notices
}

/// What the stores tell; the rest is the run's.
fn report(pipeline: &mut Pipeline) -> Result<Report, RuntimeError> {
    let (totals, unmatched) = (pipeline.totals()?, pipeline.unmatched());
    let (LedgerState { incidents, actions, .. }, _) = pipeline.ledger().load()?;
    let rules = summarize(&incidents, &actions);
    Ok(Report { totals, unmatched, incidents, actions, rules, ..Report::default() })
}

/// One source and the partitions that its records have named.
struct Input {
    source: Box<dyn CaptureSource>,
    /// The file's own partition, by which the engine knows the source.
    own: u32,
    partitions: Vec<Option<u32>>,
    ended: bool,
}

pub(crate) struct Inputs {
    inputs: Vec<Input>,
    record: Record,
}

impl Inputs {
    /// Registers every source before the first record is read, so that none is waited for in vain or
    /// overtaken by another.
    pub(crate) fn new(
        sources: Vec<Box<dyn CaptureSource>>,
        pipeline: &mut Pipeline,
    ) -> Result<Self, RuntimeError> {
        let mut inputs = Vec::new();
        for mut source in sources {
            source.skip_to(&|name| pipeline.next_offset(name))?;
            let own = pipeline.partition(&source.partitions()[0]);
            inputs.push(Input { source, own, partitions: Vec::new(), ended: false });
        }
        let sources: Vec<u32> = inputs.iter().map(|input| input.own).collect();
        pipeline.end_others(&sources)?;
        Ok(Self { inputs, record: Record::default() })
    }

    /// Reads a batch from the source that is furthest behind; `false` when all have ended.
    pub(crate) fn read(
        &mut self,
        pipeline: &mut Pipeline,
        watch: &mut dyn Watch,
    ) -> Result<bool, RuntimeError> {
        let behind = (0..self.inputs.len())
            .filter(|i| !self.inputs[*i].ended)
            .min_by_key(|i| pipeline.source_watermark(self.inputs[*i].own));
        let Some(ix) = behind else { return Ok(false) };
        let input = &mut self.inputs[ix];
        for _ in 0..BATCH {
            let Some(partition) = input.source.next(&mut self.record)? else {
                input.ended = true;
                pipeline.end_source(input.own)?;
                break;
            };
            let partition = input.partition(partition as usize, pipeline);
            pipeline.handle(partition, &self.record)?;
            pipeline.run(watch)?;
        }
        Ok(true)
    }

    pub(crate) fn progress(&self) -> (u64, u64) {
        self.inputs.iter().map(|input| input.source.progress()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    fn are_in_order(&self) -> bool {
        self.inputs.iter().all(|input| input.source.is_in_order())
    }

    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        self.inputs.iter().flat_map(|input| input.source.complaints()).cloned()
    }
}

impl Input {
    fn partition(&mut self, local: usize, pipeline: &mut Pipeline) -> u32 {
        if let Some(Some(partition)) = self.partitions.get(local) {
            return *partition;
        }
        let partition = pipeline.partition_of(self.own, &self.source.partitions()[local]);
        self.partitions.resize(self.partitions.len().max(local + 1), None);
        self.partitions[local] = Some(partition);
        partition
    }
}
