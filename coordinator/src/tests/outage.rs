//! The store's outages and restarts of the coordinator.

use super::*;
use futures::FutureExt;
use mesh_proto::admin::DisablePluginRequest;

async fn disable(bench: &Bench) -> Result<(), String> {
    let request = DisablePluginRequest {
        name: "time".into(),
        reason: String::new(),
    };
    let done = bench.admin().disable_plugin(request).await;
    done.map(|_| ())
        .map_err(|error| status::from_status(&error).to_string())
}

fn readiness(bench: &Bench) -> (bool, String) {
    let report = bench.context.readiness.report();
    let check = report
        .checks
        .into_iter()
        .find(|check| check.name == "registry")
        .unwrap();
    (check.ready, check.detail)
}

async fn until_ready(bench: &Bench, ready: bool) {
    let waiting = async {
        while readiness(bench).0 != ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it says how it stands");
}

#[tokio::test]
async fn without_the_store_the_table_is_served_changes_are_refused_and_it_recovers() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    until_ready(&bench, true).await;
    bench.memory.lose();
    until_ready(&bench, false).await;
    assert!(
        readiness(&bench).1.contains("changes are refused"),
        "{:?}",
        readiness(&bench)
    );
    bench.until("time", InstanceState::Active).await;
    let begun = std::time::Instant::now();
    let error = disable(&bench).await.unwrap_err();
    assert!(
        error.starts_with("disconnected: the registry's store can't be reached"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    // What changes meanwhile is not lost, and a lost store evicts nobody.
    agent.report(ready(2, "other", &[])).await;
    let gone = bench.agent("b", 7).await;
    gone.announce(vec![ready(3, "third", &[])]).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    bench.until("time", InstanceState::Active).await;
    bench.memory.find();
    bench.until("other", InstanceState::Active).await;
    bench.until("third", InstanceState::Active).await;
    until_ready(&bench, true).await;
    disable(&bench).await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_store_that_can_only_be_read_is_told_of_and_found_to_be_well_again() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    bench.memory.fill(true);
    agent.report(ready(2, "other", &[])).await;
    let noted = async |wanted: &str| {
        let waiting = async {
            while !readiness(&bench).1.contains(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("it says how it stands");
        readiness(&bench)
    };
    let (is_ready, why) = noted("no space left").await;
    assert!(is_ready && why.contains("does not store"), "{why}");
    bench.memory.fill(false);
    bench.until("other", InstanceState::Active).await;
    let waiting = async {
        while readiness(&bench) != (true, String::new()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it is well again");
    bench.stop().await;
}

#[tokio::test]
async fn before_the_store_was_ever_reached_questions_say_so_and_agents_wait_for_it() {
    let memory = Memory::new();
    memory.lose();
    let bench = Bench::over(memory, |_| {}).await;
    let mut agent = Agent::open(bench.channel.clone()).await;
    agent.hello("default", "a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    let listed = bench
        .admin()
        .list_plugins(ListPluginsRequest::default())
        .await;
    let error = status::from_status(&listed.unwrap_err()).to_string();
    assert!(
        error.starts_with("disconnected: the registry is not loaded yet"),
        "{error}"
    );
    assert!(!readiness(&bench).0);
    bench.memory.find();
    let welcome = agent.next().await;
    assert!(
        matches!(welcome, Ok(coordinator_frame::Body::Welcome(_))),
        "{welcome:?}"
    );
    until_ready(&bench, true).await;
    bench.until("time", InstanceState::Active).await;
    bench.stop().await;
}

/// How joining and following begin.
async fn join_and_follow(bench: &Bench, node: &str) -> [Result<(), String>; 2] {
    let mut agent = Agent::open(bench.channel.clone()).await;
    agent.hello("default", node, 7).await;
    let mut gateway = table::Gateway::open(bench, "default", None).await;
    let (joined, followed) = tokio::join!(agent.next(), gateway.next());
    [
        joined.map(|_| ()).map_err(|error| error.to_string()),
        followed.map(|_| ()),
    ]
}

#[tokio::test]
async fn while_the_store_stays_out_of_reach_nobody_new_may_join_and_who_is_here_stays() {
    let never = Memory::new();
    never.lose();
    let never = Bench::over(never, |_| {}).await;
    let lost = Bench::start().await;
    let mut here = lost.agent("here", 7).await;
    here.announce(vec![ready(1, "time", &[])]).await;
    lost.until("time", InstanceState::Active).await;
    lost.memory.lose();
    until_ready(&lost, false).await;
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    for (bench, text) in [(&never, "has not reached"), (&lost, "has lost")] {
        for refused in join_and_follow(bench, "new").await {
            let error = refused.unwrap_err();
            assert!(
                error.starts_with("disconnected: this coordinator "),
                "{error}"
            );
            assert!(error.contains(text), "{error}");
            assert!(error.contains("another coordinator"), "{error}");
        }
    }
    lost.until("time", InstanceState::Active).await;
    lost.memory.find();
    until_ready(&lost, true).await;
    for joined in join_and_follow(&lost, "new").await {
        assert_eq!(joined, Ok(()));
    }
    here.report(ready(2, "other", &[])).await;
    lost.until("other", InstanceState::Active).await;
    let unheard = here.next_but_table().now_or_never();
    assert!(unheard.is_none(), "{unheard:?}");
    never.stop().await;
    lost.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_same_registry_is_back_and_its_node_has_a_lease_to_return() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    disable(&bench).await.unwrap();
    bench.until("time", InstanceState::Initialized).await;
    let memory = bench.stop().await;
    drop(agent);
    let bench = Bench::over(memory, |config| {
        config.lease = HumanDuration::from_millis(1_500);
    })
    .await;
    until_ready(&bench, true).await;
    let reason = bench.until("time", InstanceState::Initialized).await;
    assert!(reason.starts_with("disabled by"), "{reason}");
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Initialized).await;
    drop(agent);
    bench.until_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn metrics_tell_sessions_followers_instances_and_writes() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let text = bench.context.metrics.render();
    for line in [
        "plugmesh_coordinator_sessions 1",
        "plugmesh_coordinator_followers 1",
        "plugmesh_coordinator_instances{state=\"active\"} 1",
        "plugmesh_coordinator_instances{state=\"blocked\"} 0",
        "plugmesh_coordinator_revision ",
        "plugmesh_coordinator_writes_total{outcome=\"stored\"} ",
        "plugmesh_coordinator_step_seconds_count ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line() {
    let bench = Bench::start().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = RunConfig::default();
    config.coordinator.listen = taken.local_addr().unwrap();
    let memory = Memory::new();
    let follower = memory.follow();
    let started =
        Running::start(&config, &Context::default(), (memory, follower), no_audit()).await;
    let error = started.err().expect("it is taken").to_string();
    assert!(error.starts_with("coordinator.listen: port "), "{error}");
    assert!(error.contains("taken by another program"), "{error}");
    bench.stop().await;
}
