//! Rules: conditions compiled, groups checked, ladders resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relight_core::Span;
use relight_core::rule::{Condition, DetectorUse, GroupBy, ITSELF, Limits, Mode, RuleSpec, Step, Verify};
use relight_core::signal::{By, SignalKind, SignalSpec};
use serde_json::Value;

use crate::builtin;
use crate::condition::Cel;
use crate::errors::no_such;
use crate::names::Scope;
use crate::raw;
use crate::report::Report;
use crate::resolve::{Ready, read};

/// Between two actions that change the world on one target, unless the step says otherwise.
const MUTATING_COOLDOWN: Span = Span::from_secs(600);

/// What rules may refer to; an entry that is faulty itself is known, but empty.
pub(crate) struct Surroundings<'a> {
    pub(crate) signals: &'a BTreeMap<String, Option<SignalSpec>>,
    pub(crate) detectors: &'a BTreeMap<String, Option<DetectorUse>>,
    pub(crate) responders: &'a BTreeMap<String, Option<Ready>>,
    pub(crate) mode: Mode,
}

/// Resolves all rules; the faulty ones are left out, and so are those that are off: nobody evaluates them.
pub(crate) fn rules(written: Vec<Value>, around: &Surroundings<'_>, report: &mut Report) -> Vec<RuleSpec> {
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for (i, entry) in written.into_iter().enumerate() {
        let path = format!("rules[{i}]");
        let Some(raw) = read::<raw::Rule>(entry, &path, report) else {
            continue;
        };
        if raw.name.as_ref().is_some_and(|name| name.is_empty() || !names.insert(name.clone())) {
            report.error(&format!("{path}.name"), "each rule needs a name of its own");
        }
        if raw.name.as_deref() == Some(ITSELF) {
            report.error(&format!("{path}.name"), "relight keeps this name for trouble of its own");
        }
        let is_off = raw.mode == Mode::Off;
        rules.extend(rule(raw, around, &path, report).filter(|_| !is_off));
    }
    rules
}

fn rule(raw: raw::Rule, around: &Surroundings<'_>, path: &str, report: &mut Report) -> Option<RuleSpec> {
    let Conditions { when, requirements } = conditions(&raw, around, path, report);
    let mut used: BTreeSet<usize> = when.iter().flat_map(Cel::detectors).collect();
    check_when(when.as_ref(), &format!("{path}.when"), report);
    used.extend(requirements.iter().flatten().flat_map(Cel::detectors));
    let group_by = match raw.group_by {
        Some(labels) => chosen_groups(labels, &used, around, path, report),
        None => common_groups(when.as_ref(), &used, around, path, report),
    };
    let detectors: Vec<usize> = used.into_iter().collect();
    let steps = raw.respond.into_iter().zip(requirements).enumerate().map(|(i, (step, require))| {
        let require = require.map(|cel| Arc::new(cel.bind(&detectors)) as Arc<dyn Condition>);
        let mode = raw.mode.min(around.mode);
        self::step(step?, require, mode, around, &format!("{path}.respond[{i}]"), report)
    });
    let respond: Vec<Option<Step>> = steps.collect();
    Some(RuleSpec {
        name: raw.name?,
        when: Arc::new(when?.bind(&detectors)),
        detectors,
        hold: raw.r#for,
        hold_turns: 1,
        keep_firing: raw.keep_firing_for,
        reopen_within: raw.reopen_within,
        max_flaps: raw.max_flaps,
        group_by,
        respond: respond.into_iter().collect::<Option<_>>()?,
        breaker_after: raw.circuit_breaker.open_after,
    })
}

/// The compiled conditions of a rule; those that are faulty, or missing, are not there.
struct Conditions {
    when: Option<Cel>,
    /// One a step.
    requirements: Vec<Option<Cel>>,
}

fn conditions(raw: &raw::Rule, around: &Surroundings<'_>, path: &str, report: &mut Report) -> Conditions {
    let names: Vec<String> = around.detectors.keys().cloned().collect();
    let scope = Scope { detectors: &names, group: raw.group_by.as_deref() };
    let mut compile = |text: &str, path: &str| match Cel::compile(text, &scope) {
        Ok(condition) => Some(condition),
        Err(messages) => {
            for message in messages {
                report.error(path, message);
            }
            None
        }
    };
    let when = raw.when.as_ref().and_then(|when| compile(when, &format!("{path}.when")));
    let requirements = raw.respond.iter().enumerate().map(|(i, step)| {
        let require = step.as_ref()?.verify.as_ref()?.require.as_ref()?;
        compile(require, &format!("{path}.respond[{i}].verify.require"))
    });
    Conditions { when, requirements: requirements.collect() }
}

