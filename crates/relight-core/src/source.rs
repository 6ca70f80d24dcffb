//! Where live data comes from: the settings of each kind of source, as plain data.
//!
//! Nothing is opened or looked up here: the ingest crate does that, with secrets that the config resolved.

pub mod kafka;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One source: its name, and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// Its name: the partition of a listener, and the first part of a reader's partitions.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// Listens for OTLP.
    Otlp(Otlp),
    /// Listens for Prometheus' remote write, versions 1 and 2.
    PrometheusRemoteWrite(RemoteWrite),
    /// Listens for the webhook of Alertmanager or of Grafana's alerting.
    Alertmanager(Alertmanager),
}

impl SourceKind {
    /// The `type` of each kind, in the order of the enumeration.
    pub const TYPES: [&'static str; 3] = ["otlp", "prometheus_remote_write", "alertmanager"];

    /// Its `type` in a config.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Otlp(_) => Self::TYPES[0],
            Self::PrometheusRemoteWrite(_) => Self::TYPES[1],
            Self::Alertmanager(_) => Self::TYPES[2],
        }
    }

    /// The addresses it listens on, each with the key that sets it.
    pub fn listens(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = match self {
            Self::Otlp(otlp) => vec![("grpc", otlp.grpc), ("http", otlp.http)],
            Self::PrometheusRemoteWrite(write) => vec![("listen", Listen::At(write.listen.0))],
            Self::Alertmanager(alerts) => vec![("listen", Listen::At(alerts.listen.0))],
        };
        all.into_iter().filter_map(|(key, listen)| Some((key, listen.address()?))).collect()
    }

    /// Who may connect, of a kind that listens.
    pub const fn access(&self) -> (&Option<Tls>, &Vec<String>) {
        match self {
            Self::Otlp(otlp) => (&otlp.tls, &otlp.bearer),
            Self::PrometheusRemoteWrite(write) => (&write.tls, &write.bearer),
            Self::Alertmanager(alerts) => (&alerts.tls, &alerts.bearer),
        }
    }

    /// Whether it keeps a journal.
    pub const fn journal(&self) -> Journalling {
        match self {
            Self::Otlp(otlp) => otlp.journal,
            Self::PrometheusRemoteWrite(write) => write.journal,
            Self::Alertmanager(alerts) => alerts.journal,
        }
    }

    /// How much it takes, of a kind that listens.
    pub const fn limits(&self) -> &Limits {
        match self {
            Self::Otlp(otlp) => &otlp.limits,
            Self::PrometheusRemoteWrite(write) => &write.limits,
            Self::Alertmanager(alerts) => &alerts.limits,
        }
    }

    /// The same, for whoever has less to give than it asks for.
    pub const fn limits_mut(&mut self) -> &mut Limits {
        match self {
            Self::Otlp(otlp) => &mut otlp.limits,
            Self::PrometheusRemoteWrite(write) => &mut write.limits,
            Self::Alertmanager(alerts) => &mut alerts.limits,
        }
    }
}

/// OpenTelemetry: metrics become points, log records become events, spans are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Where to listen for OTLP/gRPC: `ADDRESS:PORT`, or `off`.
    pub grpc: Listen,
    /// Where to listen for OTLP/HTTP, protobuf and JSON, and for change events (`POST /v1/events`, CloudEvents
    /// 1.0): `ADDRESS:PORT`, or `off`.
    pub http: Listen,
    /// Encryption. An address beyond this machine needs it, with `bearer` or `client_ca_file`.
    pub tls: Option<Tls>,
    /// Names of secrets: a sender must present one of them as its bearer token.
    pub bearer: Vec<String>,
    /// How much is taken.
    pub limits: Limits,
    /// Whether what is answered with success is on the disk by then.
    pub journal: Journalling,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            grpc: Listen::local(4317),
            http: Listen::local(4318),
            tls: None,
            bearer: Vec::new(),
            limits: Limits::default(),
            journal: Journalling::default(),
        }
    }
}

/// Prometheus' remote write, versions 1 and 2: what an existing Prometheus already sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteWrite {
    /// Where to listen: `ADDRESS:PORT`.
    pub listen: Address,
    /// The path that senders post to.
    pub path: String,
    /// Encryption. An address beyond this machine needs it, with `bearer` or `client_ca_file`.
    pub tls: Option<Tls>,
    /// Names of secrets: a sender must present one of them as its bearer token.
    pub bearer: Vec<String>,
    /// How much is taken.
    pub limits: Limits,
    /// Whether what is answered with success is on the disk by then.
    pub journal: Journalling,
}

impl Default for RemoteWrite {
    fn default() -> Self {
        Self {
            listen: Address::local(9201),
            path: "/api/v1/write".to_owned(),
            tls: None,
            bearer: Vec::new(),
            limits: Limits::default(),
            journal: Journalling::default(),
        }
    }
}

