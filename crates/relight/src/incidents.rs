//! `relight incidents`: what a daemon has in hand, as its ledger says it. Changes nothing.

use std::fmt::Write as _;

use relight_core::Timestamp;
use relight_core::incident::{Action, ActionState, Hold, Incident, LedgerState};
use relight_runtime::{Clock as _, SystemClock};
use relight_store::StateDir;
use serde_json::{Value, json};

use crate::cli::IncidentsArgs;
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM, GREEN, RED, YELLOW, visible};
use crate::replay::json;
use crate::steer;
use crate::words::{REASON_SHOWN, grouped, happened, left, live, moments, resolution, shown, step};

pub(crate) fn run(args: &IncidentsArgs) -> Result<(), Failure> {
    let state = steer::state_of(&args.at)?;
    let mut ledger = StateDir::look(&state)?;
    // What has run out stays in the ledger. Control time is ahead of a wall clock that was set back.
    let control = ledger.applied_through.map_or(Timestamp::MIN, |applied| applied.control);
    let now = SystemClock::default().wall().max(control);
    ledger.holds.retain(|(_, hold)| hold.until.is_none_or(|until| until > now));
    if let Some(id) = &args.incident {
        let incident = named(&ledger, id)?;
        let actions = actions_of(&ledger, incident);
        let text =
            if args.json { json::in_lines(&as_json([incident], actions))? } else { whole(incident, actions) };
        return output::print(&text);
    }
    let incidents = || ledger.incidents.iter().filter(|one| args.all || is_open(one));
    if args.json {
        let actions = incidents().flat_map(|incident| actions_of(&ledger, incident));
        let mut lines = as_json(incidents(), actions);
        lines.extend(ledger.holds.iter().map(hold_as_json));
        lines.extend(
            breakers(&ledger).map(|(rule, n)| json!({"record": "breaker", "rule": rule, "count": n})),
        );
        return output::print(&json::in_lines(&lines)?);
    }
    let mut text = String::new();
    for incident in incidents() {
        text += &brief(incident, actions_of(&ledger, incident));
    }
    if text.is_empty() {
        writeln!(text, "{GREEN}no open incidents{GREEN:#}").expect(ANY_TEXT);
    }
    output::print(&(text + &stands_still(&ledger)))
}

const ANY_TEXT: &str = "a String takes any text";

/// Whether people have heard of it, and it is not over.
pub(crate) fn is_open(incident: &Incident) -> bool {
    incident.is_live() && incident.detected.is_some()
}

fn named<'a>(ledger: &'a LedgerState, id: &str) -> Result<&'a Incident, Failure> {
    let known = ledger.incidents.iter().find(|incident| incident.id == id);
    known.ok_or_else(|| {
        Failure::usage(format_args!("no incident is named `{id}`; `relight incidents --all` lists them"))
    })
}

fn actions_of<'a>(ledger: &'a LedgerState, incident: &'a Incident) -> impl Iterator<Item = &'a Action> {
    ledger.actions.iter().filter(|action| action.incident == incident.id)
}

/// Breakers that have counted something.
fn breakers(ledger: &LedgerState) -> impl Iterator<Item = &(String, u32)> {
    ledger.breakers.iter().filter(|(_, count)| *count > 0)
}

fn as_json<'a>(
    incidents: impl IntoIterator<Item = &'a Incident>,
    actions: impl Iterator<Item = &'a Action>,
) -> Vec<Value> {
    let incidents = incidents.into_iter().map(json::incident);
    incidents.chain(actions.map(|action| json::action(action, action.plan.as_ref()))).collect()
}

fn hold_as_json((name, hold): &(String, Hold)) -> Value {
    json!({"record": "hold", "hold": name, "until": hold.until, "why": hold.why})
}

/// Two lines, and one for each step of its present episode.
fn brief<'a>(incident: &Incident, actions: impl Iterator<Item = &'a Action>) -> String {
    let mut text = format!("{}, {}, onset {}\n", head(incident), state(incident), incident.onset);
    if let Some(evidence) = incident.evidence.first() {
        writeln!(text, "  {:<10} {}", "left", left(evidence)).expect(ANY_TEXT);
    }
    for action in actions.filter(|action| action.episode == incident.episode) {
        text += &of_action(action);
    }
    text
}

/// All that is known of one.
fn whole<'a>(incident: &Incident, actions: impl Iterator<Item = &'a Action>) -> String {
    let mut text = format!("{}\n{}", head(incident), moments(incident));
    writeln!(text, "  {:<10} {}", "state", state(incident)).expect(ANY_TEXT);
    for evidence in &incident.evidence {
        writeln!(text, "  {:<10} {}", "left", left(evidence)).expect(ANY_TEXT);
    }
    incident.context.iter().for_each(|event| text += &happened(event, incident.onset));
    actions.for_each(|action| text += &of_action(action));
    for (n, moment) in incident.timeline.iter().enumerate() {
        if incident.moments_cut > 0 && n + 1 == incident.timeline.len() {
            writeln!(text, "  {DIM}({} moments cut){DIM:#}", grouped(incident.moments_cut)).expect(ANY_TEXT);
        }
        let detail = visible(&moment.detail, REASON_SHOWN);
        writeln!(text, "  {DIM}{} {} {detail}{DIM:#}", moment.at, moment.what).expect(ANY_TEXT);
    }
    text
}

fn head(incident: &Incident) -> String {
    let Incident { id, rule, group, .. } = incident;
    format!("{RED}incident{RED:#} {BOLD}{id}{BOLD:#} {rule} {}", shown(group))
}

fn state(incident: &Incident) -> String {
    let state = incident.resolution.map_or_else(|| live(incident.state).to_owned(), resolution);
    let episode =
        if incident.episode > 1 { format!(", episode {}", incident.episode) } else { String::new() };
    let stale = if incident.stale { ", without data at present" } else { "" };
    format!("{state}{episode}{stale}")
}

fn of_action(action: &Action) -> String {
    let asked = match action.state {
        ActionState::AwaitingApproval => {
            format!(": `relight approve {0}` or `relight reject {0}`", action.id)
        }
        _ => String::new(),
    };
    format!(
        "  {:<10} {}{asked} {DIM}({}){DIM:#}\n",
        "step",
        step(action),
        action.started.unwrap_or(action.planned)
    )
}

/// What keeps relight from changing anything.
fn stands_still(ledger: &LedgerState) -> String {
    let mut text = String::new();
    for (name, Hold { until, why }) in &ledger.holds {
        let until = until.map_or("`relight resume`".to_owned(), |until| until.to_string());
        let why = visible(why, REASON_SHOWN);
        writeln!(text, "{YELLOW}held back{YELLOW:#} by {name} until {until}: {why}").expect(ANY_TEXT);
    }
    for (rule, count) in breakers(ledger) {
        writeln!(
            text,
            "{YELLOW}breaker{YELLOW:#} of {rule}: {count} in a row of its actions did not help; `relight reset {rule}` sets it back"
        )
        .expect(ANY_TEXT);
    }
    text
}
