//! Golden cases of every detector, as data, and the promises that hold for several of them.

use relight_core::detector::{Bank, BinColumn, Direction, Policy, Reading, Readings, Rhythm, RowReading};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp};
use serde_json::{Value, json};

use crate::ALL;

/// A Monday, 00:00 UTC.
const START: i64 = 1_763_942_400;

/// One row of one detector, fed by hand.
pub(crate) struct Row {
    pub(crate) bank: Box<dyn Bank>,
    pub(crate) at: i64,
    step: i64,
    last: Timestamp,
}

impl Row {
    pub(crate) fn new(name: &str, config: &Value, step: i64) -> Self {
        Self::with(name, config, step, &Policy::default())
    }

    pub(crate) fn with(name: &str, config: &Value, step: i64, policy: &Policy) -> Self {
        let spec = ALL.iter().find(|spec| spec.name == name).expect("in the list");
        let signal = SignalInfo { name: "s".to_owned(), interval: Span::from_secs(step) };
        let mut bank = (spec.build)(config, policy, &signal).expect("a good config").bank();
        bank.grow(1);
        Self { bank, at: START, step, last: Timestamp::MIN }
    }

    pub(crate) fn feed(&mut self, value: f64) -> RowReading {
        let verdict = self.bin(value, &[]).expect("a value is judged");
        self.last = Timestamp::from_secs(self.at - self.step);
        verdict
    }

    /// Nothing comes for so many bins, and there are none.
    pub(crate) fn pause(&mut self, bins: i64) {
        self.at += bins * self.step;
    }

    fn silence(&mut self, missing: u32) -> Option<RowReading> {
        self.bin(f64::NAN, &[missing])
    }

    fn bin(&mut self, value: f64, missing: &[u32]) -> Option<RowReading> {
        let mut out = Readings { all: Some(Vec::new()), ..Readings::default() };
        let rhythm = Rhythm { last: &[self.last], cadence: &[self.step as f32] };
        let at = Timestamp::from_secs(self.at);
        self.bank.step(BinColumn { at, values: &[value], missing, rhythm }, &mut out);
        self.at += self.step;
        out.all.expect("was asked for").pop()
    }
}

/// Values as text: `10 11 x15 60` is 10 and 11 fifteen times over, then 60; `_` is a bin without data.
fn values(text: &str) -> Vec<f64> {
    let mut done: Vec<f64> = Vec::new();
    let mut phrase: Vec<f64> = Vec::new();
    for word in text.split_whitespace() {
        if let Some(times) = word.strip_prefix('x') {
            for _ in 0..times.parse::<usize>().expect("a count") {
                done.extend(&phrase);
            }
            phrase.clear();
        } else {
            phrase.push(if word == "_" { f64::NAN } else { word.parse().expect("a number") });
        }
    }
    done.extend(&phrase);
    done
}

/// Runs `text` and compares the end of the verdicts with `expected`: `!` anomalous, `-` not, `_` no
/// data, `R` re-learned. What comes before the end must be unremarkable.
fn check(name: &str, config: &Value, text: &str, expected: &str) {
    let mut row = Row::new(name, config, 10);
    let verdicts: String = values(text)
        .into_iter()
        .map(|value| match value.is_nan().then_some(()) {
            Some(()) => row.silence(0).map_or('_', |_| '?'),
            None => match row.feed(value) {
                verdict if verdict.relearned => 'R',
                verdict if verdict.reading.is_anomalous() => '!',
                _ => '-',
            },
        })
        .collect();
    let (before, end) = verdicts.split_at(verdicts.len() - expected.len());
    assert_eq!(end, expected, "{name} {config}: {text}");
    assert!(!before.contains(['!', 'R']), "{name} {config}: {text}: {before}");
}

pub(crate) fn noise(i: usize) -> f64 {
    (i as f64 * 0.618_033_988_749_894_9).fract() - 0.5
}

/// Scenario: one value ten times the rest after a calm stretch.
/// Guarantee: exactly that value is anomalous, and the band is unmoved by it.
#[test]
fn lone_spike() {
    check("ewma", &json!({}), "10 11 x25 60 10 11", "-!--");
    check("adaptive", &json!({}), "10 11 10.4 x120 60 10 11", "-!--");
    check("changepoint", &json!({}), "10 11 x100 60 10 11", "----");
    check("threshold", &json!({"above": 20}), "10 11 x5 60 10 11", "-!--");
    check("seasonal", &json!({}), "10 11 x50000 60 10 11", "-!--");
}

