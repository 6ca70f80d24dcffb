//! The way from live sources to the engine: one bounded queue a partition.
//!
//! A source opens an [`Inlet`] for each partition that it reads and offers [`Delivery`]s to it; the
//! engine holds the [`Outlet`] at the other end and drains it, or leaves it alone while the partition
//! is too far ahead of the others. A full queue gives the delivery back: a listener answers that it is
//! busy, a reader stops reading. Nothing is dropped here, nothing waits here, and nothing here knows a
//! protocol, a clock or what a delivery holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use relight_core::Timestamp;
use relight_core::record::{Reason, Record};
use relight_core::refusal::Refusals;

pub use crate::memory::Brake;
use crate::memory::MemoryBudget;

/// Deliveries that may wait in one partition's queue. A listener with 64 requests waiting sheds load.
pub(crate) const QUEUE: usize = 64;

/// Whether a partition's records are sent to relight, or fetched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A listener: what is not answered is sent again, and after a kill what came since the last
    /// snapshot is lost.
    Push,
    /// A listener with a journal: read again from an offset on.
    Journalled,
    /// A log that is read from an offset on.
    Pull,
}

/// One record on its way to the engine, or news about its partition.
pub struct Delivery {
    /// Its place in the partition; `None` where the partition counts in order of arrival.
    pub offset: Option<u64>,
    /// When it arrived; of a Kafka record its own timestamp.
    pub received: Timestamp,
    /// What it brings.
    pub load: Load,
    /// Who waits for an answer.
    pub answer: Option<Answer>,
}

/// What a delivery brings.
pub enum Load {
    /// An `ExportMetricsServiceRequest`, inflated and not yet decoded.
    Metrics(Bytes),
    /// A decoded record. Its offset and time of arrival are filled in by the engine.
    Record(Box<Record>),
    /// Nothing that is of use: only the offset moves on. The source has counted it.
    Nothing,
    /// relight was started here. Behind it senders may bring again what nobody has taken.
    Started,
    /// The log was read to its end, by a fetch that succeeded at `received`; of a journal, that the state has all of it.
    CaughtUp,
    /// The partition cannot be reached; it is stalled until something comes from it.
    Unreachable(String),
}

/// Tells the sender what became of its delivery. Called at most once; dropped if relight stops.
pub type Answer = Box<dyn FnOnce(Verdict) + Send>;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in. What was refused of it, by reason.
    Taken(Vec<(Reason, u32)>),
    /// The same, with names.
    TakenInPart {
        /// What was refused, by reason.
        refused: Vec<(Reason, u32)>,
        /// The first kinds of it by metric, service and cause, for people.
        names: Refusals,
    },
    /// It could not be decoded, and nothing of it is in.
    Malformed(String),
    /// It could not be kept, and nothing of it is in: to be sent again.
    Busy(String),
}

/// Bytes that all partitions of one source may have waiting.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes. A single delivery always fits into an empty one.
    pub fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// Bytes that wait now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.limit).then_some(used + bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one partition has of its source's budget.
#[derive(Clone)]
struct Share {
    of: Budget,
    used: Arc<AtomicUsize>,
}

impl Share {
    fn new(of: &Budget) -> Self {
        Self { of: of.clone(), used: Arc::default() }
    }

