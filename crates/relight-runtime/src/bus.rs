//! The responder bus: one bounded queue and one worker a responder, between Control and the outside.
//!
//! Decides nothing: a worker that is free asks Control about one action ([`ControlInput::Ready`]), waits for the
//! answer, sends what Control has written ([`Effect::Send`]), and tells what came of it before it asks about the next.
//! So the gates are as they are when the first byte leaves. Retries, gates and what is done in doubt are Control's,
//! deadlines are its, and what is durable is the ledger's. A slow responder holds up its own queue and no other.

mod heartbeat;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use relight_core::Timestamp;
use relight_core::incident::{Action, Incident};
use relight_core::responder::{
    AnyResponder, Attempt, NotSent, Observation, Plan, Request, ResponderError, Retry,
};
use relight_engine::control::{Answer, ControlInput, Effect};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender as Queue, channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use heartbeat::Heartbeat;

use crate::live::LiveInput;
use crate::pipeline::Outbox;

/// Jobs that may wait for one responder. What finds no room stays in the ledger and is offered again.
const QUEUE: usize = 64;

/// What a worker is given, and under which epoch of the lock it was let out.
type Job = (u64, Box<Effect>);

/// Whether effects may leave now, and the epoch of that; asked again right before each. `None`: another relight acts.
/// What was decided on under one epoch does not leave under another.
pub type Guard = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// What becomes of an attempt that the lock's loss came before.
const NOT_HELD: &str = "not sent: another relight acts";

/// Whose worker waits for Control's answer, by the action's id: one a worker.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, oneshot::Sender<Effect>>>>);

impl Asked {
    fn by_id(&self) -> MutexGuard<'_, BTreeMap<String, oneshot::Sender<Effect>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, action: &str) -> oneshot::Receiver<Effect> {
        let (answer, answered) = oneshot::channel();
        self.by_id().insert(action.to_owned(), answer);
        answered
    }

    /// Whether somebody waited for it.
    fn answer(&self, action: &str, effect: Effect) -> bool {
        let asked = self.by_id().remove(action);
        asked.is_some_and(|asked| asked.send(effect).is_ok())
    }
}

/// Tells the time, for signatures.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The workers. Dropped, it ends them at once; see [`Bus::stop`].
pub struct Bus {
    workers: JoinSet<()>,
    stopping: watch::Sender<bool>,
    posts: BTreeMap<String, Post>,
    inputs: Sender<LiveInput>,
    now: Now,
    guard: Guard,
    asked: Asked,
    runtime: Handle,
}

/// Where a worker is reached, and what it works with.
struct Post {
    queue: Queue<Job>,
    responder: Arc<watch::Sender<Arc<dyn AnyResponder>>>,
}

/// Control's side of the bus: hands effects to the workers, never waits.
pub struct BusOutbox {
    queues: BTreeMap<String, Queue<Job>>,
    guard: Guard,
    asked: Asked,
    /// What found no room.
    busy: Vec<String>,
    /// What can be told without a worker.
    answers: VecDeque<ControlInput>,
}

/// What one worker works with.
struct Worker {
    responder: watch::Receiver<Arc<dyn AnyResponder>>,
    inputs: Sender<LiveInput>,
    now: Now,
    guard: Guard,
    asked: Asked,
}

impl Bus {
    /// Starts a worker for each responder. Answers go to `inputs`, as inputs of Control.
    pub fn start(
        responders: &BTreeMap<String, Arc<dyn AnyResponder>>,
        inputs: &Sender<LiveInput>,
        (now, guard): (&Now, &Guard),
        runtime: &Handle,
    ) -> (Self, BusOutbox) {
        let mut bus = Self {
            workers: JoinSet::new(),
            stopping: watch::channel(false).0,
            posts: BTreeMap::new(),
            inputs: inputs.clone(),
            now: Arc::clone(now),
            guard: Arc::clone(guard),
            asked: Asked::default(),
            runtime: runtime.clone(),
        };
        let (outbox, _) = bus.reload(responders);
        (bus, outbox)
    }

    /// An outbox for other responders, and what makes them rule. Those that stay keep their queue and their worker, and what is
    /// under way ends as it began; until the second is called, those that were there work as they did.
    pub fn reload(
        &mut self,
        responders: &BTreeMap<String, Arc<dyn AnyResponder>>,
    ) -> (BusOutbox, Box<dyn FnOnce() + Send>) {
        let (mut queues, mut stays) = (BTreeMap::new(), Vec::new());
        for (name, responder) in responders {
            if !self.posts.contains_key(name) {
                let post = self.post(responder);
                self.posts.insert(name.clone(), post);
            }
            if let Some(post) = self.posts.get(name) {
                queues.insert(name.clone(), post.queue.clone());
                stays.push((Arc::clone(&post.responder), Arc::clone(responder)));
            }
        }
        let outbox = BusOutbox {
            queues,
            guard: Arc::clone(&self.guard),
            asked: self.asked.clone(),
            busy: Vec::new(),
            answers: VecDeque::new(),
        };
        let rule = move || {
            for (post, responder) in stays {
                post.send_replace(responder);
            }
        };
        (outbox, Box::new(rule))
    }

