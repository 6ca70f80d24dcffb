//! A source that listens on loopback, and what stands in for the engine behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, unbounded};
use relight_core::responder::Secrets;
use relight_core::source::{Listen, Otlp, SourceKind, SourceSpec};
use relight_core::{Span, Timestamp};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::super::{Outcome, Running, SourceStats, Surroundings, start_in};
use crate::live::{Hub, Load, Next, Outlet, Verdict};

/// Longer than anything here takes on a busy machine.
pub(super) const BOUND: Duration = Duration::from_mins(1);

/// What the stand-in does with what it is offered.
pub(super) enum Engine {
    /// Takes all but what the decoder refused already.
    Takes,
    /// Says this of undecoded metrics; takes the rest.
    Says(Verdict),
    /// Takes nothing until told to.
    Waits,
    /// Takes deliveries and drops their answers, as when relight stops.
    Drops,
}

pub(super) struct World {
    pub(super) runtime: Runtime,
    pub(super) running: Option<Running>,
    pub(super) stats: Arc<SourceStats>,
    pub(super) hub: Hub,
    /// Seconds of the clock.
    pub(super) clock: Arc<AtomicI64>,
    told: Arc<Mutex<Vec<String>>>,
    go: Option<Sender<()>>,
    loads: Receiver<Load>,
    engine: Option<JoinHandle<()>>,
}

/// OTLP on ports that the system chooses.
pub(super) fn otlp_source() -> Otlp {
    Otlp { grpc: Listen::local(0), http: Listen::local(0), ..Otlp::default() }
}

impl World {
    pub(super) fn otlp(engine: Engine) -> Self {
        Self::new(SourceKind::Otlp(otlp_source()), engine, &Secrets::default())
    }

    pub(super) fn new(kind: SourceKind, engine: Engine, secrets: &Secrets) -> Self {
        Self::keeping(kind, engine, secrets, None)
    }

    /// The same with a folder for what the source knows of metric families.
    pub(super) fn keeping(
        kind: SourceKind,
        engine: Engine,
        secrets: &Secrets,
        families: Option<&Path>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (hub, opened) = Hub::new(BTreeMap::new());
        let spec = SourceSpec { name: "test".to_owned(), kind };
        let clock = Arc::new(AtomicI64::new(1_000));
        let told = Arc::new(Mutex::new(Vec::new()));
        let around = surroundings(&clock, &told, families);
        let running = start_in(&around, &spec, secrets, &hub, runtime.handle());
        let running = running.unwrap_or_else(|e| panic!("{e}"));
        let (sent, loads) = unbounded();
        let (go, wait) = unbounded::<()>();
        let (waits, time) = (matches!(engine, Engine::Waits), Arc::clone(&clock));
        let engine = std::thread::spawn(move || {
            let outlet = opened.recv().expect("the source opens its partition");
            assert_eq!(&*outlet.partition, "test");
            if waits {
                let _ = wait.recv();
            }
            drain(&outlet, &engine, &sent, &time);
        });
        let (stats, go) = (Arc::clone(running.stats()), Some(go));
        Self { runtime, running: Some(running), stats, hub, clock, told, go, loads, engine: Some(engine) }
    }

    pub(super) fn address(&self, key: &str) -> SocketAddr {
        let addresses = self.running.as_ref().expect("it runs").addresses();
        addresses.iter().find(|(name, _)| *name == key).expect("it listens there").1
    }

    /// What has come through since the last time.
    pub(super) fn loads(&self) -> Vec<Load> {
        self.loads.try_iter().collect()
    }

    /// What people were told since the last time.
    pub(super) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().expect("nobody panicked"))
    }

    /// Points and events that have come through.
    pub(super) fn entries(&self) -> usize {
        let count = |load: &Load| match load {
            Load::Record(record) => record.points.len() + record.events.len(),
            _ => 0,
        };
        self.loads().iter().map(count).sum()
    }

    /// Whether the source has let go of its partition.
    pub(super) fn is_closed(&self) -> bool {
        self.engine.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets an engine that waits begin.
    pub(super) fn go(&mut self) {
        self.go = None;
    }

    /// Waits until requests have ended so.
    pub(super) fn await_requests(&self, outcome: Outcome, n: u64) {
        self.await_that(&format!("{n} requests that are {}", outcome.name()), || {
            self.stats.requests(outcome) == n
        });
    }

    pub(super) fn await_that(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + BOUND;
        while !holds() {
            assert!(Instant::now() < until, "waited for {what}: {:?}", self.stats.figures());
            std::thread::yield_now();
        }
    }

    /// A figure that has no label.
    pub(super) fn figure(&self, name: &str) -> u64 {
        let figures = self.stats.figures();
        figures.iter().find(|figure| figure.name == name).expect("there is such a figure").value
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.go = None;
        self.running = None;
        // Dropped tasks let go of the partition, and that ends the engine.
        let (Some(engine), false) = (self.engine.take(), std::thread::panicking()) else {
            return;
        };
        let until = Instant::now() + BOUND;
        while !engine.is_finished() {
            assert!(Instant::now() < until, "the partition was not let go");
            std::thread::yield_now();
        }
        engine.join().expect("the engine's stand-in does not panic");
    }
}

fn surroundings<'a>(
    clock: &Arc<AtomicI64>,
    told: &Arc<Mutex<Vec<String>>>,
    families: Option<&'a Path>,
) -> Surroundings<'a> {
    let (clock, told) = (Arc::clone(clock), Arc::clone(told));
    Surroundings {
        clock: Arc::new(move || Timestamp::from_secs(clock.load(Ordering::Relaxed))),
        journals: Ok(Path::new("no-journals")),
        families,
        allowed_lateness: Span::from_secs(10),
        tell: Arc::new(move |line| told.lock().expect("nobody panicked").push(line.to_owned())),
    }
}

fn drain(outlet: &Outlet, engine: &Engine, sent: &Sender<Load>, clock: &AtomicI64) {
    loop {
        match outlet.take() {
            Next::Delivery(delivery) => {
                let verdict = match (&delivery.load, engine) {
                    (_, Engine::Drops) => None,
                    (Load::Metrics(_), Engine::Says(verdict)) => Some(verdict.clone()),
                    (Load::Record(record), _) if record.refusals.is_empty() => {
                        Some(Verdict::Taken(record.refused.clone()))
                    }
                    (Load::Record(record), _) => {
                        let (refused, names) = (record.refused.clone(), record.refusals.clone());
                        Some(Verdict::TakenInPart { refused, names })
                    }
                    _ => Some(Verdict::Taken(Vec::new())),
                };
                let now = Timestamp::from_secs(clock.load(Ordering::Relaxed));
                assert_eq!((delivery.offset, delivery.received), (None, now));
                let _ = sent.send(delivery.load);
                if let (Some(answer), Some(verdict)) = (delivery.answer, verdict) {
                    answer(verdict);
                }
            }
            Next::Empty => {
                let mut select = Select::new();
                outlet.wait_in(&mut select);
                select.ready();
            }
            Next::Closed => return,
        }
    }
}
