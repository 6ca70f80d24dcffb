//! `relight run`: the daemon. Puts sources, engine and responders together, and takes them apart in order.

pub(crate) mod capture;
mod files;
mod memory;
mod news;
mod notify;
mod readers;
mod reload;
mod room;
mod secrecy;
mod standby;
mod steering;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};
use relight_config::Config;
use relight_core::telemetry::{self as metrics, Board, Sample};
use relight_core::{Span, text};
use relight_ingest::listen::{self, Running};
use relight_ingest::live::{Hub, Outlet};
use relight_runtime::{
    Bus, BusOutbox, Clock as _, Guard, Heartbeat, Live, LiveInput, LiveSettings, MemoryLimits, Now, Pipeline,
    Pulse, ReceivedClock, RuntimeError, Stores, SystemClock, Trouble, memory_limit, resident_bytes,
};
use relight_store::{MemoryBaselines, MemoryLedger, Spool, StateDir, StoreError};
use relight_web::Web;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use self::readers::Readers;
use self::reload::{Reloader, Shown};
use self::standby::{Fenced, Standby, until_fenced};
use self::steering::Commands;
use crate::check;
use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::log_queue;
use crate::output::{self, BOLD};
use crate::words::grouped;

/// Inputs that may wait for the engine: outcomes of actions, and signals.
const INPUTS: usize = 1_024;
/// Listeners have this long to answer what they have taken.
const LISTENERS_STOP: Duration = Duration::from_secs(5);
/// Responders have this long to end what they are at; the rest is taken up at the next start.
const RESPONDERS_STOP: Duration = Duration::from_secs(10);
/// The engine has this long to take what is queued and to write its last snapshot.
const ENGINE_STOP: Duration = Duration::from_secs(12);

/// Supervisors kill after 90 s (systemd) or 30 s (Kubernetes).
const _: () = assert!(LISTENERS_STOP.as_secs() + RESPONDERS_STOP.as_secs() + ENGINE_STOP.as_secs() + 2 < 30);

/// All that runs beside the engine's thread.
struct Around {
    sources: Vec<(String, Running)>,
    readers: Readers,
    standby: Standby,
    bus: Bus,
    web: Option<Web>,
    inputs: Sender<LiveInput>,
    board: Board,
}

/// The engine's thread, which says in the end what it knows, and what tells that it has ended.
struct Engine {
    thread: JoinHandle<Result<String, RuntimeError>>,
    ended: oneshot::Receiver<()>,
}

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    secrecy::forbid_core_dumps();
    log_queue::start().context("failed to start the thread that writes the log")?;
    let mut config = match &args.config {
        Some(path) => check::read(path)?,
        None => check::without_file(false)?,
    };
    if let Some(state) = &args.state {
        config.daemon.state.clone_from(state);
    }
    // What a later one is held against.
    let written = config.clone();
    if let Some(less) = files::bound(&mut config) {
        output::notice(&less);
    }
    let (limits, less) = memory::bound(&mut config, memory_limit());
    for less in &less {
        output::notice(less);
    }
    let runtime = io_threads()?;
    let ended = serve(args, (&config, written), limits, &runtime);
    // What is still at it has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn io_threads() -> Result<Runtime, Failure> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let threads = threads.enable_all().thread_name("relight-io").build();
    Ok(threads.context("failed to start the I/O threads")?)
}

