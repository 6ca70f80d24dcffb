//! What befalls incidents and their actions, gathered until somebody tells people.
//!
//! Read off what a turn writes for the ledger: no part is asked, nothing is decided, and nothing of it is written anywhere. A
//! turn that was applied before writes nothing, so neither a start nor a rewind brings the same news again.

use std::collections::BTreeMap;

use relight_core::Timestamp;
use relight_core::incident::{Action, ActionState, Incident, LedgerWrite};
use relight_engine::control::{Answer, ControlInput, Effect};

use super::Pipeline;

/// News that are kept until the next [`Pipeline::more_news`]; of what is beyond there are the numbers. A person reads no more
/// than one a second, and a log that is flooded by a storm of incidents hides what else there is in it.
const MOST: usize = 60;

/// Something that a person who looks after an incident wants to hear of, as the turn left it that brought it about.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It opened; beyond the first episode, again.
    Opened(Box<Incident>),
    /// A human has to look, and why.
    Escalated(Box<Incident>, String),
    /// It is over.
    Over(Box<Incident>),
    /// A step was begun, did not get through at once, waits for a human, was carried out, or ended: its state tells which.
    Step(Box<Action>),
    /// What there was no room for.
    More(MoreNews),
}

/// News by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MoreNews {
    /// Incidents that opened.
    pub opened: u64,
    /// Incidents for a human.
    pub escalated: u64,
    /// Incidents that are over.
    pub over: u64,
    /// Steps.
    pub steps: u64,
}

impl MoreNews {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.opened + self.escalated + self.over + self.steps
    }
}

/// What nobody has been told yet.
#[derive(Debug)]
pub(super) struct Untold {
    news: Vec<News>,
    /// So many may be in `news`, until there is more room.
    room: usize,
    more: MoreNews,
}

impl Default for Untold {
    fn default() -> Self {
        Self { news: Vec::new(), room: MOST, more: MoreNews::default() }
    }
}

impl Untold {
    /// Takes the news out of what one turn wrote. `done` was carried out in it.
    pub(super) fn gather(&mut self, writes: &[LedgerWrite], done: Option<&str>) {
        if done.is_none() && !writes.iter().any(|write| matches!(write, LedgerWrite::Audit { .. })) {
            return;
        }
        // A storm writes thousands at once: each is looked up by its id.
        let (mut incidents, mut actions) = (BTreeMap::new(), BTreeMap::new());
        for write in writes {
            match write {
                LedgerWrite::Incident(incident) => drop(incidents.insert(&*incident.id, incident)),
                LedgerWrite::Action(action) => drop(actions.insert(&*action.id, action)),
                _ => {}
            }
        }
        for write in writes {
            let LedgerWrite::Audit { what, subject, detail, .. } = write else { continue };
            if let Some(incident) = incidents.get(&**subject) {
                self.of_incident(what, incident, detail);
            } else if let Some(action) = actions.get(&**subject) {
                self.of_action(what, action);
            }
        }
        // That a proof is waited for stands in no audit.
        let done = done.and_then(|id| actions.get(id)).filter(|a| a.state == ActionState::Verifying);
        if let Some(action) = done {
            self.step(action);
        }
    }

    fn of_incident(&mut self, what: &str, incident: &Incident, why: &str) {
        let number = match what {
            "incident_opened" | "incident_reopened" => &mut self.more.opened,
            "incident_escalated" => &mut self.more.escalated,
            // One whose rule went before it opened was never told of.
            "incident_resolved" if incident.detected.is_some() => &mut self.more.over,
            _ => return,
        };
        if self.news.len() >= self.room {
            *number += 1;
            return;
        }
        let incident = Box::new(incident.clone());
        self.news.push(match what {
            "incident_escalated" => News::Escalated(incident, why.to_owned()),
            "incident_resolved" => News::Over(incident),
            _ => News::Opened(incident),
        });
    }

    fn of_action(&mut self, what: &str, action: &Action) {
        match what {
            // What is tried for a day is told when it begins, when it did not get through at once, and when it ends.
            "action_attempt" | "action_retried" if action.attempts == 1 => self.step(action),
            "action_unknown" | "action_awaiting" | "action_blocked" | "action_ended" => self.step(action),
            _ => {}
        }
    }

    fn step(&mut self, action: &Action) {
        if self.news.len() < self.room {
            self.news.push(News::Step(Box::new(action.clone())));
        } else {
            self.more.steps += 1;
        }
    }

    fn take(&mut self) -> Vec<News> {
        self.room -= self.news.len();
        std::mem::take(&mut self.news)
    }

    fn take_more(&mut self) -> MoreNews {
        self.room = MOST;
        std::mem::take(&mut self.more)
    }
}

impl Pipeline {
    /// A turn of Control's own.
    pub(super) fn control_turn(&mut self, input: ControlInput, now: Timestamp, effects: &mut Vec<Effect>) {
        let done = match &input {
            ControlInput::Outcome { action, answer: Answer::Done, .. } => Some(action.clone()),
            _ => None,
        };
        let from = self.writes.len();
        self.control.control_turn(input, now, &mut self.writes, effects);
        self.untold.gather(&self.writes[from..], done.as_deref());
    }

    /// What has happened since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        self.untold.take()
    }

    /// What there was no room for since this was last asked. There is room again.
    pub fn more_news(&mut self) -> MoreNews {
        self.untold.take_more()
    }
}

#[cfg(test)]
mod tests {
    use relight_core::{Labels, Span};

    use super::*;

    fn opening(n: usize) -> [LedgerWrite; 2] {
        let group = Labels::new([("service".to_owned(), n.to_string())]);
        let incident = Incident::new("slow", group, Timestamp::from_secs(0));
        let audit = LedgerWrite::Audit {
            at: Timestamp::from_secs(0).plus(Span::from_secs(1)),
            what: "incident_opened".to_owned(),
            subject: incident.id.clone(),
            detail: String::new(),
        };
        [LedgerWrite::Incident(Box::new(incident)), audit]
    }

    /// Scenario: one turn opens a thousand incidents, the next one more; then there is room again.
    /// Guarantee: as many are told as a minute has room for, of the others the number, and none twice.
    #[test]
    fn a_storm_is_told_by_its_numbers() {
        let mut untold = Untold::default();
        let storm: Vec<LedgerWrite> = (0..1_000).flat_map(opening).collect();
        untold.gather(&storm, None);
        assert_eq!(untold.take().len(), MOST);
        untold.gather(&opening(1_000), None);
        assert!(untold.take().is_empty());
        assert_eq!(untold.take_more(), MoreNews { opened: 941, ..MoreNews::default() });
        untold.gather(&opening(1_001), None);
        assert!(matches!(&*untold.take(), [News::Opened(_)]));
        assert_eq!(untold.take_more().total(), 0);
    }
}
