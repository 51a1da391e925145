//! The broker in memory under a real bus.

use std::time::Duration;

use bytes::Bytes;
use mesh_core::error::ErrorCode;
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_proto::common;
use mesh_proto::control::{NodeReply, node_reply, node_request};
use tokio::time::{Instant, timeout};

use super::{Broker, Line};
use crate::{Bus, BusLimits, CallEvent, CallOutput};

const MINUTE: Duration = Duration::from_secs(60);

struct Client {
    bus: Bus,
    line: Line,
}

async fn client(broker: &Broker) -> Client {
    let connected = broker.connect(MeshName::default(), BusLimits::default());
    let (bus, driver, line) = connected.await.unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    let mut up = bus.connected();
    timeout(MINUTE, up.wait_for(|up| *up))
        .await
        .unwrap()
        .unwrap();
    Client { bus, line }
}

fn broker() -> Broker {
    let broker = Broker::new(7);
    broker.set_delay(Duration::ZERO..=Duration::from_millis(3));
    let runs = broker.clone();
    tokio::spawn(async move { runs.run().await });
    broker
}

fn node() -> NodeId {
    NodeId::new("node-1").unwrap()
}

/// A node that answers every call with its own payload.
async fn echo(client: &Client) {
    let mut inbox = client.bus.serve_node(&node(), Generation(1)).await.unwrap();
    let bus = client.bus.clone();
    tokio::spawn(async move {
        while let Some((request, to)) = inbox.recv().await {
            let Some(node_request::Body::Call(call)) = request.body else {
                continue;
            };
            let result = common::Result {
                payload: call.whole().unwrap().payload,
                ..common::Result::default()
            };
            let reply = NodeReply {
                call_id: request.call_id,
                body: Some(node_reply::Body::Result(result)),
                chunks_before: 0,
            };
            bus.reply(&to, reply).unwrap();
        }
    });
}

async fn call(bus: &Bus, payload: &'static str) -> Result<CallOutput, ErrorCode> {
    let now = Instant::now();
    let begun = bus.begin_call(
        &node(),
        Generation(1),
        InstanceId::new(1, [1; 10]),
        common::Call::default(),
        Bytes::from_static(payload.as_bytes()),
        (now, now + MINUTE),
    );
    let mut call = begun.map_err(|error| error.code)?;
    loop {
        if let CallEvent::End(end) = call.next().await {
            return end.map_err(|error| error.code);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_answered_and_nobody_who_listens_is_told_at_once() {
    let broker = broker();
    let (host, caller) = (client(&broker).await, client(&broker).await);
    let begun = Instant::now();
    assert_eq!(call(&caller.bus, "a").await, Err(ErrorCode::InstanceGone));
    assert!(begun.elapsed() < Duration::from_millis(500));
    echo(&host).await;
    assert_eq!(call(&caller.bus, "a").await.unwrap().payload, "a");
}

#[tokio::test(start_paused = true)]
async fn a_cut_line_refuses_calls_until_it_is_back_with_its_subscriptions() {
    let broker = broker();
    let (host, caller) = (client(&broker).await, client(&broker).await);
    echo(&host).await;
    caller.line.cut(Duration::from_secs(1));
    assert_eq!(call(&caller.bus, "a").await, Err(ErrorCode::Disconnected));
    let mut up = caller.bus.connected();
    timeout(MINUTE, up.wait_for(|up| !*up))
        .await
        .unwrap()
        .unwrap();
    timeout(MINUTE, up.wait_for(|up| *up))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(call(&caller.bus, "b").await.unwrap().payload, "b");
    broker.stop();
    assert_eq!(call(&caller.bus, "a").await, Err(ErrorCode::Disconnected));
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.start();
    timeout(MINUTE, up.wait_for(|up| *up))
        .await
        .unwrap()
        .unwrap();
    let mut up = host.bus.connected();
    timeout(MINUTE, up.wait_for(|up| *up))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(call(&caller.bus, "c").await.unwrap().payload, "c");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_comes_late_and_what_a_killed_client_listened_to_is_gone() {
    let broker = broker();
    let (host, caller) = (client(&broker).await, client(&broker).await);
    echo(&host).await;
    host.line.hold(true, true);
    let line = host.line.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        line.hold(false, false);
    });
    let begun = Instant::now();
    assert_eq!(call(&caller.bus, "a").await.unwrap().payload, "a");
    assert!(begun.elapsed() >= Duration::from_millis(700));
    host.line.kill();
    assert_eq!(call(&caller.bus, "b").await, Err(ErrorCode::InstanceGone));
}