fn serve(
    args: &RunArgs,
    (config, written): (&Config, Config),
    memory: Option<MemoryLimits>,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let hangups = {
        let _in_runtime = runtime.enter();
        // Before anything is begun: unheard, it would end the process.
        signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?
    };
    let board = Board::default();
    let (inputs, asked) = bounded(INPUTS);
    let now: Now = Arc::new(|| SystemClock::default().wall());
    let mut standby = Standby::new(config);
    let guard = standby.guard();
    let (mut bus, outbox) = Bus::start(&config.responders, &inputs, (&now, &guard), runtime.handle());
    let (mut live, blind) = open(args, config, &board, (&mut bus, outbox))?;
    let known = known(live.pipeline()).map_err(|error| Failure::Run(error.into()))?;
    live.tell_of_incidents(Box::new(|news| output::styled_notice(&news::line(news))));
    let commands = if blind.is_some() { None } else { Some(with_state(config, runtime, &mut live)?) };
    let beats = heartbeat(config, &guard, runtime.handle()).map(|(shown, (every, pulse))| {
        live.heartbeat(every, pulse);
        shown
    });
    let shown = Arc::new(Shown::new(beats));
    let (mut hub, opened) = Hub::new(live.resume());
    live.wait_for(hub.awaited());
    limit_memory(memory, &mut live, &mut hub);
    standby.prepare(&hub, &inputs);
    let (journals, families) = (config.daemon.state.join("journal"), config.daemon.state.join("families"));
    let kept = match &blind {
        None => (Ok(&*journals), Some(&*families)),
        Some(why) => (Err(&**why), None),
    };
    let received = live.received_clock();
    let sources = start_sources(config, &hub, &received, runtime, &inputs, kept)?;
    let reloader = Reloader::new(args, written, &sources, &inputs, &guard, &shown);
    let stats: Vec<_> = sources.iter().map(|(name, s)| (name.clone(), Arc::clone(s.stats()))).collect();
    let readers = Readers::start(config, &hub, &received, &guard, &inputs)?;
    let counted = readers.counted();
    live.also_post(Box::new(move || {
        let mut samples: Vec<_> = stats.iter().flat_map(|(name, stats)| of_source(name, stats)).collect();
        samples.extend(counted());
        samples.extend(shown.samples());
        samples.push(Sample::plain(metrics::LOG_DROPPED, log_queue::dropped() as f64));
        samples.push(Sample::plain(metrics::ACTS, f64::from(u8::from(guard().is_some()))));
        samples
    }));
    let web = start_web(config, &board, runtime)?;
    let fenced = standby.join(config, hub, inputs.clone(), readers.committers())?;
    let steered = inputs.clone();
    let around = Around { sources, readers, standby, bus, web, inputs, board };
    greet(config, &known, &around)?;
    let engine = spawn(live, opened, asked)?;
    if let Some(commands) = commands {
        // It ends with the process.
        std::thread::Builder::new()
            .name("relight-steer".to_owned())
            .spawn(move || commands.watch(&steered))
            .context("failed to start a thread")?;
    }
    runtime.block_on(watch_over(engine, around, fenced, (reloader, hangups)))?;
    if blind.is_some() {
        return Ok(());
    }
    StateDir::end(&config.daemon.state).map_err(|error| Failure::Run(error.into()))
}

/// What a run does with its state folder beside the stores: it keeps room in it, and obeys the commands that were left there.
fn with_state(config: &Config, runtime: &Runtime, live: &mut Live) -> Result<Commands, Failure> {
    let state = &config.daemon.state;
    if !StateDir::keep_room(state) {
        output::notice(
            "the disk of the state folder is nearly full: without room nothing is changed, and pages alone go out",
        );
    }
    runtime.spawn(room::keep(state.clone()));
    let spool = Spool::of(state).map_err(|error| Failure::Run(error.into()))?;
    let mut commands = Commands::new(spool);
    commands.at_start(live)?;
    Ok(commands)
}

/// The engine, on its state folder. On a disk that is full or read-only it runs on memory alone, and this returns why: pages
/// still leave, and a process that exits at each start helps nobody.
fn open(
    args: &RunArgs,
    config: &Config,
    board: &Board,
    (bus, outbox): (&mut Bus, BusOutbox),
) -> Result<(Live, Option<String>), Failure> {
    let failed = |error: RuntimeError| Failure::Run(error.into());
    let why = match open_state(config)
        .map_err(RuntimeError::Store)
        .and_then(|(stores, was_killed)| open_on(args, config, (stores, was_killed), board, outbox))
    {
        Err(RuntimeError::Store(error)) if error.is_unwritable_disk() => format!("{:#}", anyhow!(error)),
        opened => return Ok((opened.map_err(failed)?, None)),
    };
    let (outbox, switch) = bus.reload(&config.responders);
    switch();
    let memory =
        Stores { baselines: Box::new(MemoryBaselines::default()), ledger: Box::new(MemoryLedger::default()) };
    let mut live = open_on(args, config, (memory, false), board, outbox).map_err(failed)?;
    live.run_blind(&why).map_err(failed)?;
    Ok((live, Some(format!("the state folder cannot be opened: {why}"))))
}

/// The stores of the state folder, and whether the run before this one was killed.
fn open_state(config: &Config) -> Result<(Stores, bool), StoreError> {
    let (baselines, ledger) = StateDir::open(&config.daemon.state)?;
    let was_killed = StateDir::begin(&config.daemon.state)?;
    Ok((Stores { baselines, ledger }, was_killed))
}

fn open_on(
    args: &RunArgs,
    config: &Config,
    (stores, was_killed): (Stores, bool),
    board: &Board,
    outbox: BusOutbox,
) -> Result<Live, RuntimeError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Live::open(
        Arc::new(config.settings.clone()),
        live_settings(config, was_killed),
        args.threads.map_or_else(cores, usize::from),
        stores,
        Box::new(outbox),
        Box::new(SystemClock::default()),
        (board.clone(), Box::new(output::notice)),
    )
}

