//! Settings of librdkafka's clients, and what a consumer calls back with.
//!
//! Each value that differs from librdkafka's own has its reason beside it.

use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, KafkaResult};
use relight_core::responder::Secrets;
use relight_core::source::kafka::Kafka;

use super::KafkaError;
use super::health::Statistics;

/// A consumer with relight's callbacks.
pub(super) type Consumer = BaseConsumer<Context>;

/// What every client of a source has: brokers, encryption, login.
pub(super) fn config(name: &str, settings: &Kafka, secrets: &Secrets) -> Result<ClientConfig, KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings.brokers.join(","));
    config.set("client.id", &settings.client_id);
    config.set("group.id", &settings.group);
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        // "probe" finds the machine's authorities: a vendored OpenSSL knows no folder of its own.
        config.set("ssl.ca.location", tls.ca_file.as_deref().unwrap_or("probe"));
        if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
            config.set("ssl.certificate.location", cert).set("ssl.key.location", key);
        }
    }
    if let Some(sasl) = &settings.sasl {
        let secret = secrets.get(&sasl.password).ok_or_else(|| KafkaError::Secret {
            source_name: name.to_owned(),
            secret: sasl.password.clone(),
        })?;
        config.set("sasl.mechanism", sasl.mechanism.name());
        config.set("sasl.username", &sasl.username).set("sasl.password", secret.reveal());
    }
    let fetch = &settings.fetch;
    config.set("queued.max.messages.kbytes", fetch.queued_kbytes.to_string());
    config.set("queued.min.messages", fetch.queued_records.to_string());
    config.set("fetch.queue.backoff.ms", fetch.queue_backoff_ms.to_string());
    Ok(config)
}

/// Bytes of one answer, and of one batch of records unpacked: above any record that is taken (64 MiB at most).
pub(super) const MOST_AT_ONCE: usize = 100_000_000;

/// What a reader of topics has beyond that.
pub(super) fn consumer(config: &ClientConfig) -> KafkaResult<Consumer> {
    let mut config = config.clone();
    config
        // Records of aborted transactions never happened.
        .set("isolation.level", "read_committed")
        // Only what a snapshot holds is committed.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // librdkafka's own answer to an offset that is gone is the end of the partition, without a word.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        // One answer holds at most this much (of a first batch that is larger, all of it): with the queue it
        // bounds what a reader holds. 50 MiB are the client's own.
        .set("fetch.max.bytes", (16 << 20).to_string())
        // No answer is larger, and no zstd batch unpacks to more. (Of gzip, lz4 and snappy librdkafka unpacks what a
        // batch says; they have no limit of its own.)
        .set("receive.message.max.bytes", MOST_AT_ONCE.to_string())
        // Health is read from the statistics, so they are the reader's pulse.
        .set("statistics.interval.ms", super::health::PULSE_MS.to_string())
        // A partition that goes on waits for the fetch that is on its way for the others.
        .set("fetch.wait.max.ms", "50")
        // A connection that is open at one end only is given up after this, not after the client's minute.
        .set("socket.timeout.ms", "15000")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "2000");
    config.set_log_level(RDKafkaLogLevel::Error);
    config.create_with_context(Context::default())
}

/// Keeps what a consumer calls back with until its reader looks: all of it happens inside `poll`.
#[derive(Default)]
pub(super) struct Context {
    statistics: Mutex<Option<Statistics>>,
    complaints: Mutex<Vec<String>>,
}

/// Complaints that are kept between two looks.
const MAX_COMPLAINTS: usize = 16;

impl Context {
    pub(super) fn take_statistics(&self) -> Option<Statistics> {
        lock(&self.statistics).take()
    }

    pub(super) fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.complaints))
    }
}

/// What is kept here is replaced as a whole, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn stats_raw(&self, json: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice(json) {
            *lock(&self.statistics) = Some(statistics);
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        let mut complaints = lock(&self.complaints);
        // The end of a partition comes as an error too, and is none.
        let is_end = error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::PartitionEOF);
        if !is_end && complaints.len() < MAX_COMPLAINTS {
            complaints.push(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {}
