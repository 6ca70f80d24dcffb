//! The lifecycle of an incident: what one group's turn does to it.
//!
//! Event time only. Knows nothing of steps and gates but when to ask the ladder to go on.

use relight_core::incident::{Action, ActionState, Incident, IncidentState, LedgerWrite, Resolution};
use relight_core::rule::{Condition, ConditionError, DetectorView, Finding, RuleSpec, RuleView};
use relight_core::{Span, Timestamp};

use super::context::context;
use super::findings::{describe, onset};
use super::gates::Refusal;
use super::{Control, GroupQuery, Out, reopens};
use crate::intake::Recent;

/// Samples that are no further apart than this many bins are neighbours even if the group was called
/// stale in between.
const NEIGHBOURS: i64 = 3;
/// The moment at which a closed incident's trouble seems to come back. It is taken back if it comes
/// to nothing, and is where the next episode's first finding is remembered until then.
const RETURNED: &str = "returned";

/// One group of one rule in one bin turn.
pub(super) struct GroupTurn<'a> {
    pub(super) rule: &'a RuleSpec,
    pub(super) query: &'a GroupQuery,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) recent: &'a Recent,
    pub(super) views: &'a [DetectorView],
    pub(super) findings: &'a [&'a Finding],
    pub(super) groups_known: u64,
}

impl GroupTurn<'_> {
    /// The event time that this bin covers by itself.
    pub(super) fn own(&self) -> Span {
        self.end.since(self.start).max(Span::from_ns(1))
    }

    /// The event time since the incident's last turn with data. A gap counts if its samples are
    /// neighbours or the rows' cadence says that nothing was missing; else only the bin itself does.
    pub(super) fn covered(&self, incident: &Incident, interval: Span) -> Span {
        let gap = self.end.since(incident.last_data);
        let counts = gap <= interval.times(NEIGHBOURS) || !incident.stale;
        if counts { gap.max(self.own()) } else { self.own() }
    }

    /// A finding is data even without a value: that of a detector which judges silence.
    fn has_data(&self) -> bool {
        !self.findings.is_empty() || self.views.iter().any(|view| view.with_data > 0)
    }

    /// All that was found is that something is missing.
    fn is_silence(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(|finding| finding.value.is_nan())
    }

    fn is_stale(&self) -> bool {
        let all = self.views.iter().fold(DetectorView::default(), |all, view| all.merge(*view));
        all.rows == 0 || all.stale
    }
}

/// What a turn says about a group's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It holds.
    Holds,
    /// It does not, and those who said that it did have data and are in band.
    Calm,
    /// It does not, but there still are findings: nothing advances, nothing is well.
    Lingers,
    /// Data is missing: nothing advances, nothing is reset.
    Unknown,
}

impl Control {
    /// Applies a bin turn to one group.
    pub(super) fn group_turn(&mut self, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        let Some(mut incident) = self.groups.get(turn.query).and_then(|id| self.incidents.remove(id)) else {
            if self.verdict(turn, None, out) == Verdict::Holds {
                self.begin(turn, out);
            }
            return;
        };
        let verdict = self.verdict(turn, Some(&mut incident), out);
        if verdict == Verdict::Unknown && self.is_gone(&incident, turn) {
            self.give_up(incident, turn, out);
        } else if incident.is_live() {
            self.live_turn(incident, turn, verdict, out);
        } else {
            self.closed_turn(incident, turn, verdict, out);
        }
    }

    /// Asks a condition about a group. `changed` looks back from `since`.
    pub(super) fn ask(
        &self,
        what: &dyn Condition,
        turn: &GroupTurn<'_>,
        detectors: &[DetectorView],
        since: Timestamp,
    ) -> Result<bool, ConditionError> {
        let group = &turn.query.group;
        let changed = |kind: &str, window: Span| self.changes.changed(kind, window, since, group);
        what.holds(&RuleView { detectors, group, changed: &changed })
    }