fn limit_memory(limits: Option<MemoryLimits>, live: &mut Live, hub: &mut Hub) {
    if let Some(limits) = limits {
        hub.limit_memory(memory::budget(limits));
        live.limit_memory(limits, hub.brake(), Box::new(resident_bytes));
    }
}

fn live_settings(config: &Config, was_killed: bool) -> LiveSettings {
    let daemon = &config.daemon;
    LiveSettings {
        idle_after: daemon.idle_after,
        catch_up: daemon.catch_up,
        snapshot_every: daemon.snapshot_every,
        was_killed,
        warm_up: daemon.warm_up,
    }
}

/// Of two relights only the one that acts gives a sign of life.
fn heartbeat(config: &Config, guard: &Guard, runtime: &Handle) -> Option<(Heartbeat, (Span, Pulse))> {
    let (with, every) = config.daemon.heartbeat.as_ref()?;
    let responder = config.responders.get(with)?;
    let heartbeat = Heartbeat::new(with, responder, runtime, Arc::new(output::notice));
    let sent = heartbeat.clone();
    let guard = Arc::clone(guard);
    let beat: Pulse = Box::new(move |now| {
        if guard().is_some() {
            sent.beat(now);
        }
    });
    Some((heartbeat, (*every, beat)))
}

/// Starts to listen. `journals`: the folder for them, or why there is none. `families`: the folder in which sources keep what
/// they know of metric families.
fn start_sources(
    config: &Config,
    hub: &Hub,
    received: &ReceivedClock,
    runtime: &Runtime,
    inputs: &Sender<LiveInput>,
    (journals, families): (Result<&Path, &str>, Option<&Path>),
) -> Result<Vec<(String, Running)>, Failure> {
    let (received, told) = (received.clone(), inputs.clone());
    let around = listen::Surroundings {
        clock: Arc::new(move || received.now()),
        journals,
        families,
        allowed_lateness: config.settings.allowed_lateness,
        tell: Arc::new(move |line| {
            // A listener never waits: a full queue loses the line for `/readyz`, and not for the log.
            if told.try_send(LiveInput::Notice(line.to_owned())).is_err() {
                output::notice(line);
            }
        }),
    };
    let start = |spec: &relight_core::source::SourceSpec| {
        let running = listen::start_in(&around, spec, &config.secrets, hub, runtime.handle())?;
        running.notices().iter().for_each(|notice| output::notice(notice));
        if !running.gaps().is_empty() {
            let why = running.gaps().join("; ");
            let gap = Trouble { kind: "gap", about: spec.name.clone(), why, is_loss: true };
            // The engine takes it with its first inputs; so many sources that there is no room have none.
            let _ = inputs.try_send(LiveInput::Trouble(gap));
        }
        Ok((spec.name.clone(), running))
    };
    config.sources.iter().map(start).collect()
}

fn start_web(config: &Config, board: &Board, runtime: &Runtime) -> Result<Option<Web>, Failure> {
    let Some(address) = config.daemon.admin else { return Ok(None) };
    let web = runtime.block_on(Web::start(address, config.daemon.admin_hosts.clone(), board.clone()));
    let web = web.with_context(|| {
        format!("failed to listen on {address} (`admin`): is another relight running? Set `admin` to another port, or to `off`")
    })?;
    Ok(Some(web))
}

/// What the engine knows, in words.
fn known(pipeline: &mut Pipeline) -> Result<String, RuntimeError> {
    let series = grouped(pipeline.totals()?.series);
    let Some(until) = pipeline.last_turn() else { return Ok("nothing known yet".to_owned()) };
    let open =
        pipeline.control_state().incidents().filter(|one| one.is_live() && one.detected.is_some()).count();
    let incidents = if open == 1 { "incident" } else { "incidents" };
    Ok(format!("{series} series known up to {until}, {open} open {incidents}"))
}

/// Tells a newcomer where to send data, and where to look.
fn greet(config: &Config, known: &str, around: &Around) -> Result<(), Failure> {
    let state = text::path(&config.daemon.state);
    let mut text = format!("{BOLD}relight{BOLD:#} is watching; state in {state}: {known}\n");
    text.push_str(&addresses(&around.sources));
    text.push_str(&readers::greeting(config));
    if let Some(web) = &around.web {
        writeln!(text, "  itself             http://{}/metrics /healthz /readyz", web.address())
            .expect("a String takes any text");
    }
    output::print(&text)
}

/// Where to send data.
fn addresses(sources: &[(String, Running)]) -> String {
    let mut text = String::new();
    for (name, running) in sources {
        for (key, address) in running.addresses() {
            let what = match *key {
                "grpc" => format!("OTLP/gRPC          {address}"),
                "http" => format!("OTLP/HTTP, events  http://{address}"),
                _ => format!("                   http://{address}"),
            };
            writeln!(text, "  {what}   ({name})").expect("a String takes any text");
        }
    }
    text
}

