//! The coordinator in this process, over real gRPC, with a store in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod admin;
mod agents;
mod outage;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use mesh_bus::{AuditConfig, AuditLog, BusConfig, StoreError, StoreEvent};
use mesh_core::error::MeshError;
use mesh_core::id::MeshName;
use mesh_proto::admin::mesh_admin_client::MeshAdminClient;
use mesh_proto::admin::{ListPluginsRequest, PluginView};
use mesh_proto::control::agent_sessions_client::AgentSessionsClient;
use mesh_proto::control::{
    AgentFrame, AgentHello, Announce, CoordinatorFrame, InstancePhase, InstanceReport,
    InstanceState, NodeRoute, agent_frame, coordinator_frame,
};
use mesh_proto::{common, control, status};
use mesh_runtime::{Context, HumanDuration};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::run::{RunError, Running};
use crate::store::{Follow, Store};
use crate::{Config, RunConfig};

/// The longest that a test waits for something.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket in memory that can be lost, filled and emptied.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    epoch: u64,
    sequence: u64,
    lost: bool,
    /// Nothing more can be written.
    full: bool,
    entries: BTreeMap<String, (Option<Bytes>, u64)>,
    followers: Vec<mpsc::UnboundedSender<StoreEvent>>,
}

impl Inner {
    fn tell(&mut self, event: &StoreEvent) {
        self.followers
            .retain(|follower| follower.send(event.clone()).is_ok());
    }

    fn tell_all(&mut self) {
        self.tell(&StoreEvent::Reset {
            epoch: self.epoch,
            last: self.sequence,
        });
        let mut entries: Vec<_> = self.entries.clone().into_iter().collect();
        entries.sort_by_key(|(_, (_, sequence))| *sequence);
        for (key, (value, sequence)) in entries {
            self.tell(&StoreEvent::Entry {
                key,
                value,
                sequence,
                at_ms: sequence,
            });
        }
        self.tell(&StoreEvent::Current);
    }
}

pub struct MemoryFollower(mpsc::UnboundedReceiver<StoreEvent>);

impl Memory {
    pub fn new() -> Self {
        let memory = Self::default();
        memory.inner.lock().unwrap().epoch = 1;
        memory
    }

    fn follow(&self) -> MemoryFollower {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.inner.lock().unwrap();
        inner.followers.push(sender);
        if !inner.lost {
            inner.tell_all();
        }
        MemoryFollower(receiver)
    }

    pub fn lose(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.lost = true;
        inner.tell(&StoreEvent::Lost);
    }

    pub fn find(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.lost = false;
        inner.tell_all();
    }

    pub fn fill(&self, full: bool) {
        self.inner.lock().unwrap().full = full;
    }

    pub fn keys(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        let live = inner
            .entries
            .iter()
            .filter(|(_, (value, _))| value.is_some());
        live.map(|(key, _)| key.clone()).collect()
    }
}

impl Store for Memory {
    fn write(
        &self,
        key: String,
        expected: u64,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        let mut inner = self.inner.lock().unwrap();
        let why = "a test took it away".to_owned();
        if inner.lost {
            return Box::pin(async { Err(StoreError::Unavailable { why }) });
        }
        if inner.full {
            let why = "no space left".to_owned();
            return Box::pin(async { Err(StoreError::Unknown { key, why }) });
        }
        let current = match inner.entries.get(&key) {
            Some((Some(_), sequence)) => *sequence,
            _ => 0,
        };
        if current != expected {
            return Box::pin(async move {
                Err(StoreError::Conflict {
                    key,
                    expected,
                    current,
                })
            });
        }
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.entries.insert(key.clone(), (value.clone(), sequence));
        inner.tell(&StoreEvent::Entry {
            key,
            value,
            sequence,
            at_ms: sequence,
        });
        Box::pin(async move { Ok(sequence) })
    }
}

impl Follow for MemoryFollower {
    async fn next(&mut self) -> Option<StoreEvent> {
        self.0.recv().await
    }
}

/// An audit that nobody stores.
fn no_audit() -> AuditLog {
    let bus = BusConfig {
        urls: "nats://127.0.0.1:1".to_owned(),
        credentials: None,
        client_name: "test".to_owned(),
        mesh: MeshName::default(),
    };
    let config = AuditConfig {
        replicas: 1,
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(60),
        is_covered: crate::audit::is_covered,
    };
    AuditLog::open(bus, config).unwrap().0
}

