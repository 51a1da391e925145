//! Calls that go well, small and large.

use std::time::Duration;

use bytes::Bytes;
use mesh_core::error::ErrorCode;
use mesh_core::state::Phase;
use mesh_proto::common;
use mesh_proto::plugin::{CapabilityChange, Drained, host_frame, plugin_frame};
use router::CallEvent;
use tokio::time::timeout;

use super::harness::{Node, SOON, finish, manifest};

#[tokio::test]
async fn a_call_reaches_the_plugin_and_its_result_the_caller() {
    let node = Node::start().await;
    let mut plugin = node.plugin("calculator", &["add"]).await;
    assert_eq!(plugin.welcome.node, "node-1");
    let call = node.call("add", "[1,2]");
    let (id, invoke) = plugin.invoked().await;
    assert_eq!((id, invoke.payload), (2, Bytes::from_static(b"[1,2]")));
    assert!(!invoke.more);
    assert!((1..=10_000_000).contains(&invoke.time_left_us));
    plugin.answer(id, "3").await;
    assert_eq!(finish(call).await.unwrap().payload, "3");
    assert_eq!(node.plane.in_flight(), 0);
    let loads = node.plane.loads();
    assert_eq!((loads[0].calls, loads[0].errors), (1, 0));
}

#[tokio::test]
async fn progress_logs_and_chunks_come_before_the_end_in_order() {
    let node = Node::start().await;
    let mut plugin = node.plugin("counter", &["count"]).await;
    let mut request = node.request("count", "{}");
    request.want_progress = true;
    let mut call = node.router.call(request);
    let (id, _) = plugin.invoked().await;
    let progress = common::Progress {
        progress: 1.0,
        ..common::Progress::default()
    };
    plugin
        .send(id, plugin_frame::Body::Progress(progress))
        .await;
    let log = common::Log {
        message: "half way".to_owned(),
        ..common::Log::default()
    };
    plugin.send(id, plugin_frame::Body::Log(log.into())).await;
    let chunk = common::Chunk {
        payload: "one".into(),
        ..common::Chunk::default()
    };
    plugin.send(id, plugin_frame::Body::Chunk(chunk)).await;
    plugin.answer(id, "done").await;
    let mut seen = Vec::new();
    loop {
        match timeout(SOON, call.next()).await.unwrap() {
            CallEvent::Progress(_) => seen.push("progress".to_owned()),
            CallEvent::Log(log) => seen.push(log.message),
            CallEvent::Chunk(chunk) => seen.push(String::from_utf8_lossy(&chunk).into_owned()),
            CallEvent::End(end) => {
                assert_eq!(end.unwrap().payload, "done");
                break;
            }
        }
    }
    assert_eq!(seen, ["progress", "half way", "one"]);
}

#[tokio::test]
async fn a_large_payload_goes_to_the_plugin_in_parts_as_it_gives_credit() {
    let node = Node::start().await;
    let mut plugin = node.plugin("sink", &["eat"]).await;
    let size = 12 * 1024 * 1024 + 5;
    let call = node.call("eat", vec![3; size]);
    let (id, invoke) = plugin.invoked().await;
    assert!(invoke.more);
    let (mut got, mut next, mut last) = (invoke.payload.len(), 0, false);
    while !last {
        match plugin.receive().await {
            (from, host_frame::Body::Chunk(chunk)) => {
                assert_eq!((from, chunk.sequence), (id, next));
                got += chunk.payload.len();
                last = chunk.last;
            }
            other => panic!("{other:?}"),
        }
        next += 1;
        if next % 32 == 0 {
            let credit = common::Credit::of(32);
            plugin.send(id, plugin_frame::Body::Credit(credit)).await;
        }
    }
    assert_eq!(got, size);
    plugin.answer(id, "eaten").await;
    assert_eq!(finish(call).await.unwrap().payload, "eaten");
}

#[tokio::test]
async fn a_large_result_comes_in_fragments_and_is_whole_at_the_caller() {
    let node = Node::start().await;
    let mut plugin = node.plugin("source", &["give"]).await;
    let call = node.call("give", "{}");
    let (id, _) = plugin.invoked().await;
    let mut credit = 64;
    for sequence in 0..100 {
        while credit == 0 {
            match plugin.receive().await {
                (_, host_frame::Body::Credit(more)) => credit += more.chunks,
                other => panic!("{other:?}"),
            }
        }
        credit -= 1;
        let chunk = common::Chunk {
            payload: vec![1; 100_000].into(),
            sequence,
            fragment: true,
            last: false,
        };
        plugin.send(id, plugin_frame::Body::Chunk(chunk)).await;
    }
    plugin.answer(id, "the end").await;
    let output = finish(call).await.unwrap();
    assert_eq!(output.payload.len(), 10_000_000 + 7);
    assert!(output.payload.ends_with(b"the end"));
}

