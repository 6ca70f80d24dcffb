//! Attempts: when a started action may be sent, what came of it, and when it is tried again.
//!
//! An action is started once (its intent), and sent by attempts. Each attempt is asked for by whoever
//! carries actions out (`Ready`), passes the gates again, and stands in the ledger before its first byte
//! leaves. What is done in doubt depends on the effect: sent again, asked for, or left to a human.

use relight_core::incident::{Action, ActionState, Incident};
use relight_core::responder::{EffectKind, Plan};
use relight_core::{Span, Timestamp};

use super::gates::{Asked, Gate, Refusal};
use super::ladder::{name_of, needs_action};
use super::{Answer, Control, Effect, Out, is_sent};

/// How long something that only tells somebody is tried. A day is longer than a target's outage and shorter
/// than anybody's patience with old news.
pub const NOTIFY_FOR: Span = Span::from_secs(24 * 3600);
/// How long something that changes the world is tried. Older than this, what it was decided on is.
pub const MUTATE_FOR: Span = Span::from_secs(10 * 60);
/// After this long without delivery the ladder goes on: the next step is the fallback. The first is still
/// tried.
pub const HAND_ON_AFTER: Span = Span::from_secs(120);
/// A target's own wish for a pause is honoured up to this: a page is not put off for an afternoon because
/// somebody's clock is wrong.
pub const LONGEST_PAUSE: Span = Span::from_secs(5 * 60);
/// An action whose responder's queue is full is offered, or asked, again after this.
const BUSY_PAUSE: Span = Span::from_secs(5);
const FIRST_PAUSE: Span = Span::from_secs(1);
const MAX_PAUSE: Span = Span::from_secs(60);

/// The pause after an attempt, counted from 1: 1 s doubled with each, at most 60 s, of which half to all is
/// taken. Which part is a hash of key and attempt, so that targets are not hit by all at once and a replay
/// waits as the live run did. So the pause after attempt n is within [2^(n-2), 2^(n-1)) s, and from the 7th
/// on within [30, 60) s.
pub fn pause_after(attempt: u32, key: &str) -> Span {
    let doublings = attempt.saturating_sub(1).min(6);
    let full = (FIRST_PAUSE.ns() << doublings).min(MAX_PAUSE.ns());
    let half = full / 2;
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend_from_slice(&attempt.to_le_bytes());
    let part = xxhash_rust::xxh3::xxh3_64(&bytes) % half.unsigned_abs();
    Span::from_ns(half + part as i64)
}

impl Control {
    /// Whoever carries actions out is free for this one. It is sent or withdrawn, and the decision is in the
    /// ledger before either is known outside.
    pub(super) fn ready(&mut self, id: &str, plan: Option<Plan>, out: &mut Out<'_>) {
        let is_offered = |action: &&Action| action.state == ActionState::Pending && action.retry_at.is_none();
        let waiting = self.actions.get(id).filter(is_offered).cloned();
        let about = waiting.and_then(|action| Some((self.incidents.remove(&action.incident)?, action)));
        let Some((mut incident, mut action)) = about else {
            self.counters.stray_inputs += 1;
            return out.effects.push(Effect::Withdraw { action: id.to_owned() });
        };
        match self.recheck(&incident, &action) {
            Gate::Pass => {
                action.plan = action.plan.or(plan);
                self.send(&incident, action, out);
            }
            Gate::Approval => {
                out.effects.push(Effect::Withdraw { action: id.to_owned() });
                action.retry_at = None;
                self.await_approval(&mut incident, action, out);
            }
            Gate::Blocked(refusal) => {
                out.effects.push(Effect::Withdraw { action: id.to_owned() });
                action.retry_at = None;
                self.block(&mut incident, action, refusal, out);
            }
        }
        self.advance(&mut incident, out);
        self.put(incident, out);
    }

