//! `replay` for people: what was in the stream, what happened in it, and what each rule would have done.

use std::fmt::Write;
use std::time::Duration;

use relight_core::Timestamp;
use relight_core::incident::{Action, ActionState, Evidence, Incident, IncidentState, Resolution};
use relight_engine::control::summary::Percentiles;
use relight_runtime::{History, Report};

use super::Story;
use super::figures::{grouped, rough, short};
use super::labels::Verdict;
use crate::output::{BOLD, DIM, GREEN, RED, YELLOW};

/// Rows of evidence that are shown of one incident.
const EVIDENCE_SHOWN: usize = 3;

/// The summary. `run_time` is how long it took; without it, no rate is told.
pub(super) fn render(story: &Story<'_>, run_time: Option<Duration>) -> String {
    let mut out = String::new();
    let report = story.report;
    stream(&mut out, report, run_time);
    if let Some(seed) = story.seed {
        line(&mut out, format_args!("{}", of_seed(seed)));
    }
    let incidents: Vec<&Incident> = report.incidents.iter().filter(|i| i.detected.is_some()).collect();
    if incidents.is_empty() {
        line(&mut out, format_args!("\n{GREEN}no incidents{GREEN:#}"));
    }
    for incident in incidents {
        of_incident(&mut out, incident, story);
    }
    rules(&mut out, report);
    if let Some(verdict) = story.verdict {
        labels(&mut out, verdict);
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes every line");
}

fn stream(out: &mut String, report: &Report, run_time: Option<Duration>) {
    let totals = &report.totals;
    if totals.first.is_known() && totals.last.is_known() {
        let length = rough(totals.last.since(totals.first));
        line(out, format_args!("{BOLD}{} to {}{BOLD:#} ({length})", totals.first, totals.last));
    }
    // A rate of what took no time means nothing.
    let rate = run_time.filter(|time| time.as_millis() >= 100).map_or_else(String::new, |time| {
        let secs = time.as_secs_f64();
        format!(", read in {secs:.1} s ({} points/s)", grouped((totals.points as f64 / secs) as u64))
    });
    line(
        out,
        format_args!(
            "{} series, {} points, {} events{rate}",
            grouped(totals.series),
            grouped(totals.points),
            grouped(totals.events)
        ),
    );
    line(
        out,
        format_args!(
            "{} findings in {} rows over {} bins",
            grouped(totals.findings),
            grouped(totals.rows),
            grouped(totals.turns)
        ),
    );
    if !totals.refused.is_empty() {
        let refused: Vec<String> =
            totals.refused.iter().map(|(reason, n)| format!("{} {}", grouped(*n), reason.name())).collect();
        line(out, format_args!("{YELLOW}refused{YELLOW:#}: {}", refused.join(", ")));
    }
}

fn of_seed(seed: &History) -> String {
    let rows = seed.rows();
    match seed.span() {
        Some((first, effective)) => format!(
            "seeded {} row{} from {first} to {effective}, effective at {effective}",
            grouped(rows as u64),
            if rows == 1 { "" } else { "s" },
        ),
        None => format!("{YELLOW}seeded no rows{YELLOW:#}: the earlier captures hold no values"),
    }
}

fn of_incident(out: &mut String, incident: &Incident, story: &Story<'_>) {
    let episode = match incident.episode {
        0 | 1 => String::new(),
        n => format!(", episode {n}"),
    };
    line(out, format_args!("\n{RED}incident{RED:#} {BOLD}{}{BOLD:#} {}", incident.rule, incident.group));
    line(out, format_args!("  {DIM}{}{episode}{DIM:#}", incident.id));
    moment(out, "onset", Some(incident.onset), incident.onset);
    moment(out, "detected", incident.detected, incident.onset);
    moment(out, "acted", incident.acted, incident.onset);
    moment(out, "mitigated", incident.mitigated, incident.onset);
    moment(out, "recovered", incident.recovered, incident.onset);
    line(out, format_args!("  {:<10} {}", "state", state(incident)));
    for evidence in incident.evidence.iter().take(EVIDENCE_SHOWN) {
        band(out, evidence);
    }
    for action in story.report.actions.iter().filter(|action| action.incident == incident.id) {
        of_action(out, action, story);
    }
}

fn moment(out: &mut String, what: &str, at: Option<Timestamp>, onset: Timestamp) {
    let Some(at) = at else { return };
    let after = if at == onset { String::new() } else { format!("  {} after onset", rough(at.since(onset))) };
    line(out, format_args!("  {what:<10} {at}{after}"));
}

fn state(incident: &Incident) -> String {
    let why = match incident.resolution {
        Some(Resolution::VerifiedAction) => {
            format!("{GREEN}resolved{GREEN:#} by an action that was verified")
        }
        Some(Resolution::SelfRecovered) => format!("{GREEN}resolved{GREEN:#}, recovered by itself"),
        Some(Resolution::NewNormal) => "over: the new level was learned as normal".to_owned(),
        Some(Resolution::Human) => "closed by a human".to_owned(),
        Some(Resolution::RuleRemoved) => "closed with its rule".to_owned(),
        None => live(incident.state).to_owned(),
    };
    if incident.stale { format!("{why}, without data at present") } else { why }
}

const fn live(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Pending => "pending",
        IncidentState::Open => "open at the end of the stream",
        IncidentState::Responding => "responding at the end of the stream",
        IncidentState::Mitigated => "mitigated, not yet resolved at the end of the stream",
        IncidentState::Recovering => "recovering at the end of the stream",
        IncidentState::Resolved => "resolved",
        IncidentState::Escalated => "escalated: a human has to look",
    }
}

