//! Questions to the brokers that take their time, asked beside the thread that polls.
//!
//! Each is one short thread that ends with an answer. Nothing is opened or assigned here; commits are here because
//! they are waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Consumer;
use super::reader::Order;

/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(10);

/// What is asked.
pub(super) enum Question {
    /// Which partitions the topic has, and of those that the state does not know, what the group and the brokers do.
    Topic {
        /// Partitions that are read already.
        read: BTreeSet<i32>,
        /// Whether the state knows a partition.
        is_known: Box<dyn Fn(i32) -> bool + Send>,
    },
    /// The oldest offset and the end of partitions.
    Bounds(Vec<i32>),
    /// To commit the offsets of partitions. librdkafka tells how a commit ended only to who waits for it: rdkafka
    /// 0.39 sets no callback for it.
    Commit(Vec<(i32, u64)>),
}

/// The answer.
pub(super) enum Finding {
    /// Partitions that are not read yet.
    Topic(Result<Vec<Found>, String>),
    /// Of each partition that could be asked for its oldest offset and its end; and whether that was all of them.
    Bounds(Vec<(i32, (u64, u64))>, bool),
    /// The offsets that were committed.
    Committed(Result<Vec<(i32, u64)>, String>),
}

/// A partition that is not read yet.
pub(super) struct Found {
    pub(super) partition: i32,
    pub(super) committed: Option<u64>,
    pub(super) bounds: Option<(u64, u64)>,
}

/// Asks, on a thread of its own. Returns whether there is one.
pub(super) fn ask(client: Arc<Consumer>, topic: Arc<str>, question: Question, answer: Sender<Order>) -> bool {
    let ask = move || {
        let finding = match question {
            Question::Topic { read, is_known } => {
                Finding::Topic(partitions(&client, &topic, &read, &*is_known))
            }
            Question::Bounds(partitions) => {
                let found: Vec<_> = partitions
                    .iter()
                    .filter_map(|partition| Some((*partition, bounds(&client, &topic, *partition).ok()?)))
                    .collect();
                let is_all = found.len() == partitions.len();
                Finding::Bounds(found, is_all)
            }
            Question::Commit(offsets) => {
                Finding::Committed(commit(&client, &topic, &offsets).map(|()| offsets))
            }
        };
        // The client goes first: the reader may be waiting to be the last who has it.
        drop(client);
        let _ = answer.send(Order::Found(finding));
    };
    std::thread::Builder::new().name("kafka-scout".to_owned()).spawn(ask).is_ok()
}

fn partitions(
    client: &Consumer,
    topic: &str,
    read: &BTreeSet<i32>,
    is_known: &dyn Fn(i32) -> bool,
) -> Result<Vec<Found>, String> {
    let metadata = client.fetch_metadata(Some(topic), WITHIN).map_err(|error| error.to_string())?;
    let found =
        metadata.topics().iter().find(|found| found.name() == topic).ok_or("the brokers do not name it")?;
    if let Some(error) = found.error() {
        return Err(RDKafkaErrorCode::from(error).to_string());
    }
    let new: Vec<i32> = found
        .partitions()
        .iter()
        .map(rdkafka::metadata::MetadataPartition::id)
        .filter(|id| !read.contains(id))
        .collect();
    if new.is_empty() && read.is_empty() {
        return Err("it has no partitions".to_owned());
    }
    let unknown: Vec<i32> = new.iter().copied().filter(|id| !is_known(*id)).collect();
    let mut committed_for = committed(client, topic, &unknown)?;
    // Of those that the state knows only to be told where the group thinks otherwise: nobody waits for that.
    let known: Vec<i32> = new.iter().copied().filter(|id| is_known(*id)).collect();
    committed_for.extend(committed(client, topic, &known).unwrap_or_default());
    let of_new = new.into_iter().map(|partition| Found {
        partition,
        committed: committed_for.iter().find(|(id, _)| *id == partition).map(|(_, offset)| *offset),
        bounds: if unknown.contains(&partition) { bounds(client, topic, partition).ok() } else { None },
    });
    Ok(of_new.collect())
}

/// Commits offsets, and waits for the answer.
pub(super) fn commit(client: &Consumer, topic: &str, offsets: &[(i32, u64)]) -> Result<(), String> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
        list.add_partition_offset(topic, *partition, offset).map_err(|error| error.to_string())?;
    }
    client.commit(&list, CommitMode::Sync).map_err(|error| error.to_string())
}

/// What the group committed. A group that may not be read has committed nothing: it only advises.
fn committed(client: &Consumer, topic: &str, partitions: &[i32]) -> Result<Vec<(i32, u64)>, String> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let list = match client.committed_offsets(list, WITHIN) {
        Err(ClientError::MetadataFetch(RDKafkaErrorCode::GroupAuthorizationFailed)) => return Ok(Vec::new()),
        answer => answer.map_err(|error| error.to_string())?,
    };
    let elements = list.elements();
    let each = elements.iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), u64::try_from(offset).ok()?)),
        _ => None,
    });
    Ok(each.collect())
}

fn bounds(client: &Consumer, topic: &str, partition: i32) -> Result<(u64, u64), String> {
    let (low, high) = client.fetch_watermarks(topic, partition, WITHIN).map_err(|error| error.to_string())?;
    let offset = |raw: i64| u64::try_from(raw).map_err(|_| "no offset".to_owned());
    Ok((offset(low)?, offset(high)?))
}
