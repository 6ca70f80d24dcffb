//! What all listeners of one source share: its partition, its limits, its counters, and who may send.
//!
//! A [`Front`] is that as one connection sees it. Knows no protocol.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, ORIGIN};
use relight_core::record::{Reason, Record};
use relight_core::refusal::Refusals;
use relight_core::responder::Secret;
use relight_core::source::Limits;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::Clock;
use super::fair::{Capacities, Peer, Peers, Refusal, Resource, Taken};
use super::reply::is_rejection;
use super::seen::Fresh;
use super::stats::{Outcome, SourceStats, add, sub};
use crate::journal::Journal;
use crate::live::{Delivery, Inlet, Load, QUEUE, Refused, Verdict};
use crate::memory::{MemoryBudget, Promise};

/// How long a request waits for the engine. A sender has given up by then: the default of OpenTelemetry's
/// exporters is 10 s, Prometheus' is 30 s.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of a request's headers, HTTP/2's own limit as well.
pub(super) const MAX_HEADER_BYTES: usize = 16 << 10;
/// What is shown to a sender; OTLP's senders log it.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Longest advice when to come again. The shortest is a second.
const MAX_RETRY_SECS: u64 = 5;
/// Requests whose body may be awaited, for each that may be worked on: they hold a head and a few kilobytes.
const OPEN_PER_PERMIT: usize = 4;
/// A request that holds more is a large one, and is not taken while memory is tight.
const SMALL_BYTES: u64 = 256 << 10;
/// Requests of one source that are decoded at a time: names that points share are written once and come to the most that a
/// request may have, so each of these may take far more than its body.
const DECODING: usize = 4;

/// Why a request is not answered with success.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) outcome: Outcome,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let mut message = message.into();
        cut(&mut message, MAX_MESSAGE_BYTES);
        Self { outcome, message }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Outcome::Malformed, message)
    }

    pub(super) fn busy(what: &str) -> Self {
        Self::new(Outcome::Busy, format!("{what}; send it again later"))
    }
}

/// Shortens a text to at most so many bytes.
pub(super) fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// How deliveries reach the engine.
pub(super) enum Way {
    /// Straight to the partition's queue.
    Straight(Inlet),
    /// By the journal.
    Journal(Journal),
    /// To nobody: the journal cannot be written, so each sender has to keep what it has. The source has no partition.
    Refusing { source: String, why: String },
}

impl Way {
    fn partition(&self) -> &str {
        match self {
            Self::Straight(inlet) => inlet.partition(),
            Self::Journal(journal) => journal.partition(),
            Self::Refusing { source, .. } => source,
        }
    }

    fn stands_by(&self) -> bool {
        match self {
            Self::Straight(inlet) => inlet.stands_by(),
            Self::Journal(journal) => journal.stands_by(),
            Self::Refusing { .. } => false,
        }
    }

    fn is_held_back(&self) -> bool {
        match self {
            Self::Straight(inlet) => inlet.is_held_back(),
            Self::Journal(journal) => journal.is_held_back(),
            Self::Refusing { .. } => false,
        }
    }

    fn is_tight(&self) -> bool {
        match self {
            Self::Straight(inlet) => inlet.is_tight(),
            Self::Journal(journal) => journal.is_held_back(),
            Self::Refusing { .. } => false,
        }
    }

    fn offer(&self, bytes: usize, delivery: Delivery) -> Result<(), Refused> {
        match self {
            Self::Straight(inlet) => inlet.offer_weighed(bytes, delivery),
            Self::Journal(journal) => journal.offer_weighed(bytes, delivery),
            Self::Refusing { why, .. } => {
                if let Some(answer) = delivery.answer {
                    answer(Verdict::Busy(why.clone()));
                }
                Ok(())
            }
        }
    }
}

/// What was refused of a load that is in.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    /// By reason.
    pub(super) counts: Vec<(Reason, u32)>,
    /// The first kinds by metric, service and cause.
    names: Refusals,
    /// The source that refused them.
    source: String,
}