    /// Whether of every detector that spoke for the incident all rows have data now, or had when it was due and were in
    /// band: exporters take turns. Else calm is not known but missing: another's data does not stand in.
    pub(super) fn speakers_are_known(
        &self,
        incident: &Incident,
        rule: &RuleSpec,
        views: &[DetectorView],
    ) -> bool {
        let is_silent = |view: &DetectorView| view.left > 0 || view.with_data == 0 && view.stale;
        let silent = rule.detectors.iter().zip(views).filter(|(_, view)| is_silent(view));
        let mut names = silent.filter_map(|(ix, _)| self.settings.detectors.get(*ix)).map(|d| &d.name);
        !names.any(|name| incident.evidence.iter().any(|evidence| evidence.detector == *name))
    }

    /// Until when the values count as current of the detector that spoke for the incident and is the first to fall silent.
    pub(super) fn speakers_fresh_until(
        &self,
        incident: &Incident,
        rule: &RuleSpec,
        views: &[DetectorView],
    ) -> Option<Timestamp> {
        let spoke = |ix: usize| {
            let name = self.settings.detectors.get(ix).map(|detector| &detector.name);
            name.is_some_and(|name| incident.evidence.iter().any(|evidence| evidence.detector == *name))
        };
        let speakers = rule.detectors.iter().zip(views).filter(|(ix, _)| spoke(**ix));
        speakers.map(|(_, view)| view.fresh_until).min()
    }

    /// Counts a condition's error, and tells it once an incident.
    pub(super) fn condition_failed(
        &mut self,
        rule: &RuleSpec,
        incident: Option<&mut Incident>,
        error: &ConditionError,
        out: &mut Out<'_>,
    ) {
        self.counters.condition_errors += 1;
        self.condition_error.get_or_insert_with(|| format!("rule {}: {error}", rule.name));
        let Some(incident) = incident else { return };
        if !incident.timeline.iter().any(|moment| moment.what == "condition_error") {
            incident.note(self.now(), "condition_error", error.to_string());
            out.incidents.insert(incident.id.clone());
        }
    }

    fn verdict(
        &mut self,
        turn: &GroupTurn<'_>,
        incident: Option<&mut Incident>,
        out: &mut Out<'_>,
    ) -> Verdict {
        // Of a source that is down people are told once, and not by each series of it that is silent.
        if !turn.has_data() || turn.is_silence() && self.is_blind() {
            return Verdict::Unknown;
        }
        let is_open = incident.as_ref().is_some_and(|i| i.is_live() && i.state != IncidentState::Pending);
        let known =
            incident.as_ref().is_none_or(|incident| self.speakers_are_known(incident, turn.rule, turn.views));
        // What changed before the trouble began does not age out of it while it lasts.
        let began = incident.as_ref().filter(|incident| incident.is_live()).map(|i| i.first_finding);
        let since = began.map_or(turn.end, |began| began.plus(turn.own()));
        match self.ask(turn.rule.when.as_ref(), turn, turn.views, since) {
            Ok(true) => return Verdict::Holds,
            Ok(false) => {}
            Err(error) => self.condition_failed(turn.rule, incident, &error, out),
        }
        match known {
            false => Verdict::Unknown,
            true if is_open && !turn.findings.is_empty() => Verdict::Lingers,
            true => Verdict::Calm,
        }
    }

    /// Whether its rows have been silent for longer than what left its band is kept.
    fn is_gone(&self, incident: &Incident, turn: &GroupTurn<'_>) -> bool {
        self.settings.gone_after().is_some_and(|after| turn.end >= incident.last_data.plus(after))
    }

    /// No data has not made it well, but nobody waits for it any more: names of pods come and go.
    fn give_up(&mut self, mut incident: Incident, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        if incident.state == IncidentState::Pending {
            self.groups.remove(turn.query);
            return out.log.push(LedgerWrite::ForgetIncident(incident.id));
        }
        if incident.is_live() {
            self.resolve(&mut incident, turn.end, Resolution::Gone, out);
        }
        (incident.held_for, incident.held_turns) = (Span::ZERO, 0);
        self.put(incident, out);
    }

