//! The Kafka source: topics of a cluster, read from the offsets that relight's state holds.
//!
//! One thread and one client a topic, so that what the client reports without a topic's name (the end of a
//! partition, above all) is still told apart, and a slow topic delays no other. All partitions are assigned, none
//! is subscribed to: who reads what is decided by relight's state and never by a group. The group's offsets are
//! written for people, after the snapshot that holds them, and read only where the state knows nothing.
//!
//! No tokio, no decoding of OTLP metrics (the engine does that), and no effect on anything but the group's offsets
//! and the dead letters.

mod bounds;
mod client;
mod dead_letter;
mod decode;
mod health;
pub mod lock;
mod mapping;
mod partition;
mod pool;
mod reader;
mod scout;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use relight_core::Timestamp;
use relight_core::responder::Secrets;
use relight_core::source::kafka::Kafka;

use self::dead_letter::Writer;
use self::reader::{Order, Reader, Shared};
use crate::live::{Budget, Hub};

/// How long a client may take to close. Dropping one can hang for as long as its brokers do.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Time, as the driver reads it.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn wall(&self) -> Timestamp;
    /// Time since some moment, which no one sets back.
    fn elapsed(&self) -> Duration;
}

/// What a source needs of the driver.
#[derive(Clone)]
pub struct Surroundings {
    /// Where partitions are opened.
    pub hub: Hub,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where news for people goes; at most one of each kind and topic a minute.
    pub notices: Arc<dyn Fn(Notice) + Send + Sync>,
    /// Whether offsets may be committed now. A standby that does not hold the lock says no.
    pub may_commit: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The file for dead letters where the settings name neither a file nor a topic.
    pub dead_letters: PathBuf,
}

/// Why a source cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The client does not take the settings: a file that is not there, a feature it was built without.
    #[error("source `{source_name}`: {why}")]
    Client {
        /// The source's name.
        source_name: String,
        /// What the client said. Never a password.
        why: String,
    },
    /// The config names a secret that it does not have.
    #[error("source `{source_name}`: no secret named `{secret}`")]
    Secret {
        /// The source's name.
        source_name: String,
        /// The secret's name.
        secret: String,
    },
    /// The file for dead letters cannot be written.
    #[error("source `{source_name}`: cannot write dead letters to `{}`", relight_core::text::path(path))]
    DeadLetters {
        /// The source's name.
        source_name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// News for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The partition, or the topic as `SOURCE/TOPIC`.
    pub about: String,
    /// What happened.
    pub news: News,
    /// How often it happened since the last notice of its kind, this one not counted.
    pub unsaid: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A record cannot be read; it is a dead letter.
    Poison {
        /// Its offset.
        offset: u64,
        /// Why.
        why: String,
    },
    /// Records were gone before they were read: the topic keeps them for too short a time.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The first that is there.
        to: u64,
    },
    /// The partition ends before the offset that was to be read next: its topic was deleted and made anew, or lost records.
    Recreated {
        /// The offset that was to be read next.
        next: u64,
        /// Where the partition ends.
        end: u64,
    },
    /// The group has committed another offset than the state holds: after a crash less, after an older state was put
    /// back more. The state's is the one that counts.
    Elsewhere {
        /// What the group has.
        committed: u64,
        /// Where reading goes on.
        next: u64,
    },
    /// The partition cannot be reached.
    Unreachable(String),
    /// The topic cannot be looked up.
    NoTopic(String),
    /// Nothing came although there is more, so the client was replaced by a new one.
    Rebuilt,
    /// A commit of offsets failed; it is tried again with the next.
    CommitFailed(String),
    /// Dead letters cannot be written; their partitions wait.
    DeadLetters(String),
    /// Something else that the client says.
    Client(String),
}

