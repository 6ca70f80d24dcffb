//! SIGHUP: the config file and the listeners' TLS files are read again, and rule from the next turn on, or everything stays as
//! it is.
//!
//! Waits for no target and starts nothing anew: what is queued, planned or under way goes on, and so do connections. Which
//! changes need a restart is the config crate's to say.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use relight_config::Config;
use relight_core::Timestamp;
use relight_core::telemetry::{self as metrics, Sample};
use relight_ingest::listen::{Reread, Running, ServerTls};
use relight_runtime::{Bus, Clock as _, Guard, Heartbeat, LiveInput, Reload, SystemClock};
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;

use super::{heartbeat, live_settings, notify};
use crate::check;
use crate::cli::RunArgs;
use crate::output;

/// Signals that come within this of a reload are one.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a reload waits for the config, its secrets and the TLS files: a hung mount must not keep the next signal waiting.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Reads that hang before no other is begun.
const MAX_HUNG: usize = 4;

/// What the pages show of the config that rules.
pub(super) struct Shown {
    taken: AtomicBool,
    loaded_ns: AtomicI64,
    heartbeat: Mutex<Option<Heartbeat>>,
}

impl Shown {
    pub(super) fn new(heartbeat: Option<Heartbeat>) -> Self {
        let shown =
            Self { taken: AtomicBool::new(true), loaded_ns: AtomicI64::new(0), heartbeat: Mutex::new(None) };
        shown.loaded(heartbeat);
        shown
    }

    fn loaded(&self, heartbeat: Option<Heartbeat>) {
        self.taken.store(true, Ordering::Relaxed);
        self.loaded_ns.store(SystemClock::default().wall().ns(), Ordering::Relaxed);
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = heartbeat;
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let loaded = Timestamp::from_ns(self.loaded_ns.load(Ordering::Relaxed));
        let taken = f64::from(u8::from(self.taken.load(Ordering::Relaxed)));
        let mut samples = vec![
            Sample::plain(metrics::CONFIG_LOADED, loaded.secs_f64()),
            Sample::plain(metrics::CONFIG_TAKEN, taken),
        ];
        let heartbeat = self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner);
        samples.extend(heartbeat.iter().flat_map(Heartbeat::samples));
        samples
    }
}

/// Goes over from one config to the next.
pub(super) struct Reloader {
    file: Option<PathBuf>,
    state: Option<PathBuf>,
    config: Config,
    /// Of the listeners that have any.
    tls: Vec<Arc<ServerTls>>,
    inputs: Sender<LiveInput>,
    guard: Guard,
    shown: Arc<Shown>,
    /// Shared with each read that is under way.
    reads: Arc<()>,
}

impl Reloader {
    pub(super) fn new(
        args: &RunArgs,
        config: Config,
        sources: &[(String, Running)],
        inputs: &Sender<LiveInput>,
        guard: &Guard,
        shown: &Arc<Shown>,
    ) -> Self {
        Self {
            file: args.config.clone(),
            state: args.state.clone(),
            config,
            tls: sources.iter().filter_map(|(_, source)| source.tls().cloned()).collect(),
            inputs: inputs.clone(),
            guard: Arc::clone(guard),
            shown: Arc::clone(shown),
            reads: Arc::default(),
        }
    }

