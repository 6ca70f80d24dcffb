//! The texts of a small story, as people and programs get them.

use std::collections::BTreeMap;
use std::time::Duration;

use relight_core::incident::{Action, ActionState, Evidence, Incident, IncidentState, Moment, Resolution};
use relight_core::record::{Event, Reason};
use relight_core::responder::{EffectKind, Plan};
use relight_core::{Labels, Span, Timestamp};
use relight_engine::control::summary::summarize;
use relight_engine::counters::Fall;
use relight_runtime::{Report, Totals};

use super::labels::{Fault, judge};
use super::*;

const ONSET: i64 = 1_763_884_800;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(ONSET + secs)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
}

fn evidence() -> Evidence {
    Evidence {
        detector: "errors_ewma".to_owned(),
        signal: "errors".to_owned(),
        labels: labels(&[("service", "checkout")]),
        at: at(10),
        value: 0.3125,
        score: 12.5,
        expected: 0.004,
        lower: f64::NEG_INFINITY,
        upper: 0.0125,
    }
}

fn deploy() -> Event {
    let body = "v7\u{1b}[2J\nof the shop".to_owned();
    Event { at: at(-30), kind: "deploy".to_owned(), labels: labels(&[("service", "checkout")]), body }
}

fn incident() -> Incident {
    Incident {
        id: "01KARELIGHT0000000000000AA".to_owned(),
        rule: "bad-deploy".to_owned(),
        group: labels(&[("service", "checkout")]),
        state: IncidentState::Resolved,
        episode: 1,
        stale: false,
        first_finding: at(10),
        onset: at(0),
        detected: Some(at(20)),
        acted: Some(at(20)),
        mitigated: Some(at(80)),
        recovered: Some(at(50)),
        resolved: Some(at(200)),
        resolution: Some(Resolution::VerifiedAction),
        held_for: Span::from_secs(40),
        held_turns: 4,
        calm_for: Span::from_secs(150),
        rested: false,
        last_data: at(200),
        findings: 4,
        relearned: 0,
        worst_score: f64::INFINITY,
        evidence: vec![evidence()],
        context: vec![deploy()],
        groups_known: 0,
        next_step: 1,
        moments_cut: 0,
        timeline: vec![Moment { at: at(20), what: "opened".to_owned(), detail: String::new() }],
    }
}

fn action() -> Action {
    Action {
        id: "01KARELIGHT0000000000000AA-1-0".to_owned(),
        incident: "01KARELIGHT0000000000000AA".to_owned(),
        episode: 1,
        rule: "bad-deploy".to_owned(),
        group: Labels::default(),
        step: 0,
        action: "rollback".to_owned(),
        with: "k8s".to_owned(),
        mutates: true,
        effect: EffectKind::FireOnce,
        args: serde_json::json!({"to": "last_known_good"}),
        lock: String::new(),
        cooldown: Span::ZERO,
        state: ActionState::Succeeded,
        approved: false,
        plan: None,
        attempts: 0,
        retry_at: None,
        handed_on: false,
        planned: at(20),
        started: Some(at(20)),
        ended: Some(at(80)),
        verify_until: Some(at(320)),
        verified_for: Span::ZERO,
        sampled: true,
        fresh_until: None,
        reached: false,
        not_sent: None,
        limit_lifted: false,
        detail: String::new(),
    }
}

fn report() -> Report {
    let pending =
        Incident { id: "pending".to_owned(), detected: None, state: IncidentState::Pending, ..incident() };
    let (incidents, actions) = (vec![incident(), pending], vec![action()]);
    let totals = Totals {
        partitions: 1,
        records: 1_234_570,
        points: 1_234_567,
        events: 2,
        series: 212,
        rows: 300,
        evicted: 0,
        turns: 258,
        findings: 12,
        first: at(-600),
        last: at(1_980),
        refused: vec![(Reason::Malformed, 3)],
        falls: vec![(Fall::Reset, 7), (Fall::Correction, 2)],
    };
    let rules = summarize(&incidents, &actions);
    Report {
        totals,
        incidents,
        actions,
        rules,
        notices: vec!["shop.ndjson:3: not a JSON object".to_owned()],
        times_known: true,
        ..Report::default()
    }
}