    fn reserve(&self, bytes: usize) -> bool {
        let fits = self.of.reserve(bytes);
        if fits {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.of.release(bytes);
    }
}

/// Where sources open their partitions.
#[derive(Clone)]
pub struct Hub {
    resume: Arc<BTreeMap<String, u64>>,
    opened: Sender<Outlet>,
    awaited: Awaited,
    stands_by: Arc<AtomicBool>,
    brake: Brake,
    memory: MemoryBudget,
}

/// How many sources have yet to learn which partitions they read. Time must not run on without those: what
/// waits in them would be late.
#[derive(Clone, Default)]
pub struct Awaited(Arc<AtomicUsize>);

impl Awaited {
    /// Whether all sources have opened the partitions that they have found.
    pub fn are_here(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// A source is looking for its partitions. Dropped when it has opened them, or has given up.
pub struct Looking(Awaited);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hub {
    /// A hub and the other end of it. `resume`: of each partition that the state knows, the first
    /// offset that is not in it.
    pub fn new(resume: BTreeMap<String, u64>) -> (Self, Receiver<Outlet>) {
        let (opened, outlets) = unbounded();
        let (awaited, stands_by, brake) = (Awaited::default(), Arc::default(), Brake::default());
        let memory = MemoryBudget::default();
        (Self { resume: Arc::new(resume), opened, awaited, stands_by, brake, memory }, outlets)
    }

    /// Bounds the memory of all requests together, of the sources that are started from now on.
    pub fn limit_memory(&mut self, memory: MemoryBudget) {
        self.memory = memory;
    }

    /// Room for requests.
    pub(crate) const fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// The first offset of a partition that is not in the state; `None` if the state does not know it.
    pub fn resume(&self, partition: &str) -> Option<u64> {
        self.resume.get(partition).copied()
    }

    /// A source will open partitions that it has yet to look up.
    pub fn look_up(&self) -> Looking {
        self.awaited.0.fetch_add(1, Ordering::AcqRel);
        Looking(self.awaited.clone())
    }

    /// What holds the sources of this hub back.
    pub fn brake(&self) -> Brake {
        self.brake.clone()
    }

    /// The sources that are still looking.
    pub fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }

    /// Whether what is pushed is for another relight to take, until this is called again.
    pub fn stand_by(&self, stands_by: bool) {
        self.stands_by.store(stands_by, Ordering::Release);
    }

    /// Opens a partition. From now on the engine waits for it: its watermark holds bins open until it
    /// has records, or is caught up, or cannot be reached.
    pub fn open(&self, partition: &str, reads: Reads, budget: &Budget) -> Inlet {
        let (sender, queue) = bounded(QUEUE);
        let covered = Arc::new(AtomicU64::new(self.resume(partition).unwrap_or(0)));
        let (partition, share): (Arc<str>, _) = (partition.into(), Share::new(budget));
        // The engine is gone only when relight stops, and then nobody minds.
        let _ = self.opened.send(Outlet {
            partition: Arc::clone(&partition),
            reads,
            queue,
            share: share.clone(),
            covered: Arc::clone(&covered),
        });
        let stands_by = Arc::clone(&self.stands_by);
        let brake = self.brake();
        Inlet { partition, reads, sender, share, covered, stands_by, brake }
    }
}

/// Why a delivery was not taken. It comes back, to be offered again or answered for.
pub enum Refused {
    /// The queue or the source's budget is full, or relight is short of memory.
    Full(Delivery),
    /// relight is stopping.
    Closed(Delivery),
}

/// A source's end of one partition. Dropping it ends the partition: nothing more will come of it.
pub struct Inlet {
    partition: Arc<str>,
    reads: Reads,
    sender: Sender<(usize, Delivery)>,
    share: Share,
    covered: Arc<AtomicU64>,
    pub(crate) stands_by: Arc<AtomicBool>,
    pub(crate) brake: Brake,
}

impl Inlet {
    /// The partition's name.
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Whether another relight takes what is pushed: a listener answers that it is busy. What is fetched is read by
    /// both.
    pub fn stands_by(&self) -> bool {
        self.stands_by.load(Ordering::Acquire)
    }

    /// Whether relight is short of memory: a listener says so before it reads a request.
    pub fn is_held_back(&self) -> bool {
        self.brake.is_held() || self.reads != Reads::Push && self.brake.is_tight()
    }

    /// Whether large requests are held back.
    pub fn is_tight(&self) -> bool {
        self.brake.is_tight()
    }

    /// Offers a delivery; never waits.
    pub fn offer(&self, delivery: Delivery) -> Result<(), Refused> {
        let bytes = delivery.load.weight();
        self.offer_weighed(bytes, delivery)
    }