/// The webhook of Alertmanager or of Grafana's alerting: each alert is an event of kind `alert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Alertmanager {
    /// Where to listen: `ADDRESS:PORT`.
    pub listen: Address,
    /// The path that Alertmanager posts to.
    pub path: String,
    /// Encryption. An address beyond this machine needs it, with `bearer` or `client_ca_file`.
    pub tls: Option<Tls>,
    /// Names of secrets: a sender must present one of them as its bearer token.
    pub bearer: Vec<String>,
    /// How much is taken.
    pub limits: Limits,
    /// Whether what is answered with success is on the disk by then.
    pub journal: Journalling,
}

impl Default for Alertmanager {
    fn default() -> Self {
        Self {
            listen: Address::local(9202),
            path: "/alerts".to_owned(),
            tls: None,
            bearer: Vec::new(),
            limits: Limits::default(),
            journal: Journalling::default(),
        }
    }
}

/// Files in PEM form, read at the start and, for new connections, at each reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The listener's certificate and what it is signed with.
    pub cert_file: String,
    /// Its private key.
    pub key_file: String,
    /// Only senders with a certificate of one of these authorities are let in.
    pub client_ca_file: Option<String>,
}

/// Whether a listener's requests are written to the disk before they are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Journalling {
    /// A kill loses what came since the last snapshot; that is counted and told as a gap.
    #[default]
    Off,
    /// Requests are fsynced together and then answered: a kill loses nothing that was answered with success.
    Fsync,
}

/// How much a listener takes. What is beyond is refused and counted; nothing that was taken suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request as sent.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub max_wire_bytes: usize,
    /// Bytes of one request after it is unpacked.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub max_inflated_bytes: usize,
    /// Bytes of all requests that are being read.
    #[schemars(range(min = 1024))]
    pub max_reading_bytes: usize,
    /// Bytes of all requests that wait for the engine.
    #[schemars(range(min = 1024))]
    pub max_waiting_bytes: usize,
    /// Requests at a time.
    #[schemars(range(min = 1))]
    pub max_requests: usize,
    /// Connections at a time, to each address that is listened on.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// Connections at a time from one address.
    #[schemars(range(min = 1))]
    pub max_connections_per_ip: usize,
    /// Bytes of the journal on disk. It holds what came since the snapshot before the last; senders are told to
    /// come again while it is full.
    #[schemars(range(min = 1_048_576))]
    pub max_journal_bytes: u64,
    /// Series that this source may bring, so that the others find room in the table when it floods; left out, it may
    /// fill all of `max_series`.
    #[schemars(range(min = 1))]
    pub max_series: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_wire_bytes: 16 << 20,
            max_inflated_bytes: 64 << 20,
            // Four of the largest requests unpacked side by side.
            max_reading_bytes: 256 << 20,
            max_waiting_bytes: 128 << 20,
            max_requests: 256,
            max_connections: 1_024,
            max_connections_per_ip: 64,
            max_journal_bytes: 1 << 30,
            max_series: None,
        }
    }
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nobody listens.
    Off,
    /// Somebody listens here.
    At(SocketAddr),
}

impl Address {
    /// A port of this machine that no other machine can reach.
    pub const fn local(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl Listen {
    /// A port of this machine that no other machine can reach.
    pub const fn local(port: u16) -> Self {
        Self::At(Address::local(port).0)
    }

    /// The address, if there is one.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |port: &str| port.parse::<u16>().ok();
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Ok(Self::local(port));
        }
        if let Some(port) = text.strip_prefix(':').and_then(port) {
            return Err(format!(
                "`{text}` names no address: write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all of this machine's"
            ));
        }
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is no address with a port, such as `127.0.0.1:4317` or `[::1]:4317`")
        })
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(|Address(at)| Self::At(at)) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// What is written as its text in a config.
macro_rules! as_text {
    ($type:ty, $name:literal, $means:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $means })
            }
        }
    };
}

as_text!(Address, "Address", "an address with a port, such as 127.0.0.1:9201");
as_text!(Listen, "Listen", "an address with a port, such as 127.0.0.1:4317, or `off`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["127.0.0.1:4317", "[::1]:0", "0.0.0.0:65535", "off"] {
            assert_eq!(text.parse::<Listen>().map(|listen| listen.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("localhost:1".parse(), Ok(Address::local(1)));
        for (text, hint) in [
            (":4317", "write `127.0.0.1:4317`"),
            ("127.0.0.1", "is no address with a port"),
            ("http://127.0.0.1:1", "is no address with a port"),
            ("", "is no address with a port"),
        ] {
            let error = text.parse::<Listen>().expect_err(text);
            assert!(error.contains(hint), "{error}");
        }
    }
}
