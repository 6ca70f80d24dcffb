//! Listeners for what others send: OTLP by gRPC and HTTP, change events, Prometheus' remote write,
//! Alertmanager's and Grafana's webhooks.
//!
//! A listener reads a request within its limits, unpacks it, hands it to the engine and answers with what
//! became of it. It decides nothing about time, series or bins, keeps nothing that was answered, and never
//! waits for room: a full queue is an answer (503 with Retry-After, UNAVAILABLE with RetryInfo). tokio is
//! seen here and nowhere else in this crate.

mod accept;
mod alerts;
mod body;
mod connections;
mod events;
mod fair;
mod front;
mod grpc;
mod http;
mod linger;
mod logs;
mod proto;
mod remote_write;
mod reply;
mod seen;
mod signal;
mod stats;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use relight_core::responder::{Secret, Secrets};
use relight_core::source::{Journalling, SourceKind, SourceSpec};
use relight_core::{Span, Timestamp};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::accept::Listener;
use self::alerts::Alerts;
use self::events::Events;
use self::front::{Front, ListenerShared, Way};
use self::remote_write::Families;
use self::reply::Payload;
use crate::IngestError;
use crate::journal::{Damage, Journal, Keeping};
use crate::live::{Budget, Hub, Reads};

pub use stats::{Figure, Outcome, SourceStats};
pub use tls::{Reread, ServerTls};

/// Tells the time of arrival.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Tells people what happened, a line at a time.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What a source's listeners are started in.
pub struct Surroundings<'a> {
    /// The time of arrival.
    pub clock: Clock,
    /// The folder for journals, one below it a source; or why none can be written, and then a source that keeps one takes nothing.
    pub journals: Result<&'a Path, &'a str>,
    /// The folder for what sources know of metric families, a file a source; `None` keeps nothing.
    pub families: Option<&'a Path>,
    /// How far behind the newest a point may be and still count.
    pub allowed_lateness: Span,
    /// Who is told.
    pub tell: Tell,
}

impl<'a> Surroundings<'a> {
    /// With the default lateness, where nothing is kept but journals and nobody is told.
    pub fn new(clock: Clock, journals: &'a Path) -> Self {
        let (families, allowed_lateness, tell) = (None, Span::from_secs(10), Arc::new(|_: &str| {}));
        Self { clock, journals: Ok(journals), families, allowed_lateness, tell }
    }
}

/// What is spoken at one address.
enum Protocol {
    Grpc,
    Http(Events),
    RemoteWrite(String, Arc<Families>),
    Alertmanager(String, Arc<Alerts>),
}

impl Protocol {
    async fn answer(&self, front: &Arc<Front>, request: Request<Incoming>) -> (Outcome, Response<Payload>) {
        match self {
            Self::Grpc => grpc::handle(front, request).await,
            Self::Http(events) => http::handle(front, events, request).await,
            Self::RemoteWrite(path, families) => remote_write::handle(front, (path, families), request).await,
            Self::Alertmanager(path, alerts) => alerts::handle(front, (path, alerts), request).await,
        }
    }

    /// By the key that sets its address.
    fn of(spec: &SourceSpec, key: &str, around: &Surroundings<'_>, notices: &mut Vec<String>) -> Self {
        match &spec.kind {
            SourceKind::Otlp(_) if key == "grpc" => Self::Grpc,
            SourceKind::Otlp(_) => Self::Http(Events::default()),
            SourceKind::PrometheusRemoteWrite(write) => {
                let path = around.families.map(|dir| dir.join(format!("{}.json", file_name(&spec.name))));
                let (lateness, tell) = (around.allowed_lateness, Arc::clone(&around.tell));
                let (families, notice) = Families::open(&spec.name, path, lateness, tell);
                notices.extend(notice);
                Self::RemoteWrite(write.path.clone(), Arc::new(families))
            }
            SourceKind::Alertmanager(alerts) => {
                let known = Alerts::new(Arc::clone(&around.tell));
                Self::Alertmanager(alerts.path.clone(), Arc::new(known))
            }
        }
    }
}

