//! Calls that plugins make themselves.

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::state::Phase;
use mesh_proto::common;
use mesh_proto::plugin::{Drained, host_frame, plugin_frame};

use tokio::time::timeout;

use super::harness::{Node, SOON, finish, manifest};
use crate::drain::Drain;

fn call(tool: &str, payload: impl Into<bytes::Bytes>) -> common::Call {
    common::Call {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Tool.into(),
            name: tool.to_owned(),
        }),
        payload: payload.into(),
        ..common::Call::default()
    }
}

#[tokio::test]
async fn a_plugin_calls_the_plugin_beside_it_and_is_named_as_the_caller() {
    let node = Node::start().await;
    let mut time = node.plugin("time", &["now"]).await;
    let mut planner = node.plugin("planner", &[]).await;
    planner
        .send(1, plugin_frame::Body::Call(call("now", "{}").into()))
        .await;
    let (id, invoke) = time.invoked().await;
    let caller = invoke.caller.unwrap();
    assert_eq!(caller.plugin, "planner");
    assert_eq!(caller.instance, planner.instance.to_string());
    assert_eq!(caller.node, "node-1");
    time.answer(id, "noon").await;
    match planner.receive().await {
        (1, host_frame::Body::Result(result)) => assert_eq!(result.payload, "noon"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_large_answer_waits_for_the_plugins_credit() {
    let node = Node::start().await;
    let mut source = node.plugin("source", &["give"]).await;
    let mut planner = node.plugin("planner", &[]).await;
    planner
        .send(1, plugin_frame::Body::Call(call("give", "{}").into()))
        .await;
    let (id, _) = source.invoked().await;
    // 120 parts of 128 KiB when it goes on to the planner.
    for sequence in 0..60 {
        let chunk = common::Chunk {
            payload: vec![1; 256_000].into(),
            sequence,
            fragment: true,
            last: false,
        };
        source.send(id, plugin_frame::Body::Chunk(chunk)).await;
    }
    source.answer(id, "end").await;
    let (mut bytes, mut parts) = (0, 0);
    loop {
        match planner.receive().await {
            (1, host_frame::Body::Chunk(chunk)) => {
                assert!(chunk.fragment);
                assert_eq!(chunk.sequence, parts);
                bytes += chunk.payload.len();
                parts += 1;
                if parts % 64 == 0 {
                    let credit = common::Credit::of(64);
                    planner.send(1, plugin_frame::Body::Credit(credit)).await;
                }
            }
            (1, host_frame::Body::Result(result)) => {
                bytes += result.payload.len();
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, 60 * 256_000 + 3);
    assert!(parts > 100);
}

#[tokio::test]
async fn what_the_manifest_does_not_allow_is_denied_and_what_nobody_provides_is_said() {
    let node = Node::start().await;
    let mut limited = manifest("limited", &[]);
    limited.permissions = Some(common::Permissions {
        call: vec!["tool:add".to_owned()],
        ..common::Permissions::default()
    });
    let mut plugin = node.plugin_with(limited).await;
    for (id, tool, code) in [
        (1, "format-disk", ErrorCode::PermissionDenied),
        (3, "add", ErrorCode::NoProvider),
    ] {
        plugin
            .send(id, plugin_frame::Body::Call(call(tool, "{}").into()))
            .await;
        let (told, error) = plugin.error().await;
        assert_eq!((told, error.code), (id, code));
    }
    // The ids are free again.
    plugin
        .send(1, plugin_frame::Body::Call(call("add", "{}").into()))
        .await;
    assert_eq!(plugin.error().await.1.code, ErrorCode::NoProvider);
}

#[tokio::test]
async fn the_calls_of_a_plugin_that_is_gone_are_cancelled() {
    let node = Node::start().await;
    let mut slow = node.plugin("slow", &["wait"]).await;
    let mut caller = node.plugin("caller", &[]).await;
    caller
        .send(1, plugin_frame::Body::Call(call("wait", "{}").into()))
        .await;
    let (id, _) = slow.invoked().await;
    drop(caller);
    assert!(matches!(
        slow.receive().await,
        (cancelled, host_frame::Body::Cancel(_)) if cancelled == id
    ));
}

#[tokio::test]
async fn a_plugin_cancels_its_own_call() {
    let node = Node::start().await;
    let mut slow = node.plugin("slow", &["wait"]).await;
    let mut caller = node.plugin("caller", &[]).await;
    caller
        .send(1, plugin_frame::Body::Call(call("wait", "{}").into()))
        .await;
    let (id, _) = slow.invoked().await;
    caller
        .send(1, plugin_frame::Body::Cancel(common::Cancel::default()))
        .await;
    assert_eq!(caller.error().await.1.code, ErrorCode::Cancelled);
    assert!(matches!(
        slow.receive().await,
        (cancelled, host_frame::Body::Cancel(_)) if cancelled == id
    ));
}

#[tokio::test]
async fn an_error_of_the_one_who_is_called_names_it() {
    let node = Node::start().await;
    let mut broken = node.plugin("broken", &["fail"]).await;
    let mut caller = node.plugin("caller", &[]).await;
    caller
        .send(1, plugin_frame::Body::Call(call("fail", "{}").into()))
        .await;
    let (id, _) = broken.invoked().await;
    let error = common::Error {
        message: "no disk".to_owned(),
        ..common::Error::default()
    };
    broken
        .send(id, plugin_frame::Body::Error(error.into()))
        .await;
    let (_, error): (_, MeshError) = caller.error().await;
    assert_eq!(error.code, ErrorCode::PluginFailed);
    assert_eq!(error.place.plugin, "broken");
    assert_eq!(error.place.instance, broken.instance.to_string());
}

#[tokio::test]
async fn a_refusal_by_its_own_instance_is_no_word_about_the_call_that_it_works_on() {
    let node = Node::start().await;
    let mut narrow = manifest("loop", &["work"]);
    narrow.limits = Some(common::Limits {
        concurrency: 1,
        ..common::Limits::default()
    });
    let mut plugin = node.plugin_with(narrow).await;
    let outer = node.call("work", "{}");
    let (id, _) = plugin.invoked().await;
    for (own, nested, code) in [
        (1, call("work", "{}"), ErrorCode::Overloaded),
        (3, call("", "{}"), ErrorCode::InvalidArgument),
    ] {
        plugin
            .send(own, plugin_frame::Body::Call(nested.into()))
            .await;
        let (_, error) = plugin.error().await;
        assert_eq!(error.code, code);
        let place = error.place;
        assert_eq!(
            (place.instance.as_str(), place.node.as_str()),
            ("", "node-1")
        );
    }
    // A frame that can't be read ends a call of the plugin, too.
    let huge = common::Call {
        payload: vec![0; 300_000].into(),
        ..call("work", "")
    };
    plugin.send(5, plugin_frame::Body::Call(huge.into())).await;
    let (_, nested) = plugin.error().await;
    assert_eq!(nested.code, ErrorCode::TooLarge);
    plugin
        .send(id, plugin_frame::Body::Error(nested.into()))
        .await;
    let error = finish(outer).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PluginFailed, "{error}");
}

#[tokio::test]
async fn a_call_that_runs_while_the_node_stops_still_reaches_the_plugin_beside_it() {
    let node = Node::start().await;
    let mut time = node.plugin("time", &["now"]).await;
    let mut planner = node.plugin("planner", &["plan"]).await;
    let outer = node.call("plan", "{}");
    let (id, _) = planner.invoked().await;
    let drain = Drain {
        plane: node.plane.clone(),
        roster: node.roster.clone(),
        grace: SOON,
        reason: "the agent stops".to_owned(),
    };
    node.plane.drain();
    let drained = tokio::spawn(async move { drain.all().await });
    node.reaches(time.instance, Phase::Draining).await;
    // Nobody was asked to leave yet.
    planner
        .send(1, plugin_frame::Body::Call(call("now", "{}").into()))
        .await;
    let (nested, _) = time.invoked().await;
    let refused = finish(node.call("now", "{}")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Draining);
    time.answer(nested, "noon").await;
    match planner.receive().await {
        (1, host_frame::Body::Result(result)) => assert_eq!(result.payload, "noon"),
        other => panic!("{other:?}"),
    }
    planner.answer(id, "planned").await;
    assert_eq!(finish(outer).await.unwrap().payload, "planned");
    // One that has nothing to finish takes nobody's time.
    planner
        .send(3, plugin_frame::Body::Call(call("now", "{}").into()))
        .await;
    for plugin in [&mut time, &mut planner] {
        loop {
            match plugin.receive().await {
                (3, host_frame::Body::Error(error)) => {
                    let error = MeshError::from(error);
                    assert_eq!(error.code, ErrorCode::Draining);
                }
                (0, host_frame::Body::Drain(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        let body = plugin_frame::Body::Drained(Drained {});
        plugin.send(0, body).await;
    }
    drained.await.unwrap();
}

#[tokio::test]
async fn the_payload_of_a_call_of_a_plugin_is_held_until_the_call_ends() {
    let node = Node::start().await;
    let mut time = node.plugin("time", &["now"]).await;
    let mut planner = node.plugin("planner", &[]).await;
    let large = call("now", vec![0; 100_000]);
    planner
        .send(1, plugin_frame::Body::Call(large.into()))
        .await;
    let (id, _) = time.invoked().await;
    let bytes = || {
        let held = node.plane.held();
        held.into_iter()
            .find(|(kind, _)| *kind == "bytes")
            .unwrap()
            .1
    };
    // The frame itself has left the queue.
    assert!(bytes() >= 100_000, "{}", bytes());
    time.answer(id, "noon").await;
    let freed = async {
        while bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, freed).await.unwrap();
}
