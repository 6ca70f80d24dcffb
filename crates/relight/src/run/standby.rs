//! Which of two relights acts: the lock of a hot standby, and what follows when it comes and goes.
//!
//! Without a `lock` in the config this relight acts, always. Decides nothing: the group of the lock topic does.

use std::sync::Arc;

use relight_runtime::Guard;
use tokio::sync::oneshot;

#[cfg(feature = "kafka")]
pub(super) use with_kafka::Standby;
#[cfg(not(feature = "kafka"))]
pub(super) use without_kafka::Standby;

/// Tells that another process has this one's name in the group. `None` without a lock.
pub(super) type Fenced = Option<oneshot::Receiver<()>>;

/// Until another process has this one's name in the group: this one must end.
pub(super) async fn until_fenced(fenced: Fenced) {
    let told = match fenced {
        Some(fenced) => fenced.await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// The guard of a relight that is alone.
fn alone() -> Guard {
    Arc::new(|| Some(0))
}

#[cfg(feature = "kafka")]
mod with_kafka {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use anyhow::Context;
    use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
    use relight_config::Config;
    use relight_core::source::kafka::{Kafka, Lock};
    use relight_engine::control::ControlInput;
    use relight_ingest::kafka::Committer;
    use relight_ingest::kafka::lock::{Asked, LockKeeper, Ownership};
    use relight_ingest::live::Hub;
    use relight_runtime::{Guard, LiveInput};
    use tokio::sync::oneshot;

    use super::super::readers;
    use super::{Fenced, alone};
    use crate::failure::Failure;
    use crate::output;

    /// How often is looked whether the lock has become this relight's.
    const LOOK: Duration = Duration::from_millis(200);
    /// How long the engine may take to cut a snapshot, and each client to commit it, before the lock is given back
    /// without: together less than what the lock's keeper waits.
    const SNAPSHOT_WITHIN: Duration = Duration::from_secs(3);
    const COMMIT_WITHIN: Duration = Duration::from_millis(1_500);

    /// The lock, from before it is wanted until it is let go of.
    pub(in crate::run) struct Standby {
        lock: Option<(String, Kafka, Lock)>,
        ownership: Arc<OnceLock<Ownership>>,
        keeper: Option<LockKeeper>,
        stopping: Arc<AtomicBool>,
    }

    impl Standby {
        pub(in crate::run) fn new(config: &Config) -> Self {
            let lock = config
                .kafka
                .iter()
                .find_map(|(name, kafka)| Some((name.clone(), kafka.clone(), kafka.lock.clone()?)));
            Self { lock, ownership: Arc::default(), keeper: None, stopping: Arc::default() }
        }

        /// Whether effects may leave now. With a lock: never before it is held.
        pub(in crate::run) fn guard(&self) -> Guard {
            if self.lock.is_none() {
                return alone();
            }
            let ownership = Arc::clone(&self.ownership);
            Arc::new(move || ownership.get().and_then(Ownership::held))
        }

        /// The first input of an engine that may not be the one that acts.
        pub(in crate::run) fn prepare(&self, hub: &Hub, inputs: &Sender<LiveInput>) {
            if self.lock.is_some() {
                hub.stand_by(true);
                // Nobody takes from this queue yet, and it is empty.
                let _ = inputs.send(LiveInput::StandBy(None));
            }
        }

        /// Joins the group of the lock, and minds it.
        pub(in crate::run) fn join(
            &mut self,
            config: &Config,
            hub: Hub,
            inputs: Sender<LiveInput>,
            committers: Vec<Committer>,
        ) -> Result<Fenced, Failure> {
            let Some((name, kafka, lock)) = &self.lock else {
                return Ok(None);
            };
            let (fence, fenced) = oneshot::channel();
            let member = member(&config.daemon.state)?;
            let (asks, asked) = unbounded();
            let keeper =
                LockKeeper::start(name, kafka, lock, &member, &config.secrets, &readers::clock(), asks)
                    .map_err(|error| Failure::Run(error.into()))?;
            let ownership = keeper.ownership().clone();
            self.keeper = Some(keeper);
            let _ = self.ownership.set(ownership.clone());
            output::notice("standby: another relight may act; this one reads along until it holds the lock");
            let minder = Minder {
                ownership,
                hub,
                inputs,
                committers,
                asked,
                led: None,
                stopping: Arc::clone(&self.stopping),
            };
            std::thread::Builder::new()
                .name("relight-standby".to_owned())
                .spawn(move || minder.run(fence))
                .context("failed to start the thread that minds the lock")?;
            Ok(Some(fenced))
        }

        /// Effects go on as they are, until the engine has ended; the lock is not asked about any more.
        pub(in crate::run) fn stop(&self) {
            self.stopping.store(true, Ordering::Release);
        }

        /// Lets go of the lock: the last snapshot is written and committed.
        pub(in crate::run) fn leave(self) {
            drop(self.keeper);
        }
    }

    /// This relight's name in the group: of its state folder, so that it keeps the lock over a quick restart.
    fn member(state: &Path) -> Result<String, Failure> {
        let path = state.join("member");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        if !kept.trim().is_empty() {
            return Ok(kept.trim().to_owned());
        }
        let made = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .and_then(|id| std::fs::write(&path, &id).map(|()| id))
            .with_context(|| {
                format!(
                    "failed to write `{}`, this relight's name at the lock",
                    relight_core::text::path(&path)
                )
            })?;
        Ok(made.trim().to_owned())
    }

    /// Does what the lock asks for.
    struct Minder {
        ownership: Ownership,
        hub: Hub,
        inputs: Sender<LiveInput>,
        committers: Vec<Committer>,
        asked: Receiver<Asked>,
        /// The epoch that the engine was told of.
        led: Option<u64>,
        stopping: Arc<AtomicBool>,
    }

    impl Minder {
        fn run(mut self, fence: oneshot::Sender<()>) {
            loop {
                match self.asked.recv_timeout(LOOK) {
                    Ok(Asked::Release(done)) => self.release(done),
                    Ok(Asked::Lost) => {
                        self.stand_by(None, "standby: the lock was lost; nothing more is let out");
                    }
                    Ok(Asked::Fenced) => {
                        self.stand_by(None, "standby: another process has this one's name at the lock");
                        // Whoever is told may be ending already.
                        let _ = fence.send(());
                        return;
                    }
                    Err(RecvTimeoutError::Timeout) => self.look(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }

        fn look(&mut self) {
            let held = self.ownership.held();
            if held.is_some() && held != self.led && !self.stopping.load(Ordering::Acquire) {
                self.led = held;
                let _ = self.inputs.send(LiveInput::Control(ControlInput::Lead));
                self.hub.stand_by(false);
                output::notice("standby: this relight holds the lock, and acts from now on");
            }
        }

        fn stand_by(&mut self, release: Option<Sender<()>>, why: &str) {
            self.led = None;
            self.hub.stand_by(true);
            let _ = self.inputs.send(LiveInput::StandBy(release));
            output::notice(why);
        }

        /// Nothing more leaves already. Snapshot, commit, and only then (by dropping `done`) the lock is free.
        fn release(&mut self, done: Sender<()>) {
            let (cut, is_cut) = bounded(0);
            self.stand_by(Some(cut), "standby: the lock is wanted elsewhere; nothing more is let out");
            if is_cut.recv_timeout(SNAPSHOT_WITHIN) == Err(RecvTimeoutError::Disconnected) {
                let committed = self.committers.iter().all(|committer| committer.commit(COMMIT_WITHIN));
                if !committed {
                    output::notice("standby: offsets were not committed in time; those of the state count");
                }
            } else {
                output::notice("standby: no snapshot was cut in time; the lock goes without");
            }
            drop(done);
        }
    }
}

#[cfg(not(feature = "kafka"))]
mod without_kafka {
    use crossbeam_channel::Sender;
    use relight_config::Config;
    use relight_ingest::live::Hub;
    use relight_runtime::{Guard, LiveInput};

    use super::{Fenced, alone};
    use crate::failure::Failure;

    pub(in crate::run) struct Standby;

    impl Standby {
        pub(in crate::run) const fn new(_config: &Config) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) fn guard(&self) -> Guard {
            alone()
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn prepare(&self, _hub: &Hub, _inputs: &Sender<LiveInput>) {}

        #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the same as with Kafka")]
        pub(in crate::run) fn join(
            &mut self,
            _config: &Config,
            _hub: Hub,
            _inputs: Sender<LiveInput>,
            _committers: Vec<()>,
        ) -> Result<Fenced, Failure> {
            Ok(None)
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn stop(&self) {}

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn leave(self) {}
    }
}