/// Guarantee: bins without data are neither judged nor learned.
#[test]
fn missing_values_are_skipped() {
    check("ewma", &json!({}), "10 11 x25 _ _ 10 60 _ 60", "__-!_!");
    check("adaptive", &json!({}), "10 11 10.4 x120 _ _ 10 60 _ 60", "__-!_!");
}

/// Guarantee: wild first values are never anomalous.
#[test]
fn c24_cold_start_extreme() {
    for name in ["ewma", "adaptive", "changepoint", "seasonal"] {
        check(name, &json!({}), "1e9 -5 3e7 0 1 1e-9 12 99999 -1e12 4", "----------");
    }
}

/// Guarantee: a limit with hysteresis is left only well inside; one without, at once.
#[test]
fn limits() {
    check("threshold", &json!({"above": 10, "hysteresis": 2}), "9 10 11 9 8.1 8 9", "--!!!--");
    check("threshold", &json!({"below": 0}), "1 0 -1 0 1", "--!--");
    check("threshold", &json!({"below": 0, "above": 0}), "0 1e-9 -1e-9", "-!!");
}

/// Guarantee: silence scores once patience is over, from the last value on, and never before the first.
#[test]
fn c17_silence() {
    let mut row = Row::new("absence", &json!({"patience": 3}), 10);
    assert_eq!(row.bank.patience(), Some(3));
    assert!(row.silence(9).is_none_or(|v| !v.reading.is_anomalous()), "never spoke");
    let last = Timestamp::from_secs(row.at);
    row.feed(1.0);
    for missing in 1..=2 {
        assert!(!row.silence(missing).expect("silence is judged").reading.is_anomalous());
    }
    let verdict = row.silence(3).expect("silence is judged");
    assert!(verdict.reading.is_anomalous() && verdict.onset == Some(last));
    assert!(!row.feed(1e9).reading.is_anomalous());
}

/// Scenario: a constant row that moves in its ninth digit, and one that makes a real step.
/// Guarantee: no score of a billion sigmas; the first is none at all.
#[test]
fn c20_constant_then_step() {
    for name in ["ewma", "adaptive"] {
        for level in [5.0, -3e9, 1e-3] {
            let mut row = Row::new(name, &json!({}), 10);
            for _ in 0..1000 {
                row.feed(level);
            }
            let tiny = row.feed(level * (1.0 + 1e-9)).reading.score;
            assert!(tiny <= 1.0, "{name} at {level}: {tiny}");
            let step = row.feed(level * 2.0).reading.score;
            assert!(step > 1.0 && step <= 1000.0, "{name} at {level}: {step}");
        }
    }
}

/// Scenario: one value in a hundred is 1e12, the first of them before or after the warm-up.
/// Guarantee: after 10,000 values what is expected is within 5 % of the clean stream's.
#[test]
fn c23_spike_train_poison() {
    for name in ["ewma", "changepoint", "adaptive", "seasonal"] {
        for phase in [17, 37] {
            let mut row = Row::new(name, &json!({}), 10);
            for i in 0..10_000 {
                row.feed(if i % 100 == phase { 1e12 } else { 100.0 + noise(i) });
            }
            let expected = row.feed(100.0).reading.band.expected;
            assert!((expected - 100.0).abs() < 5.0, "{name} from {phase}: {expected}");
        }
    }
}

/// Scenario: one value of 1e12 during the warm-up, when nothing is held yet.
/// Guarantee: its influence is bounded: a hundred values later nobody can tell.
#[test]
fn one_value_has_bounded_influence() {
    for name in ["ewma", "changepoint"] {
        let mut row = Row::new(name, &json!({}), 10);
        for i in 0..120 {
            row.feed(if i == 17 { 1e12 } else { 100.0 + noise(i) });
        }
        let expected = row.feed(100.0).reading.band.expected;
        assert!((expected - 100.0).abs() < 1.0, "{name}: {expected}");
    }
}

/// Scenario: half a per cent an hour for a week.
/// Guarantee: the slow drift is told.
#[test]
fn c22_slow_ramp_poison() {
    let mut row = Row::new("changepoint", &json!({}), 60);
    let mut first = None;
    for i in 0..7 * 1440 {
        let hours = (i as f64 / 60.0 - 24.0).max(0.0);
        if row.feed(100.0 * (1.0 + 0.005 * hours) + noise(i)).reading.is_anomalous() && first.is_none() {
            first = Some(hours);
        }
    }
    assert!(first.is_some_and(|hours| hours > 0.0 && hours < 12.0), "{first:?}");
}

