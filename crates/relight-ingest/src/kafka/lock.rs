//! The lock of a hot standby: who is assigned the one partition of the lock topic may let effects out.
//!
//! Who holds it is asked with the time: an answer is good only while the thread that minds the lock is alive and
//! polls, so a process that was stopped and goes on cannot act on what it knew before. Nothing is decided here about
//! what holding means, and no record is read.
//!
//! The order at a hand-over: the driver is asked to stop, snapshot and commit, and only when it has (or half the
//! session's time is over) does the group hear that the lock is free. The next holder waits a little longer than the
//! clocks of two clients can be apart on when a session ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError as ClientError;
use relight_core::responder::Secrets;
use relight_core::source::kafka::{Kafka, Lock};

use super::{Clock, KafkaError, client};

/// Time without a heartbeat after which the group takes the lock away.
const SESSION: Duration = Duration::from_secs(10);
/// How long the driver may take to stop, snapshot and commit once the lock is asked back.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);
/// Time between an assignment and holding the lock. A holder that was cut off notices by the same ten seconds as the
/// group, but looks only once a second and counts from the answer to its last heartbeat.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the thread polls.
const POLL: Duration = Duration::from_millis(100);
/// A poll that is older proves nothing.
const FRESH: Duration = Duration::from_secs(3);
/// A thread that did not run for so long may have lost the lock without hearing of it.
const ABSENT: Duration = Duration::from_secs(5);

/// Tests have the group take the lock away from who has it: the member whose name sorts first gets it.
const STRATEGY: &str = if cfg!(test) { "range" } else { "cooperative-sticky" };

/// Who holds the lock, to be asked right before each effect.
#[derive(Clone)]
pub struct Ownership {
    state: Arc<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    /// Counts up with each time that the lock is taken; 0 while it is not held.
    epoch: AtomicU64,
    taken: AtomicU64,
    /// When the lock was assigned, in milliseconds.
    assigned_ms: AtomicU64,
    /// When the thread polled last, in milliseconds.
    polled_ms: AtomicU64,
    /// Another process has this one's name in the group.
    fenced: AtomicBool,
}

impl Ownership {
    /// The epoch in which the lock is held now; `None` if it is not. An effect that was decided on under another
    /// epoch must not leave.
    pub fn held(&self) -> Option<u64> {
        let now = self.clock.elapsed();
        let at = |ms: &AtomicU64| Duration::from_millis(ms.load(Ordering::Acquire));
        let epoch = self.state.epoch.load(Ordering::Acquire);
        let is_fresh = now < at(&self.state.polled_ms) + FRESH;
        let is_settled = now >= at(&self.state.assigned_ms) + SETTLE;
        (epoch > 0 && is_fresh && is_settled).then_some(epoch)
    }

    /// Whether another process took this one's place in the group: this one must end.
    pub fn is_fenced(&self) -> bool {
        self.state.fenced.load(Ordering::Acquire)
    }
}

/// What the lock asks of the driver.
pub enum Asked {
    /// The lock is wanted elsewhere: let nothing more out, snapshot, commit, and then drop this.
    Release(Sender<()>),
    /// The lock is gone: what is under way must not be committed.
    Lost,
    /// Another process took this one's place in the group: end.
    Fenced,
}

