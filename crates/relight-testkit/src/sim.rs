//! Runs the real engine on a world: in any number of threads, at any pace, with crashes between any
//! two steps of the commit order, rewinds, and damaged generations.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::Timestamp;
use relight_core::codec::{Codec, encode_bytes};
use relight_core::incident::{Action, Incident};
use relight_core::rule::{Finding, Settings};
use relight_runtime::{
    Commit, Pipeline, Responders, RuntimeError, ScoredRow, SimulatedOutcome, Stores, Totals, Turn, Watch,
};
use relight_store::{Ledger, MemoryBaselines, MemoryLedger};

use crate::faulty::{CommitStep, Crash, FaultyBaselines, FaultyLedger, Fuse};
use crate::rng::Rng;
use crate::world::{File, World};

/// How a world is run.
#[derive(Debug, Clone)]
pub struct Sim {
    seed: u64,
    threads: usize,
    commit: Commit,
    /// Records between crashes, on average; 0 = none.
    crash_every: u64,
    /// Known offsets that are sent again after a crash, at the most.
    rewind: u64,
    /// Records between snapshots, on average; 0 = none.
    snapshot_every: u64,
    damage: bool,
    /// Records between reloads of the same settings, on average; 0 = none.
    reload_every: u64,
    outcomes: BTreeMap<String, SimulatedOutcome>,
}

/// What came of it. Two runs of one world must be equal, whatever happened in between.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Findings of each turn, as bytes.
    pub findings: BTreeMap<Timestamp, Vec<u8>>,
    /// Every value that was judged in each turn, with its verdict, to the last bit: a sum that was added up
    /// in another order shows here long before it makes a finding, or moves a baseline.
    pub readings: BTreeMap<Timestamp, Vec<ReadingBits>>,
    /// Incidents, by id.
    pub incidents: Vec<Incident>,
    /// Actions, by id.
    pub actions: Vec<Action>,
    /// What was counted.
    pub totals: Totals,
    /// Canonical digest of everything learned.
    pub digest: u64,
}

/// In the place of a detector: the value of a row that was not judged, behind the row's signal.
pub const CARRIED: u64 = u64::MAX;

/// Detector, then the bits of value, score, expected, lower and upper.
pub type ReadingBits = [u64; 6];

#[derive(Default)]
struct Seen {
    findings: BTreeMap<Timestamp, Vec<u8>>,
    readings: BTreeMap<Timestamp, Vec<ReadingBits>>,
    /// Turns that came again, after a rewind, with other findings or readings.
    changed: Vec<Timestamp>,
}

impl Watch for Seen {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        let bits = bits(turn);
        let before = if bits.is_empty() { None } else { self.readings.insert(turn.end, bits.clone()) };
        if before.is_some_and(|before| before != bits) {
            self.changed.push(turn.end);
        }
        if turn.findings.is_empty() {
            return;
        }
        let bytes = encode(turn.findings);
        let before = self.findings.insert(turn.end, bytes.clone());
        if before.is_some_and(|before| before != bytes) {
            self.changed.push(turn.end);
        }
    }
}

/// In an order of their own: where a row lives is told by who came first.
fn bits(turn: &Turn<'_>) -> Vec<ReadingBits> {
    let judged = turn.readings.iter().filter(|r| !r.value.is_nan());
    let bits = |r: &ScoredRow| {
        let band = r.reading.band;
        let [value, score] = [r.value, r.reading.score].map(f64::to_bits);
        let [expected, lower, upper] = [band.expected, band.lower, band.upper].map(f64::to_bits);
        [r.detector as u64, value, score, expected, lower, upper]
    };
    let carried =
        turn.carried.iter().map(|(row, value)| [CARRIED, u64::from(row.signal), value.to_bits(), 0, 0, 0]);
    let mut all: Vec<ReadingBits> = judged.map(bits).chain(carried).collect();
    all.sort_unstable();
    all
}

