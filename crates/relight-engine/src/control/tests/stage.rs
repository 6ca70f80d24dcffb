//! A small stage: one or more groups of a rule, bins of ten seconds, a ledger in memory.
//!
//! A script is a row of symbols, blanks ignored; `x12` repeats the one before. A bin:
//! `!` anomalous, `R` anomalous and re-learned, `.` calm, `_` no data, `s` no data and stale,
//! `o` and `O` anomalous since half a minute or two hours ago, `A` silence that a detector calls anomalous, `E` a condition that cannot be evaluated.
//! Between bins: `+` or `-` the oldest action on its way succeeds or fails, `D` a deploy, `~` ten
//! seconds without a turn, `a` ack, `y` or `n` approves or rejects, `z` resets the breaker,
//! `r` a restart from the ledger.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use relight_core::detector::{Band, Bank, BankSource, Reading};
use relight_core::incident::{Action, Applied, Hold, Incident, LedgerState, LedgerWrite, Moment, Resolution};
use relight_core::record::Event;
use relight_core::responder::{EffectKind, Plan};
use relight_core::rule::{
    Condition, ConditionError, DetectorUse, DetectorView, Finding, FleetLimit, GroupBy, Limits, Mode,
    OnInconclusive, RuleSpec, RuleView, Settings, Step, Verify,
};
use relight_core::series::key_of;
use relight_core::signal::Binning;
use relight_core::{Labels, Span, Timestamp};

use crate::control::{Answer, BinTurn, Control, ControlInput, Effect, GroupQuery};
use crate::intake::Recent;

pub(super) const BASE: Timestamp = Timestamp::from_secs(1_700_000_000);
const INTERVAL: Span = Span::from_secs(10);

pub(super) const fn secs(n: i64) -> Span {
    Span::from_secs(n)
}

struct NoBanks;

impl BankSource for NoBanks {
    fn bank(&self) -> Box<dyn Bank> {
        unreachable!("control runs no detector")
    }
}

