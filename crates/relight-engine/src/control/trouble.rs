//! relight's own troubles: what people must be told although no rule is about it.
//!
//! A trouble is something that happened, not a state: an incident that is over when it begins, with one page on its way.
//! So it takes no part in turns, and its page is as durable as any other: written before it leaves, tried for a day,
//! under one key. Whoever finds a trouble says what kind it is; nothing is decided here but when people are told.

use std::sync::Arc;

use relight_core::incident::{ActionState, Incident, IncidentState, LedgerWrite};
use relight_core::rule::ITSELF;
use relight_core::{Labels, Span};

use super::{Control, Effect, Out};

/// People are told of one kind of trouble with one thing at most once in this time. What comes meanwhile is told once
/// at its end: it may have lasted.
pub const QUIET: Span = Span::from_secs(3_600);

impl Control {
    /// Tells whom the config names, now or when the quiet after the last time is over.
    pub(super) fn trouble(&mut self, kind: &str, about: &str, why: &str, out: &mut Out<'_>) {
        let now = self.now();
        out.audit(now, "trouble", about, format!("{kind}: {why}"));
        let settings = Arc::clone(&self.settings);
        let Some(step) = &settings.trouble else { return };
        let quiet = format!("{ITSELF}/{kind}/{about}");
        let at = self.cooldowns.get(&quiet).map_or(now, |until| now.max(*until));
        if at > now.plus(QUIET) {
            // One waits already.
            return;
        }
        self.cooldowns.insert(quiet.clone(), at.plus(QUIET));
        out.log.push(LedgerWrite::Cooldown(quiet, at.plus(QUIET)));
        let group = [("trouble", kind), ("about", about), ("why", why)];
        let group = Labels::new(group.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut incident = Incident::new(ITSELF, group, now);
        (incident.state, incident.resolved) = (IncidentState::Resolved, Some(now));
        incident.note(now, kind, why);
        let mut action = self.plan(&mut incident, step, out);
        (action.state, action.started) = (ActionState::Pending, Some(now));
        // There is no next rung.
        action.handed_on = true;
        if at > now {
            action.retry_at = Some(at);
        } else {
            out.effects.push(Effect::Start { action: action.clone(), incident: incident.clone() });
        }
        self.put_action(action, out);
        self.put(incident, out);
    }
}
