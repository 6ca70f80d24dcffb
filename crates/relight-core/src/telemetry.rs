//! relight's own metrics: one catalogue of names, and the board on which the newest values hang.
//!
//! Whoever measures puts samples on the [`Board`], whoever shows them takes them off it. Every name is in
//! [`CATALOGUE`], so that what is documented, alerted on and exposed is one list. No clock, no format and
//! no server in here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Timestamp;

/// How a metric's value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only up, from 0 at the start of the process or of the state that it goes on from.
    Counter,
    /// Up and down.
    Gauge,
}

/// One metric of relight's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As it is exposed.
    pub name: &'static str,
    /// How its value moves.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($(#[doc = $help:literal])+ $ident:ident = $kind:ident $name:literal [$($label:literal),*];)+) => {
        $($(#[doc = $help])+ pub const $ident: Metric = Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: concat!($($help),+),
        };)+

        /// Every metric, by name.
        pub const CATALOGUE: &[Metric] = &[$($ident),+];
    };
}

catalogue! {
    /// 1 while this relight lets effects out: always, but for the one of a hot standby that does not hold the lock.
    ACTS = Gauge "relight_acts" [];
    /// Actions in the ledger that are not final, by state.
    ACTIONS = Gauge "relight_actions" ["state"];
    /// Actions that would change the world and were not sent: by the gate that said no, or by why nothing left for the
    /// target. None of them counts for a circuit breaker.
    ACTIONS_NOT_SENT = Counter "relight_actions_not_sent_total" ["reason"];
    /// Bins that have had their turn.
    BINS = Counter "relight_bins_total" [];
    /// Control time less the newest bin's end: how far behind the present relight is.
    BIN_LAG = Gauge "relight_bin_lag_seconds" [];
    /// Conditions of rules that could not be evaluated.
    CONDITION_ERRORS = Counter "relight_condition_errors_total" [];
    /// Panics of detectors on a row's values; a row that has had three is quarantined.
    DETECTOR_PANICS = Counter "relight_detector_panics_total" [];
    /// Falls of running totals: counted from zero (`reset`), from before or after the fall (`correction`), or for nothing
    /// until the next points show what it was (`unexplained`).
    COUNTER_FALLS = Counter "relight_counter_falls_total" ["kind"];
    /// When the config that rules was loaded, as seconds since 1970.
    CONFIG_LOADED = Gauge "relight_config_last_reload_success_timestamp_seconds" [];
    /// 1 if the config file was taken when it was last read, 0 if it was refused and the one before rules on.
    CONFIG_TAKEN = Gauge "relight_config_last_reload_successful" [];
    /// Turns that came again after a rewind with other findings.
    DIGEST_MISMATCHES = Counter "relight_digest_mismatches_total" [];
    /// Events taken in.
    EVENTS = Counter "relight_events_total" [];
    /// Findings.
    FINDINGS = Counter "relight_findings_total" [];
    /// Seconds of a listener's stream that may be missing, because the process before this one was killed: from the
    /// newest point in the snapshot to the start.
    GAP = Gauge "relight_gap_seconds" ["partition"];
    /// Actions that count towards `fleet_limit` at present. While the limit is engaged `relight_held` has `fleet_limit`.
    FLEET_ACTIONS = Gauge "relight_fleet_actions" [];
    /// Heartbeats, by outcome: sent, failed, and skipped because the one before was still on its way.
    HEARTBEATS = Counter "relight_heartbeats_total" ["outcome"];
    /// 1 while something keeps relight from changing anything: `paused`, `warm_up` and the like.
    HELD = Gauge "relight_held" ["hold"];
    /// Incidents that are not resolved, by state.
    INCIDENTS = Gauge "relight_incidents" ["state"];
    /// Commits of the ledger.
    LEDGER_COMMITS = Counter "relight_ledger_commits_total" [];
    /// Commits that the ledger refused: the disk is full, read-only, or held by somebody.
    LEDGER_REFUSALS = Counter "relight_ledger_refusals_total" [];
    /// Writes that wait for the ledger, which cannot be written.
    LEDGER_WAITING = Gauge "relight_ledger_waiting_writes" [];
    /// Lines of the log that were dropped because standard error was not read in time.
    LOG_DROPPED = Counter "relight_log_lines_dropped_total" [];
    /// 1 while sources are held back because memory is short.
    MEMORY_HOLDS = Gauge "relight_memory_holds_sources" [];
    /// The edges of resident memory.
    MEMORY_LIMIT = Gauge "relight_memory_limit_bytes" ["edge"];
    /// Memory of this process that is resident.
    MEMORY_RESIDENT = Gauge "relight_memory_resident_bytes" [];
    /// 1 while new series are refused because memory is short.
    MEMORY_SHUTS = Gauge "relight_memory_refuses_series" [];
    /// Deliveries that wait in a partition's queue.
    QUEUE_LENGTH = Gauge "relight_partition_queue_length" ["partition"];
    /// Bytes that wait in a partition's queue: those of one source are together at most its `max_waiting_bytes`, but for a single
    /// larger one.
    QUEUE_BYTES = Gauge "relight_partition_queue_bytes" ["partition"];
    /// The p99 of how far a partition's points come behind its newest, rounded up to a power of two; only while it exceeds
    /// `allowed_lateness`, so that more than 1 % of them do not count.
    PARTITION_DELAY = Gauge "relight_partition_delay_seconds" ["partition"];
    /// 1 while a partition is held back because it is too far ahead of the slowest.
    PARTITION_HELD = Gauge "relight_partition_held" ["partition"];
    /// 1 while a partition cannot be reached.
    PARTITION_STALLED = Gauge "relight_partition_stalled" ["partition"];
    /// A partition's watermark, as seconds since 1970.
    PARTITION_WATERMARK = Gauge "relight_partition_watermark_timestamp_seconds" ["partition"];
    /// Points taken in.
    POINTS = Counter "relight_points_total" [];
    /// Records taken in.
    RECORDS = Counter "relight_records_total" [];
    /// Points and lines that were refused, by reason.
    REFUSED = Counter "relight_refused_total" ["reason"];
    /// Rows known.
    ROWS = Gauge "relight_rows" [];
    /// Series known.
    SERIES = Gauge "relight_series" [];
    /// Series that were evicted: silent for `series_ttl`, silent for long in a table that was nearly full, or over the
    /// limit when a state was loaded.
    SERIES_EVICTED = Counter "relight_series_evicted_total" ["why"];
    /// Series that would have been evicted for their silence, but for an incident or a detector that waits for them.
    SERIES_KEPT = Gauge "relight_series_kept" [];
    /// Points of series that were refused, by source and metric; of each source's 51st metric on under `other`.
    SERIES_REFUSED = Counter "relight_series_refused_total" ["source", "metric"];
    /// The bound on series.
    SERIES_LIMIT = Gauge "relight_series_limit" [];
    /// Bytes of the newest snapshot.
    SNAPSHOT_BYTES = Gauge "relight_snapshot_bytes" [];
    /// Snapshots that could not be written.
    SNAPSHOT_FAILURES = Counter "relight_snapshot_failures_total" [];
    /// Generation of the newest snapshot.
    SNAPSHOT_GENERATION = Gauge "relight_snapshot_generation" [];
    /// Control time less that of the newest snapshot: what a crash would have to read again, or lose.
    SNAPSHOT_AGE = Gauge "relight_snapshot_age_seconds" [];
    /// What a source has at present: connections, requests, bytes.
    SOURCE_NOW = Gauge "relight_source" ["source", "what", "kind"];
    /// What a source has counted: requests by outcome, what it refused by reason, bytes, connections.
    SOURCE = Counter "relight_source_total" ["source", "what", "kind"];
    /// Bytes that series and rows hold, by their own count.
    STATE_BYTES = Gauge "relight_state_bytes" [];
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of which metric.
    pub metric: Metric,
    /// Values of its labels, in their order.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A sample without labels.
    pub fn plain(metric: Metric, value: f64) -> Self {
        Self { metric, labels: Vec::new(), value }
    }

    /// A sample with labels.
    pub fn labelled<'a>(metric: Metric, labels: impl IntoIterator<Item = &'a str>, value: f64) -> Self {
        Self { metric, labels: labels.into_iter().map(str::to_owned).collect(), value }
    }
}