impl News {
    /// A number for each kind.
    const fn kind(&self) -> usize {
        match self {
            Self::Poison { .. } => 0,
            Self::Gap { .. } => 1,
            Self::Recreated { .. } => 2,
            Self::Unreachable(_) => 3,
            Self::NoTopic(_) => 4,
            Self::Rebuilt => 5,
            Self::CommitFailed(_) => 6,
            Self::DeadLetters(_) => 7,
            Self::Client(_) => 8,
            Self::Elsewhere { .. } => 9,
        }
    }

    /// Kinds that there are.
    const KINDS: usize = 10;

    /// Whether data is missing.
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::Gap { .. } | Self::Recreated { .. })
    }

    /// The stable word for what somebody must know: data is missing, or nothing moves.
    pub const fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::Gap { .. } => Some("gap"),
            Self::Recreated { .. } => Some("topic_recreated"),
            Self::DeadLetters(_) => Some("dead_letters"),
            _ => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.about)?;
        match &self.news {
            News::Poison { offset, why } => {
                write!(f, "the record at offset {offset} is a dead letter: {why}")
            }
            News::Gap { from, to } => {
                write!(f, "offsets {from} to {} were gone before they were read", to.saturating_sub(1))
            }
            News::Recreated { next, end } => {
                write!(
                    f,
                    "ends at offset {end} where {next} was to be read next: the topic was made anew, or lost records; read from its start"
                )
            }
            News::Elsewhere { committed, next } if committed < next => write!(
                f,
                "goes on at offset {next}, where relight's state ends; the {} from {committed} on, which the group has not committed, are in it",
                next - committed
            ),
            News::Elsewhere { committed, next } => write!(
                f,
                "goes back to offset {next}, where relight's state ends; the group had committed up to {committed}"
            ),
            News::Unreachable(why) => write!(f, "cannot be reached: {why}"),
            News::NoTopic(why) => write!(f, "cannot be looked up: {why}"),
            News::Rebuilt => f.write_str("nothing came although there is more: made a new client"),
            News::CommitFailed(why) => {
                write!(f, "offsets were not committed, and will be with the next: {why}")
            }
            News::DeadLetters(why) => write!(f, "dead letters cannot be written: {why}"),
            News::Client(why) => f.write_str(why),
        }?;
        if self.unsaid > 0 { write!(f, " ({} more like this)", self.unsaid) } else { Ok(()) }
    }
}

/// What a source has counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records taken from Kafka.
    pub records: AtomicU64,
    /// Bytes of their values.
    pub bytes: AtomicU64,
    /// Records without a value.
    pub tombstones: AtomicU64,
    /// Records that could not be read.
    pub poison: AtomicU64,
    /// Dead letters that are written.
    pub dead_letters: AtomicU64,
    /// Records that came a second time and were left out.
    pub repeated: AtomicU64,
    /// Records that were gone before they were read.
    pub missed: AtomicU64,
    /// Times at which a partition no longer had what was to be read next.
    pub gaps: AtomicU64,
    /// Times at which a partition was paused because its queue was full.
    pub pauses: AtomicU64,
    /// Clients that were replaced because nothing came.
    pub rebuilds: AtomicU64,
    /// Commits of offsets that failed.
    pub failed_commits: AtomicU64,
    /// Offsets that were committed.
    pub commits: AtomicU64,
    /// Readers that a new client did not help: no watchdog should call them alive.
    pub stuck: AtomicU64,
}

