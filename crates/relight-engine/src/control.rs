//! Incidents, rules, the response ladder and its deadlines: what findings set off.
//!
//! Knows no clock, no detector, no store and no responder. Time comes in with every input, what is to
//! be remembered goes out as [`LedgerWrite`]s, what is to be done as [`Effect`]s. Control never feeds
//! Detect. All that it remembers is made of [`LedgerState`]: a Control restored after any turn goes on
//! exactly as the one that was not interrupted.
//!
//! Stable words of the audit: `incident_opened`, `incident_reopened`, `incident_resolved`,
//! `incident_escalated`, `incident_acknowledged`, `action_planned`, `action_blocked`,
//! `action_awaiting`, `action_started`, `action_attempt`, `action_retried`, `action_unknown`,
//! `action_handed_on`, `action_ended`, `breaker_reset`, `held`, `resumed`, `command_ignored`, `stands_by`, `leads`, `trouble`,
//! `config_loaded`, `fleet_limit_engaged`.
//!
//! An action's way out: [`Effect::Start`] offers it to its responder, who asks with
//! [`ControlInput::Ready`]; the gates are read again, the attempt is written, and [`Effect::Send`] lets it
//! out (or [`Effect::Withdraw`] takes it back); [`ControlInput::Outcome`] ends the attempt.

mod attempts;
mod changes;
mod context;
mod findings;
mod fleet;
mod gates;
mod holds;
mod incident;
mod ladder;
mod memory;
mod reload;
mod standby;
pub mod summary;
mod trouble;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relight_core::incident::{
    Action, ActionState, Applied, Hold, Incident, IncidentState, LedgerState, LedgerWrite,
};
use relight_core::record::Event;
use relight_core::responder::{NotSent, Plan};
use relight_core::rule::{DetectorView, Finding, RuleSpec, Settings};
use relight_core::series::KeyView;
use relight_core::{Labels, Span, Timestamp};

use crate::intake::Recent;

use attempts::deadline_of;
pub use attempts::{HAND_ON_AFTER, LONGEST_PAUSE, MUTATE_FOR, NOTIFY_FOR, pause_after};
use changes::Changes;
pub use fleet::FLEET_LIMIT;
pub use holds::SOURCE_DOWN;
use incident::GroupTurn;
use memory::Out;
use standby::Turn;
pub use trouble::QUIET;

/// What Control needs to know of one group in a turn. The driver asks Detect for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupQuery {
    /// Index of the rule in [`Settings::rules`].
    pub rule: usize,
    /// The group.
    pub group: Labels,
}

/// All that one bin's end sets off.
#[derive(Debug, Clone, Copy)]
pub struct BinTurn<'a> {
    /// Start of the bin.
    pub start: Timestamp,
    /// Its end: the turn's time, T.
    pub end: Timestamp,
    /// Events before T that no turn before has seen, by (time, partition, offset).
    pub events: &'a [Event],
    /// What happened lately, for people: [`crate::intake::Intake::recent`].
    pub recent: &'a Recent,
    /// The bin's findings, by (signal, labels), then detector.
    pub findings: &'a [Finding],
    /// The answers to [`Control::queries`], in its order; views in the order of the rule's detectors.
    pub views: &'a [(GroupQuery, Vec<DetectorView>)],
    /// Of the rules that [`Control::counted_rules`] names how many groups have had a value, as far as the fleet limit counts.
    pub groups_known: &'a BTreeMap<usize, u64>,
}