/// What hangs on the board.
#[derive(Debug, Clone, Default)]
pub struct Posted {
    /// The newest values.
    pub samples: Vec<Sample>,
    /// Why relight is not ready; nothing if it is.
    pub unready: Vec<String>,
    /// What keeps relight from changing anything, until when and why.
    pub held: Vec<String>,
    /// Which partitions bring points too late to count.
    pub late: Vec<String>,
    /// What was refused in the last hour: source, metric, service, reason and how often.
    pub refused: Vec<String>,
    /// What a person should know, and since when: the last of the last day.
    pub notices: Vec<(Timestamp, String)>,
}

/// The newest values, and the engine's heartbeat. Clones show the same board.
#[derive(Debug, Clone)]
pub struct Board {
    posted: Arc<Mutex<Posted>>,
    progress: Arc<AtomicU64>,
}

impl Default for Board {
    fn default() -> Self {
        let unready = vec!["starting".to_owned()];
        Self {
            posted: Arc::new(Mutex::new(Posted { unready, ..Posted::default() })),
            progress: Arc::default(),
        }
    }
}

impl Board {
    /// Replaces what hangs there.
    pub fn post(&self, posted: Posted) {
        *self.lock() = posted;
    }

    /// What hangs there.
    pub fn read(&self) -> Posted {
        self.lock().clone()
    }

    /// The engine has gone once around its loop.
    pub fn beat(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has: a number that stands still means that the engine hangs.
    pub fn beats(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        // Whoever panicked while holding it had replaced all of it or nothing.
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: names are unique, begin with `relight_`, and counters end in `_total`.
    #[test]
    fn names_follow_the_convention() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("relight_"), "{}", metric.name);
            assert_eq!(
                metric.kind == MetricKind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