    /// The same for one that was weighed: a large record is looked through once.
    pub(crate) fn offer_weighed(&self, bytes: usize, delivery: Delivery) -> Result<(), Refused> {
        if self.is_held_back() || !self.share.reserve(bytes) {
            return Err(Refused::Full(delivery));
        }
        self.sender.try_send((bytes, delivery)).map_err(|error| {
            self.share.release(bytes);
            match error {
                TrySendError::Full((_, delivery)) => Refused::Full(delivery),
                TrySendError::Disconnected((_, delivery)) => Refused::Closed(delivery),
            }
        })
    }

    /// The first offset that the newest snapshot does not hold: what may be committed to the log.
    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Deliveries that wait.
    pub fn waiting(&self) -> usize {
        self.sender.len()
    }
}

/// The engine's end of one partition.
pub struct Outlet {
    /// The partition's name.
    pub partition: Arc<str>,
    /// How it is read.
    pub reads: Reads,
    queue: Receiver<(usize, Delivery)>,
    share: Share,
    covered: Arc<AtomicU64>,
}

/// What an outlet has.
pub enum Next {
    /// The oldest delivery.
    Delivery(Delivery),
    /// Nothing now.
    Empty,
    /// Nothing, now or ever: the source has let go of the partition.
    Closed,
}

impl Outlet {
    /// Takes the oldest delivery; never waits.
    pub fn take(&self) -> Next {
        match self.queue.try_recv() {
            Ok((bytes, delivery)) => {
                self.share.release(bytes);
                Next::Delivery(delivery)
            }
            Err(crossbeam_channel::TryRecvError::Empty) => Next::Empty,
            Err(crossbeam_channel::TryRecvError::Disconnected) => Next::Closed,
        }
    }

    /// Adds this outlet to what a thread waits for, and says under which number.
    pub fn wait_in<'a>(&'a self, select: &mut crossbeam_channel::Select<'a>) -> usize {
        select.recv(&self.queue)
    }

    /// Tells the source that a snapshot holds all offsets below `next_offset`.
    pub fn cover(&self, next_offset: u64) {
        self.covered.store(next_offset, Ordering::Release);
    }

