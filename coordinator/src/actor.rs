//! The one task that owns the engine: events in, commands carried out, in one order.
//!
//! Nothing here waits for the network: writes run beside it, agents and followers have queues or
//! take the table at their own pace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use mesh_bus::AuditLog;
use mesh_core::error::MeshError;
use mesh_core::id::InstanceId;
use mesh_core::revision::Revision;
use mesh_core::table::TableUpdate;
use mesh_engine::engine::{
    Command, Engine, Event, Outcome, RequestId, SessionId, StoreState, WriteError, WriteId,
};
use mesh_engine::record::Key;
use mesh_runtime::ReadyLatch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Auditor};
use crate::clock::Clock;
use crate::feed::Feed;
use crate::handle::{Input, ToAgent};
use crate::joining::Joining;
use crate::metrics::CoordinatorMetrics;
use crate::store::{self, Follow, Store};
use crate::transitions;

/// Writes that run at once; further ones wait, one per key.
const WRITES: usize = 128;

/// How long what agents' leaving changed may be written when the coordinator stops.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// How long it is told that a write was not stored.
const UNWRITTEN: Duration = Duration::from_secs(60);

/// The actor, before it runs.
pub(crate) struct Actor<S> {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<Clock>,
    pub(crate) store: S,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) feed: Feed,
    pub(crate) metrics: CoordinatorMetrics,
    /// Where every change of state is told.
    pub(crate) audit: AuditLog,
    /// Whether the registry is loaded and current.
    pub(crate) ready: ReadyLatch,
    /// Whether agents and followers may join.
    pub(crate) joining: Joining,
    /// How often the engine is told that time has passed.
    pub(crate) tick: Duration,
}

/// A write that has not begun: its key, the record and the sequence that the key must have.
type Waiting = ((WriteId, Key), Option<Vec<u8>>, u64);

type Writing = FuturesUnordered<BoxFuture<'static, (Event, &'static str)>>;

/// The actor, running.
struct Running<S> {
    actor: Actor<S>,
    sessions: BTreeMap<SessionId, mpsc::Sender<ToAgent>>,
    requests: BTreeMap<RequestId, oneshot::Sender<Result<Outcome, MeshError>>>,
    /// Who holds what: leases run while these wait. They come first.
    urgent: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
    writing: Writing,
    auditor: Auditor,
    /// Why the last write was not stored, though the store can be read, and when that was seen.
    unwritten: Option<(String, Instant)>,
    /// How it stands, as it was said last.
    said: Option<Stands>,
}

/// How the registry stands, for those who ask whether this coordinator is ready.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Current,
    /// It is current, and can't be changed: why.
    ReadOnly(String),
    /// It can't be proven to be current: why.
    Not(String),
}

impl<S: Store> Actor<S> {
    /// Runs until `stop` is cancelled; then takes what still comes until all handles are gone, and
    /// writes what that changed.
    pub(crate) async fn run(self, mut follow: impl Follow, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = Running {
            actor: self,
            sessions: BTreeMap::new(),
            requests: BTreeMap::new(),
            urgent: VecDeque::new(),
            waiting: VecDeque::new(),
            writing: FuturesUnordered::new(),
            auditor: Auditor::default(),
            unwritten: None,
            said: None,
        };
        running.show();
        loop {
            let due = running.actor.feed.due();
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    running.actor.feed.tell();
                }
                input = running.actor.inputs.recv() => match input {
                    Some(input) => running.take(input),
                    None => break,
                },
                told = follow.next() => match told {
                    Some(told) => running.step(store::event(told)),
                    None => break,
                },
                Some((event, outcome)) = running.writing.next() => running.wrote(event, outcome),
                _ = ticks.tick() => running.step(Event::Tick),
            }
        }
        let last = running.finish(&mut follow);
        if tokio::time::timeout(LAST_WRITES, last).await.is_err() {
            tracing::info!("some of the last changes were not stored; agents will say them again");
        }
    }
}