/// A coordinator that runs, and a connection to it.
pub struct Bench {
    pub memory: Memory,
    pub context: Context,
    pub channel: Channel,
    stopped: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Bench {
    pub async fn start() -> Self {
        Self::over(Memory::new(), |_| {}).await
    }

    pub async fn over(memory: Memory, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = RunConfig {
            coordinator: Config {
                listen: "127.0.0.1:0".parse().unwrap(),
                admin_listen: "127.0.0.1:0".parse().unwrap(),
                lease: HumanDuration::from_millis(400),
                heartbeat: HumanDuration::from_millis(100),
                grace: HumanDuration::from_millis(200),
                ..Config::default()
            },
            ..RunConfig::default()
        };
        change(&mut config.coordinator);
        let context = Context::default();
        let follower = memory.follow();
        let store = memory.clone();
        let running = Running::start(&config, &context, (store, follower), no_audit())
            .await
            .unwrap();
        let address = format!("http://{}", running.listen);
        let stopped = context.tasks.spawn("bench", running.until_stopped());
        let channel = Channel::from_shared(address).unwrap().connect_lazy();
        Self {
            memory,
            context,
            channel,
            stopped,
        }
    }

    /// Stops in order; everything has ended afterwards.
    pub async fn stop(self) -> Memory {
        self.context.shutdown.trigger();
        let stopped = tokio::time::timeout(PATIENCE, self.stopped).await;
        stopped.expect("it stops in time").unwrap().unwrap();
        self.context.tasks.cancel();
        let report = self.context.tasks.join(PATIENCE).await;
        assert!(report.is_clean(), "{report:?}");
        self.memory
    }

    pub fn admin(&self) -> MeshAdminClient<Channel> {
        MeshAdminClient::new(self.channel.clone())
    }

    pub async fn plugins(&self) -> Vec<PluginView> {
        let answer = self
            .admin()
            .list_plugins(ListPluginsRequest::default())
            .await;
        answer.unwrap().into_inner().plugins
    }

    /// Waits until a plugin's only instance is in a state; gives the reason.
    pub async fn until(&self, plugin: &str, state: InstanceState) -> String {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                seen = self.plugins().await;
                let of = |view: &&PluginView| view.manifest.as_ref().unwrap().name == plugin;
                let instances = seen.iter().filter(of).flat_map(|view| &view.instances);
                let found = instances.clone().find(|route| route.state() == state);
                if let Some(route) = found {
                    return route.reason.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{plugin} is not {state:?}: {seen:?}"))
    }

    /// Waits until no plugin is listed.
    pub async fn until_empty(&self) {
        let waiting = async {
            while !self.plugins().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the list becomes empty");
    }

    pub async fn agent(&self, node: &str, generation: u64) -> Agent {
        let mut agent = Agent::open(self.channel.clone()).await;
        agent.hello("default", node, generation).await;
        match agent.next().await {
            Ok(coordinator_frame::Body::Welcome(welcome)) => {
                assert_eq!(welcome.heartbeat_interval_ms, 100);
            }
            other => panic!("{other:?}"),
        }
        agent
    }
}

/// An agent by hand.
pub struct Agent {
    frames: mpsc::Sender<AgentFrame>,
    said: Streaming<CoordinatorFrame>,
}

impl Agent {
    pub async fn open(channel: Channel) -> Self {
        let (frames, receiver) = mpsc::channel(64);
        let mut client = AgentSessionsClient::new(channel);
        let said = client
            .open(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Self { frames, said }
    }

    pub async fn send(&self, body: agent_frame::Body) {
        self.frames
            .send(AgentFrame { body: Some(body) })
            .await
            .unwrap();
    }

    pub async fn hello(&self, mesh: &str, node: &str, generation: u64) {
        let hello = AgentHello {
            mesh: mesh.into(),
            node: Some(NodeRoute {
                node: node.into(),
                generation,
                ..NodeRoute::default()
            }),
            ..AgentHello::default()
        };
        self.send(agent_frame::Body::Hello(hello)).await;
    }

    pub async fn announce(&self, instances: Vec<InstanceReport>) {
        self.send(agent_frame::Body::Announce(Announce { instances }))
            .await;
    }

    pub async fn report(&self, report: InstanceReport) {
        self.send(agent_frame::Body::Report(report)).await;
    }

    /// The next thing that is said; an error is how the stream ended.
    pub async fn next(&mut self) -> Result<coordinator_frame::Body, MeshError> {
        match tokio::time::timeout(PATIENCE, self.said.message()).await {
            Ok(Ok(Some(frame))) => Ok(frame.body.expect("a body")),
            Ok(Ok(None)) => panic!("the stream ended without a word"),
            Ok(Err(error)) => Err(status::from_status(&error)),
            Err(_) => panic!("nothing was said"),
        }
    }

    /// The next thing that is no update of the table.
    pub async fn next_but_table(&mut self) -> Result<coordinator_frame::Body, MeshError> {
        loop {
            match self.next().await {
                Ok(coordinator_frame::Body::Table(_)) => {}
                other => return other,
            }
        }
    }

    /// How the stream ended.
    pub async fn end(&mut self) -> String {
        match self.next_but_table().await {
            Ok(body) => panic!("{body:?}"),
            Err(error) => error.to_string(),
        }
    }
}

pub fn instance(number: u8) -> String {
    format!("01890a5d-ac96-774b-bcce-b302099a80{number:02x}")
}

/// A report of an instance that is ready. `needs`: plugins of version 1.
pub fn ready(number: u8, plugin: &str, needs: &[&str]) -> InstanceReport {
    let need = |name: &&str| common::Dependency {
        plugin: (*name).into(),
        requirement: "^1".into(),
        optional: false,
    };
    InstanceReport {
        instance: instance(number),
        manifest: Some(common::Manifest {
            name: plugin.into(),
            version: "1.0.0".into(),
            dependencies: needs.iter().map(need).collect(),
            ..common::Manifest::default()
        }),
        phase: InstancePhase::Ready.into(),
        ..InstanceReport::default()
    }
}
