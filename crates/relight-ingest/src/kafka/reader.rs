//! The thread of one topic: polls, reads, hands over, and never waits for the engine in a way that stops the rest.
//!
//! What it knows of time comes from the clock that it is handed. Questions that take their time go to the scout,
//! dead letters to their writer; both answer without being waited for.

mod assign;
mod letters;
mod pulse;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use relight_core::Timestamp;
use relight_core::source::kafka::{Start, Topic};

use super::client::{self, Consumer};
use super::dead_letter::Letter;
use super::decode::Decode;
use super::partition::{Flow, Part};
use super::scout::{self, Finding};
use super::{Counters, KafkaError, News, Notice, Surroundings, count};
use crate::live::{Budget, Delivery, Load, Looking};

/// A notice of one kind is given at most this often.
pub(super) const SAY_EVERY: Duration = Duration::from_mins(1);
/// How long a poll waits where nothing else is to be done: also how fast an order is obeyed.
const POLL: Duration = Duration::from_millis(100);
/// How long it waits while something waits to go on.
const SHORT_POLL: Duration = Duration::from_millis(2);
/// How long a full queue is left alone before it is tried again.
const NAP: Duration = Duration::from_millis(1);
/// How often is looked at what is not a record.
const TICK: Duration = Duration::from_millis(50);
/// How often offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// What a reader is told.
pub(super) enum Order {
    /// Read no more.
    Halt,
    /// Commit now, then say so.
    Commit(Sender<()>),
    /// Commit, close, end.
    Close,
    /// What the scout found.
    Found(Finding),
    /// Make a new client.
    #[cfg(test)]
    Rebuild,
}

/// What all readers of a source share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) start: Start,
    pub(super) max_record_bytes: usize,
    pub(super) budget: Budget,
    pub(super) surroundings: Surroundings,
    pub(super) counters: Arc<Counters>,
    pub(super) letters: Sender<Letter>,
    pub(super) config: ClientConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Halted,
    Closing,
}

/// A notice that was given: when, and how many were not since.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    at: Option<Duration>,
    unsaid: u64,
}

/// The reader of one topic.
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own, and all go together")]
pub(super) struct Reader {
    shared: Shared,
    topic: Arc<str>,
    decode: Decode,
    client: Arc<Consumer>,
    parts: BTreeMap<i32, Part>,
    /// Partitions with deliveries that wait, or paused.
    waiting: BTreeSet<i32>,
    phase: Phase,
    own: Sender<Order>,
    orders: Receiver<Order>,
    /// Until the partitions are found for the first time.
    looking: Option<Looking>,
    is_scouting: bool,
    is_committing: bool,
    /// A partition no longer has what was to be read next; which one is asked of the brokers.
    is_in_doubt: bool,
    /// A batch could not be unpacked: of which partition is seen where the next record leaves some out.
    is_packed: bool,
    next_tick: Duration,
    next_look: Duration,
    next_commit: Duration,
    last_record: Duration,
    last_rebuild: Option<Duration>,
    said: [Said; News::KINDS],
}

impl Reader {
    pub(super) fn new(
        shared: Shared,
        topic: Topic,
        own: Sender<Order>,
        orders: Receiver<Order>,
    ) -> Result<Self, KafkaError> {
        let client = client::consumer(&shared.config).map_err(|error| KafkaError::Client {
            source_name: shared.name.clone(),
            why: error.to_string(),
        })?;
        let now = shared.surroundings.clock.elapsed();
        let mut reader = Self {
            decode: Decode::new(&topic),
            topic: topic.topic.into(),
            client: Arc::new(client),
            parts: BTreeMap::new(),
            waiting: BTreeSet::new(),
            phase: Phase::Reading,
            own,
            orders,
            looking: Some(shared.surroundings.hub.look_up()),
            is_scouting: false,
            is_committing: false,
            is_in_doubt: false,
            is_packed: false,
            next_tick: now,
            next_look: now,
            next_commit: now + COMMIT_EVERY,
            last_record: now,
            last_rebuild: None,
            said: [Said::default(); News::KINDS],
            shared,
        };
        reader.open_known();
        Ok(reader)
    }

    pub(super) fn run(mut self) {
        while self.phase == Phase::Reading {
            self.step();
        }
        while self.phase == Phase::Halted {
            match self.orders.recv() {
                Ok(Order::Close) | Err(_) => self.phase = Phase::Closing,
                Ok(order @ Order::Commit(_)) => self.obey(order),
                Ok(_) => {}
            }
        }
        if (self.shared.surroundings.may_commit)() {
            self.commit();
        }
    }

    /// Commits, and waits for the answer.
    fn commit(&mut self) {
        let offsets = self.to_commit();
        if offsets.is_empty() {
            return;
        }
        let committed = scout::commit(&self.client, &self.topic, &offsets).map(|()| offsets);
        let is_committing = self.is_committing;
        self.committed(committed);
        self.is_committing = is_committing;
    }

