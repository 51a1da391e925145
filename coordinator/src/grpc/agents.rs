//! `AgentSessions`: one stream per agent.
//!
//! A session has two tasks. The reader takes what the agent says, so that a heartbeat is heard
//! whatever the agent takes of the table; the writer sends what the actor wants to say, and the
//! table at the agent's own pace.

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::revision::Revision;
use mesh_core::table::NodeRoute;
use mesh_engine::engine::{Action, Event, SessionId};
use mesh_engine::record::Parting;
use mesh_proto::control::agent_sessions_server::AgentSessions;
use mesh_proto::control::{
    AgentFrame, AgentHello, AgentWelcome, AnnounceRequest, CoordinatorFrame, Directive,
    DirectiveAction, InstanceRejected, agent_frame, coordinator_frame,
};
use mesh_proto::convert::WireError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::report::{counted, instance, report};
use super::{OUTGOING, Services, broken, finish, first};
use crate::feed::Follower;
use crate::handle::{OpenSession, ToAgent, stopped};

type Outgoing = mpsc::Sender<Result<CoordinatorFrame, Status>>;

/// Refusals of instances that can't be read that wait for one agent; one that lets more pile up loses
/// its session.
const REFUSED: usize = 1_024;

#[tonic::async_trait]
impl AgentSessions for Services {
    type OpenStream = ReceiverStream<Result<CoordinatorFrame, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let (out, stream) = mpsc::channel(OUTGOING);
        let (services, stop) = (self.clone(), self.tasks.token());
        self.tasks.spawn("agent session", async move {
            let served = services.serve_agent(request.into_inner(), out.clone());
            let error = tokio::select! {
                () = stop.cancelled() => Some(stopped()),
                ended = served => ended.err(),
            };
            finish(&out, error).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// How a session ended: with nothing to say to the agent, or with an error.
type Ended = Result<(), MeshError>;

impl Services {
    /// Serves one agent until its stream or its session ends.
    async fn serve_agent(&self, mut frames: Streaming<AgentFrame>, out: Outgoing) -> Ended {
        let hello = match first(&mut frames, "hello").await?.body {
            Some(agent_frame::Body::Hello(hello)) => hello,
            _ => return Err(violation("the first frame of a session is a hello")),
        };
        let (digest, packed) = (hello.table_digest, hello.takes_packed);
        let (node, table) = self.check_hello(hello)?;
        self.joining.may_join().await?;
        tracing::info!(node = %node.node, generation = %node.generation, "an agent joins");
        let OpenSession { id, from_actor } = self.handle.open(node.clone(), table).await?;
        let (refuse, refused) = mpsc::channel(REFUSED);
        let reader = Reader {
            services: self.clone(),
            session: id,
            refused: refuse,
        };
        // Whatever ends this session ends its reader, which then takes leave of the actor.
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let (say, mut said) = oneshot::channel();
        self.tasks.spawn("agent frames", async move {
            let parting = tokio::select! {
                () = over.cancelled() => Parting::SentOn,
                ended = reader.read(frames) => {
                    // It closes its side in order only when it stops.
                    let parting = match ended {
                        Ok(()) => Parting::Left,
                        Err(_) => Parting::Broken,
                    };
                    // The writer may have ended in the same moment.
                    let _ = say.send(ended);
                    over.cancelled().await;
                    parting
                }
            };
            let closed = Event::AgentClosed {
                session: id,
                parting,
            };
            // Without an actor there is nobody to tell.
            let _ = reader.services.handle.tell(closed).await;
        });
        let writer = Writer {
            services: self,
            from_actor,
            refused,
            follower: self.feed.follow(table, digest).takes_packed(packed),
            out,
        };
        let ended = tokio::select! {
            ended = writer.write() => ended,
            ended = &mut said => ended.unwrap_or_else(|_| Err(stopped())),
        };
        tracing::info!(node = %node.node, generation = %node.generation, "an agent's session has ended");
        ended
    }

    fn check_hello(&self, hello: AgentHello) -> Result<(NodeRoute, Option<Revision>), MeshError> {
        self.check_mesh(&hello.mesh)?;
        let node = hello
            .node
            .ok_or_else(|| WireError::new("node", "is missing"))?;
        let node = NodeRoute::try_from(node).map_err(|error| error.within("node"))?;
        if node.generation.0 == 0 {
            return Err(
                WireError::new("node.generation", "is 0: give the time of the start").into(),
            );
        }
        Ok((node, hello.table.map(Into::into)))
    }
}

struct Reader {
    services: Services,
    session: SessionId,
    /// To the writer: instances that can't even be read.
    refused: mpsc::Sender<(String, MeshError)>,
}

impl Reader {
    async fn read(&self, mut frames: Streaming<AgentFrame>) -> Ended {
        loop {
            match frames.message().await {
                Ok(Some(AgentFrame { body: Some(body) })) => self.frame(body).await?,
                // A frame of a newer agent, which it can do without.
                Ok(Some(AgentFrame { body: None })) => {
                    tracing::debug!(session = self.session.0, "an unknown frame of an agent");
                }
                Ok(None) => return Ok(()),
                Err(status) => return Err(broken(&status)),
            }
        }
    }

    async fn frame(&self, body: agent_frame::Body) -> Ended {
        let (session, handle) = (self.session, &self.services.handle);
        match body {
            agent_frame::Body::Hello(_) => Err(violation("a session has one hello")),
            agent_frame::Body::Announce(announce) => {
                let mut reports = Vec::with_capacity(announce.instances.len());
                for wire in announce.instances {
                    match report(wire) {
                        Ok(report) => reports.push(report),
                        Err((id, error)) => self.reject(id, error)?,
                    }
                }
                handle.announced(session, reports).await
            }
            agent_frame::Body::Report(wire) => match report(wire) {
                Ok(report) => handle.tell(Event::AgentReported { session, report }).await,
                Err((id, error)) => {
                    // What is known of it by that id is no longer true.
                    if let Ok(instance) = instance(&id) {
                        handle.tell(Event::AgentGone { session, instance }).await?;
                    }
                    self.reject(id, error)
                }
            },
            agent_frame::Body::Gone(gone) => {
                let instance = instance(&gone.instance)?;
                handle.tell(Event::AgentGone { session, instance }).await
            }
            agent_frame::Body::Heartbeat(beat) => {
                handle.tell(Event::AgentHeartbeat { session }).await?;
                if beat.counts.is_empty() {
                    return Ok(());
                }
                // A count that can't be read is one that is not known.
                let counts = beat.counts.iter().filter_map(counted).collect();
                handle.tell(Event::AgentCounted { session, counts }).await
            }
            agent_frame::Body::TableAck(ack) => {
                let table = ack.revision.unwrap_or_default().into();
                handle
                    .tell(Event::AgentAcknowledged { session, table })
                    .await
            }
        }
    }

    /// Refuses an instance that can't even be read. The reader waits for no writing: heartbeats come
    /// the same way.
    fn reject(&self, instance: String, error: MeshError) -> Ended {
        tracing::warn!(session = self.session.0, %error, "an instance is refused");
        self.refused
            .try_send((instance, error))
            .map_err(|_| pile_up())
    }
}

struct Writer<'a> {
    services: &'a Services,
    from_actor: mpsc::Receiver<ToAgent>,
    refused: mpsc::Receiver<(String, MeshError)>,
    follower: Follower,
    out: Outgoing,
}

impl Writer<'_> {
    async fn write(mut self) -> Ended {
        let _following = self.services.metrics.following();
        // The table comes after the welcome.
        let mut welcome = false;
        loop {
            let body = tokio::select! {
                () = self.out.closed() => return Ok(()),
                said = self.from_actor.recv() => match said {
                    Some(ToAgent::Close(error)) => return Err(error),
                    Some(said) => {
                        welcome |= matches!(said, ToAgent::Welcome);
                        self.body(said)
                    }
                    None => return Err(pile_up()),
                },
                Some((instance, error)) = self.refused.recv(), if welcome => {
                    rejected(instance, error)
                }
                update = self.follower.next(), if welcome => update.into(),
            };
            if self.out.send(Ok(frame(body))).await.is_err() {
                return Ok(());
            }
        }
    }

    fn body(&self, said: ToAgent) -> coordinator_frame::Body {
        let millis =
            |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        match said {
            ToAgent::Welcome => coordinator_frame::Body::Welcome(AgentWelcome {
                coordinator: self.services.name.to_string(),
                heartbeat_interval_ms: millis(self.services.heartbeat),
                lease_ms: millis(self.services.lease),
            }),
            ToAgent::AskAnnounce => coordinator_frame::Body::AnnounceRequest(AnnounceRequest {}),
            ToAgent::Reject(instance, error) => rejected(instance.to_string(), error),
            ToAgent::Directive(action, plugin, reason) => {
                let action = match action {
                    Action::Unload => DirectiveAction::Unload,
                    Action::Start => DirectiveAction::Start,
                };
                coordinator_frame::Body::Directive(Directive {
                    action: action.into(),
                    plugin: plugin.to_string(),
                    reason,
                })
            }
            // Taken before; it ends the stream.
            ToAgent::Close(error) => rejected(String::new(), error),
        }
    }
}

fn frame(body: coordinator_frame::Body) -> CoordinatorFrame {
    CoordinatorFrame { body: Some(body) }
}

fn rejected(instance: String, error: MeshError) -> coordinator_frame::Body {
    coordinator_frame::Body::Rejected(InstanceRejected {
        instance,
        error: Some(error.into()),
    })
}

fn violation(text: &str) -> MeshError {
    MeshError::new(ErrorCode::ProtocolViolation, text)
}

fn pile_up() -> MeshError {
    MeshError::new(
        ErrorCode::Overloaded,
        "too much waits for this agent to read it: the session ends and begins anew",
    )
}