type Ask = fn(&RuleView<'_>) -> Result<bool, ConditionError>;

struct Asked(&'static str, Ask);

impl Condition for Asked {
    fn holds(&self, view: &RuleView<'_>) -> Result<bool, ConditionError> {
        (self.1)(view)
    }
    fn text(&self) -> &str {
        self.0
    }
}

pub(super) fn condition(text: &'static str, ask: Ask) -> Arc<dyn Condition> {
    Arc::new(Asked(text, ask))
}

fn anomalous(view: &RuleView<'_>) -> Result<bool, ConditionError> {
    let worst = view.detectors.iter().fold(0.0_f64, |worst, d| worst.max(d.score));
    // The stage's sign for a condition that cannot be evaluated.
    if worst > 99.0 { Err(ConditionError("division by zero".to_owned())) } else { Ok(worst > 1.0) }
}

pub(super) fn labels(service: &str) -> Labels {
    Labels::new([("service".to_owned(), service.to_owned())])
}

/// `d.score > 1` for 20 s, calm after 30 s, nothing to do.
pub(super) fn rule() -> RuleSpec {
    RuleSpec {
        name: "r".to_owned(),
        detectors: vec![0],
        when: condition("d.score > 1.0", anomalous),
        hold: secs(20),
        hold_turns: 0,
        keep_firing: secs(30),
        reopen_within: secs(600),
        max_flaps: 2,
        group_by: GroupBy::Labels(vec!["service".to_owned()]),
        respond: Vec::new(),
        breaker_after: 2,
    }
}

/// Tells somebody.
#[expect(clippy::default_trait_access, reason = "the engine does without the JSON crate")]
pub(super) fn page() -> Step {
    Step {
        action: "page".to_owned(),
        with: "duty".to_owned(),
        mutates: false,
        effect: EffectKind::Idempotent,
        mode: Mode::Auto,
        args: Default::default(),
        limits: Limits::default(),
        verify: None,
    }
}

/// Changes the world, on a lock of its own, and wants proof: 20 s in band, 10 s after it ended.
pub(super) fn rollback() -> Step {
    Step {
        action: "rollback".to_owned(),
        with: "k8s".to_owned(),
        mutates: true,
        effect: EffectKind::FireOnce,
        limits: Limits { cooldown: secs(1_800), max_per_day: Some(3), lock: "deploy/shop".to_owned() },
        verify: Some(Verify {
            settle: secs(10),
            within: secs(120),
            require: condition("d.in_band", |view| Ok(view.detectors.iter().all(DetectorView::in_band))),
            hold: secs(20),
            on_inconclusive: OnInconclusive::Escalate,
        }),
        ..page()
    }
}

pub(super) fn ladder(respond: Vec<Step>) -> RuleSpec {
    RuleSpec { respond, ..rule() }
}

pub(super) fn settings(rules: Vec<RuleSpec>) -> Arc<Settings> {
    let detector = |name: &str| DetectorUse {
        name: name.to_owned(),
        kind: "threshold",
        state_version: 1,
        state_shape: String::new(),
        signal: 0,
        source: Arc::new(NoBanks),
    };
    Arc::new(Settings {
        binning: Binning::Interval(INTERVAL),
        allowed_lateness: INTERVAL,
        max_skew: secs(120),
        max_series: 100,
        series_ttl: Span::ZERO,
        sources: Vec::new(),
        signals: Vec::new(),
        detectors: vec![detector("d"), detector("e")],
        rules,
        trouble: None,
        fleet_limit: None,
        fingerprint: Vec::new(),
    })
}

/// The ledger, as a store would keep it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) applied: Option<Applied>,
    pub(super) incidents: BTreeMap<String, Incident>,
    pub(super) actions: BTreeMap<String, Action>,
    pub(super) cooldowns: BTreeMap<String, Timestamp>,
    changes: Vec<Event>,
    pub(super) breakers: BTreeMap<String, u32>,
    pub(super) holds: BTreeMap<String, Hold>,
    pub(super) audit: Vec<String>,
}

impl Ledger {
    pub(super) fn apply(&mut self, write: LedgerWrite) {
        match write {
            LedgerWrite::Incident(incident) => {
                self.incidents.insert(incident.id.clone(), *incident);
            }
            LedgerWrite::ForgetIncident(id) => {
                self.incidents.remove(&id);
            }
            LedgerWrite::Action(action) => {
                self.actions.insert(action.id.clone(), *action);
            }
            LedgerWrite::Cooldown(lock, until) => {
                self.cooldowns.insert(lock, until);
            }
            LedgerWrite::Change(event) => self.changes.push(event),
            LedgerWrite::ForgetChanges(before) => self.changes.retain(|event| event.at >= before),
            LedgerWrite::Breaker(rule, count) => {
                self.breakers.insert(rule, count);
            }
            LedgerWrite::Advance(_) | LedgerWrite::ForgetAdvances { .. } => {}
            LedgerWrite::Hold(name, Some(hold)) => {
                self.holds.insert(name, hold);
            }
            LedgerWrite::Hold(name, None) => {
                self.holds.remove(&name);
            }
            LedgerWrite::Audit { what, subject, .. } => self.audit.push(format!("{what} {subject}")),
            LedgerWrite::Applied(applied) => self.applied = Some(applied),
        }
    }

    pub(super) fn state(&self) -> LedgerState {
        LedgerState {
            applied_through: self.applied,
            incidents: self.incidents.values().cloned().collect(),
            actions: self.actions.values().cloned().collect(),
            cooldowns: self.cooldowns.clone().into_iter().collect(),
            changes: self.changes.clone(),
            breakers: self.breakers.clone().into_iter().collect(),
            advances: Vec::new(),
            holds: self.holds.clone().into_iter().collect(),
        }
    }
}

/// What one turn left behind.
pub(super) type Turned = (Vec<LedgerWrite>, Vec<Effect>);

pub(super) struct Stage {
    settings: Arc<Settings>,
    pub(super) control: Control,
    pub(super) ledger: Ledger,
    pub(super) now: Timestamp,
    pub(super) started: Vec<Action>,
    under_way: VecDeque<String>,
    events: Vec<Event>,
    /// Of each rule.
    pub(super) groups_known: u64,
}

impl Stage {
    pub(super) fn new(rules: Vec<RuleSpec>) -> Self {
        let settings = settings(rules);
        Self {
            control: Control::new(Arc::clone(&settings), LedgerState::default()),
            settings,
            ledger: Ledger::default(),
            now: BASE,
            started: Vec::new(),
            under_way: VecDeque::new(),
            events: Vec::new(),
            groups_known: 1,
        }
    }

    /// The same with a fleet limit.
    pub(super) fn limited(rules: Vec<RuleSpec>, limit: FleetLimit, groups_known: u64) -> Self {
        let mut stage = Self { groups_known, ..Self::new(rules) };
        let settings = Settings { fleet_limit: Some(limit), ..Settings::clone(&stage.settings) };
        stage.settings = Arc::new(settings);
        stage.restart();
        stage
    }

    pub(super) fn play(&mut self, script: &str) -> Vec<Turned> {
        expand(script).into_iter().map(|symbol| self.step(symbol)).collect()
    }

    pub(super) fn step(&mut self, symbol: char) -> Turned {
        match symbol {
            '+' | '-' => match self.under_way.pop_front() {
                Some(action) => self.outcome(action, symbol == '+'),
                None => Turned::default(),
            },
            'a' => self.command("ack", Some(self.story_id())),
            'y' => self.command("approve", self.ledger.actions.keys().next_back().cloned()),
            'n' => self.command("reject", self.ledger.actions.keys().next_back().cloned()),
            'z' => self.command("reset", Some("r".to_owned())),
            'D' => {
                let (at, body) = (self.now, String::new());
                self.events.push(Event { at, kind: "deploy".to_owned(), labels: labels("shop"), body });
                Turned::default()
            }
            'r' => {
                self.restart();
                Turned::default()
            }
            '~' => {
                self.now = self.now.plus(INTERVAL);
                Turned::default()
            }
            bin => self.bin(&[("shop", bin)]),
        }
    }

    /// Other rules from now on.
    pub(super) fn reload(&mut self, rules: Vec<RuleSpec>) {
        let fleet_limit = self.settings.fleet_limit;
        self.settings = Arc::new(Settings { fleet_limit, ..Settings::clone(&settings(rules)) });
        let mut turned = Turned::default();
        self.control.reload(Arc::clone(&self.settings), self.now, &mut turned.0, &mut turned.1);
        turned.0.into_iter().for_each(|write| self.ledger.apply(write));
    }

    pub(super) fn restart(&mut self) {
        self.control = Control::new(Arc::clone(&self.settings), self.ledger.state());
    }

    /// One bin, with a symbol a group.
    pub(super) fn bin(&mut self, groups: &[(&str, char)]) -> Turned {
        let start = self.now;
        let findings: Vec<Finding> =
            groups.iter().filter_map(|(group, symbol)| finding(start, group, *symbol)).collect();
        let queries = self.control.queries(&findings);
        let symbol_of = |query: &GroupQuery| groups.iter().find(|(group, _)| labels(group) == query.group);
        let views: Vec<(GroupQuery, Vec<DetectorView>)> = queries
            .into_iter()
            .map(|query| {
                let view = symbol_of(&query).map_or(view('s', start), |(_, symbol)| view(*symbol, start));
                let detectors = self.settings.rules[query.rule].detectors.len();
                (query, vec![view; detectors])
            })
            .collect();
        self.now = start.plus(INTERVAL);
        let events = std::mem::take(&mut self.events);
        let mut recent = Recent::default();
        recent.remember(&events);
        let end = self.now;
        let rules = self.control.counted_rules(views.iter().map(|(query, _)| query.rule));
        let groups_known = &rules.map(|rule| (rule, self.groups_known)).collect();
        let (events, recent, findings, views) = (&events[..], &recent, &findings[..], &views[..]);
        let turn = BinTurn { start, end, events, recent, findings, views, groups_known };
        let mut turned = Turned::default();
        self.control.bin_turn(&turn, &mut turned.0, &mut turned.1);
        self.commit(turned)
    }

    pub(super) fn outcome(&mut self, action: String, ok: bool) -> Turned {
        self.answer(action, if ok { Answer::Done } else { Answer::Failed })
    }

    #[expect(
        clippy::default_trait_access,
        reason = "JSON is no dependency of the engine: its type has no name here"
    )]
    pub(super) fn ready(&mut self, action: &str) -> Turned {
        let plan = Plan { summary: format!("plan of {action}"), body: Default::default() };
        self.turn(ControlInput::Ready { action: action.to_owned(), plan: Some(plan) }, self.now)
    }

    pub(super) fn answer(&mut self, action: String, answer: Answer) -> Turned {
        let detail = if answer == Answer::Done { "done" } else { "refused" };
        self.turn(ControlInput::Outcome { at: self.now, action, answer, detail: detail.to_owned() }, self.now)
    }

    pub(super) fn busy(&mut self, action: &str) -> Turned {
        self.turn(ControlInput::Busy { actions: vec![action.to_owned()] }, self.now)
    }

    pub(super) fn command(&mut self, verb: &str, target: Option<String>) -> Turned {
        let target = target.unwrap_or_default();
        self.turn(ControlInput::Command { at: self.now, verb: verb.to_owned(), target }, self.now)
    }

    pub(super) fn turn(&mut self, input: ControlInput, now: Timestamp) -> Turned {
        let mut turned = Turned::default();
        self.control.control_turn(input, now, &mut turned.0, &mut turned.1);
        self.commit(turned)
    }

    /// The ledger first, then the effects.
    fn commit(&mut self, turned: Turned) -> Turned {
        for write in &turned.0 {
            self.ledger.apply(write.clone());
        }
        for effect in &turned.1 {
            match effect {
                // An action is offered again for each attempt.
                Effect::Start { action, .. } if self.started.iter().all(|known| known.id != action.id) => {
                    self.under_way.push_back(action.id.clone());
                    self.started.push(action.clone());
                }
                _ => {}
            }
        }
        turned
    }

    /// The newest incident's id.
    pub(super) fn story_id(&self) -> String {
        self.ledger.incidents.keys().next_back().cloned().unwrap_or_default()
    }

    /// The newest incident's story and where it stands.
    pub(super) fn story(&self) -> String {
        let Some(incident) = self.ledger.incidents.values().next_back() else {
            return "nothing".to_owned();
        };
        let mut story = incident.timeline.iter().fold(String::new(), |mut story, moment| {
            let _ = write!(story, "{}, ", told(moment));
            story
        });
        let _ = write!(story, "{:?}", incident.state);
        if let Some(why) = incident.resolution {
            let _ = write!(story, " {}", why_name(why));
        }
        story
    }
}