impl Counters {
    /// Whether a reader stands still for good.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) > 0
    }

    /// All of them by name, for relight's own metrics.
    pub fn all(&self) -> [(&'static str, u64); 13] {
        [
            ("records", &self.records),
            ("bytes", &self.bytes),
            ("tombstones", &self.tombstones),
            ("poison", &self.poison),
            ("dead_letters", &self.dead_letters),
            ("repeated", &self.repeated),
            ("missed", &self.missed),
            ("gaps", &self.gaps),
            ("pauses", &self.pauses),
            ("rebuilds", &self.rebuilds),
            ("failed_commits", &self.failed_commits),
            ("commits", &self.commits),
            ("stuck", &self.stuck),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// Adds to a counter.
fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// A source that runs. Dropping it stops it as [`KafkaSource::close`] does, without waiting.
pub struct KafkaSource {
    readers: Vec<Running>,
    counters: Arc<Counters>,
    writer: Option<Writer>,
}

/// Commits what the newest snapshot holds, when asked.
pub struct Committer(Vec<Sender<Order>>);

impl Committer {
    /// Commits, whatever [`Surroundings::may_commit`] says, and waits for that, but not for longer than `within` a
    /// topic. Returns whether each reader has done what it could.
    pub fn commit(&self, within: Duration) -> bool {
        let asked = self.0.iter().map(|orders| {
            let (done, is_done) = bounded(1);
            // A reader that has ended has committed.
            orders.send(Order::Commit(done)).ok().map(|()| is_done)
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().flatten().all(|is_done| is_done.recv_timeout(within).is_ok())
    }
}

struct Running {
    orders: Sender<Order>,
    ended: Receiver<()>,
    _thread: JoinHandle<()>,
}

impl KafkaSource {
    /// Starts reading. Brokers that cannot be reached are no error: they are waited for.
    pub fn start(
        name: &str,
        settings: &Kafka,
        secrets: &Secrets,
        surroundings: &Surroundings,
    ) -> Result<Self, KafkaError> {
        let counters = Arc::new(Counters::default());
        let config = client::config(name, settings, secrets)?;
        let writer = Writer::start(name, settings, &config, surroundings, &counters)?;
        let shared = Shared {
            name: name.to_owned(),
            start: settings.start,
            max_record_bytes: settings.fetch.max_record_bytes,
            budget: Budget::new(settings.fetch.max_waiting_bytes),
            surroundings: surroundings.clone(),
            counters: Arc::clone(&counters),
            letters: writer.letters(),
            config,
        };
        let mut readers = Vec::new();
        for topic in &settings.topics {
            let (orders, taken) = unbounded();
            let (over, ended) = bounded(1);
            let reader = Reader::new(shared.clone(), topic.clone(), orders.clone(), taken)?;
            let thread = std::thread::Builder::new()
                .name(format!("kafka-{}", topic.topic))
                .spawn(move || {
                    reader.run();
                    let _ = over.send(());
                })
                .map_err(|error| KafkaError::Client {
                    source_name: name.to_owned(),
                    why: error.to_string(),
                })?;
            readers.push(Running { orders, ended, _thread: thread });
        }
        Ok(Self { readers, counters, writer: Some(writer) })
    }

    /// What was counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What commits offsets before a lock is let go of.
    pub fn committer(&self) -> Committer {
        Committer(self.readers.iter().map(|reader| reader.orders.clone()).collect())
    }

    /// Stops reading. The partitions stay open, so that time does not run on without them, and what the engine
    /// still has may be snapshot and committed; [`KafkaSource::close`] ends them.
    pub fn halt(&self) {
        self.order(&|| Order::Halt);
    }

    /// Commits what the last snapshot holds, closes the clients and waits for that, but at most 10 s. Returns
    /// whether all of it was done in time; what was not goes on by itself and ends with the process.
    pub fn close(mut self, clock: &dyn Clock) -> bool {
        self.order(&|| Order::Close);
        let until = clock.elapsed() + CLOSE_WITHIN;
        let mut closed = true;
        for reader in self.readers.drain(..) {
            let left = until.saturating_sub(clock.elapsed());
            closed &= reader.ended.recv_timeout(left).is_ok();
        }
        let left = until.saturating_sub(clock.elapsed());
        self.writer.take().is_none_or(|writer| writer.close(left)) && closed
    }

    fn order(&self, order: &dyn Fn() -> Order) {
        for reader in &self.readers {
            // A reader that has ended needs no order.
            let _ = reader.orders.send(order());
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.order(&|| Order::Close);
    }
}
