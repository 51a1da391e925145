//! The bus against a real nats-server.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod audit;
mod calls;
mod connection;
mod node;
mod store;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{Bus, BusConfig, BusLimits, CallEvent, CallOutput, PendingCall};
use mesh_core::error::MeshError;
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_proto::common;
use tokio::time::{Instant, timeout};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often tests are run that depend on what comes first.
const TIMES: u64 = 20;

fn config(url: &str, name: &str) -> BusConfig {
    BusConfig {
        urls: url.to_owned(),
        credentials: None::<PathBuf>,
        client_name: name.to_owned(),
        mesh: MeshName::default(),
    }
}

async fn connect(url: &str, name: &str) -> Bus {
    connect_with(url, name, BusLimits::default()).await
}

async fn connect_with(url: &str, name: &str, limits: BusLimits) -> Bus {
    let (bus, driver) = Bus::connect_with(config(url, name), limits).await.unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    connected(&bus, true).await;
    bus
}

async fn connected(bus: &Bus, wanted: bool) {
    let mut connected = bus.connected();
    let wait = connected.wait_for(|connected| *connected == wanted);
    timeout(PATIENCE, wait)
        .await
        .expect("no change of connection")
        .unwrap();
}

/// Waits for a condition, with a bound.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happens that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn instance() -> InstanceId {
    InstanceId::new(1, [7; 10])
}

/// A call to a capability of [`node`].
fn call(what: &str) -> common::Call {
    common::Call {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Service.into(),
            name: what.to_owned(),
        }),
        ..common::Call::default()
    }
}

fn begin(bus: &Bus, to: &str, what: &str, payload: Bytes, within: Duration) -> PendingCall {
    let now = Instant::now();
    let (node, times) = (node(to), (now, now + within));
    bus.begin_call(&node, Generation(1), instance(), call(what), payload, times)
        .unwrap()
}

async fn next(call: &mut PendingCall) -> CallEvent {
    timeout(PATIENCE, call.next())
        .await
        .expect("the call hangs")
}

async fn finish(mut call: PendingCall) -> Result<CallOutput, MeshError> {
    loop {
        if let CallEvent::End(end) = next(&mut call).await {
            return end;
        }
    }
}
