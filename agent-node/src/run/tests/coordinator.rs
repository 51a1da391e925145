//! A coordinator that the test plays.

use mesh_proto::control::{
    self, AgentFrame, AgentHello, AgentWelcome, CoordinatorFrame, agent_frame,
    agent_sessions_server::{AgentSessions, AgentSessionsServer},
    coordinator_frame,
};
use mesh_proto::convert::SentUpdate;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::data::tests::harness::{Plugin, SOON};

type Opened = (
    Streaming<AgentFrame>,
    mpsc::Sender<Result<CoordinatorFrame, Status>>,
);

struct Handler {
    opened: mpsc::Sender<Opened>,
}

#[tonic::async_trait]
impl AgentSessions for Handler {
    type OpenStream = ReceiverStream<Result<CoordinatorFrame, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let (frames, stream) = mpsc::channel(64);
        let _ = self.opened.send((request.into_inner(), frames)).await;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The coordinator.
pub(super) struct Coordinator {
    pub(super) address: String,
    opened: mpsc::Receiver<Opened>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Coordinator {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (opened, sessions) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let service = AgentSessionsServer::new(Handler { opened });
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        Self {
            address,
            opened: sessions,
            stop,
            server,
        }
    }

    /// One that is not there.
    pub(super) fn absent(address: String) -> Self {
        Self {
            address,
            opened: mpsc::channel(1).1,
            stop: CancellationToken::new(),
            server: tokio::spawn(std::future::ready(())),
        }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        drop(self.opened);
        timeout(SOON, self.server).await.unwrap().unwrap();
    }

    /// The next session, welcomed.
    pub(super) async fn session(&mut self) -> Session {
        let opened = timeout(SOON, self.opened.recv()).await;
        let (mut agent, frames) = opened.unwrap().unwrap();
        let first = timeout(SOON, agent.message()).await.unwrap();
        let Some(agent_frame::Body::Hello(hello)) = first.unwrap().unwrap().body else {
            panic!("no hello");
        };
        let mut session = Session {
            hello,
            agent,
            frames,
        };
        let welcome = AgentWelcome {
            coordinator: "played".to_owned(),
            heartbeat_interval_ms: 50,
            lease_ms: 30_000,
        };
        session
            .send(coordinator_frame::Body::Welcome(welcome))
            .await;
        session
    }
}

/// A session with one agent.
pub(super) struct Session {
    pub(super) hello: AgentHello,
    agent: Streaming<AgentFrame>,
    frames: mpsc::Sender<Result<CoordinatorFrame, Status>>,
}

impl Session {
    pub(super) async fn send(&mut self, body: coordinator_frame::Body) {
        let frame = CoordinatorFrame { body: Some(body) };
        self.frames.send(Ok(frame)).await.unwrap();
    }

    pub(super) async fn receive(&mut self) -> agent_frame::Body {
        let frame = timeout(SOON, self.agent.message()).await.unwrap();
        frame.unwrap().unwrap().body.unwrap()
    }

    /// The first frame that is looked for. Heartbeats come all the time, so the search as a whole
    /// has a bound.
    pub(super) async fn find<T>(&mut self, look: impl Fn(agent_frame::Body) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = look(self.receive().await) {
                    return found;
                }
            }
        };
        timeout(SOON, search).await.unwrap()
    }

    /// The next acknowledged sequence.
    pub(super) async fn acked(&mut self) -> u64 {
        let acked = self.find(|body| match body {
            agent_frame::Body::TableAck(ack) => ack.revision,
            _ => None,
        });
        acked.await.sequence
    }

    /// Waits for the end that the agent makes.
    pub(super) async fn closed(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.agent.message().await {} };
        timeout(SOON, ended).await.unwrap();
        // The coordinator closes its side.
        let (closed, _) = mpsc::channel(1);
        self.frames = closed;
    }

    pub(super) async fn send_table(&mut self, update: control::TableUpdate) {
        let update = SentUpdate::plain(update.try_into().unwrap());
        self.send(update.into()).await;
    }

    /// A whole table with this one instance.
    pub(super) fn table_with(
        &self,
        plugin: &Plugin,
        sequence: u64,
        state: control::InstanceState,
    ) -> control::TableUpdate {
        let node = self.hello.node.clone().unwrap();
        let manifest = crate::data::tests::harness::manifest("time", &["work"]);
        let checked = mesh_core::manifest::Manifest::try_from(manifest.clone()).unwrap();
        let spec = mesh_core::table::SpecId::of(&checked).to_string();
        control::TableUpdate {
            from: None,
            to: Some(control::Revision { epoch: 1, sequence }),
            specs: vec![control::PluginSpec {
                id: spec.clone(),
                manifest: Some(manifest),
            }],
            instances: vec![control::InstanceRoute {
                instance: plugin.instance.to_string(),
                spec,
                node: node.node.clone(),
                generation: node.generation,
                state: state.into(),
                reason: String::new(),
                since_ms: 1,
                concurrency: 0,
            }],
            nodes: vec![node],
            ..control::TableUpdate::default()
        }
    }
}
