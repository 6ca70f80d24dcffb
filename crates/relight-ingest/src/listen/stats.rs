//! What a source counts: one struct of atomics, read by whoever shows figures.
//!
//! Names and values only; how they are shown is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relight_core::record::Reason;

use super::fair::{Peers, Resource};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is in.
    Taken,
    /// It is in but for what was refused of it.
    Partial,
    /// It could not be read.
    Malformed,
    /// Its token is missing or wrong.
    Unauthenticated,
    /// A browser sent it.
    Forbidden,
    /// Nothing is at that path.
    NotFound,
    /// Not a POST.
    WrongMethod,
    /// A compression or format that is not understood.
    Unsupported,
    /// More bytes than one request may have.
    TooLarge,
    /// More or longer headers than one request may have.
    HeadersTooLarge,
    /// It did not arrive in time.
    TimedOut,
    /// Its sender went away before it was whole, or before it was answered.
    Disconnected,
    /// There was no room for it.
    Busy,
    /// relight is stopping.
    Stopping,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 14] = [
        Self::Taken,
        Self::Partial,
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::WrongMethod,
        Self::Unsupported,
        Self::TooLarge,
        Self::HeadersTooLarge,
        Self::TimedOut,
        Self::Disconnected,
        Self::Busy,
        Self::Stopping,
    ];

    /// The name in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Partial => "partial",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::WrongMethod => "wrong_method",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::TimedOut => "timed_out",
            Self::Disconnected => "disconnected",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }

    /// The HTTP status that says it.
    pub(super) const fn http(self) -> u16 {
        match self {
            Self::Taken | Self::Partial => 200,
            Self::Malformed | Self::Disconnected => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::TimedOut => 408,
            Self::TooLarge => 413,
            Self::Unsupported => 415,
            Self::HeadersTooLarge => 431,
            // Never 429: Alertmanager gives up on it, and everybody retries 503.
            Self::Busy | Self::Stopping => 503,
        }
    }

    /// The gRPC status that says it.
    pub(super) const fn grpc(self) -> u8 {
        match self {
            Self::Taken | Self::Partial => 0,
            Self::Disconnected => 1,
            Self::Malformed => 3,
            Self::TimedOut => 4,
            Self::Forbidden => 7,
            // Without RetryInfo, so that nobody sends it again.
            Self::TooLarge | Self::HeadersTooLarge => 8,
            Self::NotFound | Self::WrongMethod | Self::Unsupported => 12,
            Self::Busy | Self::Stopping => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// Whether the same request may well be taken later.
    pub(super) const fn is_passing(self) -> bool {
        matches!(self, Self::Busy | Self::Stopping)
    }
}

/// Counters and gauges of one source.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// What senders hold of what they share is read from here.
    peers: Option<Arc<Peers>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    rejected: [AtomicU64; Reason::ALL.len()],
    pub(super) wire_bytes: AtomicU64,
    pub(super) inflated_bytes: AtomicU64,
    pub(super) spans: AtomicU64,
    pub(super) repeated_events: AtomicU64,
    pub(super) truncated_alerts: AtomicU64,
    pub(super) samples_held: AtomicU64,
    pub(super) held_dropped: AtomicU64,
    pub(super) families_guessed: AtomicU64,
    pub(super) families: AtomicU64,
    pub(super) families_waiting: AtomicU64,
    pub(super) held_bytes: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) turned_away: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) over_share: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) tls_errors: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) waiting: AtomicU64,
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, without prefix and unit suffix of any format.
    pub name: &'static str,
    /// What tells it from others of its name: a label's name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// Whether it only grows.
    pub is_counter: bool,
    /// The value.
    pub value: u64,
}

impl SourceStats {
    /// The figures of a source with these peers.
    pub(super) fn of(peers: Arc<Peers>) -> Self {
        Self { peers: Some(peers), ..Self::default() }
    }

    /// All figures, in a fixed order.
    pub fn figures(&self) -> Vec<Figure> {
        let figure = |name, is_counter, value: &AtomicU64| Figure {
            name,
            label: None,
            is_counter,
            value: value.load(Ordering::Relaxed),
        };
        let outcomes = Outcome::ALL.iter().zip(&self.outcomes).map(|(outcome, value)| Figure {
            label: Some(("outcome", outcome.name())),
            ..figure("requests", true, value)
        });
        let rejected = Reason::ALL.iter().zip(&self.rejected).map(|(reason, value)| Figure {
            label: Some(("reason", reason.name())),
            ..figure("rejected", true, value)
        });
        let counters = [
            ("wire_bytes", &self.wire_bytes),
            ("inflated_bytes", &self.inflated_bytes),
            ("spans", &self.spans),
            ("repeated_events", &self.repeated_events),
            ("truncated_alerts", &self.truncated_alerts),
            ("metadata_samples_held", &self.samples_held),
            ("metadata_samples_dropped", &self.held_dropped),
            ("metadata_families_guessed", &self.families_guessed),
            ("connections_accepted", &self.accepted),
            ("connections_turned_away", &self.turned_away),
            ("connections_evicted", &self.evicted),
            ("requests_over_share", &self.over_share),
            ("accept_errors", &self.accept_errors),
            ("tls_errors", &self.tls_errors),
        ];
        let gauges = [
            ("connections_open", &self.connections),
            ("requests_in_flight", &self.requests),
            ("requests_waiting", &self.waiting),
            ("metadata_families", &self.families),
            ("metadata_families_waiting", &self.families_waiting),
            ("metadata_held_bytes", &self.held_bytes),
        ];
        let counters = counters.into_iter().map(|(name, value)| figure(name, true, value));
        let gauges = gauges.into_iter().map(|(name, value)| figure(name, false, value));
        outcomes.chain(rejected).chain(counters).chain(gauges).chain(self.shared()).collect()
    }

    /// What senders hold of what they share.
    fn shared(&self) -> impl Iterator<Item = Figure> {
        let peers = self.peers.as_deref();
        let used = |resource| peers.map_or(0, |peers| peers.used(resource));
        let gauges = [
            ("peers", peers.map_or(0, |peers| peers.len() as u64)),
            ("requests_worked_on", used(Resource::Permits)),
            ("reading_bytes", used(Resource::ReadingBytes)),
            ("waiting_bytes", used(Resource::WaitingBytes)),
        ];
        gauges.into_iter().map(|(name, value)| Figure { name, label: None, is_counter: false, value })
    }

    /// Requests that ended so.
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Points and events that were refused for this reason.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.rejected[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        add(&self.outcomes[outcome as usize], 1);
    }

    pub(super) fn reject(&self, reason: Reason, n: u32) {
        add(&self.rejected[reason as usize], n.into());
    }
}

/// Moves a counter or a gauge up.
pub(super) fn add(value: &AtomicU64, n: u64) {
    value.fetch_add(n, Ordering::Relaxed);
}

/// Moves a gauge down.
pub(super) fn sub(value: &AtomicU64, n: u64) {
    value.fetch_sub(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_the_lists() {
        for (ix, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, ix);
        }
        for (ix, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, ix);
        }
        let stats = SourceStats::default();
        stats.count(Outcome::Busy);
        stats.reject(Reason::Late, 3);
        let shown: Vec<_> = stats.figures().into_iter().filter(|figure| figure.value > 0).collect();
        assert_eq!(
            shown.iter().map(|f| (f.label, f.value)).collect::<Vec<_>>(),
            [(Some(("outcome", "busy")), 1), (Some(("reason", "late")), 3)]
        );
    }
}