impl Rejected {
    /// A text for each kind that a sender has to know of; the first names the source.
    pub(super) fn texts(&self) -> Vec<String> {
        let kinds = self.names.kinds().iter().filter(|kind| is_rejection(kind.reason));
        let mut texts: Vec<String> = kinds.map(ToString::to_string).collect();
        if let Some(first) = texts.first_mut() {
            first.insert_str(0, &format!("source `{}`: ", self.source));
        }
        texts
    }
}

/// What all connections of a source share.
pub(super) struct ListenerShared {
    pub(super) limits: Limits,
    pub(super) stats: Arc<SourceStats>,
    way: Way,
    clock: Clock,
    tokens: Vec<Secret>,
    peers: Arc<Peers>,
    memory: MemoryBudget,
    /// Bytes that one request may hold while it is read.
    largest: usize,
    decoding: Semaphore,
    turn: AtomicU64,
}

/// A source as one connection sees it: what is shared, and whose connection it is.
pub(super) struct Front {
    pub(super) limits: Limits,
    pub(super) stats: Arc<SourceStats>,
    shared: Arc<ListenerShared>,
    peer: Arc<Peer>,
}

impl ListenerShared {
    /// `senders`: the tokens of which each must have one, and the clock that says when a request came.
    pub(super) fn new(way: Way, limits: Limits, senders: (Vec<Secret>, Clock), memory: MemoryBudget) -> Self {
        let (tokens, clock) = senders;
        let reading = limits.max_reading_bytes;
        let largest = limits.max_wire_bytes.saturating_add(limits.max_inflated_bytes);
        let largest = largest.max(reading / 2).min(reading);
        let peers = Peers::new(Capacities {
            open_requests: limits.max_requests.saturating_mul(OPEN_PER_PERMIT) as u64,
            permits: limits.max_requests as u64,
            reading_bytes: reading as u64,
            deliveries: QUEUE as u64,
            waiting_bytes: limits.max_waiting_bytes as u64,
            request_bytes: largest as u64,
        });
        let stats = Arc::new(SourceStats::of(Arc::clone(&peers)));
        let (decoding, turn) = (Semaphore::new(DECODING), AtomicU64::new(0));
        Self { limits, stats, way, clock, tokens, peers, memory, largest, decoding, turn }
    }

    /// The source as a connection from this address sees it.
    pub(super) fn for_peer(self: &Arc<Self>, address: IpAddr) -> Front {
        let (shared, peer) = (Arc::clone(self), self.peers.peer(address));
        Front { limits: self.limits, stats: Arc::clone(&self.stats), shared, peer }
    }
}

impl Front {
    /// The source's name.
    pub(super) fn name(&self) -> &str {
        self.shared.way.partition()
    }

    pub(super) fn now(&self) -> relight_core::Timestamp {
        (self.shared.clock)()
    }

    /// Lets a request in by its headers, or says why not.
    pub(super) fn admit(self: &Arc<Self>, headers: &HeaderMap) -> Result<Admitted, Fault> {
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > MAX_HEADER_BYTES {
            let message = format!("the headers have {bytes} bytes (at most {MAX_HEADER_BYTES})");
            return Err(Fault::new(Outcome::HeadersTooLarge, message));
        }
        if headers.contains_key(ORIGIN) {
            // A page of another site, or of a name that was made to point here, must not feed relight.
            return Err(Fault::new(Outcome::Forbidden, "browsers are not let in"));
        }
        if !self.knows(headers) {
            return Err(Fault::new(Outcome::Unauthenticated, "the bearer token is missing or wrong"));
        }
        // Before a byte of the body is read.
        if self.shared.way.is_held_back() {
            return Err(short_of_memory());
        }
        let too_many = |why| self.too_many(why, "requests at a time");
        // A body that nobody could work on is not worth its way.
        self.peer.may_take(Resource::Permits, 1).map_err(too_many)?;
        let permit = self.peer.take(Resource::OpenRequests, 1).map_err(too_many)?;
        let promise = self.shared.memory.promise();
        Ok(Admitted { permit, held: Held { front: Arc::clone(self), bytes: None, permit: None, promise } })
    }