fn encode(findings: &[Finding]) -> Vec<u8> {
    let mut out = Vec::new();
    for f in findings {
        f.at.encode(&mut out);
        (f.detector as u32).encode(&mut out);
        encode_bytes(&f.row, &mut out);
        let band = f.reading.band;
        [f.value, f.reading.score, band.expected, band.lower, band.upper].encode(&mut out);
        f.relearned.encode(&mut out);
        f.onset.encode(&mut out);
    }
    out
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    baselines: MemoryBaselines,
    ledger: MemoryLedger,
}

impl Sim {
    /// A calm run: one thread, no crash, no snapshot.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            threads: 1,
            commit: Commit::EveryTurn,
            crash_every: 0,
            rewind: 0,
            snapshot_every: 0,
            damage: false,
            reload_every: 0,
            outcomes: BTreeMap::new(),
        }
    }

    /// In this many threads.
    #[must_use]
    pub const fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With the ledger committed as told.
    #[must_use]
    pub const fn commit(mut self, commit: Commit) -> Self {
        self.commit = commit;
        self
    }

    /// Crashes once in so many records, and snapshots five times as often.
    #[must_use]
    pub const fn crashes(mut self, every: u64) -> Self {
        self.crash_every = every;
        self.snapshot_every = every / 5 + 1;
        self
    }

    /// Sends up to so many known records again after a crash.
    #[must_use]
    pub const fn rewinds(mut self, most: u64) -> Self {
        self.rewind = most;
        self
    }

    /// Damages the newest generation at every other crash.
    #[must_use]
    pub const fn damage(mut self) -> Self {
        self.damage = true;
        self
    }

    /// Reloads the same settings once in so many records.
    #[must_use]
    pub const fn reloads(mut self, every: u64) -> Self {
        self.reload_every = every;
        self
    }

    /// With actions that end as told, by their ids; all others succeed at once.
    #[must_use]
    pub fn outcomes(mut self, outcomes: &BTreeMap<String, SimulatedOutcome>) -> Self {
        self.outcomes.clone_from(outcomes);
        self
    }

    /// Runs a world to its end.
    ///
    /// # Panics
    ///
    /// If a turn that comes again after a rewind has other findings, or the engine fails by itself.
    pub fn run(&self, world: &World, settings: &Arc<Settings>) -> Outcome {
        let mut rng = Rng::new(self.seed ^ 0x5EED);
        let (disk, fuse) = (Disk::default(), Fuse::default());
        let mut seen = Seen::default();
        loop {
            let stores = Stores {
                baselines: Box::new(FaultyBaselines { inner: disk.baselines.clone(), fuse: fuse.clone() }),
                ledger: Box::new(FaultyLedger { inner: disk.ledger.clone(), fuse: fuse.clone() }),
            };
            let life = self.live(world, settings, stores, &fuse, &mut rng, &mut seen);
            fuse.douse();
            match life {
                Ok((totals, digest)) => {
                    assert_eq!(seen.changed, [], "seed {}: a turn came again with other verdicts", self.seed);
                    let (state, _) = disk.ledger.clone().load().expect("memory does not fail");
                    let (incidents, actions) = (state.incidents, state.actions);
                    let Seen { findings, readings, .. } = seen;
                    return Outcome { findings, readings, incidents, actions, totals, digest };
                }
                Err(RuntimeError::Store(_)) => self.after_crash(&disk, &mut rng),
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
    }

    fn after_crash(&self, disk: &Disk, rng: &mut Rng) {
        if self.damage
            && rng.one_in(2)
            && let Some(newest) = disk.baselines.newest()
        {
            disk.baselines.damage(newest);
        }
    }

    /// One life of the process: to the end of the world, or to its crash.
    fn live(
        &self,
        world: &World,
        settings: &Arc<Settings>,
        stores: Stores,
        fuse: &Fuse,
        rng: &mut Rng,
        seen: &mut Seen,
    ) -> Result<(Totals, u64), RuntimeError> {
        let (settings, reloaded) = (Arc::clone(settings), Arc::clone(settings));
        let responders = Box::new(Responders::new(self.outcomes.clone()));
        let mut engine =
            Pipeline::open(settings, self.threads, stores, responders, self.commit, &mut Vec::new())?;
        let mut cursors = self.cursors(world, &mut engine, rng);
        for ((source, at), file) in cursors.iter().zip(&world.files) {
            if *at == file.lines.len() {
                engine.end_source(*source)?;
            }
        }
        while let Some(i) = choose(&cursors, world, rng) {
            let (source, at) = cursors[i];
            let lines = &world.files[i].lines;
            // A burst: some files run ahead of others, at a pace of their own.
            let burst = (1 + rng.below(12) as usize).min(lines.len() - at);
            for (partition, record) in &lines[at..at + burst] {
                let (name, records) = &world.partitions[*partition];
                let partition = engine.partition_of(source, name);
                engine.handle(partition, &records[*record])?;
                if rng.one_in(3) {
                    engine.run(seen)?;
                }
            }
            cursors[i].1 += burst;
            if cursors[i].1 == lines.len() {
                engine.end_source(source)?;
            }
            self.disturb(&mut engine, fuse, rng)?;
            if self.reload_every > 0 && rng.one_in(self.reload_every) {
                engine.reload(Arc::clone(&reloaded), None)?;
            }
        }
        engine.run(seen)?;
        fuse.douse();
        snapshot(&mut engine)?;
        Ok((engine.totals()?, engine.digest()?))
    }

    /// Where each file is read on: at the first line that the state does not hold, but for what is sent
    /// again.
    fn cursors(&self, world: &World, engine: &mut Pipeline, rng: &mut Rng) -> Vec<(u32, usize)> {
        let mut order: Vec<usize> = (0..world.files.len()).collect();
        order.rotate_left(rng.below(world.files.len() as u64) as usize);
        let mut cursors = vec![(0, 0); world.files.len()];
        for i in order {
            let File { name, lines } = &world.files[i];
            let is_new = |(partition, record): &(usize, usize)| {
                let (name, records) = &world.partitions[*partition];
                records[*record].offset >= engine.next_offset(name)
            };
            let at = lines.iter().position(is_new).unwrap_or(lines.len());
            let again = if self.rewind == 0 { 0 } else { rng.below(self.rewind) as usize };
            cursors[i] = (engine.partition(name), at.saturating_sub(again));
        }
        cursors
    }

    fn disturb(&self, engine: &mut Pipeline, fuse: &Fuse, rng: &mut Rng) -> Result<(), RuntimeError> {
        if self.snapshot_every > 0 && rng.one_in(self.snapshot_every) {
            snapshot(engine)?;
        }
        if self.crash_every > 0 && rng.one_in(self.crash_every) {
            // Before or after any step to come: a turn's commit, an image, the manifest, or while the
            // old generation is dropped.
            let step = CommitStep::ALL[rng.below(4) as usize];
            let spared = if step == CommitStep::Image { rng.below(150) } else { rng.below(2) };
            fuse.light(Crash { step, spared, after: rng.one_in(2) });
        }
        Ok(())
    }
}

fn choose(cursors: &[(u32, usize)], world: &World, rng: &mut Rng) -> Option<usize> {
    let open: Vec<usize> =
        (0..cursors.len()).filter(|i| cursors[*i].1 < world.files[*i].lines.len()).collect();
    (!open.is_empty()).then(|| open[rng.below(open.len() as u64) as usize])
}

/// A snapshot, all of it: a process that dies while the old one goes is dead.
fn snapshot(engine: &mut Pipeline) -> Result<(), RuntimeError> {
    engine.snapshot()?.map_or(Ok(()), |error| Err(error.into()))
}
