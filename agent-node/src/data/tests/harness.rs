//! A node in this process, and plugins that are played by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{Bus, BusConfig};
use mesh_core::capability::Capability;
use mesh_core::error::MeshError;
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::{InstanceRoute, NodeRoute, SpecId, TableUpdate};
use mesh_proto::common;
use mesh_proto::plugin::{
    Hello, HostFrame, PluginFrame, Ready, Welcome, host_frame, plugin_frame,
    plugin_host_client::PluginHostClient,
};
use mesh_runtime::{Metrics, Tasks};
use router::{CallOutput, CallRequest, CallStream, Router, RouterConfig, TableStore};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use crate::attach::Sockets;
use crate::config::Config;
use crate::data::{CHECKS, DataPath, Door, Plane, PlaneConfig};
use crate::launch::LaunchBook;
use crate::metrics::AgentMetrics;
use crate::roster::{Roster, new_instance};

/// Everything in these tests comes within this time, or never.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A node without a broker and a coordinator.
pub(super) struct Node {
    pub(super) plane: Plane,
    pub(super) router: Router,
    pub(super) roster: Roster,
    pub(super) book: LaunchBook,
    pub(super) checks: Arc<Semaphore>,
    /// Told when the agent begins to stop.
    pub(super) leaving: CancellationToken,
    pub(super) metrics: Metrics,
    pub(super) address: String,
    name: NodeId,
    table: TableStore,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::limited(4096, 1024).await
    }

    pub(super) async fn limited(max_in_flight: usize, max_per_instance: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name: NodeId = "node-1".parse().unwrap();
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        // Nothing listens there: all calls stay on the node.
        let (bus, driver) = Bus::connect(BusConfig {
            urls: "nats://127.0.0.1:9".to_owned(),
            credentials: None,
            client_name: "test".to_owned(),
            mesh: MeshName::default(),
        })
        .await
        .unwrap();
        let stop = tasks.token();
        tasks.spawn("bus", driver.run(stop.clone().cancelled_owned()));
        let config = PlaneConfig {
            mesh: MeshName::default(),
            node: name.clone(),
            max_in_flight,
            max_per_instance,
            max_bytes: 256 << 20,
            max_bytes_per_instance: 16 << 20,
            max_payload: crate::session::limits::MAX_PAYLOAD_BYTES,
            exporting: false,
        };
        let (table, tables, _) = TableStore::open(None).unwrap();
        let (roster, book) = (Roster::default(), LaunchBook::default());
        let sockets = Sockets::bind(&Config {
            data_dir: dir.path().to_owned(),
            attach_tcp: None,
            ..Config::default()
        })
        .unwrap();
        let leaving = CancellationToken::new();
        let checks = Arc::new(Semaphore::new(CHECKS));
        let address = sockets.for_plugins();
        let mut router = RouterConfig::new(name.clone());
        // What is refused is told at once.
        router.patience = Duration::ZERO;
        let path = DataPath {
            plane: config,
            router,
            bus,
            tables,
            generation: Generation(1),
            metrics: AgentMetrics::new(&metrics),
            door: Door {
                checks: Arc::clone(&checks),
                book: book.clone(),
                plugin_config: Arc::new(BTreeMap::new()),
                roster: roster.clone(),
                draw: new_instance,
            },
            grace: Duration::from_secs(5),
        };
        let streams = path.start(&tasks, &stop);
        let (plane, router) = (streams.plane.clone(), streams.router.clone());
        tasks.spawn("attach", sockets.serve(streams, leaving.clone(), stop));
        Self {
            plane,
            router,
            roster,
            book,
            checks,
            leaving,
            metrics,
            address,
            name,
            table,
            tasks,
            _dir: dir,
        }
    }

    /// A stream of which nothing was said yet.
    pub(super) async fn connect(&self) -> Stranger {
        Stranger::connect(&self.address).await
    }

    /// A plugin that provides a tool of each name and takes calls; the table knows it.
    pub(super) async fn plugin(&self, name: &str, tools: &[&str]) -> Plugin {
        self.plugin_with(manifest(name, tools)).await
    }

    pub(super) async fn plugin_with(&self, manifest: common::Manifest) -> Plugin {
        let mut plugin = self.connect().await.hello(hello(manifest)).await.unwrap();
        plugin.send(0, plugin_frame::Body::Ready(Ready {})).await;
        self.reaches(plugin.instance, Phase::Ready).await;
        self.publish();
        plugin
    }

    /// Waits until the roster knows an instance in a phase.
    pub(super) async fn reaches(&self, instance: InstanceId, phase: Phase) {
        let mut follow = self.roster.follow();
        let is_there = follow.wait_for(|instances| {
            let fact = instances.known.get(&instance);
            fact.is_some_and(|fact| fact.phase == phase)
        });
        timeout(SOON, is_there).await.unwrap().unwrap();
    }

    /// Waits until the roster has forgotten an instance; gives why.
    pub(super) async fn forgets(&self, instance: InstanceId) -> String {
        let mut follow = self.roster.follow();
        let gone = follow.wait_for(|instances| !instances.known.contains_key(&instance));
        let instances = timeout(SOON, gone).await.unwrap().unwrap();
        instances.why_gone(instance).to_owned()
    }

    /// Makes the roster the table, as a coordinator would.
    pub(super) fn publish(&self) {
        let known = self.roster.now();
        let before = self.table.table().revision();
        let mut update = TableUpdate {
            from: None,
            to: Revision {
                epoch: 1,
                sequence: before.sequence + 1,
            },
            nodes: vec![NodeRoute {
                node: self.name.clone(),
                generation: Generation(1),
                zone: String::new(),
                labels: BTreeMap::new(),
                software: String::new(),
            }],
            ..TableUpdate::default()
        };
        for (instance, fact) in &known.known {
            let spec = SpecId::of(&fact.manifest);
            if !update.specs.iter().any(|(known, _)| *known == spec) {
                update
                    .specs
                    .push((spec.clone(), Arc::clone(&fact.manifest)));
            }
            update.instances.push(InstanceRoute {
                instance: *instance,
                spec,
                node: self.name.clone(),
                generation: Generation(1),
                state: InstanceState::Active,
                reason: String::new(),
                since: Timestamp(1),
                concurrency: fact.concurrency,
            });
        }
        self.table.apply(&update).unwrap();
    }

    pub(super) fn call(&self, tool: &str, payload: impl Into<Bytes>) -> CallStream {
        self.router.call(self.request(tool, payload))
    }

    pub(super) fn request(&self, tool: &str, payload: impl Into<Bytes>) -> CallRequest {
        let capability: Capability = format!("tool:{tool}").parse().unwrap();
        CallRequest::new(capability, payload.into()).with_timeout(SOON)
    }

    pub(super) async fn until_in_flight(&self, count: usize) {
        let reached = async {
            while self.plane.in_flight() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, reached).await.unwrap();
    }
}