    /// Bytes that a connection of HTTP/2 may have unread.
    pub(super) fn window_bytes(&self) -> u32 {
        self.shared.memory.window_bytes()
    }

    /// Waits until a request may be decoded: there are few at a time.
    pub(super) async fn decode_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.shared.decoding.acquire().await.ok()
    }

    /// Refuses more of something.
    fn too_many(&self, why: Refusal, what: &str) -> Fault {
        match why {
            Refusal::Full => Fault::busy(&format!("too many {what}")),
            Refusal::OverShare => {
                add(&self.stats.over_share, 1);
                Fault::busy(&format!("too many {what} from {}", self.peer.address()))
            }
        }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let (scheme, token) = given.split_at(given.len().min(7));
        let named = scheme.eq_ignore_ascii_case(b"bearer ");
        // All are compared, so that the time does not tell which one was near.
        let fits = self
            .shared
            .tokens
            .iter()
            .fold(0, |fits, secret| fits | token.ct_eq(secret.reveal().as_bytes()).unwrap_u8());
        self.shared.tokens.is_empty() || (named && fits == 1)
    }

    /// Hands a load to the engine and waits for what becomes of it: what was refused, by reason.
    pub(super) async fn deliver(&self, load: Load) -> Result<Rejected, Fault> {
        self.deliver_with(load, None).await
    }

    async fn deliver_with(&self, load: Load, fresh: Option<Fresh>) -> Result<Rejected, Fault> {
        if self.shared.way.stands_by() {
            return Err(Fault::busy("this relight stands by, another one takes this"));
        }
        let bytes = load.weight();
        let queued =
            self.peer.take(Resource::Deliveries, 1).map_err(|why| self.too_many(why, "requests wait"))?;
        // A single delivery always fits into an empty queue, and counts there as at most all of it: beside it the queue keeps its
        // reserve for small deliveries of others. `promise` has its true size.
        let share = bytes.min(self.limits.max_waiting_bytes);
        let waiting = self.peer.take(Resource::WaitingBytes, share as u64);
        let waiting = waiting.map_err(|why| self.too_many(why, "bytes wait"))?;
        let mut promise = self.shared.memory.promise();
        if !promise.grow(bytes as u64) {
            return Err(short_of_memory());
        }
        let (sender, verdict) = oneshot::channel();
        let answer = Box::new(move |verdict| {
            // The sender may go away before; what it sent still waits then.
            drop((queued, waiting, promise));
            if let (Some(fresh), Verdict::Taken(_) | Verdict::TakenInPart { .. }) = (fresh, &verdict) {
                fresh.taken();
            }
            // The sender may have gone away; then nobody wants to know.
            let _ = sender.send(verdict);
        });
        let delivery = Delivery { offset: None, received: self.now(), load, answer: Some(answer) };
        let stopping = || Fault::new(Outcome::Stopping, "relight is stopping");
        match self.shared.way.offer(share, delivery) {
            Ok(()) => {}
            Err(Refused::Full(_)) => return Err(Fault::busy("the queue is full")),
            Err(Refused::Closed(_)) => return Err(stopping()),
        }
        let _waiting = Waiting::begin(&self.stats);
        match tokio::time::timeout(ANSWER, verdict).await {
            Ok(Ok(Verdict::Taken(counts))) => Ok(self.rejected(counts, Refusals::default())),
            Ok(Ok(Verdict::TakenInPart { refused, names })) => Ok(self.rejected(refused, names)),
            Ok(Ok(Verdict::Malformed(why))) => Err(Fault::malformed(why)),
            Ok(Ok(Verdict::Busy(why))) => Err(Fault::busy(&why)),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Fault::busy("the engine is behind")),
        }
    }

    fn rejected(&self, counts: Vec<(Reason, u32)>, names: Refusals) -> Rejected {
        for (reason, n) in &counts {
            self.stats.reject(*reason, *n);
        }
        Rejected { counts, names, source: self.name().to_owned() }
    }

    /// The same for a decoded record. One that brings nothing is not worth a turn.
    pub(super) async fn deliver_record(&self, record: Record) -> Result<Rejected, Fault> {
        if record.points.is_empty() && record.events.is_empty() && record.refused.is_empty() {
            return Ok(Rejected::default());
        }
        self.deliver(Load::Record(Box::new(record))).await
    }

    /// The same for events that are known by their identities.
    pub(super) async fn deliver_events(&self, record: Record, fresh: Fresh) -> Result<Rejected, Fault> {
        if record.events.is_empty() && record.refused.is_empty() {
            return Ok(Rejected::default());
        }
        self.deliver_with(Load::Record(Box::new(record)), Some(fresh)).await
    }

    /// In how many seconds to come again: spread, so that those who were sent away do not come back as one.
    pub(super) fn retry_secs(&self) -> u64 {
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        1 + relight_core::series::hash(&turn.to_le_bytes()) % MAX_RETRY_SECS
    }
}

