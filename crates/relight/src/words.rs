//! How figures, incidents and actions are said, wherever they are: in a replay's summary, in the daemon's log, in a listing.

use relight_core::incident::{Action, ActionState, Evidence, Incident, IncidentState, Resolution};
use relight_core::record::Event;
use relight_core::{Labels, Span, Timestamp};

use crate::output::{BOLD, DIM, GREEN, RED, YELLOW, visible};

/// Characters that are shown of a row's name.
const ROW_SHOWN: usize = 400;
/// Characters that are shown of a group.
const GROUP_SHOWN: usize = 400;
/// Characters that are shown of a plan, an answer or a reason.
pub(crate) const REASON_SHOWN: usize = 300;
/// Characters that are shown of an event's text.
const TEXT_SHOWN: usize = 120;

/// Its moments, a line each, in order of time: a proof may come after the group was back in its band, or before.
pub(crate) fn moments(incident: &Incident) -> String {
    let moments = [
        ("onset", Some(incident.onset), ""),
        ("detected", incident.detected, ""),
        ("acted", incident.acted, ""),
        ("recovered", incident.recovered, ": back in its band"),
        ("verified", incident.mitigated, ": the proof of the action held"),
    ];
    let mut known: Vec<(&str, Timestamp, &str)> =
        moments.into_iter().filter_map(|(what, at, means)| Some((what, at?, means))).collect();
    known.sort_by_key(|(_, at, _)| *at);
    let line = |(what, at, means): (&str, Timestamp, &str)| {
        let after = match what {
            "onset" => String::new(),
            _ => format!("  {} after onset{means}", rough(at.since(incident.onset))),
        };
        format!("  {what:<10} {at}{after}\n")
    };
    known.into_iter().map(line).collect()
}

/// How far an incident has come that has not ended.
pub(crate) const fn live(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Pending => "pending",
        IncidentState::Open => "open",
        IncidentState::Responding => "responding",
        IncidentState::Mitigated => "mitigated, not yet resolved",
        IncidentState::Recovering => "recovering",
        IncidentState::Resolved => "resolved",
        IncidentState::Escalated => "escalated: a human has to look",
    }
}

/// How an incident came to its end.
pub(crate) fn resolution(why: Resolution) -> String {
    match why {
        Resolution::VerifiedAction => format!("{GREEN}resolved{GREEN:#} by an action that was verified"),
        Resolution::SelfRecovered => format!("{GREEN}resolved{GREEN:#}, recovered by itself"),
        Resolution::NewNormal => "over: the new level was learned as normal".to_owned(),
        Resolution::Human => "closed by a human".to_owned(),
        Resolution::RuleRemoved => "closed with its rule".to_owned(),
        Resolution::Gone => "closed: its series have been silent for too long".to_owned(),
    }
}

/// Which row left its band, and how.
pub(crate) fn left(evidence: &Evidence) -> String {
    let Evidence { detector, signal, labels, value, score, expected, .. } = evidence;
    let row = visible(&format!("{signal}{labels}"), ROW_SHOWN);
    let seen = if value.is_nan() { "no data".to_owned() } else { short(*value) };
    let band = evidence.in_words(short);
    let expected =
        if expected.is_finite() { format!(", expected {}", short(*expected)) } else { String::new() };
    let score = short(*score);
    format!("{row} was {BOLD}{seen}{BOLD:#}, {band}{expected} {DIM}(score {score} by {detector}){DIM:#}")
}

/// A line about it. Foreign text: what could move a terminal's cursor, or turn a line around, is escaped.
pub(crate) fn happened(event: &Event, onset: Timestamp) -> String {
    let rest = if event.body.chars().nth(TEXT_SHOWN).is_some() { "..." } else { "" };
    let text: String = event.body.chars().take(TEXT_SHOWN).collect();
    let (at, text) = (event.at, text.escape_debug());
    format!("  {:<10} {at}  {} {DIM}{text}{rest}{DIM:#}\n", "about then", beside(event, onset))
}

/// What happened, and how long before or after the onset.
pub(crate) fn beside(event: &Event, onset: Timestamp) -> String {
    let Event { at, kind, labels, .. } = event;
    let (apart, side) = if *at < onset { (onset.since(*at), "before") } else { (at.since(onset), "after") };
    format!("{} {side} onset: {} {labels}", rough(apart), kind.escape_debug())
}

/// A group, on one line.
pub(crate) fn shown(group: &Labels) -> String {
    visible(&group.to_string(), GROUP_SHOWN)
}

/// An action: which step it is, how far it has come, and what was said about that.
pub(crate) fn step(action: &Action) -> String {
    let Action { with, step, attempts, state, .. } = action;
    let come = match state {
        ActionState::Running => "started".to_owned(),
        ActionState::Pending if *attempts == 0 => "waits for its turn".to_owned(),
        ActionState::Pending => format!("{YELLOW}did not get through{YELLOW:#}, and is tried again"),
        ActionState::Verifying => "carried out, and being verified".to_owned(),
        _ => outcome(action),
    };
    let tries = if *attempts > 1 { format!(" with attempt {attempts}") } else { String::new() };
    // What blocks says so itself: `blocked by cooldown: ..`.
    let joint = if *state == ActionState::Blocked { " by " } else { ": " };
    // What is under way has not been answered, but has a plan.
    let said = match (state, &action.plan) {
        (ActionState::Running, plan) => plan.as_ref().map_or("", |plan| &plan.summary),
        _ => &action.detail,
    };
    let said =
        if said.is_empty() { String::new() } else { format!("{joint}{}", visible(said, REASON_SHOWN)) };
    let (number, what) = (step + 1, &action.action);
    format!("{number}. {what} with {with} {come}{tries}{said}")
}

/// How far a step has come.
pub(crate) fn outcome(action: &Action) -> String {
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
        ActionState::Failed if action.not_sent.is_some() => format!("{RED}not sent{RED:#}"),
        ActionState::Failed => format!("{RED}failed{RED:#}"),
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 row`, `2,000 rows`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// A value to four significant digits.
pub(crate) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..15.0).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let decimals = (3.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A length of time without what nobody reads: whole seconds from ten seconds on, else milliseconds.
pub(crate) fn rough(span: Span) -> String {
    let unit = if span.ns().abs() >= 10_000_000_000 { 1_000_000_000 } else { 1_000_000 };
    Span::from_ns((span.ns() as f64 / unit as f64).round() as i64 * unit).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: figures are short, and say as much as anybody reads.
    #[test]
    fn figures_for_people() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.123_456, "0.1235"),
            (-12.5, "-12.5"),
            (123_456.7, "123457"),
            (1e20, "1.000e20"),
            (1.5e-7, "1.500e-7"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), text);
        }
        for (ns, text) in
            [(0, "0s"), (1_234_567_890, "1s235ms"), (99_600_000_000, "1m40s"), (-20_000_000_000, "-20s")]
        {
            assert_eq!(rough(Span::from_ns(ns)), text);
        }
    }
}
