//! The way to the actor: what services may ask of it. Its channel is bounded; who finds it full
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::revision::Revision;
use mesh_core::table::NodeRoute;
use mesh_engine::engine::{
    Action, Engine, Event, Operation, Outcome, Report, RequestId, SessionId, StoreState,
};
use tokio::sync::{mpsc, oneshot};

/// What may wait for the actor.
pub(crate) const INPUTS: usize = 1_024;

/// What may wait for one agent; one that lets more pile up loses its session.
const TO_AGENT: usize = 1_024;

/// How long a question may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the actor takes.
pub(crate) enum Input {
    /// Something an agent says.
    Event(Event),
    /// An agent joins.
    Open {
        event: Event,
        session: SessionId,
        to_agent: mpsc::Sender<ToAgent>,
    },
    /// An operator wants a change.
    Request {
        id: RequestId,
        operation: Operation,
        reply: oneshot::Sender<Result<Outcome, MeshError>>,
    },
    /// Somebody looks at the engine.
    Look(Box<dyn FnOnce(&Engine) + Send>),
}

/// What goes to one agent.
#[derive(Debug)]
pub(crate) enum ToAgent {
    /// The session is accepted.
    Welcome,
    /// All instances shall be announced again.
    AskAnnounce,
    /// An instance is refused.
    Reject(InstanceId, MeshError),
    /// Something shall be done with a plugin.
    Directive(Action, PluginName, String),
    /// The session ends.
    Close(MeshError),
}

/// An agent's session, seen from its stream.
pub(crate) struct OpenSession {
    pub(crate) id: SessionId,
    /// Ends when the actor gave the session up.
    pub(crate) from_actor: mpsc::Receiver<ToAgent>,
}

/// Asks the actor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    next: Arc<AtomicU64>,
}

impl Handle {
    /// A handle, and what its actor takes.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Input>) {
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let next = Arc::new(AtomicU64::new(1));
        (Self { inputs, next }, receiver)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn send(&self, input: Input) -> Result<(), MeshError> {
        self.inputs.send(input).await.map_err(|_| stopped())
    }

    /// Joins an agent.
    pub(crate) async fn open(
        &self,
        node: NodeRoute,
        table: Option<Revision>,
    ) -> Result<OpenSession, MeshError> {
        let id = SessionId(self.number());
        let (to_agent, from_actor) = mpsc::channel(TO_AGENT);
        let event = Event::AgentOpened {
            session: id,
            node,
            table,
        };
        self.send(Input::Open {
            event,
            session: id,
            to_agent,
        })
        .await?;
        Ok(OpenSession { id, from_actor })
    }

    /// Passes on what an agent announces.
    pub(crate) async fn announced(
        &self,
        session: SessionId,
        reports: Vec<Report>,
    ) -> Result<(), MeshError> {
        self.tell(Event::AgentAnnounced { session, reports }).await
    }

    /// Passes on what an agent says.
    pub(crate) async fn tell(&self, event: Event) -> Result<(), MeshError> {
        self.send(Input::Event(event)).await
    }

    /// Carries out an operator's change.
    pub(crate) async fn request(&self, operation: Operation) -> Result<Outcome, MeshError> {
        let id = RequestId(self.number());
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.send(Input::Request {
                id,
                operation,
                reply,
            })
            .await?;
            answer.await.map_err(|_| stopped())?
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(MeshError::new(
                ErrorCode::OutcomeUnknown,
                "the coordinator is too busy to confirm the change: look whether it holds before \
                 you try again",
            )),
        }
    }

    /// Looks at what the engine knows, once it knows anything.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, MeshError> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |engine: &Engine| {
            let seen = match engine.store() {
                StoreState::Starting => Err(not_loaded()),
                StoreState::Current | StoreState::Lost => Ok(look(engine)),
            };
            // Who asked may have gone.
            let _ = reply.send(seen);
        });
        let asking = async {
            self.send(Input::Look(look)).await?;
            answer.await.map_err(|_| stopped())?
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(MeshError::new(
                ErrorCode::Overloaded,
                "the coordinator is too busy to answer: try again",
            )),
        }
    }
}

/// The coordinator ends; another one, or this one when it is back, goes on.
pub(crate) fn stopped() -> MeshError {
    MeshError::new(
        ErrorCode::NoCoordinator,
        "this coordinator is stopping: ask another one, or this one when it is back",
    )
}

fn not_loaded() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "the registry is not loaded yet, as its store in NATS has not been reached: see whether \
         NATS runs with JetStream, and nats.url",
    )
}