    /// No responders but these: the workers of others end when what waits for them is done.
    pub fn retain(&mut self, responders: &BTreeMap<String, Arc<dyn AnyResponder>>) {
        self.posts.retain(|name, _| responders.contains_key(name));
    }

    fn post(&mut self, responder: &Arc<dyn AnyResponder>) -> Post {
        let (queue, jobs) = channel(QUEUE);
        let (post, responder) = watch::channel(Arc::clone(responder));
        let (now, guard) = (Arc::clone(&self.now), Arc::clone(&self.guard));
        let worker = Worker { responder, inputs: self.inputs.clone(), now, guard, asked: self.asked.clone() };
        self.workers.spawn_on(worker.run(jobs, self.stopping.subscribe()), &self.runtime);
        Post { queue, responder: Arc::new(post) }
    }

    /// Takes no more jobs and lets those under way end, for at most so long. Whether all have; what has not is
    /// taken up at the next start, as its ledger says.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.stopping.send_replace(true);
        let all = async { while self.workers.join_next().await.is_some() {} };
        let is_done = tokio::time::timeout(within, all).await.is_ok();
        self.workers.shutdown().await;
        is_done
    }
}

impl Outbox for BusOutbox {
    fn start(&mut self, effect: Effect, now: Timestamp) {
        match &effect {
            Effect::Start { action, .. } | Effect::Observe { action, .. } => {
                let (id, with) = (action.id.clone(), action.with.clone());
                self.queue(id, &with, effect, now);
            }
            Effect::Send { action, .. } => {
                let id = action.id.clone();
                if (self.guard)().is_none() {
                    self.asked.answer(&id, Effect::Withdraw { action: id.clone() });
                    self.answer(id, Answer::Unreached(NotSent::Standby), NOT_HELD.to_owned(), now);
                } else if !self.asked.answer(&id, effect) {
                    self.answer(id, Answer::Retry(None), "not sent: nobody waited for it".to_owned(), now);
                }
            }
            Effect::Withdraw { action } => {
                let id = action.clone();
                self.asked.answer(&id, effect);
            }
        }
    }

    // What was on its way comes back as effects of `ControlInput::Restart`.
    fn resume(&mut self, _action: &Action, _incident: &Incident, _now: Timestamp) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    fn next(&mut self, _now: Timestamp) -> Option<ControlInput> {
        if self.busy.is_empty() {
            return self.answers.pop_front();
        }
        Some(ControlInput::Busy { actions: std::mem::take(&mut self.busy) })
    }
}

impl BusOutbox {
    fn queue(&mut self, id: String, with: &str, job: Effect, now: Timestamp) {
        let Some(queue) = self.queues.get(with) else {
            let why = format!("there is no responder `{with}` any more");
            return self.answer(id, Answer::Unsent(NotSent::Responder), why, now);
        };
        let is_taken = (self.guard)().is_some_and(|epoch| queue.try_send((epoch, Box::new(job))).is_ok());
        if !is_taken {
            self.busy.push(id);
        }
    }

    fn answer(&mut self, action: String, answer: Answer, detail: String, at: Timestamp) {
        self.answers.push_back(ControlInput::Outcome { at, action, answer, detail });
    }
}