    fn step(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order);
        }
        let now = self.now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        if self.flush(now) {
            if let Ok(order) = self.orders.recv_timeout(NAP) {
                self.obey(order);
            }
            return;
        }
        let client = Arc::clone(&self.client);
        let wait = if self.waiting.is_empty() { POLL } else { SHORT_POLL };
        match client.poll(wait) {
            None => {}
            Some(Ok(message)) => self.message(&message, now),
            Some(Err(error)) => self.error(&error, now),
        }
    }

    fn now(&self) -> Duration {
        self.shared.surroundings.clock.elapsed()
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Halt => self.phase = Phase::Halted,
            Order::Commit(done) => {
                self.commit();
                // Who asked may have given up waiting.
                let _ = done.send(());
            }
            Order::Close => self.phase = Phase::Closing,
            Order::Found(Finding::Topic(found)) => self.found(found),
            Order::Found(Finding::Bounds(found, is_all)) => self.settle(&found, is_all),
            Order::Found(Finding::Committed(committed)) => self.committed(committed),
            #[cfg(test)]
            Order::Rebuild => self.rebuild(self.now()),
        }
    }

    /// Hands on what waits. Returns whether a queue is full that may soon have room.
    fn flush(&mut self, now: Duration) -> bool {
        let mut waits = false;
        for id in self.waiting.clone() {
            let Some(part) = self.parts.get_mut(&id) else { continue };
            let flow = part.flush(now);
            if part.paused.is_some() {
                if flow == Flow::Open && part.may_go_on(now) {
                    self.go_on(id);
                }
                continue;
            }
            waits |= flow == Flow::Wait;
            self.mind(id, flow, now);
        }
        waits
    }

    /// Does what the state of a partition's queue asks for.
    fn mind(&mut self, id: i32, flow: Flow, now: Duration) {
        match flow {
            Flow::Open => {
                self.waiting.remove(&id);
            }
            Flow::Wait | Flow::Letter => {
                self.waiting.insert(id);
            }
            Flow::Pause => {
                self.waiting.insert(id);
                self.pause(id, now);
            }
            Flow::Closed => self.phase = Phase::Halted,
        }
    }

    fn message(&mut self, message: &BorrowedMessage<'_>, now: Duration) {
        let (id, offset) = (message.partition(), message.offset().max(0) as u64);
        let Some(part) = self.parts.get_mut(&id) else { return };
        if part.next.is_some_and(|next| offset < next) {
            return count(&self.shared.counters.repeated, 1);
        }
        let left_out = part.next.replace(offset + 1).filter(|next| self.is_packed && *next < offset);
        self.last_record = now;
        if let Some(first) = left_out {
            self.is_packed = false;
            self.bury_packed(id, (first, offset), now);
        }
        let delivery = self.delivery(message, offset, now);
        if let Some(part) = self.parts.get_mut(&id) {
            let flow = part.take(delivery, now);
            if flow != Flow::Open || part.paused.is_some() {
                self.mind(id, flow, now);
            }
        }
    }

    fn delivery(&mut self, message: &BorrowedMessage<'_>, offset: u64, now: Duration) -> Delivery {
        let counters = &self.shared.counters;
        let millis = message.timestamp().to_millis();
        let received = millis.map_or_else(
            || self.shared.surroundings.clock.wall(),
            |millis| Timestamp::from_ns(millis.saturating_mul(1_000_000)),
        );
        let mut delivery = Delivery { offset: Some(offset), received, load: Load::Nothing, answer: None };
        count(&counters.records, 1);
        let Some(value) = message.payload() else {
            count(&counters.tombstones, 1);
            return delivery;
        };
        count(&counters.bytes, value.len() as u64);
        let most = self.shared.max_record_bytes;
        let read = if value.len() > most {
            Err(format!("{} bytes (at most {most})", value.len()))
        } else {
            self.decode.read(message, value, received)
        };
        match read {
            Ok(load) => {
                if let Load::Metrics(bytes) = &load {
                    delivery.answer = self.answer(message, bytes, received);
                }
                delivery.load = load;
            }
            Err(why) => self.bury(message, value, received, why, now),
        }
        delivery
    }

    fn error(&mut self, error: &ClientError, now: Duration) {
        match error {
            ClientError::PartitionEOF(id) => {
                let wall = self.shared.surroundings.clock.wall();
                if let Some(part) = self.parts.get_mut(id) {
                    part.is_at_end = true;
                    part.tell_end(wall);
                }
            }
            ClientError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.is_in_doubt = true,
            ClientError::MessageConsumption(RDKafkaErrorCode::BadCompression) => self.is_packed = true,
            // Who cannot be reached is read from the statistics, by partition.
            ClientError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {}
            ClientError::MessageConsumptionFatal(_) => {
                self.say(News::Client(error.to_string()), now);
                self.rebuild(now);
            }
            _ => self.say(News::Client(error.to_string()), now),
        }
    }

    /// What the newest snapshot holds and was not committed.
    fn to_commit(&self) -> Vec<(i32, u64)> {
        self.parts.iter().filter_map(|(id, part)| Some((*id, part.to_commit()?))).collect()
    }

    fn committed(&mut self, committed: Result<Vec<(i32, u64)>, String>) {
        self.is_committing = false;
        match committed {
            Ok(offsets) => {
                count(&self.shared.counters.commits, offsets.len() as u64);
                for (id, offset) in offsets {
                    if let Some(part) = self.parts.get_mut(&id) {
                        part.committed = offset;
                    }
                }
            }
            Err(why) => self.commit_failed(why),
        }
    }

    fn commit_failed(&mut self, why: String) {
        count(&self.shared.counters.failed_commits, 1);
        let now = self.now();
        self.say(News::CommitFailed(why), now);
    }

    fn say(&mut self, news: News, now: Duration) {
        self.say_about(None, news, now);
    }

    /// Tells people, at most once a minute of each kind. What is lost is always told.
    fn say_about(&mut self, about: Option<String>, news: News, now: Duration) {
        let said = &mut self.said[news.kind()];
        if !news.is_loss() && said.at.is_some_and(|at| now < at + SAY_EVERY) {
            said.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(said).unsaid;
        said.at = Some(now);
        let about = about.unwrap_or_else(|| format!("{}/{}", self.shared.name, self.topic));
        (self.shared.surroundings.notices)(Notice { about, news, unsaid });
    }
}
