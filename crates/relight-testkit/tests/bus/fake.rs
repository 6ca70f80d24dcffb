//! A responder that answers as it is told.

use std::collections::VecDeque;
use std::sync::Mutex;

use relight_core::Span;
use relight_core::detector::ConfigError;
use relight_core::responder::{
    Attempt, Capabilities, EffectKind, Observation, Plan, PlanError, Reach, Receipt, Request, Responder,
    ResponderError, Retry, Secrets,
};

use super::journal::{Journal, Sent, newest};

/// What a responder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    Refuse,
    Later(Option<i64>),
    Hang,
    /// Done, once it is released.
    Held,
    Panic,
}

/// A responder that answers as it is told, in turn, and with the last answer from then on.
pub(crate) struct Fake {
    pub(crate) name: String,
    pub(crate) reach: Reach,
    pub(crate) effect: EffectKind,
    pub(crate) replies: Mutex<VecDeque<Reply>>,
    pub(crate) observed: Observation,
    pub(crate) journal: Journal,
}

impl Fake {
    fn next(&self) -> Reply {
        let mut replies = self.replies.lock().expect("no holder panics");
        if replies.len() > 1 { replies.pop_front() } else { replies.front().copied() }.unwrap_or(Reply::Done)
    }
}

impl Responder for Fake {
    const NAME: &'static str = "fake";
    const DOC: &'static str = "";
    type Config = Option<bool>;

    fn example() -> serde_json::Value {
        serde_json::Value::Null
    }
    fn new(_: Option<bool>, _: &Secrets) -> Result<Self, ConfigError> {
        Err(ConfigError::at("", "made by tests"))
    }
    fn capabilities(&self) -> Capabilities {
        let observes = self.effect == EffectKind::Observable;
        Capabilities { effect: self.effect, reach: self.reach, observes, reverts: false }
    }
    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        let is_odd = self.reach == Reach::Mutate;
        if is_odd && request.incident.group.get("service").is_some_and(|service| service.starts_with('-')) {
            return Err(PlanError("the service is no argument".to_owned()));
        }
        let body = serde_json::json!({ "do": request.action.action, "incident": request.incident.id });
        Ok(Plan { summary: request.action.action.clone(), body })
    }
    async fn preflight(&self, _: &Plan) -> Result<(), ResponderError> {
        Ok(())
    }
    async fn observe(&self, _: &Plan) -> Result<Observation, ResponderError> {
        Ok(self.observed)
    }
    async fn apply(&self, attempt: Attempt, plan: &Plan) -> Result<Receipt, ResponderError> {
        let fail = |message: &str, retry| Err(ResponderError { message: message.to_owned(), retry });
        self.journal.change(|kept| {
            let of_ledger = newest(&kept.writes, &attempt.idempotency_key);
            let in_ledger =
                of_ledger.is_some_and(|a| a.attempts == attempt.number && a.plan.as_ref() == Some(plan));
            kept.sent.push(Sent {
                with: self.name.clone(),
                key: attempt.idempotency_key.clone(),
                number: attempt.number,
                in_ledger,
                body: plan.body.to_string(),
            });
        });
        match self.next() {
            Reply::Done => Ok(Receipt { summary: "thanks".to_owned() }),
            Reply::Refuse => fail("HTTP 400 Bad Request", Retry::Never),
            Reply::Later(wish) => {
                fail("HTTP 503 Service Unavailable", Retry::After(wish.map(Span::from_secs)))
            }
            Reply::Hang => std::future::pending().await,
            Reply::Held => {
                let journal = self.journal.clone();
                let _ = tokio::task::spawn_blocking(move || journal.wait_release()).await;
                Ok(Receipt { summary: "thanks".to_owned() })
            }
            Reply::Panic => panic!("a responder that is not well"),
        }
    }
    async fn revert(&self, _: Attempt, _: &Plan, _: &Receipt) -> Result<Receipt, ResponderError> {
        Err(ResponderError { message: "nothing to undo".to_owned(), retry: Retry::Never })
    }
}