impl Worker {
    async fn run(self, mut jobs: Receiver<Job>, mut stopping: watch::Receiver<bool>) {
        loop {
            let job = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                job = jobs.recv() => job,
            };
            let Some((epoch, job)) = job else { return };
            let (Effect::Start { action, .. } | Effect::Observe { action, .. }) = &*job else { continue };
            if !self.is_held(epoch) {
                self.tell(ControlInput::Busy { actions: vec![action.id.clone()] }).await;
                continue;
            }
            let input = match &*job {
                Effect::Start { action, incident } => {
                    self.carry_out(epoch, (action, incident), &mut stopping).await
                }
                _ => Some(self.observe(action).await),
            };
            if let Some(input) = input {
                self.tell(input).await;
            }
        }
    }

    /// Asks Control, and sends if it says so. `None` if it does not, and that is known already.
    async fn carry_out(
        &self,
        epoch: u64,
        (action, incident): (&Action, &Incident),
        stopping: &mut watch::Receiver<bool>,
    ) -> Option<ControlInput> {
        let plan = match self.responder().plan(&Request { action, incident }) {
            Ok(plan) => plan,
            Err(error) => {
                let why = format!("no request can be made: {error}");
                return Some(self.outcome(action, Answer::Unsent(NotSent::Request), why));
            }
        };
        let mut answered = self.asked.ask(&action.id);
        self.tell(ControlInput::Ready { action: action.id.clone(), plan: Some(plan) }).await;
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer.ok(),
            _ = stopping.wait_for(|stopping| *stopping) => {
                // What was answered by now stands in the ledger as sent; what is answered later finds nobody.
                answered.close();
                answered.try_recv().ok()
            }
        };
        match answer {
            Some(Effect::Send { action, .. }) if self.is_held(epoch) => Some(self.send(&action).await),
            Some(Effect::Send { action, .. }) => {
                Some(self.outcome(&action, Answer::Unreached(NotSent::Standby), NOT_HELD.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether this relight acts, as it did when a job was let out.
    fn is_held(&self, epoch: u64) -> bool {
        (self.guard)() == Some(epoch)
    }

    fn responder(&self) -> Arc<dyn AnyResponder> {
        Arc::clone(&self.responder.borrow())
    }

    /// Waits for room: an answer must not be lost, and the engine takes inputs before anything else.
    async fn tell(&self, input: ControlInput) {
        let inputs = self.inputs.clone();
        // An error means that the engine is gone: the ledger says where things stand.
        let _ = tokio::task::spawn_blocking(move || inputs.send(LiveInput::Control(input))).await;
    }

    async fn send(&self, action: &Action) -> ControlInput {
        let Some(plan) = &action.plan else {
            let why = "it was written without a plan".to_owned();
            return self.outcome(action, Answer::Unsent(NotSent::Request), why);
        };
        let attempt =
            Attempt { number: action.attempts, idempotency_key: action.id.clone(), at: (self.now)() };
        let applied = self.guarded(action, plan, Some(attempt)).await;
        match applied {
            Ok(Applied::Receipt(summary)) => self.outcome(action, Answer::Done, summary),
            Ok(Applied::Observed(_)) => self.outcome(action, Answer::Ambiguous, "no answer".to_owned()),
            Err(error) => self.outcome(action, answer_of(error.retry), error.message),
        }
    }

    async fn observe(&self, action: &Action) -> ControlInput {
        let Some(plan) = &action.plan else {
            return self.outcome(action, Answer::Retry(None), "nothing was planned".to_owned());
        };
        match self.guarded(action, plan, None).await {
            Ok(Applied::Observed(Observation::Done)) => {
                self.outcome(action, Answer::Done, "it had happened".to_owned())
            }
            Ok(Applied::Observed(Observation::NotDone)) => {
                self.outcome(action, Answer::Retry(None), "it had not happened".to_owned())
            }
            Ok(_) => self.outcome(action, Answer::Ambiguous, "its target cannot tell".to_owned()),
            Err(error) => {
                self.outcome(action, Answer::Ambiguous, format!("its target could not be asked: {error}"))
            }
        }
    }

    /// Calls the responder on a task of its own, so that one that panics takes nobody with it. An attempt that
    /// panicked may have happened.
    async fn guarded(
        &self,
        action: &Action,
        plan: &Plan,
        attempt: Option<Attempt>,
    ) -> Result<Applied, ResponderError> {
        let (responder, plan, name) = (self.responder(), plan.clone(), action.with.clone());
        let call = async move {
            match attempt {
                Some(attempt) => responder.apply(attempt, &plan).await.map(|r| Applied::Receipt(r.summary)),
                None => responder.observe(&plan).await.map(Applied::Observed),
            }
        };
        let mut call = OnDrop(tokio::spawn(call));
        (&mut call.0).await.unwrap_or_else(|_| {
            Err(ResponderError { message: format!("`{name}` panicked"), retry: Retry::Unknown })
        })
    }

    fn outcome(&self, action: &Action, answer: Answer, detail: String) -> ControlInput {
        ControlInput::Outcome { at: (self.now)(), action: action.id.clone(), answer, detail }
    }
}

enum Applied {
    Receipt(String),
    Observed(Observation),
}

/// A task that ends with whoever waits for it.
struct OnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for OnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const fn answer_of(retry: Retry) -> Answer {
    match retry {
        Retry::After(wish) => Answer::Retry(wish),
        Retry::Unreached(why) => Answer::Unreached(why),
        Retry::Unsent(why) => Answer::Unsent(why),
        Retry::Never => Answer::Failed,
        Retry::Unknown => Answer::Ambiguous,
    }
}
