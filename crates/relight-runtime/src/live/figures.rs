//! What a live run posts about itself: samples of the catalogue, and whether it is ready.

use std::collections::BTreeMap;

use relight_core::incident::{Hold, IncidentState};
use relight_core::rule::Settings;
use relight_core::telemetry::{self as metrics, Posted, Sample};
use relight_core::{Span, Timestamp};

use super::refusals::RefusalLog;
use super::stream::Stream;
use crate::error::RuntimeError;
use crate::pipeline::Pipeline;

/// Notices that are kept to be shown, and for how long.
const MAX_NOTICES: usize = 100;
const NOTICES_FOR: Span = Span::from_secs(86_400);

pub(super) struct Figures {
    notices: Vec<(Timestamp, String)>,
    pub(super) refused: RefusalLog,
    /// A step of the wall clock was told.
    pub(super) stepped: bool,
    /// The fleet limit is engaged, and that was logged.
    pub(super) limited: bool,
    /// When it is asked again whether the ledger's file is there.
    pub(super) next_check: Timestamp,
    /// Why the state folder could not be opened: nothing of this run is kept.
    pub(super) blind: Option<String>,
    /// The ledger cannot be written, and that was told.
    pub(super) ledger_failing: bool,
    /// Control time of the cut that is being written, of the newest one, and its size.
    cutting: (Timestamp, usize),
    newest: (Timestamp, usize),
    generation: u64,
    failures: u64,
    /// Seconds that may be missing, by partition.
    pub(super) gaps: BTreeMap<String, f64>,
}

