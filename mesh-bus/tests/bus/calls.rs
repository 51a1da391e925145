//! Calls over a connection that stands.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{BusLimits, CallEvent};
use mesh_core::error::ErrorCode;
use mesh_core::id::Generation;
use tokio::time::Instant;

use crate::node::TestNode;
use crate::support::Nats;
use crate::{
    PATIENCE, TIMES, begin, call, connect, connect_with, eventually, finish, instance, next, node,
};

#[tokio::test]
async fn a_call_gets_its_own_answer_among_many() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let _node = TestNode::start(&host, "a").await;
    for round in 0..TIMES {
        let calls: Vec<_> = (0..256_u64)
            .map(|n| Bytes::from(format!("{round} {n}")))
            .map(|text| (text.clone(), begin(&caller, "a", "echo", text, PATIENCE)))
            .collect();
        for (text, call) in calls {
            assert_eq!(finish(call).await.unwrap().payload, text);
        }
        assert_eq!(caller.calls_in_flight(), 0);
    }
    assert_eq!(caller.stats().late_replies.load(Ordering::Relaxed), 0);
    assert_eq!(caller.stats().calls.load(Ordering::Relaxed), 256 * TIMES);
}

#[tokio::test]
async fn a_call_to_a_node_that_nobody_serves_ends_at_once() {
    let nats = Nats::start();
    let bus = connect(&nats.url(), "caller").await;
    for _ in 0..TIMES {
        let begun = Instant::now();
        let error = finish(begin(&bus, "nobody", "echo", Bytes::new(), PATIENCE))
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::InstanceGone, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(error.place.node, "nobody");
    }
    // With more frames than one it is still certain that nobody took it.
    let large = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..TIMES {
        let error = finish(begin(&bus, "nobody", "echo", large.clone(), PATIENCE))
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::InstanceGone, "{error}");
    }
    assert_eq!(bus.calls_in_flight(), 0);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_leaves_nothing_behind() {
    let nats = Nats::start();
    let bus = connect(&nats.url(), "both").await;
    let host = TestNode::start(&bus, "a").await;
    for round in 1..=TIMES {
        let within = Duration::from_millis(50);
        let begun = Instant::now();
        let error = finish(begin(&bus, "a", "late", Bytes::new(), within))
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
        assert!(begun.elapsed() >= within && begun.elapsed() < Duration::from_secs(1));
        assert_eq!(bus.calls_in_flight(), 0);
        // The node is told, and what it answers then hits no other call.
        eventually("the node is told", || {
            host.seen.cancelled.load(Ordering::Relaxed) == round
        })
        .await;
        let text = Bytes::from(format!("after {round}"));
        let output = finish(begin(&bus, "a", "echo", text.clone(), PATIENCE))
            .await
            .unwrap();
        assert_eq!(output.payload, text);
        let late = &bus.stats().late_replies;
        eventually("the late reply is seen", || {
            late.load(Ordering::Relaxed) == round
        })
        .await;
    }
    assert_eq!(bus.stats().timeouts.load(Ordering::Relaxed), TIMES);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_refused_before_anything_is_sent() {
    let nats = Nats::start();
    let bus = connect(&nats.url(), "both").await;
    let host = TestNode::start(&bus, "a").await;
    let now = Instant::now();
    let begun = bus.begin_call(
        &node("a"),
        Generation(1),
        instance(),
        call("echo"),
        Bytes::new(),
        (now, now),
    );
    assert_eq!(begun.unwrap_err().code, ErrorCode::Expired);
    assert_eq!(host.seen.begun.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn payloads_of_several_mebibytes_go_there_and_back() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let _node = TestNode::start(&host, "a").await;
    // 5 MiB fit into the first credit of 64 chunks, 20 MiB need more.
    for size in [128 << 10, (128 << 10) + 1, 5 << 20, 20 << 20] {
        let payload: Bytes = (0..size)
            .map(|n: usize| (n % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let call = begin(&caller, "a", "echo", payload.clone(), PATIENCE);
        assert!(finish(call).await.unwrap().payload == payload, "{size}");
    }
    assert_eq!(caller.calls_in_flight(), 0);
}

#[tokio::test]
async fn large_and_small_payloads_share_a_connection() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let _node = TestNode::start(&host, "a").await;
    let large = Bytes::from(vec![1; 8 << 20]);
    let many: Vec<_> = (0..4)
        .map(|_| begin(&caller, "a", "echo", large.clone(), PATIENCE))
        .collect();
    for n in 0..TIMES {
        let text = Bytes::from(format!("{n}"));
        let small = finish(begin(&caller, "a", "echo", text.clone(), PATIENCE))
            .await
            .unwrap();
        assert_eq!(small.payload, text);
    }
    for call in many {
        assert_eq!(finish(call).await.unwrap().payload.len(), large.len());
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() {
    let nats = Nats::start();
    let limits = BusLimits {
        max_payload: 1_000,
        ..BusLimits::default()
    };
    let bus = connect_with(&nats.url(), "small", limits).await;
    let now = Instant::now();
    let payload = Bytes::from(vec![0; 1_001]);
    let refused = bus.begin_call(
        &node("a"),
        Generation(1),
        instance(),
        call("echo"),
        payload,
        (now, now + PATIENCE),
    );
    let error = refused.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(
        error.message.contains("1001") && error.message.contains("1000"),
        "{error}"
    );
    // Nor does a result get past it, in one frame or in parts.
    let host = connect(&nats.url(), "a").await;
    let node = TestNode::start(&host, "a").await;
    for what in ["give:1001", "give:200000"] {
        let error = finish(begin(&bus, "a", what, Bytes::new(), PATIENCE))
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::PluginFailed, "{what}: {error}");
        assert!(error.message.contains("router.max_payload"), "{error}");
    }
    eventually("the one in parts is cancelled", || {
        node.seen.cancelled.load(Ordering::Relaxed) == 1
    })
    .await;
    let whole = finish(begin(&bus, "a", "give:1000", Bytes::new(), PATIENCE)).await;
    assert_eq!(whole.unwrap().payload.len(), 1_000);
    // A stream of small messages has no limit in all.
    finish(begin(&bus, "a", "count:2000", Bytes::new(), PATIENCE))
        .await
        .unwrap();
    assert_eq!(bus.calls_in_flight(), 0);
}

#[tokio::test]
async fn a_slow_reader_holds_back_a_stream_and_misses_nothing() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let node = TestNode::start(&host, "a").await;
    let mut call = begin(&caller, "a", "count:1000", Bytes::new(), PATIENCE);
    let sent = &node.seen.chunks_sent;
    eventually("the credit is used up", || {
        sent.load(Ordering::Relaxed) == 64
    })
    .await;
    // Whoever does not read gets no more, whatever else goes on.
    for _ in 0..TIMES {
        finish(begin(&caller, "a", "echo", Bytes::new(), PATIENCE))
            .await
            .unwrap();
    }
    assert_eq!(sent.load(Ordering::Relaxed), 64);
    let mut got = 0;
    let end = loop {
        match next(&mut call).await {
            CallEvent::Chunk(_) => got += 1,
            CallEvent::End(end) => break end,
            other => panic!("{other:?}"),
        }
        let ahead = sent.load(Ordering::Relaxed).saturating_sub(got);
        assert!(ahead <= 64, "{ahead} chunks ahead");
    };
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(got, 1_000);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_its_node() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let node = TestNode::start(&host, "a").await;
    for round in 1..=TIMES {
        let call = begin(&caller, "a", "silent", Bytes::new(), PATIENCE);
        eventually("it begins", || {
            node.seen.begun.load(Ordering::Relaxed) == round
        })
        .await;
        drop(call);
        assert_eq!(caller.calls_in_flight(), 0);
        eventually("it is cancelled", || {
            node.seen.cancelled.load(Ordering::Relaxed) == round
        })
        .await;
        assert!(node.seen.open.lock().unwrap().is_empty());
    }
    assert_eq!(caller.stats().cancelled.load(Ordering::Relaxed), TIMES);
}

#[tokio::test]
async fn a_call_that_is_given_up_before_it_was_taken_is_never_begun() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let mut inbox = host.serve_node(&node("a"), Generation(1)).await.unwrap();
    drop(begin(&caller, "a", "silent", Bytes::new(), PATIENCE));
    let kept = begin(
        &caller,
        "a",
        "silent",
        Bytes::from_static(b"kept"),
        PATIENCE,
    );
    // All three frames are there before the first is taken: what was sent behind them on the same
    // connections has come back.
    let behind = TestNode::start(&host, "b").await;
    finish(begin(&caller, "b", "echo", Bytes::new(), PATIENCE))
        .await
        .unwrap();
    drop(behind);
    let (request, _) = inbox.recv().await.unwrap();
    let Some(mesh_proto::control::node_request::Body::Call(taken)) = request.body else {
        panic!("{request:?}");
    };
    assert_eq!(taken.whole().unwrap().payload, "kept");
    drop(kept);
}

#[tokio::test]
async fn calls_to_an_instance_that_is_gone_end_with_an_unknown_outcome() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let _nodes = (
        TestNode::start(&host, "a").await,
        TestNode::start(&host, "b").await,
    );
    for _ in 0..TIMES {
        let gone = begin(&caller, "a", "silent", Bytes::new(), PATIENCE);
        let stays = begin(&caller, "b", "silent", Bytes::new(), PATIENCE);
        caller.end_calls(|node, _, _| node.as_str() == "a");
        let error = finish(gone).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
        assert_eq!(caller.calls_in_flight(), 1);
        drop(stays);
    }
}

#[tokio::test]
async fn a_result_whose_chunks_were_lost_does_not_pass_for_whole() {
    let nats = Nats::start();
    let bus = connect(&nats.url(), "both").await;
    let _node = TestNode::start(&bus, "a").await;
    let error = finish(begin(&bus, "a", "lossy", Bytes::new(), PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
}

#[tokio::test]
async fn every_caller_hears_every_beacon_and_its_own_replies_only() {
    let nats = Nats::start();
    let host = connect(&nats.url(), "a").await;
    let _node = TestNode::start(&host, "a").await;
    let callers = [
        connect(&nats.url(), "one").await,
        connect(&nats.url(), "two").await,
    ];
    let mut heard = Vec::new();
    for caller in &callers {
        heard.push(caller.loads().await.unwrap());
        // The subscription has landed once a call made after it is answered.
        finish(begin(caller, "a", "echo", Bytes::new(), PATIENCE))
            .await
            .unwrap();
    }
    let beacon = mesh_proto::control::LoadBeacon {
        node: "a".to_owned(),
        generation: 1,
        ..mesh_proto::control::LoadBeacon::default()
    };
    let lie = mesh_proto::control::LoadBeacon {
        node: "b".to_owned(),
        ..beacon.clone()
    };
    host.publish_load(&node("a"), Generation(1), &lie);
    host.publish_load(&node("a"), Generation(1), &beacon);
    for loads in &mut heard {
        let next = tokio::time::timeout(PATIENCE, loads.next()).await.unwrap();
        assert_eq!(next.as_ref(), Some(&beacon));
    }
    for n in 0..TIMES {
        for (caller, name) in callers.iter().zip(["one", "two"]) {
            let text = Bytes::from(format!("{name} {n}"));
            let call = begin(caller, "a", "echo", text.clone(), PATIENCE);
            assert_eq!(finish(call).await.unwrap().payload, text);
        }
    }
}

#[tokio::test]
async fn a_call_to_a_node_that_fell_silent_ends_soon_and_one_to_a_slow_plugin_does_not() {
    let nats = Nats::start();
    let (caller, host) = (
        connect(&nats.url(), "caller").await,
        connect(&nats.url(), "a").await,
    );
    let _slow = TestNode::start(&host, "a").await;
    // It has subscribed, and that is all that it does: a stopped process, a host that froze.
    let _frozen = host.serve_node(&node("b"), Generation(1)).await.unwrap();
    let begun = Instant::now();
    let slow = begin(&caller, "a", "silent", Bytes::new(), PATIENCE);
    let lost = begin(&caller, "b", "silent", Bytes::new(), PATIENCE);
    let error = finish(lost).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
    assert!(error.message.contains("b is silent"), "{error}");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(650), "{took:?}");
    // Nominally 0.71 s; a busy machine may be late. Its deadline is far later.
    assert!(took < PATIENCE / 2, "{took:?}");
    assert_eq!(caller.lost_nodes(), [(node("b"), Generation(1))]);
    let more = tokio::time::timeout(Duration::from_secs(3), finish(slow)).await;
    assert!(more.is_err(), "{more:?}");
}