fn plans() -> BTreeMap<String, Plan> {
    let body = serde_json::json!({"revision": 3});
    BTreeMap::from([(action().id, Plan { summary: "roll checkout back to 3".to_owned(), body })])
}

fn faults() -> Vec<Fault> {
    let fault = |name: &str, from: i64, to: i64, service: &str| Fault {
        name: name.to_owned(),
        start: at(from),
        end: at(to),
        labels: labels(&[("service", service), ("node", "1")]),
    };
    vec![
        fault("bad_deploy", -5, 60, "checkout"),
        fault("slow", 0, 60, "pay"),
        fault("late", 300, 360, "checkout"),
    ]
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// Guarantee: the summary tells what was in the stream, what happened, what was done, and how long each took.
#[test]
fn for_people() {
    let (report, plans) = (report(), plans());
    let verdict = judge(&faults(), &report);
    let story = Story { report: &report, plans: &plans, verdict: Some(&verdict), seed: None, furthest: &[] };
    let text = plain(&human::render(&story, Some(Duration::from_millis(1_500))));
    let expected = r#"2025-11-23T07:50:00Z to 2025-11-23T08:33:00Z (43m)
212 series, 1,234,567 points, 2 events, read in 1.5 s (823,044 points/s)
12 findings in 300 rows over 258 bins
refused: 3 malformed: they could not be read, the notes name the first

incident bad-deploy {service="checkout"}
  01KARELIGHT0000000000000AA
  onset      2025-11-23T08:00:00Z
  detected   2025-11-23T08:00:20Z  20s after onset
  acted      2025-11-23T08:00:20Z  20s after onset
  recovered  2025-11-23T08:00:50Z  50s after onset: back in its band
  verified   2025-11-23T08:01:20Z  1m20s after onset: the proof of the action held
  state      resolved by an action that was verified (simulated: nothing was touched)
  left       errors{service="checkout"} was 0.3125, above 0.0125, expected 0.004 (score 12.5 by errors_ewma)
  about then 2025-11-23T07:59:30Z  30s before onset: deploy {service="checkout"} v7\u{1b}[2J\nof the shop
  would      1. roll checkout back to 3 (rollback with k8s, 2025-11-23T08:00:20Z) helped

rule        resolved  by action  by itself   detect p50 / p90  recover p50 / p90
bad-deploy         1          1          0          20s / 20s          50s / 50s

labels: 1 of 3 faults caught, 0 false alerts
  2025-11-23T07:59:55Z bad_deploy {node="1",service="checkout"}: caught after 25s by 01KARELIGHT0000000000000AA
  2025-11-23T08:00:00Z slow {node="1",service="pay"}: missed
  2025-11-23T08:05:00Z late {node="1",service="checkout"}: missed
"#;
    assert_eq!(text, expected);
}

#[test]
fn nothing_happened() {
    let report = Report { times_known: true, ..Report::default() };
    let story = Story { report: &report, plans: &BTreeMap::new(), verdict: None, seed: None, furthest: &[] };
    let text = plain(&human::render(&story, None));
    assert_eq!(text, "0 series, 0 points, 0 events\n0 findings in 0 rows over 0 bins\n\nno incidents\n");
    let json = json::render(&story).expect("it can be written");
    assert!(json.contains(r#""first":null"#) && json.lines().count() == 1, "{json}");
    let story = Story { furthest: &[evidence()], ..story };
    let text = plain(&human::render(&story, None));
    let told = "no incidents
what left its band met no rule for long enough; furthest out were:
  2025-11-23T08:00:10Z  errors{service=\"checkout\"} was 0.3125, above 0.0125, expected 0.004 (score 12.5 by errors_ewma)
";
    assert!(text.ends_with(told), "{text}");
}

/// Guarantee: every line is an object with the keys that the help promises, and no figure of the machine's.
#[test]
fn for_programs() {
    let (report, plans) = (report(), plans());
    let verdict = judge(&faults(), &report);
    let story = Story { report: &report, plans: &plans, verdict: Some(&verdict), seed: None, furthest: &[] };
    let text = json::render(&story).expect("it can be written");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let records: Vec<&str> = lines.iter().map(|line| line["record"].as_str().expect("its kind")).collect();
    assert_eq!(records, ["totals", "incident", "action", "rule", "labels", "fault", "fault", "fault"]);
    assert_eq!(lines[0]["refused"], serde_json::json!({"malformed": 3}));
    assert_eq!(lines[0]["counter_falls"], serde_json::json!({"reset": 7, "correction": 2}));
    assert_eq!(lines[1]["onset"], "2025-11-23T08:00:00Z");
    assert_eq!(lines[1]["time_to_recover_s"], 50.0);
    assert_eq!(lines[1]["worst_score"], f64::MAX);
    assert_eq!(lines[1]["evidence"][0]["lower"], serde_json::Value::Null);
    assert_eq!(lines[1]["evidence"][0]["upper"], 0.0125);
    assert_eq!(lines[2]["plan"]["body"]["revision"], 3);
    assert_eq!(lines[3]["time_to_detect_s"]["p90"], 20.0);
    assert_eq!(lines[4]["recall"], 1.0 / 3.0);
    assert_eq!(lines[5]["delay_s"], 25.0);
    assert!(!text.contains("shop.ndjson") && !text.contains("rate"));
    let help = <crate::cli::Cli as clap::CommandFactory>::command();
    let help = help.find_subcommand("replay").and_then(|c| c.get_after_help()).expect("help").to_string();
    for key in lines.iter().flat_map(|line| line.as_object().expect("an object").keys()) {
        assert!(help.contains(key.as_str()), "`{key}` is not in the help");
    }
}

#[test]
fn expectations_hold_or_not() {
    let report = report();
    let verdict = judge(&faults(), &report);
    for (text, with_labels, holds) in [
        ("incidents > 0", false, true),
        ("incidents > 1", false, false),
        ("unresolved != 0", false, false),
        ("time_to_recover_p90 > 49s", false, true),
        ("refused >= 3", false, true),
        ("recall < 0.5", true, true),
        ("delay_p50 > 1m", true, false),
        ("missed == 2", true, true),
    ] {
        let figures = Figures::of(&report, with_labels.then_some(&verdict));
        let failed = expectation::judge(&[text.parse().expect(text)], &figures).is_err();
        assert_eq!(failed, holds, "{text}");
    }
    assert!(expectation::check(&["recall < 1".parse().expect("valid")], false).is_err());
}

#[test]
fn the_command_line_is_sound() {
    <crate::cli::Cli as clap::CommandFactory>::command().debug_assert();
}

/// Guarantee: a fault is told of by what opened or reopened while it lasted or shortly after, never by what
/// was open all along; and what told of no fault is a false alert.
#[test]
fn only_alerts_within_a_fault_are_credited() {
    let report = report();
    // The incident was detected at 20 s and not reopened.
    for (from, to, caught) in [
        (-5, 60, Some(25)),
        (20, 60, Some(0)),
        (21, 60, None),
        (-300, -100, Some(320)),
        (-300, -101, None),
        (-300, 19, Some(320)),
    ] {
        let fault = Fault { start: at(from), end: at(to), ..faults()[0].clone() };
        let verdict = judge(&[fault], &report);
        let delay = verdict.faults[0].by.as_ref().map(|(_, delay)| *delay);
        assert_eq!(delay, caught.map(Span::from_secs), "fault from {from} to {to}");
        assert_eq!(verdict.false_alerts.is_empty(), caught.is_some(), "fault from {from} to {to}");
    }
}
