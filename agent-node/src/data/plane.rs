//! The plane: what the tasks of the data path, the supervisor and the control session call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_bus::Bus;
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{InstanceId, MeshName, NodeId, PluginName};
use mesh_core::state::InstanceState;
use mesh_proto::attach::PeerInfo;
use mesh_proto::control;
use mesh_proto::plugin::{HostFrame, StateChange, host_frame};
use mesh_proto::status::to_status;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::call::{InFlight, ReplyPath};
use super::held::Held;
use super::out::{OutQueue, OutStream};
use super::state::{Calls, Session, SessionKey, State};
use crate::metrics::AgentMetrics;
use crate::session::{End, Machine};

/// How long calls are still refused in words when the agent has drained: until all routers know. NATS's
/// library forgets a subscription before the broker does, and what comes between is lost.
const LINGER: Duration = Duration::from_millis(300);

/// How long what has come before may then take to be answered.
const LEAVE: Duration = Duration::from_secs(1);

/// What the plane is made with.
#[derive(Debug)]
pub(crate) struct PlaneConfig {
    /// The mesh.
    pub(crate) mesh: MeshName,
    /// The node.
    pub(crate) node: NodeId,
    /// Calls in flight on the node.
    pub(crate) max_in_flight: usize,
    /// Calls in flight to one instance.
    pub(crate) max_per_instance: u32,
    /// Bytes held of calls.
    pub(crate) max_bytes: usize,
    /// Bytes of calls that wait for one instance.
    pub(crate) max_bytes_per_instance: usize,
    /// Bytes of a call's payload, and of its answer.
    pub(crate) max_payload: usize,
    /// Spans are exported.
    pub(crate) exporting: bool,
}

/// The plane. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: PlaneConfig,
    pub(super) bus: Bus,
    pub(super) metrics: AgentMetrics,
    pub(super) held: Held,
    state: Mutex<State>,
    /// No more requests are taken from the bus.
    pub(super) leaving: CancellationToken,
    /// None comes any more, and all that came before are answered.
    pub(super) left: CancellationToken,
    /// The earliest deadline became earlier.
    pub(super) earlier_deadline: Notify,
}

impl Plane {
    pub(crate) fn new(config: PlaneConfig, bus: Bus, metrics: AgentMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                held: Held::new(config.max_bytes, config.max_bytes_per_instance),
                config,
                bus,
                metrics,
                state: Mutex::default(),
                leaving: CancellationToken::new(),
                left: CancellationToken::new(),
                earlier_deadline: Notify::new(),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// Streams that are open, and whether the agent stops.
    pub(super) fn streams(&self) -> (usize, bool) {
        let state = self.lock();
        (state.sessions.len(), state.draining)
    }

    /// Streams of which nothing is known yet: all, and those of one peer.
    pub(super) fn strangers(&self, peer: &PeerInfo) -> (usize, usize) {
        self.lock().sessions.strangers(peer)
    }

    /// A new stream of which nothing is known yet.
    pub(super) fn open(
        &self,
        peer: &PeerInfo,
        stop: &CancellationToken,
    ) -> (SessionKey, OutQueue, OutStream) {
        let (queue, stream) = OutQueue::new(stop.clone(), self.shared.held.clone());
        let node = self.node().as_str();
        let key = self
            .lock()
            .sessions
            .open(node, peer, queue.clone(), stop.clone());
        self.shared.metrics.stream_opened();
        (key, queue, stream)
    }

    /// The stream has ended: every running call ends now. Gives what the session was.
    pub(super) fn close(&self, key: SessionKey, reason: &str) -> Option<Session> {
        let mut state = self.lock();
        let mut session = state.sessions.close(key)?;
        let text = format!("the plugin was lost ({reason})");
        self.give_up_all(&mut state.calls, &mut session, &text);
        drop(state);
        session.out.finish(Ok(()));
        session.calmer.notify_waiters();
        self.shared.metrics.stream_closed();
        Some(session)
    }

    /// Ends a call that is no longer among its session's: counts it and tells its caller.
    pub(super) fn ended(
        &self,
        calls: &mut Calls,
        session: &mut Session,
        call: InFlight,
        end: End,
        now: Instant,
    ) {
        calls.in_flight = calls.in_flight.saturating_sub(1);
        if let ReplyPath::Bus(caller) = &call.reply {
            calls.callers.remove(caller, call.number);
        }
        session.ended(&call, &end, now);
        self.reply_end(call, end);
    }

    /// The agent stops: refuse all new calls.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }

    /// The agent has drained: what still comes after this finds nobody who listens, and so was not processed.
    /// All that came before is answered: it would be lost with the connection, and its callers could not
    /// tell what became of it.
    pub(crate) async fn leave(&self) {
        sleep(LINGER).await;
        self.shared.leaving.cancel();
        if timeout(LEAVE, self.shared.left.cancelled()).await.is_err() {
            tracing::debug!("calls that came last were not answered in time");
        }
    }

    /// Calls that run on this node.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().calls.in_flight
    }