/// What sets off a control turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlInput {
    /// The responder is free for an action that was offered to it: may it be sent?
    Ready {
        /// Action's id.
        action: String,
        /// What would be sent; of an action that has a plan already, that one stays.
        plan: Option<Plan>,
    },
    /// The responder answers about an action.
    Outcome {
        /// When. Control time.
        at: Timestamp,
        /// Action's id.
        action: String,
        /// What came of it.
        answer: Answer,
        /// What the responder said.
        detail: String,
    },
    /// What was to be offered or asked was not taken: the responder's queue is full, or another relight acts.
    Busy {
        /// Their ids.
        actions: Vec<String>,
    },
    /// The process has started, and with it whoever carries actions out: what was on its way is taken up
    /// again. Comes first, once.
    Restart,
    /// Another relight acts, and this one stands by: see [`ControlInput::Lead`].
    StandBy,
    /// This relight acts from now on. What was open before only pages, and all cooldowns start anew.
    Lead,
    /// There is a reason not to change anything, such as baselines that start cold.
    Hold {
        /// Its name: a later one of the same name takes its place.
        name: String,
        /// When it ends by itself. Control time; `None` waits for a human's `resume`.
        until: Option<Timestamp>,
        /// The reason, for people.
        why: String,
    },
    /// Something is wrong with relight or with what it reads: people are told by [`Settings::trouble`].
    Trouble {
        /// A stable word: `source_down`, `gap` and the like.
        kind: String,
        /// What it is about: a source, a detector.
        about: String,
        /// The rest, for people.
        why: String,
    },
    /// A human asked for something: `ack` an incident, `approve` or `reject` an action, `reset` the
    /// breaker of a rule, `pause` (the target is the reason) or `resume` all that changes the world. Of a
    /// stream's commands none shares its instant with another, so after a rewind the driver passes over
    /// those up to the control time of [`Control::applied_through`].
    Command {
        /// When. Control time.
        at: Timestamp,
        /// Verb.
        verb: String,
        /// Id of the incident or action, or the rule's name, or a reason.
        target: String,
    },
    /// [`Control::poll_timeout`] is due.
    Timeout,
}

/// What a responder says about an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Done,
    /// It was sent and was not carried out, and never will be.
    Failed,
    /// It was not carried out. Again, if the target wishes so not before this is over.
    Retry(Option<Span>),
    /// Nothing has left for the target. Again.
    Unreached(NotSent),
    /// Nothing has left for the target, and nothing ever will.
    Unsent(NotSent),
    /// It may have been.
    Ambiguous,
}

/// What is to happen outside, once the ledger has the writes of the same turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// An action is to be carried out: whoever does that asks with [`ControlInput::Ready`] before it sends.
    Start {
        /// The action, in state [`ActionState::Pending`].
        action: Action,
        /// Its incident, for the text of a page.
        incident: Incident,
    },
    /// Yes to [`ControlInput::Ready`]: the attempt is in the ledger, and is to be sent now.
    Send {
        /// The action, in state [`ActionState::Running`], with its plan and the attempt's number.
        action: Action,
        /// Its incident.
        incident: Incident,
    },
    /// No to [`ControlInput::Ready`]. Each of these is answered, and nothing is sent unasked.
    Withdraw {
        /// Action's id.
        action: String,
    },
    /// An action may have happened: its target is to be asked, and the answer is its outcome.
    /// [`Answer::Retry`] says that it did not happen.
    Observe {
        /// The action, in state [`ActionState::Unknown`].
        action: Action,
        /// Its incident.
        incident: Incident,
    },
}

/// What went wrong without stopping anything; since this Control was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// The last applied turn came again with other findings.
    pub digest_mismatches: u64,
    /// Conditions that could not be evaluated.
    pub condition_errors: u64,
    /// Outcomes of actions that are not under way, and commands that mean nothing here or came before.
    pub stray_inputs: u64,
}

/// The state of all incidents and actions, and the rules by which they move.
pub struct Control {
    settings: Arc<Settings>,
    /// Per detector, the rules that look at it.
    rules_of: Vec<Vec<usize>>,
    applied: Applied,
    /// Live ones, those that may still be reopened, and those with an action under way; by id.
    incidents: BTreeMap<String, Incident>,
    /// The latest incident of each group.
    groups: BTreeMap<GroupQuery, String>,
    /// Those of the incidents above, and what was started within a day; by id.
    actions: BTreeMap<String, Action>,
    cooldowns: BTreeMap<String, Timestamp>,
    changes: Changes,
    breakers: BTreeMap<String, u32>,
    holds: BTreeMap<String, Hold>,
    /// Whose turn it is to act. Not in the ledger: a process with a standby is told when it starts.
    turn: Turn,
    counters: Counters,
    /// Actions that would change the world and were not sent, by reason.
    not_sent: BTreeMap<&'static str, u64>,
    /// See [`Control::measure_when_sent`].
    measures_when_sent: bool,
    /// The first condition that could not be evaluated, for people.
    condition_error: Option<String>,
}

/// The budget's window.
const DAY: Span = Span::from_secs(24 * 3600);