/// A source that listens. Dropped, it stops at once and answers nobody; see [`Running::stop`].
pub struct Running {
    addresses: Vec<(&'static str, SocketAddr)>,
    /// Its partition is open as long as this is there.
    shared: Arc<ListenerShared>,
    tls: Option<Arc<ServerTls>>,
    stopping: watch::Sender<bool>,
    listeners: JoinSet<()>,
    gaps: Vec<String>,
    notices: Vec<String>,
}

/// Starts to listen. Every address is bound when this returns, and the source's one partition, which has the
/// source's name, is open; on an error nothing is.
pub fn start_in(
    around: &Surroundings<'_>,
    spec: &SourceSpec,
    secrets: &Secrets,
    hub: &Hub,
    runtime: &Handle,
) -> Result<Running, IngestError> {
    let SourceSpec { name, kind } = spec;
    let (tls, bearer) = kind.access();
    let tls = tls.as_ref().map(|files| ServerTls::open(name, files)).transpose()?;
    let tokens = bearer.iter().map(|secret| token(name, secret, secrets)).collect::<Result<Vec<_>, _>>()?;
    let _in_runtime = runtime.enter();
    let mut bound = Vec::new();
    for (key, address) in kind.listens() {
        let failed = |source| IngestError::Listen { key: format!("sources.{name}.{key}"), address, source };
        let listener = bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        bound.push((key, address, listener));
    }
    let limits = *kind.limits();
    let (way, Damage { lost: gaps, mended: mut notices }) = way(spec, hub, around.journals)?;
    let senders = (tokens, Arc::clone(&around.clock));
    let shared = Arc::new(ListenerShared::new(way, limits, senders, hub.memory().clone()));
    let (stopping, told) = watch::channel(false);
    let (mut listeners, mut addresses) = (JoinSet::new(), Vec::new());
    for (key, address, socket) in bound {
        addresses.push((key, address));
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        let protocol = Arc::new(Protocol::of(spec, key, around, &mut notices));
        let listener = Listener { socket, tls, protocol, shared };
        listeners.spawn_on(accept::serve(listener, told.clone()), runtime);
    }
    Ok(Running { addresses, shared, tls, stopping, listeners, gaps, notices })
}

/// The same where nothing is kept but journals, and nobody is told.
#[cfg(test)]
fn start(
    spec: &SourceSpec,
    secrets: &Secrets,
    hub: &Hub,
    clock: Clock,
    runtime: &Handle,
    journals: &Path,
) -> Result<Running, IngestError> {
    start_in(&Surroundings::new(clock, journals), spec, secrets, hub, runtime)
}

/// Opens the source's partition, and its journal if it has one. Returns what of that is damaged.
fn way(spec: &SourceSpec, hub: &Hub, journals: Result<&Path, &str>) -> Result<(Way, Damage), IngestError> {
    let limits = spec.kind.limits();
    // Peers' shares bound what waits; beyond the limit is their reserve.
    let max_waiting_bytes = limits.max_waiting_bytes.saturating_add(limits.max_waiting_bytes / 4);
    let budget = Budget::new(max_waiting_bytes);
    if spec.kind.journal() == Journalling::Off {
        return Ok((Way::Straight(hub.open(&spec.name, Reads::Push, &budget)), Damage::default()));
    }
    let journals = match journals {
        Ok(journals) => journals,
        Err(why) => {
            let refusing = Way::Refusing { source: spec.name.clone(), why: why.to_owned() };
            return Ok((refusing, Damage::default()));
        }
    };
    let keeping = Keeping {
        dir: journals.join(file_name(&spec.name)),
        max_bytes: limits.max_journal_bytes,
        max_waiting_bytes,
    };
    let inlet = hub.open(&spec.name, Reads::Journalled, &budget);
    let (journal, damage) = Journal::open(&keeping, inlet)
        .map_err(|source| IngestError::Journal { key: format!("sources.{}.journal", spec.name), source })?;
    Ok((Way::Journal(journal), damage))
}

/// A source's name as that of a folder: what is neither letter, digit, `-` nor `_` is written as its code.
fn file_name(source: &str) -> String {
    let code = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => c.to_string(),
        _ => format!("%{:x}", u32::from(c)),
    };
    source.chars().map(code).collect()
}

fn token(source: &str, secret: &str, secrets: &Secrets) -> Result<Secret, IngestError> {
    let found = secrets.get(secret).filter(|secret| !secret.reveal().is_empty()).cloned();
    found.ok_or_else(|| IngestError::NoSecret { source_name: source.to_owned(), secret: secret.to_owned() })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Running {
    /// Where it listens, by the key that set it: `grpc`, `http` or `listen`.
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// What its journal lost, for people: data that its senders were told to be safe.
    pub fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// What else people should know of how it started.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// What it counts.
    pub fn stats(&self) -> &Arc<SourceStats> {
        &self.shared.stats
    }

    /// Its TLS, if it has any.
    pub const fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }

    /// Stops to listen and lets requests in flight end, for at most so long. Whether all of them were answered. The
    /// partition is let go when this is dropped: a source that stops has not ended, and time is not to go on without it.
    pub async fn stop(&mut self, within: Duration) -> bool {
        self.stopping.send_replace(true);
        let all = async { while self.listeners.join_next().await.is_some() {} };
        let is_done = tokio::time::timeout(within, all).await.is_ok();
        self.listeners.shutdown().await;
        is_done
    }
}