    /// Reloads at every signal, and once for those that come together.
    pub(super) async fn watch(mut self, mut hangups: Signal, bus: &mut Bus) -> Infallible {
        loop {
            if hangups.recv().await.is_none() {
                return std::future::pending().await;
            }
            notify::reloading();
            match self.reload(bus).await {
                Ok(cold) => {
                    for what in cold {
                        self.tell(format!("reload: rows start cold: {what}"));
                    }
                    self.tell("reload: the config was taken and rules from now on".to_owned());
                }
                Err(reasons) => {
                    self.shown.taken.store(false, Ordering::Relaxed);
                    for why in reasons {
                        self.tell(format!("reload: {why}"));
                    }
                    self.tell("reload: refused, the config of before rules on".to_owned());
                }
            }
            notify::ready();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What starts cold, or why everything is as it was.
    async fn reload(&mut self, bus: &mut Bus) -> Result<Vec<String>, Vec<String>> {
        let config = self.read().await?;
        let refusals = self.config.refusals(&config);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let tls = self.read_tls().await?;
        let (outbox, swapped) = bus.reload(&config.responders);
        let (shown, heartbeat) = heartbeat(&config, &self.guard, &Handle::current()).unzip();
        let (done, told) = bounded(1);
        let reload = LiveInput::Reload(Box::new(Reload {
            settings: Arc::new(config.settings.clone()),
            live: live_settings(&config, false),
            outbox: Some(Box::new(outbox)),
            heartbeat,
            swapped,
            done,
        }));
        let inputs = self.inputs.clone();
        let swap = move || inputs.send(reload).ok().and_then(|()| told.recv().ok());
        let took = tokio::task::spawn_blocking(swap).await.ok().flatten();
        let took = took.unwrap_or_else(|| Err("the engine has ended".to_owned()));
        let rules = if took.is_ok() { &config } else { &self.config };
        bus.retain(&rules.responders);
        took.map_err(|why| vec![why])?;
        // Behind all that can fail.
        tls.into_iter().for_each(Reread::swap);
        let cold = self.config.cold(&config);
        self.shown.loaded(shown);
        self.config = config;
        Ok(cold)
    }

    async fn read(&self) -> Result<Config, Vec<String>> {
        let Some(file) = self.file.clone() else {
            return Err(vec![
                "relight was started without a config file: there is none to read again".to_owned(),
            ]);
        };
        let read = move || {
            check::read(&file).map_err(|failure| {
                // The frame of what `check` prints says what is not so here.
                let errors = failure.to_string();
                let errors = errors.lines().filter(|line| !line.ends_with("nothing was started"));
                errors.map(str::to_owned).collect::<Vec<_>>()
            })
        };
        let mut config = in_time("the config and its secrets", &self.reads, read).await?;
        if let Some(state) = &self.state {
            config.daemon.state.clone_from(state);
        }
        Ok(config)
    }

    /// What the TLS files of all listeners hold now, or all that is wrong with them.
    async fn read_tls(&self) -> Result<Vec<Reread>, Vec<String>> {
        let listeners = self.tls.clone();
        let read = move || {
            let (mut read, mut wrong) = (Vec::new(), Vec::new());
            for tls in listeners {
                match tls.read_again() {
                    Ok(tls) => read.push(tls),
                    Err(error) => wrong.push(error.to_string()),
                }
            }
            if wrong.is_empty() { Ok(read) } else { Err(wrong) }
        };
        in_time("the TLS files", &self.reads, read).await
    }

    /// By the engine, so that the pages show it, too.
    fn tell(&self, notice: String) {
        if let Err(error) = self.inputs.try_send(LiveInput::Notice(notice))
            && let LiveInput::Notice(notice) = error.into_inner()
        {
            output::notice(&notice);
        }
    }
}

/// Reads files on a thread of its own, which a hung mount may keep for ever.
async fn in_time<T: Send + 'static>(
    what: &str,
    reads: &Arc<()>,
    read: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
) -> Result<T, Vec<String>> {
    if Arc::strong_count(reads) > MAX_HUNG {
        return Err(vec![format!("{what} were not read: earlier reads still hang")]);
    }
    let (send, received) = oneshot::channel();
    let under_way = Arc::clone(reads);
    let read = move || {
        let read = read();
        drop(under_way);
        // Nobody waits any more once the deadline has passed.
        let _ = send.send(read);
    };
    let thread = std::thread::Builder::new().name("relight-reload".to_owned()).spawn(read);
    thread.map_err(|error| vec![format!("{what} were not read: no thread: {error}")])?;
    match tokio::time::timeout(READ_WITHIN, received).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err(vec![format!("reading {what} panicked")]),
        Err(_) => Err(vec![format!("{what} could not be read within {} s", READ_WITHIN.as_secs())]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Scenario: the files of a reload hang, again and again; then they can be read. Time is tokio's own.
    /// Guarantee: each reload ends in its time and says why, and threads that hang are bounded.
    #[test]
    fn a_reload_does_not_wait_for_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            tokio::time::pause();
            let reads = Arc::default();
            let (kept, gone) = channel::<()>();
            let gone = Arc::new(Mutex::new(gone));
            for hung in 0..MAX_HUNG + 3 {
                let gone = Arc::clone(&gone);
                let read = move || {
                    let _ = gone.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(())
                };
                let why = in_time("the files", &reads, read).await.expect_err("it hangs");
                let expected = if hung < MAX_HUNG {
                    "could not be read within 10 s"
                } else {
                    "earlier reads still hang"
                };
                assert!(why[0].contains(expected), "{hung}: {why:?}");
                assert!(Arc::strong_count(&reads) <= 1 + MAX_HUNG);
            }
            drop(kept);
            while Arc::strong_count(&reads) > 1 {
                std::thread::yield_now();
            }
            tokio::time::resume();
            assert_eq!(in_time("the files", &reads, || Ok(7)).await, Ok(7));
        });
    }
}