    fn begin(&mut self, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        // A group's first finding: not yet an incident that anybody is told of.
        let mut incident = Incident::new(&turn.rule.name, turn.query.group.clone(), turn.start);
        self.collect(&mut incident, turn);
        incident.onset = onset(&incident, turn, Timestamp::MIN);
        self.groups.insert(turn.query.clone(), incident.id.clone());
        self.hold(&mut incident, turn, out);
        incident.last_data = turn.end;
        self.put(incident, out);
    }

    fn live_turn(
        &mut self,
        mut incident: Incident,
        turn: &GroupTurn<'_>,
        verdict: Verdict,
        out: &mut Out<'_>,
    ) {
        self.collect(&mut incident, turn);
        if verdict == Verdict::Unknown {
            if note_stale(&mut incident, turn) || !turn.findings.is_empty() {
                out.incidents.insert(incident.id.clone());
            }
            self.incidents.insert(incident.id.clone(), incident);
            return;
        }
        self.verify_turn(&mut incident, turn, out);
        if verdict == Verdict::Holds {
            if incident.state == IncidentState::Pending {
                incident.onset = onset(&incident, turn, Timestamp::MIN);
            }
            self.hold(&mut incident, turn, out);
        } else if verdict == Verdict::Lingers {
            note_stale(&mut incident, turn);
        } else if incident.state == IncidentState::Pending {
            self.groups.remove(turn.query);
            out.log.push(LedgerWrite::ForgetIncident(incident.id));
            return;
        } else {
            self.calm(&mut incident, turn, out);
        }
        incident.last_data = turn.end;
        self.put(incident, out);
    }

    /// A closed incident's group has a finding: it may come back, once the condition has held for as
    /// long as it had to the first time.
    fn closed_turn(
        &mut self,
        mut incident: Incident,
        turn: &GroupTurn<'_>,
        verdict: Verdict,
        out: &mut Out<'_>,
    ) {
        let comes_back = incident.held_turns > 0;
        if verdict == Verdict::Holds && !comes_back && !reopens(&incident, Some(turn.rule), turn.start) {
            self.incidents.insert(incident.id.clone(), incident);
            return self.begin(turn, out);
        }
        if verdict == Verdict::Unknown || (verdict == Verdict::Calm && !comes_back) {
            self.incidents.insert(incident.id.clone(), incident);
            return;
        }
        if verdict == Verdict::Holds {
            if !comes_back {
                incident.note(turn.start, RETURNED, "");
            }
            self.count_held(&mut incident, turn);
            incident.last_data = turn.end;
            if is_held(&incident, turn.rule) {
                self.reopen(&mut incident, turn, out);
            }
        } else {
            (incident.held_for, incident.held_turns) = (Span::ZERO, 0);
            if let Some(at) = incident.timeline.iter().rposition(|moment| moment.what == RETURNED) {
                incident.timeline.remove(at);
            }
        }
        self.put(incident, out);
    }

    /// The condition holds in a turn of a live incident.
    fn hold(&mut self, incident: &mut Incident, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        if incident.calm_for > Span::ZERO {
            relapse(incident, turn.end);
            if incident.rested {
                incident.note(turn.start, RETURNED, "");
            }
        }
        let was_held = is_held(incident, turn.rule);
        self.count_held(incident, turn);
        note_stale(incident, turn);
        if !is_held(incident, turn.rule) {
            return;
        }
        if incident.rested {
            return self.reopen(incident, turn, out);
        }
        if incident.state == IncidentState::Mitigated && self.has_had_its_time(incident, turn) {
            // What the step was to bring about has come, and the trouble is still there: the next step's turn.
            relapse(incident, turn.end);
            return self.advance(incident, out);
        }
        if was_held {
            return;
        }
        if incident.state == IncidentState::Pending {
            incident.state = IncidentState::Open;
            incident.detected = Some(turn.end);
            incident.groups_known = turn.groups_known;
            incident.context = context(turn.recent.events(), turn.query, incident.onset);
            let what = incident.evidence.first().map(describe).unwrap_or_default();
            incident.note(turn.end, "opened", what.clone());
            out.audit(self.now(), "incident_opened", &incident.id, what);
        }
        self.advance(incident, out);
    }

