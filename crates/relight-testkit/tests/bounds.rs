//! Everything is bounded, and who stays within the bounds does not notice that others do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_core::detector::Policy;
use relight_core::incident::IncidentState;
use relight_core::record::{Kind, Reason, Record};
use relight_core::rule::{GroupBy, RuleSpec, RuleView, Settings, SourceBound};
use relight_core::series::{Labels, key_of};
use relight_core::signal::{Binning, By, SignalKind, SignalSpec};
use relight_core::{Span, Timestamp};
use relight_runtime::{Commit, Pipeline, Responders, Stores, Turn, Watch};
use relight_store::{Ledger as _, MemoryBaselines, MemoryLedger};
use relight_testkit::rules::{self, When};

const INTERVAL: Span = Span::from_secs(10);
const TTL: Span = Span::from_secs(240);
const TTL_BINS: i64 = TTL.ns() / INTERVAL.ns();

/// Every series by itself, judged by `ewma`; one incident per service, over after a minute of calm.
fn settings(max_series: usize) -> Settings {
    let signals = vec![SignalSpec { name: "every".to_owned(), kind: SignalKind::EverySeries, by: By::All }];
    let policy = Policy { warm_up: 10, ..Policy::default() };
    let params = serde_json::json!({"half_life": "5m"});
    let detectors = vec![rules::detector("every", "ewma", &params, &policy, (0, &signals[0]), INTERVAL)];
    let rule = RuleSpec {
        name: "anything".to_owned(),
        detectors: vec![0],
        when: Arc::new(When("any", |view: &RuleView<'_>| view.detectors.iter().any(|d| d.score > 1.0))),
        hold: Span::ZERO,
        hold_turns: 1,
        keep_firing: Span::from_secs(60),
        reopen_within: Span::from_secs(300),
        max_flaps: 3,
        group_by: GroupBy::Labels(vec!["service".to_owned()]),
        respond: Vec::new(),
        breaker_after: 3,
    };
    Settings {
        binning: Binning::Interval(INTERVAL),
        allowed_lateness: Span::ZERO,
        max_skew: Span::from_secs(120),
        max_series,
        series_ttl: TTL,
        sources: Vec::new(),
        signals,
        detectors,
        rules: vec![rule],
        trouble: None,
        fleet_limit: None,
        fingerprint: b"bounds".to_vec(),
    }
}

fn bound(name: &str, max_series: Option<usize>) -> SourceBound {
    SourceBound { name: name.to_owned(), max_series }
}

#[derive(Clone, Default)]
struct Disk {
    baselines: MemoryBaselines,
    ledger: MemoryLedger,
}

/// An engine and what it said, fed a bin at a time.
struct Run {
    engine: Pipeline,
    next_offset: BTreeMap<String, u64>,
    said: Said,
}

/// Each verdict to the last bit, in an order that does not depend on where rows live.
#[derive(Default)]
struct Said(Vec<(Timestamp, Vec<[u64; 2]>)>);

impl Watch for Said {
    fn wants_readings(&self) -> bool {
        true
    }

    fn turn(&mut self, turn: &Turn<'_>) {
        let bits = turn.readings.iter().map(|r| [r.value, r.reading.score].map(f64::to_bits));
        let mut bits: Vec<[u64; 2]> = bits.collect();
        bits.sort_unstable();
        self.0.push((turn.end, bits));
    }
}

fn at(bin: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000).plus(INTERVAL.times(bin)).plus(Span::from_secs(5))
}

/// A value that only this series has in this bin.
fn value(series: usize, bin: i64) -> f64 {
    100.0 + series as f64 / 3.0 + ((bin * 31 + series as i64 * 7) % 13) as f64 / 7.0
}

fn key(metric: &str, label: &str, n: usize) -> Vec<u8> {
    let pair = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    key_of(metric, &Labels::new([("service", "shop"), (label, &format!("{n:06}"))].map(pair)))
}

impl Run {
    fn new(settings: Settings) -> Self {
        Self::on(&Disk::default(), settings, 2, &mut Vec::new())
    }

    fn on(disk: &Disk, settings: Settings, threads: usize, notices: &mut Vec<String>) -> Self {
        Self::committing(Commit::EveryTurn, disk, settings, threads, notices)
    }

    fn committing(
        commit: Commit,
        disk: &Disk,
        settings: Settings,
        threads: usize,
        notices: &mut Vec<String>,
    ) -> Self {
        let stores =
            Stores { baselines: Box::new(disk.baselines.clone()), ledger: Box::new(disk.ledger.clone()) };
        let responders = Box::new(Responders::default());
        let engine = Pipeline::open(Arc::new(settings), threads, stores, responders, commit, notices);
        Self { engine: engine.expect("it opens"), next_offset: BTreeMap::new(), said: Said::default() }
    }

    /// One record of gauges at a bin's middle.
    fn feed(&mut self, partition: &str, bin: i64, points: impl IntoIterator<Item = (Vec<u8>, f64)>) {
        let ix = self.engine.partition(partition);
        let offset =
            self.next_offset.entry(partition.to_owned()).or_insert(self.engine.next_offset(partition));
        let mut record = Record { offset: *offset, received: Some(at(bin)), ..Record::default() };
        *offset += 1;
        for (key, value) in points {
            record.push_point(&key, at(bin), Timestamp::MIN, Kind::Gauge, value);
        }
        self.engine.handle(ix, &record).expect("the engine works");
        self.engine.run(&mut self.said).expect("the engine works");
    }

    /// So many series that come in every bin.
    fn steady(&mut self, partition: &str, bin: i64, series: usize) {
        self.feed(partition, bin, (0..series).map(|n| (key("load", "node", n), value(n, bin))));
    }

    fn series(&mut self) -> u64 {
        self.engine.totals().expect("the engine works").series
    }

    fn refused(&mut self, reason: Reason) -> u64 {
        let refused = self.engine.totals().expect("the engine works").refused;
        refused.into_iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }

    /// Points of refused series, of one source and of all.
    fn overflow(&self, source: &str) -> (u64, u64) {
        let all = || self.engine.overflow().iter();
        (all().filter(|(s, ..)| *s == source).map(|(.., n)| n).sum(), all().map(|(.., n)| n).sum())
    }

    fn state_bytes(&mut self) -> usize {
        self.engine.state_bytes().expect("the engine works")
    }
}

/// Scenario: a table for 1,000 series, which are there; then 10,000 others come, each once, of 100 metrics.
/// Guarantee: each of those points is refused and counted, by source and by metric; the table holds what it held, and
/// the verdicts on the first 1,000 are those of a run without the flood, bit for bit.
#[test]
fn d01_series_explosion() {
    let run = |flood: bool| {
        let mut run = Run::new(Settings { sources: vec![bound("otlp", None)], ..settings(1_000) });
        let mut before = 0;
        for bin in 0..60 {
            run.steady("otlp", bin, 1_000);
            if bin == 20 {
                before = run.state_bytes();
            }
            if flood && (30..40).contains(&bin) {
                let new = (0..1_000)
                    .map(|n| (key(&format!("m{:02}", n % 100), "pod", n + bin as usize * 1_000), 1.0));
                run.feed("otlp", bin, new);
            }
        }
        let grown = run.state_bytes() as f64 / before as f64;
        assert!(grown < 1.01, "{grown} times the memory");
        run
    };
    let (mut calm, mut flooded) = (run(false), run(true));
    assert_eq!(calm.said.0, flooded.said.0, "the flood shows in the verdicts");
    assert_eq!((calm.refused(Reason::SeriesLimit), calm.series()), (0, 1_000));
    assert_eq!((flooded.refused(Reason::SeriesLimit), flooded.series()), (10_000, 1_000));
    assert_eq!(flooded.overflow("otlp"), (10_000, 10_000));
    let counts: Vec<_> = flooded.engine.overflow().iter().collect();
    assert_eq!(counts.len(), 51, "50 metrics, and one count for the rest");
    assert_eq!(counts[0], ("otlp", "m00", 100));
    assert!(counts.contains(&("otlp", "other", 5_000)), "{counts:?}");
}

/// Scenario: of two sources the first may bring 100 series and sends 5,000; the second, two partitions of one source,
/// brings 500 later. Then a restart, and more of the first.
/// Guarantee: the first has its 100 and no more, before and after the restart; the second has all of its 500; what was
/// refused is counted under the first.
#[test]
fn d02_one_tenant_explodes() {
    let settings = Settings { sources: vec![bound("a", Some(100)), bound("b", None)], ..settings(1_000) };
    let disk = Disk::default();
    let mut run = Run::on(&disk, settings.clone(), 1, &mut Vec::new());
    for bin in 0..5 {
        run.feed("a", bin, (0..1_000).map(|n| (key("flood", "pod", n + 1_000 * bin as usize), 1.0)));
        run.feed("b/t/0", bin, (0..250).map(|n| (key("load", "node", n), value(n, bin))));
        run.feed("b/t/1", bin, (250..500).map(|n| (key("load", "node", n), value(n, bin))));
    }
    assert_eq!(run.series(), 600);
    assert_eq!((run.refused(Reason::SourceSeriesLimit), run.refused(Reason::SeriesLimit)), (4_900, 0));
    assert_eq!(run.overflow("a"), (4_900, 4_900));
    run.engine.snapshot().expect("memory does not fail");
    drop(run);
    let mut run = Run::on(&disk, settings, 1, &mut Vec::new());
    run.feed("a", 5, (0..200).map(|n| (key("flood", "pod", n + 9_000), 1.0)));
    assert_eq!((run.series(), run.refused(Reason::SourceSeriesLimit)), (600, 5_100));
}

/// Scenario: 20 steady series, and 100 new pods in every bin, each of which lives for three bins: 40,000 pods, in a table
/// for 4,000.
/// Guarantee: every pod is let in; the table holds those of the last few minutes, its memory is as large in the end as
/// it was half-way (but for how unevenly names fall into key groups), and the steady ones are judged as without the
/// pods, bit for bit.
#[test]
fn d03_label_value_churn() {
    const BINS: i64 = 400;
    const PODS: usize = 100;
    let mut calm = Run::new(settings(4_000));
    (0..BINS).for_each(|bin| calm.steady("otlp", bin, 20));
    let (mut run, mut early) = (Run::new(settings(4_000)), 0);
    let mut steady = Vec::new();
    for bin in 0..BINS {
        run.steady("otlp", bin, 20);
        let pods = PODS * (bin as usize).saturating_sub(2)..PODS * (bin as usize + 1);
        run.feed("otlp", bin, pods.map(|n| (key("pod", "hash", n), 0.0)));
        if bin == BINS / 2 {
            early = run.state_bytes();
        }
        assert!(run.series() <= 3_000, "bin {bin}: {} series", run.series());
    }
    for (end, bits) in &run.said.0 {
        let of_steady = bits.iter().filter(|[value, _]| f64::from_bits(*value) >= 100.0);
        steady.push((*end, of_steady.copied().collect::<Vec<_>>()));
    }
    assert_eq!(calm.said.0, steady, "the pods show in the verdicts");
    let totals = run.engine.totals().expect("the engine works");
    assert_eq!(
        (totals.refused, totals.evicted),
        (Vec::new(), (PODS as i64 * BINS) as u64 + 20 - totals.series)
    );
    let grown = run.state_bytes() as f64 / early as f64;
    assert!((0.9..1.15).contains(&grown), "{grown} times the memory of half the time");
}

/// Scenario: pods as above, in a table that is too small for those of four minutes.
/// Guarantee: the longest silent go before their time is over, and no new one is refused once they may.
#[test]
fn d03_a_crowded_table_lets_go_of_the_longest_silent() {
    let mut run = Run::new(settings(800));
    for bin in 0..100 {
        run.steady("otlp", bin, 20);
        run.feed(
            "otlp",
            bin,
            (50 * bin as usize..50 * (bin as usize + 1)).map(|n| (key("pod", "hash", n), 0.0)),
        );
    }
    assert_eq!(run.refused(Reason::SeriesLimit), 0);
    let swept = run.engine.swept();
    assert!(swept.crowded > 4_000 && swept.idle == 0, "{swept:?}");
    run.steady("otlp", 100, 20);
    assert!(run.said.0.last().is_some_and(|(_, bits)| bits.len() == 70), "a steady one was let go of");
}

/// The incident of a run: its state.
fn incident(run: &mut Run) -> IncidentState {
    let (state, _) = run.engine.ledger().load().expect("memory does not fail");
    assert_eq!(state.incidents.len(), 1, "one incident");
    state.incidents[0].state
}

/// Scenario: a series leaves its band, and stops while its incident is open; others go on, for ten times as long as
/// series are kept. Then it comes back, well; and stops once more.
/// Guarantee: while the incident is open the series stays, with its baseline, and is counted as kept; when it is back the
/// incident resolves; after that it goes like any other.
#[test]
fn d04_evict_open_incident() {
    let mut run = Run::new(settings(100));
    let one = |n: usize, value: f64| {
        let labels =
            [("service", "cart"), ("node", &format!("{n}"))].map(|(k, v)| (k.to_owned(), v.to_owned()));
        [(key_of("load", &Labels::new(labels)), value)]
    };
    let mut bin = 0;
    let mut go_on = |run: &mut Run, bins: i64, of_cart: Option<f64>| {
        for _ in 0..bins {
            run.steady("otlp", bin, 5);
            if let Some(mean) = of_cart {
                run.feed("otlp", bin, one(1, mean + (bin % 3) as f64 / 10.0));
            }
            bin += 1;
        }
    };
    go_on(&mut run, 40, Some(10.0));
    go_on(&mut run, 3, Some(90.0));
    go_on(&mut run, 240, None);
    assert_eq!((incident(&mut run), run.series()), (IncidentState::Open, 6));
    assert_eq!((run.engine.swept().evicted(), run.engine.swept().kept), (0, 1));
    // One value is judged by the baseline of before: nothing was learned anew.
    go_on(&mut run, 1, Some(90.0));
    go_on(&mut run, 1, None);
    let judged = run.said.0.iter().rev().find_map(|(_, bits)| (bits.len() == 6).then(|| bits.clone()));
    let judged = judged.expect("it was judged");
    assert!(judged.iter().any(|[v, score]| f64::from_bits(*v) > 89.0
        && f64::from_bits(*v) < 91.0
        && f64::from_bits(*score) > 1.0));
    go_on(&mut run, 30, Some(10.0));
    assert_eq!(incident(&mut run), IncidentState::Resolved);
    go_on(&mut run, 30, None);
    assert_eq!((run.series(), run.engine.swept().evicted(), run.engine.swept().kept), (5, 1, 0));
}

/// Scenario: a series leaves its band and stops for good, with an incident open about it.
/// Guarantee: it is kept for thirty times as long as others, then it goes, and the incident with it.
#[test]
fn d03_what_left_its_band_goes_in_the_end() {
    let mut run = Run::new(settings(100));
    for bin in 0..43 {
        run.steady("otlp", bin, 5);
        let value = if bin < 40 { 10.0 + (bin % 3) as f64 / 10.0 } else { 90.0 };
        run.feed("otlp", bin, [(key("load", "service", 1), value)]);
    }
    (43..43 + 29 * TTL_BINS).for_each(|bin| run.steady("otlp", bin, 5));
    assert_eq!((incident(&mut run), run.series()), (IncidentState::Open, 6));
    (43 + 29 * TTL_BINS..43 + 33 * TTL_BINS).for_each(|bin| run.steady("otlp", bin, 5));
    assert_eq!((incident(&mut run), run.series()), (IncidentState::Resolved, 5));
}

/// Scenario: a replay, which commits when it is over, of an incident that lasts for 9,000 bins: its rows fall silent now and
/// then, which stands in its story.
/// Guarantee: what waits for the commit has a bound, and so has the story, which says how much of it is cut; the incident is
/// that of a run that commits every turn.
#[test]
fn an_incident_of_weeks_costs_as_much_as_one_of_minutes() {
    let replayed = |commit: Commit| {
        let (disk, mut settings) = (Disk::default(), settings(100));
        let params = serde_json::json!({"above": 50.0});
        let of = (0, &settings.signals[0]);
        settings.detectors =
            vec![rules::detector("every", "threshold", &params, &Policy::default(), of, INTERVAL)];
        settings.rules[0].detectors = vec![0];
        let mut run = Run::committing(commit, &disk, settings, 1, &mut Vec::new());
        let mut most = 0;
        for bin in 0..9_000 {
            // Another service keeps time going while this one is silent.
            let is_silent = bin % 60 >= 50;
            let points = (!is_silent).then(|| (key("load", "service", 1), 90.0));
            let other = key_of("idle", &Labels::new([("service".to_owned(), "cart".to_owned())]));
            run.feed("otlp", bin, points.into_iter().chain([(other, 1.0)]));
            most = most.max(run.engine.writes_waiting());
        }
        run.engine.commit().expect("there is a ledger");
        let (state, _) = disk.ledger.clone().load().expect("there is a ledger");
        (most, state.incidents)
    };
    let (most, incidents) = replayed(Commit::AtSnapshots);
    assert!((256..1_024).contains(&most), "{most} writes wait");
    let [incident] = &*incidents else { panic!("{incidents:?}") };
    assert_eq!(incident.findings, 9_000 * 50 / 60);
    assert_eq!(incident.timeline.len(), 256);
    assert!(incident.moments_cut > 0);
    // A band without a lower side is NaN there, which is not equal to itself.
    assert_eq!(format!("{:?}", replayed(Commit::EveryTurn).1), format!("{incidents:?}"));
}

/// Scenario: 3,000 series, of which 2,000 fall silent, are in a snapshot; the next start allows for 1,000.
/// Guarantee: those that spoke last are loaded and judged on as without a restart, the rest is not, and is told; what
/// comes new is refused.
#[test]
fn d05_cardinality_restart() {
    let disk = Disk::default();
    let keep = |max| Settings { series_ttl: Span::from_secs(86_400), ..settings(max) };
    let feed = |run: &mut Run, bins: std::ops::Range<i64>| {
        for bin in bins {
            run.steady("otlp", bin, 1_000);
            if bin < 20 {
                run.feed("otlp", bin, (0..2_000).map(|n| (key("old", "node", n), value(n, bin))));
            }
        }
    };
    let mut whole = Run::on(&disk, keep(10_000), 2, &mut Vec::new());
    feed(&mut whole, 0..40);
    whole.engine.snapshot().expect("memory does not fail");
    assert_eq!(whole.series(), 3_000);
    let mut notices = Vec::new();
    let mut cut = Run::on(&disk, keep(1_000), 3, &mut notices);
    assert_eq!(cut.series(), 1_000);
    assert!(notices.iter().any(|n| n.contains("2000 series more than `max_series: 1000`")), "{notices:?}");
    let before = whole.said.0.len();
    feed(&mut whole, 40..60);
    feed(&mut cut, 40..60);
    assert_eq!(whole.said.0[before..], cut.said.0[..]);
    cut.feed("otlp", 60, (0..10).map(|n| (key("new", "node", n), 1.0)));
    assert_eq!((cut.refused(Reason::SeriesLimit), cut.series()), (10, 1_000));
}

/// Scenario: 50,000 names that no other point has, on points that are late, not finite, or of a series too many.
/// Guarantee: nothing of them is kept.
#[test]
fn d11_interner_leak() {
    let mut run = Run::new(settings(10));
    run.steady("otlp", 0, 10);
    run.steady("otlp", 100, 10);
    let before = run.state_bytes();
    for n in 0..50_000_usize {
        let (bin, value) = [(0, 1.0), (100, f64::NAN), (100, 1.0)][n % 3];
        run.feed("otlp", bin, [(key("unique", "n", n), value)]);
    }
    let refused = [Reason::Late, Reason::NonFinite, Reason::SeriesLimit].map(|reason| run.refused(reason));
    assert_eq!((refused.iter().sum::<u64>(), run.series()), (50_000, 10));
    assert_eq!(run.state_bytes(), before);
}
