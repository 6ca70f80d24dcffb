//! Settings of the Kafka source: which topics, how their records are read, and where it starts.
//!
//! Plain data: no client, no secret (only their names) and no clock.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reads topics of a Kafka cluster. Offsets live in relight's own state; those of the group only advise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Brokers to start from, as `HOST:PORT`; the others are learned from them.
    pub brokers: Vec<String>,
    /// What is read.
    pub topics: Vec<Topic>,
    /// Where to start in a partition that neither relight's state nor the group knows.
    pub start: Start,
    /// Consumer group under which offsets are committed, for people and their lag exporters.
    pub group: String,
    /// Name of this client at the brokers. It must differ between the members of a hot standby.
    pub client_id: String,
    /// Encryption. Left out: none.
    pub tls: Option<Tls>,
    /// Login. Left out: none.
    pub sasl: Option<Sasl>,
    /// Where records go that cannot be read. Left out: a file beside relight's state.
    pub dead_letter: Option<DeadLetter>,
    /// How much is fetched ahead.
    pub fetch: Fetch,
    /// Series that this source may bring, so that the others find room in the table when it floods; left out, it may
    /// fill all of the table's `max_series`.
    #[schemars(range(min = 1))]
    pub max_series: Option<usize>,
    /// The lock of a hot standby: only who holds it lets effects out and commits offsets. Left out: no standby.
    pub lock: Option<Lock>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            topics: Vec::new(),
            start: Start::default(),
            group: "relight".to_owned(),
            client_id: "relight".to_owned(),
            tls: None,
            sasl: None,
            dead_letter: None,
            fetch: Fetch::default(),
            max_series: None,
            lock: None,
        }
    }
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// How its records are written.
    pub format: Format,
    /// Where a record of format `json` has what.
    pub mapping: Option<Mapping>,
}

/// How a record's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OTLP metrics in protobuf: an export request, as the OpenTelemetry Collector's Kafka exporter writes it.
    OtlpProto,
    /// OTLP in JSON: an export request of metrics or of logs.
    OtlpJson,
    /// JSON objects, or lists of them, read by `mapping`: each is a point.
    Json,
    /// CloudEvents 1.0, structured or binary: each is an event.
    Cloudevents,
}

/// Where to start in a partition that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest record: learns from what the topic kept.
    Earliest,
    /// At what comes from now on: what a new monitor wants. A partition that is added to a topic which relight
    /// reads already starts at its oldest record all the same, so that nothing is missed.
    #[default]
    Latest,
}

/// Where a JSON object has what. A path is the keys on the way, with dots between them: `tags.host`. A key that
/// holds a dot itself is found too, if the whole path is one key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The metric's name, the same for every record.
    pub metric: Option<String>,
    /// Path of the metric's name.
    pub metric_field: Option<String>,
    /// Path of the value: a number, or a string that holds one.
    pub value_field: String,
    /// Path of the time. Left out: the time of the Kafka record.
    pub time_field: Option<String>,
    /// Unit of a time that is a number. Left out: told by its size.
    pub time_unit: Option<TimeUnit>,
    /// Labels by name, each with the path of its value. A path that is not there gives no label.
    pub labels: BTreeMap<String, String>,
    /// Path of an object of which every scalar member is a label.
    pub labels_field: Option<String>,
    /// How values are meant.
    pub kind: PointKind,
}

/// Unit of a number that is a time since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    /// Nanoseconds in one.
    pub const fn ns(self) -> i64 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }
}

/// How the values of a mapping are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    /// The value now.
    #[default]
    Gauge,
    /// A sum that only grows.
    Cumulative,
    /// An increase since the point before.
    Delta,
}

/// Files in PEM form. A reload does not read them: other ones need a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Authorities that the brokers' certificates are checked against. Left out: the machine's.
    pub ca_file: Option<String>,
    /// relight's own certificate, where brokers ask for one.
    pub cert_file: Option<String>,
    /// Its private key.
    pub key_file: Option<String>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How relight proves who it is.
    pub mechanism: Mechanism,
    /// Its name.
    pub username: String,
    /// Name of the secret that is its password. Another password needs a restart.
    pub password: String,
}

/// How a login proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// By sending the password: only with `tls`.
    #[serde(rename = "PLAIN")]
    Plain,
    /// By a salted challenge over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By a salted challenge over SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// Its name in the protocol and in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Where records go that cannot be read: one of both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// A topic of the same cluster; the record as it was, with the reason in its headers.
    pub topic: Option<String>,
    /// A file: one JSON object a line, the record in base64.
    pub file: Option<String>,
}

/// How much is fetched ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// Kilobytes of records fetched and not yet taken, for each topic.
    #[schemars(range(min = 1024, max = 2_097_151))]
    pub queued_kbytes: u32,
    /// Records that are kept ready in each partition.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub queued_records: u32,
    /// Milliseconds until a full queue is looked at again. The client's own 1,000 stops a fast reader for a second.
    #[schemars(range(min = 0, max = 10_000))]
    pub queue_backoff_ms: u32,
    /// Bytes of records that have been handed to the engine and wait for it, for all topics.
    #[schemars(range(min = 1_048_576))]
    pub max_waiting_bytes: usize,
    /// Bytes of one record; a larger one is a dead letter.
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_record_bytes: usize,
}