/// Scenario: a shift of one and a half sigmas.
/// Guarantee: it is told, with an onset within a few values of the truth.
#[test]
fn the_onset_is_found() {
    let mut row = Row::new("changepoint", &json!({}), 10);
    for i in 0..1000 {
        row.feed(noise(i));
    }
    let truth = Timestamp::from_secs(row.at);
    let found = (0..60).map(|i| row.feed(0.6 + noise(i))).find(|v| v.reading.is_anomalous()).expect("told");
    let error = found.onset.expect("known").since(truth).ns() / 1_000_000_000;
    assert!(error.abs() <= 60, "off by {error} s");
}

/// Guarantee: direction and least deviation narrow every learned detector, and chart and score agree.
#[test]
fn policies_narrow() {
    let below = Policy { direction: Direction::Below, ..Policy::default() };
    let large = Policy { min_deviation: 500.0, ..Policy::default() };
    for name in ["ewma", "adaptive"] {
        for (policy, dip, spike) in
            [(&below, true, false), (&large, false, false), (&Policy::default(), true, true)]
        {
            for (value, expected) in [(40.0, dip), (160.0, spike)] {
                let mut row = Row::with(name, &json!({}), 10, policy);
                for i in 0..2000 {
                    row.feed(100.0 + noise(i));
                }
                let Reading { score, band } = row.feed(value).reading;
                assert_eq!(score > 1.0, expected, "{name} {policy:?}: {value} scored {score}");
                assert_eq!(band.holds(value), !expected, "{name} {policy:?}: {value} and {band:?}");
            }
        }
    }
}

/// Scenario: a shift that is told as a change of context, under policies that ask for less.
/// Guarantee: direction, least deviation and warm-up hold for changes of context as for outliers.
#[test]
fn policies_narrow_changes_of_context() {
    let found = |policy: &Policy| {
        let mut row = Row::with("adaptive", &json!({}), 300, policy);
        for i in 0..2000 {
            row.feed(10.0 + noise(i));
        }
        (0..3000).any(|i| row.feed(50.0 + noise(i)).reading.is_anomalous())
    };
    assert!(found(&Policy::default()));
    for policy in [
        Policy { direction: Direction::Below, ..Policy::default() },
        Policy { min_deviation: 500.0, ..Policy::default() },
        Policy { min_relative_deviation: 10.0, ..Policy::default() },
        Policy { warm_up: 5000, ..Policy::default() },
    ] {
        assert!(!found(&policy), "{policy:?}");
    }
}

/// Scenario: a detector that is to see more values than any needs by itself.
/// Guarantee: it is silent as long, whatever it sees, and speaks from then on.
#[test]
fn a_long_warm_up_ends() {
    for (kind, warm_up) in [("ewma", 300), ("changepoint", 300), ("ewma", 2_000)] {
        let mut row = Row::with(kind, &json!({}), 10, &Policy { warm_up, ..Policy::default() });
        let quiet: Vec<f64> =
            (1..warm_up as usize).map(|i| row.feed(10.0 + noise(i)).reading.score).collect();
        assert!(quiet.iter().all(|score| *score <= 1.0), "{kind}");
        assert!(row.feed(1_000.0).reading.score <= 1.0, "{kind}: value {warm_up}");
        assert!((0..20).any(|_| row.feed(1_000.0).reading.is_anomalous()), "{kind}: the ones after it");
    }
}

