//! Calls while the broker, or a node, goes away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::Bus;
use mesh_core::error::ErrorCode;
use mesh_core::id::Generation;
use tokio::time::Instant;

use crate::node::TestNode;
use crate::support::Nats;
use crate::{
    PATIENCE, TIMES, begin, call, config, connect, connected, eventually, finish, instance, next,
    node,
};

fn refused(bus: &Bus) -> ErrorCode {
    let now = Instant::now();
    let begun = bus.begin_call(
        &node("a"),
        Generation(1),
        instance(),
        call("echo"),
        Bytes::new(),
        (now, now + PATIENCE),
    );
    begun.unwrap_err().code
}

#[tokio::test]
async fn without_a_broker_calls_are_refused_and_with_it_they_go() {
    let mut nats = Nats::start();
    let url = nats.url();
    nats.kill();
    let (bus, driver) = Bus::connect(config(&url, "early")).await.unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    assert_eq!(refused(&bus), ErrorCode::Disconnected);
    nats.restart();
    connected(&bus, true).await;
    let _node = TestNode::start(&bus, "a").await;
    finish(begin(&bus, "a", "echo", Bytes::new(), PATIENCE))
        .await
        .unwrap();
}

#[tokio::test]
async fn after_a_restart_of_the_broker_calls_go_on() {
    let mut nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let test_node = TestNode::start(&host, "a").await;
    for round in 1..=TIMES {
        nats.kill();
        connected(&caller, false).await;
        assert_eq!(refused(&caller), ErrorCode::Disconnected);
        nats.restart();
        let up = Instant::now();
        connected(&caller, true).await;
        connected(&host, true).await;
        // Nominally 0.3 s; a busy machine may be late.
        assert!(up.elapsed() < PATIENCE / 2, "{:?}", up.elapsed());
        let text = Bytes::from(format!("{round}"));
        let output = finish(begin(&caller, "a", "echo", text.clone(), PATIENCE))
            .await
            .unwrap();
        assert_eq!(output.payload, text);
        // What was refused did not come later.
        assert_eq!(test_node.seen.begun.load(Ordering::Relaxed), round);
        assert_eq!(caller.stats().reconnects.load(Ordering::Relaxed), round);
    }
}

#[tokio::test]
async fn a_call_that_its_node_still_works_on_survives_a_restart_of_the_broker() {
    let mut nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let test_node = TestNode::start(&host, "a").await;
    let long = begin(&caller, "a", "late", Bytes::new(), PATIENCE);
    eventually("it begins", || {
        test_node.seen.begun.load(Ordering::Relaxed) == 1
    })
    .await;
    nats.kill();
    connected(&caller, false).await;
    connected(&host, false).await;
    nats.restart();
    connected(&caller, true).await;
    connected(&host, true).await;
    eventually("the node is asked", || {
        test_node.seen.asked.load(Ordering::Relaxed) > 0
    })
    .await;
    // Well beyond the grace, the call is still there; then its node answers.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(caller.calls_in_flight(), 1);
    let (to, id) = test_node
        .seen
        .open
        .lock()
        .unwrap()
        .keys()
        .next()
        .cloned()
        .unwrap();
    let reply = mesh_proto::control::NodeReply {
        call_id: id,
        body: Some(crate::node::result(Bytes::from_static(b"done"))),
        chunks_before: 0,
    };
    host.reply(&to, reply).unwrap();
    assert_eq!(finish(long).await.unwrap().payload, "done");
}

#[tokio::test]
async fn a_stream_goes_on_after_a_restart_of_the_broker() {
    let mut nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let test_node = TestNode::start(&host, "a").await;
    let mut stream = begin(&caller, "a", "count:300", Bytes::new(), PATIENCE);
    for _ in 0..40 {
        next(&mut stream).await;
    }
    let sent = &test_node.seen.chunks_sent;
    eventually("the new credit is used up", || {
        sent.load(Ordering::Relaxed) == 96
    })
    .await;
    nats.kill();
    connected(&caller, false).await;
    connected(&host, false).await;
    // Reading goes on from what is here; the credit that it gives waits, or is lost.
    for _ in 0..56 {
        next(&mut stream).await;
    }
    nats.restart();
    connected(&caller, true).await;
    assert!(finish(stream).await.is_ok());
}

#[tokio::test]
async fn calls_of_a_node_that_died_end_soon_and_not_at_their_deadline() {
    let mut nats = Nats::start();
    let caller = connect(&nats.url(), "caller").await;
    let host = connect(&nats.url(), "a").await;
    let test_node = TestNode::start(&host, "a").await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            begin(
                &caller,
                "a",
                "silent",
                Bytes::new(),
                Duration::from_secs(60),
            )
        })
        .collect();
    eventually("they begin", || {
        test_node.seen.begun.load(Ordering::Relaxed) == 8
    })
    .await;
    // Its inbox goes with its task.
    drop(test_node);
    let died = Instant::now();
    for call in calls {
        let error = finish(call).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
    }
    assert!(died.elapsed() < PATIENCE / 2, "{:?}", died.elapsed());
    // The same when the node is lost together with the broker.
    let test_node = TestNode::start(&host, "a").await;
    let call = begin(
        &caller,
        "a",
        "silent",
        Bytes::new(),
        Duration::from_secs(60),
    );
    eventually("it begins", || {
        test_node.seen.begun.load(Ordering::Relaxed) == 1
    })
    .await;
    nats.kill();
    connected(&caller, false).await;
    drop(test_node);
    nats.restart();
    connected(&caller, true).await;
    let back = Instant::now();
    let error = finish(call).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
    assert!(back.elapsed() < PATIENCE / 2, "{:?}", back.elapsed());
    assert_eq!(caller.calls_in_flight(), 0);
}

#[tokio::test]
async fn when_the_driver_stops_all_calls_end() {
    let nats = Nats::start();
    let host = connect(&nats.url(), "a").await;
    let _node = TestNode::start(&host, "a").await;
    for _ in 0..TIMES {
        let (bus, driver) = Bus::connect(config(&nats.url(), "short")).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(driver.run(async { drop(stopped.await) }));
        connected(&bus, true).await;
        let call = begin(&bus, "a", "silent", Bytes::new(), PATIENCE);
        stop.send(()).unwrap();
        assert_eq!(
            finish(call).await.unwrap_err().code,
            ErrorCode::OutcomeUnknown
        );
        assert_eq!(refused(&bus), ErrorCode::Disconnected);
        task.await.unwrap();
    }
}