    /// The gates, right before the side effect. What only tells somebody was let out by its mode when it was
    /// started, and is not taken back: pages fail open.
    fn recheck(&self, incident: &Incident, action: &Action) -> Gate {
        if !action.mutates {
            return Gate::Pass;
        }
        let Some((rule, step)) = self.step_of(&self.settings.rules, action) else {
            return Gate::Blocked(Refusal::step_is_gone());
        };
        if incident.episode != action.episode || !needs_action(incident, rule) {
            return Gate::Blocked(Refusal::new("recovered", "recovered"));
        }
        self.gate(Asked { incident, rule, step, own: Some(action) })
    }

    fn send(&mut self, incident: &Incident, mut action: Action, out: &mut Out<'_>) {
        action.state = ActionState::Running;
        action.attempts = action.attempts.saturating_add(1);
        action.retry_at = None;
        let which = format!("attempt {} of {}", action.attempts, name_of(&action));
        out.audit(self.now(), "action_attempt", &action.id, which);
        out.effects.push(Effect::Send { action: action.clone(), incident: incident.clone() });
        self.put_action(action, out);
    }

    /// The responder answers about an action.
    pub(super) fn outcome(
        &mut self,
        id: &str,
        at: Timestamp,
        answer: Answer,
        detail: String,
        out: &mut Out<'_>,
    ) {
        let sent = self.actions.get(id).filter(|action| is_sent(action.state)).cloned();
        let about = sent.and_then(|action| Some((self.incidents.remove(&action.incident)?, action)));
        let Some((mut incident, mut action)) = about else {
            self.counters.stray_inputs += 1;
            return;
        };
        match answer {
            Answer::Unreached(why) | Answer::Unsent(why) => {
                action.not_sent = (!action.reached).then_some(why);
            }
            _ => (action.reached, action.not_sent) = (true, None),
        }
        match answer {
            Answer::Done => self.ended(&mut incident, action, at, true, detail, out),
            Answer::Failed | Answer::Unsent(_) => self.ended(&mut incident, action, at, false, detail, out),
            Answer::Retry(wish) => self.try_again(&mut incident, action, at, wish, detail, out),
            Answer::Unreached(_) => self.try_again(&mut incident, action, at, None, detail, out),
            Answer::Ambiguous => self.in_doubt(&mut incident, action, at, detail, out),
        }
        self.advance(&mut incident, out);
        self.put(incident, out);
    }

    /// What was not taken is offered, or asked, again: after a pause, or when this relight acts.
    pub(super) fn busy(&mut self, ids: &[String], out: &mut Out<'_>) {
        if self.stands_by() {
            return;
        }
        for id in ids {
            let waits = |action: &&Action| {
                matches!(action.state, ActionState::Pending | ActionState::Unknown)
                    && action.retry_at.is_none()
            };
            let Some(mut action) = self.actions.get(id).filter(waits).cloned() else {
                self.counters.stray_inputs += 1;
                continue;
            };
            action.retry_at = Some(self.now().plus(BUSY_PAUSE));
            self.put_action(action, out);
        }
    }

    /// It did not happen: again, after a pause.
    fn try_again(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        at: Timestamp,
        wish: Option<Span>,
        detail: String,
        out: &mut Out<'_>,
    ) {
        let limit = if action.mutates { MUTATE_FOR } else { NOTIFY_FOR };
        let pause = wish.map_or(Span::ZERO, |wish| wish.min(LONGEST_PAUSE));
        let again = self.now().plus(pause.max(pause_after(action.attempts, &action.id)));
        if again > action.started.unwrap_or(action.planned).plus(limit) {
            let why = format!("given up after {} attempts in {limit}: {detail}", action.attempts);
            return self.ended(incident, action, at, false, why, out);
        }
        out.audit(self.now(), "action_retried", &action.id, format!("not before {again}: {detail}"));
        if action.attempts <= 1 {
            incident.note(self.now(), "retrying", format!("{}: {detail}", name_of(&action)));
        }
        action.state = ActionState::Pending;
        action.retry_at = Some(again);
        action.detail = detail;
        self.put_action(action, out);
    }

