//! `replay` for people: what was in the stream, what happened in it, and what each rule would have done.

use std::fmt::Write;
use std::time::Duration;

use relight_core::incident::{Action, ActionState, Incident, IncidentState, Resolution};
use relight_core::record::Reason;
use relight_engine::control::summary::Percentiles;
use relight_runtime::{History, Report};

use super::Story;
use super::labels::Verdict;
use crate::output::{BOLD, DIM, GREEN, RED, YELLOW, visible};
use crate::words::{count, grouped, happened, left, live, moments, outcome, resolution, rough};

/// Rows of evidence that are shown of one incident.
const EVIDENCE_SHOWN: usize = 3;
/// Characters that are shown of the name of a fault in a labels file.
const NAME_SHOWN: usize = 100;

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
        left_behind(&mut out, story);
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
    if report.times_known && totals.first.is_known() && totals.last.is_known() {
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
            "{} series, {}, {}{rate}",
            grouped(totals.series),
            count(totals.points, "point"),
            count(totals.events, "event")
        ),
    );
    line(
        out,
        format_args!(
            "{} in {} over {}",
            count(totals.findings, "finding"),
            count(totals.rows, "row"),
            count(totals.turns, "bin")
        ),
    );
    for (reason, n) in &totals.refused {
        line(out, format_args!("{YELLOW}refused{YELLOW:#}: {} {}", grouped(*n), words(*reason)));
    }
}

/// A reason, and what to do about it.
const fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "malformed: they could not be read, the notes name the first",
        Reason::NonFinite => "not finite: NaN or infinite, which no detector can judge",
        Reason::Future => {
            "too far in the future: over 10 minutes, or three times the usual gap of sparse data, ahead of the points before them; check the sender's clock"
        }
        Reason::Late => {
            "late: their bin was closed already; put the capture in order, or raise `allowed_lateness`"
        }
        Reason::Duplicate => "duplicate: sent twice, which does no harm",
        Reason::DuplicateConflict => {
            "in conflict: same series and time, another value, of which the first counts; tell the senders apart by a label"
        }
        Reason::BadHistogram => "bad histograms: bounds must ascend, with one more count than bounds",
        Reason::LabelLimit => {
            "over the limit of labels: too many, one too long, or too much of them in one request"
        }
        Reason::SeriesLimit => "of series beyond `max_series`: raise it, or drop labels that churn",
        Reason::FoldedEarly => {
            "folded early: over 4,096 points of one series in one bin; they count all the same"
        }
        Reason::SourceSeriesLimit => "of series beyond the `max_series` of their source",
        Reason::MemoryLimit => "of new series, while there was no memory for them",
        Reason::DeltaOverlap => {
            "of overlapping deltas: their time is counted already; tell their writers apart by a label"
        }
        Reason::SharedCounter => {
            "of counters that several writers share: which of them is right is not known; give each writer a label of its own"
        }
        Reason::NoRecordedValue => "without a value: an empty field, or a marker that a series ended",
    }
}

fn of_seed(seed: &History) -> String {
    let rows = seed.rows();
    match seed.span() {
        Some((first, effective)) => format!(
            "seeded {} from {first} to {effective}, effective at {effective}",
            count(rows as u64, "row"),
        ),
        None => format!(
            "{YELLOW}seeded no rows{YELLOW:#}: no signal has a value before the last bin of the earlier captures, which is left out"
        ),
    }
}

/// What left its band without becoming an incident.
fn left_behind(out: &mut String, story: &Story<'_>) {
    if story.furthest.is_empty() {
        return;
    }
    line(out, format_args!("what left its band met no rule for long enough; furthest out were:"));
    for evidence in story.furthest {
        let at = if story.report.times_known { format!("{}  ", evidence.at) } else { String::new() };
        line(out, format_args!("  {at}{}", left(evidence)));
    }
}

fn of_incident(out: &mut String, incident: &Incident, story: &Story<'_>) {
    let episode = match incident.episode {
        0 | 1 => String::new(),
        n => format!(", episode {n}"),
    };
    line(out, format_args!("\n{RED}incident{RED:#} {BOLD}{}{BOLD:#} {}", incident.rule, incident.group));
    line(out, format_args!("  {DIM}{}{episode}{DIM:#}", incident.id));
    if story.report.times_known {
        out.push_str(&moments(incident));
    } else {
        line(out, format_args!("  {:<10} not known: the file is not in order of time", "times"));
    }
    line(out, format_args!("  {:<10} {}", "state", state(incident)));
    for evidence in incident.evidence.iter().take(EVIDENCE_SHOWN) {
        line(out, format_args!("  {:<10} {}", "left", left(evidence)));
    }
    for event in &incident.context {
        out.push_str(&happened(event, incident.onset));
    }
    for action in story.report.actions.iter().filter(|action| action.incident == incident.id) {
        of_action(out, action, story);
    }
}

fn state(incident: &Incident) -> String {
    let why = match incident.resolution {
        Some(why @ Resolution::VerifiedAction) => {
            format!("{} (simulated: nothing was touched)", resolution(why))
        }
        Some(why) => resolution(why),
        None if incident.state == IncidentState::Escalated => live(incident.state).to_owned(),
        None => format!("{} at the end of the stream", live(incident.state)),
    };
    if incident.stale { format!("{why}, without data at present") } else { why }
}

fn of_action(out: &mut String, action: &Action, story: &Story<'_>) {
    let what = match story.plans.get(&action.id) {
        Some(plan) => plan.summary.clone(),
        None => action.action.clone(),
    };
    // What blocks says so itself: `blocked by cooldown: ..`.
    let joint = if action.state == ActionState::Blocked { " by " } else { ": " };
    let detail = if action.detail.is_empty() { String::new() } else { format!("{joint}{}", action.detail) };
    let at = action.started.unwrap_or(action.planned);
    let at = if story.report.times_known { format!(", {at}") } else { String::new() };
    line(
        out,
        format_args!(
            "  {:<10} {}. {what} {DIM}({} with {}{at}){DIM:#} {}{detail}",
            "would",
            action.step + 1,
            action.action,
            action.with,
            outcome(action),
        ),
    );
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
            "\n{BOLD}labels{BOLD:#}: {colour}{} of {} caught, {}{colour:#}",
            verdict.caught(),
            count(n as u64, "fault"),
            count(verdict.false_alerts.len() as u64, "false alert")
        ),
    );
    for caught in &verdict.faults {
        let fault = &caught.fault;
        let told = match &caught.by {
            Some((id, delay)) => format!("{GREEN}caught{GREEN:#} after {} by {id}", rough(*delay)),
            None => format!("{RED}missed{RED:#}"),
        };
        line(
            out,
            format_args!("  {} {} {}: {told}", fault.start, visible(&fault.name, NAME_SHOWN), fault.labels),
        );
    }
    for id in &verdict.false_alerts {
        line(out, format_args!("  {YELLOW}false alert{YELLOW:#}: {id}"));
    }
}
