//! The journal of a listener: what was answered with success is on the disk, so a kill loses none of it.
//!
//! One thread stands between the listeners of a source and its partition. It gives each delivery its offset,
//! writes what waits in one go, fsyncs once, and only then hands it to the engine, which answers. So the
//! journal is never behind the state, and nothing that could not be written is folded. After a start it
//! reads again what the newest snapshot does not hold, and then writes that it was started here: what follows from a
//! start must follow from it at the same place when it is read again. What the last two snapshots hold is dropped.
//!
//! Knows no protocol, no clock and no config; the files are in [`segments`], what a delivery looks like on
//! disk in [`entry`].

mod entry;
mod segments;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use relight_core::Timestamp;
use relight_core::codec::Corrupt;

pub(crate) use self::segments::Damage;
use self::segments::Segments;
use crate::live::{Brake, Budget, Delivery, Inlet, Load, QUEUE, Refused, Verdict};

/// Bytes that are written with one fsync, at most, but for a single larger delivery.
const BATCH_BYTES: usize = 8 << 20;
/// How long a full queue of the engine is left alone before it is tried again.
const NAP: Duration = Duration::from_millis(1);
/// How often is looked whether old entries may go.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system said no.
    #[error("cannot {what} `{}` ({source})", relight_core::text::path(path))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was written by a newer release, or by something else.
    #[error(
        "`{}` is no journal that this release reads ({source}): move it away to start without it",
        relight_core::text::path(path)
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Corrupt,
    },
}

/// How a journal is kept.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Bytes on disk. A full journal answers that relight is busy until a snapshot lets entries go.
    pub(crate) max_bytes: u64,
    /// Bytes that may wait to be written.
    pub(crate) max_waiting_bytes: usize,
}

/// The way of a source's deliveries through its journal. Dropping it ends the partition, once all that waits is
/// with the engine.
pub(crate) struct Journal {
    partition: Arc<str>,
    sender: Sender<(usize, Delivery)>,
    budget: Budget,
    stands_by: Arc<AtomicBool>,
    brake: Brake,
}

impl Journal {
    /// Opens the journal and begins with what the state does not hold. Returns, for people, what was found
    /// damaged.
    pub(crate) fn open(keeping: &Keeping, inlet: Inlet) -> Result<(Self, Damage), JournalError> {
        let (segments, damage) = Segments::open(&keeping.dir, inlet.covered())?;
        let (sender, queue) = bounded(QUEUE);
        let budget = Budget::new(keeping.max_waiting_bytes);
        let (partition, stands_by) = (inlet.partition().into(), Arc::clone(&inlet.stands_by));
        let brake = inlet.brake.clone();
        let next = segments.end().max(inlet.covered());
        let max_bytes = keeping.max_bytes;
        let keeper = Keeper {
            segments,
            inlet,
            queue,
            budget: budget.clone(),
            max_bytes,
            next,
            is_marked: next == 0,
            covered: [0; 2],
        };
        std::thread::Builder::new()
            .name("relight-journal".to_owned())
            .spawn(move || keeper.run())
            .map_err(failed_to("start a thread for", &keeping.dir))?;
        Ok((Self { partition, sender, budget, stands_by, brake }, damage))
    }

    /// The partition's name.
    pub(crate) fn partition(&self) -> &str {
        &self.partition
    }

    /// See [`Inlet::stands_by`].
    pub(crate) fn stands_by(&self) -> bool {
        self.stands_by.load(Ordering::Acquire)
    }

    /// See [`Inlet::is_held_back`].
    pub(crate) fn is_held_back(&self) -> bool {
        self.brake.is_tight()
    }

    /// Offers a delivery that was weighed; never waits.
    pub(crate) fn offer_weighed(&self, bytes: usize, delivery: Delivery) -> Result<(), Refused> {
        if !self.budget.reserve(bytes) {
            return Err(Refused::Full(delivery));
        }
        self.sender.try_send((bytes, delivery)).map_err(|error| {
            self.budget.release(bytes);
            match error {
                TrySendError::Full((_, delivery)) => Refused::Full(delivery),
                TrySendError::Disconnected((_, delivery)) => Refused::Closed(delivery),
            }
        })
    }
}

