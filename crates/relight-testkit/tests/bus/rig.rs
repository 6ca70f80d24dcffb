//! A live engine with the ledger on disk, a clock that is moved by hand, and responders that do as they are told.
//!
//! A crash is a panic of the engine's thread within a commit: what the ledger has by then stays, and nothing else
//! does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use relight_config::{Config, Registry, parse};
use relight_core::incident::{Incident, LedgerState};
use relight_core::record::{Kind, Record};
use relight_core::responder::{AnyResponder, EffectKind, Observation};
use relight_core::series::key_of;
use relight_core::telemetry::{Board, Posted};
use relight_core::{Labels, Span, Timestamp};
use relight_engine::control::ControlInput;
use relight_ingest::live::{Budget, Delivery, Hub, Inlet, Load, Reads, Refused};
use relight_runtime::{Bus, Clock, Guard, Live, LiveInput, LiveSettings, Now, RuntimeError, Stores};
use relight_store::StateDir;

use super::fake::{Fake, Reply};
use super::journal::{Fate, Journal, Watched};

const START: i64 = 1_700_000_000;
/// Time between two heartbeats.
pub(crate) const EVERY: Span = Span::from_secs(10);

/// Seconds that pass only when a test says so.
#[derive(Clone)]
pub(crate) struct Hands {
    wall: Arc<AtomicI64>,
    passed: Arc<AtomicI64>,
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp::from_secs(self.wall.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Span {
        Span::from_secs(self.passed.load(Ordering::SeqCst))
    }
}

impl Hands {
    pub(crate) fn pass(&self, secs: i64) {
        self.wall.fetch_add(secs, Ordering::SeqCst);
        self.passed.fetch_add(secs, Ordering::SeqCst);
    }