fn spawn(mut live: Live, opened: Receiver<Outlet>, asked: Receiver<LiveInput>) -> Result<Engine, Failure> {
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let result = live.run(&opened, &asked, &mut ()).and_then(|()| known(live.pipeline()));
        drop(live);
        // Whoever watches over it may be gone already.
        let _ = tell.send(());
        result
    };
    let thread = std::thread::Builder::new().name("relight-engine".to_owned()).spawn(run);
    Ok(Engine { thread: thread.context("failed to start the engine's thread")?, ended })
}

/// Until a signal, or until the engine cannot go on.
async fn watch_over(
    mut engine: Engine,
    mut around: Around,
    fenced: Fenced,
    (reloader, hangups): (Reloader, Signal),
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    notify::ready();
    let mut is_fenced = false;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = until_fenced(fenced) => is_fenced = true,
        _ = &mut engine.ended => return ended(engine).map(drop),
        never = notify::watchdog(&around.board, around.readers.is_stuck()) => match never {},
        never = reloader.watch(hangups, &mut around.bus) => match never {},
    }
    notify::stopping();
    output::notice("stopping: a second signal ends it at once");
    tokio::select! {
        stopped = stop(engine, around) => if is_fenced { stopped.and(Err(named_twice())) } else { stopped },
        _ = terminate.recv() => Err(at_once()),
        _ = interrupt.recv() => Err(at_once()),
    }
}

fn named_twice() -> Failure {
    Failure::Run(anyhow!(
        "another process joined the lock under this one's name: a state folder was copied, or is used twice; delete `member` in the copy"
    ))
}

fn at_once() -> Failure {
    Failure::Run(anyhow!(
        "stopped at once, by a second signal: what came since the last snapshot is read again, or lost"
    ))
}

/// Listeners first, so that nothing more comes; then the engine, which takes what is queued and writes its
/// last snapshot.
async fn stop(mut engine: Engine, around: Around) -> Result<(), Failure> {
    let Around { mut sources, readers, standby, bus, web, inputs, .. } = around;
    standby.stop();
    readers.halt();
    stop_sources(&mut sources).await;
    // While the engine still takes their answers.
    if !bus.stop(RESPONDERS_STOP).await {
        output::notice(
            "some responders did not end in time: what they were at is taken up at the next start",
        );
    }
    stop_engine(inputs, &mut engine).await?;
    drop(sources);
    // The last snapshot is written: what it holds may be committed.
    let _ = tokio::task::spawn_blocking(move || readers.close()).await;
    standby.leave();
    drop(web);
    let known = ended(engine)?;
    output::notice(&format!("stopped, with a last snapshot: {known}"));
    Ok(())
}

/// Their partitions stay open: the engine would take their end for that of the stream, and close what is open.
async fn stop_sources(sources: &mut [(String, Running)]) {
    for (name, source) in sources {
        if !source.stop(LISTENERS_STOP).await {
            output::notice(&format!("{name}: some requests were not answered"));
        }
    }
}

/// The engine takes what is queued, writes what it has to write, and ends.
async fn stop_engine(inputs: Sender<LiveInput>, engine: &mut Engine) -> Result<(), Failure> {
    let stop = tokio::task::spawn_blocking(move || inputs.send_timeout(LiveInput::Stop, ENGINE_STOP).is_ok());
    if !stop.await.unwrap_or(false) || tokio::time::timeout(ENGINE_STOP, &mut engine.ended).await.is_err() {
        return Err(Failure::Run(anyhow!("the engine did not end within {} s", ENGINE_STOP.as_secs())));
    }
    Ok(())
}

/// What it knew in the end.
fn ended(engine: Engine) -> Result<String, Failure> {
    match engine.thread.join() {
        Ok(known) => known.map_err(|error| Failure::Run(error.into())),
        Err(_) => Err(Failure::Run(anyhow!("the engine panicked; its message is above"))),
    }
}

fn of_source(name: &str, stats: &listen::SourceStats) -> Vec<Sample> {
    let sample = |figure: listen::Figure| {
        let kind = figure.label.map_or("", |(_, value)| value);
        let metric = if figure.is_counter { metrics::SOURCE } else { metrics::SOURCE_NOW };
        Sample::labelled(metric, [name, figure.name, kind], figure.value as f64)
    };
    stats
        .figures()
        .into_iter()
        .filter(|figure| figure.value > 0 || figure.label.is_none())
        .map(sample)
        .collect()
}