/// The thread that writes.
struct Keeper {
    segments: Segments,
    inlet: Inlet,
    queue: Receiver<(usize, Delivery)>,
    budget: Budget,
    max_bytes: u64,
    /// The offset of the next delivery.
    next: u64,
    /// This start stands in it, or is the first of all, which has nothing before it.
    is_marked: bool,
    /// What the last two snapshots hold, the newest first: the older one may be what a damaged store falls
    /// back to.
    covered: [u64; 2],
}

impl Keeper {
    fn run(mut self) {
        let mut is_taken = self.again() && self.keep(Vec::new());
        while is_taken {
            is_taken = match self.queue.recv_timeout(PRUNE_EVERY) {
                Ok(first) => {
                    let batch = self.batch(first);
                    self.keep(batch)
                }
                Err(RecvTimeoutError::Timeout) => self.keep(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.prune();
        }
    }

    /// Hands on what the state does not hold, and that this was all. Whether the engine still takes.
    fn again(&self) -> bool {
        let from = self.inlet.covered();
        let all = self.segments.read(from).chain([of_its_own(Load::CaughtUp)]);
        all.into_iter().all(|delivery| self.hand_on(delivery))
    }

    fn batch(&self, first: (usize, Delivery)) -> Vec<Delivery> {
        let mut bytes = first.0;
        let mut batch = vec![first];
        while bytes < BATCH_BYTES && batch.len() < QUEUE {
            let Ok(more) = self.queue.try_recv() else { break };
            bytes += more.0;
            batch.push(more);
        }
        self.budget.release(batch.iter().map(|(bytes, _)| bytes).sum());
        batch.into_iter().map(|(_, delivery)| delivery).collect()
    }

    /// Writes a batch and hands it on, or says that it could not be written; behind the mark of this start, which waits
    /// for as long as nothing can be written. Whether the engine still takes.
    fn keep(&mut self, mut batch: Vec<Delivery>) -> bool {
        if !self.is_marked {
            batch.insert(0, of_its_own(Load::Started));
        }
        if batch.is_empty() {
            return true;
        }
        let mut frames = Vec::new();
        for (offset, delivery) in (self.next..).zip(&mut batch) {
            delivery.offset = Some(offset);
            entry::encode(offset, delivery, &mut frames);
        }
        let why = if self.segments.bytes() + frames.len() as u64 > self.max_bytes {
            Some("the journal is full until the next snapshot".to_owned())
        } else {
            let written = self.segments.append(self.next..self.next + batch.len() as u64, &frames);
            written.err().map(|error| error.to_string())
        };
        if let Some(why) = why {
            let answers = batch.into_iter().filter_map(|delivery| delivery.answer);
            answers.for_each(|answer| answer(Verdict::Busy(why.clone())));
            return true;
        }
        self.is_marked = true;
        self.next += batch.len() as u64;
        batch.into_iter().all(|delivery| self.hand_on(delivery))
    }

    fn hand_on(&self, mut delivery: Delivery) -> bool {
        let bytes = delivery.load.weight();
        loop {
            match self.inlet.offer_weighed(bytes, delivery) {
                Ok(()) => return true,
                Err(Refused::Closed(_)) => return false,
                Err(Refused::Full(back)) => delivery = back,
            }
            std::thread::park_timeout(NAP);
        }
    }

    /// Drops what the last two snapshots hold.
    fn prune(&mut self) {
        let newest = self.inlet.covered();
        if newest != self.covered[0] {
            self.covered = [newest, self.covered[0]];
            // What cannot be dropped now is dropped at the next start.
            let _ = self.segments.prune(self.covered[1]);
        }
    }
}

/// What the journal has to say itself. It knows no clock.
const fn of_its_own(load: Load) -> Delivery {
    Delivery { offset: None, received: Timestamp::MIN, load, answer: None }
}

fn failed_to(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { what, path, source }
}