impl Control {
    /// Goes on from what the ledger holds. What can no longer matter stays in the ledger only.
    pub fn new(settings: Arc<Settings>, state: LedgerState) -> Self {
        let nothing = Applied { turn: Timestamp::MIN, count: 0, digest: 0, control: Timestamp::MIN };
        let mut control = Self {
            rules_of: rules_of(&settings),
            applied: state.applied_through.unwrap_or(nothing),
            incidents: state.incidents.into_iter().map(|i| (i.id.clone(), i)).collect(),
            groups: BTreeMap::new(),
            actions: state.actions.into_iter().map(|a| (a.id.clone(), a)).collect(),
            cooldowns: state.cooldowns.into_iter().collect(),
            changes: Changes::new(&state.changes),
            breakers: state.breakers.into_iter().collect(),
            holds: state.holds.into_iter().collect(),
            turn: Turn::Alone,
            counters: Counters::default(),
            not_sent: BTreeMap::new(),
            measures_when_sent: false,
            condition_error: None,
            settings,
        };
        control.index_groups();
        control.forget_closed();
        control
    }

    /// How far Control has come; `None` before the first turn.
    pub fn applied_through(&self) -> Option<Applied> {
        (self.applied.control != Timestamp::MIN).then_some(self.applied)
    }

    /// The earliest deadline, in control time, and what it is: `verification`, `approval` or, of an action
    /// on its way, `delivery`.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let (at, id) = self.next_deadline()?;
        let reason = match self.actions.get(id)?.state {
            ActionState::AwaitingApproval => "approval",
            ActionState::Verifying => "verification",
            _ => "delivery",
        };
        Some((at, reason))
    }

    /// The groups that the turn with these findings is about: those with a finding and those with a
    /// live incident. Sorted.
    pub fn queries(&self, findings: &[Finding]) -> Vec<GroupQuery> {
        let mut queries: BTreeSet<GroupQuery> = self.group_findings(findings).into_keys().collect();
        let watched = self.groups.iter().filter(|(_, id)| self.incidents.get(*id).is_some_and(is_watched));
        queries.extend(watched.map(|(query, _)| query.clone()));
        queries.into_iter().collect()
    }

    /// Applies the end of a bin. A turn at or before [`Control::applied_through`] is ignored.
    ///
    /// The last write is [`LedgerWrite::Applied`]; alone it may wait for the next commit.
    pub fn bin_turn(&mut self, turn: &BinTurn<'_>, writes: &mut Vec<LedgerWrite>, effects: &mut Vec<Effect>) {
        let digest = self.digest(turn.findings);
        if turn.end <= self.applied.turn {
            let differs = turn.end == self.applied.turn && digest != self.applied.digest;
            self.counters.digest_mismatches += u64::from(differs);
            return;
        }
        self.applied = Applied { turn: turn.end, count: self.applied.count + 1, digest, ..self.applied };
        let mut out = Out::new(effects);
        self.run_deadlines(turn.end.minus(Span::from_ns(1)), &mut out);
        self.move_control(turn.end);
        for event in turn.events {
            self.changes.remember(event, (turn.start, turn.end), &mut out.log);
        }
        self.changes.forget(self.looked_back_from(turn.end), &mut out.log);
        self.retire_orphans(&mut out);
        self.group_turns(turn, &mut out);
        self.run_deadlines(turn.end, &mut out);
        self.commit(out, writes);
    }

    /// Applies whatever is no bin's end. `now` is control time; it never runs backwards.
    pub fn control_turn(
        &mut self,
        input: ControlInput,
        now: Timestamp,
        writes: &mut Vec<LedgerWrite>,
        effects: &mut Vec<Effect>,
    ) {
        let mut out = Out::new(effects);
        self.run_deadlines(now.minus(Span::from_ns(1)), &mut out);
        self.move_control(now);
        match input {
            ControlInput::Ready { action, plan } => self.ready(&action, plan, &mut out),
            ControlInput::Outcome { at, action, answer, detail } => {
                self.outcome(&action, at, answer, detail, &mut out);
            }
            ControlInput::Busy { actions } => self.busy(&actions, &mut out),
            ControlInput::Restart => self.restart(&mut out),
            ControlInput::StandBy => self.stand_by(&mut out),
            ControlInput::Lead => self.lead(&mut out),
            ControlInput::Hold { name, until, why } => self.hold_back(&name, until, why, &mut out),
            ControlInput::Trouble { kind, about, why } => self.trouble(&kind, &about, &why, &mut out),
            ControlInput::Command { at, verb, target } => self.command(at, &verb, &target, &mut out),
            ControlInput::Timeout => {}
        }
        self.run_deadlines(now, &mut out);
        self.commit(out, writes);
    }

    /// Incidents that are live, may be reopened, or have an action under way; by id. Older ones are in
    /// the ledger.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// Actions of those incidents, and all that started within a day; by id.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// Actions whose intent is in the ledger and whose outcome is not known: after a start the driver
    /// finds out what became of them. By id.
    pub fn unfinished(&self) -> impl Iterator<Item = (&Action, &Incident)> {
        self.actions
            .values()
            .filter(|action| is_sent(action.state))
            .filter_map(|action| Some((action, self.incidents.get(&action.incident)?)))
    }

    /// What went wrong so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Of the conditions that could not be evaluated since the start the first one: its rule, and why.
    pub fn condition_error_text(&self) -> Option<&str> {
        self.condition_error.as_deref()
    }

    /// Actions that would change the world and were not sent since this Control was made: by the gate that said no, or by
    /// why nothing left for the target.
    pub fn not_sent(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.not_sent.iter().map(|(reason, count)| (*reason, *count))
    }

    const fn now(&self) -> Timestamp {
        self.applied.control
    }

    fn move_control(&mut self, to: Timestamp) {
        self.applied.control = self.applied.control.max(to);
    }

    /// The earliest time from which anybody looks back on changes: the turn, or the begin of the oldest live incident.
    fn looked_back_from(&self, end: Timestamp) -> Timestamp {
        let live = self.incidents.values().filter(|incident| incident.is_live());
        live.map(|incident| incident.first_finding).fold(end, Timestamp::min)
    }

    fn rule_ix(&self, name: &str) -> Option<usize> {
        self.settings.rules.iter().position(|rule| rule.name == name)
    }

    fn group_findings<'a>(&self, findings: &'a [Finding]) -> BTreeMap<GroupQuery, Vec<&'a Finding>> {
        let mut groups: BTreeMap<GroupQuery, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            for rule in self.rules_of.get(finding.detector).into_iter().flatten() {
                let group = self.settings.rules[*rule].group_by.group(KeyView::new(&finding.row));
                groups.entry(GroupQuery { rule: *rule, group }).or_default().push(finding);
            }
        }
        groups
    }

    fn group_turns(&mut self, turn: &BinTurn<'_>, out: &mut Out<'_>) {
        let settings = Arc::clone(&self.settings);
        let groups = self.group_findings(turn.findings);
        for (query, views) in turn.views {
            let Some(rule) = settings.rules.get(query.rule) else {
                continue;
            };
            let findings = groups.get(query).map_or(&[][..], Vec::as_slice);
            let BinTurn { start, end, recent, .. } = *turn;
            let groups_known = turn.groups_known.get(&query.rule).copied().unwrap_or(0);
            let group = GroupTurn { rule, query, start, end, recent, views, findings, groups_known };
            self.group_turn(&group, out);
        }
    }

    fn next_deadline(&self) -> Option<(Timestamp, &str)> {
        self.actions.values().filter_map(|action| Some((deadline_of(action)?, action.id.as_str()))).min()
    }

    /// Deadlines up to and with `until`, each at its own time, until none is due.
    fn run_deadlines(&mut self, until: Timestamp, out: &mut Out<'_>) {
        while let Some((at, id)) = self.next_deadline().filter(|(at, _)| *at <= until) {
            let id = id.to_owned();
            self.move_control(at);
            self.deadline(&id, out);
        }
    }
}

/// Per detector, the rules that look at it.
fn rules_of(settings: &Settings) -> Vec<Vec<usize>> {
    let mut rules_of = vec![Vec::new(); settings.detectors.len()];
    for (rule, spec) in settings.rules.iter().enumerate() {
        for detector in &spec.detectors {
            rules_of[*detector].push(rule);
        }
    }
    rules_of
}

/// Whether an incident is looked at in every turn: it is live, or seems to come back.
const fn is_watched(incident: &Incident) -> bool {
    incident.is_live() || incident.held_turns > 0
}

/// Whether trouble that begins at `start` belongs to a closed incident.
fn reopens(incident: &Incident, rule: Option<&RuleSpec>, start: Timestamp) -> bool {
    let (Some(resolved), Some(rule)) = (incident.resolved, rule) else {
        return false;
    };
    incident.state == IncidentState::Resolved && start <= resolved.plus(rule.reopen_within)
}

/// Whether an action is, or may be, on its way.
const fn is_sent(state: ActionState) -> bool {
    matches!(state, ActionState::Pending | ActionState::Running | ActionState::Unknown)
}
