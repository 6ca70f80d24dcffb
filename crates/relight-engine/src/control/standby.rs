//! Hot standby: of two relights that read the same, one acts.
//!
//! Both open the same incidents under the same ids and plan the same steps. The one that stands by starts no step that
//! changes the world, and its pages wait, unsent, until it leads. What the other has done by then it cannot know: so
//! of what was open when it took over nothing is changed any more, and people are told.

use relight_core::incident::{Action, ActionState, Incident};
use relight_core::rule::Step;
use relight_core::{Span, Timestamp};

use super::gates::Refusal;
use super::{Control, Out};

/// What was to be told this long before a takeover is told again, though its incident may be over: nobody may have
/// led then. Longer than a takeover takes (30 s), shorter than old news.
const UNTOLD: Span = Span::from_secs(120);

/// Whose turn it is to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is no other.
    Alone,
    /// The other's.
    Others,
    /// This one's, since then.
    Own(Timestamp),
}

impl Control {
    pub(super) fn stands_by(&self) -> bool {
        self.turn == Turn::Others
    }

    pub(super) fn stand_by(&mut self, out: &mut Out<'_>) {
        self.turn = Turn::Others;
        out.audit(self.now(), "stands_by", "", "another relight acts");
    }

    /// Takes over: pages about what is open, or was until just now, go out. Those about what has long been over are
    /// the other's.
    pub(super) fn lead(&mut self, out: &mut Out<'_>) {
        self.turn = Turn::Own(self.now());
        out.audit(self.now(), "leads", "", "this relight acts");
        let unsent = |action: &&Action| action.state == ActionState::Pending && action.attempts == 0;
        let unsent: Vec<Action> = self.actions.values().filter(unsent).cloned().collect();
        for action in unsent {
            let Some(mut incident) = self.incidents.remove(&action.incident) else { continue };
            let is_over = !incident.is_live() || incident.episode != action.episode;
            if is_over && action.planned < self.now().minus(UNTOLD) {
                let why = "standby: over before this relight took over";
                self.block(&mut incident, action, Refusal::new("standby", why), out);
            }
            self.put(incident, out);
        }
        self.take_up(false, out);
    }

    /// The time of an incident's opening decides, and not when this relight came to it: one that lags behind may
    /// come late to what the other has acted on.
    pub(super) fn standby_gate(&self, incident: &Incident) -> Option<String> {
        match self.turn {
            Turn::Alone => None,
            Turn::Others => Some("standby: another relight acts".to_owned()),
            Turn::Own(since) => {
                let was_open = incident.detected.is_none_or(|detected| detected <= since);
                was_open.then(|| format!("takeover: it was open before {since}, when this relight took over"))
            }
        }
    }

    /// Until when it is unknown how much the other has changed within the last `window`.
    pub(super) fn unknown_until(&self, window: Span) -> Option<Timestamp> {
        match self.turn {
            Turn::Own(since) => Some(since.plus(window)).filter(|until| *until > self.now()),
            Turn::Alone | Turn::Others => None,
        }
    }

    /// Until when a step cools down because nobody knows what the other did right before this one took over.
    pub(super) fn new_cooldown(&self, step: &Step) -> Option<Timestamp> {
        match self.turn {
            Turn::Own(since) => Some(since.plus(step.limits.cooldown)),
            Turn::Alone | Turn::Others => None,
        }
    }
}
