//! Heartbeats by a responder: what they say, and how they fare.
//!
//! A beat is no action: no incident, no retry, no ledger. The next one comes soon, and that none comes is its message.
//! It passes by the responder's queue, so that a page that hangs is not taken for a dead relight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use relight_core::incident::{Action, ActionState, Incident, IncidentState};
use relight_core::responder::{AnyResponder, Attempt, EffectKind, Request};
use relight_core::telemetry::{HEARTBEATS, Sample};
use relight_core::{Labels, Span, Timestamp};
use tokio::runtime::Handle;

/// Sends signs of life by one responder.
#[derive(Clone)]
pub struct Heartbeat {
    with: String,
    responder: Arc<dyn AnyResponder>,
    runtime: Handle,
    fate: Arc<Fate>,
    tell: Arc<dyn Fn(&str) + Send + Sync>,
}

#[derive(Default)]
struct Fate {
    under_way: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    /// The last one failed, and that was told.
    failing: AtomicBool,
}

impl Heartbeat {
    /// By this responder. What goes wrong is told when it begins.
    pub fn new(
        with: &str,
        responder: &Arc<dyn AnyResponder>,
        runtime: &Handle,
        tell: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let (responder, runtime) = (Arc::clone(responder), runtime.clone());
        Self { with: with.to_owned(), responder, runtime, fate: Arc::default(), tell }
    }

    /// Sends one, unless the one before is still on its way.
    pub fn beat(&self, now: Timestamp) {
        if self.fate.under_way.swap(true, Ordering::SeqCst) {
            self.fate.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let this = self.clone();
        self.runtime.spawn(async move {
            let _over = Over(Arc::clone(&this.fate));
            match this.send(now).await {
                Ok(()) => {
                    this.fate.sent.fetch_add(1, Ordering::Relaxed);
                    this.fate.failing.store(false, Ordering::Relaxed);
                }
                Err(why) => {
                    this.fate.failed.fetch_add(1, Ordering::Relaxed);
                    if !this.fate.failing.swap(true, Ordering::Relaxed) {
                        (this.tell)(&format!("failed to send a heartbeat with {}: {why}", this.with));
                    }
                }
            }
        });
    }

    async fn send(&self, now: Timestamp) -> Result<(), String> {
        let (action, incident) = sign_of_life(&self.with, now);
        let request = Request { action: &action, incident: &incident };
        let plan = self.responder.plan(&request).map_err(|error| error.to_string())?;
        let attempt = Attempt { number: 1, idempotency_key: action.id.clone(), at: now };
        self.responder.apply(attempt, &plan).await.map(drop).map_err(|error| error.message)
    }

    /// How many were sent, failed, and were left out because the one before was still on its way.
    pub fn samples(&self) -> Vec<Sample> {
        let of = |word, count: &AtomicU64| {
            Sample::labelled(HEARTBEATS, [word], count.load(Ordering::Relaxed) as f64)
        };
        let fate = &self.fate;
        vec![of("sent", &fate.sent), of("failed", &fate.failed), of("skipped", &fate.skipped)]
    }
}

/// Also over when the responder panics.
struct Over(Arc<Fate>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::SeqCst);
    }
}

/// What a responder is asked for: a heartbeat about nothing, in the form of every other request.
fn sign_of_life(with: &str, now: Timestamp) -> (Action, Incident) {
    let id = format!("heartbeat-{}", now.ns());
    let incident = Incident {
        id: "heartbeat".to_owned(),
        state: IncidentState::Resolved,
        ..Incident::new("heartbeat", Labels::default(), now)
    };
    let action = Action {
        id,
        incident: incident.id.clone(),
        episode: 1,
        rule: incident.rule.clone(),
        group: Labels::default(),
        step: 0,
        action: "heartbeat".to_owned(),
        with: with.to_owned(),
        mutates: false,
        effect: EffectKind::Idempotent,
        args: serde_json::Value::Object(serde_json::Map::new()),
        lock: String::new(),
        cooldown: Span::ZERO,
        state: ActionState::Running,
        approved: false,
        plan: None,
        attempts: 1,
        retry_at: None,
        handed_on: false,
        planned: now,
        started: Some(now),
        ended: None,
        verify_until: None,
        verified_for: Span::ZERO,
        sampled: false,
        fresh_until: None,
        reached: false,
        not_sent: None,
        limit_lifted: false,
        detail: String::new(),
    };
    (action, incident)
}
