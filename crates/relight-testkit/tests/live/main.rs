//! The live driver on worlds: whatever the pace of its sources, and wherever it was killed, it comes to
//! what an undisturbed run comes to.

mod starts;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use relight_core::record::{Kind, Record};
use relight_core::rule::Settings;
use relight_core::telemetry::Board;
use relight_core::{Span, Timestamp};
use relight_engine::control::ControlInput;
use relight_ingest::CaptureFile;
use relight_ingest::live::{Budget, Delivery, Hub, Inlet, Load, Outlet, Reads, Refused};
use relight_runtime::{
    Clock, Live, LiveInput, LiveSettings, ReceivedClock, Reload, ReplayObserver, ReplayRequest, Responders,
    RuntimeError, ScoredRow, Stores, SystemClock, Turn, Watch, replay,
};
use relight_store::{Ledger, MemoryBaselines, MemoryLedger};
use relight_testkit::faulty::{CommitStep, Crash, FaultyBaselines, FaultyLedger, Fuse};
use relight_testkit::rng::Rng;
use relight_testkit::{World, rules, seeds};

/// Worlds tell the time; this one stands still, so that no partition is ever idle.
struct Still;

impl Clock for Still {
    fn wall(&self) -> Timestamp {
        Timestamp::from_secs(4_000_000_000)
    }
    fn monotonic(&self) -> Span {
        Span::ZERO
    }
}

/// Counts how often it is asked, at least once a round of the engine's loop, and says when that was often.
#[derive(Clone)]
struct Asked(Arc<AtomicU64>, Sender<()>);

const OFTEN: u64 = 50;

impl Clock for Asked {
    fn wall(&self) -> Timestamp {
        if self.0.fetch_add(1, Ordering::Relaxed) == OFTEN {
            let _ = self.1.try_send(());
        }
        Still.wall()
    }
    fn monotonic(&self) -> Span {
        Still.monotonic()
    }
}

#[derive(Clone, Default)]
struct Disk {
    baselines: MemoryBaselines,
    ledger: MemoryLedger,
}

/// Worlds' settings. A partition that has been fed stays where it is, since the clock stands still: the
/// others are not held back for it.
fn settings() -> Arc<Settings> {
    Arc::new(Settings { max_skew: Span::from_secs(1_000_000), ..rules::simulated() })
}

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Came {
    incidents: Vec<String>,
    points: u64,
    /// Of the state once every partition has ended: what is open is kept in the order in which it came.
    digest: u64,
}

fn how() -> LiveSettings {
    LiveSettings {
        idle_after: Span::from_secs(60),
        catch_up: Span::from_secs(30),
        // The clock stands still: a snapshot is due in every round.
        snapshot_every: Span::ZERO,
        was_killed: false,
        warm_up: Span::ZERO,
    }
}

/// The same settings and the same responders, once more.
fn reload_of(settings: &Arc<Settings>) -> LiveInput {
    let (done, _) = bounded(1);
    let (settings, swapped) = (Arc::clone(settings), Box::new(|| ()));
    LiveInput::Reload(Box::new(Reload {
        settings,
        live: how(),
        outbox: None,
        heartbeat: None,
        swapped,
        done,
    }))
}

fn live(disk: &Disk, settings: &Arc<Settings>, fuse: &Fuse) -> Live {
    let stores = Stores {
        baselines: Box::new(FaultyBaselines { inner: disk.baselines.clone(), fuse: fuse.clone() }),
        ledger: Box::new(FaultyLedger { inner: disk.ledger.clone(), fuse: fuse.clone() }),
    };
    by_clock(Box::new(Still), settings, how(), stores)
}

fn by_clock(clock: Box<dyn Clock>, settings: &Arc<Settings>, how: LiveSettings, stores: Stores) -> Live {
    shown(clock, settings, how, stores, Board::default())
}

fn shown(
    clock: Box<dyn Clock>,
    settings: &Arc<Settings>,
    how: LiveSettings,
    stores: Stores,
    board: Board,
) -> Live {
    let (outbox, tell): (_, relight_runtime::Tell) = (Box::new(Responders::default()), Box::new(|_| ()));
    Live::open(Arc::clone(settings), how, 2, stores, outbox, clock, (board, tell)).expect("the stores open")
}

