//! Plugins that die, flood, hang or lie: each harms itself alone.

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::state::Phase;
use mesh_proto::common;
use mesh_proto::plugin::plugin_host_client::PluginHostClient;
use mesh_proto::plugin::{CapabilityChange, Hello, PluginFrame, Ready, host_frame, plugin_frame};
use mesh_proto::status::from_status;
use router::CallEvent;
use serde_json::Map;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::harness::{Node, Plugin, SOON, finish, hello, manifest};
use crate::data::CHECKS;
use crate::data::stream::MAX_STRANGERS_OF_PEER;
use crate::launch::Launched;
use crate::roster::new_instance;

#[tokio::test]
async fn all_calls_of_a_plugin_that_dies_end_at_once_and_say_who_it_was() {
    let node = Node::start().await;
    let mut plugin = node.plugin("mortal", &["work"]).await;
    let calls: Vec<_> = (0..32).map(|_| node.call("work", "{}")).collect();
    for _ in 0..32 {
        plugin.invoked().await;
    }
    let instance = plugin.instance;
    drop(plugin);
    for call in calls {
        let error = finish(call).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::OutcomeUnknown);
        let place = &error.place;
        assert_eq!(
            (place.plugin.as_str(), place.version.as_str()),
            ("mortal", "1.0.0")
        );
        assert_eq!(
            (place.instance.clone(), place.node.as_str()),
            (instance.to_string(), "node-1")
        );
    }
    node.forgets(instance).await;
    assert_eq!(node.plane.in_flight(), 0);
    // The table still names it: the node says that it is gone, and that nothing was processed.
    let error = finish(node.call("work", "{}")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InstanceGone);
    let text = node.metrics.render();
    assert!(
        text.contains(r#"calls_total{plugin="mortal",outcome="outcome_unknown"} 32"#),
        "{text}"
    );
    assert!(text.contains("plugmesh_agent_attach_streams 0"), "{text}");
}

#[tokio::test]
async fn an_instance_takes_as_many_calls_as_its_manifest_allows() {
    let node = Node::start().await;
    let mut manifest = manifest("narrow", &["work"]);
    manifest.limits = Some(common::Limits {
        concurrency: 2,
        ..common::Limits::default()
    });
    let mut plugin = node.plugin_with(manifest).await;
    assert_eq!(plugin.welcome.limits.unwrap().concurrency, 2);
    let running = [node.call("work", "{}"), node.call("work", "{}")];
    let error = finish(node.call("work", "{}")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after.is_some());
    assert!(error.message.contains("2 calls in flight"), "{error}");
    for call in running {
        let (id, _) = plugin.invoked().await;
        plugin.answer(id, "ok").await;
        finish(call).await.unwrap();
    }
    let loads = node.plane.loads();
    assert_eq!((loads[0].calls, loads[0].shed), (2, 1));
    assert!(
        node.metrics
            .render()
            .contains("plugmesh_agent_shed_total 1")
    );
}