const fn why_name(why: Resolution) -> &'static str {
    match why {
        Resolution::VerifiedAction => "by action",
        Resolution::SelfRecovered => "by itself",
        Resolution::NewNormal => "new normal",
        Resolution::Human => "by a human",
        Resolution::RuleRemoved => "rule removed",
        Resolution::Gone => "gone",
    }
}

/// A moment in short: seconds, word, and of an action its verb and the gate that blocked it.
fn told(moment: &Moment) -> String {
    let at = moment.at.since(BASE).ns() / 1_000_000_000;
    let verb = moment.detail.split(' ').next().unwrap_or_default();
    match moment.what.as_str() {
        "blocked" => {
            let gate = moment.detail.split(": ").nth(1).unwrap_or_default();
            format!("{at} blocked {verb} by {gate}")
        }
        "started" | "sent" | "verifying" | "verified" | "ineffective" | "inconclusive" | "failed"
        | "waiting" | "awaiting_approval" | "retrying" | "handed_on" | "unknown" => {
            format!("{at} {} {verb}", moment.what)
        }
        what => format!("{at} {what}"),
    }
}

fn expand(script: &str) -> Vec<char> {
    let mut symbols: Vec<char> = Vec::new();
    let mut rest = script.chars().filter(|c| !c.is_whitespace()).peekable();
    while let Some(symbol) = rest.next() {
        if symbol != 'x' {
            symbols.push(symbol);
            continue;
        }
        let mut times = 0;
        while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
            times = times * 10 + digit as usize;
            rest.next();
        }
        let last = *symbols.last().expect("a repetition follows a symbol");
        symbols.extend(std::iter::repeat_n(last, times - 1));
    }
    symbols
}

