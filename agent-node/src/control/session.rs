//! The session with a coordinator.
//!
//! Three things go on at once: frames are read and worked on, changes and acknowledgements are sent,
//! and heartbeats come from a task of their own that nothing holds up. Reading never waits for sending.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, MeshName, PluginName};
use mesh_core::revision::Revision;
use mesh_core::table::{ApplyError, NodeRoute};
use mesh_proto::control::{
    self, AgentFrame, AgentHello, CoordinatorFrame, Directive, DirectiveAction, Heartbeat,
    InstanceCounts, InstanceLoad, InstanceRejected, TableAck, agent_frame, coordinator_frame,
};
use mesh_proto::convert::{MAX_UPDATE, SentUpdate};
use mesh_proto::status::{from_status, stream_end};
use mesh_runtime::Tasks;
use mesh_runtime::coordinators::{Candidate, Search, TableStanding};
use router::TableStore;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::report::{Told, frame};
use super::states::States;
use crate::data::Plane;
use crate::drain::Drain;
use crate::rate_gate::{Pass, Rate, RateGate};
use crate::roster::Roster;
use crate::supervisor::Supervisor;

/// Time until a coordinator answers the hello: one that starts waits for its store first.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// Time to take leave of a coordinator.
const GOODBYE_TIME: Duration = Duration::from_millis(500);

/// Frames that may wait to be sent.
const OUTGOING: usize = 64;

/// How often changes are looked for. Steps in between are left out.
const REPORTS: Rate = Rate {
    per_second: 20,
    burst: 100,
};

/// The pause when they come more often.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// How often a heartbeat is sent when the coordinator does not say.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the control side works with.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    /// The mesh.
    pub(crate) mesh: MeshName,
    /// This node.
    pub(crate) node: NodeRoute,
    /// Addresses.
    pub(crate) coordinators: Arc<Vec<String>>,
    /// What is known of all instances.
    pub(crate) roster: Roster,
    /// The table.
    pub(crate) table: TableStore,
    /// The data path.
    pub(crate) plane: Plane,
    /// The processes.
    pub(crate) supervisor: Supervisor,
    /// How instances are drained; the reason is replaced.
    pub(crate) drain: Drain,
    /// Owner of the tasks.
    pub(crate) tasks: Tasks,
    /// Ready once there is a table.
    pub(crate) standing: Arc<TableStanding>,
}

/// Why a session ended.
#[derive(Debug)]
enum Ended {
    /// It never stood.
    Failed(MeshError),
    /// It stood.
    Lost(MeshError),
    /// The agent stops.
    Stopping,
}

/// Keeps a session with one of the coordinators until `stop` is cancelled.
pub(crate) async fn follow_coordinators(control: Control, stop: CancellationToken) {
    let mut search = Search::new(control.coordinators.to_vec());
    let mut failed_before = false;
    let mut whole_table = false;
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = search.next() => next,
        };
        let Some(coordinator) = next else {
            return;
        };
        let session = control.session(&coordinator, &mut whole_table, &stop);
        let error = match session.await {
            Ended::Stopping => return,
            Ended::Failed(error) => {
                // Once is news; that it goes on is not.
                if failed_before {
                    tracing::debug!(%coordinator, %error, "no session");
                } else {
                    tracing::warn!(
                        %coordinator,
                        %error,
                        "no session with the coordinator; plugins go on, it is tried again"
                    );
                }
                failed_before = true;
                error
            }
            Ended::Lost(error) => {
                tracing::warn!(
                    %coordinator,
                    %error,
                    "the session with the coordinator is lost; plugins go on with the last table"
                );
                failed_before = false;
                search.stood();
                error
            }
        };
        let why = format!("{coordinator}: {error}");
        control
            .standing
            .alone(control.table.table().revision(), &why);
    }
}

