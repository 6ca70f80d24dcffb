//! The `sources` section: what is listened on and who may send, and which Kafka topics are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relight_core::responder::Secrets;
use relight_core::rule::SourceBound;
use relight_core::source::kafka::Kafka;
use relight_core::source::{Address, Alertmanager, Listen, Otlp, RemoteWrite, SourceKind, SourceSpec};
use schemars::schema_for;
use serde_json::Value;

use crate::report::Report;
use crate::resolve::read;

/// The source of a config that names none.
const DEFAULT: &str = "otlp";
/// The type that reads and does not listen.
const KAFKA: &str = "kafka";
/// Keys that hold an address.
const ADDRESSES: [&str; 3] = ["grpc", "http", "listen"];

/// The schema of each type's own keys.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let schemas =
        [schema_for!(Otlp), schema_for!(RemoteWrite), schema_for!(Alertmanager), schema_for!(Kafka)];
    let types = SourceKind::TYPES.into_iter().chain([KAFKA]);
    types.zip(schemas.map(schemars::Schema::to_value)).collect()
}

/// Where live data comes from.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) listeners: Vec<SourceSpec>,
    pub(crate) kafka: BTreeMap<String, Kafka>,
}

impl Sources {
    /// By name, how many series each may bring.
    pub(crate) fn bounds(&self) -> Vec<SourceBound> {
        let listeners = self.listeners.iter().map(|spec| (&spec.name, spec.kind.limits().max_series));
        let kafka = self.kafka.iter().map(|(name, kafka)| (name, kafka.max_series));
        let all = listeners.chain(kafka);
        all.map(|(name, max_series)| SourceBound { name: name.clone(), max_series }).collect()
    }
}

/// Resolves the section; left out, OTLP is listened for on this machine.
pub(crate) fn sources(
    written: Option<BTreeMap<String, Value>>,
    secrets: &Secrets,
    report: &mut Report,
) -> Sources {
    let mut found = Sources::default();
    let Some(written) = written else {
        found
            .listeners
            .push(SourceSpec { name: DEFAULT.to_owned(), kind: SourceKind::Otlp(Otlp::default()) });
        return found;
    };
    let mut taken = BTreeMap::new();
    for (name, entry) in written {
        let path = format!("sources.{name}");
        if entry.get("type").is_some_and(|kind| kind == KAFKA) {
            let Some(kafka) = kafka(entry, &path, secrets, report) else { continue };
            if kafka.lock.is_some() && found.kafka.values().any(|other| other.lock.is_some()) {
                report.error(
                    &format!("{path}.lock"),
                    "another source has one already: relight acts or does not, as a whole",
                );
            }
            found.kafka.insert(name, kafka);
            continue;
        }
        let Some(kind) = kind(entry, &path, report) else {
            continue;
        };
        addresses(&kind, &path, &mut taken, report);
        access(&kind, &path, secrets, report);
        found.listeners.push(SourceSpec { name, kind });
    }
    found
}

fn kafka(entry: Value, path: &str, secrets: &Secrets, report: &mut Report) -> Option<Kafka> {
    let Value::Object(mut own) = entry else {
        return None;
    };
    own.remove("type");
    let kafka: Kafka = read(Value::Object(own), path, report)?;
    for (key, why) in kafka.problems() {
        let path = if key.is_empty() { path.to_owned() } else { format!("{path}.{key}") };
        report.error(&path, why);
    }
    if let Some(sasl) = kafka.sasl.as_ref().filter(|sasl| secrets.get(&sasl.password).is_none()) {
        report.error(&format!("{path}.sasl.password"), format!("no secret named `{}`", sasl.password));
    }
    Some(kafka)
}

fn kind(entry: Value, path: &str, report: &mut Report) -> Option<SourceKind> {
    let Value::Object(mut own) = entry else {
        return None;
    };
    let kind = own.remove("type")?;
    // Here and not in the types that are read below, so that the message stands at its key.
    for key in ADDRESSES {
        let Some(text) = own.get(key).and_then(Value::as_str) else {
            continue;
        };
        let parsed = if key == "listen" {
            text.parse::<Address>().map(drop)
        } else {
            text.parse::<Listen>().map(drop)
        };
        if let Err(why) = parsed {
            report.error(&format!("{path}.{key}"), why);
        }
    }
    let own = Value::Object(own);
    match kind.as_str()? {
        "otlp" => read(own, path, report).map(SourceKind::Otlp),
        "prometheus_remote_write" => read(own, path, report).map(SourceKind::PrometheusRemoteWrite),
        "alertmanager" => read(own, path, report).map(SourceKind::Alertmanager),
        _ => None,
    }
}

/// No two listeners on one address, and none that does nothing.
fn addresses(kind: &SourceKind, path: &str, taken: &mut BTreeMap<SocketAddr, String>, report: &mut Report) {
    let listens = kind.listens();
    if listens.is_empty() {
        report.error(path, "listens nowhere: give `grpc` or `http` an address");
    }
    for (key, address) in listens {
        let path = format!("{path}.{key}");
        match taken.get(&address).filter(|_| address.port() != 0) {
            Some(other) => report.error(&path, format!("`{other}` listens on {address} already")),
            None => {
                taken.insert(address, path);
            }
        }
    }
    if let SourceKind::PrometheusRemoteWrite(RemoteWrite { path: route, .. })
    | SourceKind::Alertmanager(Alertmanager { path: route, .. }) = kind
        && !route.starts_with('/')
    {
        report.error(&format!("{path}.path"), format!("`{route}` does not begin with `/`"));
    }
}

/// Whoever may send telemetry may make relight act: beyond this machine only those who prove who they are.
fn access(kind: &SourceKind, path: &str, secrets: &Secrets, report: &mut Report) {
    let (tls, bearer) = kind.access();
    for (i, name) in bearer.iter().enumerate() {
        match secrets.get(name) {
            None => report.error(&format!("{path}.bearer[{i}]"), format!("no secret named `{name}`")),
            Some(secret) if secret.reveal().is_empty() => {
                report.error(&format!("{path}.bearer[{i}]"), format!("the secret `{name}` is empty"));
            }
            Some(_) => {}
        }
    }
    let proves = !bearer.is_empty() || tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let missing = match (tls, proves) {
        (Some(_), true) => return,
        (Some(_), false) => "`bearer: [SECRET]` or `tls.client_ca_file`",
        (None, true) => "`tls: {cert_file, key_file}`",
        (None, false) => "`tls: {cert_file, key_file}` and `bearer: [SECRET]` or `tls.client_ca_file`",
    };
    for (key, address) in kind.listens() {
        if !address.ip().is_loopback() {
            report.error(
                &format!("{path}.{key}"),
                format!(
                    "{address} can be reached from other machines: add {missing}, or listen on 127.0.0.1:{}",
                    address.port()
                ),
            );
        }
    }
}
