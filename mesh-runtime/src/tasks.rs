//! The task tracker: every task and thread has an owner, a name and a cancel policy.
//!
//! A task is asked to end through its tracker's token, and aborted when it does not within the grace
//! of [`Tasks::join`]. A panic is caught, logged with the task's name and counted; it ends only its
//! task.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Metrics;

/// How long a thread's own tasks may take to end after its main future did.
const THREAD_GRACE: Duration = Duration::from_secs(5);

/// How [`Tasks::join`] went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinReport {
    /// Names of tasks and threads that panicked since the tracker was made.
    pub panicked: Vec<String>,
    /// Names of tasks and threads that had not ended when the grace was over; the tasks are aborted.
    pub stuck: Vec<String>,
}

impl JoinReport {
    /// Everything ended in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.panicked.is_empty() && self.stuck.is_empty()
    }
}

/// Spawns tasks and threads, and joins them. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Tasks {
    scope: Arc<Scope>,
}

#[derive(Debug)]
struct Scope {
    /// Tasks of a child are tasks of its parent, too, so that joining the parent joins all.
    parent: Option<Arc<Scope>>,
    tracker: TaskTracker,
    token: CancellationToken,
    running: Mutex<BTreeMap<u64, Running>>,
    panicked: Mutex<Vec<String>>,
    panics: Counter,
    next: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    name: String,
    /// `None` for a thread, which can't be aborted.
    abort: Option<AbortHandle>,
}

/// Keeps a task on the lists of its scope and all scopes around it.
struct Registration {
    scope: Arc<Scope>,
    id: u64,
    _tokens: Vec<TaskTrackerToken>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        for scope in self.scope.and_parents() {
            lock(&scope.running).remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scope {
    fn and_parents(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |scope| scope.parent.as_deref())
    }

    fn register(self: &Arc<Self>, name: &str) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut tokens = Vec::new();
        for scope in self.and_parents() {
            tokens.push(scope.tracker.token());
            let running = Running {
                name: name.to_owned(),
                abort: None,
            };
            lock(&scope.running).insert(id, running);
        }
        Registration {
            scope: Arc::clone(self),
            id,
            _tokens: tokens,
        }
    }

    fn set_abort(&self, id: u64, abort: &AbortHandle) {
        for scope in self.and_parents() {
            // Not there when the task has ended already.
            if let Some(running) = lock(&scope.running).get_mut(&id) {
                running.abort = Some(abort.clone());
            }
        }
    }

    fn panicked(&self, name: &str, panic: &(dyn Any + Send)) {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no text".to_owned());
        tracing::error!(task = name, panic = text, "a task panicked: this is a bug");
        self.panics.inc();
        for scope in self.and_parents() {
            lock(&scope.panicked).push(name.to_owned());
        }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// A tracker with no tasks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scope: Arc::new(Scope {
                parent: None,
                tracker: TaskTracker::new(),
                token: CancellationToken::new(),
                running: Mutex::default(),
                panicked: Mutex::default(),
                panics: Counter::default(),
                next: Arc::default(),
            }),
        }
    }

    /// A tracker of its own whose tasks end with this one's, but not the other way round.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            scope: Arc::new(Scope {
                parent: Some(Arc::clone(&self.scope)),
                tracker: TaskTracker::new(),
                token: self.scope.token.child_token(),
                running: Mutex::default(),
                panicked: Mutex::default(),
                panics: self.scope.panics.clone(),
                next: Arc::clone(&self.scope.next),
            }),
        }
    }

    /// Registers the count of panics.
    pub fn register(&self, metrics: &Metrics) {
        let panics = self.scope.panics.clone();
        metrics.register(|registry| {
            registry.register("task_panics", "Tasks that ended with a panic", panics);
        });
    }

    /// Starts a task. It shall end when [`Tasks::token`] is cancelled. Dropping the handle leaves it
    /// running; a panic is an error of the handle.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let registration = self.scope.register(name);
        let id = registration.id;
        let handle = tokio::spawn(watched(name, registration, future));
        self.scope.set_abort(id, &handle.abort_handle());
        handle
    }

    /// Starts a thread with a single-threaded runtime of its own, which runs what `make` gives. It
    /// shall end when the token of the tracker that `make` gets is cancelled. When its main future has
    /// ended, that tracker is cancelled and joined.
    pub fn spawn_thread<M, F>(&self, name: &str, make: M) -> ThreadHandle<F::Output>
    where
        M: FnOnce(Self) -> F + Send + 'static,
        F: Future,
        F::Output: Send + 'static,
    {
        let registration = self.scope.register(name);
        let tasks = self.child();
        let (send, result) = oneshot::channel();
        let (scope, owned) = (Arc::clone(&self.scope), name.to_owned());
        let body = move || {
            let _registration = registration;
            let run = AssertUnwindSafe(|| run_thread(&owned, tasks, make));
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                scope.panicked(&owned, &*panic);
                Err(ThreadError::Panicked {
                    name: owned.clone(),
                })
            });
            // Nobody waits when the handle was dropped.
            let _ = send.send(outcome);
        };
        let started = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body);
        ThreadHandle {
            name: name.to_owned(),
            result,
            not_started: started.err(),
        }
    }

    /// Cancelled when the tasks of this tracker shall end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.scope.token.clone()
    }

    /// Asks all tasks of this tracker and its children to end.
    pub fn cancel(&self) {
        self.scope.token.cancel();
    }

    /// How many tasks and threads run, those of children included.
    #[must_use]
    pub fn running(&self) -> usize {
        lock(&self.scope.running).len()
    }

    /// Waits until all tasks of this tracker and its children have ended, at most `grace`; then
    /// aborts those that have not. Ask them to end before, with [`Tasks::cancel`].
    pub async fn join(&self, grace: Duration) -> JoinReport {
        self.scope.tracker.close();
        let mut stuck = Vec::new();
        if tokio::time::timeout(grace, self.scope.tracker.wait())
            .await
            .is_err()
        {
            for running in lock(&self.scope.running).values() {
                stuck.push(running.name.clone());
                if let Some(abort) = &running.abort {
                    abort.abort();
                }
            }
            tracing::warn!(tasks = ?stuck, ?grace, "did not end in time");
        }
        JoinReport {
            panicked: lock(&self.scope.panicked).clone(),
            stuck,
        }
    }
}