fn band(out: &mut String, evidence: &Evidence) {
    let Evidence { detector, signal, labels, value, score, expected, lower, upper, .. } = evidence;
    let seen = if value.is_nan() { "no data".to_owned() } else { short(*value) };
    let band = match (lower.is_finite(), upper.is_finite()) {
        // A change of context: no single value is to blame, but where and how widely they lie.
        (true, true) if evidence.band().holds(*value) => {
            format!("in its band {} .. {}, but level or spread has moved", short(*lower), short(*upper))
        }
        (true, true) => format!("outside {} .. {}", short(*lower), short(*upper)),
        (true, false) => format!("below {}", short(*lower)),
        (false, true) => format!("above {}", short(*upper)),
        (false, false) => "anomalous".to_owned(),
    };
    let expected =
        if expected.is_finite() { format!(", expected {}", short(*expected)) } else { String::new() };
    line(
        out,
        format_args!(
            "  {:<10} {signal}{labels} was {BOLD}{seen}{BOLD:#}, {band}{expected} {DIM}(score {} by {detector}){DIM:#}",
            "left",
            short(*score)
        ),
    );
}

fn of_action(out: &mut String, action: &Action, story: &Story<'_>) {
    let what = match story.plans.get(&action.id) {
        Some(plan) => plan.summary.clone(),
        None => action.action.clone(),
    };
    let detail = if action.detail.is_empty() { String::new() } else { format!(": {}", action.detail) };
    line(
        out,
        format_args!(
            "  {:<10} {}. {what} {DIM}({} with {}, {}){DIM:#} {}{detail}",
            "would",
            action.step + 1,
            action.action,
            action.with,
            action.started.unwrap_or(action.planned),
            outcome(action),
        ),
    );
}

fn outcome(action: &Action) -> String {
    match action.state {
        // A step without a proof has no more to show than that it went out.
        ActionState::Succeeded if action.verify_until.is_none() => "sent".to_owned(),
        ActionState::Succeeded => format!("{GREEN}helped{GREEN:#}"),
        ActionState::Planned => "planned".to_owned(),
        ActionState::Blocked => format!("{YELLOW}blocked{YELLOW:#}"),
        ActionState::AwaitingApproval => format!("{YELLOW}awaits approval{YELLOW:#}"),
        ActionState::Pending => "pending".to_owned(),
        ActionState::Running => "running".to_owned(),
        ActionState::Unknown => format!("{YELLOW}unknown{YELLOW:#}"),
        ActionState::Verifying => "being verified".to_owned(),
        ActionState::Ineffective => format!("{RED}did not help{RED:#}"),
        ActionState::Inconclusive => "inconclusive".to_owned(),
        ActionState::Failed => format!("{RED}failed{RED:#}"),
    }
}

fn rules(out: &mut String, report: &Report) {
    if report.rules.is_empty() {
        return;
    }
    let width = report.rules.iter().map(|rule| rule.rule.chars().count()).max().unwrap_or(0).max(4);
    line(
        out,
        format_args!(
            "\n{BOLD}{:<width$}  {:>8}  {:>9}  {:>9}  {:>17}  {:>17}{BOLD:#}",
            "rule", "resolved", "by action", "by itself", "detect p50 / p90", "recover p50 / p90"
        ),
    );
    for rule in &report.rules {
        line(
            out,
            format_args!(
                "{:<width$}  {:>8}  {:>9}  {:>9}  {:>17}  {:>17}",
                rule.rule,
                rule.resolved,
                rule.by_verified_action,
                rule.by_themselves,
                both(rule.time_to_detect),
                both(rule.time_to_recover)
            ),
        );
    }
}

fn both(percentiles: Option<Percentiles>) -> String {
    percentiles.map_or_else(|| "-".to_owned(), |p| format!("{} / {}", rough(p.p50), rough(p.p90)))
}

fn labels(out: &mut String, verdict: &Verdict) {
    let n = verdict.faults.len();
    let missed = n - verdict.caught();
    let colour = if missed == 0 && verdict.false_alerts.is_empty() { GREEN } else { YELLOW };
    line(
        out,
        format_args!(
            "\n{BOLD}labels{BOLD:#}: {colour}{} of {n} faults caught, {} false alert{}{colour:#}",
            verdict.caught(),
            verdict.false_alerts.len(),
            if verdict.false_alerts.len() == 1 { "" } else { "s" }
        ),
    );
    for caught in &verdict.faults {
        let fault = &caught.fault;
        let told = match &caught.by {
            Some((id, delay)) => format!("{GREEN}caught{GREEN:#} after {} by {id}", rough(*delay)),
            None => format!("{RED}missed{RED:#}"),
        };
        line(out, format_args!("  {} {} {}: {told}", fault.start, fault.name, fault.labels));
    }
    for id in &verdict.false_alerts {
        line(out, format_args!("  {YELLOW}false alert{YELLOW:#}: {id}"));
    }
}