/// Has the engine go round twice: by the second time it has come to the queues in between.
fn go_round(inputs: &Sender<LiveInput>) {
    for _ in 0..2 {
        inputs.send(LiveInput::Control(ControlInput::Timeout)).expect("the engine runs");
        while !inputs.is_empty() {
            std::thread::yield_now();
        }
    }
}

/// Feeds a partition from where the state is, until its end or until nobody takes it any more. It ends only
/// when the inlet that comes back is dropped.
fn feed(inlet: Inlet, world: &World, partition: usize, over: &AtomicBool) -> Inlet {
    let from = inlet.covered();
    for (i, record) in world.partitions[partition].1.iter().enumerate().filter(|(_, r)| r.offset >= from) {
        let mut load = Delivery {
            offset: Some(record.offset),
            received: world.received(partition, i),
            load: Load::Record(Box::new(record.clone())),
            answer: None,
        };
        while let Err(refused) = inlet.offer(load) {
            let (Refused::Full(back) | Refused::Closed(back)) = refused;
            load = back;
            if over.load(Ordering::Relaxed) {
                return inlet;
            }
            std::thread::yield_now();
        }
    }
    inlet
}

/// Lights the fuse after some turns, and has the same settings loaded again every so many.
struct Killer {
    fuse: Fuse,
    turns: u64,
    reload_every: u64,
    reload: Box<dyn Fn()>,
}

impl Watch for Killer {
    fn turn(&mut self, _: &Turn<'_>) {
        self.turns = self.turns.saturating_sub(1);
        if self.reload_every > 0 && self.turns.is_multiple_of(self.reload_every) {
            (self.reload)();
        }
        if self.turns == 0 {
            self.fuse.light(Crash { step: CommitStep::Ledger, spared: 0, after: true });
        }
    }
}

/// One life: to the end of the world, or to its crash.
fn life(
    world: &World,
    disk: &Disk,
    settings: &Arc<Settings>,
    (fuse, turns): (&Fuse, u64),
) -> Result<Came, RuntimeError> {
    life_with_reloads(world, disk, settings, (fuse, turns), 0)
}

fn life_with_reloads(
    world: &World,
    disk: &Disk,
    settings: &Arc<Settings>,
    (fuse, turns): (&Fuse, u64),
    reload_every: u64,
) -> Result<Came, RuntimeError> {
    let (inputs, asked): (Sender<LiveInput>, Receiver<LiveInput>) = unbounded();
    let (again, anew) = (inputs.clone(), Arc::clone(settings));
    let reload = Box::new(move || again.send(reload_of(&anew)).expect("the engine runs"));
    let mut killer = Killer { fuse: fuse.clone(), turns, reload_every, reload };
    fed(world, disk, (live(disk, settings, fuse), fuse), (inputs, asked), &mut killer)
}

fn watched(
    world: &World,
    disk: &Disk,
    live: (Live, &Fuse),
    watch: &mut dyn Watch,
) -> Result<Came, RuntimeError> {
    fed(world, disk, live, unbounded(), watch)
}

fn fed(
    world: &World,
    disk: &Disk,
    (mut live, fuse): (Live, &Fuse),
    (inputs, asked): (Sender<LiveInput>, Receiver<LiveInput>),
    watch: &mut dyn Watch,
) -> Result<Came, RuntimeError> {
    let (hub, opened): (Hub, Receiver<Outlet>) = Hub::new(live.resume());
    // Before the first record, so that none joins late and finds its bins closed.
    let open = |(name, _): &(String, Vec<Record>)| hub.open(name, Reads::Pull, &Budget::new(1 << 20));
    let inlets: Vec<Inlet> = world.partitions.iter().map(open).collect();
    let over = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let over = &over;
        let fed = inlets.into_iter().enumerate();
        let feeders: Vec<_> =
            fed.map(|(i, inlet)| scope.spawn(move || feed(inlet, world, i, over))).collect();
        scope.spawn(move || {
            let inlets: Vec<_> = feeders.into_iter().map(ScopedJoinHandle::join).collect();
            // Everything is in the queues.
            let _ = inputs.send(LiveInput::Stop);
            while !over.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            drop(inlets);
        });
        let ended = live.run(&opened, &asked, watch);
        over.store(true, Ordering::Relaxed);
        ended
    });
    ended?;
    fuse.douse();
    let pipeline = live.pipeline();
    pipeline.end_others(&[])?;
    pipeline.run(watch)?;
    let (points, digest) = (pipeline.points(), pipeline.digest()?);
    let (state, _) = disk.ledger.clone().load()?;
    let incidents = state.incidents.iter().map(|incident| format!("{incident:?}")).collect();
    Ok(Came { incidents, points, digest })
}

