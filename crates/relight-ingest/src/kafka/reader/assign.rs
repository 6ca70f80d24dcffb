//! Which partitions are read, and from where: found, assigned, paused, put right after a loss, moved to a new client.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::bounds::{self, From, Known, Loss};
use super::super::dead_letter::Unwritten;
use super::super::partition::Part;
use super::super::scout::{self, Found, Question};
use super::super::{News, client, count};
use super::Reader;
use crate::live::Reads;

/// How often a topic is looked up for new partitions.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How soon it is looked up again after that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Reader {
    /// Opens the partitions that the state knows before a broker was asked, so that the engine waits for them even
    /// where none can be reached.
    pub(super) fn open_known(&mut self) {
        let (hub, name) = (self.shared.surroundings.hub.clone(), self.shared.name.clone());
        let mut id = 0;
        while let (generation, Some(next)) = bounds::known(&hub, &name, &self.topic, id) {
            let mut part = self.open(id, generation);
            part.next = Some(next);
            self.parts.insert(id, part);
            id += 1;
        }
    }

    fn open(&self, id: i32, generation: u32) -> Part {
        let name = bounds::name(&self.shared.name, &self.topic, id, generation);
        let inlet = self.shared.surroundings.hub.open(&name, Reads::Pull, &self.shared.budget);
        Part::new(inlet, generation, Unwritten::default())
    }

    /// Has the scout look up the topic, or the bounds of its partitions if one of them is in doubt.
    pub(super) fn look(&mut self, now: Duration) {
        let is_due = now >= self.next_look;
        if self.is_scouting || !(is_due || self.is_in_doubt) {
            return;
        }
        let assigned = self.parts.iter().filter(|(_, part)| part.is_assigned).map(|(id, _)| *id);
        let question = if self.is_in_doubt {
            Question::Bounds(assigned.collect())
        } else {
            let read = assigned.collect();
            let (hub, name, topic) =
                (self.shared.surroundings.hub.clone(), self.shared.name.clone(), Arc::clone(&self.topic));
            let is_known = move |id| bounds::known(&hub, &name, &topic, id).1.is_some();
            self.next_look = now + LOOK_EVERY;
            Question::Topic { read, is_known: Box::new(is_known) }
        };
        self.is_scouting = self.ask(question);
    }

    pub(super) fn ask(&self, question: Question) -> bool {
        scout::ask(Arc::clone(&self.client), Arc::clone(&self.topic), question, self.own.clone())
    }

    /// Takes up partitions that are not read yet.
    pub(super) fn found(&mut self, found: Result<Vec<Found>, String>) {
        self.is_scouting = false;
        let now = self.now();
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                self.next_look = now + LOOK_AGAIN;
                return self.say(News::NoTopic(why), now);
            }
        };
        let is_added = self.parts.values().any(|part| part.is_assigned || part.next.is_some());
        let mut places = Vec::new();
        for Found { partition, committed, bounds } in found {
            let hub = &self.shared.surroundings.hub;
            let (generation, state) = bounds::known(hub, &self.shared.name, &self.topic, partition);
            // The state's offset wins over the group's.
            let begins = committed.filter(|_| state.is_none());
            let from = bounds::start(Known { state, committed: begins, bounds, is_added }, self.shared.start);
            let mut part = self.parts.remove(&partition).unwrap_or_else(|| self.open(partition, generation));
            let next = if let From::Offset(next) = from { Some(next) } else { None };
            part.begin(next, begins, state.is_some());
            let about = part.inlet.partition().to_owned();
            self.parts.insert(partition, part);
            places.push((partition, from));
            if let (Some(next), Some(committed)) = (state.filter(|next| committed != Some(*next)), committed)
            {
                self.say_about(Some(about), News::Elsewhere { committed, next }, now);
            }
        }
        // All are open: time may go on with them.
        self.looking = None;
        self.assign(&places);
    }

    /// Reads partitions from these places on.
    fn assign(&mut self, places: &[(i32, From)]) {
        if places.is_empty() {
            return;
        }
        let assigned = self.list(places).and_then(|list| self.client.incremental_assign(&list));
        if let Err(error) = assigned {
            for (id, _) in places {
                if let Some(part) = self.parts.get_mut(id) {
                    part.is_assigned = false;
                }
            }
            let now = self.now();
            self.next_look = now + LOOK_AGAIN;
            self.say(News::Client(error.to_string()), now);
        }
    }

    fn list(&self, places: &[(i32, From)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (id, from) in places {
            let offset = match from {
                From::Offset(next) => Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX)),
                From::Oldest => Offset::Beginning,
                From::Next => Offset::End,
            };
            list.add_partition_offset(&self.topic, *id, offset)?;
        }
        Ok(list)
    }

    pub(super) fn pause(&mut self, id: i32, now: Duration) {
        let Some(part) = self.parts.get_mut(&id).filter(|part| part.paused.is_none()) else { return };
        part.paused = Some(now);
        count(&self.shared.counters.pauses, 1);
        // Not librdkafka's own `pause`: after its `resume` a broker without another fetch on its way sleeps for up to
        // a second. What was fetched ahead is thrown away in both.
        self.unassign(id, now);
    }

    fn unassign(&mut self, id: i32, now: Duration) {
        let removed = self.list(&[(id, From::Next)]).and_then(|list| self.client.incremental_unassign(&list));
        if let Err(error) = removed {
            self.say(News::Client(error.to_string()), now);
        }
    }

    /// A paused partition goes on after the last record that was taken.
    pub(super) fn go_on(&mut self, id: i32) {
        self.waiting.remove(&id);
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.paused = None;
        part.stalled = None;
        let from = part.next.map_or(From::Next, From::Offset);
        self.assign(&[(id, from)]);
    }

    /// Puts partitions right that no longer have what was to be read next.
    pub(super) fn settle(&mut self, found: &[(i32, (u64, u64))], is_all: bool) {
        self.is_scouting = false;
        self.is_in_doubt = !is_all;
        let now = self.now();
        for (id, bounds) in found {
            let Some(part) = self.parts.get(id) else { continue };
            let Some((next, loss)) = part.next.and_then(|next| Some((next, bounds::loss(next, *bounds)?)))
            else {
                continue;
            };
            let (about, generation) = (Some(part.inlet.partition().to_owned()), part.generation + 1);
            count(&self.shared.counters.gaps, 1);
            match loss {
                Loss::Gap { to } => {
                    count(&self.shared.counters.missed, to - next);
                    self.say_about(about, News::Gap { from: next, to }, now);
                    self.move_to(*id, to);
                }
                Loss::Recreated { oldest, end } => {
                    self.say_about(about, News::Recreated { next, end }, now);
                    // The old one ends here: its offsets mean nothing any more.
                    self.parts.remove(id);
                    let mut part = self.open(*id, generation);
                    part.begin(Some(oldest), None, false);
                    self.parts.insert(*id, part);
                    self.move_to(*id, oldest);
                }
            }
        }
    }

    /// Reads an assigned partition from another offset on. `seek` is refused where fetching has stopped.
    fn move_to(&mut self, id: i32, next: u64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.next = Some(next);
        part.is_at_end = false;
        if part.paused.take().is_none() {
            let now = self.now();
            self.unassign(id, now);
        }
        self.assign(&[(id, From::Offset(next))]);
    }

    /// Replaces the client by a new one that goes on where this one stands.
    pub(super) fn rebuild(&mut self, now: Duration) {
        let Ok(new) = client::consumer(&self.shared.config) else { return };
        let old = std::mem::replace(&mut self.client, Arc::new(new));
        // Closing it may hang. If there is no thread to be had it closes here.
        let _ = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(old));
        // Its commit may never end.
        self.is_committing = false;
        count(&self.shared.counters.rebuilds, 1);
        self.last_rebuild = Some(now);
        self.last_record = now;
        let mut places = Vec::new();
        for (id, part) in &mut self.parts {
            part.paused = None;
            part.is_at_end = false;
            part.stalled = None;
            if part.is_assigned {
                places.push((*id, part.next.map_or(From::Next, From::Offset)));
            }
        }
        self.assign(&places);
        self.say(News::Rebuilt, now);
    }
}
