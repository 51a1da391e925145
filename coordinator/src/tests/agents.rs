//! Sessions of agents: what they are told, and how wrong ones end.

use super::*;
use mesh_proto::control::{DirectiveAction, Heartbeat, InstanceGone, TableAck};

#[tokio::test]
async fn an_announced_plugin_becomes_active_and_is_gone_when_its_agent_says_so() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    assert_eq!(
        bench.until("time", InstanceState::Active).await,
        "it takes calls"
    );
    assert_eq!(bench.memory.keys().len(), 2);
    let gone = InstanceGone {
        instance: instance(1),
        reason: "stopped".into(),
    };
    agent.send(agent_frame::Body::Gone(gone)).await;
    bench.until_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_dependent_waits_with_the_reason_until_its_dependency_arrives() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "planner", &["time"])]).await;
    let reason = bench.until("planner", InstanceState::Blocked).await;
    assert_eq!(reason, "planner@1.0.0 needs time ^1, which is not here");
    let other = bench.agent("b", 7).await;
    other.announce(vec![ready(2, "time", &[])]).await;
    bench.until("planner", InstanceState::Active).await;
    other.announce(vec![]).await;
    bench.until("planner", InstanceState::Degraded).await;
    bench.until("planner", InstanceState::Blocked).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_cycle_is_refused_with_its_path_and_the_session_goes_on() {
    let bench = Bench::start().await;
    let mut agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "first", &["second"])]).await;
    bench.until("first", InstanceState::Blocked).await;
    agent.report(ready(2, "second", &["first"])).await;
    match agent.next_but_table().await {
        Ok(coordinator_frame::Body::Rejected(rejected)) => {
            assert_eq!(rejected.instance, instance(2));
            let error = MeshError::from(rejected.error.unwrap()).to_string();
            assert!(error.starts_with("dependency_cycle: "), "{error}");
            assert!(
                error.contains("second@1.0.0 -> first@1.0.0 -> second@1.0.0"),
                "{error}"
            );
            assert!(error.contains("node a"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    agent.report(ready(3, "third", &[])).await;
    bench.until("third", InstanceState::Active).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_broken_manifest_is_refused_by_itself_with_all_its_mistakes() {
    let bench = Bench::start().await;
    let mut agent = bench.agent("a", 7).await;
    let mut broken = ready(1, "Time!", &[]);
    broken.manifest.as_mut().unwrap().version = "one".into();
    agent.announce(vec![broken, ready(2, "good", &[])]).await;
    match agent.next_but_table().await {
        Ok(coordinator_frame::Body::Rejected(rejected)) => {
            let error = MeshError::from(rejected.error.unwrap()).to_string();
            assert!(error.starts_with("invalid_manifest: "), "{error}");
            assert!(
                error.contains("name: ") && error.contains("version: "),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    bench.until("good", InstanceState::Active).await;
    // One that breaks later is no longer what it was.
    let mut broken = ready(2, "good", &[]);
    broken.phase = 99;
    agent.report(broken).await;
    bench.until_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn an_agent_that_reads_nothing_and_announces_nonsense_loses_its_session() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let frames = agent.frames.clone();
    let flood = tokio::spawn(async move {
        for _ in 0..20_000 {
            let mut broken = ready(2, "other", &[]);
            broken.phase = 99;
            let body = Some(agent_frame::Body::Report(broken));
            if frames.send(AgentFrame { body }).await.is_err() {
                return;
            }
        }
    });
    let waiting = async {
        loop {
            let nodes = bench
                .admin()
                .list_nodes(mesh_proto::admin::ListNodesRequest {})
                .await;
            if nodes
                .unwrap()
                .into_inner()
                .nodes
                .iter()
                .all(|node| !node.connected)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("its session ends");
    flood.abort();
    bench.stop().await;
}

#[tokio::test]
async fn wrong_beginnings_end_with_one_clear_error_each() {
    let bench = Bench::start().await;
    for (mesh, node, generation, text) in [
        (
            "other",
            "a",
            7,
            "invalid_argument: mesh: this coordinator serves mesh \"default\", not \"other\"; correct \
             mesh.name",
        ),
        (
            "default",
            "A!",
            7,
            "invalid_argument: node.node: node name \"A!\" is not valid",
        ),
        ("default", "a", 0, "invalid_argument: node.generation: is 0"),
    ] {
        let mut agent = Agent::open(bench.channel.clone()).await;
        agent.hello(mesh, node, generation).await;
        let error = agent.end().await;
        assert!(error.starts_with(text), "{error}");
    }
    let mut agent = Agent::open(bench.channel.clone()).await;
    agent
        .send(agent_frame::Body::Heartbeat(Heartbeat::default()))
        .await;
    let error = agent.end().await;
    assert_eq!(
        error,
        "protocol_violation: the first frame of a session is a hello"
    );
    let mut agent = bench.agent("a", 7).await;
    agent.hello("default", "a", 7).await;
    assert_eq!(
        agent.end().await,
        "protocol_violation: a session has one hello"
    );
    bench.stop().await;
}

#[tokio::test]
async fn ghosts_and_second_sessions_are_refused_and_a_new_generation_takes_over() {
    let bench = Bench::start().await;
    let mut first = bench.agent("a", 7).await;
    first.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    for generation in [6, 7] {
        let mut ghost = Agent::open(bench.channel.clone()).await;
        ghost.hello("default", "a", generation).await;
        let error = ghost.end().await;
        assert!(
            error.starts_with("stale_node: node a of generation"),
            "{error}"
        );
        assert!(error.contains("give one another"), "{error}");
    }
    let _second = bench.agent("a", 8).await;
    let error = first.end().await;
    assert!(error.contains("generation 8 has connected"), "{error}");
    bench.until_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_node_whose_stream_is_gone_is_evicted_after_its_lease_and_a_silent_one_is_not() {
    let bench = Bench::start().await;
    let silent = bench.agent("silent", 7).await;
    silent.announce(vec![ready(1, "quiet", &[])]).await;
    let leaving = bench.agent("leaving", 7).await;
    leaving.announce(vec![ready(2, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    bench.until("quiet", InstanceState::Active).await;
    let begun = std::time::Instant::now();
    drop(leaving);
    let waiting = async {
        while bench.plugins().await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it is evicted");
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "not before its lease"
    );
    bench.until("quiet", InstanceState::Active).await;
    bench.stop().await;
}

#[tokio::test]
async fn an_agent_gets_the_table_acknowledges_it_and_is_told_to_unload() {
    let bench = Bench::start().await;
    let mut agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let revision = loop {
        if let coordinator_frame::Body::Table(update) = agent.next().await.unwrap() {
            let update = control::TableUpdate::decode(update).unwrap();
            let mut routes = update.instances.iter();
            if routes.any(|route| route.state() == InstanceState::Active) {
                break update.to;
            }
        }
    };
    agent
        .send(agent_frame::Body::TableAck(TableAck { revision }))
        .await;
    let waiting = async {
        loop {
            let nodes = bench
                .admin()
                .list_nodes(mesh_proto::admin::ListNodesRequest {})
                .await;
            let nodes = nodes.unwrap().into_inner().nodes;
            let node = nodes.first().expect("a node");
            assert!(node.connected && node.instances == 1);
            if node.acknowledged == revision {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the acknowledgement is shown");
    let unload = mesh_proto::admin::UnloadPluginRequest {
        name: "time".into(),
        reason: "a test".into(),
        cascade: false,
    };
    bench.admin().unload_plugin(unload).await.unwrap();
    match agent.next_but_table().await {
        Ok(coordinator_frame::Body::Directive(directive)) => {
            assert_eq!(directive.action(), DirectiveAction::Unload);
            assert_eq!(
                (directive.plugin.as_str(), directive.reason.as_str()),
                ("time", "a test")
            );
        }
        other => panic!("{other:?}"),
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_stop_tells_agents_and_writes_that_their_sessions_are_closed() {
    let bench = Bench::start().await;
    let mut agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let memory = bench.stop().await;
    let error = agent.end().await;
    assert!(
        error.starts_with("no_coordinator: this coordinator is stopping"),
        "{error}"
    );
    assert_eq!(memory.keys().len(), 2, "nothing is deleted");
    let inner = memory.inner.lock().unwrap();
    let node = inner.entries.get("node.a").unwrap().0.clone().unwrap();
    assert!(
        String::from_utf8_lossy(&node).contains(r#""holder":null"#),
        "{node:?}"
    );
}