    /// Deliveries that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.share.used.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Bytes of memory that it holds while it waits, roughly.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Metrics(bytes) => bytes.len(),
            Self::Record(record) => record.bytes(),
            Self::Nothing | Self::Started | Self::CaughtUp | Self::Unreachable(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;
    use relight_core::record::{Event, Histogram, Kind};

    use super::*;

    fn delivery(bytes: usize) -> Delivery {
        let load = Load::Metrics(Bytes::from(vec![0; bytes]));
        Delivery { offset: None, received: Timestamp::from_secs(1), load, answer: None }
    }

    /// Scenario: two partitions of one source under one budget; the engine drains the first.
    /// Guarantee: what does not fit comes back whole, a drained delivery makes room, and a delivery
    /// larger than the budget fits only alone.
    #[test]
    fn a_budget_is_shared_and_given_back() {
        let (hub, opened) = Hub::new(BTreeMap::from([("a".to_owned(), 7)]));
        let budget = Budget::new(100);
        let (a, b) = (hub.open("a", Reads::Pull, &budget), hub.open("b", Reads::Push, &budget));
        let outlets: Vec<Outlet> = opened.try_iter().collect();
        assert_eq!((hub.resume("a"), hub.resume("b"), a.covered()), (Some(7), None, 7));
        assert!(a.offer(delivery(60)).is_ok());
        let Err(Refused::Full(back)) = b.offer(delivery(50)) else { panic!("110 of 100 bytes") };
        assert!(matches!(outlets[0].take(), Next::Delivery(_)));
        assert!(b.offer(back).is_ok());
        assert!(matches!(a.offer(delivery(200)), Err(Refused::Full(_))));
        assert!(matches!(outlets[1].take(), Next::Delivery(_)));
        assert!(a.offer(delivery(200)).is_ok());
        assert_eq!((budget.used(), outlets[0].waiting_bytes(), outlets[1].waiting_bytes()), (200, 200, 0));
    }

    /// Scenario: a log record of few bytes, and one of the same bytes with sixty labels of 1 KiB; a histogram.
    /// Guarantee: what waits counts by what it holds, labels and buckets as well, so that a budget bounds it.
    #[test]
    fn a_record_weighs_what_it_holds() {
        let log = |labels: usize| {
            let labels = (0..labels).map(|i| (i.to_string(), "v".repeat(1 << 10)));
            let (kind, body) = ("log".to_owned(), "text".to_owned());
            let event = Event { at: Timestamp::MIN, kind, labels: Labels::new(labels), body };
            Load::Record(Box::new(Record { events: vec![event], ..Record::default() })).weight()
        };
        assert!(log(0) < 200 && (61_440..70_000).contains(&log(60)), "{} {}", log(0), log(60));
        let mut record = Record::default();
        let histogram = Histogram { bounds: vec![0.0; 999], counts: vec![0; 1_000] };
        record.push_histogram(b"m", Timestamp::MIN, Timestamp::MIN, Kind::DeltaHistogram, histogram);
        let bytes = Load::Record(Box::new(record)).weight();
        assert!((16_000..16_200).contains(&bytes), "{bytes}");
    }

    /// Scenario: the brake is held in part, and let go.
    /// Guarantee: meanwhile only a listener without a journal takes anything: what it pushes is bounded by its requests.
    #[test]
    fn a_brake_may_hold_all_but_small_requests() {
        let (hub, _opened) = Hub::new(BTreeMap::new());
        let budget = Budget::new(100);
        for (reads, expected) in [(Reads::Push, true), (Reads::Journalled, false), (Reads::Pull, false)] {
            let inlet = hub.open("a", reads, &budget);
            hub.brake().hold_large();
            assert_eq!((inlet.offer(delivery(1)).is_ok(), inlet.is_tight()), (expected, true), "{reads:?}");
            hub.brake().hold(false);
            assert!(inlet.offer(delivery(1)).is_ok() && !inlet.is_tight());
        }
    }

    /// Scenario: the brake is held, and let go.
    /// Guarantee: nothing is taken meanwhile, into no partition of the hub; what came back goes in afterwards.
    #[test]
    fn a_brake_holds_all_sources_back() {
        let (hub, opened) = Hub::new(BTreeMap::new());
        let budget = Budget::new(100);
        let inlets = ["a", "b"].map(|name| hub.open(name, Reads::Push, &budget));
        hub.brake().hold(true);
        let back = inlets.iter().map(|inlet| match inlet.offer(delivery(1)) {
            Err(Refused::Full(back)) => back,
            _ => panic!("taken while the brake was held"),
        });
        let back: Vec<Delivery> = back.collect();
        assert_eq!(budget.used(), 0);
        hub.brake().hold(false);
        for (inlet, delivery) in inlets.iter().zip(back) {
            assert!(inlet.offer(delivery).is_ok());
        }
        assert_eq!(opened.try_iter().map(|outlet| outlet.waiting()).sum::<usize>(), 2);
    }

    /// Scenario: a source goes on sending to an engine that does not take, and to one that is gone.
    /// Guarantee: the queue is bounded; both are told apart; an inlet that is dropped ends the partition.
    #[test]
    fn queues_are_bounded_and_end() {
        let (hub, opened) = Hub::new(BTreeMap::new());
        let inlet = hub.open("a", Reads::Push, &Budget::new(usize::MAX));
        let outlet = opened.try_recv().expect("it was opened");
        for _ in 0..QUEUE {
            assert!(inlet.offer(delivery(1)).is_ok());
        }
        assert!(matches!(inlet.offer(delivery(1)), Err(Refused::Full(_))));
        outlet.cover(9);
        assert_eq!((inlet.covered(), inlet.waiting()), (9, QUEUE));
        drop(inlet);
        assert_eq!(
            std::iter::from_fn(|| matches!(outlet.take(), Next::Delivery(_)).then_some(())).count(),
            QUEUE
        );
        assert!(matches!(outlet.take(), Next::Closed));
        let inlet = hub.open("b", Reads::Push, &Budget::new(1));
        drop(opened);
        assert!(matches!(inlet.offer(delivery(1)), Err(Refused::Closed(_))));
    }
}
