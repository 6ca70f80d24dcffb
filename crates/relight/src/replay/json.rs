//! `replay --json`: one object a line, as its help documents.
//!
//! Nothing in here depends on the machine, the clock, or where a run was stopped and continued; so
//! notices (bad lines of this very run, say) are left to standard error.

use anyhow::Context;
use relight_core::incident::{Action, ActionState, Evidence, Incident};
use relight_core::responder::Plan;
use relight_core::{Span, Timestamp};
use relight_engine::control::summary::{Percentiles, RuleSummary};
use relight_runtime::Totals;
use serde_json::{Map, Value, json};

use super::Story;
use super::labels::{Caught, Verdict};
use crate::failure::Failure;

/// Keys of moments.
const TIMES: [&str; 12] = [
    "first",
    "last",
    "onset",
    "detected",
    "acted",
    "mitigated",
    "recovered",
    "resolved",
    "planned",
    "started",
    "ended",
    "at",
];

pub(super) fn render(story: &Story<'_>) -> Result<String, Failure> {
    let report = story.report;
    let mut lines = vec![totals(&report.totals)];
    lines.extend(report.incidents.iter().filter(|i| i.detected.is_some()).map(incident));
    lines.extend(report.actions.iter().map(|one| action(one, story.plans.get(&one.id))));
    lines.extend(report.rules.iter().map(rule));
    if !report.times_known {
        lines.iter_mut().for_each(forget_times);
    }
    if let Some(verdict) = story.verdict {
        lines.push(labels(verdict));
        lines.extend(verdict.faults.iter().map(fault));
    }
    in_lines(&lines)
}

/// Newline-delimited JSON.
pub(crate) fn in_lines(lines: &[Value]) -> Result<String, Failure> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line)
            .context("failed to write the report as JSON")
            .map_err(Failure::Run)?;
        text.push('\n');
    }
    Ok(text)
}

fn totals(totals: &Totals) -> Value {
    let refused: Map<String, Value> =
        totals.refused.iter().map(|(reason, n)| (reason.name().to_owned(), json!(n))).collect();
    let falls: Map<String, Value> =
        totals.falls.iter().map(|(fall, n)| (fall.name().to_owned(), json!(n))).collect();
    json!({
        "record": "totals",
        "partitions": totals.partitions,
        "records": totals.records,
        "points": totals.points,
        "events": totals.events,
        "series": totals.series,
        "rows": totals.rows,
        "bins": totals.turns,
        "findings": totals.findings,
        "first": known(totals.first),
        "last": known(totals.last),
        "refused": refused,
        "counter_falls": falls,
    })
}

fn known(at: Timestamp) -> Option<Timestamp> {
    at.is_known().then_some(at)
}

/// An incident, as every listing has it.
pub(crate) fn incident(incident: &Incident) -> Value {
    let since_onset = |at: Option<Timestamp>| at.map(|at| at.since(incident.onset).secs_f64());
    json!({
        "record": "incident",
        "id": incident.id,
        "rule": incident.rule,
        "group": incident.group,
        "state": incident.state,
        "episode": incident.episode,
        "stale": incident.stale,
        "onset": incident.onset,
        "detected": incident.detected,
        "acted": incident.acted,
        "mitigated": incident.mitigated,
        "recovered": incident.recovered,
        "resolved": incident.resolved,
        "resolution": incident.resolution,
        "time_to_detect_s": since_onset(incident.detected),
        "time_to_recover_s": since_onset(incident.recovered),
        "findings": incident.findings,
        "worst_score": finite(incident.worst_score),
        "evidence": incident.evidence.iter().map(evidence).collect::<Vec<Value>>(),
        "context": incident.context,
        "timeline": incident.timeline,
    })
}

/// Evidence whose bounds are numbers, or null where there is none.
fn evidence(evidence: &Evidence) -> Value {
    let Evidence { detector, signal, labels, at, value, score, expected, lower, upper } = evidence;
    // serde_json writes what is not finite as null.
    json!({
        "detector": detector,
        "signal": signal,
        "labels": labels,
        "at": at,
        "value": value,
        "score": finite(*score),
        "expected": expected,
        "lower": lower,
        "upper": upper,
    })
}

/// The keys of times that were made up, wherever they stand, become null.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                // A rule's `resolved` is a count.
                let is_time = TIMES.contains(&key.as_str()) && field.is_string();
                if is_time || key.ends_with("_s") {
                    *field = Value::Null;
                } else {
                    forget_times(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        _ => {}
    }
}

/// JSON has no infinity; the largest number there is says as much.
fn finite(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

/// An action, as every listing has it. A replay's plans are made afterwards.
pub(crate) fn action(action: &Action, plan: Option<&Plan>) -> Value {
    let mut value = json!({
        "record": "action",
        "id": action.id,
        "incident": action.incident,
        "episode": action.episode,
        "rule": action.rule,
        "step": action.step,
        "do": action.action,
        "with": action.with,
        "mutates": action.mutates,
        "args": action.args,
        "state": action.state,
        "planned": action.planned,
        "started": action.started,
        "ended": action.ended,
        "detail": action.detail,
        "plan": plan,
    });
    if action.state == ActionState::Failed && action.was_never_sent() {
        value["not_sent"] = json!(action.not_sent);
    }
    value
}

fn rule(rule: &RuleSummary) -> Value {
    json!({
        "record": "rule",
        "rule": rule.rule,
        "resolved": rule.resolved,
        "by_verified_action": rule.by_verified_action,
        "by_themselves": rule.by_themselves,
        "new_normal": rule.new_normal,
        "closed": rule.closed,
        "time_to_detect_s": seconds(rule.time_to_detect),
        "time_to_act_s": seconds(rule.time_to_act),
        "time_to_recover_s": seconds(rule.time_to_recover),
        "time_to_recover_by_themselves_s": seconds(rule.time_to_recover_by_themselves),
    })
}

fn seconds(percentiles: Option<Percentiles>) -> Value {
    percentiles.map_or(Value::Null, |p| json!({"p50": p.p50.secs_f64(), "p90": p.p90.secs_f64()}))
}

fn labels(verdict: &Verdict) -> Value {
    let delay = super::figures::percentiles(verdict.delays()).map(|(p50, p90)| Percentiles { p50, p90 });
    json!({
        "record": "labels",
        "faults": verdict.faults.len(),
        "caught": verdict.caught(),
        "recall": verdict.recall(),
        "false_alerts": verdict.false_alerts,
        "delay_s": seconds(delay),
    })
}

fn fault(caught: &Caught) -> Value {
    let fault = &caught.fault;
    json!({
        "record": "fault",
        "fault": fault.name,
        "start": fault.start,
        "end": fault.end,
        "labels": fault.labels,
        "incident": caught.by.as_ref().map(|(id, _)| id),
        "delay_s": caught.by.as_ref().map(|(_, delay): &(String, Span)| delay.secs_f64()),
    })
}