    /// Whether the time that the last step has to help is over.
    fn has_had_its_time(&self, incident: &Incident, turn: &GroupTurn<'_>) -> bool {
        let Some(action) = self.current_action(incident) else { return true };
        let verify = turn.rule.respond.get(action.step as usize).and_then(|step| step.verify.as_ref());
        let within = verify.map_or(Span::ZERO, |verify| verify.within);
        action.ended.is_none_or(|ended| turn.end >= ended.plus(within))
    }

    /// The condition does not hold in a turn of an open incident.
    fn calm(&mut self, incident: &mut Incident, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        let begins = incident.calm_for == Span::ZERO;
        let span = if begins { turn.own() } else { turn.covered(incident, self.settings.interval()) };
        incident.calm_for = add(incident.calm_for, span);
        (incident.held_for, incident.held_turns) = (Span::ZERO, 0);
        note_stale(incident, turn);
        if begins {
            if incident.relearned == 0 {
                incident.recovered = Some(turn.start);
            }
            if matches!(incident.state, IncidentState::Open | IncidentState::Responding) {
                incident.state = IncidentState::Recovering;
            }
            incident.note(turn.end, "recovering", format!("calm since {}", turn.start));
        }
        // A verification under way has a deadline of its own; waiting for it gives credit where it is due.
        let verifying = self.current_action(incident).is_some_and(|a| a.state == ActionState::Verifying);
        let latched = incident.state == IncidentState::Escalated;
        if latched {
            // Trouble after as long a calm would open another incident, were this one not latched: people hear of it.
            incident.rested |= incident.calm_for >= add(turn.rule.keep_firing, turn.rule.reopen_within);
        } else if incident.calm_for >= turn.rule.keep_firing && !verifying {
            let why = self.resolution(incident);
            self.resolve(incident, turn.end, why, out);
        }
    }

    /// Another episode. What waited for a human goes on waiting: people are told, and nothing is changed.
    fn reopen(&mut self, incident: &mut Incident, turn: &GroupTurn<'_>, out: &mut Out<'_>) {
        let latched = incident.state == IncidentState::Escalated;
        self.let_go(incident, out);
        let returned = incident.timeline.iter().rfind(|moment| moment.what == RETURNED);
        let not_before = incident.recovered.or(incident.resolved).unwrap_or(Timestamp::MIN);
        incident.first_finding = returned.map_or(turn.start, |moment| moment.at);
        incident.episode = incident.episode.saturating_add(1);
        (incident.state, incident.next_step) = (IncidentState::Open, 0);
        (incident.acted, incident.mitigated, incident.recovered) = (None, None, None);
        (incident.resolved, incident.resolution) = (None, None);
        (incident.calm_for, incident.relearned, incident.rested) = (Span::ZERO, 0, false);
        incident.evidence.clear();
        self.collect(incident, turn);
        incident.onset = incident.first_finding;
        incident.onset = onset(incident, turn, not_before);
        incident.detected = Some(turn.end);
        incident.groups_known = turn.groups_known;
        incident.context = context(turn.recent.events(), turn.query, incident.onset);
        note_stale(incident, turn);
        let reopenings = incident.episode - 1;
        incident.note(turn.end, "reopened", format!("episode {}", incident.episode));
        out.audit(self.now(), "incident_reopened", &incident.id, format!("episode {}", incident.episode));
        if latched {
            self.escalate(incident, "it waits for a human since an episode before", out);
        } else if reopenings > turn.rule.max_flaps {
            let why = format!("flapping: {reopenings} reopenings > {}", turn.rule.max_flaps);
            self.escalate(incident, &why, out);
        }
        self.advance(incident, out);
    }

    /// A human has to look; latched until one acknowledges.
    pub(super) fn escalate(&mut self, incident: &mut Incident, why: &str, out: &mut Out<'_>) {
        incident.state = IncidentState::Escalated;
        incident.note(self.now(), "escalated", why);
        out.audit(self.now(), "incident_escalated", &incident.id, why);
    }

