//! A responder whose secrets are read again before each use, without ever waiting for a file system that hangs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relight_core::responder::{
    AnyResponder, Attempt, Capabilities, Observation, Plan, PlanError, Receipt, Request, ResponderError,
    Secret,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Recipe;

/// How long a use waits for the files. A local disk answers within milliseconds, a busy NFS server within a second; a
/// page that leaves two seconds later with the old secret is better than one that never leaves.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Reads of one responder's files that may be under way: an attempt and a heartbeat, and one more each that hangs.
const MAX_READS: usize = 4;

/// Reads all files of a recipe. Tests put one in place that hangs.
type ReadFiles = Arc<dyn Fn(&Recipe) -> Result<Vec<Secret>, String> + Send + Sync>;

/// A responder whose secrets are read again before each use.
pub(crate) struct Renewed {
    recipe: Arc<Recipe>,
    current: Mutex<Current>,
    read_files: ReadFiles,
    reads: Arc<Semaphore>,
    within: Duration,
}

struct Current {
    read: Option<Vec<Secret>>,
    responder: Arc<dyn AnyResponder>,
}

impl Renewed {
    pub(crate) fn new(recipe: Recipe, responder: Arc<dyn AnyResponder>) -> Self {
        Self::with(recipe, responder, Arc::new(Recipe::read))
    }

    fn with(recipe: Recipe, responder: Arc<dyn AnyResponder>, read_files: ReadFiles) -> Self {
        let current = Current { read: read_files(&recipe).ok(), responder };
        let reads = Arc::new(Semaphore::new(MAX_READS));
        Self {
            recipe: Arc::new(recipe),
            current: Mutex::new(current),
            read_files,
            reads,
            within: READ_WITHIN,
        }
    }

