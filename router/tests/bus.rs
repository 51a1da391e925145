//! The router over the bus, with a real nats-server.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the bus's own tests use the rest")]
#[path = "../../mesh-bus/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{Bus, BusConfig};
use mesh_core::capability::{Capability, CapabilityEntry, CapabilityKind};
use mesh_core::error::ErrorCode;
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, TableUpdate};
use mesh_proto::common;
use mesh_proto::control::{InstanceLoad, LoadBeacon, NodeReply, node_reply, node_request};
use router::{CallRequest, CallStream, Router, RouterConfig, TableStore};
use support::Nats;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(15);

fn node(n: u8) -> NodeId {
    NodeId::new(&format!("node-{n}")).unwrap()
}

fn instance(n: u8) -> InstanceId {
    InstanceId::new(u64::from(n), [n; 10])
}

fn capability(name: &str) -> Capability {
    Capability::new(CapabilityKind::Service, name).unwrap()
}

/// A table in which instance n runs on node n.
fn table(sequence: u64, instances: &[u8]) -> TableUpdate {
    let json = serde_json::json!({ "name": "p", "version": "1.0.0" });
    let mut manifest: Manifest = serde_json::from_value(json).unwrap();
    for (name, idempotent) in [("once", false), ("again", true)] {
        manifest.capabilities.push(CapabilityEntry {
            capability: capability(name),
            entry: None,
            idempotent,
            read_only: false,
            streaming: false,
            client_streaming: false,
        });
    }
    let spec = SpecId::of(&manifest);
    let route = |n: &u8| InstanceRoute {
        instance: instance(*n),
        spec: spec.clone(),
        node: node(*n),
        generation: Generation(1),
        state: InstanceState::Active,
        reason: String::new(),
        since: Timestamp(0),
        concurrency: 0,
    };
    TableUpdate {
        to: Revision { epoch: 1, sequence },
        specs: vec![(spec.clone(), Arc::new(manifest))],
        instances: instances.iter().map(route).collect(),
        ..TableUpdate::default()
    }
}

async fn bus(nats: &Nats) -> Bus {
    let config = BusConfig {
        urls: nats.url(),
        credentials: None,
        client_name: "test".to_owned(),
        mesh: MeshName::default(),
    };
    let (bus, driver) = Bus::connect(config).await.unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    let mut connected = bus.connected();
    timeout(PATIENCE, connected.wait_for(|up| *up))
        .await
        .unwrap()
        .unwrap();
    bus
}

/// A node that answers at once with its number, or never. Counts its calls.
async fn serve(bus: &Bus, n: u8, answers: bool) -> Arc<AtomicU64> {
    let mut inbox = bus.serve_node(&node(n), Generation(1)).await.unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let (bus, counter) = (bus.clone(), calls.clone());
    tokio::spawn(async move {
        while let Some((request, to)) = inbox.recv().await {
            let Some(node_request::Body::Call(_)) = request.body else {
                continue;
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if answers {
                let result = common::Result {
                    payload: vec![n].into(),
                    ..common::Result::default()
                };
                let reply = NodeReply {
                    call_id: request.call_id,
                    body: Some(node_reply::Body::Result(result)),
                    chunks_before: 0,
                };
                bus.reply(&to, reply).unwrap();
            }
        }
    });
    calls
}

struct World {
    _nats: Nats,
    host: Bus,
    router: Router,
    store: TableStore,
}

impl World {
    async fn new(instances: &[u8]) -> Self {
        let nats = Nats::start();
        let (host, caller) = (bus(&nats).await, bus(&nats).await);
        let (store, tables, _) = TableStore::open(None).unwrap();
        store.apply(&table(1, instances)).unwrap();
        let config = RouterConfig::new(NodeId::new("gateway").unwrap());
        let (router, driver) = Router::new(config, caller, tables, None);
        tokio::spawn(driver.run(std::future::pending()));
        Self {
            _nats: nats,
            host,
            router,
            store,
        }
    }

    fn call(&self, name: &str) -> CallStream {
        self.router
            .call(CallRequest::new(capability(name), Bytes::new()))
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happens that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_node_that_is_gone_costs_no_call() {
    // Node 1 stands in the table, and nobody serves it.
    let world = World::new(&[1, 2]).await;
    let calls = serve(&world.host, 2, true).await;
    for n in 1..=20 {
        let output = timeout(PATIENCE, world.call("once").finish())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(output.payload, [2].as_slice());
        assert_eq!(calls.load(Ordering::Relaxed), n);
    }
}

#[tokio::test]
async fn when_an_instance_leaves_the_table_its_calls_end_and_are_repeated_if_they_may_be() {
    let world = World::new(&[1]).await;
    let (silent, answers) = (
        serve(&world.host, 1, false).await,
        serve(&world.host, 2, true).await,
    );
    let (once, again) = (world.call("once"), world.call("again"));
    eventually("both have begun", || silent.load(Ordering::Relaxed) == 2).await;
    world.store.apply(&table(2, &[2])).unwrap();
    let error = timeout(PATIENCE, once.finish()).await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
    assert_eq!(
        (error.place.plugin.as_str(), error.place.node.as_str()),
        ("p", "node-1")
    );
    let output = timeout(PATIENCE, again.finish()).await.unwrap().unwrap();
    assert_eq!(output.payload, [2].as_slice());
    assert_eq!(answers.load(Ordering::Relaxed), 1);
}

fn beacon(n: u8, in_flight: u32) -> LoadBeacon {
    LoadBeacon {
        node: format!("node-{n}"),
        generation: 1,
        interval_ms: 0,
        instances: vec![InstanceLoad {
            instance: instance(n).as_bytes().to_vec().into(),
            in_flight,
            ..InstanceLoad::default()
        }],
    }
}

#[tokio::test]
async fn a_node_that_fell_silent_gets_calls_last_until_it_is_heard_again() {
    let world = World::new(&[1, 2]).await;
    let (first, _second) = (
        serve(&world.host, 1, true).await,
        serve(&world.host, 2, true).await,
    );
    let publish = |n| {
        let load = beacon(n, 0);
        world.host.publish_load(&node(n), Generation(1), &load);
    };
    eventually("both are heard", || {
        publish(1);
        publish(2);
        world.router.loads().len() == 2
    })
    .await;
    let mut asked = 0;
    let deadline = Instant::now() + PATIENCE;
    // Ten calls in a row pass it by.
    while asked < 10 {
        assert!(Instant::now() < deadline, "it never falls silent");
        tokio::time::sleep(Duration::from_millis(100)).await;
        publish(2);
        let before = first.load(Ordering::Relaxed);
        world.call("once").finish().await.unwrap();
        asked += 1;
        if first.load(Ordering::Relaxed) > before {
            asked = 0;
        }
    }
    let before = first.load(Ordering::Relaxed);
    publish(1);
    while first.load(Ordering::Relaxed) == before {
        assert!(Instant::now() < deadline, "it gets no calls again");
        world.call("once").finish().await.unwrap();
    }
}

#[tokio::test]
async fn calls_avoid_instances_that_say_they_are_busy() {
    let world = World::new(&[1, 2]).await;
    let (first, second) = (
        serve(&world.host, 1, true).await,
        serve(&world.host, 2, true).await,
    );
    let load = beacon(1, 100);
    eventually("the beacon is heard", || {
        world.host.publish_load(&node(1), Generation(1), &load);
        !world.router.loads().is_empty()
    })
    .await;
    for _ in 0..20 {
        timeout(PATIENCE, world.call("once").finish())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(first.load(Ordering::Relaxed), 0);
    assert_eq!(second.load(Ordering::Relaxed), 20);
}