fn short_of_memory() -> Fault {
    Fault::busy("relight is short of memory")
}

/// A request that the engine has and has not answered yet.
struct Waiting<'a>(&'a SourceStats);

impl<'a> Waiting<'a> {
    fn begin(stats: &'a SourceStats) -> Self {
        add(&stats.waiting, 1);
        Self(stats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        sub(&self.0.waiting, 1);
    }
}

/// A request that was let in.
pub(super) struct Admitted {
    /// Its place among the open requests.
    pub(super) permit: Taken,
    pub(super) held: Held,
}

/// What a request holds while it is read and worked on: bytes of memory, and, once its body is whole, a permit. Given
/// back when this is dropped.
pub(super) struct Held {
    front: Arc<Front>,
    bytes: Option<Taken>,
    permit: Option<Taken>,
    promise: Promise,
}

impl Held {
    pub(super) fn stats(&self) -> Arc<SourceStats> {
        Arc::clone(&self.front.stats)
    }

    /// Takes more bytes; fails if all requests together would hold too much, or this sender's more than its share.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let held = self.bytes.as_ref().map_or(0, Taken::amount);
        let bytes = bytes as u64;
        if held.saturating_add(bytes) > self.front.shared.largest as u64 {
            let largest = self.front.shared.largest;
            let message = format!("the request takes more than {largest} bytes of memory while it is read");
            return Err(Fault::new(Outcome::TooLarge, message));
        }
        if held.saturating_add(bytes) > SMALL_BYTES && self.front.shared.way.is_tight() {
            return Err(short_of_memory());
        }
        let taken = match &mut self.bytes {
            Some(held) => held.grow(bytes),
            none => self.front.peer.take(Resource::ReadingBytes, bytes).map(|held| *none = Some(held)),
        };
        taken.map_err(|why| self.front.too_many(why, "bytes are being read"))?;
        if self.promise.grow(bytes) { Ok(()) } else { Err(short_of_memory()) }
    }

    /// Gives bytes back that are held no more.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.bytes {
            held.shrink(bytes as u64);
        }
        self.promise.shrink(bytes as u64);
    }

    /// Takes a permit to work on the request, for as long as this is there. Its body is whole: a permit is never held
    /// while a sender is waited for.
    pub(super) fn work(&mut self) -> Result<(), Fault> {
        let permit = self.front.peer.take(Resource::Permits, 1);
        self.permit = Some(permit.map_err(|why| self.front.too_many(why, "requests at a time"))?);
        Ok(())
    }
}

/// One request in flight, and the count of how it ended: `Disconnected` unless somebody says otherwise.
pub(super) struct InFlight {
    front: Arc<Front>,
    outcome: Outcome,
}

impl InFlight {
    pub(super) fn begin(front: &Arc<Front>) -> Self {
        add(&front.stats.requests, 1);
        Self { front: Arc::clone(front), outcome: Outcome::Disconnected }
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        sub(&self.front.stats.requests, 1);
        self.front.stats.count(self.outcome);
    }
}
