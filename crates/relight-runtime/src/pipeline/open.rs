//! Starting: from nothing, or from what the stores hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relight_core::Span;
use relight_core::codec::{Codec, Reader};
use relight_core::incident::{Applied, LedgerState, RecordedAdvance};
use relight_core::rule::Settings;
use relight_engine::control::Control;
use relight_engine::intake::{Intake, PartitionState, Routed};
use relight_engine::sweep::Swept;
use relight_store::{
    Baselines, Ledger, LedgerHealth, Loaded, Manifest, PartitionCut, Snapshot, ledger_behind,
};

use super::{Commit, Commits, Doubts, Outbox, Pipeline, Stores};
use crate::error::RuntimeError;
use crate::image;
use crate::report::Totals;
use crate::shards::Shards;

/// What names the configuration that state was learned under.
pub(super) fn config_hash(settings: &Settings) -> u64 {
    relight_core::series::hash(&settings.fingerprint)
}

impl Pipeline {
    /// Opens an engine on its stores and goes on from what they hold. What had to be done about
    /// damage is told in `notices`, for people.
    pub fn open(
        settings: Arc<Settings>,
        threads: usize,
        stores: Stores,
        outbox: Box<dyn Outbox>,
        commit: Commit,
        notices: &mut Vec<String>,
    ) -> Result<Self, RuntimeError> {
        let judges_silence = settings.detectors.iter().any(|d| d.source.bank().patience().is_some());
        let mut pipeline = Self {
            intake: Intake::new(&settings),
            shards: Shards::new(&settings, threads),
            control: Control::new(Arc::clone(&settings), LedgerState::default()),
            settings,
            ledger: stores.ledger,
            baselines: Some(stores.baselines),
            outbox,
            commit,
            now: None,
            rewound: BTreeMap::new(),
            advanced: BTreeSet::new(),
            covered: BTreeMap::new(),
            routed: Routed::default(),
            writes: Vec::new(),
            generation: 0,
            last_turn: None,
            totals: Totals::default(),
            swept: Swept::default(),
            silence_due: None,
            defers_new: false,
            judges_silence,
            doubts: Doubts::default(),
            commits: Commits::default(),
            panics: super::faults::Panics::default(),
            untold: super::Untold::default(),
        };
        let manifest = pipeline.restore_newest(threads, notices)?;
        let mut ledger =
            load_ledger(&mut *pipeline.ledger, manifest.as_ref(), &mut pipeline.doubts, notices)?;
        pipeline.rewind(std::mem::take(&mut ledger.advances));
        pipeline.control = Control::new(Arc::clone(&pipeline.settings), ledger);
        pipeline.resume_outbox()?;
        Ok(pipeline)
    }

    /// Restores the newest cut that can be read. One that is whole by its checksums and makes no sense
    /// all the same is put aside: it would make no more sense at the next start.
    fn restore_newest(
        &mut self,
        threads: usize,
        notices: &mut Vec<String>,
    ) -> Result<Option<Manifest>, RuntimeError> {
        let Some(mut baselines) = self.baselines.take() else { return Ok(None) };
        let restored = self.restore_from(&mut *baselines, threads, notices);
        self.baselines = Some(baselines);
        restored
    }

    fn restore_from(
        &mut self,
        baselines: &mut dyn Baselines,
        threads: usize,
        notices: &mut Vec<String>,
    ) -> Result<Option<Manifest>, RuntimeError> {
        let mut loaded = baselines.load()?;
        loop {
            tell(&loaded, notices);
            self.doubts.baselines(&loaded);
            let Some(snapshot) = loaded.into_snapshot() else { return Ok(None) };
            match self.restore(&snapshot, notices) {
                Err(RuntimeError::State(why)) => {
                    self.intake = Intake::new(&self.settings);
                    self.shards = Shards::new(&self.settings, threads);
                    self.totals = Totals::default();
                    self.swept = Swept::default();
                    let generation = snapshot.manifest.generation;
                    loaded = baselines.reject(generation, &why.to_string())?;
                }
                restored => return restored.map(|()| Some(snapshot.manifest)),
            }
        }
    }

