//! `relight capture`: writes down what a config's sources bring. It acts on nothing and keeps no state: there are no
//! responders, no ledger, no journal and no lock, and no offset is committed.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Sender, bounded};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use relight_config::Config;
use relight_core::rule::Settings;
use relight_core::source::kafka::DeadLetter;
use relight_core::source::{Journalling, SourceKind};
use relight_core::telemetry::Board;
use relight_core::{Span, text};
use relight_ingest::live::Hub;
use relight_ingest::{CaptureFile, Captured};
use relight_runtime::{Guard, Live, LiveInput, LiveSettings, Responders, Stores, SystemClock};
use relight_store::{MemoryBaselines, MemoryLedger};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::readers::{self, Readers};
use super::{
    Engine, INPUTS, Running, addresses, at_once, ended, spawn, start_sources, stop_engine, stop_sources,
};
use crate::check;
use crate::cli::CaptureArgs;
use crate::failure::Failure;
use crate::log_queue;
use crate::output::{self, BOLD};
use crate::words::grouped;

/// How often the progress is shown, and the bounds are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What brings records.
struct Sources {
    listeners: Vec<(String, Running)>,
    readers: Readers,
    inputs: Sender<LiveInput>,
}

pub(crate) fn run(args: &CaptureArgs) -> Result<(), Failure> {
    super::secrecy::forbid_core_dumps();
    log_queue::start().context("failed to start the thread that writes the log")?;
    let mut config = match &args.config {
        Some(path) => check::read(path)?,
        None => check::without_file(false)?,
    };
    leave_alone(&mut config, &args.output);
    if let Some(less) = super::files::bound(&mut config) {
        output::notice(&less);
    }
    let file = CaptureFile::create(&args.output, args.force)?;
    let captured = file.captured();
    let runtime = super::io_threads()?;
    let result = record(args, &config, &runtime, file);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result?;
    output::notice(&format!("{} in {}", summary(&captured), text::path(&args.output)));
    Ok(())
}

/// Nothing of the config is used but its sources, and how they understand time.
fn leave_alone(config: &mut Config, output: &Path) {
    let of = &config.settings;
    config.settings =
        Settings { signals: Vec::new(), detectors: Vec::new(), rules: Vec::new(), ..of.clone() };
    for source in &mut config.sources {
        match &mut source.kind {
            SourceKind::Otlp(otlp) => otlp.journal = Journalling::Off,
            SourceKind::PrometheusRemoteWrite(write) => write.journal = Journalling::Off,
            SourceKind::Alertmanager(alerts) => alerts.journal = Journalling::Off,
        }
    }
    let beside = format!("{}.dead-letters.ndjson", output.display());
    for kafka in config.kafka.values_mut() {
        kafka.dead_letter = Some(DeadLetter { topic: None, file: Some(beside.clone()) });
    }
}

fn record(args: &CaptureArgs, config: &Config, runtime: &Runtime, file: CaptureFile) -> Result<(), Failure> {
    let captured = file.captured();
    let (inputs, asked) = bounded(INPUTS);
    let mut live = open(config)?;
    live.capture(file);
    let (hub, opened) = Hub::new(BTreeMap::new());
    live.wait_for(hub.awaited());
    let received = live.received_clock();
    let listeners =
        start_sources(config, &hub, &received, runtime, &inputs, (Err("a capture keeps none"), None))?;
    let commits_nothing: Guard = Arc::new(|| None);
    let readers = Readers::start(config, &hub, &received, &commits_nothing, &inputs)?;
    drop(hub);
    let greeting = format!(
        "{BOLD}relight{BOLD:#} records into {}; INT ends it\n{}{}",
        text::path(&args.output),
        addresses(&listeners),
        readers::greeting(config)
    );
    output::print(&greeting)?;
    let engine = spawn(live, opened, asked)?;
    runtime.block_on(until_enough(args, engine, Sources { listeners, readers, inputs }, &captured))
}

fn open(config: &Config) -> Result<Live, Failure> {
    let how = LiveSettings {
        idle_after: config.daemon.idle_after,
        catch_up: config.daemon.catch_up,
        // There is nothing to go on from.
        snapshot_every: Span::from_ns(i64::MAX),
        was_killed: false,
        warm_up: config.daemon.warm_up,
    };
    let stores =
        Stores { baselines: Box::new(MemoryBaselines::default()), ledger: Box::new(MemoryLedger::default()) };
    Live::open(
        Arc::new(config.settings.clone()),
        how,
        1,
        stores,
        Box::new(Responders::default()),
        Box::new(SystemClock::default()),
        (Board::default(), Box::new(output::notice)),
    )
    .map_err(|error| Failure::Run(error.into()))
}

/// Until a signal, a bound, or until nothing more can be written.
async fn until_enough(
    args: &CaptureArgs,
    mut engine: Engine,
    sources: Sources,
    captured: &Captured,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let progress = progress();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = enough(args, captured, progress.as_ref()) => {}
        _ = &mut engine.ended => return ended(engine).map(drop),
    }
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    tokio::select! {
        stopped = stop(engine, sources) => stopped,
        _ = terminate.recv() => Err(at_once()),
        _ = interrupt.recv() => Err(at_once()),
    }
}

/// Until one of the bounds is met.
async fn enough(args: &CaptureArgs, captured: &Captured, progress: Option<&ProgressBar>) {
    let began = tokio::time::Instant::now();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if let Some(bar) = progress {
            bar.set_message(summary(captured));
        }
        let is_over = args.duration.is_some_and(|span| began.elapsed().as_secs_f64() >= span.secs_f64());
        let is_full = args.max_bytes.is_some_and(|most| captured.bytes.load(Ordering::Relaxed) >= most);
        if is_over || is_full {
            return;
        }
    }
}

async fn stop(mut engine: Engine, sources: Sources) -> Result<(), Failure> {
    let Sources { mut listeners, readers, inputs } = sources;
    readers.halt();
    stop_sources(&mut listeners).await;
    stop_engine(inputs, &mut engine).await?;
    drop(listeners);
    let _ = tokio::task::spawn_blocking(move || readers.close()).await;
    ended(engine).map(drop)
}

/// Shown to a person only: in a log it would be a line every 200 ms.
fn progress() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant");
        ProgressBar::new_spinner().with_style(style)
    })
}

fn summary(captured: &Captured) -> String {
    let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    format!(
        "{} points, {} events, {}",
        grouped(read(&captured.points)),
        grouped(read(&captured.events)),
        HumanBytes(read(&captured.bytes))
    )
}