    /// The wall clock is set by somebody.
    pub(crate) fn step(&self, secs: i64) {
        self.wall.fetch_add(secs, Ordering::SeqCst);
    }
}

/// A life of the daemon.
struct Running {
    engine: JoinHandle<Result<(), RuntimeError>>,
    inputs: Sender<LiveInput>,
    hub: Hub,
    inlet: Inlet,
    /// Dropped with the engine: whatever is under way ends there.
    bus: Bus,
    runtime: tokio::runtime::Runtime,
}

/// A daemon, its disk and its surroundings.
pub(crate) struct Rig {
    pub(crate) journal: Journal,
    pub(crate) clock: Hands,
    pub(crate) board: Board,
    pub(crate) config: Config,
    pub(crate) warm_up: Span,
    /// Times at which a sign of life was given.
    pub(crate) beats: Arc<Mutex<Vec<Timestamp>>>,
    dir: tempfile::TempDir,
    running: Option<Running>,
}

const HEAD: &str = r"
interval: 1s
allowed_lateness: 0s
mode: auto
signals: {load: {value: load, by: [service]}}
detectors: {high: {type: threshold, signal: load, above: 10}}
";

/// A rule whose condition is that `load` is above 10, with this ladder.
pub(crate) fn rule(name: &str, ladder: &str) -> String {
    format!(
        "  - {{name: {name}, when: high.score > 1.0, keep_firing_for: 60s, group_by: [service], respond: [{ladder}]}}\n"
    )
}

/// As [`HEAD`], with responders of type `log` and rules.
pub(crate) fn yaml(responders: &[(&str, &str)], rules: &str) -> String {
    let each = responders.iter().map(|(name, reach)| format!("  {name}: {{type: log, reach: {reach}}}\n"));
    format!("{HEAD}responders:\n{}rules:\n{rules}", each.collect::<String>())
}

pub(crate) fn read(text: &str) -> Config {
    let registry = Registry { detectors: relight_detectors::ALL, responders: relight_responders::ALL };
    parse("bus.yaml", text, &registry, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

impl Rig {
    /// Not started yet.
    pub(crate) fn new(text: &str) -> Self {
        let (wall, passed) = (Arc::new(AtomicI64::new(START)), Arc::default());
        Self {
            journal: Journal::default(),
            clock: Hands { wall, passed },
            board: Board::default(),
            config: read(text),
            warm_up: Span::ZERO,
            beats: Arc::default(),
            dir: tempfile::tempdir().expect("a folder"),
            running: None,
        }
    }

    /// One page, `duty`, and one responder that changes the world, `deployer`, in this ladder.
    pub(crate) fn with_ladder(ladder: &str) -> Self {
        let mut rig = Self::new(&yaml(&[("duty", "notify"), ("deployer", "mutate")], &rule("hot", ladder)));
        rig.fake("duty", EffectKind::Idempotent, &[Reply::Done]);
        rig.fake("deployer", EffectKind::FireOnce, &[Reply::Done]);
        rig
    }

    /// Puts a fake in the place of a responder of type `log`.
    pub(crate) fn fake(&mut self, name: &str, effect: EffectKind, replies: &[Reply]) {
        self.fake_observed(name, effect, replies, Observation::Unknown);
    }

    pub(crate) fn fake_observed(
        &mut self,
        name: &str,
        effect: EffectKind,
        replies: &[Reply],
        observed: Observation,
    ) {
        let reach = self.config.responders[name].capabilities().reach;
        let fake = Fake {
            name: name.to_owned(),
            reach,
            effect,
            replies: Mutex::new(replies.iter().copied().collect()),
            observed,
            journal: self.journal.clone(),
        };
        self.config.responders.insert(name.to_owned(), Arc::new(fake) as Arc<dyn AnyResponder>);
        let steps = self.config.settings.rules.iter_mut().flat_map(|rule| &mut rule.respond);
        steps.filter(|step| step.with == name).for_each(|step| step.effect = effect);
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads");
        let (inputs, asked) = bounded(1_024);
        let hands = self.clock.clone();
        let now: Now = Arc::new(move || hands.wall());
        let guard: Guard = Arc::new(|| Some(0));
        let (bus, outbox) = Bus::start(&self.config.responders, &inputs, (&now, &guard), runtime.handle());
        let (baselines, ledger) = StateDir::open(&self.state()).expect("a state folder");
        let ledger = Box::new(Watched { inner: ledger, journal: self.journal.clone() });
        let how = LiveSettings {
            idle_after: Span::from_secs(60),
            catch_up: Span::from_secs(30),
            snapshot_every: Span::from_secs(5),
            was_killed: false,
            warm_up: self.warm_up,
        };
        let journal = self.journal.clone();
        let tell: relight_runtime::Tell =
            Box::new(move |notice| journal.change(|kept| kept.notices.push(notice.to_owned())));
        let settings = Arc::new(self.config.settings.clone());
        let (stores, clock) = (Stores { baselines, ledger }, Box::new(self.clock.clone()));
        let mut live =
            Live::open(settings, how, 1, stores, Box::new(outbox), clock, (self.board.clone(), tell))
                .expect("the stores open");
        let beats = Arc::clone(&self.beats);
        live.heartbeat(EVERY, Box::new(move |at| beats.lock().expect("no holder panics").push(at)));
        let (hub, opened) = Hub::new(live.resume());
        let inlet = hub.open("test", Reads::Pull, &Budget::new(1 << 20));
        let engine = std::thread::spawn(move || live.run(&opened, &asked, &mut ()));
        self.running = Some(Running { engine, inputs, hub, inlet, bus, runtime });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it was started")
    }

    /// Tells Control something.
    pub(crate) fn tell(&self, input: LiveInput) {
        self.running().inputs.send(input).expect("it runs");
    }

    /// A partition of a log beside the one that the rig feeds. Dropping it ends it.
    pub(crate) fn open(&self, partition: &str) -> Inlet {
        self.running().hub.open(partition, Reads::Pull, &Budget::new(1 << 20))
    }

    /// A second passes, and these services have this load.
    pub(crate) fn load(&self, loads: &[(&str, f64)]) {
        self.clock.pass(1);
        self.offer(&self.running().inlet, self.delivery(loads));
    }

    /// What a partition has to say beside records.
    pub(crate) fn say(&self, inlet: &Inlet, load: Load) {
        let received = self.clock.wall();
        self.offer(inlet, Delivery { offset: None, received, load, answer: None });
    }

    pub(crate) fn offer(&self, inlet: &Inlet, mut delivery: Delivery) {
        while let Err(refused) = inlet.offer(delivery) {
            let (Refused::Full(back) | Refused::Closed(back)) = refused;
            assert!(!self.running().engine.is_finished(), "the engine has ended");
            delivery = back;
            std::thread::yield_now();
        }
    }

    pub(crate) fn delivery(&self, loads: &[(&str, f64)]) -> Delivery {
        let now = self.clock.wall();
        let mut record = Record::default();
        for (service, value) in loads {
            let labels = Labels::new([("service".to_owned(), (*service).to_owned())]);
            record.push_point(&key_of("load", &labels), now, Timestamp::MIN, Kind::Gauge, *value);
        }
        // A test's clock is its offset: after a crash it goes on where it was.
        let offset = now.since(Timestamp::from_secs(START)).ns() as u64 / 1_000_000_000;
        let load = Load::Record(Box::new(record));
        Delivery { offset: Some(offset), received: now, load, answer: None }
    }

    /// So many seconds of load on the shop, each with a bin of its own.
    pub(crate) fn seconds(&self, count: usize, value: f64) {
        (0..count).for_each(|_| self.load(&[("shop", value)]));
    }

    /// Load until the engine has ended by itself.
    pub(crate) fn seconds_until_it_ends(&self, value: f64) {
        let ended = || self.running().engine.is_finished();
        while !ended() {
            self.clock.pass(1);
            // A queue that nobody empties any more is no matter here.
            let _ = self.running().inlet.offer(self.delivery(&[("shop", value)]));
            self.journal.pause();
        }
    }

    /// Lets time pass, a second at a time, until something holds.
    pub(crate) fn pass_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            self.clock.pass(1);
            self.settle();
        }
        panic!("{what} did not come: {:#?}", self.journal.sent());
    }

    /// Lets the engine go round three times, so that what is due has been done, and what was answered meanwhile too.
    pub(crate) fn settle(&self) {
        for _ in 0..3 {
            let beats = self.board.beats();
            self.tell(LiveInput::Control(ControlInput::Timeout));
            self.journal.wait_round(&self.board, beats);
        }
    }

    /// Waits for what hangs on the board.
    pub(crate) fn wait_board(&self, what: &str, holds: impl Fn(&Posted) -> bool) {
        self.pass_until(what, |rig| holds(&rig.board.read()));
    }

    /// What made it end.
    pub(crate) fn ended(&mut self) -> Result<(), RuntimeError> {
        let Running { engine, bus, runtime, inlet, hub, .. } = self.running.take().expect("it was started");
        let ended = engine.join();
        drop((bus, inlet, hub));
        runtime.shutdown_background();
        self.journal.fate(Fate::Commit);
        match ended {
            Ok(result) => result,
            Err(panic) => {
                assert!(panic.is::<&str>(), "the engine panicked");
                Ok(())
            }
        }
    }

    /// A clean stop.
    pub(crate) fn stop(&mut self) {
        self.tell(LiveInput::Stop);
        self.ended().expect("a clean stop");
    }

    /// What is on the disk. The daemon has ended.
    pub(crate) fn on_disk(&self) -> LedgerState {
        let (_baselines, mut ledger) = StateDir::open(&self.state()).expect("nobody has it");
        ledger.load().expect("it is whole").0
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.inputs.send(LiveInput::Stop);
            let _ = running.engine.join();
            running.runtime.shutdown_background();
        }
    }
}

/// The story of an incident, without times.
pub(crate) fn story(incident: &Incident) -> String {
    let line = |moment: &relight_core::incident::Moment| format!("{} {}", moment.what, moment.detail);
    incident.timeline.iter().map(line).collect::<Vec<_>>().join("\n")
}