    /// Ends an incident, and with it whatever has not been sent or waits for proof.
    pub(super) fn resolve(
        &mut self,
        incident: &mut Incident,
        at: Timestamp,
        why: Resolution,
        out: &mut Out<'_>,
    ) {
        self.let_go(incident, out);
        (incident.state, incident.resolution) = (IncidentState::Resolved, Some(why));
        incident.resolved = Some(at);
        (incident.held_for, incident.held_turns) = (Span::ZERO, 0);
        if why == Resolution::NewNormal {
            incident.recovered = None;
        }
        incident.note(at, "resolved", resolution_name(why));
        out.audit(self.now(), "incident_resolved", &incident.id, resolution_name(why));
    }

    /// Ends what waits for approval or for proof: the episode is over.
    fn let_go(&mut self, incident: &mut Incident, out: &mut Out<'_>) {
        let Some(action) = self.current_action(incident).cloned() else { return };
        let why = if incident.calm_for > Span::ZERO { "recovered" } else { "the incident is over" };
        match action.state {
            ActionState::AwaitingApproval => {
                self.block(incident, action, Refusal::new("recovered", why), out);
            }
            ActionState::Verifying => {
                self.finish(incident, action, ActionState::Inconclusive, "the incident is over", out);
            }
            _ => {}
        }
    }

    fn resolution(&self, incident: &Incident) -> Resolution {
        let earned = |action: &Action| {
            let is_verified = action.state == ActionState::Succeeded && action.verify_until.is_some();
            // What was well before the action started got well without it.
            let in_time = incident.recovered.is_none_or(|well| action.started.is_some_and(|s| s <= well));
            action.mutates && is_verified && in_time
        };
        if incident.relearned > 0 {
            Resolution::NewNormal
        } else if incident.mitigated.is_some() && self.episode_actions(incident).any(earned) {
            Resolution::VerifiedAction
        } else {
            Resolution::SelfRecovered
        }
    }

    fn count_held(&self, incident: &mut Incident, turn: &GroupTurn<'_>) {
        let begins = incident.held_turns == 0;
        let span = if begins { turn.own() } else { turn.covered(incident, self.settings.interval()) };
        incident.held_for = add(incident.held_for, span);
        incident.held_turns = incident.held_turns.saturating_add(1);
    }
}

/// Whether the condition has held for as long as the rule wants.
pub(super) fn is_held(incident: &Incident, rule: &RuleSpec) -> bool {
    incident.held_turns >= rule.hold_turns.max(1) && incident.held_for >= rule.hold
}

/// The condition holds again before the incident was over: what helped did not last.
fn relapse(incident: &mut Incident, at: Timestamp) {
    incident.calm_for = Span::ZERO;
    incident.recovered = None;
    incident.state = match incident.state {
        IncidentState::Recovering if incident.acted.is_none() => IncidentState::Open,
        IncidentState::Recovering | IncidentState::Mitigated => IncidentState::Responding,
        other => other,
    };
    incident.mitigated = None;
    incident.note(at, "relapsed", "");
}

/// Brings the stale flag up to date; `true` if it changed.
fn note_stale(incident: &mut Incident, turn: &GroupTurn<'_>) -> bool {
    let stale = turn.is_stale();
    if stale == incident.stale {
        return false;
    }
    incident.stale = stale;
    let (what, detail) = if stale { ("stale", "no data") } else { ("fresh", "data is back") };
    incident.note(turn.end, what, detail);
    true
}

pub(super) fn add(a: Span, b: Span) -> Span {
    Span::from_ns(a.ns().saturating_add(b.ns()))
}

const fn resolution_name(why: Resolution) -> &'static str {
    match why {
        Resolution::VerifiedAction => "verified_action",
        Resolution::SelfRecovered => "self_recovered",
        Resolution::NewNormal => "new_normal",
        Resolution::Human => "human",
        Resolution::RuleRemoved => "rule_removed",
        Resolution::Gone => "gone",
    }
}