/// Three weeks of a daily curve by Berlin's clock, through a change of the clocks.
fn daily(start: &str, days: i64) -> Row {
    let mut row = Row::new("seasonal", &json!({"zone": "Europe/Berlin"}), 900);
    let start: Timestamp = start.parse().expect("a time");
    row.at = start.secs();
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").expect("a zone");
    for i in 0..days * 96 {
        let at = jiff::Timestamp::from_second(row.at).expect("in range");
        let local = row.at + i64::from(zone.to_offset(at).seconds());
        let curve = 100.0 * (local.rem_euclid(86_400) as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let verdict = row.feed(1000.0 + curve + noise(i as usize));
        assert!(!verdict.reading.is_anomalous(), "at {at}: {verdict:?}");
    }
    row
}

/// Scenario: a service used by people, across both changes of the clocks.
/// Guarantee: the 23-hour and the 25-hour day are as quiet as all others.
#[test]
fn c10_dst() {
    daily("2026-03-08T23:00:00Z", 28);
    daily("2026-10-04T22:00:00Z", 28);
}

/// Guarantee: a dead afternoon on the curve is anomalous though its value is usual at night.
#[test]
fn a_usual_value_at_an_unusual_hour_is_anomalous() {
    let mut row = daily("2026-05-03T22:00:00Z", 21);
    for i in 0..24 {
        row.feed(1000.0 + 100.0 * (f64::from(i) / 96.0 * std::f64::consts::TAU).sin());
    }
    assert!(row.feed(1000.0).reading.is_anomalous());
}

/// Guarantee: a row that was seeded with an earlier capture knows its curve from the first bin on.
#[test]
fn a_seeded_row_knows_its_hours() {
    let curve = |at: i64| 500.0 + 100.0 * ((at % 86_400) as f64 / 86_400.0 * std::f64::consts::TAU).sin();
    let history: Vec<(Timestamp, f64)> = (0..21 * 96)
        .map(|i| START - 21 * 86_400 + i * 900)
        .map(|at| (Timestamp::from_secs(at), curve(at) + noise(at as usize / 900)))
        .collect();
    for name in ["seasonal", "adaptive"] {
        let mut row = Row::new(name, &json!({}), 900);
        row.bank.seed(0, Timestamp::from_secs(START), &history);
        for _ in 0..96 {
            let verdict = row.feed(curve(row.at));
            assert!(!verdict.reading.is_anomalous(), "{name}: {verdict:?}");
        }
        let spike = curve(row.at) + 300.0;
        assert!(row.feed(spike).reading.is_anomalous(), "{name}");
    }
}

/// A row's value in a bin: quiet, or with spikes, gaps, steps that stay, late starts, as its number has it.
fn motley(row: usize, bin: usize) -> f64 {
    let quiet = 100.0 + 5.0 * noise(bin * 31 + row * 7);
    match row % 7 {
        _ if bin < row => f64::NAN,
        1 if bin % 97 == 50 => quiet * 9.0,
        2 if !bin.is_multiple_of(6) => f64::NAN,
        3 if bin > 700 => quiet + 80.0,
        4 if (400..430).contains(&bin) => -quiet,
        5 => 7.0,
        6 => (quiet - 100.0) * 10.0_f64.powi((bin % 40) as i32 - 20),
        _ => quiet,
    }
}

/// Scenario: rows of every sort, some of them silent, held or re-learning beside quiet ones; one bank
/// is asked for every verdict, and so takes each row by itself, the other steps whole columns.
/// Guarantee: both say and remember the same, to the last bit.
#[test]
fn a_column_does_what_its_rows_would() {
    let narrow = Policy {
        direction: Direction::Above,
        min_deviation: 3.0,
        warm_up: 10,
        relearn_after: Span::from_secs(1800),
        ..Policy::default()
    };
    for (spec, policy) in ALL.iter().flat_map(|spec| [(spec, Policy::default()), (spec, narrow.clone())]) {
        let config = if spec.name == "threshold" { json!({"above": 150, "below": 0}) } else { json!({}) };
        let signal = SignalInfo { name: "s".to_owned(), interval: Span::from_secs(60) };
        let source = (spec.build)(&config, &policy, &signal).expect("a good config");
        let (mut whole, mut single) = (source.bank(), source.bank());
        let (mut found, rows) = (0, 30);
        whole.grow(rows);
        single.grow(rows);
        for bin in 0..1500 {
            let values: Vec<f64> = (0..rows).map(|row| motley(row, bin)).collect();
            let missing: Vec<u32> = values.iter().map(|v| 50 * u32::from(v.is_nan())).collect();
            let at = Timestamp::from_secs(START + 60 * bin as i64);
            let column = BinColumn { at, values: &values, missing: &missing, rhythm: Rhythm::default() };
            let mut few = Readings::default();
            let mut every = Readings { all: Some(Vec::new()), ..Readings::default() };
            whole.step(column, &mut few);
            single.step(column, &mut every);
            let scores = |bank: &dyn Bank| -> Vec<u32> {
                (0..rows).map(|row| bank.last_score(row as u32).to_bits()).collect()
            };
            let told = |findings: &[RowReading]| format!("{findings:?}");
            assert_eq!(told(&few.findings), told(&every.findings), "{} bin {bin}", spec.name);
            assert_eq!(scores(&*whole), scores(&*single), "{} bin {bin}", spec.name);
            found += few.findings.len();
        }
        let order: Vec<u32> = (0..rows as u32).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        whole.save(&order, &mut a);
        single.save(&order, &mut b);
        assert!(a == b, "{} {policy:?}: states differ", spec.name);
        assert!(found > 0, "{}: nothing ever left its band", spec.name);
    }
}