/// Scenario: three crashes at random turns, each right after a commit of the ledger; partitions fed by
/// threads of their own.
/// Guarantee: incidents, points and all that was learned are those of an undisturbed run.
#[test]
fn a_crash_changes_nothing() {
    let settings = settings();
    for seed in seeds().take(3) {
        let world = World::generate(seed);
        let calm = life(&world, &Disk::default(), &settings, (&Fuse::default(), u64::MAX)).expect("no crash");
        assert!(calm.points > 20_000, "seed {seed}: {} points", calm.points);
        let (disk, fuse, mut rng) = (Disk::default(), Fuse::default(), Rng::new(seed));
        let mut lives = 0;
        let stormy = loop {
            let turns = if lives < 3 { 20 + rng.below(60) } else { u64::MAX };
            match life(&world, &disk, &settings, (&fuse, turns)) {
                Ok(came) => break came,
                Err(RuntimeError::Store(_)) => lives += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
            fuse.douse();
        };
        assert!(lives > 0, "seed {seed}: nothing was killed");
        let what = format!("seed {seed}, after {lives} crashes");
        assert_eq!(calm.points, stormy.points, "{what}: points");
        for (calm, stormy) in calm.incidents.iter().zip(&stormy.incidents) {
            assert!(calm == stormy, "{what}: {calm:.300} ... became {stormy:.300} ...");
        }
        assert_eq!(calm.incidents.len(), stormy.incidents.len(), "{what}: incidents");
        assert_eq!(calm.digest, stormy.digest, "{what}: the state");
    }
}

/// Scenario: the same config is loaded every few turns of a live run; then with crashes right after commits of the ledger
/// between the snapshot, the swap and the turn after it.
/// Guarantee: incidents, points and all that was learned are those of a run that was left alone.
#[test]
fn a_reload_changes_nothing() {
    let settings = settings();
    let world = World::generate(11);
    let calm = life(&world, &Disk::default(), &settings, (&Fuse::default(), u64::MAX)).expect("no crash");
    let (disk, fuse) = (Disk::default(), Fuse::default());
    let again = life_with_reloads(&world, &disk, &settings, (&fuse, 100_000), 7).expect("no crash");
    assert!(again == calm, "reloads");
    let (disk, mut lives) = (Disk::default(), 0);
    let stormy = loop {
        let turns = if lives < 3 { 35 } else { 100_000 };
        match life_with_reloads(&world, &disk, &settings, (&fuse, turns), 7) {
            Ok(came) => break came,
            Err(RuntimeError::Store(_)) => lives += 1,
            Err(error) => panic!("{error}"),
        }
        fuse.douse();
    };
    assert!(lives > 0 && stormy == calm, "reloads and {lives} crashes");
}

/// Scenario: a world is fed to a driver that is stopped, and opened again on its stores.
/// Guarantee: sources go on where the state ends, for every partition.
#[test]
fn a_stop_leaves_nothing_to_be_read_again() {
    let settings = settings();
    let (world, disk, fuse) = (World::generate(7), Disk::default(), Fuse::default());
    life(&world, &disk, &settings, (&fuse, u64::MAX)).expect("no crash");
    let expected: BTreeMap<String, u64> = world
        .partitions
        .iter()
        .map(|(name, records)| (name.clone(), records.last().map_or(0, |record| record.offset + 1)))
        .collect();
    assert_eq!(live(&disk, &settings, &fuse).resume(), expected);
}

/// Every verdict of a run, to the last bit. Where rows live is left out: it depends on which came first.
#[derive(Default)]
struct Verdicts(Vec<(Timestamp, usize, u64, u64)>);

impl Verdicts {
    fn take(&mut self, readings: &[ScoredRow]) {
        let verdict =
            |row: &ScoredRow| (row.at, row.detector, row.value.to_bits(), row.reading.score.to_bits());
        self.0.extend(readings.iter().map(verdict));
    }

    fn sorted(mut self) -> Vec<(Timestamp, usize, u64, u64)> {
        self.0.sort_unstable();
        self.0
    }
}

impl Watch for Verdicts {
    fn wants_readings(&self) -> bool {
        true
    }
    fn turn(&mut self, turn: &Turn<'_>) {
        self.take(turn.readings);
    }
}

impl ReplayObserver for Verdicts {
    fn readings(&mut self, readings: &[ScoredRow]) {
        self.take(readings);
    }
}

/// Scenario: a live run on several partitions, with late and repeated points, writes down what it takes in; the capture
/// is replayed.
/// Guarantee: the replay comes to the same points and the same verdicts, bit by bit.
#[test]
fn a_capture_replays_to_what_the_live_run_found() {
    let (settings, folder) = (settings(), tempfile::tempdir().expect("a temporary folder"));
    for (seed, name) in seeds().zip(["a.ndjson", "b.ndjson.gz", "c.ndjson.zst"]) {
        let (world, disk, fuse) = (World::generate(seed), Disk::default(), Fuse::default());
        let path = folder.path().join(name);
        let (mut recorded, mut found) = (live(&disk, &settings, &fuse), Verdicts::default());
        recorded.capture(CaptureFile::create(&path, false).expect("a folder of our own"));
        let came = watched(&world, &disk, (recorded, &fuse), &mut found).expect("no crash");
        assert!(came.points > 20_000, "seed {seed}: {} points", came.points);
        let request = ReplayRequest {
            settings: Arc::clone(&settings),
            sources: relight_ingest::open(&path).expect("it is a capture"),
            threads: 2,
            stores: None,
            snapshot_every: u64::MAX,
            outcomes: BTreeMap::new(),
            want_readings: true,
        };
        let mut again = Verdicts::default();
        let report = replay(request, &mut again).expect("it is whole");
        // The times of a world's points are moved by more than its steps, so its counters look as if several writers shared them.
        let others = report.notices.iter().filter(|notice| !notice.starts_with("shared_counter"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new(), "seed {seed}");
        assert_eq!(report.totals.points, came.points, "seed {seed}: points");
        let (found, again) = (found.sorted(), again.sorted());
        assert!(found == again, "seed {seed}: {} and {} verdicts", found.len(), again.len());
    }
}

/// Scenario: all sources have opened their partitions, and nothing comes.
/// Guarantee: the engine waits, and does not go round and round: five rounds a second, each of which asks a few times. A slow
/// machine makes that fewer, never more.
#[test]
fn an_engine_with_nothing_to_do_waits() {
    let (disk, settings) = (Disk::default(), settings());
    let (often, was_often) = bounded(1);
    let clock = Asked(Arc::default(), often);
    let stores = Stores { baselines: Box::new(disk.baselines), ledger: Box::new(disk.ledger) };
    let how = LiveSettings { snapshot_every: Span::from_secs(60), ..how() };
    let mut live = by_clock(Box::new(clock.clone()), &settings, how, stores);
    let (hub, opened) = Hub::new(live.resume());
    let inlet = hub.open("quiet", Reads::Push, &Budget::new(1 << 20));
    // As a daemon without a lock does: no other partition will come.
    drop(hub);
    let (inputs, asked) = bounded(1);
    let engine = std::thread::spawn(move || live.run(&opened, &asked, &mut ()));
    let began = SystemClock::default();
    was_often.recv().expect("the engine asks");
    let lasted = began.monotonic().secs_f64();
    inputs.send(LiveInput::Stop).expect("it runs");
    engine.join().expect("no panic").expect("it stops");
    drop(inlet);
    assert!(lasted > OFTEN as f64 / 100.0, "asked {OFTEN} times in {lasted} s");
}