pub(crate) async fn finish(call: CallStream) -> Result<CallOutput, MeshError> {
    timeout(SOON, call.finish()).await.unwrap()
}

pub(crate) fn manifest(name: &str, tools: &[&str]) -> common::Manifest {
    let entry = |tool: &&str| common::CapabilityEntry {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Tool.into(),
            name: (*tool).to_owned(),
        }),
        entry: format!(r#"{{"name":"{tool}","inputSchema":{{"type":"object"}}}}"#).into(),
        streaming: true,
        ..common::CapabilityEntry::default()
    };
    common::Manifest {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        capabilities: tools.iter().map(entry).collect(),
        ..common::Manifest::default()
    }
}

pub(crate) fn hello(manifest: common::Manifest) -> Hello {
    Hello {
        min_protocol: 1,
        max_protocol: 1,
        manifest: Some(manifest),
        sdk: "test".to_owned(),
        ..Hello::default()
    }
}

/// A stream before its handshake.
pub(crate) struct Stranger {
    pub(crate) frames: mpsc::Sender<PluginFrame>,
    pub(crate) host: Streaming<HostFrame>,
}

impl Stranger {
    pub(crate) async fn connect(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(address.to_owned()).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut client = PluginHostClient::new(channel);
        let (frames, receiver) = mpsc::channel(1024);
        let host = client.attach(ReceiverStream::new(receiver)).await.unwrap();
        Self {
            frames,
            host: host.into_inner(),
        }
    }

    pub(crate) async fn send(&self, id: u64, body: plugin_frame::Body) {
        let body = Some(body);
        self.frames.send(PluginFrame { id, body }).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Result<Option<HostFrame>, Status> {
        timeout(SOON, self.host.message()).await.unwrap()
    }

    pub(crate) async fn hello(mut self, hello: Hello) -> Result<Plugin, Status> {
        self.send(0, plugin_frame::Body::Hello(hello.into())).await;
        match self.receive().await?.unwrap().body {
            Some(host_frame::Body::Welcome(welcome)) => Ok(Plugin {
                instance: welcome.instance.parse().unwrap(),
                welcome: *welcome,
                frames: self.frames,
                host: self.host,
            }),
            other => panic!("{other:?}"),
        }
    }
}

/// A plugin that is played by a test.
pub(crate) struct Plugin {
    pub(crate) instance: InstanceId,
    pub(crate) welcome: Welcome,
    pub(crate) frames: mpsc::Sender<PluginFrame>,
    pub(crate) host: Streaming<HostFrame>,
}

impl Plugin {
    pub(crate) async fn send(&mut self, id: u64, body: plugin_frame::Body) {
        let body = Some(body);
        self.frames.send(PluginFrame { id, body }).await.unwrap();
    }

    /// The next frame that is no word about states.
    pub(crate) async fn receive(&mut self) -> (u64, host_frame::Body) {
        loop {
            let frame = timeout(SOON, self.host.message()).await.unwrap();
            let frame = frame.unwrap().unwrap();
            match frame.body.unwrap() {
                host_frame::Body::StateChange(_) => {}
                body => return (frame.id, body),
            }
        }
    }

    /// The very next frame.
    pub(crate) async fn frame(&mut self) -> host_frame::Body {
        let frame = timeout(SOON, self.host.message()).await.unwrap();
        frame.unwrap().unwrap().body.unwrap()
    }

    pub(crate) async fn invoked(&mut self) -> (u64, common::Call) {
        match self.receive().await {
            (id, host_frame::Body::Invoke(call)) => (id, *call),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn answer(&mut self, id: u64, payload: impl Into<Bytes>) {
        let payload = payload.into();
        let result = common::Result {
            payload,
            ..common::Result::default()
        };
        self.send(id, plugin_frame::Body::Result(result)).await;
    }

    pub(crate) async fn error(&mut self) -> (u64, MeshError) {
        match self.receive().await {
            (id, host_frame::Body::Error(error)) => (id, error.into()),
            other => panic!("{other:?}"),
        }
    }

    /// How the stream ends, after frames that don't matter.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        loop {
            if timeout(SOON, self.host.message()).await.unwrap()?.is_none() {
                return Ok(());
            }
        }
    }
}