    /// What is held of calls: a word for each kind, and how many.
    pub(crate) fn held(&self) -> Vec<(&'static str, usize)> {
        let state = self.lock();
        let sessions = || state.sessions.all();
        vec![
            ("calls in flight", state.calls.in_flight),
            ("bytes", self.shared.held.bytes()),
            ("callers", state.calls.callers.len()),
            (
                "calls of sessions",
                sessions().map(|session| session.machine.in_flight()).sum(),
            ),
            (
                "calls of plugins",
                sessions().map(|session| session.machine.own_calls()).sum(),
            ),
        ]
    }

    /// One instance takes no new calls. False: it is not attached, or drains already.
    pub(crate) fn drain_instance(&self, instance: InstanceId, reason: &str) -> bool {
        self.with_instance(instance, |session| {
            let new = session.draining.is_none();
            session.draining.get_or_insert_with(|| reason.to_owned());
            new
        })
        .unwrap_or(false)
    }

    /// Asks a plugin to end what runs and to leave.
    pub(crate) fn send_drain(
        &self,
        instance: InstanceId,
        grace: std::time::Duration,
        reason: &str,
        reattach: bool,
    ) {
        let grace = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let frame = Machine::<InFlight>::drain_frame(grace, reason, reattach);
        self.with_instance(instance, |session| session.out.push(frame));
    }

    /// Waits until no call runs at an instance, or it is gone.
    pub(crate) async fn idle(&self, instance: InstanceId) {
        self.calm(instance, |session| session.machine.in_flight() == 0)
            .await;
    }

    /// Waits until a plugin said that it is drained, or it is gone.
    pub(crate) async fn drained(&self, instance: InstanceId) {
        self.calm(instance, |session| session.drained).await;
    }

    async fn calm(&self, instance: InstanceId, is_calm: impl Fn(&Session) -> bool) {
        loop {
            let look = |session: &mut Session| (is_calm(session), Arc::clone(&session.calmer));
            let Some((calm, calmer)) = self.with_instance(instance, look) else {
                return;
            };
            if calm {
                return;
            }
            // Registered before the second look, so that no wake-up is missed between the two.
            let notified = calmer.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            let calm = self.with_instance(instance, |session| is_calm(session));
            if calm != Some(false) {
                return;
            }
            notified.await;
        }
    }

    /// Ends a plugin's stream after what is queued for it: well, or with an error.
    pub(crate) fn end_stream(&self, instance: InstanceId, error: Option<&MeshError>) -> bool {
        self.with_instance(instance, |session| {
            session.out.finish(match error {
                None => Ok(()),
                Some(error) => Err(to_status(error)),
            });
            session.stop.cancel();
        })
        .is_some()
    }

    /// Tells a plugin where its instance stands. Left out when the plugin does not read.
    pub(crate) fn tell_state(&self, instance: InstanceId, state: InstanceState, reason: &str) {
        let change = StateChange {
            state: state.to_string(),
            reason: reason.to_owned(),
        };
        let body = Some(host_frame::Body::StateChange(change));
        self.with_instance(instance, |session| {
            if session.out.has_room() {
                session.out.push(HostFrame { id: 0, body });
            }
        });
    }

    /// Instances that are attached, of one plugin or of all.
    pub(crate) fn instances(&self, plugin: Option<&PluginName>) -> Vec<(InstanceId, bool)> {
        let state = self.lock();
        state
            .sessions
            .all()
            .filter_map(|session| session.plugin.as_ref())
            .filter(|attached| plugin.is_none_or(|plugin| attached.manifest.name == *plugin))
            .map(|attached| (attached.instance, attached.launch_token.is_some()))
            .collect()
    }

    /// How busy every instance is.
    pub(crate) fn loads(&self) -> Vec<control::InstanceLoad> {
        let state = self.lock();
        state
            .sessions
            .all()
            .filter_map(|session| {
                let plugin = session.plugin.as_ref()?;
                let in_flight = session.machine.in_flight();
                let mut load = session.load.report(plugin.instance, in_flight);
                load.unresponsive = session.pulse.is_unresponsive();
                Some(load)
            })
            .collect()
    }

    /// Where an attached instance is.
    pub(crate) fn place(&self, instance: InstanceId) -> Option<Place> {
        self.with_instance(instance, |session| session.machine.place().clone())
    }

    fn with_instance<T>(
        &self,
        instance: InstanceId,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        self.lock().sessions.of_instance(instance).map(act)
    }
}

/// Whether a call's end is the plugin's failure, and not its caller's or the network's doing.
fn has_failed(end: &End) -> bool {
    match end {
        Ok(answer) => answer.result.failed,
        Err(error) => !matches!(
            ErrorCode::from_number(error.code),
            ErrorCode::Cancelled
                | ErrorCode::InvalidArgument
                | ErrorCode::Disconnected
                | ErrorCode::Expired
        ),
    }
}

impl Session {
    /// Counts a call that ended.
    fn ended(&mut self, call: &InFlight, end: &End, now: Instant) {
        let took = now.saturating_duration_since(call.started);
        self.load.ended(took, end.is_ok());
        if has_failed(end) {
            self.load.failed();
        }
        let outcome = end
            .as_ref()
            .err()
            .map(|error| ErrorCode::from_number(error.code).name());
        if let Some(plugin) = &self.plugin {
            plugin.meters.ended(outcome, took.as_secs_f64());
        }
        if self.draining.is_some() {
            self.calmer.notify_waiters();
        }
        if let Some(span) = &call.span {
            crate::spans::ended(span, end);
        }
    }
}