fn check_when(when: Option<&Cel>, path: &str, report: &mut Report) {
    let Some(when) = when else { return };
    if when.detectors().is_empty() {
        report.error(path, "names no detector: nothing would ever evaluate it");
    } else if when.holds_when_calm() {
        report.error(path, "can be true with every score 0: it would not end");
    }
}

/// A detector of a rule, its signal, and the labels that its rows have.
type Rows<'a> = Vec<(&'a String, &'a String, &'a Vec<String>)>;

/// The detectors of a rule whose rows have certain labels only.
fn rows<'a>(used: &BTreeSet<usize>, around: &Surroundings<'a>) -> Rows<'a> {
    let detectors: Vec<(&String, &Option<DetectorUse>)> = around.detectors.iter().collect();
    let signals: Vec<&Option<SignalSpec>> = around.signals.values().collect();
    let rows = used.iter().filter_map(|ix| {
        let (name, detector) = detectors[*ix];
        match signals[detector.as_ref()?.signal].as_ref()? {
            SignalSpec { kind: SignalKind::EverySeries, .. } | SignalSpec { by: By::All, .. } => None,
            SignalSpec { by: By::Labels(by), name: signal, .. } => Some((name, signal, by)),
        }
    });
    rows.collect()
}

/// The groups that a rule names; every detector's rows must have their labels.
fn chosen_groups(
    labels: Vec<String>,
    used: &BTreeSet<usize>,
    around: &Surroundings<'_>,
    path: &str,
    report: &mut Report,
) -> GroupBy {
    for (detector, signal, by) in rows(used, around) {
        for label in labels.iter().filter(|label| !by.contains(label)) {
            let have = by.join(", ");
            report.error(
                &format!("{path}.group_by"),
                format!("`{detector}` cannot be grouped by `{label}`: its signal `{signal}` is by [{have}]"),
            );
        }
    }
    GroupBy::Labels(labels)
}

/// The groups of a rule that names none: by the labels that the rows of all its detectors have.
fn common_groups(
    when: Option<&Cel>,
    used: &BTreeSet<usize>,
    around: &Surroundings<'_>,
    path: &str,
    report: &mut Report,
) -> GroupBy {
    let rows = rows(used, around);
    let Some((_, _, first)) = rows.first() else {
        return builtin::per_service();
    };
    let common = first.iter().filter(|label| rows.iter().all(|(_, _, by)| by.contains(label)));
    let common: Vec<String> = common.cloned().collect();
    for label in when.into_iter().flat_map(Cel::labels).filter(|label| !common.contains(label)) {
        let message = no_such("label of its groups", &label, common.iter().map(String::as_str));
        report.error(&format!("{path}.when"), format!("group.{label}: {message}; `group_by` would add it"));
    }
    GroupBy::Labels(common)
}

fn step(
    raw: raw::Step,
    require: Option<Arc<dyn Condition>>,
    mode: Mode,
    around: &Surroundings<'_>,
    path: &str,
    report: &mut Report,
) -> Option<Step> {
    let verify = raw.verify.map(|verify| self::verify(&verify, require, path, report));
    let with = raw.with?;
    let Some(ready) = around.responders.get(&with) else {
        let have = around.responders.keys().map(String::as_str);
        report.error(&format!("{path}.with"), no_such("responder", &with, have));
        return None;
    };
    let ready = ready.as_ref()?;
    let mutates = ready.mutates();
    let cooldown = raw.limits.cooldown.unwrap_or(if mutates { MUTATING_COOLDOWN } else { Span::ZERO });
    Some(Step {
        action: raw.r#do?,
        with,
        mutates,
        effect: ready.responder.capabilities().effect,
        mode: mode.min(ready.mode),
        args: raw.args,
        limits: Limits { cooldown, max_per_day: raw.limits.max_per_day, lock: raw.limits.lock },
        verify: match verify {
            Some(verify) => Some(verify?),
            None => None,
        },
    })
}

fn verify(
    raw: &raw::Verify,
    require: Option<Arc<dyn Condition>>,
    path: &str,
    report: &mut Report,
) -> Option<Verify> {
    let least = Span::from_ns(raw.settle.ns().saturating_add(raw.r#for.ns()));
    let within = raw.within?;
    if within <= least {
        report.error(
            &format!("{path}.verify.within"),
            format!("{within} is over before anything can be verified: `settle` and `for` take {least}"),
        );
    }
    Some(Verify {
        settle: raw.settle,
        within,
        require: require?,
        hold: raw.r#for,
        on_inconclusive: raw.on_inconclusive,
    })
}
