//! Records that cannot be read, written to a topic or a file with the reason, by a thread of their own.
//!
//! An offset passes its dead letter only when that is durable: acknowledged by all replicas, or synced to disk.
//! Nothing is decided here about which record is one, and nothing is dropped: what cannot be written is tried
//! again until it can, and its partition waits.

mod file;
mod topic;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::config::ClientConfig;
use relight_core::Timestamp;
use relight_core::source::kafka::Kafka;

use self::file::LetterFile;
use self::topic::LetterTopic;
use super::{Counters, KafkaError, News, Notice, Surroundings, count};

/// Letters written together.
const BATCH: usize = 256;
/// Time between two tries of a batch that could not be written.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes of a record that its letter keeps, so that a broker with the default limit of 1 MiB takes the letter.
/// The record itself stays in its topic for as long as that keeps it.
const KEPT_BYTES: usize = 900_000;
/// Bytes of a reason.
const REASON_BYTES: usize = 512;

/// Offsets of one partition whose letters are not durable yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unwritten(Arc<Mutex<BTreeSet<u64>>>);

impl Unwritten {
    pub(super) fn add(&self, offset: u64) {
        self.set().insert(offset);
    }

    fn remove(&self, offset: u64) {
        self.set().remove(&offset);
    }

    pub(super) fn has(&self, offset: u64) -> bool {
        self.set().contains(&offset)
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.set().first().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.set().len()
    }

    fn set(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        // One insert or removal leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One record that cannot be read.
pub(super) struct Letter {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: u64,
    pub(super) received: Timestamp,
    pub(super) why: String,
    pub(super) key: Option<Bytes>,
    pub(super) value: Bytes,
    pub(super) unwritten: Unwritten,
}

impl Letter {
    /// What is kept of the value.
    fn kept(&self) -> &[u8] {
        &self.value[..self.value.len().min(KEPT_BYTES)]
    }

    /// What is kept of the key.
    fn kept_key(&self) -> Option<&[u8]> {
        self.key.as_ref().map(|key| &key[..key.len().min(KEPT_BYTES / 9)])
    }

    fn why(&self) -> &str {
        let end = (0..=self.why.len().min(REASON_BYTES)).rev().find(|at| self.why.is_char_boundary(*at));
        &self.why[..end.unwrap_or(0)]
    }
}

/// Where letters are written.
enum Place {
    File(LetterFile),
    Topic(Box<LetterTopic>),
}

impl Place {
    /// Writes letters durably: all of them, or fails.
    fn write(&mut self, letters: &[Letter]) -> Result<(), String> {
        match self {
            Self::File(file) => file.write(letters).map_err(|error| error.to_string()),
            Self::Topic(topic) => topic.write(letters),
        }
    }
}

/// The thread that writes letters.
pub(super) struct Writer {
    letters: Sender<Letter>,
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl Writer {
    pub(super) fn start(
        name: &str,
        settings: &Kafka,
        config: &ClientConfig,
        surroundings: &Surroundings,
        counters: &Arc<Counters>,
    ) -> Result<Self, KafkaError> {
        let named = settings.dead_letter.as_ref();
        let place = if let Some(topic) = named.and_then(|letter| letter.topic.as_deref()) {
            let topic = LetterTopic::new(topic, config)
                .map_err(|why| KafkaError::Client { source_name: name.to_owned(), why })?;
            Place::Topic(Box::new(topic))
        } else {
            let path = named.and_then(|letter| letter.file.as_ref());
            let path = path.map_or_else(|| surroundings.dead_letters.clone(), Into::into);
            Place::File(LetterFile::new(path))
        };
        let (letters, taken) = unbounded();
        let (stop, stopped) = bounded(0);
        let (over, ended) = bounded(1);
        let job = Job {
            about: name.to_owned(),
            place,
            taken,
            stopped,
            surroundings: surroundings.clone(),
            counters: Arc::clone(counters),
        };
        std::thread::Builder::new()
            .name(format!("letters-{name}"))
            .spawn(move || {
                job.run();
                let _ = over.send(());
            })
            .map_err(|error| KafkaError::Client { source_name: name.to_owned(), why: error.to_string() })?;
        Ok(Self { letters, stop, ended })
    }

    pub(super) fn letters(&self) -> Sender<Letter> {
        self.letters.clone()
    }

    /// Writes what is left, and waits for that. Letters that are not written by then belong to offsets that were
    /// not passed, but for those that the engine found; these are lost with the process.
    pub(super) fn close(self, within: Duration) -> bool {
        let Self { letters, stop, ended } = self;
        drop((letters, stop));
        ended.recv_timeout(within).is_ok()
    }
}

struct Job {
    about: String,
    place: Place,
    taken: Receiver<Letter>,
    /// Disconnected when the source stops.
    stopped: Receiver<()>,
    surroundings: Surroundings,
    counters: Arc<Counters>,
}

impl Job {
    fn run(mut self) {
        loop {
            let first = crossbeam_channel::select! {
                recv(self.taken) -> letter => letter.ok(),
                recv(self.stopped) -> _ => self.taken.try_recv().ok(),
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            batch.extend(self.taken.try_iter().take(BATCH - 1));
            if !self.write(&batch) {
                return;
            }
        }
    }

    /// Writes a batch, however long it takes; `false` if the source stopped before it could be written.
    fn write(&mut self, batch: &[Letter]) -> bool {
        let mut unsaid = 0;
        let mut said: Option<Duration> = None;
        while let Err(why) = self.place.write(batch) {
            let now = self.surroundings.clock.elapsed();
            if said.is_none_or(|at| now >= at + super::reader::SAY_EVERY) {
                let notice = Notice { about: self.about.clone(), news: News::DeadLetters(why), unsaid };
                (self.surroundings.notices)(notice);
                (said, unsaid) = (Some(now), 0);
            } else {
                unsaid += 1;
            }
            if self.stopped.recv_timeout(RETRY_AFTER) == Err(RecvTimeoutError::Disconnected) {
                return self.place.write(batch).is_ok();
            }
        }
        count(&self.counters.dead_letters, batch.len() as u64);
        for letter in batch {
            letter.unwritten.remove(letter.offset);
        }
        true
    }
}