    /// It may have happened.
    fn in_doubt(
        &mut self,
        incident: &mut Incident,
        mut action: Action,
        at: Timestamp,
        detail: String,
        out: &mut Out<'_>,
    ) {
        match action.effect {
            EffectKind::Idempotent => self.try_again(incident, action, at, None, detail, out),
            EffectKind::Observable if action.state != ActionState::Unknown => {
                action.state = ActionState::Unknown;
                action.detail = detail;
                incident.note(self.now(), "unknown", format!("{}: {}", name_of(&action), action.detail));
                out.audit(self.now(), "action_unknown", &action.id, action.detail.clone());
                observe(incident, &action, out);
                self.put_action(action, out);
            }
            EffectKind::Observable | EffectKind::FireOnce => {
                let mutates = action.mutates;
                let why = format!("ambiguous, not sent again: {detail}");
                let asks = format!("nobody can tell whether {} happened", name_of(&action));
                self.ended(incident, action, at, false, why, out);
                if mutates && incident.is_live() {
                    self.escalate(incident, &asks, out);
                }
            }
        }
    }

    /// The process has started: what was on its way when it ended is taken up again.
    pub(super) fn restart(&mut self, out: &mut Out<'_>) {
        self.take_up(true, out);
    }

    /// Offers and asks again what is on its way. After a start nobody is at it any more.
    pub(super) fn take_up(&mut self, is_start: bool, out: &mut Out<'_>) {
        let sent = self.actions.values().filter(|action| is_sent(action.state));
        let sent: Vec<String> = sent.map(|action| action.id.clone()).collect();
        for id in sent {
            let Some(mut action) = self.actions.get(&id).cloned() else { continue };
            let Some(mut incident) = self.incidents.remove(&action.incident) else { continue };
            match action.state {
                ActionState::Running if !is_start => {}
                ActionState::Running => {
                    let why = "the process ended before the answer came".to_owned();
                    (action.reached, action.not_sent) = (true, None);
                    self.in_doubt(&mut incident, action, self.now(), why, out);
                    self.advance(&mut incident, out);
                }
                // What may have happened is asked for at once.
                state if state == ActionState::Unknown || action.retry_at.is_none() => {
                    action.retry_at = Some(self.now());
                    self.put_action(action, out);
                }
                _ => {}
            }
            self.put(incident, out);
        }
    }

    /// An action on its way has reached a deadline: it is offered again, or the ladder goes on without it.
    pub(super) fn sent_deadline(&mut self, incident: &mut Incident, mut action: Action, out: &mut Out<'_>) {
        if action.retry_at.is_some_and(|at| at <= self.now()) {
            action.retry_at = None;
            if action.state == ActionState::Unknown {
                observe(incident, &action, out);
            } else {
                out.effects.push(Effect::Start { action: action.clone(), incident: incident.clone() });
            }
        } else {
            action.handed_on = true;
            let why = format!("{}: not delivered within {HAND_ON_AFTER}", name_of(&action));
            incident.note(self.now(), "handed_on", why.clone());
            out.audit(self.now(), "action_handed_on", &action.id, why);
        }
        self.put_action(action, out);
    }
}

fn observe(incident: &Incident, action: &Action, out: &mut Out<'_>) {
    out.effects.push(Effect::Observe { action: action.clone(), incident: incident.clone() });
}

/// When something is to be done about an action without an input.
pub(super) fn deadline_of(action: &Action) -> Option<Timestamp> {
    match action.state {
        ActionState::Verifying | ActionState::AwaitingApproval => action.verify_until,
        state if is_sent(state) => {
            let waits = !action.mutates && !action.handed_on;
            let hand_on = waits.then(|| action.started.unwrap_or(action.planned).plus(HAND_ON_AFTER));
            [action.retry_at, hand_on].into_iter().flatten().min()
        }
        _ => None,
    }
}