#[tokio::test]
async fn a_caller_that_does_not_take_chunks_pushes_back_on_the_plugin_alone() {
    let node = Node::start().await;
    let mut plugin = node.plugin("stream", &["many", "quick"]).await;
    let mut call = node.call("many", "{}");
    let (id, _) = plugin.invoked().await;
    let chunk = |sequence| {
        plugin_frame::Body::Chunk(common::Chunk {
            payload: "x".into(),
            sequence,
            ..common::Chunk::default()
        })
    };
    let mut sent = 0;
    let mut credit = 64;
    // Until credit runs out for good: nothing is taken yet.
    while credit > 0 {
        plugin.send(id, chunk(sent)).await;
        sent += 1;
        credit -= 1;
        if credit == 0 {
            let quick = node.call("quick", "{}");
            // Other calls of the same plugin go on.
            let other = loop {
                match plugin.receive().await {
                    (_, host_frame::Body::Credit(more)) => credit += more.chunks,
                    (other, host_frame::Body::Invoke(_)) => break other,
                    other => panic!("{other:?}"),
                }
            };
            plugin.answer(other, "now").await;
            finish(quick).await.unwrap();
        }
    }
    assert!((64..=128).contains(&sent), "{sent}");
    // What is taken comes back as credit.
    for _ in 0..sent {
        match timeout(SOON, call.next()).await.unwrap() {
            CallEvent::Chunk(_) => {}
            other => panic!("{other:?}"),
        }
    }
    match plugin.receive().await {
        (credited, host_frame::Body::Credit(more)) => {
            assert_eq!(credited, id);
            assert!(more.chunks > 0);
        }
        other => panic!("{other:?}"),
    }
    plugin.answer(id, "").await;
    finish(call).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_the_plugin() {
    let node = Node::start().await;
    let mut plugin = node.plugin("slow", &["wait"]).await;
    let call = node.call("wait", "{}");
    let (id, _) = plugin.invoked().await;
    drop(call);
    match plugin.receive().await {
        (cancelled, host_frame::Body::Cancel(_)) => assert_eq!(cancelled, id),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.plane.in_flight(), 0);
    // Its late answer harms nobody.
    plugin.answer(id, "late").await;
    let next = node.call("wait", "{}");
    let (id, _) = plugin.invoked().await;
    plugin.answer(id, "in time").await;
    assert_eq!(finish(next).await.unwrap().payload, "in time");
}

#[tokio::test]
async fn a_call_whose_time_is_over_ends_and_is_cancelled_at_the_plugin() {
    let node = Node::start().await;
    let mut plugin = node.plugin("slow", &["wait"]).await;
    let request = node
        .request("wait", "{}")
        .with_timeout(Duration::from_millis(50));
    let call = node.router.call(request);
    let (id, _) = plugin.invoked().await;
    let error = finish(call).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(matches!(
        plugin.receive().await,
        (cancelled, host_frame::Body::Cancel(_)) if cancelled == id
    ));
}

#[tokio::test]
async fn changed_capabilities_are_announced_and_wrong_ones_refused_with_every_mistake() {
    let node = Node::start().await;
    let mut plugin = node.plugin("shape", &["circle"]).await;
    let changed = CapabilityChange {
        capabilities: manifest("shape", &["circle", "square"]).capabilities,
    };
    plugin
        .send(7, plugin_frame::Body::CapabilityChange(changed))
        .await;
    assert!(matches!(
        plugin.receive().await,
        (7, host_frame::Body::CapabilitiesApplied(_))
    ));
    let fact = node.roster.get(plugin.instance).unwrap();
    assert_eq!(fact.manifest.capabilities.len(), 2);
    let twice = CapabilityChange {
        capabilities: manifest("shape", &["circle", "circle"]).capabilities,
    };
    plugin
        .send(9, plugin_frame::Body::CapabilityChange(twice))
        .await;
    let (id, error) = plugin.error().await;
    assert_eq!((id, error.code), (9, ErrorCode::InvalidManifest));
    assert!(error.message.contains("circle"), "{error}");
    let fact = node.roster.get(plugin.instance).unwrap();
    assert_eq!(fact.manifest.capabilities.len(), 2);
}

#[tokio::test]
async fn a_plugin_that_asks_to_leave_ends_its_calls_and_gets_no_new_ones() {
    let node = Node::start().await;
    let mut plugin = node.plugin("leaver", &["work"]).await;
    let running = node.call("work", "{}");
    let (id, _) = plugin.invoked().await;
    let request = mesh_proto::plugin::DrainRequest {
        reason: "an update".to_owned(),
    };
    plugin
        .send(0, plugin_frame::Body::DrainRequest(request))
        .await;
    assert!(matches!(
        plugin.receive().await,
        (0, host_frame::Body::Drain(_))
    ));
    node.reaches(plugin.instance, Phase::Draining).await;
    let error = finish(node.call("work", "{}")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Draining);
    assert!(error.message.contains("an update"), "{error}");
    plugin.answer(id, "done").await;
    plugin
        .send(0, plugin_frame::Body::Drained(Drained {}))
        .await;
    assert_eq!(finish(running).await.unwrap().payload, "done");
    plugin.end().await.unwrap();
    let reason = node.forgets(plugin.instance).await;
    assert!(reason.contains("asked to leave"), "{reason}");
}