impl Control {
    async fn session(
        &self,
        coordinator: &Candidate,
        whole_table: &mut bool,
        stop: &CancellationToken,
    ) -> Ended {
        let opened = tokio::select! {
            () = stop.cancelled() => return Ended::Stopping,
            opened = timeout(ANSWER_TIME, self.open(coordinator, *whole_table)) => opened,
        };
        let (outgoing, mut incoming, welcome) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Ended::Failed(error),
            Err(_) => {
                let text = "it did not answer in time";
                return Ended::Failed(MeshError::new(ErrorCode::NoCoordinator, text));
            }
        };
        *whole_table = false;
        tracing::info!(
            coordinator = welcome.coordinator,
            address = %coordinator,
            "joined the mesh"
        );
        let session = CancellationToken::new();
        let ends_heartbeat = session.clone().drop_guard();
        let interval = match welcome.heartbeat_interval_ms {
            0 => HEARTBEAT,
            millis => Duration::from_millis(u64::from(millis)),
        };
        self.tasks.spawn(
            "heartbeat",
            heartbeat(self.plane.clone(), outgoing.clone(), interval, session),
        );
        let asked = Notify::new();
        let (applied, acks) = watch::channel(None);
        let stopping = tokio::select! {
            ended = self.read(&mut incoming, &applied, &asked, whole_table) => {
                return Ended::Lost(ended);
            }
            () = self.report(&outgoing, acks, &asked, stop) => Ended::Stopping,
        };
        // What was said last goes out, and the coordinator closes its side.
        drop(ends_heartbeat);
        drop(outgoing);
        let closed = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _ = timeout(GOODBYE_TIME, closed).await;
        stopping
    }

    /// Connects, says hello and waits for the welcome.
    async fn open(
        &self,
        coordinator: &Candidate,
        whole_table: bool,
    ) -> Result<
        (
            mpsc::Sender<AgentFrame>,
            Streaming<CoordinatorFrame>,
            control::AgentWelcome,
        ),
        MeshError,
    > {
        let unreachable = |why: String| {
            let text = format!("{why}; check agent.coordinators");
            MeshError::new(ErrorCode::NoCoordinator, text)
        };
        let channel = coordinator.connect().await.map_err(unreachable)?;
        let mut client = control::agent_sessions_client::AgentSessionsClient::new(channel)
            .max_decoding_message_size(MAX_UPDATE);
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let have = self.table.table();
        let known = !whole_table && have.revision() != Revision::default();
        let hello = AgentHello {
            mesh: self.mesh.to_string(),
            node: Some(self.node.clone().into()),
            table: known.then(|| have.revision().into()),
            table_digest: have.digest(),
            // Should it be packing that breaks them, plain ones work.
            takes_packed: !whole_table,
        };
        // The queue is empty, so this does not wait.
        let _ = outgoing.send(frame(agent_frame::Body::Hello(hello))).await;
        let opened = client.open(ReceiverStream::new(frames)).await;
        let mut incoming = opened.map_err(|status| from_status(&status))?.into_inner();
        match incoming.message().await {
            Ok(Some(CoordinatorFrame {
                body: Some(coordinator_frame::Body::Welcome(welcome)),
            })) => Ok((outgoing, incoming, welcome)),
            Ok(_) => Err(unreachable("it did not answer with a welcome".to_owned())),
            Err(status) => Err(from_status(&status)),
        }
    }

    /// Reads frames until the stream ends; gives why.
    async fn read(
        &self,
        incoming: &mut Streaming<CoordinatorFrame>,
        applied: &watch::Sender<Option<Revision>>,
        asked: &Notify,
        whole_table: &mut bool,
    ) -> MeshError {
        let mut states = States::default();
        loop {
            let body = match incoming.message().await {
                Ok(Some(frame)) => frame.body,
                Ok(None) => {
                    let text = "the coordinator closed the session";
                    return MeshError::new(ErrorCode::NoCoordinator, text);
                }
                Err(status) => return stream_end(&status),
            };
            let update = match body {
                Some(coordinator_frame::Body::Table(update)) => SentUpdate::Plain(update),
                Some(coordinator_frame::Body::PackedTable(update)) => SentUpdate::Packed(update),
                Some(coordinator_frame::Body::Rejected(rejected)) => {
                    self.rejected(rejected);
                    continue;
                }
                Some(coordinator_frame::Body::Directive(directive)) => {
                    self.directive(&directive);
                    continue;
                }
                Some(coordinator_frame::Body::AnnounceRequest(_)) => {
                    asked.notify_one();
                    continue;
                }
                Some(coordinator_frame::Body::Welcome(_)) => continue,
                None => {
                    tracing::debug!("the coordinator sent a frame that is not known here");
                    continue;
                }
            };
            match self.apply(update, &mut states) {
                Ok(revision) => {
                    applied.send_replace(Some(revision));
                }
                Err(error) => {
                    *whole_table = true;
                    return error;
                }
            }
        }
    }

    /// Applies an update; gives the revision to acknowledge.
    fn apply(&self, update: SentUpdate, states: &mut States) -> Result<Revision, MeshError> {
        let update = update.read(&self.table.table()).map_err(|error| {
            let text = format!("a table update of the coordinator can't be used: {error}");
            MeshError::new(ErrorCode::Internal, text)
        })?;
        let revision = match self.table.apply(&update) {
            Ok(revision) => revision,
            // It crossed a newer one, or comes from a coordinator that lags behind.
            Err(ApplyError::Older { have, .. }) => have,
            Err(error) => {
                let text = format!("{error}; the whole table is asked for");
                return Err(MeshError::new(ErrorCode::ProtocolViolation, text));
            }
        };
        self.standing.followed();
        for (instance, state, reason) in states.changes(&self.table.table(), &self.node.node) {
            self.plane.tell_state(instance, state, &reason);
        }
        Ok(revision)
    }

    fn rejected(&self, rejected: InstanceRejected) {
        let Ok(instance) = rejected.instance.parse::<InstanceId>() else {
            return;
        };
        let error = MeshError::from(rejected.error.unwrap_or_default());
        tracing::warn!(%instance, %error, "the coordinator refused an instance");
        self.supervisor.refused(instance, &error);
        self.roster
            .remove(instance, &format!("the coordinator refused it: {error}"));
        let place = self.plane.place(instance).unwrap_or_default();
        self.plane.end_stream(instance, Some(&error.at(place)));
    }

    fn directive(&self, directive: &Directive) {
        let Ok(plugin) = directive.plugin.parse::<PluginName>() else {
            tracing::warn!(plugin = directive.plugin, "a directive names no plugin");
            return;
        };
        let reason = match directive.reason.as_str() {
            "" => "an operator unloaded it".to_owned(),
            reason => reason.to_owned(),
        };
        match directive.action() {
            DirectiveAction::Unload => self.unload(&plugin, reason),
            DirectiveAction::Start => {
                let known = self.supervisor.allow(&plugin);
                tracing::info!(%plugin, known, "the plugin may run again");
            }
            DirectiveAction::Unspecified => {}
        }
    }

    /// Drains a plugin's instances: those with a process by its supervisor, the others here.
    fn unload(&self, plugin: &PluginName, reason: String) {
        tracing::info!(%plugin, reason, "unloading");
        self.supervisor.unload(plugin, &reason);
        let drain = Drain {
            reason,
            ..self.drain.clone()
        };
        for (instance, supervised) in self.plane.instances(Some(plugin)) {
            if !supervised {
                let drain = drain.clone();
                self.tasks.spawn("unload", async move {
                    drain.instance(instance, false).await;
                });
            }
        }
    }

    /// Sends the announcement, then changes and acknowledgements.
    async fn report(
        &self,
        outgoing: &mpsc::Sender<AgentFrame>,
        mut acks: watch::Receiver<Option<Revision>>,
        asked: &Notify,
        stop: &CancellationToken,
    ) {
        let mut roster = self.roster.follow();
        let mut told = Told::default();
        let mut gate = RateGate::new(REPORTS, Instant::now());
        let mut frames = vec![told.announce(&roster.borrow_and_update().clone())];
        loop {
            for frame in frames.drain(..) {
                if outgoing.send(frame).await.is_err() {
                    // The reading side learns why.
                    std::future::pending::<()>().await;
                }
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                biased;
                () = asked.notified() => {
                    frames.push(told.announce(&roster.borrow_and_update().clone()));
                }
                Ok(()) = acks.changed() => {
                    let revision = acks.borrow_and_update().map(Into::into);
                    frames.push(frame(agent_frame::Body::TableAck(TableAck { revision })));
                }
                Ok(()) = roster.changed() => {
                    // A plugin that changes all the time is told of less often, not in full.
                    if gate.pass(Instant::now()) == Pass::No {
                        tokio::time::sleep(REPORT_PAUSE).await;
                    }
                    frames = told.changes(&roster.borrow_and_update().clone());
                }
                // Who made the last change may not have woken anybody yet, so it is looked for once more.
                () = stop.cancelled() => frames = told.changes(&roster.borrow_and_update().clone()),
            }
        }
    }
}

/// What an instance has counted, of what it tells in a beacon.
fn counts(load: InstanceLoad) -> InstanceCounts {
    InstanceCounts {
        instance: load.instance,
        calls: load.calls.saturating_sub(u64::from(load.in_flight)),
        failed: load.failed,
    }
}

/// Renews the lease until the session ends.
async fn heartbeat(
    plane: Plane,
    outgoing: mpsc::Sender<AgentFrame>,
    interval: Duration,
    session: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = session.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let beat = frame(agent_frame::Body::Heartbeat(Heartbeat {
            counts: plane.loads().into_iter().map(counts).collect(),
        }));
        if outgoing.send(beat).await.is_err() {
            return;
        }
    }
}
