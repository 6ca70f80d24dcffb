//! Dead letters in a topic: the record as it was, with where it came from and why it is here in its headers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::Letter;

/// How long a broker may take to acknowledge a letter.
const WITHIN: Duration = Duration::from_secs(10);

/// A topic of letters.
pub(super) struct LetterTopic {
    topic: String,
    producer: BaseProducer<Receipts>,
}

/// Which letters of a batch were acknowledged, and the last reason why one was not.
#[derive(Default)]
struct Receipts(Mutex<(usize, Option<String>)>);

impl Receipts {
    fn take(&self) -> (usize, Option<String>) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Receipts {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: ClientError, _: &str) {}
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut receipts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => receipts.0 += 1,
            Err((error, _)) => receipts.1 = Some(error.to_string()),
        }
    }
}

impl LetterTopic {
    pub(super) fn new(topic: &str, config: &ClientConfig) -> Result<Self, String> {
        let mut config = config.clone();
        for of_consumers in
            ["group.id", "queued.max.messages.kbytes", "queued.min.messages", "fetch.queue.backoff.ms"]
        {
            config.remove(of_consumers);
        }
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "zstd")
            .set("message.timeout.ms", WITHIN.as_millis().to_string());
        config.set_log_level(RDKafkaLogLevel::Error);
        let producer = config.create_with_context(Receipts::default()).map_err(|error| error.to_string())?;
        Ok(Self { topic: topic.to_owned(), producer })
    }

    /// Writes letters and waits until all replicas have them. After an error a letter may be there twice.
    pub(super) fn write(&self, letters: &[Letter]) -> Result<(), String> {
        self.producer.context().take();
        for letter in letters {
            self.send(letter)?;
        }
        // A letter that is not acknowledged in time fails by itself, just before.
        let flushed = self.producer.flush(WITHIN + Duration::from_secs(1));
        match (self.producer.context().take(), flushed) {
            ((n, None), Ok(())) if n == letters.len() => Ok(()),
            ((_, Some(why)), _) => Err(why),
            (_, Err(error)) => Err(error.to_string()),
            ((n, None), Ok(())) => Err(format!("{n} of {} letters were acknowledged", letters.len())),
        }
    }

    fn send(&self, letter: &Letter) -> Result<(), String> {
        let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
        let bytes = letter.value.len().to_string();
        let mut headers = OwnedHeaders::new();
        for (key, value) in [
            ("relight.topic", &*letter.topic),
            ("relight.partition", &partition),
            ("relight.offset", &offset),
            ("relight.reason", letter.why()),
            ("relight.bytes", &bytes),
        ] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let record = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(letter.kept()).headers(headers);
        let record = match letter.kept_key() {
            Some(key) => record.key(key),
            None => record,
        };
        self.producer.send(record).map_err(|(error, _)| error.to_string())
    }
}