async fn watched<F: Future>(
    name: &'static str,
    registration: Registration,
    future: F,
) -> F::Output {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => output,
        Err(panic) => {
            registration.scope.panicked(name, &*panic);
            drop(registration);
            resume_unwind(panic)
        }
    }
}

fn run_thread<M, F>(name: &str, tasks: Tasks, make: M) -> Result<F::Output, ThreadError>
where
    M: FnOnce(Tasks) -> F,
    F: Future,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ThreadError::NotStarted {
            name: name.to_owned(),
            source,
        })?;
    let output = runtime.block_on(async {
        let output = AssertUnwindSafe(make(tasks.clone())).catch_unwind().await;
        tasks.cancel();
        tasks.join(THREAD_GRACE).await;
        output
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    output.map_err(|panic| {
        tasks.scope.panicked(name, &*panic);
        ThreadError::Panicked {
            name: name.to_owned(),
        }
    })
}

/// Why a thread gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// It panicked; this is a bug.
    #[error("thread {name} panicked: this is a bug")]
    Panicked {
        /// The thread.
        name: String,
    },
    /// The system did not give the thread or its runtime.
    #[error("thread {name} could not be started: {source}; check `ulimit -u` and `ulimit -n`")]
    NotStarted {
        /// The thread.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A started thread. Dropping it leaves the thread running; [`Tasks::join`] still waits for it.
#[derive(Debug)]
pub struct ThreadHandle<T> {
    name: String,
    result: oneshot::Receiver<Result<T, ThreadError>>,
    not_started: Option<std::io::Error>,
}

impl<T> ThreadHandle<T> {
    /// Waits for the result of the thread's main future. Safe to cancel and call again.
    ///
    /// # Errors
    /// [`ThreadError`] when the thread panicked or was never started.
    pub async fn join(&mut self) -> Result<T, ThreadError> {
        if let Some(source) = self.not_started.take() {
            return Err(ThreadError::NotStarted {
                name: self.name.clone(),
                source,
            });
        }
        let panicked = || ThreadError::Panicked {
            name: self.name.clone(),
        };
        (&mut self.result).await.unwrap_or_else(|_| Err(panicked()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn tasks_end_when_they_are_asked_to() {
        let tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("waits", async move { token.cancelled().await });
        let inner = tasks.child().child();
        let token = inner.token();
        inner.spawn("waits deeper", async move { token.cancelled().await });
        assert_eq!(tasks.running(), 2);
        tasks.cancel();
        assert!(tasks.join(SOON).await.is_clean());
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_child_ends_without_its_parent() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.cancel();
        assert!(child.token().is_cancelled());
        assert!(!tasks.token().is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_task_and_is_reported_and_counted() {
        let tasks = Tasks::new();
        let metrics = Metrics::new();
        tasks.register(&metrics);
        let failed = tasks.child().spawn("breaks", async { panic!("oh") });
        assert!(failed.await.unwrap_err().is_panic());
        assert_eq!(tasks.spawn("works", async { 7 }).await.unwrap(), 7);
        assert_eq!(tasks.join(SOON).await.panicked, ["breaks"]);
        assert!(metrics.render().contains("plugmesh_task_panics_total 1"));
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named_and_aborted() {
        let tasks = Tasks::new();
        let deaf = tasks.spawn("deaf", std::future::pending::<()>());
        tasks.cancel();
        let report = tasks.join(Duration::from_millis(20)).await;
        assert_eq!(report.stuck, ["deaf"]);
        assert!(deaf.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_thread_runs_its_own_runtime_and_is_joined() {
        let tasks = Tasks::new();
        let mut thread = tasks.spawn_thread("data", |tasks| async move {
            let token = tasks.token();
            tasks.spawn("inside", async move { token.cancelled().await });
            std::thread::current().name().map(str::to_owned)
        });
        assert_eq!(thread.join().await.unwrap().as_deref(), Some("data"));
        assert!(tasks.join(SOON).await.is_clean());
    }

    #[tokio::test]
    async fn a_thread_is_asked_to_end_with_its_tracker() {
        let tasks = Tasks::new();
        let mut thread = tasks.spawn_thread("data", |tasks| async move {
            tasks.token().cancelled().await;
        });
        tasks.cancel();
        thread.join().await.unwrap();
        assert!(tasks.join(SOON).await.is_clean());
    }

    #[tokio::test]
    async fn a_panic_of_a_thread_is_an_error_of_its_handle() {
        let tasks = Tasks::new();
        let mut thread = tasks.spawn_thread("data", |_| async { panic!("oh") });
        let error: Result<(), _> = thread.join().await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "thread data panicked: this is a bug"
        );
        assert_eq!(tasks.join(SOON).await.panicked, ["data"]);
    }
}