fn finding(at: Timestamp, group: &str, symbol: char) -> Option<Finding> {
    let score = match symbol {
        '!' | 'R' | 'A' | 'o' | 'O' => 2.0,
        'E' => 100.0,
        _ => return None,
    };
    let band = Band { expected: 1.0, lower: 0.0, upper: 2.0 };
    Some(Finding {
        at,
        detector: 0,
        row: key_of("errors", &labels(group)),
        value: 4.0,
        reading: Reading::new(score, band),
        relearned: symbol == 'R',
        onset: match symbol {
            'o' => Some(at.minus(secs(30))),
            'O' => Some(at.minus(secs(7_200))),
            _ => None,
        },
    })
}

fn view(symbol: char, at: Timestamp) -> DetectorView {
    let (score, with_data, stale) = match symbol {
        '!' | 'R' | 'o' | 'O' => (2.0, 1, false),
        'E' => (100.0, 1, false),
        'A' => (2.0, 0, true),
        's' => (0.0, 0, true),
        '_' => (0.0, 0, false),
        _ => (0.5, 1, false),
    };
    let last = if with_data > 0 { at } else { Timestamp::MIN };
    // Its cadence is that of the bins.
    let fresh_until = if with_data > 0 { at.plus(INTERVAL.times(2)) } else { Timestamp::MIN };
    let anomalous = u32::from(score > 1.0);
    DetectorView { score, rows: 1, anomalous, with_data, left: 0, last, fresh_until, stale }
}

/// Plays a script and compares the story of the newest incident.
pub(super) fn check(rule: RuleSpec, script: &str, expected: &str) {
    let mut stage = Stage::new(vec![rule]);
    stage.play(script);
    assert_eq!(stage.story(), expected, "{script}");
}