    /// Never held while a file is read: planning goes on beside a read that hangs.
    fn current(&self) -> MutexGuard<'_, Current> {
        // A panic while it was held had replaced all of it or nothing.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files on a thread of its own, which a mount that hangs may keep for ever: a worker of the async runtime
    /// would be lost to listeners and other responders.
    async fn read(&self) -> Result<Vec<Secret>, String> {
        const HANGS: &str = "its file could not be read in time";
        let Ok(permit) = Arc::clone(&self.reads).try_acquire_owned() else {
            return Err(HANGS.to_owned());
        };
        let (send, received) = oneshot::channel();
        let (recipe, read_files) = (Arc::clone(&self.recipe), Arc::clone(&self.read_files));
        let read = move || {
            let read = read_files(&recipe);
            drop(permit);
            // Nobody waits any more once the deadline has passed.
            let _ = send.send(read);
        };
        let thread = std::thread::Builder::new().name("relight-secrets".to_owned()).spawn(read);
        thread.map_err(|error| format!("no thread to read its file on: {error}"))?;
        match timeout(self.within, received).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("reading its file panicked".to_owned()),
            Err(_) => Err(HANGS.to_owned()),
        }
    }

    /// The responder with the secrets of this moment, and why they may be old.
    async fn renew(&self) -> (Arc<dyn AnyResponder>, Option<String>) {
        let read = self.read().await;
        let mut current = self.current();
        let read = match read {
            Ok(read) if current.read.as_ref() == Some(&read) => {
                return (Arc::clone(&current.responder), None);
            }
            Ok(read) => read,
            Err(why) => return (Arc::clone(&current.responder), Some(why)),
        };
        match self.recipe.build(&read) {
            Ok(responder) => *current = Current { read: Some(read), responder },
            Err(why) => {
                return (Arc::clone(&current.responder), Some(format!("the new secret is of no use: {why}")));
            }
        }
        (Arc::clone(&current.responder), None)
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ResponderError>> + Send + 'a>>;

/// A failure with an old secret says that it is old.
fn explained<T>(result: Result<T, ResponderError>, old: Option<String>) -> Result<T, ResponderError> {
    result.map_err(|error| match old {
        Some(why) => ResponderError {
            message: format!("{} (with the last good secret: {why})", error.message),
            ..error
        },
        None => error,
    })
}

impl AnyResponder for Renewed {
    fn capabilities(&self) -> Capabilities {
        self.current().responder.capabilities()
    }

    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        let responder = Arc::clone(&self.current().responder);
        responder.plan(request)
    }

    fn preflight<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            let (responder, old) = self.renew().await;
            explained(responder.preflight(plan).await, old)
        })
    }

    fn observe<'a>(&'a self, plan: &'a Plan) -> Answer<'a, Observation> {
        Box::pin(async move {
            let (responder, old) = self.renew().await;
            explained(responder.observe(plan).await, old)
        })
    }

    fn apply<'a>(&'a self, attempt: Attempt, plan: &'a Plan) -> Answer<'a, Receipt> {
        Box::pin(async move {
            let (responder, old) = self.renew().await;
            explained(responder.apply(attempt, plan).await, old)
        })
    }

    fn revert<'a>(&'a self, attempt: Attempt, plan: &'a Plan, receipt: &'a Receipt) -> Answer<'a, Receipt> {
        Box::pin(async move {
            let (responder, old) = self.renew().await;
            explained(responder.revert(attempt, plan, receipt).await, old)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use relight_core::Timestamp;
    use relight_core::responder::{EffectKind, Reach, ResponderSpec, Retry, Secrets};
    use serde_json::{Map, json};

    use super::*;

    /// Fails, and says which secret it was made with.
    struct Says(String);

    impl AnyResponder for Says {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                effect: EffectKind::Idempotent,
                reach: Reach::Notify,
                observes: false,
                reverts: false,
            }
        }

        fn plan(&self, _: &Request<'_>) -> Result<Plan, PlanError> {
            Err(PlanError(self.0.clone()))
        }

        fn preflight<'a>(&'a self, _: &'a Plan) -> Answer<'a, ()> {
            Box::pin(async { Ok(()) })
        }

        fn observe<'a>(&'a self, _: &'a Plan) -> Answer<'a, Observation> {
            Box::pin(async { Ok(Observation::Unknown) })
        }

        fn apply<'a>(&'a self, _: Attempt, _: &'a Plan) -> Answer<'a, Receipt> {
            Box::pin(async { Err(ResponderError { message: self.0.clone(), retry: Retry::Never }) })
        }

        fn revert<'a>(&'a self, attempt: Attempt, plan: &'a Plan, _: &'a Receipt) -> Answer<'a, Receipt> {
            self.apply(attempt, plan)
        }
    }

    fn recipe() -> Recipe {
        let spec = ResponderSpec {
            name: "says",
            doc: "",
            schema: || json!({}),
            example: || json!({}),
            build: |_, secrets| Ok(Arc::new(Says(secrets.get("key").map_or("", Secret::reveal).to_owned()))),
        };
        let shared = vec![("key".to_owned(), "/unused".into())];
        Recipe { spec, settings: Map::new(), own: Vec::new(), secrets: Secrets::default(), shared }
    }

    async fn said(responder: &Renewed) -> String {
        let attempt = Attempt { number: 1, idempotency_key: "k".to_owned(), at: Timestamp::from_secs(1) };
        let plan = Plan { summary: String::new(), body: json!({}) };
        responder.apply(attempt, &plan).await.expect_err("it says no").message
    }

    /// A responder whose files are read as the sender of the receiver says: an answer each, or never.
    fn renewed(answers: Receiver<&'static str>) -> (Renewed, Arc<AtomicUsize>) {
        let (begun, answers) = (Arc::new(AtomicUsize::new(0)), Mutex::new(answers));
        let counts = Arc::clone(&begun);
        let read: ReadFiles = Arc::new(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(vec![Secret::new(answers.recv().map_err(|error| error.to_string())?)])
        });
        (Renewed::with(recipe(), Arc::new(Says("first".to_owned())), read), begun)
    }

    /// Scenario: the files' mount hangs, for many uses; then it answers again. Time is tokio's own.
    /// Guarantee: each use goes on after its deadline with the last good secret and says why, planning never waits, threads
    /// that hang are bounded, and the secret of now is used as soon as it can be read.
    #[tokio::test]
    async fn a_mount_that_hangs_leaves_the_last_good_secret() {
        let (answer, answers) = channel();
        answer.send("first").expect("it is read at once");
        let (mut responder, begun) = renewed(answers);
        answer.send("second").expect("it listens");
        responder.within = Duration::MAX;
        assert_eq!(said(&responder).await, "second");
        responder.within = READ_WITHIN;
        tokio::time::pause();
        for use_of_it in 0..20 {
            let before = tokio::time::Instant::now();
            let said = said(&responder).await;
            assert!(said.starts_with("second (with the last good secret: "), "{said}");
            let waited = before.elapsed();
            assert_eq!(waited >= READ_WITHIN, use_of_it < MAX_READS, "use {use_of_it}: {waited:?}");
            assert!(waited <= 2 * READ_WITHIN, "{waited:?}");
        }
        (0..MAX_READS).for_each(|_| answer.send("late").expect("they wait"));
        // A value that arrives after the deadline is dropped: the next use reads the file again.
        drop(Arc::clone(&responder.reads).acquire_many_owned(MAX_READS as u32).await.expect("never closed"));
        assert_eq!(begun.load(Ordering::SeqCst), 2 + MAX_READS);
        tokio::time::resume();
        responder.within = Duration::MAX;
        answer.send("third").expect("it listens");
        assert_eq!(said(&responder).await, "third");
    }
}