impl Figures {
    pub(super) fn new(now: Timestamp, generation: u64) -> Self {
        let (cutting, newest) = ((now, 0), (now, 0));
        Self {
            notices: Vec::new(),
            refused: RefusalLog::default(),
            stepped: false,
            limited: false,
            next_check: now,
            blind: None,
            ledger_failing: false,
            cutting,
            newest,
            generation,
            failures: 0,
            gaps: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, now: Timestamp, notice: &str) {
        self.notices.push((now, notice.to_owned()));
        let more = self.notices.len().saturating_sub(MAX_NOTICES);
        self.notices.drain(..more);
    }

    pub(super) const fn cutting(&mut self, now: Timestamp, bytes: usize) {
        self.cutting = (now, bytes);
    }

    pub(super) const fn cut(&mut self, generation: u64) {
        self.newest = self.cutting;
        self.generation = generation;
    }

    pub(super) const fn cut_failed(&mut self) {
        self.failures += 1;
    }

    /// Everything, as it is now.
    pub(super) fn posted(
        &self,
        pipeline: &mut Pipeline,
        streams: &[Stream],
        stalled: &dyn Fn(u32) -> bool,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Posted, RuntimeError> {
        let mut samples = self.totals(pipeline, settings, now)?;
        of_control(pipeline, &mut samples);
        let mut unready = Vec::new();
        for (partition, secs) in &self.gaps {
            samples.push(Sample::labelled(metrics::GAP, [&**partition], *secs));
        }
        unready.extend(self.blind.clone());
        unready.extend(pipeline.ledger_fault().map(|why| format!("the ledger cannot be written: {why}")));
        for stream in streams {
            let name = &*stream.outlet.partition;
            let mut of = |metric, value| samples.push(Sample::labelled(metric, [name], value));
            of(metrics::QUEUE_LENGTH, stream.outlet.waiting() as f64);
            of(metrics::QUEUE_BYTES, stream.outlet.waiting_bytes() as f64);
            of(metrics::PARTITION_HELD, f64::from(u8::from(stream.held)));
            of(metrics::PARTITION_STALLED, f64::from(u8::from(stalled(stream.ix))));
            let watermark = pipeline.partition_watermark(stream.ix);
            if watermark.is_known() && watermark != Timestamp::MAX {
                of(metrics::PARTITION_WATERMARK, watermark.secs_f64());
            }
            if let Some(p99) = stream.lateness.p99() {
                of(metrics::PARTITION_DELAY, p99.secs_f64());
            }
            if stalled(stream.ix) {
                unready.push(format!("{name} cannot be reached"));
            }
        }
        let held = pipeline.control_state().holds();
        let until = |hold: &Hold| hold.until.map_or("`relight resume`".to_owned(), |until| until.to_string());
        let held = held.map(|(name, hold)| format!("{name}, until {}: {}", until(hold), hold.why)).collect();
        let late = streams.iter().filter_map(Stream::late).collect();
        let fresh = |(at, _): &&(Timestamp, String)| now.since(*at) <= NOTICES_FOR;
        let notices = self.notices.iter().filter(fresh).cloned().collect();
        Ok(Posted { samples, unready, held, late, refused: self.refused.shown(now), notices })
    }

    fn totals(
        &self,
        pipeline: &mut Pipeline,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Vec<Sample>, RuntimeError> {
        let totals = pipeline.totals()?;
        let figures = [
            (metrics::BINS, totals.turns),
            (metrics::DETECTOR_PANICS, pipeline.panics()),
            (metrics::EVENTS, totals.events),
            (metrics::FINDINGS, totals.findings),
            (metrics::LEDGER_COMMITS, pipeline.commits().0),
            (metrics::LEDGER_REFUSALS, pipeline.commits().1),
            (metrics::LEDGER_WAITING, pipeline.writes_waiting() as u64),
            (metrics::POINTS, totals.points),
            (metrics::RECORDS, totals.records),
            (metrics::ROWS, totals.rows),
            (metrics::SERIES, totals.series),
            (metrics::SERIES_LIMIT, settings.max_series as u64),
            (metrics::SNAPSHOT_BYTES, self.newest.1 as u64),
            (metrics::SNAPSHOT_FAILURES, self.failures),
            (metrics::SNAPSHOT_GENERATION, self.generation),
        ];
        let mut samples: Vec<Sample> =
            figures.into_iter().map(|(metric, value)| Sample::plain(metric, value as f64)).collect();
        samples.push(Sample::plain(metrics::SNAPSHOT_AGE, now.since(self.newest.0).secs_f64()));
        if let Some(turn) = pipeline.last_turn() {
            samples.push(Sample::plain(metrics::BIN_LAG, now.since(turn).secs_f64()));
        }
        samples.push(Sample::plain(metrics::STATE_BYTES, pipeline.state_bytes()? as f64));
        let swept = pipeline.swept();
        for (why, n) in [("idle", swept.idle), ("crowded", swept.crowded), ("limit", swept.over_limit)] {
            samples.push(Sample::labelled(metrics::SERIES_EVICTED, [why], n as f64));
        }
        samples.push(Sample::plain(metrics::SERIES_KEPT, swept.kept as f64));
        let refused = pipeline.overflow().iter();
        samples.extend(refused.map(|(source, metric, n)| {
            Sample::labelled(metrics::SERIES_REFUSED, [source, metric], n as f64)
        }));
        for (reason, n) in &totals.refused {
            samples.push(Sample::labelled(metrics::REFUSED, [reason.name()], *n as f64));
        }
        for (fall, n) in &totals.falls {
            samples.push(Sample::labelled(metrics::COUNTER_FALLS, [fall.name()], *n as f64));
        }
        Ok(samples)
    }
}

fn of_control(pipeline: &Pipeline, samples: &mut Vec<Sample>) {
    let control = pipeline.control_state();
    let counters = control.counters();
    samples.push(Sample::plain(metrics::CONDITION_ERRORS, counters.condition_errors as f64));
    samples.push(Sample::plain(metrics::DIGEST_MISMATCHES, counters.digest_mismatches as f64));
    let mut incidents: BTreeMap<String, u32> = BTreeMap::new();
    for incident in control.incidents().filter(|incident| incident.state != IncidentState::Resolved) {
        *incidents.entry(word(&incident.state)).or_default() += 1;
    }
    let mut actions: BTreeMap<String, u32> = BTreeMap::new();
    for action in control.actions().filter(|action| !action.state.is_final()) {
        *actions.entry(word(&action.state)).or_default() += 1;
    }
    samples.push(Sample::plain(metrics::FLEET_ACTIONS, control.fleet_actions() as f64));
    let not_sent = control.not_sent();
    samples
        .extend(not_sent.map(|(reason, n)| Sample::labelled(metrics::ACTIONS_NOT_SENT, [reason], n as f64)));
    samples.extend(control.holds().map(|(name, _)| Sample::labelled(metrics::HELD, [name], 1.0)));
    for (metric, states) in [(metrics::INCIDENTS, incidents), (metrics::ACTIONS, actions)] {
        samples.extend(states.iter().map(|(state, n)| Sample::labelled(metric, [&**state], f64::from(*n))));
    }
}

/// A state's word, as the ledger has it.
fn word(state: &impl serde::Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