impl Default for Fetch {
    fn default() -> Self {
        // Measured on one broker: a backoff of 1,000 ms gives 0.38 M records/s, one of 10 ms 1.47 M. Queues of this
        // size then cost 8 % of the rate, and take 26 MiB where the client's own take 66.
        Self {
            queued_kbytes: 8_192,
            queued_records: 20_000,
            queue_backoff_ms: 10,
            max_waiting_bytes: 128 << 20,
            max_record_bytes: 64 << 20,
        }
    }
}

/// The lock of a hot standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// A topic of exactly one partition, that nothing is written to.
    pub topic: String,
    /// The group whose one member with an assignment holds the lock. Not the `group` of the offsets.
    pub group: String,
}

impl Kafka {
    /// What is wrong with these settings: the key within the source, and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut problem = |key: &str, why: &str| found.push((key.to_owned(), why.to_owned()));
        if self.brokers.is_empty() || self.brokers.iter().any(|broker| !is_broker(broker)) {
            problem("brokers", "give at least one, each as `HOST:PORT`");
        }
        if self.topics.is_empty() {
            problem("topics", "no topic to read");
        }
        if self.group.is_empty() {
            problem("group", "is empty");
        }
        if let Some(tls) = &self.tls
            && tls.cert_file.is_some() != tls.key_file.is_some()
        {
            problem("tls", "`cert_file` and `key_file` go together");
        }
        if let (Some(Sasl { mechanism: Mechanism::Plain, .. }), None) = (&self.sasl, &self.tls) {
            problem(
                "sasl.mechanism",
                "PLAIN shows the password to the network: add `tls`, or use SCRAM-SHA-512",
            );
        }
        if let Some(letter) = &self.dead_letter
            && letter.topic.is_some() == letter.file.is_some()
        {
            problem("dead_letter", "give one of `topic` and `file`");
        }
        if self.lock.as_ref().is_some_and(|lock| lock.group == self.group) {
            problem("lock.group", "must differ from `group`");
        }
        let mut names = BTreeSet::new();
        for (i, topic) in self.topics.iter().enumerate() {
            let own = topic.problems().into_iter().map(|(key, why)| (format!("topics[{i}].{key}"), why));
            found.extend(own);
            let taken = self.dead_letter.as_ref().and_then(|letter| letter.topic.as_ref())
                == Some(&topic.topic)
                || self.lock.as_ref().is_some_and(|lock| lock.topic == topic.topic);
            if taken || !names.insert(&topic.topic) {
                found.push((format!("topics[{i}].topic"), format!("`{}` is used twice", topic.topic)));
            }
        }
        found
    }
}

fn is_broker(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !text.contains(',') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl Topic {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.topic.is_empty() {
            found.push(("topic", "is empty".to_owned()));
        }
        match (&self.mapping, self.format) {
            (None, Format::Json) => {
                found.push(("mapping", "format `json` needs it: where each record has what".to_owned()));
            }
            (Some(_), format) if format != Format::Json => {
                found.push(("mapping", "is for format `json` only".to_owned()));
            }
            (Some(mapping), _) => {
                if mapping.metric.is_some() == mapping.metric_field.is_some() {
                    found.push(("mapping", "give one of `metric` and `metric_field`".to_owned()));
                }
                if mapping.value_field.is_empty() {
                    found.push(("mapping.value_field", "is missing".to_owned()));
                }
            }
            _ => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[&str]) {
        let settings: Kafka = serde_json::from_str(json).expect("settings of the right shape");
        let keys: Vec<String> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, expected, "{json}");
    }

    /// Scenario: settings that are whole, and settings with one thing wrong in each.
    /// Guarantee: what is wrong is named by its key.
    #[test]
    fn problems_are_named() {
        let otlp = r#""topics":[{"topic":"t","format":"otlp_proto"}]"#;
        check(&format!("{{{otlp}}}"), &[]);
        check("{}", &["topics"]);
        for (more, key) in [
            (r#""brokers":[]"#, "brokers"),
            (r#""brokers":["kafka"]"#, "brokers"),
            (r#""brokers":["a:1,b:2"]"#, "brokers"),
            (r#""group":"""#, "group"),
            (r#""tls":{"cert_file":"x"}"#, "tls"),
            (r#""sasl":{"mechanism":"PLAIN","username":"u","password":"p"}"#, "sasl.mechanism"),
            (r#""dead_letter":{}"#, "dead_letter"),
            (r#""dead_letter":{"topic":"d","file":"f"}"#, "dead_letter"),
            (r#""dead_letter":{"topic":"t"}"#, "topics[0].topic"),
            (r#""lock":{"topic":"l","group":"relight"}"#, "lock.group"),
        ] {
            check(&format!("{{{otlp},{more}}}"), &[key]);
        }
        for (topic, key) in [
            (r#"{"topic":"t","format":"json"}"#, "mapping"),
            (r#"{"topic":"t","format":"otlp_json","mapping":{}}"#, "mapping"),
            (r#"{"topic":"t","format":"json","mapping":{"value_field":"v"}}"#, "mapping"),
            (r#"{"topic":"t","format":"json","mapping":{"metric":"m"}}"#, "mapping.value_field"),
        ] {
            check(&format!(r#"{{"topics":[{topic}]}}"#), &[&format!("topics[0].{key}")]);
        }
        assert!(serde_json::from_str::<Kafka>(r#"{"topcis":[]}"#).is_err());
    }
}