#[tokio::test]
async fn the_node_takes_as_many_calls_as_its_configuration_allows() {
    let node = Node::limited(1, 1024).await;
    let mut plugin = node.plugin("one", &["work"]).await;
    let running = node.call("work", "{}");
    let error = finish(node.call("work", "{}")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.message.contains("agent.max_in_flight"), "{error}");
    let (id, _) = plugin.invoked().await;
    plugin.answer(id, "ok").await;
    finish(running).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_does_not_read_is_shed_and_others_are_not() {
    let node = Node::start().await;
    let deaf = node.plugin("deaf", &["listen"]).await;
    let mut good = node.plugin("good", &["echo"]).await;
    let mut shed = None;
    let mut calls = Vec::new();
    // Windows of HTTP/2 and the queue fill up at some point.
    for _ in 0..400 {
        calls.push(node.call("listen", vec![0; 120_000]));
        if node.plane.loads().iter().any(|load| load.shed > 0) {
            shed = calls.pop();
            break;
        }
        tokio::task::yield_now().await;
    }
    let error = finish(shed.unwrap()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.message.contains("does not read"), "{error}");
    let call = node.call("echo", "hi");
    let (id, _) = good.invoked().await;
    good.answer(id, "hi").await;
    assert_eq!(finish(call).await.unwrap().payload, "hi");
    drop(deaf);
    // Some had been handed to the transport, the rest provably not.
    let mut codes = Vec::new();
    for call in calls {
        codes.push(finish(call).await.unwrap_err().code);
    }
    assert!(codes.contains(&ErrorCode::OutcomeUnknown));
    assert!(codes.contains(&ErrorCode::InstanceGone), "{codes:?}");
}

#[tokio::test]
async fn garbage_is_answered_for_its_id_and_the_stream_goes_on() {
    let node = Node::start().await;
    let mut plugin = node.plugin("rude", &["work"]).await;
    let huge = common::Result {
        payload: vec![0; 300_000].into(),
        ..common::Result::default()
    };
    plugin.send(8, plugin_frame::Body::Result(huge)).await;
    let (id, error) = plugin.error().await;
    assert_eq!((id, error.code), (8, ErrorCode::TooLarge));
    let no_body = PluginFrame { id: 5, body: None };
    plugin.frames.send(no_body).await.unwrap();
    let (id, error) = plugin.error().await;
    assert_eq!((id, error.code), (5, ErrorCode::Unsupported));
    plugin.answer(4242, "who asked?").await;
    let (id, error) = plugin.error().await;
    assert_eq!((id, error.code), (4242, ErrorCode::ProtocolViolation));
    let call = node.call("work", "{}");
    let (id, _) = plugin.invoked().await;
    plugin.answer(id, "still here").await;
    assert_eq!(finish(call).await.unwrap().payload, "still here");
    let text = node.metrics.render();
    for reason in ["oversize", "unsupported", "protocol_violation"] {
        let line = format!("frames_refused_total{{reason=\"{reason}\"}} 1");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_to_be_read_ends_its_stream_with_the_reason() {
    let node = Node::start().await;
    let mut plugin = node.plugin("whale", &["work"]).await;
    let call = node.call("work", "{}");
    let (id, _) = plugin.invoked().await;
    plugin.answer(id, vec![0; 17 << 20]).await;
    let error = from_status(&plugin.end().await.unwrap_err());
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(error.message.contains("16 MiB"), "{error}");
    let error = finish(call).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert!(error.message.contains("16 MiB"), "{error}");
}

#[tokio::test]
async fn what_a_plugin_answered_before_it_died_still_counts() {
    let node = Node::start().await;
    let mut plugin = node.plugin("hasty", &["work"]).await;
    let calls: Vec<_> = (0..20).map(|_| node.call("work", "{}")).collect();
    for _ in 0..20 {
        let (id, _) = plugin.invoked().await;
        plugin.answer(id, "done").await;
    }
    let Plugin {
        frames, mut host, ..
    } = plugin;
    drop(frames);
    while let Ok(Some(_)) = host.message().await {}
    for call in calls {
        assert_eq!(finish(call).await.unwrap().payload, "done");
    }
}

#[tokio::test]
async fn a_refused_handshake_ends_the_stream_with_every_mistake_in_its_status() {
    let node = Node::start().await;
    let mut bad = manifest("Bad Name", &[]);
    bad.version = "one".to_owned();
    let status = match node.connect().await.hello(hello(bad)).await {
        Err(status) => status,
        Ok(_) => panic!("it was welcomed"),
    };
    let error = from_status(&status);
    assert_eq!(error.code, ErrorCode::InvalidManifest);
    assert!(
        error.message.contains("name: ") && error.message.contains("version: "),
        "{error}"
    );
    let unknown = Hello {
        launch_token: "forged".to_owned(),
        ..hello(manifest("time", &[]))
    };
    let status = match node.connect().await.hello(unknown).await {
        Err(status) => status,
        Ok(_) => panic!("it was welcomed"),
    };
    assert_eq!(from_status(&status).code, ErrorCode::PermissionDenied);
    assert!(node.roster.now().known.is_empty());
}

#[tokio::test]
async fn a_stranger_may_correct_itself_before_its_hello() {
    let node = Node::start().await;
    let mut stranger = node.connect().await;
    stranger.send(0, plugin_frame::Body::Ready(Ready {})).await;
    let frame = stranger.receive().await.unwrap().unwrap();
    assert!(matches!(frame.body, Some(host_frame::Body::Error(_))));
    let plugin = stranger.hello(hello(manifest("time", &[]))).await.unwrap();
    node.reaches(plugin.instance, Phase::Loaded).await;
}

#[tokio::test]
async fn a_started_process_is_known_by_its_token_and_may_come_back() {
    let node = Node::start().await;
    let drawn = new_instance();
    let token = node
        .book
        .add(Launched {
            plugin: "time".parse().unwrap(),
            config_field: "agent.plugins[0].config".to_owned(),
            config: Map::new(),
            instance: drawn,
            pid: None,
            refused: None,
        })
        .unwrap();
    let hello = |previous: String| Hello {
        launch_token: token.clone(),
        previous_instance: previous,
        ..hello(manifest("time", &[]))
    };
    let first = node.connect().await.hello(hello(String::new())).await;
    let first = first.unwrap();
    assert_eq!(first.instance, drawn);
    assert!(node.roster.get(drawn).unwrap().supervised);
    // A second one with the same token is an intruder, unless it says whose place it takes.
    assert!(
        node.connect()
            .await
            .hello(hello(String::new()))
            .await
            .is_err()
    );
    let second = node.connect().await.hello(hello(drawn.to_string())).await;
    let second = second.unwrap();
    assert_ne!(second.instance, drawn);
    node.forgets(drawn).await;
    // One whose stream broke may come back just so.
    let lost = second.instance;
    drop(second);
    node.reaches(lost, Phase::Failed).await;
    let third = node.connect().await.hello(hello(String::new())).await;
    let third = third.unwrap();
    assert_ne!(third.instance, lost);
    assert_eq!(node.book.get(&token).unwrap().instance, third.instance);
}

#[tokio::test]
async fn a_process_that_a_coordinator_refused_must_wait_and_comes_back_as_a_new_instance() {
    let node = Node::start().await;
    let drawn = new_instance();
    let token = node
        .book
        .add(Launched {
            plugin: "loop".parse().unwrap(),
            config_field: "agent.plugins[0].config".to_owned(),
            config: Map::new(),
            instance: drawn,
            pid: None,
            refused: None,
        })
        .unwrap();
    let hello = || Hello {
        launch_token: token.clone(),
        ..hello(manifest("loop", &[]))
    };
    let cycle = MeshError::new(ErrorCode::DependencyCycle, "loop → loop");
    let later = Instant::now() + Duration::from_secs(60);
    assert!(node.book.refuse(drawn, later, &cycle));
    let status = match node.connect().await.hello(hello()).await {
        Err(status) => status,
        Ok(_) => panic!("it was welcomed"),
    };
    let error = from_status(&status);
    assert_eq!(
        (error.code, error.message.as_str()),
        (cycle.code, "loop → loop")
    );
    assert!(error.retry_after.is_some());
    assert!(node.book.refuse(drawn, Instant::now(), &cycle));
    let plugin = node.connect().await.hello(hello()).await.unwrap();
    assert_ne!(plugin.instance, drawn);
    assert_eq!(node.book.get(&token).unwrap().refused, None);
}

#[tokio::test]
async fn a_plugin_that_changes_its_capabilities_all_the_time_is_told_to_wait() {
    let node = Node::start().await;
    let mut plugin = node.plugin("restless", &["a"]).await;
    let mut refused = None;
    for number in 0..50 {
        let change = CapabilityChange {
            capabilities: manifest("restless", &["a"]).capabilities,
        };
        let id = number * 2 + 1;
        plugin
            .send(id, plugin_frame::Body::CapabilityChange(change))
            .await;
        match plugin.receive().await {
            (_, host_frame::Body::CapabilitiesApplied(_)) => {}
            (told, host_frame::Body::Error(error)) => {
                refused = Some((told == id, MeshError::from(error).code));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, Some((true, ErrorCode::Overloaded)));
}

#[tokio::test]
async fn a_node_that_stops_drains_its_plugins_and_refuses_new_ones() {
    let node = Node::start().await;
    let mut plugin = node.plugin("worker", &["work"]).await;
    let running = node.call("work", "{}");
    let (id, _) = plugin.invoked().await;
    node.roster.drain_all("the agent stops");
    node.plane.drain();
    assert_eq!(
        node.roster.get(plugin.instance).unwrap().phase,
        Phase::Draining
    );
    let error = finish(node.call("work", "{}")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Draining);
    let drain = crate::drain::Drain {
        plane: node.plane.clone(),
        roster: node.roster.clone(),
        grace: std::time::Duration::from_secs(5),
        reason: "the agent stops".to_owned(),
    };
    let drained = tokio::spawn(async move { drain.all().await });
    plugin.answer(id, "finished").await;
    assert_eq!(finish(running).await.unwrap().payload, "finished");
    match plugin.receive().await {
        (0, host_frame::Body::Drain(drain)) => assert!(drain.reattach),
        other => panic!("{other:?}"),
    }
    let body = plugin_frame::Body::Drained(mesh_proto::plugin::Drained {});
    plugin.send(0, body).await;
    plugin.end().await.unwrap();
    drained.await.unwrap();
    node.until_in_flight(0).await;
    assert!(node.roster.now().known.is_empty());
}

#[tokio::test]
async fn a_flood_of_words_beside_the_answer_is_cut_before_it_reaches_the_caller() {
    let node = Node::start().await;
    let mut plugin = node.plugin("chatty", &["talk"]).await;
    let mut call = node.call("talk", "{}");
    let (id, _) = plugin.invoked().await;
    let heard = tokio::spawn(async move {
        let (mut logs, mut progress) = (0, 0);
        loop {
            match call.next().await {
                CallEvent::Log(_) => logs += 1,
                CallEvent::Progress(_) => progress += 1,
                CallEvent::Chunk(_) => {}
                CallEvent::End(_) => return (logs, progress),
            }
        }
    });
    let begun = Instant::now();
    for _ in 0..6_000 {
        let log = plugin_frame::Body::Log(common::Log::default().into());
        plugin.send(id, log).await;
        let progress = plugin_frame::Body::Progress(common::Progress::default());
        plugin.send(id, progress).await;
    }
    plugin.answer(id, "enough").await;
    let (logs, progress) = heard.await.unwrap();
    let most = 1_000 + 200 * (begun.elapsed().as_secs() + 1);
    assert!(logs <= most, "{logs} in {:?}", begun.elapsed());
    assert_eq!(progress, 0, "nobody asked for it");
}

#[tokio::test]
async fn checks_of_schemas_that_never_end_do_not_pile_up_nor_keep_others_out() {
    let node = Node::start().await;
    // As if so many were being worked on for ever.
    let permits = u32::try_from(CHECKS).unwrap();
    let stuck = node.checks.acquire_many(permits).await.unwrap();
    let mut with_schema = manifest("formal", &[]);
    with_schema.config_schema = r#"{"type":"object"}"#.into();
    node.plugin("plain", &["work"]).await;
    let waiting = node.connect().await;
    let status = match waiting.hello(hello(with_schema.clone())).await {
        Err(status) => status,
        Ok(_) => panic!("it was checked beside the others"),
    };
    let error = from_status(&status);
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after.is_some());
    drop(stuck);
    node.plugin_with(with_schema).await;
    assert_eq!(node.checks.available_permits(), CHECKS);
}

#[tokio::test]
async fn a_node_that_stops_says_so_to_health_checks() {
    let node = Node::start().await;
    let endpoint = Endpoint::from_shared(node.address.clone()).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let request = HealthCheckRequest {
        service: "plugmesh.plugin.v1.PluginHost".to_owned(),
    };
    let mut states = health.watch(request).await.unwrap().into_inner();
    let mut next = async || {
        let state = timeout(SOON, states.message()).await.unwrap();
        state.unwrap().unwrap().status()
    };
    assert_eq!(next().await, ServingStatus::Serving);
    node.leaving.cancel();
    assert_eq!(next().await, ServingStatus::NotServing);
}

#[tokio::test]
async fn streams_that_say_nothing_are_few_and_leave_room_for_those_that_do() {
    let node = Node::start().await;
    let mut plugin = node.plugin("time", &["now"]).await;
    let channel = Endpoint::from_shared(node.address.clone()).unwrap();
    let mut client = PluginHostClient::new(channel.connect().await.unwrap());
    let mut silent = Vec::new();
    let refused = loop {
        assert!(silent.len() <= MAX_STRANGERS_OF_PEER);
        match client.attach(tokio_stream::pending()).await {
            Ok(stream) => silent.push(stream),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(silent.len(), MAX_STRANGERS_OF_PEER);
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("Hello"), "{refused}");
    let call = node.call("now", "{}");
    let (id, _) = plugin.invoked().await;
    plugin.answer(id, "noon").await;
    assert_eq!(finish(call).await.unwrap().payload, "noon");
    // One that goes makes room.
    silent.pop();
    let again = async {
        while client.attach(tokio_stream::pending()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, again).await.unwrap();
}