/// The thread that minds the lock. Dropping it gives the lock back.
pub struct LockKeeper {
    ownership: Ownership,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LockKeeper {
    /// Joins the lock's group. `member` is this process's name in it: the same after a restart, so that a restart
    /// within the session keeps the lock, and no two processes' own.
    pub fn start(
        name: &str,
        settings: &Kafka,
        lock: &Lock,
        member: &str,
        secrets: &Secrets,
        clock: &Arc<dyn Clock>,
        asks: Sender<Asked>,
    ) -> Result<Self, KafkaError> {
        let state = Arc::new(State::default());
        let mut config = client::config(name, settings, secrets)?;
        config
            .set("group.id", &lock.group)
            .set("client.id", format!("{}-{member}", settings.client_id))
            .set("group.instance.id", member)
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "30000")
            // The holder keeps the lock when another member comes: each takeover has its price.
            .set("partition.assignment.strategy", STRATEGY)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest")
            .set("allow.auto.create.topics", "false");
        config.set_log_level(RDKafkaLogLevel::Error);
        let (stop, stopped) = bounded(0);
        let keeper = Keeper {
            config,
            topic: lock.topic.clone(),
            state: Arc::clone(&state),
            clock: Arc::clone(clock),
            asks,
            stopped,
        };
        let failed = |why: String| KafkaError::Client { source_name: name.to_owned(), why };
        let consumer = keeper.join().map_err(|error| failed(error.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("kafka-lock".to_owned())
            .spawn(move || keeper.run(consumer))
            .map_err(|error| failed(error.to_string()))?;
        let ownership = Ownership { state, clock: Arc::clone(clock) };
        Ok(Self { ownership, stop: Some(stop), thread: Some(thread) })
    }

    /// Who holds the lock.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }
}

impl Drop for LockKeeper {
    /// Gives the lock back without asking the driver, who has stopped by now, and waits for nothing: leaving the
    /// group can hang for as long as its brokers do.
    fn drop(&mut self) {
        self.ownership.state.epoch.store(0, Ordering::Release);
        self.stop.take();
        self.thread.take();
    }
}

struct Keeper {
    config: ClientConfig,
    topic: String,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    asks: Sender<Asked>,
    stopped: Receiver<()>,
}

type LockConsumer = BaseConsumer<Callbacks>;

impl Keeper {
    fn join(&self) -> Result<LockConsumer, ClientError> {
        let callbacks = Callbacks {
            state: Arc::clone(&self.state),
            clock: Arc::clone(&self.clock),
            asks: self.asks.clone(),
        };
        let consumer: LockConsumer = self.config.create_with_context(callbacks)?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }

    fn run(self, mut consumer: LockConsumer) {
        let mut last = self.clock.elapsed();
        while self.stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            let now = self.clock.elapsed();
            if now > last + ABSENT {
                // Whether the group has moved on is not known here: out, and in again as a newcomer.
                self.lose();
                drop(consumer);
                consumer = match self.rejoin() {
                    Some(consumer) => consumer,
                    None => return,
                };
            }
            last = self.clock.elapsed();
            self.state.polled_ms.store(last.as_millis() as u64, Ordering::Release);
            // The lock topic has no records; whatever is in it is nobody's business.
            if let Some(Err(error)) = consumer.poll(POLL)
                && is_fenced(&error)
            {
                self.state.epoch.store(0, Ordering::Release);
                self.state.fenced.store(true, Ordering::Release);
                let _ = self.asks.send(Asked::Fenced);
                return;
            }
        }
    }

    fn lose(&self) {
        if self.state.epoch.swap(0, Ordering::AcqRel) > 0 {
            let _ = self.asks.send(Asked::Lost);
        }
    }

    fn rejoin(&self) -> Option<LockConsumer> {
        loop {
            if let Ok(consumer) = self.join() {
                return Some(consumer);
            }
            if self.stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Disconnected) {
                return None;
            }
        }
    }
}

fn is_fenced(error: &ClientError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{Fatal, FencedInstanceId};
    matches!(error, ClientError::MessageConsumptionFatal(_))
        || matches!(error.rdkafka_error_code(), Some(FencedInstanceId | Fatal))
}

/// What the consumer calls back with, on the thread that polls.
struct Callbacks {
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    asks: Sender<Asked>,
}

impl ClientContext for Callbacks {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: ClientError, _: &str) {}
}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if !matches!(rebalance, Rebalance::Revoke(list) if list.count() > 0) {
            return;
        }
        if consumer.assignment_lost() {
            if self.state.epoch.swap(0, Ordering::AcqRel) > 0 {
                let _ = self.asks.send(Asked::Lost);
            }
            return;
        }
        if self.state.epoch.load(Ordering::Acquire) == 0 {
            return;
        }
        let (done, is_done) = bounded(0);
        // Nothing is ever sent: the driver drops its end. Effects stop here, whatever the driver does.
        self.state.epoch.store(0, Ordering::Release);
        if self.asks.send(Asked::Release(done)).is_ok() {
            let _ = is_done.recv_timeout(RELEASE_WITHIN);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(list) if list.count() > 0) {
            let now = self.clock.elapsed().as_millis() as u64;
            self.state.assigned_ms.store(now, Ordering::Release);
            let epoch = self.state.taken.fetch_add(1, Ordering::AcqRel) + 1;
            self.state.epoch.store(epoch, Ordering::Release);
        }
    }
}
