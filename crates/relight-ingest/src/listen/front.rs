//! What all listeners of one source share: its partition, its limits, its counters, and who may send.
//!
//! Knows no protocol.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Clock;
use super::reply::is_rejection;
use super::seen::Fresh;
use super::stats::{Outcome, SourceStats, add, sub};
use crate::journal::Journal;
use crate::live::{Delivery, Inlet, Load, Refused, Verdict};

/// How long a request waits for the engine. A sender has given up by then: the default of OpenTelemetry's
/// exporters is 10 s, Prometheus' is 30 s.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of a request's headers, HTTP/2's own limit as well.
pub(super) const MAX_HEADER_BYTES: usize = 16 << 10;
/// What is shown to a sender; OTLP's senders log it.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Longest advice when to come again. The shortest is a second.
const MAX_RETRY_SECS: u64 = 5;

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

    fn offer(&self, delivery: Delivery) -> Result<(), Refused> {
        match self {
            Self::Straight(inlet) => inlet.offer(delivery),
            Self::Journal(journal) => journal.offer(delivery),
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

/// The shared part of a source's listeners.
pub(super) struct Front {
    pub(super) limits: Limits,
    pub(super) stats: Arc<SourceStats>,
    way: Way,
    clock: Clock,
    tokens: Vec<Secret>,
    requests: Arc<Semaphore>,
    turn: AtomicU64,
}

impl Front {
    pub(super) fn new(way: Way, limits: Limits, tokens: Vec<Secret>, clock: Clock) -> Self {
        let requests = Arc::new(Semaphore::new(limits.max_requests.min(Semaphore::MAX_PERMITS)));
        Self { limits, stats: Arc::default(), way, clock, tokens, requests, turn: AtomicU64::new(0) }
    }

    /// The source's name.
    pub(super) fn name(&self) -> &str {
        self.way.partition()
    }

    pub(super) fn now(&self) -> relight_core::Timestamp {
        (self.clock)()
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
        if self.way.is_held_back() {
            return Err(Fault::busy("relight is short of memory"));
        }
        match Arc::clone(&self.requests).try_acquire_owned() {
            Ok(permit) => Ok(Admitted { permit, held: Held { front: Arc::clone(self), bytes: 0 } }),
            Err(_) => Err(Fault::busy("too many requests at a time")),
        }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let (scheme, token) = given.split_at(given.len().min(7));
        let named = scheme.eq_ignore_ascii_case(b"bearer ");
        // All are compared, so that the time does not tell which one was near.
        let fits = self
            .tokens
            .iter()
            .fold(0, |fits, secret| fits | token.ct_eq(secret.reveal().as_bytes()).unwrap_u8());
        self.tokens.is_empty() || (named && fits == 1)
    }

    /// Hands a load to the engine and waits for what becomes of it: what was refused, by reason.
    pub(super) async fn deliver(&self, load: Load) -> Result<Rejected, Fault> {
        self.deliver_with(load, None).await
    }

    async fn deliver_with(&self, load: Load, fresh: Option<Fresh>) -> Result<Rejected, Fault> {
        if self.way.stands_by() {
            return Err(Fault::busy("this relight stands by, another one takes this"));
        }
        let (sender, verdict) = oneshot::channel();
        let answer = Box::new(move |verdict| {
            if let (Some(fresh), Verdict::Taken(_) | Verdict::TakenInPart { .. }) = (fresh, &verdict) {
                fresh.taken();
            }
            // The sender may have gone away; then nobody wants to know.
            let _ = sender.send(verdict);
        });
        let delivery = Delivery { offset: None, received: self.now(), load, answer: Some(answer) };
        let stopping = || Fault::new(Outcome::Stopping, "relight is stopping");
        match self.way.offer(delivery) {
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
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        1 + relight_core::series::hash(&turn.to_le_bytes()) % MAX_RETRY_SECS
    }
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
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) held: Held,
}

/// Bytes of memory that a request holds while it is read. They are given back when this is dropped.
pub(super) struct Held {
    front: Arc<Front>,
    bytes: u64,
}

impl Held {
    pub(super) fn stats(&self) -> Arc<SourceStats> {
        Arc::clone(&self.front.stats)
    }

    /// Takes more; fails if all requests together would hold too much.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let limit = self.front.limits.max_reading_bytes as u64;
        let bytes = bytes as u64;
        let fits = |used: u64| (used == 0 || used + bytes <= limit).then_some(used + bytes);
        let reading = &self.front.stats.reading_bytes;
        match reading.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(Fault::busy("too many bytes are being read")),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        sub(&self.front.stats.reading_bytes, self.bytes);
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