impl<S: Store> Running<S> {
    /// Nobody new comes in; what is there is worked off.
    async fn finish(&mut self, follow: &mut impl Follow) {
        self.actor.inputs.close();
        loop {
            while let Ok(input) = self.actor.inputs.try_recv() {
                self.take(input);
            }
            if self.urgent.is_empty() && self.waiting.is_empty() && self.writing.is_empty() {
                return;
            }
            tokio::select! {
                Some((event, outcome)) = self.writing.next() => self.wrote(event, outcome),
                Some(told) = follow.next() => self.step(store::event(told)),
                else => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.step(event),
            Input::Open {
                event,
                session,
                to_agent,
            } => {
                self.sessions.insert(session, to_agent);
                self.step(event);
            }
            Input::Request {
                id,
                operation,
                reply,
            } => {
                self.requests.insert(id, reply);
                self.step(Event::Requested {
                    request: id,
                    operation,
                });
            }
            Input::Look(look) => look(&self.actor.engine),
        }
    }

    fn wrote(&mut self, event: Event, outcome: &'static str) {
        self.actor.metrics.wrote(outcome);
        match &event {
            Event::WriteFailed {
                error: WriteError::Unavailable(why) | WriteError::Unknown(why),
                ..
            } => self.unwritten = Some((why.clone(), Instant::now())),
            _ => self.unwritten = None,
        }
        self.step(event);
    }

    fn step(&mut self, event: Event) {
        if let Event::AgentClosed { session, .. } = &event {
            self.sessions.remove(session);
        }
        let now = self.actor.clock.now();
        self.auditor.before(&event, &self.actor.engine);
        let begun = Instant::now();
        let commands = self.actor.engine.step(event, now);
        self.actor.metrics.stepped(begun.elapsed());
        for command in commands {
            self.carry_out(command);
        }
        for entry in self.auditor.after(&self.actor.engine, now) {
            audit::tell(&self.actor.audit, &entry);
        }
        self.start_writes();
        self.show();
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Write {
                write,
                key,
                value,
                expected,
            } => {
                let queue = match &key {
                    Key::Instance(_) | Key::Wish(_) | Key::Split(_) => &mut self.waiting,
                    Key::Node(_)
                    | Key::Rollout(_)
                    | Key::Coordinator(_)
                    | Key::Lease
                    | Key::Epoch => &mut self.urgent,
                };
                queue.push_back(((write, key), value, expected));
            }
            Command::Publish(update) => self.publish(update),
            Command::Welcome { session } => self.send(session, ToAgent::Welcome),
            Command::AskAnnounce { session } => self.send(session, ToAgent::AskAnnounce),
            Command::Reject {
                session,
                instance,
                error,
            } => {
                tracing::warn!(%error, "an instance is refused");
                self.send(session, ToAgent::Reject(instance, error));
            }
            Command::Directive {
                session,
                action,
                plugin,
                reason,
            } => self.send(session, ToAgent::Directive(action, plugin, reason)),
            Command::CloseSession { session, error } => {
                tracing::warn!(%error, "an agent's session is closed");
                self.send(session, ToAgent::Close(error));
                self.sessions.remove(&session);
            }
            Command::Reply { request, result } => {
                if let Some(reply) = self.requests.remove(&request) {
                    // Who asked may have gone.
                    let _ = reply.send(result);
                }
            }
            Command::Warn(text) => tracing::warn!("{text}"),
        }
    }

    fn publish(&mut self, update: TableUpdate) {
        let present = update.instances.iter().map(|route| route.instance);
        let gone = update.removed_instances.iter().copied();
        let changed: Vec<InstanceId> = present.chain(gone).collect();
        let feed = &self.actor.feed;
        let before = feed.table();
        feed.publish(update);
        let after = feed.table();
        let transitions = transitions::between(&before, &after, &changed);
        // What was stored before this coordinator looked is no news.
        if before.revision() != Revision::default() {
            transitions::log(&transitions);
        }
        self.auditor
            .published(before.revision(), after.revision(), transitions);
    }

    /// Queues something for an agent. One that takes nothing loses its session, which its stream
    /// sees by the end of the queue; it comes back and is told anew.
    fn send(&mut self, session: SessionId, message: ToAgent) {
        let Some(queue) = self.sessions.get(&session) else {
            return;
        };
        if queue.try_send(message).is_err() {
            tracing::warn!(
                session = session.0,
                "an agent takes nothing: its session ends"
            );
            self.sessions.remove(&session);
        }
    }

    fn start_writes(&mut self) {
        while self.writing.len() < WRITES {
            let next = self.urgent.pop_front();
            let Some((key, value, expected)) = next.or_else(|| self.waiting.pop_front()) else {
                return;
            };
            let store = self.actor.store.clone();
            let write = store::write(store, key, expected, value.map(Bytes::from));
            self.writing.push(Box::pin(write));
        }
    }

    /// Says how it stands.
    fn show(&mut self) {
        let engine = &self.actor.engine;
        let metrics = &self.actor.metrics;
        metrics.set(&engine.counts(), engine.revision());
        metrics.current(engine.store() == StoreState::Current);
        metrics.office(engine.holds_office(self.actor.clock.now()));
        self.actor.joining.set(engine.store());
        // While nothing is written, nothing is known after a while.
        let is_over = |(_, at): &mut (String, Instant)| at.elapsed() > UNWRITTEN;
        let lost = engine.store() != StoreState::Current;
        self.unwritten
            .take_if(|unwritten| lost || is_over(unwritten));
        let stands = match engine.store() {
            StoreState::Current => match (engine.held_back(), &self.unwritten) {
                (Some(why), _) => Stands::Not(why),
                (None, Some((why, _))) => Stands::ReadOnly(format!(
                    "the registry's store can be read, and does not store what is written: {why}; look at \
                     the log and the disk of the NATS servers"
                )),
                (None, None) => Stands::Current,
            },
            StoreState::Starting => Stands::Not(
                "the registry is not loaded: its store in NATS has not been reached yet".to_owned(),
            ),
            StoreState::Lost => Stands::Not(
                "the registry's store in NATS can't be reached: the last table is served, running \
                 plugins go on, changes are refused"
                    .to_owned(),
            ),
        };
        if self.said.as_ref() == Some(&stands) {
            return;
        }
        match &stands {
            Stands::Current => {
                tracing::info!(revision = %engine.revision(), "the registry is current");
                self.actor.ready.set_ready();
            }
            Stands::ReadOnly(why) => {
                tracing::warn!("{why}");
                self.actor.ready.set_ready_with(why);
            }
            Stands::Not(why) => {
                // At the start it is no news.
                if self.actor.engine.store() == StoreState::Starting {
                    tracing::info!("{why}");
                } else {
                    tracing::warn!("{why}");
                }
                self.actor.ready.set_not_ready(why);
            }
        }
        self.said = Some(stands);
    }
}