    fn restore(&mut self, snapshot: &Snapshot, notices: &mut Vec<String>) -> Result<(), RuntimeError> {
        let manifest = &snapshot.manifest;
        let mut reader = Reader::new(&manifest.intake);
        let was = Span::decode(&mut reader)?;
        let is = self.settings.interval();
        if was != is {
            return Err(RuntimeError::Interval { was, is });
        }
        if manifest.config_hash != config_hash(&self.settings) {
            notices.push(
                "the config has changed since this state was learned; rows of changed detectors start cold"
                    .to_owned(),
            );
        }
        self.totals = Totals::decode(&mut reader)?;
        self.swept = Swept::decode(&mut reader)?;
        let partition = |p: &PartitionCut| PartitionState {
            name: p.name.clone(),
            next_offset: p.next_offset,
            highest: p.highest,
            watermark: p.watermark,
        };
        let partitions = manifest.partitions.iter().map(partition).collect();
        self.intake.load(partitions, &mut reader)?;
        reader.finish()?;
        image::load(&self.settings, self.intake.directory_mut(), &snapshot.images, &mut self.shards)?;
        let extra = self.evict_extra()?;
        if extra > 0 {
            let most = self.settings.max_series;
            notices.push(format!(
                "the state holds {extra} series more than `max_series: {most}`: those that were silent for longest are not loaded"
            ));
        }
        self.generation = manifest.generation;
        self.covered = manifest.partitions.iter().map(|p| (p.name.clone(), p.next_offset)).collect();
        self.last_turn = manifest.turn;
        self.silence_due = if self.judges_silence { self.poll_silence()? } else { None };
        Ok(())
    }

    /// Advances that were made beyond the snapshot: each is made again before the record that it was made
    /// before, and at once where nothing has come since.
    fn rewind(&mut self, advances: Vec<RecordedAdvance>) {
        let restored: BTreeSet<String> = self.intake.partitions().into_iter().map(|p| p.name).collect();
        for advance in advances {
            let known = restored.contains(&advance.partition);
            if known && advance.before_offset >= self.next_offset(&advance.partition) {
                let partition = self.intake.partition(&advance.partition);
                self.rewound.entry(partition).or_default().push_back(advance.clone());
            }
            self.advanced.insert(advance.partition);
        }
        for partition in self.rewound.keys().copied().collect::<Vec<_>>() {
            self.repeat_advances(partition, self.intake.next_offset_of(partition));
        }
    }

    /// Actions whose intent is in the ledger and whose outcome is not: they are taken up again, under
    /// the same key.
    fn resume_outbox(&mut self) -> Result<(), RuntimeError> {
        let Some(applied) = self.control.applied_through() else { return Ok(()) };
        for (action, incident) in self.control.unfinished() {
            self.outbox.resume(action, incident, applied.control);
        }
        self.answer(Vec::new(), applied.control)
    }
}

/// Tells what had to be done about damage.
fn tell(loaded: &Loaded, notices: &mut Vec<String>) {
    match loaded {
        Loaded::Cold | Loaded::Whole(_) => {}
        Loaded::FellBack { why, .. } => {
            notices.push(format!("baselines were damaged, going on from a copy that is whole: {why}"));
        }
        Loaded::Quarantined { to, why } => notices.push(format!(
            "baselines were damaged and moved to {}; starting cold, nothing acts until warm: {why}",
            to.display()
        )),
    }
}

fn load_ledger(
    ledger: &mut dyn Ledger,
    manifest: Option<&Manifest>,
    doubts: &mut Doubts,
    notices: &mut Vec<String>,
) -> Result<LedgerState, RuntimeError> {
    let (mut state, mut health) = ledger.load()?;
    let behind = manifest.is_some_and(|m| ledger_behind(m, state.applied_through.as_ref()));
    if behind && !matches!(health, LedgerHealth::Quarantined { .. }) {
        health = ledger.quarantine("it is behind the baselines, so it was rolled back")?;
        state = LedgerState::default();
    }
    if let LedgerHealth::Quarantined { to, why } = health {
        notices.push(format!(
            "the ledger was moved to {}; incidents start anew and pages may repeat: {why}",
            to.display()
        ));
        doubts.ledger_lost = Some(why);
        // A new ledger counts on from the baselines: one that began at 0 would be behind them at each start to come.
        state.applied_through = manifest
            .and_then(|m| m.turn.map(|turn| Applied { turn, count: m.turns, digest: 0, control: turn }));
    }
    Ok(state)
}
